/*
 * The pump between a terminal's, pipe's, file's or socket's bytes and a connection. It runs in a thread; the test plays the remote
 * end and whoever is behind standard input and output. poll(2) is counted (--wrap), so that waiting without pause is seen.
 */
#include "cli/pump.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB ((size_t)1024 * 1024)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);

/* 1: as on a machine without /proc. */
static atomic_int without_proc;

/* Neither the pump nor this file creates files by open(), so there is no third argument. */
int __wrap_open(const char *path, int flags, ...)
{
    if (atomic_load(&without_proc) && strncmp(path, "/proc/", 6) == 0) {
        errno = ENOENT;
        return -1;
    }
    return __real_open(path, flags);
}

int __wrap_open64(const char *path, int flags, ...)
{
    if (atomic_load(&without_proc) && strncmp(path, "/proc/", 6) == 0) {
        errno = ENOENT;
        return -1;
    }
    return __real_open64(path, flags);
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);

static atomic_uint polls;

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    atomic_fetch_add(&polls, 1);
    return __real_poll(fds, count, timeout);
}

struct rig {
    struct pump_config config;
    struct pump_result result;
    struct stream net;
    pthread_t thread;
    int in;     /* we write what the pump reads; -1 = none */
    int out;    /* we read what the pump writes */
    int remote; /* the other end of the connection */
};

static void must(int ok)
{
    if (!ok) {
        perror("test_pump");
        abort();
    }
}

static void tcp_pair(int fds[2])
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    must(bind(listener, (struct sockaddr *)&sin, sizeof sin) == 0 && listen(listener, 1) == 0);
    must(getsockname(listener, (struct sockaddr *)&sin, &len) == 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fds[0], (struct sockaddr *)&sin, sizeof sin) == 0);
    fds[1] = accept(listener, NULL, NULL);
    must(fds[1] >= 0);
    close(listener);
}

/* Pipes on both sides; a test replaces what it wants otherwise before rig_start(). */
static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    int in[2], out[2], net[2];

    atomic_store(&without_proc, 0);
    must(r != NULL && pipe(in) == 0 && pipe(out) == 0);
    tcp_pair(net);
    r->net = (struct stream){.fd = net[0]};
    r->config = (struct pump_config){.in = in[0], .out = out[1], .net = &r->net, .idle_ms = -1, .quit_ms = -1};
    r->in = in[1];
    r->out = out[0];
    r->remote = net[1];
    *state = r;
    return 0;
}

static void replace(int *fd, int by)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = by;
}

static int set_up_without_proc(void **state)
{
    int rc = set_up(state);

    atomic_store(&without_proc, 1);
    return rc;
}

static int tear_down(void **state)
{
    struct rig *r = *state;

    replace(&r->in, -1);
    replace(&r->out, -1);
    replace(&r->remote, -1);
    replace(&r->config.in, -1);
    stream_done(&r->net);
    free(r);
    return 0;
}

static void *run(void *user)
{
    struct rig *r = user;

    pump_run(&r->config, &r->result);
    return NULL;
}

static void rig_start(struct rig *r)
{
    atomic_store(&polls, 0);
    must(pthread_create(&r->thread, NULL, run, r) == 0);
}

static void assert_ends(struct rig *r, enum pump_end end, int error)
{
    must(pthread_join(r->thread, NULL) == 0);
    assert_int_equal(r->result.end, end);
    assert_int_equal(r->result.error, error);
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 131 + i / 251 + i / 65537);
}

/* Both run in threads, so that all directions move at once. */
struct traffic {
    pthread_t thread;
    int fd;
    size_t len;
    size_t good; /* bytes that were as expected */
};

static void *write_pattern(void *user)
{
    struct traffic *s = user;
    static _Thread_local uint8_t buf[10007];

    for (size_t done = 0; done < s->len;) {
        size_t n = s->len - done < sizeof buf ? s->len - done : sizeof buf;
        ssize_t written;

        for (size_t i = 0; i < n; i++) {
            buf[i] = byte_at(done + i);
        }
        written = write(s->fd, buf, n);
        must(written > 0);
        done += (size_t)written;
    }
    return NULL;
}

static void *check_pattern(void *user)
{
    struct traffic *s = user;
    static _Thread_local uint8_t buf[10007];

    while (s->good < s->len) {
        ssize_t n = read(s->fd, buf, s->len - s->good < sizeof buf ? s->len - s->good : sizeof buf);

        if (n <= 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != byte_at(s->good)) {
                return NULL;
            }
            s->good++;
        }
    }
    return NULL;
}

static void traffic_start(struct traffic *s, void *(*run_it)(void *), int fd, size_t len)
{
    *s = (struct traffic){.fd = fd, .len = len};
    must(pthread_create(&s->thread, NULL, run_it, s) == 0);
}

static void traffic_wait(struct traffic *s)
{
    must(pthread_join(s->thread, NULL) == 0);
}

static void assert_at_end(int fd)
{
    char byte;

    assert_int_equal(read(fd, &byte, 1), 0);
}

/* Megabytes both ways at once; the local side ends first, then the remote end. */
static void exchange(struct rig *r, size_t size)
{
    struct traffic up, down, at_remote, at_out;

    rig_start(r);
    traffic_start(&at_remote, check_pattern, r->remote, size);
    traffic_start(&at_out, check_pattern, r->out, size);
    traffic_start(&up, write_pattern, r->in, size);
    traffic_start(&down, write_pattern, r->remote, size);
    traffic_wait(&up);
    traffic_wait(&down);
    traffic_wait(&at_remote);
    traffic_wait(&at_out);
    assert_int_equal(at_remote.good, size);
    assert_int_equal(at_out.good, size);
}

static void test_local_end_is_passed_on_first(void **state)
{
    struct rig *r = *state;

    exchange(r, 8 * MIB);
    replace(&r->in, -1);
    assert_at_end(r->remote);
    must(write(r->remote, "still", 5) == 5);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
    assert_int_equal(r->result.sent, 8 * MIB);
    assert_int_equal(r->result.received, 8 * MIB + 5);
}

static void assert_no_end(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

/* A server that drops its answer at our end has it sent in full first. */
static void test_local_end_waits_while_the_remote_end_talks(void **state)
{
    struct rig *r = *state;

    r->config.shutdown_ms = 3600 * 1000;
    exchange(r, 1 * MIB);
    replace(&r->in, -1);
    must(write(r->remote, "still", 5) == 5);
    char buf[5];
    for (size_t got = 0; got < sizeof buf;) {
        ssize_t n = read(r->out, buf + got, sizeof buf - got);
        must(n > 0);
        got += (size_t)n;
    }
    assert_no_end(r->remote);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->remote); /* nothing is left to wait for */
    assert_ends(r, PUMP_DONE, 0);
}

static void test_local_end_is_passed_on_after_silence(void **state)
{
    struct rig *r = *state;

    r->config.shutdown_ms = 1;
    exchange(r, 1 * MIB);
    replace(&r->in, -1);
    assert_at_end(r->remote);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

static void test_local_end_can_be_kept_back(void **state)
{
    struct rig *r = *state;

    r->config.shutdown_ms = -1;
    exchange(r, 1 * MIB);
    replace(&r->in, -1);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->out);
    assert_no_end(r->remote);
    assert_ends(r, PUMP_DONE, 0);
}

static void test_remote_end_is_passed_on_first(void **state)
{
    struct rig *r = *state;
    char buf[5];

    exchange(r, 1 * MIB);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->out);
    must(write(r->in, "still", 5) == 5);
    must(recv(r->remote, buf, 5, MSG_WAITALL) == 5);
    assert_memory_equal(buf, "still", 5);
    replace(&r->in, -1);
    assert_ends(r, PUMP_DONE, 0);
}

/* Standard input and output are one socket, as under inetd or a ProxyCommand with a socketpair. */
static void test_one_socket_serves_as_both(void **state)
{
    struct rig *r = *state;
    int pair[2];

    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    replace(&r->config.in, pair[0]);
    replace(&r->config.out, dup(pair[0]));
    replace(&r->in, pair[1]);
    replace(&r->out, dup(pair[1]));
    exchange(r, 8 * MIB);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->out); /* although the pump still holds the socket as its input */
    must(shutdown(r->in, SHUT_WR) == 0);
    assert_at_end(r->remote);
    assert_ends(r, PUMP_DONE, 0);
}

static void test_files_are_read_and_written(void **state)
{
    struct rig *r = *state;
    FILE *in = tmpfile(), *out = tmpfile();
    struct traffic s;

    must(in != NULL && out != NULL);
    traffic_start(&s, write_pattern, fileno(in), 3 * MIB);
    traffic_wait(&s);
    must(lseek(fileno(in), 0, SEEK_SET) == 0);
    replace(&r->config.in, dup(fileno(in)));
    replace(&r->config.out, dup(fileno(out)));
    rig_start(r);
    traffic_start(&s, check_pattern, r->remote, 3 * MIB);
    traffic_wait(&s);
    assert_int_equal(s.good, 3 * MIB);
    assert_at_end(r->remote);
    traffic_start(&s, write_pattern, r->remote, 3 * MIB);
    traffic_wait(&s);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
    must(lseek(fileno(out), 0, SEEK_SET) == 0);
    traffic_start(&s, check_pattern, fileno(out), 3 * MIB);
    traffic_wait(&s);
    assert_int_equal(s.good, 3 * MIB);
    fclose(in);
    fclose(out);
}

/*
 * Whoever is behind both pipes reads nothing until all that it writes is taken: a pump that hangs in a write to the one would
 * never read the other again. The descriptors are blocking, and stay so.
 */
static void test_full_output_does_not_stop_input(void **state)
{
    struct rig *r = *state;
    struct traffic up, down, at_remote, at_out;

    rig_start(r);
    traffic_start(&down, write_pattern, r->remote, 16 * MIB);
    traffic_start(&at_remote, check_pattern, r->remote, 16 * MIB);
    traffic_start(&up, write_pattern, r->in, 16 * MIB);
    traffic_wait(&up);
    traffic_wait(&at_remote);
    assert_int_equal(at_remote.good, 16 * MIB);
    assert_int_equal(fcntl(r->config.in, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(r->config.out, F_GETFL) & O_NONBLOCK, 0);
    traffic_start(&at_out, check_pattern, r->out, 16 * MIB);
    traffic_wait(&at_out);
    traffic_wait(&down);
    assert_int_equal(at_out.good, 16 * MIB);
    replace(&r->in, -1);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

/* And the other way round. */
static void test_full_connection_does_not_stop_output(void **state)
{
    struct rig *r = *state;
    struct traffic up, down, at_remote, at_out;

    rig_start(r);
    traffic_start(&up, write_pattern, r->in, 32 * MIB);
    traffic_start(&at_out, check_pattern, r->out, 8 * MIB);
    traffic_start(&down, write_pattern, r->remote, 8 * MIB);
    traffic_wait(&at_out);
    traffic_wait(&down);
    assert_int_equal(at_out.good, 8 * MIB);
    traffic_start(&at_remote, check_pattern, r->remote, 32 * MIB);
    traffic_wait(&at_remote);
    traffic_wait(&up);
    assert_int_equal(at_remote.good, 32 * MIB);
    replace(&r->in, -1);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

static void reset(int *fd)
{
    const struct linger hard = {1, 0};

    must(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
    replace(fd, -1);
}

static void test_reset_is_an_error(void **state)
{
    struct rig *r = *state;

    rig_start(r);
    reset(&r->remote);
    assert_ends(r, PUMP_NET_ERROR, ECONNRESET);
}

static void test_reset_after_the_remote_end_is_an_error(void **state)
{
    struct rig *r = *state;

    rig_start(r);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->out);
    reset(&r->remote);
    assert_ends(r, PUMP_NET_ERROR, ECONNRESET);
}

/* A server that answers and goes in the middle of an upload: the answer is delivered, and the upload has failed. */
static void test_answer_before_a_reset_is_delivered(void **state)
{
    struct rig *r = *state;
    struct traffic s;
    struct pollfd pfd = {.events = POLLIN};
    char buf[8];

    rig_start(r);
    must(write(r->remote, "too much", 8) == 8);
    must(read(r->out, buf, 8) == 8);
    assert_memory_equal(buf, "too much", 8);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_at_end(r->out);
    traffic_start(&s, write_pattern, r->in, 60000);
    pfd.fd = r->remote;
    must(__real_poll(&pfd, 1, 30000) == 1);
    replace(&r->remote, -1); /* with data unread, so the kernel resets */
    traffic_wait(&s);
    must(pthread_join(r->thread, NULL) == 0);
    assert_int_equal(r->result.end, PUMP_NET_ERROR);
    assert_int_equal(r->result.received, 8);
}

static void test_idle_time_ends_it(void **state)
{
    struct rig *r = *state;

    r->config.idle_ms = 30;
    rig_start(r);
    assert_ends(r, PUMP_IDLE, 0);
    assert_in_range(atomic_load(&polls), 1, 20);
}

static void test_quit_time_counts_from_the_end_of_input(void **state)
{
    struct rig *r = *state;

    r->config.quit_ms = 0;
    rig_start(r);
    must(write(r->in, "x", 1) == 1);
    replace(&r->in, -1);
    assert_ends(r, PUMP_QUIT, 0);
    assert_int_equal(r->result.sent, 1);
    assert_int_equal(read(r->remote, &(char){0}, 1), 1);
    assert_at_end(r->remote);
}

static void test_end_of_input_known_before_is_passed_on(void **state)
{
    struct rig *r = *state;

    r->config.in_ended = 1;
    rig_start(r);
    assert_at_end(r->remote);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

static void test_reader_that_leaves_ends_it(void **state)
{
    struct rig *r = *state;

    rig_start(r);
    replace(&r->out, -1); /* nothing is to be written: it is noticed all the same */
    assert_ends(r, PUMP_OUT_GONE, 0);
}

static void test_reader_that_leaves_unread_bytes_ends_it(void **state)
{
    struct rig *r = *state;
    struct traffic s;
    struct pollfd pfd = {r->out, POLLIN, 0};

    rig_start(r);
    traffic_start(&s, write_pattern, r->remote,
                  1 * MIB); /* the pipe and the pump's buffer hold less, the sockets more */
    must(__real_poll(&pfd, 1, 30000) == 1);
    replace(&r->out, -1);
    assert_ends(r, PUMP_OUT_GONE, 0);
    traffic_wait(&s);
}

static void test_local_failures_are_told(void **state)
{
    struct rig *r = *state;

    replace(&r->config.out, open("/dev/full", O_WRONLY));
    rig_start(r);
    must(write(r->remote, "x", 1) == 1);
    assert_ends(r, PUMP_OUT_ERROR, ENOSPC);
}

static void test_reading_end_of_a_pipe_is_not_written(void **state)
{
    struct rig *r = *state;

    replace(&r->config.out, dup(r->out));
    must(write(r->remote, "x", 1) == 1); /* first: without anything to write, the pipe only looks abandoned */
    rig_start(r);
    assert_ends(r, PUMP_OUT_ERROR, EBADF);
}

static void test_unreadable_input_is_told(void **state)
{
    struct rig *r = *state;

    replace(&r->config.in, open("/", O_RDONLY));
    rig_start(r);
    assert_ends(r, PUMP_IN_ERROR, EISDIR);
}

static void test_remote_end_ends_it_at_a_terminal(void **state)
{
    struct rig *r = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    char line[16];

    must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    replace(&r->config.in, open(ptsname(master), O_RDWR | O_NOCTTY));
    replace(&r->in, master);
    rig_start(r);
    must(write(r->in, "typed\n", 6) == 6);
    must(recv(r->remote, line, 6, MSG_WAITALL) == 6);
    assert_memory_equal(line, "typed\n", 6);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

static void test_hung_up_terminal_is_the_end_of_input(void **state)
{
    struct rig *r = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    replace(&r->config.in, open(ptsname(master), O_RDWR | O_NOCTTY));
    rig_start(r);
    close(master);
    assert_at_end(r->remote);
    must(shutdown(r->remote, SHUT_WR) == 0);
    assert_ends(r, PUMP_DONE, 0);
}

/* Everything has come to a halt with bytes pending and ends on all sides: the pump must sleep, not turn round and round. */
static void test_waiting_does_not_spin(void **state)
{
    struct rig *r = *state;
    struct traffic s;

    r->config.idle_ms = 100;
    replace(&r->in, -1); /* POLLHUP on the input */
    rig_start(r);
    assert_at_end(r->remote);
    traffic_start(&s, write_pattern, r->remote, 100000); /* more than the pipe takes; nobody reads it */
    traffic_wait(&s);
    must(shutdown(r->remote, SHUT_WR) == 0); /* POLLHUP on the connection as well */
    assert_ends(r, PUMP_IDLE, 0);
    assert_in_range(atomic_load(&polls), 1, 200);
}

static void test_waiting_for_the_connection_does_not_spin(void **state)
{
    struct rig *r = *state;
    FILE *in = tmpfile(); /* always readable */

    must(in != NULL && ftruncate(fileno(in), 64 * (off_t)MIB) == 0);
    replace(&r->config.in, dup(fileno(in)));
    r->config.idle_ms = 100;
    rig_start(r);
    assert_ends(r, PUMP_IDLE, 0);
    assert_in_range(atomic_load(&polls), 1, 5000);
    fclose(in);
}

int main(void)
{
#define PUMP_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define PUMP_TEST_WITHOUT_PROC(name)                                                                                   \
    {                                                                                                                  \
#name "_without_proc", name, set_up_without_proc, tear_down, NULL                                              \
    }
    const struct CMUnitTest tests[] = {
        PUMP_TEST(test_local_end_is_passed_on_first),
        PUMP_TEST(test_local_end_waits_while_the_remote_end_talks),
        PUMP_TEST(test_local_end_is_passed_on_after_silence),
        PUMP_TEST(test_local_end_can_be_kept_back),
        PUMP_TEST(test_remote_end_is_passed_on_first),
        PUMP_TEST(test_one_socket_serves_as_both),
        PUMP_TEST(test_files_are_read_and_written),
        PUMP_TEST(test_full_output_does_not_stop_input),
        PUMP_TEST(test_full_connection_does_not_stop_output),
        PUMP_TEST(test_reset_is_an_error),
        PUMP_TEST(test_reset_after_the_remote_end_is_an_error),
        PUMP_TEST(test_answer_before_a_reset_is_delivered),
        PUMP_TEST(test_idle_time_ends_it),
        PUMP_TEST(test_quit_time_counts_from_the_end_of_input),
        PUMP_TEST(test_end_of_input_known_before_is_passed_on),
        PUMP_TEST(test_reader_that_leaves_ends_it),
        PUMP_TEST(test_reader_that_leaves_unread_bytes_ends_it),
        PUMP_TEST(test_local_failures_are_told),
        PUMP_TEST(test_reading_end_of_a_pipe_is_not_written),
        PUMP_TEST(test_unreadable_input_is_told),
        PUMP_TEST(test_remote_end_ends_it_at_a_terminal),
        PUMP_TEST(test_hung_up_terminal_is_the_end_of_input),
        PUMP_TEST(test_waiting_does_not_spin),
        PUMP_TEST(test_waiting_for_the_connection_does_not_spin),
        PUMP_TEST_WITHOUT_PROC(test_local_end_is_passed_on_first),
        PUMP_TEST_WITHOUT_PROC(test_local_end_waits_while_the_remote_end_talks),
        PUMP_TEST_WITHOUT_PROC(test_local_end_is_passed_on_after_silence),
        PUMP_TEST_WITHOUT_PROC(test_local_end_can_be_kept_back),
        PUMP_TEST_WITHOUT_PROC(test_remote_end_is_passed_on_first),
        PUMP_TEST_WITHOUT_PROC(test_full_output_does_not_stop_input),
        PUMP_TEST_WITHOUT_PROC(test_reader_that_leaves_ends_it),
        PUMP_TEST_WITHOUT_PROC(test_reader_that_leaves_unread_bytes_ends_it),
        PUMP_TEST_WITHOUT_PROC(test_waiting_does_not_spin),
    };

    must(signal(SIGPIPE, SIG_IGN) != SIG_ERR); /* so that a closed pipe is an error and not our end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
