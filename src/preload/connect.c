/*
 * The hook of connect(2): sorts out what is the helper's business, and leaves the rest to the kernel, its errors first of all.
 */
#include "preload/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/time.h>

#include "preload/addr.h"
#include "preload/adopt.h"
#include "preload/attempt.h"
#include "preload/config.h"
#include "preload/epoll.h"
#include "preload/export.h"
#include "preload/fresh.h"
#include "preload/options.h"
#include "preload/real.h"
#include "preload/shortcut.h"
#include "preload/signals.h"
#include "preload/stream.h"
#include "preload/sys.h"
#include "preload/talk.h"
#include "preload/udp_dns.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

#define TCP_STATE_CLOSE 7 /* of tcpi_state */

static int fail(int rc)
{
    if (rc < 0) {
        errno = -rc;
        return -1;
    }
    return rc;
}

PRELOAD_HOOK(int, connect, int fd, const struct sockaddr *addr, socklen_t len)
{
    return connect_any(fd, addr, len, false);
}

PRELOAD_HOOK(int, __connect, int fd, const struct sockaddr *addr, socklen_t len)
{
    return connect_any(fd, addr, len, false);
}

int connect_real(int fd, const struct sockaddr *addr, socklen_t len)
{
    return real_as_hook(connect)(fd, addr, len);
}

int connect_dissolve(int fd, const struct slot *slot)
{
    struct slot plain = {.kind = SLOT_OTHER};
    int domain = slot->domain == AF_INET6 ? AF_INET6 : AF_INET;
    long socket = SYS_CALL(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (socket < 0) {
        return (int)socket;
    }
    options_copy_from_helper(slot->cookie, (int)socket);
    return adopt((int)socket, fd, &plain);
}

/* Until there is room to write, or an end. 0 when it is decided. */
static int wait_decided(int fd)
{
    struct timeval limit = {0, 0};
    socklen_t len = sizeof limit;
    struct signals before;
    int rc;

    (void)sys_getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &len);
    signals_hold(&before);
    rc = signals_wait(fd, POLLOUT, &limit, &before);
    signals_release(&before);
    return rc == -EAGAIN ? -EALREADY : rc;
}

static int connect_failed(int fd, struct slot *slot)
{
    int error = stream_take_error(fd, slot);
    int rc = connect_dissolve(fd, slot);

    if (rc != 0) {
        return rc;
    }
    return error != 0 ? -error : -ECONNABORTED;
}

/* connect() on a socket on which it has been called before. 0 or -errno, as Linux does it for TCP. */
static int connect_again(int fd, struct slot *slot)
{
    int flags = sys_fcntl(fd, F_GETFL, 0);
    enum run_state_of state;
    int rc;

    if (slot->is_told) {
        return -EISCONN;
    }
    state = stream_state(fd, slot);
    if (state == RUN_STATE_CONNECTING) {
        rc = (flags & O_NONBLOCK) != 0 ? -EALREADY : wait_decided(fd);
        if (rc != 0) {
            return rc;
        }
        state = stream_state(fd, slot);
    }
    if (state != RUN_STATE_CONNECTED) {
        return connect_failed(fd, slot);
    }
    slot->is_told = 1;
    slots_put(fd, slot);
    return 0;
}

/* Connections that the kernel has begun, or the helper's, are the kernel's to speak about. */
static bool is_idle(int fd)
{
    uint8_t state = TCP_STATE_CLOSE;
    socklen_t len = sizeof state;

    (void)sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &len);
    return state == TCP_STATE_CLOSE;
}

static bool has_no_scope(int fd, const struct run_addr *destination)
{
    return addr_is_link_local(destination) && destination->scope == 0 &&
           sys_get_int(fd, SOL_SOCKET, SO_BINDTOIFINDEX) <= 0;
}

/* The kernel refuses it, or has something else to say of the socket. */
static bool is_for_kernel(int fd, const struct run_addr *destination, bool is_mapped)
{
    return (is_mapped && sys_get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY) > 0) || addr_is_multicast(destination) ||
           has_no_scope(fd, destination) || !is_idle(fd);
}

static bool is_on_this_machine(const struct run_addr *destination)
{
    return destination->port != ADDR_DNS_PORT && (addr_is_loopback(destination) || addr_is_wildcard(destination));
}

/* Nothing of ours from now on: the helper need not be asked about it. */
static int connect_direct(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct slot slot = {.cookie = sys_cookie(fd), .kind = SLOT_OTHER};

    slots_put(fd, &slot);
    return connect_real(fd, addr, len);
}

static int connect_by_proxy(struct attempt_start *start, bool is_plain, bool *is_direct)
{
    const struct shortcut_start first = {.fd = start->fd,
                                         .domain = start->domain,
                                         .is_plain = is_plain,
                                         .is_non_blocking = start->is_non_blocking,
                                         .destination = start->destination};
    enum shortcut shortcut;
    int result = 0;

    *is_direct = false;
    if (!start->is_non_blocking) {
        pthread_testcancel();
    }
    signals_hold(&start->before);
    shortcut = shortcut_try(&first, &result, &start->watch);
    if (shortcut == SHORTCUT_DONE || start->is_non_blocking) {
        signals_release(&start->before);
    }
    if (shortcut == SHORTCUT_DONE) {
        return result;
    }
    start->is_asked = shortcut == SHORTCUT_ASKED;
    result = attempt_connect(start, is_direct);
    epoll_put_back(start->watch.moves, start->watch.count);
    return result;
}

/* A call of connect(2). */
struct call {
    int fd;
    const struct sockaddr *addr;
    socklen_t len;
    bool dont_wait;
};

static int connect_tcp(const struct call *call, int domain, bool is_plain)
{
    const int fd = call->fd;
    const struct sockaddr *addr = call->addr;
    const socklen_t len = call->len;
    struct run_addr destination;
    char text[ADDR_TEXT_LEN];
    struct attempt_start start = {.fd = fd, .domain = domain, .destination = &destination};
    bool is_mapped, is_direct;
    struct slot slot;
    int rc;

    if (!addr_parse(addr, len, &destination, &is_mapped) || addr->sa_family != domain ||
        is_for_kernel(fd, &destination, is_mapped)) {
        return connect_real(fd, addr, len);
    }
    if (is_on_this_machine(&destination)) {
        talk_note(RUN_NOTE_TRACE, "connect to %s: direct, this machine", addr_text(&destination, text));
        return connect_direct(fd, addr, len);
    }
    if (slots_hint(fd) == SLOT_TCP && stream_find_tcp(fd, &slot)) {
        return fail(-EISCONN); /* it was connected, and broke */
    }
    rc = sys_fcntl(fd, F_GETFL, 0);
    start.is_non_blocking = call->dont_wait || (rc >= 0 && (rc & O_NONBLOCK) != 0);
    rc = connect_by_proxy(&start, is_plain, &is_direct);
    return rc == 0 && is_direct ? connect_direct(fd, addr, len) : fail(rc);
}

static int disconnect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct slot slot = {.kind = SLOT_OTHER};
    int rc;

    if (stream_find(fd, &slot)) {
        return fail(connect_dissolve(fd, &slot));
    }
    rc = connect_real(fd, addr, len);
    if (rc == 0 && slots_hint(fd) != SLOT_OTHER) {
        slot = (struct slot){.cookie = sys_cookie(fd)};
        slots_put(fd, &slot);
    }
    return rc;
}

static int connect_inet(const struct call *call, int domain)
{
    int type = sys_get_int(call->fd, SOL_SOCKET, SO_TYPE);
    int protocol = sys_get_int(call->fd, SOL_SOCKET, SO_PROTOCOL);

    if (type == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)) {
        return connect_tcp(call, domain, false);
    }
    return udp_connect(call->fd, call->addr, call->len);
}

/* Of which nothing is known. */
static int connect_unknown(const struct call *call)
{
    int domain = sys_get_int(call->fd, SOL_SOCKET, SO_DOMAIN);
    struct slot slot;

    if (domain < 0) {
        return connect_real(call->fd, call->addr, call->len);
    }
    if (call->addr->sa_family == AF_UNSPEC) {
        return disconnect(call->fd, call->addr, call->len);
    }
    if (domain == AF_INET || domain == AF_INET6) {
        return connect_inet(call, domain);
    }
    return domain == AF_UNIX && stream_find(call->fd, &slot) ? fail(connect_again(call->fd, &slot))
                                                             : connect_real(call->fd, call->addr, call->len);
}

int connect_any(int fd, const struct sockaddr *addr, socklen_t len, bool dont_wait)
{
    const struct call call = {fd, addr, len, dont_wait};
    struct fresh fresh;

    if (addr == NULL || len < sizeof addr->sa_family) {
        return connect_real(fd, addr, len);
    }
    return addr->sa_family != AF_UNSPEC && fresh_find(fd, &fresh) ? connect_tcp(&call, fresh.domain, fresh.is_plain)
                                                                  : connect_unknown(&call);
}
