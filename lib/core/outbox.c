/* Bytes on their way to the peer; see outbox.h. */
#include "core/outbox.h"

#include <assert.h>
#include <string.h>

void s6_outbox_init(struct s6_outbox *outbox, const struct socks6_allocator *mem, size_t cap)
{
    s6_buf_init(&outbox->queue, mem, cap, true);
    outbox->last_len = 0;
    outbox->last_sent = 0;
}

void s6_outbox_done(struct s6_outbox *outbox)
{
    s6_buf_done(&outbox->queue);
    outbox->last_len = 0;
    outbox->last_sent = 0;
}

struct socks6_slice s6_outbox_slice(const struct s6_outbox *outbox)
{
    if (s6_buf_len(&outbox->queue) > 0) {
        return s6_buf_slice(&outbox->queue);
    }
    return (struct socks6_slice){.data = outbox->last + outbox->last_sent,
                                 .len = (size_t)(outbox->last_len - outbox->last_sent)};
}

void s6_outbox_sent(struct s6_outbox *outbox, size_t len)
{
    size_t queued = s6_buf_len(&outbox->queue);
    size_t from_queue = len < queued ? len : queued;

    s6_buf_consume(&outbox->queue, from_queue);
    if (s6_buf_len(&outbox->queue) > 0) {
        return;
    }
    s6_buf_done(&outbox->queue);
    len -= from_queue;
    if (len > (size_t)(outbox->last_len - outbox->last_sent)) {
        len = (size_t)(outbox->last_len - outbox->last_sent);
    }
    outbox->last_sent = (uint8_t)(outbox->last_sent + len);
}

void s6_outbox_last_word(struct s6_outbox *outbox, const uint8_t *bytes, size_t len)
{
    assert(outbox->last_len == 0 && len <= S6_LAST_WORD_MAX);
    memcpy(outbox->last, bytes, len);
    outbox->last_len = (uint8_t)len;
}
