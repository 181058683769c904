/*
 * Options of sockets that the program believes to be TCP sockets, and which are Unix sockets in truth: carried out on the socket that
 * the program had before, so that names, values and errors are the kernel's own; those that matter on the wire on the connection to
 * the proxy as well.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_sockets.h"

#ifndef SOL_MPTCP
#define SOL_MPTCP 284
#endif

/* From here on the names of SOL_IP, and two of SOL_IPV6, are netfilter's. */
#define NETFILTER_FIRST 64

/* Who closes the real socket does so in its own time; what is small or none of the first hop's concern is not here. */
static bool matters_on_wire(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_KEEPALIVE || name == SO_PRIORITY || name == SO_MARK || name == SO_RCVBUF ||
               name == SO_SNDBUF || name == SO_MAX_PACING_RATE;
    }
    if (level == IPPROTO_TCP) {
        switch (name) {
        case TCP_NODELAY:
        case TCP_CORK:
        case TCP_KEEPIDLE:
        case TCP_KEEPINTVL:
        case TCP_KEEPCNT:
        case TCP_QUICKACK:
        case TCP_CONGESTION:
        case TCP_USER_TIMEOUT:
        case TCP_NOTSENT_LOWAT:
            return true;
        default:
            return false;
        }
    }
    return (level == IPPROTO_IP && (name == IP_TOS || name == IP_TTL)) ||
           (level == IPPROTO_IPV6 && (name == IPV6_TCLASS || name == IPV6_UNICAST_HOPS));
}

/* What only the connection to the proxy can tell. */
static bool is_of_connection(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_MEMINFO || name == SO_INCOMING_CPU || name == SO_INCOMING_NAPI_ID;
    }
    if (level == IPPROTO_TCP) {
        return name == TCP_INFO || name == TCP_CC_INFO || name == TCP_MAXSEG;
    }
    return (level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU);
}

/* Values that hold an address in the program's memory or the number of a descriptor: they would mean something of ours. */
static bool points_elsewhere(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF || name == SO_ATTACH_REUSEPORT_CBPF ||
               name == SO_ATTACH_REUSEPORT_EBPF;
    }
    if (level == IPPROTO_TCP) {
        return name == TCP_ZEROCOPY_RECEIVE || name == TCP_ULP || name == TCP_REPAIR;
    }
    return (level == IPPROTO_IP && name >= NETFILTER_FIRST) ||
           (level == IPPROTO_IPV6 && name >= NETFILTER_FIRST && name < IPV6_RECVTCLASS);
}

/* Options for which the kernel asks for rights, which would be ours. */
static bool needs_rights(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_MARK || name == SO_PRIORITY || name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE ||
               name == SO_DEBUG || name == SO_BINDTODEVICE || name == SO_BUSY_POLL || name == SO_PREFER_BUSY_POLL;
    }
    return (level == IPPROTO_IP && name == IP_TRANSPARENT) || (level == IPPROTO_IPV6 && name == IPV6_TRANSPARENT) ||
           (level == IPPROTO_TCP && name == TCP_CONGESTION);
}

static bool is_level(int level)
{
    return level == SOL_SOCKET || level == IPPROTO_TCP || level == IPPROTO_IP || level == IPPROTO_IPV6 ||
           level == SOL_MPTCP;
}

/* The program is to see what it would see of its own connection. */
static void correct(const struct run_socket *socket, int level, int name, uint8_t *value, uint32_t len)
{
    if (level == IPPROTO_TCP && name == TCP_INFO && len > 0 && socket->state == RUN_STATE_CONNECTING) {
        value[0] = TCP_SYN_SENT;
    }
}

int run_sockopt_get(const struct run_socket *socket, int level, int name, void *value, uint32_t *len)
{
    int fd = is_of_connection(level, name) && socket->real >= 0 ? socket->real : socket->twin;
    socklen_t size = *len;

    if (!is_level(level) || points_elsewhere(level, name)) {
        return ENOPROTOOPT;
    }
    if (fd < 0) {
        return ENOENT;
    }
    if (getsockopt(fd, level, name, value, &size) != 0) {
        return errno;
    }
    correct(socket, level, name, value, size);
    *len = size;
    return 0;
}

int run_sockopt_set(const struct run_socket *socket, int level, int name, const void *value, uint32_t len,
                    bool privileged)
{
    if (!is_level(level) || points_elsewhere(level, name)) {
        return ENOPROTOOPT;
    }
    if (!privileged && needs_rights(level, name)) {
        return EPERM;
    }
    if (socket->twin < 0) {
        return ENOENT;
    }
    if (setsockopt(socket->twin, level, name, value, len) != 0) {
        return errno;
    }
    if (socket->real >= 0 && matters_on_wire(level, name)) {
        (void)setsockopt(socket->real, level, name, value, len); /* can differ in family */
    }
    return 0;
}

static void copy_int(const struct run_socket *socket, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof value;

    if (getsockopt(socket->twin, level, name, &value, &len) == 0) {
        (void)setsockopt(socket->real, level, name, &value, len);
    }
}

static int get_int(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof value;

    return getsockopt(fd, level, name, &value, &len) == 0 ? value : 0;
}

void run_sockopt_carry_over(const struct run_socket *socket)
{
    int class;

    if (socket->twin < 0 || socket->real < 0) {
        return;
    }
    if (get_int(socket->twin, SOL_SOCKET, SO_KEEPALIVE) != 0) {
        copy_int(socket, IPPROTO_TCP, TCP_KEEPIDLE);
        copy_int(socket, IPPROTO_TCP, TCP_KEEPINTVL);
        copy_int(socket, IPPROTO_TCP, TCP_KEEPCNT);
        copy_int(socket, SOL_SOCKET, SO_KEEPALIVE);
    }
    /* ssh(1) sets it, after the connection was made; others do before. */
    class = socket->peer.family == AF_INET6 ? get_int(socket->twin, IPPROTO_IPV6, IPV6_TCLASS)
                                            : get_int(socket->twin, IPPROTO_IP, IP_TOS);
    if (class > 0) {
        (void)setsockopt(socket->real, IPPROTO_IP, IP_TOS, &class, sizeof class);
        (void)setsockopt(socket->real, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class);
    }
}

bool run_sockopt_is_abortive(const struct run_socket *socket)
{
    struct linger linger = {0, 0};
    socklen_t len = sizeof linger;

    return socket->twin >= 0 && getsockopt(socket->twin, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 &&
           linger.l_onoff != 0 && linger.l_linger == 0;
}
