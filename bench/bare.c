/*
 * The least that a SOCKS 5 proxy can be: what socks6d's limits, rules, timers and log cost is measured against it.
 *
 *   bare ADDRESS PORT THREADS
 *
 * No authentication, CONNECT to IPv4 addresses only, every message in one piece, no time limits: for benchmarks alone.
 * The relay is socks6d's design without its care: one epoll per thread, edge-triggered, each thread with listener and
 * buffer of its own. What the destination does not take is kept, and its source is not read meanwhile.
 */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 256

enum state { GREETING, REQUEST, CONNECTING, RELAYING, DEAD };

struct pair;

struct side {
    struct pair *pair;
    int fd;           /* -1: not open yet */
    bool is_at_end;   /* has sent its last byte */
    uint8_t *pending; /* for this side, not taken yet; NULL: nothing */
    size_t pending_at, pending_len;
};

struct pair {
    enum state state;
    struct side sides[2]; /* client, server */
    struct pair *next_dead;
};

struct worker {
    int epoll, listener;
    uint8_t *buffer;
    struct pair *dead; /* freed behind the batch: it may hold an event for the other side */
};

static struct sockaddr_in own;

static bool watch(const struct worker *worker, struct side *side)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    return epoll_ctl(worker->epoll, EPOLL_CTL_ADD, side->fd, &event) == 0;
}

static void end_pair(struct worker *worker, struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        if (pair->sides[i].fd >= 0) {
            (void)close(pair->sides[i].fd);
        }
        free(pair->sides[i].pending);
    }
    pair->state = DEAD;
    pair->next_dead = worker->dead;
    worker->dead = pair;
}

static struct side *other(struct side *side)
{
    return &side->pair->sides[side == &side->pair->sides[0]];
}

/* All that waits for `side`; false if the connection is broken. */
static bool flush(struct side *side)
{
    while (side->pending != NULL) {
        ssize_t put = send(side->fd, side->pending + side->pending_at, side->pending_len, MSG_NOSIGNAL);
        if (put < 0) {
            return errno == EAGAIN;
        }
        side->pending_at += (size_t)put;
        side->pending_len -= (size_t)put;
        if (side->pending_len == 0) {
            free(side->pending);
            side->pending = NULL;
        }
    }
    return true;
}

static bool keep(struct side *side, const uint8_t *data, size_t len)
{
    side->pending = malloc(len);
    if (side->pending == NULL) {
        return false;
    }
    memcpy(side->pending, data, len);
    side->pending_at = 0;
    side->pending_len = len;
    return true;
}

/* From one side to the other until nothing comes or nothing is taken; false if the connection is broken. */
static bool move(const struct worker *worker, struct side *from)
{
    struct side *to = other(from);
    while (!from->is_at_end && to->pending == NULL) {
        ssize_t got = recv(from->fd, worker->buffer, CHUNK_LEN, 0);
        if (got < 0) {
            return errno == EAGAIN;
        }
        if (got == 0) {
            from->is_at_end = true;
            return shutdown(to->fd, SHUT_WR) == 0;
        }
        ssize_t put = send(to->fd, worker->buffer, (size_t)got, MSG_NOSIGNAL);
        if (put < 0 && errno != EAGAIN) {
            return false;
        }
        size_t taken = put < 0 ? 0 : (size_t)put;
        if (taken < (size_t)got) {
            return keep(to, worker->buffer + taken, (size_t)got - taken);
        }
        if ((size_t)got < CHUNK_LEN) {
            return true; /* a short read has taken all there is */
        }
    }
    return true;
}

static void relay(struct worker *worker, struct side *side, uint32_t events)
{
    struct pair *pair = side->pair;
    struct side *peer = other(side);
    bool is_good = true;
    if ((events & EPOLLOUT) != 0 && side->pending != NULL) {
        is_good = flush(side) && (side->pending != NULL || move(worker, peer));
    }
    if (is_good && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        is_good = move(worker, side);
    }
    if (is_good && (events & EPOLLRDHUP) != 0 && peer->pending == NULL) {
        is_good = move(worker, side); /* the end behind the data */
    }
    if (!is_good || (side->is_at_end && peer->is_at_end && side->pending == NULL && peer->pending == NULL)) {
        end_pair(worker, pair);
    }
}

static bool answer_request(struct worker *worker, struct pair *pair, const uint8_t *request, ssize_t len)
{
    if (len < 10 || request[1] != 1 || request[3] != 1) {
        return false;
    }
    struct sockaddr_in to = {.sin_family = AF_INET};
    memcpy(&to.sin_addr, request + 4, 4);
    memcpy(&to.sin_port, request + 8, 2);
    struct side *server = &pair->sides[1];
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->fd < 0) {
        return false;
    }
    set_nodelay(server->fd);
    pair->state = CONNECTING;
    return (connect(server->fd, (const struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS) &&
           watch(worker, server);
}

static void converse(struct worker *worker, struct side *side, uint32_t events)
{
    struct pair *pair = side->pair;
    bool is_good = true;
    if (pair->state == CONNECTING && side == &pair->sides[1]) {
        if ((events & EPOLLOUT) == 0) {
            return;
        }
        pair->state = RELAYING;
        is_good = (events & (EPOLLERR | EPOLLHUP)) == 0 &&
                  send(pair->sides[0].fd, "\5\0\0\1\0\0\0\0\0\0", 10, MSG_NOSIGNAL) == 10 && move(worker, other(side));
    } else if (pair->state != CONNECTING && (events & EPOLLIN) != 0) {
        uint8_t message[64];
        ssize_t len = recv(side->fd, message, sizeof message, 0);
        if (len < 0 && errno == EAGAIN) {
            return;
        }
        if (pair->state == GREETING) {
            pair->state = REQUEST;
            is_good = len >= 3 && send(side->fd, "\5\0", 2, MSG_NOSIGNAL) == 2;
        } else {
            is_good = answer_request(worker, pair, message, len);
        }
    }
    if (!is_good) {
        end_pair(worker, pair);
    }
}

static void accept_all(const struct worker *worker)
{
    int fd;
    while ((fd = accept4(worker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        set_nodelay(fd);
        struct pair *pair = need_memory(1, sizeof *pair);
        pair->sides[0] = (struct side){.pair = pair, .fd = fd};
        pair->sides[1] = (struct side){.pair = pair, .fd = -1};
        if (!watch(worker, &pair->sides[0])) {
            die("epoll_ctl");
        }
    }
}

static void handle(struct worker *worker, struct side *side, uint32_t events)
{
    if (side == NULL) {
        accept_all(worker);
    } else if (side->pair->state == RELAYING) {
        relay(worker, side, events);
    } else if (side->pair->state != DEAD) {
        converse(worker, side, events);
    }
}

static void *work(void *unused)
{
    (void)unused;
    const int on = 1;
    struct worker worker = {.epoll = epoll_create1(EPOLL_CLOEXEC),
                            .listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                            .buffer = need_memory(1, CHUNK_LEN)};
    struct epoll_event listening = {.events = EPOLLIN};
    if (worker.epoll < 0 || worker.listener < 0 ||
        setsockopt(worker.listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        bind(worker.listener, (const struct sockaddr *)&own, sizeof own) < 0 || listen(worker.listener, 4096) < 0 ||
        epoll_ctl(worker.epoll, EPOLL_CTL_ADD, worker.listener, &listening) < 0) {
        die("listen");
    }
    for (;;) {
        struct epoll_event events[BATCH];
        int count = epoll_wait(worker.epoll, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            handle(&worker, events[i].data.ptr, events[i].events);
        }
        while (worker.dead != NULL) {
            struct pair *next = worker.dead->next_dead;
            free(worker.dead);
            worker.dead = next;
        }
    }
}

int main(int argc, char **argv)
{
    struct in_addr addr;
    if (argc != 4 || inet_pton(AF_INET, argv[1], &addr) != 1) {
        fprintf(stderr, "usage: bare ADDRESS PORT THREADS\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_fd_limit();
    own = ipv4(ntohl(addr.s_addr), (uint16_t)strtoul(argv[2], NULL, 10));
    for (unsigned long i = strtoul(argv[3], NULL, 10); i > 1; i--) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0) {
            die("pthread_create");
        }
    }
    (void)work(NULL);
    return 0;
}
