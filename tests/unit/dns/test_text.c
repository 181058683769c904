#include "dns/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- records from hexadecimal ---- */

/* "foo.bar." on the wire. */
#define FOO "03666f6f0362617200"

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t len = 0;

    for (; *hex != '\0'; hex += 2) {
        out[len++] = (uint8_t)(hex_digit(hex[0]) << 4 | hex_digit(hex[1]));
    }
    return len;
}

/* A message of its own with one record, in memory of exactly its size; its owner is x.test at offset 12. */
struct message {
    uint8_t *bytes;
    size_t len;
    struct dns_record record;
};

static struct message make(uint16_t type, const uint8_t *rdata, size_t rdata_len)
{
    static const uint8_t head[] = {0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 'x', 4, 't', 'e', 's', 't', 0};
    struct message m = {NULL, sizeof head + 10 + rdata_len, {0}};
    struct dns_records records;
    uint8_t *at;

    m.bytes = malloc(m.len);
    assert_non_null(m.bytes);
    memcpy(m.bytes, head, sizeof head);
    at = m.bytes + sizeof head;
    dns_put16(at, type);
    dns_put16(at + 2, DNS_CLASS_IN);
    dns_put32(at + 4, 300);
    dns_put16(at + 8, (unsigned)rdata_len);
    if (rdata_len > 0) {
        memcpy(at + 10, rdata, rdata_len);
    }
    assert_int_equal(dns_records_init(&records, m.bytes, m.len), 0);
    assert_int_equal(dns_records_next(&records, &m.record), 1);
    return m;
}

static char text[DNS_RDATA_TEXT_MAX];

static const char *format(uint16_t type, const uint8_t *rdata, size_t rdata_len, size_t split)
{
    struct message m = make(type, rdata, rdata_len);
    size_t len = dns_rdata_format(m.bytes, m.len, &m.record, split, text, sizeof text);

    free(m.bytes);
    assert_int_equal(len, strlen(text));
    for (size_t i = 0; i < len; i++) {
        assert_in_range((uint8_t)text[i], ' ', '~');
    }
    return text;
}

/* ---- every type: type, data, text ---- */

static const struct {
    uint16_t type;
    const char *rdata, *text;
} cases[] = {
    {1, "c0000201", "192.0.2.1"},
    {2, FOO, "foo.bar."},
    {2, "c00c", "x.test."},
    {2,
     "05612e623b630540242829220201"
     "5c00",
     "a\\.b\\;c.\\@\\$\\(\\)\\\".\\001\\\\."},
    {2,
     "0461802062"
     "00",
     "a\\128\\032b."},
    {2, "00", "."},
    {5, FOO, "foo.bar."},
    {6,
     FOO "03616263c00c"
         "0000000100000002000000030000000400000005",
     "foo.bar. abc.x.test. 1 2 3 4 5"},
    {12, FOO, "foo.bar."},
    {13,
     "03616220"
     "026364",
     "\"ab \" \"cd\""},
    {14, FOO FOO, "foo.bar. foo.bar."},
    {15, "000a" FOO, "10 foo.bar."},
    {15, "000a0161c00c", "10 a.x.test."},
    {16, "0561225c3b0003ff616200", "\"a\\\"\\\\;\\000\" \"\\255ab\" \"\""},
    {17, FOO FOO, "foo.bar. foo.bar."},
    {18, "0001" FOO, "1 foo.bar."},
    {19, "03313233", "\"123\""},
    {20, "03313233026162", "\"123\" \"ab\""},
    {21, "0001" FOO, "1 foo.bar."},
    {25, "0101030800000000", "257 3 8 AAAAAA=="},
    {26, "0001" FOO FOO, "1 foo.bar. foo.bar."},
    {27, "013101320133", "\"1\" \"2\" \"3\""},
    {28, "20010db8000000000000000000000001", "2001:db8::1"},
    {29,
     "00121613"
     "89030700"
     "70c5be85"
     "00988d1b",
     "41 59 53.344 N 70 57 56.091 W -24.05m 1m 10000m 10m"},
    {29,
     "00001599"
     "80000000"
     "80000000"
     "009896e4",
     "0 0 0.000 N 0 0 0.000 E 1.00m 0.00m 1000m 90000000m"},
    {33, "000100020003" FOO, "1 2 3 foo.bar."},
    {35,
     "00640032"
     "0175"
     "074532552b736970"
     "00" FOO,
     "100 50 \"u\" \"E2U+sip\" \"\" foo.bar."},
    {36, "0001" FOO, "1 foo.bar."},
    {37, "0001000208000000", "1 2 8 AAAA"},
    {39, FOO, "foo.bar."},
    {42,
     "00011883c0000200024002"
     "2001",
     "!1:192.0.2.0/24 2:2001::/64"},
    {42, "", ""},
    {43, "4f66080200ff", "20326 8 2 00FF"},
    {44, "010200ff", "1 2 00FF"},
    {46, "000108020000012c6553f0a05f5e10000005" FOO "00ff10",
     "A 8 2 300 20231114221144 20200913122640 5 foo.bar. AP8Q"},
    {47,
     FOO "00064001000000038101"
         "40",
     "foo.bar. A MX RRSIG NSEC TYPE33025"},
    {47, FOO, "foo.bar."},
    {48, "0101030800ff10", "257 3 8 AP8Q"},
    {49, "00ff10", "AP8Q"},
    {50,
     "0101000502abcd14000102030405060708090a0b0c0d0e0f1011121300064001000000"
     "03",
     "1 1 5 ABCD 000G40O40K30E209185GO38E1S8124GJ A MX RRSIG NSEC"},
    {50, "010000000001ff", "1 0 0 - VS"},
    {51, "0100000500", "1 0 5 -"},
    {51, "0100000502abcd", "1 0 5 ABCD"},
    {52, "03010100ff", "3 1 1 00FF"},
    {53, "03010100ff", "3 1 1 00FF"},
    {59, "0000000000", "0 0 0 00"},
    {60, "0000030000", "0 3 0 AA=="},
    {61, "00ff", "AP8="},
    {62,
     "000000050003"
     "000140",
     "5 3 A"},
    {63, "00000005010100ff", "5 1 1 00FF"},
    {64, "0001" FOO, "1 foo.bar."},
    {64,
     "000100"
     "000100080"
     "5612c625c22013b",
     "1 . alpn=\"a\\\\,b\\\\\\\\\\\",;\""},
    {64,
     "000100"
     "ff000000",
     "1 . key65280"},
    {65, "0000" FOO, "0 foo.bar."},
    {65,
     "000100"
     "0000000400010004"
     "00010006026832026833"
     "00020000"
     "0003000201bb"
     "000400080102030405060708"
     "000500020102"
     "000600100000000000000000000000000000000"
     "1"
     "000700082f717b3f646e737d"
     "00080000"
     "00090002001d"
     "ff0000086122625c00ff2063",
     "1 . mandatory=alpn,ipv4hint alpn=\"h2,h3\" no-default-alpn port=443 ipv4hint=1.2.3.4,5.6.7.8 ech=AQI= "
     "ipv6hint=::1 key7=\"/q{?dns}\" key8 key9=\"\\000\\029\" key65280=\"a\\\"b\\\\\\000\\255 c\""},
    {99, "03616263", "\"abc\""},
    {104, "00010001020304050607", "1 1:203:405:607"},
    {105, "000100000000", "1 0.0.0.0"},
    {106, "00010000000000000000", "1 0:0:0:0"},
    {107, "0001" FOO, "1 foo.bar."},
    {108, "00005e0053af", "00-00-5e-00-53-af"},
    {109, "0001020304050607", "00-01-02-03-04-05-06-07"},
    {256, "00010002687474703a2f2f7822795c2f", "1 2 \"http://x\\\"y\\\\/\""},
    {257, "000569737375656122623b63", "0 issue \"a\\\"b;c\""},
    {257, "8005697373756500", "128 issue \"\\000\""},
    {32769, "4f66080200ff", "20326 8 2 00FF"},
    /* No form of their own. */
    {10, "78797a", "\\# 3 78797A"},
    {41, "", "\\# 0"},
    {65280, "", "\\# 0"},
    {65280, "00ff", "\\# 2 00FF"},
};

static void test_every_type_has_its_text(void **state)
{
    uint8_t rdata[512];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = from_hex(cases[i].rdata, rdata);

        assert_string_equal(format(cases[i].type, rdata, len, 0), cases[i].text);
    }
}

/* Data that does not have the form of its type: these, and whatever is one byte too long in what has a fixed end. */
static void test_other_data_is_written_in_the_generic_form(void **state)
{
    static const struct {
        uint16_t type;
        const char *rdata, *text;
    } bad[] = {
        {1, "", "\\# 0"},
        {1, "c00002", "\\# 3 C00002"},
        {1, "c000020101", "\\# 5 C000020101"},
        {2, "c0ff", "\\# 2 C0FF"},         /* a pointer out of the message */
        {2, "c01e", "\\# 2 C01E"},         /* to itself */
        {2, "03666f6f", "\\# 4 03666F6F"}, /* a name without an end */
        {16, "", "\\# 0"},
        {16, "0461", "\\# 2 0461"},
        {29, "01000000800000008000000000989680", "\\# 16 01000000800000008000000000989680"}, /* its version is not 0 */
        {29, "00a00000800000008000000000989680", "\\# 16 00A00000800000008000000000989680"}, /* its size has no digit */
        {29, "00000000ffffffff8000000000989680", "\\# 16 00000000FFFFFFFF8000000000989680"}, /* north of the pole */
        {42, "0001210101", "\\# 5 0001210101"},                                              /* 33 bits of IPv4 */
        {42, "0003080101", "\\# 5 0003080101"}, /* no family that we know */
        {43, "4f660802", "\\# 4 4F660802"},     /* no digest */
        {47,
         "00"
         "0000",
         "\\# 3 000000"}, /* an empty window */
        {47,
         "00"
         "01014000"
         "0140",
         "\\# 7 00010140000140"},                   /* windows out of order */
        {50, "010000000000", "\\# 6 010000000000"}, /* no hash */
        {64,
         "000100"
         "00030002"
         "01bb00030002"
         "01bb",
         "\\# 15 0001000003000201BB0003000201BB"}, /* a key twice */
        {64,
         "000100"
         "00030001"
         "01",
         "\\# 8 0001000003000101"},
        {64,
         "000100"
         "00010000",
         "\\# 7 00010000010000"}, /* no alpn in alpn */
        {64,
         "000100"
         "00020001"
         "00",
         "\\# 8 0001000002000100"},
        {64,
         "000100"
         "00040005"
         "0102030405",
         "\\# 12 000100000400050102030405"},
        {108, "0001020304", "\\# 5 0001020304"},
        {257,
         "0000"
         "61",
         "\\# 3 000061"},                        /* no tag */
        {257, "00022d2d61", "\\# 5 00022D2D61"}, /* a tag that is no word */
    };
    uint8_t rdata[64];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t len = from_hex(bad[i].rdata, rdata);

        assert_string_equal(format(bad[i].type, rdata, len, 0), bad[i].text);
    }
}

/* Types with a field that takes what is left, and so may stay right when they are cut; an EUI-64 becomes an EUI-48. */
static bool has_open_end(uint16_t type)
{
    static const uint16_t open[] = {16, 20, 25, 37, 42, 43, 44, 46, 47, 48,  49,  50,  52,
                                    53, 59, 60, 61, 62, 63, 64, 65, 99, 109, 256, 257, 32769};

    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        if (open[i] == type) {
            return true;
        }
    }
    return false;
}

/* format() looks for what must never be in a text. */
static void test_data_cut_at_every_byte_is_written_in_the_generic_form(void **state)
{
    uint8_t rdata[512];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = from_hex(cases[i].rdata, rdata);

        for (size_t cut = 0; cut < len; cut++) {
            const char *got = format(cases[i].type, rdata, cut, 0);
            char generic[32];

            (void)snprintf(generic, sizeof generic, "\\# %zu", cut);
            assert_true(has_open_end(cases[i].type) || strncmp(got, generic, strlen(generic)) == 0);
            assert_string_not_equal(got, cases[i].text);
        }
    }
}

/* Each type from 0 to 300 over data that could be anything. */
static void test_any_data_of_any_type_is_safe(void **state)
{
    uint8_t rdata[40];
    uint32_t seed = 1;

    (void)state;
    for (unsigned type = 0; type < 300; type++) {
        for (unsigned round = 0; round < 200; round++) {
            size_t len = round % sizeof rdata;

            for (size_t i = 0; i < len; i++) {
                seed = seed * 1664525u + 1013904223u;
                rdata[i] = (uint8_t)(seed >> 24 & (round % 3 == 0 ? 0x0fu : 0xffu));
            }
            (void)format((uint16_t)type, rdata, len, round % 2 == 0 ? DNS_SPLIT_WIDTH : 0);
        }
    }
}

static void test_long_data_is_split_as_dig_does(void **state)
{
    uint8_t rdata[64];

    (void)state;
    for (size_t i = 0; i < sizeof rdata; i++) {
        rdata[i] = (uint8_t)i;
    }
    assert_string_equal(format(65280, rdata, 28, DNS_SPLIT_WIDTH),
                        "\\# 28 000102030405060708090A0B0C0D0E0F101112131415161718191A1B");
    assert_string_equal(format(65280, rdata, 29, DNS_SPLIT_WIDTH),
                        "\\# 29 000102030405060708090A0B0C0D0E0F101112131415161718191A1B 1C");
    assert_string_equal(format(61, rdata, 42, DNS_SPLIT_WIDTH),
                        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygp");
    assert_string_equal(format(61, rdata, 43, DNS_SPLIT_WIDTH),
                        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygp Kg==");
}

static void test_the_longest_texts_fit(void **state)
{
    static uint8_t rdata[65000];
    size_t len = 1;

    (void)state;
    rdata[0] = 0;
    for (unsigned window = 0; window < 256; window++) {
        rdata[len++] = (uint8_t)window;
        rdata[len++] = 32;
        memset(rdata + len, 0xff, 32);
        len += 32;
    }
    assert_true(strstr(format(47, rdata, len, 0), "TYPE65534 TYPE65535") != NULL);
    memset(rdata, 1, sizeof rdata); /* strings of one byte that needs four */
    assert_int_equal(strlen(format(16, rdata, sizeof rdata, 0)), sizeof rdata / 2 * 7 - 1);
    assert_true(strlen(format(65280, rdata, sizeof rdata, DNS_SPLIT_WIDTH)) > 2 * sizeof rdata);
}

static void test_text_is_cut_where_the_room_ends(void **state)
{
    static const uint8_t rdata[] = {3, 'a', 'b', 'c'};
    struct message m = make(16, rdata, sizeof rdata);
    char small[8];

    (void)state;
    for (size_t size = 1; size <= 6; size++) {
        assert_int_equal(dns_rdata_format(m.bytes, m.len, &m.record, 0, small, size), size - 1);
        assert_int_equal(strncmp("\"abc\"", small, size - 1), 0);
        assert_int_equal(small[size - 1], '\0');
    }
    assert_int_equal(dns_rdata_format(m.bytes, m.len, &m.record, 0, small, sizeof small), 5);
    free(m.bytes);
}

/* ---- names of numbers ---- */

static void test_names_of_numbers_there_and_back(void **state)
{
    char name[DNS_MNEMONIC_MAX];
    size_t len;
    uint16_t number;

    (void)state;
    for (unsigned i = 0; i <= UINT16_MAX; i++) {
        number = (uint16_t)(i + 1);
        len = dns_type_format((uint16_t)i, name);
        assert_int_equal(len, strlen(name));
        assert_true(dns_type_parse(name, &number));
        assert_int_equal(number, i);
        (void)dns_class_format((uint16_t)i, name);
        assert_true(dns_class_parse(name, &number));
        assert_int_equal(number, i);
    }
    (void)dns_type_format(65280, name);
    assert_string_equal(name, "TYPE65280");
    (void)dns_class_format(2, name);
    assert_string_equal(name, "CLASS2");
    assert_true(dns_type_parse("hTtPs", &number));
    assert_int_equal(number, 65);
    assert_true(dns_type_parse("type1", &number));
    assert_int_equal(number, 1);
}

static void test_other_words_are_no_names_of_numbers(void **state)
{
    static const char *const words[] = {"",       "TYPE",   "TYPE65536",       "TYPE-1",
                                        "TYPE1x", "TYPE 1", "TYPE99999999999", "AAAAA",
                                        "A.",     "CLASSx", "example.com"};
    uint16_t number = 7;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        assert_false(dns_type_parse(words[i], &number));
        assert_false(dns_class_parse(words[i], &number));
        assert_int_equal(number, 7);
    }
}

static void test_codes_have_names(void **state)
{
    char name[DNS_MNEMONIC_MAX];

    (void)state;
    (void)dns_rcode_format(3, name);
    assert_string_equal(name, "NXDOMAIN");
    (void)dns_rcode_format(4095, name);
    assert_string_equal(name, "RESERVED4095");
    (void)dns_opcode_format(5, name);
    assert_string_equal(name, "UPDATE");
    (void)dns_opcode_format(15, name);
    assert_string_equal(name, "RESERVED15");
    assert_string_equal(dns_ede_name(0), "Other");
    assert_string_equal(dns_ede_name(22), "No Reachable Authority");
    assert_string_equal(dns_ede_name(29), "Synthesized");
    assert_null(dns_ede_name(30));
    assert_null(dns_ede_name(65535));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_its_text),
        cmocka_unit_test(test_other_data_is_written_in_the_generic_form),
        cmocka_unit_test(test_data_cut_at_every_byte_is_written_in_the_generic_form),
        cmocka_unit_test(test_any_data_of_any_type_is_safe),
        cmocka_unit_test(test_long_data_is_split_as_dig_does),
        cmocka_unit_test(test_the_longest_texts_fit),
        cmocka_unit_test(test_text_is_cut_where_the_room_ends),
        cmocka_unit_test(test_names_of_numbers_there_and_back),
        cmocka_unit_test(test_other_words_are_no_names_of_numbers),
        cmocka_unit_test(test_codes_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
