/*
 * Which address of a name to try before which: destination address selection, RFC 6724 section 6.
 *
 * The comparison is pure; destination_probe() asks the kernel which source address a destination would be reached from.
 */
#ifndef IO_DESTINATION_ORDER_H
#define IO_DESTINATION_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

/* Which family goes first where both are usable; see the policy tables in destination_order.c. */
enum destination_preference {
    DESTINATION_IPV6,   /* IPv6 before IPv4, also where both ends are unique local addresses */
    DESTINATION_IPV4,   /* IPv4 before IPv6 */
    DESTINATION_RFC6724 /* the RFC's default policy table */
};

struct destination {
    uint8_t family; /* SOCKS6_ADDR_IPV4 or SOCKS6_ADDR_IPV6 */
    uint16_t port;
    uint8_t addr[16]; /* IPv4: the first 4 bytes */
    /* What destination_probe() or a test says of it. */
    bool is_probed;
    bool has_source; /* false: there is no way to it (rule 1) */
    uint8_t source[16];
};

/* False for a name. An IPv4-mapped address becomes IPv4. Not probed. */
bool destination_from_addr(const struct socks6_addr *addr, struct destination *out);
struct socks6_addr destination_addr(const struct destination *destination);
/* The same address and port. */
bool destination_equal(const struct destination *a, const struct destination *b);

/*
 * Below 0: `a` is to be tried before `b`; above 0: after it; 0: the RFC does not care (rule 10: leave the order). Where
 * one of the two is not probed, what depends on sources is left out.
 *
 * Of the RFC's rules 3 (deprecated source), 4 (home address) and 7 (native transport) say nothing here: what they ask is not known of
 * a source address, and tunnels that show in the address have a low precedence anyway. Rule 9 (longest common prefix)
 * is for IPv6 alone, and looks at the 64 bits of the network: among IPv4 addresses it would undo the rotation by which
 * name servers spread load.
 */
int destination_compare(const struct destination *a, const struct destination *b,
                        enum destination_preference preference);

/*
 * Fills in the source: a UDP socket is connected, which sends nothing. `source` (may be NULL): the address that will be
 * bound. Without a descriptor to ask with `is_probed` stays false.
 */
void destination_probe(struct destination *destination, const struct socks6_addr *source);

#endif
