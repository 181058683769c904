/*
 * What `socks6 probe` asks, in which order. The only file that knows all the others.
 */
#ifndef CLI_PROBE_PLAN_H
#define CLI_PROBE_PLAN_H

#include <socks6/dial.h>

#include "cli/probe_report.h"

struct probe_settings {
    struct socks6_proxy proxy;
    bool any_version; /* the proxy was named without a scheme: any SOCKS that works will do */
    bool has_target;
    struct socks6_addr target;
    const char *dns_name;            /* for the DNS service */
    uint64_t timeout_ms;             /* for all questions together */
    int family;                      /* of the connections to the proxy; AF_UNSPEC */
    void (*trace)(const char *what); /* one call per group of questions; may be NULL */
};

/* Asks, and fills the report. 0, or -ENOMEM. */
SOCKS6_MUST_CHECK int probe_plan_run(const struct probe_settings *settings, struct probe_report *report);

#endif
