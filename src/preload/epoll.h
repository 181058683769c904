/*
 * epoll(7) holds on to sockets, not to descriptors. When another socket takes a descriptor's place, what was registered for the old
 * one has to be registered for the new one. The kernel tells what that is, in /proc/self/fdinfo; which descriptors to look at,
 * we know from epoll_ctl(2).
 */
#ifndef PRELOAD_EPOLL_H
#define PRELOAD_EPOLL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define EPOLL_MOVES_MAX 32

struct epoll_move {
    int epoll_fd;
    int fd;
    struct epoll_event event;
};

/* Takes `fd` out of every epoll instance. How many registrations there were, at most `max` of which are in `out`. */
size_t epoll_take_out(int fd, struct epoll_move *out, size_t max);
void epoll_put_back(const struct epoll_move *moves, size_t count);

#endif
