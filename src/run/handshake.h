/*
 * One conversation of SOCKS 6 as a program has it that connects to the proxy itself: a request for an address, by what a route says;
 * the proxy's replies. Used by the preloaded library, and by the helper, who goes on where the library has stopped waiting. Pure:
 * without memory and locks, for signal handlers.
 *
 * There is no early data and no negotiation in it. Whatever makes another try worthwhile is the helper's affair.
 */
#ifndef RUN_HANDSHAKE_H
#define RUN_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#include "run/protocol.h"
#include "run/share.h"

/* A request for an IP address with a session ID and a token. */
#define RUN_REQUEST_MAX (64u + RUN_ROUTE_SESSION_MAX)

/* "Requests": writes CONNECT to `out`; `token` NULL = none. Its length; 0 if the destination or the route makes none. */
size_t run_handshake_request(const struct run_route *route, const struct run_addr *destination, const uint32_t *token,
                             uint8_t out[RUN_REQUEST_MAX]);

enum run_handshake {
    RUN_HANDSHAKE_MORE,      /* not whole yet */
    RUN_HANDSHAKE_CONNECTED, /* `used` bytes were the proxy's; behind them are the remote end's */
    RUN_HANDSHAKE_FAILED,    /* the proxy has tried: `code` says what came of it */
    RUN_HANDSHAKE_USELESS    /* it wants another request, or what it says makes no sense */
};

struct run_handshake_reply {
    size_t used;
    unsigned code; /* enum socks6_reply_code, or a number the draft does not name */
    struct socks6_addr bound;
    struct socks6_window window; /* size 0 = not told */
};

/*
 * Both replies together are taken up to here; real ones have some 50 bytes. Longer ones are USELESS as soon as they are seen to be, so
 * that so many bytes are never MORE.
 */
#define RUN_REPLY_MAX 1024u

/* "Authentication Replies" and "Operation Replies": what has come so far, from the first byte on. `out`: if CONNECTED or FAILED. */
enum run_handshake run_handshake_reply(const uint8_t *bytes, size_t len, struct run_handshake_reply *out);

/* The errno with which connect(2) fails where no proxy is between, for a code other than success. */
int run_handshake_errno(unsigned code);

#endif
