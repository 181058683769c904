/*
 * getpeername(2) and getsockname(2): the destination, and the address that the proxy uses towards it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>

#include "preload/addr.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/route.h"
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

/* The address that the kernel would have used. */
static void guess_address(const struct run_addr *peer, struct run_addr *out)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    int fd = route_open(peer);

    if (fd < 0) {
        return;
    }
    if (sys_getsockname(fd, &addr, &len) == 0) {
        (void)addr_parse(&addr, len, out, NULL);
    }
    sys_close(fd);
}

/*
 * While it is being connected the helper cannot know yet, and TCP has chosen its address already, and keeps it if that fails. Nobody
 * can do anything with such an address; so it is made up.
 */
static void make_up_local(struct slot *slot)
{
    struct run_addr local = {.family = slot->peer.family};

    guess_address(&slot->peer, &local);
    local.port = (uint16_t)(32768 + slot->cookie % 28232); /* of the range that the kernel takes them from */
    slot->local = local;
}

static int name_of_stream(int fd, struct slot *slot, void *addr, socklen_t *len)
{
    struct run_state known;
    enum run_state_of state = slot->local.port != 0 ? RUN_STATE_CONNECTED : stream_state(fd, slot);

    if (slot->local.port == 0 && state == RUN_STATE_CONNECTED && stream_ask(slot->cookie, 0, &known) == 0 &&
        known.local.port != 0) {
        slot->local = known.local;
        slots_put(fd, slot);
    }
    if (slot->local.port == 0) {
        make_up_local(slot);
    }
    return give(&slot->local, slot->domain, addr, len);
}

PRELOAD_HOOK(int, getsockname, int fd, struct sockaddr *addr, socklen_t *len)
{
    struct slot slot;

    if (addr == NULL || len == NULL) {
        return real_as_hook(getsockname)(fd, addr, len);
    }
    if (stream_find(fd, &slot)) {
        return name_of_stream(fd, &slot, addr, len);
    }
    if (is_connected(fd) && stream_find_tcp(fd, &slot)) {
        return give(&slot.local, slot.domain, addr, len);
    }
    return real_as_hook(getsockname)(fd, addr, len);
}
