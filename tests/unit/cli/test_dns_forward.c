#include "cli/dns_forward.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct dns_name name_of(const char *text)
{
    struct dns_name name;

    assert_int_equal(dns_name_parse(text, &name), 0);
    return name;
}

/* A query for www.example A with an OPT record that has options of each kind. */
static size_t make_query(uint8_t *buf, size_t size, bool with_edns)
{
    static const uint8_t ecs[] = {0, 1, 24, 0, 192, 0, 2};
    struct dns_name name = name_of("www.example.");
    struct dns_query query = {.id = 0x1234,
                              .flags = DNS_FLAG_RD | DNS_FLAG_CD,
                              .name = &name,
                              .type = DNS_TYPE_A,
                              .class = DNS_CLASS_IN,
                              .with_edns = with_edns,
                              .edns_udp_len = 1400,
                              .edns_flags = DNS_EDNS_DO};
    uint8_t options[128];
    size_t options_len = 0, len;

    assert_int_equal(
        dns_option_put(options, sizeof options, &options_len, DNS_OPTION_COOKIE, (const uint8_t *)"12345678", 8), 0);
    assert_int_equal(dns_option_put(options, sizeof options, &options_len, DNS_OPTION_ECS, ecs, sizeof ecs), 0);
    assert_int_equal(dns_option_put(options, sizeof options, &options_len, DNS_OPTION_TCP_KEEPALIVE, NULL, 0), 0);
    assert_int_equal(
        dns_option_put(options, sizeof options, &options_len, DNS_OPTION_PADDING, (const uint8_t *)"\0\0\0", 3), 0);
    query.edns_options = (struct socks6_slice){options, with_edns ? options_len : 0};
    assert_int_equal(dns_query_build(&query, buf, size, &len), 0);
    return len;
}

/* In memory of exactly that size, so that a byte read beyond it is found. */
static int read_exact(const uint8_t *bytes, size_t len, struct dns_forward *query, uint8_t *out, size_t *out_len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    int rc;

    assert_non_null(copy);
    memcpy(copy, bytes, len);
    rc = dns_forward_read(copy, len, query, out, out_len);
    free(copy);
    return rc;
}

static void test_query_is_rebuilt_with_the_options_that_pass(void **state)
{
    uint8_t message[512], out[DNS_FORWARD_OUT_MAX];
    struct dns_forward query;
    struct dns_question question;
    struct socks6_slice value;
    struct dns_header header;
    struct dns_edns edns;
    size_t out_len, end, offset = 0;
    uint16_t code;

    (void)state;
    assert_int_equal(read_exact(message, make_query(message, sizeof message, true), &query, out, &out_len), 0);
    assert_int_equal(query.id, 0x1234);
    assert_int_equal(query.udp_len, 1400);
    assert_true(query.has_edns && query.has_question && query.wants_keepalive);
    assert_int_equal(dns_header_read(out, out_len, &header), 0);
    assert_int_equal(header.id, 0);
    assert_int_equal(header.flags, DNS_FLAG_RD | DNS_FLAG_CD);
    assert_int_equal(dns_question_read(out, out_len, &question, NULL), 0);
    assert_true(dns_name_equal(&question.name, &query.question.name));
    assert_int_equal(dns_message_check(out, out_len, &edns, &end), 0);
    assert_int_equal(end, out_len);
    assert_int_equal(edns.udp_len, DNS_FORWARD_UDP_LEN);
    assert_int_equal(edns.flags, DNS_EDNS_DO);
    assert_int_equal(dns_option_next(edns.options, &offset, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_TCP_KEEPALIVE);
    assert_int_equal(value.len, 0);
    assert_int_equal(dns_option_next(edns.options, &offset, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_ECS);
    assert_int_equal(dns_option_next(edns.options, &offset, &code, &value), 0);
}

static void test_query_cut_at_every_byte_is_formerr_or_ignored(void **state)
{
    uint8_t message[512], out[DNS_FORWARD_OUT_MAX], answer[DNS_FORWARD_ERROR_MAX];
    struct dns_forward query;
    size_t len = make_query(message, sizeof message, true), out_len;

    (void)state;
    for (size_t cut = 0; cut < len; cut++) {
        int rc = read_exact(message, cut, &query, out, &out_len);
        struct dns_edns edns;
        size_t answer_len;

        assert_int_equal(rc, cut < DNS_HEADER_LEN ? -EBADMSG : DNS_RCODE_FORMERR);
        if (rc > 0) {
            answer_len = dns_forward_error(&query, (unsigned)rc, -1, answer);
            assert_int_equal(dns_message_check(answer, answer_len, &edns, NULL), 0);
            assert_int_equal(dns_get16(answer), 0x1234);
            assert_int_equal(DNS_FLAGS_RCODE(dns_get16(answer + 2)), DNS_RCODE_FORMERR);
        }
    }
}

static void test_every_byte_changed_is_survived(void **state)
{
    uint8_t message[512], out[DNS_FORWARD_OUT_MAX], answer[DNS_FORWARD_ERROR_MAX];
    struct dns_forward query;
    size_t len = make_query(message, sizeof message, true), out_len;

    (void)state;
    for (size_t at = 0; at < len; at++) {
        uint8_t was = message[at];

        for (unsigned value = 0; value < 256; value++) {
            int rc;

            message[at] = (uint8_t)value;
            rc = read_exact(message, len, &query, out, &out_len);
            if (rc == 0) {
                struct dns_edns edns;

                assert_int_equal(dns_message_check(out, out_len, &edns, NULL), 0);
                assert_true(edns.present);
            } else if (rc > 0) {
                assert_in_range(dns_forward_error(&query, (unsigned)rc, 23, answer), DNS_HEADER_LEN, sizeof answer);
            }
        }
        message[at] = was;
    }
}

static void test_error_with_edns_says_why(void **state)
{
    uint8_t message[512], out[DNS_FORWARD_OUT_MAX], answer[DNS_FORWARD_ERROR_MAX];
    struct dns_forward query;
    struct socks6_slice value;
    struct dns_edns edns;
    size_t out_len, len, offset = 0;
    uint16_t code;

    (void)state;
    assert_int_equal(read_exact(message, make_query(message, sizeof message, true), &query, out, &out_len), 0);
    len = dns_forward_error(&query, DNS_RCODE_BADVERS, 23, answer);
    assert_int_equal(dns_message_check(answer, len, &edns, NULL), 0);
    assert_int_equal(edns.extended_rcode, 1);
    assert_int_equal(dns_option_next(edns.options, &offset, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_EDE);
    assert_int_equal(dns_get16(value.data), 23);

    assert_int_equal(read_exact(message, make_query(message, sizeof message, false), &query, out, &out_len), 0);
    len = dns_forward_error(&query, DNS_RCODE_SERVFAIL, 23, answer);
    assert_int_equal(dns_message_check(answer, len, &edns, NULL), 0);
    assert_false(edns.present);
    assert_int_equal(dns_get16(answer + 2), DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA | DNS_FLAG_CD | DNS_RCODE_SERVFAIL);
}

/* An answer to make_query() with `answers` A records, `additional` ones, and an OPT record at the end. */
static size_t make_answer(uint8_t *buf, unsigned answers, unsigned additional, bool with_edns)
{
    static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1};
    static const uint8_t opt[] = {0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 6, 0, 15, 0, 2, 0, 3};
    size_t len = make_query(buf, 512, false);

    dns_put16(buf + 2, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
    dns_put16(buf + 6, answers);
    dns_put16(buf + 10, additional + (with_edns ? 1 : 0));
    for (unsigned i = 0; i < answers + additional; i++) {
        memcpy(buf + len, record, sizeof record);
        len += sizeof record;
    }
    if (with_edns) {
        memcpy(buf + len, opt, sizeof opt);
        len += sizeof opt;
    }
    return len;
}

/* What a client without EDNS and one with it get of the same answer, at every limit. */
static void test_answers_keep_every_limit(void **state)
{
    static uint8_t message[DNS_MESSAGE_MAX], answer[DNS_MESSAGE_MAX];
    uint8_t asked[512], forwarded[DNS_FORWARD_OUT_MAX];
    struct dns_forward query;
    struct dns_edns edns;
    size_t forwarded_len, len, answer_len, end;

    (void)state;
    for (int with_edns = 0; with_edns < 2; with_edns++) {
        assert_int_equal(
            read_exact(asked, make_query(asked, sizeof asked, with_edns != 0), &query, forwarded, &forwarded_len), 0);
        len = make_answer(message, 40, 10, true);
        for (size_t limit = 512; limit < len + 40; limit++) {
            struct dns_forward_limits limits = {.len = limit};
            struct dns_header header;
            bool fits_all, fits_answers;

            assert_int_equal(dns_forward_answer(&query, &limits, message, len, answer, &answer_len), 0);
            assert_true(answer_len <= limit);
            assert_int_equal(dns_message_check(answer, answer_len, &edns, &end), 0);
            assert_int_equal(end, answer_len);
            assert_int_equal(edns.present, with_edns);
            assert_int_equal(dns_header_read(answer, answer_len, &header), 0);
            assert_int_equal(header.id, 0x1234);
            fits_all = (with_edns ? len : len - 17) <= limit;
            fits_answers = (with_edns ? len : len - 17) - 160 <= limit;
            assert_int_equal(header.count[DNS_ANSWER], fits_answers ? 40 : 0);
            assert_int_equal(header.count[DNS_ADDITIONAL], (fits_all ? 10 : 0) + with_edns);
            assert_int_equal((header.flags & DNS_FLAG_TC) != 0, !fits_answers);
        }
    }
}

static void test_answer_cut_or_changed_anywhere_is_whole_or_refused(void **state)
{
    static uint8_t message[DNS_MESSAGE_MAX], answer[DNS_MESSAGE_MAX];
    const struct dns_forward_limits limits = {.len = 512, .has_keepalive = true, .keepalive_tenths = 100};
    uint8_t asked[512], forwarded[DNS_FORWARD_OUT_MAX];
    struct dns_forward query;
    struct dns_edns edns;
    size_t forwarded_len, len, answer_len;

    (void)state;
    assert_int_equal(read_exact(asked, make_query(asked, sizeof asked, true), &query, forwarded, &forwarded_len), 0);
    len = make_answer(message, 3, 2, true);
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(dns_forward_answer(&query, &limits, message, cut, answer, &answer_len), -EBADMSG);
    }
    for (size_t at = 0; at < len; at++) {
        uint8_t was = message[at];

        for (unsigned value = 0; value < 256; value++) {
            message[at] = (uint8_t)value;
            if (dns_forward_answer(&query, &limits, message, len, answer, &answer_len) == 0) {
                assert_int_equal(dns_message_check(answer, answer_len, &edns, NULL), 0);
                assert_true(edns.present && answer_len <= 512);
            }
        }
        message[at] = was;
    }
}

static void test_an_answer_to_another_question_is_refused(void **state)
{
    uint8_t message[512];
    struct dns_question asked = {name_of("WWW.example."), DNS_TYPE_A, DNS_CLASS_IN};
    size_t len = make_answer(message, 1, 0, false);

    (void)state;
    assert_true(dns_forward_matches(&asked, message, len));
    message[2] &= 0x7f;
    assert_false(dns_forward_matches(&asked, message, len));
    message[2] |= 0x80;
    asked.type = DNS_TYPE_AAAA;
    assert_false(dns_forward_matches(&asked, message, len));
    asked.type = DNS_TYPE_A;
    asked.class = 3;
    assert_false(dns_forward_matches(&asked, message, len));
    asked.class = DNS_CLASS_IN;
    asked.name = name_of("www2.example.");
    assert_false(dns_forward_matches(&asked, message, len));
    dns_put16(message + 4, 0); /* no question: only where something is wrong */
    assert_false(dns_forward_matches(&asked, message, DNS_HEADER_LEN));
    message[3] |= DNS_RCODE_FORMERR;
    assert_true(dns_forward_matches(&asked, message, DNS_HEADER_LEN));
    assert_false(dns_forward_matches(&asked, message, DNS_HEADER_LEN - 1));
}

static void test_keepalive_is_found_only_where_it_is(void **state)
{
    static const uint8_t opt[] = {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 11, 0, 2, 1, 44};
    uint8_t message[512];
    size_t len = make_answer(message, 1, 0, true);

    (void)state;
    assert_int_equal(dns_forward_keepalive(message, len), -1);
    len = make_answer(message, 1, 0, false);
    assert_int_equal(dns_forward_keepalive(message, len), -1);
    memcpy(message + len, opt, sizeof opt);
    dns_put16(message + 10, 1);
    assert_int_equal(dns_forward_keepalive(message, len + sizeof opt), 300);
    assert_int_equal(dns_forward_keepalive(message, len + sizeof opt - 1), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query_is_rebuilt_with_the_options_that_pass),
        cmocka_unit_test(test_query_cut_at_every_byte_is_formerr_or_ignored),
        cmocka_unit_test(test_every_byte_changed_is_survived),
        cmocka_unit_test(test_error_with_edns_says_why),
        cmocka_unit_test(test_answers_keep_every_limit),
        cmocka_unit_test(test_answer_cut_or_changed_anywhere_is_whole_or_refused),
        cmocka_unit_test(test_an_answer_to_another_question_is_refused),
        cmocka_unit_test(test_keepalive_is_found_only_where_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
