/*
 * Theory of operation. Nothing can wait and tell afterwards what the handler was that has interrupted it: ppoll(2) returns EINTR for all of
 * them, and what the kernel restarts by itself are calls that wait for something else than we do. So signals stay held back, a
 * signalfd(2) tells that one waits, and its action is looked at before it is let through. Nothing is read from the descriptor. That there is no
 * time between looking and waiting in which a signal could be missed is the other gain.
 */
#include "preload/signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

#include "preload/real.h"
#include "preload/sys.h"

#define NS_PER_S 1000000000

static long set_mask(const struct signals *mask, struct signals *before)
{
    return SYS_CALL(SYS_rt_sigprocmask, SIG_SETMASK, mask, before, sizeof mask->bits);
}

void signals_hold(struct signals *before)
{
    struct signals all;

    memset(&all, 0xff, sizeof all);
    memset(before, 0, sizeof *before);
    (void)set_mask(&all, before);
}

void signals_release(const struct signals *before)
{
    (void)set_mask(before, NULL);
}

static bool has(const struct signals *set, int number)
{
    return (set->bits[(number - 1) / 8] >> (number - 1) % 8 & 1) != 0;
}

/* As sock_intr_errno() of Linux has it: with a time limit no call goes on. */
static bool interrupts(int number, bool has_limit)
{
    struct sigaction action;
    int saved = errno;
    bool is_known = sigaction(number, NULL, &action) == 0;

    errno = saved;
    return is_known && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
           (has_limit || (action.sa_flags & SA_RESTART) == 0);
}

static bool is_interrupted(const struct signals *before, bool has_limit)
{
    struct signals waiting = {{0}};

    (void)SYS_CALL(SYS_rt_sigpending, &waiting, sizeof waiting.bits);
    for (int number = 1; number < _NSIG; number++) {
        if (has(&waiting, number) && !has(before, number) && interrupts(number, has_limit)) {
            return true;
        }
    }
    return false;
}

/* Tells of the signals that the program itself has not held back; libc's own are let through while we sleep. */
static int open_signals(const struct signals *before)
{
    struct signals wanted;
    sigset_t all;

    (void)sigfillset(&all);
    memcpy(wanted.bits, &all, sizeof wanted.bits);
    for (size_t i = 0; i < sizeof wanted.bits; i++) {
        wanted.bits[i] &= (unsigned char)~before->bits[i];
    }
    return (int)SYS_CALL(SYS_signalfd4, -1, &wanted, sizeof wanted.bits, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int64_t now_ns(void)
{
    struct timespec now = {0, 0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

struct waiting {
    int fd, signal_fd;
    short events;
    bool has_limit;
    int64_t end_ns;
    const struct signals *before;
};

/* libc's mask, in which it lets its own signals through: by one of them it cancels. NULL = all others. */
static void fill_mask(const struct signals *held_back, sigset_t *out)
{
    (void)sigfillset(out);
    if (held_back != NULL) {
        memset(out, 0, sizeof *out);
        memcpy(out, held_back->bits, sizeof held_back->bits);
    }
}

/* libc's, since it is to be a point of cancellation. The result or -errno. */
static int call_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask)
{
    int saved = errno, rc = real(ppoll)(fds, count, time, mask);

    rc = rc < 0 ? -errno : rc;
    errno = saved;
    return rc;
}

/* One sleep. 1: look again; else as signals_wait(). */
static int sleep_once(const struct waiting *w)
{
    struct pollfd fds[] = {{w->fd, w->events, 0}, {w->signal_fd, POLLIN, 0}};
    bool is_deaf = w->signal_fd < 0;
    int64_t left = w->has_limit ? w->end_ns - now_ns() : 0;
    struct timespec time;
    sigset_t mask;
    int rc;

    left = left > 0 ? left : 0;
    time = (struct timespec){(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
    fill_mask(is_deaf ? w->before : NULL, &mask);
    rc = call_ppoll(fds, is_deaf ? 1 : 2, w->has_limit ? &time : NULL, &mask);
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        return -EAGAIN;
    }
    if (fds[0].revents != 0) {
        return 0;
    }
    if (is_interrupted(w->before, w->has_limit)) {
        return -EINTR;
    }
    return 1;
}

__attribute__((noinline)) static int sleep_on(const struct waiting *w)
{
    int rc;

    while ((rc = sleep_once(w)) == 1) {
        struct signals ignored;

        signals_release(w->before);
        signals_hold(&ignored);
    }
    return rc;
}

static void close_signals(const struct waiting *w)
{
    if (w->signal_fd >= 0) {
        sys_close(w->signal_fd);
    }
}

static void cancel(void *waiting)
{
    const struct waiting *w = waiting;

    close_signals(w);
    signals_release(w->before);
}

static int sleep_cancellably(struct waiting *w)
{
    int rc;

    pthread_cleanup_push(cancel, w);
    rc = sleep_on(w);
    pthread_cleanup_pop(0);
    close_signals(w);
    return rc;
}

int signals_wait(int fd, short events, const struct timeval *limit, const struct signals *before)
{
    struct waiting w = {.fd = fd, .signal_fd = open_signals(before), .events = events, .before = before};

    w.has_limit = limit->tv_sec != 0 || limit->tv_usec != 0;
    if (w.has_limit) {
        w.end_ns = now_ns() + (int64_t)limit->tv_sec * NS_PER_S + (int64_t)limit->tv_usec * 1000;
    }
    return sleep_cancellably(&w);
}
