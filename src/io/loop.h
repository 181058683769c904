/*
 * One event loop per thread: epoll, a coarse timer wheel, a mailbox from other threads, work put off to the end of the
 * batch.
 *
 * Everything but loop_post() and loop_stop() belongs to the thread that runs the loop. Objects are embedded in their
 * owners (struct loop_io, loop_timer, loop_task, loop_msg), so registering one allocates nothing.
 *
 * An event of the running batch may concern an object that an earlier event of the same batch removed: loop_remove()
 * takes such events out of the batch, so a removed loop_io is never called again and its memory may be freed at once.
 */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

struct loop;

/* From an embedded loop_io, loop_timer, loop_task or loop_msg to the struct that it is `member` of. */
#define LOOP_OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* A descriptor's handler. `events` are EPOLLIN and so on, as epoll_wait(2) gave them. */
struct loop_io {
    void (*ready)(struct loop_io *io, uint32_t events);
    int fd; /* -1 = not registered; loop_remove() and loop_close() set it so */
};

/*
 * A timer. Zero-initialise, set `expired`; due times are coarse: never early by loop_now_ms(), up to LOOP_TICK_MS and
 * one wake-up late.
 */
struct loop_timer {
    struct loop_timer *next, *prev; /* NULL = not armed */
    uint64_t due_ms;
    void (*expired)(struct loop_timer *timer);
};

#define LOOP_TICK_MS 16u

/*
 * Work for the end of the running batch, once; what it queues itself runs in the next batch (which then does not
 * sleep).
 */
struct loop_task {
    struct loop_task *next; /* NULL = not queued */
    void (*run)(struct loop_task *task);
};

/* A message from another thread. The sender gives it away; `run` is called on the loop's thread and owns it. */
struct loop_msg {
    struct loop_msg *next;
    void (*run)(struct loop_msg *msg);
};

/* 0 or -errno. */
SOCKS6_MUST_CHECK int loop_new(struct loop **out);
/* Takes NULL. Messages not yet delivered are run first, so that nothing they own is lost. */
void loop_free(struct loop *loop);

/* Runs until loop_stop(). 0, or -errno if epoll itself fails. */
SOCKS6_MUST_CHECK int loop_run(struct loop *loop);
/*
 * From any thread, or a handler; loop_run() returns after the running batch; if it does not run, the next one returns
 * at once.
 */
void loop_stop(struct loop *loop);

/* Milliseconds of CLOCK_MONOTONIC, read once per wake-up (outside loop_run(): read now). */
uint64_t loop_now_ms(const struct loop *loop);

/*
 * `io->fd` is to be set; `events` as for epoll_ctl(2), with EPOLLET where wanted. 0 or -errno (then not registered,
 * and `io` is unchanged).
 */
SOCKS6_MUST_CHECK int loop_add(struct loop *loop, struct loop_io *io, uint32_t events);
SOCKS6_MUST_CHECK int loop_modify(struct loop *loop, struct loop_io *io, uint32_t events);
/*
 * Takes the descriptor out of epoll (before it is closed or handed on) and sets io->fd to -1: keep a copy of the
 * descriptor first. Does nothing for a loop_io that is not registered; never fails.
 */
void loop_remove(struct loop *loop, struct loop_io *io);
/*
 * loop_remove() and close(2) in one, and cheaper, since closing takes a descriptor out of epoll too (if no duplicate
 * of it exists).
 */
void loop_close(struct loop *loop, struct loop_io *io);

/*
 * For a descriptor registered with EPOLLONESHOT whose event has come: the kernel reports no more of it, and it stays
 * registered for its next owner, who calls loop_modify() where loop_add() would be called otherwise, or closes it. Sets
 * io->fd to -1. No system call.
 */
void loop_park(struct loop *loop, struct loop_io *io);

/* Arms, or arms anew, `delay_ms` from now. No system call. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms);
/* No effect on a timer that is not armed. */
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);
bool loop_timer_is_armed(const struct loop_timer *timer);

/* Queues once; no effect if it is queued already. */
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_defer_cancel(struct loop *loop, struct loop_task *task);

/* Thread-safe; wakes the loop (eventfd). Never fails; wakes are coalesced. */
void loop_post(struct loop *loop, struct loop_msg *msg);

#endif
