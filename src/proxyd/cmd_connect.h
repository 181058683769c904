/*
 * What CONNECT does: rules on the name, look-up, rules on every address, dial.
 *
 * The addresses of a name are raced (Happy Eyeballs) if the client asks for it by the Stack option, or cannot ask
 * because it speaks an older protocol and the configuration wants it; otherwise they are tried one after the other.
 *
 * If the client asks for TCP Fast Open by the Stack option, what it has sent for the server travels in the SYN, where
 * that cannot reach a server that the connection is not made to (io/happy_eyeballs.h).
 *
 * Helper of conn_command.c, which starts it once and is told the outcome once.
 */
#ifndef PROXYD_CMD_CONNECT_H
#define PROXYD_CMD_CONNECT_H

#include "dns/lookup.h"
#include "io/dialer.h"
#include "proxyd/config.h"
#include "proxyd/local_addrs.h"
#include "proxyd/winners.h"

/* What came of it. */
struct connect_outcome {
    enum socks6_reply_code code;
    int fd;                                             /* connected; -1 unless `code` is success. The receiver's. */
    bool fd_is_parked;                                  /* see loop_park() */
    struct socks6_addr bound;                           /* our end */
    struct socks6_addr dialled;                         /* type 0: nothing was dialled */
    const char *why;                                    /* for the log: static */
    unsigned rule_line;                                 /* of the rule that denied it; 0 = none */
    struct socks6_stack_option stack[SOCKS6_STACK_MAX]; /* answers to the request's, also of a failure */
    size_t stack_count;
    size_t payload_taken;       /* of what the job's `payload` gave: it is on its way to the server already */
    unsigned unavailable_count; /* times that no local address or port was to be had (dialer.h) */
    struct socks6_addr unavailable;
};

struct connect_job {
    struct loop *loop;
    struct dns_client *dns;
    struct winners *winners;
    const struct local_addrs *local;
    const struct config *config;
    const struct socks6_addr *client;
    const char *user;                        /* NULL = anonymous */
    unsigned *source_turn;                   /* the worker's: which of several outgoing addresses is next */
    bool is_socks6;                          /* options can be answered */
    const struct socks6_stack_option *stack; /* of the request; valid until the outcome */
    size_t stack_count;

    /* What the client has sent for the server so far, valid until anything more is read. */
    struct socks6_slice (*payload)(struct connect_job *job);
    void (*done)(struct connect_job *job, const struct connect_outcome *outcome);

    /* Its own from here on. */
    struct socks6_addr addr;
    struct dialer *dialer;
    struct dns_lookup *lookup; /* NULL once both families have answered */
    unsigned answer_count;
    bool is_race;
    bool is_denied;         /* the rules left out an address */
    const char *denied_why; /* and why, for the first */
    unsigned denied_line;
    bool has_failed_answer; /* a family could not be asked */
};

/*
 * Starts towards `addr`. The job's fields above its own are the caller's and set before.
 * true: `outcome` is known already and `done` will not be called. false: `done` is called later, once.
 */
bool cmd_connect_start(struct connect_job *job, const struct socks6_addr *addr, struct connect_outcome *outcome);
/* `done` will not be called. No effect on a job that is done or was never started (zeroed). */
void cmd_connect_cancel(struct connect_job *job);

#endif
