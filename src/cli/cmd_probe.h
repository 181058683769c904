/*
 * `socks6 probe [PROXY]`: what a proxy is and can do.
 */
#ifndef CLI_CMD_PROBE_H
#define CLI_CMD_PROBE_H

#include "cli/probe_plan.h"
#include "cli/proxy.h"

/* What the command line said. Strings are borrowed from argv. */
struct probe_options {
    int family; /* -4, -6 */
    int verbose;
    int json;
    int help;
    uint64_t timeout_ms;
    int has_target;
    struct socks6_addr target;
    const char *dns_name;
    const char *proxy; /* PROXY; NULL: as every subcommand */
};

/* Reads argv. 0, or an exit status after an error was printed. */
int probe_parse(int argc, char **argv, struct proxy_options *proxy, struct probe_options *out);

int cmd_probe(struct proxy_options *proxy, int argc, char **argv);

#endif
