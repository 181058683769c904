/*
 * During an attempt IP_RECVERR or IPV6_RECVERR keeps the ICMP message that ended it, to tell "time exceeded" from
 * "host unreachable", both EHOSTUNREACH. It is turned off afterwards: on an established connection it would make
 * passing errors fatal.
 *
 * Such a message usually ends the attempt at once. If it comes while a system call holds the socket, Linux only puts it into the
 * error queue, and goes on sending SYNs: the socket shows EPOLLERR without EPOLLOUT, and SO_ERROR is 0. It is as good an answer, and
 * is taken from the queue.
 *
 * A connection whose two ends are the same address and port is TCP's simultaneous open with itself: it happens when
 * nobody listens on a local port of the ephemeral range and the kernel picks that very port as ours. It counts as
 * refused.
 *
 * TCP Fast Open: sendto(MSG_FASTOPEN) rather than TCP_FASTOPEN_CONNECT, because it says how many bytes went into the SYN,
 * and takes none without a cookie. What it took and the peer did not acknowledge with the SYN-ACK the kernel sends again.
 */
#include "io/dial_attempt.h"

#include <time.h> /* first: <linux/errqueue.h> uses struct timespec */

#include <assert.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/dialer.h"
#include "io/sock.h"

bool dial_attempt_is_fatal(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static int set_recverr(int fd, uint8_t family, int on)
{
    int rc = family == SOCKS6_ADDR_IPV4 ? setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on)
                                        : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    return rc < 0 ? -errno : 0;
}

static bool is_time_exceeded(const struct sock_extended_err *err)
{
    return (err->ee_origin == SO_EE_ORIGIN_ICMP && err->ee_type == ICMP_TIME_EXCEEDED) ||
           (err->ee_origin == SO_EE_ORIGIN_ICMP6 && err->ee_type == ICMP6_TIME_EXCEEDED);
}

/* What the last ICMP message in the error queue means: an errno or DIALER_TTL_EXPIRED; 0 = there is none. Empties the queue. */
static int last_icmp(int fd)
{
    int last = 0;
    for (;;) {
        union {
            struct cmsghdr align;
            char bytes[512];
        } control;
        struct msghdr msg = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            return last;
        }
        for (struct cmsghdr *part = CMSG_FIRSTHDR(&msg); part != NULL; part = CMSG_NXTHDR(&msg, part)) {
            if ((part->cmsg_level != IPPROTO_IP || part->cmsg_type != IP_RECVERR) &&
                (part->cmsg_level != IPPROTO_IPV6 || part->cmsg_type != IPV6_RECVERR)) {
                continue;
            }
            struct sock_extended_err err;
            memcpy(&err, CMSG_DATA(part), sizeof err);
            last = is_time_exceeded(&err) ? DIALER_TTL_EXPIRED : err.ee_errno != 0 ? (int)err.ee_errno : EHOSTUNREACH;
        }
    }
}

/*
 * Our own end. The port is chosen by connect(2), not by bind(2), which knows no destination and so could give each port
 * only once (IP_BIND_ADDRESS_NO_PORT; an IPv6 socket has it on the same level). 0 or -errno.
 */
static int bind_source(int fd, const struct socks6_addr *source)
{
    struct socks6_addr addr = *source;
    struct sockaddr_storage sa;
    socklen_t len;
    const int on = 1;

    addr.port = 0;
    if (!sock_from_addr(&addr, &sa, &len)) {
        return -EADDRNOTAVAIL;
    }
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on); /* without it there are fewer ports */
    return bind(fd, (const struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

/* connect(2), with what fits into the SYN. 1 connected, 0 on its way, or -errno. */
static int start_connecting(int fd, const struct sockaddr *sa, socklen_t len, const uint8_t *payload,
                            size_t payload_len, size_t *taken)
{
    if (payload_len > 0) {
        ssize_t n = sendto(fd, payload, payload_len, MSG_FASTOPEN | MSG_NOSIGNAL, sa, len);
        if (n >= 0) {
            *taken = (size_t)n;
            return 0; /* should it be connected already, EPOLLOUT says so at once */
        }
        if (errno == EINPROGRESS) {
            return 0;
        }
        if (errno != EOPNOTSUPP) {
            return -errno;
        } /* net.ipv4.tcp_fastopen forbids it */
    }
    if (connect(fd, sa, len) == 0) {
        return 1;
    }
    return errno == EINPROGRESS || errno == EINTR ? 0 : -errno;
}

int dial_attempt_open(const struct destination *to, const struct socks6_addr *source, const uint8_t *payload,
                      size_t payload_len, int *out, size_t *taken)
{
    *taken = 0;
    struct socks6_addr addr = destination_addr(to);
    struct sockaddr_storage sa;
    socklen_t len;
    bool is_ip = sock_from_addr(&addr, &sa, &len);
    assert(is_ip);
    (void)is_ip;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int rc = sock_set_dialling_options(fd);
    if (rc == 0) {
        rc = set_recverr(fd, to->family, 1);
    }
    if (rc == 0 && source != NULL) {
        rc = bind_source(fd, source);
    }
    if (rc == 0) {
        rc = start_connecting(fd, (const struct sockaddr *)&sa, len, payload, payload_len, taken);
    }
    if (rc < 0) {
        (void)close(fd);
    } else {
        *out = fd;
    }
    return rc;
}

bool dial_attempt_was_reset(int fd)
{
    return last_icmp(fd) == 0;
}

int dial_attempt_error(int fd)
{
    int error = sock_error(fd);
    int icmp = error == 0 || error == EHOSTUNREACH ? last_icmp(fd) : 0;

    return error == 0 || icmp == DIALER_TTL_EXPIRED ? icmp : error;
}

int dial_attempt_finish(int fd, const struct destination *to, struct socks6_addr *local)
{
    int error = sock_error(fd);
    if (error == EHOSTUNREACH && last_icmp(fd) == DIALER_TTL_EXPIRED) {
        return DIALER_TTL_EXPIRED;
    }
    if (error == 0) {
        error = -set_recverr(fd, to->family, 0);
    }
    if (error == 0) {
        error = -sock_local(fd, local);
    }
    if (error != 0) {
        return error;
    }
    struct destination own;
    if (destination_from_addr(local, &own) && destination_equal(&own, to)) {
        return ECONNREFUSED;
    }
    return 0;
}
