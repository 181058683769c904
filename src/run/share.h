/*
 * Memory that the helper of `socks6 run` shares with the programs of its own user, so that a connection need not concern the helper:
 *
 *   the route     how to reach the proxy, for programs that connect to it themselves; and the
 *                 networks that are none of their business. Written by the helper.
 *   the sockets   what was connected that way, by cookie. Written by the programs, read by the helper when somebody asks for one
 *                 that he has not connected himself (RUN_STATUS).
 *   a few hints   which either side may lose.
 *
 * The file behind it cannot be resized, so that nobody takes pages away from the others. Whoever has it can write to it: what is
 * read is judged as input is, and never leads anywhere but to the place it was read from.
 *
 * Without locks, since a program may be killed anywhere, or be in a signal handler: an entry that is being written is passed over.
 * All functions take the beginning of RUN_SHARE_LEN bytes that were zero at first.
 */
#ifndef RUN_SHARE_H
#define RUN_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "run/protocol.h"

struct run_share;

extern const size_t run_share_len;

#define RUN_ROUTE_SESSION_MAX 256u

/* How to reach the proxy: plain SOCKS 6 over TCP, without waiting for anything but its reply. */
struct run_route {
    uint64_t serial;    /* of this route; never 0. Set by run_share_publish() */
    uint64_t namespace; /* SO_NETNS_COOKIE of sockets for which it is good */
    struct run_addr proxy;
    uint32_t has_fast_open; /* 1: with TCP Fast Open, and so with a token: see below */
    uint32_t session_len;   /* 0 = the proxy wants to know nobody */
    uint8_t session[RUN_ROUTE_SESSION_MAX];
};

/* Of the helper: `route` is good from now on. The one before is forgotten, and the tokens. */
void run_share_publish(struct run_share *share, const struct run_route *route);
/* Of the helper: there is none. */
void run_share_withdraw(struct run_share *share);
/* False if there is none, or one that somebody has doubted. */
bool run_share_route(const struct run_share *share, struct run_route *out);
/* It was of no use: nobody takes it any more. Without effect if it is not the route that is there now. */
void run_share_doubt(struct run_share *share, uint64_t serial);

/*
 * Networks that concern the helper, route or no route: what is direct, so far as programs do not see it themselves. They are added and stay.
 */
#define RUN_SHARE_NETWORKS_MAX 256u
/*
 * Of the helper, before anybody has reason to ask. `bits` of the address count, 0 to 32 or 128; those of an IPv4 address also for whoever
 * sees it as an IPv4-mapped one. False if there is no room.
 */
bool run_share_add_network(struct run_share *share, const struct run_addr *addr, unsigned bits);
/* Whether the address lies in one of them. Its port does not count. */
bool run_share_has_network(const struct run_share *share, const struct run_addr *addr);

/*
 * Idempotence tokens of the route's session: what travels in a SYN can arrive twice, and is acted on once if it spends one. Each is given
 * out once, to whichever program. If few are left (RUN_SHARE_TOKENS_LOW, or none), one of the takers is told, who tells the
 * helper (RUN_TOKENS).
 */
#define RUN_SHARE_TOKENS_LOW 16u
/* Of the helper: `count` tokens from `first` on, behind those that are left, or in their place. */
void run_share_put_tokens(struct run_share *share, uint32_t first, unsigned count);
unsigned run_share_tokens_left(const struct run_share *share);
/* Of the helper: all that are left are its own again; how many. */
unsigned run_share_take_tokens_back(struct run_share *share, uint32_t *first);
/* False if there is none. */
bool run_share_take_token(struct run_share *share, uint32_t *token, bool *is_low);
/* The window that the proxy has told of last. Taken out; false = no news. */
void run_share_tell_window(struct run_share *share, uint32_t base, uint32_t size);
bool run_share_take_window(struct run_share *share, uint32_t *base, uint32_t *size);

/* A socket that was connected to the proxy. Old ones give way. */
void run_share_put(struct run_share *share, uint64_t cookie, const struct run_addr *peer, const struct run_addr *local);
bool run_share_get(const struct run_share *share, uint64_t cookie, struct run_addr *peer, struct run_addr *local);

/*
 * Whether it is worth waiting a moment for the proxy's reply in a connect(2) that should not wait. Each time that the reply did not
 * come in time, twice as many calls go without as the last time, up to RUN_SHARE_PATIENCE_MAX.
 */
#define RUN_SHARE_PATIENCE_MAX 256u
bool run_share_is_patient(struct run_share *share);
void run_share_was_quick(struct run_share *share, bool is_quick);

/* What a connection to an IPv6 address has shown: it has a way there, or not. The last one is taken out; 0 = no news. */
enum run_share_ipv6 { RUN_SHARE_IPV6_NO_NEWS, RUN_SHARE_IPV6_WORKS, RUN_SHARE_IPV6_UNREACHABLE };
void run_share_tell_ipv6(struct run_share *share, enum run_share_ipv6 what);
enum run_share_ipv6 run_share_take_ipv6(struct run_share *share);

#endif
