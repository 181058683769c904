/*
 * The helper of `socks6 run` when calls fail: the server runs in this thread, where the nth call of those that are wrapped fails; the
 * program and the proxy are threads of their own. Whatever fails, the program gets an answer or an end, and nothing leaks.
 */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PAD 1000u

/* --- the program --- */

struct program {
    struct run_serve *serve;
    uint32_t flags;
    int own; /* the socket that goes along; -1 = none */
    bool is_hung;
    bool is_served; /* the echo came back */
};

static void ask(const struct program *p, int fd, const uint8_t *secret)
{
    struct {
        struct run_request header;
        struct run_connect body;
    } whole = {.header = {.len = sizeof whole, .version = RUN_VERSION, .kind = RUN_CONNECT}};

    _Static_assert(sizeof whole == sizeof(struct run_request) + sizeof(struct run_connect), "nothing between");
    memcpy(whole.header.secret, secret, RUN_SECRET_LEN);
    whole.body.destination = (struct run_addr){.family = AF_INET, .port = 80, .bytes = {192, 0, 2, 1}};
    whole.body.cookie = 1;
    whole.body.flags = p->flags;
    whole.body.pad_len = PAD;
    faults_send_with(fd, &whole, sizeof whole, p->own);
}

/* The reply, and the socket that came along in the place of `*fd`. */
static bool receive_verdict(struct program *p, int *fd, struct run_connected *out)
{
    int passed, status;
    bool is_there = faults_receive_reply(*fd, &status, out, sizeof *out, &passed, &p->is_hung);

    if (passed >= 0) {
        (void)close(*fd);
        *fd = passed;
    }
    return is_there;
}

static void *run_program(void *arg)
{
    struct program *p = arg;
    static char pad[PAD];
    uint8_t secret[RUN_SECRET_LEN];
    struct run_connected connected;
    char echo[4];
    int fd = faults_open_talk(p->serve, secret);

    ask(p, fd, secret);
    if (receive_verdict(p, &fd, &connected) && connected.verdict != RUN_VERDICT_FAILED) {
        if (connected.verdict == RUN_VERDICT_WAIT) {
            (void)__real_send(fd, pad, sizeof pad, MSG_NOSIGNAL);
        }
        (void)__real_send(fd, "ping", 4, MSG_NOSIGNAL);
        p->is_served = faults_receive(fd, echo, sizeof echo, &p->is_hung) && memcmp(echo, "ping", 4) == 0;
    }
    (void)close(fd);
    loop_stop(run_serve_loop(p->serve));
    return NULL;
}

/* --- the tests --- */

static int set_up(void **state)
{
    (void)state;
    return faults_proxy_start();
}

/* Runs one program with the nth call failing. Whether there were that many. */
static bool run_once(struct program *p, bool is_early, unsigned n)
{
    const struct run_serve_config config = {.proxy = &faults_proxy,
                                            .addresses = &faults_addresses,
                                            .family = AF_UNSPEC,
                                            .timeout_ms = FAULTS_TIMEOUT_MS,
                                            .is_early = is_early,
                                            .no_session = true};
    pthread_t thread;

    assert_int_equal(run_serve_new(&config, &p->serve), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_program, p), 0);
    faults_has_failed = false;
    faults_countdown = n;
    assert_int_equal(loop_run(run_serve_loop(p->serve)), 0);
    faults_countdown = 0;
    assert_int_equal(pthread_join(thread, NULL), 0);
    run_serve_free(p->serve);
    return faults_has_failed;
}

static void check_with(uint32_t flags, bool is_early, int error, bool has_own)
{
    bool has_more = true;
    unsigned n;

    faults_errno = error;
    for (n = 0; has_more; n++) {
        struct program p = {.flags = flags, .own = has_own ? __real_socket(AF_INET, SOCK_STREAM, 0) : -1};

        has_more = run_once(&p, is_early, n) || n == 0;
        if (has_own) {
            assert_int_equal(close(p.own), 0);
        }
        if (p.is_hung) {
            fail_msg("the program hung when call %u, %s(), failed with %s", n, faults_what, strerror(error));
        }
        if (!faults_has_failed && !p.is_served) {
            fail_msg("no call failed, and yet it was not served");
        }
    }
    assert_true(n > 10);
}

static void check(uint32_t flags, bool is_early, int error)
{
    check_with(flags, is_early, error, true);
    check_with(flags, is_early, error, false);
}

static void test_blocking_connect(void **state)
{
    (void)state;
    check(0, false, ENOMEM);
    check(0, false, ECONNRESET);
}

static void test_non_blocking_connect(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, false, ENOMEM);
    check(RUN_CONNECT_NON_BLOCKING, false, ECONNRESET);
}

static void test_early_connect(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, true, ENOMEM);
    check(RUN_CONNECT_NON_BLOCKING, true, ECONNRESET);
}

static void test_without_descriptors_programs_wait(void **state)
{
    (void)state;
    check(RUN_CONNECT_NON_BLOCKING, false, EMFILE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_connect),
        cmocka_unit_test(test_non_blocking_connect),
        cmocka_unit_test(test_early_connect),
        cmocka_unit_test(test_without_descriptors_programs_wait),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
