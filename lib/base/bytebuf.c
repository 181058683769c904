/* A growing byte buffer with a cap; see bytebuf.h. */
#include "base/bytebuf.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

/* First storage: a request without options, or any reply, fits. */
#define FIRST_ROOM 64u

void s6_buf_init(struct s6_buf *buf, const struct socks6_allocator *mem, size_t cap, bool wipe)
{
    *buf = (struct s6_buf){.mem = mem, .cap = cap, .wipe = wipe};
}

/* Gives the storage back and nothing else. */
static void drop_storage(struct s6_buf *buf)
{
    if (buf->wipe) {
        s6_wipe(buf->data, buf->room);
    }
    s6_free(buf->mem, buf->data);
}

void s6_buf_done(struct s6_buf *buf)
{
    drop_storage(buf);
    buf->data = NULL;
    buf->room = 0;
    buf->head = 0;
    buf->tail = 0;
}

size_t s6_buf_len(const struct s6_buf *buf)
{
    return buf->tail - buf->head;
}

struct socks6_slice s6_buf_slice(const struct s6_buf *buf)
{
    if (buf->data == NULL) {
        return (struct socks6_slice){0};
    }
    return (struct socks6_slice){.data = buf->data + buf->head, .len = s6_buf_len(buf)};
}

/* Moves what is held to the front of the storage; with secrets about, leaves no copy behind. */
static void compact(struct s6_buf *buf)
{
    size_t held = s6_buf_len(buf);

    memmove(buf->data, buf->data + buf->head, held);
    if (buf->wipe) {
        s6_wipe(buf->data + held, buf->tail - held);
    }
    buf->head = 0;
    buf->tail = held;
}

/* The storage to have for `wanted` bytes: doubled until they fit, at most the cap. */
static size_t next_room(const struct s6_buf *buf, size_t wanted)
{
    size_t room = buf->room > FIRST_ROOM ? buf->room : FIRST_ROOM;

    while (room < wanted && room <= buf->cap / 2) {
        room *= 2;
    }
    return room < wanted || room > buf->cap ? buf->cap : room;
}

/* realloc(3) would leave secrets in the old block, so this always goes through a new one. */
static int grow(struct s6_buf *buf, size_t wanted)
{
    size_t room = next_room(buf, wanted);
    size_t held = s6_buf_len(buf);
    uint8_t *data = s6_alloc(buf->mem, room);

    if (data == NULL) {
        return SOCKS6_ERR_NOMEM;
    }
    if (held > 0) {
        memcpy(data, buf->data + buf->head, held);
    }
    drop_storage(buf);
    buf->data = data;
    buf->room = room;
    buf->head = 0;
    buf->tail = held;
    return SOCKS6_OK;
}

int s6_buf_reserve(struct s6_buf *buf, size_t len)
{
    size_t held = s6_buf_len(buf);

    if (len > buf->cap - held) {
        return SOCKS6_ERR_TOO_LONG;
    }
    if (len <= buf->room - buf->tail) {
        return SOCKS6_OK;
    }
    if (held + len <= buf->room) {
        compact(buf);
        return SOCKS6_OK;
    }
    return grow(buf, held + len);
}

int s6_buf_append(struct s6_buf *buf, const void *bytes, size_t len)
{
    int err = s6_buf_reserve(buf, len);

    if (err != SOCKS6_OK) {
        return err;
    }
    if (len > 0) {
        memcpy(buf->data + buf->tail, bytes, len);
        buf->tail += len;
    }
    return SOCKS6_OK;
}

int s6_buf_writer(struct s6_buf *buf, size_t len, struct s6_writer *writer)
{
    int err = s6_buf_reserve(buf, len);

    if (err != SOCKS6_OK) {
        return err;
    }
    s6_writer_init(writer, len > 0 ? buf->data + buf->tail : NULL, len);
    return SOCKS6_OK;
}

void s6_buf_written(struct s6_buf *buf, const struct s6_writer *writer)
{
    assert(s6_writer_len(writer) == 0 || writer->begin == buf->data + buf->tail);
    buf->tail += s6_writer_len(writer);
}

void s6_buf_consume(struct s6_buf *buf, size_t len)
{
    assert(len <= s6_buf_len(buf));
    if (buf->wipe && len > 0) {
        s6_wipe(buf->data + buf->head, len);
    }
    buf->head += len;
    if (buf->head == buf->tail) {
        buf->head = 0;
        buf->tail = 0;
    }
}
