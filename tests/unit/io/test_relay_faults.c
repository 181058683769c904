/*
 * Every system call and allocation on the path of a relay fails once, at every place: the relay ends, nothing hangs,
 * nothing leaks.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>

#include "world.h"

#define PLACES_MAX 20000u

/* Bytes both ways, back-pressure, half-closes, a limit. The relay's start may fail; then nothing else is asked. */
static void converse(struct world *world, const char *call, unsigned n, int error)
{
    world_open(world);
    world->limits.idle_ms = 600000;
    world->limits.half_closed_ms = 600000;
    world->server.is_paused = true;
    world->client.to_send = 6 * MIB;
    world->server.to_send = 300000;
    world->client.shuts_when_sent = true;
    harness_fail(call, n, error);
    int rc = world_try_start(world, NULL, 0);
    if (rc == 0) {
        harness_run_until_quiet(world->loop);
        world->server.is_paused = false;
        world->server.shuts_when_sent = true;
        peer_pump(&world->server);
        harness_run_until(world->loop, world_is_over, world);
    } else {
        assert_true(harness_has_failed());
        assert_int_equal(rc, -error);
        assert_false(world->is_over);
    }
}

/* Until a run does not come to the n-th call. Returns how many there were. */
static unsigned fail_each(const char *call, int error)
{
    unsigned n = 0;
    bool has_failed = true;
    while (has_failed && ++n < PLACES_MAX) {
        struct world world;
        converse(&world, call, n, error);
        has_failed = harness_has_failed();
        harness_fail(NULL, 0, 0);
        if (!has_failed) {
            assert_int_equal(world.result.end, RELAY_DONE);
            assert_int_equal(world.server.received, 6 * MIB);
            assert_int_equal(world.client.received, 300000);
        }
        world_close(&world);
        if (n > 60 && has_failed) {
            n += n / 8; /* the calls of bulk transfer resemble each other */
        }
    }
    assert_true(n < PLACES_MAX);
    return n - 1;
}

static void fail_everywhere(const char *call, int error)
{
    assert_true(fail_each(call, error) > 0); /* the call is on the path at all */
}

static void test_epoll_ctl_fails(void **state)
{
    (void)state;
    fail_everywhere("epoll_ctl", ENOMEM);
    fail_everywhere("epoll_ctl", ENOSPC);
}

static void test_recv_fails(void **state)
{
    (void)state;
    fail_everywhere("recv", ENOMEM);
    fail_everywhere("recv", ETIMEDOUT);
}

static void test_send_fails(void **state)
{
    (void)state;
    fail_everywhere("send", ENOBUFS);
    fail_everywhere("send", EPIPE);
}

static void test_shutdown_fails(void **state)
{
    (void)state;
    fail_everywhere("shutdown", ENOTCONN);
}

static void test_getsockopt_fails(void **state)
{
    (void)state;
    fail_everywhere("getsockopt", ENOBUFS);
}

static void test_malloc_fails(void **state)
{
    unsigned count = fail_each("malloc", ENOMEM);

    (void)state;
    assert_true(count > 0 || world_splices); /* what is spliced is seldom held on the heap, too */
}

static void test_mmap_fails(void **state)
{
    (void)state;
    fail_everywhere("mmap", ENOMEM);
}

/* Where nothing is spliced these calls are not made. */
static void test_calls_of_splicing_fail(void **state)
{
    static const struct {
        const char *name;
        int error;
    } calls[] = {
        {"splice", ECONNRESET}, {"splice", ENOMEM}, {"splice out", EPIPE},
        {"pipe2", EMFILE},      {"fcntl", EPERM},   {"calloc", ENOMEM},
    };

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        assert_int_equal(fail_each(calls[i].name, calls[i].error) > 0, world_splices);
    }
}

/* Interrupted calls are made again: nothing is lost. */
static void test_interrupted_calls_lose_nothing(void **state)
{
    static const char *const calls[] = {"recv", "send", "epoll_wait"};
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        for (unsigned n = 1; n < 12; n++) {
            struct world world;
            converse(&world, calls[i], n, EINTR);
            assert_true(harness_has_failed() || n > (world_splices ? 1 : 4)); /* splicing needs few of them */
            harness_fail(NULL, 0, 0);
            assert_int_equal(world.result.end, RELAY_DONE);
            assert_int_equal(world.server.received, 6 * MIB);
            assert_int_equal(world.client.received, 300000);
            world_close(&world);
        }
    }
}

/* A reset that cannot be made sure of is a close all the same. */
static void test_setsockopt_fails_at_the_end(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 2; n++) {
        struct world world;
        world_open(&world);
        world_start(&world, NULL, 0);
        harness_run_until_quiet(world.loop);
        harness_fail("setsockopt", n, ENOMEM);
        relay_abort(world.relay);
        assert_true(harness_has_failed());
        harness_run_until(world.loop, world_is_over, &world);
        world_close(&world);
    }
}

static void test_shared_without_memory_fails(void **state)
{
    static const char *const calls[] = {"calloc", "malloc"};
    (void)state;
    harness_guard();
    struct loop *loop;
    assert_int_equal(loop_new(&loop), 0);
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct relay_shared *shared = NULL;
        harness_fail(calls[i], 1, ENOMEM);
        assert_int_equal(relay_shared_new(loop, 8, &(struct relay_hooks){0}, &shared), -ENOMEM);
        assert_null(shared);
    }
    harness_fail(NULL, 0, 0);
    relay_shared_free(NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    world_init(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epoll_ctl_fails),
        cmocka_unit_test(test_recv_fails),
        cmocka_unit_test(test_send_fails),
        cmocka_unit_test(test_shutdown_fails),
        cmocka_unit_test(test_getsockopt_fails),
        cmocka_unit_test(test_malloc_fails),
        cmocka_unit_test(test_mmap_fails),
        cmocka_unit_test(test_calls_of_splicing_fail),
        cmocka_unit_test(test_interrupted_calls_lose_nothing),
        cmocka_unit_test(test_setsockopt_fails_at_the_end),
        cmocka_unit_test(test_shared_without_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
