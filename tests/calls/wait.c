/* Waiting for a connection, for data, for an end: in poll, select, epoll, io_uring, by signal. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- poll, select, signals ---- */

static int begun(const char *host, uint16_t port)
{
    struct target target = target_of(host, port);
    int fd = new_socket(target.addr.ss_family, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connect(fd, target_addr(&target), target.len) == 0 || errno != EINPROGRESS) {
        broken("EINPROGRESS");
    }
    return fd;
}

static void say_select(const char *what, const char *host)
{
    int fd = begun(host, PORT_ECHO);
    fd_set in, out, other;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&other);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(fd, &other);
    struct timeval limit = {WAIT_MS / 1000, 0};
    int count = select(fd + 1, &in, &out, &other, &limit);
    say("select, %s = %d:%s%s%s", what, count, FD_ISSET(fd, &in) ? " in" : "", FD_ISSET(fd, &out) ? " out" : "",
        FD_ISSET(fd, &other) ? " except" : "");
    say_error(fd);
    FD_ZERO(&out);
    FD_SET(fd, &out);
    struct timespec wait = {WAIT_MS / 1000, 0};
    sigset_t mask;
    (void)sigemptyset(&mask);
    say("pselect, %s = %d", what, pselect(fd + 1, NULL, &out, NULL, &wait, &mask));
    (void)close(fd);
}

static void by_poll(void)
{
    struct pollfd fds[3] = {{.fd = begun(SERVER4, PORT_ECHO), .events = POLLIN | POLLOUT},
                            {.fd = begun(SILENT4, PORT_ECHO), .events = POLLIN | POLLOUT},
                            {.fd = begun(SERVER4, PORT_CLOSES), .events = POLLIN}};
    struct timespec wait = {WAIT_MS / 1000, 0};
    /* The third has something to say; by then the first is connected as well, if not before. */
    while (fds[2].revents == 0 || fds[0].revents == 0) {
        if (ppoll(fds, 3, &wait, NULL) <= 0) {
            break;
        }
    }
    say("ppoll: open %s", events_text((unsigned short)fds[0].revents));
    say("ppoll: silent %s", events_text((unsigned short)fds[1].revents));
    say("ppoll: talking %s", events_text((unsigned short)fds[2].revents));
    (void)close(fds[1].fd);
    fds[1].revents = 0;
    say("poll: closed = %d", poll(&fds[1], 1, 0));
    say("  %s", events_text((unsigned short)fds[1].revents));
    (void)close(fds[0].fd);
    (void)close(fds[2].fd);
}

static void by_signal(void)
{
    sigset_t set;
    struct timespec wait = {WAIT_MS / 1000, 0};
    int number = SIGRTMIN + 2;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, number);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    struct target target = target_of(SERVER4, PORT_ECHO);
    int fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)told("F_SETOWN", fcntl(fd, F_SETOWN, getpid()));
    (void)told("F_SETSIG", fcntl(fd, F_SETSIG, number));
    (void)told("O_ASYNC", fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
    (void)told("connect", connect(fd, target_addr(&target), target.len));
    siginfo_t info;
    memset(&info, 0, sizeof info);
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    say("signal of the connection: %s", sigtimedwait(&set, &info, &wait) == number ? "came" : "did not come");
    say("  of this descriptor: %s", info.si_fd == fd ? "yes" : "no");
    (void)poll(&poll_fd, 1, WAIT_MS);
    struct timespec none = {0, 0};
    while (sigtimedwait(&set, NULL, &none) == number) {
    }
    (void)told("write", write(fd, "x", 1));
    bool is_in = false;
    while (!is_in && sigtimedwait(&set, &info, &wait) == number) {
        is_in = (info.si_band & POLLIN) != 0;
    }
    say("signal of data: %s", is_in ? "came" : "did not come");
    say("  F_GETOWN %s, F_GETSIG %s, O_ASYNC %s", fcntl(fd, F_GETOWN) == getpid() ? "kept" : "lost",
        fcntl(fd, F_GETSIG) == number ? "kept" : "lost", (fcntl(fd, F_GETFL) & O_ASYNC) != 0 ? "kept" : "lost");
    (void)close(fd);
}

void section_wait(void)
{
    say_select("open", SERVER4);
    say_select("refused", REFUSING4);
    say_select("unreachable", UNREACHABLE6);
    by_poll();
    by_signal();
}

/* ---- epoll ---- */

static void watch(const char *what, int epoll, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = 0x1234567890abcdefu};
    (void)told(what, epoll_ctl(epoll, op, fd, &event));
}

/* Waits until all of `wanted` has been reported, in as many events as it takes. */
static void say_events(const char *what, int epoll, uint32_t wanted)
{
    struct epoll_event event;
    uint32_t seen = 0;
    while ((seen & wanted) != wanted) {
        int count = epoll_wait(epoll, &event, 1, WAIT_MS);
        if (count != 1 || event.data.u64 != 0x1234567890abcdefu) {
            say("%s: %s, then epoll_wait = %d", what, events_text(seen), count);
            return;
        }
        seen |= event.events;
    }
    say("%s: %s", what, events_text(seen));
}

static void say_quiet(const char *what, int epoll)
{
    struct epoll_event event = {.events = 0};
    int count = epoll_wait(epoll, &event, 1, 50);
    say("%s: epoll_wait = %d %s", what, count, events_text(count > 0 ? event.events : 0));
}

static void epoll_life(const char *how, uint32_t mode, bool is_before)
{
    struct target target = target_of(SERVER4, PORT_ECHO);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int fd = new_socket(AF_INET, SOCK_NONBLOCK);
    char bytes[16];
    say("epoll, %s", how);
    if (is_before) {
        watch("add", epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode);
        say_events("not connected", epoll, EPOLLHUP);
    }
    (void)told("connect", connect(fd, target_addr(&target), target.len));
    if (!is_before) {
        watch("add", epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode);
    }
    say_events("connected", epoll, EPOLLOUT);
    watch("add again", epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    if ((mode & EPOLLET) != 0) {
        say_quiet("nothing new", epoll);
        (void)told("write", write(fd, "x", 1));
        say_events("echo", epoll, EPOLLIN);
        (void)told("read", read(fd, bytes, sizeof bytes));
    }
    watch("mod", epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLRDHUP | mode);
    say_quiet("nothing to read", epoll);
    (void)told("write", write(fd, "yz", 2));
    say_events("echo", epoll, EPOLLIN);
    (void)told("shutdown", shutdown(fd, SHUT_WR));
    say_events("its end", epoll, EPOLLRDHUP);
    /* Both ends are over; the hang-up is told without being asked for. */
    say_events("all ends", epoll, (mode & EPOLLET) != 0 ? 0 : EPOLLHUP);
    (void)told("read", read(fd, bytes, sizeof bytes));
    (void)told("read", read(fd, bytes, sizeof bytes));
    watch("delete", epoll, EPOLL_CTL_DEL, fd, 0);
    watch("delete again", epoll, EPOLL_CTL_DEL, fd, 0);
    watch("mod of none", epoll, EPOLL_CTL_MOD, fd, 0);
    say_quiet("deleted", epoll);
    (void)close(fd);
    (void)close(epoll);
}

static void epoll_failure(const char *how, const char *host, uint32_t mode, bool is_before)
{
    struct target target = target_of(host, PORT_ECHO);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int fd = new_socket(target.addr.ss_family, SOCK_NONBLOCK);
    if (is_before) {
        watch("add", epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode);
        say_events("not connected", epoll, EPOLLHUP);
    }
    (void)told(how, connect(fd, target_addr(&target), target.len));
    if (!is_before) {
        watch("add", epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode);
    }
    say_events("failed", epoll, EPOLLERR);
    say_error(fd);
    watch("delete", epoll, EPOLL_CTL_DEL, fd, 0);
    (void)close(fd);
    (void)close(epoll);
}

static void epoll_odds(void)
{
    struct epoll_event event;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int second = epoll_create1(EPOLL_CLOEXEC);
    int fd = begun(SERVER4, PORT_ECHO);
    watch("one shot", epoll, EPOLL_CTL_ADD, fd, EPOLLOUT | EPOLLONESHOT);
    say_events("one shot", epoll, EPOLLOUT);
    say_quiet("spent", epoll);
    watch("armed again", epoll, EPOLL_CTL_MOD, fd, EPOLLOUT | EPOLLONESHOT);
    say_events("one shot", epoll, EPOLLOUT);
    watch("in another", second, EPOLL_CTL_ADD, fd, EPOLLOUT);
    say_events("in another", second, EPOLLOUT);
    watch("an epoll in itself", epoll, EPOLL_CTL_ADD, epoll, EPOLLIN);
    watch("an epoll in an epoll", epoll, EPOLL_CTL_ADD, second, EPOLLIN);
    say_events("an epoll in an epoll", epoll, EPOLLIN);
    (void)told("close", close(fd));
    say_quiet("closed", second);
    (void)told("epoll_ctl of no epoll", epoll_ctl(0, EPOLL_CTL_ADD, epoll, &event));
    (void)told("epoll_ctl of -1", epoll_ctl(epoll, EPOLL_CTL_ADD, -1, &event));
    (void)close(epoll);
    (void)close(second);
    /* Registered in two, then a blocking connect(). */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    second = epoll_create1(EPOLL_CLOEXEC);
    struct target target = target_of(SERVER4, PORT_ECHO);
    fd = new_socket(AF_INET, 0);
    watch("first", epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    watch("second", second, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET);
    (void)told("blocking connect", connect(fd, target_addr(&target), target.len));
    (void)told("write", write(fd, "x", 1));
    say_events("first", epoll, EPOLLIN);
    say_events("second", second, EPOLLIN);
    (void)close(fd);
    say_quiet("closed", epoll);
    (void)close(epoll);
    (void)close(second);
}

void section_epoll(void)
{
    epoll_life("level, before connect", 0, true);
    epoll_life("level, after connect", 0, false);
    epoll_life("edge, before connect", EPOLLET, true);
    epoll_life("edge, after connect", EPOLLET, false);
    epoll_failure("refused, level, before", REFUSING4, 0, true);
    epoll_failure("refused, level, after", REFUSING4, 0, false);
    epoll_failure("refused, edge, before", REFUSING4, EPOLLET, true);
    epoll_failure("refused, edge, after", REFUSING6, EPOLLET, false);
    epoll_failure("unreachable, edge, before", UNREACHABLE4, EPOLLET, true);
    epoll_failure("unreachable, edge, after", UNREACHABLE6, EPOLLET, false);
    epoll_odds();
}

/* ---- io_uring: one poll at a time, by raw system calls ---- */

struct ring {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static void *ring_part(int fd, size_t len, off_t at)
{
    void *part = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);
    if (part == MAP_FAILED) {
        broken("mmap");
    }
    return part;
}

static bool ring_init(struct ring *ring)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    ring->fd = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring->fd < 0) {
        (void)told("io_uring_setup", -1); /* switched off on this machine: the same line in both runs */
        return false;
    }
    uint8_t *sq = ring_part(ring->fd, params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    uint8_t *cq =
        ring_part(ring->fd, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    ring->sqes = ring_part(ring->fd, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring->sq_tail = (void *)(sq + params.sq_off.tail);
    ring->sq_mask = (void *)(sq + params.sq_off.ring_mask);
    ring->sq_array = (void *)(sq + params.sq_off.array);
    ring->cq_head = (void *)(cq + params.cq_off.head);
    ring->cq_tail = (void *)(cq + params.cq_off.tail);
    ring->cq_mask = (void *)(cq + params.cq_off.ring_mask);
    ring->cqes = (void *)(cq + params.cq_off.cqes);
    return true;
}

static void say_ring_poll(const char *what, struct ring *ring, int fd, unsigned events)
{
    unsigned tail = *ring->sq_tail, index = tail & *ring->sq_mask;
    struct io_uring_sqe *sqe = &ring->sqes[index];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->fd = fd;
    sqe->poll32_events = events;
    ring->sq_array[index] = index;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) {
        broken("io_uring_enter");
    }
    unsigned head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) {
        broken("no completion");
    }
    int result = ring->cqes[head & *ring->cq_mask].res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    say("io_uring, %s: %s", what, result < 0 ? error_text(-result) : events_text((unsigned)result));
}

void section_uring(void)
{
    struct ring ring;
    if (!ring_init(&ring)) {
        return;
    }
    int fd = begun(SERVER4, PORT_ECHO);
    say_ring_poll("open", &ring, fd, POLLOUT);
    say_error(fd);
    (void)told("write", write(fd, "x", 1));
    say_ring_poll("data", &ring, fd, POLLIN);
    (void)close(fd);
    fd = begun(REFUSING4, PORT_ECHO);
    say_ring_poll("refused", &ring, fd, POLLOUT);
    say_error(fd);
    (void)close(fd);
    (void)close(ring.fd);
}
