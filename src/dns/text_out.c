#include "dns/text_out.h"

#include <string.h>

void text_out_init(struct text_out *out, char *buf, size_t size)
{
    out->buf = buf;
    out->size = size;
    out->len = 0;
    buf[0] = '\0';
}

void text_out_char(struct text_out *out, char c)
{
    if (out->len + 1 < out->size) {
        out->buf[out->len++] = c;
        out->buf[out->len] = '\0';
    }
}

void text_out_string(struct text_out *out, const char *string)
{
    while (*string != '\0') {
        text_out_char(out, *string++);
    }
}

void text_out_number(struct text_out *out, uint64_t number, unsigned digits)
{
    char reversed[24];
    unsigned count = 0;

    do {
        reversed[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count < digits && count < sizeof reversed) {
        reversed[count++] = '0';
    }
    while (count > 0) {
        text_out_char(out, reversed[--count]);
    }
}

void text_out_byte(struct text_out *out, uint8_t byte, const char *special)
{
    if (byte < ' ' || byte > '~') {
        text_out_char(out, '\\');
        text_out_number(out, byte, 3);
        return;
    }
    if (strchr(special, byte) != NULL) {
        text_out_char(out, '\\');
    }
    text_out_char(out, (char)byte);
}

void text_out_hex(struct text_out *out, const uint8_t *bytes, size_t len, size_t split)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < len; i++) {
        if (split > 0 && i > 0 && i * 2 % split == 0) {
            text_out_char(out, ' ');
        }
        text_out_char(out, digits[bytes[i] >> 4]);
        text_out_char(out, digits[bytes[i] & 0xfu]);
    }
}

void text_out_base64(struct text_out *out, const uint8_t *bytes, size_t len, size_t split)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t group = (uint32_t)bytes[i] << 16;

        group |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? bytes[i + 2] : 0;
        if (split > 0 && i > 0 && i / 3 * 4 % split == 0) {
            text_out_char(out, ' ');
        }
        text_out_char(out, digits[group >> 18]);
        text_out_char(out, digits[group >> 12 & 63u]);
        text_out_char(out, (char)(left > 1 ? digits[group >> 6 & 63u] : '='));
        text_out_char(out, (char)(left > 2 ? digits[group & 63u] : '='));
    }
}

void text_out_base32hex(struct text_out *out, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUV";
    uint32_t bits = 0;
    unsigned count = 0;

    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | bytes[i];
        for (count += 8; count >= 5; count -= 5) {
            text_out_char(out, digits[bits >> (count - 5) & 31u]);
        }
    }
    if (count > 0) {
        text_out_char(out, digits[bits << (5 - count) & 31u]);
    }
}
