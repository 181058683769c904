/*
 * The way through a proxy, over TLS where the URL says so, and with what the cache knows of it: a session instead of a login,
 * a token that makes the request one that is acted on once, a ticket of TLS. What the proxy says goes back into the cache.
 * Called by subcommands in the place of socks6_dial().
 */
#ifndef CLI_REACH_H
#define CLI_REACH_H

#include <stdbool.h>

#include <socks6/dial.h>

#include "cli/stream.h"

struct reach_config {
    struct socks6_dial_config dial; /* as for socks6_dial(), without session and layer. The proxy outlives the stream */
    bool no_session;                /* --no-session: nothing of the cache is used, and nothing kept */
    bool no_fast_open;              /* --no-tfo: the proxy is connected to without TCP Fast Open */
    bool no_early_data;             /* --no-early-data: the request waits for the end of the TLS handshake */
};

/*
 * As socks6_dial(); the connection comes in `stream`, which is to be given to stream_done() whatever the outcome. If the proxy does not know the session any more, or rejects the token, it is asked once more over
 * another connection, unless a copy of what was sent may have been acted on.
 */
SOCKS6_MUST_CHECK int reach(const struct reach_config *config, struct stream *stream,
                            struct socks6_dial_result *result);

#endif
