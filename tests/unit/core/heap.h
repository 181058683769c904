/*
 * An allocator that counts: it knows what is still held, can refuse the n-th request, and looks for a secret in what is
 * given back.
 */
#ifndef TEST_CORE_HEAP_H
#define TEST_CORE_HEAP_H

#include <stdbool.h>
#include <stddef.h>

#include <socks6/types.h>

struct heap {
    struct socks6_allocator allocator; /* its `user` is this heap */
    size_t blocks;                     /* held now */
    size_t bytes;                      /* held now */
    size_t peak;                       /* the most bytes that were held at a time */
    size_t requests;                   /* allocations asked for so far */
    size_t fail_at;                    /* refuse the allocation of this number, from 1; 0 = none */
    bool fail_on;                      /* ... and all that follow */
    const char *secret;                /* a text that must be wiped before its block is given back; or NULL */
    size_t spilled;                    /* blocks given back with the secret in them */
};

void heap_init(struct heap *heap);

#endif
