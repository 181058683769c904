/*
 * Two implementations behind one interface, told apart by `server`: the SOCKS 6 machine of the library (door_socks6.c),
 * or struct legacy. Both ask the same login.
 */
#include "proxyd/door.h"

#include <string.h>

#include "proxyd/door_internal.h"

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

/* Whoever has to log in cannot by SOCKS 4, whose user id is no more than a claim; a certificate is more. */
static unsigned legacy_methods(const struct door *door)
{
    unsigned methods = door->setup.config->auth.methods;

    return ((methods & CONFIG_AUTH_ANONYMOUS) != 0 || door->setup.certified != NULL ? LEGACY_ANONYMOUS : 0u) |
           ((methods & CONFIG_AUTH_PASSWORD) != 0 ? LEGACY_PASSWORD : 0u);
}

bool door_let_certified_in(struct door *door)
{
    struct auth *auth = door->setup.auth;
    const struct identity *certified = door->setup.certified;

    if (certified == NULL || auth->users == NULL ||
        users_find(auth->users, (struct socks6_slice){(const uint8_t *)certified->name, certified->len}) == NULL) {
        return false;
    }
    stats_add(auth->stats, STATS_auth_certificates, 1);
    door->user = door->setup.certified;
    door->setup.certified = NULL;
    return true;
}

const char *door_why_not_certified(const struct door *door)
{
    bool is_a_way = (door->setup.config->auth.methods & CONFIG_AUTH_CERTIFICATE) != 0;

    return is_a_way && door->setup.has_certificate ? "the certificate names no user" : NULL;
}

static void on_login(struct login *login, enum login_verdict verdict);

bool door_init(struct door *door, const struct door_setup *setup, uint8_t first_byte, uint64_t now_ms)
{
    door->setup = *setup;
    door->why = "";
    door->login.auth = setup->auth;
    door->login.done = on_login;
    if (takes_legacy(setup->protocols, first_byte)) {
        door->version = first_byte;
        legacy_init(&door->legacy, first_byte, legacy_methods(door));
        return true;
    }
    if (first_byte == SOCKS6_VERSION && (setup->protocols & CONFIG_SOCKS6) == 0) {
        door->legacy.out[door->legacy.out_len++] = SOCKS6_VERSION;
        door->closed = true;
        door->why = "SOCKS 6 is not enabled on this listener";
        return true;
    }
    door->version = first_byte == SOCKS6_VERSION ? SOCKS6_VERSION : 0;
    return door_socks6_init(door, now_ms);
}

void door_done(struct door *door)
{
    if (door->setup.auth == NULL) {
        return;
    }
    if (door->query_waits) {
        store_cancel(door->setup.auth->store, &door->query);
        door->query_waits = false;
    }
    login_cancel(&door->login);
    identity_release(&door->setup.auth->identities, door->user);
    identity_release(&door->setup.auth->identities, door->setup.certified);
    door->user = door->setup.certified = NULL;
    socks6_server_free(door->server);
    door->server = NULL;
    explicit_bzero(door->session_id, sizeof door->session_id);
    explicit_bzero(&door->query.answer, sizeof door->query.answer);
}

enum door_status door_close(struct door *door, const char *why)
{
    door->closed = true;
    door->why = why;
    return DOOR_CLOSED;
}

/* ---- logging in ---- */

static void take_verdict(struct door *door, enum login_verdict verdict)
{
    if (verdict == LOGIN_GOOD) {
        door->user = door->login.identity;
        door->login.identity = NULL;
    } else {
        door->refused = login_why(verdict);
    }
    if (door->server != NULL) {
        door_socks6_logged_in(door, verdict == LOGIN_GOOD);
        return;
    }
    legacy_auth_done(&door->legacy, verdict == LOGIN_GOOD);
    if (verdict != LOGIN_GOOD) {
        (void)door_close(door, door->refused);
    }
}

static void on_login(struct login *login, enum login_verdict verdict)
{
    struct door *door = LOOP_OWNER(login, struct door, login);

    door->waits = false;
    take_verdict(door, verdict);
    door->setup.answered(door);
}

enum door_status door_log_in(struct door *door, const struct socks6_credentials *credentials)
{
    enum login_verdict verdict;

    if (!login_start(&door->login, door->setup.client, credentials, &verdict)) {
        door->waits = true;
        return DOOR_WAIT;
    }
    take_verdict(door, verdict);
    return door->closed ? DOOR_CLOSED : DOOR_MORE;
}

/* ---- bytes ---- */

/* Who has not logged in has come in by a certificate, or is anonymous where that is enough. */
static enum door_status take_legacy_request(struct door *door)
{
    if (door->user == NULL && !door_let_certified_in(door) &&
        (door->setup.config->auth.methods & CONFIG_AUTH_ANONYMOUS) == 0) {
        return door_close(door, "the certificate names no user"); /* any more */
    }
    door->request.command = door->legacy.command;
    door->request.addr = door->legacy.addr;
    return DOOR_REQUEST;
}

static enum door_status refuse_legacy(struct door *door)
{
    if (door->legacy.needs_login) {
        stats_add(door->setup.auth->stats, STATS_auth_missing, 1);
    }
    const char *why = door->legacy.needs_login ? door_why_not_certified(door) : NULL;
    return door_close(door, why != NULL ? why : door->legacy.why);
}

static enum door_status input_legacy(struct door *door, const uint8_t *bytes, size_t len, size_t *used)
{
    for (;;) {
        size_t taken = 0;
        enum legacy_status status = legacy_input(&door->legacy, bytes + *used, len - *used, &taken);
        enum door_status logged_in;

        *used += taken;
        switch (status) {
        case LEGACY_MORE:
            return DOOR_MORE;
        case LEGACY_CREDENTIALS:
            logged_in = door_log_in(door, &door->legacy.credentials);
            if (logged_in != DOOR_MORE) {
                return logged_in;
            }
            break;
        case LEGACY_REQUEST:
            return take_legacy_request(door);
        case LEGACY_REFUSED:
            return refuse_legacy(door);
        }
    }
}

void door_confirm(struct door *door)
{
    door->is_confirmed = true;
}

enum door_status door_input(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    *used = 0;
    if (door->closed) {
        return DOOR_CLOSED;
    }
    if (door->waits) {
        return DOOR_WAIT;
    }
    return door->server != NULL ? door_socks6_input(door, bytes, len, now_ms, used)
                                : input_legacy(door, bytes, len, used);
}

struct identity *door_user(const struct door *door)
{
    return door->user;
}

struct identity *door_take_user(struct door *door)
{
    struct identity *user = door->user;

    door->user = NULL;
    return user;
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
