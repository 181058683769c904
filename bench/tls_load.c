/*
 * The clients of the benchmarks of TLS: one thread, through a proxy that terminates TLS.
 *
 *   tls_load KEY=VALUE...     (the keys are in set_key() below)
 *
 * kind: full     connect, a whole handshake, the request and one byte there and back, close, again
 *       resumed  the same with a ticket (RFC 8446 section 2.2)
 *       early    the same with request and byte as early data (section 2.3)
 *       up       send without end; down  receive without end; each after a whole handshake
 *
 * proto: plain for a relay that asks for nothing; socks6; socks6-token is SOCKS 6 in a session, each request with an
 * idempotence token of its own.
 *
 * TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, and the proxy's certificate is verified. Where tickets, or a session, are needed a
 * first connection alone gets them, before anything counts. One ticket then serves all connections; that each has been resumed
 * (or not), that its early data was accepted, and that its byte came back are verified. Apart from that everything is as
 * in load.c.
 */
#include "common.h"
#include "latency.h"
#include "sample.h"
#include "socks6.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_LIMIT_NS 5000000000u /* for the first connection, and then for all to stand */
#define HEAD_LEN 512u               /* the longest reply of a proxy that is understood */
#define ERROR_LIMIT 1000u
#define BULK_LEN (256u << 10) /* bytes of ciphertext of one system call, about */

enum kind { FULL, RESUMED, EARLY, UP, DOWN, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"full", "resumed", "early", "up", "down"};

enum proto { PLAIN, SOCKS6, TOKEN, PROTO_COUNT };
static const char *const proto_names[PROTO_COUNT] = {"plain", "socks6", "socks6-token"};

enum step { CLOSED, CONNECTING, SHAKING, ASKED, READY };

struct conn {
    int fd;
    SSL *ssl;
    enum step step;
    bool is_first;   /* gets the ticket and the session, and does not count */
    bool is_asked;   /* the request is out */
    bool wants_room; /* what TLS waits for is room to send */
    uint64_t started_ns, moved_ns;
    size_t request_len, head_len;
    size_t reply_len;                                /* 0 = not whole yet */
    uint8_t request[SOCKS6_SESSION_REQUEST_MAX + 1]; /* and the byte that is to come back */
    uint8_t head[HEAD_LEN];                          /* what has come */
};

static enum kind kind;
static enum proto proto;
static unsigned conn_count = 1, from_count = 1, to_count = 1;
static double seconds = 1, warm_seconds = 0.3;
static in_addr_t from_host, to_host, via_host;
static uint16_t to_port, via_port;
static const char *cpu_source, *tally_path, *ca_path;
static pid_t backend_pid;

static int epoll;
static SSL_CTX *context;
static SSL_SESSION *ticket;
static struct socks6_session session;
static bool is_primed; /* there is all that the first connection was for */
static uint8_t *chunk;
static struct latency *latencies;
static uint64_t now_ns;
static unsigned long long ops, down_bytes, error_count;
static char first_error[128];
static unsigned ready_count, open_count;

static bool is_bulk(void)
{
    return kind == UP || kind == DOWN;
}

/* ---- what goes wrong ---- */

static void client_connect(struct conn *conn, bool is_first);

static void count_error(const char *what)
{
    if (error_count++ == 0) {
        (void)snprintf(first_error, sizeof first_error, "%s", what);
    }
}

/* Without this OpenSSL takes the session for a bad one, and never offers its ticket again. */
static void drop(struct conn *conn)
{
    SSL_set_shutdown(conn->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(conn->ssl);
    (void)close(conn->fd);
    conn->step = CLOSED;
    open_count--;
}

static void fail(struct conn *conn, const char *what)
{
    bool is_first = conn->is_first;
    count_error(what);
    drop(conn);
    if (!is_bulk() && !is_first && error_count < ERROR_LIMIT) {
        client_connect(conn, false);
    }
}

static void fail_errno(struct conn *conn, const char *what)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    fail(conn, text);
}

/* After an operation of OpenSSL that has returned `rc`. True if it is to be called again, once something has happened. */
static bool is_waiting(struct conn *conn, int rc, const char *what)
{
    int saved = errno;
    int error = SSL_get_error(conn->ssl, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        conn->wants_room = error == SSL_ERROR_WANT_WRITE;
        return true;
    }
    char text[128];
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    if (error == SSL_ERROR_ZERO_RETURN) {
        reason = "the connection ended early";
    } else if (error == SSL_ERROR_SYSCALL && saved != 0) {
        reason = strerror(saved);
    }
    (void)snprintf(text, sizeof text, "%s: %s", what, reason == NULL ? "failed" : reason);
    fail(conn, text);
    return false;
}

/* ---- a connection's life ---- */

static void watch(struct conn *conn, int op, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(epoll, op, conn->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void make_request(struct conn *conn)
{
    static unsigned number;
    static uint8_t byte;
    struct sockaddr_in to = ipv4(to_host + number++ % to_count, to_port);
    if (proto == SOCKS6) {
        socks6_request(&to, conn->request);
        conn->request_len = SOCKS6_REQUEST_LEN;
    } else if (proto == TOKEN) {
        conn->request_len = socks6_session_request(&to, &session, conn->request);
    }
    if (!is_bulk()) {
        conn->request[conn->request_len++] = byte++;
    }
}

static void client_connect(struct conn *conn, bool is_first)
{
    static unsigned number;
    number++;
    *conn = (struct conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                          .ssl = SSL_new(context),
                          .step = CONNECTING,
                          .is_first = is_first};
    if (conn->fd < 0 || conn->ssl == NULL || SSL_set_fd(conn->ssl, conn->fd) != 1) {
        die("socket");
    }
    open_count++;
    SSL_set_connect_state(conn->ssl);
    if ((kind == RESUMED || kind == EARLY) && !is_first && SSL_set_session(conn->ssl, ticket) != 1) {
        fail(conn, "the ticket is of no use");
        return;
    }
    set_nodelay(conn->fd);
    const int on = 1;
    (void)setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in source = ipv4(from_host + number % from_count, 0);
    if (bind(conn->fd, (const struct sockaddr *)&source, sizeof source) < 0) {
        die("bind");
    }
    struct sockaddr_in to = ipv4(via_host, via_port);
    make_request(conn);
    conn->started_ns = conn->moved_ns = clock_ns(CLOCK_MONOTONIC);
    if (connect(conn->fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        fail_errno(conn, "connect");
        return;
    }
    watch(conn, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* Bulk is zeros. Up to CHUNK_LEN bytes: others wait as well. */
static void read_bulk(struct conn *conn)
{
    unsigned long long until = down_bytes + CHUNK_LEN;
    do {
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(conn->ssl, chunk, BULK_LEN);
        if (got <= 0) {
            (void)is_waiting(conn, got, "recv");
            return;
        }
        if (chunk[0] != 0 || chunk[got - 1] != 0) {
            fail(conn, "other data than was sent");
            return;
        }
        conn->moved_ns = now_ns;
        down_bytes += (unsigned long long)got;
    } while (down_bytes < until && SSL_has_pending(conn->ssl));
}

/* Small records are put together: 16 KiB in each system call would measure this client. */
static void become_ready(struct conn *conn)
{
    conn->step = READY;
    ready_count++;
    if (kind == UP) {
        BIO *buffer = BIO_new(BIO_f_buffer()), *under = BIO_new_socket(conn->fd, BIO_NOCLOSE);
        if (buffer == NULL || under == NULL || BIO_set_write_buffer_size(buffer, BULK_LEN) != 1) {
            die("BIO_f_buffer");
        }
        SSL_set0_wbio(conn->ssl, BIO_push(buffer, under));
    }
    watch(conn, EPOLL_CTL_MOD, kind == UP ? EPOLLOUT : EPOLLIN);
}

/* The byte is back. A stream is ended as TLS has it, so that no proxy takes it for one that was cut. */
static void answered(struct conn *conn)
{
    bool is_first = conn->is_first;
    (void)SSL_shutdown(conn->ssl);
    drop(conn);
    if (!is_first) {
        ops++;
        ready_count++;
        latency_add(latencies, now_ns - conn->started_ns);
        client_connect(conn, false);
        return;
    }
    if ((kind == RESUMED || kind == EARLY) && ticket == NULL) {
        count_error("the proxy gave no ticket");
    } else {
        is_primed = true;
        /* With it OpenSSL would use a ticket once, as clients on real networks should. */
        (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
}

/* The proxy's replies, which are whole; false if they end the connection. */
static bool take_replies(struct conn *conn)
{
    unsigned code = socks6_reply_code(conn->head);
    if (code != 0) {
        char text[64];
        (void)snprintf(text, sizeof text, "the proxy refused with code %u", code);
        fail(conn, text);
        return false;
    }
    if (proto == TOKEN && !socks6_session_reply(&session, conn->head)) {
        fail(conn, session.id_len == 0 ? "the proxy gave no session" : "the proxy took no token");
        return false;
    }
    return true;
}

/* The reply is whole, and `left` bytes of the stream came with it. */
static void take_first_bulk(struct conn *conn, size_t left)
{
    for (size_t i = 0; i < left; i++) {
        if (conn->head[conn->reply_len + i] != 0) {
            fail(conn, "other data than was sent");
            return;
        }
    }
    down_bytes += left;
    become_ready(conn);
    if (kind == DOWN) {
        read_bulk(conn); /* what OpenSSL holds is not announced by epoll */
    }
}

/* What has come so far; false if the connection is another one now, or READY. */
static bool take(struct conn *conn)
{
    if (proto != PLAIN && conn->reply_len == 0) {
        conn->reply_len = socks6_reply_len(conn->head, conn->head_len);
        if (conn->reply_len == 0 && conn->head_len == HEAD_LEN) {
            fail(conn, "the proxy's reply is too long");
            return false;
        }
        if (conn->reply_len == 0) {
            return true;
        }
        if (!take_replies(conn)) {
            return false;
        }
    }
    size_t left = conn->head_len - conn->reply_len;
    if (is_bulk()) {
        take_first_bulk(conn, left);
        return false;
    }
    if (left == 0) {
        return true;
    }
    if (left > 1 || conn->head[conn->reply_len] != conn->request[conn->request_len - 1]) {
        fail(conn, "other data than was sent");
        return false;
    }
    answered(conn);
    return false;
}

static void read_answer(struct conn *conn)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int got = SSL_read(conn->ssl, conn->head + conn->head_len, (int)(HEAD_LEN - conn->head_len));
        if (got <= 0) {
            (void)is_waiting(conn, got, "recv");
            return;
        }
        conn->moved_ns = now_ns;
        conn->head_len += (size_t)got;
        if (!take(conn)) {
            return;
        }
    }
}

/* What is wrong with a handshake that is finished; NULL = nothing. */
static const char *handshake_fault(const struct conn *conn)
{
    bool is_resumed = SSL_session_reused(conn->ssl) == 1;
    if (conn->is_first || kind == FULL || is_bulk()) {
        return is_resumed ? "a session was resumed" : NULL;
    }
    if (!is_resumed) {
        return "the ticket was not taken";
    }
    if (kind == EARLY && SSL_get_early_data_status(conn->ssl) != SSL_EARLY_DATA_ACCEPTED) {
        return "early data was not accepted";
    }
    return NULL;
}

static void shake(struct conn *conn)
{
    size_t put;
    ERR_clear_error();
    errno = 0;
    if (kind == EARLY && !conn->is_first && !conn->is_asked) {
        int rc = SSL_write_early_data(conn->ssl, conn->request, conn->request_len, &put);
        if (rc != 1) {
            (void)is_waiting(conn, rc, "early data");
            return;
        }
        conn->is_asked = true;
    }
    int rc = SSL_do_handshake(conn->ssl);
    if (rc != 1) {
        (void)is_waiting(conn, rc, "handshake");
        return;
    }
    conn->moved_ns = now_ns;
    const char *fault = handshake_fault(conn);
    if (fault != NULL) {
        fail(conn, fault);
        return;
    }
    if (!conn->is_asked && conn->request_len > 0 &&
        SSL_write(conn->ssl, conn->request, (int)conn->request_len) != (int)conn->request_len) {
        fail_errno(conn, "send");
        return;
    }
    conn->step = ASKED;
    if (proto == PLAIN && is_bulk()) {
        become_ready(conn);
    } else {
        read_answer(conn);
    }
}

/* ---- events ---- */

static void write_bulk(struct conn *conn)
{
    ERR_clear_error();
    errno = 0;
    int put = SSL_write(conn->ssl, chunk, BULK_LEN);
    if (put > 0) {
        conn->moved_ns = now_ns;
    } else {
        (void)is_waiting(conn, put, "send");
    }
}

static void connect_ended(struct conn *conn)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        die("SO_ERROR");
    }
    if (error != 0) {
        errno = error;
        fail_errno(conn, "connect");
        return;
    }
    conn->moved_ns = now_ns;
    conn->step = SHAKING;
    shake(conn);
}

static void handle(struct conn *conn, uint32_t events)
{
    const uint32_t input = EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP;
    switch (conn->step) {
    case CLOSED:
        break;
    case CONNECTING:
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
            connect_ended(conn);
        }
        break;
    case SHAKING:
        if ((events & (conn->wants_room ? input | EPOLLOUT : input)) != 0) {
            shake(conn);
        }
        break;
    case ASKED:
        if ((events & input) != 0) {
            read_answer(conn);
        }
        break;
    case READY:
        if (kind == UP) {
            write_bulk(conn);
        } else {
            read_bulk(conn);
        }
        break;
    }
}

static void turn(void)
{
    struct epoll_event events[256];
    int count = epoll_wait(epoll, events, 256, 20);
    now_ns = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++) {
        handle(events[i].data.ptr, events[i].events);
    }
}

static void run_for(double how_long)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(how_long * 1e9);
    do {
        turn();
    } while (now_ns < until_ns && error_count < ERROR_LIMIT);
}

/* ---- the order of things ---- */

/* The ticket and the session. False (and an error is counted) without them. */
static bool prime(struct conn *conn)
{
    if (kind != RESUMED && kind != EARLY && proto != TOKEN) {
        return true;
    }
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + SETTLE_LIMIT_NS;
    client_connect(conn, true);
    do {
        turn();
    } while (!is_primed && now_ns < until_ns && error_count == 0);
    if (!is_primed && error_count == 0) {
        count_error("the first connection got no answer");
    }
    return is_primed;
}

static void settle(struct conn *conns)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + SETTLE_LIMIT_NS;
    for (unsigned i = 0; i < conn_count; i++) {
        client_connect(&conns[i], false);
    }
    do {
        turn();
    } while (ready_count < open_count && now_ns < until_ns && error_count < ERROR_LIMIT);
    run_for(warm_seconds);
}

static void measure(struct conn *conns)
{
    struct sample sample;
    sample_init(&sample, cpu_source, backend_pid);
    const struct tally *tally = tally_path == NULL ? NULL : map_tally(tally_path);
    bool is_good = prime(conns);
    if (is_good) {
        settle(conns);
    }
    memset(latencies, 0, sizeof *latencies);
    unsigned long long ops_before = ops, down_before = down_bytes, sunk_before = tally == NULL ? 0 : tally->sunk_bytes;
    sample_start(&sample);
    if (is_good) {
        run_for(seconds);
    }
    sample_end(&sample);

    struct sample_counts counts = {
        .ops = ops - ops_before,
        .bytes = kind == UP && tally != NULL ? tally->sunk_bytes - sunk_before : down_bytes - down_before,
        .errors = error_count,
        .first_error = first_error,
    };
    for (unsigned i = 0; i < conn_count; i++) {
        counts.stalled += conns[i].step != CLOSED && conns[i].moved_ns < sample.start_ns;
    }
    sample_print(&sample, &counts, latencies);
}

static int keep_ticket(SSL *ssl, SSL_SESSION *offered)
{
    (void)ssl;
    if (ticket != NULL) {
        return 0;
    }
    ticket = offered;
    return 1;
}

static void make_context(void)
{
    static const unsigned char alpn[] = "\6socks6";
    char groups[] = "X25519"; /* not const, for the macro's sake */
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(context, groups) != 1 ||
        (proto != PLAIN && SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn - 1) != 0)) {
        fprintf(stderr, "tls_load: no context\n");
        exit(1);
    }
    if (SSL_CTX_load_verify_locations(context, ca_path, NULL) != 1) {
        fprintf(stderr, "tls_load: %s: no certificate in it\n", ca_path);
        exit(2);
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (kind == DOWN) {
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_default_read_buffer_len(context, BULK_LEN);
    }
}

/* ---- the command line ---- */

static void set_key(const char *key, const char *value)
{
    const struct {
        const char *key;
        const char **text;
        unsigned *number;
        in_addr_t *host;
        double *seconds;
        uint16_t *port;
    } keys[] = {
        {.key = "conns", .number = &conn_count},  {.key = "from_count", .number = &from_count},
        {.key = "to_count", .number = &to_count}, {.key = "from", .host = &from_host},
        {.key = "to", .host = &to_host},          {.key = "via", .host = &via_host},
        {.key = "port", .port = &to_port},        {.key = "via_port", .port = &via_port},
        {.key = "seconds", .seconds = &seconds},  {.key = "warm", .seconds = &warm_seconds},
        {.key = "tally", .text = &tally_path},    {.key = "cpu", .text = &cpu_source},
        {.key = "ca", .text = &ca_path},
    };
    if (strcmp(key, "kind") == 0) {
        kind = (enum kind)need_name(kind_names, KIND_COUNT, value);
        return;
    }
    if (strcmp(key, "proto") == 0) {
        proto = (enum proto)need_name(proto_names, PROTO_COUNT, value);
        return;
    }
    if (strcmp(key, "backend") == 0) {
        backend_pid = (pid_t)need_number(value);
        return;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].key, key) != 0) {
            continue;
        }
        if (keys[i].text != NULL) {
            *keys[i].text = value;
        } else if (keys[i].number != NULL) {
            *keys[i].number = need_number(value);
        } else if (keys[i].host != NULL) {
            *keys[i].host = need_address(value);
        } else if (keys[i].seconds != NULL) {
            *keys[i].seconds = strtod(value, NULL);
        } else {
            *keys[i].port = (uint16_t)need_number(value);
        }
        return;
    }
    fprintf(stderr, "tls_load: no key '%s'\n", key);
    exit(2);
}

int main(int argc, char **argv)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    raise_fd_limit();
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            fprintf(stderr, "usage: tls_load KEY=VALUE...\n");
            return 2;
        }
        *equals = '\0';
        set_key(argv[i], equals + 1);
    }
    if (conn_count == 0 || from_count == 0 || to_count == 0 || to_port == 0 || via_port == 0 || seconds <= 0 ||
        ca_path == NULL || (proto == TOKEN && is_bulk())) {
        fprintf(stderr,
                "tls_load: conns, from_count, to_count, port, via_port and seconds must be positive, ca must be "
                "a file, and socks6-token is for handshakes\n");
        return 2;
    }
    make_context();
    chunk = need_memory(1, CHUNK_LEN);
    latencies = need_memory(1, sizeof *latencies);
    struct conn *conns = need_memory(conn_count, sizeof *conns);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        die("epoll_create1");
    }
    measure(conns);
    for (unsigned i = 0; i < conn_count; i++) {
        if (conns[i].step != CLOSED) {
            drop(&conns[i]);
        }
    }
    free(conns);
    free(latencies);
    free(chunk);
    SSL_SESSION_free(ticket);
    SSL_CTX_free(context);
    return 0;
}
