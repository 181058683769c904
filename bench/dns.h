/*
 * The questions of the DNS benchmarks, and their answers: what dns_load asks and checks, and backend.c answers.
 *
 * A question is one for the address of a name made from a number: 16 hexadecimal digits that look random, below
 * bench.example, all of the same length. The answer is one address that follows from the name, so that an answer to
 * another question is noticed.
 */
#ifndef BENCH_DNS_H
#define BENCH_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_HEADER_LEN 12u
#define DNS_QUESTION_LEN 36u /* name, type and class */
#define DNS_QUERY_LEN (DNS_HEADER_LEN + DNS_QUESTION_LEN + 11u)
#define DNS_ANSWER_MAX 512u

/* Writes the query for name `number`: recursion desired, EDNS with 1232 bytes and no options. */
void dns_query(uint64_t number, uint16_t id, uint8_t out[DNS_QUERY_LEN]);

/* NULL if `message` is an answer to dns_query(number): QR, NOERROR, its question and its address; else what it is not. */
const char *dns_check(uint64_t number, const uint8_t *message, size_t len);

/*
 * The server's side: writes the answer to a query of anybody, for whatever name, to `out` (DNS_ANSWER_MAX bytes). A and
 * class IN get the address, all else NODATA. 0 if that is no query.
 */
size_t dns_serve(const uint8_t *query, size_t len, uint8_t *out);

/* In and out of messages, in network order. */
static inline unsigned dns_get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static inline void dns_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

#endif
