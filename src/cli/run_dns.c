/*
 * Theory of operation. Everyone who asks is a waiter: in the list of a flight, which is one question to the proxy, or in `ready`, when
 * the answer is known. The latter are told by a task, or after the flight's end, and never from within run_dns_ask().
 *
 * Questions with EDNS options that are the client's own (ECS) fly alone and are not kept: see "dns/request.h".
 */
#include "cli/run_dns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dns/cache.h"

#define BUCKETS 256u

struct waiter {
    TAILQ_ENTRY(waiter) entry; /* of flight->waiters, or dns->ready */
    struct dns_link_ask *ask;
    struct flight *flight;     /* NULL = ready, and then: */
    struct dns_answer *answer; /* a reference; NULL = an error of ours, or none: */
    enum dns_rcode rcode;      /* NOERROR = `failure` */
    enum dns_link_failure failure;
};

TAILQ_HEAD(waiter_list, waiter);

struct flight {
    struct run_dns *dns;
    LIST_ENTRY(flight) chain; /* of its bucket; private ones are there, too, but not found */
    struct dns_link_ask up;
    struct dns_request request; /* without options */
    struct dns_key key;
    bool is_private;
    struct waiter_list waiters;
    uint8_t message[];
};

LIST_HEAD(flight_list, flight);

struct run_dns {
    struct run_dns_config config;
    struct dns_cache *cache;
    struct flight_list buckets[BUCKETS];
    struct waiter_list ready;
    size_t waiter_count;
    struct loop_task task;
    uint8_t out[DNS_RENDER_MAX]; /* the answer that is being told */
};

static uint64_t now_ms(const struct run_dns *dns)
{
    return loop_now_ms(dns->config.loop);
}

static struct flight_list *bucket(struct run_dns *dns, const struct dns_key *key)
{
    return &dns->buckets[siphash(&dns->config.key, key->bytes, key->len) % BUCKETS];
}

/* ---- telling ---- */

/* The answer in the form that the query wants; 0 = there is none. */
static size_t render(struct run_dns *dns, const struct waiter *waiter)
{
    static const struct dns_hop hop = {.udp_len = DNS_UPSTREAM_UDP_LEN};
    struct dns_request request;
    enum dns_rcode rcode;

    if (dns_request_read(waiter->ask->message, waiter->ask->len, &request, &rcode) == DNS_REQUEST_JUNK) {
        return 0;
    }
    if (waiter->answer != NULL) {
        return dns_answer_render(waiter->answer, &request, &hop, now_ms(dns), dns->out);
    }
    return waiter->rcode == DNS_RCODE_NOERROR ? 0
                                              : dns_error_render(&request, waiter->rcode, DNS_EDE_NONE, &hop, dns->out);
}

static void waiter_free(struct run_dns *dns, struct waiter *waiter)
{
    TAILQ_REMOVE(waiter->flight != NULL ? &waiter->flight->waiters : &dns->ready, waiter, entry);
    waiter->ask->waiter = NULL;
    dns->waiter_count--;
    dns_answer_release(waiter->answer);
    free(waiter);
}

static void tell_ready(struct run_dns *dns)
{
    struct waiter *waiter;

    while ((waiter = TAILQ_FIRST(&dns->ready)) != NULL) {
        struct dns_link_ask *ask = waiter->ask; // NOLINT(clang-analyzer-unix.Malloc): taken off the list
        enum dns_link_failure failure = waiter->failure;
        size_t len = render(dns, waiter);

        waiter_free(dns, waiter);
        ask->done(ask, len > 0 ? dns->out : NULL, len, failure);
    }
}

static void on_task(struct loop_task *task)
{
    tell_ready(LOOP_OWNER(task, struct run_dns, task));
}

static void make_ready(struct run_dns *dns, struct waiter *waiter)
{
    TAILQ_INSERT_TAIL(&dns->ready, waiter, entry);
    loop_defer(dns->config.loop, &dns->task);
}

/* ---- flights ---- */

/* `answer` is NULL if there is none. */
static void land(struct flight *flight, struct dns_answer *answer, enum dns_link_failure failure)
{
    struct run_dns *dns = flight->dns;
    struct waiter *waiter;

    while ((waiter = TAILQ_FIRST(&flight->waiters)) != NULL) {
        TAILQ_REMOVE(&flight->waiters, waiter, entry);
        waiter->flight = NULL;
        waiter->answer = answer != NULL ? dns_answer_retain(answer) : NULL;
        waiter->failure = failure;
        make_ready(dns, waiter);
    }
    LIST_REMOVE(flight, chain);
    free(flight);
    tell_ready(dns);
}

/* For the link. */
static void on_answer(struct dns_link_ask *up, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct flight *flight = LOOP_OWNER(up, struct flight, up);
    struct run_dns *dns = flight->dns;
    struct dns_answer *answer = NULL;
    struct waiter *waiter;
    int rc = -EBADMSG;

    if (message != NULL && dns_answer_fits(message, len, &flight->request)) {
        rc = dns_answer_new(message, len, &flight->request, now_ms(dns), &answer);
    }
    if (message != NULL && rc != 0) { /* nonsense is no better than a failure of the server */
        TAILQ_FOREACH(waiter, &flight->waiters, entry)
        {
            waiter->rcode = DNS_RCODE_SERVFAIL;
        }
    }
    if (answer != NULL && !flight->is_private) {
        dns_cache_put(dns->cache, &flight->key, answer, now_ms(dns));
    }
    land(flight, answer, failure);
    dns_answer_release(answer);
}

static struct flight *find_flight(struct run_dns *dns, const struct dns_key *key)
{
    struct flight *flight;

    LIST_FOREACH(flight, bucket(dns, key), chain)
    {
        if (!flight->is_private && flight->key.len == key->len &&
            memcmp(flight->key.bytes, key->bytes, key->len) == 0) {
            return flight;
        }
    }
    return NULL;
}

/* Sends the question. -ENOMEM, -EAGAIN, or -ENOSPC: it cannot be put. */
static int take_off(struct run_dns *dns, const struct dns_request *request, const struct dns_key *key,
                    struct flight **out)
{
    static const uint8_t keepalive[4] = {0, DNS_OPTION_TCP_KEEPALIVE, 0, 0}; /* RFC 7828: how long may we be idle? */
    const struct socks6_slice options = {keepalive, sizeof keepalive};
    size_t size = DNS_QUERY_MAX + sizeof keepalive + request->options.len;
    struct flight *flight = calloc(1, sizeof *flight + size);
    size_t len = 0;
    int rc;

    if (flight == NULL) {
        return -ENOMEM;
    }
    flight->dns = dns;
    flight->request = *request;
    flight->request.options = (struct socks6_slice){NULL, 0};
    flight->key = *key;
    flight->is_private = request->is_private;
    TAILQ_INIT(&flight->waiters);
    rc = dns_request_build(request, 0, true, &options, flight->message, size, &len);
    flight->up = (struct dns_link_ask){
        .question = &flight->request.question, .message = flight->message, .len = len, .done = on_answer};
    if (rc == 0) {
        rc = dns_link_ask(dns->config.link, &flight->up);
    }
    if (rc != 0) {
        free(flight);
        return rc;
    }
    LIST_INSERT_HEAD(bucket(dns, key), flight, chain);
    *out = flight;
    return 0;
}

/* ---- asking ---- */

/* What is known at once, in `waiter`; else in whose list it is to wait, in `flight`. */
static int ask_for(struct run_dns *dns, const struct dns_request *request, struct waiter *waiter,
                   struct flight **flight)
{
    struct dns_key key;

    if (dns->config.fake != NULL) {
        waiter->answer = run_fake_answer(dns->config.fake, request, now_ms(dns));
        return waiter->answer != NULL ? 0 : -ENOMEM;
    }
    dns_key_init(&key, request);
    if (!request->is_private) {
        waiter->answer = dns_cache_get(dns->cache, &key, now_ms(dns));
        *flight = waiter->answer == NULL ? find_flight(dns, &key) : NULL;
    }
    return waiter->answer != NULL || *flight != NULL ? 0 : take_off(dns, request, &key, flight);
}

int run_dns_ask(struct run_dns *dns, struct dns_link_ask *ask)
{
    struct dns_request request;
    enum dns_rcode rcode;
    struct flight *flight = NULL;
    struct waiter *waiter;
    int rc = 0;
    enum dns_request_verdict verdict = dns_request_read(ask->message, ask->len, &request, &rcode);

    if (verdict == DNS_REQUEST_JUNK) {
        return -EINVAL;
    }
    if (dns->waiter_count == RUN_DNS_WAITERS_MAX) {
        return -EAGAIN;
    }
    waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL) {
        return -ENOMEM;
    }
    waiter->ask = ask;
    waiter->rcode = rcode;
    if (verdict == DNS_REQUEST_ASK) {
        rc = ask_for(dns, &request, waiter, &flight);
    }
    if (rc != 0) {
        free(waiter);
        return rc;
    }
    waiter->flight = flight;
    ask->waiter = waiter;
    dns->waiter_count++;
    if (flight != NULL) {
        TAILQ_INSERT_TAIL(&flight->waiters, waiter, entry);
    } else {
        make_ready(dns, waiter);
    }
    return 0;
}

/* A flight that nobody waits for any more goes on: who asks again finds its answer in the cache. */
void run_dns_cancel(struct run_dns *dns, struct dns_link_ask *ask)
{
    if (ask->waiter != NULL) {
        waiter_free(dns, ask->waiter);
    }
}

/* ---- life ---- */

int run_dns_new(const struct run_dns_config *config, struct run_dns **out)
{
    struct run_dns *dns = calloc(1, sizeof *dns);
    int rc;

    if (dns == NULL) {
        return -ENOMEM;
    }
    dns->config = *config;
    dns->task.run = on_task;
    TAILQ_INIT(&dns->ready);
    for (size_t i = 0; i < BUCKETS; i++) {
        LIST_INIT(&dns->buckets[i]);
    }
    rc = dns_cache_new(RUN_DNS_CACHE_LEN, &config->key, &dns->cache);
    if (rc != 0) {
        free(dns);
        return rc;
    }
    *out = dns;
    return 0;
}

void run_dns_free(struct run_dns *dns)
{
    if (dns == NULL) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        struct flight *flight;

        while ((flight = LIST_FIRST(&dns->buckets[i])) != NULL) {
            dns_link_cancel(dns->config.link, &flight->up);
            land(flight, NULL, DNS_LINK_ENDED); // NOLINT(clang-analyzer-unix.Malloc): taken off the list
        }
    }
    tell_ready(dns);
    loop_defer_cancel(dns->config.loop, &dns->task);
    dns_cache_free(dns->cache);
    free(dns);
}
