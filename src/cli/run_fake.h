/*
 * Addresses that stand for names (--fake-names): for proxies without DNS service, which look names up when they connect.
 *
 * IPv4: 198.18.0.0/15, kept free for measurements between networks (RFC 2544, RFC 6890). IPv6: a unique local network
 * (RFC 4193) picked at random. A name has one of each, and keeps them; when all are taken, the one that was not used for longest goes
 * to the next name.
 */
#ifndef CLI_RUN_FAKE_H
#define CLI_RUN_FAKE_H

#include "dns/answer.h"
#include "io/siphash.h"
#include "run/protocol.h"

struct run_fake;

#define RUN_FAKE_NAMES_MAX 65536u
/* What others may keep our answers for, in seconds. */
#define RUN_FAKE_TTL_S 60u

/* `max`: names, at most RUN_FAKE_NAMES_MAX. NULL = no memory. */
struct run_fake *run_fake_new(const struct siphash_key *key, size_t max);
/* Takes NULL. */
void run_fake_free(struct run_fake *fake);

/* The addresses of a name, made now if it has none. -ENOMEM. */
SOCKS6_MUST_CHECK int run_fake_addresses(struct run_fake *fake, const struct dns_name *name, struct socks6_addr *ipv4,
                                         struct socks6_addr *ipv6);
/* Whether the address (its port does not matter) is of our ranges. */
bool run_fake_has(const struct run_fake *fake, const struct socks6_addr *addr);
/* The name that it stands for; false if there is none. */
bool run_fake_name(struct run_fake *fake, const struct socks6_addr *addr, struct dns_name *out);

/* The answer to a question: A, AAAA and PTR; NOTIMP for others. NULL = no memory. */
struct dns_answer *run_fake_answer(struct run_fake *fake, const struct dns_request *request, uint64_t now_ms);

/* The address in a name below in-addr.arpa or ip6.arpa; false if it has none. */
bool run_reverse_addr(const struct dns_name *name, struct socks6_addr *out);
/* And such a name. */
void run_reverse_name(const struct socks6_addr *addr, struct dns_name *out);

#endif
