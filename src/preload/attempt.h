/*
 * One connect(2) of a TCP socket by way of the helper: the request, waiting for the reply, and what it makes of the descriptor.
 * Called by connect.c, which has judged that the helper is to be asked.
 */
#ifndef PRELOAD_ATTEMPT_H
#define PRELOAD_ATTEMPT_H

#include <stdbool.h>
#include <sys/socket.h>

#include <socks6/types.h>

#include "preload/shortcut.h"
#include "preload/signals.h"
#include "run/protocol.h"

struct attempt_start {
    int fd, domain; /* an unconnected socket of this domain */
    const struct run_addr *destination;
    bool is_non_blocking;        /* else it is a point of cancellation */
    bool is_asked;               /* RUN_CONNECT_ASKED: the socket is connected to the proxy */
    struct shortcut_watch watch; /* put back if the thread is cancelled; else by the caller */
    struct signals before;       /* if it is one that blocks: of signals_hold(). They are released meanwhile */
};

/*
 * 0 or -errno, -EINPROGRESS and -EINTR included: then it goes on in the background. `*is_direct`: it is for the program to connect,
 * nothing has been done.
 */
SOCKS6_MUST_CHECK int attempt_connect(const struct attempt_start *start, bool *is_direct);

#endif
