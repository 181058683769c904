/* getaddrinfo_a() and what goes with it. held.test is answered when the test says so. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "names_helper.h"

static const struct timespec no_time, little_time = {0, 20000000};

static struct gaicb held = {.ar_name = "held.test", .ar_service = "80"};
static struct gaicb number = {.ar_name = "127.0.0.1"};
static struct gaicb nothing = {.ar_name = "nothing.test"};
static struct gaicb *all[] = {&held, NULL, &number, &nothing};
static struct gaicb *one[] = {&held};

static int suspend(struct gaicb *const list[], int count, const struct timespec *timeout)
{
    return gai_suspend((const struct gaicb *const *)list, count, timeout);
}

static void assert_is_v4_test(struct gaicb *request)
{
    struct sockaddr_in addr;

    assert_int_equal(gai_error(request), 0);
    memcpy(&addr, request->ar_result->ai_addr, sizeof addr);
    assert_int_equal(addr.sin_port, htons(80));
    assert_string_equal(inet_ntoa(addr.sin_addr), "192.0.2.1");
    freeaddrinfo(request->ar_result);
}

static void finish_others(void)
{
    while (gai_error(&nothing) == EAI_INPROGRESS) {
        (void)usleep(1000);
    }
    assert_int_equal(gai_error(&nothing), EAI_NONAME);
    assert_int_equal(gai_error(&number), 0);
    freeaddrinfo(number.ar_result);
}

static void test_waiting_completes_all(void **state)
{
    (void)state;
    names_helper_release_next();
    assert_int_equal(getaddrinfo_a(GAI_WAIT, all, 4, NULL), 0);
    assert_is_v4_test(&held);
    finish_others();
}

static void test_a_request_is_in_progress_until_it_is_answered(void **state)
{
    (void)state;
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, all, 4, NULL), 0);
    assert_int_equal(gai_error(&held), EAI_INPROGRESS);
    assert_int_equal(suspend(one, 1, &little_time), EAI_AGAIN);
    assert_int_equal(suspend(one, 1, &no_time), EAI_AGAIN);
    names_helper_release();
    assert_int_equal(suspend(one, 1, NULL), 0);
    assert_is_v4_test(&held);
    finish_others();
    assert_int_equal(suspend(all, 4, NULL), EAI_ALLDONE);
    assert_int_equal(gai_cancel(&held), EAI_ALLDONE);
}

static void test_a_request_can_be_cancelled(void **state)
{
    int before = dup(0), after;

    (void)state;
    assert_int_equal(close(before), 0);
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, one, 1, NULL), 0);
    assert_int_equal(gai_cancel(&held), EAI_CANCELED);
    assert_int_equal(gai_error(&held), EAI_CANCELED);
    assert_int_equal(gai_cancel(&held), EAI_ALLDONE);
    assert_null(held.ar_result);
    after = dup(0);
    assert_int_equal(after, before); /* nothing stays open */
    assert_int_equal(close(after), 0);
    names_helper_release(); /* of the one whose connection is gone */
}

static void on_alarm(int number_of_signal)
{
    (void)number_of_signal;
}

static void test_a_signal_interrupts_suspension(void **state)
{
    const struct sigaction action = {.sa_handler = on_alarm};

    (void)state;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, one, 1, NULL), 0);
    (void)ualarm(20000, 0);
    assert_int_equal(suspend(one, 1, NULL), EAI_INTR);
    assert_int_equal(gai_cancel(&held), EAI_CANCELED);
    names_helper_release();
}

static int connection(void)
{
    for (int fd = 3; fd < 64; fd++) {
        int domain = 0;
        socklen_t len = sizeof domain;
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
            getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0) {
            return fd;
        }
    }
    fail_msg("no connection to the helper");
    return -1;
}

/* A program that closes all that it does not know (a daemon), and opens something else. */
static void test_a_closed_connection_is_no_answer(void **state)
{
    int fd, pair[2];

    (void)state;
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, one, 1, NULL), 0);
    fd = connection();
    assert_int_equal(close(fd), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pair[0], fd);
    assert_int_equal(write(pair[1], "not ours", 8), 8);
    assert_int_equal(gai_error(&held), EAI_AGAIN);
    assert_int_equal(recv(pair[0], (char[8]){0}, 8, MSG_DONTWAIT), 8); /* still there */
    assert_int_equal(close(pair[0]) | close(pair[1]), 0);
    names_helper_release();
}

static atomic_int signals;
static siginfo_t signal_info;

static void on_notice(int number_of_signal, siginfo_t *info, void *context)
{
    (void)number_of_signal;
    (void)context;
    signal_info = *info;
    atomic_fetch_add(&signals, 1);
}

static void test_a_signal_tells_that_all_are_done(void **state)
{
    const struct sigaction action = {.sa_sigaction = on_notice, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value = {.sival_ptr = &held}};

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, all, 4, &event), 0);
    (void)usleep(20000);
    assert_int_equal(atomic_load(&signals), 0);
    names_helper_release();
    while (atomic_load(&signals) == 0) {
        (void)usleep(1000);
    }
    assert_int_equal(signal_info.si_code, SI_ASYNCNL);
    assert_ptr_equal(signal_info.si_value.sival_ptr, &held);
    assert_is_v4_test(&held);
    finish_others();
}

static atomic_int calls;

static void on_done(union sigval value)
{
    atomic_store(&calls, value.sival_int);
}

static void test_a_function_is_called_in_a_thread(void **state)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_done, .sigev_value = {.sival_int = 42}};

    (void)state;
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, all, 4, &event), 0);
    assert_int_equal(atomic_load(&calls), 0);
    names_helper_release();
    while (atomic_load(&calls) == 0) {
        (void)usleep(1000);
    }
    assert_int_equal(atomic_load(&calls), 42);
    assert_is_v4_test(&held);
    finish_others();
}

#define MANY 20

static void *poll_them(void *argument)
{
    struct gaicb **list = argument;

    for (int i = 0; i < MANY; i++) {
        while (gai_error(list[i]) == EAI_INPROGRESS) {
        }
    }
    return NULL;
}

/* Each answer is taken once, whoever looks first. */
static void test_threads_may_look_at_the_same_requests(void **state)
{
    static struct gaicb requests[MANY];
    struct gaicb *list[MANY];
    pthread_t threads[2];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        requests[i] = (struct gaicb){.ar_name = "v4.test", .ar_service = "80"};
        list[i] = &requests[i];
    }
    assert_int_equal(getaddrinfo_a(GAI_NOWAIT, list, MANY, NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, poll_them, list), 0);
    }
    while (suspend(list, MANY, NULL) != EAI_ALLDONE) {
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < MANY; i++) {
        assert_is_v4_test(list[i]);
    }
}

static void test_wrong_arguments(void **state)
{
    (void)state;
    assert_int_equal(getaddrinfo_a(77, all, 4, NULL), EAI_SYSTEM);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(getaddrinfo_a(GAI_WAIT, all, 0, NULL), 0);
    assert_int_equal(suspend(all, 0, NULL), EAI_ALLDONE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waiting_completes_all),
        cmocka_unit_test(test_a_request_is_in_progress_until_it_is_answered),
        cmocka_unit_test(test_a_request_can_be_cancelled),
        cmocka_unit_test(test_a_signal_interrupts_suspension),
        cmocka_unit_test(test_a_closed_connection_is_no_answer),
        cmocka_unit_test(test_a_signal_tells_that_all_are_done),
        cmocka_unit_test(test_a_function_is_called_in_a_thread),
        cmocka_unit_test(test_threads_may_look_at_the_same_requests),
        cmocka_unit_test(test_wrong_arguments),
    };
    int failed;

    (void)argc;
    names_helper_run(argv);
    failed = cmocka_run_group_tests_name("preload/gai_async", tests, NULL, NULL);
    names_helper_stop();
    return failed;
}
