#include "proxyd/reply_map.h"

#include <errno.h>

#include "io/dialer.h"

enum socks6_reply_code reply_map_errno(int error)
{
    switch (error) {
    case 0:
        return SOCKS6_REPLY_SUCCESS;
    case ENETUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL: /* no local address of that family: no network to reach it by */
    case EAFNOSUPPORT:
        return SOCKS6_REPLY_NET_UNREACHABLE;
    case EHOSTUNREACH:
    case EHOSTDOWN:
        return SOCKS6_REPLY_HOST_UNREACHABLE;
    case ECONNREFUSED:
    case ECONNRESET: /* a reset in answer to the SYN's successor: nobody serves there */
        return SOCKS6_REPLY_REFUSED;
    case DIALER_TTL_EXPIRED:
        return SOCKS6_REPLY_TTL_EXPIRED;
    case ETIMEDOUT:
        return SOCKS6_REPLY_TIMED_OUT;
    case EACCES: /* the host's own packet filter */
    case EPERM:
        return SOCKS6_REPLY_NOT_ALLOWED;
    default:
        return SOCKS6_REPLY_FAILURE;
    }
}

uint8_t reply_map_socks5(enum socks6_reply_code code)
{
    return code == SOCKS6_REPLY_TIMED_OUT ? (uint8_t)SOCKS6_REPLY_HOST_UNREACHABLE : (uint8_t)code;
}

uint8_t reply_map_socks4(enum socks6_reply_code code)
{
    return code == SOCKS6_REPLY_SUCCESS ? 0x5a : 0x5b;
}
