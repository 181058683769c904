/*
 * Sockets: see sock.h. <linux/tcp.h> rather than <netinet/tcp.h>, whose struct tcp_info ends before the send window.
 */
#include "io/sock.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool sock_from_addr(const struct socks6_addr *addr, struct sockaddr_storage *out, socklen_t *len)
{
    if (addr->type == SOCKS6_ADDR_IPV4) {
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
        memcpy(&sin.sin_addr, addr->u.ipv4, 4);
        memset(out, 0, sizeof *out);
        memcpy(out, &sin, sizeof sin);
        *len = sizeof sin;
        return true;
    }
    if (addr->type == SOCKS6_ADDR_IPV6) {
        struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};
        memcpy(&sin6.sin6_addr, addr->u.ipv6, 16);
        memset(out, 0, sizeof *out);
        memcpy(out, &sin6, sizeof sin6);
        *len = sizeof sin6;
        return true;
    }
    return false;
}

static struct socks6_addr ipv4_addr(const void *bytes, uint16_t port)
{
    struct socks6_addr addr = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = port};
    memcpy(addr.u.ipv4, bytes, 4);
    return addr;
}

bool sock_to_addr(const struct sockaddr *sa, socklen_t len, struct socks6_addr *out)
{
    if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, sa, sizeof sin);
        *out = ipv4_addr(&sin.sin_addr, ntohs(sin.sin_port));
        return true;
    }
    if (len >= sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, sa, sizeof sin6);
        uint16_t port = ntohs(sin6.sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&sin6.sin6_addr)) {
            *out = ipv4_addr(&sin6.sin6_addr.s6_addr[12], port);
            return true;
        }
        struct socks6_addr addr = {.type = SOCKS6_ADDR_IPV6, .len = 16, .port = port};
        memcpy(addr.u.ipv6, &sin6.sin6_addr, 16);
        *out = addr;
        return true;
    }
    return false;
}

bool sock_is_loopback(const struct socks6_addr *addr)
{
    static const uint8_t ipv6[16] = {[15] = 1};

    return addr->type == SOCKS6_ADDR_IPV4 ? addr->u.ipv4[0] == 127 : memcmp(addr->u.ipv6, ipv6, sizeof ipv6) == 0;
}

int sock_local(int fd, struct socks6_addr *out)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) < 0) {
        return -errno;
    }
    return sock_to_addr((const struct sockaddr *)&name, len, out) ? 0 : -EAFNOSUPPORT;
}

int sock_peer(int fd, struct socks6_addr *out)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &len) < 0) {
        return -errno;
    }
    return sock_to_addr((const struct sockaddr *)&name, len, out) ? 0 : -EAFNOSUPPORT;
}

struct option {
    int level, name, value;
};

static int set_options(int fd, const struct option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value) < 0) {
            return -errno;
        }
    }
    return 0;
}

int sock_set_dialling_options(int fd)
{
    static const struct option options[] = {{IPPROTO_TCP, TCP_NODELAY, 1}, {SOL_SOCKET, SO_OOBINLINE, 1}};
    return set_options(fd, options, sizeof options / sizeof options[0]);
}

/* TCP_KEEPIDLE comes last: it counts what has passed since the connection was last heard of. */
static const struct option liveness_options[] = {
    {IPPROTO_TCP, TCP_USER_TIMEOUT, SOCK_USER_TIMEOUT_MS}, {IPPROTO_TCP, TCP_KEEPINTVL, SOCK_KEEPALIVE_INTERVAL_S},
    {IPPROTO_TCP, TCP_KEEPCNT, SOCK_KEEPALIVE_COUNT},      {SOL_SOCKET, SO_KEEPALIVE, 1},
    {IPPROTO_TCP, TCP_KEEPIDLE, SOCK_KEEPALIVE_S},
};

#define LIVENESS_COUNT (sizeof liveness_options / sizeof liveness_options[0])

void sock_set_liveness_options(int fd)
{
    (void)set_options(fd, liveness_options, LIVENESS_COUNT); /* can only fail on what is no TCP socket */
}

int sock_set_connection_options(int fd)
{
    int rc = sock_set_dialling_options(fd);
    return rc < 0 ? rc : set_options(fd, liveness_options, LIVENESS_COUNT);
}

bool sock_peer_window_is_closed(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) {
        return false;
    }
    /* Before Linux 5.4 there is no tcpi_snd_wnd; nothing in flight although something waits tells nearly the same. */
    bool has_window = len >= offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof info.tcpi_snd_wnd;
    if (has_window && info.tcpi_snd_wnd == 0) {
        return info.tcpi_notsent_bytes > 0 || info.tcpi_unacked > 0;
    }
    /* A window too small for the next segment counts as closed in the kernel too: it probes. */
    return info.tcpi_notsent_bytes > 0 && info.tcpi_unacked == 0;
}

void sock_set_user_timeout(int fd, unsigned ms)
{
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms); /* can only fail on what is no TCP socket */
}

uint32_t sock_unacked(int fd)
{
    int len = 0;
    return ioctl(fd, SIOCOUTQ, &len) < 0 || len < 0 ? 0 : (uint32_t)len;
}

size_t sock_send_room(int fd)
{
    /* The kernel takes bytes while what is queued, its own overhead included, is below the limit. SO_SNDBUF and
       SIOCOUTQ would need two calls and know nothing of the overhead. */
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0) {
        return 0;
    }
    uint32_t limit = info[SK_MEMINFO_SNDBUF];
    uint32_t queued = info[SK_MEMINFO_WMEM_QUEUED];
    return queued < limit ? limit - queued : 0;
}

int sock_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}

static int set_flag(int fd, int level, int name)
{
    const int on = 1;
    return setsockopt(fd, level, name, &on, sizeof on) < 0 ? -errno : 0;
}

/* Everything that sock_listen() does to a fresh socket. */
static int prepare_listener(int fd, const struct sockaddr *sa, socklen_t len, int backlog, bool exclusive)
{
    int rc = set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
    if (rc == 0 && sa->sa_family == AF_INET6) {
        rc = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    }
    if (rc == 0 && !exclusive) {
        rc = set_flag(fd, SOL_SOCKET, SO_REUSEPORT);
    }
    if (rc == 0 && bind(fd, sa, len) < 0) {
        rc = -errno;
    }
    if (rc == 0 && exclusive) {
        rc = set_flag(fd, SOL_SOCKET, SO_REUSEPORT);
    }
    if (rc == 0) {
        rc = sock_set_connection_options(fd);
    }
    if (rc == 0 && listen(fd, backlog) < 0) {
        rc = -errno;
    }
    return rc;
}

int sock_listen(const struct socks6_addr *addr, int backlog, bool exclusive)
{
    struct sockaddr_storage sa;
    socklen_t len;
    if (!sock_from_addr(addr, &sa, &len)) {
        return -EAFNOSUPPORT;
    }
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int rc = prepare_listener(fd, (const struct sockaddr *)&sa, len, backlog, exclusive);
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    return fd;
}

int sock_try_bind(const struct socks6_addr *addr)
{
    struct socks6_addr any_port = *addr;
    struct sockaddr_storage sa;
    socklen_t len;

    any_port.port = 0;
    if (!sock_from_addr(&any_port, &sa, &len)) {
        return -EAFNOSUPPORT;
    }
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    /* No port is taken for it. */
    int rc = set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    if (rc == 0 && bind(fd, (const struct sockaddr *)&sa, len) < 0) {
        rc = -errno;
    }
    (void)close(fd);
    return rc;
}

void sock_reset_on_close(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* can only fail on what is no socket */
}
