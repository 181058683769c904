/*
 * SOCKS 6 sessions and their windows of idempotence tokens: what a worker asks, whoever keeps them.
 *
 * Two kinds of back end fit: one in memory (store_memory.h), which answers every question within the call, and one that
 * asks another process and answers later. So every question is asked with a `struct store_query`, embedded in its owner,
 * and the call says which it was:
 *
 *     STORE_NOW     query->answer is filled; query->done will not be called
 *     STORE_LATER   query->done(query) will be called on query->loop's thread, unless store_cancel() comes before
 *
 * While a query is open it belongs to the store. What is passed by pointer is borrowed for the call only.
 *
 * A session is a bearer secret, bound to where it was born: the realm says which listeners take it (their address,
 * whether TLS is below, how they authenticate), the user who it belongs to. Any other realm sees no such session, so
 * that a session born under TLS opens nothing on a plain listener, and an anonymous one nothing where names are asked
 * for.
 */
#ifndef PROXYD_STORE_H
#define PROXYD_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

#include "io/loop.h"

/* Length of a session id: random, of 128 bits. A multiple of 4, as the draft wants it. */
#define STORE_ID_LEN 16u

/* Longest name of a realm. */
#define STORE_REALM_MAX 127u

struct store;

enum store_timing { STORE_NOW, STORE_LATER };

enum store_status {
    STORE_OK,
    STORE_UNKNOWN,        /* no such session in this realm, or not any more */
    STORE_FULL_USER,      /* session not granted: this user has as many as are allowed, */
    STORE_FULL_CLIENT,    /* ... this client address, */
    STORE_FULL_ANONYMOUS, /* ... those without a name, */
    STORE_FULL,           /* ... all together */
    STORE_FAILED          /* no memory, or the back end cannot be reached: nothing was done as far as we know */
};

struct store_answer {
    enum store_status status;
    uint8_t id[STORE_ID_LEN];           /* START */
    uint8_t user_len;                   /* START, LOOKUP: 0 = anonymous */
    char user[SOCKS6_USERNAME_MAX + 1]; /* ends in NUL */
    struct socks6_window window;        /* LOOKUP, WINDOW, SPEND; size 0 = the session has none */
    bool accepted;                      /* SPEND: this call, and no other, has spent the token */
};

struct store_query {
    /* Set by the owner once. */
    struct loop *loop;
    void (*done)(struct store_query *query); /* `query` is the owner's again, and may be asked with anew or freed */
    /* Set by the owner for each question: loop_now_ms(). */
    uint64_t now_ms;
    /* The answer to the last question. */
    struct store_answer answer;
    /* The back end's while the question is open. */
    struct loop_msg msg;
    void *pending;
};

/* Who starts a session, and where. */
struct store_owner {
    const char *realm;         /* 1 .. STORE_REALM_MAX bytes */
    struct socks6_slice user;  /* empty = anonymous */
    struct socks6_addr client; /* IPv4 or IPv6; IPv6 addresses count by /64 */
    uint64_t valid_ms;         /* the session ends then, however much it is used; 0 = never for this reason */
};

/*
 * START: a new session. Not granted (FULL_*, FAILED) is no failure of the request: it goes on outside a session.
 */
SOCKS6_MUST_CHECK enum store_timing store_session_start(struct store *store, struct store_query *query,
                                                        const struct store_owner *owner);
/*
 * LOOKUP: whose session it is, and its window. The session counts as used now. Users can vanish while their request is
 * under way: the caller checks that the name is still one of the users in force.
 */
SOCKS6_MUST_CHECK enum store_timing store_session_lookup(struct store *store, struct store_query *query,
                                                         struct socks6_slice id, const char *realm);
/* END: teardown. UNKNOWN if there was none. */
SOCKS6_MUST_CHECK enum store_timing store_session_end(struct store *store, struct store_query *query,
                                                      struct socks6_slice id, const char *realm);
/*
 * WINDOW: a window of at most `size` tokens (1 or more), if the session has none yet; the window that it then has.
 */
SOCKS6_MUST_CHECK enum store_timing store_window_request(struct store *store, struct store_query *query,
                                                         struct socks6_slice id, const char *realm, uint32_t size);
/*
 * SPEND: before the request that carries the token is acted upon. Of any number of calls with the same token, in any
 * threads, one is accepted. With OK `accepted` says whether it was this one, and `window` is the state afterwards.
 */
SOCKS6_MUST_CHECK enum store_timing store_token_spend(struct store *store, struct store_query *query,
                                                      struct socks6_slice id, const char *realm, uint32_t token);

/*
 * The answer is not wanted any more: `done` will not be called, and the query is its owner's again. What was asked for may
 * be done all the same. Only on the loop's thread, and only while the query is open.
 */
void store_cancel(struct store *store, struct store_query *query);

/*
 * Ends all sessions of these users, whatever their realm: they were removed, or their password has changed. From any
 * thread; lasts until it is done, or until a remote back end was told. Names of 1 .. 255 bytes, bytewise ascending, as
 * users_gone() gives them.
 */
void store_drop_users(struct store *store, const struct socks6_slice *names, size_t count);

/* The same with all sessions that belong to a user at all. */
void store_drop_every_user(struct store *store);

/* Ends sessions that have been idle for too long, or whose time is over; call it now and then (once a second). From any thread. */
void store_expire(struct store *store, uint64_t now_ms);

/* Sessions that this process knows to live, for statistics. From any thread. */
uint32_t store_session_count(const struct store *store);
/* How many it has ended for being idle or for their age. From any thread. */
uint64_t store_expired_count(const struct store *store);

/* No query may be open. Takes NULL. */
void store_free(struct store *store);

#endif
