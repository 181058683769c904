/*
 * hosts(5): text to a table of names and their addresses. Pure.
 */
#ifndef DNS_HOSTS_H
#define DNS_HOSTS_H

#include "dns/message.h"
#include "io/siphash.h"

struct hosts;

/* The most lines that are read; what follows is left out. */
#define HOSTS_NAMES_MAX 1000000u
#define HOSTS_ADDRESSES_MAX 64u /* per name */

/*
 * Lines that make no sense are passed over. A name in several lines has the addresses of all of them, in their order.
 * Names are compared without regard to case and to a final dot. NULL = no memory.
 */
struct hosts *hosts_parse(const char *text, size_t len, const struct siphash_key *key);
/* Takes NULL. */
void hosts_free(struct hosts *hosts);

/*
 * Addresses of `name`, of `type` (SOCKS6_ADDR_IPV4 or _IPV6), with port 0. Returns how many were written.
 */
size_t hosts_find(const struct hosts *hosts, const struct dns_name *name, uint8_t type,
                  struct socks6_addr out[HOSTS_ADDRESSES_MAX]);
/* Whether the name is there at all, with whichever address. */
bool hosts_have(const struct hosts *hosts, const struct dns_name *name);

/*
 * The canonical name of `name`: the first one of the first line that has it, with an address of `type`. False if there is none.
 * All names are in lower case.
 */
bool hosts_canonical(const struct hosts *hosts, const struct dns_name *name, uint8_t type, struct dns_name *out);

/* The others of that line, in their order. `*at` is 0 at first and moved on; false: that was all. */
bool hosts_next_alias(const struct hosts *hosts, const struct dns_name *name, uint8_t type, size_t *at,
                      struct dns_name *out);

/*
 * Names of an address (its port does not matter), in the order of the file. `*at` is 0 at first and moved on; false: that was
 * all.
 */
bool hosts_next_name(const struct hosts *hosts, const struct socks6_addr *addr, size_t *at, struct dns_name *out);

#endif
