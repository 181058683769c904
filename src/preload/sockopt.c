/*
 * getsockopt(2) and setsockopt(2). A stream's options are those of the TCP socket that the program made, which the helper keeps.
 * What concerns waiting and errors is the stream's own.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include "preload/addr.h"
#include "preload/config.h"
#include "preload/export.h"
#include "preload/fresh.h"
#include "preload/real.h"
#include "preload/stream.h"
#include "preload/sys.h"
#include "preload/talk.h"

#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif
#ifndef MCAST_JOIN_GROUP
#define MCAST_JOIN_GROUP 42
#endif

static int fail(int error)
{
    errno = error;
    return -1;
}

/* What a TCP socket on which nothing was set has to say: to calls that are wrong, and to all when the helper has gone. */
static int ask_plain(const struct slot *slot, int level, int name, void *value, socklen_t *len)
{
    long fd = SYS_CALL(SYS_socket, slot->domain == AF_INET6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = (int)fd;

    if (fd >= 0) {
        rc = sys_getsockopt((int)fd, level, name, value, len);
        sys_close((int)fd);
    }
    return rc;
}

static int get_from_helper(const struct slot *slot, int level, int name, void *value, socklen_t *len)
{
    uint32_t room = *len < RUN_OPTION_MAX ? *len : RUN_OPTION_MAX;
    struct run_option question = {.cookie = slot->cookie, .level = level, .name = name, .len = room};
    struct iovec part = {&question, sizeof question};
    int status = 0, rc = 0;
    ssize_t got = talk_ask(RUN_GETSOCKOPT, &part, 1, &status, value, room);

    if (got < 0 || status == ENOENT) {
        rc = ask_plain(slot, level, name, value, len);
    } else if (status != 0) {
        rc = -status;
    } else {
        *len = (socklen_t)got;
    }
    return rc < 0 ? fail(-rc) : 0;
}

static int get_error(int fd, struct slot *slot, void *value, socklen_t *len)
{
    int error = 0;
    int rc = real(getsockopt)(fd, SOL_SOCKET, SO_ERROR, value, len);
    socklen_t room = rc == 0 ? *len : 0;

    if (rc != 0) {
        return rc;
    }
    memcpy(&error, value, room < sizeof error ? room : sizeof error);
    if (error == 0 && !stream_has_hung_up(fd)) {
        return 0;
    }
    error = stream_take_error(fd, slot);
    memcpy(value, &error, room < sizeof error ? room : sizeof error);
    return 0;
}

static int get_peer_name(int fd, struct slot *slot, void *value, socklen_t *len)
{
    struct sockaddr_storage shown;
    socklen_t whole;

    if (stream_state(fd, slot) != RUN_STATE_CONNECTED) {
        return fail(ENOTCONN);
    }
    whole = addr_show(&slot->peer, slot->domain, &shown);
    if (*len > whole) {
        return fail(EINVAL); /* as sk_getsockopt() has it: too much room is an error */
    }
    memcpy(value, &shown, *len);
    return 0;
}

static bool is_own(int level, int name)
{
    return level == SOL_SOCKET && (name == SO_RCVTIMEO_OLD || name == SO_SNDTIMEO_OLD || name == SO_RCVTIMEO_NEW ||
                                   name == SO_SNDTIMEO_NEW || name == SO_RCVLOWAT || name == SO_PEEK_OFF ||
                                   name == SO_TYPE || name == SO_ACCEPTCONN || name == SO_COOKIE);
}

/* Their values have pointers, which mean nothing in the helper. */
static bool has_pointers(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF || name == SO_ATTACH_REUSEPORT_CBPF ||
               name == SO_ATTACH_REUSEPORT_EBPF || name == SO_GET_FILTER;
    }
    return level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE;
}

static int get_of_stream(int fd, struct slot *slot, int level, int name, void *value, socklen_t *len)
{
    if (level == SOL_SOCKET && name == SO_ERROR) {
        return get_error(fd, slot, value, len);
    }
    if (level == SOL_SOCKET && name == SO_PEERNAME) {
        return get_peer_name(fd, slot, value, len);
    }
    if (is_own(level, name)) {
        return real(getsockopt)(fd, level, name, value, len);
    }
    if ((int)*len < 0) {
        return fail(-ask_plain(slot, level, name, value, len));
    }
    return has_pointers(level, name) ? fail(ENOPROTOOPT) : get_from_helper(slot, level, name, value, len);
}

/* TCP Fast Open to the proxy is the helper's affair: the program has not asked for it. */
static bool is_helpers(int fd, int level, int name, struct slot *slot)
{
    return level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT && slots_hint(fd) == SLOT_TCP &&
           stream_find_tcp(fd, slot);
}

PRELOAD_HOOK(int, getsockopt, int fd, int level, int name, void *value, socklen_t *len)
{
    struct slot slot;
    int rc;

    if (value == NULL || len == NULL) {
        return real(getsockopt)(fd, level, name, value, len);
    }
    if (stream_find(fd, &slot)) {
        return get_of_stream(fd, &slot, level, name, value, len);
    }
    if (is_helpers(fd, level, name, &slot)) {
        rc = ask_plain(&slot, level, name, value, len);
        return rc < 0 ? fail(-rc) : 0;
    }
    return real(getsockopt)(fd, level, name, value, len);
}

/* Only whether the kernel likes the value. */
static int try_plain(const struct slot *slot, int level, int name, const void *value, socklen_t len)
{
    long fd = SYS_CALL(SYS_socket, slot->domain == AF_INET6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = (int)fd;

    if (fd >= 0) {
        rc = sys_setsockopt((int)fd, level, name, value, len);
        sys_close((int)fd);
    }
    return rc;
}

static int set_at_helper(const struct slot *slot, int level, int name, const void *value, socklen_t len)
{
    struct run_option question = {.cookie = slot->cookie, .level = level, .name = name, .len = len};
    union { /* talk_send() does not write to it */
        const void *from;
        void *to;
    } base = {value};
    struct iovec parts[] = {{&question, sizeof question}, {base.to, len}};
    int status = 0, rc;
    ssize_t got;

    if (len > RUN_OPTION_MAX) {
        return fail(EINVAL);
    }
    got = talk_ask(RUN_SETSOCKOPT, parts, 2, &status, NULL, 0);
    rc = got < 0 || status == ENOENT ? try_plain(slot, level, name, value, len) : -status;
    return rc < 0 ? fail(-rc) : 0;
}

static int set_of_stream(int fd, const struct slot *slot, int level, int name, const void *value, socklen_t len)
{
    if (is_own(level, name)) {
        return real(setsockopt)(fd, level, name, value, len);
    }
    if ((int)len < 0) {
        return fail(-try_plain(slot, level, name, value, len));
    }
    if (level == SOL_SOCKET && name == SO_ZEROCOPY) {
        return fail(EOPNOTSUPP); /* nothing would ever be reported as sent */
    }
    return has_pointers(level, name) ? fail(ENOPROTOOPT) : set_at_helper(slot, level, name, value, len);
}

/* Joining a group sends reports to the local network. */
static bool is_membership(int level, int name)
{
    switch (level) {
    case IPPROTO_IP:
        return name == IP_ADD_MEMBERSHIP || name == IP_ADD_SOURCE_MEMBERSHIP || name == MCAST_JOIN_GROUP ||
               name == MCAST_JOIN_SOURCE_GROUP;
    case IPPROTO_IPV6:
        return name == IPV6_ADD_MEMBERSHIP || name == IPV6_JOIN_ANYCAST || name == MCAST_JOIN_GROUP ||
               name == MCAST_JOIN_SOURCE_GROUP;
    default:
        return false;
    }
}

PRELOAD_HOOK(int, setsockopt, int fd, int level, int name, const void *value, socklen_t len)
{
    struct slot slot;

    fresh_touch(fd, level, name);
    if (is_membership(level, name) && !preload_config()->allow_direct) {
        talk_note(RUN_NOTE_REFUSED, "join a multicast group: refused");
        return fail(ENODEV);
    }
    if (value == NULL) {
        return real(setsockopt)(fd, level, name, value, len);
    }
    if (stream_find(fd, &slot)) {
        return set_of_stream(fd, &slot, level, name, value, len);
    }
    return real(setsockopt)(fd, level, name, value, len);
}
