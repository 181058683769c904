/*
 * Objects of one size, many and small, without a malloc(3) each: cut from 16 KiB chunks, which go back when they are
 * empty. One thread. Used by the relay.
 */
#ifndef IO_SLAB_H
#define IO_SLAB_H

#include <stddef.h>

#define SLAB_CHUNK_LEN 16384u

struct slab_chunk;

struct slab {
    size_t object_len;
    size_t used_count;           /* objects given out */
    struct slab_chunk *has_room; /* chunks with a free object; at most one of them is empty */
};

/* `object_len` up to 4096. */
void slab_init(struct slab *slab, size_t object_len);
/* All objects must have been freed. */
void slab_done(struct slab *slab);

/* Zeroed, aligned for any type; NULL if there is no memory. */
void *slab_alloc(struct slab *slab);
/* Takes NULL. */
void slab_free(struct slab *slab, void *object);

#endif
