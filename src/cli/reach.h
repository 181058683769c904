/*
 * The way through a SOCKS 6 proxy with what the cache knows of it: a session instead of a login, and a token that makes the
 * request one that is acted on once. What the proxy says goes back into the cache. Called by subcommands in the place of
 * socks6_dial().
 */
#ifndef CLI_REACH_H
#define CLI_REACH_H

#include <stdbool.h>

#include <socks6/dial.h>

struct reach_config {
    struct socks6_dial_config dial; /* as for socks6_dial(), without its session part */
    bool no_session;                /* --no-session: neither the cache's nor a new one */
};

/*
 * As socks6_dial(). If the proxy does not know the session any more, or rejects the token, it is asked once more over
 * another connection, unless a copy of what was sent may have been acted on.
 */
SOCKS6_MUST_CHECK int reach(const struct reach_config *config, struct socks6_dial_result *result);

#endif
