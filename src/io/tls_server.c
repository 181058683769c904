/*
 * OpenSSL's error queue belongs to the thread: it is emptied before what may fill it, so that what is found there
 * afterwards is of this call.
 */
#include "io/tls_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "io/tls_internal.h"
#include "io/tls_keys.h"

/* For both, those with forward secrecy and authenticated encryption. The order of TLS 1.3 is that of most clients. */
#define CIPHERS_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_12 "ECDHE+AESGCM:ECDHE+CHACHA20"

__attribute__((format(printf, 3, 4))) static int fail(struct tls_server_error *error, enum tls_server_part part,
                                                      const char *format, ...)
{
    va_list args;

    error->part = part;
    va_start(args, format);
    (void)vsnprintf(error->why, sizeof error->why, format, args);
    va_end(args);
    ERR_clear_error();
    return -EINVAL;
}

static int fail_memory(struct tls_server_error *error)
{
    (void)fail(error, TLS_SERVER_WHOLE, "no memory for it");
    return -ENOMEM;
}

/* The first error says what was wrong; those behind it, where that led to. */
static const char *openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason != NULL ? reason : "no reason given";
}

static bool has_reason(int lib, int reason)
{
    unsigned long code = ERR_peek_error();
    return ERR_GET_LIB(code) == lib && ERR_GET_REASON(code) == reason;
}

/*
 * OpenSSL's own words for a file that cannot be read are not for users; and of what has no end it would read on and on. 0
 * or -EINVAL.
 */
static int check_readable(const char *path, enum tls_server_part part, struct tls_server_error *error)
{
    char byte;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, &byte, 1);
    int error_number = errno;
    struct stat status = {.st_mode = S_IFREG};
    bool is_file = n < 0 || (fstat(fd, &status) == 0 && S_ISREG(status.st_mode));

    if (fd >= 0) {
        close(fd);
    }
    if (n < 0) {
        return fail(error, part, "cannot be read: %s", strerrordesc_np(error_number));
    }
    return is_file ? 0 : fail(error, part, "is no regular file");
}

/* ---- certificate and key ---- */

static int load_certificate(SSL_CTX *context, const char *path, struct tls_server_error *error)
{
    int err = check_readable(path, TLS_SERVER_CERTIFICATE, error);
    if (err != 0) {
        return err;
    }
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, path) == 1) {
        return 0;
    }
    if (has_reason(ERR_LIB_PEM, PEM_R_NO_START_LINE)) {
        return fail(error, TLS_SERVER_CERTIFICATE, "holds no certificate in PEM form");
    }
    return fail(error, TLS_SERVER_CERTIFICATE, "is no certificate that can be used: %s", openssl_reason());
}

/* A pem_password_cb. Nobody is there to ask, and a server that waits for somebody does not start again by itself. */
static int no_passphrase(char *buf, int size, int is_for_writing, void *unused)
{
    (void)buf;
    (void)size;
    (void)is_for_writing;
    (void)unused;
    return -1;
}

static int load_key(SSL_CTX *context, const char *path, struct tls_server_error *error)
{
    int err = check_readable(path, TLS_SERVER_KEY, error);
    if (err != 0) {
        return err;
    }
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    ERR_clear_error();
    int ok = SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM);
    if (ok == 1 && SSL_CTX_check_private_key(context) == 1) {
        return 0;
    }
    if (ok == 1 || ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509) {
        return fail(error, TLS_SERVER_KEY, "is not the key of the certificate");
    }
    for (unsigned long code; (code = ERR_get_error()) != 0;) {
        if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_BAD_PASSWORD_READ) {
            return fail(error, TLS_SERVER_KEY, "is protected by a passphrase; write one without, for this user only");
        }
    }
    return fail(error, TLS_SERVER_KEY, "holds no private key in PEM form");
}

/* ---- certificates of clients ---- */

/* One more that may sign, and that clients are told of. */
static bool add_authority(SSL_CTX *context, X509 *authority, EVP_MD_CTX *digest)
{
    unsigned char print[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    return X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority) == 1 &&
           SSL_CTX_add_client_CA(context, authority) == 1 && X509_digest(authority, EVP_sha256(), print, &len) == 1 &&
           EVP_DigestUpdate(digest, print, len) == 1;
}

static int load_authorities(SSL_CTX *context, const char *path, EVP_MD_CTX *digest, struct tls_server_error *error)
{
    int err = check_readable(path, TLS_SERVER_CLIENT_CA, error);
    if (err != 0) {
        return err;
    }
    ERR_clear_error();
    BIO *file = BIO_new_file(path, "r");
    unsigned count = 0;
    bool is_added = true;
    X509 *authority = NULL;
    while (file != NULL && is_added && (authority = PEM_read_bio_X509(file, NULL, no_passphrase, NULL)) != NULL) {
        is_added = add_authority(context, authority, digest);
        X509_free(authority);
        count++;
    }
    BIO_free(file);
    if (!is_added || file == NULL) {
        return fail_memory(error);
    }
    if (count == 0 || !has_reason(ERR_LIB_PEM, PEM_R_NO_START_LINE)) {
        return fail(error, TLS_SERVER_CLIENT_CA, "holds %s in PEM form",
                    count == 0 ? "no certificate" : "something that is no certificate");
    }
    ERR_clear_error();
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

/*
 * The session context: a ticket is good wherever the same authorities are asked for, and only there. A ticket from a
 * listener that asks for no certificate must not let anybody in where one is asked for.
 */
static int load_clients(struct tls_server *server, const char *path, struct tls_server_error *error)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned char id[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int err = 0;

    if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(digest, "socks6d", 7) != 1) {
        err = fail_memory(error);
    }
    if (err == 0 && path != NULL) {
        server->has_client_ca = true;
        err = load_authorities(server->context, path, digest, error);
    }
    if (err == 0 &&
        (EVP_DigestFinal_ex(digest, id, &len) != 1 || SSL_CTX_set_session_id_context(server->context, id, len) != 1)) {
        err = fail_memory(error);
    }
    EVP_MD_CTX_free(digest);
    return err;
}

/* ---- callbacks ---- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                           unsigned offered_len, void *unused)
{
    static const unsigned char name[] = "socks6";

    (void)ssl;
    (void)unused;
    for (unsigned at = 0; at < offered_len; at += 1u + offered[at]) {
        if (offered[at] == sizeof name - 1 && offered_len - at > sizeof name - 1 &&
            memcmp(offered + at + 1, name, sizeof name - 1) == 0) {
            *out = offered + at + 1;
            *out_len = sizeof name - 1;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Whatever is opened is renewed: a client uses each ticket once if it can, and the new one is under the current key. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int seals)
{
    enum { FAILED = -1, NONE = 0, SEALED = 1, OPENED_RENEW = 2 };
    const struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    if (server->keys == NULL) {
        return NONE;
    }
    if (seals != 0) {
        return tls_keys_seal(server->keys, name, iv, cipher, mac) == 0 ? SEALED : FAILED;
    }
    switch (tls_keys_open(server->keys, name, iv, cipher, mac)) {
    case 0:
        return OPENED_RENEW;
    case -ENOENT:
        return NONE;
    default:
        return FAILED;
    }
}

static bool is_valid_now(const X509 *certificate)
{
    return X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 &&
           X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

/*
 * A session that began with a client's certificate must not outlive it: then the ticket counts for nothing, and in the
 * whole handshake that follows the certificate is refused, with the alert for it.
 */
static SSL_TICKET_RETURN on_ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_len,
                                          SSL_TICKET_STATUS status, void *unused)
{
    const struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const X509 *certificate;

    (void)name;
    (void)name_len;
    (void)unused;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    certificate = server->has_client_ca ? SSL_SESSION_get0_peer(session) : NULL;
    if (server->has_client_ca && (certificate == NULL || !is_valid_now(certificate))) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    return SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- life ---- */

/* No tickets of its own: tls_stream.c asks for one where it can leave with an answer. TLS 1.2 has its own rule. */
static bool set_options(SSL_CTX *context, const struct tls_server_settings *settings)
{
    uint32_t early_data_len = settings->early_data ? TLS_EARLY_DATA_MAX : 0;

    (void)SSL_CTX_set_options(context, SSL_OP_NO_ANTI_REPLAY | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_timeout(context, (long)(TLS_KEYS_LIFETIME_MS / 1000));
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    SSL_CTX_set_msg_callback(context, tls_stream_on_message);
    return SSL_CTX_set_min_proto_version(context, settings->tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_ciphersuites(context, CIPHERS_13) == 1 && SSL_CTX_set_cipher_list(context, CIPHERS_12) == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, early_data_len) == 1 &&
           SSL_CTX_set_recv_max_early_data(context, TLS_EARLY_DATA_MAX) == 1 &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket) == 1 &&
           SSL_CTX_set_session_ticket_cb(context, NULL, on_ticket_opened, NULL) == 1;
}

int tls_server_new(const struct tls_server_settings *settings, struct tls_server **out, struct tls_server_error *error)
{
    struct tls_server *server = calloc(1, sizeof *server);
    int err = 0;

    if (server == NULL) {
        return fail_memory(error);
    }
    ERR_clear_error();
    atomic_init(&server->references, 1);
    server->early_data = settings->early_data;
    server->context = SSL_CTX_new(TLS_server_method());
    if (server->context == NULL || SSL_CTX_set_app_data(server->context, server) != 1 ||
        !set_options(server->context, settings)) {
        err = fail_memory(error);
    }
    if (err == 0) {
        err = load_certificate(server->context, settings->certificate, error);
    }
    if (err == 0) {
        err = load_key(server->context, settings->key, error);
    }
    if (err == 0) {
        err = load_clients(server, settings->client_ca, error);
    }
    if (err != 0) {
        tls_server_release(server);
        return err;
    }
    *out = server;
    return 0;
}

struct tls_server *tls_server_retain(struct tls_server *server)
{
    (void)atomic_fetch_add_explicit(&server->references, 1, memory_order_relaxed);
    return server;
}

void tls_server_release(struct tls_server *server)
{
    if (server != NULL && atomic_fetch_sub_explicit(&server->references, 1, memory_order_acq_rel) == 1) {
        SSL_CTX_free(server->context);
        tls_keys_release(server->keys);
        ERR_clear_error();
        free(server);
    }
}

void tls_server_set_keys(struct tls_server *server, struct tls_keys *keys)
{
    struct tls_keys *old = server->keys;

    server->keys = tls_keys_retain(keys);
    tls_keys_release(old);
}

bool tls_server_has_client_ca(const struct tls_server *server)
{
    return server->has_client_ca;
}

const char *tls_server_warning(const struct tls_server *server, time_t now)
{
    const X509 *certificate = SSL_CTX_get0_certificate(server->context);

    if (X509_cmp_time(X509_get0_notAfter(certificate), &now) <= 0) {
        return "has expired";
    }
    return X509_cmp_time(X509_get0_notBefore(certificate), &now) > 0 ? "is not valid yet" : NULL;
}
