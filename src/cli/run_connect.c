/*
 * Theory of operation. A connection goes through
 *
 *     EARLY       --early: the program believes to be connected; we wait a moment for its first bytes
 *     DIALLING    the request is under way; the program waits in connect(2), or its socket is filled with the pad
 *     CLOSING     it has failed, and we wait for the rest of the pad, so that there is something unread when we close: that is
 *                 what makes the kernel report an error
 *
 * and from DIALLING to a tunnel, or out of our hands. DIALLING is also where a connection comes in that the program has begun itself
 * (RUN_CONNECT_ASKED): then only the proxy's reply is waited for, and if that is of no use all begins anew. While the program waits
 * in connect(2) nothing of it is in the table of sockets: its descriptor is what it was.
 */
#include "cli/run_connect.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/run_answer.h"
#include "cli/run_errno.h"
#include "cli/run_reply.h"
#include "io/sock.h"
#include "run/addr.h"

#define EARLY_WAIT_MS 10
#define DNS_PORT 53u
#define PAD_MAX (1024u * 1024u)
#define DIALS_TO_KNOW 2u /* whether TCP Fast Open works */

enum state { STATE_EARLY, STATE_DIALLING, STATE_CLOSING };

struct run_connection {
    struct run_connects *all;
    LIST_ENTRY(run_connection) entry;
    enum state state;
    bool is_blocking; /* the program waits for the verdict */
    bool is_early;    /* it was told that it is connected */
    bool is_marked;   /* RUN_CONNECT_MARKED, and that byte has not come yet */
    bool is_watched;  /* `io` */
    bool is_dns;      /* the proxy's DNS service, in the place of `peer` */
    bool is_asked;    /* the program's socket is connected to the proxy, which has the request */
    bool has_no_port; /* it was, and is not any more */
    struct loop_io io;
    struct run_dial dial;
    struct run_answer answer;
    struct loop_timer early_timer;
    struct run_socket *socket; /* NULL while the program waits */
    int twin;                  /* until `socket` has it; -1 = none */
    size_t pad_len;
    uint64_t cookie;
    uint8_t *early; /* NULL = none */
    struct socks6_addr target;
    struct run_addr peer;
    pid_t pid;
    uint64_t started_ms;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* --- replies --- */

static bool reply(int fd, const struct run_connected *connected, int pass)
{
    return run_reply_send(fd, 0, connected, sizeof *connected, pass);
}

static bool reply_verdict(const struct run_connection *c, enum run_verdict verdict, int error)
{
    struct run_connected connected = {.verdict = verdict, .error = error, .peer = c->peer};

    if (c->socket != NULL) {
        connected.local = c->socket->local;
    }
    return reply(c->io.fd, &connected, -1);
}

/* --- what is printed --- */

static const char *target_text(const struct run_connection *c, char text[SOCKS6_ADDR_TEXT_MAX])
{
    struct socks6_addr peer;

    if (c->target.type == SOCKS6_ADDR_NAME || !run_addr_to_socks(&c->peer, &peer)) {
        peer = c->target;
    }
    (void)socks6_addr_format(&peer, text, SOCKS6_ADDR_TEXT_MAX);
    return text;
}

__attribute__((noinline)) static void say_connected(const struct run_connection *c, unsigned round_trips)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    run_say_of(c->pid, "connect to %s: connected%s, %u round trip%s, %llu ms", target_text(c, text),
               c->is_dns ? " to the proxy's DNS service" : "", round_trips, round_trips == 1 ? "" : "s",
               (unsigned long long)(now_ms() - c->started_ms));
}

__attribute__((noinline)) static void say_failed(const struct run_connection *c, int error, const char *why)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    run_say_of(c->pid, "connect to %s: %s%s%s%s", target_text(c, text), strerror(error), *why != '\0' ? " (" : "", why,
               *why != '\0' ? ")" : "");
}

/* Of what the program cannot know, the proxy's own faults, each is told once until the proxy is well again. */
static void complain(struct run_connects *all, int status, const struct socks6_dial_result *result)
{
    if (status == SOCKS6_DIAL_OK || status == SOCKS6_DIAL_REMOTE_FAILED) {
        if (all->complaints.next != 0) {
            memset(&all->complaints, 0, sizeof all->complaints);
        }
    } else if ((status != SOCKS6_DIAL_TIMED_OUT || !result->sent) && result->error[0] != '\0' &&
               run_say_is_new(&all->complaints, 0, result->error)) {
        run_say("%s", result->error);
    }
}

/* --- ends --- */

static void release(struct run_connection *c)
{
    struct loop *loop = c->all->dialer.loop;

    if (c->socket != NULL) {
        run_sockets_bury(c->all->sockets, c->socket, RUN_STATE_FAILED, ECONNABORTED, true);
    }
    run_dial_cancel(&c->dial);
    run_answer_cancel(&c->answer);
    loop_timer_cancel(loop, &c->early_timer);
    loop_close(loop, &c->io);
    if (c->twin >= 0) {
        (void)close(c->twin);
    }
    free(c->early);
    LIST_REMOVE(c, entry);
    free(c);
}

/* The program's own socket, if it was connected by it, is as it was. */
static void undo(struct run_connection *c)
{
    if (c->is_asked) {
        run_answer_undo(c->socket != NULL ? c->socket->twin : c->twin);
        c->is_asked = false;
        c->has_no_port = true;
        if (c->socket != NULL) {
            c->socket->has_no_port = true;
        }
    }
}

/* The program has given up. */
static void abandon(struct run_connection *c)
{
    undo(c);
    if (c->all->verbose) {
        say_failed(c, ECANCELED, "");
    }
    release(c);
}

/* Closes as soon as the pad is there; see above. */
static void close_with_pad(struct run_connection *c)
{
    int len = 0;

    if (ioctl(c->io.fd, FIONREAD, &len) == 0 && (size_t)len < c->pad_len) {
        if (c->state == STATE_CLOSING) {
            return; /* the next bytes wake us */
        }
        c->state = STATE_CLOSING;
        if (loop_modify(c->all->dialer.loop, &c->io, EPOLLIN | EPOLLRDHUP | EPOLLET) == 0) {
            return;
        }
    }
    release(c);
}

static void fail(struct run_connection *c, int error, const char *why)
{
    undo(c);
    if (c->all->verbose) {
        say_failed(c, error, why);
    }
    if (c->is_blocking) {
        (void)reply_verdict(c, RUN_VERDICT_FAILED, error);
        release(c);
        return;
    }
    assert(c->socket != NULL);                                        /* there is one for each that does not block */
    memset(c->socket->local.bytes, 0, sizeof c->socket->local.bytes); /* as Linux has it then: the port stays */
    run_sockets_bury(c->all->sockets, c->socket, RUN_STATE_FAILED, error, false);
    c->socket = NULL;
    if (c->is_early) {
        release(c);
    } else {
        close_with_pad(c);
    }
}

/* --- success --- */

/* What getsockname(2) is to say until the proxy has answered: our own end. */
static void find_own(const struct run_connection *c, int fd, struct run_addr *out)
{
    struct socks6_addr own;

    *out = (struct run_addr){.family = c->peer.family};
    if (fd >= 0 && sock_local(fd, &own) == 0 && !run_addr_from_socks(&own, c->peer.family, out)) {
        out->port = own.port; /* the proxy is reached over IPv6, the destination over IPv4 */
    }
}

/* And then: where the proxy connects from, if it tells. */
static void find_local(const struct run_connection *c, const struct socks6_dial_result *result, int fd,
                       struct run_addr *out)
{
    if (result->bound.type == 0 || run_addr_is_any(&result->bound) ||
        !run_addr_from_socks(&result->bound, c->peer.family, out)) {
        find_own(c, fd, out);
    }
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 ? cookie : 0;
}

/* The program gets the connection itself. */
static void hand_over(struct run_connection *c, const struct socks6_dial_result *result)
{
    struct run_connected connected = {.verdict = RUN_VERDICT_SOCKET, .peer = c->peer};
    struct stream stream = c->dial.stream;
    struct run_socket *known;

    loop_remove(c->all->dialer.loop, &c->dial.io); /* closing would not do: the program keeps it open */
    find_local(c, result, stream.fd, &connected.local);
    (void)fcntl(stream.fd, F_SETFL, 0); /* blocking; a new socket has no other flag */
    known = run_sockets_add(c->all->sockets, cookie_of(stream.fd), -1);
    if (known != NULL) { /* without, the program does not find it again after exec(3) */
        known->peer = connected.peer;
        known->local = connected.local;
        run_sockets_bury(c->all->sockets, known, RUN_STATE_CONNECTED, 0, true);
    }
    (void)reply(c->io.fd, &connected, stream.fd); /* if the program has gone, so has the connection */
    stream_done(&stream);
    release(c);
}

/* The program has it already. */
static void leave(struct run_connection *c, const struct socks6_dial_result *result)
{
    struct run_connected connected = {.verdict = RUN_VERDICT_OWN, .peer = c->peer};

    find_local(c, result, c->dial.stream.fd, &connected.local);
    (void)reply(c->io.fd, &connected, -1); /* if the program has gone, so has the connection */
    stream_done(&c->dial.stream);
    release(c);
}

/* The program's descriptor is to become our end of the Unix socket: from here on the table has it. */
static bool enter(struct run_connection *c)
{
    c->socket = run_sockets_add(c->all->sockets, c->cookie, c->twin);
    if (c->socket == NULL) {
        return false;
    }
    c->twin = -1;
    c->socket->has_no_port = c->has_no_port;
    c->socket->peer = c->peer;
    return true;
}

/* The mark, or the pad, or bytes that went with the request. A program that waits has not sent its pad. */
static size_t bytes_to_skip(const struct run_connection *c)
{
    if (c->is_marked) {
        return 1;
    }
    return c->is_blocking ? 0 : c->pad_len;
}

static void open_tunnel(struct run_connection *c, const struct socks6_dial_result *result)
{
    struct run_connects *all = c->all;
    struct run_tunnel_start start = {.stream = c->dial.stream,
                                     .skip = bytes_to_skip(c),
                                     .pid = c->pid,
                                     .is_fd_registered = c->is_watched,
                                     .is_stream_registered = c->dial.io.fd >= 0,
                                     .is_shared = c->is_asked};
    bool is_there;
    int rc;

    loop_park(all->dialer.loop, &c->dial.io);
    if (c->socket == NULL && !enter(c)) {
        stream_done(&start.stream);
        fail(c, ENOBUFS, "");
        return;
    }
    find_local(c, result, start.stream.fd, &c->socket->local);
    c->socket->state = RUN_STATE_CONNECTED;
    c->socket->real = start.stream.fd;
    run_sockopt_carry_over(c->socket);
    is_there = !c->is_blocking || reply_verdict(c, RUN_VERDICT_STREAM, 0);
    if (!is_there) {
        stream_done(&start.stream);
        abandon(c);
        return;
    }
    start.socket = c->socket;
    start.fd = c->io.fd;
    loop_park(all->dialer.loop, &c->io);
    c->socket = NULL;
    release(c);
    rc = run_tunnel_open(all->tunnels, &start);
    (void)rc; /* the program sees a broken connection */
}

/* The proxy's ways are worth knowing for those who choose among addresses. */
static void note_route(const struct run_connection *c, int status, const struct socks6_dial_result *result)
{
    bool is_unreachable = status == SOCKS6_DIAL_REMOTE_FAILED && (result->reply == SOCKS6_REPLY_NET_UNREACHABLE ||
                                                                  result->reply == SOCKS6_REPLY_ADDRESS_UNSUPPORTED);

    if (c->all->names != NULL && c->target.type == SOCKS6_ADDR_IPV6 && (status == SOCKS6_DIAL_OK || is_unreachable)) {
        run_names_connected(c->all->names, AF_INET6, !is_unreachable);
    }
}

static int domain_of(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 ? domain : 0;
}

/* Options of an IPv6 socket cannot be had on an IPv4 one, nor its family: such a program gets a stream, which can have both. */
static bool can_hand_over(const struct run_connection *c)
{
    return c->is_blocking && c->dial.stream.tls == NULL && domain_of(c->twin) == domain_of(c->dial.stream.fd);
}

/* What programs may do by themselves from now on. TCP Fast Open shows with the second connection, which has the cookie of the first. */
static void offer_shortcut(struct run_connects *all, const struct stream *stream,
                           const struct socks6_dial_result *result)
{
    struct socks6_slice session = {NULL, 0};

    all->has_fast_open = all->has_fast_open || result->sent_in_syn;
    all->dialled += all->dialled < DIALS_TO_KNOW ? 1 : 0;
    if (all->shortcut == NULL || (all->dialled < DIALS_TO_KNOW && !all->has_fast_open) || stream->tls != NULL) {
        return;
    }
    if (all->dialer.proxy->has_credentials || all->has_fast_open) {
        session = reach_shared_session(all->dialer.shared);
        if (session.len == 0) {
            return;
        }
    }
    run_shortcut_offer(all->shortcut, stream->fd, session, all->has_fast_open);
    run_shortcut_refill(all->shortcut, all->dialer.shared);
}

static void conclude(struct run_connection *c, int status, const struct socks6_dial_result *result)
{
    complain(c->all, status, result);
    note_route(c, status, result);
    if (status != SOCKS6_DIAL_OK) {
        fail(c, run_errno(status, result), result->error);
        return;
    }
    if (c->all->verbose) {
        say_connected(c, result->round_trips);
    }
    if (!c->is_asked) {
        offer_shortcut(c->all, &c->dial.stream, result);
    }
    if (c->is_asked && c->is_blocking) {
        leave(c, result);
    } else if (can_hand_over(c)) {
        hand_over(c, result);
    } else {
        open_tunnel(c, result);
    }
}

static void on_dialled(struct run_dial *dial, int status, const struct socks6_dial_result *result)
{
    conclude(LOOP_OWNER(dial, struct run_connection, dial), status, result);
}

/* The program whose socket does not block is told to wait as soon as there is something that has a name. */
static bool tell_to_wait(struct run_connection *c)
{
    find_own(c, c->is_asked ? c->answer.io.fd : c->dial.io.fd, &c->socket->local);
    return reply_verdict(c, RUN_VERDICT_WAIT, 0);
}

static int dial(struct run_connection *c, size_t early_len, struct socks6_dial_result *result)
{
    c->dial.done = on_dialled;
    return run_dial_start(&c->dial, &c->all->dialer, &c->target, (struct socks6_slice){c->early, early_len}, result);
}

/* What the program has begun leads nowhere. */
__attribute__((noinline)) static void dial_anew(struct run_connection *c)
{
    struct socks6_dial_result result;
    int status;

    undo(c);
    status = dial(c, 0, &result);
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        conclude(c, status, &result);
    }
}

static void on_answered(struct run_answer *answer, int status, const struct socks6_dial_result *result)
{
    struct run_connection *c = LOOP_OWNER(answer, struct run_connection, answer);

    if (status == SOCKS6_DIAL_PROXY_FAILED) {
        run_shortcut_withdraw(c->all->shortcut);
        dial_anew(c);
        return;
    }
    c->dial.stream = (struct stream){.fd = result->fd};
    conclude(c, status, result);
}

/* False: it cannot be waited for. */
static bool start_answer(struct run_connection *c)
{
    c->answer.done = on_answered;
    if (run_answer_start(&c->answer, &c->all->dialer, c->socket != NULL ? c->socket->twin : c->twin) == 0) {
        return true;
    }
    undo(c);
    return false;
}

__attribute__((noinline)) static void start_dial(struct run_connection *c, size_t early_len)
{
    struct socks6_dial_result result;
    int status = SOCKS6_DIAL_IN_PROGRESS;

    c->state = STATE_DIALLING;
    if (!c->is_asked || !start_answer(c)) {
        status = dial(c, early_len, &result);
    }
    if (!c->is_blocking && !c->is_early && !tell_to_wait(c)) {
        stream_done(&c->dial.stream);
        abandon(c);
    } else if (status != SOCKS6_DIAL_IN_PROGRESS) {
        conclude(c, status, &result);
    }
}

/* --- --early --- */

/* Takes the mark off the front, if it is to come. False: it is not there yet. */
static bool unmark(struct run_connection *c)
{
    char byte;

    if (c->is_marked && recv(c->io.fd, &byte, 1, MSG_DONTWAIT) < 0) {
        return false;
    }
    c->is_marked = false;
    return true;
}

static void dial_early(struct run_connection *c, size_t early_len)
{
    loop_timer_cancel(c->all->dialer.loop, &c->early_timer);
    /* More of it, and its end, wait in the socket. */
    if (loop_modify(c->all->dialer.loop, &c->io, 0) != 0) {
        fail(c, ENOBUFS, "");
        return;
    }
    start_dial(c, early_len);
}

/*
 * What the program has written by now, as much as may travel with a request. It stays unread until there is a connection: if we close
 * before, the program sees a reset, as it would with TCP Fast Open.
 */
static void on_early_bytes(struct run_connection *c)
{
    uint8_t *buf;
    ssize_t n;

    if (!unmark(c)) {
        return;
    }
    buf = malloc(SOCKS6_INITIAL_DATA_MAX);
    n = buf == NULL ? 0 : recv(c->io.fd, buf, SOCKS6_INITIAL_DATA_MAX, MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && errno == EAGAIN) { /* that was the mark alone */
        free(buf);
        return;
    }
    if (n > 0) {
        c->early = realloc(buf, (size_t)n);
        c->early = c->early == NULL ? buf : c->early;
        c->pad_len = (size_t)n; /* read once more in the tunnel, and dropped there */
    } else {
        free(buf);
    }
    dial_early(c, c->pad_len);
}

static void on_early_timer(struct loop_timer *timer)
{
    dial_early(LOOP_OWNER(timer, struct run_connection, early_timer), 0);
}

/* --- the program --- */

static void convert(struct run_connection *c)
{
    if (!enter(c)) {
        fail(c, ENOBUFS, "");
        return;
    }
    c->is_blocking = c->is_marked = false; /* this was the byte */
    find_own(c, c->is_asked ? c->answer.io.fd : c->dial.io.fd, &c->socket->local);
    if (!reply_verdict(c, RUN_VERDICT_CONVERTED, 0) || loop_modify(c->all->dialer.loop, &c->io, EPOLLRDHUP) != 0) {
        abandon(c);
    }
}

static void on_waiting(struct run_connection *c)
{
    char byte = 0;
    ssize_t n = recv(c->io.fd, &byte, 1, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n == 1 && byte == RUN_CONVERT) {
        convert(c);
    } else {
        abandon(c);
    }
}

static void on_program(struct loop_io *io, uint32_t events)
{
    struct run_connection *c = LOOP_OWNER(io, struct run_connection, io);

    switch (c->state) {
    case STATE_EARLY:
        on_early_bytes(c);
        break;
    case STATE_CLOSING:
        if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) {
            release(c);
        } else {
            close_with_pad(c);
        }
        break;
    case STATE_DIALLING:
        if (c->is_early) { /* it has gone, and what it wrote before is to arrive; a hang-up cannot be masked */
            int fd = io->fd;

            loop_remove(c->all->dialer.loop, io);
            io->fd = fd;
            c->is_watched = false;
        } else if (c->is_blocking) {
            on_waiting(c);
        } else {
            abandon(c);
        }
        break;
    }
}

/* --- the request --- */

/* True if the destination is the proxy's to reach; else `*verdict` or `*error` says what it is. */
static bool find_target(const struct run_connects *all, struct run_connection *c, enum run_verdict *verdict, int *error)
{
    *verdict = RUN_VERDICT_FAILED;
    *error = EAFNOSUPPORT;
    if (!run_addr_to_socks(&c->peer, &c->target)) {
        return false;
    }
    if (all->is_fake && run_names_is_fake(all->names, &c->peer)) {
        *error = EHOSTUNREACH;
        return run_names_fake(all->names, &c->peer, &c->target);
    }
    *error = ECONNREFUSED;
    if (c->target.port == 0) { /* as where nobody listens */
        return false;
    }
    if (c->target.port == DNS_PORT && !all->is_fake) {
        static const uint8_t any[4];

        c->target = socks6_addr_ipv4(any, DNS_PORT);
        c->is_dns = true;
        return true;
    }
    if (sock_is_loopback(&c->target) || run_addr_is_any(&c->target)) {
        *verdict = c->target.port == DNS_PORT ? RUN_VERDICT_FAILED : RUN_VERDICT_DIRECT;
        return false;
    }
    if (run_direct_has_addr(all->direct, &c->target)) {
        *verdict = RUN_VERDICT_DIRECT;
        return false;
    }
    return true;
}

/* The socket whose options go on. */
static int find_twin(const struct run_connects *all, const struct run_connect_start *start)
{
    uint64_t old = start->request->old_cookie;
    int twin = start->passed;

    if (old != 0) {
        if (twin >= 0) {
            (void)close(twin); /* it is a Unix socket of ours */
        }
        twin = run_sockets_take_twin(all->sockets, old);
        if (twin < 0) { /* forgotten: at least it is of the right kind */
            twin = socket(start->request->destination.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        }
    }
    return twin;
}

static struct run_connection *new_connection(struct run_connects *all, const struct run_connect_start *start)
{
    const struct run_connect *request = start->request;
    struct run_connection *c = calloc(1, sizeof *c);

    if (c == NULL) {
        return NULL;
    }
    c->all = all;
    c->io = (struct loop_io){on_program, start->fd};
    c->dial.io.fd = c->answer.io.fd = -1;
    c->dial.stream.fd = -1;
    c->dial.trace_user = (void *)(intptr_t)start->pid;
    c->early_timer.expired = on_early_timer;
    c->is_blocking = (request->flags & RUN_CONNECT_NON_BLOCKING) == 0;
    c->is_marked = c->is_blocking && (request->flags & RUN_CONNECT_MARKED) != 0;
    c->pad_len = request->pad_len;
    c->cookie = request->cookie;
    c->peer = request->destination;
    c->pid = start->pid;
    c->started_ms = all->verbose ? now_ms() : 0;
    c->twin = find_twin(all, start);
    c->is_asked = (request->flags & RUN_CONNECT_ASKED) != 0 && c->twin >= 0;
    LIST_INSERT_HEAD(&all->list, c, entry);
    return c;
}

static void refuse(struct run_connection *c, enum run_verdict verdict, int error)
{
    undo(c);
    if (c->all->verbose && verdict == RUN_VERDICT_DIRECT) {
        char text[SOCKS6_ADDR_TEXT_MAX];

        run_say_of(c->pid, "connect to %s: not through the proxy", target_text(c, text));
    } else if (c->all->verbose) {
        say_failed(c, error, "");
    }
    (void)reply_verdict(c, verdict, verdict == RUN_VERDICT_DIRECT ? 0 : error);
    release(c);
}

static int watch(struct run_connection *c, bool is_registered)
{
    struct loop *loop = c->all->dialer.loop;
    uint32_t events = c->is_blocking || c->is_early ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP;

    c->is_watched = true;
    return is_registered ? loop_modify(loop, &c->io, events) : loop_add(loop, &c->io, events);
}

static void begin(struct run_connection *c, const struct run_connect_start *start)
{
    c->is_early = c->all->is_early;
    if ((!c->is_blocking || c->is_early) && !enter(c)) {
        refuse(c, RUN_VERDICT_FAILED, ENOBUFS);
        return;
    }
    if (watch(c, start->is_registered) != 0) {
        refuse(c, RUN_VERDICT_FAILED, ENOBUFS);
        return;
    }
    if (c->is_early) {
        c->socket->state = RUN_STATE_CONNECTED;
        if (!reply_verdict(c, RUN_VERDICT_STREAM, 0)) {
            abandon(c);
            return;
        }
        c->pad_len = 0;
        c->is_blocking = false;
        c->state = STATE_EARLY;
        loop_timer_set(c->all->dialer.loop, &c->early_timer, EARLY_WAIT_MS);
        return;
    }
    start_dial(c, 0);
}

/*
 * The kernel gives the lowest number that is free: a high one says that there are few left. What is told to the program must not be
 * left for when there is none.
 */
static bool is_too_much(struct run_connects *all, const struct run_connect_start *start)
{
    if (start->request->pad_len > PAD_MAX) {
        return true;
    }
    if (start->fd <= all->fd_max && start->passed <= all->fd_max) {
        return false;
    }
    if (!all->has_said_full) {
        all->has_said_full = true;
        run_say("too many connections for the limit of open files (ulimit -Hn): some are refused");
    }
    return true;
}

void run_connect_take(struct run_connects *connects, const struct run_connect_start *start)
{
    struct run_connection *c = is_too_much(connects, start) ? NULL : new_connection(connects, start);
    enum run_verdict verdict;
    int error;

    if (c == NULL) {
        const struct run_connected failed = {.verdict = RUN_VERDICT_FAILED, .error = ENOBUFS};

        (void)reply(start->fd, &failed, -1);
        (void)close(start->fd);
        if (start->passed >= 0) {
            (void)close(start->passed);
        }
        return;
    }
    if (!find_target(connects, c, &verdict, &error)) {
        refuse(c, verdict, error);
        return;
    }
    begin(c, start);
}

void run_connects_done(struct run_connects *connects)
{
    while (!LIST_EMPTY(&connects->list)) {
        abandon(LIST_FIRST(&connects->list)); // NOLINT(clang-analyzer-unix.Malloc): taken off the list
    }
}
