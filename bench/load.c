/*
 * The clients of the benchmarks: one thread, directly at the backend or through a proxy.
 *
 *   load KEY=VALUE...     (the keys are in `keys` below)
 *
 * kind: hs   connect, ask the proxy, one byte there and back, close, again
 *       rr   64 bytes there and back, one after the other, on standing connections
 *       up   send without end; down  receive without end
 *       probe one connection to `via`: the exit status says whether something listens
 *       idle open `conns`, one byte there and back on each; say so on standard output; hold them until end of input
 *
 * First all connections are opened; once they stand (or after a limit) a warm-up of `warm` seconds follows, and then the
 * `seconds` that count. Sources and destinations rotate over `from_count` and `to_count` consecutive addresses, since the
 * ports between two addresses run out otherwise and what is measured is the search for a free one.
 *
 * The result is one line of JSON. An error (a connection that fails, ends early or is refused) is counted, and the first
 * is told; a connection of hs is then replaced, others are not. `stalled` are the connections that did not move while it
 * counted.
 */
#include "common.h"
#include "latency.h"
#include "sample.h"
#include "socks6.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_LIMIT_NS 5000000000u /* for all connections to stand */
#define MESSAGE_LEN 64u
#define HEAD_LEN 256u /* the longest reply of a proxy that is understood */
#define ERROR_LIMIT 1000u
#define IDLE_BATCH 64u /* idle: connections being set up at once */

enum kind { HS, RR, UP, DOWN, IDLE, PROBE, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"hs", "rr", "up", "down", "idle", "probe"};

/*
 * PLAIN is also a relay that asks for nothing; ONCE is SOCKS 6 with the first data in the segment of the request, LOGIN the
 * same with name and password; FAST has both in the SYN (TCP Fast Open) and asks the proxy to do the same. Without a cookie it is SOCKS6.
 */
enum proto { PLAIN, SOCKS5, SOCKS6, ONCE, LOGIN, FAST, PROTO_COUNT };
static const char *const proto_names[PROTO_COUNT] = {"plain",       "socks5",       "socks6",
                                                     "socks6-once", "socks6-login", "socks6-tfo"};

enum step { CLOSED, CONNECTING, GREETED, ASKED, READY };

struct conn {
    int fd;
    enum step step;
    size_t head_len;        /* bytes of `head` that have come */
    size_t wanted_len;      /* READY, rr/hs/idle: bytes of the answer still to come */
    bool is_data_sent;      /* the first message went out with the request */
    bool is_asked;          /* FAST: and that with the SYN */
    uint64_t started_ns;    /* connect (hs) or message (rr) */
    uint64_t moved_ns;      /* last progress */
    uint8_t head[HEAD_LEN]; /* the proxy's replies */
};

static enum kind kind;
static enum proto proto;
static unsigned conn_count = 1, from_count = 1, to_count = 1;
static double seconds = 1, warm_seconds = 0.3;
static in_addr_t from_host, to_host, via_host;
static uint16_t to_port, via_port;
static const char *cpu_source, *tally_path;
static pid_t backend_pid;

static int epoll;
static uint8_t *chunk;
static struct latency *latencies;
static unsigned long long syn_data_count; /* SYNs that had the request in them */
static uint64_t now_ns;
static unsigned long long ops, down_bytes, error_count;
static char first_error[128];
static unsigned ready_count; /* connections that have become READY, ever */
static unsigned open_count;  /* connections that are not CLOSED */

/* ---- what goes wrong ---- */

static void client_connect(struct conn *conn);

static void fail(struct conn *conn, const char *what)
{
    if (error_count++ == 0) {
        (void)snprintf(first_error, sizeof first_error, "%s", what);
    }
    (void)close(conn->fd);
    conn->step = CLOSED;
    open_count--;
    if (kind == HS && error_count < ERROR_LIMIT) {
        client_connect(conn);
    }
}

static void fail_errno(struct conn *conn, const char *what)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    fail(conn, text);
}

static void fail_code(struct conn *conn, const char *what, unsigned code)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%s %u", what, code);
    fail(conn, text);
}

/* ---- a connection's life ---- */

static void watch(struct conn *conn, int op, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(epoll, op, conn->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static size_t message_len(void)
{
    return kind == RR ? MESSAGE_LEN : 1;
}

/* As connect(2): VER CMD OPTLEN(2) PORT(2) PAD ATYP ADDR, a Stack option for TFO towards the server, the first message. */
static int connect_fast(struct conn *conn, const struct sockaddr_in *proxy)
{
    static unsigned number;
    struct sockaddr_in to = ipv4(to_host + number++ % to_count, to_port);
    uint8_t request[20 + MESSAGE_LEN] = {6, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 8, 2 << 6 | 4, 1};
    size_t len = 20 + (kind == UP || kind == DOWN ? 0 : message_len());
    memcpy(request + 4, &to.sin_port, 2);
    memcpy(request + 8, &to.sin_addr, 4);
    ssize_t taken =
        sendto(conn->fd, request, len, MSG_FASTOPEN | MSG_NOSIGNAL, (const struct sockaddr *)proxy, sizeof *proxy);
    if (taken >= 0 && (size_t)taken != len) {
        errno = EMSGSIZE; /* a SYN has room for far more */
        return -1;
    }
    conn->is_asked = taken >= 0;
    conn->is_data_sent = taken > 20;
    syn_data_count += conn->is_asked;
    return taken < 0 ? -1 : 0;
}

static void client_connect(struct conn *conn)
{
    static unsigned number;
    number++;
    *conn = (struct conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (conn->fd < 0) {
        die("socket");
    }
    open_count++;
    set_nodelay(conn->fd);
    const int on = 1;
    (void)setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in source = ipv4(from_host + number % from_count, 0);
    if (bind(conn->fd, (const struct sockaddr *)&source, sizeof source) < 0) {
        die("bind");
    }
    /* Another stride than that of the sources: all pairs of both are used. */
    in_addr_t host = to_host + number / from_count % to_count;
    struct sockaddr_in to = via_port != 0 ? ipv4(via_host, via_port) : ipv4(host, to_port);
    conn->step = CONNECTING;
    conn->started_ns = conn->moved_ns = clock_ns(CLOCK_MONOTONIC);
    int rc = proto == FAST ? connect_fast(conn, &to) : connect(conn->fd, (const struct sockaddr *)&to, sizeof to);
    if (rc < 0 && errno != EINPROGRESS) {
        fail_errno(conn, "connect");
        return;
    }
    watch(conn, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* False if that was the end of the connection. */
static bool send_all(struct conn *conn, const void *data, size_t len)
{
    if (send(conn->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len) {
        fail_errno(conn, "send");
        return false;
    }
    return true;
}

static void send_message(struct conn *conn)
{
    conn->wanted_len = message_len();
    if (kind == RR) {
        conn->started_ns = now_ns;
    }
    (void)send_all(conn, chunk, conn->wanted_len);
}

static void become_ready(struct conn *conn)
{
    conn->step = READY;
    ready_count++;
    if (kind == UP || kind == DOWN) {
        watch(conn, EPOLL_CTL_MOD, kind == UP ? EPOLLOUT : EPOLLIN);
    } else if (conn->is_data_sent) {
        conn->wanted_len = message_len();
    } else {
        send_message(conn);
    }
}

/* SOCKS 5: VER CMD RSV ATYP ADDR PORT. */
static void ask(struct conn *conn)
{
    if (conn->is_asked) {
        conn->step = ASKED;
        return;
    }
    static unsigned number;
    struct sockaddr_in to = ipv4(to_host + number++ % to_count, to_port);
    uint8_t request[SOCKS6_LOGIN_REQUEST_LEN + MESSAGE_LEN] = {5, 1, 0, 1};
    size_t len = 10;
    if (proto == SOCKS5) {
        memcpy(request + 4, &to.sin_addr, 4);
        memcpy(request + 8, &to.sin_port, 2);
    } else if (proto == LOGIN) {
        socks6_login_request(&to, request);
        len = SOCKS6_LOGIN_REQUEST_LEN;
    } else {
        socks6_request(&to, request);
        len = SOCKS6_REQUEST_LEN;
    }
    if ((proto == ONCE || proto == LOGIN) && kind != UP && kind != DOWN) {
        len += message_len();
        conn->is_data_sent = true;
    }
    conn->step = ASKED;
    (void)send_all(conn, request, len);
}

static void connected(struct conn *conn)
{
    if (proto == PLAIN) {
        become_ready(conn);
    } else if (proto == SOCKS5) {
        conn->step = GREETED;
        (void)send_all(conn, "\5\1\0", 3);
    } else {
        ask(conn);
    }
}

/* The answer to a message is whole. */
static void answered(struct conn *conn)
{
    ops++;
    latency_add(latencies, now_ns - conn->started_ns);
    if (kind == RR) {
        send_message(conn);
    } else if (kind == HS) {
        (void)close(conn->fd);
        open_count--;
        client_connect(conn);
    }
}

/* ---- replies of proxies: all return the length of the reply in `head`, 0 while it is incomplete ---- */

static size_t socks5_reply_len(const uint8_t *head, size_t len)
{
    if (len < 5) {
        return 0;
    }
    size_t whole = head[3] == 1 ? 10 : head[3] == 4 ? 22 : 7 + (size_t)head[4];
    return len < whole ? 0 : whole;
}

/* The reply's code, 0 for success. */
static unsigned reply_code(const uint8_t *head)
{
    if (proto == SOCKS5) {
        return head[0] == 5 ? head[1] : 255;
    }
    return socks6_reply_code(head);
}

/* Takes what it can from `head`; bytes behind a reply belong to the answer. */
static void take_head(struct conn *conn)
{
    if (conn->step == GREETED) {
        if (conn->head_len < 2) {
            return;
        }
        if (conn->head[0] != 5 || conn->head[1] != 0) {
            fail_code(conn, "the proxy wants authentication method", conn->head[1]);
            return;
        }
        conn->head_len = 0;
        ask(conn);
        return;
    }
    size_t len =
        proto == SOCKS5 ? socks5_reply_len(conn->head, conn->head_len) : socks6_reply_len(conn->head, conn->head_len);
    if (len == 0) {
        if (conn->head_len == HEAD_LEN) {
            fail(conn, "the proxy's reply is too long");
        }
        return;
    }
    if (reply_code(conn->head) != 0) {
        fail_code(conn, "the proxy refused with code", reply_code(conn->head));
        return;
    }
    size_t left = conn->head_len - len;
    become_ready(conn);
    if (conn->step != READY || kind == UP || kind == DOWN) {
        return;
    }
    if (left > conn->wanted_len) {
        fail(conn, "more data than was sent");
        return;
    }
    conn->wanted_len -= left;
    if (conn->wanted_len == 0) {
        answered(conn);
    }
}

/* ---- events ---- */

/* Reads what a connection in the given step may read. */
static ssize_t read_some(struct conn *conn)
{
    if (conn->step == READY) {
        return recv(conn->fd, chunk, kind == DOWN ? CHUNK_LEN : MESSAGE_LEN, 0);
    }
    return recv(conn->fd, conn->head + conn->head_len, HEAD_LEN - conn->head_len, 0);
}

/* A read that fills less than was asked for has taken all there is. */
static void readable(struct conn *conn)
{
    ssize_t got = read_some(conn);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got < 0) {
        fail_errno(conn, "recv");
        return;
    }
    if (got == 0) {
        fail(conn, "the connection ended early");
        return;
    }
    conn->moved_ns = now_ns;
    if (conn->step != READY) {
        conn->head_len += (size_t)got;
        take_head(conn);
    } else if (kind == DOWN) {
        down_bytes += (unsigned long long)got;
    } else if ((size_t)got > conn->wanted_len) {
        fail(conn, "more data than was sent");
    } else {
        conn->wanted_len -= (size_t)got;
        if (conn->wanted_len == 0) {
            answered(conn);
        }
    }
}

static void writable_bulk(struct conn *conn)
{
    ssize_t put = send(conn->fd, chunk, CHUNK_LEN, MSG_NOSIGNAL);
    if (put >= 0) {
        conn->moved_ns = now_ns;
    } else if (errno != EAGAIN) {
        fail_errno(conn, "send");
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
    connected(conn);
}

static void handle(struct conn *conn, uint32_t events)
{
    if (conn->step == CLOSED) {
        return;
    }
    if (conn->step == CONNECTING) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
            connect_ended(conn);
        }
        if (conn->step == ASKED && conn->is_asked && (events & EPOLLIN) != 0) {
            readable(conn); /* the reply came with the handshake's end; edge-triggered, it is not said again */
        }
    } else if (conn->step == READY && kind == UP) {
        writable_bulk(conn);
    } else if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) {
        readable(conn);
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

/* ---- the two ways to measure ---- */

static void measure(struct conn *conns)
{
    struct sample sample;
    sample_init(&sample, cpu_source, backend_pid);
    const struct tally *tally = tally_path == NULL ? NULL : map_tally(tally_path);

    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + SETTLE_LIMIT_NS;
    for (unsigned i = 0; i < conn_count; i++) {
        client_connect(&conns[i]);
    }
    do {
        turn();
    } while (ready_count < open_count && now_ns < until_ns && error_count < ERROR_LIMIT);
    run_for(warm_seconds);

    memset(latencies, 0, sizeof *latencies);
    unsigned long long ops_before = ops, down_before = down_bytes, sunk_before = tally == NULL ? 0 : tally->sunk_bytes;
    sample_start(&sample);
    run_for(seconds);
    sample_end(&sample);

    struct sample_counts counts = {
        .ops = ops - ops_before,
        .bytes = kind == UP && tally != NULL ? tally->sunk_bytes - sunk_before : down_bytes - down_before,
        .errors = error_count,
        .first_error = first_error,
        .has_syn_data = proto == FAST,
        .syn_data = syn_data_count,
    };
    for (unsigned i = 0; i < conn_count; i++) {
        counts.stalled += conns[i].step != CLOSED && conns[i].moved_ns < sample.start_ns;
    }
    sample_print(&sample, &counts, latencies);
}

static void hold_idle(struct conn *conns)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
    unsigned opened = 0;
    do {
        while (opened < conn_count && opened - ops < IDLE_BATCH && error_count == 0) {
            client_connect(&conns[opened++]);
        }
        turn();
    } while (ops < conn_count && now_ns < until_ns && error_count == 0);
    printf("{\"held\": %llu, ", ops);
    sample_print_errors(error_count, first_error);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
}

static bool is_listening(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = ipv4(via_host, via_port);
    return fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;
}

/* ---- the command line ---- */

static void set_key(const char *key, const char *value)
{
    static const char *const keys[] = {"kind",     "proto", "conns", "seconds",  "warm",  "from", "from_count", "to",
                                       "to_count", "port",  "via",   "via_port", "tally", "cpu",  "backend"};
    switch (need_name(keys, sizeof keys / sizeof *keys, key)) {
    case 0:
        kind = (enum kind)need_name(kind_names, KIND_COUNT, value);
        break;
    case 1:
        proto = (enum proto)need_name(proto_names, PROTO_COUNT, value);
        break;
    case 2:
        conn_count = need_number(value);
        break;
    case 3:
        seconds = strtod(value, NULL);
        break;
    case 4:
        warm_seconds = strtod(value, NULL);
        break;
    case 5:
        from_host = need_address(value);
        break;
    case 6:
        from_count = need_number(value);
        break;
    case 7:
        to_host = need_address(value);
        break;
    case 8:
        to_count = need_number(value);
        break;
    case 9:
        to_port = (uint16_t)need_number(value);
        break;
    case 10:
        via_host = need_address(value);
        break;
    case 11:
        via_port = (uint16_t)need_number(value);
        break;
    case 12:
        tally_path = value;
        break;
    case 13:
        cpu_source = value;
        break;
    default:
        backend_pid = (pid_t)need_number(value);
        break;
    }
}

int main(int argc, char **argv)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_fd_limit();
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            fprintf(stderr, "usage: load KEY=VALUE...\n");
            return 2;
        }
        *equals = '\0';
        set_key(argv[i], equals + 1);
    }
    if (kind == PROBE) {
        return is_listening() ? 0 : 1;
    }
    if (conn_count == 0 || from_count == 0 || to_count == 0 || to_port == 0 || seconds <= 0) {
        fprintf(stderr, "load: conns, from_count, to_count, port and seconds must be positive\n");
        return 2;
    }
    chunk = need_memory(1, CHUNK_LEN);
    latencies = need_memory(1, sizeof *latencies);
    struct conn *conns = need_memory(conn_count, sizeof *conns);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        die("epoll_create1");
    }
    if (kind == IDLE) {
        hold_idle(conns);
    } else {
        measure(conns);
    }
    free(conns);
    free(latencies);
    free(chunk);
    return 0;
}
