/*
 * The server behind the proxies: one thread, three TCP ports of all IPv4 addresses, and a UDP port of 127.0.0.1.
 *
 *   backend TALLY_FILE
 *
 * echo sends back what comes, sink takes it (and counts it in TALLY_FILE, see common.h), source sends zeros without end, dns
 * answers questions (see dns.h; counted as well). It prints the ports as one line of JSON and serves until it is killed
 * or its parent ends.
 */
#include "common.h"
#include "dns.h"

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

#define DNS_BATCH 64u
#define DNS_RECEIVE_LEN (1 << 20) /* of the socket: bursts wait there */

enum role { ECHO, SINK, SOURCE, DNS, ROLE_COUNT };

struct conn {
    int fd;
    enum role role;
    bool is_listener;
};

static uint8_t *chunk;
static const uint8_t *zeros;
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

static uint16_t bind_dns(int epoll, struct conn *conn)
{
    struct sockaddr_in own = ipv4(INADDR_LOOPBACK, 0);
    socklen_t own_len = sizeof own;
    const int len = DNS_RECEIVE_LEN;
    conn->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    conn->role = DNS;
    if (conn->fd < 0 || bind(conn->fd, (const struct sockaddr *)&own, sizeof own) < 0 ||
        setsockopt(conn->fd, SOL_SOCKET, SO_RCVBUF, &len, sizeof len) < 0 ||
        getsockname(conn->fd, (struct sockaddr *)&own, &own_len) < 0) {
        die("the DNS socket");
    }
    watch(epoll, conn, EPOLLIN);
    return ntohs(own.sin_port);
}

/* One batch. What cannot be sent now is lost, as datagrams are. */
static void serve_dns(int fd)
{
    static uint8_t queries[DNS_BATCH][DNS_ANSWER_MAX], answers[DNS_BATCH][DNS_ANSWER_MAX];
    static struct sockaddr_in from[DNS_BATCH];
    static struct iovec parts[DNS_BATCH];
    static struct mmsghdr messages[DNS_BATCH];

    for (unsigned i = 0; i < DNS_BATCH; i++) {
        parts[i] = (struct iovec){queries[i], sizeof queries[i]};
        messages[i] = (struct mmsghdr){
            .msg_hdr = {.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    int got = recvmmsg(fd, messages, DNS_BATCH, 0, NULL);
    unsigned count = 0;
    for (int i = 0; i < got; i++) {
        size_t len = dns_serve(queries[i], messages[i].msg_len, answers[i]);
        if (len != 0) {
            messages[count] = messages[i]; /* with its address and its part */
            *messages[count].msg_hdr.msg_iov = (struct iovec){answers[i], len};
            count++;
        }
    }
    if (got > 0) {
        tally->questions += (unsigned long long)got;
    }
    if (count > 0) {
        (void)sendmmsg(fd, messages, count, 0);
    }
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
        return send(conn->fd, zeros, CHUNK_LEN, MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
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
    zeros = need_memory(1, CHUNK_LEN);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct conn listeners[ROLE_COUNT] = {{0}};
    printf("{\"echo\": %d, ", listen_as(epoll, &listeners[ECHO], ECHO));
    printf("\"sink\": %d, ", listen_as(epoll, &listeners[SINK], SINK));
    printf("\"source\": %d, ", listen_as(epoll, &listeners[SOURCE], SOURCE));
    printf("\"dns\": %d}\n", bind_dns(epoll, &listeners[DNS]));
    (void)fflush(stdout);

    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            if (conn->is_listener) {
                accept_all(epoll, conn);
            } else if (conn->role == DNS) {
                serve_dns(conn->fd);
            } else if (!serve(conn)) {
                (void)close(conn->fd);
                free(conn);
            }
        }
    }
}
