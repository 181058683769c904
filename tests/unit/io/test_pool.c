#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include "harness.h"
#include "io/pool.h"

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

static unsigned thread_count;
static bool no_threads;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (no_threads) {
        return EAGAIN;
    }
    thread_count++;
    return __real_pthread_create(thread, attr, run, arg);
}

/* A job that says when it starts, and waits at a gate. */
struct gated {
    struct pool_job job;
    _Atomic bool has_run;
    bool is_dropped;
};

static sem_t entered, gate;
static _Atomic bool has_signal_open;

static void pass(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0) {
    }
}

static void run(struct pool_job *job)
{
    struct gated *gated = LOOP_OWNER(job, struct gated, job);
    sigset_t blocked;

    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (!sigismember(&blocked, SIGTERM)) {
        has_signal_open = true;
    }
    (void)sem_post(&entered);
    pass(&gate);
    gated->has_run = true;
}

static void drop(struct pool_job *job)
{
    LOOP_OWNER(job, struct gated, job)->is_dropped = true;
}

static struct pool *pool;
static struct gated jobs[8];

static int setup(void **state)
{
    (void)state;
    harness_guard();
    thread_count = 0;
    no_threads = false;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        jobs[i] = (struct gated){.job = {.run = run, .drop = drop}};
    }
    if (sem_init(&entered, 0, 0) < 0 || sem_init(&gate, 0, 0) < 0) {
        return -1;
    }
    return pool_new(2, 3, &pool);
}

static int teardown(void **state)
{
    (void)state;
    pool_free(pool);
    pool = NULL;
    return 0;
}

static int submit(size_t i)
{
    return pool_submit(pool, &jobs[i].job);
}

static void open_gate(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        (void)sem_post(&gate);
    }
}

static void test_jobs_run_in_threads_that_take_no_signals(void **state)
{
    (void)state;
    assert_int_equal(submit(0), 0);
    pass(&entered);
    open_gate(1);
    pool_free(pool);
    pool = NULL;
    assert_true(jobs[0].has_run);
    assert_false(jobs[0].is_dropped);
    assert_false(has_signal_open);
}

static void test_threads_and_queue_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(submit(0), 0);
    assert_int_equal(submit(1), 0);
    pass(&entered);
    pass(&entered); /* both threads are busy now, and the queue is empty */
    assert_int_equal(submit(2), 0);
    assert_int_equal(submit(3), 0);
    assert_int_equal(submit(4), 0);
    assert_int_equal(submit(5), -EAGAIN);
    assert_int_equal(thread_count, 2);
    open_gate(5);
    for (int i = 0; i < 3; i++) {
        pass(&entered);
    }
    assert_int_equal(submit(5), 0); /* there is room again */
    open_gate(1);
    pass(&entered);
}

static void test_an_idle_thread_is_used_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(submit(i), 0);
        pass(&entered);
        open_gate(1);
        while (!jobs[i].has_run) {
        }
    }
    assert_in_range(thread_count, 1, 2);
}

static void test_only_what_waits_can_be_withdrawn(void **state)
{
    (void)state;
    assert_int_equal(submit(0), 0);
    assert_int_equal(submit(1), 0);
    pass(&entered);
    pass(&entered);
    assert_int_equal(submit(2), 0);
    assert_int_equal(submit(3), 0);
    assert_int_equal(submit(4), 0);
    assert_false(pool_withdraw(pool, &jobs[0].job));
    assert_true(pool_withdraw(pool, &jobs[3].job)); /* from the middle */
    assert_false(pool_withdraw(pool, &jobs[3].job));
    assert_true(pool_withdraw(pool, &jobs[4].job)); /* from the end */
    assert_int_equal(submit(4), 0);
    assert_true(pool_withdraw(pool, &jobs[2].job)); /* from the head */
    open_gate(3);
    pass(&entered); /* that is 4 */
    pool_free(pool);
    pool = NULL;
    assert_true(jobs[4].has_run);
    assert_false(jobs[2].has_run || jobs[3].has_run);
    assert_false(jobs[2].is_dropped || jobs[3].is_dropped);
}

/* The gate opens while pool_free() waits for the job that runs, as by then the pool is closing. */
static void *open_later(void *arg)
{
    const struct timespec moment = {.tv_nsec = 50 * 1000 * 1000};

    (void)arg;
    (void)nanosleep(&moment, NULL);
    open_gate(8);
    return NULL;
}

static void test_freeing_waits_for_what_runs_and_drops_the_rest(void **state)
{
    pthread_t opener;
    unsigned run_count = 0, drop_count = 0;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(submit(i), 0);
        pass(&entered);
    }
    for (size_t i = 2; i < 5; i++) {
        assert_int_equal(submit(i), 0);
    }
    assert_int_equal(__real_pthread_create(&opener, NULL, open_later, NULL), 0);
    pool_free(pool);
    pool = NULL;
    assert_int_equal(pthread_join(opener, NULL), 0);
    for (size_t i = 0; i < 5; i++) {
        run_count += jobs[i].has_run;
        drop_count += jobs[i].is_dropped;
        assert_true(jobs[i].has_run != jobs[i].is_dropped);
    }
    assert_true(jobs[0].has_run && jobs[1].has_run);
    assert_int_equal(run_count + drop_count, 5);
}

/* What does not end is left alone, with its pool; what waits is never called. */
static void test_freeing_waits_for_so_long_only(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pool_submit(pool, &jobs[i].job), 0);
    }
    pass(&entered);
    pass(&entered);
    assert_false(pool_free_within(pool, 20));
    assert_false(jobs[0].has_run || jobs[1].has_run || jobs[2].is_dropped);
    (void)sem_post(&gate);
    assert_false(pool_free_within(pool, 20)); /* one of the two is still there */
    (void)sem_post(&gate);
    assert_true(pool_free_within(pool, 60000));
    pool = NULL;
    assert_true(jobs[0].has_run && jobs[1].has_run && jobs[2].is_dropped);
    assert_true(pool_free_within(NULL, 0));
}

static void test_without_threads_nothing_is_taken(void **state)
{
    (void)state;
    no_threads = true;
    assert_int_equal(submit(0), -EAGAIN);
    no_threads = false;
    assert_int_equal(submit(0), 0);
    pass(&entered);
    no_threads = true; /* one thread is there: it must do */
    assert_int_equal(submit(1), 0);
    open_gate(2);
    pass(&entered);
}

static void test_senseless_sizes_are_refused(void **state)
{
    struct pool *other = NULL;

    (void)state;
    assert_int_equal(pool_new(0, 1, &other), -EINVAL);
    assert_int_equal(pool_new(POOL_THREADS_MAX + 1, 1, &other), -EINVAL);
    assert_int_equal(pool_new(1, 0, &other), -EINVAL);
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(pool_new(1, 1, &other), -ENOMEM);
    harness_fail(NULL, 0, 0);
    assert_null(other);
    pool_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_jobs_run_in_threads_that_take_no_signals),
        TEST(test_threads_and_queue_are_bounded),
        TEST(test_an_idle_thread_is_used_again),
        TEST(test_only_what_waits_can_be_withdrawn),
        TEST(test_freeing_waits_for_what_runs_and_drops_the_rest),
        TEST(test_freeing_waits_for_so_long_only),
        TEST(test_without_threads_nothing_is_taken),
        TEST(test_senseless_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
