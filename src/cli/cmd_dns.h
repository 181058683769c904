/*
 * `socks6 dns`: questions to the DNS service of a proxy, as dig(1) asks them of a server; with --listen, a DNS server for
 * this machine that asks there.
 */
#ifndef CLI_CMD_DNS_H
#define CLI_CMD_DNS_H

#include "cli/proxy.h"

int cmd_dns(struct proxy_options *proxy, int argc, char **argv);

#endif
