/*
 * The n-th allocation fails, for every n: configuration, limits, interface addresses and log say so, keep what they had
 * and lose nothing.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/config_internal.h"
#include "proxyd/limits.h"
#include "proxyd/local_addrs.h"
#include "proxyd/log.h"

/* Allocations that still succeed, then none does; negative = all. */
static int left = -1;

static bool fails(void)
{
    if (left > 0) {
        left--;
    } else if (left == 0) {
        return true;
    }
    return false;
}

/* The linker sends our calls here (--wrap); libc and libyaml keep their own. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_reallocarray(void *ptr, size_t count, size_t size);
void *__wrap_reallocarray(void *ptr, size_t count, size_t size);
char *__real_strndup(const char *text, size_t len);
char *__wrap_strndup(const char *text, size_t len);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_reallocarray(void *ptr, size_t count, size_t size)
{
    return fails() ? NULL : __real_reallocarray(ptr, count, size);
}

char *__wrap_strndup(const char *text, size_t len)
{
    return fails() ? NULL : __real_strndup(text, len);
}

static const char text[] =
    "listeners:\n"
    "  - address: 127.0.0.1:0\n"
    "rules:\n"
    "  - allow: {users: [a, b, c, d, e], from: [10.0.0.0/8, 192.0.2.1], ports: [1, 3, 5, 7, 9], commands: connect}\n"
    "  - deny: {to: [own, 10.0.0.0/8, x.org, \"*.y.org\", \"2001:db8::/32\"]}\n"
    "  - allow:\n  - allow:\n  - allow:\n  - allow:\n  - allow:\n  - allow:\n  - allow: {outgoing: 10.0.0.2}\n"
    "outgoing: [10.0.0.1, \"::1\"]\n"
    "log: {output: /a, access: {format: json}}\nstatus: {socket: ./s}\n";

/* Returns whether it succeeded with `n` allocations. */
static bool load_with(int n, const char *const *listen, size_t listen_count)
{
    const struct config *config = NULL;
    struct config_error error = {""};
    int err;

    left = n;
    err = config_load_memory("f.yaml", text, strlen(text), listen, listen_count, &config, &error);
    left = -1;
    if (err == 0) {
        config_release(config);
        return true;
    }
    assert_int_equal(err, -1);
    assert_null(config);
    assert_non_null(strstr(error.text, ": no memory "));
    return false;
}

static void test_loading_a_configuration_fails_cleanly(void **state)
{
    static const char *const listen[] = {"127.0.0.1:1"};
    int n = 0;

    (void)state;
    while (!load_with(n, NULL, 0)) {
        n++;
    }
    assert_in_range(n, 30, 200);
    n = 0;
    while (!load_with(n, listen, 1)) {
        n++;
    }
    assert_in_range(n, 30, 200);
}

static void test_defaults_and_files_fail_cleanly(void **state)
{
    static const char *const paths[] = {NULL, "/dev/null"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct config *config = NULL;
        struct config_error error = {""};
        int n = 0;

        for (;; n++) {
            int err;

            left = n;
            err = config_load(paths[i], NULL, 0, &config, &error);
            left = -1;
            if (err == 0) {
                break;
            }
            assert_true(strstr(error.text, "no memory") != NULL ||
                        strstr(error.text, "Cannot allocate memory") != NULL);
        }
        assert_in_range(n, 4, 10);
        config_release(config);
    }
}

static void test_a_client_that_cannot_be_counted_is_not(void **state)
{
    const uint8_t bytes[4] = {192, 0, 2, 1};
    struct socks6_addr client = socks6_addr_ipv4(bytes, 1);
    struct limits *limits = NULL;

    (void)state;
    left = 0;
    assert_int_equal(limits_new(&limits), -ENOMEM);
    left = -1;
    assert_int_equal(limits_new(&limits), 0);
    left = 0;
    assert_true(limits_reserve(limits, 0));
    assert_int_equal(limits_acquire(limits, &client, 0), LIMITS_NO_MEMORY);
    left = -1;
    assert_int_equal(limits_total(limits), 1); /* the place is still ours */
    assert_int_equal(limits_acquire(limits, &client, 1), LIMITS_OK);
    limits_release(limits, &client);
    limits_free(limits);
}

static void test_following_addresses_fails_cleanly(void **state)
{
    struct loop *loop;
    struct local_addrs *local = NULL;
    int n = 0;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    for (;; n++) {
        int err;

        left = n;
        err = local_addrs_new(loop, &local);
        left = -1;
        if (err == 0) {
            break;
        }
        assert_int_equal(err, -ENOMEM);
        assert_null(local);
    }
    assert_in_range(n, 3, 50);
    local_addrs_free(local);
    loop_free(loop);
}

static void test_the_log_does_not_start_without_memory(void **state)
{
    const struct config_log settings = {
        .level = CONFIG_LOG_DEBUG,
        .daemon = {.target = CONFIG_LOG_STDERR},
        .access = true,
        .access_output = {.target = CONFIG_LOG_STDOUT},
    };
    char why[LOG_WHY_MAX];

    (void)state;
    /* Three for each of the two writers, one for the settings. */
    for (int n = 0; n < 7; n++) {
        left = n;
        assert_int_equal(log_start(&settings, why), -ENOMEM);
        left = -1;
    }
    assert_int_equal(log_start(&settings, why), 0);
    log_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading_a_configuration_fails_cleanly),
        cmocka_unit_test(test_defaults_and_files_fail_cleanly),
        cmocka_unit_test(test_a_client_that_cannot_be_counted_is_not),
        cmocka_unit_test(test_following_addresses_fails_cleanly),
        cmocka_unit_test(test_the_log_does_not_start_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
