/*
 * The rest of a conversation that a program has begun: its socket is connected to the proxy, the request is sent, and the program
 * does not wait any longer. Used by run_connect.c.
 */
#ifndef CLI_RUN_ANSWER_H
#define CLI_RUN_ANSWER_H

#include <socks6/dial.h>

#include "cli/run_dial.h"

/* Embedded in its owner. Zero-initialise, set done(). */
struct run_answer {
    /*
     * Called once, never from within run_answer_start(), unless it was cancelled. OK: `result->fd` is the connection, the owner's
     * from then on, with the reply taken off. REMOTE_FAILED, and the reply's code. TIMED_OUT. PROXY_FAILED: another request may do
     * better.
     */
    void (*done)(struct run_answer *answer, int status, const struct socks6_dial_result *result);

    const struct run_dialer *dialer;
    struct loop_io io; /* fd -1 = it is over */
    struct loop_timer timer;
};

/* Waits on a duplicate of `fd`. 0 or -errno. */
SOCKS6_MUST_CHECK int run_answer_start(struct run_answer *answer, const struct run_dialer *dialer, int fd);
/* No effect if it is over. */
void run_answer_cancel(struct run_answer *answer);

/* Undoes what a program has begun: the socket is as it was before, in all processes that have it. */
void run_answer_undo(int fd);

#endif
