#include "dial/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int s6_target_from_addr(const struct socks6_addr *addr, struct s6_target *out)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};

    memset(out, 0, sizeof *out);
    if (addr->type == SOCKS6_ADDR_IPV4) {
        memcpy(&sin.sin_addr, addr->u.ipv4, sizeof sin.sin_addr);
        memcpy(&out->addr, &sin, sizeof sin);
        out->len = sizeof sin;
        return 1;
    }
    if (addr->type == SOCKS6_ADDR_IPV6) {
        memcpy(&sin6.sin6_addr, addr->u.ipv6, sizeof sin6.sin6_addr);
        memcpy(&out->addr, &sin6, sizeof sin6);
        out->len = sizeof sin6;
        return 1;
    }
    return 0;
}

struct socks6_addr s6_target_addr(const struct s6_target *target)
{
    struct sockaddr_in sin;
    struct sockaddr_in6 sin6;

    if (target->addr.ss_family == AF_INET) {
        memcpy(&sin, &target->addr, sizeof sin);
        return socks6_addr_ipv4((const uint8_t *)&sin.sin_addr, ntohs(sin.sin_port));
    }
    memcpy(&sin6, &target->addr, sizeof sin6);
    return socks6_addr_ipv6(sin6.sin6_addr.s6_addr, ntohs(sin6.sin6_port));
}

uint64_t s6_now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/*
 * What getpeername(2) tells of one that is connected: 0, or -ENOTCONN. A connection to a local port in the ephemeral range where nobody
 * listens can get that very port as its own and meet itself (TCP's simultaneous open): that is a refusal, not a proxy, and
 * -ECONNREFUSED.
 */
static int check_peer(int fd)
{
    struct s6_target here, there;

    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    here.len = there.len = sizeof here.addr;
    if (getpeername(fd, (struct sockaddr *)&there.addr, &there.len) != 0) {
        return -ENOTCONN;
    }
    if (getsockname(fd, (struct sockaddr *)&here.addr, &here.len) != 0) {
        return 0;
    }
    return here.len == there.len && memcmp(&here.addr, &there.addr, here.len) == 0 ? -ECONNREFUSED : 0;
}

static int connect_to(const struct s6_target *target, int is_fast, int *fd)
{
    int one = 1;
    int rc = 0;
    int s = socket(target->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (s < 0) {
        return -errno;
    }
    /* Requests and keystrokes are to leave at once; without it the connection would still be right, only slower. */
    (void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (is_fast) { /* refused where net.ipv4.tcp_fastopen is off: then it is an ordinary connection */
        (void)setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one);
    }
    if (connect(s, (const struct sockaddr *)&target->addr, target->len) != 0) {
        rc = errno == EINTR ? -EINPROGRESS : -errno; /* interrupted, it goes on by itself */
    } else if (check_peer(s) == -ECONNREFUSED) {
        rc = -ECONNREFUSED;
    }
    if (rc != 0 && rc != -EINPROGRESS) {
        (void)close(s);
        return rc;
    }
    *fd = s;
    return rc;
}

int s6_net_connect(const struct s6_target *target, int *fd)
{
    return connect_to(target, 0, fd);
}

int s6_net_connect_fast(const struct s6_target *target, int *fd)
{
    return connect_to(target, 1, fd);
}

size_t s6_net_syn_room(int fd, const struct s6_target *target)
{
    enum { IPV4_HEADER = 20, IPV6_HEADER = 40, TCP_HEADER_MAX = 60 };
    int is_ipv4 = target->addr.ss_family == AF_INET;
    int headers = (is_ipv4 ? IPV4_HEADER : IPV6_HEADER) + TCP_HEADER_MAX;
    int mtu = 0;
    socklen_t len = sizeof mtu;

    if (getsockopt(fd, is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6, is_ipv4 ? IP_MTU : IPV6_MTU, &mtu, &len) != 0 ||
        mtu <= headers) {
        return 0;
    }
    return (size_t)(mtu - headers);
}

int s6_net_syn_data_counted(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;

    memset(&info, 0, sizeof info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && (info.tcpi_options & TCPI_OPT_SYN_DATA) != 0;
}

int s6_net_connected_already(int fd)
{
    return check_peer(fd) == 0;
}

int s6_net_connected(int fd)
{
    struct pollfd pfd = {fd, POLLOUT, 0};
    int error = 0;
    socklen_t len = sizeof error;
    int rc = check_peer(fd);
    int n;

    if (rc != -ENOTCONN) { /* as is usual: the system call before has waited for it */
        return rc;
    }
    n = poll(&pfd, 1, 0);
    if (n < 0 && errno != EINTR) {
        return -errno;
    }
    if (n <= 0) {
        return -EINPROGRESS;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        return -errno;
    }
    return error == 0 && check_peer(fd) == -ECONNREFUSED ? -ECONNREFUSED : -error;
}

ssize_t s6_net_send(int fd, struct socks6_slice first, struct socks6_slice second)
{
    struct iovec iov[2];
    struct msghdr msg = {.msg_iov = iov};
    ssize_t n;

    if (first.len > 0) {
        iov[msg.msg_iovlen].iov_base = (void *)(uintptr_t)first.data; /* sendmsg(2) does not write there */
        iov[msg.msg_iovlen++].iov_len = first.len;
    }
    if (second.len > 0) {
        iov[msg.msg_iovlen].iov_base = (void *)(uintptr_t)second.data;
        iov[msg.msg_iovlen++].iov_len = second.len;
    }
    do {
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t receive(int fd, uint8_t *buf, size_t size, int flags)
{
    ssize_t n;

    do {
        n = recv(fd, buf, size, flags | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t s6_net_receive(int fd, uint8_t *buf, size_t size)
{
    return receive(fd, buf, size, 0);
}

ssize_t s6_net_peek(int fd, uint8_t *buf, size_t size)
{
    return receive(fd, buf, size, MSG_PEEK);
}

int s6_net_discard(int fd, size_t len)
{
    uint8_t sink[512];

    while (len > 0) {
        ssize_t n = recv(fd, sink, len < sizeof sink ? len : sizeof sink, MSG_DONTWAIT);

        if (n == 0) {
            return -EIO; /* the bytes were there a moment ago: somebody else reads this socket */
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        len -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int s6_net_set_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) {
        return -errno;
    }
    return 0;
}
