/*
 * Waiting for the proxy's reply in a program's place, over TCP on loopback: whatever comes, and however it is cut, there is one end, the
 * bytes behind the reply stay where they are, and no descriptor is left.
 */
#include "cli/run_answer.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/handshake.h"

#define GUARD_MS 20000u /* for what is to come */
#define SHORT_MS 20u

/* "Authentication Replies", "Operation Replies": success; 203.0.113.1:80. */
static const uint8_t yes[] = {6, 0, 0, 0, 6, 0, 0, 0, 0, 80, 0, 1, 203, 0, 113, 1};

/* --- calls that fail --- */

static int fcntl_error, epoll_error;       /* of the next call; 0 = none */
static unsigned recv_countdown;            /* 1 = the next one fails; 0 = none does */
static int recv_error;                     /* 0 = it gives one byte less than there is */
static unsigned recv_failures, recv_calls; /* how often it did, and was called */

int __real_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument)
{
    errno = fcntl_error;
    return fcntl_error != 0 ? -1 : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, int argument);
int __wrap_fcntl64(int fd, int command, int argument)
{
    return __wrap_fcntl(fd, command, argument);
}

int __real_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (epoll_error != 0 && op != EPOLL_CTL_DEL) {
        errno = epoll_error;
        return -1;
    }
    return __real_epoll_ctl(epoll, op, fd, event);
}

ssize_t __real_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags)
{
    recv_calls++;
    if (recv_countdown == 0 || --recv_countdown > 0) {
        return __real_recv(fd, buf, size, flags);
    }
    recv_failures++;
    errno = recv_error;
    return recv_error != 0 ? -1 : __real_recv(fd, buf, size - 1, flags);
}

/* What recv(2) is called in builds with _FORTIFY_SOURCE. */
ssize_t __wrap___recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
ssize_t __wrap___recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
    return size > room ? -1 : __wrap_recv(fd, buf, size, flags);
}

/* --- a program's socket that is connected to a proxy --- */

struct rig {
    struct loop *loop;
    struct loop_timer stop;
    struct run_dialer dialer;
    struct run_answer answer;
    struct sockaddr_in proxy;
    int listener, program, far;
    unsigned fds_before;
    unsigned ends; /* done() calls */
    int status;
    struct socks6_dial_result result;
};

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    assert_int_equal(closedir(dir), 0);
    return count;
}

static void on_done(struct run_answer *answer, int status, const struct socks6_dial_result *result)
{
    struct rig *rig = LOOP_OWNER(answer, struct rig, answer);

    rig->ends++;
    rig->status = status;
    rig->result = *result;
    loop_stop(rig->loop);
}

static void on_stop(struct loop_timer *timer)
{
    loop_stop(LOOP_OWNER(timer, struct rig, stop)->loop);
}

static void open_program(struct rig *rig)
{
    rig->program = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(rig->program, (const struct sockaddr *)&rig->proxy, sizeof rig->proxy), errno);
    rig->far = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_return_code(rig->far, errno);
}

static int set_up(void **state)
{
    static struct rig rig;
    socklen_t len = sizeof rig.proxy;

    memset(&rig, 0, sizeof rig);
    fcntl_error = epoll_error = recv_error = 0;
    recv_countdown = recv_failures = recv_calls = 0;
    rig.fds_before = count_fds();
    rig.proxy = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    rig.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(rig.listener, (const struct sockaddr *)&rig.proxy, len), errno);
    assert_return_code(listen(rig.listener, 16), errno);
    assert_return_code(getsockname(rig.listener, (struct sockaddr *)&rig.proxy, &len), errno);
    assert_int_equal(loop_new(&rig.loop), 0);
    rig.dialer = (struct run_dialer){.loop = rig.loop, .timeout_ms = GUARD_MS};
    rig.answer = (struct run_answer){.done = on_done, .io = {.fd = -1}};
    rig.stop.expired = on_stop;
    open_program(&rig);
    *state = &rig;
    return 0;
}

static void close_pair(struct rig *rig)
{
    assert_int_equal(close(rig->program), 0);
    if (rig->far >= 0) {
        assert_int_equal(close(rig->far), 0);
    }
}

/* Whatever a test did: what was opened by the code under test is closed. */
static int tear_down(void **state)
{
    struct rig *rig = *state;

    close_pair(rig);
    assert_int_equal(close(rig->listener), 0);
    loop_free(rig->loop);
    assert_int_equal(count_fds(), rig->fds_before);
    return 0;
}

/* Another connection, for the next round. */
static void renew(struct rig *rig)
{
    close_pair(rig);
    rig->answer = (struct run_answer){.done = on_done, .io = {.fd = -1}};
    rig->ends = 0;
    open_program(rig);
}

static void start(struct rig *rig)
{
    assert_int_equal(run_answer_start(&rig->answer, &rig->dialer, rig->program), 0);
    assert_int_equal(rig->ends, 0);
}

static int waiting_bytes(int fd)
{
    int len = -1;

    assert_return_code(ioctl(fd, FIONREAD, &len), errno);
    return len;
}

/* Returns when it has arrived. */
static void say(const struct rig *rig, const void *bytes, size_t len)
{
    int expected = waiting_bytes(rig->program) + (int)len;

    assert_int_equal(send(rig->far, bytes, len, MSG_NOSIGNAL), len);
    while (waiting_bytes(rig->program) < expected) {
        assert_int_equal(poll(NULL, 0, 1), 0);
    }
}

static void wait_for(int fd, short event)
{
    struct pollfd poll_fd = {.fd = fd, .events = event};

    do {
        assert_int_equal(poll(&poll_fd, 1, (int)GUARD_MS), 1);
    } while ((poll_fd.revents & event) == 0 && poll(NULL, 0, 1) == 0);
}

static void end_far(const struct rig *rig)
{
    assert_return_code(shutdown(rig->far, SHUT_WR), errno);
    wait_for(rig->program, POLLRDHUP);
}

static void reset_far(struct rig *rig)
{
    const struct linger reset = {1, 0};

    assert_return_code(setsockopt(rig->far, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), errno);
    assert_int_equal(close(rig->far), 0);
    rig->far = -1;
    wait_for(rig->program, POLLERR);
}

/* All that is there by now is seen to. */
static void settle(struct rig *rig)
{
    loop_timer_set(rig->loop, &rig->stop, 1);
    assert_int_equal(loop_run(rig->loop), 0);
    loop_timer_cancel(rig->loop, &rig->stop);
}

static void await(struct rig *rig, int status)
{
    if (rig->ends == 0) {
        loop_timer_set(rig->loop, &rig->stop, GUARD_MS);
        assert_int_equal(loop_run(rig->loop), 0);
        loop_timer_cancel(rig->loop, &rig->stop);
    }
    assert_int_equal(rig->ends, 1);
    assert_int_equal(rig->status, status);
    assert_int_equal(rig->answer.io.fd, -1);
    assert_false(loop_timer_is_armed(&rig->answer.timer));
    assert_int_equal(rig->result.sent, 1);
    if (status != SOCKS6_DIAL_OK) {
        assert_int_equal(rig->result.fd, -1);
    }
    run_answer_cancel(&rig->answer); /* nothing to cancel any more */
    settle(rig);
    assert_int_equal(rig->ends, 1);
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;

    assert_return_code(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), errno);
    return cookie;
}

/* The connection is the program's own socket, and is given back with nothing of the proxy's before `rest`. */
static void check_connected(struct rig *rig, const char *rest)
{
    char buf[64] = "";

    await(rig, SOCKS6_DIAL_OK);
    assert_true(rig->result.fd >= 0 && rig->result.fd != rig->program);
    assert_int_equal(cookie_of(rig->result.fd), cookie_of(rig->program));
    assert_int_equal(__real_fcntl(rig->result.fd, F_GETFD, 0), FD_CLOEXEC);
    assert_int_equal(rig->result.has_reply, 1);
    assert_int_equal(rig->result.reply, SOCKS6_REPLY_SUCCESS);
    assert_int_equal(rig->result.bound.type, SOCKS6_ADDR_IPV4);
    assert_int_equal(rig->result.bound.port, 80);
    assert_memory_equal(rig->result.bound.u.ipv4, yes + 12, 4);
    assert_string_equal(rig->result.error, "");
    assert_int_equal(waiting_bytes(rig->program), strlen(rest));
    if (*rest != '\0') {
        assert_int_equal(__real_recv(rig->result.fd, buf, sizeof buf, MSG_DONTWAIT), strlen(rest));
        assert_string_equal(buf, rest);
    }
    assert_int_equal(close(rig->result.fd), 0);
}

/* --- replies --- */

static void test_reply_that_is_there_already(void **state)
{
    struct rig *rig = *state;

    say(rig, yes, sizeof yes);
    start(rig);
    check_connected(rig, "");
}

static void test_reply_that_comes_later(void **state)
{
    struct rig *rig = *state;

    start(rig);
    settle(rig);
    say(rig, yes, sizeof yes);
    check_connected(rig, "");
}

static void test_reply_cut_anywhere(void **state)
{
    struct rig *rig = *state;

    for (size_t i = 1; i < sizeof yes; i++) {
        start(rig);
        say(rig, yes, i);
        settle(rig);
        assert_int_equal(rig->ends, 0);
        assert_int_equal(waiting_bytes(rig->program), i); /* it stays there until it is whole */
        say(rig, yes + i, sizeof yes - i);
        check_connected(rig, "");
        renew(rig);
    }
}

static void test_reply_byte_by_byte(void **state)
{
    struct rig *rig = *state;

    start(rig);
    for (size_t i = 0; i < sizeof yes; i++) {
        assert_int_equal(rig->ends, 0);
        say(rig, yes + i, 1);
        settle(rig);
    }
    check_connected(rig, "");
}

static void test_bytes_behind_the_reply_stay(void **state)
{
    struct rig *rig = *state;
    uint8_t both[sizeof yes + 5];

    memcpy(both, yes, sizeof yes);
    memcpy(both + sizeof yes, "hello", 5);
    start(rig);
    say(rig, both, sizeof both);
    check_connected(rig, "hello");
    renew(rig);

    start(rig);
    say(rig, both, 3);
    settle(rig);
    say(rig, both + 3, sizeof both - 3);
    check_connected(rig, "hello");
}

static void test_codes_of_failure_are_told(void **state)
{
    struct rig *rig = *state;
    uint8_t no[sizeof yes];
    char expected[16];

    memcpy(no, yes, sizeof no);
    for (unsigned code = 1; code < 256; code += code < 12 ? 1 : 61) {
        no[5] = (uint8_t)code;
        start(rig);
        say(rig, no, sizeof no);
        await(rig, SOCKS6_DIAL_REMOTE_FAILED);
        assert_int_equal(rig->result.reply, code);
        assert_int_equal(rig->result.has_reply, 1);
        (void)snprintf(expected, sizeof expected, "(reply %u)", code);
        assert_non_null(strstr(rig->result.error, expected));
        renew(rig);
    }
}

static void test_what_makes_no_sense_is_useless(void **state)
{
    static const struct {
        size_t len;
        uint8_t bytes[16];
    } cases[] = {
        {1, {5}},                                                /* another version */
        {4, {'H', 'T', 'T', 'P'}},                               /* another protocol */
        {4, {6, 1, 0, 0}},                                       /* it wants to know who we are */
        {5, {6, 0, 0, 0, 5}},                                    /* the second reply is of another version */
        {4, {6, 0, 8, 0}},                                       /* options longer than any reply */
        {12, {6, 0, 0, 0, 6, 0, 0, 0, 0, 80, 0, 9}},             /* no type of address */
        {9, {6, 0, 0, 4, 0, 1, 0, 0, 6}},                        /* an option shorter than its own head */
        {16, {6, 2, 0, 0, 6, 0, 0, 0, 0, 80, 0, 1, 1, 2, 3, 4}}, /* no code of an authentication reply */
    };
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(rig);
        say(rig, cases[i].bytes, cases[i].len);
        await(rig, SOCKS6_DIAL_PROXY_FAILED);
        assert_int_equal(rig->result.has_reply, 0);
        renew(rig);
    }
}

static void test_reply_without_end_is_useless(void **state)
{
    struct rig *rig = *state;
    uint8_t endless[RUN_REPLY_MAX + 100] = {6, 0, 0, 0, 6, 0, 4, 0}; /* options of 1024 bytes: more than is taken */

    start(rig);
    say(rig, endless, sizeof endless);
    await(rig, SOCKS6_DIAL_PROXY_FAILED);
}

/* --- ends --- */

static void test_end_within_the_reply(void **state)
{
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof yes; i++) {
        bool is_before = i % 2 != 0; /* all of it is there when the wait begins */

        if (!is_before) {
            start(rig);
        }
        if (i > 0) {
            say(rig, yes, i);
        }
        end_far(rig);
        if (is_before) {
            start(rig);
        }
        await(rig, SOCKS6_DIAL_PROXY_FAILED);
        renew(rig);
    }
}

static void test_end_after_a_part_was_looked_at(void **state)
{
    struct rig *rig = *state;

    start(rig);
    say(rig, yes, 7);
    settle(rig);
    end_far(rig);
    await(rig, SOCKS6_DIAL_PROXY_FAILED);
}

static void test_reset_within_the_reply(void **state)
{
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof yes; i++) {
        start(rig);
        if (i > 0) {
            say(rig, yes, i);
        }
        reset_far(rig);
        await(rig, SOCKS6_DIAL_PROXY_FAILED);
        renew(rig);
    }
}

static void test_end_right_behind_the_reply(void **state)
{
    struct rig *rig = *state;
    char byte;

    start(rig);
    say(rig, yes, sizeof yes);
    end_far(rig);
    check_connected(rig, "");
    assert_int_equal(__real_recv(rig->program, &byte, 1, MSG_DONTWAIT), 0); /* the program sees it, too */
}

/* --- time --- */

static void test_time_is_over(void **state)
{
    struct rig *rig = *state;

    rig->dialer.timeout_ms = SHORT_MS;
    start(rig);
    say(rig, yes, sizeof yes - 1);
    await(rig, SOCKS6_DIAL_TIMED_OUT);
    assert_non_null(strstr(rig->result.error, "in time"));
    assert_int_equal(waiting_bytes(rig->program), sizeof yes - 1);
}

static void test_no_limit_of_time(void **state)
{
    struct rig *rig = *state;

    rig->dialer.timeout_ms = 0;
    start(rig);
    assert_false(loop_timer_is_armed(&rig->answer.timer));
    settle(rig);
    say(rig, yes, sizeof yes);
    check_connected(rig, "");
}

/* --- cancelling --- */

static void check_cancelled(struct rig *rig)
{
    unsigned fds = count_fds();

    run_answer_cancel(&rig->answer);
    assert_int_equal(rig->answer.io.fd, -1);
    assert_int_equal(count_fds(), fds - 1);
    run_answer_cancel(&rig->answer);
    assert_int_equal(count_fds(), fds - 1);
    settle(rig);
    assert_int_equal(rig->ends, 0);
}

static void test_cancel_at_any_time(void **state)
{
    struct rig *rig = *state;

    start(rig);
    check_cancelled(rig); /* nothing has come */
    start(rig);
    say(rig, yes, 5);
    settle(rig);
    check_cancelled(rig); /* a part */
    start(rig);
    say(rig, yes + 5, sizeof yes - 5);
    check_cancelled(rig); /* all, and nobody has looked */
    assert_int_equal(waiting_bytes(rig->program), sizeof yes);
    rig->dialer.timeout_ms = SHORT_MS;
    start(rig);
    check_cancelled(rig); /* nor does its time end */
    settle(rig);
    settle(rig);
    assert_int_equal(rig->ends, 0);
}

static void test_cancel_of_what_never_began(void **state)
{
    struct rig *rig = *state;

    run_answer_cancel(&rig->answer);
    fcntl_error = EMFILE;
    assert_int_equal(run_answer_start(&rig->answer, &rig->dialer, rig->program), -EMFILE);
    fcntl_error = 0;
    run_answer_cancel(&rig->answer);
    assert_int_equal(rig->ends, 0);
}

/* --- undoing --- */

static int error_of(int fd)
{
    int error = -1;
    socklen_t len = sizeof error;

    assert_return_code(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), errno);
    return error;
}

/* It is as new, and can be connected. */
static void check_undone(struct rig *rig)
{
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char buf[8] = "";

    assert_int_equal(getpeername(rig->program, (struct sockaddr *)&peer, &len), -1);
    assert_int_equal(errno, ENOTCONN);
    assert_int_equal(error_of(rig->program), 0);
    if (rig->far >= 0) { /* the proxy knows, too */
        wait_for(rig->far, POLLRDHUP);
        assert_int_equal(close(rig->far), 0);
    }
    assert_return_code(connect(rig->program, (const struct sockaddr *)&rig->proxy, sizeof rig->proxy), errno);
    rig->far = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_return_code(rig->far, errno);
    say(rig, "again", 5);
    assert_int_equal(__real_recv(rig->program, buf, sizeof buf, 0), 5);
    assert_string_equal(buf, "again");
}

static void test_undo(void **state)
{
    struct rig *rig = *state;
    int one = 1, on = 0;
    socklen_t len = sizeof on;

    assert_return_code(setsockopt(rig->program, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one), errno);
    run_answer_undo(rig->program);
    check_undone(rig);
    assert_return_code(getsockopt(rig->program, SOL_SOCKET, SO_KEEPALIVE, &on, &len), errno);
    assert_int_equal(on, 1);
}

static void test_undo_through_a_duplicate(void **state)
{
    struct rig *rig = *state;
    int duplicate = dup(rig->program);

    say(rig, yes, sizeof yes); /* what came is forgotten */
    run_answer_undo(duplicate);
    assert_int_equal(close(duplicate), 0);
    check_undone(rig);
}

static void test_undo_while_it_is_waited_for(void **state)
{
    struct rig *rig = *state;

    start(rig);
    say(rig, yes, 3);
    settle(rig);
    run_answer_undo(rig->program);
    run_answer_cancel(&rig->answer);
    settle(rig);
    assert_int_equal(rig->ends, 0);
    check_undone(rig);
}

static void test_undo_of_what_is_broken_or_was_none(void **state)
{
    struct rig *rig = *state;

    reset_far(rig);
    run_answer_undo(rig->program);
    check_undone(rig);
    run_answer_undo(rig->program);
    run_answer_undo(rig->program);
    check_undone(rig);
}

/* --- calls that fail --- */

static void test_nothing_is_left_if_it_cannot_be_watched(void **state)
{
    struct rig *rig = *state;
    unsigned fds = count_fds();

    epoll_error = ENOSPC;
    assert_int_equal(run_answer_start(&rig->answer, &rig->dialer, rig->program), -ENOSPC);
    epoll_error = 0;
    assert_int_equal(rig->answer.io.fd, -1);
    assert_false(loop_timer_is_armed(&rig->answer.timer));
    assert_int_equal(count_fds(), fds);
    run_answer_cancel(&rig->answer);
    say(rig, yes, sizeof yes);
    settle(rig);
    assert_int_equal(rig->ends, 0);

    start(rig); /* and later it can */
    check_connected(rig, "");
}

static void test_looking_is_interrupted(void **state)
{
    struct rig *rig = *state;

    recv_countdown = 1;
    recv_error = EINTR;
    start(rig);
    say(rig, yes, sizeof yes);
    check_connected(rig, "");
    assert_int_equal(recv_failures, 1);
    assert_int_equal(recv_calls, 3);
}

static void test_looking_fails(void **state)
{
    struct rig *rig = *state;

    recv_countdown = 1;
    recv_error = ENOMEM;
    start(rig);
    say(rig, yes, sizeof yes);
    await(rig, SOCKS6_DIAL_PROXY_FAILED);
    assert_int_equal(recv_failures, 1);
}

static void test_taking_fails(void **state)
{
    static const int errors[] = {ENOMEM, EAGAIN, 0};
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        recv_countdown = 2;
        recv_error = errors[i];
        start(rig);
        say(rig, yes, sizeof yes);
        await(rig, SOCKS6_DIAL_PROXY_FAILED);
        assert_int_equal(rig->result.has_reply, 0);
        assert_int_equal(recv_failures, i + 1);
        renew(rig);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reply_that_is_there_already),
        TEST(test_reply_that_comes_later),
        TEST(test_reply_cut_anywhere),
        TEST(test_reply_byte_by_byte),
        TEST(test_bytes_behind_the_reply_stay),
        TEST(test_codes_of_failure_are_told),
        TEST(test_what_makes_no_sense_is_useless),
        TEST(test_reply_without_end_is_useless),
        TEST(test_end_within_the_reply),
        TEST(test_end_after_a_part_was_looked_at),
        TEST(test_reset_within_the_reply),
        TEST(test_end_right_behind_the_reply),
        TEST(test_time_is_over),
        TEST(test_no_limit_of_time),
        TEST(test_cancel_at_any_time),
        TEST(test_cancel_of_what_never_began),
        TEST(test_undo),
        TEST(test_undo_through_a_duplicate),
        TEST(test_undo_while_it_is_waited_for),
        TEST(test_undo_of_what_is_broken_or_was_none),
        TEST(test_nothing_is_left_if_it_cannot_be_watched),
        TEST(test_looking_is_interrupted),
        TEST(test_looking_fails),
        TEST(test_taking_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
