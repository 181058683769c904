#include "proxyd/netset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t read_be(const uint8_t *bytes, size_t len)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

struct ip ip_from_bytes4(const uint8_t bytes[4])
{
    return (struct ip){.family = NET_IPV4, .lo = read_be(bytes, 4)};
}

struct ip ip_from_bytes16(const uint8_t bytes[16])
{
    struct ip ip = {.family = NET_IPV6, .hi = read_be(bytes, 8), .lo = read_be(bytes + 8, 8)};

    if (ip.hi == 0 && ip.lo >> 32 == 0xffff) {
        return (struct ip){.family = NET_IPV4, .lo = ip.lo & UINT32_MAX};
    }
    return ip;
}

bool ip_from_addr(const struct socks6_addr *addr, struct ip *out)
{
    if (addr->type == SOCKS6_ADDR_IPV4) {
        *out = ip_from_bytes4(addr->u.ipv4);
    } else if (addr->type == SOCKS6_ADDR_IPV6) {
        *out = ip_from_bytes16(addr->u.ipv6);
    } else {
        return false;
    }
    return true;
}

/* Below, equal, above: as memcmp(3). Both of one family. */
static int compare(const struct ip *a, const struct ip *b)
{
    if (a->hi != b->hi) {
        return a->hi < b->hi ? -1 : 1;
    }
    if (a->lo != b->lo) {
        return a->lo < b->lo ? -1 : 1;
    }
    return 0;
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
    return a->family == b->family && compare(a, b) == 0;
}

/* The bits behind the first `bits` of a word of `width`. */
static uint64_t host_mask(unsigned bits, unsigned width)
{
    if (bits >= width) {
        return 0;
    }
    return bits == 0 && width == 64 ? UINT64_MAX : (UINT64_C(1) << (width - bits)) - 1;
}

static struct ip host_bits(enum net_family family, unsigned bits)
{
    if (family == NET_IPV4) {
        return (struct ip){.family = family, .lo = host_mask(bits, 32)};
    }
    return (struct ip){.family = family, .hi = host_mask(bits, 64), .lo = host_mask(bits > 64 ? bits - 64 : 0, 64)};
}

struct net net_mask(struct ip ip, unsigned bits)
{
    struct ip host = host_bits(ip.family, bits);

    ip.hi &= ~host.hi;
    ip.lo &= ~host.lo;
    return (struct net){.ip = ip, .bits = bits};
}

bool net_has(const struct net *net, const struct ip *ip)
{
    struct net of_ip;

    if (net->ip.family != ip->family) {
        return false;
    }
    of_ip = net_mask(*ip, net->bits);
    return compare(&of_ip.ip, &net->ip) == 0;
}

int netset_add(struct netset *set, const struct net *net)
{
    enum net_family family = net->ip.family;
    struct ip host = host_bits(family, net->bits);
    struct net_range range = {.first = net->ip, .last = net->ip};

    if (net->bits == 0) {
        set->all[family] = true;
        return 0;
    }
    if (set->ranges[family].count == set->ranges[family].size) {
        size_t size = set->ranges[family].size == 0 ? 4 : set->ranges[family].size * 2;
        struct net_range *items = reallocarray(set->ranges[family].items, size, sizeof *items);

        if (items == NULL) {
            return -ENOMEM;
        }
        set->ranges[family].items = items;
        set->ranges[family].size = size;
    }
    range.last.hi |= host.hi;
    range.last.lo |= host.lo;
    set->ranges[family].items[set->ranges[family].count++] = range;
    return 0;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct net_range *left = a, *right = b;

    return compare(&left->first, &right->first);
}

/* Whether `next` begins inside `range` or right behind it. */
static bool touches(const struct net_range *range, const struct net_range *next)
{
    struct ip behind = range->last;

    if (compare(&next->first, &range->last) <= 0) {
        return true;
    }
    /* No overflow: something lies above `last`. */
    behind.lo++;
    if (behind.lo == 0) {
        behind.hi++;
    }
    return compare(&next->first, &behind) == 0;
}

static bool is_everything(const struct net_range *range)
{
    struct ip top = host_bits(range->first.family, 0);

    return range->first.hi == 0 && range->first.lo == 0 && compare(&range->last, &top) == 0;
}

void netset_finish(struct netset *set)
{
    for (int family = 0; family < NET_FAMILY_COUNT; family++) {
        struct net_range *items = set->ranges[family].items;
        size_t count = set->ranges[family].count, kept = 0;

        if (count == 0) {
            continue;
        }
        qsort(items, count, sizeof *items, compare_ranges);
        for (size_t i = 1; i < count; i++) {
            if (!touches(&items[kept], &items[i])) {
                items[++kept] = items[i];
            } else if (compare(&items[i].last, &items[kept].last) > 0) {
                items[kept].last = items[i].last;
            }
        }
        set->ranges[family].count = kept + 1;
        /* 0.0.0.0/1 and 128.0.0.0/1 name no network either. */
        if (is_everything(&items[0])) {
            set->all[family] = true;
            set->ranges[family].count = 0;
        }
    }
}

void netset_done(struct netset *set)
{
    for (int family = 0; family < NET_FAMILY_COUNT; family++) {
        free(set->ranges[family].items);
    }
    memset(set, 0, sizeof *set);
}

bool netset_is_empty(const struct netset *set)
{
    return !set->all[NET_IPV4] && !set->all[NET_IPV6] && set->ranges[NET_IPV4].count == 0 &&
           set->ranges[NET_IPV6].count == 0;
}

bool netset_names(const struct netset *set, const struct ip *ip)
{
    const struct net_range *items = set->ranges[ip->family].items;
    size_t low = 0, high = set->ranges[ip->family].count;

    /* The last range that begins at or below `ip` is items[low - 1]. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare(&items[middle].first, ip) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 && compare(ip, &items[low - 1].last) <= 0;
}

bool netset_has(const struct netset *set, const struct ip *ip)
{
    return set->all[ip->family] || netset_names(set, ip);
}
