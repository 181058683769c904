/*
 * What is known of the program's descriptors. A cache and no more: an entry is good for as long as the descriptor is the socket
 * that has the entry's cookie; programs close and replace descriptors without telling us. What is not here is found out from the
 * kernel and the helper: see stream.h.
 *
 * Safe in signal handlers and threads, without locks: an entry that is being written when it is asked for, or to be written again,
 * is passed over.
 */
#ifndef PRELOAD_SLOTS_H
#define PRELOAD_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "run/protocol.h"

#define SLOTS_COUNT 65536 /* higher descriptors are not remembered */

#define SLOTS_WIDE_BYTES 212992 /* the send buffer of a stream that is connected: the kernel's own default */

enum slot_kind {
    SLOT_OTHER,  /* nothing of ours */
    SLOT_STREAM, /* a Unix stream to the helper, which the program takes for a TCP connection */
    SLOT_TCP,    /* a TCP connection to the proxy, made by the helper */
    SLOT_UDP     /* a UDP socket, connected to the helper's DNS service instead of `peer` */
};

enum slot_state { /* of a stream, but for the last */
                  SLOT_CONNECTING,
                  SLOT_CONNECTED, /* seen writable, or with data */
                  SLOT_OVER,      /* the helper's end is closed, and the program has been told why */
                  SLOT_FRESH      /* of SLOT_OTHER: a TCP socket that was not connected when it was noted */
};

struct slot {
    uint64_t cookie;
    uint8_t kind;      /* enum slot_kind */
    uint8_t state;     /* enum slot_state */
    uint8_t is_told;   /* connect(2) has returned 0: from now on it is EISCONN */
    uint8_t is_narrow; /* a stream whose send buffer is still that of the time of connecting */
    int32_t domain;    /* AF_INET or AF_INET6: of the program's socket, which the kernel's need not be */
    struct run_addr peer, local;
};

/* False if nothing is known of that socket at that descriptor. */
bool slots_get(int fd, uint64_t cookie, struct slot *out);
void slots_put(int fd, const struct slot *slot);

/* The kind that was put last, without a look at whether it is still there. One load. */
enum slot_kind slots_hint(int fd);
/* From now on that is SLOT_OTHER, until something else is put. */
void slots_forget_hint(int fd);
/* The same for a stream's is_narrow. */
bool slots_is_narrow(int fd);

#endif
