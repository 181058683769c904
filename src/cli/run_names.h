/*
 * Names for the programs of `socks6 run`: answers RUN_RESOLVE, RUN_REVERSE, RUN_QUERY and RUN_UDP_DNS of "run/protocol.h". Called
 * by the helper, on its loop.
 *
 *     run_resolve.c, run_reverse.c     what getaddrinfo(3) and getnameinfo(3) want to know: hosts(5), search domains, aliases
 *     run_query.c, run_udp_dns.c       whole DNS messages
 *            |
 *     run_dns.c                        cache, one question for all who ask the same; or run_fake.c with --fake-names
 *            |
 *     dns_link.c                       the proxy's DNS service
 */
#ifndef CLI_RUN_NAMES_H
#define CLI_RUN_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#include "cli/dns_link.h"
#include "io/loop.h"
#include "run/protocol.h"

struct run_names;
struct run_names_job;

struct run_names_ask {
    /* The request: RUN_RESOLVE, RUN_REVERSE, RUN_QUERY or RUN_UDP_DNS, and what stands behind its struct run_request. */
    enum run_kind kind;
    const void *body; /* any bytes, of any alignment; borrowed for the call of run_names_ask() */
    size_t len;
    /*
     * Called once, perhaps from within run_names_ask(), with what struct run_reply is to say and what comes behind it. `body` is
     * borrowed until it returns or asks something itself. It may free the ask.
     */
    void (*done)(struct run_names_ask *ask, int status, const void *body, size_t len);

    struct run_names_job *job; /* private; NULL = not open */
};

struct run_names_config {
    struct loop *loop;
    struct dns_link *link; /* borrowed; NULL with `fake` */
    bool fake;             /* --fake-names */
    /* Whether NO_PROXY has this name (no final dot), or this address. NULL = it has none. */
    bool (*is_direct_name)(void *user, const char *name);
    bool (*is_direct_addr)(void *user, const struct socks6_addr *addr);
    /* For -v: what was found for whom; `ask` is NULL for queries over UDP. NULL = nobody wants to know. */
    void (*trace)(void *user, struct run_names_ask *ask, const char *text);
    void *user;
    const char *hosts, *resolv_conf; /* paths; NULL = those in /etc. They are followed when they change */
};

/* `config` is copied, but for what it points to. 0 or -errno. */
SOCKS6_MUST_CHECK int run_names_new(const struct run_names_config *config, struct run_names **out);
/* What is open ends as if the proxy were gone. Takes NULL. */
void run_names_free(struct run_names *names);

void run_names_ask(struct run_names *names, struct run_names_ask *ask);
/* done() will not be called. Does nothing if it was. */
void run_names_cancel(struct run_names *names, struct run_names_ask *ask);

/*
 * --fake-names: whether an address is of the ranges that fake addresses are of. No such address is ever to be connected to as it
 * is.
 */
bool run_names_is_fake(const struct run_names *names, const struct run_addr *addr);
/* The name behind it, with its port; false if it stands for none, or not any more. */
bool run_names_fake(struct run_names *names, const struct run_addr *addr, struct socks6_addr *out);

/*
 * What became of a connection through the proxy to an address of that family (AF_INET6; others do not matter). As long as the proxy has
 * no way to IPv6 (ENETUNREACH and the like), those addresses come last in what RUN_RESOLVE says.
 */
void run_names_connected(struct run_names *names, uint16_t family, bool has_route);

/*
 * The sentence for struct dns_link_config's changed(): what it means for the programs that there is no service (`why`), or one again
 * (NULL). `size` of 1 or more.
 */
void run_names_service_text(const char *why, bool is_absent, char *text, size_t size);

/*
 * How long a question may take: resolv.conf(5)'s timeout times its attempts, with RES_OPTIONS. For struct dns_link_config.
 * `resolv_conf` as in struct run_names_config.
 */
uint64_t run_names_timeout_ms(const char *resolv_conf);

#endif
