/*
 * The client's side of TLS to a proxy, without I/O: ciphertext and plaintext go in and come out as bytes. Used below the
 * dialing layer (stream.c) and by `socks6 probe`.
 *
 * Verification is always on: nothing of what is written leaves before the server has proved to be who it has to be, except
 * as early data to a server that proved it in an earlier connection.
 */
#ifndef CLI_TLS_CLIENT_H
#define CLI_TLS_CLIENT_H

#include <stdbool.h>

#include <sys/types.h>

#include <socks6/dial.h>

struct tls_client;

#define TLS_CLIENT_WHY_MAX 512

/*
 * What the connections to one proxy can share: its files (certificates of authorities, our own), read once. Of one thread. Clients
 * keep a reference.
 */
struct tls_context;

/* 0; or -ENOMEM, or -EINVAL for files that cannot be used, with a sentence in `why`. */
SOCKS6_MUST_CHECK int tls_context_new(const struct socks6_proxy *proxy, struct tls_context **out,
                                      char why[TLS_CLIENT_WHY_MAX]);
/* Gives up the caller's reference. Takes NULL. */
void tls_context_release(struct tls_context *context);

struct tls_client_config {
    const struct socks6_proxy *proxy; /* host, ca, certificate, key, tls_1_2. Borrowed for _new only */
    struct tls_context *context;      /* made for the same proxy; NULL = the files are read for this client */
    struct socks6_slice ticket;       /* of an earlier connection, or empty. Borrowed for _new only */
    bool early_data; /* what is written first may travel with the ClientHello, if the ticket allows it */
    /* A ticket came, to be kept until `expires_s` (seconds since 1970). May be NULL. */
    void (*on_ticket)(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s);
    void *on_ticket_user;
};

/* What became of early data. */
enum tls_early { TLS_EARLY_NONE, TLS_EARLY_SENT, TLS_EARLY_ACCEPTED, TLS_EARLY_REJECTED };

/* 0; or -ENOMEM, or -EINVAL for files that cannot be used, with a sentence in `why`. */
SOCKS6_MUST_CHECK int tls_client_new(const struct tls_client_config *config, struct tls_client **out,
                                     char why[TLS_CLIENT_WHY_MAX]);
/* Takes NULL. */
void tls_client_free(struct tls_client *tls);

/*
 * Takes plaintext to send, both parts or neither before the handshake is over, and as much as there is room for after it. How
 * much it took; 0 = none now. The first call writes the ClientHello.
 */
size_t tls_client_write(struct tls_client *tls, struct socks6_slice first, struct socks6_slice second);
/* Ends our side with close_notify. */
void tls_client_shutdown(struct tls_client *tls);

/* Ciphertext for the socket; valid until the next call. */
struct socks6_slice tls_client_output(const struct tls_client *tls);
void tls_client_output_sent(struct tls_client *tls, size_t len);

/* Ciphertext from the socket, all of which is taken; none = the socket's end. */
void tls_client_input(struct tls_client *tls, struct socks6_slice bytes);
/* The same without a copy: room for bytes to be read to, NULL without memory; and how many there are now, 0 = the end. */
uint8_t *tls_client_room(struct tls_client *tls, size_t *size);
void tls_client_came(struct tls_client *tls, size_t len);
/* Nothing came, and it may take long: frees what only moving bytes needs, some 100 KiB. */
void tls_client_rest(struct tls_client *tls);

/* Plaintext that came: its length, or 0 if there is none now. _peek leaves it there. */
size_t tls_client_read(struct tls_client *tls, uint8_t *buf, size_t size);
size_t tls_client_peek(struct tls_client *tls, uint8_t *buf, size_t size);

/* The server has ended its side properly, and all plaintext was read. */
bool tls_client_is_ended(const struct tls_client *tls);
/* Why it has failed, for people; NULL = it has not. */
const char *tls_client_error(const struct tls_client *tls);

bool tls_client_is_open(const struct tls_client *tls); /* the handshake is over */
enum tls_early tls_client_early(const struct tls_client *tls);
/* Round trips that the handshake took beyond those of TCP and of the first request. */
unsigned tls_client_round_trips(const struct tls_client *tls);
/* "TLSv1.3, resumed, early data accepted", once it is open. */
void tls_client_describe(const struct tls_client *tls, char *out, size_t size);

#endif
