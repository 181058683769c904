#include "cli/dns_udp.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/sock.h"

/* Datagrams taken before others have their turn. */
#define BATCH 64

/* 65535 less the headers of IP and UDP. */
#define UDP_PAYLOAD_MAX 65507u

/* Room for one control message with either kind of address. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Which address was asked. */
static void read_asked(struct msghdr *header, struct dns_origin *origin)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&origin->asked.ipv4, CMSG_DATA(c), sizeof origin->asked.ipv4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            memcpy(&origin->asked.ipv6, CMSG_DATA(c), sizeof origin->asked.ipv6);
        }
    }
}

/* False if there is none. */
static bool receive(struct dns_udp *udp)
{
    uint8_t message[DNS_FORWARD_QUERY_MAX + 1]; /* one more, so that a longer one is seen to be longer */
    union control control;
    struct dns_origin origin = {.udp = udp};
    struct iovec part = {message, sizeof message};
    struct msghdr header = {.msg_name = &origin.peer,
                            .msg_namelen = sizeof origin.peer,
                            .msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
    ssize_t n = recvmsg(udp->io.fd, &header, MSG_DONTWAIT);

    if (n < 0) {
        return errno != EAGAIN; /* others are about a datagram that we have sent */
    }
    origin.peer_len = header.msg_namelen;
    read_asked(&header, &origin);
    (void)dns_local_take(udp->server, &origin, message, (size_t)n);
    return true;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct dns_udp *udp = LOOP_OWNER(io, struct dns_udp, io);

    (void)events;
    for (int i = 0; i < BATCH && receive(udp); i++) {
    }
}

size_t dns_udp_limit(const struct dns_origin *origin, size_t wanted)
{
    struct socks6_addr addr;

    if (sock_to_addr((const struct sockaddr *)&origin->peer, origin->peer_len, &addr) && sock_is_loopback(&addr)) {
        return wanted < UDP_PAYLOAD_MAX ? wanted : UDP_PAYLOAD_MAX;
    }
    return wanted < DNS_FORWARD_UDP_LEN ? wanted : DNS_FORWARD_UDP_LEN;
}

static void write_asked(const struct dns_origin *origin, struct msghdr *header)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(header);
    /* The interface is left to the routing table, but for link-local addresses, which mean nothing without one. */
    struct in_pktinfo ipv4 = {.ipi_spec_dst = origin->asked.ipv4.ipi_addr};
    struct in6_pktinfo ipv6 = origin->asked.ipv6;

    if (origin->udp->is_ipv6) {
        ipv6.ipi6_ifindex = IN6_IS_ADDR_LINKLOCAL(&ipv6.ipi6_addr) ? ipv6.ipi6_ifindex : 0;
        c->cmsg_level = IPPROTO_IPV6;
        c->cmsg_type = IPV6_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof ipv6);
        memcpy(CMSG_DATA(c), &ipv6, sizeof ipv6);
        header->msg_controllen = CMSG_SPACE(sizeof ipv6);
    } else {
        c->cmsg_level = IPPROTO_IP;
        c->cmsg_type = IP_PKTINFO;
        c->cmsg_len = CMSG_LEN(sizeof ipv4);
        memcpy(CMSG_DATA(c), &ipv4, sizeof ipv4);
        header->msg_controllen = CMSG_SPACE(sizeof ipv4);
    }
}

void dns_udp_answer(const struct dns_origin *origin, const uint8_t *message, size_t len)
{
    struct sockaddr_storage peer = origin->peer;
    union control control;
    struct iovec part;
    struct msghdr header = {.msg_name = &peer,
                            .msg_namelen = origin->peer_len,
                            .msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};

    memcpy(&part.iov_base, &message, sizeof message); /* which sendmsg(2) does not write to, whatever its type says */
    part.iov_len = len;
    memset(&control, 0, sizeof control);
    write_asked(origin, &header);
    (void)sendmsg(origin->udp->io.fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL); /* as lost as any datagram can be */
}

int dns_udp_open(struct dns_udp *udp, struct dns_local *server, const struct socks6_addr *addr)
{
    static const int on = 1;
    struct sockaddr_storage sa;
    socklen_t sa_len;
    int fd, rc = 0;

    udp->server = server;
    udp->io = (struct loop_io){on_ready, -1};
    udp->is_ipv6 = addr->type == SOCKS6_ADDR_IPV6;
    if (!sock_from_addr(addr, &sa, &sa_len)) {
        return -EINVAL;
    }
    fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (udp->is_ipv6) {
        rc = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) |
             setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    } else {
        rc = setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    }
    if (rc != 0 || bind(fd, (const struct sockaddr *)&sa, sa_len) != 0) {
        rc = -errno;
    } else {
        udp->io.fd = fd;
        rc = loop_add(server->loop, &udp->io, EPOLLIN);
    }
    if (rc != 0) {
        udp->io.fd = -1;
        (void)close(fd);
    }
    return rc;
}

void dns_udp_close(struct dns_udp *udp)
{
    if (udp->io.fd >= 0) {
        loop_close(udp->server->loop, &udp->io);
    }
}
