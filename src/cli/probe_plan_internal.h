/*
 * Between the files of the plan: what is known while the questions are asked.
 */
#ifndef CLI_PROBE_PLAN_INTERNAL_H
#define CLI_PROBE_PLAN_INTERNAL_H

#include "cli/probe_ask6.h"
#include "cli/probe_old.h"
#include "cli/probe_plan.h"
#include "cli/probe_revision.h"
#include "cli/probe_verdict.h"

struct probe {
    const struct probe_settings *settings;
    struct probe_report *report;
    struct probe_peer peer;
    uint64_t limit_us; /* of one question */
    uint32_t rtt_us;   /* of the connection; 0 = unknown */
    uint64_t deadline_us;
    struct socks6_addr own;     /* the proxy's address as we reach it */
    struct socks6_addr target;  /* what CONNECT asks for: the target given, or `own` */
    struct socks6_addr by_name; /* the same where a name is needed: else localhost */
    struct socks6_addr by_ipv4; /* where an IPv4 address is needed */
    struct probe_facts facts;
    struct probe_observations seen;
    bool needs_login; /* SOCKS 6 */
    bool session_untrusted;
    uint8_t session_id[PROBE_SESSION_ID_MAX];
    size_t session_id_len;
    struct socks6_window window;
};

/* Says what comes next, and whether there is time for it. */
bool probe_next(struct probe *probe, const char *what);

/* A question with the login of the proxy's URL, if there is one. */
void probe_ask(struct probe *probe, struct probe_ask6 *ask);
/* Asks one. */
void probe_run_one(struct probe *probe, struct probe_ask6 *ask);

/* The row of a question that did not get as far as an Operation Reply. */
void probe_set_failed(struct probe *probe, enum probe_row_id row, const struct probe_ask6 *ask);

/* A reply time: "1.2 ms, 3.4 round trips of the connection" as the row's text, and as numbers. */
void probe_set_reply_time(struct probe *probe, enum probe_row_id row, uint64_t us, uint32_t rtt_us);

/* The row of a CONNECT that got this reply. `code`: of SOCKS 6 (5 has the same meanings up to 8). */
void probe_set_connect(struct probe *probe, enum probe_row_id row, const struct socks6_addr *target, bool is_target,
                       unsigned code, const char *reply);

/* SOCKS 6, after a NOOP was answered: `noop` is that first question. probe_plan6.c. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int probe_plan6(struct probe *probe, const struct probe_ask6 *noop);
/* SOCKS 5, 4 and 4a. probe_plan5.c */
void probe_plan5(struct probe *probe);
/* What answers, if no version of SOCKS does. probe_plan5.c */
void probe_plan_stranger(struct probe *probe);

/* probe_session.c */
void probe_session_start(struct probe *probe);
void probe_session_use(struct probe *probe);
void probe_session_end(struct probe *probe);

/* A first request, and one with all that the first has brought. probe_warm.c */
void probe_cold_and_warm(struct probe *probe);

/* TCP Fast Open between us and the proxy. probe_fast_open.c */
void probe_fast_open(struct probe *probe);

#endif
