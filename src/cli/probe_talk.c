/*
 * Theory of operation. One poll(2) loop per group of PROBE_TALK_AT_ONCE. A talk is connecting (not `connected`), then
 * talking, then `over`; its descriptor lives from begin() to finish(). With fast_open the connection is "there" at once for
 * step(), and the kernel connects with the first send(2), which may say EINPROGRESS meanwhile: wait and send again.
 * With TLS there is a handshake between both, and `out` goes through it, as what comes does.
 */
#include "cli/probe_talk.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t probe_now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void finish(struct probe_talk *talk, enum probe_talk_end end, int error)
{
    talk->over = true;
    talk->end = end;
    talk->error = error;
    talk->ended_us = probe_now_us();
    if (talk->fd >= 0) {
        struct tcp_info info;
        socklen_t len = sizeof info;

        memset(&info, 0, sizeof info);
        if (talk->connected && getsockopt(talk->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
            talk->syn_data = (info.tcpi_options & TCPI_OPT_SYN_DATA) != 0;
        }
        (void)close(talk->fd);
        talk->fd = -1;
    }
    tls_client_free(talk->tls);
    talk->tls = NULL;
}

static void fail_tls(struct probe_talk *talk, const char *why)
{
    if (talk->peer->tls_why[0] == '\0') {
        (void)snprintf(talk->peer->tls_why, sizeof talk->peer->tls_why, "%s", why);
    }
    finish(talk, PROBE_TALK_FAILED, EPROTO);
}

/* Makes room for `need` bytes more; false without memory. */
static bool grow(uint8_t **buf, size_t *size, size_t used, size_t need)
{
    size_t wanted = *size > 0 ? *size : 1024;
    uint8_t *grown;

    while (wanted - used < need) {
        wanted *= 2;
    }
    if (wanted == *size) {
        return true;
    }
    grown = realloc(*buf, wanted);
    if (grown == NULL) {
        return false;
    }
    *buf = grown;
    *size = wanted;
    return true;
}

void probe_talk_send(struct probe_talk *talk, const void *bytes, size_t len)
{
    size_t size = talk->out_len;

    if (len == 0 || talk->over) {
        return;
    }
    if (!grow(&talk->out, &size, talk->out_len, len)) {
        finish(talk, PROBE_TALK_FAILED, ENOMEM);
        return;
    }
    memcpy(talk->out + talk->out_len, bytes, len);
    talk->out_len += len;
}

static void step(struct probe_talk *talk)
{
    if (talk->step(talk) == PROBE_TALK_ENOUGH && !talk->over) {
        finish(talk, PROBE_TALK_ENOUGH_SEEN, 0);
    }
}

/* The same through TLS: what it takes goes in, what comes out goes to the socket. */
static void flush_tls(struct probe_talk *talk)
{
    while (!talk->over) {
        struct socks6_slice ours = {talk->out + talk->out_sent, talk->out_len - talk->out_sent}, output;
        ssize_t n;

        talk->out_sent += ours.len > 0 ? tls_client_write(talk->tls, ours, (struct socks6_slice){NULL, 0}) : 0;
        output = tls_client_output(talk->tls);
        if (output.len == 0) {
            return;
        }
        n = send(talk->fd, output.data, output.len, MSG_NOSIGNAL);
        if (n >= 0) {
            tls_client_output_sent(talk->tls, (size_t)n);
        } else if (errno == EPIPE || errno == ECONNRESET) {
            tls_client_output_sent(talk->tls, output.len); /* as above */
            talk->out_sent = talk->out_len;
        } else if (errno == EAGAIN || errno == EINPROGRESS || errno == EALREADY) {
            return;
        } else if (errno != EINTR) {
            finish(talk, PROBE_TALK_FAILED, errno);
        }
    }
}

static void flush(struct probe_talk *talk)
{
    if (talk->tls != NULL) {
        flush_tls(talk);
        return;
    }
    while (!talk->over && talk->out_sent < talk->out_len) {
        ssize_t n = send(talk->fd, talk->out + talk->out_sent, talk->out_len - talk->out_sent, MSG_NOSIGNAL);

        if (n >= 0) {
            talk->out_sent += (size_t)n;
        } else if (errno == EAGAIN || errno == EINPROGRESS || errno == EALREADY) {
            return;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            talk->out_sent = talk->out_len; /* it does not listen any more, but may have said why: read on */
        } else if (errno != EINTR) {
            finish(talk, PROBE_TALK_FAILED, errno);
        }
    }
}

/* Writes the first message of the handshake; step() is called when that is over. */
static void start_tls(struct probe_talk *talk)
{
    const struct tls_client_config config = {.proxy = talk->peer->tls};
    char why[TLS_CLIENT_WHY_MAX];

    if (tls_client_new(&config, &talk->tls, why) != 0) {
        fail_tls(talk, why);
        return;
    }
    (void)tls_client_write(talk->tls, (struct socks6_slice){NULL, 0}, (struct socks6_slice){NULL, 0});
}

static void on_connected(struct probe_talk *talk)
{
    struct tcp_info info;
    socklen_t len = sizeof info;

    talk->connected = true;
    talk->connected_us = probe_now_us();
    talk->connect_us = talk->connected_us - talk->started_us;
    memset(&info, 0, sizeof info);
    if (!talk->fast_open && getsockopt(talk->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
        talk->rtt_us = info.tcpi_rtt;
    }
    if (talk->peer->tls != NULL) {
        start_tls(talk);
    } else {
        step(talk);
    }
    flush(talk);
}

static void begin(struct probe_talk *talk, struct probe_peer *peer)
{
    int one = 1;

    talk->peer = peer;
    talk->started_us = probe_now_us();
    talk->fd = socket(peer->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (talk->fd < 0 || setsockopt(talk->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        (talk->fast_open && setsockopt(talk->fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one) != 0)) {
        finish(talk, PROBE_TALK_FAILED, errno);
        return;
    }
    if (connect(talk->fd, (const struct sockaddr *)&peer->addr, peer->len) == 0) {
        on_connected(talk);
    } else if (errno != EINPROGRESS && errno != EINTR) {
        finish(talk, PROBE_TALK_FAILED, errno);
    }
}

/* The kernel says that connect(2) has an outcome. */
static void conclude_connect(struct probe_talk *talk)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(talk->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    if (error == ECONNRESET) { /* after the handshake: a SYN that is not wanted is refused */
        talk->connected = true;
        finish(talk, PROBE_TALK_CLOSED, error);
    } else if (error != 0) {
        finish(talk, PROBE_TALK_FAILED, error);
    } else {
        on_connected(talk);
    }
}

static void receive(struct probe_talk *talk)
{
    size_t room = PROBE_TALK_IN_MAX - talk->in_len;
    ssize_t n;

    if (room == 0) {
        finish(talk, PROBE_TALK_FLOOD, 0);
        return;
    }
    room = room < 16384 ? room : 16384;
    if (!grow(&talk->in, &talk->in_size, talk->in_len, room)) {
        finish(talk, PROBE_TALK_FAILED, ENOMEM);
        return;
    }
    n = recv(talk->fd, talk->in + talk->in_len, room, 0);
    if (n > 0) {
        talk->in_len += (size_t)n;
        step(talk);
    } else if (n == 0) {
        finish(talk, PROBE_TALK_CLOSED, 0);
    } else if (errno == ECONNRESET || errno == EPIPE) {
        finish(talk, PROBE_TALK_CLOSED, errno);
    } else if (errno != EAGAIN && errno != EINTR) {
        finish(talk, PROBE_TALK_FAILED, errno); /* with fast_open the connection's own failure, too */
    }
}

/* The handshake is over. */
static void tls_opened(struct probe_talk *talk)
{
    talk->connected_us = probe_now_us();
    tls_client_describe(talk->tls, talk->tls_text, sizeof talk->tls_text);
    step(talk);
}

/* Plaintext that has come. */
static void take_plaintext(struct probe_talk *talk)
{
    while (!talk->over) {
        size_t room = PROBE_TALK_IN_MAX - talk->in_len, n;

        if (room == 0) {
            finish(talk, PROBE_TALK_FLOOD, 0);
            return;
        }
        room = room < 16384 ? room : 16384;
        if (!grow(&talk->in, &talk->in_size, talk->in_len, room)) {
            finish(talk, PROBE_TALK_FAILED, ENOMEM);
            return;
        }
        n = tls_client_read(talk->tls, talk->in + talk->in_len, room);
        if (n == 0) {
            return;
        }
        talk->in_len += n;
        step(talk);
    }
}

static void receive_tls(struct probe_talk *talk)
{
    bool was_open = tls_client_is_open(talk->tls);
    size_t size = 0;
    uint8_t *room = tls_client_room(talk->tls, &size);
    ssize_t n = room != NULL ? recv(talk->fd, room, size, 0) : 0;

    if (room == NULL) {
        finish(talk, PROBE_TALK_FAILED, ENOMEM);
        return;
    }
    if (n < 0) {
        if (errno == ECONNRESET || errno == EPIPE) {
            finish(talk, PROBE_TALK_CLOSED, errno);
        } else if (errno != EAGAIN && errno != EINTR) {
            finish(talk, PROBE_TALK_FAILED, errno);
        }
        return;
    }
    tls_client_came(talk->tls, (size_t)n);
    if (!was_open && tls_client_is_open(talk->tls)) {
        was_open = true;
        tls_opened(talk);
    }
    if (!talk->over) {
        take_plaintext(talk);
    }
    if (talk->over) {
        return;
    }
    if (tls_client_is_ended(talk->tls) || (n == 0 && was_open)) {
        finish(talk, PROBE_TALK_CLOSED, 0);
    } else if (tls_client_error(talk->tls) != NULL) {
        fail_tls(talk, tls_client_error(talk->tls));
    }
}

static void on_events(struct probe_talk *talk, short events)
{
    if (!talk->connected) {
        conclude_connect(talk);
        return;
    }
    if ((events & POLLOUT) != 0) {
        flush(talk);
    }
    if (!talk->over && (events & (POLLIN | POLLHUP | POLLERR)) != 0) {
        if (talk->tls != NULL) {
            receive_tls(talk);
        } else {
            receive(talk);
        }
    }
    flush(talk);
}

static bool has_output(const struct probe_talk *talk)
{
    return talk->tls != NULL ? tls_client_output(talk->tls).len > 0 : talk->out_sent < talk->out_len;
}

static int wait_ms(uint64_t end_us)
{
    uint64_t now = probe_now_us();

    return now >= end_us ? 0 : (int)((end_us - now) / 1000u + 1u);
}

/* One round of poll(2). False if all are over. */
static bool turn(struct probe_talk *const *talks, size_t count, uint64_t end_us)
{
    struct pollfd fds[PROBE_TALK_AT_ONCE];
    size_t open = 0;
    int ready;

    for (size_t i = 0; i < count; i++) {
        short out = !talks[i]->over && (!talks[i]->connected || has_output(talks[i])) ? POLLOUT : 0;

        fds[i] = (struct pollfd){.fd = talks[i]->over ? -1 : talks[i]->fd, .events = (short)(POLLIN | out)};
        open += talks[i]->over ? 0 : 1;
    }
    if (open == 0) {
        return false;
    }
    ready = poll(fds, (nfds_t)count, wait_ms(end_us));
    for (size_t i = 0; i < count; i++) {
        if (ready > 0 && fds[i].revents != 0) {
            on_events(talks[i], fds[i].revents);
        } else if (ready < 0 && errno != EINTR && !talks[i]->over) {
            finish(talks[i], PROBE_TALK_FAILED, errno);
        }
    }
    for (size_t i = 0; i < count && probe_now_us() >= end_us; i++) {
        if (!talks[i]->over) {
            finish(talks[i], PROBE_TALK_TIME_OUT, 0);
        }
    }
    return true;
}

static void run_group(struct probe_talk *const *talks, size_t count, struct probe_peer *peer, uint64_t end_us)
{
    for (size_t i = 0; i < count; i++) {
        talks[i]->fd = -1;
        if (probe_now_us() >= end_us) {
            finish(talks[i], PROBE_TALK_TIME_OUT, 0);
        } else {
            begin(talks[i], peer);
        }
    }
    while (turn(talks, count, end_us)) {
    }
}

void probe_talk_run(struct probe_talk *const *talks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                    uint64_t deadline_us)
{
    for (size_t first = 0; first < count; first += PROBE_TALK_AT_ONCE) {
        size_t part = count - first < PROBE_TALK_AT_ONCE ? count - first : PROBE_TALK_AT_ONCE;
        uint64_t end_us = probe_now_us() + limit_us;

        run_group(talks + first, part, peer, end_us < deadline_us ? end_us : deadline_us);
    }
}

void probe_talk_done(struct probe_talk *talk)
{
    if (talk->out != NULL) {
        explicit_bzero(talk->out, talk->out_len); /* it may hold a password */
    }
    free(talk->in);
    free(talk->out);
    talk->in = talk->out = NULL;
    talk->in_len = talk->in_size = talk->out_len = talk->out_sent = 0;
}
