/*
 * Sessions in memory: the contract is in store.h.
 *
 * Theory of operation. A session lives in one of sixty-four shards, chosen by the keyed hash of its id; everything about
 * it, its window included, is guarded by the shard's lock, so a token that two workers spend at once has one winner. A
 * shard is a chained hash table that grows and shrinks with its sessions, and a list of them in the order of their last
 * use: what is idle for too long is at its head. Sessions that are valid for a while only are in a second list as well, in
 * the order in which they began; usually all have the same while, so that it is the order of their ends. Expiry is coarse: a
 * session is looked at when it is asked for and by store_expire(), and either ends it.
 *
 * Caps are counted outside of the shards, before a session exists: in total and for the anonymous by atomics, per user
 * and per client address by tallies. A lock of a tally is taken with that of a shard held, never the other way round.
 *
 * Nothing is evicted for a newcomer: whoever floods the store gets no more sessions, and everybody else keeps theirs.
 *
 * Times are those that the askers pass in. Workers read their clocks at slightly different moments; a shard's time never
 * goes back.
 */
#include "proxyd/store_memory.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "proxyd/client_key.h"
#include "proxyd/store_backend.h"
#include "proxyd/tally.h"
#include "proxyd/token_window.h"

#define SHARD_BITS 6
#define SHARD_COUNT (1u << SHARD_BITS)
#define BUCKETS_MIN 16u

struct session {
    struct session *chain;         /* next in its bucket */
    struct session *older, *newer; /* in the order of use */
    uint64_t used_ms;
    uint64_t until_ms;              /* 0 = does not end by itself */
    struct session *before, *after; /* with `until_ms`: in the order of their start */
    uint64_t hash;
    uint64_t client_hash, user_hash; /* in the tallies; user_hash only if there is a name */
    struct token_window window;
    uint8_t id[STORE_ID_LEN];
    uint8_t user_len, realm_len;
    char names[]; /* the user, then the realm, without NULs */
};

struct shard {
    pthread_mutex_t lock;
    struct session **buckets; /* NULL while there are none */
    uint32_t bucket_count;    /* a power of two */
    uint32_t session_count;
    uint64_t now_ms;
    struct session *oldest, *newest;
    struct session *dated_first, *dated_last; /* those that end by themselves */
};

struct memory {
    struct store store;
    struct siphash_key hash_key;
    _Atomic uint32_t total, anonymous;
    _Atomic uint64_t expired;
    struct {
        _Atomic uint32_t total, per_user, per_client, anonymous, window_size;
        _Atomic uint64_t idle_ms;
    } limits;
    struct tally *users, *clients;
    struct shard shards[SHARD_COUNT];
};

static struct memory *memory_of(struct store *store)
{
    return LOOP_OWNER(store, struct memory, store);
}

static struct shard *shard_of(struct memory *memory, uint64_t hash)
{
    return &memory->shards[hash >> (64 - SHARD_BITS)];
}

/* Whoever guesses ids must not learn from the time how much of a guess was right. */
static bool is_same(const void *a, const void *b, size_t len)
{
    const volatile unsigned char *x = a, *y = b;
    unsigned difference = 0;

    for (size_t i = 0; i < len; i++) {
        difference |= (unsigned)x[i] ^ y[i];
    }
    return difference == 0;
}

/* --- the shard's table; all with its lock held --- */

static struct session **bucket_of(const struct shard *shard, uint64_t hash)
{
    return &shard->buckets[(uint32_t)hash & (shard->bucket_count - 1)];
}

static int resize(struct shard *shard, uint32_t bucket_count)
{
    struct session **buckets = calloc(bucket_count, sizeof(struct session *));

    if (buckets == NULL) {
        return -ENOMEM;
    }
    free(shard->buckets);
    shard->buckets = buckets;
    shard->bucket_count = bucket_count;
    for (struct session *session = shard->oldest; session != NULL; session = session->newer) {
        struct session **bucket = bucket_of(shard, session->hash);

        session->chain = *bucket;
        *bucket = session;
    }
    return 0;
}

static void link_newest(struct shard *shard, struct session *session)
{
    session->newer = NULL;
    session->older = shard->newest;
    if (shard->newest != NULL) {
        shard->newest->newer = session;
    } else {
        shard->oldest = session;
    }
    shard->newest = session;
}

static void unlink_used(struct shard *shard, const struct session *session)
{
    if (session->older != NULL) {
        session->older->newer = session->newer;
    } else {
        shard->oldest = session->newer;
    }
    if (session->newer != NULL) {
        session->newer->older = session->older;
    } else {
        shard->newest = session->older;
    }
}

static void link_dated(struct shard *shard, struct session *session)
{
    session->before = shard->dated_last;
    if (shard->dated_last != NULL) {
        shard->dated_last->after = session;
    } else {
        shard->dated_first = session;
    }
    shard->dated_last = session;
}

static void unlink_dated(struct shard *shard, const struct session *session)
{
    if (session->before != NULL) {
        session->before->after = session->after;
    } else {
        shard->dated_first = session->after;
    }
    if (session->after != NULL) {
        session->after->before = session->before;
    } else {
        shard->dated_last = session->before;
    }
}

/* 0 or -ENOMEM. */
static int insert(struct shard *shard, struct session *session)
{
    struct session **bucket;

    if (shard->session_count >= shard->bucket_count &&
        resize(shard, shard->bucket_count == 0 ? BUCKETS_MIN : shard->bucket_count * 2) != 0 &&
        shard->bucket_count == 0) {
        return -ENOMEM;
    }
    bucket = bucket_of(shard, session->hash);
    session->chain = *bucket;
    *bucket = session;
    session->used_ms = shard->now_ms;
    link_newest(shard, session);
    if (session->until_ms != 0) {
        session->until_ms += shard->now_ms; /* it was how long, until the clock was known */
        link_dated(shard, session);
    }
    shard->session_count++;
    return 0;
}

/* Gives back what a session counts for in the caps: in total, its client's, its user's. */
static void give_total(struct memory *memory)
{
    (void)atomic_fetch_sub_explicit(&memory->total, 1, memory_order_relaxed);
}

static void give_place(struct memory *memory, const struct session *session)
{
    if (session->user_len > 0) {
        tally_give(memory->users, session->user_hash);
    } else {
        (void)atomic_fetch_sub_explicit(&memory->anonymous, 1, memory_order_relaxed);
    }
    tally_give(memory->clients, session->client_hash);
    give_total(memory);
}

static void session_free(struct session *session)
{
    token_window_done(&session->window);
    explicit_bzero(session->id, sizeof session->id);
    free(session);
}

/* Ends a session. `session` is gone. */
static void drop(struct memory *memory, struct shard *shard, struct session *session)
{
    struct session **place = bucket_of(shard, session->hash);

    while (*place != session) {
        place = &(*place)->chain;
    }
    *place = session->chain;
    unlink_used(shard, session);
    if (session->until_ms != 0) {
        unlink_dated(shard, session);
    }
    shard->session_count--;
    give_place(memory, session);
    session_free(session);
    if (shard->session_count == 0) {
        free(shard->buckets);
        shard->buckets = NULL;
        shard->bucket_count = 0;
    } else if (shard->bucket_count > BUCKETS_MIN && shard->session_count < shard->bucket_count / 8) {
        (void)resize(shard, shard->bucket_count / 2); /* without memory for it the larger one goes on serving */
    }
}

static void expire_one(struct memory *memory, struct shard *shard, struct session *session)
{
    drop(memory, shard, session);
    (void)atomic_fetch_add_explicit(&memory->expired, 1, memory_order_relaxed);
}

static bool is_over(const struct shard *shard, const struct session *session)
{
    return session->until_ms != 0 && shard->now_ms >= session->until_ms;
}

static void expire(struct memory *memory, struct shard *shard, uint64_t now_ms)
{
    uint64_t idle_ms = atomic_load_explicit(&memory->limits.idle_ms, memory_order_relaxed);

    if (now_ms > shard->now_ms) {
        shard->now_ms = now_ms;
    }
    while (idle_ms != 0 && shard->oldest != NULL && shard->now_ms - shard->oldest->used_ms >= idle_ms) {
        expire_one(memory, shard, shard->oldest);
    }
    while (shard->dated_first != NULL && is_over(shard, shard->dated_first)) {
        expire_one(memory, shard, shard->dated_first);
    }
}

/* The living session of this id in this realm, used now; else NULL. */
static struct session *find(const struct shard *shard, uint64_t hash, const struct store_question *question)
{
    struct session *session = shard->bucket_count > 0 ? *bucket_of(shard, hash) : NULL;

    while (session != NULL && (session->hash != hash || !is_same(session->id, question->id, STORE_ID_LEN))) {
        session = session->chain;
    }
    if (session == NULL || is_over(shard, session) || session->realm_len != question->realm_len ||
        memcmp(session->names + session->user_len, question->realm, question->realm_len) != 0) {
        return NULL;
    }
    return session;
}

static void touch(struct shard *shard, struct session *session)
{
    session->used_ms = shard->now_ms;
    unlink_used(shard, session);
    link_newest(shard, session);
}

/* --- starting a session --- */

/* Counts one more, unless there are `max` (0 = no cap). */
static bool take_one(_Atomic uint32_t *count, uint32_t max)
{
    uint32_t now = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if ((max != 0 && now >= max) || now == UINT32_MAX) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(count, &now, now + 1, memory_order_relaxed, memory_order_relaxed));
    return true;
}

static enum store_status of_tally(enum tally_verdict verdict, enum store_status full)
{
    switch (verdict) {
    case TALLY_OK:
        return STORE_OK;
    case TALLY_FULL:
        return full;
    case TALLY_NO_MEMORY:
        break;
    }
    return STORE_FAILED;
}

/* Counts the session in its user's or in the anonymous number. */
static enum store_status take_user(struct memory *memory, const struct session *session)
{
    if (session->user_len == 0) {
        uint32_t max = atomic_load_explicit(&memory->limits.anonymous, memory_order_relaxed);

        return take_one(&memory->anonymous, max) ? STORE_OK : STORE_FULL_ANONYMOUS;
    }
    return of_tally(tally_take(memory->users, session->user_hash,
                               atomic_load_explicit(&memory->limits.per_user, memory_order_relaxed)),
                    STORE_FULL_USER);
}

static enum store_status take_client(struct memory *memory, const struct session *session)
{
    return of_tally(tally_take(memory->clients, session->client_hash,
                               atomic_load_explicit(&memory->limits.per_client, memory_order_relaxed)),
                    STORE_FULL_CLIENT);
}

/* A place under all of the caps, or under none. */
static enum store_status take_place(struct memory *memory, const struct session *session)
{
    enum store_status status;

    if (!take_one(&memory->total, atomic_load_explicit(&memory->limits.total, memory_order_relaxed))) {
        return STORE_FULL;
    }
    status = take_client(memory, session);
    if (status == STORE_OK) {
        status = take_user(memory, session);
        if (status != STORE_OK) {
            tally_give(memory->clients, session->client_hash);
        }
    }
    if (status != STORE_OK) {
        give_total(memory);
    }
    return status;
}

/* NULL without memory. */
static struct session *session_new(const struct memory *memory, const struct store_question *question)
{
    const struct store_owner *owner = question->owner;
    struct client_key client = client_key_of(&owner->client);
    struct session *session = calloc(1, sizeof *session + owner->user.len + question->realm_len);

    if (session == NULL) {
        return NULL;
    }
    session->user_len = (uint8_t)owner->user.len;
    session->realm_len = (uint8_t)question->realm_len;
    session->until_ms = owner->valid_ms;
    if (owner->user.len > 0) {
        memcpy(session->names, owner->user.data, owner->user.len);
        session->user_hash = siphash(&memory->hash_key, owner->user.data, owner->user.len);
    }
    memcpy(session->names + owner->user.len, question->realm, question->realm_len);
    session->client_hash = client_key_hash(&memory->hash_key, &client);
    return session;
}

static void tell_user(const struct session *session, struct store_answer *answer)
{
    answer->user_len = session->user_len;
    memcpy(answer->user, session->names, session->user_len);
    answer->user[session->user_len] = '\0';
}

static enum store_status start(struct memory *memory, struct store_query *query, struct session *session)
{
    enum store_status status = take_place(memory, session);
    struct shard *shard;
    int rc;

    if (status != STORE_OK) {
        return status;
    }
    if (getrandom(session->id, sizeof session->id, 0) != (ssize_t)sizeof session->id) {
        give_place(memory, session);
        return STORE_FAILED;
    }
    session->hash = siphash(&memory->hash_key, session->id, sizeof session->id);
    /* Filled in before the lock is given up: from then on the session can be ended by others. */
    memcpy(query->answer.id, session->id, sizeof session->id);
    tell_user(session, &query->answer);
    shard = shard_of(memory, session->hash);
    (void)pthread_mutex_lock(&shard->lock);
    expire(memory, shard, query->now_ms);
    rc = insert(shard, session);
    (void)pthread_mutex_unlock(&shard->lock);
    if (rc != 0) {
        give_place(memory, session);
        return STORE_FAILED;
    }
    return STORE_OK;
}

static void ask_start(struct memory *memory, struct store_query *query, const struct store_question *question)
{
    struct session *session = session_new(memory, question);
    enum store_status status = STORE_FAILED;

    if (session != NULL) {
        status = start(memory, query, session);
        if (status != STORE_OK) {
            session_free(session);
            memset(&query->answer, 0, sizeof query->answer);
        }
    }
    query->answer.status = status;
}

/* --- asking about one --- */

/* "Idempotence Options": one window per session, so a second request changes nothing. */
static enum store_status request_window(struct memory *memory, struct session *session, uint32_t size)
{
    uint32_t size_max = atomic_load_explicit(&memory->limits.window_size, memory_order_relaxed);
    uint32_t base;

    if (session->window.size > 0) {
        return STORE_OK;
    }
    /* Anywhere in the 32 bits: nobody should rely on where it starts, and the wrap is met in every test. */
    if (getrandom(&base, sizeof base, 0) != (ssize_t)sizeof base) {
        return STORE_FAILED;
    }
    return token_window_init(&session->window, base, size < size_max ? size : size_max) == 0 ? STORE_OK : STORE_FAILED;
}

/* With the shard's lock held; END makes `session` vanish. */
static void answer(struct memory *memory, struct shard *shard, struct session *session,
                   const struct store_question *question, struct store_answer *answer)
{
    answer->status = STORE_OK;
    switch (question->op) {
    case STORE_OP_START: /* asks about none */
        break;
    case STORE_OP_LOOKUP:
        tell_user(session, answer);
        break;
    case STORE_OP_END:
        drop(memory, shard, session);
        return;
    case STORE_OP_WINDOW:
        answer->status = request_window(memory, session, question->number);
        break;
    case STORE_OP_SPEND:
        answer->accepted = session->window.size > 0 && token_window_spend(&session->window, question->number);
        break;
    }
    touch(shard, session);
    answer->window = token_window_view(&session->window);
}

static void ask_about(struct memory *memory, struct store_query *query, const struct store_question *question)
{
    uint64_t hash = siphash(&memory->hash_key, question->id, STORE_ID_LEN);
    struct shard *shard = shard_of(memory, hash);
    struct session *session;

    (void)pthread_mutex_lock(&shard->lock);
    expire(memory, shard, query->now_ms);
    session = find(shard, hash, question);
    if (session != NULL) {
        answer(memory, shard, session, question, &query->answer);
    } else {
        query->answer.status = STORE_UNKNOWN;
    }
    (void)pthread_mutex_unlock(&shard->lock);
}

static enum store_timing memory_ask(struct store *store, struct store_query *query,
                                    const struct store_question *question)
{
    if (question->op == STORE_OP_START) {
        ask_start(memory_of(store), query, question);
    } else {
        ask_about(memory_of(store), query, question);
    }
    return STORE_NOW;
}

/* --- all of them --- */

static int compare_name(const struct session *session, struct socks6_slice name)
{
    size_t shorter = session->user_len < name.len ? session->user_len : name.len;
    int order = memcmp(session->names, name.data, shorter);

    return order != 0 ? order : (session->user_len > name.len) - (session->user_len < name.len);
}

/* `names` are in their order. */
static bool is_named(const struct session *session, const struct socks6_slice *names, size_t count)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_name(session, names[middle]);

        if (order == 0) {
            return true;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return false;
}

/* Those of the users in `names`; NULL: of all users. */
static void drop_named(struct memory *memory, const struct socks6_slice *names, size_t count)
{
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        struct shard *shard = &memory->shards[i];
        struct session *session, *newer;

        (void)pthread_mutex_lock(&shard->lock);
        for (session = shard->oldest; session != NULL; session = newer) {
            newer = session->newer;
            if (session->user_len > 0 && (names == NULL || is_named(session, names, count))) {
                drop(memory, shard, session);
            }
        }
        (void)pthread_mutex_unlock(&shard->lock);
    }
}

static void memory_drop_users(struct store *store, const struct socks6_slice *names, size_t count)
{
    if (count > 0) {
        drop_named(memory_of(store), names, count);
    }
}

static void memory_drop_every_user(struct store *store)
{
    drop_named(memory_of(store), NULL, 0);
}

static void memory_expire(struct store *store, uint64_t now_ms)
{
    struct memory *memory = memory_of(store);

    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        (void)pthread_mutex_lock(&memory->shards[i].lock);
        expire(memory, &memory->shards[i], now_ms);
        (void)pthread_mutex_unlock(&memory->shards[i].lock);
    }
}

static uint32_t memory_session_count(const struct store *store)
{
    const struct memory *memory = (const struct memory *)(const void *)store;

    return atomic_load_explicit(&memory->total, memory_order_relaxed);
}

static uint64_t memory_expired_count(const struct store *store)
{
    const struct memory *memory = (const struct memory *)(const void *)store;

    return atomic_load_explicit(&memory->expired, memory_order_relaxed);
}

static void memory_free(struct store *store)
{
    struct memory *memory = memory_of(store);

    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        struct shard *shard = &memory->shards[i];

        while (shard->oldest != NULL) {
            drop(memory, shard, shard->oldest);
        }
        (void)pthread_mutex_destroy(&shard->lock);
    }
    tally_free(memory->users);
    tally_free(memory->clients);
    free(memory);
}

static const struct store_backend memory_backend = {
    .ask = memory_ask,
    .drop_users = memory_drop_users,
    .drop_every_user = memory_drop_every_user,
    .expire = memory_expire,
    .session_count = memory_session_count,
    .expired_count = memory_expired_count,
    .free = memory_free,
};

/* --- birth --- */

void store_limits_init(struct store_limits *limits)
{
    *limits = (struct store_limits){
        .total = 65536,
        .per_user = 64,
        .per_client = 1024,
        .anonymous = 32768,
        .window_size = TOKEN_WINDOW_MAX,
        .idle_ms = UINT64_C(3600) * 1000,
    };
}

int store_memory_set_limits(struct store *store, const struct store_limits *limits)
{
    struct memory *memory = memory_of(store);

    if (limits->total == 0 || limits->window_size == 0 || limits->window_size > TOKEN_WINDOW_MAX) {
        return -EINVAL;
    }
    atomic_store_explicit(&memory->limits.total, limits->total, memory_order_relaxed);
    atomic_store_explicit(&memory->limits.per_user, limits->per_user, memory_order_relaxed);
    atomic_store_explicit(&memory->limits.per_client, limits->per_client, memory_order_relaxed);
    atomic_store_explicit(&memory->limits.anonymous, limits->anonymous, memory_order_relaxed);
    atomic_store_explicit(&memory->limits.window_size, limits->window_size, memory_order_relaxed);
    atomic_store_explicit(&memory->limits.idle_ms, limits->idle_ms, memory_order_relaxed);
    return 0;
}

/* Everything that can fail. What was made before a failure is freed by the caller, with memory_free(). */
static int memory_init(struct memory *memory, const struct store_limits *limits)
{
    int rc = store_memory_set_limits(&memory->store, limits);

    if (rc == 0) {
        rc = tally_new(&memory->users);
    }
    if (rc == 0) {
        rc = tally_new(&memory->clients);
    }
    if (rc == 0 && getrandom(&memory->hash_key, sizeof memory->hash_key, 0) != (ssize_t)sizeof memory->hash_key) {
        rc = -errno;
    }
    return rc;
}

int store_memory_new(const struct store_limits *limits, struct store **out)
{
    struct memory *memory = calloc(1, sizeof *memory);
    int rc;

    if (memory == NULL) {
        return -ENOMEM;
    }
    memory->store.backend = &memory_backend;
    for (unsigned i = 0; i < SHARD_COUNT; i++) {
        (void)pthread_mutex_init(&memory->shards[i].lock, NULL);
    }
    rc = memory_init(memory, limits);
    if (rc != 0) {
        memory_free(&memory->store);
        return rc;
    }
    *out = &memory->store;
    return 0;
}
