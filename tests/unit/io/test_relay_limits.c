/*
 * Limits of a relay on a clock that jumps, and what it does for peers that keep their window closed.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "io/relay_internal.h"
#include "io/sock.h"
#include "world.h"

#define MINUTE 60000ull
#define HOUR (60 * MINUTE)

/*
 * The clock of a test starts a little after what it measures; a late acknowledgement counts as traffic at the next
 * look.
 */
#define EARLY 1000ull
#define LATE (5 * MINUTE)

/* Runs to the end and returns how long that took on the jumping clock. */
static uint64_t run_to_end(struct world *world)
{
    uint64_t start = loop_now_ms(world->loop);
    harness_run_until(world->loop, world_relay_is_over, world);
    return loop_now_ms(world->loop) - start;
}

static void send_from_client(struct world *world, uint64_t len)
{
    world->client.to_send += len;
    peer_pump(&world->client);
}

static int int_option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* Not before: most connections are over by then. The accepted side has them from its listener. */
static void test_after_a_second_the_dialled_side_gets_what_finds_dead_peers(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    const int off = 0;
    assert_int_equal(setsockopt(world.fd_b, SOL_SOCKET, SO_KEEPALIVE, &off, sizeof off), 0);
    sock_set_user_timeout(world.fd_b, 0);
    world_start(&world, NULL, 0);
    world_run_for(&world, 500);
    assert_int_equal(int_option(world.fd_b, SOL_SOCKET, SO_KEEPALIVE), 0);
    world_run_for(&world, 1000);
    assert_int_equal(int_option(world.fd_b, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(int_option(world.fd_b, IPPROTO_TCP, TCP_KEEPIDLE), SOCK_KEEPALIVE_S);
    assert_int_equal(int_option(world.fd_b, IPPROTO_TCP, TCP_KEEPINTVL), SOCK_KEEPALIVE_INTERVAL_S);
    assert_int_equal(int_option(world.fd_b, IPPROTO_TCP, TCP_KEEPCNT), SOCK_KEEPALIVE_COUNT);
    assert_int_equal(harness_user_timeout(world.fd_b), SOCK_USER_TIMEOUT_MS);
    world_close(&world);
}

static void test_idle_limit_ends_with_resets(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.idle_ms = 24 * HOUR;
    world.limits.half_closed_ms = 5 * MINUTE; /* does not hold: nothing is half closed */
    world_start(&world, NULL, 0);
    uint64_t took = run_to_end(&world);
    assert_int_equal(world.result.end, RELAY_IDLE);
    assert_in_range(took, 24 * HOUR - EARLY, 24 * HOUR + LATE);
    harness_run_until(world.loop, world_is_over, &world);
    assert_int_equal(world.client.error, ECONNRESET);
    assert_int_equal(world.server.error, ECONNRESET);
    world_close(&world);
}

static void test_short_idle_limit_is_exact(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.idle_ms = 700;
    world_start(&world, NULL, 0);
    assert_in_range(run_to_end(&world), 700, 1500);
    assert_int_equal(world.result.end, RELAY_IDLE);
    world_close(&world);
}

static void test_traffic_puts_the_idle_limit_off(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.idle_ms = 24 * HOUR;
    world_start(&world, NULL, 0);
    for (int i = 0; i < 3; i++) {
        world_run_for(&world, 20 * HOUR);
        assert_false(world.is_over);
        send_from_client(&world, 1);
    }
    uint64_t took = run_to_end(&world);
    assert_int_equal(world.result.end, RELAY_IDLE);
    assert_in_range(took, 24 * HOUR - EARLY, 24 * HOUR + LATE);
    world_close(&world);
}

static void test_without_limits_nothing_ends(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.client.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    world_run_for(&world, 1000 * HOUR);
    assert_false(world.is_over);
    assert_true(world.relay->is_resting);
    assert_false(loop_timer_is_armed(&world.relay->timer));
    world_close(&world);
}

static void test_resting_relay_wakes_with_traffic(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world_start(&world, NULL, 0);
    world_run_for(&world, 3 * MINUTE);
    assert_true(world.relay->is_resting);
    send_from_client(&world, 100);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 100);
    assert_false(world.relay->is_resting);
    assert_true(loop_timer_is_armed(&world.relay->timer));
    world_close(&world);
}

static void test_half_closed_limit_counts_quiet_time(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.idle_ms = 24 * HOUR;
    world.limits.half_closed_ms = 5 * MINUTE;
    world_start(&world, NULL, 0);
    world_run_for(&world, HOUR); /* open: the limit does not hold */
    world.client.shuts_when_sent = true;
    peer_pump(&world.client);
    harness_run_until(world.loop, world_server_has_eof, &world);
    for (int i = 0; i < 3; i++) {
        world_run_for(&world, 4 * MINUTE);
        assert_false(world.is_over);
        world.server.to_send += 10;
        peer_pump(&world.server);
        harness_run_until_quiet(world.loop);
    }
    uint64_t took = run_to_end(&world);
    assert_int_equal(world.result.end, RELAY_HALF_CLOSED_IDLE);
    assert_in_range(took, 5 * MINUTE - EARLY, 5 * MINUTE + LATE);
    assert_int_equal(world.client.received, 30);
    world_close(&world);
}

static void test_short_half_closed_limit_is_exact(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.half_closed_ms = 800;
    world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    assert_in_range(run_to_end(&world), 800, 2000);
    assert_int_equal(world.result.end, RELAY_HALF_CLOSED_IDLE);
    world_close(&world);
}

/* A reader that pauses after the server has sent everything and ended. */
static void pause_and_go_on(uint64_t len, bool fits)
{
    struct world world;
    world_open(&world);
    world.limits.idle_ms = HOUR;
    world.limits.half_closed_ms = MINUTE;
    world.client.is_paused = true;
    world.server.to_send = len;
    world.server.shuts_when_sent = true;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.relay->legs[RELAY_B].ended, fits);
    world_run_for(&world, HOUR / 3);
    assert_false(world.is_over);
    world.client.is_paused = false;
    peer_pump(&world.client);
    uint64_t took = run_to_end(&world);
    assert_int_equal(world.client.received, len);
    assert_true(world.client.has_eof);
    assert_int_equal(world.result.end, RELAY_HALF_CLOSED_IDLE);
    assert_in_range(took, MINUTE - EARLY, MINUTE + LATE);
    world_close(&world);
}

static void test_half_closed_limit_spares_what_is_on_its_way(void **state)
{
    (void)state;
    pause_and_go_on(MIB, true);       /* in the send buffer towards the client */
    pause_and_go_on(16 * MIB, false); /* in the relay and in the server's buffer too */
}

static void test_idle_limit_ends_a_reader_that_never_reads(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.limits.idle_ms = 10 * MINUTE;
    world.server.is_paused = true;
    world.client.to_send = 64 * MIB;
    world_start(&world, NULL, 0);
    assert_in_range(run_to_end(&world), 10 * MINUTE - EARLY, 10 * MINUTE + 2 * LATE);
    assert_int_equal(world.result.end, RELAY_IDLE);
    world_close(&world);
}

static void test_closed_window_lifts_user_timeout(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 64 * MIB;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    assert_int_equal(harness_user_timeout(world.fd_b), SOCK_USER_TIMEOUT_MS);
    for (int i = 0; i < 100 && harness_user_timeout(world.fd_b) != 0; i++) { /* as in the test below */
        (void)poll(NULL, 0, 2);
        world_run_for(&world, MINUTE + 1000);
    }
    assert_int_equal(harness_user_timeout(world.fd_b), 0);
    assert_int_equal(harness_user_timeout(world.fd_a), SOCK_USER_TIMEOUT_MS);

    world.server.is_paused = false;
    peer_pump(&world.server);
    harness_run_until_quiet(world.loop);
    assert_int_equal(world.server.received, 64 * MIB);
    world_run_for(&world, MINUTE + 1000);
    assert_int_equal(harness_user_timeout(world.fd_b), SOCK_USER_TIMEOUT_MS);
    world_close(&world);
}

/* The window is closed while the other direction never rests. */
static void test_closed_window_is_seen_beside_traffic(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    world.server.is_paused = true;
    world.client.to_send = 64 * MIB;
    world_start(&world, NULL, 0);
    harness_run_until_quiet(world.loop);
    /* The kernel's own probes open and close the window in real time: a look may fall between, the next ones do not. */
    size_t rounds = 0;
    while (harness_user_timeout(world.fd_b) != 0 && rounds < 500) {
        world.server.to_send += 10;
        peer_pump(&world.server);
        world_run_for(&world, 10000);
        (void)poll(NULL, 0, 2);
        rounds++;
    }
    assert_int_equal(world.client.received, 10 * rounds);
    assert_int_equal(harness_user_timeout(world.fd_b), 0);
    assert_int_equal(harness_user_timeout(world.fd_a), SOCK_USER_TIMEOUT_MS);
    world_close(&world);
}

int main(int argc, char **argv)
{
    world_init(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_after_a_second_the_dialled_side_gets_what_finds_dead_peers),
        cmocka_unit_test(test_idle_limit_ends_with_resets),
        cmocka_unit_test(test_short_idle_limit_is_exact),
        cmocka_unit_test(test_traffic_puts_the_idle_limit_off),
        cmocka_unit_test(test_without_limits_nothing_ends),
        cmocka_unit_test(test_resting_relay_wakes_with_traffic),
        cmocka_unit_test(test_half_closed_limit_counts_quiet_time),
        cmocka_unit_test(test_short_half_closed_limit_is_exact),
        cmocka_unit_test(test_half_closed_limit_spares_what_is_on_its_way),
        cmocka_unit_test(test_idle_limit_ends_a_reader_that_never_reads),
        cmocka_unit_test(test_closed_window_lifts_user_timeout),
        cmocka_unit_test(test_closed_window_is_seen_beside_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
