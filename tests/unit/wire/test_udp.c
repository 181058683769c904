/* UDP messages: the vectors in both framings and over both transports, cut at every byte, and what encoders refuse. */
#include <socks6/udp.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compare.h"
#include "vectors.h"

static const enum socks6_udp_framing framings[] = {SOCKS6_UDP_FRAMING_08, SOCKS6_UDP_FRAMING_11, SOCKS6_UDP_FRAMING_12};

static enum socks6_udp_framing framing_of(const struct vector *vector)
{
    int framing = atoi(vector->context[0]);

    assert_true(framing == 8 || framing == 11 || framing == 12);
    return (enum socks6_udp_framing)framing;
}

static bool is_stream(const struct vector *vector)
{
    return strncmp(vector->context[1], "stream", 6) == 0;
}

/* Decodes `len` bytes as the vector says; bytes used in a datagram are all of them. */
static int decode(const struct vector *vector, const uint8_t *bytes, size_t len, struct socks6_udp_message *out,
                  size_t *used)
{
    if (is_stream(vector)) {
        return socks6_udp_decode_stream(framing_of(vector), strcmp(vector->context[1], "stream-init-seen") == 0, bytes,
                                        len, out, used);
    }
    assert_string_equal(vector->context[1], "datagram");
    *used = len;
    return socks6_udp_decode_datagram(framing_of(vector), bytes, len, out);
}

typedef void check_fn(const struct vector *vector);

static void for_each_vector(check_fn *check)
{
    struct vectors vectors = vectors_load("udp.hex");

    for (size_t i = 0; i < vectors.count; i++) {
        check(&vectors.items[i]);
    }
    vectors_free(&vectors);
}

static void check_round_trip(const struct vector *vector)
{
    struct socks6_udp_message message;
    struct socks6_udp_message again;
    uint8_t bytes[600];
    size_t len;
    size_t used;
    int err = decode(vector, vector->bytes, vector->len, &message, &used);

    if (err != vector->verdict) {
        fail_msg("%s: %s", vector->name, socks6_strerror(err));
    }
    if (err != SOCKS6_OK) {
        return;
    }
    assert_int_equal(used, vector->len);
    assert_int_equal(socks6_udp_encode(framing_of(vector), &message, bytes, sizeof bytes, &len), SOCKS6_OK);
    if (len != vector->canonical_len || memcmp(bytes, vector->canonical, len) != 0) {
        fail_msg("%s: not the canonical form", vector->name);
    }
    assert_int_equal(decode(vector, bytes, len, &again, &used), SOCKS6_OK);
    if (!udp_messages_equal(&message, &again)) {
        fail_msg("%s: decode(encode(x)) is not x", vector->name);
    }
}

static void test_vectors_round_trip(void **state)
{
    (void)state;
    for_each_vector(check_round_trip);
}

static void check_stream_cuts(const struct vector *vector)
{
    for (size_t len = 0; is_stream(vector) && len < vector->len; len++) {
        uint8_t *bytes = malloc(len + 1);
        struct socks6_udp_message message;
        size_t used = 4711;
        int err;

        assert_non_null(bytes);
        memcpy(bytes, vector->bytes, len);
        err = decode(vector, bytes, len, &message, &used);
        free(bytes);
        if (err != SOCKS6_NEED_MORE && (err != vector->verdict || err == SOCKS6_OK)) {
            fail_msg("%s cut at %zu: %s", vector->name, len, socks6_strerror(err));
        }
        assert_int_equal(used, 4711);
    }
}

static void test_cut_streams_need_more_or_get_the_same_verdict(void **state)
{
    (void)state;
    for_each_vector(check_stream_cuts);
}

/* In -08 the payload is what is left, so a cut in it is another message; before it, and anywhere later, it is an error. */
static void check_datagram_cuts(const struct vector *vector)
{
    struct socks6_udp_message message;
    size_t used;

    if (is_stream(vector) || vector->verdict != SOCKS6_OK) {
        return;
    }
    assert_int_equal(decode(vector, vector->bytes, vector->len, &message, &used), SOCKS6_OK);
    for (size_t len = 0; len < vector->len; len++) {
        uint8_t *bytes = malloc(len + 1);
        struct socks6_udp_message part;
        size_t end = framing_of(vector) == SOCKS6_UDP_FRAMING_08 ? vector->len - message.payload.len
                                                                 : (size_t)vector->bytes[2] << 8 | vector->bytes[3];
        int err;

        assert_non_null(bytes);
        memcpy(bytes, vector->bytes, len);
        err = decode(vector, bytes, len, &part, &used);
        free(bytes);
        assert_int_equal(err, len < end ? SOCKS6_ERR_MALFORMED : SOCKS6_OK);
    }
}

static void test_cut_datagrams_are_malformed(void **state)
{
    (void)state;
    for_each_vector(check_datagram_cuts);
}

static void check_two_in_a_row(const struct vector *vector)
{
    uint8_t *twice;
    struct socks6_udp_message message;
    size_t used;

    if (!is_stream(vector) || vector->verdict != SOCKS6_OK) {
        return;
    }
    twice = malloc(vector->len * 2);
    assert_non_null(twice);
    memcpy(twice, vector->bytes, vector->len);
    memcpy(twice + vector->len, vector->bytes, vector->len);
    assert_int_equal(decode(vector, twice, vector->len * 2, &message, &used), SOCKS6_OK);
    assert_int_equal(used, vector->len);
    free(twice);
}

static void test_a_stream_may_hold_more_than_one(void **state)
{
    (void)state;
    for_each_vector(check_two_in_a_row);
}

/* Every size that is too small is refused, nothing is written beyond it (ASan), and the exact size does. */
static void check_small_buffers(const struct vector *vector)
{
    struct socks6_udp_message message;
    size_t used;
    size_t len;

    if (vector->verdict != SOCKS6_OK) {
        return;
    }
    assert_int_equal(decode(vector, vector->bytes, vector->len, &message, &used), SOCKS6_OK);
    for (size_t size = 0; size <= vector->canonical_len; size++) {
        uint8_t *bytes = malloc(size > 0 ? size : 1);

        assert_non_null(bytes);
        len = 4711;
        assert_int_equal(socks6_udp_encode(framing_of(vector), &message, bytes, size, &len),
                         size < vector->canonical_len ? SOCKS6_ERR_TOO_LONG : SOCKS6_OK);
        assert_int_equal(len, size < vector->canonical_len ? 4711 : vector->canonical_len);
        free(bytes);
    }
}

static void test_small_buffers_are_refused(void **state)
{
    (void)state;
    for_each_vector(check_small_buffers);
}

static void test_fields(void **state)
{
    static const uint8_t bytes[] = {6,  4, 0, 28, 1, 2, 3, 4, 5, 6,   7, 8, 1, 0,   0,
                                    53, 9, 8, 7,  6, 1, 4, 0, 0, 192, 0, 2, 1, 0xff};
    struct socks6_udp_message message;

    (void)state;
    assert_int_equal(socks6_udp_decode_datagram(SOCKS6_UDP_FRAMING_11, bytes, sizeof bytes, &message), SOCKS6_OK);
    assert_int_equal(message.type, SOCKS6_UDP_ERROR_MESSAGE);
    assert_true(message.association == UINT64_C(0x0102030405060708));
    assert_int_equal(message.addr.port, 53);
    assert_memory_equal(message.addr.u.ipv4, "\x09\x08\x07\x06", 4);
    assert_int_equal(message.error_code, SOCKS6_UDP_TOO_BIG);
    assert_memory_equal(message.reporter.u.ipv4, "\xc0\x00\x02\x01", 4);
    assert_int_equal(message.reporter.port, 0);
    assert_int_equal(message.payload.len, 0);
}

static void test_failure_leaves_the_result_untouched(void **state)
{
    static const uint8_t bytes[] = {6, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 53, 1, 2, 3, 4};
    struct socks6_udp_message message;

    (void)state;
    memset(&message, 0x55, sizeof message);
    assert_int_equal(socks6_udp_decode_datagram(SOCKS6_UDP_FRAMING_11, bytes, sizeof bytes, &message),
                     SOCKS6_ERR_ADDRESS);
    assert_int_equal(message.type, 0x55);
}

/* The figures of "UDP Associate": 65515 bytes of payload over TCP with IPv4, 65503 with IPv6, 65519 - L with a name. */
static void test_largest_payloads(void **state)
{
    static const uint8_t bytes[65536];
    static uint8_t out[65536];
    struct socks6_addr addrs[3];
    const size_t largest[3] = {65515, 65503, 65518 - 11};

    (void)state;
    addrs[0] = socks6_addr_ipv4(bytes, 53);
    addrs[1] = socks6_addr_ipv6(bytes, 53);
    assert_true(socks6_addr_name("example.com", 11, 53, &addrs[2]));
    for (size_t i = 0; i < 3; i++) {
        struct socks6_udp_message message = {.type = SOCKS6_UDP_DATAGRAM, .addr = addrs[i]};
        struct socks6_udp_message again;
        size_t len;

        message.payload = (struct socks6_slice){bytes, largest[i]};
        assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, out, sizeof out, &len), SOCKS6_OK);
        assert_int_equal(len, 65535);
        assert_int_equal(socks6_udp_decode_stream(SOCKS6_UDP_FRAMING_11, 0, out, len, &again, &len), SOCKS6_OK);
        assert_int_equal(len, 65535);
        assert_int_equal(again.payload.len, largest[i]);
        message.payload.len++;
        assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, out, sizeof out, &len),
                         SOCKS6_ERR_TOO_LONG);
    }
}

static void test_header_alone_is_the_start_of_the_whole(void **state)
{
    static const uint8_t ip[16] = {0x20, 1, 0xd, 0xb8};
    struct socks6_addr addrs[4];

    (void)state;
    addrs[0] = socks6_addr_ipv4(ip, 53);
    addrs[1] = socks6_addr_ipv6(ip, 54);
    assert_true(socks6_addr_name("a.org", 5, 55, &addrs[2]));
    assert_true(socks6_addr_name("abc", 3, 55, &addrs[3]));
    for (size_t i = 0; i < 12; i++) {
        enum socks6_udp_framing framing = framings[i / 4];
        struct socks6_udp_message message = {
            .type = SOCKS6_UDP_DATAGRAM,
            .association = 0x0123456789abcdef,
            .addr = addrs[i % 4],
            .payload = {ip, 5},
        };
        uint8_t whole[300];
        uint8_t header[SOCKS6_UDP_HEADER_MAX];
        size_t whole_len;
        size_t header_len;
        size_t wanted = socks6_udp_header_len(framing, &message.addr);

        assert_int_equal(socks6_udp_encode(framing, &message, whole, sizeof whole, &whole_len), SOCKS6_OK);
        assert_int_equal(whole_len, wanted + 5);
        assert_int_equal(socks6_udp_encode_header(framing, message.association, &message.addr, 5, header, sizeof header,
                                                  &header_len),
                         SOCKS6_OK);
        assert_int_equal(header_len, wanted);
        assert_memory_equal(header, whole, wanted);
        assert_int_equal(
            socks6_udp_encode_header(framing, message.association, &message.addr, 5, header, wanted - 1, &header_len),
            SOCKS6_ERR_TOO_LONG);
        assert_int_equal(socks6_udp_encode_header(framing, message.association, &message.addr, 65536 - wanted, header,
                                                  sizeof header, &header_len),
                         SOCKS6_ERR_TOO_LONG);
        assert_int_equal(socks6_udp_encode_header(framing, message.association, &message.addr, 65535 - wanted, header,
                                                  sizeof header, &header_len),
                         SOCKS6_OK);
    }
}

static void test_longest_header_fits_its_macro(void **state)
{
    char name[255];
    struct socks6_addr addr;

    (void)state;
    memset(name, 'n', sizeof name);
    assert_true(socks6_addr_name(name, sizeof name, 53, &addr));
    for (size_t i = 0; i < 3; i++) {
        assert_true(socks6_udp_header_len(framings[i], &addr) <= SOCKS6_UDP_HEADER_MAX);
    }
    assert_int_equal(socks6_udp_header_len(SOCKS6_UDP_FRAMING_11, &addr), SOCKS6_UDP_HEADER_MAX);
}

static void test_encoders_refuse_what_cannot_be_written(void **state)
{
    static const uint8_t ip[4];
    struct socks6_udp_message message = {.type = SOCKS6_UDP_DATAGRAM};
    uint8_t bytes[100];
    size_t len;

    (void)state;
    assert_int_equal(socks6_udp_header_len(SOCKS6_UDP_FRAMING_11, &message.addr), 0);
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len),
                     SOCKS6_ERR_INVALID); /* no address */
    message.type = SOCKS6_UDP_ERROR_MESSAGE;
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len), SOCKS6_ERR_INVALID);
    message.addr = socks6_addr_ipv4(ip, 0);
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len),
                     SOCKS6_ERR_INVALID); /* no reporter */
    message.reporter = socks6_addr_ipv4(ip, 0);
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_08, &message, bytes, sizeof bytes, &len),
                     SOCKS6_ERR_INVALID); /* -08 has no errors */
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len), SOCKS6_OK);
    message.type = 0;
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len), SOCKS6_ERR_INVALID);
    message.type = 5;
    assert_int_equal(socks6_udp_encode(SOCKS6_UDP_FRAMING_11, &message, bytes, sizeof bytes, &len), SOCKS6_ERR_INVALID);
}

/* A framing that is none of the enumeration reads and writes as the default revision does. */
static void test_unknown_framing_is_the_default(void **state)
{
    const enum socks6_udp_framing unknown = (enum socks6_udp_framing)99;
    struct socks6_addr addr;

    (void)state;
    assert_true(socks6_addr_name("a.org", 5, 53, &addr));
    assert_int_equal(socks6_udp_header_len(unknown, &addr), socks6_udp_header_len(SOCKS6_UDP_FRAMING_11, &addr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_round_trip),
        cmocka_unit_test(test_cut_streams_need_more_or_get_the_same_verdict),
        cmocka_unit_test(test_cut_datagrams_are_malformed),
        cmocka_unit_test(test_a_stream_may_hold_more_than_one),
        cmocka_unit_test(test_small_buffers_are_refused),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_failure_leaves_the_result_untouched),
        cmocka_unit_test(test_largest_payloads),
        cmocka_unit_test(test_header_alone_is_the_start_of_the_whole),
        cmocka_unit_test(test_longest_header_fits_its_macro),
        cmocka_unit_test(test_encoders_refuse_what_cannot_be_written),
        cmocka_unit_test(test_unknown_framing_is_the_default),
    };

    return cmocka_run_group_tests_name("wire/udp", tests, NULL, NULL);
}
