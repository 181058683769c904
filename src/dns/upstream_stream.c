/*
 * TCP and TLS connections to upstream servers (RFC 7766, RFC 7858): one per server, kept open and pipelined; answers
 * come in any order.
 *
 * A connection is registered once, edge-triggered; every event goes through stream_run(), which does all that can be
 * done: the handshake, writing, reading. Reading stops after a budget and goes on in the next batch.
 *
 * A server may close an idle connection at any time (RFC 7766 6.2.4), also while a query is on its way to it: queries
 * on a connection that has worked are sent once more on a fresh one before another server is tried.
 */
#include "dns/upstream_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dns/tls.h"
#include "io/sock.h"

#define LENGTH_LEN 2u
#define WRONG_MAX 100u                /* messages in a row that answer nothing: the connection is given up */
#define READ_BUDGET ((size_t)1 << 20) /* bytes per run */
#define OUT_MAX ((size_t)1 << 20)     /* bytes that the server does not take */
#define KEEPALIVE_MAX_MS 60000u       /* however long the server would keep it (RFC 7828) */

enum stream_state { CONNECTING, HANDSHAKING, OPEN };

struct stream {
    struct upstream_channel channel;
    struct stream *prev, *next;
    struct loop_io io;
    struct loop_task task; /* goes on reading, or writes what was queued */
    enum stream_state state;
    struct dns_tls_stream *tls;
    const char *why; /* of a failed handshake */
    uint8_t *out;
    size_t out_len, out_sent, out_size;
    uint8_t *in; /* an unfinished message with its length */
    size_t in_len, in_size;
    unsigned wrong;
    bool has_worked;    /* an answer came */
    uint64_t answer_ms; /* of the newest answer; at first of the opening */
    uint64_t used_ms, idle_ms;
};

static void unlink_stream(struct stream *stream)
{
    struct upstream *upstream = stream->channel.upstream;

    if (stream->prev != NULL) {
        stream->prev->next = stream->next;
    } else {
        upstream->streams = stream->next;
    }
    if (stream->next != NULL) {
        stream->next->prev = stream->prev;
    }
}

/* Out of the list first: queries that are tried again must not find it. */
static void close_stream(struct stream *stream, const char *why)
{
    struct upstream *upstream = stream->channel.upstream;

    unlink_stream(stream);
    upstream_channel_failed(&stream->channel, why, stream->has_worked);
    loop_defer_cancel(upstream->loop, &stream->task);
    dns_tls_close(stream->tls);
    loop_close(upstream->loop, &stream->io);
    free(stream->out);
    free(stream->in);
    free(stream);
}

/* ---- output ---- */

/* Room for `len` more bytes. */
static int reserve_out(struct stream *stream, size_t len)
{
    if (stream->out_sent != 0) {
        memmove(stream->out, stream->out + stream->out_sent, stream->out_len - stream->out_sent);
        stream->out_len -= stream->out_sent;
        stream->out_sent = 0;
    }
    if (stream->out_len + len > OUT_MAX) {
        return -ENOBUFS;
    }
    size_t size = stream->out_size == 0 ? 1024 : stream->out_size;
    while (size < stream->out_len + len) {
        size *= 2;
    }
    if (size != stream->out_size) {
        uint8_t *grown = realloc(stream->out, size);
        if (grown == NULL) {
            return -ENOMEM;
        }
        stream->out = grown;
        stream->out_size = size;
    }
    return 0;
}

/* 0: all is out, or the rest has to wait; or -errno. */
static int write_out(struct stream *stream)
{
    while (stream->out_sent < stream->out_len) {
        const uint8_t *at = stream->out + stream->out_sent;
        size_t len = stream->out_len - stream->out_sent;
        ssize_t n =
            stream->tls != NULL ? dns_tls_write(stream->tls, at, len) : send(stream->io.fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && stream->tls == NULL) {
            n = -errno;
        }
        if (n > 0) {
            stream->out_sent += (size_t)n;
        } else if (n != -EINTR) {
            return n == -EAGAIN ? 0 : n == 0 ? -EPIPE : (int)n;
        }
    }
    stream->out_len = stream->out_sent = 0;
    return 0;
}

/* ---- input ---- */

/* RFC 7828: how long the server keeps the connection, if the answer says. */
static void heed_keepalive(struct stream *stream, const uint8_t *message, size_t len)
{
    struct dns_edns edns;
    struct socks6_slice value;
    uint16_t code;
    size_t offset = 0;

    if (dns_message_check(message, len, &edns, NULL) != 0 || !edns.present) {
        return;
    }
    while (dns_option_next(edns.options, &offset, &code, &value) > 0) {
        if (code == DNS_OPTION_TCP_KEEPALIVE && value.len == 2) {
            uint64_t ms = (uint64_t)dns_get16(value.data) * 100;
            stream->idle_ms = ms < KEEPALIVE_MAX_MS ? ms : KEEPALIVE_MAX_MS;
        }
    }
}

static int take_message(struct stream *stream, const uint8_t *message, size_t len)
{
    heed_keepalive(stream, message, len);
    if (upstream_input(&stream->channel, message, len)) {
        stream->has_worked = true;
        stream->answer_ms = loop_now_ms(stream->channel.upstream->loop);
        stream->wrong = 0;
        return 0;
    }
    dns_count(stream->channel.upstream->counters, DNS_COUNTER_wrong_answers, 1);
    return ++stream->wrong < WRONG_MAX ? 0 : -EPROTO;
}

/* Keeps an unfinished message; `bytes` may not lie in `in`. */
static int keep_rest(struct stream *stream, const uint8_t *bytes, size_t len)
{
    if (stream->in_len + len > stream->in_size) {
        size_t size = stream->in_size == 0 ? 2048 : stream->in_size;
        while (size < stream->in_len + len) {
            size *= 2;
        }
        uint8_t *grown = realloc(stream->in, size);
        if (grown == NULL) {
            return -ENOMEM;
        }
        stream->in = grown;
        stream->in_size = size;
    }
    memcpy(stream->in + stream->in_len, bytes, len);
    stream->in_len += len;
    return 0;
}

/* Completes the message that is kept, as far as the bytes go; returns how many it took, or -errno. */
static ssize_t feed_kept(struct stream *stream, const uint8_t *bytes, size_t len)
{
    size_t used = 0;

    while (stream->in_len != 0 && used < len) {
        size_t whole = stream->in_len < LENGTH_LEN ? LENGTH_LEN : LENGTH_LEN + (size_t)dns_get16(stream->in);
        size_t more = whole - stream->in_len < len - used ? whole - stream->in_len : len - used;
        int err = keep_rest(stream, bytes + used, more);
        if (err != 0) {
            return err;
        }
        used += more;
        if (stream->in_len >= LENGTH_LEN && stream->in_len == LENGTH_LEN + (size_t)dns_get16(stream->in)) {
            stream->in_len = 0;
            err = take_message(stream, stream->in + LENGTH_LEN, dns_get16(stream->in));
            if (err != 0) {
                return err;
            }
        }
    }
    return (ssize_t)used;
}

static int feed(struct stream *stream, const uint8_t *bytes, size_t len)
{
    ssize_t used = feed_kept(stream, bytes, len);
    if (used < 0) {
        return (int)used;
    }
    bytes += used;
    len -= (size_t)used;
    while (len >= LENGTH_LEN && len - LENGTH_LEN >= dns_get16(bytes)) {
        size_t whole = LENGTH_LEN + (size_t)dns_get16(bytes);
        int err = take_message(stream, bytes + LENGTH_LEN, whole - LENGTH_LEN);
        if (err != 0) {
            return err;
        }
        bytes += whole;
        len -= whole;
    }
    return len == 0 ? 0 : keep_rest(stream, bytes, len);
}

/* 0: there is nothing more now (or it goes on in the next batch); or -errno, -EPIPE at the end. */
static int read_in(struct stream *stream)
{
    struct upstream *upstream = stream->channel.upstream;

    for (size_t left = READ_BUDGET; left > 0;) {
        ssize_t n = stream->tls != NULL ? dns_tls_read(stream->tls, upstream->scratch, UPSTREAM_SCRATCH_LEN)
                                        : recv(stream->io.fd, upstream->scratch, UPSTREAM_SCRATCH_LEN, 0);
        if (n < 0 && stream->tls == NULL) {
            n = -errno;
        }
        if (n == -EAGAIN) {
            return 0;
        }
        if (n == -EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? -EPIPE : (int)n;
        }
        int err = feed(stream, upstream->scratch, (size_t)n);
        if (err != 0) {
            return err;
        }
        left -= (size_t)n < left ? (size_t)n : left;
    }
    loop_defer(upstream->loop, &stream->task);
    return 0;
}

/* ---- life ---- */

/* 0: the stream is open. -EAGAIN: not yet. */
static int advance(struct stream *stream)
{
    int err = 0;

    if (stream->state == CONNECTING) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        err = -sock_error(stream->io.fd);
        if (err != 0) {
            return err;
        }
        if (getpeername(stream->io.fd, (struct sockaddr *)&peer, &len) != 0) {
            return errno == ENOTCONN ? -EAGAIN : -errno;
        }
        stream->state = stream->tls != NULL ? HANDSHAKING : OPEN;
    }
    if (stream->state == HANDSHAKING) {
        err = dns_tls_handshake(stream->tls, &stream->why);
        if (err == 0) {
            stream->state = OPEN;
        }
    }
    return err;
}

static void stream_run(struct stream *stream)
{
    int err = advance(stream);

    if (err == -EAGAIN) {
        return;
    }
    if (err == 0) {
        err = write_out(stream);
    }
    if (err == 0) {
        err = read_in(stream);
    }
    if (err != 0) {
        close_stream(stream, stream->why != NULL ? stream->why : "upstream connection lost");
    }
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    (void)events;
    stream_run(LOOP_OWNER(io, struct stream, io));
}

static void on_task(struct loop_task *task)
{
    stream_run(LOOP_OWNER(task, struct stream, task));
}

static int connect_socket(const struct dns_server *server)
{
    const int on = 1;
    int fd = socket(server->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

    if (fd < 0) {
        return -errno;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without, not wrong */
    if (connect(fd, (const struct sockaddr *)&server->addr, server->addr_len) != 0 && errno != EINPROGRESS) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

static int open_stream(struct upstream *upstream, const struct dns_servers *servers, const struct dns_server *server,
                       struct stream **out)
{
    struct stream *stream = calloc(1, sizeof *stream);
    bool is_tls = server->transport == DNS_TLS;
    int err;

    if (stream == NULL) {
        return -ENOMEM;
    }
    stream->io.fd = connect_socket(server);
    err = stream->io.fd < 0 ? stream->io.fd : 0;
    if (err == 0 && is_tls) {
        err = servers->tls == NULL ? -EPROTO : dns_tls_open(servers->tls, server, stream->io.fd, &stream->tls);
    }
    int fd = stream->io.fd;
    if (err == 0) {
        stream->io.ready = on_ready;
        err = loop_add(upstream->loop, &stream->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    }
    if (err != 0) {
        dns_tls_close(stream->tls);
        if (fd >= 0) {
            close(fd);
        }
        free(stream);
        return err;
    }
    stream->channel.upstream = upstream;
    stream->channel.server = *server;
    stream->channel.is_stream = true;
    stream->task.run = on_task;
    stream->idle_ms = UPSTREAM_IDLE_MS;
    stream->answer_ms = loop_now_ms(upstream->loop);
    stream->next = upstream->streams;
    if (stream->next != NULL) {
        stream->next->prev = stream;
    }
    upstream->streams = stream;
    dns_count(upstream->counters, DNS_COUNTER_upstream_connections, 1);
    *out = stream;
    return 0;
}

/* A TCP connection serves truncated UDP answers of the same address, too. */
static bool leads_to(const struct stream *stream, const struct dns_server *server)
{
    const struct dns_server *its = &stream->channel.server;

    return (its->transport == DNS_TLS) == (server->transport == DNS_TLS) && its->addr_len == server->addr_len &&
           memcmp(&its->addr, &server->addr, server->addr_len) == 0 && strcmp(its->name, server->name) == 0;
}

int stream_send(struct upstream_query *query, const struct dns_server *server)
{
    struct upstream *upstream = query->upstream;
    struct stream *stream = upstream->streams;
    size_t len;
    int err = 0;

    while (stream != NULL && !leads_to(stream, server)) {
        stream = stream->next;
    }
    if (stream == NULL) {
        err = open_stream(upstream, query->servers, server, &stream);
        if (err != 0) {
            return err;
        }
    }
    upstream_attach(query, &stream->channel);
    err = upstream_build(query, true, stream->tls != NULL, &len);
    if (err == 0) {
        err = reserve_out(stream, LENGTH_LEN + len);
    }
    if (err != 0) {
        upstream_detach(query);
        return err;
    }
    dns_put16(upstream->query_buf, (unsigned)len);
    memcpy(stream->out + stream->out_len, upstream->query_buf, LENGTH_LEN + len);
    stream->out_len += LENGTH_LEN + len;
    stream->used_ms = loop_now_ms(upstream->loop);
    if (stream->state == OPEN) {
        loop_defer(upstream->loop, &stream->task); /* queries of one batch go out together */
    }
    return 0;
}

void stream_timed_out(struct upstream_channel *channel, uint64_t waited_ms)
{
    struct stream *stream = LOOP_OWNER(channel, struct stream, channel);
    uint64_t now_ms = loop_now_ms(channel->upstream->loop);

    if (stream->state != OPEN || now_ms - stream->answer_ms >= waited_ms) {
        close_stream(stream, "upstream server does not answer");
    }
}

void stream_sweep(struct upstream *upstream, bool all)
{
    uint64_t now_ms = loop_now_ms(upstream->loop);
    struct stream *next;

    for (struct stream *stream = upstream->streams; stream != NULL; stream = next) {
        next = stream->next;
        if (all || (stream->channel.pending == 0 && now_ms - stream->used_ms >= stream->idle_ms)) {
            close_stream(stream, "shut down");
        }
    }
}
