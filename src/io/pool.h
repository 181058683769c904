/*
 * A few threads for work that would block a loop, behind a bounded queue. It knows no loop: work that has an answer posts
 * it (loop_post()) by itself.
 */
#ifndef IO_POOL_H
#define IO_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

struct pool;

/* Embedded in its owner. Zero-initialise, set the functions. */
struct pool_job {
    void (*run)(struct pool_job *job);  /* on one of the threads; the job is the owner's again from its start on */
    void (*drop)(struct pool_job *job); /* instead of run: pool_free() came first */
    struct pool_job *prev, *next;       /* the pool's */
};

#define POOL_THREADS_MAX 64u

/* `threads` 1 .. POOL_THREADS_MAX, started when they are needed; `queue_max` jobs waiting, 1 or more. 0 or -errno. */
SOCKS6_MUST_CHECK int pool_new(unsigned threads, size_t queue_max, struct pool **out);
/* Waits for the jobs that run; those that wait are dropped. Nobody may submit or withdraw any more. Takes NULL. */
void pool_free(struct pool *pool);
/*
 * The same for jobs that may never end. False: some still run after `timeout_ms`. Then the pool and all that its jobs know
 * must be left as they are, to be freed later or never; jobs that wait are not called.
 */
SOCKS6_MUST_CHECK bool pool_free_within(struct pool *pool, uint64_t timeout_ms);

/* From any thread. 0, or -EAGAIN: the queue is full, or there is no thread and none can be started. */
SOCKS6_MUST_CHECK int pool_submit(struct pool *pool, struct pool_job *job);
/* From any thread: true if a submitted job had not begun to run, and now never will; it is the owner's again. */
SOCKS6_MUST_CHECK bool pool_withdraw(struct pool *pool, struct pool_job *job);

#endif
