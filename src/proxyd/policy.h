/*
 * Who may reach what: the `rules:` of the configuration and the built-in protection of the proxy's own network.
 *
 * Rules: the first that matches decides; what none matches gets the opposite of the last rule (no rules: allowed). A
 * rule is looked at with what is known: before a name is resolved only with the name (a rule on networks may or may not
 * match then), after it with the name and the address that would really be dialled.
 *
 * Protection: clients that are not on loopback do not reach the proxy host's own addresses, loopback and link-local
 * ones unless an allow rule names that network or keyword in `to:`. A rule without `to:`, or one with a name pattern,
 * "any", 0.0.0.0/0, ::/0 or "private", does not. Unspecified (0.0.0.0/8, ::), multicast and broadcast addresses are
 * never dialled, whatever the rules say.
 *
 * Addresses are judged by what they embed too: IPv4-mapped, IPv4-compatible, NAT64, 6to4, Teredo (policy_addr.h has the
 * list). A deny rule matches by the address or what it embeds; an allow rule must hold the address itself, and no
 * embedded address may be protected that the rule does not name.
 *
 * A NOOP has no destination: rules with `to:` or `ports:` do not match it, and nothing is protected from it.
 */
#ifndef PROXYD_POLICY_H
#define PROXYD_POLICY_H

#include <stdbool.h>

#include <socks6/types.h>

struct policy;
struct local_addrs;
struct dialer_sources; /* io/dialer.h */

struct policy_request {
    const struct socks6_addr *client; /* IP address */
    const char *user;                 /* NULL = anonymous */
    uint8_t command;                  /* enum socks6_command */
    const char *name;                 /* destination name; NULL if an address was asked for */
    /* Destination address and port; before resolution type NAME, with the port. NOOP: may be NULL. */
    const struct socks6_addr *addr;
};

enum policy_verdict {
    POLICY_ALLOW,
    POLICY_DENY,
    POLICY_UNDECIDED /* a name: depends on its addresses, or is allowed unless its addresses are protected */
};

struct policy_result {
    enum policy_verdict verdict;
    unsigned line; /* of the rule that decided; 0 = none did */
    /*
     * For the log, static: "denied by rule", "denied: no rule allows it", or "denied: " and the protected or impossible kind
     * of address: own address, loopback, link-local, unspecified, multicast, broadcast.
     */
    const char *why;
    /*
     * Of ALLOW: addresses that the connection is to come from, those of the rule if it has its own, else those for all.
     * Lives as long as the policy.
     */
    const struct dialer_sources *outgoing;
};

/* For a name before it is resolved: DENY (no need to resolve) or UNDECIDED. */
struct policy_result policy_check_name(const struct policy *policy, const struct policy_request *request);

/* For one address, asked for or resolved: ALLOW or DENY. `local` may be NULL (no interface addresses known). */
struct policy_result policy_check_addr(const struct policy *policy, const struct local_addrs *local,
                                       const struct policy_request *request);

/*
 * The DNS service at request->addr (0.0.0.0 or ::, port 53). Of `to:` matches the word "dns", "any", a network that
 * holds that address, and nothing else: nothing is dialled, so nothing is protected. ALLOW or DENY.
 */
struct policy_result policy_check_dns(const struct policy *policy, const struct policy_request *request);

/*
 * Whether the first rule that names `request->name` (by name or pattern in `to:`, for this client, user and command,
 * whatever its ports if it allows; without `ports:` if it denies) denies it: then the DNS service does not tell its
 * records either. Rules that do not name it, and what no rule matches, do not concern it. `request->addr` is not looked
 * at. ALLOW or DENY.
 */
struct policy_result policy_check_dns_name(const struct policy *policy, const struct policy_request *request);
/* Whether policy_check_dns_name() can ever deny. */
bool policy_denies_names(const struct policy *policy);

/*
 * Whether a client anywhere could reach anything through these rules, that is, some allow rule (or what no rule
 * matches) is bound neither to sources or users nor to destinations (`to:`). A listener off loopback does not start
 * then, unless it is marked open.
 */
bool policy_is_open(const struct policy *policy);

#endif
