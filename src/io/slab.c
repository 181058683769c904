/*
 * A chunk lies at a multiple of its size, so the chunk of an object is found by masking the object's address. Which
 * objects of a chunk are given out is a bit each, which also makes them easy to enumerate.
 */
#include "io/slab.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

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
#include <sanitizer/lsan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, len) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, len) ((void)0)
#endif

#define ALIGNMENT _Alignof(max_align_t)
#define WORD_BITS 64u
#define WORDS (SLAB_CHUNK_LEN / SLAB_OBJECT_MIN / WORD_BITS)

struct links {
    struct slab_chunk *prev, *next;
};

struct slab_chunk {
    struct links all;  /* in slab->chunks */
    struct links room; /* in slab->has_room, while it has a free object */
    size_t used_count;
    uint64_t used[WORDS]; /* one bit per object; those beyond the last object stay set */
};

#define CHUNK_HEAD ((sizeof(struct slab_chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static void link_all(struct slab *slab, struct slab_chunk *chunk)
{
    chunk->all = (struct links){.next = slab->chunks};
    if (slab->chunks != NULL) {
        slab->chunks->all.prev = chunk;
    }
    slab->chunks = chunk;
}

static void unlink_all(struct slab *slab, struct slab_chunk *chunk)
{
    if (chunk->all.prev != NULL) {
        chunk->all.prev->all.next = chunk->all.next;
    } else {
        slab->chunks = chunk->all.next;
    }
    if (chunk->all.next != NULL) {
        chunk->all.next->all.prev = chunk->all.prev;
    }
}

static void link_room(struct slab *slab, struct slab_chunk *chunk)
{
    chunk->room = (struct links){.next = slab->has_room};
    if (slab->has_room != NULL) {
        slab->has_room->room.prev = chunk;
    }
    slab->has_room = chunk;
}

static void unlink_room(struct slab *slab, struct slab_chunk *chunk)
{
    if (chunk->room.prev != NULL) {
        chunk->room.prev->room.next = chunk->room.next;
    } else {
        slab->has_room = chunk->room.next;
    }
    if (chunk->room.next != NULL) {
        chunk->room.next->room.prev = chunk->room.prev;
    }
}

/*
 * SLAB_CHUNK_LEN bytes at a multiple of it. The kernel places mappings of one size side by side, so once one is
 * aligned the next ones mostly are, too; else twice as much is asked for and the ends are given back.
 */
static void *map_chunk(void)
{
    const int prot = PROT_READ | PROT_WRITE;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *bytes = mmap(NULL, SLAB_CHUNK_LEN, prot, flags, -1, 0);
    if (bytes == MAP_FAILED) {
        return NULL;
    }
    if (((uintptr_t)bytes & (SLAB_CHUNK_LEN - 1)) == 0) {
        return bytes;
    }
    (void)munmap(bytes, SLAB_CHUNK_LEN);
    bytes = mmap(NULL, (size_t)2 * SLAB_CHUNK_LEN, prot, flags, -1, 0);
    if (bytes == MAP_FAILED) {
        return NULL;
    }
    size_t before = -(uintptr_t)bytes & (SLAB_CHUNK_LEN - 1);
    if (before > 0) {
        (void)munmap(bytes, before);
    }
    (void)munmap(bytes + before + SLAB_CHUNK_LEN, SLAB_CHUNK_LEN - before);
    return bytes + before;
}

static struct slab_chunk *new_chunk(struct slab *slab)
{
    struct slab_chunk *chunk = map_chunk(); /* zeroed */
    if (chunk == NULL) {
        return NULL;
    }
    for (size_t i = slab->per_chunk; i < (size_t)WORDS * WORD_BITS; i++) {
        chunk->used[i / WORD_BITS] |= 1ull << i % WORD_BITS;
    }
    ASAN_POISON_MEMORY_REGION((char *)chunk + CHUNK_HEAD, SLAB_CHUNK_LEN - CHUNK_HEAD);
#ifdef SLAB_POISONS
    __lsan_register_root_region(chunk, SLAB_CHUNK_LEN); /* objects may own heap blocks */
#endif
    link_all(slab, chunk);
    link_room(slab, chunk);
    slab->empty_count++;
    return chunk;
}

static void free_chunk(struct slab *slab, struct slab_chunk *chunk)
{
    unlink_room(slab, chunk);
    unlink_all(slab, chunk);
    ASAN_UNPOISON_MEMORY_REGION(chunk, SLAB_CHUNK_LEN);
#ifdef SLAB_POISONS
    __lsan_unregister_root_region(chunk, SLAB_CHUNK_LEN);
#endif
    (void)munmap(chunk, SLAB_CHUNK_LEN);
}

static void *object_at(const struct slab *slab, struct slab_chunk *chunk, size_t index)
{
    return (char *)chunk + CHUNK_HEAD + index * slab->object_len;
}

static struct slab_chunk *chunk_of(const void *object)
{
    return (void *)((uintptr_t)object & ~(uintptr_t)(SLAB_CHUNK_LEN - 1));
}

static size_t index_of(const struct slab *slab, const struct slab_chunk *chunk, const void *object)
{
    size_t index = ((size_t)((const char *)object - (const char *)chunk) - CHUNK_HEAD) / slab->object_len;
    assert(index < slab->per_chunk && (chunk->used[index / WORD_BITS] >> index % WORD_BITS & 1) != 0);
    return index;
}

void slab_init(struct slab *slab, size_t object_len)
{
    assert(object_len >= SLAB_OBJECT_MIN && object_len <= SLAB_OBJECT_MAX);
    memset(slab, 0, sizeof *slab);
    slab->object_len = (object_len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    slab->per_chunk = (SLAB_CHUNK_LEN - CHUNK_HEAD) / slab->object_len;
}

void slab_done(struct slab *slab)
{
    assert(slab->used_count == 0);
    while (slab->chunks != NULL) {
        free_chunk(slab, slab->chunks);
    }
}

void *slab_alloc(struct slab *slab)
{
    struct slab_chunk *chunk = slab->has_room != NULL ? slab->has_room : new_chunk(slab);
    if (chunk == NULL) {
        return NULL;
    }
    size_t word = 0;
    while (chunk->used[word] == UINT64_MAX) {
        word++;
        assert(word < WORDS);
    }
    unsigned bit = (unsigned)__builtin_ctzll(~chunk->used[word]);
    chunk->used[word] |= 1ull << bit;
    if (chunk->used_count++ == 0) {
        slab->empty_count--;
    }
    slab->used_count++;
    if (chunk->used_count == slab->per_chunk) {
        unlink_room(slab, chunk);
    }
    void *object = object_at(slab, chunk, word * WORD_BITS + bit);
    ASAN_UNPOISON_MEMORY_REGION(object, slab->object_len);
    return memset(object, 0, slab->object_len);
}

void slab_free(struct slab *slab, void *object)
{
    if (object == NULL) {
        return;
    }
    struct slab_chunk *chunk = chunk_of(object);
    size_t index = index_of(slab, chunk, object);
    if (chunk->used_count == slab->per_chunk) {
        link_room(slab, chunk);
    }
    chunk->used[index / WORD_BITS] &= ~(1ull << index % WORD_BITS);
    ASAN_POISON_MEMORY_REGION(object, slab->object_len);
    chunk->used_count--;
    slab->used_count--;
    if (chunk->used_count > 0) {
        return;
    }
    if (slab->empty_count < SLAB_EMPTY_MAX) {
        slab->empty_count++;
    } else {
        free_chunk(slab, chunk);
    }
}

void *slab_next(const struct slab *slab, void *object)
{
    struct slab_chunk *chunk = slab->chunks;
    size_t index = 0;
    if (object != NULL) {
        chunk = chunk_of(object);
        index = index_of(slab, chunk, object) + 1;
    }
    for (; chunk != NULL; chunk = chunk->all.next, index = 0) {
        for (; index < slab->per_chunk; index++) {
            if ((chunk->used[index / WORD_BITS] >> index % WORD_BITS & 1) != 0) {
                return object_at(slab, chunk, index);
            }
        }
    }
    return NULL;
}
