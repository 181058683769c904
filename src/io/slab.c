/*
 * A chunk lies at a multiple of its size, so the chunk of an object is found by masking the object's address. Free
 * objects are chained through their first bytes. A chunk is in the slab's list while it has a free object.
 */
#include "io/slab.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* With AddressSanitizer a freed object is out of bounds until it is given out again. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_POISONS 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SLAB_POISONS 1
#endif
#ifdef SLAB_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, len) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, len) ((void)0)
#endif

#define ALIGNMENT _Alignof(max_align_t)

struct free_object {
    struct free_object *next;
};

struct slab_chunk {
    struct slab_chunk *prev, *next; /* in slab->has_room */
    struct free_object *free;
    size_t used_count;
};

#define CHUNK_HEAD ((sizeof(struct slab_chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static void link_chunk(struct slab *slab, struct slab_chunk *chunk)
{
    chunk->prev = NULL;
    chunk->next = slab->has_room;
    if (chunk->next != NULL) {
        chunk->next->prev = chunk;
    }
    slab->has_room = chunk;
}

static void unlink_chunk(struct slab *slab, struct slab_chunk *chunk)
{
    if (chunk->prev != NULL) {
        chunk->prev->next = chunk->next;
    } else {
        slab->has_room = chunk->next;
    }
    if (chunk->next != NULL) {
        chunk->next->prev = chunk->prev;
    }
}

static struct slab_chunk *new_chunk(struct slab *slab)
{
    struct slab_chunk *chunk = aligned_alloc(SLAB_CHUNK_LEN, SLAB_CHUNK_LEN);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->free = NULL;
    chunk->used_count = 0;
    size_t count = (SLAB_CHUNK_LEN - CHUNK_HEAD) / slab->object_len;
    for (size_t i = count; i-- > 0;) { /* so that the first is given out first */
        struct free_object *object = (void *)((char *)chunk + CHUNK_HEAD + i * slab->object_len);
        object->next = chunk->free;
        chunk->free = object;
        ASAN_POISON_MEMORY_REGION(object, slab->object_len);
    }
    link_chunk(slab, chunk);
    return chunk;
}

static void free_chunk(struct slab_chunk *chunk)
{
    ASAN_UNPOISON_MEMORY_REGION(chunk, SLAB_CHUNK_LEN);
    free(chunk);
}

void slab_init(struct slab *slab, size_t object_len)
{
    assert(object_len > 0 && object_len <= 4096);
    memset(slab, 0, sizeof *slab);
    slab->object_len = (object_len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void slab_done(struct slab *slab)
{
    assert(slab->used_count == 0);
    struct slab_chunk *chunk = slab->has_room;
    while (chunk != NULL) {
        struct slab_chunk *next = chunk->next;
        free_chunk(chunk);
        chunk = next;
    }
    slab->has_room = NULL;
}

void *slab_alloc(struct slab *slab)
{
    struct slab_chunk *chunk = slab->has_room != NULL ? slab->has_room : new_chunk(slab);
    if (chunk == NULL) {
        return NULL;
    }
    struct free_object *object = chunk->free;
    assert(object != NULL);
    ASAN_UNPOISON_MEMORY_REGION(object, slab->object_len);
    chunk->free = object->next;
    chunk->used_count++;
    slab->used_count++;
    if (chunk->free == NULL) {
        unlink_chunk(slab, chunk);
    }
    return memset(object, 0, slab->object_len);
}

void slab_free(struct slab *slab, void *object)
{
    if (object == NULL) {
        return;
    }
    struct slab_chunk *chunk = (void *)((char *)object - ((uintptr_t)object & (SLAB_CHUNK_LEN - 1)));
    struct free_object *freed = object;
    if (chunk->free == NULL) {
        link_chunk(slab, chunk);
    }
    freed->next = chunk->free;
    chunk->free = freed;
    ASAN_POISON_MEMORY_REGION(object, slab->object_len);
    assert(chunk->used_count > 0);
    chunk->used_count--;
    slab->used_count--;
    /* One empty chunk stays, so that a single connection that comes and goes does not ask malloc(3) each time. */
    if (chunk->used_count == 0 && (slab->has_room != chunk || chunk->next != NULL)) {
        unlink_chunk(slab, chunk);
        free_chunk(chunk);
    }
}
