#include "preload/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>

#include "preload/config.h"
#include "preload/confined.h"
#include "preload/sys.h"
#include "preload/talk.h"

/* A bound helper has its address for all its connections, and for as long as our end of them lives. */
static bool is_to_helper(int fd)
{
    const struct preload_config *config = preload_config();
    struct sockaddr_un peer;
    socklen_t len = sizeof peer;

    return config->is_valid && sys_getpeername(fd, &peer, &len) == 0 && len == config->helper_len &&
           memcmp(&peer, &config->helper, len) == 0;
}

int stream_ask(uint64_t cookie, uint32_t flags, struct run_state *out)
{
    struct run_status question = {.cookie = cookie, .flags = flags};
    struct iovec part = {&question, sizeof question};
    struct run_state answer;
    int status = 0;
    ssize_t len = talk_ask(RUN_STATUS, &part, 1, &status, &answer, sizeof answer);

    if (len < 0 || status != 0) {
        return len < 0 ? (int)len : -EPROTO;
    }
    if ((size_t)len != sizeof answer) {
        return -EPROTO;
    }
    *out = answer;
    return 0;
}

/* The domain of the socket that the program made, in the place of which is a stream. */
static int ask_domain(uint64_t cookie)
{
    struct run_option question = {.cookie = cookie, .level = SOL_SOCKET, .name = SO_DOMAIN, .len = sizeof(int)};
    struct iovec part = {&question, sizeof question};
    int status = 0, domain = 0;
    ssize_t len = talk_ask(RUN_GETSOCKOPT, &part, 1, &status, &domain, sizeof domain);

    return len == sizeof domain && status == 0 && domain == AF_INET6 ? AF_INET6 : AF_INET;
}

/* A connection that this process has not made itself. False: the helper knows nothing of it. */
static bool learn(int fd, uint64_t cookie, enum slot_kind kind, struct slot *out)
{
    struct run_state state = {0};
    int rc = stream_ask(cookie, 0, &state);

    memset(out, 0, sizeof *out);
    out->cookie = cookie;
    if (kind == SLOT_TCP && (rc != 0 || state.state == RUN_STATE_UNKNOWN)) {
        if (rc == 0) {
            slots_put(fd, out); /* kind SLOT_OTHER */
        }
        return false;
    }
    out->kind = (uint8_t)kind;
    out->state = state.state == RUN_STATE_CONNECTED ? SLOT_CONNECTED : SLOT_CONNECTING;
    out->is_told = state.state == RUN_STATE_CONNECTED;
    out->domain = kind == SLOT_TCP ? sys_get_int(fd, SOL_SOCKET, SO_DOMAIN) : ask_domain(cookie);
    out->peer = state.peer;
    out->local = state.local;
    if (rc == 0) {
        slots_put(fd, out);
    }
    return true;
}

bool stream_find(int fd, struct slot *out)
{
    uint64_t cookie;

    if (slots_hint(fd) == SLOT_OTHER && sys_get_int(fd, SOL_SOCKET, SO_DOMAIN) != AF_UNIX) {
        return false;
    }
    cookie = sys_cookie(fd);
    if (cookie == 0) {
        return false;
    }
    if (slots_get(fd, cookie, out)) {
        return out->kind == SLOT_STREAM;
    }
    return sys_get_int(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX && is_to_helper(fd) && learn(fd, cookie, SLOT_STREAM, out);
}

bool stream_find_in_passing(int fd, struct slot *out)
{
    return (slots_hint(fd) != SLOT_OTHER || !confined_is()) && stream_find(fd, out);
}

static bool is_tcp(int fd)
{
    int domain = sys_get_int(fd, SOL_SOCKET, SO_DOMAIN);

    return (domain == AF_INET || domain == AF_INET6) && sys_get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
}

bool stream_find_tcp(int fd, struct slot *out)
{
    uint64_t cookie = sys_cookie(fd);

    if (cookie == 0) {
        return false;
    }
    /* Since fork(2) another process may have connected it. */
    if (slots_get(fd, cookie, out) && (out->kind != SLOT_OTHER || out->state != SLOT_FRESH)) {
        return out->kind == SLOT_TCP;
    }
    return is_tcp(fd) && learn(fd, cookie, SLOT_TCP, out);
}

bool stream_has_hung_up(int fd)
{
    return (sys_poll_now(fd, 0) & POLLHUP) != 0;
}

static enum run_state_of ask_state(struct slot *slot)
{
    struct run_state state = {0};

    return stream_ask(slot->cookie, 0, &state) == 0 ? (enum run_state_of)state.state : RUN_STATE_UNKNOWN;
}

enum run_state_of stream_state(int fd, struct slot *slot)
{
    short events = sys_poll_now(fd, POLLIN | POLLOUT);
    enum run_state_of state;

    if (slot->state == SLOT_OVER) {
        return RUN_STATE_ENDED;
    }
    if ((events & POLLHUP) != 0) {
        return ask_state(slot);
    }
    if (slot->state == SLOT_CONNECTED) {
        return RUN_STATE_CONNECTED;
    }
    state = (events & (POLLIN | POLLOUT)) != 0 ? RUN_STATE_CONNECTED : ask_state(slot);
    if (state == RUN_STATE_CONNECTED) {
        slot->state = SLOT_CONNECTED;
        slots_put(fd, slot);
    }
    return state;
}

/* The helper does not know, or has gone. */
static int error_of_lost(const struct slot *slot)
{
    return slot->state == SLOT_CONNECTED ? ECONNRESET : ENETUNREACH;
}

int stream_take_error(int fd, struct slot *slot)
{
    struct run_state state = {0};
    int rc, error = 0;

    if (slot->state == SLOT_OVER) {
        return 0;
    }
    rc = stream_ask(slot->cookie, RUN_STATUS_TAKE_ERROR, &state);
    if (rc != 0 || state.state == RUN_STATE_UNKNOWN) {
        error = error_of_lost(slot);
    } else if (state.state == RUN_STATE_CONNECTING || state.state == RUN_STATE_CONNECTED) {
        return 0; /* it was the program that has shut it down */
    } else if (state.state != RUN_STATE_ENDED) {
        error = state.error;
    }
    slot->state = SLOT_OVER;
    slots_put(fd, slot);
    return error;
}
