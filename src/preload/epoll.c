#include "preload/epoll.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload/bits.h"
#include "preload/export.h"
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

/* "tfd:       12 events: 8000201d data:  7f0000000c  pos:0 ino:1a2b sdev:9" */
int epoll_parse_line(const char *line, int fd, struct epoll_event *out)
{
    static const char keys[3][8] = {"tfd:", "events:", "data:"};
    unsigned long long values[3];

    for (int i = 0; i < 3; i++) {
        char *end;

        line += strspn(line, " \t");
        if (strncmp(line, keys[i], strlen(keys[i])) != 0) {
            return 0;
        }
        line += strlen(keys[i]);
        values[i] = strtoull(line, &end, i == 0 ? 10 : 16);
        if (end == line) {
            return 0;
        }
        line = end;
    }
    if (values[0] != (unsigned long long)fd) {
        return 0;
    }
    out->events = (uint32_t)values[1];
    out->data.u64 = values[2];
    return 1;
}

static int open_info(int epoll_fd)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll_fd);
    return (int)SYS_CALL(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* Searches the lines of an instance for `fd`, a bufferful at a time. */
static bool find(int info, int fd, struct epoll_event *out)
{
    char text[2048];
    size_t len = 0;
    long n;

    while ((n = SYS_CALL(SYS_read, info, text + len, sizeof text - 1 - len)) > 0) {
        char *line = text, *end;

        len += (size_t)n;
        text[len] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            if (epoll_parse_line(line, fd, out)) {
                return true;
            }
            line = end + 1;
        }
        len -= (size_t)(line - text);
        if (len == sizeof text - 1) {
            len = 0; /* no line is that long */
        }
        memmove(text, line, len);
    }
    return false;
}

static bool take_out_of(int epoll_fd, int fd, struct epoll_event *out)
{
    int info = open_info(epoll_fd);
    bool found;

    if (info < 0) {
        return false;
    }
    found = find(info, fd, out);
    sys_close(info);
    return found && SYS_CALL(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_DEL, fd, NULL) == 0;
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
