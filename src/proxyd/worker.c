#include "proxyd/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxyd/accounts.h"
#include "proxyd/conn.h"
#include "proxyd/dns_service.h"
#include "proxyd/log.h"
#include "proxyd/session.h"

/* An order from the main thread; carried out on the worker's. */
struct worker_order {
    struct loop_msg msg;
    struct worker *worker;
    const struct config *config; /* reload: a reference; NULL = drain */
    bool now;                    /* drain: reset what is left */
    int fds[];                   /* reload: one per listener of `config` */
};

static void close_fds(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static int open_listeners(struct worker *worker, const struct config *config, const int *fds)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        int err = fds[i] < 0 ? 0 : listener_open(worker, &config->listeners[i], fds[i]);
        if (err != 0) {
            close_fds(fds + i + 1, config->listener_count - i - 1);
            return err;
        }
    }
    return 0;
}

static void close_listeners(struct worker *worker)
{
    while (worker->listeners != NULL) {
        listener_close(worker->listeners);
    }
}

/* ---- orders ---- */

static void stop_if_done(struct worker *worker)
{
    if (worker->draining && worker->connection_count == 0) {
        loop_stop(worker->loop);
    }
}

static void drain(struct worker *worker, bool now)
{
    worker->draining = true;
    close_listeners(worker);
    if (now) {
        conn_abort_all(worker);
        session_abort_all(worker);
    } else {
        conn_drain_all(worker);
    }
    stop_if_done(worker);
}

/* Listeners that stay keep their socket and what waits in it; the others go, new ones come. */
static void reload(struct worker *worker, const struct config *config, const int *fds)
{
    struct listener *next;

    config_release(worker->config);
    worker->config = config;
    for (struct listener *listener = worker->listeners; listener != NULL; listener = next) {
        const struct config_listener *kept = config_find_listener(config, &listener->configured, listener->nth);
        next = listener->next;
        if (kept != NULL) {
            listener_configure(listener, kept);
        } else {
            listener_close(listener);
        }
    }
    if (open_listeners(worker, config, fds) != 0) {
        log_error("a worker has no memory for its new listeners; reload again");
    }
}

static void on_order(struct loop_msg *msg)
{
    struct worker_order *order = LOOP_OWNER(msg, struct worker_order, msg);
    struct worker *worker = order->worker;

    if (order->config == NULL) {
        drain(worker, order->now);
    } else if (worker->draining) {
        close_fds(order->fds, order->config->listener_count);
        config_release(order->config);
    } else {
        reload(worker, order->config, order->fds);
    }
    free(order);
}

/* ---- other users ---- */

/* Marks those who are gone, for conn_abort_gone() and session_abort_gone(). Whether any of them is here. */
static bool mark_gone(struct worker *worker, const struct accounts_change *change, bool is_gone)
{
    bool is_any = change->removes_everyone && identities_mark(&worker->auth.identities, is_gone);

    for (size_t i = 0; i < change->removed_count; i++) {
        struct identity *identity = identity_find(&worker->auth.identities, change->removed[i]);

        if (identity != NULL) {
            identity->is_gone = is_gone;
            is_any = true;
        }
    }
    return is_any;
}

static void on_users_changed(struct loop_msg *msg)
{
    struct accounts_order *order = LOOP_OWNER(msg, struct accounts_order, msg);
    struct accounts_change *change = order->change;
    struct worker *worker = order->worker;

    users_release(worker->auth.users);
    worker->auth.users = change->after == NULL ? NULL : users_retain(change->after);
    if (mark_gone(worker, change, true)) {
        conn_abort_gone(worker);
        session_abort_gone(worker);
        /* A name that somebody is just trying is still there; it may become that of a user again. */
        (void)mark_gone(worker, change, false);
    }
    accounts_change_release(change);
}

void worker_change_users(struct worker *worker, struct accounts_order *order)
{
    order->msg.run = on_users_changed;
    order->worker = worker;
    loop_post(worker->loop, &order->msg);
}

/* ---- from the main thread ---- */

int worker_reload(struct worker *worker, const struct config *config, const int *fds)
{
    struct worker_order *order = calloc(1, sizeof *order + config->listener_count * sizeof fds[0]);
    if (order == NULL) {
        return -ENOMEM;
    }
    order->msg.run = on_order;
    order->worker = worker;
    order->config = config_retain(config);
    memcpy(order->fds, fds, config->listener_count * sizeof fds[0]);
    loop_post(worker->loop, &order->msg);
    return 0;
}

void worker_drain(struct worker *worker, bool now)
{
    struct worker_order *order = worker->drain_orders[now];

    worker->drain_orders[now] = NULL;
    if (order != NULL) {
        order->now = now;
        loop_post(worker->loop, &order->msg);
    }
}

void worker_connection_begun(struct worker *worker)
{
    worker->connection_count++;
}

void worker_connection_gone(struct worker *worker)
{
    worker->connection_count--;
    for (struct listener *listener = worker->listeners; listener != NULL; listener = listener->next) {
        listener_resume(listener);
    }
    stop_if_done(worker);
}

/* ---- life ---- */

static void on_finished(struct loop_msg *msg)
{
    struct worker *worker = LOOP_OWNER(msg, struct worker, finished);
    worker->on_finished(worker);
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    int err = loop_run(worker->loop);

    if (err != 0) {
        log_error("a worker's event loop failed: %s", strerror(-err));
        drain(worker, true);
    }
    dns_client_free(worker->dns); /* before the others end: they may wait for what it asked */
    worker->dns = NULL;
    worker->finished.run = on_finished;
    loop_post(worker->shared->main_loop, &worker->finished);
    return NULL;
}

/* Orders to drain are made beforehand: stopping must not fail for want of memory. */
static int make_drain_orders(struct worker *worker)
{
    for (int i = 0; i < 2; i++) {
        struct worker_order *order = calloc(1, sizeof *order);
        if (order == NULL) {
            return -ENOMEM;
        }
        order->msg.run = on_order;
        order->worker = worker;
        worker->drain_orders[i] = order;
    }
    return 0;
}

static int init_auth(struct worker *worker)
{
    const struct accounts *accounts = worker->shared->accounts;
    const struct users *users = accounts_users(accounts);
    struct auth *auth = &worker->auth;

    auth->loop = worker->loop;
    auth->stats = &worker->stats;
    auth->passwords = accounts_passwords(accounts);
    auth->store = accounts_store(accounts);
    auth->users = users == NULL ? NULL : users_retain(users);
    return identities_init(&auth->identities);
}

static void on_handshake_over(void *context, const struct tls_stream *stream, bool is_finished)
{
    struct worker *worker = context;

    if (is_finished) {
        stats_add(&worker->stats, STATS_tls_handshakes, 1);
        stats_add(&worker->stats, STATS_tls_resumed, tls_is_resumed(stream));
    } else {
        stats_add(&worker->stats, STATS_tls_failures, 1);
    }
}

static int worker_init(struct worker *worker)
{
    int err = make_drain_orders(worker);
    conn_slab_init(&worker->conns);
    if (err == 0) {
        worker->scratch = malloc(WORKER_SCRATCH_LEN);
        err = worker->scratch == NULL ? -ENOMEM : loop_new(&worker->loop);
    }
    if (err == 0) {
        err = init_auth(worker);
    }
    if (err == 0) {
        err = dns_client_new(worker->shared->dns, worker->loop, &worker->dns);
    }
    if (err == 0) {
        worker->dns_shared = dns_service_shared_new();
        err = worker->dns_shared == NULL ? -ENOMEM : 0;
    }
    if (err == 0) {
        const struct relay_hooks hooks = session_hooks(worker);
        err = relay_shared_new(worker->loop, session_record_len(), &hooks, &worker->relays);
    }
    if (err == 0) {
        const struct tls_hooks hooks = {.handshake_over = on_handshake_over, .context = worker};
        err = tls_loop_new(&hooks, &worker->tls);
    }
    return err;
}

int worker_new(struct shared *shared, const struct config *config, const int *fds,
               void (*finished)(struct worker *worker), struct worker **out)
{
    struct worker *worker = aligned_alloc(_Alignof(struct worker), sizeof *worker);
    if (worker == NULL) {
        close_fds(fds, config->listener_count);
        return -ENOMEM;
    }
    memset(worker, 0, sizeof *worker);
    worker->shared = shared;
    worker->config = config_retain(config);
    worker->on_finished = finished;

    int err = worker_init(worker);
    if (err != 0) {
        close_fds(fds, config->listener_count);
    } else {
        err = open_listeners(worker, config, fds);
    }
    if (err != 0) {
        worker_free(worker);
        return err;
    }
    *out = worker;
    return 0;
}

int worker_start(struct worker *worker)
{
    int err = pthread_create(&worker->thread, NULL, run, worker);
    worker->is_started = err == 0;
    return -err;
}

void worker_free(struct worker *worker)
{
    if (worker->is_started) {
        pthread_join(worker->thread, NULL);
    }
    if (worker->loop != NULL) {
        worker->draining = true;
        close_listeners(worker);
        conn_abort_all(worker);
        session_abort_all(worker);
    }
    slab_done(&worker->conns);
    relay_shared_free(worker->relays);
    worker->relays = NULL;
    tls_loop_free(worker->tls);
    dns_client_free(worker->dns);
    dns_service_shared_free(worker->dns_shared);
    loop_free(worker->loop); /* which delivers orders that nobody has seen yet */
    users_release(worker->auth.users);
    identities_done(&worker->auth.identities);
    free(worker->places);
    config_release(worker->config);
    free(worker->scratch);
    free(worker->drain_orders[0]);
    free(worker->drain_orders[1]);
    free(worker);
}
