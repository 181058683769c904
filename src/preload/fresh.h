/*
 * Sockets that this process has made and not connected yet: what is known of them need not be asked for. Most are connected without much
 * having been set, and then there is little to carry over. Safe in signal handlers.
 */
#ifndef PRELOAD_FRESH_H
#define PRELOAD_FRESH_H

#include <stdbool.h>
#include <stdint.h>

void fresh_note(int fd, int domain, bool is_tcp); /* socket(2) has made a stream */
void fresh_touch(int fd, int level, int name);    /* an option is about to be set */
void fresh_bind(int fd);                          /* bind(2) is about to be called */

/* No option was set, and there is no duplicate by which one could be. */
bool fresh_is(int fd);

struct fresh {
    uint64_t cookie;
    int domain;
    bool
        is_plain; /* nothing was set that concerns connecting and waiting: an address, time limits, Fast Open; nor is there a duplicate */
};

/* False if it is no TCP socket, was connected, or is not known. */
bool fresh_find(int fd, struct fresh *out);

#endif
