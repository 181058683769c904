/*
 * RFC 6724 section 6. IPv4 addresses are looked up in the policy table as ::ffff:0:0/96.
 *
 * Three policy tables, which differ in precedences alone. The RFC's own puts IPv4 before unique local addresses
 * (fc00::/7), also where both ends have one and so the site is meant to be reached by them; its update in progress
 * ("Prioritizing known-local IPv6 ULAs", 6man) turns this round, and so does the table for DESTINATION_IPV6. In all of them
 * transition addresses (6to4, Teredo) come after IPv4, and rule 5 puts a destination last whose source is of another
 * kind, such as an Internet address seen from a host with a unique local one.
 */
#include "io/destination_order.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/sock.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

struct policy {
    uint8_t prefix[16];
    uint8_t bits;
    uint8_t label;
    uint8_t precedence[3]; /* [enum destination_preference] */
};

/* Longest prefix first: the first match counts. */
static const struct policy policies[] = {
    {{[15] = 1}, 128, 0, {50, 50, 50}},                 /* ::1 */
    {{[10] = 0xff, [11] = 0xff}, 96, 4, {20, 100, 35}}, /* IPv4 */
    {{0}, 96, 3, {1, 1, 1}},                            /* IPv4-compatible */
    {{0x20, 0x01, 0x00, 0x00}, 32, 5, {5, 5, 5}},       /* Teredo */
    {{0x20, 0x02}, 16, 2, {5, 30, 30}},                 /* 6to4 */
    {{0x3f, 0xfe}, 16, 12, {1, 1, 1}},                  /* 6bone */
    {{0xfe, 0xc0}, 10, 11, {1, 1, 1}},                  /* site-local */
    {{0xfc}, 7, 13, {30, 3, 3}},                        /* unique local */
    {{0}, 0, 1, {40, 40, 40}},
};

/* Number of leading bits that are equal, up to `max`. */
static unsigned common_bits(const uint8_t *a, const uint8_t *b, unsigned max)
{
    unsigned count = 0;
    while (count < max && ((a[count / 8] ^ b[count / 8]) & (0x80u >> count % 8)) == 0) {
        count++;
    }
    return count;
}

static const struct policy *policy_of(uint8_t family, const uint8_t *bytes)
{
    uint8_t addr[16] = {[10] = 0xff, [11] = 0xff};
    size_t i = 0;

    if (family == SOCKS6_ADDR_IPV4) {
        memcpy(addr + 12, bytes, 4);
    } else {
        memcpy(addr, bytes, 16);
    }
    while (i + 1 < LENGTH(policies) && common_bits(addr, policies[i].prefix, policies[i].bits) < policies[i].bits) {
        i++;
    }
    return &policies[i];
}

/* Section 3.1 and 3.2; only what unicast destinations can have. */
enum scope { LINK_LOCAL = 2, SITE_LOCAL = 5, GLOBAL = 14 };

static enum scope scope_of(uint8_t family, const uint8_t *bytes)
{
    static const uint8_t loopback[16] = {[15] = 1};

    if (family == SOCKS6_ADDR_IPV4) {
        return bytes[0] == 127 || (bytes[0] == 169 && bytes[1] == 254) ? LINK_LOCAL : GLOBAL;
    }
    if (memcmp(bytes, loopback, sizeof loopback) == 0) {
        return LINK_LOCAL;
    }
    if (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80) {
        return LINK_LOCAL;
    }
    return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0xc0 ? SITE_LOCAL : GLOBAL;
}

/* "Prefer" rules: -1 if `a` alone has it, 1 if `b` alone. */
static int prefer(bool a, bool b)
{
    return (int)b - (int)a;
}

static bool scopes_match(const struct destination *d)
{
    return scope_of(d->family, d->addr) == scope_of(d->family, d->source);
}

static bool labels_match(const struct destination *d)
{
    return policy_of(d->family, d->addr)->label == policy_of(d->family, d->source)->label;
}

/* Rules 2 and 5 where both have a source: `has_it` is what they prefer. */
static int prefer_source(const struct destination *a, const struct destination *b,
                         bool (*has_it)(const struct destination *d))
{
    bool comparable = a->is_probed && b->is_probed && a->has_source && b->has_source;
    return comparable ? prefer(has_it(a), has_it(b)) : 0;
}

int destination_compare(const struct destination *a, const struct destination *b,
                        enum destination_preference preference)
{
    int order = a->is_probed && b->is_probed ? prefer(a->has_source, b->has_source) : 0; /* rule 1 */
    if (order == 0) {
        order = prefer_source(a, b, scopes_match); /* rule 2 */
    }
    if (order == 0) {
        order = prefer_source(a, b, labels_match); /* rule 5 */
    }
    if (order == 0) { /* rule 6 */
        order = policy_of(b->family, b->addr)->precedence[preference] -
                policy_of(a->family, a->addr)->precedence[preference];
    }
    if (order == 0) { /* rule 8 */
        order = (int)scope_of(a->family, a->addr) - (int)scope_of(b->family, b->addr);
    }
    bool has_prefixes = a->family == SOCKS6_ADDR_IPV6 && b->family == SOCKS6_ADDR_IPV6 && a->is_probed &&
                        b->is_probed && a->has_source && b->has_source;
    if (order == 0 && has_prefixes) { /* rule 9 */
        order = (int)common_bits(b->addr, b->source, 64) - (int)common_bits(a->addr, a->source, 64);
    }
    return order;
}

bool destination_from_addr(const struct socks6_addr *addr, struct destination *out)
{
    struct sockaddr_storage sa;
    socklen_t len;
    struct socks6_addr plain;

    /* By way of a sockaddr, which turns an IPv4-mapped address into IPv4. */
    if (!sock_from_addr(addr, &sa, &len) || !sock_to_addr((const struct sockaddr *)&sa, len, &plain)) {
        return false;
    }
    *out = (struct destination){.family = plain.type, .port = plain.port};
    memcpy(out->addr, &plain.u, plain.len);
    return true;
}

struct socks6_addr destination_addr(const struct destination *destination)
{
    struct socks6_addr addr = {.type = destination->family, .port = destination->port};
    if (destination->family == SOCKS6_ADDR_IPV4) {
        addr.len = 4;
        memcpy(addr.u.ipv4, destination->addr, 4);
    } else {
        addr.len = 16;
        memcpy(addr.u.ipv6, destination->addr, 16);
    }
    return addr;
}

bool destination_equal(const struct destination *a, const struct destination *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->addr, b->addr, sizeof a->addr) == 0;
}

/* Where `fd` would send from. False: nowhere to. */
static bool source_of(int fd, const struct destination *destination, const struct socks6_addr *source,
                      struct socks6_addr *local)
{
    struct socks6_addr addr = destination_addr(destination);
    struct sockaddr_storage sa;
    socklen_t len;

    if (source != NULL) {
        struct socks6_addr any_port = *source;
        any_port.port = 0;
        if (!sock_from_addr(&any_port, &sa, &len) || bind(fd, (const struct sockaddr *)&sa, len) < 0) {
            return false;
        }
    }
    return sock_from_addr(&addr, &sa, &len) && connect(fd, (const struct sockaddr *)&sa, len) == 0 &&
           sock_local(fd, local) == 0 && local->type == destination->family;
}

void destination_probe(struct destination *destination, const struct socks6_addr *source)
{
    struct socks6_addr local;
    int family = destination->family == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        /* A family that the host does not have is an answer; having no descriptor is not. */
        destination->is_probed = errno == EAFNOSUPPORT;
        return;
    }
    destination->is_probed = true;
    destination->has_source = source_of(fd, destination, source, &local);
    if (destination->has_source) {
        memcpy(destination->source, &local.u, local.len);
    }
    (void)close(fd);
}
