/*
 * Random numbers that nobody can guess (getrandom(2)), fetched in batches. One thread.
 */
#ifndef DNS_RANDOM_H
#define DNS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct dns_random {
    uint8_t bytes[256];
    size_t left;
};

/* Zero-initialise before the first use. */
uint16_t dns_random16(struct dns_random *random);
void dns_random_fill(void *out, size_t len);

#endif
