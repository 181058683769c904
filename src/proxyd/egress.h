/*
 * When no address or port of ours is left for an outgoing connection (EADDRNOTAVAIL): counts it, and tells the
 * administrator what helps, once a minute at most.
 *
 * Called by conn_command.c with what the dialer says.
 */
#ifndef PROXYD_EGRESS_H
#define PROXYD_EGRESS_H

#include <socks6/types.h>

#include "proxyd/stats.h"

#define EGRESS_NOTICE_MS 60000u

/*
 * One for all workers; zeroed at the beginning. Any thread.
 */
struct egress_notices {
    _Atomic uint64_t due_ms; /* CLOCK_MONOTONIC; not before this time is the next one */
    _Atomic uint64_t untold; /* times since the last one */
};

/* `count` attempts found nothing; the last one from `source` (type 0: the kernel was to choose). */
void egress_unavailable(struct egress_notices *notices, struct stats *stats, unsigned count,
                        const struct socks6_addr *source, uint64_t now_ms);

#endif
