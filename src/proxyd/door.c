/*
 * Two implementations behind one interface, told apart by `server`: the SOCKS 6 machine of the library, or struct legacy.
 *
 * The SOCKS 6 machine's questions that need no waiting are answered here: this daemon knows no users and keeps no
 * sessions, so nobody needs to authenticate, a session is never granted and none is ever found.
 */
#include "proxyd/door.h"

static bool takes_legacy(unsigned protocols, uint8_t first_byte)
{
    switch (first_byte) {
    case 4:
        return (protocols & CONFIG_SOCKS4) != 0;
    case 5:
        return (protocols & CONFIG_SOCKS5) != 0;
    default:
        return false;
    }
}

bool door_init(struct door *door, const struct config *config, unsigned protocols, uint8_t first_byte, uint64_t now_ms)
{
    door->why = "";
    if (takes_legacy(protocols, first_byte)) {
        door->version = first_byte;
        legacy_init(&door->legacy, first_byte);
        return true;
    }
    if (first_byte == SOCKS6_VERSION && (protocols & CONFIG_SOCKS6) == 0) {
        door->legacy.out[door->legacy.out_len++] = SOCKS6_VERSION;
        door->closed = true;
        door->why = "SOCKS 6 is not enabled on this listener";
        return true;
    }
    door->version = first_byte == SOCKS6_VERSION ? SOCKS6_VERSION : 0;
    struct socks6_server_config server_config;
    socks6_server_config_init(&server_config);
    server_config.options_cap = config->limits.options;
    server_config.handshake_ms = 0; /* the connection has a timer of its own, for every version */
    return socks6_server_new(&server_config, now_ms, &door->server) == 0;
}

void door_done(struct door *door)
{
    socks6_server_free(door->server);
    door->server = NULL;
}

static enum door_status close_door(struct door *door, const char *why)
{
    door->closed = true;
    door->why = why;
    return DOOR_CLOSED;
}

/* Answers one event; DOOR_MORE: go on asking. */
static enum door_status answer(struct door *door, const struct socks6_server_event *event)
{
    int err = 0;
    switch (event->type) {
    case SOCKS6_SERVER_NONE:
        break;
    case SOCKS6_SERVER_SESSION_LOOKUP:
    case SOCKS6_SERVER_SESSION_TEARDOWN:
        err = socks6_server_session_done(door->server, 0, NULL);
        break;
    case SOCKS6_SERVER_AUTHENTICATE:
        err = socks6_server_auth_done(door->server, SOCKS6_AUTH_SUCCESS);
        break;
    case SOCKS6_SERVER_SESSION_START:
        err = socks6_server_session_started(door->server, NULL, 0);
        break;
    case SOCKS6_SERVER_WINDOW_REQUEST:
        err = socks6_server_window_done(door->server, &(struct socks6_window){0});
        break;
    case SOCKS6_SERVER_TOKEN_SPEND:
        err = socks6_server_token_done(door->server, 0, NULL);
        break;
    case SOCKS6_SERVER_REQUEST:
        door->request.command = event->u.request.request->command;
        door->request.addr = event->u.request.request->addr;
        door->request.stack_count = event->u.request.request->stack_count;
        for (size_t i = 0; i < door->request.stack_count; i++) {
            door->request.stack[i] = event->u.request.request->stack[i];
        }
        door->request.initial_data = event->u.request.initial_data;
        return DOOR_REQUEST;
    case SOCKS6_SERVER_CLOSE:
        return close_door(door, event->u.close.why);
    }
    return err == 0 ? DOOR_MORE : close_door(door, socks6_strerror(err));
}

static enum door_status input_socks6(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    for (;;) {
        size_t taken = 0;
        if (socks6_server_input(door->server, bytes + *used, len - *used, now_ms, &taken) != 0) {
            return close_door(door, "out of memory");
        }
        *used += taken;

        struct socks6_server_event event;
        socks6_server_next_event(door->server, &event);
        if (event.type == SOCKS6_SERVER_NONE) {
            return DOOR_MORE;
        }
        enum door_status status = answer(door, &event);
        if (status != DOOR_MORE) {
            return status;
        }
    }
}

enum door_status door_input(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    *used = 0;
    if (door->closed) {
        return DOOR_CLOSED;
    }
    if (door->server != NULL) {
        return input_socks6(door, bytes, len, now_ms, used);
    }
    enum legacy_status status = legacy_input(&door->legacy, bytes, len, used);
    if (status == LEGACY_REQUEST) {
        door->request.command = door->legacy.command;
        door->request.addr = door->legacy.addr;
        return DOOR_REQUEST;
    }
    return status == LEGACY_REFUSED ? close_door(door, door->legacy.why) : DOOR_MORE;
}

const struct door_request *door_request(const struct door *door)
{
    return &door->request;
}

bool door_reply(struct door *door, enum socks6_reply_code code, const struct socks6_addr *bound,
                const struct socks6_stack_option *stack, size_t stack_count)
{
    if (door->server == NULL) {
        legacy_reply(&door->legacy, code, bound);
        return true;
    }
    return socks6_server_reply(door->server, code, bound, stack, stack_count) == 0;
}

struct socks6_slice door_output(const struct door *door)
{
    if (door->server != NULL) {
        return socks6_server_output(door->server);
    }
    return (struct socks6_slice){door->legacy.out, door->legacy.out_len};
}

void door_output_sent(struct door *door, size_t len)
{
    if (door->server != NULL) {
        socks6_server_output_sent(door->server, len);
        return;
    }
    struct legacy *legacy = &door->legacy;
    legacy->out_len = (uint8_t)(legacy->out_len - len);
    for (size_t i = 0; i < legacy->out_len; i++) {
        legacy->out[i] = legacy->out[i + len];
    }
}

unsigned door_version(const struct door *door)
{
    return door->version;
}

const char *door_protocol(const struct door *door)
{
    switch (door->version) {
    case 4:
    case 5:
        return legacy_protocol(&door->legacy);
    case SOCKS6_VERSION:
        return "socks6";
    default:
        return "-";
    }
}

const char *door_why(const struct door *door)
{
    return door->why;
}
