/*
 * What all answers together mean: the sentence on top, and the exit status. Pure.
 */
#ifndef CLI_PROBE_VERDICT_H
#define CLI_PROBE_VERDICT_H

#include <socks6/dial.h>

#include "cli/probe_report.h"

/* How far we came with one version of SOCKS. */
enum probe_progress {
    PROBE_NOT_SPOKEN = 0,
    PROBE_SPOKEN,       /* it answers in this version; no CONNECT was answered */
    PROBE_LOGIN_WANTED, /* we have none to offer */
    PROBE_LOGIN_FAILED,
    PROBE_REPLIED /* a CONNECT was answered: `code` */
};

struct probe_progress_of {
    enum probe_progress progress;
    unsigned code;     /* 0 = connected */
    const char *reply; /* its name; static */
};

struct probe_facts {
    bool is_reached;
    const char *unreached;             /* why not; static, or of the errno */
    bool begins_as_socks6;             /* but breaks it */
    char first_bytes[PROBE_QUOTE_MAX]; /* of whatever is no SOCKS; may be empty */
    struct probe_progress_of socks6;
    struct probe_progress_of socks5;
    bool speaks_socks4;
};

/* Fills kind (unless it is set already), summary and exit_status. */
void probe_verdict(const struct probe_facts *facts, enum socks6_scheme scheme, bool any_version,
                   struct probe_report *report);

#endif
