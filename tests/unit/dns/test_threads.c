/*
 * One resolver, several threads: the same questions asked on all of them at once, and a thread that ends while others
 * wait for what it asked.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dns/lookup.h"
#include "support.h"

#define THREADS 4
#define NAMES 200
#define ROUNDS 5

static struct dns_resolver *resolver;
static struct fake fake;
static struct loop *server_loop;
static _Atomic bool is_silent;
static _Atomic unsigned queries;

static void serve(struct fake_query *query)
{
    (void)atomic_fetch_add(&queries, 1);
    if (!atomic_load(&is_silent)) {
        fake_answer(query);
    }
}

static void *run_server(void *arg)
{
    (void)arg;
    assert_int_equal(loop_run(server_loop), 0);
    return NULL;
}

struct asker {
    pthread_t thread;
    struct loop *loop;
    struct dns_client *client;
    struct loop_task task;
    unsigned next, waiting, good;
};

static void on_answer(void *user, const struct dns_lookup_answer *answer)
{
    struct asker *asker = user;
    asker->good += answer->status == DNS_LOOKUP_OK;
    if (--asker->waiting == 0) {
        loop_defer(asker->loop, &asker->task);
    }
}

/* Asks for all names at once, again and again. */
static void ask_round(struct loop_task *task)
{
    struct asker *asker = LOOP_OWNER(task, struct asker, task);
    struct dns_lookup *lookup;
    char name[32];

    if (asker->next == ROUNDS) {
        loop_stop(asker->loop);
        return;
    }
    asker->next++;
    asker->waiting = 2 * NAMES;
    for (unsigned i = 0; i < NAMES; i++) {
        (void)snprintf(name, sizeof name, "n%u.example", i);
        if (dns_lookup_start(asker->client, name, 80, DNS_LOOKUP_BOTH, on_answer, asker, &lookup) != 0) {
            abort();
        }
    }
}

static void *run_asker(void *arg)
{
    struct asker *asker = arg;
    if (loop_run(asker->loop) != 0) {
        abort();
    }
    dns_client_free(asker->client);
    return NULL;
}

static void asker_open(struct asker *asker)
{
    memset(asker, 0, sizeof *asker);
    assert_int_equal(loop_new(&asker->loop), 0);
    assert_int_equal(dns_client_new(resolver, asker->loop, &asker->client), 0);
    asker->task.run = ask_round;
}

static pthread_t server_thread;

static int open_world(void **state)
{
    struct dns_settings settings = {.hosts = "", .server_count = 1, .cache_len = 1 << 20, .timeout_ms = 5000};
    (void)state;

    assert_int_equal(loop_new(&server_loop), 0);
    fake_open(&fake, server_loop, serve);
    const struct dns_server_setting server = fake_setting(&fake, DNS_UDP);
    settings.servers = &server;
    atomic_store(&is_silent, false);
    atomic_store(&queries, 0);
    assert_int_equal(dns_resolver_new(&settings, &resolver), 0);
    assert_int_equal(pthread_create(&server_thread, NULL, run_server, NULL), 0);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    loop_stop(server_loop);
    assert_int_equal(pthread_join(server_thread, NULL), 0);
    fake_close(&fake);
    loop_free(server_loop);
    dns_resolver_free(resolver);
    return 0;
}

static void test_all_threads_get_all_answers_and_ask_together(void **state)
{
    struct asker askers[THREADS];
    (void)state;

    for (unsigned i = 0; i < THREADS; i++) {
        asker_open(&askers[i]);
        loop_defer(askers[i].loop, &askers[i].task);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&askers[i].thread, NULL, run_asker, &askers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
        assert_int_equal(askers[i].good, 2 * NAMES * ROUNDS);
        loop_free(askers[i].loop);
    }
    /*
     * Once each: 2 * NAMES. An answer may arrive between a look into the cache and one among the questions in flight, and
     * datagrams may be lost and sent again; but not often.
     */
    assert_in_range(atomic_load(&queries), 2 * NAMES, 3 * NAMES);
}

static _Atomic unsigned abandoned_good;

static void on_abandoned(void *user, const struct dns_lookup_answer *answer)
{
    struct asker *asker = user;
    if (answer->status == DNS_LOOKUP_OK) {
        (void)atomic_fetch_add(&abandoned_good, 1);
    }
    if (--asker->waiting == 0) {
        loop_stop(asker->loop);
    }
}

/* The first thread asks, the second joins; the first one ends before there is an answer. */
static void test_questions_of_a_thread_that_ends_are_asked_anew(void **state)
{
    struct asker first, second;
    struct dns_lookup *lookup, *joined;
    (void)state;

    asker_open(&first);
    asker_open(&second);
    atomic_store(&is_silent, true);
    assert_int_equal(dns_lookup_start(first.client, "www.example", 80, DNS_LOOKUP_BOTH, on_answer, &first, &lookup), 0);
    assert_int_equal(
        dns_lookup_start(second.client, "www.example", 80, DNS_LOOKUP_BOTH, on_abandoned, &second, &joined), 0);
    second.waiting = 2;
    while (atomic_load(&queries) < 2) {
        usleep(1000); /* the socket sends at once; the server has its own thread */
    }
    atomic_store(&is_silent, false);
    dns_lookup_cancel(lookup);
    dns_client_free(first.client);
    assert_int_equal(pthread_create(&second.thread, NULL, run_asker, &second), 0);
    assert_int_equal(pthread_join(second.thread, NULL), 0);
    assert_int_equal(atomic_load(&abandoned_good), 2);
    loop_free(first.loop);
    loop_free(second.loop);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD(test_all_threads_get_all_answers_and_ask_together),
        WORLD(test_questions_of_a_thread_that_ends_are_asked_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
