/*
 * The server behind the proxies: one thread, three ports of all IPv4 addresses.
 *
 *   backend TALLY_FILE
 *
 * echo sends back what comes, sink takes it (and counts it in TALLY_FILE, see common.h), source sends without end. It
 * prints the ports as one line of JSON and serves until it is killed or its parent ends.
 */
#include "common.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum role { ECHO, SINK, SOURCE, ROLE_COUNT };

struct conn {
    int fd;
    enum role role;
    bool is_listener;
};

static uint8_t *chunk;
static struct tally *tally;

static void watch(int epoll, struct conn *conn, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static uint16_t listen_as(int epoll, struct conn *conn, enum role role)
{
    struct sockaddr_in any = ipv4(INADDR_ANY, 0);
    socklen_t any_len = sizeof any;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    conn->role = role;
    conn->is_listener = true;
    if (conn->fd < 0 || bind(conn->fd, (const struct sockaddr *)&any, sizeof any) < 0 || listen(conn->fd, 4096) < 0 ||
        getsockname(conn->fd, (struct sockaddr *)&any, &any_len) < 0) {
        die("listen");
    }
    /* In force only where net.ipv4.tcp_fastopen says so: `./dev bench rtt`. */
    const int pending = 1024;
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_FASTOPEN, &pending, sizeof pending);
    watch(epoll, conn, EPOLLIN);
    return ntohs(any.sin_port);
}

static void accept_all(int epoll, const struct conn *listener)
{
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        set_nodelay(fd);
        struct conn *conn = need_memory(1, sizeof *conn);
        conn->fd = fd;
        conn->role = listener->role;
        watch(epoll, conn, conn->role == SOURCE ? EPOLLOUT : EPOLLIN);
    }
}

/* False once the connection is over. */
static bool serve(const struct conn *conn)
{
    if (conn->role == SOURCE) {
        return send(conn->fd, chunk, CHUNK_LEN, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
    }
    ssize_t got = recv(conn->fd, chunk, CHUNK_LEN, 0);
    if (got <= 0) {
        return got < 0 && errno == EAGAIN;
    }
    if (conn->role == SINK) {
        tally->sunk_bytes += (unsigned long long)got;
        return true;
    }
    return send(conn->fd, chunk, (size_t)got, MSG_NOSIGNAL) == got;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: backend TALLY_FILE\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_fd_limit();
    tally = map_tally(argv[1]);
    chunk = need_memory(1, CHUNK_LEN);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct conn listeners[ROLE_COUNT] = {{0}};
    printf("{\"echo\": %d, ", listen_as(epoll, &listeners[ECHO], ECHO));
    printf("\"sink\": %d, ", listen_as(epoll, &listeners[SINK], SINK));
    printf("\"source\": %d}\n", listen_as(epoll, &listeners[SOURCE], SOURCE));
    (void)fflush(stdout);

    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->is_listener) {
                accept_all(epoll, conn);
            } else if (!serve(conn)) {
                (void)close(conn->fd);
                free(conn);
            }
        }
    }
}
