/*
 * What lies between OpenSSL and the socket: a BIO of our own that reads from and writes to large buffers of the loop.
 *
 * Reading: recv(2) fills the loop's buffer, a quarter of a megabyte at a time where the caller has room for it, and OpenSSL
 * takes it from there, record by record. What it has not taken when tls_recv() returns is kept on the heap until the next
 * call, which takes it first; that is rare, since no more is read than the caller has room for.
 *
 * A read(2) that came short has emptied the socket, and the next bytes will cause an event; so that nobody asks again, the
 * BIO says "later" until the next call of tls_recv(). (Exceptions: see relay_copy.c; there `to_end` is set.)
 *
 * Writing: records are collected in a second buffer, and one send(2) takes as many of them as there are. The buffer is
 * empty between any two calls of a stream: what the socket did not take is on the heap (`unsent`), and goes out before
 * anything else does. OpenSSL is never told that something did not fit; how much it may produce is up to whoever calls it,
 * who stops while `unsent` is there.
 */
#include "io/tls_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <openssl/bio.h>
#include <openssl/err.h>

#define IN_LEN ((size_t)256 * 1024)
/* What tls_send() collects at most, and then what a record, or a ticket before it, comes on top. */
#define OUT_LEN (TLS_OUT_TARGET + (size_t)64 * 1024)
/* The first read of a call is never smaller, and no further one is made for less room. */
#define FILL_MIN ((size_t)4096)
#define FILL_MORE_MIN ((size_t)32768)
/* An unfinished record that OpenSSL holds already comes on top of what is read now. */
#define RECORD_MAX ((size_t)SSL3_RT_MAX_ENCRYPTED_LENGTH)

/* ---- reading ---- */

static const char *reason_of_first(uint8_t byte)
{
    switch (byte) {
    case 4:
    case 5:
    case 6:
        return "SOCKS without TLS on a TLS listener";
    default:
        return "not TLS";
    }
}

/* Fills the staging buffer. Bytes, 0: later, -1: no more will come. */
static int fill(struct tls_stream *stream)
{
    struct tls_loop *loop = stream->loop;

    if (stream->is_drained || (loop->got > 0 && loop->room < FILL_MORE_MIN)) {
        return 0;
    }
    size_t size = loop->room > RECORD_MAX + FILL_MIN ? loop->room - RECORD_MAX : FILL_MIN;
    size = size < IN_LEN ? size : IN_LEN;
    ssize_t n;
    do {
        n = recv(stream->fd, loop->in, size, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        stream->is_drained = true;
        return 0;
    }
    if (n <= 0) {
        stream->error = n < 0 ? errno : 0;
        stream->has_fin = n == 0;
        return -1;
    }
    stream->is_drained = (size_t)n < size && !stream->to_end;
    if (!stream->has_heard) {
        stream->has_heard = true;
        if (loop->in[0] != TLS_FIRST_BYTE) {
            stream->why = reason_of_first(loop->in[0]);
            return -1;
        }
    }
    free(stream->kept);
    stream->kept = NULL;
    stream->in = loop->in;
    stream->in_pos = 0;
    stream->in_len = (uint32_t)n;
    return (int)n;
}

static int bio_read(BIO *bio, char *buf, int len)
{
    struct tls_stream *stream = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (stream->why != NULL) {
        return -1;
    }
    if (stream->in_pos == stream->in_len) {
        int n = stream->loop->reader == stream ? fill(stream) : 0;
        if (n == 0) {
            BIO_set_retry_read(bio);
        }
        if (n <= 0) {
            return -1;
        }
    }
    size_t left = stream->in_len - stream->in_pos;
    size_t taken = left < (size_t)len ? left : (size_t)len;
    memcpy(buf, stream->in + stream->in_pos, taken);
    stream->in_pos += (uint32_t)taken;
    return (int)taken;
}

int tls_wire_keep_input(struct tls_stream *stream)
{
    size_t len = stream->in_len - stream->in_pos;

    if (len == 0) {
        free(stream->kept);
        stream->kept = NULL;
        return 0;
    }
    if (stream->in == stream->kept) {
        return 0;
    }
    stream->kept = malloc(len);
    if (stream->kept == NULL) {
        stream->in_len = stream->in_pos;
        return -ENOMEM;
    }
    memcpy(stream->kept, stream->in + stream->in_pos, len);
    stream->in = stream->kept;
    stream->in_pos = 0;
    stream->in_len = (uint32_t)len;
    return 0;
}

/* ---- writing ---- */

size_t tls_wire_unsent_len(const struct tls_stream *stream)
{
    return stream->unsent_len - stream->unsent_pos;
}

static void drop_unsent(struct tls_stream *stream)
{
    free(stream->unsent);
    stream->unsent = NULL;
    stream->unsent_pos = stream->unsent_len = 0;
}

/* Nothing more can be sent. */
static int end_sending(struct tls_stream *stream, int err)
{
    stream->sent = err;
    stream->loop->out_len = 0;
    stream->owed = 0;
    drop_unsent(stream);
    return err;
}

/* What is left of both buffers goes to the heap. 0 or -errno. */
static int keep_output(struct tls_stream *stream, const uint8_t *rest, size_t len)
{
    size_t old = tls_wire_unsent_len(stream);

    if (len == 0) {
        return 0;
    }
    uint8_t *grown = malloc(old + len);
    if (grown == NULL) {
        return end_sending(stream, -ENOMEM);
    }
    if (stream->unsent != NULL) {
        memcpy(grown, stream->unsent + stream->unsent_pos, old);
    }
    memcpy(grown + old, rest, len);
    drop_unsent(stream);
    stream->unsent = grown;
    stream->unsent_len = (uint32_t)(old + len);
    return 0;
}

int tls_wire_hold(struct tls_stream *stream)
{
    size_t len = stream->loop->out_len;

    stream->loop->out_len = 0;
    return stream->sent != 0 ? stream->sent : keep_output(stream, stream->loop->out, len);
}

int tls_wire_push(struct tls_stream *stream)
{
    struct tls_loop *loop = stream->loop;
    struct iovec parts[2] = {
        {stream->unsent == NULL ? NULL : stream->unsent + stream->unsent_pos, tls_wire_unsent_len(stream)},
        {loop->out, loop->out_len}};
    const struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    size_t total = parts[0].iov_len + parts[1].iov_len;
    ssize_t n = 0;

    if (stream->sent != 0) {
        return end_sending(stream, stream->sent);
    }
    if (total == 0) {
        return 0;
    }
    do {
        n = stream->unsent == NULL ? send(stream->fd, loop->out, loop->out_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                                   : sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        return end_sending(stream, -errno);
    }
    size_t gone = n < 0 ? 0 : (size_t)n;
    size_t of_first = gone < parts[0].iov_len ? gone : parts[0].iov_len;
    stream->unsent_pos += (uint32_t)of_first;
    if (stream->unsent_pos == stream->unsent_len) {
        drop_unsent(stream);
    }
    loop->out_len = 0;
    int err = keep_output(stream, loop->out + (gone - of_first), parts[1].iov_len - (gone - of_first));
    return err != 0 ? err : gone < total ? -EAGAIN : 0;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
    struct tls_stream *stream = BIO_get_data(bio);
    struct tls_loop *loop = stream->loop;

    assert(len >= 0 && (size_t)len <= OUT_LEN);
    BIO_clear_retry_flags(bio);
    int err = (size_t)len > OUT_LEN - loop->out_len ? tls_wire_push(stream) : 0;
    if (stream->sent != 0 || (err != 0 && err != -EAGAIN)) {
        return -1;
    }
    memcpy(loop->out + loop->out_len, buf, (size_t)len);
    loop->out_len += (size_t)len;
    stream->written += (uint64_t)len;
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    const struct tls_stream *stream = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return stream->has_fin;
    default:
        return 0;
    }
}

/* ---- life ---- */

BIO *tls_wire_new(struct tls_stream *stream)
{
    BIO *bio = BIO_new(stream->loop->method);

    if (bio != NULL) {
        BIO_set_data(bio, stream);
        BIO_set_init(bio, 1);
    }
    return bio;
}

void tls_wire_done(struct tls_stream *stream)
{
    free(stream->kept);
    free(stream->unsent);
}

int tls_loop_new(const struct tls_hooks *hooks, struct tls_loop **out)
{
    struct tls_loop *loop = calloc(1, sizeof *loop);

    if (loop == NULL) {
        return -ENOMEM;
    }
    loop->hooks = *hooks;
    loop->in = malloc(IN_LEN); /* the kernel gives pages only as far as reads went */
    loop->out = malloc(OUT_LEN);
    loop->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socks6");
    if (loop->in == NULL || loop->out == NULL || loop->method == NULL ||
        BIO_meth_set_read(loop->method, bio_read) != 1 || BIO_meth_set_write(loop->method, bio_write) != 1 ||
        BIO_meth_set_ctrl(loop->method, bio_ctrl) != 1) {
        ERR_clear_error();
        tls_loop_free(loop);
        return -ENOMEM;
    }
    *out = loop;
    return 0;
}

void tls_loop_free(struct tls_loop *loop)
{
    if (loop != NULL) {
        BIO_meth_free(loop->method);
        free(loop->out);
        free(loop->in);
        free(loop);
    }
}
