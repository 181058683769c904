/*
 * What the SOCKS 6 machine of the library asks: who logs in, which sessions there are, which tokens are spent. The store
 * usually answers within the call; where it does not, the door waits.
 *
 * A session stands for whoever started it (draft-11 "Session Options"), so the user that it names must still be one.
 */
#include <assert.h>
#include <string.h>

#include "proxyd/door_internal.h"
#include "proxyd/log.h"
#include "proxyd/realm.h"

#define FULL_NOTICE_MS 60000u

static void on_store_answer(struct store_query *query);

bool door_socks6_init(struct door *door, uint64_t now_ms)
{
    const struct config *config = door->setup.config;
    struct socks6_server_config server_config;

    door->query.loop = door->setup.auth->loop;
    door->query.done = on_store_answer;
    socks6_server_config_init(&server_config);
    server_config.options_cap = config->limits.options;
    server_config.handshake_ms = 0; /* the connection has a timer of its own, for every version */
    server_config.offer_userpass = (config->auth.methods & CONFIG_AUTH_PASSWORD) != 0;
    return socks6_server_new(&server_config, now_ms, &door->server) == 0;
}

/* After an answer: the machine has taken it, or there is no memory. */
static enum door_status taken(struct door *door, int err)
{
    assert(err != SOCKS6_ERR_INVALID);
    return err == 0 ? DOOR_MORE : door_close(door, socks6_strerror(err));
}

static void count(struct door *door, enum stats_counter counter)
{
    stats_add(door->setup.auth->stats, counter, 1);
}

/* ---- logging in ---- */

static enum door_status authenticate(struct door *door, const struct socks6_server_event *event)
{
    unsigned methods = door->setup.config->auth.methods;

    /* Of a request whose address type is not known nothing can be told but whether somebody has to log in. */
    if (event->u.auth.has_credentials && (methods & CONFIG_AUTH_PASSWORD) != 0) {
        return door_log_in(door, &event->u.auth.credentials);
    }
    if (door_let_certified_in(door) || (methods & CONFIG_AUTH_ANONYMOUS) != 0) {
        return taken(door, socks6_server_auth_done(door->server, SOCKS6_AUTH_SUCCESS));
    }
    if (event->u.auth.can_negotiate) {
        return taken(door, socks6_server_auth_done(door->server, SOCKS6_AUTH_NEGOTIATE));
    }
    count(door, STATS_auth_missing);
    door->refused = door_why_not_certified(door);
    return taken(door, socks6_server_auth_done(door->server, SOCKS6_AUTH_FAILURE));
}

void door_socks6_logged_in(struct door *door, bool is_good)
{
    (void)taken(door, socks6_server_auth_done(door->server, is_good ? SOCKS6_AUTH_SUCCESS : SOCKS6_AUTH_FAILURE));
}

/* ---- answers of the store ---- */

/* The session's user comes in, if there still is one of this name. */
static bool resume(struct door *door, const struct store_answer *answer)
{
    struct auth *auth = door->setup.auth;
    const struct socks6_slice name = {(const uint8_t *)answer->user, answer->user_len};

    if (name.len == 0) {
        return true;
    }
    if (auth->users == NULL || !users_may_have(auth->users, name)) {
        return false;
    }
    door->user = identity_take(&auth->identities, name);
    return door->user != NULL;
}

static int take_lookup(struct door *door, const struct store_answer *answer)
{
    bool found = answer->status == STORE_OK && resume(door, answer);

    count(door, found ? STATS_sessions_resumed : STATS_sessions_invalid);
    return socks6_server_session_done(door->server, found, answer->window.size > 0 ? &answer->window : NULL);
}

static int take_teardown(struct door *door, const struct store_answer *answer)
{
    bool found = answer->status == STORE_OK;

    count(door, found ? STATS_sessions_torn_down : STATS_sessions_invalid);
    return socks6_server_session_done(door->server, found, NULL);
}

/* Once a minute: nobody is turned away, so it is easily overlooked. */
static void tell_full(struct door *door, enum store_status status)
{
    struct auth *auth = door->setup.auth;
    uint64_t now_ms = loop_now_ms(auth->loop);

    if ((status != STORE_FULL && status != STORE_FULL_ANONYMOUS) ||
        (auth->full_told_ms != 0 && now_ms - auth->full_told_ms < FULL_NOTICE_MS)) {
        return;
    }
    auth->full_told_ms = now_ms;
    log_warning("no more sessions are granted: there are as many as `limits.%s` allows; requests go on without",
                status == STORE_FULL ? "sessions" : "sessions_anonymous");
}

static int take_start(struct door *door, const struct store_answer *answer)
{
    if (answer->status != STORE_OK) {
        count(door, STATS_sessions_refused);
        tell_full(door, answer->status);
        return socks6_server_session_started(door->server, NULL, 0);
    }
    count(door, STATS_sessions_started);
    memcpy(door->session_id, answer->id, sizeof door->session_id);
    return socks6_server_session_started(door->server, answer->id, sizeof answer->id);
}

static int take_window(struct door *door, const struct store_answer *answer)
{
    const struct socks6_window none = {0};

    return socks6_server_window_done(door->server, answer->status == STORE_OK ? &answer->window : &none);
}

static int take_token(struct door *door, const struct store_answer *answer)
{
    bool accepted = answer->status == STORE_OK && answer->accepted;

    count(door, accepted ? STATS_tokens_accepted : STATS_tokens_rejected);
    return socks6_server_token_done(door->server, accepted, answer->window.size > 0 ? &answer->window : NULL);
}

static enum door_status take_store_answer(struct door *door)
{
    const struct store_answer *answer = &door->query.answer;

    switch ((enum socks6_server_event_type)door->asked) {
    case SOCKS6_SERVER_SESSION_LOOKUP:
        return taken(door, take_lookup(door, answer));
    case SOCKS6_SERVER_SESSION_TEARDOWN:
        return taken(door, take_teardown(door, answer));
    case SOCKS6_SERVER_SESSION_START:
        return taken(door, take_start(door, answer));
    case SOCKS6_SERVER_WINDOW_REQUEST:
        return taken(door, take_window(door, answer));
    case SOCKS6_SERVER_TOKEN_SPEND:
        return taken(door, take_token(door, answer));
    case SOCKS6_SERVER_NONE:
    case SOCKS6_SERVER_AUTHENTICATE:
    case SOCKS6_SERVER_REQUEST:
    case SOCKS6_SERVER_CLOSE:
        break;
    }
    assert(false); /* the store was not asked */
    return DOOR_CLOSED;
}

static void on_store_answer(struct store_query *query)
{
    struct door *door = LOOP_OWNER(query, struct door, query);

    door->waits = door->query_waits = false;
    (void)take_store_answer(door);
    door->setup.answered(door);
}

/* ---- asking the store ---- */

static enum store_timing start_session(struct door *door, const char *realm)
{
    const struct identity *user = door->user;
    const struct users_pam *pam = user == NULL ? NULL : users_pam(door->setup.auth->users);
    const struct store_owner owner = {
        .realm = realm,
        .user = {user == NULL ? NULL : (const uint8_t *)user->name, user == NULL ? 0 : user->len},
        .client = *door->setup.client,
        .valid_ms = pam == NULL ? 0 : pam->remember_ms,
    };

    return store_session_start(door->setup.auth->store, &door->query, &owner);
}

static enum store_timing look_up(struct door *door, struct socks6_slice id, const char *realm)
{
    if (id.len == sizeof door->session_id) {
        memcpy(door->session_id, id.data, sizeof door->session_id);
    }
    return store_session_lookup(door->setup.auth->store, &door->query, id, realm);
}

static enum door_status ask_store(struct door *door, const struct socks6_server_event *event)
{
    struct store *store = door->setup.auth->store;
    const struct socks6_slice id = {door->session_id, sizeof door->session_id};
    enum store_timing timing = STORE_NOW;
    char realm[STORE_REALM_MAX + 1];

    realm_write(realm, door->setup.transport, door->setup.listener, door->setup.config->auth.methods);
    door->query.now_ms = loop_now_ms(door->setup.auth->loop);
    door->asked = (int)event->type;
    switch (event->type) {
    case SOCKS6_SERVER_SESSION_LOOKUP:
        timing = look_up(door, event->u.session.id, realm);
        break;
    case SOCKS6_SERVER_SESSION_TEARDOWN:
        timing = store_session_end(store, &door->query, event->u.session.id, realm);
        break;
    case SOCKS6_SERVER_SESSION_START:
        timing = start_session(door, realm);
        break;
    case SOCKS6_SERVER_WINDOW_REQUEST:
        timing = store_window_request(store, &door->query, id, realm, event->u.window.size);
        break;
    case SOCKS6_SERVER_TOKEN_SPEND:
        timing = store_token_spend(store, &door->query, id, realm, event->u.token.token);
        break;
    case SOCKS6_SERVER_NONE:
    case SOCKS6_SERVER_AUTHENTICATE:
    case SOCKS6_SERVER_REQUEST:
    case SOCKS6_SERVER_CLOSE:
        assert(false); /* not for the store */
    }
    if (timing == STORE_LATER) {
        door->waits = door->query_waits = true;
        return DOOR_WAIT;
    }
    return take_store_answer(door);
}

/* ---- the request ---- */

static enum door_status take_request(struct door *door, const struct socks6_server_event *event)
{
    const struct socks6_request *asked = event->u.request.request;
    struct door_request *request = &door->request;

    request->command = asked->command;
    request->addr = asked->addr;
    request->stack_count = asked->stack_count;
    for (size_t i = 0; i < request->stack_count; i++) {
        request->stack[i] = asked->stack[i];
    }
    request->token_spent = event->u.request.token_spent != 0;
    request->initial_data = event->u.request.initial_data;
    return DOOR_REQUEST;
}

/* What a copy of a request would do at the client's cost. */
static enum door_status ask_confirmed(struct door *door, const struct socks6_server_event *event)
{
    if (!door->is_confirmed) {
        door->held = *event; /* what it borrows stays valid until it is answered */
        door->is_held = true;
        return DOOR_CONFIRM;
    }
    return ask_store(door, event);
}

static enum door_status answer_held(struct door *door)
{
    if (!door->is_confirmed) {
        return DOOR_CONFIRM;
    }
    door->is_held = false;
    return ask_store(door, &door->held);
}

/* Answers one event; DOOR_MORE: go on asking. */
static enum door_status answer(struct door *door, const struct socks6_server_event *event)
{
    switch (event->type) {
    case SOCKS6_SERVER_NONE:
        break;
    case SOCKS6_SERVER_AUTHENTICATE:
        return authenticate(door, event);
    case SOCKS6_SERVER_SESSION_TEARDOWN:
    case SOCKS6_SERVER_SESSION_START:
        return ask_confirmed(door, event);
    case SOCKS6_SERVER_SESSION_LOOKUP:
    case SOCKS6_SERVER_WINDOW_REQUEST: /* which gives a window only to a session without one */
    case SOCKS6_SERVER_TOKEN_SPEND:
        return ask_store(door, event);
    case SOCKS6_SERVER_REQUEST:
        return take_request(door, event);
    case SOCKS6_SERVER_CLOSE:
        return door_close(door, door->refused != NULL ? door->refused : event->u.close.why);
    }
    return DOOR_MORE;
}

enum door_status door_socks6_input(struct door *door, const uint8_t *bytes, size_t len, uint64_t now_ms, size_t *used)
{
    enum door_status status = door->is_held ? answer_held(door) : DOOR_MORE;
    while (status == DOOR_MORE) {
        size_t taken_len = 0;
        if (socks6_server_input(door->server, bytes + *used, len - *used, now_ms, &taken_len) != 0) {
            return door_close(door, "out of memory");
        }
        *used += taken_len;

        struct socks6_server_event event;
        socks6_server_next_event(door->server, &event);
        if (event.type == SOCKS6_SERVER_NONE) {
            return DOOR_MORE;
        }
        status = answer(door, &event);
    }
    return status;
}
