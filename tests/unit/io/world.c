#include "world.h"

#include <stdarg.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "io/sock.h"

bool world_splices;

void world_init(int argc, char **argv)
{
    world_splices = argc > 1 && strcmp(argv[1], "splice") == 0;
    (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does: splice(2) has no MSG_NOSIGNAL */
}

/* The record of a relay: whose it is. */
struct record {
    struct world *world;
};

static void on_done(struct relay *relay, const struct relay_result *result)
{
    struct record *record = relay_record(relay);
    struct world *world = record->world;
    assert_false(world->is_over);
    world->is_over = true;
    world->result = *result;
    world->relay = NULL;
}

static void on_no_pipe(void *context)
{
    struct world *world = context;
    world->no_pipe_count++;
}

static bool has_ended(const struct peer *peer)
{
    return peer->fd < 0 || peer->has_eof || peer->error != 0;
}

bool world_relay_is_over(void *context)
{
    const struct world *world = context;
    return world->is_over;
}

bool world_is_over(void *context)
{
    const struct world *world = context;
    return world->is_over && has_ended(&world->client) && has_ended(&world->server);
}

bool world_client_has_eof(void *context)
{
    const struct world *world = context;
    return world->client.has_eof;
}

bool world_server_has_eof(void *context)
{
    const struct world *world = context;
    return world->server.has_eof;
}

static bool has_expired(void *context)
{
    const struct world *world = context;
    return world->has_expired;
}

static void on_timer(struct loop_timer *timer)
{
    LOOP_OWNER(timer, struct world, timer)->has_expired = true;
}

void world_open(struct world *world)
{
    const struct relay_hooks hooks = {.done = on_done, .no_pipe = on_no_pipe, .context = world};
    int pair[2];
    harness_guard();
    memset(world, 0, sizeof *world);
    world->timer.expired = on_timer;
    world->fds_before = harness_fd_count();
    assert_int_equal(loop_new(&world->loop), 0);
    assert_int_equal(relay_shared_new(world->loop, sizeof(struct record), &hooks, &world->shared), 0);
    harness_pair(pair);
    peer_open(&world->client, world->loop, pair[0], 1, 2);
    world->fd_a = pair[1];
    harness_pair(pair);
    peer_open(&world->server, world->loop, pair[1], 2, 1);
    world->fd_b = pair[0];
    assert_int_equal(sock_set_connection_options(world->fd_a), 0);
    assert_int_equal(sock_set_connection_options(world->fd_b), 0);
}

static void on_nothing(struct loop_io *io, uint32_t events)
{
    (void)io;
    (void)events;
}

/* Registers A as the owner of a relay does, and starts. */
int world_try_start(struct world *world, const uint8_t *early, size_t early_len)
{
    const struct relay_start start = {
        .fd_b = world->fd_b,
        .b_is_parked = world->b_is_parked,
        .limits = &world->limits,
        .may_splice = world_splices,
        .early = early,
        .early_len = early_len,
    };
    struct relay *relay = relay_new(world->shared);
    int rc = relay == NULL ? -ENOMEM : 0;
    if (rc == 0) {
        struct record *record = relay_record(relay);
        record->world = world;
        relay_set_tls(relay, world->tls);
        *relay_socket_a(relay) = (struct loop_io){.ready = on_nothing, .fd = world->fd_a};
        rc = loop_add(world->loop, relay_socket_a(relay), RELAY_EVENTS);
        if (rc < 0) {
            relay_socket_a(relay)->fd = -1;
            relay_free(relay);
        }
    }
    if (rc < 0) {
        (void)close(world->fd_a);
        (void)close(world->fd_b);
        return rc;
    }
    rc = relay_start(relay, &start);
    world->relay = rc == 0 ? relay : NULL;
    return rc;
}

void world_start(struct world *world, const uint8_t *early, size_t early_len)
{
    assert_int_equal(world_try_start(world, early, early_len), 0);
    assert_false(world->is_over);
}

void world_close(struct world *world)
{
    peer_close(&world->client, false);
    peer_close(&world->server, false);
    if (world->relay != NULL) {
        relay_abort(world->relay);
    }
    relay_shared_free(world->shared);
    loop_timer_cancel(world->loop, &world->timer);
    loop_free(world->loop);
    assert_int_equal(harness_fd_count(), world->fds_before);
}

void world_run_for(struct world *world, uint64_t ms)
{
    world->has_expired = false;
    loop_timer_set(world->loop, &world->timer, ms);
    harness_run_until(world->loop, has_expired, world);
}
