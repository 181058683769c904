/*
 * IP addresses as numbers, networks, and sets of networks that are asked often: the rules' `from:` and `to:`.
 *
 * A set is filled with netset_add(), closed with netset_finish() (which sorts it and joins what touches), and then only
 * read: a look-up is one binary search and allocates nothing.
 */
#ifndef PROXYD_NETSET_H
#define PROXYD_NETSET_H

#include <stdbool.h>

#include <socks6/types.h>

enum net_family { NET_IPV4, NET_IPV6, NET_FAMILY_COUNT };

/*
 * An address. IPv4: `hi` is 0 and `lo` holds 32 bits. IPv6: its upper and lower half. Never IPv4-mapped: see
 * ip_from_addr().
 */
struct ip {
    enum net_family family;
    uint64_t hi, lo;
};

/* A network: the bits behind the first `bits` are zero. */
struct net {
    struct ip ip;
    unsigned bits; /* 0 .. 32 or 128 */
};

/* False for a name. An IPv4-mapped address comes out as IPv4. */
bool ip_from_addr(const struct socks6_addr *addr, struct ip *out);
/* IPv4 from four bytes in network order, IPv6 from sixteen. */
struct ip ip_from_bytes4(const uint8_t bytes[4]);
struct ip ip_from_bytes16(const uint8_t bytes[16]);
bool ip_equal(const struct ip *a, const struct ip *b);

/* `net` with the bits behind the prefix cleared. */
struct net net_mask(struct ip ip, unsigned bits);
bool net_has(const struct net *net, const struct ip *ip);

struct net_range {
    struct ip first, last; /* same family */
};

struct netset {
    bool all[NET_FAMILY_COUNT]; /* 0.0.0.0/0, ::/0 */
    struct {
        struct net_range *items; /* after netset_finish(): ascending, with gaps between them */
        size_t count, size;
    } ranges[NET_FAMILY_COUNT];
};

/* A zeroed set is an empty one. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int netset_add(struct netset *set, const struct net *net);
void netset_finish(struct netset *set);
void netset_done(struct netset *set);

bool netset_is_empty(const struct netset *set);
/* Whether some network of the set contains `ip`. */
bool netset_has(const struct netset *set, const struct ip *ip);
/* The same without 0.0.0.0/0 and ::/0: whether somebody really thought of this address. */
bool netset_names(const struct netset *set, const struct ip *ip);

#endif
