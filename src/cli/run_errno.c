#include "cli/run_errno.h"

#include <errno.h>

#include "run/handshake.h"

int run_errno(int status, const struct socks6_dial_result *result)
{
    switch ((enum socks6_dial_status)status) {
    case SOCKS6_DIAL_REMOTE_FAILED:
        return run_handshake_errno(result->reply);
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
