/*
 * One block of memory: the struct, the message, the places of the TTLs, the EDNS options that are kept.
 *
 * An OPT record is nearly always the last one and is then cut off. Where it is not, what follows it moves, and
 * compression pointers into that part would lead astray: those records are written anew, without compression.
 */
#include "dns/answer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FIXED_LEN 10u /* type, class, TTL, length of a record */
#define OPT_LEN 11u
#define OPTION_HEADER_LEN 4u

struct dns_answer {
    atomic_uint references;
    uint32_t ttl_s;
    uint64_t came_ms;
    size_t size; /* of the block */
    uint8_t extended_rcode;
    uint16_t ttl_count, options_len;
    uint32_t message_len;
    uint16_t *ttls; /* offsets in the message */
    uint8_t *options;
    uint8_t message[];
};

/* ---- does it fit ---- */

bool dns_answer_fits(const uint8_t *message, size_t len, const struct dns_request *request)
{
    struct dns_header header;
    struct dns_question question;

    if (dns_header_read(message, len, &header) != 0 || (header.flags & DNS_FLAG_QR) == 0 ||
        DNS_FLAGS_OPCODE(header.flags) != 0) {
        return false;
    }
    if (header.count[DNS_QUESTION] == 0) {
        unsigned rcode = DNS_FLAGS_RCODE(header.flags);
        return rcode != DNS_RCODE_NOERROR && rcode != DNS_RCODE_NXDOMAIN;
    }
    return header.count[DNS_QUESTION] == 1 && dns_question_read(message, len, &question, NULL) == 0 &&
           question.type == request->question.type && question.class == request->question.class &&
           dns_name_equal(&question.name, &request->question.name);
}

/* ---- taking OPT out ---- */

/* Where names stand in the data of types that may hold compressed ones (RFC 1035, RFC 3597 section 4). */
static const struct {
    uint8_t type, before, names;
} layouts[] = {
    {2, 0, 1},   {3, 0, 1},  {4, 0, 1},  {5, 0, 1},  {6, 0, 2},  {7, 0, 1},  {8, 0, 1},
    {9, 0, 1},   {12, 0, 1}, {14, 0, 2}, {15, 2, 1}, {17, 0, 2}, {18, 2, 1}, {21, 2, 1},
    {24, 18, 1}, {26, 2, 2}, {30, 0, 1}, {33, 6, 1}, {36, 2, 1}, {39, 0, 1},
};

/* Where a message is written. */
struct sink {
    uint8_t *bytes;
    size_t len; /* at most DNS_MESSAGE_MAX */
    bool is_over;
};

static void put(struct sink *sink, const uint8_t *bytes, size_t len)
{
    if (sink->is_over || DNS_MESSAGE_MAX - sink->len < len) {
        sink->is_over = true;
        return;
    }
    memcpy(sink->bytes + sink->len, bytes, len);
    sink->len += len;
}

/* Data of a record without compression. -EBADMSG. */
static int put_data(struct sink *sink, const uint8_t *message, const struct dns_record *record)
{
    size_t at = record->rdata_offset, end = at + record->rdata.len;
    struct dns_name name;

    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i].type != record->type) {
            continue;
        }
        if (end - at < layouts[i].before) {
            return -EBADMSG;
        }
        put(sink, message + at, layouts[i].before);
        at += layouts[i].before;
        for (unsigned left = layouts[i].names; left > 0; left--) {
            if (dns_name_read(message, end, at, &name, &at) != 0) {
                return -EBADMSG;
            }
            put(sink, name.wire, name.len);
        }
    }
    put(sink, message + at, end - at);
    return 0;
}

static int put_record(struct sink *sink, const uint8_t *message, const struct dns_record *record)
{
    put(sink, record->owner.wire, record->owner.len);
    put(sink, message + record->rdata_offset - FIXED_LEN, FIXED_LEN);
    size_t begin = sink->len;
    int err = put_data(sink, message, record);
    if (err == 0 && !sink->is_over) {
        dns_put16(sink->bytes + begin - 2, (unsigned)(sink->len - begin));
    }
    return err;
}

/* `records` stands before the OPT record, of which the message has one in the middle. */
static int rewrite_without_opt(const uint8_t *message, size_t len, const struct dns_edns *edns, struct sink *sink)
{
    struct dns_records records;
    struct dns_record record;

    put(sink, message, edns->offset);
    int rc = dns_records_init(&records, message, len);
    while (rc == 0 && (rc = dns_records_next(&records, &record)) > 0) {
        rc = record.offset > edns->offset ? put_record(sink, message, &record) : 0;
    }
    if (rc != 0) {
        return rc;
    }
    return sink->is_over ? -EMSGSIZE : 0;
}

/* ---- how long it lives ---- */

/* RFC 2308 section 5: the smaller of the SOA record's TTL and its MINIMUM, which are its last four bytes. */
static uint32_t soa_ttl(const struct dns_record *soa)
{
    if (soa->rdata.len < 22) { /* two root names and five numbers */
        return 0;
    }
    uint32_t minimum = dns_get32(soa->rdata.data + soa->rdata.len - 4);
    return minimum < dns_ttl(soa->ttl) ? minimum : dns_ttl(soa->ttl);
}

/* What decides on the life of a message, gathered from its records. */
struct life {
    bool has_answer; /* a record of the type that was asked for */
    bool has_alias;  /* any other record in the answer section */
    bool has_soa;
    uint32_t least_s, negative_s;
};

static void life_add(struct life *life, const struct dns_record *record, uint16_t type)
{
    uint32_t ttl = dns_ttl(record->ttl);

    if (ttl < life->least_s) {
        life->least_s = ttl;
    }
    if (record->section == DNS_ANSWER) {
        bool is_it = record->type == type || type == DNS_TYPE_ANY;
        life->has_answer |= is_it;
        life->has_alias |= !is_it;
    } else if (record->section == DNS_AUTHORITY && record->type == DNS_TYPE_SOA) {
        uint32_t negative = soa_ttl(record);
        if (!life->has_soa || negative < life->negative_s) {
            life->negative_s = negative;
        }
        life->has_soa = true;
    }
}

static uint32_t life_of(const struct life *life, const struct dns_header *header, uint8_t extended_rcode)
{
    uint32_t ttl = life->least_s < DNS_TTL_MAX_S ? life->least_s : DNS_TTL_MAX_S;
    unsigned rcode = DNS_FLAGS_RCODE(header->flags) | (unsigned)extended_rcode << 4;

    if ((header->flags & DNS_FLAG_TC) != 0) {
        return 0;
    }
    if (rcode == DNS_RCODE_SERVFAIL) {
        return ttl < DNS_FAILURE_TTL_S ? ttl : DNS_FAILURE_TTL_S;
    }
    if (rcode == DNS_RCODE_NOERROR && (life->has_answer || (life->has_alias && !life->has_soa))) {
        return ttl;
    }
    if ((rcode != DNS_RCODE_NOERROR && rcode != DNS_RCODE_NXDOMAIN) || !life->has_soa) {
        return 0; /* RFC 2308 section 5: without an SOA record it says not how long */
    }
    if (life->negative_s < ttl) {
        ttl = life->negative_s;
    }
    return ttl < DNS_NEGATIVE_TTL_MAX_S ? ttl : DNS_NEGATIVE_TTL_MAX_S;
}

/* ---- making ---- */

/* Whether an option of an answer goes to the client. */
static bool option_is_kept(uint16_t code, const struct dns_request *request)
{
    return code == DNS_OPTION_EDE || (request->is_private && !dns_option_is_hop_by_hop(code));
}

/* Copies them to `out` (NULL: only measures); returns their length. */
static size_t keep_options(const struct dns_edns *edns, const struct dns_request *request, uint8_t *out)
{
    struct socks6_slice value;
    uint16_t code;
    size_t offset = 0, len = 0;

    while (edns->present && dns_option_next(edns->options, &offset, &code, &value) > 0) {
        if (option_is_kept(code, request)) {
            size_t whole = OPTION_HEADER_LEN + value.len;
            if (out != NULL) {
                memcpy(out + len, value.data - OPTION_HEADER_LEN, whole);
            }
            len += whole;
        }
    }
    return len;
}

/* From a message that was checked and has no OPT any more. */
static struct dns_answer *answer_alloc(const uint8_t *message, size_t len, const struct dns_edns *edns,
                                       const struct dns_request *request, uint64_t now_ms)
{
    struct dns_header header = {0};
    size_t options_len = keep_options(edns, request, NULL);

    if (dns_header_read(message, len, &header) != 0) {
        return NULL;
    }
    size_t ttl_count = (size_t)header.count[DNS_ANSWER] + header.count[DNS_AUTHORITY] + header.count[DNS_ADDITIONAL];
    size_t ttls_at = (len + 1) & ~(size_t)1; /* the flexible array begins at an even offset */
    size_t size = sizeof(struct dns_answer) + ttls_at + ttl_count * sizeof(uint16_t) + options_len;
    struct dns_answer *answer = malloc(size);
    if (answer == NULL) {
        return NULL;
    }
    *answer = (struct dns_answer){
        .came_ms = now_ms,
        .size = size,
        .extended_rcode = edns->present ? edns->extended_rcode : 0,
        .ttl_count = (uint16_t)ttl_count, /* a record takes 11 bytes: at most 5956 */
        .options_len = (uint16_t)options_len,
        .message_len = (uint32_t)len,
    };
    atomic_init(&answer->references, 1);
    answer->ttls = (uint16_t *)(void *)(answer->message + ttls_at);
    answer->options = answer->message + ttls_at + ttl_count * sizeof(uint16_t);
    memcpy(answer->message, message, len);
    (void)keep_options(edns, request, answer->options);
    return answer;
}

_Static_assert(offsetof(struct dns_answer, message) % 2 == 0, "TTL offsets are aligned");

/* Notes where the TTLs are, and how long the answer lives. */
static int survey(struct dns_answer *answer, uint16_t type)
{
    struct life life = {.least_s = UINT32_MAX};
    struct dns_header header;
    struct dns_records records;
    struct dns_record record;
    size_t count = 0;

    int rc = dns_header_read(answer->message, answer->message_len, &header);
    if (rc == 0) {
        rc = dns_records_init(&records, answer->message, answer->message_len);
    }
    while (rc == 0 && (rc = dns_records_next(&records, &record)) > 0) {
        life_add(&life, &record, type);
        answer->ttls[count++] = (uint16_t)record.ttl_offset;
        rc = 0;
    }
    if (rc == 0) {
        answer->ttl_s = life_of(&life, &header, answer->extended_rcode);
    }
    return rc;
}

/* An error without question gets that of the request, so that everything behind may rely on it. */
static size_t put_question(const struct dns_request *request, uint8_t *out)
{
    const struct dns_question *question = &request->question;

    memcpy(out, question->name.wire, question->name.len);
    dns_put16(out + question->name.len, question->type);
    dns_put16(out + question->name.len + 2, question->class);
    return (size_t)question->name.len + 4;
}

/*
 * TTLs will be changed. A name that leads through one by compression would then be another one, or none: such a message
 * is malformed. (0x80 begins no label.) Spoils `message`.
 */
static bool ttls_are_apart(const struct dns_answer *answer, uint8_t *message)
{
    struct dns_edns edns;

    for (size_t i = 0; i < answer->ttl_count; i++) {
        memset(message + answer->ttls[i], 0x80, 4);
    }
    return dns_message_check(message, answer->message_len, &edns, NULL) == 0;
}

/* `message` is spoilt. */
static int answer_finish(uint8_t *message, size_t len, const struct dns_edns *edns, const struct dns_request *request,
                         uint64_t now_ms, struct dns_answer **out)
{
    struct dns_answer *answer = answer_alloc(message, len, edns, request, now_ms);
    if (answer == NULL) {
        return -ENOMEM;
    }
    int err = survey(answer, request->question.type);
    if (err == 0 && !ttls_are_apart(answer, message)) {
        err = -EBADMSG;
    }
    if (err != 0) {
        dns_answer_release(answer);
        return err;
    }
    *out = answer;
    return 0;
}

/* The message is copied and changed in `scratch` (DNS_MESSAGE_MAX bytes). */
static int answer_from(const uint8_t *message, size_t len, size_t end, const struct dns_edns *edns,
                       const struct dns_request *request, uint64_t now_ms, uint8_t *scratch, struct dns_answer **out)
{
    struct sink sink = {.bytes = scratch};
    unsigned additional = dns_get16(message + 10);

    if (dns_get16(message + 4) == 0) { /* see dns_answer_fits() */
        memcpy(scratch, message, 4);
        memset(scratch + 4, 0, 8);
        dns_put16(scratch + 4, 1);
        sink.len = DNS_HEADER_LEN + put_question(request, scratch + DNS_HEADER_LEN);
    } else if (!edns->present || edns->end == end) {
        put(&sink, message, edns->present ? edns->offset : end);
        dns_put16(scratch + 10, additional - (edns->present ? 1 : 0));
    } else {
        int err = rewrite_without_opt(message, len, edns, &sink);
        if (err != 0) {
            return err;
        }
        dns_put16(scratch + 10, additional - 1);
    }
    dns_put16(scratch, 0);
    return answer_finish(scratch, sink.len, edns, request, now_ms, out);
}

int dns_answer_new(const uint8_t *message, size_t len, const struct dns_request *request, uint64_t now_ms,
                   struct dns_answer **out)
{
    struct dns_edns edns;
    size_t end;

    if (len > DNS_MESSAGE_MAX) {
        return -EBADMSG;
    }
    int err = dns_message_check(message, len, &edns, &end);
    if (err != 0) {
        return err;
    }
    uint8_t *scratch = malloc(DNS_MESSAGE_MAX);
    if (scratch == NULL) {
        return -ENOMEM;
    }
    err = answer_from(message, len, end, &edns, request, now_ms, scratch, out);
    free(scratch);
    return err;
}

#define MAKE_RECORDS_MAX 64u

struct dns_answer *dns_answer_make(const struct dns_request *request, enum dns_rcode rcode,
                                   const struct socks6_addr *addrs, size_t count, uint32_t ttl_s, uint64_t now_ms)
{
    uint8_t message[DNS_QUERY_MAX + MAKE_RECORDS_MAX * 28u] = {0};
    const struct dns_edns edns = {.present = false};
    struct dns_answer *answer;
    size_t len = DNS_HEADER_LEN;

    dns_put16(message + 2, DNS_FLAG_QR | DNS_FLAG_RA | (unsigned)rcode);
    dns_put16(message + 4, 1);
    len += put_question(request, message + len);
    count = count < MAKE_RECORDS_MAX ? count : MAKE_RECORDS_MAX;
    dns_put16(message + 6, (unsigned)count);
    for (size_t i = 0; i < count; i++) {
        bool is_ipv4 = addrs[i].type == SOCKS6_ADDR_IPV4;
        uint8_t *at = message + len;
        dns_put16(at, 0xc000u | DNS_HEADER_LEN);
        dns_put16(at + 2, is_ipv4 ? DNS_TYPE_A : DNS_TYPE_AAAA);
        dns_put16(at + 4, DNS_CLASS_IN);
        dns_put32(at + 6, ttl_s);
        dns_put16(at + 10, is_ipv4 ? 4 : 16);
        memcpy(at + 12, is_ipv4 ? addrs[i].u.ipv4 : addrs[i].u.ipv6, is_ipv4 ? 4 : 16);
        len += is_ipv4 ? 16u : 28u;
    }
    return answer_finish(message, len, &edns, request, now_ms, &answer) == 0 ? answer : NULL;
}

struct dns_answer *dns_answer_retain(struct dns_answer *answer)
{
    (void)atomic_fetch_add_explicit(&answer->references, 1, memory_order_relaxed);
    return answer;
}

void dns_answer_release(struct dns_answer *answer)
{
    if (answer != NULL && atomic_fetch_sub_explicit(&answer->references, 1, memory_order_acq_rel) == 1) {
        free(answer);
    }
}

uint32_t dns_answer_ttl_s(const struct dns_answer *answer)
{
    return answer->ttl_s;
}

uint64_t dns_answer_came_ms(const struct dns_answer *answer)
{
    return answer->came_ms;
}

size_t dns_answer_size(const struct dns_answer *answer)
{
    return answer->size;
}

struct socks6_slice dns_answer_message(const struct dns_answer *answer)
{
    return (struct socks6_slice){answer->message, answer->message_len};
}

/* ---- rendering ---- */

static void put_option(uint8_t *out, size_t *len, uint16_t code, const uint8_t *value, size_t value_len)
{
    if (dns_option_put(out, DNS_RENDER_MAX, len, code, value, value_len) != 0) {
        return; /* an answer of 64 KiB goes out without it */
    }
}

/* RFC 8467: fills the message up to a multiple of the block; last of all. */
static void put_padding(uint8_t *out, size_t *len, unsigned block)
{
    static const uint8_t zeros[UINT8_MAX * 4];
    size_t over = (*len + OPTION_HEADER_LEN) % block;
    size_t padding = over == 0 ? 0 : block - over;

    put_option(out, len, DNS_OPTION_PADDING, zeros, padding < sizeof zeros ? padding : sizeof zeros);
}

/* Appends OPT with the kept options and those of the hop. */
static void put_opt(uint8_t *out, size_t *len, const struct dns_request *request, const struct dns_hop *hop,
                    unsigned extended_rcode, struct socks6_slice options)
{
    uint8_t *opt = out + *len;

    if (DNS_RENDER_MAX - *len < OPT_LEN) {
        return;
    }
    opt[0] = 0;
    dns_put16(opt + 1, DNS_TYPE_OPT);
    dns_put16(opt + 3, hop->udp_len);
    dns_put32(opt + 5, extended_rcode << 24 | (request->edns_flags & DNS_EDNS_DO));
    *len += OPT_LEN;
    size_t begin = *len;
    if (options.len > 0 && DNS_RENDER_MAX - *len >= options.len) {
        memcpy(out + *len, options.data, options.len);
        *len += options.len;
    }
    if (request->wants_keepalive && hop->keepalive_100ms != 0) {
        uint8_t value[2];
        dns_put16(value, hop->keepalive_100ms);
        put_option(out, len, DNS_OPTION_TCP_KEEPALIVE, value, sizeof value);
    }
    if (request->wants_padding && hop->padding_block != 0) {
        put_padding(out, len, hop->padding_block);
    }
    dns_put16(opt + 9, (unsigned)(*len - begin));
    dns_put16(out + 10, dns_get16(out + 10) + 1u);
}

static void count_down(uint8_t *out, const struct dns_answer *answer, uint64_t age_s)
{
    for (size_t i = 0; i < answer->ttl_count; i++) {
        uint8_t *at = out + answer->ttls[i];
        uint32_t ttl = dns_ttl(dns_get32(at));
        dns_put32(at, ttl > age_s ? ttl - (uint32_t)age_s : 0);
    }
}

size_t dns_answer_render(const struct dns_answer *answer, const struct dns_request *request, const struct dns_hop *hop,
                         uint64_t now_ms, uint8_t *out)
{
    const unsigned of_request = DNS_FLAG_RD | DNS_FLAG_CD;
    size_t len = answer->message_len;
    uint64_t age_s = now_ms > answer->came_ms ? (now_ms - answer->came_ms) / 1000 : 0;

    memcpy(out, answer->message, len);
    unsigned flags = dns_get16(out + 2) & ~of_request;
    flags |= request->flags & of_request;
    if ((request->flags & DNS_FLAG_AD) == 0 && (request->edns_flags & DNS_EDNS_DO) == 0) {
        flags &= ~DNS_FLAG_AD;
    }
    dns_put16(out, request->id);
    dns_put16(out + 2, flags);
    memcpy(out + DNS_HEADER_LEN, request->question.name.wire, request->question.name.len);
    if (age_s != 0) {
        count_down(out, answer, age_s);
    }
    if (request->has_edns) {
        struct socks6_slice options = {answer->options, answer->options_len};
        put_opt(out, &len, request, hop, answer->extended_rcode, options);
    }
    return len;
}

size_t dns_error_render(const struct dns_request *request, enum dns_rcode rcode, enum dns_ede ede,
                        const struct dns_hop *hop, uint8_t *out)
{
    uint8_t option[OPTION_HEADER_LEN + 2];
    struct socks6_slice options = {option, ede == DNS_EDE_NONE ? 0 : sizeof option};
    const unsigned echoed = DNS_FLAG_RD | DNS_FLAG_CD | 0x7800u; /* and the opcode */
    size_t len = DNS_HEADER_LEN;

    memset(out, 0, DNS_HEADER_LEN);
    dns_put16(out, request->id);
    dns_put16(out + 2, DNS_FLAG_QR | DNS_FLAG_RA | (request->flags & echoed) | ((unsigned)rcode & 0xfu));
    if (request->has_question) {
        dns_put16(out + 4, 1);
        len += put_question(request, out + len);
    }
    if (request->has_edns) {
        dns_put16(option, DNS_OPTION_EDE);
        dns_put16(option + 2, 2);
        dns_put16(option + 4, (unsigned)ede);
        put_opt(out, &len, request, hop, (unsigned)rcode >> 4, options);
    }
    return len;
}
