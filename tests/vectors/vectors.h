/* Reads the annotated vectors beside this file (README.md has the format). For unit tests. */
#ifndef TESTS_VECTORS_H
#define TESTS_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vector {
    char name[64];
    int verdict;         /* enum socks6_err */
    char context[2][24]; /* the words after the verdict; empty if there are none */
    uint8_t *bytes;      /* an allocation of its own of exactly `len` bytes, so that ASan sees each overrun */
    size_t len;
    uint8_t *canonical; /* what the encoder writes for it: a copy of `bytes` unless the vector says otherwise */
    size_t canonical_len;
};

struct vectors {
    struct vector *items;
    size_t count;
};

/* Loads DIR/FILE, DIR being the environment's SOCKS6_VECTORS. Aborts with a message if the file is bad or empty. */
struct vectors vectors_load(const char *file);
void vectors_free(struct vectors *vectors);

#endif
