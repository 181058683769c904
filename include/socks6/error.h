/*
 * What a library call can say: 0, or one negative number of this list.
 *
 * Three kinds are kept apart: "more bytes, please" (a state, no error), the peer's fault, and our own side's.
 */
#ifndef SOCKS6_ERROR_H
#define SOCKS6_ERROR_H

#include <socks6/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum socks6_err {
    SOCKS6_OK = 0,

    /* Not an error: the message is not whole yet. */
    SOCKS6_NEED_MORE = -1,

    /* The peer's fault. */
    SOCKS6_ERR_VERSION = -10,   /* the first byte is not 6 */
    SOCKS6_ERR_MALFORMED = -11, /* a length, an option or a field breaks the format */
    SOCKS6_ERR_TOO_LONG = -12,  /* more options or initial data than the cap */
    SOCKS6_ERR_ADDRESS = -13,   /* an address type that is not known */
    SOCKS6_ERR_PROTOCOL = -14,  /* well-formed, but not now: a method nobody advertised, a type above 1 */

    /* Our own side's. */
    SOCKS6_ERR_NOMEM = -20,
    SOCKS6_ERR_INVALID = -21, /* an argument out of its range, or a call that this state does not take */
    SOCKS6_ERR_TIMEOUT = -22  /* the deadline given at creation has passed */
};

/* A short sentence without a full stop, for people. Static storage; never NULL. */
SOCKS6_API const char *socks6_strerror(int err);

#ifdef __cplusplus
}
#endif
#endif
