/*
 * One mutex guards the queue. A job is in the queue or it is not: `prev == job` says that it is not, so that withdrawing
 * one that has begun to run finds that out. Threads start when a job finds none idle, and stay.
 */
#include "io/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

/* Modules of the name service and of PAM, of whoever's making, need more than password hashes; what is not used costs nothing. */
#define THREAD_STACK_LEN ((size_t)2048 * 1024)

struct pool {
    pthread_mutex_t mutex;
    pthread_cond_t has_work, has_ended;
    struct pool_job *first, *last;
    size_t queued_count, queue_max;
    unsigned idle_count, thread_count, thread_max;
    unsigned living_count; /* threads that have not ended */
    bool is_closing;
    pthread_t threads[POOL_THREADS_MAX];
};

/* With the mutex held, as all below. */
static void link_job(struct pool *pool, struct pool_job *job)
{
    job->next = NULL;
    job->prev = pool->last;
    if (pool->last != NULL) {
        pool->last->next = job;
    } else {
        pool->first = job;
    }
    pool->last = job;
    pool->queued_count++;
}

static void unlink_job(struct pool *pool, struct pool_job *job)
{
    if (job->prev != NULL) {
        job->prev->next = job->next;
    } else {
        pool->first = job->next;
    }
    if (job->next != NULL) {
        job->next->prev = job->prev;
    } else {
        pool->last = job->prev;
    }
    pool->queued_count--;
    job->prev = job;
}

static void *run(void *arg)
{
    struct pool *pool = arg;

    (void)pthread_mutex_lock(&pool->mutex);
    while (!pool->is_closing) {
        struct pool_job *job = pool->first;

        if (job == NULL) {
            pool->idle_count++;
            (void)pthread_cond_wait(&pool->has_work, &pool->mutex);
            pool->idle_count--;
            continue;
        }
        unlink_job(pool, job);
        (void)pthread_mutex_unlock(&pool->mutex);
        job->run(job);
        (void)pthread_mutex_lock(&pool->mutex);
    }
    pool->living_count--;
    (void)pthread_cond_signal(&pool->has_ended);
    (void)pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Signals are for the program's own threads. */
static void start_thread(struct pool *pool)
{
    pthread_attr_t attr;
    sigset_t all, old;

    if (pthread_attr_init(&attr) != 0) {
        return;
    }
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK_LEN);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&pool->threads[pool->thread_count], &attr, run, pool) == 0) {
        pool->thread_count++;
        pool->living_count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
}

/* Both conditions, one of them to be waited for by the monotonic clock. 0 or a number of errno. */
static int init_conditions(struct pool *pool)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);

    if (rc != 0) {
        return rc;
    }
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0) {
        rc = pthread_cond_init(&pool->has_ended, &attr);
    }
    (void)pthread_condattr_destroy(&attr);
    if (rc != 0) {
        return rc;
    }
    rc = pthread_cond_init(&pool->has_work, NULL);
    if (rc != 0) {
        (void)pthread_cond_destroy(&pool->has_ended);
    }
    return rc;
}

int pool_new(unsigned threads, size_t queue_max, struct pool **out)
{
    struct pool *pool;
    int rc;

    if (threads == 0 || threads > POOL_THREADS_MAX || queue_max == 0) {
        return -EINVAL;
    }
    pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return -ENOMEM;
    }
    rc = pthread_mutex_init(&pool->mutex, NULL);
    if (rc != 0) {
        free(pool);
        return -rc;
    }
    rc = init_conditions(pool);
    if (rc != 0) {
        (void)pthread_mutex_destroy(&pool->mutex);
        free(pool);
        return -rc;
    }
    pool->thread_max = threads;
    pool->queue_max = queue_max;
    *out = pool;
    return 0;
}

static void close_pool(struct pool *pool)
{
    (void)pthread_mutex_lock(&pool->mutex);
    pool->is_closing = true;
    (void)pthread_cond_broadcast(&pool->has_work);
    (void)pthread_mutex_unlock(&pool->mutex);
}

/* True if all threads have ended in time. */
static bool await_threads(struct pool *pool, uint64_t timeout_ms)
{
    struct timespec until;
    bool have_ended;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    while (pool->living_count > 0 && pthread_cond_timedwait(&pool->has_ended, &pool->mutex, &until) == 0) {
    }
    have_ended = pool->living_count == 0;
    (void)pthread_mutex_unlock(&pool->mutex);
    return have_ended;
}

bool pool_free_within(struct pool *pool, uint64_t timeout_ms)
{
    if (pool != NULL) {
        close_pool(pool);
        if (!await_threads(pool, timeout_ms)) {
            return false;
        }
        pool_free(pool);
    }
    return true;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL) {
        return;
    }
    close_pool(pool);
    for (unsigned i = 0; i < pool->thread_count; i++) {
        (void)pthread_join(pool->threads[i], NULL);
    }
    while (pool->first != NULL) {
        struct pool_job *job = pool->first;

        unlink_job(pool, job);
        job->drop(job);
    }
    (void)pthread_cond_destroy(&pool->has_work);
    (void)pthread_cond_destroy(&pool->has_ended);
    (void)pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* With the mutex held: 0 or -EAGAIN. */
static int enqueue(struct pool *pool, struct pool_job *job)
{
    if (pool->queued_count >= pool->queue_max) {
        return -EAGAIN;
    }
    if (pool->idle_count <= pool->queued_count && pool->thread_count < pool->thread_max) {
        start_thread(pool);
    }
    if (pool->thread_count == 0) {
        return -EAGAIN; /* nobody would ever take it */
    }
    link_job(pool, job);
    (void)pthread_cond_signal(&pool->has_work);
    return 0;
}

int pool_submit(struct pool *pool, struct pool_job *job)
{
    int rc;

    (void)pthread_mutex_lock(&pool->mutex);
    rc = enqueue(pool, job);
    (void)pthread_mutex_unlock(&pool->mutex);
    return rc;
}

bool pool_withdraw(struct pool *pool, struct pool_job *job)
{
    bool is_queued;

    (void)pthread_mutex_lock(&pool->mutex);
    is_queued = job->prev != job;
    if (is_queued) {
        unlink_job(pool, job);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return is_queued;
}
