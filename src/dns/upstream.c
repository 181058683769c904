/*
 * A query runs through tries. Each goes to one server, over the transport that this one has, and ends with an answer, a
 * time-out, or an error of its channel; the next goes to the next server of the order. Servers that are down are tried
 * last. All servers have had their turn before the first one gets another.
 *
 * An answer SERVFAIL, REFUSED or NOTIMP is kept, and the servers that were not asked yet are: if none knows better, it
 * is the result.
 *
 * The end is always reported by a task of the loop, never from within a call or an event, so that no user's code runs
 * while lists are being walked.
 */
#include "dns/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dns/upstream_internal.h"

#define FAILURES_MAX 3u /* in a row: the server is down */
#define DOWN_MS 30000u  /* ... for that long */
#define SWEEP_MS 250u
#define TLS_PADDING_BLOCK 128u /* RFC 8467, for queries */
#define OPTION_HEADER_LEN 4u

static uint64_t now_us(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 0;
    }
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- channels ---- */

static struct upstream_query **bucket(struct upstream *upstream, const struct upstream_channel *channel, uint16_t id)
{
    uintptr_t salt = (uintptr_t)channel >> 6;
    return &upstream->buckets[(id ^ salt ^ salt >> 10) % UPSTREAM_BUCKETS];
}

static struct upstream_query *find(const struct upstream_channel *channel, uint16_t id)
{
    struct upstream_query *query = *bucket(channel->upstream, channel, id);

    while (query != NULL && (query->id != id || query->channel != channel)) {
        query = query->chain;
    }
    return query;
}

void upstream_attach(struct upstream_query *query, struct upstream_channel *channel)
{
    struct upstream *upstream = query->upstream;

    /* The caller of upstream_ask() has far fewer than 65536 queries, so a free id is found. */
    do {
        query->id = dns_random16(&upstream->random);
    } while (find(channel, query->id) != NULL);
    struct upstream_query **at = bucket(upstream, channel, query->id);
    query->channel = channel;
    query->chain = *at;
    *at = query;
    query->prev = NULL;
    query->next = channel->queries;
    if (query->next != NULL) {
        query->next->prev = query;
    }
    channel->queries = query;
    channel->pending++;
}

void upstream_detach(struct upstream_query *query)
{
    struct upstream_channel *channel = query->channel;

    if (channel == NULL) {
        return;
    }
    struct upstream_query **at = bucket(query->upstream, channel, query->id);
    while (*at != query) {
        at = &(*at)->chain;
    }
    *at = query->chain;
    if (query->prev != NULL) {
        query->prev->next = query->next;
    } else {
        channel->queries = query->next;
    }
    if (query->next != NULL) {
        query->next->prev = query->prev;
    }
    channel->pending--;
    query->channel = NULL;
}

int upstream_build(struct upstream_query *query, bool over_stream, bool over_tls, size_t *len)
{
    static const uint8_t zeros[TLS_PADDING_BLOCK];
    const size_t size = DNS_MESSAGE_MAX;
    uint8_t *buf = query->upstream->query_buf + 2;
    uint8_t own[2 * OPTION_HEADER_LEN + TLS_PADDING_BLOCK];
    struct socks6_slice options = {own, 0};

    int err = 0;
    if (over_stream) {
        err = dns_option_put(own, sizeof own, &options.len, DNS_OPTION_TCP_KEEPALIVE, NULL, 0);
    }
    if (err == 0) {
        err = dns_request_build(&query->request, query->id, query->with_edns, &options, buf, size, len);
    }
    if (err == 0 && over_tls && query->with_edns) {
        size_t over = (*len + OPTION_HEADER_LEN) % TLS_PADDING_BLOCK;
        size_t padding = over == 0 ? 0 : TLS_PADDING_BLOCK - over;
        err = dns_option_put(own, sizeof own, &options.len, DNS_OPTION_PADDING, zeros, padding);
        if (err == 0) {
            err = dns_request_build(&query->request, query->id, query->with_edns, &options, buf, size, len);
        }
    }
    return err;
}

/* ---- tries ---- */

static struct dns_health *health_of(struct upstream_query *query)
{
    return &query->servers->health[query->order[(query->tries - 1) % query->servers->count]];
}

static void server_failed(struct upstream_query *query)
{
    struct dns_health *health = health_of(query);

    if (atomic_fetch_add(&health->failures, 1) + 1 >= FAILURES_MAX) {
        atomic_store(&health->down_until_ms, loop_now_ms(query->upstream->loop) + DOWN_MS);
    }
}

static void server_works(struct upstream_query *query)
{
    struct dns_health *health = health_of(query);

    if (atomic_load_explicit(&health->failures, memory_order_relaxed) != 0) {
        atomic_store(&health->failures, 0);
        atomic_store(&health->down_until_ms, 0);
    }
}

/* The result is known: reported at the end of this batch. */
static void finish(struct upstream_query *query)
{
    upstream_detach(query);
    loop_timer_cancel(query->upstream->loop, &query->timer);
    loop_defer(query->upstream->loop, &query->task);
}

/* Sends the try that is due to its server. 0 or -errno. */
static int send_try(struct upstream_query *query)
{
    struct upstream *upstream = query->upstream;
    const struct dns_server *server = &query->servers->server[query->order[(query->tries - 1) % query->servers->count]];
    uint64_t now_ms = loop_now_ms(upstream->loop);
    uint64_t left_ms = query->deadline_ms - now_ms;

    int err =
        server->transport == DNS_UDP && !query->over_stream ? udp_send(query, server) : stream_send(query, server);
    if (err != 0) {
        return err;
    }
    query->sent_us = now_us();
    dns_count(upstream->counters, DNS_COUNTER_upstream_queries, 1);
    loop_timer_set(upstream->loop, &query->timer,
                   left_ms < query->servers->timeout_ms ? left_ms : query->servers->timeout_ms);
    return 0;
}

/* With an answer in hand, be it a refusal, only servers that were not asked yet are of interest. */
static bool has_try_left(const struct upstream_query *query)
{
    unsigned most = query->answer != NULL ? (unsigned)query->servers->count : query->tries_max;

    return query->tries < most && query->deadline_ms > loop_now_ms(query->upstream->loop);
}

/* Goes on with the next server, or ends. `why`: what was wrong with the last try. */
static void try_next(struct upstream_query *query, const char *why)
{
    query->why = why;
    while (has_try_left(query)) {
        query->tries++;
        query->over_stream = query->is_resent = false;
        if (send_try(query) == 0) {
            return;
        }
        dns_count(query->upstream->counters, DNS_COUNTER_upstream_errors, 1);
        server_failed(query);
        query->why = "upstream server cannot be reached";
    }
    finish(query);
}

/* The same try once more, in another way (TCP, a fresh connection, without EDNS). */
static void try_again(struct upstream_query *query)
{
    if (query->deadline_ms <= loop_now_ms(query->upstream->loop)) {
        try_next(query, "upstream server does not answer");
    } else if (send_try(query) != 0) {
        dns_count(query->upstream->counters, DNS_COUNTER_upstream_errors, 1);
        server_failed(query);
        try_next(query, "upstream server cannot be reached");
    }
}

static void on_timeout(struct loop_timer *timer)
{
    struct upstream_query *query = LOOP_OWNER(timer, struct upstream_query, timer);
    struct upstream_channel *channel = query->channel;

    dns_count(query->upstream->counters, DNS_COUNTER_upstream_timeouts, 1);
    upstream_detach(query);
    server_failed(query);
    if (channel->is_stream) {
        stream_timed_out(channel, query->servers->timeout_ms);
    }
    try_next(query, "upstream server does not answer");
}

void upstream_channel_failed(struct upstream_channel *channel, const char *why, bool may_resend)
{
    struct upstream_query *query;

    while ((query = channel->queries) != NULL) {
        upstream_detach(query);
        loop_timer_cancel(query->upstream->loop, &query->timer);
        if (may_resend && !query->is_resent) {
            query->is_resent = true;
            try_again(query);
            continue;
        }
        dns_count(query->upstream->counters, DNS_COUNTER_upstream_errors, 1);
        server_failed(query);
        try_next(query, why);
    }
}

/* ---- answers ---- */

/* A server that does not know EDNS says FORMERR or NOTIMP, and sends no OPT (RFC 6891 section 7). */
static bool rejects_edns(const struct upstream_query *query, unsigned rcode, const uint8_t *message, size_t len)
{
    struct dns_edns edns;

    return query->with_edns && (rcode == DNS_RCODE_FORMERR || rcode == DNS_RCODE_NOTIMP) &&
           dns_message_check(message, len, &edns, NULL) == 0 && !edns.present;
}

/* Another server may know better; this answer is kept for the case that none does. */
static bool is_worth_another(const struct upstream_query *query, unsigned rcode)
{
    return (rcode == DNS_RCODE_SERVFAIL || rcode == DNS_RCODE_REFUSED || rcode == DNS_RCODE_NOTIMP) &&
           query->tries < query->servers->count;
}

static void take_answer(struct upstream_query *query, const uint8_t *message, size_t len)
{
    struct upstream *upstream = query->upstream;
    unsigned rcode = DNS_FLAGS_RCODE(dns_get16(message + 2));
    struct dns_answer *answer;

    int err = dns_answer_new(message, len, &query->request, loop_now_ms(upstream->loop), &answer);
    if (err != 0) {
        dns_count(upstream->counters, DNS_COUNTER_upstream_errors, 1);
        if (err != -ENOMEM) {
            server_failed(query);
        }
        try_next(query, err == -ENOMEM ? "out of memory" : "malformed answer of the upstream server");
        return;
    }
    server_works(query);
    dns_count(upstream->counters, DNS_COUNTER_upstream_answers, 1);
    dns_count(upstream->counters, DNS_COUNTER_upstream_microseconds, now_us() - query->sent_us);
    dns_answer_release(query->answer);
    query->answer = answer;
    if (is_worth_another(query, rcode)) {
        try_next(query, "");
    } else {
        finish(query);
    }
}

bool upstream_input(struct upstream_channel *channel, const uint8_t *message, size_t len)
{
    struct upstream_query *query = len < DNS_HEADER_LEN ? NULL : find(channel, dns_get16(message));

    if (query == NULL || !dns_answer_fits(message, len, &query->request)) {
        return false;
    }
    unsigned flags = dns_get16(message + 2);
    upstream_detach(query);
    loop_timer_cancel(query->upstream->loop, &query->timer);
    if (!channel->is_stream && (flags & DNS_FLAG_TC) != 0) {
        dns_count(query->upstream->counters, DNS_COUNTER_truncated, 1);
        query->over_stream = true;
        try_again(query);
    } else if (rejects_edns(query, DNS_FLAGS_RCODE(flags), message, len)) {
        query->with_edns = false;
        try_again(query);
    } else {
        take_answer(query, message, len);
    }
    return true;
}

/* ---- queries ---- */

static void query_free(struct upstream_query *query)
{
    struct upstream *upstream = query->upstream;

    upstream_detach(query);
    loop_timer_cancel(upstream->loop, &query->timer);
    loop_defer_cancel(upstream->loop, &query->task);
    if (query->all_prev != NULL) {
        query->all_prev->all_next = query->all_next;
    } else {
        upstream->all = query->all_next;
    }
    if (query->all_next != NULL) {
        query->all_next->all_prev = query->all_prev;
    }
    dns_answer_release(query->answer);
    dns_servers_release(query->servers);
    free(query);
}

static void on_finished(struct loop_task *task)
{
    struct upstream_query *query = LOOP_OWNER(task, struct upstream_query, task);
    struct dns_answer *answer = query->answer;
    upstream_done *done = query->done;
    void *user = query->user;
    const char *why = answer != NULL ? "" : query->why;

    query->answer = NULL;
    query_free(query);
    done(user, answer, why);
}

/* Those that are up first, from a rotating start if resolv.conf says so. */
static void choose_order(struct upstream_query *query)
{
    const struct dns_servers *servers = query->servers;
    uint64_t now_ms = loop_now_ms(query->upstream->loop);
    unsigned start = servers->rotate ? query->upstream->rotation++ : 0;
    size_t count = 0;

    for (int want_down = 0; want_down < 2; want_down++) {
        for (size_t i = 0; i < servers->count; i++) {
            size_t index = (start + i) % servers->count;
            bool is_down = atomic_load_explicit(&servers->health[index].down_until_ms, memory_order_relaxed) > now_ms;
            if (is_down == (want_down != 0)) {
                query->order[count++] = (uint8_t)index;
            }
        }
    }
}

int upstream_ask(struct upstream *upstream, struct dns_servers *servers, const struct dns_request *request,
                 upstream_done *done, void *user, struct upstream_query **out)
{
    struct upstream_query *query = calloc(1, sizeof *query + request->options.len);
    if (query == NULL) {
        return -ENOMEM;
    }
    query->upstream = upstream;
    query->servers = dns_servers_retain(servers);
    query->request = *request;
    if (request->options.len > 0) {
        memcpy(query->options, request->options.data, request->options.len);
        query->request.options.data = query->options;
    }
    query->done = done;
    query->user = user;
    query->with_edns = true;
    query->tries_max = servers->attempts * (unsigned)servers->count;
    query->deadline_ms = loop_now_ms(upstream->loop) + UPSTREAM_TOTAL_MS;
    query->timer.expired = on_timeout;
    query->task.run = on_finished;
    query->all_next = upstream->all;
    if (query->all_next != NULL) {
        query->all_next->all_prev = query;
    }
    upstream->all = query;
    choose_order(query);
    if (!loop_timer_is_armed(&upstream->sweep)) {
        loop_timer_set(upstream->loop, &upstream->sweep, SWEEP_MS);
    }
    *out = query;
    try_next(query, "no upstream server");
    return 0;
}

void upstream_cancel(struct upstream_query *query)
{
    if (query != NULL) {
        query_free(query);
    }
}

/* ---- life ---- */

static void on_sweep(struct loop_timer *timer)
{
    struct upstream *upstream = LOOP_OWNER(timer, struct upstream, sweep);

    udp_sweep(upstream, false);
    stream_sweep(upstream, false);
    if (upstream->sockets != NULL || upstream->streams != NULL) {
        loop_timer_set(upstream->loop, timer, SWEEP_MS);
    }
}

int upstream_new(struct loop *loop, struct dns_counter_set *counters, struct upstream **out)
{
    struct upstream *upstream = calloc(1, sizeof *upstream);
    if (upstream == NULL) {
        return -ENOMEM;
    }
    upstream->loop = loop;
    upstream->counters = counters;
    upstream->sweep.expired = on_sweep;
    upstream->scratch = malloc(UPSTREAM_SCRATCH_LEN);
    upstream->query_buf = malloc(2 + (size_t)DNS_MESSAGE_MAX);
    if (upstream->scratch == NULL || upstream->query_buf == NULL) {
        upstream_free(upstream);
        return -ENOMEM;
    }
    *out = upstream;
    return 0;
}

void upstream_free(struct upstream *upstream)
{
    if (upstream == NULL) {
        return;
    }
    while (upstream->all != NULL) {
        query_free(upstream->all);
    }
    udp_sweep(upstream, true);
    stream_sweep(upstream, true);
    loop_timer_cancel(upstream->loop, &upstream->sweep);
    free(upstream->scratch);
    free(upstream->query_buf);
    free(upstream);
}
