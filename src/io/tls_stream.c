/*
 * The socket and its buffers are tls_wire.c's. Each call here lets OpenSSL go on as far as it gets, then sends what that has
 * made, in one go.
 *
 * Bytes that were encrypted cannot be taken back. If the socket takes only a part, tls_send() says "taken" of the records that
 * went out whole; the plain bytes of the others are owed: the caller offers them again, and once their records are out they
 * count as taken without being looked at. So whoever relays holds what is not delivered, and stops reading, as with any socket.
 *
 * Nothing is read in the handshake while something is unsent: what early data makes the server say has a bound that way.
 *
 * The ticket is not made by the handshake but asked for by ourselves (SSL_new_session_ticket(3)), so that it can leave with
 * the first answer: see tls_set_answering().
 *
 * What a peer can make us do without saying anything is bounded: empty records and warnings by OpenSSL, key updates here.
 */
#include "io/tls_stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "io/tls_internal.h"

/* Key updates: as many, and then one for so many bytes. RFC 8446 section 5.5 asks for one in some hundred gigabytes. */
#define KEY_UPDATES_MAX 32u
#define KEY_UPDATE_BYTES 65536u

/* ---- life ---- */

static SSL *ssl_new(struct tls_stream *stream)
{
    SSL *ssl = SSL_new(stream->server->context);
    BIO *bio = tls_wire_new(stream);

    if (ssl == NULL || bio == NULL || SSL_set_app_data(ssl, stream) != 1) {
        SSL_free(ssl);
        BIO_free(bio);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_bio(ssl, bio, bio);
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
        tls_wire_done(stream);
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
        stream->owes_ticket = stream->server->keys != NULL && SSL_version(stream->ssl) == TLS1_3_VERSION;
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

/* After a call that did not succeed. Without an effect if it only has to wait. */
static void note_failure(struct tls_stream *stream, int rc)
{
    switch (SSL_get_error(stream->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return;
    case SSL_ERROR_ZERO_RETURN:
        stream->is_over = true;
        stream->outcome = 0;
        return;
    case SSL_ERROR_SYSCALL:
        if (stream->error == 0 && !stream->has_fin && stream->why == NULL) {
            stream->error = stream->sent != 0 ? -stream->sent : EPROTO; /* a write of the handshake */
        }
        break;
    default:
        break;
    }
    fail(stream, explain(stream));
}

/* ---- the ticket ---- */

/* Makes it. Afterwards it is collected, or OpenSSL will never work again. */
static void make_ticket(struct tls_stream *stream)
{
    stream->owes_ticket = false;
    ERR_clear_error();
    if (SSL_new_session_ticket(stream->ssl) == 1) {
        (void)SSL_do_handshake(stream->ssl);
    }
}

/* ---- reading ---- */

/* 1: `*n` bytes were read, or there is more to do; 0: not now, or never. */
static int read_once(struct tls_stream *stream, uint8_t *buf, size_t len, size_t *n)
{
    int rc;

    ERR_clear_error();
    if (stream->is_reading_early) {
        rc = SSL_read_early_data(stream->ssl, buf, len, n);
        if (rc == SSL_READ_EARLY_DATA_ERROR) {
            note_failure(stream, 0);
            return 0;
        }
        stream->has_early |= rc == SSL_READ_EARLY_DATA_SUCCESS;
        stream->is_reading_early = rc == SSL_READ_EARLY_DATA_SUCCESS;
        note_progress(stream); /* of TLS 1.2 */
        return 1;
    }
    rc = SSL_read_ex(stream->ssl, buf, len, n);
    note_progress(stream);
    if (rc == 1) {
        return 1;
    }
    note_failure(stream, rc);
    return 0;
}

static void read_all(struct tls_stream *stream, uint8_t *out, size_t len)
{
    struct tls_loop *loop = stream->loop;

    assert(loop->reader == NULL);
    loop->reader = stream;
    for (int rc = 1; rc == 1 && loop->got < len;) {
        size_t n = 0;
        loop->room = len - loop->got;
        rc = read_once(stream, out + loop->got, loop->room, &n);
        loop->got += n;
        stream->received += n;
    }
    loop->reader = NULL;
}

/* Sends what nobody else will send: not what is owed, since tls_send() will be called for that. False: see tls_why(). */
static bool send_own(struct tls_stream *stream)
{
    stream->is_held = false;
    int err = tls_wire_push(stream);
    if (err == -EAGAIN) {
        stream->waits_for_room = stream->waits_for_room || stream->owed == 0 || !stream->is_finished;
    } else if (err != 0 && !stream->is_finished && !stream->is_over) {
        stream->error = -err;
        fail(stream, explain(stream));
        return false;
    }
    return true; /* what was received by a connection that is finished may still be read */
}

/* What reading has given us to say. An alert goes out in any case. */
static void send_what_reading_made(struct tls_stream *stream)
{
    bool has_request = stream->loop->got > 0 && !stream->is_over;

    if (stream->is_answering && has_request && !stream->is_finished && stream->unsent == NULL) {
        stream->is_held = tls_wire_hold(stream) == 0;
        return;
    }
    if (stream->owes_ticket && !stream->is_answering && !stream->is_over && stream->sent == 0) {
        make_ticket(stream);
    }
    if (stream->loop->out_len > 0) {
        (void)send_own(stream);
    }
}

ssize_t tls_recv(struct tls_stream *stream, void *buf, size_t len, bool to_end)
{
    struct tls_loop *loop = stream->loop;

    if (stream->is_over) {
        return stream->outcome;
    }
    stream->waits_for_room = false;
    if (stream->unsent != NULL && stream->owed == 0 && !send_own(stream)) {
        return stream->outcome;
    }
    if (stream->unsent != NULL && !stream->is_finished) {
        stream->waits_for_room = true;
        return -EAGAIN;
    }
    loop->got = 0;
    stream->to_end = to_end;
    stream->is_drained = false;
    read_all(stream, buf, len);
    if (tls_wire_keep_input(stream) != 0) {
        stream->why = "out of memory";
        fail(stream, ENOMEM);
    }
    send_what_reading_made(stream);
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
static int write_error(struct tls_stream *stream, int rc)
{
    switch (SSL_get_error(stream->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_SYSCALL:
        stream->sent = stream->sent != 0 ? stream->sent : -EPROTO; /* what was received may still be read */
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

/* One record. 0 or -errno. */
static int encrypt_once(struct tls_stream *stream, const uint8_t *bytes, size_t len, size_t *n)
{
    ERR_clear_error();
    int rc = stream->is_finished ? SSL_write_ex(stream->ssl, bytes, len, n)
                                 : SSL_write_early_data(stream->ssl, bytes, len, n);
    return rc == 1 ? 0 : write_error(stream, rc);
}

/* Of what tls_send() has encrypted: `plain` bytes are out once `written` bytes of ciphertext are. */
struct mark {
    uint64_t written;
    size_t plain;
};

/*
 * Encrypts some records and sends them in one go. `*taken`: plain bytes that are out; what is encrypted beyond is owed. 0,
 * -EAGAIN, or another -errno.
 */
static int send_batch(struct tls_stream *stream, const uint8_t *bytes, size_t len, size_t *taken)
{
    struct mark marks[TLS_OUT_TARGET / SSL3_RT_MAX_PLAIN_LENGTH + 1];
    size_t count = 0, done = 0;
    int err = 0;

    while (err == 0 && done < len && count < sizeof marks / sizeof marks[0] && stream->loop->out_len < TLS_OUT_TARGET) {
        size_t n = 0;
        err = encrypt_once(stream, bytes + done, len - done, &n);
        if (err == 0) {
            done += n;
            marks[count++] = (struct mark){stream->written, done};
        }
    }
    int pushed = tls_wire_push(stream);
    uint64_t gone = stream->written - tls_wire_unsent_len(stream);
    *taken = 0;
    for (size_t i = 0; i < count && marks[i].written <= gone && (pushed == 0 || pushed == -EAGAIN); i++) {
        *taken = marks[i].plain;
    }
    stream->owed = pushed == -EAGAIN ? (uint32_t)(done - *taken) : 0;
    stream->waits_for_room = pushed == -EAGAIN;
    return err != 0 && err != -EAGAIN ? err : pushed != 0 ? pushed : err;
}

/* What must be out before anything else is encrypted. 0, -EAGAIN, or another -errno. */
static int send_unsent(struct tls_stream *stream)
{
    if (stream->unsent == NULL || stream->is_held) {
        return 0;
    }
    int err = tls_wire_push(stream);
    stream->waits_for_room = err == -EAGAIN;
    return err;
}

static int writing_has_ended(const struct tls_stream *stream)
{
    return stream->sent == 0 && stream->is_broken ? -EPIPE : stream->sent;
}

ssize_t tls_send(struct tls_stream *stream, const void *buf, size_t len)
{
    const uint8_t *bytes = buf;
    size_t done = 0;
    int err = writing_has_ended(stream);

    stream->waits_for_room = false;
    if (err == 0) {
        err = may_write(stream) ? send_unsent(stream) : -EAGAIN;
    }
    if (err == 0) {
        assert(stream->owed <= len);
        done = stream->owed;
        stream->owed = 0;
        stream->is_held = false; /* it leaves with what comes now */
        if (stream->owes_ticket && done < len) {
            make_ticket(stream);
        }
    }
    while (err == 0 && done < len) {
        size_t taken;
        err = send_batch(stream, bytes + done, len - done, &taken);
        done += taken;
    }
    return done > 0 || err == 0 ? (ssize_t)done : err;
}

int tls_end(struct tls_stream *stream)
{
    int err = writing_has_ended(stream);

    stream->waits_for_room = false;
    if (stream->has_ended) {
        return 0;
    }
    if (err != 0 || !stream->is_finished) {
        return err != 0 ? err : -EAGAIN;
    }
    assert(stream->owed == 0);
    if (!stream->is_ending) {
        if (stream->owes_ticket) {
            make_ticket(stream);
        }
        ERR_clear_error();
        int rc = SSL_shutdown(stream->ssl); /* 0: ours is made, the peer's has not come */
        if (rc < 0) {
            return write_error(stream, rc);
        }
        stream->is_ending = true;
    }
    err = tls_wire_push(stream);
    stream->waits_for_room = err == -EAGAIN;
    stream->has_ended = err == 0;
    return err;
}

void tls_set_answering(struct tls_stream *stream, bool is_answering)
{
    stream->is_answering = is_answering;
}

int tls_flush(struct tls_stream *stream)
{
    if (!stream->is_held) {
        return 0;
    }
    (void)send_own(stream); /* an error is told by the next call */
    return stream->waits_for_room ? -EAGAIN : 0;
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
