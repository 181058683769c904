/*
 * The client of the DNS benchmarks: one thread, connections over which questions go in DNS over TCP (RFC 7766), at a
 * resolver, or through the DNS service of a proxy.
 *
 *   dns_load KEY=VALUE...     (the keys are in `keys` below)
 *
 * kind: cached    the same NAMES names over and over, which the resolver has to answer without asking the backend
 *       uncached  every question is for a name that nobody has asked for, so that the backend is asked for each
 *
 * proto plain asks `via` itself; socks6 sends CONNECT to 0.0.0.0:53 first. Each connection has `in_flight` questions on
 * their way at any time: for each answer a question is asked, those for the answers of one read together.
 *
 * First all connections are opened; once they stand and, for cached, all names have been answered (or after a limit) a
 * warm-up of `warm` seconds follows, and then the `seconds` that count.
 *
 * Every answer is checked (dns.h), and what the backend was asked meanwhile is compared with the number of answers: a
 * resolver that does not do what the kind says is an error. The result is one line of JSON, as load.c has it; `bytes`
 * are those of the answers. A connection with an error is closed and not replaced.
 */
#include "common.h"
#include "dns.h"
#include "latency.h"
#include "sample.h"
#include "socks6.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_LIMIT_NS 5000000000u
#define NAMES 256u
#define IN_FLIGHT_MAX 64u
#define LENGTH_LEN 2u
#define IN_LEN 65536u
#define DNS_PORT 53

_Static_assert(IN_LEN >= IN_FLIGHT_MAX * (LENGTH_LEN + DNS_ANSWER_MAX), "all answers fit");

enum kind { CACHED, UNCACHED, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"cached", "uncached"};

enum proto { PLAIN, SOCKS6, PROTO_COUNT };
static const char *const proto_names[PROTO_COUNT] = {"plain", "socks6"};

enum step { CLOSED, CONNECTING, ASKED, READY };

/* A question on its way. Its id is its index, and above it the number of uses: an answer that comes twice is noticed. */
struct question {
    uint64_t name, asked_ns;
    uint16_t id;
    bool is_open;
};

struct conn {
    int fd;
    enum step step;
    uint64_t moved_ns; /* last progress */
    size_t in_len;
    struct question questions[IN_FLIGHT_MAX];
    uint8_t in[IN_LEN]; /* the proxy's replies, then answers that are not whole yet */
};

static enum kind kind;
static enum proto proto;
static unsigned conn_count = 1, in_flight = 1, from_count = 1;
static double seconds = 1, warm_seconds = 0.3;
static in_addr_t from_host, via_host;
static uint16_t via_port;
static const char *cpu_source, *tally_path;
static pid_t backend_pid;

static int epoll;
static uint8_t out[IN_FLIGHT_MAX * (LENGTH_LEN + DNS_QUERY_LEN)]; /* questions about to be sent */
static struct latency *latencies;
static uint64_t now_ns, next_name;
static unsigned long long answers, answer_bytes, error_count;
static char first_error[128];
static unsigned ready_count, open_count;

/* ---- what goes wrong ---- */

static void note_error(const char *what)
{
    if (error_count++ == 0) {
        (void)snprintf(first_error, sizeof first_error, "%s", what);
    }
}

static void fail(struct conn *conn, const char *what)
{
    note_error(what);
    (void)close(conn->fd);
    conn->step = CLOSED;
    open_count--;
}

static void fail_errno(struct conn *conn, const char *what)
{
    char text[128];
    (void)snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
    fail(conn, text);
}

/* ---- questions ---- */

static void send_all(struct conn *conn, const void *data, size_t len)
{
    ssize_t sent = send(conn->fd, data, len, MSG_NOSIGNAL);
    if (sent < 0) {
        fail_errno(conn, "send");
    } else if ((size_t)sent < len) {
        fail(conn, "the questions are not read");
    }
}

/* Appends the next question to what is about to be sent. */
static size_t ask(struct question *question, unsigned index, uint8_t *to)
{
    question->name = kind == CACHED ? next_name++ % NAMES : next_name++;
    question->id = (uint16_t)(question->id + IN_FLIGHT_MAX);
    question->id = (uint16_t)((question->id & ~(IN_FLIGHT_MAX - 1)) | index);
    question->asked_ns = now_ns;
    question->is_open = true;
    dns_put16(to, DNS_QUERY_LEN);
    dns_query(question->name, question->id, to + LENGTH_LEN);
    return LENGTH_LEN + DNS_QUERY_LEN;
}

/* Takes one answer; false if it is none. */
static bool take(struct conn *conn, const uint8_t *message, size_t len, unsigned *index)
{
    unsigned id = len < DNS_HEADER_LEN ? 0 : dns_get16(message);
    *index = id % IN_FLIGHT_MAX;
    struct question *question = &conn->questions[*index];
    const char *wrong = "an answer to nothing that was asked";

    if (len >= DNS_HEADER_LEN && question->is_open && question->id == id) {
        wrong = dns_check(question->name, message, len);
    }
    if (wrong != NULL) {
        fail(conn, wrong);
        return false;
    }
    question->is_open = false;
    answers++;
    answer_bytes += len;
    latency_add(latencies, now_ns - question->asked_ns);
    return true;
}

/* Takes the answers that are whole, and asks as many questions. */
static void take_all(struct conn *conn)
{
    size_t used = 0, out_len = 0;

    /* There are no more answers than questions, so that `out` has room for all, unless the server makes answers up. */
    while (conn->in_len - used >= LENGTH_LEN && out_len < sizeof out) {
        size_t len = dns_get16(conn->in + used);
        unsigned index;
        if (conn->in_len - used - LENGTH_LEN < len) {
            break;
        }
        if (!take(conn, conn->in + used + LENGTH_LEN, len, &index)) {
            return;
        }
        used += LENGTH_LEN + len;
        out_len += ask(&conn->questions[index], index, out + out_len);
    }
    conn->in_len -= used;
    memmove(conn->in, conn->in + used, conn->in_len);
    if (out_len > 0) {
        send_all(conn, out, out_len);
    }
}

static void become_ready(struct conn *conn)
{
    size_t out_len = 0;

    conn->step = READY;
    ready_count++;
    for (unsigned i = 0; i < in_flight; i++) {
        out_len += ask(&conn->questions[i], i, out + out_len);
    }
    send_all(conn, out, out_len);
}

/* ---- a connection ---- */

static void open_conn(struct conn *conn, unsigned number)
{
    const int on = 1;
    struct sockaddr_in source = ipv4(from_host + number % from_count, 0), to = ipv4(via_host, via_port);

    memset(conn, 0, sizeof *conn);
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        die("socket");
    }
    open_count++;
    set_nodelay(conn->fd);
    (void)setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(conn->fd, (const struct sockaddr *)&source, sizeof source) < 0) {
        die("bind");
    }
    conn->step = CONNECTING;
    conn->moved_ns = clock_ns(CLOCK_MONOTONIC);
    if (connect(conn->fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        fail_errno(conn, "connect");
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void connected(struct conn *conn)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        die("SO_ERROR");
    }
    if (error != 0) {
        errno = error;
        fail_errno(conn, "connect");
    } else if (proto == PLAIN) {
        become_ready(conn);
    } else {
        uint8_t request[SOCKS6_REQUEST_LEN];
        struct sockaddr_in service = ipv4(INADDR_ANY, DNS_PORT);
        socks6_request(&service, request);
        conn->step = ASKED;
        send_all(conn, request, sizeof request);
    }
}

/* The proxy's replies. */
static void take_head(struct conn *conn)
{
    size_t len = socks6_reply_len(conn->in, conn->in_len);
    if (len == 0) {
        return;
    }
    unsigned code = socks6_reply_code(conn->in);
    if (code != 0) {
        char text[64];
        (void)snprintf(text, sizeof text, "the proxy refused with code %u", code);
        fail(conn, text);
    } else if (conn->in_len > len) {
        fail(conn, "an answer to nothing that was asked");
    } else {
        conn->in_len = 0;
        become_ready(conn);
    }
}

/* True if something came and the connection goes on. A read that fills less than was asked for has taken all there is. */
static bool readable(struct conn *conn)
{
    ssize_t got = recv(conn->fd, conn->in + conn->in_len, IN_LEN - conn->in_len, 0);
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    if (got < 0) {
        fail_errno(conn, "recv");
        return false;
    }
    if (got == 0) {
        fail(conn, "the connection ended early");
        return false;
    }
    conn->moved_ns = now_ns;
    conn->in_len += (size_t)got;
    if (conn->in_len == IN_LEN) {
        fail(conn, "more than was asked for");
    } else if (conn->step == ASKED) {
        take_head(conn);
    } else {
        take_all(conn);
    }
    return conn->step != CLOSED;
}

static void handle(struct conn *conn, uint32_t events)
{
    bool has_end = (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0;

    if (conn->step == CONNECTING && (has_end || (events & EPOLLOUT) != 0)) {
        connected(conn);
    } else if ((conn->step == ASKED || conn->step == READY) && (has_end || (events & EPOLLIN) != 0)) {
        while (readable(conn) && has_end) {
        }
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
    } while (now_ns < until_ns && open_count > 0);
}

/* ---- measuring ---- */

static void settle(struct conn *conns)
{
    uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + SETTLE_LIMIT_NS;

    if (kind == UNCACHED && getrandom(&next_name, sizeof next_name, 0) != (ssize_t)sizeof next_name) {
        die("getrandom");
    }
    for (unsigned i = 0; i < conn_count; i++) {
        open_conn(&conns[i], i);
    }
    /* Questions are asked in the order of the names: with so many answers each name has been answered. */
    unsigned long long wanted = kind == CACHED ? NAMES + conn_count * in_flight : 1;
    do {
        turn();
    } while ((ready_count < open_count || answers < wanted) && open_count > 0 && now_ns < until_ns);
}

/* Whether the backend was asked as the kind says, but for what was on its way at both ends of the sample. */
static void check_questions(unsigned long long answered, unsigned long long asked)
{
    char text[128];
    unsigned long long slack = conn_count * in_flight + answered / 100;

    if (kind == CACHED ? asked > slack : asked + slack < answered) {
        (void)snprintf(text, sizeof text, "%llu questions at the backend for %llu answers", asked, answered);
        note_error(text);
    }
}

static void measure(struct conn *conns)
{
    struct sample sample;
    sample_init(&sample, cpu_source, backend_pid);
    const struct tally *tally = tally_path == NULL ? NULL : map_tally(tally_path);

    settle(conns);
    run_for(warm_seconds);
    memset(latencies, 0, sizeof *latencies);
    unsigned long long answers_before = answers, bytes_before = answer_bytes;
    unsigned long long questions_before = tally == NULL ? 0 : tally->questions;
    sample_start(&sample);
    run_for(seconds);
    sample_end(&sample);

    struct sample_counts counts = {.ops = answers - answers_before, .bytes = answer_bytes - bytes_before};
    if (tally != NULL) {
        check_questions(counts.ops, tally->questions - questions_before);
    }
    for (unsigned i = 0; i < conn_count; i++) {
        counts.stalled += conns[i].step != CLOSED && conns[i].moved_ns < sample.start_ns;
    }
    counts.errors = error_count;
    counts.first_error = first_error;
    sample_print(&sample, &counts, latencies);
}

/* ---- the command line ---- */

static void set_key(const char *key, const char *value)
{
    static const char *const keys[] = {"kind",       "proto", "conns",    "in_flight", "seconds", "warm",   "from",
                                       "from_count", "via",   "via_port", "tally",     "cpu",     "backend"};
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
        in_flight = need_number(value);
        break;
    case 4:
        seconds = strtod(value, NULL);
        break;
    case 5:
        warm_seconds = strtod(value, NULL);
        break;
    case 6:
        from_host = need_address(value);
        break;
    case 7:
        from_count = need_number(value);
        break;
    case 8:
        via_host = need_address(value);
        break;
    case 9:
        via_port = (uint16_t)need_number(value);
        break;
    case 10:
        tally_path = value;
        break;
    case 11:
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
            fprintf(stderr, "usage: dns_load KEY=VALUE...\n");
            return 2;
        }
        *equals = '\0';
        set_key(argv[i], equals + 1);
    }
    if (conn_count == 0 || from_count == 0 || via_port == 0 || seconds <= 0 || in_flight == 0 ||
        in_flight > IN_FLIGHT_MAX) {
        fprintf(stderr, "dns_load: conns, from_count, via_port, seconds and in_flight (at most %u) must be positive\n",
                IN_FLIGHT_MAX);
        return 2;
    }
    latencies = need_memory(1, sizeof *latencies);
    struct conn *conns = need_memory(conn_count, sizeof *conns);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        die("epoll_create1");
    }
    measure(conns);
    free(conns);
    free(latencies);
    return 0;
}
