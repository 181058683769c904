/*
 * A connection through the proxy, once it is there: a socket, with or without TLS on it. Non-blocking in its calls, whatever
 * mode the socket is in; whoever has it waits with poll(2).
 */
#ifndef CLI_STREAM_H
#define CLI_STREAM_H

#include <stdbool.h>
#include <sys/types.h>

#include <socks6/dial.h>

#include "cli/tls_client.h"

struct stream {
    int fd;                 /* -1 = none */
    struct tls_client *tls; /* NULL = none */
    /* Something that must live as long, and what is called with it in the end. NULL = nothing. */
    void *keeper;
    void (*release)(void *keeper);
};

/* The face of a TLS client that socks6_dial() knows. `layer` borrows `tls`. */
void stream_layer(struct tls_client *tls, struct socks6_dial_layer *layer);

/*
 * As send(2), recv(2) and shutdown(2) with SHUT_WR, but for the results: 0 or more, or -errno, -EAGAIN among them. A failure
 * of TLS is -EPROTO; stream_error() tells it.
 */
SOCKS6_MUST_CHECK ssize_t stream_send(struct stream *stream, const void *bytes, size_t len);
SOCKS6_MUST_CHECK ssize_t stream_receive(struct stream *stream, void *buf, size_t size);
SOCKS6_MUST_CHECK int stream_shutdown(struct stream *stream);
/* Sends on what TLS holds back. 0 = nothing is left, -EAGAIN = something is, or another -errno. */
SOCKS6_MUST_CHECK int stream_flush(struct stream *stream);

/* What to wait for with poll(2), if bytes are wanted from it, and if there are bytes to send. */
short stream_events(const struct stream *stream, bool is_read_wanted, bool has_output);
/* There are bytes to read for which poll(2) would not wake us. */
bool stream_has_input(const struct stream *stream);
/* TLS holds bytes that the socket did not take. */
bool stream_has_output(const struct stream *stream);

/* A sentence for what a call returned. */
const char *stream_error(const struct stream *stream, int error);

/* Closes it. Takes one that has nothing. */
void stream_done(struct stream *stream);

#endif
