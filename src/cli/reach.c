/*
 * Theory of operation. One attempt: take from the cache, dial, learn. The proxy's two refusals that concern our memory and
 * not us, Session Invalid and a rejected token, say that nothing was done for this request, and are what the second attempt
 * is for. By then the cache has learnt: it gives out no session, or another token.
 *
 * Early data: TLS protects it from strangers, but not from being sent again by them. So it is used for requests with a token
 * only, of which the proxy acts on one copy ("Security Considerations").
 *
 * TCP Fast Open is the same: a SYN can be repeated. Its data is a request with a token, or the first message of a TLS handshake, without
 * early data or with early data that has a token.
 *
 * All of the cache is optional. Without a file that can be written no session is asked for, since it could not be used
 * again, and everything is as it would be for a client that has never heard of sessions.
 */
#include "cli/reach.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cache.h"

/*
 * Tokens to ask for. A proxy may give up the lower half of a window when a token of the upper half is spent, so this is how
 * many connections can be on their way at once (twice as many, to be exact) without one overtaking another for good.
 */
#define WINDOW_SIZE 1024u

/* One attempt. */
struct attempt {
    const struct reach_config *config;
    char path[PATH_MAX]; /* of the cache; empty = there is none */
    char host[SOCKS6_ADDR_TEXT_MAX];
    struct cache_key key;
    struct cache_use use;
    struct tls_client *tls; /* NULL = none */
    bool is_taken;          /* `use` holds something */
    bool is_invalid;
    bool is_rejected;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t now_s(void)
{
    return (uint64_t)time(NULL);
}

__attribute__((format(printf, 2, 3))) static void trace(const struct attempt *attempt, const char *format, ...)
{
    const struct socks6_dial_config *dial = &attempt->config->dial;
    char line[512];
    va_list args;

    if (dial->trace == NULL) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    dial->trace(dial->trace_user, line);
}

/* Called for what must not fail anything: the cache only saves time. */
static void judge_cache(const struct attempt *attempt, int rc)
{
    if (rc != 0) {
        trace(attempt, "the cache cannot be used: %s", strerror(-rc));
    }
}

static void on_session(void *user, const struct socks6_client_session *reply)
{
    struct attempt *attempt = user;

    attempt->is_invalid = attempt->is_invalid || reply->invalid != 0;
    attempt->is_rejected = attempt->is_rejected || reply->token_rejected != 0;
    judge_cache(attempt, cache_learn(attempt->path, &attempt->key, now_s(), &attempt->use, reply));
}

static void trace_taken(const struct attempt *attempt)
{
    if (attempt->use.session.id_len == 0) {
        trace(attempt, "no session with this proxy is known; one is asked for");
    } else if (attempt->use.has_token) {
        trace(attempt, "a session is known; token %u is spent on this request", (unsigned)attempt->use.token);
    } else {
        trace(attempt, "a session is known, but no token is left");
    }
}

/* The session part of the request. Without a cache there is none. */
static void take(struct attempt *attempt, struct socks6_client_config *settings)
{
    int rc;

    if (attempt->path[0] == '\0') {
        return;
    }
    rc = cache_take(attempt->path, &attempt->key, now_s(), WINDOW_SIZE, settings, &attempt->use);
    judge_cache(attempt, rc);
    attempt->is_taken = rc == 0;
    if (attempt->is_taken) {
        trace_taken(attempt);
    }
}

/* Also while the connection is used, long after the attempt. */
static void on_ticket(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s)
{
    const struct attempt *attempt = user;
    int rc = cache_put_ticket(attempt->path, &attempt->key, now_s(), ticket, len, expires_s);

    (void)rc; /* the next connection takes a whole handshake */
}

static int fail(struct socks6_dial_result *result, int status, const char *why)
{
    memset(result, 0, sizeof *result);
    result->fd = -1;
    (void)snprintf(result->error, sizeof result->error, "%s", why);
    return status;
}

/* SOCKS6_DIAL_OK and `layer`, or why not. */
static int add_tls(struct attempt *attempt, struct socks6_dial_layer *layer, struct socks6_dial_result *result)
{
    const struct tls_client_config config = {
        .proxy = attempt->config->dial.proxy,
        .ticket = {attempt->use.ticket, attempt->use.ticket_len},
        .early_data = attempt->use.has_token && !attempt->config->no_early_data,
        .on_ticket = attempt->is_taken ? on_ticket : NULL,
        .on_ticket_user = attempt,
    };
    char why[TLS_CLIENT_WHY_MAX];
    int rc = tls_client_new(&config, &attempt->tls, why);

    if (rc != 0) {
        return fail(result, rc == -ENOMEM ? SOCKS6_DIAL_NOMEM : SOCKS6_DIAL_INVALID, why);
    }
    stream_layer(attempt->tls, layer);
    return SOCKS6_DIAL_OK;
}

static enum socks6_fast_open choose_fast_open(const struct attempt *attempt)
{
    if (attempt->config->no_fast_open) {
        return SOCKS6_FAST_OPEN_OFF;
    }
    if (attempt->config->dial.proxy->is_tls || attempt->use.has_token) {
        return SOCKS6_FAST_OPEN_DATA;
    }
    return attempt->is_taken ? SOCKS6_FAST_OPEN_COOKIE : SOCKS6_FAST_OPEN_OFF; /* the next one will have a token */
}

static int run(struct attempt *attempt, uint64_t timeout_ms, struct socks6_dial_result *result)
{
    const struct socks6_proxy *proxy = attempt->config->dial.proxy;
    struct socks6_dial_config dial = attempt->config->dial;
    struct socks6_client_config settings;
    struct socks6_dial_layer layer;
    int status = SOCKS6_DIAL_OK;

    socks6_client_config_init(&settings);
    settings.has_credentials = proxy->has_credentials;
    take(attempt, &settings);
    dial.timeout_ms = timeout_ms;
    dial.fast_open = choose_fast_open(attempt);
    if (attempt->is_taken) {
        dial.session = &settings;
        dial.on_session = on_session;
        dial.on_session_user = attempt;
    }
    if (proxy->is_tls) {
        status = add_tls(attempt, &layer, result);
        dial.layer = &layer;
    }
    if (status == SOCKS6_DIAL_OK) {
        status = socks6_dial(&dial, result);
    }
    if (attempt->is_taken && status != SOCKS6_DIAL_OK && !result->sent) {
        judge_cache(attempt, cache_return_token(attempt->path, &attempt->key, now_s(), &attempt->use));
    }
    return status;
}

/* Whether somebody on the way could have sent a copy of the request that counts. */
static bool can_be_repeated(const struct attempt *attempt, const struct socks6_dial_result *result)
{
    if (attempt->tls != NULL) {
        return tls_client_early(attempt->tls) != TLS_EARLY_NONE;
    }
    return result->sent_in_syn != 0;
}

/*
 * Whether another attempt can set it right. Session Invalid and a rejected token are said before anything is done. But
 * a token that we have not spent on another request can have been spent by a copy of this one, made on the way; of data that was
 * with it nobody knows then whether the server has it already.
 */
static bool is_worth_another(const struct attempt *attempt, const struct socks6_dial_result *result)
{
    if (attempt->is_invalid) {
        return attempt->use.session.id_len > 0;
    }
    return attempt->is_rejected && attempt->use.has_token &&
           (attempt->config->dial.early.len == 0 || !can_be_repeated(attempt, result));
}

/* How much of the time is left; at least a millisecond, since 0 means no limit. */
static uint64_t time_left(uint64_t timeout_ms, uint64_t started_ms)
{
    uint64_t passed = now_ms() - started_ms;

    if (timeout_ms == 0) {
        return 0;
    }
    return timeout_ms > passed ? timeout_ms - passed : 1;
}

static void prepare(struct attempt *attempt)
{
    const struct socks6_proxy *proxy = attempt->config->dial.proxy;
    struct cache_key *key = &attempt->key;

    if (proxy->scheme == SOCKS6_SCHEME_SOCKS6 && !attempt->config->no_session) {
        int rc = cache_default_path(attempt->path, sizeof attempt->path);

        judge_cache(attempt, rc);
        if (rc != 0) {
            attempt->path[0] = '\0';
        }
    }
    (void)socks6_addr_format_host(&proxy->addr, attempt->host, sizeof attempt->host);
    key->host = attempt->host;
    key->port = proxy->addr.port;
    key->is_tls = proxy->is_tls != 0;
    key->ca = proxy->ca[0] != '\0' ? proxy->ca : NULL;
    key->certificate = proxy->certificate[0] != '\0' ? proxy->certificate : NULL;
    key->user = proxy->has_credentials ? proxy->username : NULL;
    key->password = proxy->has_credentials ? proxy->password : NULL;
}

int reach(const struct reach_config *config, struct stream *stream, struct socks6_dial_result *result)
{
    const uint64_t started_ms = now_ms();
    struct attempt *attempt = calloc(1, sizeof *attempt);
    int status = SOCKS6_DIAL_INVALID;
    bool again = true;

    *stream = (struct stream){.fd = -1};
    if (attempt == NULL) {
        return fail(result, SOCKS6_DIAL_NOMEM, "out of memory");
    }
    attempt->config = config;
    prepare(attempt);
    for (int tries = 0; again && tries < 2; tries++) {
        attempt->is_taken = attempt->is_invalid = attempt->is_rejected = false;
        status = run(attempt, time_left(config->dial.timeout_ms, started_ms), result);
        again = status == SOCKS6_DIAL_PROXY_FAILED && is_worth_another(attempt, result);
        cache_use_done(&attempt->use);
        if (status != SOCKS6_DIAL_OK) {
            tls_client_free(attempt->tls);
            attempt->tls = NULL;
        }
        if (again && tries == 0) {
            trace(attempt, "%s; asking once more over another connection", result->error);
        }
    }
    if (status != SOCKS6_DIAL_OK) {
        free(attempt);
        return status;
    }
    *stream = (struct stream){.fd = result->fd, .tls = attempt->tls, .keeper = attempt};
    result->fd = -1;
    return status;
}
