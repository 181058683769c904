/*
 * Socket options that go from one socket of the program to the one that takes its place. Safe in signal handlers.
 */
#ifndef PRELOAD_OPTIONS_H
#define PRELOAD_OPTIONS_H

#include <stdint.h>

/* All that matter on a TCP socket: those of `from`, wherever they differ, on `to`. */
void options_copy(int from, int to);

/* The same, for a stream whose options the helper has. */
void options_copy_from_helper(uint64_t cookie, int to);

/*
 * To a socket that takes the place of another at `fd`, which may be of another kind: what concerns waiting alone. File
 * status flags but O_ASYNC, owner and signal of F_SETOWN(2), timeouts, low-water mark.
 */
void options_carry(int from, int to);

#endif
