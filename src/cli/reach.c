/*
 * Theory of operation. One attempt: take from the cache, dial, learn. The proxy's two refusals that concern our memory and
 * not us, Session Invalid and a rejected token, say that nothing was done for this request, and are what the second attempt
 * is for. By then the cache has learnt: it gives out no session, or another token. An attempt is one socks6_dial; between two
 * of its steps we wait where it waits.
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
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/proxy_find.h"

#define TRIES_MAX 2u

struct reach {
    struct reach_config config;
    struct reach_shared *shared; /* a reference of ours */
    uint64_t deadline_ms;        /* 0 = none */
    unsigned tries;
    unsigned fd_count; /* of the attempts before this one */
    /* One attempt. */
    struct socks6_dial *dial; /* NULL = none is under way */
    struct socks6_client_config settings;
    struct socks6_dial_layer layer;
    struct reach_use use;
    struct tls_client *tls; /* NULL = none */
    bool is_invalid;
    bool is_rejected;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

__attribute__((format(printf, 2, 3))) static void trace(const struct reach *reach, const char *format, ...)
{
    const struct socks6_dial_config *dial = &reach->config.dial;
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
static void judge_cache(const struct reach *reach, int rc)
{
    if (rc != 0) {
        trace(reach, "the cache cannot be used: %s", strerror(-rc));
    }
}

static int fail(struct socks6_dial_result *result, int status, const char *why)
{
    memset(result, 0, sizeof *result);
    result->fd = -1;
    (void)snprintf(result->error, sizeof result->error, "%s", why);
    return status;
}

/* --- one attempt --- */

static void on_session(void *user, const struct socks6_client_session *reply)
{
    struct reach *reach = user;

    reach->is_invalid = reach->is_invalid || reply->invalid != 0;
    reach->is_rejected = reach->is_rejected || reply->token_rejected != 0;
    judge_cache(reach, reach_shared_learn(reach->shared, &reach->use, reply));
}

/* Also while the connection is used, long after the attempt. */
static void on_ticket(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s)
{
    int rc = reach_shared_put_ticket(user, ticket, len, expires_s);

    (void)rc; /* the next connection takes a whole handshake */
}

/* The session part of the request. Without a cache there is none. */
static void take(struct reach *reach)
{
    const struct cache_use *use = &reach->use.cache;

    socks6_client_config_init(&reach->settings);
    reach->settings.has_credentials = reach_shared_proxy(reach->shared)->has_credentials;
    judge_cache(reach, reach_shared_take(reach->shared, &reach->settings, &reach->use));
    if (!reach->use.is_taken) {
        return;
    }
    if (use->session.id_len == 0) {
        trace(reach, "no session with this proxy is known; one is asked for");
    } else if (use->has_token) {
        trace(reach, "a session is known; token %u is spent on this request", (unsigned)use->token);
    } else {
        trace(reach, "a session is known, but no token is left");
    }
}

/* SOCKS6_DIAL_OK and the layer, or why not. */
static int add_tls(struct reach *reach, struct socks6_dial_result *result)
{
    struct tls_client_config config = {
        .proxy = reach_shared_proxy(reach->shared),
        .ticket = {reach->use.cache.ticket, reach->use.cache.ticket_len},
        .early_data = reach->use.cache.has_token && !reach->config.no_early_data,
        .on_ticket = reach_shared_keeps(reach->shared) ? on_ticket : NULL,
        .on_ticket_user = reach->shared,
    };
    char why[TLS_CLIENT_WHY_MAX];
    int rc = reach_shared_tls(reach->shared, &config.context, why);

    if (rc == 0) {
        rc = tls_client_new(&config, &reach->tls, why);
    }
    if (rc != 0) {
        return fail(result, rc == -ENOMEM ? SOCKS6_DIAL_NOMEM : SOCKS6_DIAL_INVALID, why);
    }
    stream_layer(reach->tls, &reach->layer);
    return SOCKS6_DIAL_OK;
}

static enum socks6_fast_open choose_fast_open(const struct reach *reach)
{
    if (reach->config.no_fast_open) {
        return SOCKS6_FAST_OPEN_OFF;
    }
    if (reach->tls != NULL || reach->use.cache.has_token) {
        return SOCKS6_FAST_OPEN_DATA;
    }
    return reach->use.is_taken ? SOCKS6_FAST_OPEN_COOKIE : SOCKS6_FAST_OPEN_OFF; /* the next one will have a token */
}

/* How much of the time is left; at least a millisecond, since 0 means no limit. */
static uint64_t time_left(const struct reach *reach)
{
    uint64_t now = now_ms();

    if (reach->deadline_ms == 0) {
        return 0;
    }
    return reach->deadline_ms > now ? reach->deadline_ms - now : 1;
}

/* IN_PROGRESS, or how it has failed. */
static int start_attempt(struct reach *reach, struct socks6_dial_result *result)
{
    struct socks6_dial_config dial = reach->config.dial;
    int status = SOCKS6_DIAL_OK;

    reach->tries++;
    reach->is_invalid = reach->is_rejected = false;
    take(reach);
    if (dial.proxy->is_tls) {
        status = add_tls(reach, result);
        dial.layer = &reach->layer;
    }
    if (status != SOCKS6_DIAL_OK) {
        return status;
    }
    dial.timeout_ms = time_left(reach);
    dial.fast_open = choose_fast_open(reach);
    if (reach->use.is_taken) {
        dial.session = &reach->settings;
        dial.on_session = on_session;
        dial.on_session_user = reach;
    }
    return socks6_dial_start(&dial, &reach->dial, result);
}

/* Whether somebody on the way could have sent a copy of the request that counts. */
static bool can_be_repeated(const struct reach *reach, const struct socks6_dial_result *result)
{
    if (reach->tls != NULL) {
        return tls_client_early(reach->tls) != TLS_EARLY_NONE;
    }
    return result->sent_in_syn != 0;
}

/*
 * Whether another attempt can set it right. Session Invalid and a rejected token are said before anything is done. But
 * a token that we have not spent on another request can have been spent by a copy of this one, made on the way; of data that was
 * with it nobody knows then whether the server has it already.
 */
static bool is_worth_another(const struct reach *reach, int status, const struct socks6_dial_result *result)
{
    if (status != SOCKS6_DIAL_PROXY_FAILED || reach->tries == TRIES_MAX) {
        return false;
    }
    if (reach->is_invalid) {
        return reach->use.cache.session.id_len > 0;
    }
    return reach->is_rejected && reach->use.cache.has_token &&
           (reach->config.is_repeatable || reach->config.dial.early.len == 0 || !can_be_repeated(reach, result));
}

/* Frees what is left of an attempt. */
static void drop_attempt(struct reach *reach)
{
    if (reach->dial != NULL) {
        reach->fd_count += socks6_dial_fd_count(reach->dial);
    }
    socks6_dial_free(reach->dial);
    reach->dial = NULL;
    tls_client_free(reach->tls);
    reach->tls = NULL;
    reach_shared_end(reach->shared, &reach->use);
}

/* After a failed attempt. True: there is to be another one. */
static bool conclude(struct reach *reach, int status, const struct socks6_dial_result *result)
{
    bool again = is_worth_another(reach, status, result);

    if (reach->use.is_taken && !result->sent) {
        judge_cache(reach, reach_shared_return(reach->shared, &reach->use));
    }
    if (reach->tls != NULL && tls_client_error(reach->tls) != NULL) {
        reach_shared_tls_failed(reach->shared);
    }
    drop_attempt(reach);
    if (again) {
        trace(reach, "%s; asking once more over another connection", result->error);
    }
    return again;
}

/* --- the whole --- */

/* After a step of an attempt that ended with `status`: goes on to the next attempt, or to the end. */
static int go_on(struct reach *reach, int status, struct stream *stream, struct socks6_dial_result *result)
{
    while (status != SOCKS6_DIAL_IN_PROGRESS && status != SOCKS6_DIAL_OK && conclude(reach, status, result)) {
        status = start_attempt(reach, result);
    }
    if (status == SOCKS6_DIAL_OK) {
        *stream = (struct stream){
            .fd = result->fd,
            .tls = reach->tls,
            .keeper = reach_shared_retain(reach->shared),
            .release = reach_shared_release,
        };
        result->fd = -1;
        reach->tls = NULL;
        drop_attempt(reach);
    }
    return status;
}

static int new_reach(const struct reach_config *config, struct reach **out)
{
    const struct reach_shared_config own = {.proxy = config->dial.proxy, .no_session = config->no_session};
    struct reach *reach = calloc(1, sizeof *reach);

    if (reach == NULL) {
        return SOCKS6_DIAL_NOMEM;
    }
    reach->config = *config;
    if (config->shared != NULL) {
        reach->shared = reach_shared_retain(config->shared);
    } else if (reach_shared_new(&own, &reach->shared) != 0) {
        free(reach);
        return SOCKS6_DIAL_NOMEM;
    }
    if (config->dial.timeout_ms > 0) {
        reach->deadline_ms = now_ms() + config->dial.timeout_ms;
    }
    judge_cache(reach, reach_shared_problem(reach->shared));
    *out = reach;
    return SOCKS6_DIAL_OK;
}

int reach_start(const struct reach_config *config, struct reach **out, struct stream *stream,
                struct socks6_dial_result *result)
{
    struct reach *reach = NULL;
    int status = new_reach(config, &reach);

    *stream = (struct stream){.fd = -1};
    if (status != SOCKS6_DIAL_OK) {
        return fail(result, status, "out of memory");
    }
    status = go_on(reach, start_attempt(reach, result), stream, result);
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        reach_free(reach);
        return status;
    }
    *out = reach;
    return status;
}

int reach_fd(const struct reach *reach)
{
    return socks6_dial_fd(reach->dial);
}

unsigned reach_fd_count(const struct reach *reach)
{
    return reach->fd_count + socks6_dial_fd_count(reach->dial);
}

short reach_events(const struct reach *reach)
{
    return socks6_dial_events(reach->dial);
}

int reach_timeout_ms(const struct reach *reach)
{
    return socks6_dial_timeout_ms(reach->dial);
}

int reach_step(struct reach *reach, struct stream *stream, struct socks6_dial_result *result)
{
    return go_on(reach, socks6_dial_step(reach->dial, result), stream, result);
}

void reach_free(struct reach *reach)
{
    if (reach != NULL) {
        drop_attempt(reach);
        reach_shared_release(reach->shared);
        explicit_bzero(reach, sizeof *reach);
        free(reach);
    }
}

/* --- blocking --- */

/* Leads it to the end. */
static int lead(const struct reach_config *config, struct stream *stream, struct socks6_dial_result *result)
{
    struct reach *reach = NULL;
    int status = reach_start(config, &reach, stream, result);

    while (status == SOCKS6_DIAL_IN_PROGRESS) {
        struct pollfd pfd = {reach_fd(reach), reach_events(reach), 0};

        if (poll(&pfd, 1, reach_timeout_ms(reach)) < 0 && errno != EINTR) {
            status = fail(result, SOCKS6_DIAL_NOMEM, "cannot wait for the proxy: out of memory");
        } else {
            status = reach_step(reach, stream, result);
        }
    }
    reach_free(reach);
    return status;
}

int reach(const struct reach_config *config, struct stream *stream, struct socks6_dial_result *result)
{
    struct reach_config found = *config;
    struct proxy_addresses *addresses = NULL;
    char why[sizeof result->error];
    int status = SOCKS6_DIAL_OK;

    *stream = (struct stream){.fd = -1};
    if (config->dial.proxy_address_count == 0 && config->dial.proxy->addr.type == SOCKS6_ADDR_NAME) {
        addresses = malloc(sizeof *addresses);
        if (addresses == NULL) {
            return fail(result, SOCKS6_DIAL_NOMEM, "out of memory");
        }
        status = proxy_find(config->dial.proxy, config->dial.family, addresses, config->dial.trace,
                            config->dial.trace_user, why, sizeof why);
        found.dial.proxy_addresses = addresses->list;
        found.dial.proxy_address_count = addresses->count;
    }
    status = status == SOCKS6_DIAL_OK ? lead(&found, stream, result) : fail(result, status, why);
    free(addresses);
    return status;
}
