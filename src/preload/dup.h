/*
 * Duplicates of descriptors that this process has made. A program may connect one of them and go on with another.
 */
#ifndef PRELOAD_DUP_H
#define PRELOAD_DUP_H

#include <stdbool.h>
#include <stdint.h>

/* The first descriptor not below `from` that is a duplicate, or has one, of the socket with that cookie; or -1. */
int dup_next(int from, uint64_t cookie);

/* Whether there ever was a duplicate at this descriptor, or of it. */
bool dup_has(int fd);

#endif
