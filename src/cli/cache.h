/*
 * What the client remembers from one run to the next, so that it need not introduce itself again: for each proxy its
 * session with the tokens that are left, and TLS tickets. One small file, shared by all runs of one user.
 *
 * All of it is optional: where the file cannot be used for any reason, everything works without, in more round trips.
 * Each call opens the file, locks it, and has written it before it returns.
 */
#ifndef CLI_CACHE_H
#define CLI_CACHE_H

#include <stdbool.h>

#include <socks6/session.h>

/* Which proxy, and as whom. Strings may be NULL where there is none; they are borrowed for the call. */
struct cache_key {
    const char *host; /* as in the URL; case does not count */
    uint16_t port;
    bool is_tls;
    const char *ca;          /* the setting: a path */
    const char *certificate; /* the client's: a path */
    const char *user;
    const char *password; /* a wrong one must not profit from the session that the right one has started */
};

/* The longest ticket that is kept. */
#define CACHE_TICKET_MAX 8192u

/* What one conversation takes from the cache. cache_use_done() frees it. */
struct cache_use {
    struct socks6_session session; /* as it was taken; the conversation's settings borrow the id from here */
    bool has_token;
    uint32_t token;
    uint8_t *ticket; /* NULL = none */
    size_t ticket_len;
    uint64_t ticket_expires_s; /* seconds since 1970 */
};

#define CACHE_LEASE_MAX 64u

/* What a process knows that makes many connections: a session, and tokens of it that were taken at once. All 0 = nothing. */
struct cache_lease {
    struct socks6_session session; /* `next` lies behind the leased tokens */
    uint32_t first;                /* of the leased tokens */
    uint64_t mask;                 /* bit i: first + i is left */
};

/*
 * $XDG_CACHE_HOME/socks6/client or ~/.cache/socks6/client, with its directories made if they are missing. 0, or -ENOENT
 * without a home, or another -errno.
 */
SOCKS6_MUST_CHECK int cache_default_path(char *out, size_t size);

/*
 * Takes a session, the smallest token of its window and a ticket for a conversation, and prepares the session part of
 * `config` (socks6_session_prepare(), with `window_size`). The token is marked as spent in the file before this returns;
 * it is not given out again, to whichever process. 0; or -errno if the file cannot be used, with `config` unchanged and
 * nothing taken: a session need not be asked for then, as it could not be remembered.
 */
SOCKS6_MUST_CHECK int cache_take(const char *path, const struct cache_key *key, uint64_t now_s, uint32_t window_size,
                                 struct socks6_client_config *config, struct cache_use *use);
void cache_use_done(struct cache_use *use);

/* What a reply to that conversation says (socks6_session_learn()). 0 or -errno. */
SOCKS6_MUST_CHECK int cache_learn(const char *path, const struct cache_key *key, uint64_t now_s,
                                  const struct cache_use *use, const struct socks6_client_session *reply);

/* Nothing of that conversation was sent: its token may be taken again. 0 or -errno. */
SOCKS6_MUST_CHECK int cache_return_token(const char *path, const struct cache_key *key, uint64_t now_s,
                                         const struct cache_use *use);

/*
 * Brings the process and the file together: the file hears of the window that the process has heard of (if `has_news`), the
 * process of a session or window that others have heard of. Leased tokens that are worth nothing any more are dropped. If
 * none is left, up to `count` are taken, 1 to CACHE_LEASE_MAX and not more than an eighth of those that are there; they
 * are marked as spent in the file before this returns. If `ticket` is not NULL it gets a ticket, as with cache_take(), and
 * nothing else. 0; or -errno, with nothing changed and no ticket.
 */
SOCKS6_MUST_CHECK int cache_renew(const char *path, const struct cache_key *key, uint64_t now_s, bool has_news,
                                  unsigned count, struct cache_lease *lease, struct cache_use *ticket);
/*
 * Takes up to `count` tokens of lease->session, with no file: for a process that keeps its session to itself. Drops what is worth
 * nothing any more, as cache_renew() does.
 */
void cache_lease_own(struct cache_lease *lease, unsigned count);
/* Leased tokens that are left, and behind which no other was taken, can be taken again. 0 or -errno. */
SOCKS6_MUST_CHECK int cache_return_lease(const char *path, const struct cache_key *key, uint64_t now_s,
                                         const struct cache_lease *lease);

/* Keeps a ticket until `expires_s`. 0 or -errno; -EMSGSIZE if it is too long. */
SOCKS6_MUST_CHECK int cache_put_ticket(const char *path, const struct cache_key *key, uint64_t now_s,
                                       const uint8_t *ticket, size_t ticket_len, uint64_t expires_s);

#endif
