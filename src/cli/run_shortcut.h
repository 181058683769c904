/*
 * What lets programs connect to the proxy themselves: see run/share.h. The helper offers the way that its own last connection has
 * taken, if a program can go it alone: SOCKS 6 without TLS, nothing to know of the destination, and a proxy so near that a program can be
 * kept until it has answered. With TCP Fast Open it lends tokens, too.
 */
#ifndef CLI_RUN_SHORTCUT_H
#define CLI_RUN_SHORTCUT_H

#include <stdbool.h>

#include <socks6/types.h>

#include "cli/reach_shared.h"
#include "run/share.h"

struct run_shortcut {
    struct run_share *share;
    int fd;       /* to be given to programs, for mmap(2) */
    bool is_over; /* nothing is offered any more */
};

/*
 * 0, or -errno: then there is none, and everything goes through the helper. It is shared with children made by fork(2): the launcher opens
 * it, and closes it for all if the helper dies.
 */
SOCKS6_MUST_CHECK int run_shortcut_open(struct run_shortcut *shortcut);
void run_shortcut_close(struct run_shortcut *shortcut);

/* All below take NULL: there is none. */

/*
 * `fd` is connected to the proxy, and the proxy has said yes. `session` is to be sent along; empty = none. `has_fast_open`: requests that
 * spend tokens can travel in the SYN. Does nothing if programs know that already.
 */
void run_shortcut_offer(struct run_shortcut *shortcut, int fd, struct socks6_slice session, bool has_fast_open);
/* Tokens for programs, if what was offered needs some and there are few; and what they have heard of the window. */
void run_shortcut_refill(struct run_shortcut *shortcut, struct reach_shared *shared);
/* The end: withdraws, and takes back the tokens that are left. */
void run_shortcut_end(struct run_shortcut *shortcut, struct reach_shared *shared);
/* What a program has connected that way; see run_share_get(). */
bool run_shortcut_find(const struct run_shortcut *shortcut, uint64_t cookie, struct run_addr *peer,
                       struct run_addr *local);
/* See run_share_take_ipv6(). */
enum run_share_ipv6 run_shortcut_take_ipv6(struct run_shortcut *shortcut);
/* Programs have to ask, until there is another offer. */
void run_shortcut_withdraw(struct run_shortcut *shortcut);
/*
 * Connections into this network are not for programs to make: they have to ask. `bits` of the address count, 0 to 8 * addr->len. Loopback needs
 * no saying, names have no place. If it is one too many (RUN_SHARE_NETWORKS_MAX), programs have to ask whatever it is, from now on.
 */
void run_shortcut_leave_out(struct run_shortcut *shortcut, const struct socks6_addr *addr, unsigned bits);

#endif
