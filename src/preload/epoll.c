#include "preload/epoll.h"

#include <stdbool.h>

#include "preload/bits.h"
#include "preload/export.h"
#include "preload/fdinfo.h"
#include "preload/real.h"
#include "preload/sys.h"

static struct bits instances; /* descriptors that were an epoll instance once */
static struct bits watched;   /* and those that were registered in one */

PRELOAD_HOOK(int, epoll_ctl, int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    int rc = real(epoll_ctl)(epoll_fd, operation, fd, event);

    if (rc == 0 && operation == EPOLL_CTL_ADD) {
        bits_set(&instances, epoll_fd);
        bits_set(&watched, fd);
    }
    return rc;
}

static bool take_out_of(int epoll_fd, int fd, struct epoll_event *out)
{
    return fdinfo_find_epoll(epoll_fd, fd, out) && SYS_CALL(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_DEL, fd, NULL) == 0;
}

size_t epoll_take_out(int fd, struct epoll_move *out, size_t max)
{
    size_t count = 0;

    if (!bits_has(&watched, fd)) {
        return 0;
    }
    for (int i = bits_next(&instances, 0); i >= 0 && count < max; i = bits_next(&instances, i + 1)) {
        if (take_out_of(i, fd, &out[count].event)) {
            out[count].epoll_fd = i;
            out[count].fd = fd;
            count++;
        }
    }
    return count;
}

void epoll_put_back(const struct epoll_move *moves, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = moves[i].event;

        (void)SYS_CALL(SYS_epoll_ctl, moves[i].epoll_fd, EPOLL_CTL_ADD, moves[i].fd, &event);
    }
}
