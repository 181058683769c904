/*
 * The BIO is our own: OpenSSL's writes with write(2), which can raise SIGPIPE.
 *
 * OpenSSL's error queue belongs to the thread: it is emptied before each call, so that what is found there afterwards is
 * this call's.
 */
#include "dns/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "dns/servers.h"

struct dns_tls {
    atomic_uint references;
    SSL_CTX *context;
    BIO_METHOD *method;
};

struct dns_tls_stream {
    struct dns_tls *tls;
    SSL *ssl;
    int fd;
    bool is_open;
};

/* ---- the socket under it ---- */

static int bio_write(BIO *bio, const char *buf, int len)
{
    const struct dns_tls_stream *stream = BIO_get_data(bio);
    ssize_t n = send(stream->fd, buf, (size_t)len, MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(bio);
    }
    return (int)n;
}

static int bio_read(BIO *bio, char *buf, int len)
{
    const struct dns_tls_stream *stream = BIO_get_data(bio);
    ssize_t n = recv(stream->fd, buf, (size_t)len, 0);

    BIO_clear_retry_flags(bio);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_read(bio);
    }
    return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *method_new(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socks6 dns");

    if (method != NULL && BIO_meth_set_write(method, bio_write) == 1 && BIO_meth_set_read(method, bio_read) == 1 &&
        BIO_meth_set_ctrl(method, bio_ctrl) == 1) {
        return method;
    }
    BIO_meth_free(method);
    return NULL;
}

/* ---- settings ---- */

static int load_authorities(SSL_CTX *context, const char *ca_file)
{
    int ok = ca_file != NULL ? SSL_CTX_load_verify_file(context, ca_file) : SSL_CTX_set_default_verify_paths(context);
    ERR_clear_error();
    return ok == 1 ? 0 : -EINVAL;
}

int dns_tls_new(const char *ca_file, struct dns_tls **out)
{
    static const unsigned char alpn[] = {3, 'd', 'o', 't'};
    struct dns_tls *tls = calloc(1, sizeof *tls);
    int err = -ENOMEM;

    if (tls == NULL) {
        return -ENOMEM;
    }
    atomic_init(&tls->references, 1);
    tls->method = method_new();
    tls->context = SSL_CTX_new(TLS_client_method());
    if (tls->method == NULL || tls->context == NULL ||
        SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_alpn_protos(tls->context, alpn, sizeof alpn) != 0) {
        goto out;
    }
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_mode(tls->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                             SSL_MODE_RELEASE_BUFFERS);
    err = load_authorities(tls->context, ca_file);
out:
    if (err != 0) {
        dns_tls_release(tls);
        return err;
    }
    *out = tls;
    return 0;
}

struct dns_tls *dns_tls_retain(struct dns_tls *tls)
{
    (void)atomic_fetch_add_explicit(&tls->references, 1, memory_order_relaxed);
    return tls;
}

void dns_tls_release(struct dns_tls *tls)
{
    if (tls != NULL && atomic_fetch_sub_explicit(&tls->references, 1, memory_order_acq_rel) == 1) {
        SSL_CTX_free(tls->context);
        BIO_meth_free(tls->method);
        free(tls);
    }
}

/* ---- one connection ---- */

static bool verify_address(SSL *ssl, const struct dns_server *server)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    if (server->addr.ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, &server->addr, sizeof sin);
        return X509_VERIFY_PARAM_set1_ip(param, (const unsigned char *)&sin.sin_addr, sizeof sin.sin_addr) == 1;
    }
    struct sockaddr_in6 sin6;
    memcpy(&sin6, &server->addr, sizeof sin6);
    return X509_VERIFY_PARAM_set1_ip(param, (const unsigned char *)&sin6.sin6_addr, sizeof sin6.sin6_addr) == 1;
}

/* SSL_set_tlsext_host_name() is a macro with a cast that drops const. */
static bool set_server_name(SSL *ssl, const char *name)
{
    char copy[SOCKS6_NAME_MAX + 1];

    memcpy(copy, name, strlen(name) + 1);
    return SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, copy) == 1;
}

static bool expect_server(SSL *ssl, const struct dns_server *server)
{
    if (server->name[0] == '\0') {
        return verify_address(ssl, server);
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, server->name) == 1 && set_server_name(ssl, server->name);
}

int dns_tls_open(struct dns_tls *tls, const struct dns_server *server, int fd, struct dns_tls_stream **out)
{
    struct dns_tls_stream *stream = calloc(1, sizeof *stream);
    BIO *bio = NULL;

    if (stream == NULL) {
        return -ENOMEM;
    }
    ERR_clear_error();
    stream->fd = fd;
    stream->tls = dns_tls_retain(tls);
    stream->ssl = SSL_new(tls->context);
    bio = stream->ssl == NULL ? NULL : BIO_new(tls->method);
    if (bio == NULL || !expect_server(stream->ssl, server)) {
        BIO_free(bio);
        SSL_free(stream->ssl);
        dns_tls_release(tls);
        free(stream);
        return -ENOMEM;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio);
    SSL_set_connect_state(stream->ssl);
    *out = stream;
    return 0;
}

void dns_tls_close(struct dns_tls_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    if (stream->is_open) {
        ERR_clear_error();
        (void)SSL_shutdown(stream->ssl); /* the socket is closed next; nobody waits for the answer */
    }
    SSL_free(stream->ssl);
    dns_tls_release(stream->tls);
    free(stream);
}

int dns_tls_handshake(struct dns_tls_stream *stream, const char **why)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(stream->ssl);
    if (rc == 1) {
        stream->is_open = true;
        return 0;
    }
    int error = SSL_get_error(stream->ssl, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return -EAGAIN;
    }
    long verified = SSL_get_verify_result(stream->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    *why = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
           : reason != NULL      ? reason
                                 : "the connection was closed during the TLS handshake";
    return -EPROTO;
}

static ssize_t outcome(struct dns_tls_stream *stream, int rc)
{
    int error = SSL_get_error(stream->ssl, rc);

    switch (error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        stream->is_open = false; /* after a fatal error nothing may be sent, close_notify neither */
        return -EPROTO;
    }
}

ssize_t dns_tls_read(struct dns_tls_stream *stream, void *buf, size_t len)
{
    size_t n = 0;

    ERR_clear_error();
    int rc = SSL_read_ex(stream->ssl, buf, len, &n);
    return rc == 1 ? (ssize_t)n : outcome(stream, rc);
}

ssize_t dns_tls_write(struct dns_tls_stream *stream, const void *buf, size_t len)
{
    size_t n = 0;

    ERR_clear_error();
    int rc = SSL_write_ex(stream->ssl, buf, len, &n);
    return rc == 1 ? (ssize_t)n : outcome(stream, rc);
}
