/*
 * What the TLS connections of a listener have in common: certificate, key, authorities of clients, versions, tickets.
 *
 * Made from files once, then immutable and counted: a reload makes another one, and connections keep theirs. TLS 1.3,
 * and 1.2 if allowed; of ALPN "socks6" or nothing (RFC 7301: no_application_protocol for anything else); renegotiation
 * and compression are off. Tickets are stateless, under keys that outlive this (tls_keys.h), and OpenSSL's protection
 * against replays, which would tie them to one process and one certificate, is off: a replayed flight is the affair of
 * whoever acts on early data (tls_stream.h).
 *
 * Connections are in tls_stream.h.
 */
#ifndef IO_TLS_SERVER_H
#define IO_TLS_SERVER_H

#include <stdbool.h>
#include <time.h>

#include <socks6/types.h>

struct tls_keys;
struct tls_server;
struct tls_stream;

/* Bytes of early data that a client may send. */
#define TLS_EARLY_DATA_MAX 16384u

struct tls_server_settings {
    const char *certificate; /* a PEM file: the server's, and then those of authorities in between */
    const char *key;         /* a PEM file without a passphrase */
    const char *client_ca;   /* a PEM file: clients must show a certificate of one of these; NULL = none is asked for */
    bool early_data;
    bool tls12;
};

enum tls_server_part { TLS_SERVER_WHOLE, TLS_SERVER_CERTIFICATE, TLS_SERVER_KEY, TLS_SERVER_CLIENT_CA };

struct tls_server_error {
    enum tls_server_part part; /* which of the settings it is about */
    char why[256];             /* "cannot be read: Permission denied"; no newline */
};

/* Reads the files. 0; -EINVAL or -ENOMEM, and `error` is set. */
SOCKS6_MUST_CHECK int tls_server_new(const struct tls_server_settings *settings, struct tls_server **out,
                                     struct tls_server_error *error);
/* Counted references, any thread. Release takes NULL. */
struct tls_server *tls_server_retain(struct tls_server *server);
void tls_server_release(struct tls_server *server);

/* Before the first connection. Without it there are no tickets. Takes a reference of its own. */
void tls_server_set_keys(struct tls_server *server, struct tls_keys *keys);

bool tls_server_has_client_ca(const struct tls_server *server);
/* What is wrong with the certificate at that time: "has expired", "is not valid yet"; NULL = nothing. Static. */
const char *tls_server_warning(const struct tls_server *server, time_t now);

#endif
