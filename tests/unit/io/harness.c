#include "harness.h"

#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/sock.h"

/* Real milliseconds without an event after which the clock may jump. */
#define QUIET_MS 20

/* The wrapped calls. */
int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __real_epoll_ctl(int fd, int op, int target, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int op, int target, struct epoll_event *event);
ssize_t __real_recv(int fd, void *buf, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int __real_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how);
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __real_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __real_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
ssize_t __real_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags);
ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags);
int __real_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags);
int __real_fcntl64(int fd, int command, int value);
int __wrap_fcntl64(int fd, int command, int value);
ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);
void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

static struct {
    uint64_t clock_offset_ms;
    struct loop *loop;
    bool (*condition)(void *context);
    void *context;
    bool until_quiet;

    const char *fail_call;
    unsigned fail_in;
    int fail_error;
    bool has_failed;

    int endless_fd;
    unsigned endless_count;
    unsigned send_count;
    uint32_t send_seed; /* 0 = sends take all that the kernel takes */
    uint64_t spliced;
    bool connect_to_self, connect_at_once;
    size_t largest_malloc;
} harness = {.endless_fd = -1};

/* ---- the calls ---- */

static pthread_mutex_t fail_mutex = PTHREAD_MUTEX_INITIALIZER; /* threads make calls too */

static bool fails(const char *call)
{
    (void)pthread_mutex_lock(&fail_mutex);
    bool is_counted = harness.fail_in > 0 && (harness.fail_call == NULL || strcmp(call, harness.fail_call) == 0);
    bool is_now = is_counted && --harness.fail_in == 0;
    if (is_now) {
        harness.has_failed = true;
    }
    (void)pthread_mutex_unlock(&fail_mutex);
    if (is_now) {
        errno = harness.fail_error;
    }
    return is_now;
}

static bool is_pipe(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    int rc = __real_clock_gettime(clock, out);
    out->tv_sec += (time_t)(harness.clock_offset_ms / 1000);
    out->tv_nsec += (long)(harness.clock_offset_ms % 1000) * 1000000;
    if (out->tv_nsec >= 1000000000) {
        out->tv_nsec -= 1000000000;
        out->tv_sec++;
    }
    return rc;
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    if (harness.condition != NULL && harness.condition(harness.context)) {
        loop_stop(harness.loop);
        return __real_epoll_wait(fd, events, max, 0);
    }
    if (fails("epoll_wait")) {
        return -1;
    }
    bool may_jump = timeout > QUIET_MS || harness.until_quiet;
    int count = __real_epoll_wait(fd, events, max, may_jump ? QUIET_MS : timeout);
    if (count == 0 && harness.until_quiet) {
        loop_stop(harness.loop);
    } else if (count == 0 && may_jump) {
        harness.clock_offset_ms += (uint64_t)(timeout - QUIET_MS);
    }
    return count;
}

int __wrap_epoll_create1(int flags)
{
    return fails("epoll_create1") ? -1 : __real_epoll_create1(flags);
}

int __wrap_eventfd(unsigned count, int flags)
{
    return fails("eventfd") ? -1 : __real_eventfd(count, flags);
}

int __wrap_epoll_ctl(int fd, int op, int target, struct epoll_event *event)
{
    return op != EPOLL_CTL_DEL && fails("epoll_ctl") ? -1 : __real_epoll_ctl(fd, op, target, event);
}

ssize_t __wrap_recv(int fd, void *buf, size_t len, int flags)
{
    if (harness.endless_fd >= 0 && fd == harness.endless_fd) {
        harness.endless_count++;
        memset(buf, 0, len);
        return (ssize_t)len;
    }
    return fails("recv") ? -1 : __real_recv(fd, buf, len, flags);
}

/* Of `len` bytes as many as a send is to take: at random none, a part or all. */
static size_t bit_of(size_t len)
{
    if (harness.send_seed == 0) {
        return len;
    }
    harness.send_seed = harness.send_seed * 1664525u + 1013904223u;
    uint32_t dice = harness.send_seed >> 8;
    return dice % 4 == 0 ? 0 : dice % 4 == 1 ? len : (dice >> 2) % (len + 1);
}

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
    if (harness.endless_fd >= 0) {
        return (ssize_t)len;
    }
    harness.send_count++;
    if (fails("send")) {
        return -1;
    }
    size_t bit = bit_of(len);
    if (bit == 0 && len > 0) {
        errno = EAGAIN;
        return -1;
    }
    return __real_send(fd, buf, bit, flags);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct msghdr part = *msg;
    struct iovec parts[4];
    size_t total = 0;
    harness.send_count++;
    if (fails("send")) {
        return -1;
    }
    assert_true(msg->msg_iovlen <= sizeof parts / sizeof parts[0]);
    memcpy(parts, msg->msg_iov, msg->msg_iovlen * sizeof parts[0]);
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        total += parts[i].iov_len;
    }
    size_t bit = bit_of(total);
    if (bit == 0 && total > 0) {
        errno = EAGAIN;
        return -1;
    }
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        parts[i].iov_len = parts[i].iov_len < bit ? parts[i].iov_len : bit;
        bit -= parts[i].iov_len;
    }
    part.msg_iov = parts;
    return __real_sendmsg(fd, &part, flags);
}

int __wrap_shutdown(int fd, int how)
{
    return fails("shutdown") ? -1 : __real_shutdown(fd, how);
}

int __wrap_socket(int domain, int type, int protocol)
{
    return fails("socket") ? -1 : __real_socket(domain, type, protocol);
}

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    if (harness.connect_to_self && bind(fd, addr, len) < 0) {
        return -1;
    }
    if (fails("connect")) {
        return -1;
    }
    int rc = __real_connect(fd, addr, len);
    if (rc < 0 && errno == EINPROGRESS && harness.connect_at_once) {
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        assert_int_equal(poll(&waiting, 1, -1), 1);
        rc = 0;
    }
    return rc;
}

int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    return fails("getsockname") ? -1 : __real_getsockname(fd, addr, len);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return fails("setsockopt") ? -1 : __real_setsockopt(fd, level, name, value, len);
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return fails("getsockopt") ? -1 : __real_getsockopt(fd, level, name, value, len);
}

void *__wrap_malloc(size_t size)
{
    if (size > harness.largest_malloc) {
        harness.largest_malloc = size;
    }
    return fails("malloc") ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails("calloc") ? NULL : __real_calloc(count, size);
}

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    return fails("mmap") ? MAP_FAILED : __real_mmap64(at, len, prot, flags, fd, offset);
}

ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags)
{
    if (harness.endless_fd >= 0) {
        harness.endless_count += in == harness.endless_fd;
        return (ssize_t)len;
    }
    bool is_out = flags != 0 && len > 0 && is_pipe(in);
    if (fails("splice") || fails(is_out ? "splice out" : "splice in")) {
        return -1;
    }
    ssize_t moved = __real_splice(in, in_at, out, out_at, len, flags);
    if (moved > 0) {
        harness.spliced += is_out ? (uint64_t)moved : 0;
    }
    return moved;
}

int __wrap_pipe2(int fds[2], int flags)
{
    return fails("pipe2") ? -1 : __real_pipe2(fds, flags);
}

int __wrap_fcntl64(int fd, int command, int value)
{
    return fails("fcntl") ? -1 : __real_fcntl64(fd, command, value);
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
    return fails("read") ? -1 : __real_read(fd, buf, len);
}

uint64_t harness_spliced(void)
{
    uint64_t spliced = harness.spliced;
    harness.spliced = 0;
    return spliced;
}

ssize_t real_recv(int fd, void *buf, size_t len, int flags)
{
    return __real_recv(fd, buf, len, flags);
}

ssize_t real_send(int fd, const void *buf, size_t len, int flags)
{
    return __real_send(fd, buf, len, flags);
}

void harness_fail(const char *call, unsigned n, int error)
{
    (void)pthread_mutex_lock(&fail_mutex);
    harness.fail_call = call;
    harness.fail_in = n;
    harness.fail_error = error;
    harness.has_failed = false;
    (void)pthread_mutex_unlock(&fail_mutex);
}

bool harness_has_failed(void)
{
    return harness.has_failed;
}

void harness_endless_source(int fd)
{
    harness.endless_fd = fd;
    harness.endless_count = 0;
}

unsigned harness_endless_count(void)
{
    return harness.endless_count;
}

unsigned harness_send_count(void)
{
    unsigned count = harness.send_count;
    harness.send_count = 0;
    return count;
}

void harness_send_in_bits(uint32_t seed)
{
    harness.send_seed = seed;
}

void harness_connect_at_once(bool on)
{
    harness.connect_at_once = on;
}

void harness_connect_to_self(bool on)
{
    harness.connect_to_self = on;
}

size_t harness_largest_malloc(void)
{
    size_t largest = harness.largest_malloc;
    harness.largest_malloc = 0;
    return largest;
}

/* ---- running ---- */

void harness_guard(void)
{
    (void)alarm(60);
}

static void run(struct loop *loop)
{
    harness.loop = loop;
    assert_int_equal(loop_run(loop), 0);
    harness.condition = NULL;
    harness.until_quiet = false;
}

void harness_run_until(struct loop *loop, bool (*condition)(void *context), void *context)
{
    harness.condition = condition;
    harness.context = context;
    run(loop);
}

void harness_run_until_quiet(struct loop *loop)
{
    harness.until_quiet = true;
    run(loop);
}

void harness_advance(uint64_t ms)
{
    harness.clock_offset_ms += ms;
}

unsigned harness_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    unsigned count = 0;
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

void harness_pair(int fds[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listener = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(__real_getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    fds[0] = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fds[0] >= 0);
    assert_int_equal(__real_connect(fds[0], (const struct sockaddr *)&addr, len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    assert_int_equal(__real_fcntl64(fds[0], F_SETFL, O_NONBLOCK), 0);
    for (int i = 0; i < 2; i++) { /* Nagle would make quiet moments in mid-stream */
        const int on = 1;
        assert_int_equal(__real_setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    }
    assert_int_equal(close(listener), 0);
}

unsigned harness_user_timeout(int fd)
{
    unsigned ms = 0;
    socklen_t len = sizeof ms;
    assert_int_equal(__real_getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &len), 0);
    return ms;
}

/* ---- peers ---- */

void stream_fill(uint32_t seed, uint64_t pos, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint64_t at = pos + i;
        out[i] = (uint8_t)(seed + at * 31 + (at >> 8) * 17 + (at >> 16) * 101);
    }
}

static void peer_read(struct peer *peer)
{
    static uint8_t got[65536], expected[65536];
    while (!peer->is_paused && !peer->has_eof && peer->error == 0) {
        ssize_t len = __real_recv(peer->fd, got, sizeof got, MSG_DONTWAIT);
        if (len < 0) {
            if (errno != EAGAIN) {
                peer->error = errno;
            }
            return;
        }
        if (len == 0) {
            peer->has_eof = true;
            return;
        }
        stream_fill(peer->seed_in, peer->received, expected, (size_t)len);
        assert_memory_equal(got, expected, (size_t)len);
        peer->received += (uint64_t)len;
    }
}

static void peer_write(struct peer *peer)
{
    static uint8_t out[65536];
    while (peer->sent < peer->to_send && peer->error == 0) {
        size_t len = sizeof out < peer->to_send - peer->sent ? sizeof out : (size_t)(peer->to_send - peer->sent);
        stream_fill(peer->seed_out, peer->sent, out, len);
        ssize_t sent = __real_send(peer->fd, out, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) {
                peer->error = errno;
            }
            return;
        }
        peer->sent += (uint64_t)sent;
    }
    if (peer->shuts_when_sent && !peer->is_shut && peer->error == 0) {
        peer->is_shut = true;
        (void)__real_shutdown(peer->fd, SHUT_WR);
    }
}

void peer_pump(struct peer *peer)
{
    if (peer->fd < 0) {
        return;
    }
    peer_read(peer); /* first: an error must not hide what came before it */
    peer_write(peer);
}

static void peer_ready(struct loop_io *io, uint32_t events)
{
    (void)events;
    peer_pump(LOOP_OWNER(io, struct peer, io));
}

void peer_open(struct peer *peer, struct loop *loop, int fd, uint32_t seed_out, uint32_t seed_in)
{
    *peer = (struct peer){.loop = loop, .fd = fd, .seed_out = seed_out, .seed_in = seed_in};
    peer->io = (struct loop_io){.ready = peer_ready, .fd = fd};
    assert_int_equal(loop_add(loop, &peer->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET), 0);
}

void peer_close(struct peer *peer, bool reset)
{
    if (peer->fd < 0) {
        return;
    }
    loop_remove(peer->loop, &peer->io);
    if (reset) {
        sock_reset_on_close(peer->fd);
    }
    (void)close(peer->fd);
    peer->fd = -1;
}
