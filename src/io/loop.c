/*
 * The event loop. One turn: sleep in epoll_wait(2) until an event or the next timer, read the clock, call the handlers
 * of the batch, run the timers that are due, run the deferred tasks.
 *
 * The batch is kept in the loop, so that loop_remove() can take the events of a removed object out of it; handlers may
 * therefore free anything, themselves included. Tasks queued by tasks go to the next turn, which then does not sleep.
 *
 * The mailbox is a lock-free stack pushed by any thread and emptied at once by the loop, which turns it round; only
 * the message that finds it empty writes to the eventfd.
 */
#include "io/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "io/wheel.h"

#define BATCH 256

/* Ends the lists of tasks, so that `next` of a queued task is never NULL. */
static struct loop_task end_of_tasks;

struct loop {
    int epoll_fd;
    struct loop_io wake; /* the eventfd */
    uint64_t now_ms;
    bool running;
    atomic_bool stop;
    _Atomic(struct loop_msg *) mail; /* newest first */

    int batch_next; /* the event after the one being handled */
    int batch_count;
    struct epoll_event batch[BATCH];

    struct loop_task *tasks; /* queued */
    struct loop_task **tasks_end;
    struct loop_task *tasks_running; /* rest of the list being run */

    struct wheel wheel;
};

static uint64_t clock_ms(void)
{
    struct timespec now;
    int rc = clock_gettime(CLOCK_MONOTONIC, &now);
    assert(rc == 0);
    (void)rc;
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void deliver_mail(struct loop *loop)
{
    struct loop_msg *newest = atomic_exchange_explicit(&loop->mail, NULL, memory_order_acquire);
    struct loop_msg *oldest = NULL;
    while (newest != NULL) {
        struct loop_msg *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct loop_msg *msg = oldest;
        oldest = msg->next;
        msg->run(msg);
    }
}

static void on_wake(struct loop_io *io, uint32_t events)
{
    struct loop *loop = LOOP_OWNER(io, struct loop, wake);
    (void)events;
    eventfd_t count;
    /* Emptied before the mail is taken: a message that comes in between writes again, and none is left lying. */
    (void)eventfd_read(io->fd, &count); /* can only fail as empty */
    deliver_mail(loop);
}

static void wake(struct loop *loop)
{
    (void)eventfd_write(loop->wake.fd, 1); /* can only fail as full, and then the loop is awake */
}

int loop_new(struct loop **out)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    loop->wake.fd = -1;
    loop->wake.ready = on_wake;
    loop->tasks = &end_of_tasks;
    loop->tasks_end = &loop->tasks;
    loop->tasks_running = &end_of_tasks;
    loop->now_ms = clock_ms();
    wheel_init(&loop->wheel, loop->now_ms);

    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        rc = -errno;
        goto out;
    }
    loop->wake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake.fd < 0) {
        rc = -errno;
        goto out;
    }
    rc = loop_add(loop, &loop->wake, EPOLLIN);
out:
    if (rc < 0) {
        loop_free(loop);
    } else {
        *out = loop;
    }
    return rc;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    while (atomic_load_explicit(&loop->mail, memory_order_relaxed) != NULL) {
        deliver_mail(loop);
    }
    if (loop->wake.fd >= 0) {
        (void)close(loop->wake.fd);
    }
    if (loop->epoll_fd >= 0) {
        (void)close(loop->epoll_fd);
    }
    free(loop);
}

/* How long epoll_wait() may sleep: -1 = until an event. */
static int sleep_ms(const struct loop *loop)
{
    if (loop->tasks != &end_of_tasks) {
        return 0;
    }
    uint64_t next = wheel_next_ms(&loop->wheel);
    if (next == UINT64_MAX) {
        return -1;
    }
    if (next <= loop->now_ms) {
        return 0;
    }
    return next - loop->now_ms < INT_MAX ? (int)(next - loop->now_ms) : INT_MAX;
}

static void run_batch(struct loop *loop)
{
    for (loop->batch_next = 0; loop->batch_next < loop->batch_count;) {
        const struct epoll_event *event = &loop->batch[loop->batch_next++];
        struct loop_io *io = event->data.ptr;
        if (io != NULL) {
            io->ready(io, event->events);
        }
    }
    loop->batch_count = 0;
}

static void run_tasks(struct loop *loop)
{
    loop->tasks_running = loop->tasks;
    loop->tasks = &end_of_tasks;
    loop->tasks_end = &loop->tasks;
    while (loop->tasks_running != &end_of_tasks) {
        struct loop_task *task = loop->tasks_running;
        loop->tasks_running = task->next;
        task->next = NULL;
        task->run(task);
    }
}

int loop_run(struct loop *loop)
{
    int rc = 0;
    loop->running = true;
    loop->now_ms = clock_ms();
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire)) {
        int count = epoll_wait(loop->epoll_fd, loop->batch, BATCH, sleep_ms(loop));
        if (count < 0 && errno != EINTR) {
            rc = -errno;
            break;
        }
        loop->now_ms = clock_ms();
        loop->batch_count = count < 0 ? 0 : count;
        run_batch(loop);
        wheel_expire(&loop->wheel, loop->now_ms);
        run_tasks(loop);
    }
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
    loop->running = false;
    return rc;
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    wake(loop);
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->running ? loop->now_ms : clock_ms();
}

int loop_add(struct loop *loop, struct loop_io *io, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = io};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, io->fd, &event) < 0 ? -errno : 0;
}

int loop_modify(struct loop *loop, struct loop_io *io, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = io};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &event) < 0 ? -errno : 0;
}

static void purge_batch(struct loop *loop, const struct loop_io *io)
{
    for (int i = loop->batch_next; i < loop->batch_count; i++) {
        if (loop->batch[i].data.ptr == io) {
            loop->batch[i].data.ptr = NULL;
        }
    }
}

void loop_remove(struct loop *loop, struct loop_io *io)
{
    if (io->fd < 0) {
        return;
    }
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL); /* fails only for what is not registered */
    purge_batch(loop, io);
    io->fd = -1;
}

void loop_close(struct loop *loop, struct loop_io *io)
{
    if (io->fd < 0) {
        return;
    }
    purge_batch(loop, io);
    (void)close(io->fd);
    io->fd = -1;
}

void loop_park(struct loop *loop, struct loop_io *io)
{
    purge_batch(loop, io);
    io->fd = -1;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms)
{
    uint64_t now = loop_now_ms(loop);
    wheel_set(&loop->wheel, timer, delay_ms < UINT64_MAX - now ? now + delay_ms : UINT64_MAX);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
    wheel_cancel(&loop->wheel, timer);
}

bool loop_timer_is_armed(const struct loop_timer *timer)
{
    return timer->next != NULL;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    if (task->next != NULL) {
        return;
    }
    task->next = &end_of_tasks;
    *loop->tasks_end = task;
    loop->tasks_end = &task->next;
}

/* Whether `task` was in the list at `*link`; `*end` is kept right if there is one. */
static bool unlink_task(struct loop_task **link, struct loop_task ***end, const struct loop_task *task)
{
    for (; *link != &end_of_tasks; link = &(*link)->next) {
        if (*link != task) {
            continue;
        }
        *link = task->next;
        if (end != NULL && *end == &task->next) {
            *end = link;
        }
        return true;
    }
    return false;
}

void loop_defer_cancel(struct loop *loop, struct loop_task *task)
{
    if (task->next == NULL) {
        return;
    }
    if (!unlink_task(&loop->tasks_running, NULL, task)) {
        (void)unlink_task(&loop->tasks, &loop->tasks_end, task);
    }
    task->next = NULL;
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
    struct loop_msg *newest = atomic_load_explicit(&loop->mail, memory_order_relaxed);
    do {
        msg->next = newest;
    } while (
        !atomic_compare_exchange_weak_explicit(&loop->mail, &newest, msg, memory_order_release, memory_order_relaxed));
    if (newest == NULL) {
        wake(loop);
    }
}
