/*
 * A growing byte buffer that has its cap from birth: bytes are appended at the back and taken from the front.
 *
 * Used by: the encoders of wire, and the conversations in core for input gathered and output not yet sent.
 * Nothing is allocated until the first byte comes; the storage doubles and never grows past the cap.
 */
#ifndef S6_BASE_BYTEBUF_H
#define S6_BASE_BYTEBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/error.h>
#include <socks6/types.h>

#include "base/cursor.h"

struct s6_buf {
    const struct socks6_allocator *mem; /* borrowed; outlives the buffer */
    uint8_t *data;                      /* storage, or NULL */
    size_t room;                        /* bytes of storage */
    size_t head;                        /* offset of the first byte held */
    size_t tail;                        /* offset behind the last one */
    size_t cap;                         /* the most bytes it may hold at a time */
    bool wipe;                          /* it may hold secrets: overwrite storage before giving it back */
};

void s6_buf_init(struct s6_buf *buf, const struct socks6_allocator *mem, size_t cap, bool wipe);
/* Gives the storage back (wiped if asked for). The buffer is empty afterwards and may be used again. */
void s6_buf_done(struct s6_buf *buf);

size_t s6_buf_len(const struct s6_buf *buf);
/* The bytes held; valid until the next call that changes the buffer. */
struct socks6_slice s6_buf_slice(const struct s6_buf *buf);

/* Room for `len` more bytes, so that appending them cannot fail. 0, SOCKS6_ERR_TOO_LONG (past the cap) or _NOMEM. */
SOCKS6_MUST_CHECK int s6_buf_reserve(struct s6_buf *buf, size_t len);
/* 0, or as s6_buf_reserve() and nothing is appended. `bytes` may be NULL if `len` is 0; it must not lie in the buffer. */
SOCKS6_MUST_CHECK int s6_buf_append(struct s6_buf *buf, const void *bytes, size_t len);

/*
 * For encoders: reserves exactly `len` bytes and sets `writer` on them; s6_buf_written() then takes over what was
 * written. Until then the buffer holds what it held before; on failure `writer` is untouched.
 */
SOCKS6_MUST_CHECK int s6_buf_writer(struct s6_buf *buf, size_t len, struct s6_writer *writer);
void s6_buf_written(struct s6_buf *buf, const struct s6_writer *writer);

/* Takes `len` bytes (at most s6_buf_len()) off the front. */
void s6_buf_consume(struct s6_buf *buf, size_t len);

#endif
