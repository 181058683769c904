/*
 * Life of the resolver and its clients, and what is answered without asking anybody.
 */
#include "dns/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dns/random.h"
#include "dns/resolver_internal.h"

#define LOCAL_TTL_S 0u /* the hosts file may change at any time */

/* ---- names that mean something ---- */

enum meaning { ORDINARY, LOOPBACK, NONEXISTENT };

/* By the last label: RFC 6761 6.3 (localhost) and 6.4 (invalid), RFC 7686 (onion). */
static enum meaning meaning_of(const struct dns_name *name)
{
    static const struct {
        struct dns_name name;
        enum meaning meaning;
    } special[] = {
        {{11, "\011localhost"}, LOOPBACK},
        {{9, "\007invalid"}, NONEXISTENT},
        {{7, "\005onion"}, NONEXISTENT},
    };
    struct dns_name last = {.len = 0};
    size_t at = 0;

    if (name->len == 1) {
        return ORDINARY;
    }
    while (name->wire[at + 1 + (size_t)name->wire[at]] != 0) {
        at += 1 + (size_t)name->wire[at];
    }
    last.len = (uint8_t)(name->len - at);
    memcpy(last.wire, name->wire + at, last.len);
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        if (dns_name_equal(&last, &special[i].name)) {
            return special[i].meaning;
        }
    }
    return ORDINARY;
}

static struct dns_answer *answer_loopback(const struct dns_request *request, uint64_t now_ms)
{
    static const uint8_t ipv4[4] = {127, 0, 0, 1}, ipv6[16] = {[15] = 1};
    struct socks6_addr addr;
    size_t count = 1;

    if (request->question.type == DNS_TYPE_A) {
        addr = dns_addr(SOCKS6_ADDR_IPV4, ipv4, 0);
    } else if (request->question.type == DNS_TYPE_AAAA) {
        addr = dns_addr(SOCKS6_ADDR_IPV6, ipv6, 0);
    } else {
        count = 0;
    }
    return dns_answer_make(request, DNS_RCODE_NOERROR, &addr, count, LOCAL_TTL_S, now_ms);
}

static struct dns_answer *answer_from_hosts(const struct hosts *hosts, const struct dns_request *request,
                                            uint64_t now_ms)
{
    uint8_t type = request->question.type == DNS_TYPE_A ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6;
    struct dns_answer *answer;

    if (!hosts_have(hosts, &request->question.name)) {
        return NULL;
    }
    struct socks6_addr *addrs = calloc(HOSTS_ADDRESSES_MAX, sizeof *addrs);
    if (addrs == NULL) { /* no address is better than one that the hosts file was to replace */
        return dns_answer_make(request, DNS_RCODE_SERVFAIL, NULL, 0, 0, now_ms);
    }
    size_t count = hosts_find(hosts, &request->question.name, type, addrs);
    answer = dns_answer_make(request, DNS_RCODE_NOERROR, addrs, count, LOCAL_TTL_S, now_ms);
    free(addrs);
    return answer;
}

static struct dns_answer *answer_locally(struct dns_client *client, const struct dns_request *request, uint64_t now_ms)
{
    bool is_address = request->question.type == DNS_TYPE_A || request->question.type == DNS_TYPE_AAAA;

    if (request->question.class != DNS_CLASS_IN) {
        return NULL;
    }
    switch (meaning_of(&request->question.name)) {
    case LOOPBACK:
        return answer_loopback(request, now_ms);
    case NONEXISTENT:
        return dns_answer_make(request, DNS_RCODE_NXDOMAIN, NULL, 0, 0, now_ms);
    case ORDINARY:
        break;
    }
    return is_address && client->servers->hosts != NULL ? answer_from_hosts(client->servers->hosts, request, now_ms)
                                                        : NULL;
}

struct dns_answer *dns_ask_at_once(struct dns_client *client, const struct dns_request *request)
{
    uint64_t now_ms = loop_now_ms(client->loop);
    struct dns_key key;

    dns_client_update(client);
    struct dns_answer *answer = answer_locally(client, request, now_ms);
    if (answer != NULL) {
        dns_count(&client->counters, DNS_COUNTER_local, 1);
        return answer;
    }
    if (!request->is_private) {
        dns_key_init(&key, request);
        answer = dns_cache_get(client->resolver->cache, &key, now_ms);
    }
    dns_count(&client->counters, answer != NULL ? DNS_COUNTER_hits : DNS_COUNTER_misses, 1);
    return answer;
}

/* ---- clients ---- */

void dns_client_update(struct dns_client *client)
{
    dns_follower_update(client->resolver->follower, loop_now_ms(client->loop), &client->servers);
}

int dns_client_new(struct dns_resolver *resolver, struct loop *loop, struct dns_client **out)
{
    struct dns_client *client = aligned_alloc(_Alignof(struct dns_client), sizeof *client);
    if (client == NULL) {
        return -ENOMEM;
    }
    memset(client, 0, sizeof *client);
    client->resolver = resolver;
    client->loop = loop;
    int err = upstream_new(loop, &client->counters, &client->upstream);
    if (err != 0) {
        free(client);
        return err;
    }
    dns_client_update(client);
    (void)pthread_mutex_lock(&resolver->mutex);
    client->next = resolver->clients;
    if (client->next != NULL) {
        client->next->prev = client;
    }
    resolver->clients = client;
    (void)pthread_mutex_unlock(&resolver->mutex);
    *out = client;
    return 0;
}

void dns_client_free(struct dns_client *client)
{
    if (client == NULL) {
        return;
    }
    struct dns_resolver *resolver = client->resolver;
    upstream_free(client->upstream);
    dns_ask_abandon(client);
    (void)pthread_mutex_lock(&resolver->mutex);
    if (client->prev != NULL) {
        client->prev->next = client->next;
    } else {
        resolver->clients = client->next;
    }
    if (client->next != NULL) {
        client->next->prev = client->prev;
    }
    for (size_t i = 0; i < DNS_COUNTER_COUNT; i++) {
        resolver->gone[i] += atomic_load_explicit(&client->counters.value[i], memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&resolver->mutex);
    dns_servers_release(client->servers);
    free(client);
}

/* ---- the resolver ---- */

static void on_other_servers(void *user)
{
    struct dns_resolver *resolver = user;

    (void)atomic_fetch_add(&resolver->epoch, 1);
    dns_cache_clear(resolver->cache);
}

int dns_resolver_configure(struct dns_resolver *resolver, const struct dns_settings *settings)
{
    int err = dns_follower_configure(resolver->follower, settings);
    if (err == 0) {
        dns_cache_resize(resolver->cache, settings->cache_len, 0);
    }
    return err;
}

static int init_mutexes(struct dns_resolver *resolver)
{
    int err = pthread_mutex_init(&resolver->mutex, NULL);
    for (size_t i = 0; err == 0 && i < FLIGHT_SHARDS; i++) {
        err = pthread_mutex_init(&resolver->flights[i].mutex, NULL);
    }
    return -err;
}

int dns_resolver_new(const struct dns_settings *settings, struct dns_resolver **out)
{
    struct dns_resolver *resolver = aligned_alloc(_Alignof(struct dns_resolver), sizeof *resolver);
    if (resolver == NULL) {
        return -ENOMEM;
    }
    memset(resolver, 0, sizeof *resolver);
    dns_random_fill(&resolver->key, sizeof resolver->key);
    int err = init_mutexes(resolver);
    if (err == 0) {
        err = dns_cache_new(settings->cache_len, &resolver->key, &resolver->cache);
    }
    if (err == 0) {
        err = dns_follower_new(settings, &resolver->key, on_other_servers, resolver, &resolver->follower);
    }
    if (err != 0) {
        dns_resolver_free(resolver);
        return err;
    }
    *out = resolver;
    return 0;
}

/* Default mutexes on Linux hold nothing that would have to be destroyed, also those that were never made. */
void dns_resolver_free(struct dns_resolver *resolver)
{
    if (resolver != NULL) {
        dns_follower_free(resolver->follower);
        dns_cache_free(resolver->cache);
        free(resolver);
    }
}

void dns_resolver_count(struct dns_resolver *resolver, void (*each)(void *user, const char *name, uint64_t value),
                        void *user)
{
    static const char *const names[] = {
#define NAME(name, help) #name,
        DNS_COUNTERS(NAME)
#undef NAME
    };
    struct dns_cache_counters cache;
    uint64_t sum[DNS_COUNTER_COUNT];

    (void)pthread_mutex_lock(&resolver->mutex);
    memcpy(sum, resolver->gone, sizeof sum);
    for (struct dns_client *client = resolver->clients; client != NULL; client = client->next) {
        for (size_t i = 0; i < DNS_COUNTER_COUNT; i++) {
            sum[i] += atomic_load_explicit(&client->counters.value[i], memory_order_relaxed);
        }
    }
    (void)pthread_mutex_unlock(&resolver->mutex);
    for (size_t i = 0; i < DNS_COUNTER_COUNT; i++) {
        each(user, names[i], sum[i]);
    }
    dns_cache_count(resolver->cache, &cache);
    each(user, "bytes", cache.bytes);
    each(user, "entries", cache.entries);
    each(user, "evictions", cache.evictions);
}
