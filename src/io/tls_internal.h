/*
 * Between tls_server.c, which makes the settings, tls_stream.c, whose connections use them, and tls_wire.c, which lies
 * between those and their sockets.
 */
#ifndef IO_TLS_INTERNAL_H
#define IO_TLS_INTERNAL_H

#include <stdatomic.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "io/tls_server.h"
#include "io/tls_stream.h"

/* Ciphertext that tls_send() collects before it is sent. */
#define TLS_OUT_TARGET ((size_t)128 * 1024)

struct tls_server {
    atomic_uint references;
    SSL_CTX *context;
    struct tls_keys *keys; /* NULL = no tickets */
    bool early_data;
    bool has_client_ca;
};

struct tls_loop {
    struct tls_hooks hooks;
    BIO_METHOD *method;
    struct tls_stream *reader; /* whose tls_recv() runs; NULL = none's */
    size_t got, room;          /* of that call: bytes delivered, room left behind them */
    uint8_t *in, *out;         /* ciphertext: read, and to be sent; see tls_wire.c */
    size_t out_len;
};

struct tls_stream {
    struct tls_loop *loop;
    struct tls_server *server;
    SSL *ssl;
    const char *why;
    const uint8_t *in; /* ciphertext not taken yet: in the loop's buffer, or `kept` */
    uint8_t *kept;     /* heap; NULL = none */
    uint32_t in_pos, in_len;
    uint8_t *unsent; /* heap: ciphertext that the socket did not take yet, or that is held; NULL = none */
    uint32_t unsent_pos, unsent_len;
    uint64_t written;  /* ciphertext that OpenSSL made so far */
    uint64_t received; /* plain bytes */
    uint32_t key_updates;
    uint32_t owed; /* plain bytes that are in `unsent`, and that tls_send() has not called taken */
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
    bool is_answering : 1; /* see tls_set_answering() */
    bool is_held : 1;      /* `unsent` was not offered to the socket: it waits for what is sent next */
    bool owes_ticket : 1;
    bool is_ending : 1; /* OpenSSL has made close_notify */
    bool has_ended : 1; /* and it is out */
};

/* A message of OpenSSL's callback: see tls_stream.c. */
void tls_stream_on_message(int is_written, int version, int content_type, const void *bytes, size_t len, SSL *ssl,
                           void *unused);

/* The BIO of a stream, for both directions; NULL: no memory. */
BIO *tls_wire_new(struct tls_stream *stream);
/* Frees what the stream keeps. */
void tls_wire_done(struct tls_stream *stream);
/* At the end of tls_recv(): what is left in the loop's buffer goes to one of the stream's own. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int tls_wire_keep_input(struct tls_stream *stream);
/*
 * Sends what was collected, behind what is unsent still. Afterwards the loop's buffer is empty. 0: everything is out;
 * -EAGAIN: something is unsent; another -errno: sending has ended, with that error for good.
 */
SOCKS6_MUST_CHECK int tls_wire_push(struct tls_stream *stream);
/* Does not send it, but keeps it until the next push. 0 or -errno, as above. */
SOCKS6_MUST_CHECK int tls_wire_hold(struct tls_stream *stream);
/* Ciphertext that is on the heap. */
size_t tls_wire_unsent_len(const struct tls_stream *stream);

#endif
