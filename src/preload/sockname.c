/*
 * getpeername(2) and getsockname(2): the destination, and the address that the proxy uses towards it.
 */
#include <errno.h>
#include <netinet/in.h>

#include "preload/addr.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/stream.h"
#include "preload/sys.h"
#include "preload/udp_dns.h"

static int give(const struct run_addr *addr, int domain, void *to, socklen_t *room)
{
    struct sockaddr_storage shown;
    socklen_t len = addr_show(addr, domain, &shown);
    int rc = addr_give(&shown, len, to, room);

    if (rc < 0) {
        errno = -rc;
        return -1;
    }
    return 0;
}

static int peer_of_stream(int fd, struct slot *slot, void *addr, socklen_t *len)
{
    if (stream_state(fd, slot) != RUN_STATE_CONNECTED) {
        errno = ENOTCONN;
        return -1;
    }
    return give(&slot->peer, slot->domain, addr, len);
}

static int peer_of_socket(int fd, void *addr, socklen_t *len);

PRELOAD_HOOK(int, getpeername, int fd, struct sockaddr *addr, socklen_t *len)
{
    struct slot slot;

    if (addr == NULL || len == NULL) {
        return real_as_hook(getpeername)(fd, addr, len);
    }
    return stream_find(fd, &slot) ? peer_of_stream(fd, &slot, addr, len) : peer_of_socket(fd, addr, len);
}

/* Kernel's answers other than an address are the program's as well. */
static int peer_of_socket(int fd, void *addr, socklen_t *len)
{
    struct sockaddr_storage there;
    socklen_t there_len = sizeof there;
    struct run_addr peer;
    struct slot slot;
    int rc;

    if (sys_getpeername(fd, &there, &there_len) != 0 || (there.ss_family != AF_INET && there.ss_family != AF_INET6)) {
        return real_as_hook(getpeername)(fd, addr, len);
    }
    if (stream_find_tcp(fd, &slot)) {
        return give(&slot.peer, slot.domain, addr, len);
    }
    if (udp_original_peer(fd, &there, there_len, &peer)) {
        rc = sys_get_int(fd, SOL_SOCKET, SO_DOMAIN);
        return give(&peer, rc, addr, len);
    }
    return real_as_hook(getpeername)(fd, addr, len);
}

/* A socket that listens or is not connected has nothing of ours, and no peer. */
static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;

    return sys_getpeername(fd, &peer, &len) == 0 && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6);
}

PRELOAD_HOOK(int, getsockname, int fd, struct sockaddr *addr, socklen_t *len)
{
    struct slot slot;

    if (addr != NULL && len != NULL && (stream_find(fd, &slot) || (is_connected(fd) && stream_find_tcp(fd, &slot)))) {
        return give(&slot.local, slot.domain, addr, len);
    }
    return real_as_hook(getsockname)(fd, addr, len);
}
