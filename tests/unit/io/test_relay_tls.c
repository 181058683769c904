/*
 * A relay whose end A is a TLS stream. The client of the world speaks plain; a bridge between it and the relay, on the same
 * loop, is the client's TLS: FIN becomes close_notify and the other way round.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/relay_internal.h"
#include "io/sock.h"
#include "io/tls_keys.h"
#include "io/tls_server.h"
#include "tls_client.h"
#include "world.h"

#define CHUNK 16384u

struct bridge {
    struct world world;
    struct tls_files files;
    struct tls_loop *tls_loop;
    struct tls_keys *keys;
    struct tls_server *server;
    struct tls_client client;
    struct loop_io plain, secure; /* towards the world's client; towards the relay */
    struct loop_task task;
    uint8_t up[CHUNK], down[CHUNK];
    size_t up_len, down_len, down_sent;
    bool has_fin; /* of the world's client */
    bool has_end; /* close_notify of the relay */
    bool cuts;    /* FIN becomes FIN, without close_notify */
    bool is_deaf; /* reads nothing from the relay */
    int outcome;  /* of TLS, if it went wrong: -2 */
    unsigned finished, failed;
};

static void on_over(void *context, const struct tls_stream *stream, bool is_finished)
{
    struct bridge *bridge = context;
    (void)stream;
    bridge->finished += is_finished;
    bridge->failed += !is_finished;
}

static void end_upwards(struct bridge *bridge)
{
    if (!bridge->cuts) {
        (void)SSL_shutdown(bridge->client.ssl);
    }
    (void)shutdown(bridge->client.fd, SHUT_WR);
}

/* True if something moved. */
static bool move_up(struct bridge *bridge)
{
    if (!SSL_is_init_finished(bridge->client.ssl) && !tls_client_goes_on(&bridge->client)) {
        return false;
    }
    if (bridge->up_len == 0 && !bridge->has_fin) {
        ssize_t n = real_recv(bridge->plain.fd, bridge->up, CHUNK, MSG_DONTWAIT);
        bridge->up_len = n > 0 ? (size_t)n : 0;
        if (n == 0) {
            bridge->has_fin = true;
            end_upwards(bridge);
        }
    }
    if (bridge->up_len == 0) {
        return false;
    }
    ssize_t n = tls_client_write(&bridge->client, bridge->up, bridge->up_len);
    if (n > 0) {
        bridge->up_len -= (size_t)n;
        memmove(bridge->up, bridge->up + n, bridge->up_len);
    }
    return n > 0;
}

static bool move_down(struct bridge *bridge)
{
    if (bridge->down_len == 0 && !bridge->has_end && !bridge->is_deaf) {
        ssize_t n = tls_client_read(&bridge->client, bridge->down, CHUNK);
        bridge->down_len = n > 0 ? (size_t)n : 0;
        bridge->down_sent = 0;
        if (n == -1) {
            bridge->has_end = true;
            (void)shutdown(bridge->plain.fd, SHUT_WR);
        } else if (n == -2 && bridge->outcome == 0) {
            bridge->outcome = -2;
            bridge->has_end = true;
            (void)shutdown(bridge->plain.fd, SHUT_RDWR);
        }
    }
    if (bridge->down_len == 0) {
        return false;
    }
    ssize_t n =
        real_send(bridge->plain.fd, bridge->down + bridge->down_sent, bridge->down_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        bridge->down_sent += (size_t)n;
        bridge->down_len -= (size_t)n;
    }
    return n > 0;
}

static void move(struct bridge *bridge)
{
    for (int i = 0; i < 8; i++) {
        bool moved = move_up(bridge);
        moved = move_down(bridge) || moved;
        if (!moved) {
            return;
        }
    }
    loop_defer(bridge->world.loop, &bridge->task);
}

static void on_task(struct loop_task *task)
{
    move(LOOP_OWNER(task, struct bridge, task));
}

static void on_plain(struct loop_io *io, uint32_t events)
{
    (void)events;
    move(LOOP_OWNER(io, struct bridge, plain));
}

static void on_secure(struct loop_io *io, uint32_t events)
{
    (void)events;
    move(LOOP_OWNER(io, struct bridge, secure));
}

/* Everything but the relay; TLS is set up, not begun. */
static void bridge_open(struct bridge *bridge)
{
    const struct tls_hooks hooks = {.handshake_over = on_over, .context = bridge};
    struct tls_server_error error;
    int pair[2];

    memset(bridge, 0, sizeof *bridge);
    world_open(&bridge->world);
    tls_files_init(&bridge->files);
    const struct tls_server_settings settings = {
        .certificate = bridge->files.certificate, .key = bridge->files.key, .early_data = true};
    assert_int_equal(tls_loop_new(&hooks, &bridge->tls_loop), 0);
    assert_int_equal(tls_keys_new(&bridge->keys), 0);
    assert_int_equal(tls_server_new(&settings, &bridge->server, &error), 0);
    tls_server_set_keys(bridge->server, bridge->keys);
    tls_client_init(&bridge->client);
    /* What was the relay's end of the client's connection is the bridge's now. */
    bridge->plain = (struct loop_io){.ready = on_plain, .fd = bridge->world.fd_a};
    bridge->task.run = on_task;
    harness_pair(pair);
    bridge->world.fd_a = pair[1];
    assert_int_equal(sock_set_connection_options(pair[1]), 0);
    bridge->secure = (struct loop_io){.ready = on_secure, .fd = pair[0]};
    tls_client_connect(&bridge->client, pair[0], false);
}

static struct tls_stream *stream_new(struct bridge *bridge)
{
    struct tls_stream *stream;
    assert_int_equal(tls_stream_new(bridge->tls_loop, bridge->server, bridge->world.fd_a, &stream), 0);
    return stream;
}

/* As a conversation does it before: until the handshake is over, if it is to be. */
static struct tls_stream *shake(struct bridge *bridge)
{
    struct tls_stream *stream = stream_new(bridge);
    char byte;
    for (int i = 0; i < 5; i++) {
        (void)tls_client_goes_on(&bridge->client);
        assert_int_equal(tls_recv(stream, &byte, 1, false), -EAGAIN);
    }
    assert_true(tls_is_finished(stream));
    assert_int_equal(bridge->finished, 1);
    return stream;
}

static void bridge_start(struct bridge *bridge, struct tls_stream *stream)
{
    struct loop *loop = bridge->world.loop;
    bridge->world.tls = stream;
    world_start(&bridge->world, NULL, 0);
    assert_int_equal(loop_add(loop, &bridge->plain, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET), 0);
    assert_int_equal(loop_add(loop, &bridge->secure, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET), 0);
}

static void bridge_close(struct bridge *bridge)
{
    struct world *world = &bridge->world;
    loop_defer_cancel(world->loop, &bridge->task);
    loop_close(world->loop, &bridge->plain);
    loop_remove(world->loop, &bridge->secure);
    tls_client_done(&bridge->client);
    if (world->relay != NULL) {
        relay_abort(world->relay);
    }
    tls_server_release(bridge->server);
    tls_keys_release(bridge->keys);
    tls_loop_free(bridge->tls_loop);
    tls_files_done(&bridge->files);
    world_close(world);
}

static void test_both_ways_deliver_everything(void **state)
{
    static struct bridge bridge;
    struct world *world = &bridge.world;
    (void)state;
    bridge_open(&bridge);
    world->client.to_send = 20 * MIB + 7;
    world->server.to_send = 13 * MIB + 1;
    world->client.shuts_when_sent = world->server.shuts_when_sent = true;
    bridge_start(&bridge, shake(&bridge));
    peer_pump(&world->client);
    harness_run_until(world->loop, world_is_over, world);
    assert_int_equal(world->result.end, RELAY_DONE);
    assert_int_equal(world->result.bytes[RELAY_A], 20 * MIB + 7);
    assert_int_equal(world->result.bytes[RELAY_B], 13 * MIB + 1);
    assert_int_equal(world->server.received, 20 * MIB + 7);
    assert_int_equal(world->client.received, 13 * MIB + 1);
    assert_int_equal(bridge.outcome, 0);
    assert_true(bridge.has_end);
    bridge_close(&bridge);
}

/* Whoever ends first, the other one goes on. */
static void test_ends_are_passed_on_one_by_one(void **state)
{
    (void)state;
    for (int client_first = 0; client_first < 2; client_first++) {
        static struct bridge bridge;
        struct world *world = &bridge.world;
        bridge_open(&bridge);
        struct peer *first = client_first ? &world->client : &world->server;
        struct peer *second = client_first ? &world->server : &world->client;
        first->to_send = 100000;
        first->shuts_when_sent = true;
        bridge_start(&bridge, shake(&bridge));
        peer_pump(first);
        harness_run_until(world->loop, client_first ? world_server_has_eof : world_client_has_eof, world);
        assert_int_equal(second->received, 100000);
        assert_false(world->is_over);
        second->to_send = 2 * MIB;
        second->shuts_when_sent = true;
        peer_pump(second);
        harness_run_until(world->loop, world_is_over, world);
        assert_int_equal(first->received, 2 * MIB);
        assert_int_equal(world->result.end, RELAY_DONE);
        assert_int_equal(bridge.outcome, 0);
        bridge_close(&bridge);
    }
}

static void test_a_fin_alone_resets_the_server(void **state)
{
    static struct bridge bridge;
    struct world *world = &bridge.world;
    (void)state;
    bridge_open(&bridge);
    bridge.cuts = true;
    world->client.to_send = 5000;
    world->client.shuts_when_sent = true;
    bridge_start(&bridge, shake(&bridge));
    peer_pump(&world->client);
    harness_run_until(world->loop, world_relay_is_over, world);
    harness_run_until_quiet(world->loop);
    assert_int_equal(world->result.end, RELAY_RESET);
    assert_int_equal(world->result.side, RELAY_A);
    assert_int_equal(world->result.error, ENODATA);
    assert_int_equal(world->result.bytes[RELAY_A], 5000);
    assert_int_equal(world->server.error, ECONNRESET);
    assert_false(world->server.has_eof);
    bridge_close(&bridge);
}

static void test_a_servers_reset_is_no_end_in_order(void **state)
{
    static struct bridge bridge;
    struct world *world = &bridge.world;
    (void)state;
    bridge_open(&bridge);
    world->server.to_send = 100;
    bridge_start(&bridge, shake(&bridge));
    harness_run_until_quiet(world->loop);
    assert_int_equal(world->client.received, 100);
    peer_close(&world->server, true);
    harness_run_until(world->loop, world_relay_is_over, world);
    harness_run_until_quiet(world->loop);
    assert_int_equal(world->result.end, RELAY_RESET);
    assert_int_equal(world->result.side, RELAY_B);
    assert_int_equal(bridge.outcome, -2); /* no close_notify */
    bridge_close(&bridge);
}

static bool server_has_4_mib(void *context)
{
    const struct world *world = context;
    return world->server.received >= 4u * MIB;
}

static bool client_has_4_mib(void *context)
{
    const struct world *world = context;
    return world->client.received >= 4u * MIB;
}

/* The reader stops and goes: the source stops too, what is held has its cap, and nothing is lost. */
static void test_slow_readers_stop_the_source(void **state)
{
    (void)state;
    for (int slow_client = 0; slow_client < 2; slow_client++) {
        static struct bridge bridge;
        struct world *world = &bridge.world;
        bridge_open(&bridge);
        struct peer *source = slow_client ? &world->server : &world->client;
        struct peer *reader = slow_client ? &world->client : &world->server;
        enum relay_side from = slow_client ? RELAY_B : RELAY_A;
        source->to_send = 64 * MIB;
        source->shuts_when_sent = reader->shuts_when_sent = true;
        bridge_start(&bridge, shake(&bridge));
        peer_pump(source);
        harness_run_until(world->loop, slow_client ? client_has_4_mib : server_has_4_mib, world);
        for (int i = 0; i < 3; i++) {
            reader->is_paused = true;
            harness_run_until_quiet(world->loop);
            assert_true(source->sent < source->to_send);
            assert_true(relay_held_len(&world->relay->legs[from]) > 0);
            assert_true(relay_held_len(&world->relay->legs[from]) <= RELAY_READ_MAX);
            reader->is_paused = false;
            peer_pump(reader);
        }
        harness_run_until(world->loop, world_is_over, world);
        assert_int_equal(reader->received, 64 * MIB);
        assert_int_equal(world->result.end, RELAY_DONE);
        assert_int_equal(bridge.outcome, 0);
        bridge_close(&bridge);
    }
}

/* A relay that begins with early data acts before the client is there, but does not wait for it for ever. */
static void test_who_never_finishes_the_handshake_is_reset(void **state)
{
    static struct bridge bridge;
    struct world *world = &bridge.world;
    uint8_t buf[10], early[5];
    size_t written;
    int pair[2];
    (void)state;
    bridge_open(&bridge);
    struct tls_stream *stream = shake(&bridge);
    assert_int_equal(tls_client_read(&bridge.client, buf, 1), 0);
    assert_non_null(bridge.client.ticket);
    tls_stream_free(stream);
    tls_client_close(&bridge.client);
    (void)close(world->fd_a);

    harness_pair(pair);
    world->fd_a = pair[1];
    bridge.secure.fd = pair[0];
    stream_fill(1, 0, early, sizeof early);
    tls_client_connect(&bridge.client, pair[0], true);
    assert_int_equal(SSL_write_early_data(bridge.client.ssl, early, sizeof early, &written), 1);
    stream = stream_new(&bridge);
    assert_int_equal(tls_recv(stream, buf, sizeof buf, false), 5);
    world->server.to_send = 1000;
    world->server.shuts_when_sent = true;
    world->tls = stream;
    world_start(world, buf, 5);
    world_run_for(world, 1000); /* quick, and fine so far */
    assert_false(world->is_over);
    assert_int_equal(world->server.received, 5);
    harness_run_until(world->loop, world_relay_is_over, world);
    assert_int_equal(world->result.end, RELAY_RESET);
    assert_int_equal(world->result.side, RELAY_A);
    assert_int_equal(world->result.error, ETIMEDOUT);
    assert_int_equal(bridge.finished, 1);
    bridge.secure.fd = -1;
    bridge_close(&bridge);
}

/* The end of the server comes while the client has not finished: it is said once it has. */
static void test_an_end_waits_for_the_handshake(void **state)
{
    static struct bridge bridge;
    struct world *world = &bridge.world;
    uint8_t buf[10], early[5];
    size_t written;
    int pair[2];
    (void)state;
    bridge_open(&bridge);
    struct tls_stream *stream = shake(&bridge);
    assert_int_equal(tls_client_read(&bridge.client, buf, 1), 0);
    tls_stream_free(stream);
    tls_client_close(&bridge.client);
    (void)close(world->fd_a);

    harness_pair(pair);
    world->fd_a = pair[1];
    bridge.secure.fd = pair[0];
    stream_fill(1, 0, early, sizeof early);
    tls_client_connect(&bridge.client, pair[0], true);
    assert_int_equal(SSL_write_early_data(bridge.client.ssl, early, sizeof early, &written), 1);
    stream = stream_new(&bridge);
    assert_int_equal(tls_recv(stream, buf, sizeof buf, false), 5);
    world->server.to_send = 24 * MIB; /* more than the client's socket takes */
    world->server.shuts_when_sent = true;
    world->tls = stream;
    world_start(world, NULL, 0);
    harness_run_until_quiet(world->loop);
    assert_false(world->is_over);
    assert_true(world->server.sent < 24 * MIB);
    assert_false(tls_is_finished(stream));
    world->client.shuts_when_sent = true;
    peer_pump(&world->client);
    assert_int_equal(loop_add(world->loop, &bridge.plain, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET), 0);
    assert_int_equal(loop_add(world->loop, &bridge.secure, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET), 0);
    harness_run_until(world->loop, world_is_over, world);
    assert_int_equal(world->client.received, 24 * MIB);
    assert_int_equal(world->result.end, RELAY_DONE);
    assert_int_equal(bridge.finished, 2);
    bridge_close(&bridge);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways_deliver_everything),
        cmocka_unit_test(test_ends_are_passed_on_one_by_one),
        cmocka_unit_test(test_a_fin_alone_resets_the_server),
        cmocka_unit_test(test_a_servers_reset_is_no_end_in_order),
        cmocka_unit_test(test_slow_readers_stop_the_source),
        cmocka_unit_test(test_who_never_finishes_the_handshake_is_reset),
        cmocka_unit_test(test_an_end_waits_for_the_handshake),
    };
    world_init(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
