/*
 * Load for bench/relay.py: one backend process and one client process on loopback, with or without a SOCKS 5 proxy
 * between them.
 *
 *   load MODE CONNECTIONS SECONDS [PROXY_PORT PROXY_PID]
 *
 * MODE: up (clients send without end), down (the backend does), rr (64 bytes there and back, one after the other), hs
 * (connect, SOCKS exchange, one byte there and back, close). After a warm-up it counts for SECONDS what arrives and
 * prints one line: operations (rr, hs), bytes, seconds, the proxy's CPU seconds, the CPU seconds of both ends
 * together.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_NS 300000000u
#define CHUNK_LEN (1u << 20)
#define MESSAGE_LEN 64
#define ADDRESSES 32u /* destinations and sources rotate, so that ports do not run out */

enum mode { UP, DOWN, RR, HS };

enum step { CONNECTING, GREETED, ASKED, READY };

struct conn {
    int fd;
    enum step step;
    size_t wanted; /* bytes still to come in this step */
};

struct counts {
    atomic_ullong ops, bytes; /* bytes at their receiver */
};

static enum mode mode;
static uint16_t backend_port, proxy_port;
static struct counts *counts;
static uint8_t *chunk;

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in address(unsigned host, uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + host);
    return addr;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) {
        die("clock_gettime");
    }
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void add(int epoll, struct conn *conn, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static void set_nodelay(int fd)
{
    const int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) {
        die("TCP_NODELAY");
    }
}

/* ---- backend ---- */

/* False once the peer is gone. */
static bool serve(const struct conn *conn)
{
    if (mode == DOWN) {
        return send(conn->fd, chunk, CHUNK_LEN, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
    }
    ssize_t got = recv(conn->fd, chunk, CHUNK_LEN, 0);
    if (got <= 0) {
        return got < 0 && errno == EAGAIN;
    }
    if (mode == UP) {
        counts->bytes += (unsigned long long)got;
    } else if (send(conn->fd, chunk, (size_t)got, MSG_NOSIGNAL) != got) {
        return false;
    }
    return true;
}

static _Noreturn void run_backend(int listener)
{
    int epoll = epoll_create1(0);
    struct conn accepting = {.fd = listener};
    add(epoll, &accepting, EPOLLIN);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn != &accepting) {
                if (!serve(conn)) {
                    (void)close(conn->fd);
                    free(conn);
                }
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                set_nodelay(fd);
                struct conn *accepted = calloc(1, sizeof *accepted);
                if (accepted == NULL) {
                    die("calloc");
                }
                accepted->fd = fd;
                add(epoll, accepted, mode == DOWN ? EPOLLOUT : EPOLLIN);
            }
        }
    }
}

/* ---- clients ---- */

static void client_connect(int epoll, struct conn *conn)
{
    static unsigned number;
    unsigned host = number++ % ADDRESSES;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (conn->fd < 0) {
        die("socket");
    }
    set_nodelay(conn->fd);
    const int on = 1;
    (void)setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in source = address(host, 0);
    if (bind(conn->fd, (const struct sockaddr *)&source, sizeof source) < 0) {
        die("bind");
    }
    struct sockaddr_in to = proxy_port != 0 ? address(0, proxy_port) : address(host, backend_port);
    if (connect(conn->fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        die("connect");
    }
    conn->step = CONNECTING;
    add(epoll, conn, EPOLLIN | EPOLLOUT | EPOLLET);
}

static void send_all(const struct conn *conn, const void *data, size_t len)
{
    if (send(conn->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len) {
        die("send");
    }
}

static void start_ready(struct conn *conn)
{
    conn->step = READY;
    conn->wanted = mode == RR ? MESSAGE_LEN : 1;
    if (mode == RR || mode == HS) {
        send_all(conn, chunk, conn->wanted);
    }
}

static void ask(struct conn *conn)
{
    static unsigned number;
    struct sockaddr_in to = address(number++ % ADDRESSES, backend_port);
    uint8_t request[10] = {5, 1, 0, 1};
    memcpy(request + 4, &to.sin_addr, 4);
    memcpy(request + 8, &to.sin_port, 2);
    send_all(conn, request, sizeof request);
    conn->step = ASKED;
    conn->wanted = 10;
}

/* The bytes of a step have come. */
static void advance(int epoll, struct conn *conn)
{
    switch (conn->step) {
    case CONNECTING:
        if (proxy_port == 0) {
            start_ready(conn);
        } else {
            send_all(conn, "\5\1\0", 3);
            conn->step = GREETED;
            conn->wanted = 2;
        }
        break;
    case GREETED:
        ask(conn);
        break;
    case ASKED:
        start_ready(conn);
        break;
    case READY:
        counts->ops++;
        if (mode == RR) {
            start_ready(conn);
        } else {
            (void)close(conn->fd);
            client_connect(epoll, conn);
        }
        break;
    }
}

static void read_step(int epoll, struct conn *conn)
{
    for (;;) {
        bool is_bulk = conn->step == READY && mode == DOWN;
        ssize_t got = recv(conn->fd, chunk, is_bulk ? CHUNK_LEN : conn->wanted, 0);
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            die("the connection ended");
        }
        if (is_bulk) {
            counts->bytes += (unsigned long long)got;
            return; /* one at a time: see client_ready() */
        }
        conn->wanted -= (size_t)got;
        if (conn->wanted > 0) {
            continue;
        }
        bool is_last = conn->step == READY && mode == HS;
        if (conn->step == ASKED && chunk[1] != 0) {
            fprintf(stderr, "the proxy refused: reply %d\n", chunk[1]);
            exit(1);
        }
        advance(epoll, conn);
        if (is_last) {
            return; /* another connection by now */
        }
        if (conn->step == READY && (mode == UP || mode == DOWN)) {
            struct epoll_event event = {.events = mode == UP ? EPOLLOUT : EPOLLIN, .data.ptr = conn};
            if (epoll_ctl(epoll, EPOLL_CTL_MOD, conn->fd, &event) < 0) {
                die("epoll_ctl");
            }
            return;
        }
    }
}

static void client_ready(int epoll, struct conn *conn, uint32_t events)
{
    if (conn->step == READY && mode == UP) {
        if (send(conn->fd, chunk, CHUNK_LEN, MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
            die("send");
        }
        return;
    }
    if (conn->step == CONNECTING) {
        if ((events & EPOLLOUT) == 0) {
            return;
        }
        advance(epoll, conn);
        if (conn->step == READY && (mode == UP || mode == DOWN)) {
            struct epoll_event event = {.events = mode == UP ? EPOLLOUT : EPOLLIN, .data.ptr = conn};
            if (epoll_ctl(epoll, EPOLL_CTL_MOD, conn->fd, &event) < 0) {
                die("epoll_ctl");
            }
        }
        return;
    }
    if ((events & EPOLLIN) != 0) {
        read_step(epoll, conn);
    }
}

static void run_clients(int epoll, uint64_t until_ns)
{
    while (clock_ns(CLOCK_MONOTONIC) < until_ns) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, 50);
        for (int i = 0; i < count; i++) {
            client_ready(epoll, events[i].data.ptr, events[i].events);
        }
    }
}

static clockid_t cpu_clock(pid_t pid)
{
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) != 0) {
        die("clock_getcpuclockid");
    }
    return clock;
}

int main(int argc, char **argv)
{
    static const char *const modes[] = {"up", "down", "rr", "hs"};
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: load up|down|rr|hs CONNECTIONS SECONDS [PROXY_PORT PROXY_PID]\n");
        return 2;
    }
    while (mode <= HS && strcmp(argv[1], modes[mode]) != 0) {
        mode++;
    }
    unsigned conn_count = (unsigned)strtoul(argv[2], NULL, 10);
    uint64_t duration_ns = (uint64_t)(strtod(argv[3], NULL) * 1e9);
    if (mode > HS || conn_count == 0 || duration_ns == 0) {
        fprintf(stderr, "load: bad arguments\n");
        return 2;
    }
    clockid_t proxy_clock = 0;
    if (argc == 6) {
        proxy_port = (uint16_t)strtoul(argv[4], NULL, 10);
        proxy_clock = cpu_clock((pid_t)strtol(argv[5], NULL, 10));
    }
    chunk = calloc(1, CHUNK_LEN);
    struct conn *conns = calloc(conn_count, sizeof *conns);
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (chunk == NULL || conns == NULL || counts == MAP_FAILED) {
        die("memory");
    }

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t any_len = sizeof any;
    if (listener < 0 || bind(listener, (const struct sockaddr *)&any, sizeof any) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&any, &any_len) < 0) {
        die("listen");
    }
    backend_port = ntohs(any.sin_port);
    pid_t backend = fork();
    if (backend < 0) {
        die("fork");
    }
    if (backend == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_backend(listener);
    }
    (void)close(listener);

    int epoll = epoll_create1(0);
    for (unsigned i = 0; i < conn_count; i++) {
        client_connect(epoll, &conns[i]);
    }
    run_clients(epoll, clock_ns(CLOCK_MONOTONIC) + WARM_UP_NS);

    clockid_t backend_clock = cpu_clock(backend);
    unsigned long long ops = counts->ops, bytes = counts->bytes;
    uint64_t proxy_ns = argc == 6 ? clock_ns(proxy_clock) : 0;
    uint64_t ends_ns = clock_ns(backend_clock) + clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    run_clients(epoll, start_ns + duration_ns);
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - start_ns) / 1e9;
    ends_ns = clock_ns(backend_clock) + clock_ns(CLOCK_PROCESS_CPUTIME_ID) - ends_ns;
    proxy_ns = argc == 6 ? clock_ns(proxy_clock) - proxy_ns : 0;
    printf("%llu %llu %.6f %.6f %.6f\n", counts->ops - ops, counts->bytes - bytes, seconds, (double)proxy_ns / 1e9,
           (double)ends_ns / 1e9);
    (void)kill(backend, SIGKILL);
    return 0;
}
