/* Memory for the library; see mem.h. The only file of lib/{base,wire,core} that knows malloc(3). */
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *user, size_t size)
{
    (void)user;
    return malloc(size);
}

static void *default_resize(void *user, void *ptr, size_t size)
{
    (void)user;
    return realloc(ptr, size);
}

static void default_free(void *user, void *ptr)
{
    (void)user;
    free(ptr);
}

struct socks6_allocator s6_allocator_or_default(const struct socks6_allocator *given)
{
    if (given != NULL) {
        return *given;
    }
    return (struct socks6_allocator){.alloc = default_alloc, .resize = default_resize, .free = default_free};
}

void *s6_alloc(const struct socks6_allocator *mem, size_t size)
{
    assert(size > 0); /* what alloc(0) gives differs between allocators */
    return mem->alloc(mem->user, size);
}

void *s6_zalloc(const struct socks6_allocator *mem, size_t size)
{
    void *ptr = s6_alloc(mem, size);

    if (ptr != NULL) {
        memset(ptr, 0, size);
    }
    return ptr;
}

void *s6_resize(const struct socks6_allocator *mem, void *ptr, size_t size)
{
    assert(size > 0);
    return mem->resize(mem->user, ptr, size);
}

void s6_free(const struct socks6_allocator *mem, void *ptr)
{
    mem->free(mem->user, ptr);
}

void s6_wipe(void *ptr, size_t len)
{
    if (len == 0) {
        return;
    }
    memset(ptr, 0, len);
    /* The compiler must assume that this reads the memory, so the memset cannot be dropped as a dead store. */
    __asm__ volatile("" : : "r"(ptr) : "memory");
}
