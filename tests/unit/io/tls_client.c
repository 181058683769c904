#include "tls_client.h"

#include <stdarg.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "io/sock.h"

/* ---- files ---- */

void tls_files_path(const struct tls_files *files, const char *name, char out[96])
{
    (void)snprintf(out, 96, "%s/%s", files->dir, name);
}

void tls_files_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void *read_pem(const struct tls_files *files, const char *prefix, const char *suffix, bool is_key)
{
    char name[64], path[96];
    (void)snprintf(name, sizeof name, "%s%s", prefix, suffix);
    tls_files_path(files, name, path);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    void *out = is_key ? (void *)PEM_read_PrivateKey(file, NULL, NULL, NULL) : PEM_read_X509(file, NULL, NULL, NULL);
    assert_non_null(out);
    (void)fclose(file);
    return out;
}

static void write_pem(const struct tls_files *files, const char *prefix, const char *suffix, X509 *x509, EVP_PKEY *key)
{
    char name[64], path[96];
    (void)snprintf(name, sizeof name, "%s%s", prefix, suffix);
    tls_files_path(files, name, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(
        x509 != NULL ? PEM_write_X509(file, x509) : PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
}

static void add_extension(X509 *x509, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, x509, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(x509, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

void tls_files_make(const struct tls_files *files, const char *prefix, const char *common_name, long from_s,
                    long until_s, const char *issuer)
{
    static long serial = 1;
    EVP_PKEY *key = EVP_EC_gen("P-256"), *signer = key;
    X509 *x509 = X509_new(), *authority = x509;
    assert_non_null(key);
    assert_non_null(x509);
    if (issuer != NULL) {
        signer = read_pem(files, issuer, ".key", true);
        authority = read_pem(files, issuer, ".pem", false);
    }
    assert_int_equal(X509_set_version(x509, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x509), ++serial), 1);
    assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_UTF8,
                                                (const unsigned char *)common_name, -1, -1, 0),
                     1);
    assert_int_equal(X509_set_issuer_name(x509, X509_get_subject_name(authority)), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x509), from_s));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x509), until_s));
    assert_int_equal(X509_set_pubkey(x509, key), 1);
    if (issuer == NULL) {
        add_extension(x509, NID_basic_constraints, "critical,CA:TRUE");
    }
    assert_true(X509_sign(x509, signer, EVP_sha256()) > 0);
    write_pem(files, prefix, ".pem", x509, NULL);
    write_pem(files, prefix, ".key", NULL, key);
    if (issuer != NULL) {
        EVP_PKEY_free(signer);
        X509_free(authority);
    }
    EVP_PKEY_free(key);
    X509_free(x509);
}

void tls_files_init(struct tls_files *files)
{
    (void)snprintf(files->dir, sizeof files->dir, "/tmp/socks6-tls-XXXXXX");
    assert_non_null(mkdtemp(files->dir));
    tls_files_make(files, "server", "proxy.test", -3600, 3600, NULL);
    tls_files_path(files, "server.pem", files->certificate);
    tls_files_path(files, "server.key", files->key);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

void tls_files_done(struct tls_files *files)
{
    assert_int_equal(nftw(files->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- client ---- */

static int on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct tls_client *client = SSL_get_app_data(ssl);
    SSL_SESSION_free(client->ticket);
    client->ticket = session;
    return 1;
}

void tls_client_init(struct tls_client *client)
{
    memset(client, 0, sizeof *client);
    client->fd = -1;
    client->context = SSL_CTX_new(TLS_client_method());
    assert_non_null(client->context);
    (void)SSL_CTX_set_session_cache_mode(client->context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client->context, on_ticket);
    (void)SSL_CTX_set_mode(client->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

void tls_client_connect(struct tls_client *client, int fd, bool resumes)
{
    client->fd = fd;
    client->ssl = SSL_new(client->context);
    assert_non_null(client->ssl);
    assert_int_equal(SSL_set_app_data(client->ssl, client), 1);
    assert_int_equal(SSL_set_fd(client->ssl, fd), 1);
    SSL_set_connect_state(client->ssl);
    if (resumes) {
        assert_non_null(client->ticket);
        assert_int_equal(SSL_set_session(client->ssl, client->ticket), 1);
    }
}

void tls_client_close(struct tls_client *client)
{
    if (client->ssl == NULL) {
        return;
    }
    SSL_set_shutdown(client->ssl,
                     SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else its ticket would be worth nothing */
    SSL_free(client->ssl);
    client->ssl = NULL;
    sock_reset_on_close(client->fd);
    (void)close(client->fd);
    client->fd = -1;
    ERR_clear_error();
}

void tls_client_done(struct tls_client *client)
{
    tls_client_close(client);
    SSL_SESSION_free(client->ticket);
    SSL_CTX_free(client->context);
}

bool tls_client_goes_on(struct tls_client *client)
{
    ERR_clear_error();
    return SSL_do_handshake(client->ssl) == 1;
}

static ssize_t outcome(struct tls_client *client, int rc)
{
    switch (SSL_get_error(client->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        return -1;
    default:
        return -2;
    }
}

ssize_t tls_client_read(struct tls_client *client, void *buf, size_t len)
{
    size_t n = 0;
    ERR_clear_error();
    int rc = SSL_read_ex(client->ssl, buf, len, &n);
    return rc == 1 ? (ssize_t)n : outcome(client, rc);
}

ssize_t tls_client_write(struct tls_client *client, const void *buf, size_t len)
{
    size_t n = 0;
    ERR_clear_error();
    int rc = SSL_write_ex(client->ssl, buf, len, &n);
    return rc == 1 ? (ssize_t)n : outcome(client, rc);
}
