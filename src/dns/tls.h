/*
 * TLS towards upstream servers (RFC 7858), client side, over a socket that does not block: OpenSSL behind errno values.
 *
 * Certificates are verified against the given authorities, and for the server's name, or its address if it has none;
 * TLS 1.2 at least.
 */
#ifndef DNS_TLS_H
#define DNS_TLS_H

#include <sys/types.h>

#include <socks6/types.h>

struct dns_server;
struct dns_tls; /* settings shared by all connections; any thread */
struct dns_tls_stream;

/* `ca_file` NULL = the system's. 0, -ENOMEM, or -EINVAL if the file holds no certificate. */
SOCKS6_MUST_CHECK int dns_tls_new(const char *ca_file, struct dns_tls **out);
/* Counted references; connections hold their own. Release takes NULL. */
struct dns_tls *dns_tls_retain(struct dns_tls *tls);
void dns_tls_release(struct dns_tls *tls);

/* Over `fd`, which stays the caller's. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int dns_tls_open(struct dns_tls *tls, const struct dns_server *server, int fd,
                                   struct dns_tls_stream **out);
/* Sends close_notify if it can be. Takes NULL. */
void dns_tls_close(struct dns_tls_stream *stream);

/* Goes on with the handshake. 0: it is finished. -EAGAIN: later. -EPROTO: failed; `why` is set (static or OpenSSL's). */
SOCKS6_MUST_CHECK int dns_tls_handshake(struct dns_tls_stream *stream, const char **why);
/* As recv(2) and send(2): bytes, 0 at the end (read), -EAGAIN, or another -errno. */
SOCKS6_MUST_CHECK ssize_t dns_tls_read(struct dns_tls_stream *stream, void *buf, size_t len);
SOCKS6_MUST_CHECK ssize_t dns_tls_write(struct dns_tls_stream *stream, const void *buf, size_t len);

#endif
