/*
 * The client's memory of a session: the contract is <socks6/session.h>.
 *
 * Tokens are taken in order, so that one number, `next`, tells which were. "Idempotence Options": clients spend the
 * smallest first, and "MUST ignore" windows whose base has gone back: such a reply was overtaken by a later one. The order
 * of tokens is modular throughout.
 *
 * A proxy has one window per session and slides it as tokens are spent, so a window does not run dry while replies arrive;
 * it does when tokens were taken that never reached the proxy. It is then asked for again, which makes its present state
 * known, and if that does not help for a while the session is given up for a new one.
 */
#include <socks6/session.h>

#include <string.h>

#define WINDOW_SIZE_MAX ((UINT32_C(1) << 31) - 1)

/* Below this part of a window the next one is asked for. */
#define LOW_PART 4u

/* Replies without a token left, before a session is given up: more than a few conversations under way at once explain. */
#define DRY_MAX 32u

void socks6_session_init(struct socks6_session *session)
{
    memset(session, 0, sizeof *session);
}

int socks6_session_is_valid(const struct socks6_session *session)
{
    return session->id_len <= SOCKS6_SESSION_ID_MAX && session->id_len % 4 == 0 && session->untrusted <= 1 &&
           session->window.size <= WINDOW_SIZE_MAX && session->next - session->window.base <= session->window.size;
}

/* `x` comes before `y`: 0 < (y - x) mod 2^32 < 2^31. */
static int is_before(uint32_t x, uint32_t y)
{
    uint32_t distance = y - x;

    return distance > 0 && distance <= WINDOW_SIZE_MAX;
}

uint32_t socks6_session_tokens_left(const struct socks6_session *session)
{
    return session->window.base + session->window.size - session->next;
}

static int take_token(struct socks6_session *session, struct socks6_client_config *config)
{
    if (socks6_session_tokens_left(session) == 0) {
        return 0;
    }
    config->has_token = 1;
    config->token = session->next++;
    return 1;
}

int socks6_session_prepare(struct socks6_session *session, uint32_t window_size, struct socks6_client_config *config)
{
    int has_token;

    config->session_id = (struct socks6_slice){NULL, 0};
    config->request_session = session->id_len == 0;
    config->teardown_session = 0;
    config->request_window = 0;
    config->has_token = 0;
    if (session->id_len == 0) {
        config->request_window = window_size;
        return 0;
    }
    config->session_id = (struct socks6_slice){session->id, session->id_len};
    if (!session->untrusted) { /* "in a session no authentication is asked" */
        config->has_credentials = 0;
        config->initial_data_len = 0;
    }
    has_token = window_size > 0 && take_token(session, config);
    if (socks6_session_tokens_left(session) <= session->window.size / LOW_PART) {
        config->request_window = window_size;
    }
    return has_token;
}

void socks6_session_return(struct socks6_session *session, uint32_t token)
{
    if (session->next == token + 1 && session->next != session->window.base) {
        session->next = token;
    }
}

static int is_same_id(const struct socks6_session *a, const struct socks6_session *b)
{
    return a->id_len == b->id_len && memcmp(a->id, b->id, a->id_len) == 0;
}

/* A session that begins. One whose id is too long for us is not kept, nor is its window. */
static void learn_id(struct socks6_session *session, const struct socks6_client_session *reply)
{
    struct socks6_session before = *session;

    socks6_session_init(session);
    if (reply->id.len > SOCKS6_SESSION_ID_MAX || reply->id.len % 4 != 0) {
        return;
    }
    memcpy(session->id, reply->id.data, reply->id.len);
    session->id_len = (uint16_t)reply->id.len;
    if (before.id_len == 0 && !reply->has_window) { /* an id in the Operation Reply: the rest came before it */
        session->untrusted = before.untrusted;
        session->window = before.window;
        session->next = before.next;
    }
}

static void learn_window(struct socks6_session *session, const struct socks6_window *window)
{
    uint32_t end = window->base + window->size;

    if (window->size == 0 || window->size > WINDOW_SIZE_MAX) {
        return;
    }
    if (session->window.size > 0 && is_before(window->base, session->window.base)) {
        return;
    }
    if (session->window.size == 0 || is_before(session->next, window->base)) {
        session->next = window->base;
    } else if (is_before(end, session->next)) {
        session->next = end;
    }
    session->window = *window;
}

/* Somebody has spent what we believed to be unspent: a memory that was set back. Others near it will be spent too. */
static void skip_after_rejection(struct socks6_session *session, const struct socks6_client_session *reply)
{
    uint32_t left = socks6_session_tokens_left(session), skip = session->window.size / LOW_PART;

    if (!reply->has_window) { /* nobody knows where the window is */
        session->window = (struct socks6_window){0};
        session->next = 0;
    } else {
        session->next += skip < left ? skip : left;
    }
}

static void count_dry(struct socks6_session *session)
{
    if (session->window.size == 0 || socks6_session_tokens_left(session) > 0) {
        session->dry = 0;
    } else if (++session->dry >= DRY_MAX) {
        socks6_session_init(session);
    }
}

void socks6_session_learn(struct socks6_session *session, const struct socks6_session *used,
                          const struct socks6_client_session *reply)
{
    int is_new = reply->id.len > 0;

    if (!is_same_id(session, used)) {
        return;
    }
    if (reply->invalid) {
        socks6_session_init(session);
        return;
    }
    if (is_new) {
        learn_id(session, reply);
    }
    if (reply->untrusted) { /* for good: whether later replies repeat the mark is not said */
        session->untrusted = 1;
    }
    if (reply->has_window) {
        learn_window(session, &reply->window);
    }
    if (reply->token_rejected) {
        skip_after_rejection(session, reply);
    }
    if (session->id_len > 0 && !is_new) {
        count_dry(session);
    }
}
