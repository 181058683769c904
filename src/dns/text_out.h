/*
 * Text into a buffer of fixed size, cut at its end. Internal to text*.c.
 */
#ifndef DNS_TEXT_OUT_H
#define DNS_TEXT_OUT_H

#include <stddef.h>
#include <stdint.h>

struct text_out {
    char *buf;
    size_t size; /* 1 or more; the last byte is kept for the NUL */
    size_t len;
};

/* `text` is always a string afterwards. */
void text_out_init(struct text_out *out, char *buf, size_t size);
void text_out_char(struct text_out *out, char c);
void text_out_string(struct text_out *out, const char *string);
/* In decimal, with at least `digits` digits. */
void text_out_number(struct text_out *out, uint64_t number, unsigned digits);
/* One byte as in a zone file: \DDD unless it is printable ASCII; a backslash before it if it stands in `special`. */
void text_out_byte(struct text_out *out, uint8_t byte, const char *special);
/* Upper-case hexadecimal and base64 (RFC 4648 section 4), a space after every `split` characters; 0 = none. */
void text_out_hex(struct text_out *out, const uint8_t *bytes, size_t len, size_t split);
void text_out_base64(struct text_out *out, const uint8_t *bytes, size_t len, size_t split);
/* Base32 with the "extended hex" alphabet, without padding (RFC 4648 section 7, as RFC 5155 uses it). */
void text_out_base32hex(struct text_out *out, const uint8_t *bytes, size_t len);

#endif
