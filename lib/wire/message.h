/*
 * The three messages of a SOCKS 6 conversation on the stream: Request, Authentication Reply, Operation Reply.
 *
 * Decoding is for streams: offer all bytes from the beginning of the message; as long as it says SOCKS6_NEED_MORE,
 * do not ask again before `*size` bytes are there. A message takes at most five calls that way, however it trickles in.
 *
 * All three share:
 *   - 0: the message is whole and takes `*size` bytes; slices in `out` are borrowed from `bytes`.
 *   - SOCKS6_NEED_MORE: `*size` (> len) is how many bytes, from the beginning, are known to be needed.
 *   - an error: `*size` is untouched. `out` holds what was read before it (all zero at first), for a log: the first two
 *     bytes and the port once the 8-byte head is there, the address once that is. Nothing else of it is to be used.
 *   - SOCKS6_ERR_VERSION as soon as there is one byte, and it is not 6.
 *   - SOCKS6_ERR_TOO_LONG (options over `options_cap`) and SOCKS6_ERR_ADDRESS (unknown type: the message has no end that we
 *     can see) as soon as the head is there, in this order.
 *   - SOCKS6_ERR_MALFORMED as soon as the bytes that show it are there: an unaligned options length in a request, a bad
 *     name, bad options.
 */
#ifndef S6_WIRE_MESSAGE_H
#define S6_WIRE_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include <socks6/error.h>
#include <socks6/types.h>

#include "base/bytebuf.h"
#include "wire/option.h"

/* "Requests", "Operation Replies": bytes before the address. "Authentication Replies": bytes before the options. */
#define S6_HEAD_LEN 8u
#define S6_AUTH_HEAD_LEN 4u
/* The most bytes of a request or operation reply with options up to `options_cap`. */
#define S6_MESSAGE_MAX(options_cap) (S6_HEAD_LEN + 1u + SOCKS6_NAME_MAX + (size_t)(options_cap))

/* "Requests" */
struct s6_request {
    uint8_t command; /* as it came: see enum socks6_command */
    struct socks6_addr addr;
    struct s6_options options;
};

/* "Authentication Replies": types. */
enum s6_auth_type { S6_AUTH_SUCCESS = 0, S6_AUTH_FAILURE = 1 };

/* "Authentication Replies" */
struct s6_auth_reply {
    uint8_t type; /* enum s6_auth_type */
    struct s6_options options;
};

/* "Operation Replies" */
struct s6_reply {
    uint8_t code; /* as it came: see enum socks6_reply_code */
    struct socks6_addr addr;
    struct s6_options options;
};

SOCKS6_MUST_CHECK int s6_request_decode(const uint8_t *bytes, size_t len, size_t options_cap, struct s6_request *out,
                                        size_t *size);
/* Also SOCKS6_ERR_PROTOCOL for a type above 1, as soon as that byte is there (`out->type` is filled). */
SOCKS6_MUST_CHECK int s6_auth_reply_decode(const uint8_t *bytes, size_t len, size_t options_cap,
                                           struct s6_auth_reply *out, size_t *size);
SOCKS6_MUST_CHECK int s6_reply_decode(const uint8_t *bytes, size_t len, size_t options_cap, struct s6_reply *out,
                                      size_t *size);

/*
 * Append a whole message to `out`, domain names in the form of `draft`. 0; SOCKS6_ERR_INVALID for an address or options that cannot be
 * written; SOCKS6_ERR_TOO_LONG for options over the cap of `draft`, or a message over that of `out`;
 * SOCKS6_ERR_NOMEM. On failure nothing is appended. Addresses go out as they are: normalise first.
 */
SOCKS6_MUST_CHECK int s6_request_encode(const struct s6_request *request, enum socks6_draft draft, struct s6_buf *out);
SOCKS6_MUST_CHECK int s6_auth_reply_encode(const struct s6_auth_reply *reply, enum socks6_draft draft,
                                           struct s6_buf *out);
SOCKS6_MUST_CHECK int s6_reply_encode(const struct s6_reply *reply, enum socks6_draft draft, struct s6_buf *out);

/* The most bytes of options in a message of this revision. */
size_t s6_options_cap(enum socks6_draft draft);

#endif
