/*
 * UDP messages of SOCKS 6: the -08 framing and that of -09 and later ("UDP Associate" and its sections).
 * Stateless: bytes to a view, a view to bytes. The same message travels in a datagram, in DTLS, or on the TCP stream.
 */
#ifndef SOCKS6_UDP_H
#define SOCKS6_UDP_H

#include <socks6/error.h>
#include <socks6/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The framing, set on listener and client: -08's own, or the one of -09 and later. 11 and 12 differ in what an encoder
 * writes for domain names (-12 pads them inside their length); decoders take both.
 */
enum socks6_udp_framing { SOCKS6_UDP_FRAMING_08 = 8, SOCKS6_UDP_FRAMING_11 = 11, SOCKS6_UDP_FRAMING_12 = 12 };

/* Message types of -09 and later. In -08 the type follows from where a message is: see the decoders. */
enum socks6_udp_type {
    SOCKS6_UDP_INITIALIZATION = 1,
    SOCKS6_UDP_CONFIRMATION = 2,
    SOCKS6_UDP_DATAGRAM = 3,
    SOCKS6_UDP_ERROR_MESSAGE = 4
};

/* "Error messages": codes. */
enum socks6_udp_error_code {
    SOCKS6_UDP_NET_UNREACHABLE = 1,
    SOCKS6_UDP_HOST_UNREACHABLE = 2,
    SOCKS6_UDP_TTL_EXPIRED = 3,
    SOCKS6_UDP_TOO_BIG = 4
};

struct socks6_udp_message {
    uint8_t type; /* enum socks6_udp_type */
    uint64_t association;
    struct socks6_addr addr;     /* DATAGRAM: remote host; ERROR_MESSAGE: destination of the datagram that failed */
    struct socks6_slice payload; /* DATAGRAM; borrowed from the bytes decoded */
    struct socks6_addr reporter; /* ERROR_MESSAGE: who reported it; port 0 */
    uint8_t error_code;          /* ERROR_MESSAGE: enum socks6_udp_error_code */
};

/* The longest header in front of a payload, and what is left for a payload in one message. */
#define SOCKS6_UDP_HEADER_MAX (12u + 4u + 1u + SOCKS6_NAME_MAX)
#define SOCKS6_UDP_MESSAGE_MAX 65535u

/*
 * One message from a datagram. In the framing of -09 and later bytes beyond the message length are ignored, fewer are an error; in -08 framing every datagram is a
 * DATAGRAM. 0, SOCKS6_ERR_VERSION, _ADDRESS or _MALFORMED; `out` is untouched then.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_udp_decode_datagram(enum socks6_udp_framing framing, const uint8_t *bytes,
                                                            size_t len, struct socks6_udp_message *out);

/*
 * One message from the TCP stream: `*used` bytes of it, SOCKS6_NEED_MORE (looks at the version byte at once), or an
 * error as above. In -08 framing `seen_initialization` tells whether the 8-byte association ID has been read before;
 * what follows it is the one-byte confirmation. Ignored in the later framings.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_udp_decode_stream(enum socks6_udp_framing framing, int seen_initialization,
                                                          const uint8_t *bytes, size_t len,
                                                          struct socks6_udp_message *out, size_t *used);

/*
 * Writes a whole message, payload included (which must not overlap `buf`). 0 and `*written`; SOCKS6_ERR_TOO_LONG if it does not fit into `size` or
 * into 65535; SOCKS6_ERR_INVALID for a message that this framing does not have (Error in -08) or a bad field.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_udp_encode(enum socks6_udp_framing framing,
                                                   const struct socks6_udp_message *message, uint8_t *buf, size_t size,
                                                   size_t *written);

/*
 * Bytes that socks6_udp_encode() writes before the payload of a DATAGRAM to or from `addr`: headroom for zero-copy. 0 if
 * the address is no valid one.
 */
SOCKS6_API size_t socks6_udp_header_len(enum socks6_udp_framing framing, const struct socks6_addr *addr);
/* Only that header. `payload_len` counts into its length field. Errors as socks6_udp_encode(). */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_udp_encode_header(enum socks6_udp_framing framing, uint64_t association,
                                                          const struct socks6_addr *addr, size_t payload_len,
                                                          uint8_t *buf, size_t size, size_t *written);

#ifdef __cplusplus
}
#endif
#endif
