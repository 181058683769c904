/*
 * The other side of a TLS stream under test: OpenSSL's client over a socket that does not block, and certificates made on
 * the spot.
 */
#ifndef TEST_IO_TLS_CLIENT_H
#define TEST_IO_TLS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

/* A folder for files, of which each test makes its own; removed with everything in it at the end. */
struct tls_files {
    char dir[64];
    char certificate[96], key[96]; /* of the server, made by tls_files_init() */
};
void tls_files_init(struct tls_files *files);
void tls_files_done(struct tls_files *files);
/* The path of `name` in the folder. */
void tls_files_path(const struct tls_files *files, const char *name, char out[96]);
void tls_files_write(const char *path, const char *text);
/* A certificate for `common_name`, valid from `from_s` to `until_s` from now, signed by `issuer` (its prefix; NULL = itself). */
void tls_files_make(const struct tls_files *files, const char *prefix, const char *common_name, long from_s,
                    long until_s, const char *issuer);

struct tls_client {
    SSL_CTX *context;
    SSL *ssl;
    SSL_SESSION *ticket; /* the latest; survives tls_client_connect() */
    int fd;
};

/* Settings for TLS 1.3; change them through `context` before tls_client_connect(). */
void tls_client_init(struct tls_client *client);
/* A new connection over `fd`, which it takes; offers the ticket if there is one and `resumes`. */
void tls_client_connect(struct tls_client *client, int fd, bool resumes);
/* Of the connection; with a reset. */
void tls_client_close(struct tls_client *client);
void tls_client_done(struct tls_client *client);
/* One call of SSL_do_handshake(): true once it is finished. */
bool tls_client_goes_on(struct tls_client *client);
/* What is there, up to `len`; 0 = nothing now; -1 = the end in order (close_notify); -2 = anything else. */
ssize_t tls_client_read(struct tls_client *client, void *buf, size_t len);
ssize_t tls_client_write(struct tls_client *client, const void *buf, size_t len);

#endif
