/*
 * `socks6 run PROGRAM ARGUMENT...`: a program that knows no SOCKS, with its connections and names through the proxy.
 */
#ifndef CLI_CMD_RUN_H
#define CLI_CMD_RUN_H

#include "cli/proxy.h"

/* What the command line said. Strings are borrowed from argv. */
struct run_options {
    int family;       /* -4, -6: of the connection to the proxy; else AF_UNSPEC */
    unsigned verbose; /* -v: how often */
    int timeout_ms;   /* -w: of each connection */
    int early;        /* --early */
    int fake_names;   /* --fake-names */
    int allow_direct; /* --allow-direct */
    int no_session;   /* --no-session */
    int no_early;     /* --no-early-data */
    int no_tfo;       /* --no-tfo */
    int help;         /* --help: nothing else was looked at */
    char **program;   /* and its arguments; ends in NULL */
};

/* Reads argv. 0, or an exit status after an error was printed. */
int run_parse(int argc, char **argv, struct proxy_options *proxy, struct run_options *out);

int cmd_run(struct proxy_options *proxy, int argc, char **argv);

#endif
