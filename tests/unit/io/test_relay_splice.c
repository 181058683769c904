/*
 * What is particular to relays that may splice: when pipes are taken, given back and done without, and that nothing of
 * it shows at the ends of the stream.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>

#include "io/relay_internal.h"
#include "world.h"

#define MINUTE 60000ull

/* Nothing of the relay's is open but its two sockets and its idle pipes. */
static void assert_pipes(const struct world *world, unsigned used, unsigned idle)
{
    assert_int_equal(world->shared->pipes.count, used + idle);
    assert_int_equal(world->shared->pipes.idle_count, idle);
}

/* `len` bytes from the client, at once or after the server has paused, and both ends. */
static void deliver(struct world *world, uint64_t len)
{
    world->client.to_send = len;
    world->client.shuts_when_sent = world->server.shuts_when_sent = true;
    peer_pump(&world->client);
    harness_run_until(world->loop, world_is_over, world);
    assert_int_equal(world->result.end, RELAY_DONE);
    assert_int_equal(world->server.received, len);
    assert_int_equal(world->result.bytes[RELAY_A], len);
}

static void test_bulk_goes_through_a_pipe_and_small_messages_do_not(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    (void)harness_spliced();
    for (int i = 0; i < 100; i++) {
        world.client.to_send += 1000;
        world.server.to_send += 5000;
        peer_pump(&world.client);
        peer_pump(&world.server);
        harness_run_until_quiet(world.loop);
    }
    assert_int_equal(harness_spliced(), 0);
    assert_pipes(&world, 0, 0);
    deliver(&world, 20 * MIB);
    assert_true(harness_spliced() >= 10 * MIB);
    assert_int_equal(world.no_pipe_count, 0);
    world_close(&world);
}

static void test_copying_relay_never_splices(void **state)
{
    struct world world;
    (void)state;
    world_splices = false;
    world_open(&world);
    world_start(&world, NULL, 0);
    (void)harness_spliced();
    deliver(&world, 20 * MIB);
    assert_int_equal(harness_spliced(), 0);
    assert_pipes(&world, 0, 0);
    world_close(&world);
    world_splices = true;
}

static void test_idle_relay_holds_no_pipe_and_the_pool_is_emptied(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    world.client.to_send = world.server.to_send = 8 * MIB;
    peer_pump(&world.client);
    peer_pump(&world.server);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 8 * MIB);
    assert_true(harness_spliced() > 0);
    assert_true(world.shared->pipes.idle_count >= 1);
    assert_pipes(&world, 0, world.shared->pipes.idle_count);
    unsigned fds = harness_fd_count();
    world_run_for(&world, MINUTE);
    assert_pipes(&world, 0, 0);
    assert_true(harness_fd_count() <= fds - 2);

    /* and it begins anew */
    deliver(&world, 16 * MIB);
    assert_true(harness_spliced() > 0);
    world_close(&world);
}

/* A reader that pauses: what the pipe holds for it. */
static void open_stuck(struct world *world, uint64_t len)
{
    world_open(world);
    world->server.is_paused = true;
    world->client.to_send = len;
    world_start(world, NULL, 0);
    harness_run_until_quiet(world->loop);
    assert_true(relay_held_len(&world->relay->legs[RELAY_A]) > 0);
}

static void test_residue_in_a_pipe_is_capped_and_ages_to_the_heap(void **state)
{
    struct world world;
    (void)state;
    open_stuck(&world, 64 * MIB);
    const struct relay_leg *leg = &world.relay->legs[RELAY_A];
    assert_true(leg->has_pipe);
    assert_true(relay_held_len(leg) <= RELAY_RESIDUE_MAX);
    size_t held = relay_held_len(leg);
    world_run_for(&world, 3 * MINUTE);
    assert_false(leg->has_pipe);
    assert_pipes(&world, 0, 0);
    assert_int_equal(relay_held_len(leg), held);

    world.server.is_paused = false;
    peer_pump(&world.server);
    deliver(&world, 64 * MIB);
    world_close(&world);
}

static void test_without_memory_a_stuck_pipe_stays(void **state)
{
    struct world world;
    (void)state;
    open_stuck(&world, 64 * MIB);
    harness_fail("malloc", 1, ENOMEM);
    world_run_for(&world, MINUTE + 2000);
    assert_true(harness_has_failed());
    assert_true(world.relay->legs[RELAY_A].has_pipe);
    harness_fail(NULL, 0, 0);
    world.server.is_paused = false;
    peer_pump(&world.server);
    deliver(&world, 64 * MIB);
    world_close(&world);
}

static void test_stuck_pipe_that_cannot_be_read_ends_the_relay(void **state)
{
    struct world world;
    (void)state;
    open_stuck(&world, 64 * MIB);
    harness_fail("read", 1, EIO);
    harness_run_until(world.loop, world_relay_is_over, &world);
    assert_true(harness_has_failed());
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.error, EIO);
    assert_pipes(&world, 0, 0);
    harness_fail(NULL, 0, 0);
    world_close(&world);
}

static void test_what_is_left_in_a_pipe_goes_with_the_relay(void **state)
{
    struct world world;
    (void)state;
    open_stuck(&world, 64 * MIB);
    assert_pipes(&world, 1, 0);
    relay_abort(world.relay);
    assert_pipes(&world, 0, 0); /* closed: another stream must not find those bytes */
    world_close(&world);

    open_stuck(&world, 64 * MIB);
    peer_close(&world.server, true);
    harness_run_until(world.loop, world_relay_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_B);
    assert_pipes(&world, 0, 0);
    world_close(&world);
}

/* ---- no pipe ---- */

/* Each refusal leads to a copy of the same bytes; one is counted; a second later it is tried again. */
static void test_refused_pipe_means_copying(void **state)
{
    static const struct {
        const char *call;
        int error;
    } cases[] = {
        {"pipe2", EMFILE}, {"pipe2", ENFILE}, {"pipe2", ENOMEM},
        {"fcntl", EPERM},  {"fcntl", ENOMEM}, {"calloc", ENOMEM},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world world;
        world_open(&world);
        world_start(&world, NULL, 0);
        (void)harness_spliced();
        harness_fail(cases[i].call, 1, cases[i].error);
        world.client.to_send = 20 * MIB;
        peer_pump(&world.client);
        harness_run_until_quiet(world.loop);
        assert_true(harness_has_failed());
        harness_fail(NULL, 0, 0);
        assert_int_equal(world.server.received, 20 * MIB);
        assert_int_equal(world.no_pipe_count, 1);
        harness_advance(1100);
        (void)harness_spliced();
        deliver(&world, 40 * MIB);
        assert_true(harness_spliced() > 0);
        assert_int_equal(world.no_pipe_count, 1);
        world_close(&world);
    }
}

static void test_pool_is_capped(void **state)
{
    struct relay_pipe *pipes[RELAY_PIPES_MAX], *more = NULL;
    struct world world;
    (void)state;
    world_open(&world);
    unsigned count = 0;
    while (count < RELAY_PIPES_MAX && relay_pipes_take(&world.shared->pipes, &pipes[count]) == 0) {
        count++; /* fewer where the user's limit is lower */
    }
    assert_true(relay_pipes_take(&world.shared->pipes, &more) < 0);
    assert_false(relay_pipes_may_take(&world.shared->pipes));
    world_start(&world, NULL, 0);
    (void)harness_spliced();
    world.client.to_send = 8 * MIB;
    peer_pump(&world.client);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 8 * MIB);
    assert_int_equal(harness_spliced(), 0);
    relay_pipes_give(&world.shared->pipes, pipes[--count]);
    deliver(&world, 24 * MIB);
    assert_true(harness_spliced() > 0);
    while (count > 0) {
        relay_pipes_give(&world.shared->pipes, pipes[--count]);
    }
    world_close(&world);
}

/* ---- splice(2) does not work ---- */

static void test_refused_splice_means_copying(void **state)
{
    static const char *const calls[] = {"splice in", "splice out"};
    static const int errors[] = {EINVAL, ENOMEM, ENOSYS};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (unsigned n = 1; n <= 3; n++) {
                struct world world;
                world_open(&world);
                world_start(&world, NULL, 0);
                harness_fail(calls[i], n, errors[j]);
                deliver(&world, 20 * MIB);
                assert_true(harness_has_failed());
                harness_fail(NULL, 0, 0);
                assert_int_equal(world.no_pipe_count, 1);
                assert_pipes(&world, 0, world.shared->pipes.idle_count);
                world_close(&world);
            }
        }
    }
}

static void fail_out_and(const char *call, int error)
{
    struct world world;
    open_stuck(&world, 64 * MIB);
    harness_fail(call, 1, error);
    assert_int_equal(relay_unpipe(world.relay, RELAY_A), error == ENOMEM ? -ENOMEM : -EIO);
    harness_fail(NULL, 0, 0);
    world_close(&world);
}

static void test_pipe_that_cannot_be_emptied_is_an_error(void **state)
{
    (void)state;
    fail_out_and("malloc", ENOMEM);
    fail_out_and("read", EIO);
}

static void test_failing_splice_resets(void **state)
{
    static const char *const calls[] = {"splice in", "splice out"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct world world;
        world_open(&world);
        world_start(&world, NULL, 0);
        harness_fail(calls[i], 2, ECONNRESET);
        world.client.to_send = 20 * MIB;
        peer_pump(&world.client);
        harness_run_until(world.loop, world_relay_is_over, &world);
        assert_true(harness_has_failed());
        harness_fail(NULL, 0, 0);
        assert_int_equal(world.result.end, RELAY_RESET);
        assert_int_equal(world.result.side, i == 0 ? RELAY_A : RELAY_B);
        assert_int_equal(world.result.error, ECONNRESET);
        world_close(&world);
    }
}

static void test_interrupted_splice_loses_nothing(void **state)
{
    static const char *const calls[] = {"splice in", "splice out", "read"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (unsigned n = 1; n <= 3; n++) {
            struct world world;
            open_stuck(&world, 30 * MIB);
            harness_fail(calls[i], n, EINTR);
            if (i == 2) {
                assert_int_equal(relay_unpipe(world.relay, RELAY_A), 0);
            }
            world.server.is_paused = false;
            peer_pump(&world.server);
            deliver(&world, 30 * MIB);
            harness_fail(NULL, 0, 0);
            world_close(&world);
        }
    }
}

/* ---- leaving ---- */

static void test_stream_that_becomes_a_trickle_is_copied_again(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    world.client.to_send = 8 * MIB;
    peer_pump(&world.client);
    harness_run_until_quiet(world.loop);
    (void)harness_spliced();
    for (int i = 0; i < 50; i++) {
        world.client.to_send += 1000;
        peer_pump(&world.client);
        harness_run_until_quiet(world.loop);
        assert_int_equal(world.server.received, world.client.to_send);
    }
    assert_false(world.relay->legs[RELAY_A].is_bulk);
    assert_true(harness_spliced() <= 10 * 1000);
    world_close(&world);
}

/* An urgent byte waits in the queue of a stream that is being spliced: nothing is lost, and nothing gets stuck. */
static void urgent_in_bulk(bool ends)
{
    struct world world;
    uint8_t bytes[1000];
    open_stuck(&world, 10 * MIB);
    /* The client's own queue is full: it goes on when the server reads. */
    world.server.is_paused = false;
    while (world.client.sent < 10 * MIB) {
        peer_pump(&world.server);
        harness_run_until_quiet(world.loop);
    }
    for (int i = 0; i < 20; i++) {
        world.server.is_paused = true;
        world.client.to_send += 3 * MIB;
        peer_pump(&world.client);
        harness_run_until_quiet(world.loop);
        world.server.is_paused = false;
        peer_pump(&world.server);
        harness_run_until_quiet(world.loop);
        assert_int_equal(world.client.sent, world.client.to_send);
        stream_fill(1, world.client.sent, bytes, sizeof bytes);
        assert_int_equal(real_send(world.client.fd, bytes, 500, 0), 500);
        assert_int_equal(real_send(world.client.fd, bytes + 500, 1, MSG_OOB), 1);
        assert_int_equal(real_send(world.client.fd, bytes + 501, 499, 0), 499);
        world.client.sent = world.client.to_send += sizeof bytes;
        if (i % 2 == 0) {
            harness_run_until_quiet(world.loop);
            assert_int_equal(world.server.received, world.client.sent);
        }
    }
    if (ends) {
        deliver(&world, world.client.sent);
    } else {
        harness_run_until_quiet(world.loop);
        assert_int_equal(world.server.received, world.client.sent);
    }
    world_close(&world);
}

static void test_urgent_bytes_between_bulk_stay_in_place(void **state)
{
    (void)state;
    urgent_in_bulk(false);
    urgent_in_bulk(true);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bulk_goes_through_a_pipe_and_small_messages_do_not),
        cmocka_unit_test(test_copying_relay_never_splices),
        cmocka_unit_test(test_idle_relay_holds_no_pipe_and_the_pool_is_emptied),
        cmocka_unit_test(test_residue_in_a_pipe_is_capped_and_ages_to_the_heap),
        cmocka_unit_test(test_without_memory_a_stuck_pipe_stays),
        cmocka_unit_test(test_stuck_pipe_that_cannot_be_read_ends_the_relay),
        cmocka_unit_test(test_what_is_left_in_a_pipe_goes_with_the_relay),
        cmocka_unit_test(test_refused_pipe_means_copying),
        cmocka_unit_test(test_pool_is_capped),
        cmocka_unit_test(test_refused_splice_means_copying),
        cmocka_unit_test(test_pipe_that_cannot_be_emptied_is_an_error),
        cmocka_unit_test(test_failing_splice_resets),
        cmocka_unit_test(test_interrupted_splice_loses_nothing),
        cmocka_unit_test(test_stream_that_becomes_a_trickle_is_copied_again),
        cmocka_unit_test(test_urgent_bytes_between_bulk_stay_in_place),
    };
    world_init(argc, argv);
    world_splices = true;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
