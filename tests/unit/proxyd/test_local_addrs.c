/*
 * Interface addresses, in a network namespace of our own with nothing but "lo" in it, whose addresses we set as we
 * like.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "proxyd/local_addrs.h"
#include "proxyd/log.h"

#define WAIT_MS 5000

static bool has_namespace;
static struct loop *loop;
static struct local_addrs *local;

static int make_namespace(void **state)
{
    (void)state;
    has_namespace = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    return 0;
}

static int setup(void **state)
{
    int err = loop_new(&loop);

    (void)state;
    return err != 0 ? err : local_addrs_new(loop, &local);
}

static int teardown(void **state)
{
    (void)state;
    local_addrs_free(local);
    local = NULL;
    loop_free(loop);
    return 0;
}

#define NEEDS_NAMESPACE()                                                                                              \
    do {                                                                                                               \
        if (!has_namespace) {                                                                                          \
            print_message("skipped: no network namespace without privileges here\n");                                  \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

static struct socks6_addr addr_of(const char *text)
{
    uint8_t bytes[16];

    if (inet_pton(AF_INET, text, bytes) == 1) {
        return socks6_addr_ipv4(bytes, 80);
    }
    assert_int_equal(inet_pton(AF_INET6, text, bytes), 1);
    return socks6_addr_ipv6(bytes, 80);
}

static bool has(const char *text)
{
    struct socks6_addr addr = addr_of(text);

    return local_addrs_has(local, &addr);
}

/* `label` is "lo" or an alias of it; 0.0.0.0 takes the address of an alias away. */
static void set_ipv4(const char *label, const char *text)
{
    struct ifreq request = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    (void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", label);
    memcpy(&request.ifr_addr, &address, sizeof address);
    assert_int_equal(ioctl(fd, SIOCSIFADDR, &request), 0);
    assert_int_equal(close(fd), 0);
}

static void change_ipv6(const char *text, bool add)
{
    struct in6_ifreq request = {.ifr6_prefixlen = 128};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    request.ifr6_ifindex = (int)if_nametoindex("lo");
    assert_int_equal(inet_pton(AF_INET6, text, &request.ifr6_addr), 1);
    assert_int_equal(ioctl(fd, add ? SIOCSIFADDR : SIOCDIFADDR, &request), 0);
    assert_int_equal(close(fd), 0);
}

struct waiting {
    struct loop_timer look, limit;
    const char *text;
    bool wanted, failed;
};

static void look(struct loop_timer *timer)
{
    struct waiting *waiting = (void *)((char *)timer - offsetof(struct waiting, look));

    if (has(waiting->text) == waiting->wanted) {
        loop_stop(loop);
    } else {
        loop_timer_set(loop, timer, 1);
    }
}

static void give_up(struct loop_timer *timer)
{
    struct waiting *waiting = (void *)((char *)timer - offsetof(struct waiting, limit));

    waiting->failed = true;
    loop_stop(loop);
}

/* Runs the loop until the address is there, or gone. */
static void wait_for(const char *text, bool wanted)
{
    struct waiting waiting = {.look.expired = look, .limit.expired = give_up, .text = text, .wanted = wanted};

    loop_timer_set(loop, &waiting.look, 1);
    loop_timer_set(loop, &waiting.limit, WAIT_MS);
    assert_int_equal(loop_run(loop), 0);
    loop_timer_cancel(loop, &waiting.look);
    loop_timer_cancel(loop, &waiting.limit);
    if (waiting.failed) {
        fail_msg("%s is %s", text, wanted ? "not there" : "still there");
    }
}

static void test_addresses_are_there_from_the_start(void **state)
{
    NEEDS_NAMESPACE();
    set_ipv4("lo", "127.0.0.1");
    set_ipv4("lo:1", "192.0.2.7");
    change_ipv6("2001:db8::7", true);
    assert_int_equal(setup(state), 0);
    assert_true(has("127.0.0.1"));
    assert_true(has("192.0.2.7"));
    assert_true(has("2001:db8::7"));
    assert_true(has("::ffff:192.0.2.7"));
    assert_false(has("192.0.2.8"));
    assert_false(has("127.0.0.2"));
    assert_false(has("2001:db8::8"));
    assert_false(has("0.0.0.0"));
    (void)teardown(state);
    set_ipv4("lo:1", "0.0.0.0");
    change_ipv6("2001:db8::7", false);
}

static void test_changes_are_followed(void **state)
{
    (void)state;
    NEEDS_NAMESPACE();
    assert_false(has("192.0.2.9"));
    set_ipv4("lo:1", "192.0.2.9");
    wait_for("192.0.2.9", true);
    change_ipv6("2001:db8::9", true);
    wait_for("2001:db8::9", true);
    assert_true(has("192.0.2.9"));
    set_ipv4("lo:1", "0.0.0.0");
    wait_for("192.0.2.9", false);
    assert_true(has("2001:db8::9"));
    change_ipv6("2001:db8::9", false);
    wait_for("2001:db8::9", false);
}

static void test_a_name_is_no_interface_address(void **state)
{
    struct socks6_addr name;

    (void)state;
    assert_int_equal(socks6_addr_name("localhost", 9, 80, &name), 1);
    assert_false(local_addrs_has(local, &name));
}

/* So many changes without a look at the socket that its buffer runs over: the kernel says ENOBUFS, and we look anew. */
static void test_lost_notices_do_no_harm(void **state)
{
    (void)state;
    NEEDS_NAMESPACE();
    for (int i = 0; i < 3000; i++) {
        change_ipv6("2001:db8::1:1", true);
        change_ipv6("2001:db8::1:1", false);
    }
    change_ipv6("2001:db8::1:2", true);
    wait_for("2001:db8::1:2", true);
    assert_false(has("2001:db8::1:1"));
    change_ipv6("2001:db8::1:2", false);
    wait_for("2001:db8::1:2", false);
}

static void test_many_addresses_fit(void **state)
{
    char text[INET6_ADDRSTRLEN];

    (void)state;
    NEEDS_NAMESPACE();
    for (unsigned i = 1; i <= 600; i++) {
        (void)snprintf(text, sizeof text, "2001:db8::2:%x", i);
        change_ipv6(text, true);
    }
    wait_for("2001:db8::2:258", true);
    for (unsigned i = 1; i <= 600; i++) {
        (void)snprintf(text, sizeof text, "2001:db8::2:%x", i);
        assert_true(has(text));
        change_ipv6(text, false);
    }
    wait_for("2001:db8::2:258", false);
    assert_false(has("2001:db8::2:1"));
}

static atomic_bool readers_stop;

static void *read_on(void *arg)
{
    uintptr_t found = 0;

    (void)arg;
    while (!atomic_load(&readers_stop)) {
        found += has("2001:db8::3:1");
    }
    return (void *)found;
}

static void test_look_ups_from_other_threads_do_not_hold_it_up(void **state)
{
    pthread_t readers[4];

    (void)state;
    NEEDS_NAMESPACE();
    atomic_store(&readers_stop, false);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, NULL), 0);
    }
    for (int i = 0; i < 20; i++) {
        change_ipv6("2001:db8::3:1", true);
        wait_for("2001:db8::3:1", true);
        change_ipv6("2001:db8::3:1", false);
        wait_for("2001:db8::3:1", false);
    }
    atomic_store(&readers_stop, true);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
}

static void test_free_takes_null(void **state)
{
    (void)state;
    local_addrs_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_are_there_from_the_start),
        cmocka_unit_test_setup_teardown(test_changes_are_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_name_is_no_interface_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_notices_do_no_harm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_addresses_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_look_ups_from_other_threads_do_not_hold_it_up, setup, teardown),
        cmocka_unit_test(test_free_takes_null),
    };

    return cmocka_run_group_tests(tests, make_namespace, NULL);
}
