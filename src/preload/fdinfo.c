#include "preload/fdinfo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload/sys.h"

/* "tfd:       12 events: 8000201d data:  7f0000000c  pos:0 ino:1a2b sdev:9" */
bool fdinfo_parse_epoll(const char *line, int fd, struct epoll_event *out)
{
    static const char keys[3][8] = {"tfd:", "events:", "data:"};
    unsigned long long values[3];

    for (int i = 0; i < 3; i++) {
        char *end;

        line += strspn(line, " \t");
        if (strncmp(line, keys[i], strlen(keys[i])) != 0) {
            return false;
        }
        line += strlen(keys[i]);
        values[i] = strtoull(line, &end, i == 0 ? 10 : 16);
        if (end == line) {
            return false;
        }
        line = end;
    }
    if (values[0] != (unsigned long long)fd) {
        return false;
    }
    out->events = (uint32_t)values[1];
    out->data.u64 = values[2];
    return true;
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
            if (fdinfo_parse_epoll(line, fd, out)) {
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

bool fdinfo_find_epoll(int epoll_fd, int fd, struct epoll_event *out)
{
    int info = open_info(epoll_fd);
    bool is_found;

    if (info < 0) {
        return false;
    }
    is_found = find(info, fd, out);
    sys_close(info);
    return is_found;
}
