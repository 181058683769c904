/*
 * Reading goes through a BIO of our own: recv(2) fills the loop's staging buffer, a quarter of a megabyte at a time where
 * the caller has room for it, and OpenSSL takes it from there, record by record. What it has not taken when tls_recv()
 * returns is kept on the heap until the next call, which takes it first; that is rare, since no more is read than the
 * caller has room for. Writing goes through OpenSSL's socket BIO, a record at a time.
 *
 * A read(2) that came short has emptied the socket, and the next bytes will cause an event; so that nobody asks again, the
 * BIO says "later" until the next call of tls_recv(). (Exceptions: see relay_copy.c; there `to_end` is set.)
 *
 * A record of an answer to early data that the socket took only half of has to go out before anything else: OpenSSL fails if
 * the handshake, which may want to send a ticket, goes on meanwhile. So nothing is read then.
 *
 * What a peer can make us do without saying anything is bounded: empty records and warnings by OpenSSL, key updates here.
 */
#include "io/tls_stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "io/tls_internal.h"

#define STAGING_LEN ((size_t)256 * 1024)
/* The first read of a call is never smaller, and no further one is made for less room. */
#define FILL_MIN ((size_t)4096)
#define FILL_MORE_MIN ((size_t)32768)
/* An unfinished record that OpenSSL holds already comes on top of what is read now. */
#define RECORD_MAX ((size_t)SSL3_RT_MAX_ENCRYPTED_LENGTH)
/* Key updates: as many, and then one for so many bytes. RFC 8446 section 5.5 asks for one in some hundred gigabytes. */
#define KEY_UPDATES_MAX 32u
#define KEY_UPDATE_BYTES 65536u

struct tls_loop {
    struct tls_hooks hooks;
    BIO_METHOD *method;
    struct tls_stream *reader; /* whose tls_recv() runs; NULL = none's */
    size_t got, room;          /* of that call: bytes delivered, room left behind them */
    uint8_t *staging;
};

struct tls_stream {
    struct tls_loop *loop;
    struct tls_server *server;
    SSL *ssl;
    const char *why;
    const uint8_t *in; /* ciphertext not taken yet: in the staging buffer, or `kept` */
    uint8_t *kept;     /* heap; NULL = none */
    uint32_t in_pos, in_len;
    uint64_t received; /* plain bytes */
    uint32_t key_updates;
    int fd;
    int outcome;  /* if is_over */
    int error;    /* of the socket: an errno, 0 = none */
    int sent;     /* 0, or the -errno with which sending ended */
    bool is_over; /* of reading */
    bool is_broken : 1;
    bool is_finished : 1;
    bool is_reported : 1; /* handshake_over() was called */
    bool is_reading_early : 1;
    bool has_early : 1;  /* early data was accepted */
    bool has_heard : 1;  /* the first byte was there */
    bool has_fin : 1;    /* of TCP */
    bool is_drained : 1; /* the socket has nothing more, as far as this call is concerned */
    bool to_end : 1;     /* of this call */
    bool waits_for_room : 1;
    bool is_stuck : 1;  /* see above */
    bool has_ended : 1; /* close_notify is out */
};

/* ---- the socket under it ---- */

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
    size = size < STAGING_LEN ? size : STAGING_LEN;
    ssize_t n;
    do {
        n = recv(stream->fd, loop->staging, size, MSG_DONTWAIT);
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
        if (loop->staging[0] != TLS_FIRST_BYTE) {
            stream->why = reason_of_first(loop->staging[0]);
            return -1;
        }
    }
    free(stream->kept);
    stream->kept = NULL;
    stream->in = loop->staging;
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

/* ---- what the streams of a loop share ---- */

int tls_loop_new(const struct tls_hooks *hooks, struct tls_loop **out)
{
    struct tls_loop *loop = calloc(1, sizeof *loop);

    if (loop == NULL) {
        return -ENOMEM;
    }
    loop->hooks = *hooks;
    loop->staging = malloc(STAGING_LEN); /* the kernel gives pages only as far as reads went */
    loop->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socks6");
    if (loop->staging == NULL || loop->method == NULL || BIO_meth_set_read(loop->method, bio_read) != 1 ||
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
        free(loop->staging);
        free(loop);
    }
}

/* ---- life ---- */

static SSL *ssl_new(struct tls_stream *stream)
{
    SSL *ssl = SSL_new(stream->server->context);
    BIO *in = BIO_new(stream->loop->method);
    BIO *out = BIO_new_socket(stream->fd, BIO_NOCLOSE);

    if (ssl == NULL || in == NULL || out == NULL || SSL_set_app_data(ssl, stream) != 1) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(out);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(in, stream);
    BIO_set_init(in, 1);
    SSL_set0_rbio(ssl, in);
    SSL_set0_wbio(ssl, out);
    SSL_set_accept_state(ssl);
    return ssl;
}

int tls_stream_new(struct tls_loop *loop, struct tls_server *server, int fd, struct tls_stream **out)
{
    struct tls_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL) {
        return -ENOMEM;
    }
    stream->loop = loop;
    stream->server = tls_server_retain(server);
    stream->fd = fd;
    stream->is_reading_early = server->early_data;
    stream->ssl = ssl_new(stream);
    if (stream->ssl == NULL) {
        tls_stream_free(stream);
        return -ENOMEM;
    }
    *out = stream;
    return 0;
}

void tls_stream_free(struct tls_stream *stream)
{
    if (stream != NULL) {
        ERR_clear_error();
        SSL_free(stream->ssl);
        ERR_clear_error();
        tls_server_release(stream->server);
        free(stream->kept);
        free(stream);
    }
}

void tls_stream_on_message(int is_written, int version, int content_type, const void *bytes, size_t len, SSL *ssl,
                           void *unused)
{
    const uint8_t *type = bytes;
    struct tls_stream *stream;

    (void)version;
    (void)unused;
    if (is_written != 0 || content_type != SSL3_RT_HANDSHAKE || len == 0 || *type != SSL3_MT_KEY_UPDATE) {
        return;
    }
    stream = SSL_get_app_data(ssl);
    stream->key_updates++;
    if (stream->key_updates > KEY_UPDATES_MAX + stream->received / KEY_UPDATE_BYTES) {
        stream->why = "too many key updates";
    }
}

/* ---- outcomes ---- */

static void report(struct tls_stream *stream, bool is_finished)
{
    if (!stream->is_reported && stream->has_heard) {
        stream->is_reported = true;
        stream->loop->hooks.handshake_over(stream->loop->hooks.context, stream, is_finished);
    }
}

/* After each call that may have brought the handshake further. */
static void note_progress(struct tls_stream *stream)
{
    if (!stream->is_finished && SSL_is_init_finished(stream->ssl) != 0) {
        stream->is_finished = true;
        report(stream, true);
    }
}

/* The errno for what is in OpenSSL's queue, and the words for it. */
static int explain(struct tls_stream *stream)
{
    unsigned long code = ERR_peek_error();
    long verified = SSL_get_verify_result(stream->ssl);

    if (stream->why != NULL) {
        return EPROTO;
    }
    if (stream->error != 0) {
        stream->why = strerrordesc_np(stream->error);
        return stream->error;
    }
    if (stream->has_fin) {
        stream->why = stream->is_finished ? "ended without close_notify" : "ended during the handshake";
        return ENODATA;
    }
    if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) {
        stream->why = "out of memory";
        return ENOMEM;
    }
    const char *reason = !stream->is_finished && verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                                                                       : ERR_reason_error_string(code);
    stream->why = reason != NULL ? reason : "no reason given";
    return EPROTO;
}

static void fail(struct tls_stream *stream, int error)
{
    stream->is_over = true;
    stream->is_broken = true;
    stream->outcome = -error;
    report(stream, false);
}

/* After a call that did not succeed. Without an effect if it only has to wait. `saved` is errno after the call. */
static void note_failure(struct tls_stream *stream, int rc, int saved)
{
    switch (SSL_get_error(stream->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return;
    case SSL_ERROR_WANT_WRITE:
        stream->waits_for_room = true;
        return;
    case SSL_ERROR_ZERO_RETURN:
        stream->is_over = true;
        stream->outcome = 0;
        return;
    case SSL_ERROR_SYSCALL:
        if (stream->error == 0 && !stream->has_fin && stream->why == NULL) {
            stream->error = saved != 0 ? saved : EPROTO; /* a write of the handshake */
        }
        break;
    default:
        break;
    }
    fail(stream, explain(stream));
}

/* ---- reading ---- */

/* 1: `*n` bytes were read, or there is more to do; 0: not now, or never. */
static int read_once(struct tls_stream *stream, uint8_t *buf, size_t len, size_t *n)
{
    int rc;

    ERR_clear_error();
    errno = 0;
    if (stream->is_reading_early) {
        rc = SSL_read_early_data(stream->ssl, buf, len, n);
        int saved = errno;
        if (rc == SSL_READ_EARLY_DATA_ERROR) {
            note_failure(stream, 0, saved);
            return 0;
        }
        stream->has_early |= rc == SSL_READ_EARLY_DATA_SUCCESS;
        stream->is_reading_early = rc == SSL_READ_EARLY_DATA_SUCCESS;
        note_progress(stream); /* of TLS 1.2 */
        return 1;
    }
    rc = SSL_read_ex(stream->ssl, buf, len, n);
    int saved = errno;
    note_progress(stream);
    if (rc == 1) {
        return 1;
    }
    note_failure(stream, rc, saved);
    return 0;
}

/* Ciphertext that lies in the shared buffer has to go to one of our own. */
static void keep_rest(struct tls_stream *stream)
{
    size_t len = stream->in_len - stream->in_pos;

    if (len == 0 || stream->in == stream->kept) {
        return;
    }
    stream->kept = malloc(len);
    if (stream->kept == NULL) {
        stream->why = "out of memory";
        stream->in_len = stream->in_pos;
        fail(stream, ENOMEM);
        return;
    }
    memcpy(stream->kept, stream->in + stream->in_pos, len);
    stream->in = stream->kept;
    stream->in_pos = 0;
    stream->in_len = (uint32_t)len;
}

ssize_t tls_recv(struct tls_stream *stream, void *buf, size_t len, bool to_end)
{
    struct tls_loop *loop = stream->loop;
    uint8_t *out = buf;

    if (stream->is_over) {
        return stream->outcome;
    }
    if (stream->is_stuck) {
        stream->waits_for_room = true;
        return -EAGAIN;
    }
    assert(loop->reader == NULL);
    loop->reader = stream;
    loop->got = 0;
    stream->to_end = to_end;
    stream->is_drained = false;
    stream->waits_for_room = false;
    for (int rc = 1; rc == 1 && loop->got < len;) {
        size_t n = 0;
        loop->room = len - loop->got;
        rc = read_once(stream, out + loop->got, loop->room, &n);
        loop->got += n;
        stream->received += n;
    }
    loop->reader = NULL;
    if (stream->in_pos == stream->in_len && stream->kept != NULL) {
        free(stream->kept);
        stream->kept = NULL;
    }
    keep_rest(stream);
    if (loop->got > 0) {
        return (ssize_t)loop->got;
    }
    return stream->is_over ? stream->outcome : -EAGAIN;
}

bool tls_has_more(const struct tls_stream *stream)
{
    return stream->is_over || stream->kept != NULL || !stream->is_drained || stream->waits_for_room ||
           SSL_pending(stream->ssl) > 0;
}

/* ---- writing ---- */

/* The -errno of a call that did not succeed. */
static int write_error(struct tls_stream *stream, int rc, int saved)
{
    switch (SSL_get_error(stream->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        stream->waits_for_room = true;
        return -EAGAIN;
    case SSL_ERROR_SYSCALL:
        stream->sent = saved != 0 ? -saved : -EPROTO; /* what was received may still be read */
        return stream->sent;
    default:
        stream->sent = -explain(stream);
        fail(stream, -stream->sent);
        return stream->sent;
    }
}

static bool may_write(const struct tls_stream *stream)
{
    return stream->is_finished || stream->has_early;
}

ssize_t tls_send(struct tls_stream *stream, const void *buf, size_t len)
{
    const uint8_t *bytes = buf;
    size_t done = 0;
    int err = stream->sent;

    stream->waits_for_room = false;
    if (err == 0 && stream->is_broken) {
        err = -EPIPE;
    }
    if (err == 0 && !may_write(stream)) {
        err = -EAGAIN;
    }
    while (err == 0 && done < len) {
        size_t n = 0;
        ERR_clear_error();
        errno = 0;
        int rc = stream->is_finished ? SSL_write_ex(stream->ssl, bytes + done, len - done, &n)
                                     : SSL_write_early_data(stream->ssl, bytes + done, len - done, &n);
        int saved = errno;
        if (rc != 1) {
            err = write_error(stream, rc, saved);
        }
        stream->is_stuck = !stream->is_finished && err == -EAGAIN;
        done += n;
    }
    return done > 0 || err == 0 ? (ssize_t)done : err;
}

int tls_end(struct tls_stream *stream)
{
    stream->waits_for_room = false;
    if (stream->has_ended) {
        return 0;
    }
    if (stream->sent != 0 || stream->is_broken) {
        return stream->sent != 0 ? stream->sent : -EPIPE;
    }
    if (!stream->is_finished) {
        return -EAGAIN;
    }
    ERR_clear_error();
    errno = 0;
    int rc = SSL_shutdown(stream->ssl); /* 0: ours is out, the peer's has not come */
    int saved = errno;
    if (rc < 0) {
        return write_error(stream, rc, saved);
    }
    stream->has_ended = true;
    return 0;
}

bool tls_waits_for_room(const struct tls_stream *stream)
{
    return stream->waits_for_room;
}

/* ---- what there is to know ---- */

bool tls_is_finished(const struct tls_stream *stream)
{
    return stream->is_finished;
}

bool tls_is_resumed(const struct tls_stream *stream)
{
    return SSL_session_reused(stream->ssl) != 0;
}

bool tls_has_early_data(const struct tls_stream *stream)
{
    return stream->has_early;
}

static bool offer(const ASN1_STRING *text, bool (*accepts)(void *user, const void *name, size_t len), void *user)
{
    int len = ASN1_STRING_length(text);

    return len > 0 && accepts(user, ASN1_STRING_get0_data(text), (size_t)len);
}

static bool offer_alternatives(const X509 *certificate, bool (*accepts)(void *user, const void *name, size_t len),
                               void *user)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool is_found = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !is_found; i++) { /* -1 of none */
        int type;
        const ASN1_STRING *text = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        is_found = (type == GEN_EMAIL || type == GEN_DNS) && offer(text, accepts, user);
    }
    GENERAL_NAMES_free(names);
    return is_found;
}

static bool offer_common_names(const X509 *certificate, bool (*accepts)(void *user, const void *name, size_t len),
                               void *user)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    bool is_found = false;
    int at = -1;

    while (!is_found && (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0) {
        unsigned char *utf8 = NULL;
        int len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
        is_found = len > 0 && accepts(user, utf8, (size_t)len);
        OPENSSL_free(utf8);
    }
    return is_found;
}

/* Of a session too: it is kept in the ticket. */
bool tls_find_client_name(const struct tls_stream *stream, bool (*accepts)(void *user, const void *name, size_t len),
                          void *user)
{
    const X509 *certificate = SSL_get0_peer_certificate(stream->ssl);
    bool is_found = certificate != NULL &&
                    (offer_alternatives(certificate, accepts, user) || offer_common_names(certificate, accepts, user));

    ERR_clear_error();
    return is_found;
}

bool tls_has_client_certificate(const struct tls_stream *stream)
{
    return SSL_get0_peer_certificate(stream->ssl) != NULL;
}

bool tls_has_heard(const struct tls_stream *stream)
{
    return stream->has_heard;
}

const char *tls_version(const struct tls_stream *stream)
{
    return stream->is_finished || stream->has_early ? SSL_get_version(stream->ssl) : NULL;
}

const char *tls_why(const struct tls_stream *stream)
{
    return stream->why;
}
