#include "preload/data.h"

#include <errno.h>
#include <signal.h>

#include "preload/slots.h"
#include "preload/stream.h"
#include "preload/sys.h"

bool data_is_stream(int fd)
{
    return slots_hint(fd) == SLOT_STREAM;
}

ssize_t data_received(int fd, ssize_t rc)
{
    struct slot slot;
    int error;

    if (rc > 0 || (rc < 0 && errno != ECONNRESET) || !stream_find_in_passing(fd, &slot)) {
        return rc;
    }
    if (rc == 0 && (slot.state == SLOT_OVER || !stream_has_hung_up(fd))) {
        return 0;
    }
    error = stream_take_error(fd, &slot);
    if (error == 0) {
        return slot.state == SLOT_OVER ? 0 : rc;
    }
    errno = error;
    return -1;
}

/* The kernel sends it to the thread that writes. */
static void raise_pipe(void)
{
    (void)SYS_CALL(SYS_tgkill, SYS_CALL(SYS_getpid), SYS_CALL(SYS_gettid), SIGPIPE);
}

/* It takes data, so it is connected: the send buffer may be what it is for others. */
static void widen(int fd)
{
    struct slot slot;
    int bytes = SLOTS_WIDE_BYTES / 2;

    if (stream_find_in_passing(fd, &slot)) {
        (void)sys_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        slot.state = SLOT_CONNECTED;
        slot.is_narrow = 0;
        slots_put(fd, &slot);
    }
}

static ssize_t sent_nothing(int fd, enum data_pipe pipe)
{
    int error = errno;
    struct slot slot;

    if (stream_find_in_passing(fd, &slot)) {
        error = stream_take_error(fd, &slot);
        error = error == 0 ? EPIPE : error;
    }
    errno = error;
    if (error == EPIPE && pipe == DATA_PIPE_DUE) {
        raise_pipe();
    }
    return -1;
}

ssize_t data_sent(int fd, ssize_t rc, enum data_pipe pipe)
{
    if (rc > 0 && slots_is_narrow(fd)) {
        widen(fd);
    }
    return rc < 0 && (errno == EPIPE || errno == ECONNRESET) ? sent_nothing(fd, pipe) : rc;
}
