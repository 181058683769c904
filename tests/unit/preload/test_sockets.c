/*
 * The hooks of socket(7), run with the library loaded and fake_helper.py at the other end. A connection to loopback is the
 * kernel's own, so most tests do the same calls on one and on one of the helper's, and compare what was said line by line.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>

#define WAIT_MS 10000 /* for what is to come: none of it takes long */

static const char *program; /* argv[0]: tests of exec(2) start it again */
static volatile sig_atomic_t pipes;

static void count_pipe(int signal)
{
    (void)signal;
    pipes++;
}

/* ---- addresses, and a server on loopback that does what fake_helper.py's does ---- */

static struct sockaddr_in address(const char *host, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, host, &in.sin_addr), 1);
    return in;
}

enum manner { ECHO, RESET, BYE };

struct server {
    int fd;
    enum manner manner;
    struct sockaddr_in address;
};

static void serve_one(int fd, enum manner manner)
{
    const struct linger reset = {1, 0};
    char buf[2048];
    ssize_t n = 0;

    switch (manner) {
    case ECHO:
        while ((n = recv(fd, buf, sizeof buf, 0)) > 0) {
            for (ssize_t sent = 0; sent < n;) {
                ssize_t m = send(fd, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL);

                if (m < 0) {
                    break;
                }
                sent += m;
            }
        }
        break;
    case RESET:
        n = recv(fd, buf, sizeof buf, 0);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        break;
    case BYE:
        (void)send(fd, "bye", 3, MSG_NOSIGNAL);
        (void)shutdown(fd, SHUT_WR);
        while ((n = recv(fd, buf, sizeof buf, 0)) > 0) {
        }
        break;
    }
    (void)close(fd);
}

struct accepted {
    int fd;
    enum manner manner;
};

static void *serve_in_thread(void *arg)
{
    struct accepted accepted = *(struct accepted *)arg;

    free(arg);
    serve_one(accepted.fd, accepted.manner);
    return NULL;
}

static void *accept_all(void *arg)
{
    const struct server *server = arg;
    sigset_t all;

    (void)sigfillset(&all); /* signals are the main thread's, whose calls they are to interrupt */
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;) {
        struct accepted *accepted = malloc(sizeof *accepted);
        pthread_t thread;

        assert_non_null(accepted);
        accepted->manner = server->manner;
        accepted->fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
        if (accepted->fd < 0 || pthread_create(&thread, NULL, serve_in_thread, accepted) != 0) {
            abort();
        }
        (void)pthread_detach(thread);
    }
    return NULL;
}

static struct sockaddr_in loopback(enum manner manner)
{
    static struct server servers[3];
    struct server *server = &servers[manner];
    socklen_t len = sizeof server->address;
    pthread_t thread;

    if (server->address.sin_port == 0) {
        server->manner = manner;
        server->address = address("127.0.0.1", 0);
        server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_return_code(bind(server->fd, (struct sockaddr *)&server->address, len), errno);
        assert_return_code(listen(server->fd, 64), errno);
        assert_return_code(getsockname(server->fd, (struct sockaddr *)&server->address, &len), errno);
        assert_int_equal(pthread_create(&thread, NULL, accept_all, server), 0);
    }
    return server->address;
}

static int dial(int fd, const struct sockaddr_in *to)
{
    return connect(fd, (const struct sockaddr *)to, sizeof *to);
}

static short poll_for(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    return poll(&poll_fd, 1, WAIT_MS) == 1 ? poll_fd.revents : 0;
}

static short poll_now(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    return poll(&poll_fd, 1, 0) == 1 ? poll_fd.revents : 0;
}

static int socket_error(int fd)
{
    int error = -1;
    socklen_t len = sizeof error;

    assert_return_code(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), errno);
    return error;
}

static int new_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

    assert_return_code(fd, errno);
    return fd;
}

static int connected(const char *host)
{
    struct sockaddr_in to = address(host, 80);
    int fd = new_socket(0);

    assert_return_code(dial(fd, &to), errno);
    return fd;
}

static void set_blocking(int fd, bool blocks)
{
    assert_return_code(fcntl(fd, F_SETFL, blocks ? 0 : O_NONBLOCK), errno);
}

/* ---- transcripts ---- */

struct transcript {
    char text[16384];
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void say(struct transcript *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(t->text + t->len, sizeof t->text - t->len, format, args);
    va_end(args);
    assert_true(n >= 0 && (size_t)n < sizeof t->text - t->len);
    t->len += (size_t)n;
}

/* A call, its result and errno, and how many SIGPIPE came with it. */
#define TELL(t, call)                                                                                                  \
    do {                                                                                                               \
        long rc_;                                                                                                      \
        pipes = 0;                                                                                                     \
        errno = 0;                                                                                                     \
        rc_ = (long)(call);                                                                                            \
        say(t, "%s = %ld %s%s\n", #call, rc_, rc_ < 0 ? strerrorname_np(errno) : "", pipes ? " SIGPIPE" : "");         \
    } while (0)

/* The first line that differs is all that one wants to see. */
static void assert_same(const struct transcript *got, const struct transcript *expected, const char *host)
{
    const char *a = got->text, *b = expected->text;

    while (*a != '\0' && strcspn(a, "\n") == strcspn(b, "\n") && strncmp(a, b, strcspn(a, "\n")) == 0) {
        a += strcspn(a, "\n") + 1;
        b += strcspn(b, "\n") + 1;
    }
    if (*a != '\0' || *b != '\0') {
        fail_msg("%s says \"%.*s\", TCP \"%.*s\"", host, (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
    }
}

enum way { BLOCKING, NON_BLOCKING };

typedef void (*act_function)(struct transcript *t, int fd);

/* The same on a connection of the kernel and on those of the helper. */
static void compare(act_function act, enum manner manner, const char *const *hosts)
{
    struct sockaddr_in to = loopback(manner);
    struct transcript *expected = calloc(2, sizeof *expected), *got = expected + 1;
    int fd = new_socket(0);

    assert_non_null(expected);
    assert_return_code(dial(fd, &to), errno);
    act(expected, fd);
    assert_return_code(close(fd), errno);
    for (int i = 0; hosts[i] != NULL; i++) {
        for (int way = BLOCKING; way <= NON_BLOCKING; way++) {
            to = address(hosts[i], 80);
            fd = new_socket(way == BLOCKING ? 0 : SOCK_NONBLOCK);
            if (dial(fd, &to) < 0) {
                assert_int_equal(errno, EINPROGRESS);
                assert_int_equal(poll_for(fd, POLLOUT), POLLOUT);
                assert_int_equal(socket_error(fd), 0);
            }
            set_blocking(fd, true);
            memset(got, 0, sizeof *got);
            act(got, fd);
            assert_same(got, expected, hosts[i]);
            assert_return_code(close(fd), errno);
        }
    }
    free(expected);
}

static const char *const echoes[] = {"192.0.2.1", "192.0.2.2", "192.0.2.12", NULL};
static const char *const resets[] = {"192.0.2.7", NULL};
static const char *const byes[] = {"192.0.2.8", NULL};

/* ---- data ---- */

static void talk(struct transcript *t, int fd)
{
    char buf[64] = "";

    TELL(t, write(fd, "hello", 5));
    TELL(t, recv(fd, buf, 5, MSG_WAITALL | MSG_PEEK));
    TELL(t, recv(fd, buf, 5, MSG_WAITALL));
    say(t, "%s\n", buf);
    TELL(t, recv(fd, buf, 1, MSG_DONTWAIT));
    TELL(t, recv(fd, buf, 1, MSG_ERRQUEUE));
    TELL(t, recv(fd, buf, 1, MSG_OOB));
    TELL(t, shutdown(fd, 7));
    TELL(t, shutdown(fd, SHUT_WR));
    TELL(t, recv(fd, buf, sizeof buf, 0));
    TELL(t, recv(fd, buf, sizeof buf, 0));
    TELL(t, send(fd, "x", 1, 0));
    TELL(t, send(fd, "x", 1, MSG_NOSIGNAL));
    TELL(t, write(fd, "x", 1));
    TELL(t, socket_error(fd));
}

static void test_data_as_on_tcp(void **state)
{
    (void)state;
    compare(talk, ECHO, echoes);
}

static void addresses_of_data(struct transcript *t, int fd)
{
    struct sockaddr_in elsewhere = address("192.0.2.99", 9);
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    char buf[16] = "";
    struct iovec iov = {buf, sizeof buf};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    struct mmsghdr messages[2] = {{.msg_hdr = message}, {.msg_hdr = message}};

    memset(&from, 0xaa, sizeof from);
    TELL(t, sendto(fd, "abc", 3, 0, (struct sockaddr *)&elsewhere, sizeof elsewhere));
    TELL(t, recvfrom(fd, buf, 3, MSG_WAITALL, (struct sockaddr *)&from, &len));
    say(t, "%u %x %s\n", len, from.ss_family, buf);
    len = (socklen_t)-1;
    TELL(t, send(fd, "d", 1, 0));
    TELL(t, recvfrom(fd, buf, 1, 0, (struct sockaddr *)&from, &len));
    iov.iov_len = 4;
    message.msg_name = &elsewhere;
    message.msg_namelen = sizeof elsewhere;
    TELL(t, sendmsg(fd, &message, 0));
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    TELL(t, recvmsg(fd, &message, MSG_WAITALL));
    say(t, "%u %x %x\n", message.msg_namelen, from.ss_family, (unsigned)message.msg_flags);
    TELL(t, sendmmsg(fd, messages, 1, 0));
    TELL(t, recvmmsg(fd, messages, 1, MSG_WAITFORONE, NULL));
    say(t, "%u\n", messages[0].msg_hdr.msg_namelen);
}

static void test_data_has_no_address(void **state)
{
    (void)state;
    compare(addresses_of_data, ECHO, echoes);
}

static void vectors_and_files(struct transcript *t, int fd)
{
    char a[4] = "abcd", b[4] = "efgh";
    struct iovec parts[] = {{a, 4}, {b, 4}};
    int file = memfd_create("test", MFD_CLOEXEC), pipe_fds[2];
    off_t offset = 0;

    assert_return_code(file, errno);
    assert_return_code(pipe(pipe_fds), errno);
    TELL(t, writev(fd, parts, 2));
    TELL(t, recv(fd, a, 1, MSG_PEEK));
    TELL(t, poll_for(fd, POLLIN));
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    TELL(t, recv(fd, a, 4, MSG_WAITALL));
    TELL(t, readv(fd, parts + 1, 1));
    say(t, "%.4s%.4s\n", a, b);
    assert_int_equal(write(file, "from a file", 11), 11);
    TELL(t, sendfile(fd, file, &offset, 11));
    TELL(t, poll_for(fd, POLLIN));
    TELL(t, splice(fd, NULL, pipe_fds[1], NULL, 11, 0));
    TELL(t, splice(pipe_fds[0], NULL, fd, NULL, 11, 0));
    TELL(t, poll_for(fd, POLLIN));
    TELL(t, splice(fd, NULL, pipe_fds[1], NULL, 11, 0));
    TELL(t, shutdown(fd, SHUT_WR));
    TELL(t, splice(fd, NULL, pipe_fds[1], NULL, 11, 0));
    offset = 0;
    TELL(t, sendfile(fd, file, &offset, 11));
    TELL(t, splice(pipe_fds[0], NULL, fd, NULL, 11, 0));
    (void)close(file);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
}

static void test_vectors_sendfile_and_splice_as_on_tcp(void **state)
{
    (void)state;
    compare(vectors_and_files, ECHO, echoes);
}

static void read_after_reset(struct transcript *t, int fd)
{
    char buf[16];

    TELL(t, send(fd, "x", 1, 0));
    TELL(t, poll_for(fd, POLLIN) & (POLLIN | POLLHUP));
    TELL(t, read(fd, buf, sizeof buf));
    TELL(t, read(fd, buf, sizeof buf));
    TELL(t, socket_error(fd));
    TELL(t, send(fd, "x", 1, 0));
    TELL(t, send(fd, "x", 1, MSG_NOSIGNAL));
}

static void write_after_reset(struct transcript *t, int fd)
{
    char buf[16];

    TELL(t, send(fd, "x", 1, 0));
    TELL(t, poll_for(fd, POLLIN) & (POLLIN | POLLHUP));
    TELL(t, write(fd, "x", 1));
    TELL(t, write(fd, "x", 1));
    TELL(t, recv(fd, buf, sizeof buf, 0));
}

static void ask_after_reset(struct transcript *t, int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    char buf[16];

    TELL(t, send(fd, "x", 1, 0));
    TELL(t, poll_for(fd, POLLIN) & (POLLIN | POLLHUP));
    TELL(t, getpeername(fd, (struct sockaddr *)&peer, &len));
    TELL(t, socket_error(fd));
    TELL(t, socket_error(fd));
    TELL(t, recv(fd, buf, sizeof buf, 0));
    TELL(t, shutdown(fd, SHUT_WR));
}

static void test_reset_connections_as_on_tcp(void **state)
{
    (void)state;
    compare(read_after_reset, RESET, resets);
    compare(write_after_reset, RESET, resets);
    compare(ask_after_reset, RESET, resets);
}

static void read_to_the_end(struct transcript *t, int fd)
{
    char buf[16] = "";

    TELL(t, recv(fd, buf, 3, MSG_WAITALL));
    TELL(t, recv(fd, buf, sizeof buf, 0));
    TELL(t, poll_for(fd, POLLIN | POLLRDHUP));
    TELL(t, recv(fd, buf, sizeof buf, 0));
    TELL(t, send(fd, "x", 1, 0));
    TELL(t, socket_error(fd));
    TELL(t, shutdown(fd, SHUT_RDWR));
    TELL(t, recv(fd, buf, sizeof buf, 0));
}

static void test_half_closed_connections_as_on_tcp(void **state)
{
    (void)state;
    compare(read_to_the_end, BYE, byes);
}

/* ---- names and options ---- */

static void names(struct transcript *t, int fd)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;

    TELL(t, getpeername(fd, (struct sockaddr *)&name, &len));
    say(t, "%u %u\n", len, name.ss_family);
    TELL(t, getsockname(fd, (struct sockaddr *)&name, &len));
    say(t, "%u %u\n", len, name.ss_family);
    len = 2;
    TELL(t, getpeername(fd, (struct sockaddr *)&name, &len));
    say(t, "%u\n", len);
    len = (socklen_t)-1;
    TELL(t, getpeername(fd, (struct sockaddr *)&name, &len));
    TELL(t, getsockname(fd, (struct sockaddr *)&name, &len));
    len = sizeof(struct sockaddr_in);
    TELL(t, getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &name, &len));
    len = sizeof name;
    TELL(t, getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &name, &len));
}

static void test_names_as_on_tcp(void **state)
{
    (void)state;
    compare(names, ECHO, echoes);
}

static void test_names_are_destination_and_proxys_address(void **state)
{
    (void)state;
    for (int i = 0; echoes[i] != NULL; i++) {
        int fd = connected(echoes[i]);
        struct sockaddr_in name, expected = address(echoes[i], 80), local = address("198.51.100.1", 4242);
        socklen_t len = sizeof name;

        assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
        assert_memory_equal(&name, &expected, sizeof name);
        assert_return_code(getsockname(fd, (struct sockaddr *)&name, &len), errno);
        assert_memory_equal(&name, &local, sizeof name);
        (void)close(fd);
    }
}

static const struct {
    int level, name;
    int value; /* to set; 0 = only to read */
} numbers[] = {
    {SOL_SOCKET, SO_TYPE, 0},        {SOL_SOCKET, SO_DOMAIN, 0},
    {SOL_SOCKET, SO_PROTOCOL, 0},    {SOL_SOCKET, SO_ACCEPTCONN, 0},
    {SOL_SOCKET, SO_KEEPALIVE, 1},   {SOL_SOCKET, SO_REUSEADDR, 1},
    {SOL_SOCKET, SO_OOBINLINE, 1},   {SOL_SOCKET, SO_PRIORITY, 3},
    {SOL_SOCKET, SO_RCVLOWAT, 2},    {SOL_SOCKET, SO_RCVBUF, 50000},
    {SOL_SOCKET, SO_SNDBUF, 50000},  {SOL_SOCKET, 9999, 1},
    {IPPROTO_IP, IP_TOS, 0x10},      {IPPROTO_IP, IP_TTL, 33},
    {IPPROTO_IP, IP_TTL, 999},       {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9},
    {IPPROTO_TCP, TCP_NODELAY, 1},   {IPPROTO_TCP, TCP_KEEPIDLE, 77},
    {IPPROTO_TCP, TCP_KEEPIDLE, -1}, {IPPROTO_TCP, TCP_USER_TIMEOUT, 5000},
    {IPPROTO_TCP, 9999, 1},          {IPPROTO_UDP, 1, 1},
};

static void options(struct transcript *t, int fd)
{
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int level = numbers[i].level, name = numbers[i].name, value = numbers[i].value;
        socklen_t len = sizeof value;

        say(t, "%d %d: ", level, name);
        if (value != 0) {
            TELL(t, setsockopt(fd, level, name, &value, sizeof value));
            TELL(t, setsockopt(fd, level, name, &value, 2));
        }
        value = 0;
        TELL(t, getsockopt(fd, level, name, &value, &len));
        say(t, "%d %u\n", value, len);
        len = 1;
        TELL(t, getsockopt(fd, level, name, &value, &len));
        len = (socklen_t)-1;
        TELL(t, getsockopt(fd, level, name, &value, &len));
    }
}

static void structures(struct transcript *t, int fd)
{
    struct timeval time = {7, 500000};
    struct linger linger = {1, 3};
    char name[16] = "";
    socklen_t len = sizeof time;

    TELL(t, setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    memset(&time, 0, sizeof time);
    TELL(t, getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &len));
    say(t, "%ld.%06ld %u\n", (long)time.tv_sec, (long)time.tv_usec, len);
    TELL(t, setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    memset(&linger, 0, sizeof linger);
    len = sizeof linger;
    TELL(t, getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len));
    say(t, "%d %d %u\n", linger.l_onoff, linger.l_linger, len);
    len = sizeof name;
    TELL(t, getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len));
    say(t, "%s %u\n", name, len);
    TELL(t, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, sizeof(int)));
}

static void test_options_as_on_tcp(void **state)
{
    (void)state;
    compare(options, ECHO, echoes);
    compare(structures, ECHO, echoes);
}

static void test_options_set_before_connect_stay(void **state)
{
    (void)state;
    for (int i = 0; echoes[i] != NULL; i++) {
        struct sockaddr_in to = address(echoes[i], 80);
        struct timeval time = {9, 0};
        int fd = new_socket(0), value = 44;
        socklen_t len = sizeof value;

        assert_return_code(setsockopt(fd, IPPROTO_IP, IP_TTL, &value, len), errno);
        assert_return_code(setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &value, len), errno);
        assert_return_code(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), errno);
        assert_return_code(fcntl(fd, F_SETOWN, getpid()), errno);
        assert_return_code(fcntl(fd, F_SETSIG, SIGUSR2), errno);
        assert_return_code(fcntl(fd, F_SETFD, FD_CLOEXEC), errno);
        assert_return_code(dial(fd, &to), errno);
        value = 0;
        assert_return_code(getsockopt(fd, IPPROTO_IP, IP_TTL, &value, &len), errno);
        assert_int_equal(value, 44);
        assert_return_code(getsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &value, &len), errno);
        assert_int_equal(value, 44);
        len = sizeof time;
        assert_return_code(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &len), errno);
        assert_int_equal(time.tv_sec, 9);
        assert_int_equal(fcntl(fd, F_GETOWN), getpid());
        assert_int_equal(fcntl(fd, F_GETSIG), SIGUSR2);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        (void)close(fd);
    }
}

/* Most sockets have no option set, and are passed over quickly: not those where it was done in a roundabout way. */
static void test_options_set_on_a_duplicate_stay(void **state)
{
    (void)state;
    for (int i = 0; echoes[i] != NULL; i++) {
        struct sockaddr_in to = address(echoes[i], 80);
        int fd = new_socket(0), copy = dup(fd), value = 45;
        socklen_t len = sizeof value;

        assert_return_code(setsockopt(copy, IPPROTO_IP, IP_TTL, &value, len), errno);
        assert_return_code(dial(fd, &to), errno);
        value = 0;
        assert_return_code(getsockopt(fd, IPPROTO_IP, IP_TTL, &value, &len), errno);
        assert_int_equal(value, 45);
        assert_int_equal(dial(fd, &to), -1);
        assert_int_equal(errno, EISCONN);
        (void)close(copy);
        (void)close(fd);
    }
}

static void test_signals_of_streams_come(void **state)
{
    struct sockaddr_in to = address("192.0.2.2", 80);
    struct timespec wait = {WAIT_MS / 1000, 0};
    int fd = new_socket(SOCK_NONBLOCK), number = SIGRTMIN + 1;
    sigset_t set;
    siginfo_t info;

    (void)state;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, number);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    assert_return_code(fcntl(fd, F_SETOWN, getpid()), errno);
    assert_return_code(fcntl(fd, F_SETSIG, number), errno);
    assert_return_code(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK), errno);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(sigtimedwait(&set, &info, &wait), number);
    assert_int_equal(info.si_fd, fd);
    assert_int_equal(poll_now(fd, POLLIN | POLLOUT), POLLOUT);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ASYNC, O_ASYNC);
    (void)close(fd);
}

static void test_ipv6_sockets_keep_their_family(void **state)
{
    static const char *const hosts[] = {"2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "::ffff:192.0.2.2"};

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(80)}, name;
        int fd = socket(AF_INET6, SOCK_STREAM, 0), value = 0, hops = 9;
        socklen_t len = sizeof name;

        assert_int_equal(inet_pton(AF_INET6, hosts[i], &to.sin6_addr), 1);
        assert_return_code(connect(fd, (struct sockaddr *)&to, sizeof to), errno);
        assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
        assert_int_equal(len, sizeof name);
        assert_memory_equal(&name, &to, sizeof name);
        assert_return_code(getsockname(fd, (struct sockaddr *)&name, &len), errno);
        assert_int_equal(name.sin6_family, AF_INET6);
        len = sizeof value;
        assert_return_code(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len), errno);
        assert_int_equal(value, AF_INET6);
        assert_return_code(setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof hops), errno);
        assert_return_code(getsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &value, &len), errno);
        assert_int_equal(value, 9);
        (void)close(fd);
    }
}

/* ---- connect ---- */

static void connect_twice(struct transcript *t, int fd)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in to = address("192.0.2.1", 80);
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    int value = 0;

    TELL(t, dial(fd, &to));
    TELL(t, connect(fd, &none, 1));
    TELL(t, setsockopt(fd, IPPROTO_IP, IP_TTL, (int[]){55}, sizeof(int)));
    TELL(t, connect(fd, &none, sizeof none));
    TELL(t, getpeername(fd, (struct sockaddr *)&peer, &len));
    len = sizeof value;
    TELL(t, getsockopt(fd, IPPROTO_IP, IP_TTL, &value, &len));
    say(t, "%d\n", value);
    TELL(t, dial(fd, &to));
    TELL(t, send(fd, "x", 1, 0));
    TELL(t, recv(fd, &value, 1, 0));
}

static void test_connected_sockets_can_be_dissolved(void **state)
{
    static const char *const streams[] = {"192.0.2.2", "192.0.2.1", NULL};

    (void)state;
    /* A non-blocking connect() that was not asked a second time says 0 once, which the blocking one does not. */
    for (int i = 0; streams[i] != NULL; i++) {
        struct transcript *expected = calloc(2, sizeof *expected), *got = expected + 1;
        struct sockaddr_in to = loopback(ECHO);
        int fd = new_socket(0);

        assert_return_code(dial(fd, &to), errno);
        connect_twice(expected, fd);
        (void)close(fd);
        fd = connected(streams[i]);
        connect_twice(got, fd);
        assert_same(got, expected, streams[i]);
        (void)close(fd);
        free(expected);
    }
}

static void test_non_blocking_connect_waits_in_kernel(void **state)
{
    struct sockaddr_in to = address("192.0.2.10", 80), starter = address("192.0.2.11", 80), name;
    int fd = new_socket(SOCK_NONBLOCK), other = new_socket(0);
    socklen_t len = sizeof name;
    char byte;

    (void)state;
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(poll_now(fd, POLLIN | POLLOUT | POLLRDHUP), 0);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EALREADY);
    assert_int_equal(socket_error(fd), 0);
    assert_int_equal(getpeername(fd, (struct sockaddr *)&name, &len), -1);
    assert_int_equal(errno, ENOTCONN);
    assert_return_code(getsockname(fd, (struct sockaddr *)&name, &len), errno);
    assert_int_equal(send(fd, "x", 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(dial(other, &starter), -1);
    assert_int_equal(errno, ECONNREFUSED);
    assert_int_equal(poll_for(fd, POLLIN | POLLOUT | POLLRDHUP), POLLOUT);
    assert_int_equal(dial(fd, &to), 0);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EISCONN);
    assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
    assert_memory_equal(&name, &to, sizeof name);
    (void)close(fd);
    (void)close(other);
}

/* As Linux has it: inet_stream_connect() and tcp_reset(). */
static void test_refused_non_blocking_connect(void **state)
{
    struct sockaddr_in to = address("192.0.2.3", 80), name;
    socklen_t len = sizeof name;
    int fd = new_socket(SOCK_NONBLOCK);
    char byte;

    (void)state;
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(poll_for(fd, POLLOUT), POLLOUT | POLLERR | POLLHUP);
    assert_int_equal(poll_now(fd, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    assert_int_equal(getpeername(fd, (struct sockaddr *)&name, &len), -1);
    assert_int_equal(errno, ENOTCONN);
    assert_int_equal(socket_error(fd), ECONNREFUSED);
    assert_int_equal(socket_error(fd), 0);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, ECONNABORTED);
    to = address("192.0.2.2", 80);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(poll_for(fd, POLLOUT), POLLOUT);
    assert_int_equal(socket_error(fd), 0);
    (void)close(fd);
    /* The error goes to who asks first. */
    to = address("192.0.2.3", 80);
    for (int how = 0; how < 3; how++) {
        fd = new_socket(SOCK_NONBLOCK);
        assert_int_equal(dial(fd, &to), -1);
        assert_int_equal(poll_for(fd, POLLIN) & POLLHUP, POLLHUP);
        assert_int_equal(how == 0   ? dial(fd, &to)
                         : how == 1 ? (int)recv(fd, &byte, 1, 0)
                                    : (int)send(fd, "x", 1, 0),
                         -1);
        assert_int_equal(errno, ECONNREFUSED);
        assert_int_equal(how == 0 ? 0 : recv(fd, &byte, 1, 0), 0);
        assert_int_equal(socket_error(fd), 0);
        (void)close(fd);
    }
}

static void test_blocking_connect_tells_why(void **state)
{
    static const struct {
        const char *host;
        int error;
    } cases[] = {{"192.0.2.3", ECONNREFUSED}, {"192.0.2.6", EACCES}, {"192.0.2.9", ENETUNREACH}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_in to = address(cases[i].host, 80);
        int fd = new_socket(0);

        assert_int_equal(dial(fd, &to), -1);
        assert_int_equal(errno, cases[i].error);
        assert_int_equal(socket_error(fd), 0);
        to = address("192.0.2.2", 80);
        assert_return_code(dial(fd, &to), errno); /* the socket can be used again */
        (void)close(fd);
    }
}

static void test_direct_connections_are_the_kernels(void **state)
{
    struct sockaddr_in to = loopback(ECHO);
    int fd = new_socket(SOCK_NONBLOCK), value = 0;
    socklen_t len = sizeof value;

    (void)state;
    assert_true(dial(fd, &to) == 0 || errno == EINPROGRESS);
    assert_int_equal(poll_for(fd, POLLOUT), POLLOUT);
    assert_return_code(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len), errno);
    assert_int_equal(value, AF_INET);
    (void)close(fd);
}

static void test_wrong_calls_are_the_kernels(void **state)
{
    struct sockaddr_in to = address("192.0.2.1", 80);
    struct sockaddr_in6 to6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(80), .sin6_addr = {{{0xfe, 0x80, [15] = 1}}}};
    int fd = new_socket(0), fd6 = socket(AF_INET6, SOCK_STREAM, 0), file = open("/dev/null", O_RDWR), on = 1;
    struct sockaddr_storage big = {.ss_family = AF_INET};
    socklen_t len = sizeof to;
    struct {
        int rc, error, expected;
    } results[] = {
#define FAILS(call, error) {(call), errno, (error)}
        FAILS(connect(fd, (struct sockaddr *)&to, 15), EINVAL),
        FAILS(connect(fd, (struct sockaddr *)&to, 1), EINVAL),
        FAILS(connect(fd, (struct sockaddr *)&to, 4096), EINVAL),
        FAILS(connect(fd, NULL, sizeof to), EFAULT),
        FAILS(connect(fd, (struct sockaddr *)&to6, sizeof to6), EAFNOSUPPORT),
        FAILS(connect(fd6, (struct sockaddr *)&to, sizeof to), EINVAL),
        FAILS(connect(fd6, (struct sockaddr *)&big, sizeof big), EAFNOSUPPORT),
        FAILS(connect(fd6, (struct sockaddr *)&to6, sizeof to6), EINVAL), /* no scope */
        FAILS(connect(fd6, (struct sockaddr *)&to6, 23), EINVAL),
        FAILS(dial(-1, &to), EBADF),
        FAILS(dial(file, &to), ENOTSOCK),
        FAILS(getpeername(fd, (struct sockaddr *)&to, &len), ENOTCONN),
        FAILS(getpeername(file, (struct sockaddr *)&to, &len), ENOTSOCK),
        FAILS(getpeername(-1, (struct sockaddr *)&to, &len), EBADF),
        FAILS(getsockname(file, (struct sockaddr *)&to, &len), ENOTSOCK),
        FAILS(getsockopt(file, SOL_SOCKET, SO_ERROR, &on, &len), ENOTSOCK),
        FAILS(setsockopt(-1, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on), EBADF),
        FAILS(shutdown(fd, SHUT_WR), ENOTCONN),
        FAILS(shutdown(file, SHUT_WR), ENOTSOCK),
        FAILS((int)recv(fd, &on, 1, MSG_DONTWAIT), ENOTCONN),
        FAILS((int)send(fd, &on, 1, MSG_NOSIGNAL), EPIPE),
        FAILS((int)send(file, &on, 1, MSG_NOSIGNAL), ENOTSOCK),
#undef FAILS
    };

    (void)state;
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        if (results[i].rc != -1 || results[i].error != results[i].expected) {
            fail_msg("call %zu: %d, %s", i, results[i].rc, strerrorname_np(results[i].error));
        }
    }
    assert_return_code(setsockopt(fd6, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), errno);
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &to6.sin6_addr), 1);
    assert_int_equal(connect(fd6, (struct sockaddr *)&to6, sizeof to6), -1);
    assert_int_equal(errno, ENETUNREACH);
    (void)close(fd);
    (void)close(fd6);
    (void)close(file);
}

/* ---- signals, time, threads ---- */

static void ignore_signal(int signal)
{
    (void)signal;
}

static void interrupt_after(int ms, int flags)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = flags};
    struct itimerval timer = {.it_value = {0, ms * 1000}};

    assert_return_code(sigaction(SIGALRM, &action, NULL), errno);
    assert_return_code(setitimer(ITIMER_REAL, &timer, NULL), errno);
}

static void test_interrupted_connect_goes_on(void **state)
{
    struct sockaddr_in to = address("192.0.2.3", 80);
    int fd = new_socket(0);

    (void)state;
    interrupt_after(30, 0);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINTR);
    assert_int_equal(dial(fd, &to), -1); /* waits on */
    assert_int_equal(errno, ECONNREFUSED);
    (void)close(fd);
    fd = new_socket(0);
    interrupt_after(30, SA_RESTART);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, ECONNREFUSED);
    (void)close(fd);
}

static void test_send_timeout_limits_connect(void **state)
{
    struct sockaddr_in to = address("192.0.2.4", 80);
    struct timeval time = {0, 50000}, none = {0, 0};
    int fd = new_socket(0);

    (void)state;
    assert_return_code(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time), errno);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EALREADY);
    assert_int_equal(poll_now(fd, POLLOUT), 0);
    interrupt_after(30, 0);
    assert_return_code(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none), errno);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINTR);
    (void)close(fd);
}

static int count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void *connect_for_ever(void *arg)
{
    struct sockaddr_in to = address("192.0.2.4", 80);

    (void)dial(*(int *)arg, &to);
    return NULL;
}

static void test_connect_can_be_cancelled(void **state)
{
    int fd = new_socket(0), before = count_descriptors();
    pthread_t thread;
    void *result;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, connect_for_ever, &fd), 0);
    while (count_descriptors() == before) { /* it is on the way */
        (void)usleep(1000);
    }
    (void)usleep(20000);
    assert_int_equal(pthread_cancel(thread), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_int_equal(count_descriptors(), before);
    (void)close(fd);
}

static int in_handler[64];
static volatile sig_atomic_t handled;

static void connect_in_handler(int signal)
{
    static struct sockaddr_in to = {.sin_family = AF_INET};
    int saved = errno, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)signal;
    to.sin_port = htons(80);
    to.sin_addr.s_addr = htonl(0xc0000201u + (unsigned)handled % 2);
    in_handler[handled] = fd < 0 || dial(fd, &to) < 0 ? -1 : fd;
    handled++;
    errno = saved;
}

static void test_connect_in_a_signal_handler(void **state)
{
    struct sigaction action = {.sa_handler = connect_in_handler};
    struct itimerval timer = {.it_interval = {0, 2000}, .it_value = {0, 2000}}, none = {0};

    (void)state;
    handled = 0;
    assert_return_code(sigaction(SIGALRM, &action, NULL), errno);
    assert_return_code(setitimer(ITIMER_REAL, &timer, NULL), errno);
    while (handled < 50) {
        void *memory = malloc(1 + (size_t)handled * 100);

        assert_non_null(memory);
        free(memory);
    }
    assert_return_code(setitimer(ITIMER_REAL, &none, NULL), errno);
    for (int i = 0; i < handled; i++) {
        char byte = 0;

        assert_true(in_handler[i] >= 0);
        assert_int_equal(send(in_handler[i], "y", 1, 0), 1);
        assert_int_equal(recv(in_handler[i], &byte, 1, 0), 1);
        assert_int_equal(byte, 'y');
        (void)close(in_handler[i]);
    }
}

/* ---- other descriptors, other processes ---- */

static int wait_event(int epoll_fd, struct epoll_event *event)
{
    return epoll_wait(epoll_fd, event, 1, WAIT_MS);
}

static void test_epoll_registrations_move_along(void **state)
{
    struct sockaddr_in to = address("192.0.2.2", 80);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u64 = 0x123456789abcdef0u};
    int epoll_fd = epoll_create1(0), fd = new_socket(SOCK_NONBLOCK);

    (void)state;
    assert_return_code(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), errno);
    assert_int_equal(wait_event(epoll_fd, &event), 1); /* TCP says that of a socket that is not connected */
    assert_int_equal(event.events, EPOLLOUT | EPOLLHUP);
    assert_int_equal(dial(fd, &to), -1);
    assert_int_equal(errno, EINPROGRESS);
    assert_int_equal(epoll_wait(epoll_fd, &event, 1, 0), 0);
    assert_int_equal(wait_event(epoll_fd, &event), 1);
    assert_int_equal(event.events, EPOLLOUT);
    assert_true(event.data.u64 == 0x123456789abcdef0u);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    do {
        assert_int_equal(wait_event(epoll_fd, &event), 1);
    } while ((event.events & EPOLLIN) == 0);
    assert_return_code(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL), errno);
    (void)close(fd);
    (void)close(epoll_fd);
}

static void test_duplicates_are_connected_too(void **state)
{
    struct sockaddr_in to = address("192.0.2.2", 80), name;
    int fd = new_socket(0), copies[4], exact = 200;
    socklen_t len = sizeof name;

    (void)state;
    copies[0] = dup(fd);
    copies[1] = dup2(fd, exact);
    copies[2] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    copies[3] = dup3(copies[0], 201, O_CLOEXEC);
    assert_return_code(dial(copies[2], &to), errno);
    for (int i = 0; i < 4; i++) {
        assert_return_code(getpeername(copies[i], (struct sockaddr *)&name, &len), errno);
        assert_memory_equal(&name, &to, sizeof name);
        assert_int_equal(fcntl(copies[i], F_GETFD), i < 2 ? 0 : FD_CLOEXEC);
        (void)close(copies[i]);
    }
    assert_int_equal(send(fd, "x", 1, 0), 1);
    (void)close(fd);
}

/* What a program that has got a connection without knowing how makes of it. `fd` is a stream that has been reset. */
static int judge_inherited(int fd, int broken)
{
    struct sockaddr_in name, expected = address("192.0.2.2", 80);
    socklen_t len = sizeof name;
    char byte = 0;
    int value = 0;

    if (getpeername(fd, (struct sockaddr *)&name, &len) != 0 || memcmp(&name, &expected, sizeof name) != 0) {
        return 2;
    }
    len = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len) != 0 || value != AF_INET) {
        return 3;
    }
    if (write(fd, "x", 1) != 1 || read(fd, &byte, 1) != 1 || byte != 'x') {
        return 4;
    }
    if (dial(fd, &expected) != -1 || errno != EISCONN) {
        return 5;
    }
    return read(broken, &byte, 1) == -1 && errno == ECONNRESET && read(broken, &byte, 1) == 0 ? 0 : 6;
}

static void test_connections_are_known_after_exec(void **state)
{
    char numbers_text[2][16];
    int fd = connected("192.0.2.2"), broken = connected("192.0.2.7"), status;
    pid_t child;

    (void)state;
    assert_int_equal(send(broken, "x", 1, 0), 1);
    assert_int_not_equal(poll_for(broken, POLLIN) & POLLHUP, 0);
    (void)snprintf(numbers_text[0], sizeof numbers_text[0], "%d", fd);
    (void)snprintf(numbers_text[1], sizeof numbers_text[1], "%d", broken);
    child = fork();
    if (child == 0) {
        (void)execl(program, program, "inherited", numbers_text[0], numbers_text[1], (char *)NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    (void)close(fd);
    (void)close(broken);
}

static int pass_through(int fd)
{
    int pair[2], got = -1;
    char byte = 0;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};

    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), errno);
    assert_int_equal(sendmsg(pair[0], &message, 0), 1);
    assert_int_equal(recvmsg(pair[1], &message, 0), 1);
    memcpy(&got, CMSG_DATA(&control.header), sizeof got);
    (void)close(pair[0]);
    (void)close(pair[1]);
    return got;
}

static void test_passed_connections_are_known(void **state)
{
    static const char *const hosts[] = {"192.0.2.1", "192.0.2.2"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in name, expected = address(hosts[i], 80);
        int fd = connected(hosts[i]), other = pass_through(fd);
        socklen_t len = sizeof name;

        (void)close(fd);
        assert_return_code(getpeername(other, (struct sockaddr *)&name, &len), errno);
        assert_memory_equal(&name, &expected, sizeof name);
        assert_int_equal(send(other, "x", 1, 0), 1);
        (void)close(other);
    }
}

static void test_closed_behind_our_back(void **state)
{
    struct sockaddr_in to = loopback(ECHO), name;
    int fd = connected("192.0.2.2"), other = new_socket(0), ends[2];
    socklen_t len = sizeof name;
    char byte;

    (void)state;
    assert_return_code(dial(other, &to), errno);
    assert_int_equal(write(other, "x", 1), 1); /* from the answer on the server needs no descriptor any more */
    assert_int_equal(read(other, &byte, 1), 1);
    assert_return_code(close_range((unsigned)fd, (unsigned)fd, 0), errno);
    assert_int_equal(dup2(other, fd), fd);
    assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
    assert_memory_equal(&name, &to, sizeof name);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(read(fd, &byte, 1), 1);
    (void)close(fd);
    (void)close(other);
    /* A pipe where a stream was: writing to it may raise SIGPIPE again. */
    assert_return_code(pipe(ends), errno);
    fd = connected("192.0.2.2");
    assert_int_equal(dup2(ends[1], fd), fd);
    (void)close(ends[1]);
    (void)close(ends[0]);
    pipes = 0;
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(pipes, 1);
    (void)close(fd);
}

/* ---- the helper's memory ---- */

/* How often this process has asked for it. */
static int times_asked(void)
{
    struct sockaddr_in to = address("192.0.2.13", 80);
    int fd = new_socket(0), error;

    assert_int_equal(dial(fd, &to), -1);
    error = errno;
    assert_in_range(error, 1000, 1100);
    assert_return_code(close(fd), errno);
    return error - 1000;
}

static void test_memory_that_is_not_there_is_asked_for_once(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    (void)close(connected("192.0.2.1"));
    (void)close(connected("192.0.2.2"));
    assert_int_equal(times_asked(), 1);
    (void)close(connected("192.0.2.1"));
    assert_int_equal(times_asked(), 1);
    pid = fork();
    if (pid == 0) { /* which knows it from us */
        (void)close(connected("192.0.2.1"));
        _exit(times_asked());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(times_asked(), 1);
}

/* ---- fast open ---- */

static void test_fast_open_goes_through_the_helper(void **state)
{
    static const char *const hosts[] = {"192.0.2.1", "192.0.2.2", "192.0.2.12"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct sockaddr_in to = address(hosts[i], 80), name;
        int fd = new_socket(0), on = 1;
        socklen_t len = sizeof name;
        char buf[6] = "";
        struct iovec iov = {buf, 5};
        struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1};

        assert_int_equal(sendto(fd, "hello", 5, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to), 5);
        assert_int_equal(recv(fd, buf, 5, MSG_WAITALL), 5);
        assert_string_equal(buf, "hello");
        assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
        assert_memory_equal(&name, &to, sizeof name);
        (void)close(fd);
        fd = new_socket(0);
        assert_int_equal(sendmsg(fd, &message, MSG_FASTOPEN), 5);
        assert_int_equal(recv(fd, buf, 5, MSG_WAITALL), 5);
        assert_int_equal(sendmsg(fd, &message, MSG_FASTOPEN), -1);
        assert_int_equal(errno, EISCONN);
        (void)close(fd);
        fd = new_socket(0);
        assert_return_code(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on), errno);
        assert_return_code(dial(fd, &to), errno);
        assert_int_equal(write(fd, "hello", 5), 5);
        assert_int_equal(recv(fd, buf, 5, MSG_WAITALL), 5);
        (void)close(fd);
    }
}

/* ---- UDP ---- */

static void test_dns_over_udp_goes_to_the_helper(void **state)
{
    struct sockaddr_in server = address("198.51.100.53", 53), stub = address("127.0.0.53", 53), name;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t len = sizeof name;
    char buf[8] = "";
    struct iovec iov = {buf, 2};
    struct mmsghdr messages[2];

    (void)state;
    assert_int_equal(sendto(fd, "q", 1, 0, (struct sockaddr *)&server, sizeof server), 1);
    assert_int_equal(recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&name, &len), 1);
    assert_memory_equal(&name, &server, sizeof name);
    for (int i = 0; i < 2; i++) {
        memset(&messages[i], 0, sizeof messages[i]);
        messages[i].msg_hdr.msg_name = i == 0 ? &server : &stub;
        messages[i].msg_hdr.msg_namelen = sizeof server;
        messages[i].msg_hdr.msg_iov = &iov;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    assert_int_equal(sendmmsg(fd, messages, 2, 0), 2);
    messages[0].msg_hdr.msg_name = &name;
    assert_int_equal(recvmmsg(fd, messages, 1, 0, NULL), 1);
    assert_true(memcmp(&name, &server, sizeof name) == 0 || memcmp(&name, &stub, sizeof name) == 0);
    messages[0].msg_hdr.msg_namelen = sizeof name;
    assert_int_equal(recvmsg(fd, &messages[0].msg_hdr, 0), 2);
    assert_int_equal(name.sin_port, htons(53));
    assert_return_code(dial(fd, &stub), errno);
    len = sizeof name;
    assert_return_code(getpeername(fd, (struct sockaddr *)&name, &len), errno);
    assert_memory_equal(&name, &stub, sizeof name);
    assert_int_equal(send(fd, "qq", 2, 0), 2);
    assert_int_equal(recv(fd, buf, sizeof buf, 0), 2);
    (void)close(fd);
}

static void test_dns_over_udp_from_ipv6_sockets(void **state)
{
    static const char *const hosts[] = {"2001:db8::53", "::ffff:192.0.2.53"};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in6 server = {.sin6_family = AF_INET6, .sin6_port = htons(53)}, name;
        socklen_t len = sizeof name;
        char byte;

        assert_int_equal(inet_pton(AF_INET6, hosts[i], &server.sin6_addr), 1);
        assert_int_equal(sendto(fd, "q", 1, 0, (struct sockaddr *)&server, sizeof server), 1);
        assert_int_equal(recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&name, &len), 1);
        assert_memory_equal(&name, &server, sizeof name);
    }
    (void)close(fd);
}

/* ---- what is refused ---- */

static int refused(int rc)
{
    return rc == -1 ? errno : 0;
}

static void test_other_ways_out_are_refused(void **state)
{
    struct sockaddr_in far = address("192.0.2.1", 123), wild = address("0.0.0.0", 0);
    struct sockaddr_in sly = address("192.0.2.1", 123);
    struct ip_mreqn group = {.imr_multiaddr.s_addr = htonl(0xe00000fbu)};
    struct iovec iov = {(char[]){'x'}, 1};
    struct msghdr message = {.msg_name = &far, .msg_namelen = sizeof far, .msg_iov = &iov, .msg_iovlen = 1};
    struct mmsghdr messages = {.msg_hdr = message};
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = new_socket(0);

    (void)state;
    sly.sin_family = AF_UNSPEC; /* sendto(2) takes it for AF_INET */
    assert_int_equal(refused(dial(udp, &far)), ENETUNREACH);
    assert_int_equal(refused((int)sendto(udp, "x", 1, 0, (struct sockaddr *)&far, sizeof far)), ENETUNREACH);
    assert_int_equal(refused((int)sendto(udp, "x", 1, 0, (struct sockaddr *)&sly, sizeof sly)), ENETUNREACH);
    assert_int_equal(refused((int)sendto(udp, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&far, sizeof far)), ENETUNREACH);
    assert_int_equal(refused((int)sendmsg(udp, &message, 0)), ENETUNREACH);
    assert_int_equal(refused(sendmmsg(udp, &messages, 1, 0)), ENETUNREACH);
    assert_return_code(bind(udp, (struct sockaddr *)&wild, sizeof wild), errno);
    assert_int_equal(refused(setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group)), ENODEV);
    assert_int_equal(refused(listen(tcp, 1)), EACCES);
    assert_return_code(bind(tcp, (struct sockaddr *)&wild, sizeof wild), errno);
    assert_int_equal(refused(listen(tcp, 1)), EACCES);
    assert_int_equal(refused(socket(AF_INET, SOCK_DGRAM, 132)), EPROTONOSUPPORT);
    assert_int_not_equal(refused(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), 0);
    assert_int_not_equal(refused(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)), 0);
    assert_int_not_equal(refused(socket(AF_PACKET, SOCK_DGRAM, 0)), 0);
    (void)close(udp);
    (void)close(tcp);
}

static void test_loopback_datagrams_are_direct(void **state)
{
    struct sockaddr_in here = address("127.0.0.1", 0), name;
    socklen_t len = sizeof here;
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    char byte;

    (void)state;
    assert_return_code(bind(a, (struct sockaddr *)&here, sizeof here), errno);
    assert_return_code(getsockname(a, (struct sockaddr *)&here, &len), errno);
    assert_return_code(dial(b, &here), errno);
    assert_return_code(getpeername(b, (struct sockaddr *)&name, &len), errno);
    assert_memory_equal(&name, &here, sizeof name);
    assert_int_equal(send(b, "x", 1, 0), 1);
    assert_int_equal(recvfrom(a, &byte, 1, 0, (struct sockaddr *)&name, &len), 1);
    assert_int_equal(name.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    (void)close(a);
    (void)close(b);
}

/* How many instructions its filter has, or -errno. */
static int filter_len(int fd)
{
    struct sock_filter steps[16];
    socklen_t count = sizeof steps / sizeof *steps; /* of instructions */

    return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, steps, &count) == 0 ? (int)count : -errno;
}

/* A port of ours, as resolvers bind one. That others do not reach it is shown where there are others: tests/e2e/test_run_udp.py. */
static void test_ports_for_datagrams_are_for_this_machine(void **state)
{
    const int on = 1;
    struct sockaddr_in fixed = address("0.0.0.0", 0), name;
    socklen_t len = sizeof name;
    int first = socket(AF_INET, SOCK_DGRAM, 0), second = socket(AF_INET, SOCK_DGRAM, 0);
    char byte;

    (void)state;
    assert_return_code(bind(first, (struct sockaddr *)&fixed, sizeof fixed), errno); /* who finds us a port */
    assert_int_equal(filter_len(first), 0);
    assert_return_code(getsockname(first, (struct sockaddr *)&fixed, &len), errno);
    assert_int_equal(refused(bind(second, (struct sockaddr *)&fixed, sizeof fixed)), EADDRINUSE);
    assert_int_equal(filter_len(second), 0);
    (void)close(first);
    assert_return_code(bind(second, (struct sockaddr *)&fixed, sizeof fixed), errno);
    assert_return_code(getsockname(second, (struct sockaddr *)&name, &len), errno);
    assert_memory_equal(&name, &fixed, sizeof name);
    assert_true(filter_len(second) > 0);
    assert_int_equal(refused(setsockopt(second, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof on)), EPERM);

    first = socket(AF_INET, SOCK_DGRAM, 0);
    name = address("127.0.0.1", ntohs(fixed.sin_port));
    assert_int_equal(sendto(first, "x", 1, 0, (struct sockaddr *)&name, sizeof name), 1);
    assert_int_equal(recv(second, &byte, 1, 0), 1);
    (void)close(first);
    (void)close(second);
}

static void test_a_port_that_others_could_reach_is_refused(void **state)
{
    const int on = 1;
    struct sockaddr_in fixed = address("0.0.0.0", 40123);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    (void)state;
    assert_return_code(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on), errno);
    assert_int_equal(refused(bind(fd, (struct sockaddr *)&fixed, sizeof fixed)), EADDRNOTAVAIL);
    (void)close(fd);
}

/* As programs that render strangers' pages: the end of who looks at sockets. By prctl(2), or by syscall(2), of which the library does not know. */
static void confine(bool by_syscall)
{
    static struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpeername, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ppoll, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog filter = {sizeof steps / sizeof *steps, steps};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        (by_syscall ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter)
                    : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0)) != 0) {
        _exit(2);
    }
}

/* Ends, and what cannot be sent, on sockets of its own. 0, or the number of the step that went wrong. */
static int talk_confined(const int ends[2], const int datagrams[2])
{
    const struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (shutdown(ends[1], SHUT_WR) != 0 || read(ends[0], &byte, 1) != 0 || recvmsg(ends[0], &message, 0) != 0 ||
        recv(ends[0], &byte, 1, 0) != 0) {
        return 3;
    }
    (void)close(ends[1]);
    if (refused((int)send(ends[0], "x", 1, MSG_NOSIGNAL)) != EPIPE ||
        refused((int)sendmsg(ends[0], &message, MSG_NOSIGNAL)) != EPIPE) {
        return 4;
    }
    return refused((int)sendto(datagrams[0], "x", 1, 0, (const struct sockaddr *)&nowhere, sizeof nowhere)) == ENOENT
               ? 0
               : 5;
}

static void be_confined(bool by_syscall)
{
    int ends[2], datagrams[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) != 0) {
        _exit(1);
    }
    confine(by_syscall);
    _exit(talk_confined(ends, datagrams));
}

static void test_confined_programs_make_no_other_system_calls(void **state)
{
    int fds[8];

    (void)state;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) { /* where streams have been */
        fds[i] = connected(echoes[0]);
    }
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        (void)close(fds[i]);
    }
    for (int by_syscall = 0; by_syscall < 2; by_syscall++) {
        int status;
        pid_t child = fork();

        assert_return_code(child, errno);
        if (child == 0) {
            be_confined(by_syscall != 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_as_on_tcp),
        cmocka_unit_test(test_data_has_no_address),
        cmocka_unit_test(test_vectors_sendfile_and_splice_as_on_tcp),
        cmocka_unit_test(test_reset_connections_as_on_tcp),
        cmocka_unit_test(test_half_closed_connections_as_on_tcp),
        cmocka_unit_test(test_names_as_on_tcp),
        cmocka_unit_test(test_names_are_destination_and_proxys_address),
        cmocka_unit_test(test_options_as_on_tcp),
        cmocka_unit_test(test_options_set_before_connect_stay),
        cmocka_unit_test(test_options_set_on_a_duplicate_stay),
        cmocka_unit_test(test_signals_of_streams_come),
        cmocka_unit_test(test_ipv6_sockets_keep_their_family),
        cmocka_unit_test(test_connected_sockets_can_be_dissolved),
        cmocka_unit_test(test_non_blocking_connect_waits_in_kernel),
        cmocka_unit_test(test_refused_non_blocking_connect),
        cmocka_unit_test(test_blocking_connect_tells_why),
        cmocka_unit_test(test_direct_connections_are_the_kernels),
        cmocka_unit_test(test_wrong_calls_are_the_kernels),
        cmocka_unit_test(test_interrupted_connect_goes_on),
        cmocka_unit_test(test_send_timeout_limits_connect),
        cmocka_unit_test(test_connect_can_be_cancelled),
        cmocka_unit_test(test_connect_in_a_signal_handler),
        cmocka_unit_test(test_epoll_registrations_move_along),
        cmocka_unit_test(test_duplicates_are_connected_too),
        cmocka_unit_test(test_connections_are_known_after_exec),
        cmocka_unit_test(test_passed_connections_are_known),
        cmocka_unit_test(test_closed_behind_our_back),
        cmocka_unit_test(test_memory_that_is_not_there_is_asked_for_once),
        cmocka_unit_test(test_fast_open_goes_through_the_helper),
        cmocka_unit_test(test_dns_over_udp_goes_to_the_helper),
        cmocka_unit_test(test_dns_over_udp_from_ipv6_sockets),
        cmocka_unit_test(test_other_ways_out_are_refused),
        cmocka_unit_test(test_loopback_datagrams_are_direct),
        cmocka_unit_test(test_confined_programs_make_no_other_system_calls),
        cmocka_unit_test(test_ports_for_datagrams_are_for_this_machine),
        cmocka_unit_test(test_a_port_that_others_could_reach_is_refused),
    };
    struct sigaction action = {.sa_handler = count_pipe};

    if (argc == 4) {
        return judge_inherited(atoi(argv[2]), atoi(argv[3]));
    }
    program = argv[0];
    if (sigaction(SIGPIPE, &action, NULL) != 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
