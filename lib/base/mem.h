/*
 * Memory for the library: the caller's allocator, or malloc(3), and a wipe that the compiler may not drop.
 *
 * Used by: everything in lib/ that allocates. Objects keep a copy of the allocator that they were born with.
 */
#ifndef S6_BASE_MEM_H
#define S6_BASE_MEM_H

#include <stddef.h>

#include <socks6/types.h>

/* A copy of `given`, or malloc(3) and its kin if that is NULL. */
struct socks6_allocator s6_allocator_or_default(const struct socks6_allocator *given);

/* `size` bytes, at least 1, uninitialised; NULL if there are none. Owned by the caller: s6_free(). */
SOCKS6_MUST_CHECK void *s6_alloc(const struct socks6_allocator *mem, size_t size);
/* The same, all zero. */
SOCKS6_MUST_CHECK void *s6_zalloc(const struct socks6_allocator *mem, size_t size);
/* As realloc(3), `size` at least 1: NULL leaves `ptr` as it was. Not for secrets: the old block is not wiped. */
SOCKS6_MUST_CHECK void *s6_resize(const struct socks6_allocator *mem, void *ptr, size_t size);
/* Takes NULL. */
void s6_free(const struct socks6_allocator *mem, void *ptr);

/* Overwrites `len` bytes with zeros, also when nobody reads them again. `ptr` may be NULL if `len` is 0. */
void s6_wipe(void *ptr, size_t len);

#endif
