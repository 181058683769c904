/* Bounds-checked reading and writing; see cursor.h. */
#include "base/cursor.h"

#include <string.h>

void s6_reader_init(struct s6_reader *reader, const uint8_t *bytes, size_t len)
{
    /* NULL + 0 is undefined in C17, so an empty range gets an address of its own. */
    static const uint8_t nothing[1] = {0};

    reader->pos = len > 0 ? bytes : nothing;
    reader->end = reader->pos + len;
    reader->failed = false;
}

size_t s6_reader_left(const struct s6_reader *reader)
{
    return (size_t)(reader->end - reader->pos);
}

/* The next `len` bytes, which the cursor passes; NULL, and failed, if there are fewer. */
static const uint8_t *take(struct s6_reader *reader, size_t len)
{
    const uint8_t *at = reader->pos;

    if (len > s6_reader_left(reader)) {
        reader->failed = true;
        reader->pos = reader->end;
        return NULL;
    }
    reader->pos += len;
    return at;
}

/* An integer of `len` bytes, at most 8. */
static uint64_t read_integer(struct s6_reader *reader, size_t len)
{
    const uint8_t *at = take(reader, len);
    uint64_t value = 0;

    if (at == NULL) {
        return 0;
    }
    for (size_t i = 0; i < len; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

uint8_t s6_read_u8(struct s6_reader *reader)
{
    return (uint8_t)read_integer(reader, 1);
}

uint16_t s6_read_u16(struct s6_reader *reader)
{
    return (uint16_t)read_integer(reader, 2);
}

uint32_t s6_read_u32(struct s6_reader *reader)
{
    return (uint32_t)read_integer(reader, 4);
}

uint64_t s6_read_u64(struct s6_reader *reader)
{
    return read_integer(reader, 8);
}

struct socks6_slice s6_read_slice(struct s6_reader *reader, size_t len)
{
    const uint8_t *at = take(reader, len);

    return (struct socks6_slice){.data = at, .len = at == NULL ? 0 : len};
}

void s6_read_copy(struct s6_reader *reader, void *out, size_t len)
{
    const uint8_t *at = take(reader, len);

    if (at == NULL) {
        memset(out, 0, len);
    } else {
        memcpy(out, at, len);
    }
}

void s6_read_skip(struct s6_reader *reader, size_t len)
{
    (void)take(reader, len);
}

void s6_writer_init(struct s6_writer *writer, uint8_t *bytes, size_t size)
{
    static uint8_t nothing[1]; /* never written: as in s6_reader_init() */

    writer->begin = size > 0 ? bytes : nothing;
    writer->pos = writer->begin;
    writer->end = writer->begin + size;
    writer->failed = false;
}

size_t s6_writer_len(const struct s6_writer *writer)
{
    return (size_t)(writer->pos - writer->begin);
}

/* Room for `len` bytes, which the cursor passes; NULL, and failed, if there is less or something failed before. */
static uint8_t *put(struct s6_writer *writer, size_t len)
{
    uint8_t *at = writer->pos;

    if (writer->failed || len > (size_t)(writer->end - writer->pos)) {
        writer->failed = true;
        return NULL;
    }
    writer->pos += len;
    return at;
}

static void write_integer(struct s6_writer *writer, uint64_t value, size_t len)
{
    uint8_t *at = put(writer, len);

    if (at == NULL) {
        return;
    }
    for (size_t i = len; i > 0; i--) {
        at[i - 1] = (uint8_t)(value & 0xffu);
        value >>= 8;
    }
}

void s6_write_u8(struct s6_writer *writer, uint8_t value)
{
    write_integer(writer, value, 1);
}

void s6_write_u16(struct s6_writer *writer, uint16_t value)
{
    write_integer(writer, value, 2);
}

void s6_write_u32(struct s6_writer *writer, uint32_t value)
{
    write_integer(writer, value, 4);
}

void s6_write_u64(struct s6_writer *writer, uint64_t value)
{
    write_integer(writer, value, 8);
}

void s6_write_bytes(struct s6_writer *writer, const void *bytes, size_t len)
{
    uint8_t *at;

    if (len == 0) {
        return;
    }
    at = put(writer, len);
    if (at != NULL) {
        memcpy(at, bytes, len);
    }
}

void s6_write_zeros(struct s6_writer *writer, size_t len)
{
    uint8_t *at;

    if (len == 0) {
        return;
    }
    at = put(writer, len);
    if (at != NULL) {
        memset(at, 0, len);
    }
}
