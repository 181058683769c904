/* A counting allocator; see heap.h. */
#include "heap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#define UNDER_MSAN
#include <sanitizer/msan_interface.h>
#endif
#endif

/* In front of each block; keeps the alignment of malloc(3). */
union header {
    size_t size;
    max_align_t align;
};

static bool refuses(struct heap *heap)
{
    heap->requests++;
    return heap->fail_at != 0 && (heap->requests == heap->fail_at || (heap->fail_on && heap->requests > heap->fail_at));
}

static void *heap_alloc(void *user, size_t size)
{
    struct heap *heap = user;
    union header *block = refuses(heap) ? NULL : malloc(sizeof *block + size);

    if (block == NULL) {
        return NULL;
    }
    block->size = size;
#ifndef UNDER_MSAN /* it finds reads of what was never written by itself */
    memset(block + 1, 0xa5, size);
#endif
    heap->blocks++;
    heap->bytes += size;
    heap->peak = heap->bytes > heap->peak ? heap->bytes : heap->peak;
    return block + 1;
}

static bool holds(const char *bytes, size_t size, const char *secret)
{
    size_t len = strlen(secret);

    for (size_t i = 0; i + len <= size; i++) {
        if (memcmp(bytes + i, secret, len) == 0) {
            return true;
        }
    }
    return false;
}

static void heap_free(void *user, void *ptr)
{
    struct heap *heap = user;
    union header *block = ptr;

    if (ptr == NULL) {
        return;
    }
    block--;
#ifdef UNDER_MSAN /* all bytes are looked at, padding too */
    __msan_unpoison(ptr, block->size);
#endif
    if (heap->secret != NULL && holds(ptr, block->size, heap->secret)) {
        heap->spilled++;
    }
    heap->blocks--;
    heap->bytes -= block->size;
    free(block);
}

static void *heap_resize(void *user, void *ptr, size_t size)
{
    void *fresh = heap_alloc(user, size);

    if (fresh != NULL && ptr != NULL) {
        size_t old = ((union header *)ptr - 1)->size;

        memcpy(fresh, ptr, old < size ? old : size);
        heap_free(user, ptr);
    }
    return fresh;
}

void heap_init(struct heap *heap)
{
    memset(heap, 0, sizeof *heap);
    heap->allocator =
        (struct socks6_allocator){.alloc = heap_alloc, .resize = heap_resize, .free = heap_free, .user = heap};
}
