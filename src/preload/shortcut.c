/*
 * Theory of operation. Between connect(2) and the proxy's reply the socket looks connected, and is not yet the program's. So that the
 * program does not see it, signals wait meanwhile, and epoll(7) does not know the socket; and it is short: a proxy to which this way is
 * open is near, and if its reply takes longer than WAIT_MS, because the destination is far or does not answer, the helper waits for
 * it in our place, where signals, timeouts and cancellation are what they are with connect(2).
 *
 * A program that does not want to wait is kept for WAIT_BRIEFLY_MS at most, and only as long as that is worthwhile: see
 * run_share_is_patient(). If it succeeds it is told EINPROGRESS, as by the kernel, and finds the socket writable.
 *
 * The reply is looked at before it is taken, so that nothing behind it is taken along; and left where it is if the helper is to have it.
 */
#include "preload/shortcut.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "preload/addr.h"
#include "preload/config.h"
#include "preload/epoll.h"
#include "preload/share.h"
#include "preload/slots.h"
#include "preload/sys.h"
#include "preload/talk.h"
#include "run/addr.h"
#include "run/handshake.h"

#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define WAIT_MS 10  /* for one thing at a time: the connection, the reply */
#define LOOKS_MAX 4 /* at a reply that comes in pieces; who sends it byte by byte is waited for by the helper */
#define WAIT_BRIEFLY_MS 1

struct trip {
    int fd, domain;
    bool is_non_blocking;
    const struct run_addr *destination;
    struct run_share *share;
    struct run_route route;
    struct sockaddr_storage proxy;
    socklen_t proxy_len;
    uint8_t request[RUN_REQUEST_MAX];
    size_t request_len;
    struct run_handshake_reply reply;
    uint64_t started_ms;
    bool is_in_syn;
};

/* --- whether --- */

static bool is_timeless(int fd)
{
    static const int names[] = {SO_RCVTIMEO, SO_SNDTIMEO};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct timeval time = {0, 0};
        socklen_t len = sizeof time;

        if (sys_getsockopt(fd, SOL_SOCKET, names[i], &time, &len) != 0 || time.tv_sec != 0 || time.tv_usec != 0) {
            return false;
        }
    }
    return true;
}

/* bind(2) has not been called. Its address is meant for the way to the destination. */
static bool is_unbound(int fd)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    struct run_addr addr;

    return sys_getsockname(fd, &name, &len) == 0 && addr_parse(&name, len, &addr, NULL) && addr.port == 0 &&
           addr_is_wildcard(&addr);
}

/* Nothing was set that would come between us and the proxy: as fresh.h remembers it of sockets that it knows. */
static bool is_plain(int fd)
{
    return sys_get_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP && is_timeless(fd) &&
           sys_get_int(fd, SOL_SOCKET, SO_RCVLOWAT) == 1 && sys_get_int(fd, SOL_SOCKET, SO_PEEK_OFF) < 0 &&
           sys_get_int(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) <= 0 && is_unbound(fd);
}

static bool is_in_namespace(int fd, uint64_t namespace)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;

    return sys_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) == 0 && cookie == namespace;
}

/* The proxy's address as this socket takes it. */
static bool find_proxy(struct trip *trip)
{
    const struct run_addr *proxy = &trip->route.proxy;

    if (proxy->family != AF_INET && proxy->family != AF_INET6) {
        return false;
    }
    if (proxy->family != trip->domain &&
        (trip->domain != AF_INET6 || sys_get_int(trip->fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0)) {
        return false;
    }
    trip->proxy_len = addr_show(proxy, trip->domain, &trip->proxy);
    return true;
}

static bool may_go(struct trip *trip, bool is_known_plain)
{
    trip->share = share_get();
    if (trip->share == NULL || trip->destination->port == 0 || trip->destination->port == ADDR_DNS_PORT ||
        run_share_has_network(trip->share, trip->destination) || !run_share_route(trip->share, &trip->route)) {
        return false;
    }
    return (is_known_plain || is_plain(trip->fd)) && is_in_namespace(trip->fd, trip->route.namespace) &&
           find_proxy(trip) && (!trip->is_non_blocking || run_share_is_patient(trip->share));
}

/* --- on the way --- */

/* True if one of the events has come. Signals are held back. */
static bool wait_for(const struct trip *trip, short events)
{
    struct pollfd poll = {.fd = trip->fd, .events = events};
    struct timespec time = {0, (trip->is_non_blocking ? WAIT_BRIEFLY_MS : WAIT_MS) * 1000000L};

    return SYS_CALL(SYS_ppoll, &poll, 1, &time, NULL, 0) > 0;
}

static void set_limit(int fd, int ms)
{
    const struct timeval time = {0, ms * 1000};

    (void)sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

/* In two steps. */
static bool reach_proxy(const struct trip *trip)
{
    long rc;

    if (trip->is_non_blocking) {
        rc = SYS_CALL(SYS_connect, trip->fd, &trip->proxy, trip->proxy_len);
        return rc == 0 || rc == -EINPROGRESS;
    }
    set_limit(trip->fd, WAIT_MS);
    rc = SYS_CALL(SYS_connect, trip->fd, &trip->proxy, trip->proxy_len);
    set_limit(trip->fd, 0);
    return rc == 0;
}

static bool send_request(const struct trip *trip)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    long n = SYS_CALL(SYS_sendto, trip->fd, trip->request, trip->request_len, flags, NULL, 0);

    if (n == -EAGAIN && wait_for(trip, POLLOUT)) { /* not connected yet */
        n = SYS_CALL(SYS_sendto, trip->fd, trip->request, trip->request_len, flags, NULL, 0);
    }
    return n == (long)trip->request_len;
}

/* In one. Without a cookie for the proxy the kernel connects, and leaves the bytes to us. */
static bool send_in_syn(struct trip *trip)
{
    long n = SYS_CALL(SYS_sendto, trip->fd, trip->request, trip->request_len,
                      MSG_FASTOPEN | MSG_NOSIGNAL | MSG_DONTWAIT, &trip->proxy, trip->proxy_len);

    if (n == -EOPNOTSUPP) { /* net.ipv4.tcp_fastopen forbids it by now */
        return reach_proxy(trip) && send_request(trip);
    }
    trip->is_in_syn = n == (long)trip->request_len;
    return trip->is_in_syn || (n == -EINPROGRESS && send_request(trip));
}

/* False, and nothing was done, if there is no token left. */
static bool make_request(struct trip *trip)
{
    bool is_wanted = trip->route.has_fast_open != 0, is_low = false;
    uint32_t token = 0;

    if (is_wanted && !run_share_take_token(trip->share, &token, &is_low)) {
        return false;
    }
    if (is_low) {
        talk_tell(RUN_TOKENS);
    }
    trip->request_len =
        run_handshake_request(&trip->route, trip->destination, is_wanted ? &token : NULL, trip->request);
    return trip->request_len > 0;
}

static void set_low_water(int fd, int bytes)
{
    (void)sys_setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

/* What has come by now; `*len` bytes of it. */
static enum run_handshake look(struct trip *trip, size_t *len)
{
    uint8_t bytes[RUN_REPLY_MAX];
    long n = SYS_CALL(SYS_recvfrom, trip->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT, NULL, NULL);

    *len = n > 0 ? (size_t)n : 0;
    if (n == -EAGAIN) {
        return RUN_HANDSHAKE_MORE;
    }
    return n <= 0 ? RUN_HANDSHAKE_USELESS : run_handshake_reply(bytes, (size_t)n, &trip->reply);
}

/* MORE: it was not in time. */
static enum run_handshake hear(struct trip *trip)
{
    enum run_handshake state = RUN_HANDSHAKE_MORE;
    size_t len = 0, before;
    unsigned looks = 0;

    do {
        before = len;
        if (len > 0) { /* else there would be nothing to wait for */
            set_low_water(trip->fd, (int)len + 1);
        }
        if (!wait_for(trip, POLLIN)) {
            break;
        }
        state = look(trip, &len);
    } while (state == RUN_HANDSHAKE_MORE && len > before && ++looks < LOOKS_MAX);
    if (before > 0) {
        set_low_water(trip->fd, 1);
    }
    return state;
}

static bool take_reply(const struct trip *trip)
{
    uint8_t bytes[RUN_REPLY_MAX];

    return SYS_CALL(SYS_recvfrom, trip->fd, bytes, trip->reply.used, MSG_DONTWAIT, NULL, NULL) ==
           (long)trip->reply.used;
}

void shortcut_undo(int fd)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    (void)SYS_CALL(SYS_connect, fd, &none, sizeof none);
    (void)sys_get_int(fd, SOL_SOCKET, SO_ERROR); /* which is ECONNRESET now */
}

/* --- what came of it --- */

static uint64_t now_ms(void)
{
    struct timespec now = {0, 0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void shortcut_accept(int fd, int domain, const struct run_addr *destination, const struct run_addr *local)
{
    struct slot slot = {.cookie = sys_cookie(fd),
                        .kind = SLOT_TCP,
                        .state = SLOT_CONNECTED,
                        .is_told = 1,
                        .domain = domain,
                        .peer = *destination,
                        .local = *local};
    struct run_share *share = share_get();

    slots_put(fd, &slot);
    if (share != NULL) {
        run_share_put(share, slot.cookie, destination, local);
    }
}

int shortcut_acknowledge(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    long rc = sys_getpeername(fd, &peer, &len);

    if (rc == 0) {
        rc = SYS_CALL(SYS_connect, fd, &peer, len);
    }
    return rc == -EISCONN || rc == -ENOTCONN ? 0 : (int)rc;
}

/* The proxy's address towards the destination, if it tells, else ours. */
static void find_local(const struct trip *trip, struct run_addr *out)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof own;

    *out = (struct run_addr){.family = trip->destination->family};
    if (run_addr_is_any(&trip->reply.bound) ||
        !run_addr_from_socks(&trip->reply.bound, trip->destination->family, out)) {
        if (sys_getsockname(trip->fd, &own, &len) == 0) {
            (void)addr_parse(&own, len, out, NULL);
        }
    }
}

static void tell_ipv6(const struct trip *trip)
{
    bool is_unreachable =
        trip->reply.code == SOCKS6_REPLY_NET_UNREACHABLE || trip->reply.code == SOCKS6_REPLY_ADDRESS_UNSUPPORTED;

    if (trip->destination->family == AF_INET6 && (is_unreachable || trip->reply.code == SOCKS6_REPLY_SUCCESS)) {
        run_share_tell_ipv6(trip->share, is_unreachable ? RUN_SHARE_IPV6_UNREACHABLE : RUN_SHARE_IPV6_WORKS);
    }
}

static int succeed(const struct trip *trip)
{
    char text[ADDR_TEXT_LEN];
    struct run_addr local;

    find_local(trip, &local);
    shortcut_accept(trip->fd, trip->domain, trip->destination, &local);
    tell_ipv6(trip);
    if (trip->reply.window.size > 0) {
        run_share_tell_window(trip->share, trip->reply.window.base, trip->reply.window.size);
    }
    if (preload_config()->verbose) {
        talk_note(RUN_NOTE_TRACE, "connect to %s: connected, %s, %u ms", addr_text(trip->destination, text),
                  trip->is_in_syn ? "1 round trip" : "2 round trips", (unsigned)(now_ms() - trip->started_ms));
    }
    return trip->is_non_blocking ? -EINPROGRESS : trip->route.has_fast_open != 0 ? shortcut_acknowledge(trip->fd) : 0;
}

static enum shortcut give_up(const struct trip *trip)
{
    run_share_doubt(trip->share, trip->route.serial);
    shortcut_undo(trip->fd);
    return SHORTCUT_NONE;
}

/* Who does not wait learns of failures later, and the helper has a sentence to go with them. */
static bool is_helpers(const struct trip *trip)
{
    return trip->is_non_blocking || preload_config()->verbose;
}

static enum shortcut settle(struct trip *trip, enum run_handshake state, int *result)
{
    if (trip->is_non_blocking) {
        run_share_was_quick(trip->share, state != RUN_HANDSHAKE_MORE);
    }
    switch (state) {
    case RUN_HANDSHAKE_MORE:
        return SHORTCUT_ASKED;
    case RUN_HANDSHAKE_CONNECTED:
        if (!take_reply(trip)) {
            break;
        }
        *result = succeed(trip);
        return SHORTCUT_DONE;
    case RUN_HANDSHAKE_FAILED:
        tell_ipv6(trip);
        if (is_helpers(trip)) {
            return SHORTCUT_ASKED;
        }
        shortcut_undo(trip->fd);
        *result = -run_handshake_errno(trip->reply.code);
        return SHORTCUT_DONE;
    case RUN_HANDSHAKE_USELESS:
        break;
    }
    return give_up(trip);
}

static enum shortcut go(struct trip *trip, int *result)
{
    bool is_asked;

    if (!make_request(trip)) {
        return SHORTCUT_NONE;
    }
    is_asked = trip->route.has_fast_open != 0 ? send_in_syn(trip) : reach_proxy(trip) && send_request(trip);
    if (!is_asked) {
        return give_up(trip);
    }
    return settle(trip, hear(trip), result);
}

enum shortcut shortcut_try(const struct shortcut_start *start, int *result, struct shortcut_watch *watch)
{
    struct trip trip = {.fd = start->fd,
                        .domain = start->domain,
                        .is_non_blocking = start->is_non_blocking,
                        .destination = start->destination};
    enum shortcut shortcut;

    watch->count = 0;
    if (!may_go(&trip, start->is_plain)) {
        return SHORTCUT_NONE;
    }
    trip.started_ms = preload_config()->verbose ? now_ms() : 0;
    watch->count = epoll_take_out(trip.fd, watch->moves, EPOLL_MOVES_MAX);
    shortcut = go(&trip, result);
    if (shortcut != SHORTCUT_ASKED) {
        epoll_put_back(watch->moves, watch->count);
        watch->count = 0;
    }
    return shortcut;
}
