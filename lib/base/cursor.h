/*
 * Bounds-checked reading and writing of byte ranges, integers in network byte order.
 *
 * Theory of operation: the error is sticky. A reader that would pass its end yields zeros (and empty slices), moves to
 * the end and stays `failed`; a writer that would pass its end writes nothing more and stays `failed`. So a decoder reads
 * a whole structure and asks once. No other code in the library walks over wire bytes with pointers.
 */
#ifndef S6_BASE_CURSOR_H
#define S6_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

/* Reads from bytes borrowed for as long as the reader and the slices it hands out are used. */
struct s6_reader {
    const uint8_t *pos;
    const uint8_t *end;
    bool failed; /* something was asked for beyond the end */
};

/* `bytes` may be NULL if `len` is 0. */
void s6_reader_init(struct s6_reader *reader, const uint8_t *bytes, size_t len);
size_t s6_reader_left(const struct s6_reader *reader);
uint8_t s6_read_u8(struct s6_reader *reader);
uint16_t s6_read_u16(struct s6_reader *reader);
uint32_t s6_read_u32(struct s6_reader *reader);
uint64_t s6_read_u64(struct s6_reader *reader);
/* The next `len` bytes, borrowed; an empty slice if there are fewer (and failed). */
struct socks6_slice s6_read_slice(struct s6_reader *reader, size_t len);
/* Copies the next `len` bytes; zeros if there are fewer (and failed). */
void s6_read_copy(struct s6_reader *reader, void *out, size_t len);
void s6_read_skip(struct s6_reader *reader, size_t len);

/* Writes into the caller's memory. */
struct s6_writer {
    uint8_t *begin;
    uint8_t *pos;
    uint8_t *end;
    bool failed; /* something did not fit; what had been written before is there */
};

/* `bytes` may be NULL if `size` is 0. */
void s6_writer_init(struct s6_writer *writer, uint8_t *bytes, size_t size);
/* Bytes written so far. */
size_t s6_writer_len(const struct s6_writer *writer);
void s6_write_u8(struct s6_writer *writer, uint8_t value);
void s6_write_u16(struct s6_writer *writer, uint16_t value);
void s6_write_u32(struct s6_writer *writer, uint32_t value);
void s6_write_u64(struct s6_writer *writer, uint64_t value);
/* `bytes` may be NULL if `len` is 0. */
void s6_write_bytes(struct s6_writer *writer, const void *bytes, size_t len);
void s6_write_zeros(struct s6_writer *writer, size_t len);

/* `len` rounded up to a multiple of 4. `len` at most SIZE_MAX - 3. */
static inline size_t s6_round4(size_t len)
{
    return (len + 3u) & ~(size_t)3u;
}

#endif
