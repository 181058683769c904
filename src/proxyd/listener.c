#include "proxyd/listener.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/fast_open.h"
#include "io/sock.h"
#include "io/tls_server.h"
#include "proxyd/conn.h"
#include "proxyd/log.h"
#include "proxyd/worker.h"

/* Accepted per wake-up at most, so that a flood of new clients does not starve the connections of this worker. */
#define ACCEPT_BATCH 64u
/* After so many wake-ups at which all tries found somebody, twice as many are tried. */
#define FULL_BATCHES 4u
#define PAUSE_MS 100

/* ---- places ---- */

const struct socks6_addr *listener_place(const struct worker *worker, uint16_t place)
{
    return &worker->places[place].address;
}

void listener_place_retain(struct worker *worker, uint16_t place)
{
    worker->places[place].references++;
}

void listener_place_release(struct worker *worker, uint16_t place)
{
    assert(worker->places[place].references > 0);
    worker->places[place].references--;
}

/* A place with one reference. 0 or -ENOMEM. */
static int new_place(struct worker *worker, const struct socks6_addr *address, uint16_t *out)
{
    size_t at = 0;
    while (at < worker->place_count && worker->places[at].references != 0) {
        at++;
    }
    if (at == worker->place_count) {
        struct listener_place *more = at > UINT16_MAX ? NULL : reallocarray(worker->places, at + 1, sizeof *more);
        if (more == NULL) {
            return -ENOMEM;
        }
        worker->places = more;
        worker->place_count++;
    }
    worker->places[at] = (struct listener_place){.address = *address, .references = 1};
    *out = (uint16_t)at;
    return 0;
}

/* ---- accepting ---- */

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

static uint32_t total_max(const struct worker *worker)
{
    uint32_t max = worker->config->limits.connections;
    return max != 0 ? max : worker->shared->connections_auto;
}

static uint32_t client_max(const struct worker *worker, const struct socks6_addr *client)
{
    uint32_t max = worker->config->limits.connections_per_client;
    if (max != CONFIG_PER_CLIENT_AUTO) {
        return max;
    }
    return sock_is_loopback(client) ? 0 : CONFIG_PER_CLIENT_DEFAULT;
}

/* `fd` has a reserved place. */
static void open_accepted(struct listener *listener, int fd, const struct socks6_addr *client)
{
    struct worker *worker = listener->worker;

    switch (limits_acquire(worker->shared->limits, client, client_max(worker, client))) {
    case LIMITS_OK:
        conn_open(worker, listener, fd, client);
        return;
    case LIMITS_CLIENT_FULL:
        stats_add(&worker->stats, STATS_refused_client_limit, 1);
        break;
    case LIMITS_NO_MEMORY:
        stats_add(&worker->stats, STATS_accept_errors, 1);
        break;
    }
    stats_add(&worker->stats, STATS_closed, 1);
    limits_unreserve(worker->shared->limits);
    close(fd);
}

/* With a reserved place, which is used up if ACCEPT_ONE is returned and `*fd` is one. */
static enum accept_status accept_reserved(struct listener *listener, int *fd, struct socks6_addr *client)
{
    struct worker *worker = listener->worker;
    struct sockaddr_storage sa;
    socklen_t sa_len = sizeof sa;

    *fd = accept4(listener->fd, (struct sockaddr *)&sa, &sa_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (*fd < 0) {
        if (errno == EAGAIN) {
            return ACCEPT_EMPTY;
        }
        stats_add(&worker->stats, STATS_accept_errors, 1);
        return is_transient(errno) ? ACCEPT_ONE : ACCEPT_PAUSE;
    }
    if (!sock_to_addr((const struct sockaddr *)&sa, sa_len, client)) {
        close(*fd); /* gone already: the kernel knows no peer */
        *fd = -1;
    }
    return ACCEPT_ONE;
}

static enum accept_status accept_one(struct listener *listener)
{
    struct worker *worker = listener->worker;
    struct socks6_addr client;
    int fd;

    if (!limits_reserve(worker->shared->limits, total_max(worker))) {
        pause_accepting(listener, "connection limit reached");
        return ACCEPT_PAUSE;
    }
    enum accept_status status = accept_reserved(listener, &fd, &client);
    if (fd < 0) {
        limits_unreserve(worker->shared->limits);
    } else {
        stats_add(&worker->stats, STATS_accepted, 1);
        open_accepted(listener, fd, &client);
    }
    if (status == ACCEPT_PAUSE) {
        pause_accepting(listener, "out of descriptors or memory");
    }
    return status;
}

/*
 * Level-triggered: what is left wakes us again. How many are tried follows what was found lately, so that a client who
 * comes alone does not cost a call that finds nobody, and a crowd is taken in one go.
 */
static void on_ready(struct loop_io *io, uint32_t events)
{
    struct listener *listener = LOOP_OWNER(io, struct listener, io);
    unsigned accepted = 0;

    (void)events;
    while (accepted < listener->batch) {
        enum accept_status status = accept_one(listener);
        if (status != ACCEPT_ONE) {
            listener->batch = accepted > 1 ? accepted : 1;
            listener->full_batches = 0;
            return;
        }
        accepted++;
    }
    if (++listener->full_batches >= FULL_BATCHES) {
        listener->full_batches = 0;
        listener->batch = listener->batch < ACCEPT_BATCH ? listener->batch * 2 : ACCEPT_BATCH;
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
    if (limits_total(worker->shared->limits) >= total_max(worker) ||
        loop_add(worker->loop, &listener->io, EPOLLIN) != 0) {
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
        listener->nth = config->nth;
        listener->batch = 1;
        err = new_place(worker, &listener->address, &listener->place);
    }
    if (err == 0) {
        err = loop_add(worker->loop, &listener->io, EPOLLIN);
        if (err != 0) {
            listener_place_release(worker, listener->place);
        }
    }
    if (err != 0) {
        free(listener);
        close(fd);
        return err;
    }
    listener_configure(listener, config);
    listener->next = worker->listeners;
    worker->listeners = listener;
    return 0;
}

void listener_configure(struct listener *listener, const struct config_listener *config)
{
    uint32_t queue_len = config->fast_open.queue_len;
    struct tls_server *old_tls = listener->tls;
    unsigned setting;

    listener->protocols = config->protocols;
    listener->tls = config->tls == NULL ? NULL : tls_server_retain(config_tls_server(config->tls));
    tls_server_release(old_tls);
    listener->acts_without_token = config->fast_open.acts_without_token;
    if (fast_open_setting(&setting) != 0 || (setting & FAST_OPEN_SERVER) == 0) {
        queue_len =
            0; /* so that it cannot come into force unnoticed later, and nobody has to look at each connection */
    }
    /* A kernel without it has no connections that came by it. */
    if (fast_open_listen(listener->fd, queue_len) == 0 && queue_len != 0) {
        listener->has_fast_open = true;
    }
}

void listener_close(struct listener *listener)
{
    struct worker *worker = listener->worker;

    while (accept_one(listener) == ACCEPT_ONE) {
    }
    loop_timer_cancel(worker->loop, &listener->retry);
    loop_remove(worker->loop, &listener->io);
    close(listener->fd);
    listener_place_release(worker, listener->place);
    for (struct listener **link = &worker->listeners; *link != NULL; link = &(*link)->next) {
        if (*link == listener) {
            *link = listener->next;
            break;
        }
    }
    tls_server_release(listener->tls);
    free(listener);
}
