/*
 * Threads that race for sessions and tokens: exactly one of them wins each token, whatever the order. STORE_RACE_SPENDS
 * sets the number of spends; the continuous integration runs a million under a thread sanitizer.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "proxyd/store_memory.h"

#define REALM "plain"

enum { THREADS = 4, WINDOW = 512, SESSIONS = 8 };

ssize_t __real_getrandom(void *buf, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);

static struct store *store;
static unsigned spend_count;
static uint32_t next_base;

/* The base of a window is all that is drawn from four random bytes; here it is `next_base`. */
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    if (len == sizeof next_base) {
        memcpy(buf, &next_base, len);
        return (ssize_t)len;
    }
    return __real_getrandom(buf, len, flags);
}

static struct store_answer start(uint8_t client)
{
    struct store_query query = {.now_ms = 1};
    const uint8_t bytes[4] = {127, 0, 0, client};
    const struct store_owner owner = {
        .realm = REALM, .user = {(const uint8_t *)"alice", 5}, .client = socks6_addr_ipv4(bytes, 1)};

    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    return query.answer;
}

/*
 * All threads spend the same tokens in about the same order, a round of half a window at a time, and count what they
 * win. When a round is over each of its tokens has been won exactly once.
 */
struct race {
    struct store_answer session;
    uint32_t base;
    unsigned rounds;
    pthread_barrier_t barrier;
    _Atomic unsigned wins[WINDOW / 2];
    _Atomic unsigned lost, faults;
};

static void spend_round(struct race *race, uint32_t first, unsigned thread)
{
    for (uint32_t i = 0; i < WINDOW / 2; i++) {
        /* Neighbours in pairs, the other way round in every second thread: so the base has gaps in front of it. */
        uint32_t at = thread % 2 == 0 ? i : i ^ 1;
        struct store_query query = {.now_ms = 1};

        if (store_token_spend(store, &query, (struct socks6_slice){race->session.id, STORE_ID_LEN}, REALM,
                              first + at) != STORE_NOW ||
            query.answer.status != STORE_OK) {
            atomic_fetch_add(&race->faults, 1);
        }
        atomic_fetch_add(query.answer.accepted ? &race->wins[at] : &race->lost, 1);
    }
}

struct racer {
    struct race *race;
    unsigned thread;
};

static void *run_racer(void *arg)
{
    const struct racer *racer = arg;
    struct race *race = racer->race;

    for (unsigned round = 0; round < race->rounds; round++) {
        (void)pthread_barrier_wait(&race->barrier);
        spend_round(race, race->base + round * (WINDOW / 2), racer->thread);
        if (pthread_barrier_wait(&race->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
            for (unsigned i = 0; i < WINDOW / 2; i++) {
                if (atomic_exchange(&race->wins[i], 0) != 1) {
                    atomic_fetch_add(&race->faults, 1);
                }
            }
        }
    }
    return NULL;
}

static void run_threads(void *(*run)(void *), void *args, size_t arg_size)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run, (char *)args + i * arg_size), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void race_from(uint32_t base)
{
    struct race race = {.session = start(1), .rounds = spend_count / 2 / THREADS / (WINDOW / 2) + 1};
    struct racer racers[THREADS];
    struct store_query query = {.now_ms = 1};
    next_base = base;
    assert_int_equal(
        store_window_request(store, &query, (struct socks6_slice){race.session.id, STORE_ID_LEN}, REALM, WINDOW),
        STORE_NOW);
    race.base = query.answer.window.base;
    assert_int_equal(race.base, base);
    assert_int_equal(pthread_barrier_init(&race.barrier, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){&race, i};
    }
    run_threads(run_racer, racers, sizeof racers[0]);
    (void)pthread_barrier_destroy(&race.barrier);
    assert_int_equal(race.faults, 0);
    assert_int_equal(race.lost, race.rounds * (WINDOW / 2) * (THREADS - 1));
}

static void test_each_token_has_one_winner(void **state)
{
    (void)state;
    race_from(1000);
}

static void test_each_token_has_one_winner_over_the_wrap(void **state)
{
    (void)state;
    race_from(UINT32_MAX - spend_count / 4 / THREADS);
}

/* Starts, teardowns, expiry, dropped users and spends on the same few sessions: no fault, and every place is given back. */
struct churn {
    _Atomic unsigned faults;
    pthread_mutex_t lock;
    struct store_answer sessions[SESSIONS];
};

static void churn_once(struct churn *churn, unsigned step)
{
    static const struct socks6_slice alice = {(const uint8_t *)"alice", 5};
    struct store_query query = {.now_ms = step};
    struct store_answer session;
    struct socks6_slice id = {session.id, STORE_ID_LEN};
    enum store_timing timing = STORE_NOW;

    (void)pthread_mutex_lock(&churn->lock);
    session = churn->sessions[step % SESSIONS];
    (void)pthread_mutex_unlock(&churn->lock);
    switch (step % 5) {
    case 0:
        session = start((uint8_t)(step % 200));
        (void)pthread_mutex_lock(&churn->lock);
        churn->sessions[step / 5 % SESSIONS] = session;
        (void)pthread_mutex_unlock(&churn->lock);
        break;
    case 1:
        timing = store_window_request(store, &query, id, REALM, 64);
        break;
    case 2:
        timing = store_token_spend(store, &query, id, REALM, query.answer.window.base);
        break;
    case 3:
        timing = step % 3 == 0 ? store_session_end(store, &query, id, REALM)
                               : store_session_lookup(store, &query, id, REALM);
        break;
    default:
        if (step % 1000 == 4) {
            store_drop_users(store, &alice, 1);
        } else {
            store_expire(store, step);
        }
        break;
    }
    if (timing != STORE_NOW || query.answer.status == STORE_FAILED) {
        atomic_fetch_add(&churn->faults, 1);
    }
}

struct churner {
    struct churn *churn;
    unsigned thread;
};

static void *run_churn(void *arg)
{
    const struct churner *churner = arg;

    for (unsigned step = 0; step < spend_count / 16; step++) {
        churn_once(churner->churn, step + churner->thread * 7);
    }
    return NULL;
}

static void test_sessions_come_and_go_in_all_threads(void **state)
{
    static const struct socks6_slice alice = {(const uint8_t *)"alice", 5};
    struct churn churn = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct churner churners[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        churners[i] = (struct churner){&churn, i};
    }
    run_threads(run_churn, churners, sizeof churners[0]);
    assert_int_equal(churn.faults, 0);
    store_drop_users(store, &alice, 1);
    assert_int_equal(store_session_count(store), 0);
    for (unsigned i = 0; i < 64; i++) { /* the user's cap is as empty as it was */
        assert_int_equal(start(1).status, STORE_OK);
    }
    assert_int_equal(start(1).status, STORE_FULL_USER);
}

static int setup(void **state)
{
    const char *spends = getenv("STORE_RACE_SPENDS");
    struct store_limits limits;

    (void)state;
    spend_count = spends != NULL ? (unsigned)strtoul(spends, NULL, 10) : 100000;
    store_limits_init(&limits);
    return store_memory_new(&limits, &store);
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_token_has_one_winner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_token_has_one_winner_over_the_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_come_and_go_in_all_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
