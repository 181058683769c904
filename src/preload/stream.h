/*
 * The program's connections that go through the helper: which descriptors are such, and how they stand. Used by all hooks on
 * sockets.
 *
 * All of it is safe in signal handlers and leaves errno alone.
 */
#ifndef PRELOAD_STREAM_H
#define PRELOAD_STREAM_H

#include <stdbool.h>

#include <socks6/types.h>

#include "preload/slots.h"
#include "run/protocol.h"

/* Is it a stream to the helper? One system call says no, unless something of ours was at the same descriptor before. */
bool stream_find(int fd, struct slot *out);

/*
 * The same for calls of which the program expects one system call and no more: where more may be the end of it (confined.h), only what
 * this process has connected itself is found.
 */
bool stream_find_in_passing(int fd, struct slot *out);

/* The same for TCP connections that the helper made. The first time the helper is asked. */
bool stream_find_tcp(int fd, struct slot *out);

/* RUN_STATUS. 0 or -errno. */
SOCKS6_MUST_CHECK int stream_ask(uint64_t cookie, uint32_t flags, struct run_state *out);

/* How a stream stands, without the helper if the kernel knows. `slot` is brought up to date. Takes no error. */
enum run_state_of stream_state(int fd, struct slot *slot);

/*
 * The helper has closed its end, or seems to have: the errno that TCP would give once, or 0 when there is none (any more): the
 * connection has ended properly, or its error was taken before.
 */
int stream_take_error(int fd, struct slot *slot);

/* poll(2) says that both directions are at their end. */
bool stream_has_hung_up(int fd);

#endif
