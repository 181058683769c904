/*
 * The table of counters, the status document, and the socket that delivers it. That the document is JSON, and what a
 * running daemon says in it, is tests/e2e/test_status.py.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxyd/status.h"
#include "proxyd/status_socket.h"

/* -- counters -- */

static void test_every_counter_has_a_name_of_its_own_and_a_help(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STATS_COUNT; i++) {
        const struct stats_info *info = stats_info((enum stats_counter)i);

        assert_in_range(strspn(info->name, "abcdefghijklmnopqrstuvwxyz0123456789_"), 3, 40);
        assert_int_equal(strspn(info->name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(info->name));
        assert_true(strlen(info->help) > 5);
        for (unsigned j = 0; j < i; j++) {
            assert_string_not_equal(info->name, stats_info((enum stats_counter)j)->name);
        }
    }
    assert_string_equal(stats_info(STATS_bytes_up)->name, "bytes_up");
    assert_int_equal(stats_info(STATS_bytes_up)->unit, STATS_BYTES);
    assert_int_equal(stats_info(STATS_bytes_up)->type, STATS_COUNTER);
    assert_int_equal(stats_info(STATS_connections)->type, STATS_GAUGE);
    assert_string_equal(status_process_info(STATUS_memory_bytes)->name, "memory_bytes");
}

static void test_open_connections_are_those_not_closed(void **state)
{
    static struct stats stats;
    uint64_t values[STATS_COUNT], sum[STATS_COUNT] = {0};

    (void)state;
    memset(&stats, 0, sizeof stats);
    stats_add(&stats, STATS_accepted, 5);
    stats_add(&stats, STATS_closed, 3);
    stats_read(&stats, values);
    assert_int_equal(values[STATS_connections], 2);
    stats_sum(sum, values);
    stats_sum(sum, values);
    assert_int_equal(sum[STATS_connections], 4);
    assert_int_equal(sum[STATS_accepted], 10);
    /* A reading between two additions of a worker is no huge number. */
    stats_add(&stats, STATS_closed, 3);
    stats_read(&stats, values);
    assert_int_equal(values[STATS_connections], 0);
}

static void test_the_longest_line_of_counters_fits(void **state)
{
    char line[STATS_LINE_MAX + 1];
    uint64_t values[STATS_COUNT];

    (void)state;
    for (unsigned i = 0; i < STATS_COUNT; i++) {
        values[i] = UINT64_MAX - i;
    }
    memset(line, '#', sizeof line);
    stats_line(values, line);
    assert_int_equal(line[sizeof line - 1], '#');
    for (unsigned i = 0; i < STATS_COUNT; i++) {
        char wanted[128];

        (void)snprintf(wanted, sizeof wanted, " %s=%ju", stats_info((enum stats_counter)i)->name,
                       (uintmax_t)(UINT64_MAX - i));
        assert_non_null(strstr(line, wanted));
    }
}

/* -- the document -- */

static char *document(const struct status_facts *facts)
{
    size_t len = 0;
    char *text = status_document(facts, &len);

    assert_non_null(text);
    assert_int_equal(strlen(text), len);
    return text;
}

static void test_the_document_says_what_is_in_force(void **state)
{
    static const char text[] =
        "listeners: [{address: \"127.0.0.1:0\", protocols: [socks6, socks4]}, {address: \"[::1]:1\"}]\n"
        "limits: {idle: none, connections_per_client: none, handshake: 1500ms}\n";
    static const uint8_t ip[4] = {127, 0, 0, 1};
    const struct socks6_addr bound[2] = {socks6_addr_ipv4(ip, 4321), {0}};
    static uint64_t workers[2][STATS_COUNT];
    const struct config *config;
    struct config_error error;
    char path[] = "/tmp/test_status.XXXXXX", *got;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(config_load(path, NULL, 0, &config, &error), 0);
    assert_int_equal(unlink(path), 0);
    workers[0][STATS_accepted] = 3;
    workers[1][STATS_accepted] = 4;
    const struct status_facts facts = {
        .config_path = "/a \"b\"\\\n\xc3\xa4",
        .config = config,
        .started = {.tv_sec = 1795419605, .tv_nsec = 123999999},
        .uptime_ms = 61234,
        .bound = bound,
        .workers = (const uint64_t(*)[STATS_COUNT])workers,
        .worker_count = 2,
        .dns = (const struct status_value[]){{"hits", 5}, {"misses", 6}},
        .dns_count = 2,
        .connections_max = 100,
        .descriptors_max = 1024,
    };
    got = document(&facts);
    assert_int_equal(strncmp(got, "{\n  \"version\": \"", 16), 0);
    assert_string_equal(got + strlen(got) - 3, "\n}\n");
    assert_non_null(strstr(got, "\"state\": \"running\",\n  \"started\": \"2026-11-23T07:40:05.123Z\",\n"
                                "  \"reloaded\": null,\n"));
    assert_non_null(strstr(got, "\"config\": \"/a \\\"b\\\"\\\\\\\\x0a\\\\xc3\\\\xa4\",\n"));
    assert_non_null(strstr(got, "\"uptime_seconds\": 61.234,\n"));
    assert_non_null(strstr(got, "\"connections\": 100,\n    \"connections_per_client\": null,\n"
                                "    \"handshake_ms\": 1500,\n"));
    assert_non_null(strstr(got, "\"idle_ms\": null,\n"));
    assert_non_null(strstr(got, "\"descriptors\": 1024\n"));
    /* The second one is left out: the host has no such address. */
    assert_non_null(strstr(got, "\"listeners\": [\n    {\"address\": \"127.0.0.1:4321\", \"protocols\": [\"socks6\", "
                                "\"socks4\"], \"tls\": false}\n  ],\n"));
    assert_non_null(strstr(got, "\"totals\": {\n    \"connections\": 0,\n    \"accepted\": 7,\n"));
    assert_non_null(strstr(got, "\"dns\": {\n    \"hits\": 5,\n    \"misses\": 6\n  },\n"));
    assert_non_null(strstr(got, "\"workers\": [\n    {\n      \"connections\": 0,\n      \"accepted\": 3,\n"));
    free(got);
    config_release(config);
}

static void test_the_process_tells_of_itself(void **state)
{
    double before[STATUS_PROCESS_COUNT], after[STATUS_PROCESS_COUNT];
    int fd;

    (void)state;
    status_process(1000, before);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    status_process(1500, after);
    assert_int_equal(close(fd), 0);
    assert_int_equal((int)(after[STATUS_descriptors] - before[STATUS_descriptors]), 1);
    assert_true(before[STATUS_descriptors] >= 3 && before[STATUS_descriptors] < 100);
    assert_true(after[STATUS_memory_bytes] > 1e6);
    assert_true(after[STATUS_cpu_seconds] >= before[STATUS_cpu_seconds]);
    assert_int_equal((int)(after[STATUS_uptime_seconds] * 1000), 1500);
}

/* -- the socket -- */

static char dir[64], path[80];
static struct loop *loop;
static pthread_t thread;
static size_t document_len;
static atomic_uint made;

static char *make(void *user, size_t *len)
{
    char *text = malloc(document_len);

    (void)user;
    assert_non_null(text);
    memset(text, 'x', document_len);
    *len = document_len;
    atomic_fetch_add(&made, 1);
    return text;
}

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_status.XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/s", dir);
    document_len = 100;
    return loop_new(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    loop_free(loop);
    (void)unlink(path);
    return rmdir(dir);
}

static void *run(void *arg)
{
    (void)arg;
    assert_int_equal(loop_run(loop), 0);
    return NULL;
}

static void start(void)
{
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
}

static void stop(void)
{
    loop_stop(loop);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static int reach(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(name.sun_path, path);
    assert_int_equal(connect(fd, (const struct sockaddr *)&name, sizeof name), 0);
    return fd;
}

static size_t read_to_the_end(int fd)
{
    static char buffer[65536];
    size_t len = 0;
    ssize_t got;

    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        len += (size_t)got;
    }
    assert_int_equal(close(fd), 0);
    return len;
}

static void test_whoever_connects_gets_the_document(void **state)
{
    struct status_socket *server = NULL;
    struct stat status;

    (void)state;
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    assert_string_equal(status_socket_path(server), path);
    assert_int_equal(lstat(path, &status), 0);
    assert_int_equal(status.st_mode, S_IFSOCK | 0600);
    start();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(read_to_the_end(reach()), 100);
    }
    stop();
    assert_true(status_socket_is_reachable(server));
    status_socket_close(server);
    assert_int_equal(lstat(path, &status), -1);
}

static void test_clients_that_do_not_read_hold_up_nobody_for_long(void **state)
{
    struct status_socket *server = NULL;
    int stuck[STATUS_CLIENTS_MAX];

    (void)state;
    document_len = (size_t)4 * 1024 * 1024; /* more than a socket holds */
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    start();
    /* All places but one. */
    for (int i = 0; i < STATUS_CLIENTS_MAX - 1; i++) {
        stuck[i] = reach();
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(read_to_the_end(reach()), document_len);
    }
    /* All of them: the next one waits until one is given up, and no more documents are made meanwhile. */
    stuck[STATUS_CLIENTS_MAX - 1] = reach();
    int waiting = reach();
    while (atomic_load(&made) < STATUS_CLIENTS_MAX + 3) {
        usleep(1000);
    }
    assert_int_equal(read_to_the_end(waiting), document_len);
    assert_true(read_to_the_end(stuck[0]) < document_len);
    for (int i = 1; i < STATUS_CLIENTS_MAX; i++) {
        assert_int_equal(close(stuck[i]), 0);
    }
    stop();
    status_socket_close(server);
}

static void test_a_client_that_goes_is_forgotten(void **state)
{
    struct status_socket *server = NULL;

    (void)state;
    document_len = (size_t)4 * 1024 * 1024;
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    start();
    for (int i = 0; i < 5 * STATUS_CLIENTS_MAX; i++) {
        assert_int_equal(close(reach()), 0);
    }
    assert_int_equal(read_to_the_end(reach()), document_len);
    int open_at_the_end = reach();
    stop();
    status_socket_close(server);
    assert_int_equal(close(open_at_the_end), 0);
}

static void test_a_living_ones_socket_is_not_taken(void **state)
{
    struct status_socket *server = NULL, *second = NULL;

    (void)state;
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    assert_int_equal(status_socket_open(loop, path, make, NULL, &second), -EADDRINUSE);
    assert_null(second);
    assert_true(status_socket_is_reachable(server));
    status_socket_close(server);
}

/* A bound socket whose process is gone. */
static void leave_socket(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(name.sun_path, path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(close(fd), 0);
}

static void test_a_dead_ones_socket_is_replaced(void **state)
{
    struct status_socket *server = NULL;

    (void)state;
    leave_socket();
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    start();
    assert_int_equal(read_to_the_end(reach()), 100);
    stop();
    status_socket_close(server);
}

static void test_what_is_no_socket_is_left_alone(void **state)
{
    struct status_socket *server = NULL;
    struct stat status;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), -EADDRINUSE);
    assert_int_equal(lstat(path, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), -EADDRINUSE);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(status_socket_open(loop, "/nonexistent/s", make, NULL, &server), -ENOENT);
}

static void test_another_ones_file_is_not_removed(void **state)
{
    struct status_socket *server = NULL;
    struct stat status;

    (void)state;
    assert_int_equal(status_socket_open(loop, path, make, NULL, &server), 0);
    assert_int_equal(unlink(path), 0);
    assert_false(status_socket_is_reachable(server));
    leave_socket();
    assert_false(status_socket_is_reachable(server));
    status_socket_close(server);
    assert_int_equal(lstat(path, &status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_counter_has_a_name_of_its_own_and_a_help),
        cmocka_unit_test(test_open_connections_are_those_not_closed),
        cmocka_unit_test(test_the_longest_line_of_counters_fits),
        cmocka_unit_test(test_the_document_says_what_is_in_force),
        cmocka_unit_test(test_the_process_tells_of_itself),
        cmocka_unit_test_setup_teardown(test_whoever_connects_gets_the_document, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clients_that_do_not_read_hold_up_nobody_for_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_that_goes_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_living_ones_socket_is_not_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_dead_ones_socket_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_socket_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_ones_file_is_not_removed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
