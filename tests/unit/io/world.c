#include "world.h"

#include <stdarg.h>

#include <setjmp.h>

#include <cmocka.h>

#include <string.h>

#include "io/sock.h"

static void on_done(void *user, const struct relay_result *result)
{
    struct world *world = user;
    assert_false(world->is_over);
    world->is_over = true;
    world->result = *result;
    world->relay = NULL;
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
    int pair[2];
    harness_guard();
    memset(world, 0, sizeof *world);
    world->timer.expired = on_timer;
    world->fds_before = harness_fd_count();
    assert_int_equal(loop_new(&world->loop), 0);
    assert_int_equal(relay_shared_new(world->loop, &world->shared), 0);
    harness_pair(pair);
    peer_open(&world->client, world->loop, pair[0], 1, 2);
    world->fd_a = pair[1];
    harness_pair(pair);
    peer_open(&world->server, world->loop, pair[1], 2, 1);
    world->fd_b = pair[0];
    assert_int_equal(sock_set_connection_options(world->fd_a), 0);
    assert_int_equal(sock_set_connection_options(world->fd_b), 0);
}

int world_try_start(struct world *world, uint8_t *early, size_t early_len)
{
    return relay_start(world->shared, world->fd_a, world->fd_b, early, early_len, &world->config, on_done, world,
                       &world->relay);
}

void world_start(struct world *world, uint8_t *early, size_t early_len)
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
