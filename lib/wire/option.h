/*
 * Options ("SOCKS Options" and its sections): the option area of one message <-> one struct.
 *
 * Theory of operation: decoding gathers the first of each option, then judges it with the whole message in view, since
 * what counts depends on what else is there. What is left in `struct s6_options` is what the message means:
 *
 *   - options in a message where they have no business, unknown kinds, and later duplicates are gone;
 *   - Teardown without Session ID, and Session Request inside a session (Session ID without Teardown), are gone;
 *   - Authentication Data inside a session, and kinds 11 and 13 outside one, are gone without having been looked at;
 *     "inside" 11 and 13 includes a request with a Session Request: should the session not be granted, the caller
 *     ignores them;
 *   - a wanted window of 0 is gone, one of 2^31 and more is clamped;
 *   - Stack options have leg 1 or 2 (3 counts as both), padding zeroed, sorted by (level, code, leg), one of each; those with
 *     a wrong leg, length or value are gone;
 *   - other bad contents make the area malformed: they all concern sessions, idempotence or authentication. (Only a
 *     reply's Authentication Data is ignored if bad: the reply's type says the same.)
 *
 * The encoder writes one canonical sequence: by kind, Stack options by (level, code), a pair of legs 1 and 2 with the same
 * value as one option of leg 3. So decode(encode(x)) = x, and encode(decode(bytes)) is the same ever after.
 */
#ifndef S6_WIRE_OPTION_H
#define S6_WIRE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/error.h>
#include <socks6/types.h>

#include "base/cursor.h"

/* Kinds as they stand on the wire. 16-18 are reserved, 64512-65535 experimental; both are ignored. */
enum s6_option_kind {
    S6_OPTION_STACK = 1,
    S6_OPTION_METHODS = 2,   /* Authentication Method Advertisement */
    S6_OPTION_METHOD = 3,    /* Authentication Method Selection */
    S6_OPTION_AUTH_DATA = 4, /* Authentication Data */
    S6_OPTION_SESSION_REQUEST = 5,
    S6_OPTION_SESSION_ID = 6,
    S6_OPTION_SESSION_UNTRUSTED = 7, /* -08 and -09 only */
    S6_OPTION_SESSION_OK = 8,
    S6_OPTION_SESSION_INVALID = 9,
    S6_OPTION_SESSION_TEARDOWN = 10,
    S6_OPTION_WINDOW_REQUEST = 11, /* Idempotence Request */
    S6_OPTION_WINDOW = 12,         /* Idempotence Window */
    S6_OPTION_TOKEN = 13,          /* Idempotence Expenditure */
    S6_OPTION_TOKEN_ACCEPTED = 14, /* Idempotence Accepted */
    S6_OPTION_TOKEN_REJECTED = 15, /* Idempotence Rejected */
    S6_OPTION_COUNT
};

/* The message that an option area belongs to. */
enum s6_where {
    S6_IN_REQUEST = 1,
    S6_IN_AUTH_SUCCESS = 2, /* Authentication Reply of type 0 */
    S6_IN_AUTH_FAILURE = 4, /* Authentication Reply of type 1 */
    S6_IN_REPLY = 8         /* Operation Reply */
};

/* The largest window, "Idempotence Options". */
#define S6_WINDOW_SIZE_MAX 0x7fffffffu

/* The options of one message. All zero: none. Slices are borrowed from the bytes decoded. */
struct s6_options {
    uint32_t present; /* bit `kind` for each option that is there, Stack excepted: s6_options_has(), s6_options_set() */

    /* STACK: at most one of each (leg 1 or 2, level, code), sorted by level, code, leg. Add with s6_options_add_stack(). */
    struct socks6_stack_option stack[SOCKS6_STACK_MAX];
    size_t stack_count;

    /*
     * METHODS: announced initial data, as it came: 0 .. 65535. The core refuses more than SOCKS6_INITIAL_DATA_MAX where
     * it matters (CONNECT that still has to authenticate).
     */
    uint16_t initial_data_len;
    uint8_t methods[32]; /* METHODS: a bit per method advertised, 0 never set: s6_methods_add(), s6_methods_has() */

    uint8_t method;                        /* METHOD: selected, 255 = none acceptable */
    uint8_t auth_status;                   /* AUTH_DATA in replies: RFC 1929 status of method 2; 0 = good */
    struct socks6_credentials credentials; /* AUTH_DATA in requests: method 2; data of other methods is skipped */
    struct socks6_slice session_id;        /* SESSION_ID: 4 bytes and more, a multiple of 4 */
    uint32_t window_request;               /* WINDOW_REQUEST: 1 .. S6_WINDOW_SIZE_MAX */
    struct socks6_window window;           /* WINDOW: size 1 .. S6_WINDOW_SIZE_MAX */
    uint32_t token;                        /* TOKEN */
};

/* No options. */
void s6_options_init(struct s6_options *options);

static inline bool s6_options_has(const struct s6_options *options, enum s6_option_kind kind)
{
    return (options->present & (UINT32_C(1) << (unsigned)kind)) != 0;
}

/* Says that `kind` (not STACK) is there; its field is the caller's to fill. */
static inline void s6_options_set(struct s6_options *options, enum s6_option_kind kind)
{
    options->present |= UINT32_C(1) << (unsigned)kind;
}

/* A request inside a session that exists already: Session ID without Teardown. */
static inline bool s6_options_in_session(const struct s6_options *options)
{
    return s6_options_has(options, S6_OPTION_SESSION_ID) && !s6_options_has(options, S6_OPTION_SESSION_TEARDOWN);
}

/* Methods advertised. Adding 0 (implied, and what padding looks like) does nothing. */
void s6_methods_add(struct s6_options *options, uint8_t method);
bool s6_methods_has(const struct s6_options *options, uint8_t method);

/*
 * Adds a Stack option by the rules of "Stack Options": leg 3 counts as 1 and 2; one that is there already stays. False if nothing
 * was taken: not known, wrong leg, value out of range, or a duplicate.
 */
bool s6_options_add_stack(struct s6_options *options, const struct socks6_stack_option *option);

/* The option of (leg 1 or 2, level, code), or NULL. */
const struct socks6_stack_option *s6_stack_find(const struct socks6_stack_option *stack, size_t count, uint8_t leg,
                                                uint8_t level, uint8_t code);

/*
 * For clients: brings the Stack options into the forms of a revision. -08: TTL, No Fragmentation, UDP Error and Port Parity are
 * dropped (it has none), Happy Eyeballs becomes the form without a value, or is dropped if it says NO. -11 and later: a value
 * left UNSTATED becomes YES. Not for replies: they answer in the form of the question.
 */
void s6_options_fit_draft(struct s6_options *options, enum socks6_draft draft);

/*
 * Reads an option area. In requests every length must be a multiple of 4, in replies unaligned ones are tolerated.
 * 0, or SOCKS6_ERR_MALFORMED and `out` is untouched. Linear in `len`.
 */
SOCKS6_MUST_CHECK int s6_options_decode(const uint8_t *bytes, size_t len, enum s6_where where, struct s6_options *out);

/*
 * 0 if the options are such as s6_options_decode() for `where` produces (no option in the wrong message, values in range), else
 * SOCKS6_ERR_INVALID. The two below require it.
 */
SOCKS6_MUST_CHECK int s6_options_check(const struct s6_options *options, enum s6_where where);
/* Bytes that s6_options_encode() writes; always a multiple of 4. */
size_t s6_options_encoded_len(const struct s6_options *options, enum s6_where where);
void s6_options_encode(struct s6_writer *writer, const struct s6_options *options, enum s6_where where);

#endif
