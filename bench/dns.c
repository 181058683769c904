/* See dns.h. */
#include "dns.h"

#include <string.h>

#define FLAG_QR 0x8000u
#define FLAG_AA 0x0400u
#define FLAG_TC 0x0200u
#define FLAG_RD 0x0100u
#define FLAG_RA 0x0080u
#define OPCODE_MASK 0x7800u
#define RCODE_MASK 0x000fu
#define TYPE_A 1u
#define TYPE_OPT 41u
#define CLASS_IN 1u
#define LABEL_LEN 16u
#define NAME_MAX_LEN 255u
#define FIXED_LEN 10u /* type, class, TTL and length of a record */
#define OPT_LEN 11u
#define UDP_LEN 1232u
#define TTL_S 3600u

static const uint8_t query_head[DNS_HEADER_LEN] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1};
static const uint8_t question_tail[] = "\5bench\7example\0\0\1\0"; /* the last byte is that of the literal's end */
static const uint8_t opt[OPT_LEN] = {0, 0, TYPE_OPT, UDP_LEN >> 8, UDP_LEN & 0xff};

/* Numbers one after the other become labels that have nothing in common (the last step of splitmix64). */
static uint64_t scatter(uint64_t x)
{
    x = (x + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void put_question(uint64_t number, uint8_t out[DNS_QUESTION_LEN])
{
    uint64_t digits = scatter(number);

    out[0] = LABEL_LEN;
    for (unsigned i = 0; i < LABEL_LEN; i++) {
        out[1 + i] = (uint8_t) "0123456789abcdef"[digits >> 4 * i & 15];
    }
    memcpy(out + 1 + LABEL_LEN, question_tail, sizeof question_tail);
    out[DNS_QUESTION_LEN - 1] = CLASS_IN;
}

_Static_assert(1 + LABEL_LEN + sizeof question_tail == DNS_QUESTION_LEN, "a question is that long");

void dns_query(uint64_t number, uint16_t id, uint8_t out[DNS_QUERY_LEN])
{
    memcpy(out, query_head, sizeof query_head);
    dns_put16(out, id);
    put_question(number, out + DNS_HEADER_LEN);
    memcpy(out + DNS_HEADER_LEN + DNS_QUESTION_LEN, opt, sizeof opt);
}

/* The address of a name, in any case: FNV-1a. */
static void address_of(const uint8_t *name, size_t len, uint8_t out[4])
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = name[i] >= 'A' && name[i] <= 'Z' ? (uint8_t)(name[i] | 0x20) : name[i];
        hash = (hash ^ byte) * 16777619u;
    }
    dns_put16(out, hash >> 16);
    dns_put16(out + 2, hash & 0xffff);
}

/* Where the name that begins at `at` ends; 0 if it does not. Pointers are not followed. */
static size_t name_end(const uint8_t *message, size_t len, size_t at)
{
    while (at < len && message[at] != 0 && message[at] < 0x40) {
        at += 1u + message[at];
    }
    if (at >= len) {
        return 0;
    }
    at += message[at] == 0 ? 1 : 2;
    return at <= len ? at : 0;
}

/* The first record of the answer: the address. */
static bool has_address(const uint8_t *message, size_t len, const uint8_t address[4])
{
    size_t at = name_end(message, len, DNS_HEADER_LEN + DNS_QUESTION_LEN);

    return at != 0 && len - at >= FIXED_LEN + 4 && dns_get16(message + at) == TYPE_A &&
           dns_get16(message + at + 2) == CLASS_IN && dns_get16(message + at + 8) == 4 &&
           memcmp(message + at + FIXED_LEN, address, 4) == 0;
}

const char *dns_check(uint64_t number, const uint8_t *message, size_t len)
{
    uint8_t question[DNS_QUESTION_LEN], address[4];

    if (len < DNS_HEADER_LEN + DNS_QUESTION_LEN) {
        return "an answer is too short";
    }
    unsigned flags = dns_get16(message + 2);
    if ((flags & FLAG_QR) == 0 || (flags & FLAG_TC) != 0) {
        return "an answer is none, or cut";
    }
    if ((flags & RCODE_MASK) != 0) {
        return (flags & RCODE_MASK) == 2 ? "SERVFAIL" : (flags & RCODE_MASK) == 5 ? "REFUSED" : "an error as an answer";
    }
    put_question(number, question);
    if (dns_get16(message + 4) != 1 || memcmp(message + DNS_HEADER_LEN, question, DNS_QUESTION_LEN) != 0) {
        return "an answer to another question";
    }
    address_of(question, DNS_QUESTION_LEN - 4, address);
    if (dns_get16(message + 6) != 1 || !has_address(message, len, address)) {
        return "a wrong answer";
    }
    return NULL;
}

size_t dns_serve(const uint8_t *query, size_t len, uint8_t *out)
{
    if (len < DNS_HEADER_LEN || (dns_get16(query + 2) & (FLAG_QR | OPCODE_MASK)) != 0 || dns_get16(query + 4) != 1) {
        return 0;
    }
    size_t end = name_end(query, len, DNS_HEADER_LEN);
    if (end == 0 || len - end < 4 || end - DNS_HEADER_LEN > NAME_MAX_LEN) {
        return 0;
    }
    bool is_address = dns_get16(query + end) == TYPE_A && dns_get16(query + end + 2) == CLASS_IN;
    bool has_opt = dns_get16(query + 10) != 0;
    size_t at = end + 4;
    memcpy(out, query, at);
    dns_put16(out + 2, FLAG_QR | FLAG_AA | FLAG_RA | (dns_get16(query + 2) & FLAG_RD));
    dns_put16(out + 6, is_address);
    dns_put16(out + 8, 0);
    dns_put16(out + 10, has_opt);
    if (is_address) {
        dns_put16(out + at, 0xc000u | DNS_HEADER_LEN);
        dns_put16(out + at + 2, TYPE_A);
        dns_put16(out + at + 4, CLASS_IN);
        dns_put16(out + at + 6, 0);
        dns_put16(out + at + 8, TTL_S);
        dns_put16(out + at + 10, 4);
        address_of(query + DNS_HEADER_LEN, end - DNS_HEADER_LEN, out + at + 12);
        at += 2 + FIXED_LEN + 4;
    }
    if (has_opt) {
        memcpy(out + at, opt, sizeof opt);
        at += sizeof opt;
    }
    return at;
}
