#include "proxyd/policy_addr.h"

#define V4(a, b, c, d) ((uint64_t)(a) << 24 | (uint64_t)(b) << 16 | (uint64_t)(c) << 8 | (uint64_t)(d))
#define NET4(a, b, c, d, len)                                                                                          \
    {                                                                                                                  \
        {NET_IPV4, 0, V4(a, b, c, d)}, (len)                                                                           \
    }
#define NET6(hi, lo, len)                                                                                              \
    {                                                                                                                  \
        {NET_IPV6, UINT64_C(hi), UINT64_C(lo)}, (len)                                                                  \
    }

static bool is_in(const struct ip *ip, const struct net *nets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (net_has(&nets[i], ip)) {
            return true;
        }
    }
    return false;
}

#define IS_IN(ip, nets) is_in((ip), (nets), sizeof(nets) / sizeof *(nets))

static const struct net loopback[] = {NET4(127, 0, 0, 0, 8), NET6(0, 1, 128)};
static const struct net link_local[] = {
    NET4(169, 254, 0, 0, 16),
    NET4(168, 63, 129, 16, 32),
    NET4(100, 100, 100, 200, 32),
    NET6(0xfe80000000000000, 0, 10),
    NET6(0xfd000ec200000000, 0x254, 128),
    NET6(0xfd000ec200000000, 0x23, 128),
    NET6(0xfd00004200000000, 0x42, 128),
    NET6(0xfd2000ce00000000, 0x254, 128),
};
static const struct net site[] = {
    NET4(10, 0, 0, 0, 8),    NET4(172, 16, 0, 0, 12),        NET4(192, 168, 0, 0, 16),
    NET4(100, 64, 0, 0, 10), NET6(0xfc00000000000000, 0, 7), NET6(0xfec0000000000000, 0, 10),
};
static const struct net unspecified[] = {NET4(0, 0, 0, 0, 8), NET6(0, 0, 128)};
static const struct net multicast[] = {NET4(224, 0, 0, 0, 4), NET6(0xff00000000000000, 0, 8)};
static const struct net broadcast[] = {NET4(255, 255, 255, 255, 32)};

bool ip_is_loopback(const struct ip *ip)
{
    return IS_IN(ip, loopback);
}

bool ip_is_link_local(const struct ip *ip)
{
    return IS_IN(ip, link_local);
}

bool ip_is_private(const struct ip *ip)
{
    return IS_IN(ip, site) || ip_is_loopback(ip) || ip_is_link_local(ip) || IS_IN(ip, unspecified);
}

const char *ip_never_dialled(const struct ip *ip)
{
    if (IS_IN(ip, unspecified)) {
        return "denied: unspecified";
    }
    if (IS_IN(ip, multicast)) {
        return "denied: multicast";
    }
    if (IS_IN(ip, broadcast)) {
        return "denied: broadcast";
    }
    return NULL;
}

static void add(struct policy_addr *addr, uint64_t v4)
{
    addr->all[addr->count++] = (struct ip){.family = NET_IPV4, .lo = v4 & UINT32_MAX};
}

/*
 * 64:ff9b:1::/48: the operator chooses a prefix of 48, 56, 64 or 96 bits in it (RFC 6052 section 2.2: bits 64 to 71 are
 * zero, and so is all behind the IPv4 address). Each way of reading the address that fits this and is not 0.0.0.0/8
 * counts.
 */
static void add_local_nat64(struct policy_addr *addr, const struct ip *ip)
{
    const uint64_t candidates[] = {
        (ip->hi & 0xffff) << 16 | (ip->lo >> 40 & 0xffff),
        (ip->hi & 0xff) << 24 | (ip->lo >> 32 & 0xffffff),
        ip->lo >> 24 & UINT32_MAX,
        ip->lo & UINT32_MAX,
    };
    const unsigned zero_bits[] = {40, 32, 24, 0}; /* at the end of each */

    if (ip->lo >> 56 != 0) {
        return;
    }
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
        if ((ip->lo & ((UINT64_C(1) << zero_bits[i]) - 1)) == 0 && candidates[i] >> 24 != 0) {
            add(addr, candidates[i]);
        }
    }
}

static bool ends_in_ipv4(const struct ip *ip)
{
    static const struct net nat64 = NET6(0x0064ff9b00000000, 0, 96), translated = NET6(0, 0xffff000000000000, 96),
                            compatible = NET6(0, 0, 96);

    if (net_has(&compatible, ip)) {
        return ip->lo > 1; /* :: and ::1 are none */
    }
    return net_has(&nat64, ip) || net_has(&translated, ip);
}

struct policy_addr policy_addr_from_ip(const struct ip *ip)
{
    static const struct net local_nat64 = NET6(0x0064ff9b00010000, 0, 48),
                            six_to_four = NET6(0x2002000000000000, 0, 16), teredo = NET6(0x2001000000000000, 0, 32);
    struct policy_addr addr = {.all = {*ip}, .count = 1};

    if (ip->family == NET_IPV4) {
        return addr;
    }
    if (ends_in_ipv4(ip)) {
        add(&addr, ip->lo);
    } else if (net_has(&local_nat64, ip)) {
        add_local_nat64(&addr, ip);
    } else if (net_has(&six_to_four, ip)) {
        add(&addr, ip->hi >> 16);
    } else if (net_has(&teredo, ip)) {
        add(&addr, ip->hi);  /* the server, through which a first packet goes */
        add(&addr, ~ip->lo); /* and the client, whose address is written inverted */
    }
    return addr;
}
