/*
 * `socks6 connect HOST PORT`: standard input and output through the proxy, as nc(1) does it without one.
 */
#ifndef CLI_CMD_CONNECT_H
#define CLI_CMD_CONNECT_H

#include "cli/proxy.h"

/* What the command line said. Strings are borrowed from argv. */
struct connect_options {
    int family;      /* -4, -6: of the connection to the proxy; else AF_UNSPEC */
    int verbose;     /* -v */
    int timeout_ms;  /* -w; -1 = none */
    int quit_ms;     /* -q; -1 = never */
    int shutdown_ms; /* -N: 0; --no-shutdown: -1; see struct pump_config */
    int early;       /* --early */
    int eyeballs;    /* --happy-eyeballs: enum socks6_availability; 0 = the option is not sent */
    int no_session;  /* --no-session */
    int no_early;    /* --no-early-data */
    int no_tfo;      /* --no-tfo */
    int remote_tfo;  /* --remote-tfo: bytes, 0 = the proxy's choice; -1 = the option is not sent */
    int help;        /* --help: nothing else was looked at */
    struct socks6_addr destination;
};

/* A port number or a service name of services(5). 0 if it is neither. */
uint16_t connect_parse_port(const char *text);

/* Reads argv. 0, or an exit status after an error was printed. */
int connect_parse(int argc, char **argv, struct proxy_options *proxy, struct connect_options *out);

int cmd_connect(struct proxy_options *proxy, int argc, char **argv);

#endif
