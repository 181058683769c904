/*
 * What the relay delivers: everything, once, in order, both ways, whatever the readers do; and how ends and resets are
 * passed on.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/relay_internal.h"
#include "world.h"

static void test_both_ways_deliver_everything(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.client.to_send = 20 * MIB + 7;
    world.server.to_send = 13 * MIB + 1;
    world.client.shuts_when_sent = world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.result.end, RELAY_DONE);
    assert_int_equal(world.result.error, 0);
    assert_int_equal(world.result.bytes[RELAY_A], 20 * MIB + 7);
    assert_int_equal(world.result.bytes[RELAY_B], 13 * MIB + 1);
    assert_int_equal(world.server.received, 20 * MIB + 7);
    assert_int_equal(world.client.received, 13 * MIB + 1);
    assert_int_equal(world.client.error, 0);
    assert_int_equal(world.server.error, 0);
    world_close(&world);
}

static void on_first_event(struct loop_io *io, uint32_t events)
{
    (void)events;
    io->ready = NULL; /* a second one would crash */
}

/* As the dialer leaves it. What came meanwhile is found. */
static void test_parked_socket_is_taken_over(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    struct loop_io io = {.ready = on_first_event, .fd = world.fd_b};
    assert_int_equal(loop_add(world.loop, &io, EPOLLOUT | EPOLLONESHOT), 0);
    harness_run_until_quiet(world.loop);
    assert_null(io.ready);
    loop_park(world.loop, &io);
    assert_int_equal(io.fd, -1);
    world.server.to_send = 5000;
    world.server.shuts_when_sent = true;
    peer_pump(&world.server);
    harness_run_until_quiet(world.loop);

    world.b_is_parked = true;
    world_start(&world, NULL, 0);
    harness_run_until(world.loop, world_client_has_eof, &world);
    assert_int_equal(world.client.received, 5000);
    world.client.to_send = 3 * MIB;
    world.client.shuts_when_sent = true;
    peer_pump(&world.client);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.server.received, 3 * MIB);
    assert_int_equal(world.result.end, RELAY_DONE);
    world_close(&world);
}

static void test_half_close_of_client_lets_server_answer(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.client.to_send = MIB;
    world.client.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until(world.loop, world_server_has_eof, &world);
    assert_int_equal(world.server.received, MIB);
    assert_false(world.is_over);
    assert_false(world.client.has_eof);

    world.server.to_send = 3 * MIB;
    world.server.shuts_when_sent = true;
    peer_pump(&world.server);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.client.received, 3 * MIB);
    assert_int_equal(world.result.end, RELAY_DONE);
    world_close(&world);
}

static void test_half_close_of_server_lets_client_go_on(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.to_send = 100;
    world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until(world.loop, world_client_has_eof, &world);
    assert_int_equal(world.client.received, 100);
    assert_false(world.is_over);

    world.client.to_send = 2 * MIB;
    world.client.shuts_when_sent = true;
    peer_pump(&world.client);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.server.received, 2 * MIB);
    assert_int_equal(world.result.end, RELAY_DONE);
    world_close(&world);
}

static void test_data_and_fin_in_one_wakeup_are_delivered(void **state)
{
    (void)state;
    for (unsigned len = 0; len <= 1000; len += 500) {
        struct world world;
        world_open(&world);
        world.client.to_send = world.server.to_send = len;
        world.client.shuts_when_sent = world.server.shuts_when_sent = true;
        peer_pump(&world.client); /* everything is in the sockets before the relay sees them */
        peer_pump(&world.server);
        assert_true(world.client.is_shut && world.server.is_shut);
        world_start(&world, NULL, 0);
        harness_run_until(world.loop, world_is_over, &world);
        assert_int_equal(world.result.end, RELAY_DONE);
        assert_int_equal(world.server.received, len);
        assert_int_equal(world.client.received, len);
        world_close(&world);
    }
}

static void test_fin_waits_for_a_reader_that_pauses(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 24 * MIB;
    world.client.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_false(world.is_over);
    assert_true(relay_held_len(&world.relay->legs[RELAY_A]) > 0);

    world.server.is_paused = false;
    world.server.shuts_when_sent = true;
    peer_pump(&world.server);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.server.received, 24 * MIB);
    assert_int_equal(world.result.end, RELAY_DONE);
    world_close(&world);
}

/* ---- back-pressure ---- */

static bool server_has_8_mib(void *context)
{
    const struct world *world = context;
    return world->server.received >= 8u * MIB;
}

static uint64_t queued(int fd, unsigned long request)
{
    int len = 0;
    assert_int_equal(ioctl(fd, request, &len), 0);
    return (uint64_t)len;
}

static void test_slow_reader_stops_the_source_and_owns_little(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.client.to_send = 256 * MIB;
    world_start(&world, NULL, 0);
    (void)harness_largest_malloc();
    harness_run_until(world.loop, server_has_8_mib, &world); /* until reads have grown */

    /* Stop and go: the residue stays under its cap each time. */
    for (int i = 0; i < 6; i++) {
        world.server.is_paused = true;
        harness_run_until_quiet(world.loop);
        const struct relay_leg *leg = &world.relay->legs[RELAY_A];
        assert_true(relay_held_len(leg) <= RELAY_RESIDUE_MAX);
        assert_true(world.client.sent < world.client.to_send);
        /* By the sockets' accounts: taken from the client and not given to the server is no more than the residue. */
        uint64_t taken = world.client.sent - queued(world.fd_a, SIOCINQ) - queued(world.client.fd, SIOCOUTQ);
        assert_true(taken <= leg->bytes + RELAY_RESIDUE_MAX);
        uint64_t before = world.server.received;
        world.server.is_paused = false;
        peer_pump(&world.server);
        assert_true(world.server.received > before);
    }
    assert_true(harness_largest_malloc() <= RELAY_RESIDUE_MAX);
    world_close(&world);
}

static void test_residue_is_delivered_in_order(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 40 * MIB;
    world.client.shuts_when_sent = world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    while (world.server.received < 40 * MIB) {
        uint64_t sip = world.server.received + 3 * MIB;
        world.server.is_paused = false;
        while (world.server.received < sip) {
            peer_pump(&world.server); /* checks the bytes */
            harness_run_until_quiet(world.loop);
            if (world.server.has_eof) {
                break;
            }
        }
        world.server.is_paused = !world.server.has_eof && world.server.received < 40 * MIB;
        harness_run_until_quiet(world.loop);
    }
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.server.received, 40 * MIB);
    assert_int_equal(world.result.end, RELAY_DONE);
    assert_int_equal(world.result.bytes[RELAY_A], 40 * MIB);
    world_close(&world);
}

static void test_blocked_direction_does_not_stop_the_other(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 64 * MIB;
    world.server.to_send = 10 * MIB;
    world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until(world.loop, world_client_has_eof, &world);
    assert_int_equal(world.client.received, 10 * MIB);
    assert_false(world.is_over);
    world_close(&world);
}

/* ---- early bytes ---- */

static const uint8_t *early_bytes(size_t len)
{
    static uint8_t early[16 * MIB];
    assert_true(len <= sizeof early);
    stream_fill(1, 0, early, len);
    return early;
}

static void test_early_bytes_come_first(void **state)
{
    static const size_t lens[] = {1, 16384, 3 * MIB};
    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct world world;
        world_open(&world);
        world.client.sent = lens[i]; /* the stream goes on where the early bytes end */
        world.client.to_send = lens[i] + MIB;
        world.server.is_paused = true;
        world.client.shuts_when_sent = world.server.shuts_when_sent = true;
        peer_pump(&world.client);
        world_start(&world, early_bytes(lens[i]), lens[i]);
        harness_run_until_quiet(world.loop);
        world.server.is_paused = false;
        peer_pump(&world.server);
        harness_run_until(world.loop, world_is_over, &world);
        assert_int_equal(world.server.received, lens[i] + MIB);
        assert_int_equal(world.result.bytes[RELAY_A], lens[i] + MIB);
        assert_int_equal(world.result.end, RELAY_DONE);
        world_close(&world);
    }
}

static void test_early_bytes_of_a_client_that_reset_are_freed(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world_start(&world, early_bytes(16 * MIB), 16 * MIB);
    harness_run_until_quiet(world.loop);
    assert_true(relay_held_len(&world.relay->legs[RELAY_A]) > 0);
    peer_close(&world.client, true);
    world.server.is_paused = false;
    harness_run_until(world.loop, world_relay_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    world_close(&world);
}

/* ---- urgent bytes ---- */

static void test_urgent_byte_stays_in_place(void **state)
{
    enum { LEN = 2000 };
    static const size_t places[] = {0, 1, 1000, LEN - 1};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        uint8_t bytes[LEN];
        struct world world;
        size_t urgent = places[i];
        world_open(&world);
        stream_fill(1, 0, bytes, sizeof bytes);
        if (urgent > 0) {
            assert_int_equal(real_send(world.client.fd, bytes, urgent, 0), (ssize_t)urgent);
        }
        assert_int_equal(real_send(world.client.fd, bytes + urgent, 1, MSG_OOB), 1);
        if (urgent + 1 < LEN) {
            assert_int_equal(real_send(world.client.fd, bytes + urgent + 1, LEN - urgent - 1, 0),
                             (ssize_t)(LEN - urgent - 1));
        }
        world.client.sent = world.client.to_send = LEN;
        world.client.shuts_when_sent = false;
        world_start(&world, NULL, 0);
        harness_run_until_quiet(world.loop);
        assert_int_equal(world.server.received, LEN); /* without a FIN to help */
        world_close(&world);
    }
}

static void test_urgent_bytes_in_a_running_stream_stay_in_place(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    for (unsigned i = 0; i < 200; i++) {
        uint8_t bytes[300];
        stream_fill(1, world.client.sent, bytes, sizeof bytes);
        for (size_t at = 0; at < sizeof bytes; at += 100) {
            assert_int_equal(real_send(world.client.fd, bytes + at, 99, 0), 99);
            assert_int_equal(real_send(world.client.fd, bytes + at + 99, 1, MSG_OOB), 1);
        }
        world.client.sent = world.client.to_send += sizeof bytes;
        if (i % 7 == 0) {
            harness_run_until_quiet(world.loop);
            assert_int_equal(world.server.received, world.client.sent);
        }
    }
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, world.client.sent);
    world_close(&world);
}

/* ---- resets ---- */

static void test_reset_of_client_resets_server(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.client.to_send = 1000;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 1000);
    peer_close(&world.client, true);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_A);
    assert_int_equal(world.result.error, ECONNRESET);
    assert_int_equal(world.server.error, ECONNRESET);
    world_close(&world);
}

static void test_reset_of_server_resets_client(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    peer_close(&world.server, true);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_B);
    assert_int_equal(world.result.error, ECONNRESET);
    assert_int_equal(world.client.error, ECONNRESET);
    world_close(&world);
}

static void test_reset_is_passed_on_although_everything_is_blocked(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 64 * MIB;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_true(relay_held_len(&world.relay->legs[RELAY_A]) > 0);
    peer_close(&world.client, true);
    harness_run_until(world.loop, world_relay_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_A);
    world_close(&world);
}

/* A server that answers without having read the request: its kernel sends the answer, then a reset. */
static void answer_and_reset(uint64_t request_len)
{
    struct world world;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = request_len;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    world.server.to_send = 20000;
    peer_pump(&world.server);
    assert_int_equal(world.server.sent, 20000);
    peer_close(&world.server, false);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.client.received, 20000);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_B);
    assert_int_equal(world.result.bytes[RELAY_B], 20000);
    assert_false(world.client.has_eof);
    world_close(&world);
}

static void test_answer_before_a_reset_is_delivered(void **state)
{
    (void)state;
    answer_and_reset(1000);
    answer_and_reset(64 * MIB);
}

static void test_write_to_a_closed_server_resets_the_client(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    peer_close(&world.server, false); /* a FIN; only our next bytes meet a reset */
    harness_run_until(world.loop, world_client_has_eof, &world);
    world.client.to_send = 10 * MIB;
    peer_pump(&world.client);
    harness_run_until(world.loop, world_relay_is_over, &world);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.side, RELAY_B);
    assert_true(world.result.error == ECONNRESET || world.result.error == EPIPE);
    world_close(&world);
}

static void test_abort_resets_both(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    relay_abort(world.relay);
    assert_true(world.is_over);
    assert_int_equal(world.result.end, RELAY_RESET);
    assert_int_equal(world.result.error, ECONNABORTED);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.client.error, ECONNRESET);
    assert_int_equal(world.server.error, ECONNRESET);
    world_close(&world);
}

static void test_start_with_a_bad_descriptor_takes_everything(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    assert_int_equal(close(world.fd_b), 0);
    world.fd_b = open("/dev/null", O_RDWR | O_CLOEXEC); /* epoll refuses it */
    assert_true(world.fd_b >= 0);
    assert_int_equal(world_try_start(&world, early_bytes(10), 10), -EPERM);
    assert_null(world.relay);
    assert_false(world.is_over);
    world_close(&world);
}

static void test_start_with_absurd_early_bytes_takes_everything(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    assert_int_equal(world_try_start(&world, early_bytes(10), (size_t)UINT32_MAX + 1), -EINVAL);
    assert_null(world.relay);
    world_close(&world);
}

/* epoll reports an error for whatever stands in a socket's error queue, such as time stamps: the stream goes on. */
static void test_error_event_without_error_ends_nothing(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    const int stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY;
    assert_int_equal(setsockopt(world.fd_b, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps), 0);
    world.client.to_send = world.server.to_send = 3 * MIB;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 3 * MIB);
    assert_int_equal(world.client.received, 3 * MIB);
    struct pollfd waiting = {.fd = world.fd_b};
    assert_int_equal(poll(&waiting, 1, 0), 1); /* there is an error event indeed */
    assert_int_equal(waiting.revents & POLLERR, POLLERR);
    world.client.shuts_when_sent = world.server.shuts_when_sent = true;
    peer_pump(&world.client);
    peer_pump(&world.server);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.result.end, RELAY_DONE);
    assert_int_equal(world.client.error, 0);
    assert_int_equal(world.server.error, 0);
    world_close(&world);
}

/* ---- fairness ---- */

static void test_endless_source_does_not_starve_the_loop(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    harness_endless_source(world.fd_a);
    assert_int_equal(real_send(world.client.fd, "x", 1, 0), 1);
    world_run_for(&world, 50); /* the timer must get its turn */
    assert_true(harness_endless_count() > RELAY_BUDGET_ROUNDS);
    harness_endless_source(-1);
    world_close(&world);
}

int main(int argc, char **argv)
{
    world_init(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways_deliver_everything),
        cmocka_unit_test(test_parked_socket_is_taken_over),
        cmocka_unit_test(test_half_close_of_client_lets_server_answer),
        cmocka_unit_test(test_half_close_of_server_lets_client_go_on),
        cmocka_unit_test(test_data_and_fin_in_one_wakeup_are_delivered),
        cmocka_unit_test(test_fin_waits_for_a_reader_that_pauses),
        cmocka_unit_test(test_slow_reader_stops_the_source_and_owns_little),
        cmocka_unit_test(test_residue_is_delivered_in_order),
        cmocka_unit_test(test_blocked_direction_does_not_stop_the_other),
        cmocka_unit_test(test_early_bytes_come_first),
        cmocka_unit_test(test_early_bytes_of_a_client_that_reset_are_freed),
        cmocka_unit_test(test_urgent_byte_stays_in_place),
        cmocka_unit_test(test_urgent_bytes_in_a_running_stream_stay_in_place),
        cmocka_unit_test(test_reset_of_client_resets_server),
        cmocka_unit_test(test_reset_of_server_resets_client),
        cmocka_unit_test(test_reset_is_passed_on_although_everything_is_blocked),
        cmocka_unit_test(test_answer_before_a_reset_is_delivered),
        cmocka_unit_test(test_write_to_a_closed_server_resets_the_client),
        cmocka_unit_test(test_abort_resets_both),
        cmocka_unit_test(test_start_with_a_bad_descriptor_takes_everything),
        cmocka_unit_test(test_start_with_absurd_early_bytes_takes_everything),
        cmocka_unit_test(test_error_event_without_error_ends_nothing),
        cmocka_unit_test(test_endless_source_does_not_starve_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
