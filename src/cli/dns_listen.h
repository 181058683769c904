/*
 * `socks6 dns --listen`: a DNS server over UDP and TCP that asks the proxy's DNS service. Called by cmd_dns.c.
 */
#ifndef CLI_DNS_LISTEN_H
#define CLI_DNS_LISTEN_H

#include "cli/dns_args.h"

/* Runs until SIGTERM or SIGINT. Returns an exit status, after an error was printed. */
int dns_listen_run(const struct dns_args *args, const struct socks6_proxy *proxy);

#endif
