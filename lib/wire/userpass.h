/*
 * Username/password, RFC 1929: the same bytes as method data in Authentication Data options and on the stream.
 *
 * The stream forms follow the habit of message.h: offer all bytes from the beginning, `*size` says how many there are
 * or how many must be there before it is worth asking again.
 */
#ifndef S6_WIRE_USERPASS_H
#define S6_WIRE_USERPASS_H

#include <stddef.h>
#include <stdint.h>

#include <socks6/error.h>
#include <socks6/types.h>

#include "base/cursor.h"

/* Longest request: version, two lengths, two strings. A reply has always 2 bytes. */
#define S6_USERPASS_REQUEST_MAX (3u + SOCKS6_USERNAME_MAX + SOCKS6_PASSWORD_MAX)
#define S6_USERPASS_REPLY_LEN 2u

/*
 * `01 ulen username plen password`. 0 and `*size` bytes used; SOCKS6_NEED_MORE and `*size` bytes needed at least;
 * SOCKS6_ERR_MALFORMED if the version is not 1, at once. Empty parts are taken. `out` is borrowed from `bytes`, untouched unless 0.
 */
SOCKS6_MUST_CHECK int s6_userpass_request_decode(const uint8_t *bytes, size_t len, struct socks6_credentials *out,
                                                 size_t *size);
/* Bytes that s6_userpass_request_encode() writes. Parts of at most 255 bytes are the caller's duty, in both. */
size_t s6_userpass_request_len(const struct socks6_credentials *credentials);
void s6_userpass_request_encode(struct s6_writer *writer, const struct socks6_credentials *credentials);

/* `01 status`, 0 = good. As above. */
SOCKS6_MUST_CHECK int s6_userpass_reply_decode(const uint8_t *bytes, size_t len, uint8_t *status, size_t *size);
void s6_userpass_reply_encode(struct s6_writer *writer, uint8_t status);

#endif
