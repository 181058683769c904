/*
 * Questions to the helper: see run/protocol.h. Used by every hook that needs one.
 *
 * All of it is safe in signal handlers and leaves errno alone: system calls only, no lock, no memory but the stack's. They are
 * made without libc's wrappers, which are cancellation points where the function that we replace may be none.
 */
#ifndef PRELOAD_TALK_H
#define PRELOAD_TALK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <socks6/types.h>

#include "run/protocol.h"

/* A blocking, close-on-exec connection to the helper; or -errno, -ENETUNREACH if it is gone. */
SOCKS6_MUST_CHECK int talk_open(void);
void talk_close(int fd);

/* Sends one request; `pass` is a descriptor to go along, or -1. 0 or -errno. Parts: at most TALK_PARTS_MAX. */
#define TALK_PARTS_MAX 3
SOCKS6_MUST_CHECK int talk_send(int fd, enum run_kind kind, const struct iovec *parts, int part_count, int pass);
/*
 * Receives one reply, the body of which has at most `size` bytes: its length, or -errno; -EPROTO for what makes no sense. `status` and
 * `passed` (-1 = none came; may be NULL) are set. Goes on after signals, unless `stops`: then -EINTR can be had before the first byte.
 */
SOCKS6_MUST_CHECK ssize_t talk_receive(int fd, int *status, void *body, size_t size, int *passed, int stops);

/* All of it: open, send, receive, close. The length of the reply's body, or -errno. */
SOCKS6_MUST_CHECK ssize_t talk_ask(enum run_kind kind, const struct iovec *parts, int part_count, int *status,
                                   void *body, size_t size);

/* The same for what has no body and no reply. */
void talk_tell(enum run_kind kind);

/* A line for the helper to print: RUN_NOTE_TRACE (passed over unless -v) or RUN_NOTE_REFUSED. */
__attribute__((format(printf, 2, 3))) void talk_note(uint32_t what, const char *format, ...);

#endif
