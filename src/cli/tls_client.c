/*
 * Theory of operation. OpenSSL reads from `in` and writes to `out`, two growing buffers, through a BIO of our own; whoever
 * moves bytes between them and a socket decides how many calls that takes. So a ClientHello and the early data behind it are
 * one write, or one SYN.
 *
 * States: NEW until the first write; then HANDSHAKE, in which SSL_do_handshake() is tried after each input; OPEN; FAILED.
 * Early data: a copy is kept in `early` until the handshake has said whether it counted. If it did not, the copy is written
 * again, before anything else, once.
 *
 * OpenSSL's traps that are dealt with here: its error queue is emptied before and read right after each call; a session that
 * was used cannot be used again after a ticket came on it, so tickets are serialised when they come; a connection freed
 * without close_notify spoils its session's tickets, so it counts as closed quietly before it is freed.
 */
#include "cli/tls_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* Plaintext is taken only while less ciphertext than that waits for the socket. */
#define OUT_ENOUGH ((size_t)256 * 1024)

/* The most that is read from the socket at once. */
#define IN_ROOM ((size_t)64 * 1024)

enum tls_state { TLS_NEW, TLS_HANDSHAKE, TLS_OPEN, TLS_FAILED };

struct buffer {
    uint8_t *bytes;
    size_t start, end, size; /* what is in it: bytes[start .. end) */
};

struct tls_context {
    unsigned references;
    SSL_CTX *settings;
    BIO_METHOD *method;
};

struct tls_client {
    struct tls_context *context;
    SSL *ssl;
    enum tls_state state;
    enum tls_early early_state;
    bool may_send_early;
    bool is_net_ended, is_ended, is_shut_down;
    unsigned flights; /* of the server, until it was open */
    bool is_retried;  /* HelloRetryRequest: one more */
    struct buffer in, out, early;
    char host[SOCKS6_NAME_MAX + 1]; /* as the certificate must have it */
    char error[TLS_CLIENT_WHY_MAX];
    void (*on_ticket)(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s);
    void *on_ticket_user;
};

/* --- buffers --- */

static bool reserve(struct buffer *buffer, size_t len)
{
    if (buffer->start == buffer->end) {
        buffer->start = buffer->end = 0;
    }
    if (buffer->size - buffer->end < len && buffer->start > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->size - buffer->end < len) {
        size_t size = buffer->size * 2 > buffer->end + len ? buffer->size * 2 : buffer->end + len + 4096;
        uint8_t *grown = realloc(buffer->bytes, size);

        if (grown == NULL) {
            return false;
        }
        buffer->bytes = grown;
        buffer->size = size;
    }
    return true;
}

static bool append(struct buffer *buffer, const void *bytes, size_t len)
{
    if (len == 0 || !reserve(buffer, len)) {
        return len == 0;
    }
    memcpy(buffer->bytes + buffer->end, bytes, len);
    buffer->end += len;
    return true;
}

static struct socks6_slice filled(const struct buffer *buffer)
{
    if (buffer->start == buffer->end) {
        return (struct socks6_slice){NULL, 0};
    }
    return (struct socks6_slice){buffer->bytes + buffer->start, buffer->end - buffer->start};
}

/* For what may hold a password. */
static void discard(struct buffer *buffer)
{
    if (buffer->bytes != NULL) {
        explicit_bzero(buffer->bytes, buffer->size);
        free(buffer->bytes);
    }
    memset(buffer, 0, sizeof *buffer);
}

/* --- the BIO --- */

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls_client *tls = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    return append(&tls->out, bytes, (size_t)len) ? len : -1;
}

static int bio_read(BIO *bio, char *bytes, int size)
{
    struct tls_client *tls = BIO_get_data(bio);
    struct socks6_slice there = filled(&tls->in);
    size_t len = there.len < (size_t)size ? there.len : (size_t)size;

    BIO_clear_retry_flags(bio);
    if (there.data == NULL || len == 0) {
        if (!tls->is_net_ended) {
            BIO_set_retry_read(bio);
        }
        return tls->is_net_ended ? 0 : -1;
    }
    memcpy(bytes, there.data, len);
    tls->in.start += len;
    return (int)len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    const struct tls_client *tls = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF) {
        return tls->is_net_ended && filled(&tls->in).len == 0;
    }
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socks6 client");

    if (method == NULL || BIO_meth_set_write(method, bio_write) != 1 || BIO_meth_set_read(method, bio_read) != 1 ||
        BIO_meth_set_ctrl(method, bio_ctrl) != 1) {
        BIO_meth_free(method);
        return NULL;
    }
    return method;
}

static bool make_bio(struct tls_client *tls)
{
    BIO *bio = BIO_new(tls->context->method);

    if (bio == NULL) {
        return false;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    return true;
}

/* --- what went wrong, for people --- */

__attribute__((format(printf, 2, 3))) static void fail(struct tls_client *tls, const char *format, ...)
{
    va_list args;

    if (tls->state == TLS_FAILED) {
        return;
    }
    tls->state = TLS_FAILED;
    va_start(args, format);
    (void)vsnprintf(tls->error, sizeof tls->error, format, args);
    va_end(args);
}

static void fail_certificate(struct tls_client *tls, long result)
{
    switch (result) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        fail(tls, "its certificate is not for %s", tls->host);
        break;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        fail(tls, "its certificate has expired");
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        fail(tls, "its certificate is not valid yet");
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        fail(tls, "its certificate is self-signed, and not one that ca= names");
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        fail(tls, "its certificate is signed by an authority that is not trusted here");
        break;
    default:
        fail(tls, "its certificate cannot be accepted: %s", X509_verify_cert_error_string(result));
        break;
    }
}

static void fail_reason(struct tls_client *tls, unsigned long error)
{
    const char *text = ERR_reason_error_string(error);

    switch (ERR_GET_REASON(error)) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
        fail(tls, "it does not speak TLS");
        break;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        fail(tls, "it does not speak TLS 1.3 (tls=1.2 in the URL allows TLS 1.2)");
        break;
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        fail(tls, "it speaks another protocol than SOCKS over TLS");
        break;
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        fail(tls, "it wants a client certificate (cert= and key= in the URL)");
        break;
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        fail(tls, "it refuses our certificate: %s", text != NULL ? text : "no reason given");
        break;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        fail(tls, "the connection ended without the close_notify of TLS");
        break;
    default:
        fail(tls, "%s", text != NULL ? text : "TLS failed");
        break;
    }
}

/* What a call that failed has left behind; WANT_READ is no failure. */
static void judge(struct tls_client *tls, int rc)
{
    int kind = SSL_get_error(tls->ssl, rc);
    unsigned long error = ERR_peek_error();
    long verified = SSL_get_verify_result(tls->ssl);

    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        return;
    }
    if (kind == SSL_ERROR_ZERO_RETURN) {
        tls->is_ended = true;
    } else if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK) {
        fail_certificate(tls, verified);
    } else if (error != 0 && ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) != ERR_R_MALLOC_FAILURE) {
        fail_reason(tls, error);
    } else if (tls->is_net_ended) {
        fail(tls, "the connection ended without the close_notify of TLS");
    } else {
        fail(tls, "out of memory");
    }
    ERR_clear_error();
}

/* --- setting up --- */

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_client *tls = SSL_get_app_data(ssl);
    unsigned char *bytes = NULL;
    int len;

    if (tls->on_ticket == NULL || !SSL_SESSION_is_resumable(session)) {
        return 0;
    }
    len = i2d_SSL_SESSION(session, &bytes);
    if (len > 0) {
        uint64_t hint_s = SSL_SESSION_get_ticket_lifetime_hint(session);
        uint64_t life_s = hint_s > 0 ? hint_s : (uint64_t)SSL_SESSION_get_timeout(session);

        tls->on_ticket(tls->on_ticket_user, bytes, (size_t)len, (uint64_t)time(NULL) + life_s);
        OPENSSL_cleanse(bytes, (size_t)len);
    }
    OPENSSL_free(bytes);
    return 0; /* it was not kept */
}

/* For tls_client_round_trips(): a HelloRetryRequest costs one more. */
static void on_message(int is_write, int version, int type, const void *bytes, size_t len, SSL *ssl, void *user)
{
    struct tls_client *tls = user;

    (void)version;
    (void)ssl;
    if (is_write && type == SSL3_RT_HANDSHAKE && len > 0 && *(const uint8_t *)bytes == SSL3_MT_CLIENT_HELLO) {
        tls->is_retried = tls->flights++ > 0;
    }
}

static int set_limits(SSL_CTX *context, const struct socks6_proxy *proxy)
{
    static const unsigned char alpn[] = {6, 's', 'o', 'c', 'k', 's', '6'};

    if (SSL_CTX_set_min_proto_version(context, proxy->tls_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn) != 0) {
        return -ENOMEM;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_new_session);
    return 0;
}

/* -EINVAL and a sentence about a file. */
static int bad_file(char why[TLS_CLIENT_WHY_MAX], const char *what, const char *path)
{
    unsigned long error = ERR_peek_error(); /* the first: what follows says in which calls */
    const char *reason =
        ERR_GET_LIB(error) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(error)) : ERR_reason_error_string(error);

    (void)snprintf(why, TLS_CLIENT_WHY_MAX, "cannot use %.300s as %s: %s", path, what,
                   reason != NULL ? reason : "it holds none");
    ERR_clear_error();
    return -EINVAL;
}

static int load_files(SSL_CTX *context, const struct socks6_proxy *proxy, char why[TLS_CLIENT_WHY_MAX])
{
    const char *key = proxy->key[0] != '\0' ? proxy->key : proxy->certificate;

    ERR_clear_error();
    if (proxy->ca[0] == '\0') {
        (void)SSL_CTX_set_default_verify_paths(context); /* without any every certificate is refused */
    } else if (SSL_CTX_load_verify_file(context, proxy->ca) != 1) {
        return bad_file(why, "certificates of authorities (ca=)", proxy->ca);
    }
    ERR_clear_error();
    if (proxy->certificate[0] == '\0') {
        return 0;
    }
    if (SSL_CTX_use_certificate_chain_file(context, proxy->certificate) != 1) {
        return bad_file(why, "our certificate (cert=)", proxy->certificate);
    }
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        return bad_file(why, "the key of our certificate (key=)", key);
    }
    return 0;
}

/* Whose certificate it has to be. An address has no server name indication. */
static bool expect_server(struct tls_client *tls, const struct socks6_addr *addr)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
    char *zone;
    size_t len;

    (void)socks6_addr_format_host(addr, tls->host, sizeof tls->host);
    if (addr->type != SOCKS6_ADDR_NAME) {
        return X509_VERIFY_PARAM_set1_ip(param, addr->type == SOCKS6_ADDR_IPV4 ? addr->u.ipv4 : addr->u.ipv6,
                                         addr->len) == 1;
    }
    memcpy(tls->host, addr->u.name, sizeof tls->host);
    zone = strchr(tls->host, '%');
    if (zone != NULL) { /* "fe80::1%eth0" */
        *zone = '\0';
        return X509_VERIFY_PARAM_set1_ip_asc(param, tls->host) == 1;
    }
    len = strlen(tls->host);
    if (len > 1 && tls->host[len - 1] == '.') {
        tls->host[len - 1] = '\0';
    }
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, tls->host) == 1 &&
           SSL_ctrl(tls->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, tls->host) == 1;
}

/* A ticket that cannot be used is as good as none. */
static void use_ticket(struct tls_client *tls, const struct tls_client_config *config)
{
    const unsigned char *at = config->ticket.data;
    SSL_SESSION *session;

    if (config->ticket.len == 0) {
        return;
    }
    session = d2i_SSL_SESSION(NULL, &at, (long)config->ticket.len);
    if (session != NULL && SSL_set_session(tls->ssl, session) == 1) {
        tls->may_send_early = config->early_data && SSL_SESSION_get_max_early_data(session) > 0;
    }
    SSL_SESSION_free(session);
    ERR_clear_error();
}

int tls_context_new(const struct socks6_proxy *proxy, struct tls_context **out, char why[TLS_CLIENT_WHY_MAX])
{
    struct tls_context *context = calloc(1, sizeof *context);
    int rc = -ENOMEM;

    (void)snprintf(why, TLS_CLIENT_WHY_MAX, "out of memory");
    if (context == NULL) {
        return -ENOMEM;
    }
    context->references = 1;
    context->settings = SSL_CTX_new(TLS_client_method());
    context->method = make_method();
    if (context->settings != NULL && context->method != NULL && set_limits(context->settings, proxy) == 0) {
        rc = load_files(context->settings, proxy, why);
    }
    ERR_clear_error();
    if (rc != 0) {
        tls_context_release(context);
        return rc;
    }
    *out = context;
    return 0;
}

void tls_context_release(struct tls_context *context)
{
    if (context != NULL && --context->references == 0) {
        SSL_CTX_free(context->settings);
        BIO_meth_free(context->method);
        free(context);
    }
}

/* The caller's context, or one for this client alone. */
static int take_context(struct tls_client *tls, const struct tls_client_config *config, char why[TLS_CLIENT_WHY_MAX])
{
    if (config->context == NULL) {
        return tls_context_new(config->proxy, &tls->context, why);
    }
    tls->context = config->context;
    tls->context->references++;
    return 0;
}

int tls_client_new(const struct tls_client_config *config, struct tls_client **out, char why[TLS_CLIENT_WHY_MAX])
{
    struct tls_client *tls = calloc(1, sizeof *tls);
    int rc;

    (void)snprintf(why, TLS_CLIENT_WHY_MAX, "out of memory");
    if (tls == NULL) {
        return -ENOMEM;
    }
    tls->on_ticket = config->on_ticket;
    tls->on_ticket_user = config->on_ticket_user;
    rc = take_context(tls, config, why);
    if (rc != 0) {
        goto out;
    }
    rc = -ENOMEM;
    tls->ssl = SSL_new(tls->context->settings);
    if (tls->ssl == NULL || !make_bio(tls) || !expect_server(tls, &config->proxy->addr) ||
        SSL_set_app_data(tls->ssl, tls) != 1) {
        goto out;
    }
    SSL_set_msg_callback(tls->ssl, on_message);
    SSL_set_msg_callback_arg(tls->ssl, tls);
    SSL_set_connect_state(tls->ssl);
    use_ticket(tls, config);
    *out = tls;
    rc = 0;
out:
    if (rc != 0) {
        tls_client_free(tls);
    }
    ERR_clear_error();
    return rc;
}

void tls_client_free(struct tls_client *tls)
{
    if (tls == NULL) {
        return;
    }
    if (tls->ssl != NULL) {
        SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    }
    SSL_free(tls->ssl);
    tls_context_release(tls->context);
    discard(&tls->in);
    discard(&tls->out);
    discard(&tls->early);
    free(tls);
}

/* --- the handshake --- */

static size_t write_open(struct tls_client *tls, struct socks6_slice bytes)
{
    size_t n = 0;
    int rc;

    if (bytes.len == 0 || tls->state != TLS_OPEN || filled(&tls->out).len >= OUT_ENOUGH) {
        return 0;
    }
    ERR_clear_error();
    rc = SSL_write_ex(tls->ssl, bytes.data, bytes.len, &n);
    if (rc != 1) {
        judge(tls, rc);
        return 0;
    }
    return n;
}

/* The handshake has told what became of the early data. What was not accepted was not looked at either: again, once. */
static void settle_early(struct tls_client *tls)
{
    if (tls->early_state != TLS_EARLY_SENT) {
        return;
    }
    if (SSL_get_early_data_status(tls->ssl) == SSL_EARLY_DATA_ACCEPTED) {
        tls->early_state = TLS_EARLY_ACCEPTED;
    } else {
        tls->early_state = TLS_EARLY_REJECTED;
        while (tls->state == TLS_OPEN && filled(&tls->early).len > 0) {
            size_t n = write_open(tls, filled(&tls->early));

            if (n == 0) {
                fail(tls, "early data cannot be sent again"); /* there is room for it: nothing else was written yet */
            }
            tls->early.start += n;
        }
    }
    discard(&tls->early);
}

static void shake_hands(struct tls_client *tls)
{
    int rc;

    if (tls->state != TLS_HANDSHAKE) {
        return;
    }
    ERR_clear_error();
    rc = SSL_do_handshake(tls->ssl);
    if (rc != 1) {
        judge(tls, rc);
        if (tls->is_ended) {
            fail(tls, "it ended the connection in the handshake");
        }
        return;
    }
    tls->state = TLS_OPEN;
    settle_early(tls);
}

/* The ClientHello and all of the plaintext behind it, or false. */
static bool start_early(struct tls_client *tls, struct socks6_slice first, struct socks6_slice second)
{
    const SSL_SESSION *session = SSL_get0_session(tls->ssl);
    size_t n = 0;
    int rc;

    if (!tls->may_send_early || first.len + second.len == 0 || session == NULL ||
        first.len + second.len > SSL_SESSION_get_max_early_data(session)) {
        return false;
    }
    if (!append(&tls->early, first.data, first.len) || !append(&tls->early, second.data, second.len)) {
        fail(tls, "out of memory");
        return false;
    }
    ERR_clear_error();
    rc = SSL_write_early_data(tls->ssl, filled(&tls->early).data, filled(&tls->early).len, &n);
    if (rc != 1) {
        judge(tls, rc);
        fail(tls, "early data cannot be sent"); /* neither waits nor ends: the BIO takes everything */
        return false;
    }
    tls->early_state = TLS_EARLY_SENT;
    return true;
}

size_t tls_client_write(struct tls_client *tls, struct socks6_slice first, struct socks6_slice second)
{
    bool is_first = tls->state == TLS_NEW;
    size_t n;

    if (is_first) {
        tls->state = TLS_HANDSHAKE;
        if (start_early(tls, first, second)) {
            return first.len + second.len;
        }
        shake_hands(tls);
    }
    n = write_open(tls, first);
    if (n == first.len) {
        n += write_open(tls, second);
    }
    return n;
}

void tls_client_shutdown(struct tls_client *tls)
{
    int rc;

    if (tls->state != TLS_OPEN || tls->is_shut_down) {
        return;
    }
    ERR_clear_error();
    rc = SSL_shutdown(tls->ssl);
    if (rc < 0) {
        judge(tls, rc);
    }
    tls->is_shut_down = true;
}

/* --- bytes --- */

struct socks6_slice tls_client_output(const struct tls_client *tls)
{
    return filled(&tls->out);
}

void tls_client_output_sent(struct tls_client *tls, size_t len)
{
    tls->out.start += len;
}

uint8_t *tls_client_room(struct tls_client *tls, size_t *size)
{
    if (!reserve(&tls->in, IN_ROOM)) {
        fail(tls, "out of memory");
        return NULL;
    }
    *size = tls->in.size - tls->in.end;
    return tls->in.bytes + tls->in.end;
}

static void give_back(struct buffer *buffer)
{
    if (buffer->start == buffer->end) { /* ciphertext was in it, no secret */
        free(buffer->bytes);
        memset(buffer, 0, sizeof *buffer);
    }
}

void tls_client_rest(struct tls_client *tls)
{
    give_back(&tls->in);
    give_back(&tls->out);
    if (tls->state == TLS_OPEN) {
        (void)SSL_free_buffers(tls->ssl); /* unless it has half a record in there */
    }
}

void tls_client_came(struct tls_client *tls, size_t len)
{
    tls->in.end += len;
    tls->is_net_ended = tls->is_net_ended || len == 0;
    shake_hands(tls);
}

void tls_client_input(struct tls_client *tls, struct socks6_slice bytes)
{
    if (!append(&tls->in, bytes.data, bytes.len)) {
        fail(tls, "out of memory");
        return;
    }
    tls->is_net_ended = tls->is_net_ended || bytes.len == 0;
    shake_hands(tls);
}

static size_t take(struct tls_client *tls, uint8_t *buf, size_t size, bool stays)
{
    size_t n = 0;
    int rc;

    if (tls->state != TLS_OPEN || tls->is_ended) {
        return 0;
    }
    ERR_clear_error();
    rc = stays ? SSL_peek_ex(tls->ssl, buf, size, &n) : SSL_read_ex(tls->ssl, buf, size, &n);
    if (rc != 1) {
        judge(tls, rc);
        return 0;
    }
    return n;
}

size_t tls_client_read(struct tls_client *tls, uint8_t *buf, size_t size)
{
    return take(tls, buf, size, false);
}

size_t tls_client_peek(struct tls_client *tls, uint8_t *buf, size_t size)
{
    return take(tls, buf, size, true);
}

/* --- what has become of it --- */

bool tls_client_is_ended(const struct tls_client *tls)
{
    return tls->is_ended;
}

const char *tls_client_error(const struct tls_client *tls)
{
    return tls->state == TLS_FAILED ? tls->error : NULL;
}

bool tls_client_is_open(const struct tls_client *tls)
{
    return tls->state == TLS_OPEN;
}

enum tls_early tls_client_early(const struct tls_client *tls)
{
    return tls->early_state;
}

unsigned tls_client_round_trips(const struct tls_client *tls)
{
    unsigned trips = tls->early_state == TLS_EARLY_ACCEPTED ? 0 : 1;

    if (SSL_version(tls->ssl) == TLS1_2_VERSION && !SSL_session_reused(tls->ssl)) {
        trips++;
    }
    return trips + (tls->is_retried ? 1 : 0);
}

void tls_client_describe(const struct tls_client *tls, char *out, size_t size)
{
    static const char *const early[] = {[TLS_EARLY_NONE] = "",
                                        [TLS_EARLY_SENT] = ", early data sent",
                                        [TLS_EARLY_ACCEPTED] = ", early data accepted",
                                        [TLS_EARLY_REJECTED] = ", early data rejected and sent again"};

    (void)snprintf(out, size, "%s%s%s", SSL_get_version(tls->ssl), SSL_session_reused(tls->ssl) ? ", resumed" : "",
                   early[tls->early_state]);
}
