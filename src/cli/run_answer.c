/*
 * The reply is looked at and left in the socket until it is whole, so that nobody has to be told how much of it was read, and
 * the bytes behind it stay where they are. Edge-triggered: each time that something is added there is another look.
 */
#include "cli/run_answer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "run/handshake.h"

static void end(struct run_answer *answer)
{
    loop_timer_cancel(answer->dialer->loop, &answer->timer);
    if (answer->io.fd >= 0) {
        int fd = answer->io.fd;

        loop_remove(answer->dialer->loop, &answer->io); /* closing would not do: there are duplicates */
        (void)close(fd);
    }
}

static void conclude(struct run_answer *answer, int status, struct socks6_dial_result *result)
{
    end(answer);
    answer->done(answer, status, result);
}

static void succeed(struct run_answer *answer, struct socks6_dial_result *result)
{
    result->fd = answer->io.fd;
    loop_remove(answer->dialer->loop, &answer->io);
    loop_timer_cancel(answer->dialer->loop, &answer->timer);
    answer->done(answer, SOCKS6_DIAL_OK, result);
}

/* As lib/dial has it. */
static void say_refused(struct socks6_dial_result *result)
{
    (void)snprintf(result->error, sizeof result->error, "%s (reply %u)", socks6_reply_name(result->reply),
                   result->reply);
}

/* What has come so far. */
static enum run_handshake look(int fd, struct run_handshake_reply *reply)
{
    uint8_t bytes[RUN_REPLY_MAX];
    ssize_t n;

    do {
        n = recv(fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        return RUN_HANDSHAKE_MORE;
    }
    if (n <= 0) {
        return RUN_HANDSHAKE_USELESS;
    }
    return run_handshake_reply(bytes, (size_t)n, reply);
}

/* A reply that was cut off stays so. */
static bool has_ended(uint32_t events)
{
    return (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
}

/* With TCP Fast Open, and a proxy that has taken it, the request was in the SYN. */
static unsigned round_trips_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && (info.tcpi_options & TCPI_OPT_SYN_DATA) != 0 ? 1
                                                                                                                   : 2;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct run_answer *answer = LOOP_OWNER(io, struct run_answer, io);
    struct run_handshake_reply reply = {0};
    struct socks6_dial_result result = {.fd = -1, .sent = 1};
    uint8_t taken[RUN_REPLY_MAX];
    enum run_handshake state = look(io->fd, &reply);

    if (state == RUN_HANDSHAKE_MORE && !has_ended(events)) {
        return;
    }
    if (state == RUN_HANDSHAKE_CONNECTED && recv(io->fd, taken, reply.used, MSG_DONTWAIT) != (ssize_t)reply.used) {
        state = RUN_HANDSHAKE_USELESS;
    }
    if (reply.window.size > 0) {
        reach_shared_learn_window(answer->dialer->shared, &reply.window);
    }
    result.reply = reply.code;
    result.bound = reply.bound;
    result.round_trips = round_trips_of(io->fd);
    switch (state) {
    case RUN_HANDSHAKE_CONNECTED:
        result.has_reply = 1;
        succeed(answer, &result);
        break;
    case RUN_HANDSHAKE_FAILED:
        result.has_reply = 1;
        say_refused(&result);
        conclude(answer, SOCKS6_DIAL_REMOTE_FAILED, &result);
        break;
    case RUN_HANDSHAKE_MORE:
    case RUN_HANDSHAKE_USELESS:
        conclude(answer, SOCKS6_DIAL_PROXY_FAILED, &result);
        break;
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct run_answer *answer = LOOP_OWNER(timer, struct run_answer, timer);
    struct socks6_dial_result result = {.fd = -1, .sent = 1};

    (void)snprintf(result.error, sizeof result.error, "the proxy has not answered in time");
    conclude(answer, SOCKS6_DIAL_TIMED_OUT, &result);
}

int run_answer_start(struct run_answer *answer, const struct run_dialer *dialer, int fd)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int rc;

    if (own < 0) {
        return -errno;
    }
    answer->dialer = dialer;
    answer->io = (struct loop_io){on_ready, own};
    answer->timer.expired = on_timer;
    rc = loop_add(dialer->loop, &answer->io, EPOLLIN | EPOLLRDHUP | EPOLLET);
    if (rc != 0) {
        answer->io.fd = -1;
        (void)close(own);
        return rc;
    }
    if (dialer->timeout_ms > 0) {
        loop_timer_set(dialer->loop, &answer->timer, dialer->timeout_ms);
    }
    return 0;
}

void run_answer_cancel(struct run_answer *answer)
{
    if (answer->dialer != NULL) {
        end(answer);
    }
}

void run_answer_undo(int fd)
{
    const struct sockaddr none = {.sa_family = AF_UNSPEC};
    socklen_t len = sizeof(int);
    int error;

    (void)connect(fd, &none, sizeof none);
    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len); /* it is ECONNRESET now */
}
