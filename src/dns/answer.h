/*
 * An answer of an upstream server, taken out of its hop: without id and OPT, with the places of its TTLs known, so that
 * it can be kept and given to whoever asks. Pure but for its memory, which is counted and shared between threads.
 */
#ifndef DNS_ANSWER_H
#define DNS_ANSWER_H

#include "dns/request.h"

struct dns_answer;

/* A negative answer lives at most that long (RFC 2308 section 5), any other at most DNS_TTL_MAX_S. */
#define DNS_NEGATIVE_TTL_MAX_S 10800u
#define DNS_TTL_MAX_S 86400u
/* A server failure is remembered for a moment, so that a failing zone does not multiply questions (RFC 9520 3.2). */
#define DNS_FAILURE_TTL_S 1u

/*
 * Whether `message` is an answer to `request` at all: a response to a query, with the same question. (The id is the
 * caller's to compare.) An error may come without the question.
 */
bool dns_answer_fits(const uint8_t *message, size_t len, const struct dns_request *request);

/*
 * Makes one from a message that fits; `now_ms` is when it came. -EBADMSG: malformed; -ENOMEM; -EMSGSIZE: without its
 * OPT in the middle it would be too long.
 */
SOCKS6_MUST_CHECK int dns_answer_new(const uint8_t *message, size_t len, const struct dns_request *request,
                                     uint64_t now_ms, struct dns_answer **out);
/* One of our own: the rcode (0..15) and, for OK, address records of the question's name. NULL = no memory. */
struct dns_answer *dns_answer_make(const struct dns_request *request, enum dns_rcode rcode,
                                   const struct socks6_addr *addrs, size_t count, uint32_t ttl_s, uint64_t now_ms);

struct dns_answer *dns_answer_retain(struct dns_answer *answer);
/* Takes NULL. */
void dns_answer_release(struct dns_answer *answer);

/* Seconds that it may be kept from when it came; 0 = not at all. */
uint32_t dns_answer_ttl_s(const struct dns_answer *answer);
uint64_t dns_answer_came_ms(const struct dns_answer *answer);
/* Bytes of memory that it takes. */
size_t dns_answer_size(const struct dns_answer *answer);
/* Without OPT, id 0, TTLs as they came; valid as long as the answer. */
struct socks6_slice dns_answer_message(const struct dns_answer *answer);

/* What this hop adds for a client that sent OPT. */
struct dns_hop {
    uint16_t keepalive_100ms; /* RFC 7828, in units of 100 ms; sent if the client asked for it; 0 = none */
    uint16_t padding_block;   /* RFC 8467; sent if the client padded; 0 = none */
    uint16_t udp_len;         /* what we can receive */
};

/* The most that dns_answer_render() writes. */
#define DNS_RENDER_MAX DNS_MESSAGE_MAX

/*
 * Writes the answer to `request`: its id, its question as it was spelled, RD and CD as it had them, AD only if it asked
 * for AD or DO (RFC 6840 5.8), TTLs less the age, our OPT if it had one. `out` has DNS_RENDER_MAX bytes; returns the
 * length.
 */
size_t dns_answer_render(const struct dns_answer *answer, const struct dns_request *request, const struct dns_hop *hop,
                         uint64_t now_ms, uint8_t *out);

/* EDNS Extended DNS Errors (RFC 8914) that we send ourselves. */
enum dns_ede { DNS_EDE_NONE = -1, DNS_EDE_PROHIBITED = 18, DNS_EDE_NO_REACHABLE = 22, DNS_EDE_NETWORK = 23 };

/* Writes an error without records: the question if it is known, OPT if there was one. `out` as above. */
size_t dns_error_render(const struct dns_request *request, enum dns_rcode rcode, enum dns_ede ede,
                        const struct dns_hop *hop, uint8_t *out);

#endif
