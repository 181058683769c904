#include "run/addr.h"

#include <string.h>
#include <sys/socket.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool run_addr_to_socks(const struct run_addr *addr, struct socks6_addr *out)
{
    if (addr->family == AF_INET) {
        *out = socks6_addr_ipv4(addr->bytes, addr->port);
    } else if (addr->family != AF_INET6) {
        return false;
    } else if (memcmp(addr->bytes, mapped_prefix, sizeof mapped_prefix) == 0) {
        *out = socks6_addr_ipv4(addr->bytes + sizeof mapped_prefix, addr->port);
    } else {
        *out = socks6_addr_ipv6(addr->bytes, addr->port);
    }
    return true;
}

bool run_addr_from_socks(const struct socks6_addr *addr, uint16_t family, struct run_addr *out)
{
    struct run_addr made = {.family = family, .port = addr->port};

    if (addr->type == SOCKS6_ADDR_IPV4 && family == AF_INET) {
        memcpy(made.bytes, addr->u.ipv4, sizeof addr->u.ipv4);
    } else if (addr->type == SOCKS6_ADDR_IPV4 && family == AF_INET6) {
        memcpy(made.bytes, mapped_prefix, sizeof mapped_prefix);
        memcpy(made.bytes + sizeof mapped_prefix, addr->u.ipv4, sizeof addr->u.ipv4);
    } else if (addr->type == SOCKS6_ADDR_IPV6 && family == AF_INET6) {
        memcpy(made.bytes, addr->u.ipv6, sizeof addr->u.ipv6);
    } else {
        return false;
    }
    *out = made;
    return true;
}

bool run_addr_is_any(const struct socks6_addr *addr)
{
    static const uint8_t zero[16];

    switch ((enum socks6_addr_type)addr->type) {
    case SOCKS6_ADDR_IPV4:
        return memcmp(addr->u.ipv4, zero, sizeof addr->u.ipv4) == 0;
    case SOCKS6_ADDR_IPV6:
        return memcmp(addr->u.ipv6, zero, sizeof addr->u.ipv6) == 0;
    case SOCKS6_ADDR_NAME:
        break;
    }
    return false;
}
