/*
 * Objects of one size, many and small, without a malloc(3) each: cut from chunks that come from mmap(2) and go back to
 * the kernel as soon as they are empty, so that memory returns after a burst whatever else the heap holds. One thread.
 * Used by the relay, and by the daemon for its connections.
 */
#ifndef IO_SLAB_H
#define IO_SLAB_H

#include <stddef.h>

#define SLAB_CHUNK_LEN 65536u
#define SLAB_OBJECT_MIN 64u
#define SLAB_OBJECT_MAX 4096u
/* Empty chunks that stay, so that connections that come and go do not ask the kernel each time. */
#define SLAB_EMPTY_MAX 4u

struct slab_chunk;

struct slab {
    size_t object_len;
    size_t per_chunk;
    size_t used_count;           /* objects given out */
    struct slab_chunk *chunks;   /* all */
    struct slab_chunk *has_room; /* those with a free object */
    unsigned empty_count;        /* of these, those without any object: at most SLAB_EMPTY_MAX */
};

/* `object_len`: SLAB_OBJECT_MIN to SLAB_OBJECT_MAX. The slab must not move while it has objects. */
void slab_init(struct slab *slab, size_t object_len);
/* All objects must have been freed. */
void slab_done(struct slab *slab);

/* Zeroed, aligned for any type; NULL if there is no memory. */
void *slab_alloc(struct slab *slab);
/* Takes NULL. */
void slab_free(struct slab *slab, void *object);

/*
 * The objects given out, in no particular order: the first (`object` NULL) or the next; NULL = no more. Before an
 * object is freed its next one is to be asked for; that stays valid if only the former is freed meanwhile.
 */
void *slab_next(const struct slab *slab, void *object);

#endif
