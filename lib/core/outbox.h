/*
 * Bytes on their way to the peer, with a last word that needs no memory.
 *
 * Used by: both conversations. The encoders of wire append to `queue`; what does not fit into memory any more is said
 * with s6_outbox_last_word(), whose room is part of the object: a conversation that runs out of memory still ends with
 * a well-formed message behind what had been queued before.
 */
#ifndef S6_CORE_OUTBOX_H
#define S6_CORE_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#include "base/bytebuf.h"

/* The longest last word: an Operation Reply with an IPv4 address. */
#define S6_LAST_WORD_MAX 12u

struct s6_outbox {
    struct s6_buf queue;
    uint8_t last[S6_LAST_WORD_MAX]; /* sent behind `queue` */
    uint8_t last_len;
    uint8_t last_sent;
};

/* `mem` is borrowed and outlives the outbox; `cap` as in s6_buf_init(). Contents are wiped: they hold secrets. */
void s6_outbox_init(struct s6_outbox *outbox, const struct socks6_allocator *mem, size_t cap);
void s6_outbox_done(struct s6_outbox *outbox);

/* What is to be sent next, valid until the next call; more may stand behind it. */
struct socks6_slice s6_outbox_slice(const struct s6_outbox *outbox);
/* Takes `len` bytes off the front (never more than there are); gives the storage back once it is empty. */
void s6_outbox_sent(struct s6_outbox *outbox, size_t len);

/* Ends the stream of messages. At most S6_LAST_WORD_MAX bytes, and once. */
void s6_outbox_last_word(struct s6_outbox *outbox, const uint8_t *bytes, size_t len);

#endif
