/*
 * DNS messages: bytes <-> values (RFC 1035 section 4, RFC 6891). No I/O, no memory but the caller's, any bytes are
 * safe to read.
 *
 * Used by the resolver, the DNS service and the client program. Reading hands out spans of the message; names are
 * copied out uncompressed. Every error is -EBADMSG (the message is malformed) unless a function says otherwise, and
 * leaves the out parameters as they were.
 */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#define DNS_HEADER_LEN 12u
#define DNS_MESSAGE_MAX 65535u /* RFC 1035 4.2.2: what two bytes of length over TCP can say */
#define DNS_NAME_MAX 255u      /* RFC 1035 2.3.4: on the wire, root label included */
#define DNS_LABEL_MAX 63u
/* Text of the longest name: every byte of a label as \DDD, dots, NUL. */
#define DNS_NAME_TEXT_MAX ((size_t)DNS_NAME_MAX * 4 + 1)

/* Flags of the header, as they stand in its second 16 bits. */
#define DNS_FLAG_QR 0x8000u
#define DNS_FLAG_AA 0x0400u
#define DNS_FLAG_TC 0x0200u
#define DNS_FLAG_RD 0x0100u
#define DNS_FLAG_RA 0x0080u
#define DNS_FLAG_AD 0x0020u
#define DNS_FLAG_CD 0x0010u
#define DNS_FLAGS_OPCODE(flags) (((unsigned)(flags) >> 11) & 0xfu)
#define DNS_FLAGS_RCODE(flags) ((unsigned)(flags)&0xfu)

enum dns_rcode {
    DNS_RCODE_NOERROR = 0,
    DNS_RCODE_FORMERR = 1,
    DNS_RCODE_SERVFAIL = 2,
    DNS_RCODE_NXDOMAIN = 3,
    DNS_RCODE_NOTIMP = 4,
    DNS_RCODE_REFUSED = 5,
    DNS_RCODE_BADVERS = 16
};

/* Record types and classes that the code knows; all others pass as numbers. */
#define DNS_TYPE_A 1u
#define DNS_TYPE_NS 2u
#define DNS_TYPE_CNAME 5u
#define DNS_TYPE_SOA 6u
#define DNS_TYPE_PTR 12u
#define DNS_TYPE_MX 15u
#define DNS_TYPE_TXT 16u
#define DNS_TYPE_AAAA 28u
#define DNS_TYPE_SRV 33u
#define DNS_TYPE_DNAME 39u
#define DNS_TYPE_OPT 41u
#define DNS_TYPE_RRSIG 46u
#define DNS_TYPE_SVCB 64u
#define DNS_TYPE_HTTPS 65u
#define DNS_TYPE_TSIG 250u
#define DNS_TYPE_IXFR 251u
#define DNS_TYPE_AXFR 252u
#define DNS_TYPE_ANY 255u
#define DNS_CLASS_IN 1u

/* EDNS options that the code knows. */
#define DNS_OPTION_ECS 8u
#define DNS_OPTION_COOKIE 10u
#define DNS_OPTION_TCP_KEEPALIVE 11u
#define DNS_OPTION_PADDING 12u
#define DNS_OPTION_EDE 15u

/* In the TTL of an OPT record. */
#define DNS_EDNS_DO 0x8000u

/* A name in wire form, uncompressed, its root label included; case as it came. {1, {0}} is the root. */
struct dns_name {
    uint8_t len; /* 1..255 */
    uint8_t wire[DNS_NAME_MAX];
};

struct dns_header {
    uint16_t id;
    uint16_t flags;    /* DNS_FLAG_*, opcode, the rcode's low four bits */
    uint16_t count[4]; /* enum dns_section */
};

enum dns_section { DNS_QUESTION = 0, DNS_ANSWER = 1, DNS_AUTHORITY = 2, DNS_ADDITIONAL = 3 };

struct dns_question {
    struct dns_name name;
    uint16_t type, class;
};

/* One record of a message. Spans are borrowed from the message. */
struct dns_record {
    enum dns_section section; /* never DNS_QUESTION */
    struct dns_name owner;
    uint16_t type, class;
    uint32_t ttl; /* as it stands; see dns_ttl() */
    struct socks6_slice rdata;
    size_t offset;       /* of the record in the message */
    size_t ttl_offset;   /* of its TTL */
    size_t rdata_offset; /* of `rdata`, for names in it that may be compressed */
};

/* Goes through the records of a message. Its fields belong to dns_records_next(). */
struct dns_records {
    const uint8_t *message;
    size_t len, offset;
    uint16_t left[4]; /* per section, not yet read */
};

/* The OPT record of a message (RFC 6891 6.1). */
struct dns_edns {
    bool present;
    uint8_t version;
    uint8_t extended_rcode; /* high eight bits of the rcode */
    uint16_t flags;         /* DNS_EDNS_DO */
    uint16_t udp_len;       /* what its sender can receive over UDP */
    struct socks6_slice options;
    size_t offset, end; /* of the record in the message */
};

/* ---- reading ---- */

/* The first 12 bytes. */
SOCKS6_MUST_CHECK int dns_header_read(const uint8_t *message, size_t len, struct dns_header *out);

/*
 * The name at `offset`, and in `next` (NULL allowed) where what follows it begins. Compression (RFC 1035 4.1.4) is
 * followed strictly backwards: every pointer must point before the place where the part of the name that holds it
 * began, which leaves no loops; and there are at most 127, as many as a name has labels, which bounds the work.
 */
SOCKS6_MUST_CHECK int dns_name_read(const uint8_t *message, size_t len, size_t offset, struct dns_name *out,
                                    size_t *next);

/* The first question and, in `next` (NULL allowed), where what follows it begins. -ENOENT if there is none. */
SOCKS6_MUST_CHECK int dns_question_read(const uint8_t *message, size_t len, struct dns_question *out, size_t *next);

/* Begins after the questions. */
SOCKS6_MUST_CHECK int dns_records_init(struct dns_records *records, const uint8_t *message, size_t len);
/* 1: `out` holds the next record. 0: that was all (bytes after the last record are the caller's to judge). */
SOCKS6_MUST_CHECK int dns_records_next(struct dns_records *records, struct dns_record *out);

/*
 * Reads the whole message: all questions and records, and the OPT record into `edns` (present: false without one).
 * -EBADMSG also for two OPT records, one outside the additional section or not owned by the root, and for options
 * that overrun it. Bytes after the last record are allowed; `end` (NULL allowed) says where it ends.
 */
SOCKS6_MUST_CHECK int dns_message_check(const uint8_t *message, size_t len, struct dns_edns *edns, size_t *end);

/*
 * The EDNS option at `*offset` of `options`, which starts at 0 and is moved on. 1: `code` and `value` are set. 0: that
 * was all.
 */
SOCKS6_MUST_CHECK int dns_option_next(struct socks6_slice options, size_t *offset, uint16_t *code,
                                      struct socks6_slice *value);

/* A TTL as RFC 2181 section 8 reads it: with the top bit set it means 0. */
static inline uint32_t dns_ttl(uint32_t ttl)
{
    return (ttl & 0x80000000u) != 0 ? 0 : ttl;
}

/* `bytes` are 4 or 16, by `type` (SOCKS6_ADDR_IPV4, SOCKS6_ADDR_IPV6). */
struct socks6_addr dns_addr(uint8_t type, const uint8_t *bytes, uint16_t port);
/* The address in an A or AAAA record of class IN; false for any other. */
bool dns_record_addr(const struct dns_record *record, uint16_t port, struct socks6_addr *out);

/* ---- names ---- */

/* Without regard to the case of ASCII letters (RFC 4343). */
bool dns_name_equal(const struct dns_name *a, const struct dns_name *b);
/* Whether `name` is `ancestor` or below it. */
bool dns_name_is_under(const struct dns_name *name, const struct dns_name *ancestor);
/* ASCII letters in lower case. `out` has room for name->len bytes; it may be those of `name`. */
void dns_name_fold(const struct dns_name *name, uint8_t *out);
void dns_name_lower(struct dns_name *name);

/*
 * From text as in a zone file: labels between dots, \DDD and \X escapes, a final dot allowed; "." is the root. Always
 * absolute. -EINVAL for an empty text or label, a label over 63 bytes, a name over 255, a bad escape.
 */
SOCKS6_MUST_CHECK int dns_name_parse(const char *text, struct dns_name *out);
/* To such text, with the final dot. `text` has DNS_NAME_TEXT_MAX bytes; returns the length without NUL. */
size_t dns_name_format(const struct dns_name *name, char text[DNS_NAME_TEXT_MAX]);

/* ---- building ---- */

struct dns_query {
    uint16_t id;
    uint16_t flags; /* DNS_FLAG_RD, _CD, _AD */
    const struct dns_name *name;
    uint16_t type, class;
    bool with_edns;
    uint16_t edns_udp_len;
    uint16_t edns_flags;              /* DNS_EDNS_DO */
    struct socks6_slice edns_options; /* as they go on the wire; see dns_option_put() */
};

/* Most bytes that a query takes, its EDNS options aside. */
#define DNS_QUERY_MAX (DNS_HEADER_LEN + DNS_NAME_MAX + 4u + 11u)

/* -ENOSPC if it does not fit in `size` bytes. */
SOCKS6_MUST_CHECK int dns_query_build(const struct dns_query *query, uint8_t *buf, size_t size, size_t *len);

/* Appends one EDNS option at `*len` of `buf` and moves it on. -ENOSPC. */
SOCKS6_MUST_CHECK int dns_option_put(uint8_t *buf, size_t size, size_t *len, uint16_t code, const uint8_t *value,
                                     size_t value_len);

/* ---- numbers in network order ---- */

static inline uint16_t dns_get16(const uint8_t *at)
{
    return (uint16_t)((unsigned)at[0] << 8 | at[1]);
}

static inline uint32_t dns_get32(const uint8_t *at)
{
    return (uint32_t)dns_get16(at) << 16 | dns_get16(at + 2);
}

static inline void dns_put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void dns_put32(uint8_t *at, uint32_t value)
{
    dns_put16(at, value >> 16);
    dns_put16(at + 2, value & 0xffffu);
}

#endif
