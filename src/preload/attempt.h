/*
 * One connect(2) of a TCP socket by way of the helper: the request, waiting for the reply, and what it makes of the descriptor.
 * Called by connect.c, which has judged that the helper is to be asked.
 */
#ifndef PRELOAD_ATTEMPT_H
#define PRELOAD_ATTEMPT_H

#include <stdbool.h>
#include <sys/socket.h>

#include <socks6/types.h>

#include "run/protocol.h"

/*
 * `fd` is an unconnected socket of `domain`. 0 or -errno, -EINPROGRESS and -EINTR included: then it goes on in the background.
 * `*is_direct`: it is for the program to connect, nothing has been done. `is_non_blocking`: as if `fd` were, which it may
 * be by itself; else this is a point of cancellation.
 */
SOCKS6_MUST_CHECK int attempt_connect(int fd, int domain, const struct run_addr *destination, bool is_non_blocking,
                                      bool *is_direct);

#endif
