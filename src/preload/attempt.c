/*
 * Theory of operation. The connection to the helper that carries the request may become the program's: run/protocol.h tells how.
 * Before anything is sent its send buffer is made narrow, so that the padding fills it and the program finds it not writable until
 * the helper has taken the padding out, which it does once it is connected.
 *
 * Measured (Linux 6.18): a stream takes padding in buffers of 32 KiB less what the kernel needs for itself; with the send buffer at
 * 64 KiB two of them fill it, and not a byte more goes in. poll(2) then shows nothing, EPOLLET has an event as soon as they are read.
 *
 * A blocking connect holds signals back from before the request is sent until it waits for the reply: see signals.h.
 */
#include "preload/attempt.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include "preload/adopt.h"
#include "preload/async.h"
#include "preload/epoll.h"
#include "preload/options.h"
#include "preload/shortcut.h"
#include "preload/slots.h"
#include "preload/sys.h"
#include "preload/talk.h"

#define NARROW_BYTES 32768 /* the kernel doubles it */
#define BUFFER_OVERHEAD 64 /* of each buffer, that the kernel keeps at its end */

struct attempt {
    int fd, talk, passed; /* passed: the TCP socket that came with the reply, or -1 */
    int domain;
    bool is_non_blocking, is_marked, is_asked;
    bool has_become; /* another socket has taken the place of `fd` */
    uint32_t pad_len;
    const struct run_addr *destination;
    const struct shortcut_watch *watch;
    struct signals before; /* while `are_signals_held` */
    bool are_signals_held;
    struct run_connected answer;
};

/* What connect(2) may say. The program has no descriptor left for us, or the machine no memory. */
static int as_connect_says(int rc)
{
    switch (rc) {
    case -EMFILE:
    case -ENFILE:
    case -ENOMEM:
    case -ENOBUFS:
        return -ENOBUFS;
    case -EPROTO:
        return -ENETUNREACH;
    default:
        return rc;
    }
}

static void narrow(struct attempt *attempt)
{
    int bytes = NARROW_BYTES, effective;

    (void)sys_setsockopt(attempt->talk, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    effective = sys_get_int(attempt->talk, SOL_SOCKET, SO_SNDBUF);
    attempt->pad_len = effective <= 0 ? 0 : 2 * ((uint32_t)effective / 2 - BUFFER_OVERHEAD);
}

static void widen(const struct attempt *attempt)
{
    int bytes = SLOTS_WIDE_BYTES / 2;

    (void)sys_setsockopt(attempt->talk, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static int send_request(struct attempt *attempt)
{
    struct run_connect body = {.destination = *attempt->destination,
                               .cookie = sys_cookie(attempt->talk),
                               .flags = (attempt->is_non_blocking ? RUN_CONNECT_NON_BLOCKING : RUN_CONNECT_MARKED) |
                                        (attempt->is_asked ? RUN_CONNECT_ASKED : 0),
                               .pad_len = attempt->pad_len};
    struct iovec part = {&body, sizeof body};

    return talk_send(attempt->talk, RUN_CONNECT, &part, 1, attempt->fd);
}

/* The reply, which is there or about to come. */
static int receive(struct attempt *attempt)
{
    int status = 0;
    ssize_t len = talk_receive(attempt->talk, &status, &attempt->answer, sizeof attempt->answer, &attempt->passed, 0);

    if (len < 0) {
        return (int)len;
    }
    return status != 0 ? -ENETUNREACH : (size_t)len != sizeof attempt->answer ? -EPROTO : 0;
}

static void give_up_cancelled(void *cancelled)
{
    const struct attempt *attempt = cancelled;

    sys_close(attempt->talk);
    epoll_put_back(attempt->watch->moves, attempt->watch->count);
}

/* The point of cancellation. 0 as soon as there is something to read or the helper has gone; -EINTR or -EAGAIN. */
static int wait_cancellably(struct attempt *attempt)
{
    struct timeval limit = {0, 0};
    socklen_t len = sizeof limit;
    int rc;

    (void)sys_getsockopt(attempt->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &len);
    pthread_cleanup_push(give_up_cancelled, attempt);
    rc = signals_wait(attempt->talk, POLLIN, &limit, &attempt->before);
    pthread_cleanup_pop(0);
    return rc;
}

static void release_signals(struct attempt *attempt)
{
    if (attempt->are_signals_held) {
        attempt->are_signals_held = false;
        signals_release(&attempt->before);
    }
}

/* The byte that the helper expects once, before any of the program's: the wish to convert, or a mark that means nothing. */
static int send_mark(struct attempt *attempt)
{
    static const char mark = RUN_CONVERT;
    long n;

    if (attempt->is_non_blocking || attempt->is_marked) {
        return 0;
    }
    attempt->is_marked = true;
    do {
        n = SYS_CALL(SYS_sendto, attempt->talk, &mark, 1, MSG_NOSIGNAL, NULL, 0);
    } while (n == -EINTR);
    return n < 0 && n != -EPIPE && n != -ECONNRESET ? (int)n : 0; /* what is over is seen by reading */
}

/* 0: `answer` is there. `*interrupted`: what connect(2) returns instead of going on to wait, -EINTR or -EINPROGRESS; or 0. */
static int await(struct attempt *attempt, int *interrupted)
{
    int rc;

    *interrupted = 0;
    if (attempt->is_non_blocking) {
        return receive(attempt);
    }
    rc = wait_cancellably(attempt);
    release_signals(attempt);
    if (rc == 0) {
        return receive(attempt);
    }
    *interrupted = rc == -EAGAIN ? -EINPROGRESS : rc;
    /* It goes on in the background. The reply that comes may be to the request: then it has crossed the wish to convert. */
    rc = send_mark(attempt);
    return rc != 0 ? rc : receive(attempt);
}

static int send_padding(const struct attempt *attempt)
{
    static const char padding[4096];
    uint32_t left = attempt->pad_len;

    while (left > 0) {
        struct iovec parts[16];
        struct msghdr message = {.msg_iov = parts};
        long n;

        for (uint32_t rest = left; rest > 0 && message.msg_iovlen < 16; message.msg_iovlen++) {
            uint32_t len = rest < sizeof padding ? rest : (uint32_t)sizeof padding;
            union { /* sendmsg(2) does not write to it */
                const void *from;
                void *to;
            } base = {padding};

            parts[message.msg_iovlen] = (struct iovec){base.to, len};
            rest -= len;
        }
        n = SYS_CALL(SYS_sendmsg, attempt->talk, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && n != -EINTR) {
            return n == -EPIPE || n == -ECONNRESET ? 0 : -ENOBUFS; /* it is over already: the program will see */
        }
        left -= n > 0 ? (uint32_t)n : 0;
    }
    return 0;
}

static int become(struct attempt *attempt, int *socket, enum slot_kind kind, enum slot_state state)
{
    bool is_connected = state == SLOT_CONNECTED;
    struct slot slot = {.kind = (uint8_t)kind,
                        .state = (uint8_t)state,
                        .is_told = is_connected,
                        .is_narrow = !is_connected,
                        .domain = attempt->domain,
                        .peer = *attempt->destination,
                        .local = attempt->answer.local};
    int taken = *socket;

    *socket = -1;
    attempt->has_become = true;
    return adopt(taken, attempt->fd, &slot);
}

static int become_socket(struct attempt *attempt)
{
    int rc = attempt->passed < 0 ? -ENETUNREACH : shortcut_acknowledge(attempt->passed);

    if (rc != 0) {
        return rc;
    }
    options_copy(attempt->fd, attempt->passed);
    return become(attempt, &attempt->passed, SLOT_TCP, SLOT_CONNECTED);
}

static int become_pending(struct attempt *attempt, int result)
{
    int rc = send_padding(attempt);

    if (rc == 0) {
        rc = become(attempt, &attempt->talk, SLOT_STREAM, SLOT_CONNECTING);
    }
    if (rc == 0) {
        async_expect_room(attempt->fd);
    }
    return rc != 0 ? rc : result;
}

static int become_stream(struct attempt *attempt)
{
    int rc = send_mark(attempt);

    widen(attempt);
    return rc != 0 ? rc : become(attempt, &attempt->talk, SLOT_STREAM, SLOT_CONNECTED);
}

static int settle(struct attempt *attempt, int interrupted, bool *is_direct)
{
    const struct run_connected *answer = &attempt->answer;

    switch ((enum run_verdict)answer->verdict) {
    case RUN_VERDICT_DIRECT:
        *is_direct = true;
        return 0;
    case RUN_VERDICT_REFUSED:
    case RUN_VERDICT_FAILED:
        return answer->error > 0 ? -answer->error : -ENETUNREACH;
    case RUN_VERDICT_WAIT:
    case RUN_VERDICT_CONVERTED:
        return become_pending(attempt, interrupted != 0 ? interrupted : -EINPROGRESS);
    case RUN_VERDICT_STREAM:
        return become_stream(attempt);
    case RUN_VERDICT_SOCKET:
        return become_socket(attempt);
    case RUN_VERDICT_OWN:
        shortcut_accept(attempt->fd, attempt->domain, attempt->destination, &answer->local);
        return shortcut_acknowledge(attempt->fd);
    }
    return -ENETUNREACH;
}

static void close_what_is_left(const struct attempt *attempt)
{
    if (attempt->talk >= 0) {
        sys_close(attempt->talk);
    }
    if (attempt->passed >= 0) {
        sys_close(attempt->passed);
    }
}

/* The socket is not to stay half connected, unless another one has its place or the helper has it. */
static int fail(const struct attempt *attempt, int rc)
{
    if (attempt->is_asked && !attempt->has_become) {
        shortcut_undo(attempt->fd);
    }
    return as_connect_says(rc);
}

int attempt_connect(const struct attempt_start *start, bool *is_direct)
{
    struct attempt attempt = {.fd = start->fd,
                              .talk = talk_open(),
                              .passed = -1,
                              .domain = start->domain,
                              .is_non_blocking = start->is_non_blocking,
                              .before = start->before,
                              .are_signals_held = !start->is_non_blocking,
                              .is_asked = start->is_asked,
                              .destination = start->destination,
                              .watch = &start->watch};
    int rc, interrupted = 0;

    *is_direct = false;
    if (attempt.talk < 0) {
        release_signals(&attempt);
        return fail(&attempt, attempt.talk);
    }
    narrow(&attempt);
    rc = send_request(&attempt);
    if (rc == 0) {
        rc = await(&attempt, &interrupted);
    }
    if (rc == 0) {
        rc = settle(&attempt, interrupted, is_direct);
    }
    release_signals(&attempt);
    close_what_is_left(&attempt);
    return rc == 0 ? 0 : fail(&attempt, rc);
}
