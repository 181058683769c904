/* What every fuzz target needs: the entry point that libFuzzer and replay.c call, and a way to say that a law was broken. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* One input. Returns 0; a broken law aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the run unless `holds`, in every kind of build. */
static inline void require(bool holds, const char *law)
{
    if (!holds) {
        fprintf(stderr, "broken: %s\n", law);
        abort();
    }
}

#endif
