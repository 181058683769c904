#include "cli/dns_forward.h"

#include <errno.h>
#include <string.h>

#define OPT_LEN 11u
/* What of a query's flags is the answer's too. */
#define ECHOED (0x7800u | DNS_FLAG_RD | DNS_FLAG_CD)

static bool is_hop_by_hop(unsigned code)
{
    return code == DNS_OPTION_COOKIE || code == DNS_OPTION_TCP_KEEPALIVE || code == DNS_OPTION_PADDING;
}

/* Appends the options that pass from hop to hop. -ENOSPC. */
static int copy_options(struct socks6_slice options, uint8_t *buf, size_t size, size_t *len)
{
    struct socks6_slice value;
    size_t offset = 0;
    uint16_t code;
    int rc = 0;

    while (rc == 0 && dns_option_next(options, &offset, &code, &value) == 1) {
        if (!is_hop_by_hop(code)) {
            rc = dns_option_put(buf, size, len, code, value.data, value.len);
        }
    }
    return rc;
}

/* The first option of that code; false if there is none. */
static bool find_option(const struct dns_edns *edns, unsigned wanted, struct socks6_slice *value)
{
    size_t offset = 0;
    uint16_t code;

    while (edns->present && dns_option_next(edns->options, &offset, &code, value) == 1) {
        if (code == wanted) {
            return true;
        }
    }
    return false;
}

/* ---- queries ---- */

static int build(const struct dns_forward *query, const struct dns_edns *edns, uint8_t *out, size_t *out_len)
{
    uint8_t options[DNS_FORWARD_OUT_MAX];
    size_t options_len = 0;
    struct dns_query forwarded = {.flags = query->flags & (DNS_FLAG_RD | DNS_FLAG_CD | DNS_FLAG_AD),
                                  .name = &query->question.name,
                                  .type = query->question.type,
                                  .class = query->question.class,
                                  .with_edns = true,
                                  .edns_udp_len = DNS_FORWARD_UDP_LEN,
                                  .edns_flags = query->edns_flags};
    int rc = dns_option_put(options, sizeof options, &options_len, DNS_OPTION_TCP_KEEPALIVE, NULL, 0);

    if (rc == 0 && edns->present) {
        rc = copy_options(edns->options, options, sizeof options, &options_len);
    }
    forwarded.edns_options = (struct socks6_slice){options, options_len};
    return rc == 0 ? dns_query_build(&forwarded, out, DNS_FORWARD_OUT_MAX, out_len) : rc;
}

int dns_forward_read(const uint8_t *message, size_t len, struct dns_forward *query, uint8_t out[DNS_FORWARD_OUT_MAX],
                     size_t *out_len)
{
    struct socks6_slice value;
    struct dns_header header;
    struct dns_edns edns;
    size_t end;

    memset(query, 0, sizeof *query);
    if (dns_header_read(message, len, &header) != 0 || (header.flags & DNS_FLAG_QR) != 0) {
        return -EBADMSG;
    }
    query->id = header.id;
    query->flags = header.flags;
    query->udp_len = 512;
    if (DNS_FLAGS_OPCODE(header.flags) != 0) {
        return DNS_RCODE_NOTIMP;
    }
    if (len > DNS_FORWARD_QUERY_MAX || header.count[DNS_QUESTION] != 1 ||
        dns_question_read(message, len, &query->question, NULL) != 0) {
        return DNS_RCODE_FORMERR;
    }
    query->has_question = true;
    if (dns_message_check(message, len, &edns, &end) != 0 || end != len) {
        return DNS_RCODE_FORMERR;
    }
    query->has_edns = edns.present;
    if (edns.present) {
        query->udp_len = edns.udp_len > 512 ? edns.udp_len : 512;
        query->edns_flags = edns.flags & DNS_EDNS_DO;
        query->wants_keepalive = find_option(&edns, DNS_OPTION_TCP_KEEPALIVE, &value);
        if (edns.version > 0) {
            return DNS_RCODE_BADVERS;
        }
    }
    /* Signed queries, transfers and the like: what is around the question would be lost on the way. */
    if (header.count[DNS_ANSWER] != 0 || header.count[DNS_AUTHORITY] != 0 ||
        header.count[DNS_ADDITIONAL] != (edns.present ? 1 : 0)) {
        return DNS_RCODE_NOTIMP;
    }
    return build(query, &edns, out, out_len) == 0 ? 0 : DNS_RCODE_FORMERR;
}

/* ---- answers ---- */

/* Appends an OPT record, as the caller has counted. */
static void put_opt(uint8_t *at, unsigned rcode, unsigned flags, const uint8_t *options, size_t options_len)
{
    memset(at, 0, OPT_LEN);
    dns_put16(at + 1, DNS_TYPE_OPT);
    dns_put16(at + 3, DNS_FORWARD_UDP_LEN);
    at[5] = (uint8_t)(rcode >> 4);
    dns_put16(at + 7, flags);
    dns_put16(at + 9, (unsigned)options_len);
    if (options_len > 0) {
        memcpy(at + OPT_LEN, options, options_len);
    }
}

size_t dns_forward_error(const struct dns_forward *query, unsigned rcode, int why, uint8_t out[DNS_FORWARD_ERROR_MAX])
{
    const struct dns_query plain = {.id = query->id,
                                    .flags = (uint16_t)(DNS_FLAG_QR | DNS_FLAG_RA | (query->flags & ECHOED)),
                                    .name = &query->question.name,
                                    .type = query->question.type,
                                    .class = query->question.class};
    uint8_t options[8];
    uint8_t code[2];
    size_t options_len = 0, len = DNS_HEADER_LEN;

    memset(out, 0, DNS_HEADER_LEN);
    if (!query->has_question || dns_query_build(&plain, out, DNS_FORWARD_ERROR_MAX, &len) != 0) {
        dns_put16(out, plain.id);
        dns_put16(out + 2, plain.flags);
    }
    dns_put16(out + 2, dns_get16(out + 2) | (rcode & 0xfu));
    if (query->has_edns) {
        dns_put16(code, why >= 0 ? (unsigned)why : 0);
        if (why >= 0 && dns_option_put(options, sizeof options, &options_len, DNS_OPTION_EDE, code, 2) != 0) {
            options_len = 0;
        }
        put_opt(out + len, rcode, query->edns_flags, options, options_len);
        len += OPT_LEN + options_len;
        dns_put16(out + 10, 1);
    }
    return len;
}

bool dns_forward_matches(const struct dns_question *asked, const uint8_t *message, size_t len)
{
    struct dns_question question;
    int rc;

    if (len < DNS_HEADER_LEN || (dns_get16(message + 2) & DNS_FLAG_QR) == 0) {
        return false;
    }
    rc = dns_question_read(message, len, &question, NULL);
    if (rc == -ENOENT) {
        return DNS_FLAGS_RCODE(dns_get16(message + 2)) != DNS_RCODE_NOERROR;
    }
    return rc == 0 && question.type == asked->type && question.class == asked->class &&
           dns_name_equal(&question.name, &asked->name);
}

int dns_forward_keepalive(const uint8_t *message, size_t len)
{
    struct socks6_slice value;
    struct dns_edns edns;

    if (dns_message_check(message, len, &edns, NULL) == 0 && find_option(&edns, DNS_OPTION_TCP_KEEPALIVE, &value) &&
        value.len == 2) {
        return dns_get16(value.data);
    }
    return -1;
}

/* The parts of an answer, as offsets. */
struct parts {
    size_t records, additional, end; /* where each begins; `end` is that of what is kept: before an OPT record */
    uint16_t additional_count;       /* records between `additional` and `end` */
};

/*
 * What stands behind an OPT record is left out together with it: names point backwards, so that what stands before it
 * stays whole; and servers put it last.
 */
static int find_parts(const uint8_t *message, size_t len, const struct dns_edns *edns, size_t end, struct parts *parts)
{
    struct dns_question question;
    struct dns_records records;
    struct dns_record record;
    int rc = dns_question_read(message, len, &question, &parts->records);

    if (rc == -ENOENT) {
        parts->records = DNS_HEADER_LEN;
    } else if (rc != 0 || dns_get16(message + 4) != 1) {
        return -EBADMSG;
    }
    parts->end = edns->present ? edns->offset : end;
    parts->additional = parts->end;
    parts->additional_count = 0;
    rc = dns_records_init(&records, message, len);
    while (rc == 0 && dns_records_next(&records, &record) == 1 && record.offset < parts->end) {
        if (record.section == DNS_ADDITIONAL) {
            parts->additional = parts->additional_count == 0 ? record.offset : parts->additional;
            parts->additional_count++;
        }
    }
    return rc;
}

/* Our OPT record for this client. An option that does not fit is left out, as is all of them if that is not enough. */
static size_t make_opt(const struct dns_forward *query, const struct dns_forward_limits *limits,
                       const struct dns_edns *edns, uint8_t *options, size_t size)
{
    uint8_t tenths[2];
    size_t len = 0;

    if (edns->present && copy_options(edns->options, options, size, &len) != 0) {
        len = 0;
    }
    if (limits->has_keepalive && query->wants_keepalive) {
        dns_put16(tenths, limits->keepalive_tenths);
        if (dns_option_put(options, size, &len, DNS_OPTION_TCP_KEEPALIVE, tenths, sizeof tenths) != 0) {
            return len;
        }
    }
    return len;
}

int dns_forward_answer(const struct dns_forward *query, const struct dns_forward_limits *limits, const uint8_t *message,
                       size_t len, uint8_t *out, size_t *out_len)
{
    uint8_t options[2048];
    struct dns_edns edns;
    struct parts parts;
    size_t end, options_len = 0, opt_len = 0, keep;
    unsigned flags, additional_count;

    if (dns_message_check(message, len, &edns, &end) != 0 || !dns_forward_matches(&query->question, message, len) ||
        find_parts(message, len, &edns, end, &parts) != 0) {
        return -EBADMSG;
    }
    if (query->has_edns) {
        options_len = make_opt(query, limits, &edns, options, sizeof options);
        opt_len = OPT_LEN + options_len;
    }
    keep = parts.end;
    additional_count = parts.additional_count;
    flags = dns_get16(message + 2);
    if (keep + opt_len > limits->len) { /* additional records are a courtesy, but for those that a referral needs */
        keep = parts.additional;
        additional_count = 0;
        flags |= dns_get16(message + 6) == 0 && parts.additional_count > 0 ? DNS_FLAG_TC : 0;
    }
    if (keep + opt_len > limits->len) {
        keep = parts.records;
        flags |= DNS_FLAG_TC;
    }
    if (keep + opt_len > limits->len) { /* only options can be that long */
        options_len = 0;
        opt_len = query->has_edns ? OPT_LEN : 0;
    }
    memcpy(out, message, keep);
    dns_put16(out, query->id);
    if (keep == parts.records) {
        memset(out + 6, 0, 4);
    }
    if (!query->has_edns && edns.present && edns.extended_rcode != 0) { /* which this client cannot be told */
        flags = (flags & ~0xfu) | DNS_RCODE_SERVFAIL;
    }
    dns_put16(out + 2, flags);
    dns_put16(out + 10, additional_count + (query->has_edns ? 1 : 0));
    if (query->has_edns) {
        put_opt(out + keep, edns.present ? (unsigned)edns.extended_rcode << 4 : 0, query->edns_flags, options,
                options_len);
    }
    *out_len = keep + opt_len;
    /* A name can be made to run on into what was replaced, or into the header; from a server that means no good. */
    return dns_message_check(out, *out_len, &edns, &end) == 0 ? 0 : -EBADMSG;
}
