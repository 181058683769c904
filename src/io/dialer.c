/*
 * One address after the other. Each attempt is bounded by what is left of the time divided by the addresses left.
 *
 * When all fail, the error reported is the one that says most about the destination, whichever address it came from:
 * ECONNREFUSED (somebody answered) before DIALER_TTL_EXPIRED (a router on the way answered), ETIMEDOUT, EHOSTUNREACH,
 * ENETUNREACH, and anything else; of equal ones the first. What is wrong with ourselves (no descriptor, no memory)
 * ends the dialling at once with that errno.
 *
 * During an attempt IP_RECVERR or IPV6_RECVERR keeps the ICMP message that ended it, to tell "time exceeded" from
 * "host unreachable", both EHOSTUNREACH. It is turned off afterwards: on an established connection it would make
 * passing errors fatal.
 *
 * A connection whose two ends are the same address and port is TCP's simultaneous open with itself: it happens when
 * nobody listens on a local port of the ephemeral range and the kernel picks that very port as ours. It counts as
 * refused.
 */
#include "io/dialer.h"

#include <time.h> /* first: <linux/errqueue.h> uses struct timespec */

#include <assert.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/sock.h"

/* struct socks6_addr has room for a name, which a list of addresses does not need. */
struct target {
    uint8_t type;
    uint16_t port;
    uint8_t bytes[16];
};

struct dialer {
    struct loop *loop;
    struct loop_io io;
    struct loop_timer timer; /* the running attempt's share */
    struct loop_task task;   /* reports the result */
    uint64_t deadline_ms;
    int fd;    /* the running attempt; or connected, once `result` says so; -1 = none */
    int error; /* what says most so far; 0 = nothing failed yet */
    dialer_done *done;
    void *user;
    struct socks6_addr local;
    const struct dialer_sources *sources;
    unsigned *turn;
    unsigned attempts;
    unsigned unavailable_count;
    struct target unavailable; /* type 0: none, or the kernel's choice */
    size_t next, count;
    struct target targets[];
};

static struct socks6_addr target_addr(const struct target *target)
{
    struct socks6_addr addr = {.type = target->type, .port = target->port};
    if (target->type == SOCKS6_ADDR_IPV4) {
        addr.len = 4;
        memcpy(addr.u.ipv4, target->bytes, 4);
    } else {
        addr.len = 16;
        memcpy(addr.u.ipv6, target->bytes, 16);
    }
    return addr;
}

/* False for a name. Goes by way of a sockaddr, which turns an IPv4-mapped address into IPv4. */
static bool target_from_addr(const struct socks6_addr *addr, struct target *target)
{
    struct sockaddr_storage sa;
    socklen_t len;
    struct socks6_addr plain;
    if (!sock_from_addr(addr, &sa, &len) || !sock_to_addr((const struct sockaddr *)&sa, len, &plain)) {
        return false;
    }
    target->type = plain.type;
    target->port = plain.port;
    memcpy(target->bytes, &plain.u, plain.len);
    return true;
}

/* The lower, the more it says. */
static unsigned rank(int error)
{
    static const int order[] = {ECONNREFUSED, DIALER_TTL_EXPIRED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH};
    unsigned i = 0;
    while (i < sizeof order / sizeof order[0] && order[i] != error) {
        i++;
    }
    return i;
}

static void note_error(struct dialer *dialer, int error)
{
    if (dialer->error == 0 || rank(error) < rank(dialer->error)) {
        dialer->error = error;
    }
}

/* Errors of our own, which no other address would cure. */
static bool is_fatal(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static int set_recverr(int fd, uint8_t type, int on)
{
    int rc = type == SOCKS6_ADDR_IPV4 ? setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on)
                                      : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    return rc < 0 ? -errno : 0;
}

static bool is_time_exceeded(const struct sock_extended_err *err)
{
    return (err->ee_origin == SO_EE_ORIGIN_ICMP && err->ee_type == ICMP_TIME_EXCEEDED) ||
           (err->ee_origin == SO_EE_ORIGIN_ICMP6 && err->ee_type == ICMP6_TIME_EXCEEDED);
}

/* Whether the last ICMP message in the error queue says "time exceeded". */
static bool has_expired(int fd)
{
    bool expired = false;
    for (;;) {
        union {
            struct cmsghdr align;
            char bytes[512];
        } control;
        struct msghdr msg = {.msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            return expired;
        }
        for (struct cmsghdr *part = CMSG_FIRSTHDR(&msg); part != NULL; part = CMSG_NXTHDR(&msg, part)) {
            if ((part->cmsg_level != IPPROTO_IP || part->cmsg_type != IP_RECVERR) &&
                (part->cmsg_level != IPPROTO_IPV6 || part->cmsg_type != IPV6_RECVERR)) {
                continue;
            }
            struct sock_extended_err err;
            memcpy(&err, CMSG_DATA(part), sizeof err);
            expired = is_time_exceeded(&err);
        }
    }
}

/* Reports and frees. */
static void deliver(struct dialer *dialer)
{
    struct dialer_result result = {.fd = dialer->fd, .attempts = dialer->attempts};
    if (dialer->fd >= 0) {
        result.local = dialer->local;
    } else {
        result.error = dialer->error;
    }
    result.unavailable_count = dialer->unavailable_count;
    if (dialer->unavailable.type != 0) {
        result.unavailable = target_addr(&dialer->unavailable);
    }
    if (dialer->attempts > 0) {
        result.peer = target_addr(&dialer->targets[dialer->next - 1]);
    }
    dialer_done *done = dialer->done;
    void *user = dialer->user;
    free(dialer);
    done(user, &result);
}

/* Ends with what `fd` and `error` say: at the end of the batch, so never within dialer_start(). */
static void end(struct dialer *dialer)
{
    loop_timer_cancel(dialer->loop, &dialer->timer);
    loop_defer(dialer->loop, &dialer->task);
}

static void close_attempt(struct dialer *dialer)
{
    loop_timer_cancel(dialer->loop, &dialer->timer);
    if (dialer->io.fd >= 0) {
        loop_close(dialer->loop, &dialer->io);
    } else if (dialer->fd >= 0) {
        (void)close(dialer->fd);
    }
    dialer->fd = -1;
}

/* The socket is connected. 0, or a negative errno that makes the attempt a failed one. */
static int accept_connection(struct dialer *dialer)
{
    struct socks6_addr peer = target_addr(&dialer->targets[dialer->next - 1]);
    int rc = set_recverr(dialer->fd, peer.type, 0);
    if (rc == 0) {
        rc = sock_local(dialer->fd, &dialer->local);
    }
    if (rc < 0) {
        return rc;
    }
    if (dialer->local.port == peer.port && dialer->local.type == peer.type &&
        memcmp(&dialer->local.u, &peer.u, peer.len) == 0) {
        return -ECONNREFUSED;
    }
    sock_set_user_timeout(dialer->fd, SOCK_USER_TIMEOUT_MS);
    return 0;
}

/*
 * Our own end. The port is chosen by connect(2), not by bind(2), which knows no destination and so could give each port
 * only once (IP_BIND_ADDRESS_NO_PORT; an IPv6 socket has it on the same level). 0 or -errno.
 */
static int bind_source(int fd, const struct socks6_addr *source)
{
    struct socks6_addr addr = *source;
    struct sockaddr_storage sa;
    socklen_t len;
    const int on = 1;

    addr.port = 0;
    if (!sock_from_addr(&addr, &sa, &len)) {
        return -EADDRNOTAVAIL;
    }
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on); /* without it there are fewer ports */
    return bind(fd, (const struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

/*
 * Opens a socket from `source` (NULL: the kernel's choice) to `target`. 1 if connected, 0 if on its way, or a negative
 * errno. dialer->fd is set in the first two cases.
 */
static int open_from(struct dialer *dialer, const struct target *target, const struct socks6_addr *source)
{
    struct socks6_addr addr = target_addr(target);
    struct sockaddr_storage sa;
    socklen_t len;
    bool is_ip = sock_from_addr(&addr, &sa, &len);
    assert(is_ip);
    (void)is_ip;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int rc = sock_set_dialling_options(fd);
    if (rc == 0) {
        rc = set_recverr(fd, target->type, 1);
    }
    if (rc == 0 && source != NULL) {
        rc = bind_source(fd, source);
    }
    if (rc == 0) {
        if (connect(fd, (const struct sockaddr *)&sa, len) == 0) {
            rc = 1;
        } else if (errno != EINPROGRESS && errno != EINTR) {
            rc = -errno;
        }
    }
    if (rc < 0) {
        (void)close(fd);
    } else {
        dialer->fd = fd;
    }
    return rc;
}

static void note_unavailable(struct dialer *dialer, const struct socks6_addr *source)
{
    dialer->unavailable_count++;
    dialer->unavailable.type = 0;
    if (source != NULL) {
        (void)target_from_addr(source, &dialer->unavailable);
    }
}

/* open_from() each source in turn, until one can be had. */
static int open_attempt(struct dialer *dialer, const struct target *target)
{
    const struct dialer_sources *sources = dialer->sources;
    const struct socks6_addr *list = NULL;
    size_t count = 0;
    unsigned turn = 0;
    int rc;

    if (sources != NULL) {
        bool is_ipv4 = target->type == SOCKS6_ADDR_IPV4;
        list = is_ipv4 ? sources->ipv4 : sources->ipv6;
        count = is_ipv4 ? sources->ipv4_count : sources->ipv6_count;
    }
    if (count > 0 && dialer->turn != NULL) {
        turn = (*dialer->turn)++;
    }
    for (size_t i = 0;; i++) {
        const struct socks6_addr *source = count == 0 ? NULL : &list[(turn % count + i) % count];
        rc = open_from(dialer, target, source);
        if (rc != -EADDRNOTAVAIL) {
            return rc;
        }
        note_unavailable(dialer, source);
        if (i + 1 >= count) {
            return rc;
        }
    }
}

/* Lets the loop watch the attempt. 0 or -errno. */
static int watch_attempt(struct dialer *dialer, uint64_t share_ms)
{
    dialer->io.fd = dialer->fd;
    int rc = loop_add(dialer->loop, &dialer->io, EPOLLOUT);
    if (rc < 0) {
        dialer->io.fd = -1;
    } else {
        loop_timer_set(dialer->loop, &dialer->timer, share_ms);
    }
    return rc;
}

/* Tries addresses until one is on its way, or to the end. */
static void try_next(struct dialer *dialer)
{
    while (dialer->next < dialer->count) {
        uint64_t now_ms = loop_now_ms(dialer->loop);
        if (now_ms >= dialer->deadline_ms) {
            note_error(dialer, ETIMEDOUT);
            break;
        }
        uint64_t share_ms = (dialer->deadline_ms - now_ms) / (dialer->count - dialer->next);
        const struct target *target = &dialer->targets[dialer->next++];
        dialer->attempts++;
        int rc = open_attempt(dialer, target);
        if (rc == 0) {
            rc = watch_attempt(dialer, share_ms);
            if (rc == 0) {
                return;
            }
        } else if (rc > 0) {
            rc = accept_connection(dialer);
            if (rc == 0) {
                break;
            }
        }
        close_attempt(dialer);
        if (is_fatal(-rc)) {
            dialer->error = -rc;
            break;
        }
        note_error(dialer, -rc);
    }
    end(dialer);
}

static void fail_attempt(struct dialer *dialer, int error)
{
    if (error == EHOSTUNREACH && has_expired(dialer->fd)) {
        error = DIALER_TTL_EXPIRED;
    }
    close_attempt(dialer);
    if (is_fatal(error)) {
        dialer->error = error;
        end(dialer);
        return;
    }
    note_error(dialer, error);
    try_next(dialer);
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct dialer *dialer = LOOP_OWNER(io, struct dialer, io);
    (void)events;
    int error = sock_error(dialer->fd);
    if (error == 0) {
        error = -accept_connection(dialer);
    }
    if (error != 0) {
        fail_attempt(dialer, error);
        return;
    }
    loop_remove(dialer->loop, &dialer->io);
    end(dialer);
}

static void on_timer(struct loop_timer *timer)
{
    fail_attempt(LOOP_OWNER(timer, struct dialer, timer), ETIMEDOUT);
}

static void on_task(struct loop_task *task)
{
    deliver(LOOP_OWNER(task, struct dialer, task));
}

int dialer_start(struct loop *loop, const struct dialer_config *config, const struct socks6_addr *addrs, size_t count,
                 dialer_done *done, void *user, struct dialer **out)
{
    uint64_t timeout_ms = config->timeout_ms;

    if (count == 0 || count > DIALER_ADDRESSES_MAX) {
        return -EINVAL;
    }
    struct dialer *dialer = calloc(1, sizeof *dialer + count * sizeof dialer->targets[0]);
    if (dialer == NULL) {
        return -ENOMEM;
    }
    for (; dialer->count < count; dialer->count++) {
        if (!target_from_addr(&addrs[dialer->count], &dialer->targets[dialer->count])) {
            free(dialer);
            return -EINVAL;
        }
    }
    uint64_t now_ms = loop_now_ms(loop);
    dialer->loop = loop;
    dialer->io = (struct loop_io){.ready = on_ready, .fd = -1};
    dialer->timer.expired = on_timer;
    dialer->task.run = on_task;
    dialer->deadline_ms = timeout_ms < UINT64_MAX - now_ms ? now_ms + timeout_ms : UINT64_MAX;
    dialer->fd = -1;
    dialer->sources = config->sources;
    dialer->turn = config->turn;
    dialer->done = done;
    dialer->user = user;
    try_next(dialer);
    *out = dialer;
    return 0;
}

void dialer_cancel(struct dialer *dialer)
{
    if (dialer == NULL) {
        return;
    }
    loop_defer_cancel(dialer->loop, &dialer->task);
    close_attempt(dialer);
    free(dialer);
}
