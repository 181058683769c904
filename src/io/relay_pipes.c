/*
 * The pipes of a loop. A pipe of the full size costs several system calls to make, so those that are given back empty
 * wait for the next bulk stream; a timer closes what nobody has needed for a while, so that an idle daemon has none.
 *
 * Smaller pipes than RELAY_READ_MAX are worse than copying. The kernel lets users without privileges have 64 MiB of
 * pipes in all (pipe-user-pages-soft in proc(5)) and refuses to enlarge further ones; there may be no descriptor; so a
 * refusal is normal, and is not tried again for a while.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/relay_internal.h"

#define TRIM_MS 500u
#define RETRY_MS 1000u

static void close_pipe(struct relay_pipes *pipes, struct relay_pipe *pipe)
{
    (void)close(pipe->in);
    (void)close(pipe->out);
    free(pipe);
    pipes->count--;
}

static struct relay_pipe *pop(struct relay_pipes *pipes)
{
    struct relay_pipe *pipe = pipes->idle;
    pipes->idle = pipe->next;
    pipes->idle_count--;
    if (pipes->idle_count < pipes->idle_low) {
        pipes->idle_low = pipes->idle_count;
    }
    return pipe;
}

/* Those that were idle all the time since the last look. */
static void on_timer(struct loop_timer *timer)
{
    struct relay_pipes *pipes = LOOP_OWNER(timer, struct relay_pipes, timer);
    for (unsigned surplus = pipes->idle_low; surplus > 0; surplus--) {
        close_pipe(pipes, pop(pipes));
    }
    pipes->idle_low = pipes->idle_count;
    if (pipes->idle_count > 0) {
        loop_timer_set(pipes->loop, &pipes->timer, TRIM_MS);
    }
}

void relay_pipes_init(struct relay_pipes *pipes, struct loop *loop)
{
    *pipes = (struct relay_pipes){.loop = loop, .timer.expired = on_timer};
}

void relay_pipes_done(struct relay_pipes *pipes)
{
    while (pipes->idle != NULL) {
        close_pipe(pipes, pop(pipes));
    }
    assert(pipes->count == 0);
    loop_timer_cancel(pipes->loop, &pipes->timer);
}

bool relay_pipes_may_take(const struct relay_pipes *pipes)
{
    if (pipes->idle != NULL) {
        return true;
    }
    return pipes->refused_ms == 0 || loop_now_ms(pipes->loop) - pipes->refused_ms >= RETRY_MS;
}

/* 0 or -errno. */
static int new_pipe(struct relay_pipe **out)
{
    struct relay_pipe *pipe = calloc(1, sizeof *pipe);
    int fds[2];
    if (pipe == NULL) {
        return -ENOMEM;
    }
    int rc = pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0 ? -errno : 0;
    if (rc == 0 && fcntl(fds[1], F_SETPIPE_SZ, (int)RELAY_READ_MAX) < 0) {
        rc = -errno;
        (void)close(fds[0]);
        (void)close(fds[1]);
    }
    if (rc < 0) {
        free(pipe);
        return rc;
    }
    pipe->out = fds[0];
    pipe->in = fds[1];
    *out = pipe;
    return 0;
}

int relay_pipes_take(struct relay_pipes *pipes, struct relay_pipe **out)
{
    if (pipes->idle != NULL) {
        *out = pop(pipes);
        return 0;
    }
    int rc = pipes->count < RELAY_PIPES_MAX ? new_pipe(out) : -EAGAIN;
    if (rc < 0) {
        pipes->refused_ms = loop_now_ms(pipes->loop);
        return rc;
    }
    pipes->refused_ms = 0;
    pipes->count++;
    return 0;
}

void relay_pipes_give(struct relay_pipes *pipes, struct relay_pipe *pipe)
{
    if (pipe->len > 0) {
        close_pipe(pipes, pipe);
        return;
    }
    pipe->next = pipes->idle;
    pipes->idle = pipe;
    pipes->idle_count++;
    if (!loop_timer_is_armed(&pipes->timer)) {
        pipes->idle_low = pipes->idle_count;
        loop_timer_set(pipes->loop, &pipes->timer, TRIM_MS);
    }
}
