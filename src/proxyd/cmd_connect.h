/*
 * What CONNECT does: rules on the name, look-up, rules on every address, dial.
 *
 * Helper of conn.c, which starts it once and is told the outcome once.
 */
#ifndef PROXYD_CMD_CONNECT_H
#define PROXYD_CMD_CONNECT_H

#include "io/dialer.h"
#include "io/resolver.h"
#include "proxyd/config.h"
#include "proxyd/local_addrs.h"

/* What came of it. */
struct connect_outcome {
    enum socks6_reply_code code;
    int fd;                     /* connected; -1 unless `code` is success. The receiver's. */
    struct socks6_addr bound;   /* our end */
    struct socks6_addr dialled; /* type 0: nothing was dialled */
    const char *why;            /* for the log: static */
    unsigned rule_line;         /* of the rule that denied it; 0 = none */
    unsigned unavailable_count; /* times that no local address or port was to be had (dialer.h) */
    struct socks6_addr unavailable;
};

struct connect_job {
    struct loop *loop;
    struct resolver *resolver;
    const struct local_addrs *local;
    const struct config *config;
    const struct socks6_addr *client;
    const struct dialer_sources *sources; /* outgoing addresses; NULL = the kernel chooses */
    unsigned *source_turn;                /* the worker's: whose turn it is */

    void (*done)(struct connect_job *job, const struct connect_outcome *outcome);

    /* Its own from here on. */
    struct socks6_addr addr;
    uint64_t deadline_ms;
    struct resolver_query *query;
    struct dialer *dialer;
    struct loop_timer timer;
};

/*
 * Starts towards `addr`. The fields above `addr` are the caller's and set before; `is_socks6` tells whether the DNS service may be meant.
 * true: `outcome` is known already and `done` will not be called. false: `done` is called later, once.
 */
bool cmd_connect_start(struct connect_job *job, const struct socks6_addr *addr, bool is_socks6,
                       struct connect_outcome *outcome);
/* `done` will not be called. No effect on a job that is done or was never started (zeroed). */
void cmd_connect_cancel(struct connect_job *job);

#endif
