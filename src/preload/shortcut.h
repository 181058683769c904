/*
 * connect(2) without the helper, where he has told us how (run/share.h): the program's own socket is connected to the proxy, says the
 * request and hears the reply. Then it is what the program thinks it is, with its options, duplicates and registrations.
 */
#ifndef PRELOAD_SHORTCUT_H
#define PRELOAD_SHORTCUT_H

#include <stdbool.h>
#include <stddef.h>

#include <socks6/types.h>

#include "preload/epoll.h"
#include "run/protocol.h"

enum shortcut {
    SHORTCUT_NONE, /* the socket is as it was: ask the helper */
    SHORTCUT_DONE, /* `*result` is what connect(2) says: 0 or -errno */
    SHORTCUT_ASKED /* the proxy has the request, and takes its time over it: see RUN_CONNECT_ASKED */
};

struct shortcut_start {
    int fd, domain; /* a stream socket of this domain that is not connected */
    bool is_plain;  /* see struct fresh; else it is looked at */
    bool is_non_blocking;
    const struct run_addr *destination;
};

/* The socket's registrations in epoll(7), which are not to tell of it as long as it is connected to the proxy and no further. */
struct shortcut_watch {
    size_t count;
    struct epoll_move moves[EPOLL_MOVES_MAX];
};

/*
 * Signals must be held back. After ASKED what is in `watch` is to be put back when
 * the helper has answered; else there is nothing in it.
 */
enum shortcut shortcut_try(const struct shortcut_start *start, int *result, struct shortcut_watch *watch);

/* The reply has come after all, with RUN_VERDICT_OWN. */
void shortcut_accept(int fd, int domain, const struct run_addr *destination, const struct run_addr *local);
/* The socket is as it was. */
void shortcut_undo(int fd);
/*
 * For one that blocks and was connected without waiting: then the kernel wants to be asked once more, and says 0 to that, before it
 * says EISCONN. The address is not looked at, but for its family. The connection cannot be begun anew by this: if it has broken
 * meanwhile that is what the call says. 0 or -errno.
 */
SOCKS6_MUST_CHECK int shortcut_acknowledge(int fd);

#endif
