/*
 * shutdown(2): of a connection it goes through to the helper by itself. Of what is none, or none any more, TCP has its own ideas.
 */
#include <errno.h>
#include <sys/socket.h>

#include "preload/connect.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/stream.h"

static int shut_stream(int fd, struct slot *slot, int how)
{
    switch (stream_state(fd, slot)) {
    case RUN_STATE_CONNECTED:
        return real(shutdown)(fd, how);
    case RUN_STATE_CONNECTING: /* it is given up */
        if (connect_dissolve(fd, slot) == 0) {
            return 0;
        }
        break;
    case RUN_STATE_UNKNOWN:
    case RUN_STATE_FAILED:
    case RUN_STATE_BROKEN:
    case RUN_STATE_ENDED:
        break;
    }
    errno = ENOTCONN;
    return -1;
}

PRELOAD_HOOK(int, shutdown, int fd, int how)
{
    struct slot slot;

    return how >= SHUT_RD && how <= SHUT_RDWR && stream_find_in_passing(fd, &slot) ? shut_stream(fd, &slot, how)
                                                                                   : real(shutdown)(fd, how);
}
