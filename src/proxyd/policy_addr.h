/*
 * What an address is: its class (loopback, link-local, ...) and the IPv4 addresses that an IPv6 address embeds, since a
 * host or a gateway may send what is addressed to the one to the other.
 */
#ifndef PROXYD_POLICY_ADDR_H
#define PROXYD_POLICY_ADDR_H

#include <stdbool.h>

#include "proxyd/netset.h"

/* The most IPv4 addresses that one IPv6 address is taken to embed (RFC 8215 leaves the length of the prefix open). */
#define POLICY_EMBEDDED_MAX 4

/*
 * An address and what it embeds: IPv4-compatible ::/96 and IPv4-translated ::ffff:0:0:0/96, NAT64 64:ff9b::/96 (RFC
 * 6052) and 64:ff9b:1::/48 (RFC 8215), 6to4 2002::/16 (RFC 3056), Teredo 2001::/32 (RFC 4380: its server and its
 * client). An IPv4-mapped address is no case here: it is IPv4 already.
 */
struct policy_addr {
    struct ip all[1 + POLICY_EMBEDDED_MAX]; /* the address itself comes first */
    size_t count;
};

struct policy_addr policy_addr_from_ip(const struct ip *ip);

/*
 * What is never dialled, whatever the rules say: "denied: unspecified" (0.0.0.0/8, ::), "denied: multicast", "denied: broadcast"; NULL = none
 * of them.
 */
const char *ip_never_dialled(const struct ip *ip);

bool ip_is_loopback(const struct ip *ip); /* 127.0.0.0/8, ::1 */
/*
 * 169.254.0.0/16, fe80::/10, and the addresses outside of them at which clouds answer with the machine's own secrets:
 * 168.63.129.16 (Azure), 100.100.100.200 (Alibaba), fd00:ec2::254 and fd00:ec2::23 (EC2), fd20:ce::254 (Google),
 * fd00:42::42 (Scaleway).
 */
bool ip_is_link_local(const struct ip *ip);
/*
 * RFC 1918, 100.64.0.0/10 (RFC 6598), fc00::/7, fec0::/10 (RFC 3879), loopback, link-local and unspecified addresses.
 */
bool ip_is_private(const struct ip *ip);

#endif
