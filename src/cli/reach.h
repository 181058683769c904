/*
 * The way through a proxy, over TLS where the URL says so, and with what the cache knows of it: a session instead of a login,
 * a token that makes the request one that is acted on once, a ticket of TLS. What the proxy says goes back into the cache.
 * Called by subcommands in the place of socks6_dial() and socks6_dial_start().
 *
 * If the proxy does not know the session any more, or rejects the token, it is asked once more over another connection, unless a
 * copy of what was sent may have been acted on.
 */
#ifndef CLI_REACH_H
#define CLI_REACH_H

#include <stdbool.h>

#include <socks6/dial.h>

#include "cli/reach_shared.h"
#include "cli/stream.h"

struct reach;

/* Copied. What it points to is borrowed until the end of reach(), or until reach_free(); never by the stream. */
struct reach_config {
    /*
     * As for socks6_dial(), without session and layer. Whatever proxy_addresses say, the certificate is to be for the
     * host of the proxy's URL, and what the cache knows belongs to that.
     */
    struct socks6_dial_config dial;
    struct reach_shared *shared; /* made for the same proxy; NULL = nothing is shared */
    bool no_session; /* --no-session: nothing of the cache is used, and nothing kept. Without effect beside `shared` */
    bool
        is_repeatable; /* the early data may be acted on twice: it is sent again with another token whatever became of it */
    bool no_fast_open;  /* --no-tfo: the proxy is connected to without TCP Fast Open */
    bool no_early_data; /* --no-early-data: the request waits for the end of the TLS handshake */
};

/*
 * Blocking, as socks6_dial(); the connection comes in `stream`, which is to be given to stream_done() whatever the outcome.
 * The proxy's name is looked up unless proxy_addresses are given.
 */
SOCKS6_MUST_CHECK int reach(const struct reach_config *config, struct stream *stream,
                            struct socks6_dial_result *result);

/*
 * Non-blocking, as socks6_dial_start(): the proxy's name must have been looked up (proxy_find.h). SOCKS6_DIAL_IN_PROGRESS and
 * `*out`, or a failure with `result` filled. `stream` is empty then.
 *
 * The cache file is read and written meanwhile, which may take a moment if another process has it locked.
 */
SOCKS6_MUST_CHECK int reach_start(const struct reach_config *config, struct reach **out, struct stream *stream,
                                  struct socks6_dial_result *result);
/*
 * The descriptor to wait on now, the poll(2) events to wait for, and the milliseconds until step() is due (-1 = none). When step() has
 * changed the count, it is another descriptor, even with the same number: epoll(7) does not watch it yet.
 */
int reach_fd(const struct reach *reach);
unsigned reach_fd_count(const struct reach *reach);
short reach_events(const struct reach *reach);
int reach_timeout_ms(const struct reach *reach);
/*
 * Goes on as far as it can without waiting. With SOCKS6_DIAL_OK the connection is in `stream`, for stream_done(). After anything
 * but IN_PROGRESS only reach_free() is left to be called.
 */
SOCKS6_MUST_CHECK int reach_step(struct reach *reach, struct stream *stream, struct socks6_dial_result *result);
/* Takes NULL. Ends what is under way. */
void reach_free(struct reach *reach);

#endif
