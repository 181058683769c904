#include "cli/stream.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- what socks6_dial() calls --- */

static size_t layer_write(void *user, struct socks6_slice first, struct socks6_slice second)
{
    return tls_client_write(user, first, second);
}

static struct socks6_slice layer_output(void *user)
{
    return tls_client_output(user);
}

static void layer_output_sent(void *user, size_t len)
{
    tls_client_output_sent(user, len);
}

static void layer_input(void *user, struct socks6_slice bytes)
{
    tls_client_input(user, bytes);
}

static size_t layer_peek(void *user, uint8_t *buf, size_t size)
{
    return tls_client_peek(user, buf, size);
}

static void layer_discard(void *user, size_t len)
{
    uint8_t sink[2048];

    while (len > 0) {
        size_t n = tls_client_read(user, sink, len < sizeof sink ? len : sizeof sink);

        assert(n > 0); /* they were seen */
        len -= n > 0 ? n : len;
    }
}

static int layer_is_ended(void *user)
{
    return tls_client_is_ended(user);
}

static const char *layer_error(void *user)
{
    return tls_client_error(user);
}

static unsigned layer_round_trips(void *user)
{
    return tls_client_round_trips(user);
}

static void layer_describe(void *user, char *out, size_t size)
{
    tls_client_describe(user, out, size);
}

void stream_layer(struct tls_client *tls, struct socks6_dial_layer *layer)
{
    *layer = (struct socks6_dial_layer){
        .user = tls,
        .write = layer_write,
        .output = layer_output,
        .output_sent = layer_output_sent,
        .input = layer_input,
        .peek = layer_peek,
        .discard = layer_discard,
        .is_ended = layer_is_ended,
        .error = layer_error,
        .round_trips = layer_round_trips,
        .describe = layer_describe,
    };
}

/* --- the connection --- */

static ssize_t result_of(ssize_t n)
{
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

int stream_flush(struct stream *stream)
{
    while (stream_has_output(stream)) {
        struct socks6_slice output = tls_client_output(stream->tls);
        ssize_t n = result_of(send(stream->fd, output.data, output.len, MSG_DONTWAIT | MSG_NOSIGNAL));

        if (n < 0) {
            return (int)n;
        }
        tls_client_output_sent(stream->tls, (size_t)n);
    }
    return 0;
}

ssize_t stream_send(struct stream *stream, const void *bytes, size_t len)
{
    size_t n;
    int rc;

    if (stream->tls == NULL) {
        return result_of(send(stream->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL));
    }
    rc = stream_flush(stream);
    if (rc != 0) {
        return rc;
    }
    n = tls_client_write(stream->tls, (struct socks6_slice){bytes, len}, (struct socks6_slice){NULL, 0});
    if (n == 0) {
        return tls_client_error(stream->tls) != NULL ? -EPROTO : -EAGAIN;
    }
    rc = stream_flush(stream);
    return rc == 0 || rc == -EAGAIN ? (ssize_t)n : rc;
}

ssize_t stream_receive(struct stream *stream, void *buf, size_t size)
{
    if (stream->tls == NULL) {
        return result_of(recv(stream->fd, buf, size, MSG_DONTWAIT));
    }
    for (;;) {
        size_t n = tls_client_read(stream->tls, buf, size);
        uint8_t *room;
        size_t room_size = 0;
        ssize_t got;

        if (n > 0) {
            return (ssize_t)n;
        }
        if (tls_client_error(stream->tls) != NULL) {
            return -EPROTO;
        }
        if (tls_client_is_ended(stream->tls)) {
            return 0;
        }
        room = tls_client_room(stream->tls, &room_size);
        if (room == NULL) {
            return -EPROTO;
        }
        got = result_of(recv(stream->fd, room, room_size, MSG_DONTWAIT));
        if (got == -EAGAIN) {
            tls_client_rest(stream->tls);
        }
        if (got < 0) {
            return got;
        }
        tls_client_came(stream->tls, (size_t)got);
    }
}

int stream_shutdown(struct stream *stream)
{
    int rc;

    if (stream->tls == NULL) {
        return shutdown(stream->fd, SHUT_WR) == 0 || errno == ENOTCONN ? 0
                                                                       : -errno; /* ENOTCONN: reset; reading tells */
    }
    tls_client_shutdown(stream->tls);
    rc = stream_flush(stream);
    return rc == -EAGAIN ? 0 : rc;
}

short stream_events(const struct stream *stream, bool is_read_wanted, bool has_output)
{
    return (short)((is_read_wanted ? POLLIN : 0) | (has_output || stream_has_output(stream) ? POLLOUT : 0));
}

bool stream_has_input(const struct stream *stream)
{
    uint8_t byte;

    return stream->tls != NULL && (tls_client_peek(stream->tls, &byte, 1) > 0 || tls_client_is_ended(stream->tls) ||
                                   tls_client_error(stream->tls) != NULL);
}

bool stream_has_output(const struct stream *stream)
{
    return stream->tls != NULL && tls_client_output(stream->tls).len > 0;
}

const char *stream_error(const struct stream *stream, int error)
{
    const char *text = stream->tls != NULL ? tls_client_error(stream->tls) : NULL;

    return error == EPROTO && text != NULL ? text : strerror(error);
}

void stream_done(struct stream *stream)
{
    tls_client_free(stream->tls);
    if (stream->fd >= 0) {
        (void)close(stream->fd);
    }
    if (stream->release != NULL) {
        stream->release(stream->keeper);
    }
    stream->tls = NULL;
    stream->keeper = NULL;
    stream->release = NULL;
    stream->fd = -1;
}
