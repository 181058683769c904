/*
 * Between tls_server.c, which makes the settings, and tls_stream.c, whose connections use them.
 */
#ifndef IO_TLS_INTERNAL_H
#define IO_TLS_INTERNAL_H

#include <stdatomic.h>

#include <openssl/ssl.h>

#include "io/tls_server.h"
#include "io/tls_stream.h"

struct tls_server {
    atomic_uint references;
    SSL_CTX *context;
    struct tls_keys *keys; /* NULL = no tickets */
    bool early_data;
    bool has_client_ca;
};

/* A message of OpenSSL's callback: see tls_stream.c. */
void tls_stream_on_message(int is_written, int version, int content_type, const void *bytes, size_t len, SSL *ssl,
                           void *unused);

#endif
