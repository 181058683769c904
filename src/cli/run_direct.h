/*
 * What goes past the proxy: NO_PROXY, and the addresses that the system's resolver gave for names that stand in it. Used by the helper
 * of `socks6 run`.
 *
 * NO_PROXY is read as curl(1) does it: entries between commas or blanks; a name stands for itself and what is below it, with or
 * without a dot before it ("*." is taken as one); an address, in brackets or not, stands for itself; ADDRESS/BITS for a network; "*"
 * alone for everything. Case and a final dot do not count.
 */
#ifndef CLI_RUN_DIRECT_H
#define CLI_RUN_DIRECT_H

#include <stdbool.h>

#include <socks6/types.h>

struct run_direct;

/* Addresses that are remembered; the oldest gives way. */
#define RUN_DIRECT_ADDRESSES_MAX 4096u

/*
 * `text` is the variable's value; NULL = nothing is direct. 0 or -ENOMEM. Entries that make no sense are told to `complain`, if there is
 * one, and match nothing.
 */
SOCKS6_MUST_CHECK int run_direct_new(const char *text, void (*complain)(const char *entry), struct run_direct **out);
/* Takes NULL. */
void run_direct_free(struct run_direct *direct);

/* The environment's: no_proxy, or NO_PROXY. An empty one is as none: NULL. */
const char *run_direct_environment(void);

/* A name of a host, not an address. */
bool run_direct_has_name(const struct run_direct *direct, const char *name);
/* IPv4 or IPv6, without a look at the port. */
bool run_direct_has_addr(const struct run_direct *direct, const struct socks6_addr *addr);

/*
 * Each network of addresses that NO_PROXY holds: `bits` of `addr` count, 0 to 8 * addr->len. "*" is one of each family. What was remembered is
 * not among them.
 */
void run_direct_visit(const struct run_direct *direct,
                      void (*visit)(void *arg, const struct socks6_addr *addr, unsigned bits), void *arg);

/* Remembers an address of a direct name; those of the loopback need not be. */
void run_direct_remember(struct run_direct *direct, const struct socks6_addr *addr);

#endif
