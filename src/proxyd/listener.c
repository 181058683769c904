#include "proxyd/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/conn.h"
#include "proxyd/log.h"
#include "proxyd/worker.h"

/* Accepted per wake-up, so that a flood of new clients does not starve the connections of this worker. */
#define ACCEPT_BATCH 64
#define PAUSE_MS 100

enum accept_status { ACCEPT_ONE, ACCEPT_EMPTY, ACCEPT_PAUSE };

static void pause_accepting(struct listener *listener, const char *why)
{
    struct worker *worker = listener->worker;

    if (!listener->paused) {
        listener->paused = true;
        stats_add(&worker->stats, STATS_accept_paused, 1);
        log_debug("accepting paused: %s", why);
        loop_remove(worker->loop, &listener->io);
    }
    loop_timer_set(worker->loop, &listener->retry, PAUSE_MS);
}

/* Errors of the connection that was to be accepted (accept(2), "Error handling"): it is gone, the next may be fine. */
static bool is_transient(int error)
{
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
        return true;
    default:
        return false;
    }
}

static enum accept_status open_accepted(struct listener *listener, int fd, const struct socks6_addr *client)
{
    struct worker *worker = listener->worker;
    const struct config_limits *limits = &worker->config->limits;
    uint32_t total = limits->connections != 0 ? limits->connections : worker->shared->connections_auto;

    switch (limits_acquire(worker->shared->limits, client, total, limits->connections_per_client)) {
    case LIMITS_OK:
        conn_open(worker, listener, fd, client);
        return ACCEPT_ONE;
    case LIMITS_CLIENT_FULL:
        stats_add(&worker->stats, STATS_refused_client_limit, 1);
        break;
    case LIMITS_TOTAL_FULL: /* lost a race against another worker: is_full() below is only a first look */
    case LIMITS_NO_MEMORY:
        stats_add(&worker->stats, STATS_accept_errors, 1);
        break;
    }
    close(fd);
    return ACCEPT_ONE;
}

static bool is_full(const struct listener *listener)
{
    const struct worker *worker = listener->worker;
    uint32_t total = worker->config->limits.connections;

    if (total == 0) {
        total = worker->shared->connections_auto;
    }
    return limits_total(worker->shared->limits) >= total;
}

static enum accept_status accept_one(struct listener *listener)
{
    struct worker *worker = listener->worker;
    struct sockaddr_storage sa;
    socklen_t sa_len = sizeof sa;
    struct socks6_addr client;

    if (is_full(listener)) {
        pause_accepting(listener, "connection limit reached");
        return ACCEPT_PAUSE;
    }
    int fd = accept4(listener->fd, (struct sockaddr *)&sa, &sa_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN) {
            return ACCEPT_EMPTY;
        }
        stats_add(&worker->stats, STATS_accept_errors, 1);
        if (is_transient(errno)) {
            return ACCEPT_ONE;
        }
        pause_accepting(listener, "out of descriptors or memory");
        return ACCEPT_PAUSE;
    }
    if (!sock_to_addr((const struct sockaddr *)&sa, sa_len, &client)) {
        close(fd); /* gone already: the kernel knows no peer */
        return ACCEPT_ONE;
    }
    stats_add(&worker->stats, STATS_accepted, 1);
    return open_accepted(listener, fd, &client);
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct listener *listener = LOOP_OWNER(io, struct listener, io);

    (void)events; /* level-triggered: what is left wakes us again */
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        if (accept_one(listener) != ACCEPT_ONE) {
            return;
        }
    }
}

static void on_retry(struct loop_timer *timer)
{
    listener_resume(LOOP_OWNER(timer, struct listener, retry));
}

void listener_resume(struct listener *listener)
{
    struct worker *worker = listener->worker;

    if (!listener->paused) {
        return;
    }
    listener->io.fd = listener->fd;
    if (is_full(listener) || loop_add(worker->loop, &listener->io, EPOLLIN) != 0) {
        loop_timer_set(worker->loop, &listener->retry, PAUSE_MS);
        return;
    }
    listener->paused = false;
    loop_timer_cancel(worker->loop, &listener->retry);
}

int listener_open(struct worker *worker, const struct config_listener *config, int fd)
{
    struct listener *listener = calloc(1, sizeof *listener);
    int err = listener == NULL ? -ENOMEM : sock_local(fd, &listener->address);

    if (err == 0) {
        listener->worker = worker;
        listener->fd = fd;
        listener->io = (struct loop_io){.ready = on_ready, .fd = fd};
        listener->retry.expired = on_retry;
        listener->configured = config->address;
        listener->protocols = config->protocols;
        err = loop_add(worker->loop, &listener->io, EPOLLIN);
    }
    if (err != 0) {
        free(listener);
        close(fd);
        return err;
    }
    listener->next = worker->listeners;
    worker->listeners = listener;
    return 0;
}

void listener_close(struct listener *listener)
{
    struct worker *worker = listener->worker;

    while (accept_one(listener) == ACCEPT_ONE) {
    }
    loop_timer_cancel(worker->loop, &listener->retry);
    loop_remove(worker->loop, &listener->io);
    close(listener->fd);
    for (struct listener **link = &worker->listeners; *link != NULL; link = &(*link)->next) {
        if (*link == listener) {
            *link = listener->next;
            break;
        }
    }
    free(listener);
}
