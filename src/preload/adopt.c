#include "preload/adopt.h"

#include <fcntl.h>

#include "preload/dup.h"
#include "preload/epoll.h"
#include "preload/options.h"
#include "preload/sys.h"

static int replace(int socket, int fd, const struct slot *slot)
{
    struct epoll_move moves[EPOLL_MOVES_MAX];
    size_t count = epoll_take_out(fd, moves, EPOLL_MOVES_MAX);
    int flags = sys_fcntl(fd, F_GETFD, 0);
    long rc;

    if (flags < 0) {
        return flags; /* closed by another thread: its number is not ours to take */
    }
    do {
        rc = SYS_CALL(SYS_dup3, socket, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    } while (rc == -EBUSY || rc == -EINTR);
    epoll_put_back(moves, count);
    if (rc < 0) {
        return (int)rc;
    }
    slots_put(fd, slot);
    return 0;
}

/* The signal tells of the descriptor by which it was asked for. */
static void ask_for_signals(int fd, int flags)
{
    if (flags >= 0 && (flags & O_ASYNC) != 0) {
        (void)sys_fcntl(fd, F_SETFL, flags);
    }
}

int adopt(int socket, int fd, struct slot *slot)
{
    uint64_t old = sys_cookie(fd);
    int rc, other, flags = sys_fcntl(fd, F_GETFL, 0);

    slot->cookie = sys_cookie(socket);
    options_carry(fd, socket);
    rc = replace(socket, fd, slot);
    for (other = rc == 0 ? dup_next(0, old) : -1; other >= 0; other = dup_next(other + 1, old)) {
        int ignored = replace(socket, other, slot); /* what becomes of duplicates does not change the call's result */

        (void)ignored;
    }
    if (rc == 0) {
        ask_for_signals(fd, flags);
    }
    sys_close(socket);
    return rc;
}
