/*
 * Addresses on the wire ("Requests", "Operation Replies", "UDP Associate"). The text side is in addr_text.c and <socks6/types.h>.
 *
 * The type byte and the port stand apart from the address in every message, so callers read them themselves.
 *
 * Domain names changed between -11 and -12: padding moved from behind the length byte's count into it. Decoders take
 * both: consume what the place says, then strip trailing NULs. A NUL inside what is left, or an empty name, is malformed.
 */
#ifndef S6_WIRE_ADDR_H
#define S6_WIRE_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/error.h>
#include <socks6/types.h>

#include "base/cursor.h"

/* Where an address stands. */
enum s6_addr_place {
    S6_ADDR_IN_STREAM,  /* requests and replies: a name takes (1 + L) rounded up to a multiple of 4 */
    S6_ADDR_IN_DATAGRAM /* UDP headers: a name takes exactly 1 + L */
};

/*
 * How many bytes an address of this type takes, as far as can be told from the `have` bytes at `bytes` (its own first
 * byte first): exact if it is an IP address or the length byte is there, else 1 (only the length byte is known to be
 * needed). 0 for a type that is not known.
 */
size_t s6_addr_wire_size(uint8_t type, enum s6_addr_place place, const uint8_t *bytes, size_t have);

/*
 * Reads an address of `type` at the cursor; `port` (host order) is put beside it. 0, SOCKS6_ERR_ADDRESS for an unknown
 * type, SOCKS6_ERR_MALFORMED for a bad name or missing bytes. `out` is untouched on failure.
 */
SOCKS6_MUST_CHECK int s6_addr_decode(struct s6_reader *reader, uint8_t type, uint16_t port, enum s6_addr_place place,
                                     struct socks6_addr *out);

/* True if type, length and name are such as s6_addr_decode() and the makers in <socks6/types.h> produce. */
bool s6_addr_is_valid(const struct socks6_addr *addr);

/* Bytes that s6_addr_encode() writes. The address must be valid. */
size_t s6_addr_encoded_len(const struct socks6_addr *addr, enum s6_addr_place place, enum socks6_draft draft);
/* Writes the address (no type, no port) in the form of `draft`. The address must be valid. */
void s6_addr_encode(struct s6_writer *writer, const struct socks6_addr *addr, enum s6_addr_place place,
                    enum socks6_draft draft);

#endif
