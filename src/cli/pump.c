/*
 * The pump of `socks6 connect`.
 *
 * Theory of operation. Two flows, up (in -> net) and down (net -> out), each with one buffer that is filled when it is
 * empty and emptied before it is filled again, so a slow taker stops its giver and nothing grows. poll(2) waits for
 * exactly what the flows need next.
 *
 * `in` and `out` are inherited: their open file descriptions are shared with whoever started us (often a shell's
 * terminal), so O_NONBLOCK is never set on them. Blocking must be avoided all the same: when the program at the other end of
 * both pipes is blocked writing to us, we must not be blocked writing to it. Sockets take MSG_DONTWAIT with each call. Of a
 * pipe or terminal a read after POLLIN returns what is there. A pipe that we write is opened anew through /proc, which
 * gives a description of our own that can be non-blocking. Where that is not possible, and on terminals, we write at
 * most PIPE_BUF bytes after POLLOUT: they fit, since Linux reports POLLOUT when a whole page is free. (Another writer to
 * the same pipe can take that page between the two calls; then we wait for the reader like any other program.)
 */
#include "cli/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_SIZE ((size_t)256 * 1024)
#define NEVER INT64_MAX

enum file_kind { FILE_REGULAR, FILE_SOCKET, FILE_PIPE, FILE_OTHER /* terminals, mostly */ };

struct flow {
    uint8_t *buf;
    size_t start; /* of what is to be written: buf[start .. end) */
    size_t end;
    int ended;  /* the source has said its last byte */
    int closed; /* and that has been passed on */
};

struct pump {
    const struct pump_config *config;
    struct pump_result *result;
    enum file_kind in_kind, out_kind;
    int own_out; /* `out` opened anew, or -1 */
    struct flow up, down;
    int up_error; /* sending failed; what was received before that is still delivered */
    int64_t last_active_ms;
    int64_t shutdown_at_ms; /* when the end of `in` is passed on; NEVER as long as there is none */
    int64_t quit_at_ms;
    int over;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static enum file_kind kind_of(int fd)
{
    struct stat st = {0};

    if (fstat(fd, &st) != 0) {
        return FILE_OTHER; /* the call that comes next will say what is wrong */
    }
    if (S_ISSOCK(st.st_mode)) {
        return FILE_SOCKET;
    }
    if (S_ISFIFO(st.st_mode)) {
        return FILE_PIPE;
    }
    return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? FILE_REGULAR : FILE_OTHER;
}

/*
 * The pipe `fd` under a description of our own, non-blocking; -1 without /proc or the right to open it. Not for a
 * reading end: opened anew it could be written, which is not what the descriptor allows.
 */
static int reopen_pipe(int fd)
{
    char path[sizeof "/proc/self/fd/" + 3 * sizeof fd];
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
}

static void trace(const struct pump *p, const char *what)
{
    if (p->config->trace != NULL) {
        p->config->trace(p->config->trace_user, what);
    }
}

static void finish(struct pump *p, enum pump_end end, int error)
{
    if (!p->over) {
        p->over = 1;
        p->result->end = end;
        p->result->error = error;
    }
}

static size_t pending(const struct flow *f)
{
    return f->end - f->start;
}

/* A call that would have waited, or was interrupted, is tried again when poll() says so. */
static int is_transient(int error)
{
    return error == EAGAIN || error == EINTR;
}

static int wants_input(const struct flow *f)
{
    return !f->ended && pending(f) == 0;
}

/* A reset after the remote end has closed its side is EPIPE to Linux; to people both are the same. */
static int net_error(int error)
{
    return error == EPIPE ? ECONNRESET : error;
}

/* Stores what a read returned: bytes or -errno. 0, or the errno of a real failure. */
static int took(struct pump *p, struct flow *f, ssize_t n)
{
    if (n < 0) {
        return is_transient((int)-n) ? 0 : (int)-n;
    }
    f->start = 0;
    f->end = (size_t)n;
    f->ended = n == 0;
    p->last_active_ms = now_ms();
    return 0;
}

static void read_in(struct pump *p)
{
    int fd = p->config->in;
    ssize_t n =
        p->in_kind == FILE_SOCKET ? recv(fd, p->up.buf, BUFFER_SIZE, MSG_DONTWAIT) : read(fd, p->up.buf, BUFFER_SIZE);
    int error = took(p, &p->up, n < 0 ? -errno : n);

    if (error == EIO && isatty(fd)) { /* the terminal was hung up */
        p->up.ended = 1;
    } else if (error == ECONNRESET) { /* a socket whose other end has gone: no more will come */
        p->up.ended = 1;
    } else if (error != 0) {
        finish(p, PUMP_IN_ERROR, error);
    }
}

static void read_net(struct pump *p)
{
    int error = took(p, &p->down, stream_receive(p->config->net, p->down.buf, BUFFER_SIZE));

    if (error != 0) {
        finish(p, PUMP_NET_ERROR, net_error(error));
    } else if (p->down.ended) {
        trace(p, "the remote end has closed its side");
    }
    if (p->shutdown_at_ms != NEVER) {
        p->shutdown_at_ms = now_ms() + p->config->shutdown_ms; /* it is talking */
    }
}

static void write_net(struct pump *p)
{
    ssize_t n = pending(&p->up) > 0 ? stream_send(p->config->net, p->up.buf + p->up.start, pending(&p->up))
                                    : stream_flush(p->config->net);

    if (n >= 0) {
        p->up.start += (size_t)n;
        p->result->sent += (uint64_t)n;
        p->last_active_ms = now_ms();
    } else if (!is_transient((int)-n)) {
        p->up_error = net_error((int)-n); /* a server that refuses an upload half-way has often said why: read on */
        p->up.ended = p->up.closed = 1;
        p->up.start = p->up.end;
    }
}

static void write_out(struct pump *p)
{
    const uint8_t *at = p->down.buf + p->down.start;
    size_t len = pending(&p->down);
    ssize_t n;

    if (p->out_kind == FILE_SOCKET) {
        n = send(p->config->out, at, len, MSG_DONTWAIT);
    } else if (p->own_out >= 0 || p->out_kind == FILE_REGULAR) {
        n = write(p->own_out >= 0 ? p->own_out : p->config->out, at, len);
    } else {
        n = write(p->config->out, at, len < PIPE_BUF ? len : PIPE_BUF);
    }
    if (n >= 0) {
        p->down.start += (size_t)n;
        p->result->received += (uint64_t)n;
        p->last_active_ms = now_ms();
    } else if (errno == EPIPE) {
        finish(p, PUMP_OUT_GONE, 0);
    } else if (!is_transient(errno)) {
        finish(p, PUMP_OUT_ERROR, errno);
    }
}

/* Passes on the end of `in`, or does not, where that is not wanted. */
static void close_up(struct pump *p)
{
    p->up.closed = 1;
    p->shutdown_at_ms = NEVER;
    if (p->config->shutdown_ms < 0) {
        trace(p, "end of standard input");
    } else {
        int rc = stream_shutdown(p->config->net);

        if (rc != 0) {
            finish(p, PUMP_NET_ERROR, net_error(-rc));
        }
        trace(p, "end of standard input passed on");
    }
    if (p->config->quit_ms >= 0) {
        p->quit_at_ms = now_ms() + p->config->quit_ms;
    }
}

static void close_own_out(struct pump *p)
{
    if (p->own_out >= 0) {
        (void)close(p->own_out);
        p->own_out = -1;
    }
}

/* Passes on the end of what the remote end had to say. */
static void close_down(struct pump *p)
{
    p->down.closed = 1;
    close_own_out(p);
    if (p->out_kind == FILE_SOCKET) { /* `in` may be the same socket, so closing alone would not be seen */
        (void)shutdown(p->config->out, SHUT_WR);
    }
    if (close(p->config->out) != 0 && errno != EINTR) {
        finish(p, PUMP_OUT_ERROR, errno); /* NFS and quotas report late */
    }
    if (!p->up.closed && isatty(p->config->in)) {
        finish(p, PUMP_DONE, 0); /* nobody should have to type something to notice that the other side has gone */
    }
}

/* Everything from `in` has been sent. */
static void end_of_in(struct pump *p)
{
    if (p->config->shutdown_ms <= 0 || p->down.ended) {
        close_up(p);
    } else if (p->shutdown_at_ms == NEVER) {
        p->shutdown_at_ms = now_ms() + p->config->shutdown_ms;
    }
}

static void after_io(struct pump *p)
{
    if (!p->over && p->up.ended && pending(&p->up) == 0 && !p->up.closed) {
        end_of_in(p);
    }
    if (!p->over && p->down.ended && pending(&p->down) == 0 && !p->down.closed) {
        close_down(p);
    }
    if (p->up.closed && p->down.closed && (p->up_error != 0 || !stream_has_output(p->config->net))) {
        finish(p, p->up_error != 0 ? PUMP_NET_ERROR : PUMP_DONE, p->up_error);
    }
}

/* What to wait for. Descriptors that nothing is wanted of are left out: their POLLHUP would come again and again. */
static void set_interest(const struct pump *p, struct pollfd fds[3])
{
    bool is_input_wanted = wants_input(&p->down) != 0;
    short net = is_input_wanted ? POLLIN : 0;
    int watch_reset = p->down.closed && !p->up.closed; /* then POLLHUP means no less than that */

    if (p->up_error == 0) {
        net = stream_events(p->config->net, is_input_wanted, pending(&p->up) > 0);
    }
    fds[0] = (struct pollfd){wants_input(&p->up) ? p->config->in : -1, POLLIN, 0};
    fds[1] = (struct pollfd){net != 0 || watch_reset ? p->config->net->fd : -1, net, 0};
    /* Without events POLLERR still tells that nobody reads our output any more, even while there is none. */
    fds[2] = (struct pollfd){p->down.closed ? -1 : p->config->out, pending(&p->down) > 0 ? POLLOUT : 0, 0};
}

static int64_t deadline(const struct pump *p)
{
    int64_t due = p->config->idle_ms < 0 ? NEVER : p->last_active_ms + p->config->idle_ms;

    due = p->shutdown_at_ms < due ? p->shutdown_at_ms : due;
    return p->quit_at_ms < due ? p->quit_at_ms : due;
}

static int poll_timeout(const struct pump *p)
{
    int64_t due = deadline(p), now = now_ms();

    if (due == NEVER) {
        return -1;
    }
    if (due <= now) {
        return 0;
    }
    return due - now > INT_MAX ? INT_MAX : (int)(due - now);
}

static void check_timers(struct pump *p)
{
    int64_t now = now_ms();

    if (now >= p->quit_at_ms) {
        finish(p, PUMP_QUIT, 0);
    } else if (p->config->idle_ms >= 0 && now >= p->last_active_ms + p->config->idle_ms) {
        finish(p, PUMP_IDLE, 0);
    } else if (now >= p->shutdown_at_ms) {
        if (pending(&p->down) > 0) { /* not silent: it is us who do not read */
            p->shutdown_at_ms = now + p->config->shutdown_ms;
        } else {
            close_up(p);
        }
    }
}

static void serve_net(struct pump *p, const struct pollfd *net)
{
    if (net->events == 0) { /* the remote end had closed its side, and now the connection is gone altogether */
        int error = 0;
        socklen_t len = sizeof error;

        (void)getsockopt(p->config->net->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        finish(p, PUMP_NET_ERROR, error != 0 ? net_error(error) : ECONNRESET);
        return;
    }
    if (p->up_error == 0 && (pending(&p->up) > 0 || stream_has_output(p->config->net))) {
        write_net(p);
    }
    if (wants_input(&p->down)) {
        read_net(p);
    }
}

static void serve(struct pump *p, const struct pollfd fds[3])
{
    if (fds[0].revents != 0) {
        read_in(p);
    }
    if (fds[1].revents != 0) {
        serve_net(p, &fds[1]);
    }
    if (!p->over && fds[2].revents != 0) {
        if (pending(&p->down) > 0) {
            write_out(p);
        } else if (fds[2].events == 0) {
            finish(p, PUMP_OUT_GONE, 0);
        }
    }
}

static void loop(struct pump *p)
{
    after_io(p); /* the end of `in` may have come before us */
    while (!p->over) {
        struct pollfd fds[3];
        bool has_input = wants_input(&p->down) && stream_has_input(p->config->net);
        int n;

        set_interest(p, fds);
        n = poll(fds, 3, has_input ? 0 : poll_timeout(p));
        if (has_input) { /* TLS holds it already */
            read_net(p);
            after_io(p);
        }
        if (n < 0 && errno != EINTR) {
            finish(p, PUMP_NO_MEMORY, errno); /* the only way left for poll(2) to fail */
        } else if (n > 0 && !p->over) {
            serve(p, fds);
            after_io(p);
        }
        check_timers(p);
        after_io(p); /* a timer can have closed the last direction */
    }
}

void pump_run(const struct pump_config *config, struct pump_result *result)
{
    struct pump p;

    memset(&p, 0, sizeof p);
    memset(result, 0, sizeof *result);
    p.config = config;
    p.result = result;
    p.in_kind = kind_of(config->in);
    p.out_kind = kind_of(config->out);
    p.own_out = p.out_kind == FILE_PIPE ? reopen_pipe(config->out) : -1;
    p.up.buf = malloc(BUFFER_SIZE);
    p.down.buf = malloc(BUFFER_SIZE);
    p.up.ended = config->in_ended;
    p.last_active_ms = now_ms();
    p.quit_at_ms = NEVER;
    p.shutdown_at_ms = NEVER;
    if (p.up.buf == NULL || p.down.buf == NULL) {
        finish(&p, PUMP_NO_MEMORY, ENOMEM);
    } else {
        loop(&p);
    }
    close_own_out(&p);
    free(p.up.buf);
    free(p.down.buf);
}
