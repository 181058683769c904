/*
 * A flight is one question on its way upstream. It belongs to the client (loop) that asks it; asks of all clients may
 * wait for it. Flights of private questions (see "dns/request.h") are not in the table, so nobody joins them.
 *
 * An ask is WAITING in a flight; when the answer comes, it becomes READY (told at once) if it is of the same loop, or
 * POSTED to its own loop. These steps are taken with the shard's mutex held; a POSTED or READY ask belongs to its loop
 * alone. A POSTED ask that is cancelled is freed when its message arrives.
 *
 * When a client goes while others wait for its flights, their asks are posted without an answer, and start again on
 * their own loops.
 */
#include "dns/ask.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dns/resolver_internal.h"

enum ask_state { WAITING, READY, POSTED };

struct dns_ask {
    struct loop_msg msg;
    struct dns_client *client;
    enum dns_asker asker;
    enum ask_state state;
    bool is_cancelled; /* POSTED */
    bool is_abandoned; /* POSTED: to be asked anew */
    struct flight *flight;
    struct flight_shard *shard;
    struct dns_ask *prev, *next; /* WAITING: of the flight; READY: of the client */
    struct dns_answer *answer;   /* READY, POSTED: a reference */
    const char *why;
    dns_ask_done *done;
    void *user;
    struct dns_request request; /* its options lie behind this struct */
    uint8_t options[];
};

struct flight {
    struct flight *chain; /* in the table */
    struct flight_shard *shard;
    struct flight *prev, *next; /* of the owner */
    struct dns_client *owner;
    struct upstream_query *query;
    struct dns_ask *waiters;
    bool is_private;
    uint64_t epoch;
    struct dns_key key;
};

/* ---- lists ---- */

static void ask_link(struct dns_ask **list, struct dns_ask *ask)
{
    ask->prev = NULL;
    ask->next = *list;
    if (ask->next != NULL) {
        ask->next->prev = ask;
    }
    *list = ask;
}

static void ask_unlink(struct dns_ask **list, struct dns_ask *ask)
{
    if (ask->prev != NULL) {
        ask->prev->next = ask->next;
    } else {
        *list = ask->next;
    }
    if (ask->next != NULL) {
        ask->next->prev = ask->prev;
    }
}

static struct flight **bucket(struct flight_shard *shard, uint64_t hash)
{
    return &shard->table[(hash >> 8) % FLIGHT_BUCKETS];
}

/* With the shard's mutex held. */
static void table_remove(struct flight *flight)
{
    uint64_t hash = siphash(&flight->owner->resolver->key, flight->key.bytes, flight->key.len);
    struct flight **at = bucket(flight->shard, hash);

    while (*at != flight) {
        at = &(*at)->chain;
    }
    *at = flight->chain;
}

static void ask_free(struct dns_ask *ask)
{
    dns_answer_release(ask->answer);
    free(ask);
}

/* Takes it out of its owner's list. Its waiters are elsewhere already. */
static void flight_free(struct flight *flight)
{
    struct dns_client *owner = flight->owner;

    if (flight->prev != NULL) {
        flight->prev->next = flight->next;
    } else {
        owner->flights = flight->next;
    }
    if (flight->next != NULL) {
        flight->next->prev = flight->prev;
    }
    owner->flight_count--;
    free(flight);
}

/* ---- answers ---- */

static void on_posted(struct loop_msg *msg);

/*
 * With the shard's mutex held: everyone who waits is told, on another loop by message, on this one by tell_ready().
 */
static void hand_out(struct flight *flight, struct dns_answer *answer, const char *why, bool is_abandoned)
{
    struct dns_ask *next;

    for (struct dns_ask *ask = flight->waiters; ask != NULL; ask = next) {
        next = ask->next;
        ask->answer = answer != NULL ? dns_answer_retain(answer) : NULL;
        ask->why = why;
        ask->flight = NULL;
        ask->is_abandoned = is_abandoned;
        if (ask->client == flight->owner && !is_abandoned) {
            ask->state = READY;
            ask_link(&ask->client->ready, ask);
        } else {
            ask->state = POSTED;
            ask->msg.run = on_posted;
            loop_post(ask->client->loop, &ask->msg);
        }
    }
    flight->waiters = NULL;
}

static void tell_ready(struct dns_client *client)
{
    struct dns_ask *ask;

    while ((ask = client->ready) != NULL) {
        assert(ask->prev == NULL); /* the first of its list */
        ask_unlink(&client->ready, ask);
        ask->done(ask->user, ask->answer, ask->why);
        ask_free(ask);
    }
}

static void on_answer(void *user, struct dns_answer *answer, const char *why)
{
    struct flight *flight = user;
    struct dns_client *owner = flight->owner;
    struct flight_shard *shard = flight->shard;

    if (answer != NULL && !flight->is_private && flight->epoch == atomic_load(&owner->resolver->epoch)) {
        dns_cache_put(owner->resolver->cache, &flight->key, answer, loop_now_ms(owner->loop));
    }
    (void)pthread_mutex_lock(&shard->mutex);
    if (!flight->is_private) {
        table_remove(flight);
    }
    hand_out(flight, answer, why, false);
    (void)pthread_mutex_unlock(&shard->mutex);
    flight_free(flight);
    dns_answer_release(answer);
    tell_ready(owner);
}

/* ---- asking ---- */

/* A flight of the ask's client with the ask as its first waiter, in the table unless it is private. NULL = no memory. */
static struct flight *flight_new(struct dns_ask *ask, const struct dns_key *key, uint64_t hash)
{
    struct dns_client *client = ask->client;
    struct flight *flight = malloc(sizeof *flight);

    if (flight == NULL) {
        return NULL;
    }
    flight->chain = NULL;
    flight->shard = ask->shard;
    flight->owner = client;
    flight->query = NULL;
    flight->waiters = NULL;
    flight->is_private = ask->request.is_private;
    flight->epoch = atomic_load(&client->resolver->epoch);
    flight->key = *key;
    ask_link(&flight->waiters, ask);
    if (!flight->is_private) {
        struct flight **at = bucket(ask->shard, hash);
        flight->chain = *at;
        *at = flight;
    }
    flight->prev = NULL;
    flight->next = client->flights;
    if (flight->next != NULL) {
        flight->next->prev = flight;
    }
    client->flights = flight;
    client->flight_count++;
    return flight;
}

static struct flight *flight_find(struct flight_shard *shard, uint64_t hash, const struct dns_key *key)
{
    struct flight *flight = *bucket(shard, hash);

    while (flight != NULL && (flight->key.len != key->len || memcmp(flight->key.bytes, key->bytes, key->len) != 0)) {
        flight = flight->chain;
    }
    return flight;
}

/* Joins a flight, or makes one, which is then in `started`. */
static int board(struct dns_ask *ask, struct flight **started)
{
    struct dns_client *client = ask->client;
    unsigned most = ask->asker == DNS_ASKER_SERVICE ? DNS_FLIGHTS_SERVICE_MAX : DNS_FLIGHTS_MAX;
    struct flight *flight = NULL;
    struct dns_key key;
    int err = 0;

    dns_key_init(&key, &ask->request);
    uint64_t hash = siphash(&client->resolver->key, key.bytes, key.len);
    ask->shard = &client->resolver->flights[hash % FLIGHT_SHARDS];
    ask->state = WAITING;
    *started = NULL;
    (void)pthread_mutex_lock(&ask->shard->mutex);
    if (!ask->request.is_private) {
        flight = flight_find(ask->shard, hash, &key);
    }
    if (flight != NULL) {
        ask_link(&flight->waiters, ask);
        dns_count(&client->counters, DNS_COUNTER_merged, 1);
    } else if (client->flight_count >= most) {
        dns_count(&client->counters, DNS_COUNTER_overloaded, 1);
        err = -EAGAIN;
    } else {
        flight = *started = flight_new(ask, &key, hash);
        err = flight == NULL ? -ENOMEM : 0;
    }
    ask->flight = flight;
    (void)pthread_mutex_unlock(&ask->shard->mutex);
    return err;
}

/* A flight that could not start: others may have joined it meanwhile, and are told. */
static void ground(struct flight *flight, struct dns_ask *ask)
{
    struct flight_shard *shard = flight->shard;

    (void)pthread_mutex_lock(&shard->mutex);
    ask_unlink(&flight->waiters, ask);
    if (!flight->is_private) {
        table_remove(flight);
    }
    hand_out(flight, NULL, "out of memory", false); /* only asks of other loops can be there */
    (void)pthread_mutex_unlock(&shard->mutex);
    flight_free(flight);
}

static int ask_begin(struct dns_ask *ask)
{
    struct dns_client *client = ask->client;
    struct flight *flight;

    int err = board(ask, &flight);
    if (err == 0 && flight != NULL) {
        dns_client_update(client);
        err = upstream_ask(client->upstream, client->servers, &ask->request, on_answer, flight, &flight->query);
        if (err != 0) {
            ground(flight, ask);
        }
    }
    return err;
}

static void on_posted(struct loop_msg *msg)
{
    struct dns_ask *ask = LOOP_OWNER(msg, struct dns_ask, msg);

    if (ask->is_cancelled) {
        ask_free(ask);
        return;
    }
    if (ask->is_abandoned) {
        ask->is_abandoned = false;
        int err = ask_begin(ask);
        if (err == 0) {
            return;
        }
        ask->why = err == -EAGAIN ? "too many questions" : "out of memory";
    }
    ask->done(ask->user, ask->answer, ask->why);
    ask_free(ask);
}

int dns_ask_start(struct dns_client *client, enum dns_asker asker, const struct dns_request *request,
                  dns_ask_done *done, void *user, struct dns_ask **out)
{
    struct dns_ask *ask = calloc(1, sizeof *ask + request->options.len);
    if (ask == NULL) {
        return -ENOMEM;
    }
    ask->client = client;
    ask->asker = asker;
    ask->done = done;
    ask->user = user;
    ask->request = *request;
    if (request->options.len > 0) {
        memcpy(ask->options, request->options.data, request->options.len);
        ask->request.options.data = ask->options;
    }
    int err = ask_begin(ask);
    if (err != 0) {
        free(ask);
        return err;
    }
    *out = ask;
    return 0;
}

void dns_ask_cancel(struct dns_ask *ask)
{
    struct flight *flight = NULL;

    if (ask == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&ask->shard->mutex);
    enum ask_state state = ask->state;
    if (state == WAITING) {
        flight = ask->flight;
        ask_unlink(&flight->waiters, ask);
    }
    ask->is_cancelled = true;
    (void)pthread_mutex_unlock(&ask->shard->mutex);
    switch (state) {
    case WAITING:
        if (flight->is_private) { /* nobody else wants to know, and nothing is kept */
            upstream_cancel(flight->query);
            flight_free(flight);
        }
        ask_free(ask);
        break;
    case READY:
        ask_unlink(&ask->client->ready, ask);
        ask_free(ask);
        break;
    case POSTED:
        break;
    }
}

void dns_ask_abandon(struct dns_client *client)
{
    struct flight *next;

    for (struct flight *flight = client->flights; flight != NULL; flight = next) {
        struct flight_shard *shard = flight->shard;

        next = flight->next;
        (void)pthread_mutex_lock(&shard->mutex);
        if (!flight->is_private) {
            table_remove(flight);
        }
        hand_out(flight, NULL, "", true);
        (void)pthread_mutex_unlock(&shard->mutex);
        flight_free(flight);
    }
}
