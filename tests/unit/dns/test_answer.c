/*
 * Requests as clients send them, answers out of one hop and into the next: what passes, what is hop by hop, what may be
 * kept and for how long.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dns/answer.h"
#include "support.h"

#define NOW_MS 1000000u

static struct draft draft;
static uint8_t out[DNS_RENDER_MAX];
static const struct dns_hop hop = {.keepalive_100ms = 600, .padding_block = 468, .udp_len = 1232};

/* ---- requests ---- */

/* A query with these EDNS options. */
static size_t build(uint8_t *buf, uint16_t flags, const char *name, uint16_t type, struct socks6_slice options,
                    uint16_t edns_flags)
{
    struct dns_name wire = name_of(name);
    struct dns_query query = {
        .id = 0x1234,
        .flags = flags,
        .name = &wire,
        .type = type,
        .class = DNS_CLASS_IN,
        .with_edns = true,
        .edns_udp_len = 4096,
        .edns_flags = edns_flags,
        .edns_options = options,
    };
    size_t len;
    assert_int_equal(dns_query_build(&query, buf, DNS_MESSAGE_MAX, &len), 0);
    return len;
}

static size_t options_of(uint8_t *buf, const uint16_t *codes, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(dns_option_put(buf, 512, &len, codes[i], (const uint8_t *)"12345678", 8), 0);
    }
    return len;
}

static void test_request_is_read_and_built_for_upstream(void **state)
{
    static const uint16_t codes[] = {DNS_OPTION_COOKIE, DNS_OPTION_TCP_KEEPALIVE, DNS_OPTION_PADDING};
    uint8_t options[512], query[600], upstream[600];
    struct socks6_slice all = {options, options_of(options, codes, 3)};
    struct dns_request request;
    enum dns_rcode rcode;
    size_t len;
    (void)state;

    len = build(query, DNS_FLAG_RD | DNS_FLAG_CD, "WWW.example", DNS_TYPE_HTTPS, all, DNS_EDNS_DO);
    assert_int_equal(dns_request_read(query, len, &request, &rcode), DNS_REQUEST_ASK);
    assert_int_equal(request.id, 0x1234);
    assert_true(request.has_edns && request.wants_keepalive && request.wants_padding);
    assert_false(request.is_private); /* all of them are of the hop */
    assert_int_equal(request.edns_udp_len, 4096);

    assert_int_equal(dns_request_build(&request, 77, true, NULL, upstream, sizeof upstream, &len), 0);
    struct dns_header header;
    struct dns_edns edns;
    assert_int_equal(dns_header_read(upstream, len, &header), 0);
    assert_int_equal(header.id, 77);
    assert_int_equal(header.flags, DNS_FLAG_RD | DNS_FLAG_CD | DNS_FLAG_AD);
    assert_int_equal(dns_message_check(upstream, len, &edns, NULL), 0);
    assert_int_equal(edns.udp_len, 1232);
    assert_int_equal(edns.flags, DNS_EDNS_DO);
    assert_int_equal(edns.options.len, 0);
    assert_int_equal(dns_request_build(&request, 77, false, NULL, upstream, sizeof upstream, &len), 0);
    assert_int_equal(len, 12 + 13 + 4);
}

static void test_ecs_and_unknown_options_go_on_and_make_private(void **state)
{
    static const uint16_t codes[] = {DNS_OPTION_COOKIE, DNS_OPTION_ECS, DNS_OPTION_PADDING, 65001};
    uint8_t options[512], query[600], upstream[600];
    struct socks6_slice all = {options, options_of(options, codes, 4)}, value;
    struct dns_request request;
    enum dns_rcode rcode;
    struct dns_edns edns;
    uint16_t code;
    size_t at = 0;
    (void)state;

    size_t len = build(query, 0, "a.example", 1, all, 0);
    assert_int_equal(dns_request_read(query, len, &request, &rcode), DNS_REQUEST_ASK);
    assert_true(request.is_private);
    assert_int_equal(dns_request_build(&request, 1, true, NULL, upstream, sizeof upstream, &len), 0);
    assert_int_equal(dns_message_check(upstream, len, &edns, NULL), 0);
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_ECS);
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 1);
    assert_int_equal(code, 65001);
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 0);
}

static void assert_refused(const uint8_t *query, size_t len, enum dns_rcode expected)
{
    struct dns_request request;
    struct dns_header header;
    struct dns_edns edns;
    enum dns_rcode rcode;

    assert_int_equal(dns_request_read(query, len, &request, &rcode), DNS_REQUEST_ERROR);
    assert_int_equal(rcode, expected);
    size_t n = dns_error_render(&request, rcode, DNS_EDE_NONE, &hop, out);
    assert_int_equal(dns_header_read(out, n, &header), 0);
    assert_int_equal(dns_message_check(out, n, &edns, NULL), 0);
    assert_int_equal(header.id, dns_get16(query));
    assert_int_equal(DNS_FLAGS_OPCODE(header.flags), DNS_FLAGS_OPCODE(dns_get16(query + 2)));
    assert_int_equal(DNS_FLAGS_RCODE(header.flags) | (unsigned)edns.extended_rcode << 4, expected);
    assert_true((header.flags & DNS_FLAG_QR) != 0);
}

static void test_what_is_no_plain_question_is_refused(void **state)
{
    static const struct socks6_slice none = {NULL, 0};
    uint8_t query[600];
    (void)state;

    size_t len = build(query, 0, "a.example", DNS_TYPE_AXFR, none, 0);
    assert_refused(query, len, DNS_RCODE_REFUSED);
    len = build(query, 0, "a.example", DNS_TYPE_IXFR, none, 0);
    assert_refused(query, len, DNS_RCODE_REFUSED);
    len = build(query, 0, "a.example", DNS_TYPE_OPT, none, 0);
    assert_refused(query, len, DNS_RCODE_FORMERR);
    for (unsigned opcode = 1; opcode < 16; opcode++) {
        len = build(query, (uint16_t)(opcode << 11), "a.example", DNS_TYPE_A, none, 0);
        assert_refused(query, len, DNS_RCODE_NOTIMP);
        assert_refused(query, DNS_HEADER_LEN, DNS_RCODE_NOTIMP);
    }
    len = build(query, 0, "a.example", DNS_TYPE_A, none, 0);
    query[len - 5] = 1; /* version */
    assert_refused(query, len, DNS_RCODE_BADVERS);

    len = build(query, 0, "a.example", DNS_TYPE_A, none, 0);
    query[len] = 0; /* garbage behind it */
    assert_refused(query, len + 1, DNS_RCODE_FORMERR);
    for (size_t cut = DNS_HEADER_LEN; cut < len; cut++) {
        assert_refused(query, cut, DNS_RCODE_FORMERR);
    }
    dns_put16(query + 4, 0);
    assert_refused(query, len, DNS_RCODE_FORMERR);
    dns_put16(query + 4, 2);
    assert_refused(query, len, DNS_RCODE_FORMERR);

    /* a record that is no OPT */
    draft_response(&draft, 5, 0, "a.example", 1);
    draft_a(&draft, "", 1, "192.0.2.1");
    dns_put16(draft.bytes + 2, 0);
    assert_refused(draft.bytes, draft.len, DNS_RCODE_FORMERR);
}

static void test_junk_is_told_from_errors(void **state)
{
    static const struct socks6_slice none = {NULL, 0};
    uint8_t query[600];
    struct dns_request request;
    enum dns_rcode rcode;
    (void)state;

    size_t len = build(query, 0, "a.example", 1, none, 0);
    for (size_t cut = 0; cut < DNS_HEADER_LEN; cut++) {
        assert_int_equal(dns_request_read(query, cut, &request, &rcode), DNS_REQUEST_JUNK);
    }
    query[2] |= 0x80; /* a response */
    assert_int_equal(dns_request_read(query, len, &request, &rcode), DNS_REQUEST_JUNK);
}

static void test_key_ignores_case_and_the_hop(void **state)
{
    struct dns_request a = question_of("WWW.Example", 1), b = question_of("www.eXAMPLE", 1);
    struct dns_key ka, kb;
    (void)state;

    b.id = 9;
    b.wants_padding = b.wants_keepalive = true;
    b.flags |= DNS_FLAG_AD;
    dns_key_init(&ka, &a);
    dns_key_init(&kb, &b);
    assert_int_equal(ka.len, kb.len);
    assert_memory_equal(ka.bytes, kb.bytes, ka.len);

    struct dns_request others[] = {a, a, a, a, a, question_of("ww.wexample", 1)};
    others[0].flags ^= DNS_FLAG_RD;
    others[1].flags ^= DNS_FLAG_CD;
    others[2].edns_flags ^= DNS_EDNS_DO;
    others[3].question.type = 2;
    others[4].question.class = 3;
    for (size_t i = 0; i < 6; i++) {
        dns_key_init(&kb, &others[i]);
        assert_true(kb.len != ka.len || memcmp(ka.bytes, kb.bytes, ka.len) != 0);
    }
}

/* ---- answers ---- */

static struct dns_answer *take(const struct dns_request *request)
{
    struct dns_answer *answer = NULL;
    assert_true(dns_answer_fits(draft.bytes, draft.len, request));
    assert_int_equal(dns_answer_new(draft.bytes, draft.len, request, NOW_MS, &answer), 0);
    return answer;
}

static uint32_t ttl_of(const struct dns_request *request)
{
    struct dns_answer *answer = take(request);
    uint32_t ttl = dns_answer_ttl_s(answer);
    dns_answer_release(answer);
    return ttl;
}

static void test_only_an_answer_to_the_question_fits(void **state)
{
    struct dns_request request = question_of("a.example", 1);
    (void)state;

    draft_response(&draft, 1, 0, "A.EXAMPLE", 1);
    assert_true(dns_answer_fits(draft.bytes, draft.len, &request));
    for (size_t cut = 0; cut < draft.len; cut++) {
        assert_false(dns_answer_fits(draft.bytes, cut, &request));
    }
    draft_response(&draft, 1, 0, "b.example", 1);
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    draft_response(&draft, 1, 0, "a.example", 28);
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    draft_response(&draft, 1, 0, "a.example", 1);
    draft.bytes[draft.len - 1] = 3; /* class */
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    draft_response(&draft, 1, 0, "a.example", 1);
    draft.bytes[2] &= 0x7f; /* a query */
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    draft_response(&draft, 1, 0x0800, "a.example", 1); /* another opcode */
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    draft_response(&draft, 1, 0, "a.example", 1);
    dns_put16(draft.bytes + 4, 2);
    assert_false(dns_answer_fits(draft.bytes, draft.len, &request));
    /* without a question: errors only */
    dns_put16(draft.bytes + 4, 0);
    assert_false(dns_answer_fits(draft.bytes, DNS_HEADER_LEN, &request));
    dns_put16(draft.bytes + 2, DNS_FLAG_QR | DNS_RCODE_FORMERR);
    assert_true(dns_answer_fits(draft.bytes, DNS_HEADER_LEN, &request));
}

static void test_life_is_the_least_ttl(void **state)
{
    struct dns_request request = question_of("a.example", 1);
    (void)state;

    draft_response(&draft, 1, 0, "a.example", 1);
    draft_a(&draft, "", 300, "192.0.2.1");
    draft_a(&draft, "", 200, "192.0.2.2");
    assert_int_equal(ttl_of(&request), 200);
    draft_opt(&draft, 512, 0, 0, NULL, 0); /* its TTL is none */
    assert_int_equal(ttl_of(&request), 200);
    draft_response(&draft, 1, 0, "a.example", 1);
    draft_a(&draft, "", 0x80000001, "192.0.2.1"); /* RFC 2181: zero */
    assert_int_equal(ttl_of(&request), 0);
    draft_response(&draft, 1, 0, "a.example", 1);
    draft_a(&draft, "", 0x7fffffff, "192.0.2.1");
    assert_int_equal(ttl_of(&request), DNS_TTL_MAX_S);
    draft_response(&draft, 1, DNS_FLAG_TC, "a.example", 1);
    draft_a(&draft, "", 300, "192.0.2.1");
    assert_int_equal(ttl_of(&request), 0);
    draft_response(&draft, 1, 0, "a.example", 1);
    draft_cname(&draft, "", 70, "b.example"); /* an alias alone: the zone behind it is another's */
    assert_int_equal(ttl_of(&request), 70);
}

static void test_negative_life_is_the_soa_minimum(void **state)
{
    struct dns_request request = question_of("a.example", 1);
    (void)state;

    draft_response(&draft, 1, DNS_RCODE_NXDOMAIN, "a.example", 1);
    assert_int_equal(ttl_of(&request), 0); /* without SOA */
    draft_soa(&draft, "example", 3600, 60);
    assert_int_equal(ttl_of(&request), 60);
    draft_response(&draft, 1, 0, "a.example", 1); /* NODATA */
    draft_soa(&draft, "example", 30, 60);
    assert_int_equal(ttl_of(&request), 30);
    draft_response(&draft, 1, 0, "a.example", 1);
    draft_cname(&draft, "", 500, "b.example"); /* NODATA behind an alias */
    draft_soa(&draft, "example", 3600, 60);
    assert_int_equal(ttl_of(&request), 60);
    draft_response(&draft, 1, DNS_RCODE_NXDOMAIN, "a.example", 1);
    draft_soa(&draft, "example", 1000000, 1000000);
    assert_int_equal(ttl_of(&request), DNS_NEGATIVE_TTL_MAX_S);
    draft_response(&draft, 1, 0, "a.example", 1); /* a referral */
    draft_record(&draft, DNS_AUTHORITY, "example", DNS_TYPE_NS, 3600, "\1x", 3);
    assert_int_equal(ttl_of(&request), 0);
    draft_response(&draft, 1, DNS_RCODE_REFUSED, "a.example", 1);
    draft_soa(&draft, "example", 3600, 60);
    assert_int_equal(ttl_of(&request), 0);
    draft_response(&draft, 1, DNS_RCODE_SERVFAIL, "a.example", 1);
    assert_int_equal(ttl_of(&request), DNS_FAILURE_TTL_S);
    draft_response(&draft, 1, 0, "a.example", 1); /* SOA cut short */
    draft_record(&draft, DNS_AUTHORITY, "example", DNS_TYPE_SOA, 3600, "\0\0", 2);
    assert_int_equal(ttl_of(&request), 0);
}

static void test_answer_is_rendered_for_who_asks(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_header header;
    struct dns_question question;
    struct dns_records records;
    struct dns_record record;
    struct dns_edns edns;
    (void)state;

    draft_response(&draft, 999, DNS_FLAG_RD | DNS_FLAG_RA | DNS_FLAG_AD | DNS_FLAG_AA, "www.example", 1);
    draft_a(&draft, "", 300, "192.0.2.1");
    draft_opt(&draft, 4096, 0, DNS_EDNS_DO, "\0\17\0\2\0\3\0\12\0\2xx", 12); /* EDE 3, a cookie */
    struct dns_answer *answer = take(&request);

    /* without EDNS: no OPT, no AD; its id, its spelling, its RD and CD; TTLs less the age */
    struct dns_request plain = question_of("WwW.eXample", 1);
    plain.id = 7;
    plain.flags = DNS_FLAG_CD;
    plain.has_edns = false;
    size_t len = dns_answer_render(answer, &plain, &hop, NOW_MS + 100999, out);
    assert_int_equal(dns_header_read(out, len, &header), 0);
    assert_int_equal(header.id, 7);
    assert_int_equal(header.flags, DNS_FLAG_QR | DNS_FLAG_RA | DNS_FLAG_AA | DNS_FLAG_CD);
    assert_int_equal(header.count[DNS_ADDITIONAL], 0);
    assert_int_equal(dns_question_read(out, len, &question, NULL), 0);
    assert_memory_equal(question.name.wire, "\3WwW\7eXample", 13);
    assert_int_equal(dns_records_init(&records, out, len), 0);
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.ttl, 200);
    assert_int_equal(dns_records_next(&records, &record), 0);
    assert_int_equal(records.offset, len);

    /* with EDNS, AD and DO: our OPT with DO, the EDE, and nothing of the other hop; keepalive and padding if asked for */
    struct dns_request full = plain;
    full.has_edns = full.wants_keepalive = full.wants_padding = true;
    full.flags = DNS_FLAG_AD | DNS_FLAG_RD;
    full.edns_flags = DNS_EDNS_DO;
    len = dns_answer_render(answer, &full, &hop, NOW_MS, out);
    assert_int_equal(len, 468);
    assert_true((dns_get16(out + 2) & DNS_FLAG_AD) != 0);
    assert_int_equal(dns_message_check(out, len, &edns, NULL), 0);
    assert_int_equal(edns.udp_len, 1232);
    assert_int_equal(edns.flags, DNS_EDNS_DO);
    static const uint16_t expected[] = {DNS_OPTION_EDE, DNS_OPTION_TCP_KEEPALIVE, DNS_OPTION_PADDING};
    struct socks6_slice value;
    size_t at = 0;
    uint16_t code;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 1);
        assert_int_equal(code, expected[i]);
        if (code == DNS_OPTION_TCP_KEEPALIVE) {
            assert_int_equal(value.len, 2);
            assert_int_equal(dns_get16(value.data), 600);
        }
    }
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 0);

    /* TTLs end at zero */
    len = dns_answer_render(answer, &plain, &hop, NOW_MS + 1000000000, out);
    assert_int_equal(dns_records_init(&records, out, len), 0);
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.ttl, 0);
    dns_answer_release(answer);
}

static void test_extended_rcode_is_kept(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_edns edns;
    (void)state;

    draft_response(&draft, 1, 7 /* BADCOOKIE is 23 */, "www.example", 1);
    draft_opt(&draft, 512, 1, 0, NULL, 0);
    struct dns_answer *answer = take(&request);
    size_t len = dns_answer_render(answer, &request, &hop, NOW_MS, out);
    assert_int_equal(dns_message_check(out, len, &edns, NULL), 0);
    assert_int_equal(edns.extended_rcode, 1);
    assert_int_equal(dns_get16(out + 2) & 15, 7);
    dns_answer_release(answer);
}

static void test_options_pass_back_to_a_private_question_only(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_edns edns;
    (void)state;

    for (int is_private = 0; is_private < 2; is_private++) {
        request.is_private = is_private != 0;
        draft_response(&draft, 1, 0, "www.example", 1);
        draft_opt(&draft, 512, 0, 0, "\0\10\0\2zz\0\12\0\2xx\0\13\0\2yy", 18); /* ECS, cookie, keepalive */
        struct dns_answer *answer = take(&request);
        size_t len = dns_answer_render(answer, &request, &hop, NOW_MS, out);
        assert_int_equal(dns_message_check(out, len, &edns, NULL), 0);
        assert_int_equal(edns.options.len, is_private ? 6 : 0);
        dns_answer_release(answer);
    }
}

static void test_opt_in_the_middle_is_taken_out(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_records records;
    struct dns_record record;
    struct dns_name name, expected = name_of("mail.www.example");
    uint8_t rdata[64];
    (void)state;

    draft_response(&draft, 1, 0, "www.example", 1);
    draft_opt(&draft, 512, 0, 0, "\0\17\0\2\0\3", 6);
    /* an MX behind it whose names are compressed, one into what comes behind OPT */
    size_t mx = draft.len;
    dns_put16(rdata, 10);
    memcpy(rdata + 2, "\4mail\300\14", 7);
    draft_record(&draft, DNS_ADDITIONAL, "", DNS_TYPE_MX, 60, rdata, 9);
    size_t mail = mx + 2 + 10 + 2;
    dns_put16(rdata, 0xc000u | (unsigned)mail);
    draft_record(&draft, DNS_ADDITIONAL, "", DNS_TYPE_CNAME, 60, rdata, 2);
    draft_record(&draft, DNS_ADDITIONAL, "", 65280, 60, "\300\14", 2); /* data of an unknown type stays as it is */
    struct dns_answer *answer = take(&request);

    request.has_edns = false;
    size_t len = dns_answer_render(answer, &request, &hop, NOW_MS, out);
    assert_int_equal(dns_records_init(&records, out, len), 0);
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.type, DNS_TYPE_MX);
    assert_int_equal(dns_name_read(out, len, record.rdata_offset + 2, &name, NULL), 0);
    assert_true(dns_name_equal(&name, &expected));
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.type, DNS_TYPE_CNAME);
    assert_int_equal(dns_name_read(out, len, record.rdata_offset, &name, NULL), 0);
    assert_true(dns_name_equal(&name, &expected));
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.rdata.len, 2);
    assert_memory_equal(record.rdata.data, "\300\14", 2);
    assert_int_equal(dns_records_next(&records, &record), 0);
    assert_int_equal(records.offset, len);
    dns_answer_release(answer);
}

static void test_error_without_question_gets_ours(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_question question;
    (void)state;

    draft_response(&draft, 1, DNS_RCODE_NOTIMP, "www.example", 1);
    dns_put16(draft.bytes + 4, 0);
    draft.len = DNS_HEADER_LEN;
    struct dns_answer *answer = take(&request);
    size_t len = dns_answer_render(answer, &request, &hop, NOW_MS, out);
    assert_int_equal(dns_question_read(out, len, &question, NULL), 0);
    assert_true(dns_name_equal(&question.name, &request.question.name));
    assert_int_equal(dns_get16(out + 2) & 15, DNS_RCODE_NOTIMP);
    dns_answer_release(answer);
}

static void test_longest_answer_passes_whole(void **state)
{
    static uint8_t text[DNS_MESSAGE_MAX];
    struct dns_request request = question_of("www.example", 16);
    (void)state;

    memset(text, 'x', sizeof text);
    draft_response(&draft, 1, 0, "www.example", 16);
    draft_record(&draft, DNS_ANSWER, "", 16, 60, text, DNS_MESSAGE_MAX - draft.len - 12);
    assert_int_equal(draft.len, DNS_MESSAGE_MAX);
    struct dns_answer *answer = take(&request);
    request.wants_padding = request.wants_keepalive = true;
    size_t len = dns_answer_render(answer, &request, &hop, NOW_MS, out);
    assert_int_equal(len, DNS_MESSAGE_MAX); /* and no room for OPT */
    assert_memory_equal(out + 4, draft.bytes + 4, len - 4);
    dns_answer_release(answer);
}

static void test_malformed_answer_is_no_answer(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_answer *answer = NULL;
    (void)state;

    draft_response(&draft, 1, 0, "www.example", 1);
    size_t begin = draft.len;
    draft_a(&draft, "", 300, "192.0.2.1");
    for (size_t cut = begin; cut < draft.len; cut++) {
        assert_int_equal(dns_answer_new(draft.bytes, cut, &request, NOW_MS, &answer), -EBADMSG);
    }
    draft.bytes[begin + 1] = (uint8_t)begin; /* its owner points at itself */
    assert_int_equal(dns_answer_new(draft.bytes, draft.len, &request, NOW_MS, &answer), -EBADMSG);
    assert_null(answer);
}

static void test_names_through_ttls_are_malformed(void **state)
{
    struct dns_request request = question_of("www.example", 1);
    struct dns_answer *answer = NULL;
    (void)state;

    draft_response(&draft, 1, 0, "www.example", 1);
    size_t begin = draft.len;
    draft_a(&draft, "", 0x01780000, "192.0.2.1"); /* its TTL reads as the name "x." */
    size_t second = draft.len;
    draft_a(&draft, "", 300, "192.0.2.1");
    assert_int_equal(dns_answer_new(draft.bytes, draft.len, &request, NOW_MS, &answer), 0);
    dns_answer_release(answer);
    dns_put16(draft.bytes + second, 0xc000u | (unsigned)(begin + 6));
    assert_int_equal(dns_answer_new(draft.bytes, draft.len, &request, NOW_MS, &answer), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_is_read_and_built_for_upstream),
        cmocka_unit_test(test_ecs_and_unknown_options_go_on_and_make_private),
        cmocka_unit_test(test_what_is_no_plain_question_is_refused),
        cmocka_unit_test(test_junk_is_told_from_errors),
        cmocka_unit_test(test_key_ignores_case_and_the_hop),
        cmocka_unit_test(test_only_an_answer_to_the_question_fits),
        cmocka_unit_test(test_life_is_the_least_ttl),
        cmocka_unit_test(test_negative_life_is_the_soa_minimum),
        cmocka_unit_test(test_answer_is_rendered_for_who_asks),
        cmocka_unit_test(test_extended_rcode_is_kept),
        cmocka_unit_test(test_options_pass_back_to_a_private_question_only),
        cmocka_unit_test(test_opt_in_the_middle_is_taken_out),
        cmocka_unit_test(test_error_without_question_gets_ours),
        cmocka_unit_test(test_longest_answer_passes_whole),
        cmocka_unit_test(test_malformed_answer_is_no_answer),
        cmocka_unit_test(test_names_through_ttls_are_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
