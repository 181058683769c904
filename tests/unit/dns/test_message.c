/*
 * The DNS message codec: names and their compression, messages cut at every byte, text forms, queries.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dns/message.h"

/* An exact copy on the heap: a read past its end is seen by the sanitizer. */
static uint8_t *exact(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len == 0 ? 1 : len);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    return copy;
}

static struct dns_name name_of(const char *text)
{
    struct dns_name name;
    assert_int_equal(dns_name_parse(text, &name), 0);
    return name;
}

/* www.example.org A? with a CNAME, an A (owner compressed twice over), an SOA in authority, an OPT with two options. */
static const uint8_t answer[] = {
    0x12, 0x34, 0x81, 0x80, 0,    1,   0,    2,    0,    1,    0,   1,                            /* 0: header */
    3,    'w',  'w',  'w',  7,    'e', 'x',  'a',  'm',  'p',  'l', 'e', 3,    'o', 'r',  'g', 0, /* 12 */
    0,    1,    0,    1,                                                                          /* 29 */
    0xc0, 12,   0,    5,    0,    1,   0,    0,    0x0e, 0x10, 0,   4,   1,    'x', 0xc0, 16, /* 33: CNAME x.example.org */
    0xc0, 45,   0,    1,    0,    1,   0,    0,    0,    60,   0,   4,   192,  0,   2,    1,                /* 49: A */
    0xc0, 16,   0,    6,    0,    1,   0x80, 0,    0,    1,    0,   22,  0xc0, 16,  0xc0, 12,  0, 0, 0,  1, /* 65: SOA */
    0,    0,    0,    2,    0,    0,   0,    3,    0,    0,    0,   4,   0,    0, /* its minimum is cut on purpose: rdata is opaque */
    0,    0,    41,   0x04, 0xd0, 1,   0,    0x80, 0,    0,    11,  0,   15,   0,   2,    0,   9, 0, 12, 0, 1,
    0, /* 99: OPT */
};

static void test_check_whole_answer_finds_edns(void **state)
{
    struct dns_edns edns;
    size_t end;
    (void)state;

    uint8_t *message = exact(answer, sizeof answer);
    assert_int_equal(dns_message_check(message, sizeof answer, &edns, &end), 0);
    assert_int_equal(end, sizeof answer);
    assert_true(edns.present);
    assert_int_equal(edns.udp_len, 1232);
    assert_int_equal(edns.extended_rcode, 1);
    assert_int_equal(edns.version, 0);
    assert_int_equal(edns.flags, DNS_EDNS_DO);
    assert_int_equal(edns.end, sizeof answer);

    struct socks6_slice value;
    uint16_t code;
    size_t at = 0;
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_EDE);
    assert_int_equal(value.len, 2);
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 1);
    assert_int_equal(code, DNS_OPTION_PADDING);
    assert_int_equal(dns_option_next(edns.options, &at, &code, &value), 0);
    free(message);
}

static void test_records_are_walked_in_order(void **state)
{
    struct dns_records records;
    struct dns_record record;
    struct dns_name name;
    (void)state;

    assert_int_equal(dns_records_init(&records, answer, sizeof answer), 0);
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.section, DNS_ANSWER);
    assert_int_equal(record.type, DNS_TYPE_CNAME);
    assert_int_equal(record.ttl, 3600);
    assert_int_equal(record.offset, 33);
    assert_int_equal(record.ttl_offset, 39);
    name = name_of("www.example.org");
    assert_true(dns_name_equal(&record.owner, &name));
    assert_int_equal(dns_name_read(answer, sizeof answer, record.rdata_offset, &name, NULL), 0);
    struct dns_name target = name_of("X.Example.ORG.");
    assert_true(dns_name_equal(&name, &target));

    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_true(dns_name_equal(&record.owner, &target));
    assert_int_equal(record.rdata.len, 4);
    assert_memory_equal(record.rdata.data, ((uint8_t[]){192, 0, 2, 1}), 4);

    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.section, DNS_AUTHORITY);
    assert_int_equal(record.type, DNS_TYPE_SOA);
    assert_int_equal(dns_ttl(record.ttl), 0);
    assert_int_equal(dns_records_next(&records, &record), 1);
    assert_int_equal(record.section, DNS_ADDITIONAL);
    assert_int_equal(record.type, DNS_TYPE_OPT);
    assert_int_equal(dns_records_next(&records, &record), 0);
    assert_int_equal(dns_records_next(&records, &record), 0);
}

static void test_answer_cut_at_every_byte_is_malformed(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof answer; len++) {
        struct dns_edns edns = {.udp_len = 77};
        struct dns_question question;
        uint8_t *message = exact(answer, len);
        assert_int_equal(dns_message_check(message, len, &edns, NULL), -EBADMSG);
        assert_int_equal(edns.udp_len, 77);
        assert_int_equal(dns_question_read(message, len, &question, NULL), len < 33 ? -EBADMSG : 0);
        free(message);
    }
}

/* Whatever one wrong byte does, nothing is read outside and the walk ends. */
static void test_every_byte_flipped_is_survived(void **state)
{
    (void)state;
    for (size_t at = 0; at < sizeof answer; at++) {
        for (unsigned value = 0; value < 256; value++) {
            struct dns_edns edns;
            size_t end = 0;
            uint8_t *message = exact(answer, sizeof answer);
            message[at] = (uint8_t)value;
            if (dns_message_check(message, sizeof answer, &edns, &end) == 0) {
                assert_in_range(end, DNS_HEADER_LEN, sizeof answer);
            }
            free(message);
        }
    }
}

static void test_compression_forwards_to_itself_or_in_a_loop_is_malformed(void **state)
{
    static const struct {
        uint8_t bytes[10];
        size_t offset;
    } cases[] = {
        {{0xc0, 12}, 0},            /* to itself */
        {{0xc0, 14, 0xc0, 12}, 2},  /* backwards, then forwards */
        {{1, 'a', 0xc0, 12}, 0},    /* to its own beginning: endless */
        {{1, 'a', 0xc0, 12}, 2},    /* the same, entered at the pointer */
        {{1, 'a', 0xc0, 16, 0}, 0}, /* forwards */
        {{0, 0xc0, 0}, 1},          /* into the header */
        {{0x40, 'a', 0}, 0},        /* reserved label types */
        {{0x80, 'a', 0}, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct dns_name name = {.len = 99};
        uint8_t bytes[DNS_HEADER_LEN + 10] = {0};
        memcpy(bytes + DNS_HEADER_LEN, cases[i].bytes, 10);
        uint8_t *message = exact(bytes, sizeof bytes);
        /* case 3 enters behind the label: its pointer leads back to the label, which leads to the pointer again */
        assert_int_equal(dns_name_read(message, sizeof bytes, DNS_HEADER_LEN + cases[i].offset, &name, NULL), -EBADMSG);
        assert_int_equal(name.len, 99);
        free(message);
    }
}

static void test_long_pointer_chain_is_read_once(void **state)
{
    /* 63 names of one label, each ending in a pointer to the one before: 127 bytes of name, 62 pointers. */
    uint8_t message[1024] = {0};
    size_t at = DNS_HEADER_LEN, before = at, next = 0;
    struct dns_name name;
    (void)state;

    message[at++] = 1;
    message[at++] = 'a';
    message[at++] = 0;
    for (int i = 0; i < 62; i++) {
        size_t begin = at;
        message[at++] = 1;
        message[at++] = 'b';
        dns_put16(message + at, 0xc000u | (unsigned)before);
        at += 2;
        before = begin;
    }
    assert_int_equal(dns_name_read(message, at, before, &name, &next), 0);
    assert_int_equal(name.len, 2 * 63 + 1);
    assert_int_equal(next, at);
}

static void test_name_over_255_bytes_is_malformed(void **state)
{
    uint8_t message[DNS_HEADER_LEN + 300] = {0};
    struct dns_name name;
    (void)state;

    /* 127 labels of one byte and the root: 255 bytes, just right; one more is too long */
    for (size_t labels = 126; labels <= 128; labels++) {
        for (size_t i = 0; i < labels; i++) {
            message[DNS_HEADER_LEN + 2 * i] = 1;
            message[DNS_HEADER_LEN + 2 * i + 1] = 'a';
        }
        message[DNS_HEADER_LEN + 2 * labels] = 0;
        int rc = dns_name_read(message, sizeof message, DNS_HEADER_LEN, &name, NULL);
        assert_int_equal(rc, labels <= 127 ? 0 : -EBADMSG);
    }
}

static void test_opt_twice_or_misplaced_is_malformed(void **state)
{
    static const uint8_t opt[] = {0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0};
    uint8_t message[64] = {0};
    struct dns_edns edns;
    (void)state;

    memcpy(message + 12, opt, sizeof opt);
    memcpy(message + 12 + sizeof opt, opt, sizeof opt);
    dns_put16(message + 10, 1);
    assert_int_equal(dns_message_check(message, 12 + sizeof opt, &edns, NULL), 0);
    assert_true(edns.present);
    dns_put16(message + 10, 2);
    assert_int_equal(dns_message_check(message, 12 + 2 * sizeof opt, &edns, NULL), -EBADMSG);
    dns_put16(message + 10, 0);
    dns_put16(message + 6, 1); /* in the answer section */
    assert_int_equal(dns_message_check(message, 12 + sizeof opt, &edns, NULL), -EBADMSG);
}

static void test_name_text_goes_there_and_back(void **state)
{
    static const struct {
        const char *text, *canonical;
    } cases[] = {
        {".", "."},
        {"example.org", "example.org."},
        {"example.org.", "example.org."},
        {"_443._tcp.Example.org", "_443._tcp.Example.org."},
        {"a\\.b.c", "a\\.b.c."},
        {"\\000\\255\\032.x", "\\000\\255\\032.x."},
        {"a\\\\b", "a\\\\b."},
        {"\\097bc", "abc."},
        {"\\x", "x."},
        {"a\\\"b;", "a\\\"b\\;."},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[DNS_NAME_TEXT_MAX];
        struct dns_name name = name_of(cases[i].text);
        assert_int_equal(dns_name_format(&name, text), strlen(cases[i].canonical));
        assert_string_equal(text, cases[i].canonical);
        struct dns_name again = name_of(text);
        assert_int_equal(again.len, name.len);
        assert_memory_equal(again.wire, name.wire, name.len);
    }
}

static void test_bad_name_text_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "..",
        ".a",
        "a..b",
        "a..",
        "\\",
        "a\\",
        "\\25",
        "\\256",
        "\\2x5",
        "1234567890123456789012345678901234567890123456789012345678901234", /* 64 */
    };
    struct dns_name name;
    char text[600];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(dns_name_parse(cases[i], &name), -EINVAL);
    }
    /* 127 labels fit, with and without the final dot; 128 do not; nor does a label that ends beyond */
    for (size_t i = 0; i < 128; i++) {
        memcpy(text + 2 * i, "a.", 3);
    }
    assert_int_equal(dns_name_parse(text, &name), -EINVAL);
    text[2 * 127] = '\0';
    assert_int_equal(dns_name_parse(text, &name), 0);
    assert_int_equal(name.len, 255);
    text[2 * 127 - 1] = '\0';
    assert_int_equal(dns_name_parse(text, &name), 0);
    memcpy(text + 2 * 127 - 1, "b", 2);
    assert_int_equal(dns_name_parse(text, &name), -EINVAL);
}

static void test_longest_text_fits(void **state)
{
    struct dns_name name = {.len = 255};
    char text[DNS_NAME_TEXT_MAX];
    (void)state;
    for (size_t at = 0; at < 254;) {
        size_t len = 254 - at - 1 < 63 ? 254 - at - 1 : 63;
        name.wire[at] = (uint8_t)len;
        memset(name.wire + at + 1, 0xff, len);
        at += 1 + len;
    }
    size_t text_len = dns_name_format(&name, text);
    assert_int_equal(text_len, strlen(text));
    assert_true(strlen(text) < sizeof text);
}

static void test_under_compares_whole_labels(void **state)
{
    struct dns_name host = name_of("a.Example.org"), zone = name_of("example.ORG"), root = name_of("."),
                    other = name_of("ample.org");
    (void)state;
    assert_true(dns_name_is_under(&host, &zone));
    assert_true(dns_name_is_under(&host, &host));
    assert_true(dns_name_is_under(&host, &root));
    assert_true(dns_name_is_under(&root, &root));
    assert_false(dns_name_is_under(&zone, &host));
    assert_false(dns_name_is_under(&host, &other));
    assert_false(dns_name_equal(&zone, &other));
    dns_name_lower(&host);
    char text[DNS_NAME_TEXT_MAX];
    (void)dns_name_format(&host, text);
    assert_string_equal(text, "a.example.org.");
}

static void test_query_is_built_and_read_back(void **state)
{
    struct dns_name name = name_of("example.org");
    uint8_t options[64], buf[512];
    size_t options_len = 0, len = 0;
    (void)state;

    assert_int_equal(
        dns_option_put(options, sizeof options, &options_len, DNS_OPTION_COOKIE, (const uint8_t *)"12345678", 8), 0);
    assert_int_equal(dns_option_put(options, sizeof options, &options_len, DNS_OPTION_TCP_KEEPALIVE, NULL, 0), 0);
    assert_int_equal(dns_option_put(options, 16, &options_len, DNS_OPTION_PADDING, NULL, 0), -ENOSPC);
    struct dns_query query = {
        .id = 0xabcd,
        .flags = DNS_FLAG_RD | DNS_FLAG_CD,
        .name = &name,
        .type = DNS_TYPE_HTTPS,
        .class = DNS_CLASS_IN,
        .with_edns = true,
        .edns_udp_len = 1232,
        .edns_flags = DNS_EDNS_DO,
        .edns_options = {options, options_len},
    };
    assert_int_equal(dns_query_build(&query, buf, sizeof buf, &len), 0);
    for (size_t size = 0; size < len; size++) {
        uint8_t *small = malloc(size == 0 ? 1 : size);
        size_t ignored;
        assert_int_equal(dns_query_build(&query, small, size, &ignored), -ENOSPC);
        free(small);
    }
    struct dns_header header;
    struct dns_question question;
    struct dns_edns edns;
    size_t end;
    assert_int_equal(dns_header_read(buf, len, &header), 0);
    assert_int_equal(header.id, 0xabcd);
    assert_int_equal(header.flags, 0x0110);
    assert_int_equal(dns_question_read(buf, len, &question, NULL), 0);
    assert_true(dns_name_equal(&question.name, &name));
    assert_int_equal(question.type, 65);
    assert_int_equal(question.class, 1);
    assert_int_equal(dns_message_check(buf, len, &edns, &end), 0);
    assert_int_equal(end, len);
    assert_true(edns.present);
    assert_int_equal(edns.flags, DNS_EDNS_DO);
    assert_int_equal(edns.options.len, options_len);
    assert_memory_equal(edns.options.data, options, options_len);

    query.with_edns = false;
    assert_int_equal(dns_query_build(&query, buf, sizeof buf, &len), 0);
    assert_int_equal(len, 12 + 13 + 4);
    assert_int_equal(dns_message_check(buf, len, &edns, &end), 0);
    assert_false(edns.present);
    dns_put16(buf + 4, 0);
    assert_int_equal(dns_question_read(buf, len, &question, NULL), -ENOENT);
}

/* A pointer to a pointer to a pointer: legal, pointless, and cheap to send. */
static void test_long_chains_of_pointers_are_malformed(void **state)
{
    uint8_t message[DNS_HEADER_LEN + 1 + 2 * 128] = {0};
    struct dns_name name;

    (void)state;
    for (size_t i = 0; i < 128; i++) { /* the first to the root label, each other one to that before */
        size_t at = DNS_HEADER_LEN + 1 + 2 * i;
        dns_put16(message + at, 0xc000u | (unsigned)(i == 0 ? DNS_HEADER_LEN : at - 2));
    }
    assert_int_equal(dns_name_read(message, sizeof message, sizeof message - 4, &name, NULL), 0);
    assert_int_equal(name.len, 1);
    assert_int_equal(dns_name_read(message, sizeof message, sizeof message - 2, &name, NULL), -EBADMSG);
}

/* Every byte at every place within a word, in names of all lengths, and nothing behind them is touched. */
static void test_names_are_folded_byte_by_byte(void **state)
{
    struct dns_name name;
    uint8_t out[DNS_NAME_MAX + 1];

    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        for (size_t len = 0; len <= DNS_NAME_MAX; len += len < 24 ? 1 : 33) {
            name.len = (uint8_t)len;
            for (size_t i = 0; i < DNS_NAME_MAX; i++) {
                name.wire[i] = (uint8_t)(first + i);
            }
            memset(out, 0xee, sizeof out);
            dns_name_fold(&name, out);
            for (size_t i = 0; i < len; i++) {
                uint8_t byte = name.wire[i];
                assert_int_equal(out[i], byte >= 'A' && byte <= 'Z' ? byte + 'a' - 'A' : byte);
            }
            assert_int_equal(out[len], 0xee);
            dns_name_lower(&name);
            assert_memory_equal(name.wire, out, len);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_whole_answer_finds_edns),
        cmocka_unit_test(test_records_are_walked_in_order),
        cmocka_unit_test(test_answer_cut_at_every_byte_is_malformed),
        cmocka_unit_test(test_long_chains_of_pointers_are_malformed),
        cmocka_unit_test(test_every_byte_flipped_is_survived),
        cmocka_unit_test(test_compression_forwards_to_itself_or_in_a_loop_is_malformed),
        cmocka_unit_test(test_long_pointer_chain_is_read_once),
        cmocka_unit_test(test_name_over_255_bytes_is_malformed),
        cmocka_unit_test(test_opt_twice_or_misplaced_is_malformed),
        cmocka_unit_test(test_name_text_goes_there_and_back),
        cmocka_unit_test(test_bad_name_text_is_refused),
        cmocka_unit_test(test_longest_text_fits),
        cmocka_unit_test(test_under_compares_whole_labels),
        cmocka_unit_test(test_query_is_built_and_read_back),
        cmocka_unit_test(test_names_are_folded_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
