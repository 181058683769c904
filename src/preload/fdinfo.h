/*
 * What the kernel tells of an epoll instance in /proc/self/fdinfo. Safe in signal handlers.
 */
#ifndef PRELOAD_FDINFO_H
#define PRELOAD_FDINFO_H

#include <stdbool.h>
#include <sys/epoll.h>

/* How `fd` is registered in an epoll instance. False: not at all, or /proc is not there. */
bool fdinfo_find_epoll(int epoll_fd, int fd, struct epoll_event *out);

/* One line of it. False, and `out` untouched, if it is not about `fd`. */
bool fdinfo_parse_epoll(const char *line, int fd, struct epoll_event *out);

#endif
