/*
 * What becomes of the result of a call that reads or writes. Shared by data_in.c and data_out.c.
 *
 * Data calls go straight to the kernel. Only when one says that it is over is the truth looked up: a stream to the helper
 * ends in its own way, a TCP connection in another.
 */
#ifndef PRELOAD_DATA_H
#define PRELOAD_DATA_H

#include <stdbool.h>
#include <sys/types.h>

/* After a read: `rc` is its result, errno its error. What the program is to get. */
ssize_t data_received(int fd, ssize_t rc);

/* What the kernel has done, or shall do, about a write to a connection that takes no more. */
enum data_pipe {
    DATA_PIPE_RAISED, /* SIGPIPE has come, if at all */
    DATA_PIPE_DUE,    /* it was held back, and is ours to raise if TCP would */
    DATA_PIPE_OFF     /* MSG_NOSIGNAL: the program wants none */
};
ssize_t data_sent(int fd, ssize_t rc, enum data_pipe pipe);

/* Whether writes to `fd` must hold SIGPIPE back: it was a stream, last time we looked. */
bool data_is_stream(int fd);

#endif
