/*
 * DNS values as text and back: the names of types, classes, opcodes and rcodes, and record data as it stands in a zone
 * file ("presentation format", RFC 1035 section 5.1). No I/O, no memory but the caller's, any bytes are safe.
 *
 * Used by the client program and by whatever logs or shows DNS. All text is printable ASCII: other bytes come out as
 * \DDD, so that it is safe on a terminal and in a log.
 */
#ifndef DNS_TEXT_H
#define DNS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns/message.h"

/* ---- numbers with names ---- */

/* Room for the longest name and its NUL: "OPENPGPKEY", "CLASS65535", "RESERVED15". */
#define DNS_MNEMONIC_MAX 16u

/* "AAAA", or "TYPE65280" (RFC 3597 section 5) for a type without a name here. Returns the length without NUL. */
size_t dns_type_format(uint16_t type, char text[DNS_MNEMONIC_MAX]);
size_t dns_class_format(uint16_t class, char text[DNS_MNEMONIC_MAX]);
/* With the extended bits of EDNS, "BADVERS"; "RESERVED12" for what has no name, as dig(1) writes it. */
size_t dns_rcode_format(unsigned rcode, char text[DNS_MNEMONIC_MAX]);
size_t dns_opcode_format(unsigned opcode, char text[DNS_MNEMONIC_MAX]);
/* "Stale Answer" and so on, RFC 8914 section 4 and the registry. NULL for a code that has no name. Static storage. */
const char *dns_ede_name(unsigned code);

/* Names in any case, TYPEnnn and CLASSnnn. False, and `out` untouched, for anything else. */
bool dns_type_parse(const char *text, uint16_t *out);
bool dns_class_parse(const char *text, uint16_t *out);

/* ---- record data ---- */

/* Characters after which dig(1) puts a space into hexadecimal and base64. */
#define DNS_SPLIT_WIDTH 56u

/* Room for the longest text of record data: a bitmap of all types, each by its number. */
#define DNS_RDATA_TEXT_MAX ((size_t)65536 * sizeof "TYPE65535" + DNS_NAME_TEXT_MAX + 1)

/*
 * The record's data. `message` is the whole message, whose names the data may point to. Data that does not have the
 * form of its type, or whose type has no form here, comes out as RFC 3597 section 5 says: \# LENGTH HEX. `split`: a
 * space after that many characters of hexadecimal and base64, a multiple of 4; 0 = none. Returns the length without
 * NUL; cuts at `size`, which is 1 or more.
 */
size_t dns_rdata_format(const uint8_t *message, size_t message_len, const struct dns_record *record, size_t split,
                        char *text, size_t size);

/* Bytes as they stand between quotes in a zone file, with the quotes: "a\"b\000". As above. */
size_t dns_quoted_format(const uint8_t *bytes, size_t len, char *text, size_t size);
/* Upper-case hexadecimal, without spaces. As above. */
size_t dns_hex_format(const uint8_t *bytes, size_t len, char *text, size_t size);

#endif
