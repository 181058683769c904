#include "cli/run_addr.h"

#include <errno.h>
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

/* Where a code has no errno of its own the way is at fault, as far as the program can know: ENETUNREACH. */
static int reply_errno(unsigned reply)
{
    switch (reply) {
    case SOCKS6_REPLY_NOT_ALLOWED:
        return EACCES;
    case SOCKS6_REPLY_HOST_UNREACHABLE:
    case SOCKS6_REPLY_TTL_EXPIRED: /* what Linux makes of the ICMP message */
        return EHOSTUNREACH;
    case SOCKS6_REPLY_REFUSED:
        return ECONNREFUSED;
    case SOCKS6_REPLY_TIMED_OUT:
        return ETIMEDOUT;
    default:
        return ENETUNREACH;
    }
}

int run_addr_errno(int status, const struct socks6_dial_result *result)
{
    switch ((enum socks6_dial_status)status) {
    case SOCKS6_DIAL_REMOTE_FAILED:
        return reply_errno(result->reply);
    case SOCKS6_DIAL_TIMED_OUT: /* without a word sent, it is the proxy that cannot be reached */
        return result->sent ? ETIMEDOUT : ENETUNREACH;
    case SOCKS6_DIAL_NOMEM:
        return ENOBUFS;
    case SOCKS6_DIAL_OK:
    case SOCKS6_DIAL_IN_PROGRESS:
    case SOCKS6_DIAL_PROXY_FAILED:
    case SOCKS6_DIAL_INVALID:
        break;
    }
    return ENETUNREACH;
}
