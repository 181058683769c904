/*
 * The server's side of a TLS connection over a socket that does not block, with functions like recv(2) and send(2).
 *
 * The handshake goes on by itself within tls_recv(). With early data (RFC 8446 section 2.3) bytes can come out before it
 * is finished, and answers can be sent; but a recorded flight yields the same bytes again, and whoever acts on them must
 * know that: only when tls_is_finished() says so has the client been there.
 *
 * The end of a stream is close_notify. A connection that ends without it was cut short, by whomever, and that is an
 * error: -ENODATA.
 *
 * For edge-triggered events: the caller remembers that a socket is readable or writable. After each tls_recv() it is
 * readable if tls_has_more() or, after -EAGAIN, if tls_waits_for_room(): then the next event of writing, or a tls_send()
 * that took something, is to be followed by tls_recv() again. Likewise what -EAGAIN of tls_send() or tls_end() waits for is the next event of reading
 * unless tls_waits_for_room().
 *
 * Ciphertext is read into a large buffer of the loop, and collected in another one until it is sent, many records by one
 * system call; a stream at rest owns none.
 */
#ifndef IO_TLS_STREAM_H
#define IO_TLS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <socks6/types.h>

/* With which every TLS connection begins: that of a handshake record. */
#define TLS_FIRST_BYTE 22u

struct tls_loop;
struct tls_server;
struct tls_stream;

struct tls_hooks {
    /*
     * A handshake is finished, or it has failed, for the reason of tls_why(): once for each stream whose client has
     * said something, from within any of the calls below but tls_stream_free(). It must not use the stream otherwise.
     */
    void (*handshake_over)(void *context, const struct tls_stream *stream, bool is_finished);
    void *context;
};

/* What the streams of one loop share. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int tls_loop_new(const struct tls_hooks *hooks, struct tls_loop **out);
/* All streams must be gone. Takes NULL. */
void tls_loop_free(struct tls_loop *loop);

/* Over `fd`, which stays the caller's. Keeps a reference of `server`. SIGPIPE must be ignored. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int tls_stream_new(struct tls_loop *loop, struct tls_server *server, int fd, struct tls_stream **out);
/* Says nothing to the peer. Takes NULL. */
void tls_stream_free(struct tls_stream *stream);

/*
 * Bytes, as many as are there; 0: close_notify; -EAGAIN; -ENODATA: the end without it; -EPROTO: see tls_why(); or another
 * -errno. What is not -EAGAIN stays so. `to_end`: read until the socket itself has nothing more; otherwise a short read
 * of it is taken for that, as epoll will tell of what follows.
 */
SOCKS6_MUST_CHECK ssize_t tls_recv(struct tls_stream *stream, void *buf, size_t len, bool to_end);
/* After tls_recv() returned bytes: whether it is to be called again without waiting for an event. */
bool tls_has_more(const struct tls_stream *stream);
/*
 * Bytes taken; -EAGAIN; or another -errno. What was not taken must be offered again, first and not less of it, before
 * anything else is: a record of it may be on its way.
 */
SOCKS6_MUST_CHECK ssize_t tls_send(struct tls_stream *stream, const void *buf, size_t len);
/* Sends close_notify, once everything was taken. 0 (also if it is out already), -EAGAIN, or another -errno. */
SOCKS6_MUST_CHECK int tls_end(struct tls_stream *stream);
/*
 * For who answers requests, as long as an answer is in sight: then what the handshake has for the client leaves together with the
 * answer. That is the server's part of a handshake which brought early data, and the ticket. tls_flush() must be called before
 * an event is waited for. Otherwise, and at first, nothing is held back; a ticket that is due then is sent by the next tls_recv().
 */
void tls_set_answering(struct tls_stream *stream, bool is_answering);
/* 0; or -EAGAIN: tls_recv() is to be called when there is room. An error is told by the next call. */
SOCKS6_MUST_CHECK int tls_flush(struct tls_stream *stream);
/* What the last -EAGAIN was about: room in the socket, else bytes from it. */
bool tls_waits_for_room(const struct tls_stream *stream);

/* The handshake is finished: what came was sent by the client, now. */
bool tls_is_finished(const struct tls_stream *stream);
/* A ticket was taken. */
bool tls_is_resumed(const struct tls_stream *stream);
/* Early data was taken. */
bool tls_has_early_data(const struct tls_stream *stream);
/* A first byte was there. */
bool tls_has_heard(const struct tls_stream *stream);
/*
 * Offers the names of the client's certificate, which was verified: its alternative names (e-mail addresses and DNS names),
 * then its common names, until `accepts` says true. False: it never did, or there is no certificate.
 */
bool tls_find_client_name(const struct tls_stream *stream, bool (*accepts)(void *user, const void *name, size_t len),
                          void *user);
bool tls_has_client_certificate(const struct tls_stream *stream);
/* "TLSv1.3", "TLSv1.2"; NULL as long as it is not settled. Static. */
const char *tls_version(const struct tls_stream *stream);
/* Why it failed, in words; NULL = it has not. Static. */
const char *tls_why(const struct tls_stream *stream);

#endif
