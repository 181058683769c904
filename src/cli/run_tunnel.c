/*
 * Theory of operation. Two flows, up (program to proxy) and down. A flow reads into a block that it borrows, writes at once what
 * the other side takes, and gives the block back; if something is left it keeps the block, stops reading, and waits until
 * the other side can be written. So quiet and well-matched tunnels have no memory but their struct, and nothing grows.
 *
 * epoll(7) is level-triggered here: a message that comes alone costs one wait, one read, one write.
 *
 * A hang-up cannot be masked, and would wake us in vain while a flow is stuck. So a descriptor that has hung up leaves the epoll
 * set; nothing new can come of it, and what lies there is read when there is room for it.
 *
 * How a Unix socket says what TCP says:
 *   the program has shut down writing    end of file                       we shut down the proxy's side
 *   the program has closed               end of file and hang-up           we close the proxy's side
 *   the same with bytes not read         ECONNRESET                        we reset it, as TCP does
 *   the program has shut down reading    EPIPE                             what comes is dropped
 *   the remote end has shut down         we shut down                      end of file
 *   the connection has broken            we close, without shutting down   end of file and hang-up: the library asks us why
 */
#include "cli/run_tunnel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/run_answer.h"
#include "cli/run_say.h"
#include "io/sock.h"

/* Full blocks that one flow moves before others have their turn. */
#define TURNS 8

struct flow {
    uint8_t *block; /* NULL = nothing is held */
    size_t start, end;
    bool is_ended;  /* the source has said its last byte */
    bool is_closed; /* and that was passed on */
};

struct run_tunnel {
    struct run_tunnels *all;
    LIST_ENTRY(run_tunnel) entry;
    struct run_socket *socket;
    struct stream net;
    struct loop_io program_io, net_io;
    uint32_t program_events, net_events; /* what epoll(7) waits for */
    int fd;
    bool has_program_hung_up, has_net_hung_up; /* and is not watched any more */
    bool is_unread;                            /* the program does not want to read */
    bool is_shared;                            /* see struct run_tunnel_start */
    struct flow up, down;
    size_t skip;
    pid_t pid;
    struct loop_task again;
};

enum progress { PROGRESS_GO_ON, PROGRESS_STUCK, PROGRESS_OVER /* the tunnel is freed */ };

/* --- ends --- */

/* Closing takes the connection out of epoll, and ends it, unless others have it too. */
static void leave_net(struct run_tunnel *t)
{
    if (t->is_shared) {
        loop_remove(t->all->loop, &t->net_io);
        (void)shutdown(t->net.fd, SHUT_RDWR); /* fails if it is over */
    } else {
        loop_park(t->all->loop, &t->net_io);
    }
}

/* Closes and frees all. */
static void finish(struct run_tunnel *t, enum run_state_of state, int error, bool is_closed_by_program)
{
    struct run_tunnels *all = t->all;

    run_buffers_give(&all->buffers, t->up.block);
    run_buffers_give(&all->buffers, t->down.block);
    loop_defer_cancel(all->loop, &t->again);
    loop_park(all->loop, &t->program_io); /* closing takes it out of epoll */
    leave_net(t);
    /* Before the program can see the end and ask. */
    run_sockets_bury(all->sockets, t->socket, state, error, is_closed_by_program);
    (void)close(t->fd);
    stream_done(&t->net);
    LIST_REMOVE(t, entry);
    free(t);
}

/* What the program would be told of its own connection. */
static int error_of_connection(int error)
{
    switch (error) {
    case EPROTO: /* TLS: it was cut off, or changed on the way */
    case EPIPE:
        return ECONNRESET;
    default:
        return error;
    }
}

static enum progress broken(struct run_tunnel *t, int error)
{
    struct flow *down = &t->down;

    if (t->all->verbose) {
        run_say_of(t->pid, "the connection is lost: %s", stream_error(&t->net, error));
    }
    if (down->start < down->end) { /* what came before is the program's, as far as there is room */
        ssize_t n = send(t->fd, down->block + down->start, down->end - down->start, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)n;
    }
    finish(t, RUN_STATE_BROKEN, error_of_connection(error), false);
    return PROGRESS_OVER;
}

/* The program has closed with bytes unread, or with SO_LINGER set to 0 seconds. */
static enum progress aborted(struct run_tunnel *t)
{
    if (t->is_shared) {
        run_answer_undo(t->net.fd); /* which resets it */
    } else {
        sock_reset_on_close(t->net.fd);
    }
    finish(t, RUN_STATE_ENDED, 0, true);
    return PROGRESS_OVER;
}

/* --- up --- */

static bool is_error(ssize_t n)
{
    return n < 0 && n != -EAGAIN;
}

static ssize_t result_of(ssize_t n)
{
    return n < 0 ? (errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno) : n;
}

static void release(struct run_tunnel *t, struct flow *flow)
{
    run_buffers_give(&t->all->buffers, flow->block);
    flow->block = NULL;
    flow->start = flow->end = 0;
}

static enum progress flush_up(struct run_tunnel *t)
{
    struct flow *up = &t->up;

    while (up->start < up->end) {
        ssize_t n = stream_send(&t->net, up->block + up->start, up->end - up->start);

        if (is_error(n)) {
            return broken(t, (int)-n);
        }
        if (n < 0) {
            return PROGRESS_STUCK;
        }
        up->start += (size_t)n;
    }
    release(t, up);
    if (stream_has_output(&t->net)) {
        int rc = stream_flush(&t->net);

        if (is_error(rc)) {
            return broken(t, -rc);
        }
        return rc == 0 ? PROGRESS_GO_ON : PROGRESS_STUCK;
    }
    return PROGRESS_GO_ON;
}

static void drop_skipped(struct run_tunnel *t)
{
    size_t len = t->up.end < t->skip ? t->up.end : t->skip;

    t->up.start += len;
    t->skip -= len;
}

/* How many bytes came; 0 = none now, or the end. */
static enum progress read_program(struct run_tunnel *t, size_t *got)
{
    struct flow *up = &t->up;
    ssize_t n;

    *got = 0;
    up->block = run_buffers_take(&t->all->buffers);
    if (up->block == NULL) {
        return broken(t, ENOBUFS);
    }
    n = result_of(recv(t->fd, up->block, RUN_BUFFER_LEN, MSG_DONTWAIT));
    if (n == -EAGAIN) {
        release(t, up);
        return PROGRESS_GO_ON;
    }
    if (n < 0) {
        return aborted(t);
    }
    up->start = 0;
    up->end = *got = (size_t)n;
    up->is_ended = n == 0;
    drop_skipped(t);
    return PROGRESS_GO_ON;
}

/* The program's end goes on: the end of its bytes, or all of it. */
static enum progress pass_end_up(struct run_tunnel *t)
{
    int rc;

    if (t->up.is_closed) {
        return PROGRESS_STUCK;
    }
    if (t->has_program_hung_up && !t->down.is_closed && run_sockopt_is_abortive(t->socket)) {
        return aborted(t);
    }
    t->up.is_closed = true;
    if (t->has_program_hung_up && t->net.tls == NULL && !t->down.is_closed) {
        return PROGRESS_STUCK; /* closing says the same */
    }
    rc = stream_shutdown(&t->net);
    return rc != 0 ? broken(t, -rc) : PROGRESS_STUCK;
}

static enum progress move_up(struct run_tunnel *t, bool is_ready)
{
    for (int turn = 0; turn < TURNS; turn++) {
        enum progress progress = flush_up(t);
        size_t got;

        if (progress != PROGRESS_GO_ON) {
            return progress;
        }
        if (t->up.is_ended) {
            return pass_end_up(t);
        }
        if (!is_ready && !t->has_program_hung_up) {
            return PROGRESS_STUCK;
        }
        progress = read_program(t, &got);
        if (progress != PROGRESS_GO_ON) {
            return progress;
        }
        is_ready = got == RUN_BUFFER_LEN;
    }
    return PROGRESS_GO_ON;
}

/* --- down --- */

static enum progress flush_down(struct run_tunnel *t)
{
    struct flow *down = &t->down;

    while (down->start < down->end && !t->is_unread) {
        ssize_t n =
            result_of(send(t->fd, down->block + down->start, down->end - down->start, MSG_DONTWAIT | MSG_NOSIGNAL));

        if (n == -ECONNRESET) {
            return aborted(t);
        }
        if (n == -EAGAIN) {
            return PROGRESS_STUCK;
        }
        if (n == -EPIPE) {
            t->is_unread = true;
        } else if (n < 0) {
            return broken(t, ENOBUFS);
        } else {
            down->start += (size_t)n;
        }
    }
    release(t, down);
    return PROGRESS_GO_ON;
}

/* As much as the block holds, as far as it costs no vain call. */
static ssize_t receive(struct run_tunnel *t, uint8_t *block)
{
    size_t len = 0;
    ssize_t n;

    do {
        n = stream_receive(&t->net, block + len, RUN_BUFFER_LEN - len);
        len += n > 0 ? (size_t)n : 0;
    } while (n > 0 && len < RUN_BUFFER_LEN && stream_has_input(&t->net));
    return len > 0 ? (ssize_t)len : n; /* an end or error comes again */
}

static enum progress read_net(struct run_tunnel *t, size_t *got)
{
    struct flow *down = &t->down;
    ssize_t n;

    *got = 0;
    down->block = run_buffers_take(&t->all->buffers);
    if (down->block == NULL) {
        return broken(t, ENOBUFS);
    }
    n = receive(t, down->block);
    if (n == -EAGAIN) {
        release(t, down);
        return PROGRESS_GO_ON;
    }
    if (n < 0) {
        return broken(t, (int)-n);
    }
    down->start = 0;
    down->end = *got = (size_t)n;
    down->is_ended = n == 0;
    return PROGRESS_GO_ON;
}

static enum progress pass_end_down(struct run_tunnel *t)
{
    if (!t->down.is_closed) {
        t->down.is_closed = true;
        (void)shutdown(t->fd, SHUT_WR); /* fails if the program has gone, which reading tells */
    }
    return PROGRESS_STUCK;
}

static enum progress move_down(struct run_tunnel *t, bool is_ready)
{
    for (int turn = 0; turn < TURNS; turn++) {
        enum progress progress = flush_down(t);
        size_t got;

        if (progress != PROGRESS_GO_ON) {
            return progress;
        }
        if (t->down.is_ended) {
            return pass_end_down(t);
        }
        if (!is_ready && !t->has_net_hung_up && !stream_has_input(&t->net)) {
            return PROGRESS_STUCK;
        }
        progress = read_net(t, &got);
        if (progress != PROGRESS_GO_ON) {
            return progress;
        }
        is_ready = got == RUN_BUFFER_LEN;
    }
    return PROGRESS_GO_ON;
}

/* --- both --- */

static bool is_over(const struct run_tunnel *t)
{
    if (!t->up.is_closed || stream_has_output(&t->net)) {
        return false;
    }
    return t->down.is_closed || t->has_program_hung_up;
}

static int watch(struct run_tunnel *t)
{
    uint32_t program = (!t->up.is_ended && t->up.block == NULL && !stream_has_output(&t->net) ? EPOLLIN : 0u) |
                       (t->down.block != NULL ? EPOLLOUT : 0u);
    uint32_t net = (!t->down.is_ended && t->down.block == NULL ? EPOLLIN : 0u) |
                   (t->up.block != NULL || stream_has_output(&t->net) ? EPOLLOUT : 0u);
    int rc = 0;

    if (!t->has_program_hung_up && program != t->program_events) {
        t->program_events = program;
        rc = loop_modify(t->all->loop, &t->program_io, program);
    }
    if (rc == 0 && !t->has_net_hung_up && net != t->net_events) {
        t->net_events = net;
        rc = loop_modify(t->all->loop, &t->net_io, net);
    }
    return rc;
}

static void run(struct run_tunnel *t, bool is_program_ready, bool is_net_ready)
{
    enum progress up = move_up(t, is_program_ready), down;
    int rc;

    if (up == PROGRESS_OVER) {
        return;
    }
    down = move_down(t, is_net_ready);
    if (down == PROGRESS_OVER) {
        return;
    }
    if (is_over(t)) {
        finish(t, RUN_STATE_ENDED, 0, t->has_program_hung_up && !t->down.is_closed);
        return;
    }
    if (up == PROGRESS_GO_ON || down == PROGRESS_GO_ON) { /* there is more, which epoll(7) may not tell of */
        loop_defer(t->all->loop, &t->again);
    }
    rc = watch(t);
    if (rc != 0) {
        (void)broken(t, -rc);
    }
}

static void run_again(struct loop_task *task)
{
    run(LOOP_OWNER(task, struct run_tunnel, again), true, true);
}

static void on_program(struct loop_io *io, uint32_t events)
{
    struct run_tunnel *t = LOOP_OWNER(io, struct run_tunnel, program_io);

    if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        t->has_program_hung_up = true;
        loop_remove(t->all->loop, &t->program_io);
    }
    run(t, (events & EPOLLIN) != 0, false);
}

static void on_net(struct loop_io *io, uint32_t events)
{
    struct run_tunnel *t = LOOP_OWNER(io, struct run_tunnel, net_io);

    if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        t->has_net_hung_up = true;
        loop_remove(t->all->loop, &t->net_io);
    }
    run(t, false, (events & EPOLLIN) != 0);
}

static int watch_first(struct run_tunnel *t, const struct run_tunnel_start *start)
{
    struct loop *loop = t->all->loop;
    int rc;

    t->program_events = t->net_events = EPOLLIN;
    rc = start->is_fd_registered ? loop_modify(loop, &t->program_io, EPOLLIN) : loop_add(loop, &t->program_io, EPOLLIN);
    if (rc == 0) {
        rc = start->is_stream_registered ? loop_modify(loop, &t->net_io, EPOLLIN) : loop_add(loop, &t->net_io, EPOLLIN);
    }
    return rc;
}

int run_tunnel_open(struct run_tunnels *tunnels, struct run_tunnel_start *start)
{
    struct run_tunnel *t = calloc(1, sizeof *t);
    int one = 1, rc;

    if (t == NULL) {
        run_sockets_bury(tunnels->sockets, start->socket, RUN_STATE_BROKEN, ENOBUFS, false);
        if (start->is_shared) {
            run_answer_undo(start->stream.fd);
        }
        (void)close(start->fd);
        stream_done(&start->stream);
        return -ENOMEM;
    }
    t->all = tunnels;
    t->socket = start->socket;
    t->socket->real = start->stream.fd;
    t->net = start->stream;
    start->stream = (struct stream){.fd = -1};
    t->fd = start->fd;
    t->skip = start->skip;
    t->pid = start->pid;
    t->is_shared = start->is_shared;
    t->program_io = (struct loop_io){on_program, t->fd};
    t->net_io = (struct loop_io){on_net, t->net.fd};
    t->again.run = run_again;
    LIST_INSERT_HEAD(&tunnels->list, t, entry);
    /* An urgent byte would be lost otherwise; so it goes on as one of the others. */
    (void)setsockopt(t->fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
    (void)setsockopt(t->net.fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
    rc = watch_first(t, start);
    if (rc != 0) {
        finish(t, RUN_STATE_BROKEN, ENOBUFS, false);
    } else {
        run(t, t->skip > 0, false); /* the pad is there, and with TLS bytes that came with the reply */
    }
    return rc;
}

void run_tunnels_done(struct run_tunnels *tunnels)
{
    while (!LIST_EMPTY(&tunnels->list)) {
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): taken off the list
        finish(LIST_FIRST(&tunnels->list), RUN_STATE_BROKEN, ECONNRESET, false);
    }
    run_buffers_done(&tunnels->buffers);
}
