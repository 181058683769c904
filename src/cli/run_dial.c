/*
 * The descriptor is watched edge-triggered, once: each step goes on as far as it can, so no edge is lost, and a conversation of
 * several messages needs one epoll_ctl(2). For writing only if it has to wait for that: a request that has left before the descriptor
 * is watched, as on loopback, would else be followed by an event that says nothing.
 */
#include "cli/run_dial.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

static void end(struct run_dial *dial)
{
    loop_timer_cancel(dial->dialer->loop, &dial->timer);
    reach_free(dial->reach);
    dial->reach = NULL;
}

static void set_timer(struct run_dial *dial)
{
    int ms = reach_timeout_ms(dial->reach);

    if (ms >= 0) {
        loop_timer_set(dial->dialer->loop, &dial->timer, (uint64_t)ms);
    } else {
        loop_timer_cancel(dial->dialer->loop, &dial->timer);
    }
}

/* Watches the descriptor if it is a new one, or is to be written to for the first time. 0 or -errno. */
static int watch(struct run_dial *dial)
{
    unsigned count = reach_fd_count(dial->reach);
    bool wants_out = (reach_events(dial->reach) & POLLOUT) != 0;
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET;
    int rc = 0;

    if (wants_out) {
        events |= EPOLLOUT;
    }
    if (dial->io.fd < 0 || dial->fd_count != count) {
        loop_park(dial->dialer->loop, &dial->io); /* the one before was closed */
        dial->io.fd = reach_fd(dial->reach);
        dial->fd_count = count;
        rc = loop_add(dial->dialer->loop, &dial->io, events);
        if (rc != 0) {
            dial->io.fd = -1;
        }
        dial->is_out_watched = wants_out;
    } else if (wants_out && !dial->is_out_watched) {
        rc = loop_modify(dial->dialer->loop, &dial->io, events); /* tells at once if there is room by now */
        dial->is_out_watched = true;
    }
    return rc;
}

static void fail_to_watch(struct socks6_dial_result *result)
{
    memset(result, 0, sizeof *result);
    result->fd = -1;
}

static void step(struct run_dial *dial)
{
    struct socks6_dial_result result;
    int status = reach_step(dial->reach, &dial->stream, &result);

    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        if (watch(dial) == 0) {
            set_timer(dial);
            return;
        }
        status = SOCKS6_DIAL_NOMEM;
        fail_to_watch(&result);
    }
    if (status != SOCKS6_DIAL_OK) {
        loop_park(dial->dialer->loop, &dial->io);
    }
    end(dial);
    dial->done(dial, status, &result);
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    (void)events;
    step(LOOP_OWNER(io, struct run_dial, io));
}

static void on_timer(struct loop_timer *timer)
{
    step(LOOP_OWNER(timer, struct run_dial, timer));
}

static void fill(struct reach_config *config, const struct run_dialer *dialer)
{
    memset(config, 0, sizeof *config);
    socks6_dial_config_init(&config->dial);
    config->dial.proxy = dialer->proxy;
    config->dial.proxy_addresses = dialer->addresses->list;
    config->dial.proxy_address_count = dialer->addresses->count;
    config->dial.family = dialer->family;
    config->dial.timeout_ms = dialer->timeout_ms;
    config->dial.trace = dialer->trace;
    config->shared = dialer->shared;
    config->no_fast_open = dialer->no_fast_open;
    config->no_early_data = dialer->no_early_data;
}

int run_dial_start(struct run_dial *dial, const struct run_dialer *dialer, const struct socks6_addr *addr,
                   struct socks6_slice early, struct socks6_dial_result *result)
{
    struct reach_config config;
    int status;

    fill(&config, dialer);
    config.dial.addr = *addr;
    config.dial.early = early;
    config.dial.trace_user = dial->trace_user;
    dial->dialer = dialer;
    dial->io = (struct loop_io){on_ready, -1};
    dial->timer.expired = on_timer;
    dial->stream = (struct stream){.fd = -1};
    status = reach_start(&config, &dial->reach, &dial->stream, result);
    if (status != SOCKS6_DIAL_IN_PROGRESS) {
        dial->reach = NULL;
        return status;
    }
    if (watch(dial) != 0) {
        reach_free(dial->reach);
        dial->reach = NULL;
        fail_to_watch(result);
        return SOCKS6_DIAL_NOMEM;
    }
    set_timer(dial);
    return SOCKS6_DIAL_IN_PROGRESS;
}

void run_dial_cancel(struct run_dial *dial)
{
    if (dial->reach != NULL) {
        loop_park(dial->dialer->loop, &dial->io);
        end(dial);
    }
}
