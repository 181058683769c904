/*
 * Signals during calls that wait: held back while something is half done, and let through in the way that the kernel does it for
 * connect(2), which returns EINTR for handlers without SA_RESTART and goes on for others.
 */
#ifndef PRELOAD_SIGNALS_H
#define PRELOAD_SIGNALS_H

#include <signal.h>
#include <sys/time.h>

#include <socks6/types.h>

struct signals { /* as the kernel has them: number n is bit n - 1 */
    unsigned char bits[(_NSIG - 1) / 8];
};

/* Holds all of this thread's back. `before` is for signals_release(), which lets those through that have come meanwhile. */
void signals_hold(struct signals *before);
void signals_release(const struct signals *before);

/*
 * Waits, with signals held back, for poll(2) events of `fd`, or an error or hang-up. 0; -EAGAIN when `limit` (0 = none) is over;
 * -EINTR if a signal has come for which a call that waits so long returns: its handler runs at signals_release(). Others are
 * let through meanwhile. Needs a descriptor; without one it is EINTR for each signal that has a handler. A point of
 * cancellation.
 */
SOCKS6_MUST_CHECK int signals_wait(int fd, short events, const struct timeval *limit, const struct signals *before);

#endif
