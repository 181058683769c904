/*
 * O_ASYNC on streams: the signal that a connection has been made. Safe in signal handlers.
 */
#ifndef PRELOAD_ASYNC_H
#define PRELOAD_ASYNC_H

/* `fd` is full of padding: whoever asked for signals is to get one when it becomes writable, as it does for TCP. */
void async_expect_room(int fd);

#endif
