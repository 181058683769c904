/*
 * wire/message: the vectors of the three messages, each cut at every byte, and what encoders refuse.
 */
#include "wire/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "compare.h"
#include "vectors.h"

union message {
    struct s6_request request;
    struct s6_auth_reply auth_reply;
    struct s6_reply reply;
};

/* The three codecs behind one interface. */
struct codec {
    const char *file;
    int (*decode)(const uint8_t *bytes, size_t len, size_t cap, union message *out, size_t *size);
    int (*encode)(const union message *message, enum socks6_draft draft, struct s6_buf *out);
    bool (*equal)(const union message *a, const union message *b);
};

static int decode_request(const uint8_t *bytes, size_t len, size_t cap, union message *out, size_t *size)
{
    return s6_request_decode(bytes, len, cap, &out->request, size);
}

static int encode_request(const union message *message, enum socks6_draft draft, struct s6_buf *out)
{
    return s6_request_encode(&message->request, draft, out);
}

static bool equal_requests(const union message *a, const union message *b)
{
    return requests_equal(&a->request, &b->request);
}

static int decode_auth_reply(const uint8_t *bytes, size_t len, size_t cap, union message *out, size_t *size)
{
    return s6_auth_reply_decode(bytes, len, cap, &out->auth_reply, size);
}

static int encode_auth_reply(const union message *message, enum socks6_draft draft, struct s6_buf *out)
{
    return s6_auth_reply_encode(&message->auth_reply, draft, out);
}

static bool equal_auth_replies(const union message *a, const union message *b)
{
    return auth_replies_equal(&a->auth_reply, &b->auth_reply);
}

static int decode_reply(const uint8_t *bytes, size_t len, size_t cap, union message *out, size_t *size)
{
    return s6_reply_decode(bytes, len, cap, &out->reply, size);
}

static int encode_reply(const union message *message, enum socks6_draft draft, struct s6_buf *out)
{
    return s6_reply_encode(&message->reply, draft, out);
}

static bool equal_replies(const union message *a, const union message *b)
{
    return replies_equal(&a->reply, &b->reply);
}

static const struct codec codecs[] = {
    {"request.hex", decode_request, encode_request, equal_requests},
    {"auth_reply.hex", decode_auth_reply, encode_auth_reply, equal_auth_replies},
    {"reply.hex", decode_reply, encode_reply, equal_replies},
};

static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};

#define CAP SOCKS6_OPTIONS_CAP_12
#define BUF_CAP 30000u

typedef void check_fn(const struct codec *codec, const struct vector *vector);

static void for_each_vector(check_fn *check)
{
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
        struct vectors vectors = vectors_load(codecs[i].file);

        for (size_t j = 0; j < vectors.count; j++) {
            check(&codecs[i], &vectors.items[j]);
        }
        vectors_free(&vectors);
    }
}

/* Exactly `len` bytes of the vector in an allocation of their own, so that ASan sees a read beyond them. */
static uint8_t *cut(const struct vector *vector, size_t len)
{
    uint8_t *bytes = malloc(len > 0 ? len : 1);

    assert_non_null(bytes);
    memcpy(bytes, vector->bytes, len);
    return bytes;
}

static void check_verdict(const struct codec *codec, const struct vector *vector)
{
    union message message;
    size_t size = 4711;
    int err = codec->decode(vector->bytes, vector->len, CAP, &message, &size);

    if (err != vector->verdict) {
        fail_msg("%s %s: %s, wanted %s", codec->file, vector->name, socks6_strerror(err),
                 socks6_strerror(vector->verdict));
    }
    assert_int_equal(size, err == SOCKS6_OK ? vector->len : 4711);
}

static void test_vectors_get_their_verdict(void **state)
{
    (void)state;
    for_each_vector(check_verdict);
}

static void check_cuts(const struct codec *codec, const struct vector *vector)
{
    int last = SOCKS6_NEED_MORE;

    /* Every length would be quadratic for the long ones: their option areas are sampled. */
    for (size_t len = 0; len < vector->len; len += len < 600 || len + 8 > vector->len ? 1 : 7) {
        uint8_t *bytes = cut(vector, len);
        union message message;
        size_t size = 0;
        int err = codec->decode(bytes, len, CAP, &message, &size);

        free(bytes);
        if (err == SOCKS6_NEED_MORE) {
            assert_int_equal(last, SOCKS6_NEED_MORE); /* a verdict stays */
            assert_true(size > len);
            assert_true(size <= vector->len || vector->verdict != SOCKS6_OK);
        } else if (err != vector->verdict || vector->verdict == SOCKS6_OK) {
            fail_msg("%s %s cut at %zu: %s", codec->file, vector->name, len, socks6_strerror(err));
        }
        last = err;
    }
}

static void test_cut_vectors_need_more_or_get_the_same_verdict(void **state)
{
    (void)state;
    for_each_vector(check_cuts);
}

/* A byte at a time, asking again only when the hint is met. */
static void check_hints(const struct codec *codec, const struct vector *vector)
{
    union message message;
    size_t size = 1;
    int calls = 0;
    int err = SOCKS6_NEED_MORE;

    while (err == SOCKS6_NEED_MORE && size <= vector->len) {
        err = codec->decode(vector->bytes, size, CAP, &message, &size);
        calls++;
    }
    assert_int_equal(err, vector->verdict);
    assert_true(calls <= 5);
}

static void test_hints_lead_to_the_end_in_few_calls(void **state)
{
    (void)state;
    for_each_vector(check_hints);
}

static void check_trailing(const struct codec *codec, const struct vector *vector)
{
    uint8_t *longer = malloc(vector->len + 100);
    union message message;
    size_t size = 0;

    assert_non_null(longer);
    memcpy(longer, vector->bytes, vector->len);
    memset(longer + vector->len, 0x06, 100);
    assert_int_equal(codec->decode(longer, vector->len + 100, CAP, &message, &size), vector->verdict);
    if (vector->verdict == SOCKS6_OK) {
        assert_int_equal(size, vector->len); /* application data is left alone */
    }
    free(longer);
}

static void test_bytes_behind_a_message_are_left_alone(void **state)
{
    (void)state;
    for_each_vector(check_trailing);
}

static void check_canonical(const struct codec *codec, const struct vector *vector)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    union message message;
    union message again;
    struct s6_buf buf;
    struct socks6_slice written;
    size_t size;

    if (vector->verdict != SOCKS6_OK) {
        return;
    }
    assert_int_equal(codec->decode(vector->bytes, vector->len, CAP, &message, &size), SOCKS6_OK);
    s6_buf_init(&buf, &mem, BUF_CAP, false);
    assert_int_equal(codec->encode(&message, SOCKS6_DRAFT_11, &buf), SOCKS6_OK);
    written = s6_buf_slice(&buf);
    if (written.len != vector->canonical_len || memcmp(written.data, vector->canonical, written.len) != 0) {
        fail_msg("%s %s: not the canonical form", codec->file, vector->name);
    }
    assert_int_equal(codec->decode(written.data, written.len, CAP, &again, &size), SOCKS6_OK);
    assert_int_equal(size, written.len);
    if (!codec->equal(&message, &again)) {
        fail_msg("%s %s: decode(encode(x)) is not x", codec->file, vector->name);
    }
    s6_buf_done(&buf);
}

static void test_encoding_is_canonical_and_reversible(void **state)
{
    (void)state;
    for_each_vector(check_canonical);
}

/* Every revision's form reads back as the same message. */
static void check_drafts(const struct codec *codec, const struct vector *vector)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    union message message;
    size_t size;

    if (vector->verdict != SOCKS6_OK) {
        return;
    }
    assert_int_equal(codec->decode(vector->bytes, vector->len, CAP, &message, &size), SOCKS6_OK);
    for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
        union message again;
        struct s6_buf buf;
        struct socks6_slice written;

        s6_buf_init(&buf, &mem, BUF_CAP, false);
        assert_int_equal(codec->encode(&message, drafts[i], &buf), SOCKS6_OK);
        written = s6_buf_slice(&buf);
        assert_int_equal(written.len, vector->canonical_len); /* padding moves, but never away */
        assert_int_equal(codec->decode(written.data, written.len, CAP, &again, &size), SOCKS6_OK);
        assert_true(codec->equal(&message, &again));
        s6_buf_done(&buf);
    }
}

static void test_all_drafts_read_back_the_same(void **state)
{
    (void)state;
    for_each_vector(check_drafts);
}

static void check_no_memory(const struct codec *codec, const struct vector *vector)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    union message message;
    struct s6_buf buf;
    size_t size;

    if (vector->verdict != SOCKS6_OK) {
        return;
    }
    assert_int_equal(codec->decode(vector->bytes, vector->len, CAP, &message, &size), SOCKS6_OK);
    s6_buf_init(&buf, &mem, vector->canonical_len - 1, false);
    assert_int_equal(codec->encode(&message, SOCKS6_DRAFT_11, &buf), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_buf_len(&buf), 0);
    s6_buf_done(&buf);
}

static void test_encoding_into_too_small_a_buffer_appends_nothing(void **state)
{
    (void)state;
    for_each_vector(check_no_memory);
}

static void *no_alloc(void *user, size_t size)
{
    (void)user;
    (void)size;
    return NULL;
}

static void no_free(void *user, void *ptr)
{
    (void)user;
    assert_null(ptr);
}

static void test_encoding_without_memory_says_so(void **state)
{
    const struct socks6_allocator mem = {no_alloc, NULL, no_free, NULL};
    struct s6_auth_reply reply = {.type = S6_AUTH_SUCCESS};
    struct s6_buf buf;

    (void)state;
    s6_buf_init(&buf, &mem, BUF_CAP, false);
    assert_int_equal(s6_auth_reply_encode(&reply, SOCKS6_DRAFT_11, &buf), SOCKS6_ERR_NOMEM);
    s6_buf_done(&buf);
}

/* The figures: 20480 bytes are the cap, and the caller may lower it. */
static void test_cap_is_the_callers(void **state)
{
    static const uint8_t bytes[] = {6, 1, 0, 8, 0, 80, 0, 1, 192, 0, 2, 1, 0xff, 0xf0, 0, 8, 0, 0, 0, 0};
    struct s6_request request;
    size_t size;

    (void)state;
    assert_int_equal(s6_request_decode(bytes, sizeof bytes, 8, &request, &size), SOCKS6_OK);
    assert_int_equal(s6_request_decode(bytes, sizeof bytes, 7, &request, &size), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_request_decode(bytes, sizeof bytes, 0, &request, &size), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(s6_options_cap(SOCKS6_DRAFT_08), 16384);
    assert_int_equal(s6_options_cap(SOCKS6_DRAFT_11), 16384);
    assert_int_equal(s6_options_cap(SOCKS6_DRAFT_12), 20480);
    assert_int_equal(s6_options_cap((enum socks6_draft)99), 16384);
}

static void test_errors_leave_the_head_for_the_log(void **state)
{
    static const uint8_t unknown_address[] = {6, 2, 0, 0, 0x12, 0x34, 0, 9};
    static const uint8_t too_long[] = {6, 3, 0xff, 0xfc, 0x12, 0x34, 0, 1};
    static const uint8_t bad_option[] = {6, 1, 0, 4, 0, 80, 0, 1, 192, 0, 2, 1, 0, 6, 0, 4};
    struct s6_request request;
    size_t size;

    (void)state;
    assert_int_equal(s6_request_decode(unknown_address, sizeof unknown_address, CAP, &request, &size),
                     SOCKS6_ERR_ADDRESS);
    assert_int_equal(request.command, SOCKS6_COMMAND_BIND);
    assert_int_equal(request.addr.port, 0x1234);
    assert_int_equal(s6_request_decode(too_long, sizeof too_long, CAP, &request, &size), SOCKS6_ERR_TOO_LONG);
    assert_int_equal(request.command, SOCKS6_COMMAND_UDP_ASSOCIATE);
    assert_int_equal(request.addr.port, 0x1234);
    assert_int_equal(s6_request_decode(bad_option, sizeof bad_option, CAP, &request, &size), SOCKS6_ERR_MALFORMED);
    assert_int_equal(request.addr.type, SOCKS6_ADDR_IPV4);
    assert_int_equal(request.addr.port, 80);
}

/* A SOCKS 5 greeting of three bytes must not wait for a fourth. */
static void test_version_is_judged_by_one_byte(void **state)
{
    (void)state;
    for (unsigned first = 0; first <= 255; first++) {
        const uint8_t byte = (uint8_t)first;
        const int wanted = first == 6 ? SOCKS6_NEED_MORE : SOCKS6_ERR_VERSION;

        for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
            union message message;
            size_t size;

            assert_int_equal(codecs[i].decode(&byte, 1, CAP, &message, &size), wanted);
        }
    }
}

static void test_nothing_needs_one_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++) {
        static const union message nothing;
        union message message;
        size_t size = 0;

        memset(&message, 0xa5, sizeof message); /* of an earlier use */
        assert_int_equal(codecs[i].decode(NULL, 0, CAP, &message, &size), SOCKS6_NEED_MORE);
        assert_int_equal(size, 1);
        assert_true(codecs[i].equal(&message, &nothing));
    }
}

static void test_every_address_type_but_three_is_an_error(void **state)
{
    (void)state;
    for (unsigned type = 0; type <= 255; type++) {
        const uint8_t head[] = {6, 1, 0, 0, 0, 80, 0, (uint8_t)type};
        const bool known = type == 1 || type == 3 || type == 4;
        struct s6_request request;
        struct s6_reply reply;
        size_t size;

        assert_int_equal(s6_request_decode(head, sizeof head, CAP, &request, &size),
                         known ? SOCKS6_NEED_MORE : SOCKS6_ERR_ADDRESS);
        assert_int_equal(s6_reply_decode(head, sizeof head, CAP, &reply, &size),
                         known ? SOCKS6_NEED_MORE : SOCKS6_ERR_ADDRESS);
    }
}

/* Names of every length, in both conventions, alone and before options. */
static void test_names_of_every_length(void **state)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    char name[256];

    (void)state;
    memset(name, 'n', sizeof name);
    for (size_t len = 1; len <= 255; len++) {
        for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
            struct s6_request request = {.command = SOCKS6_COMMAND_CONNECT};
            struct s6_request again;
            struct s6_buf buf;
            size_t size;

            assert_true(socks6_addr_name(name, len, 443, &request.addr));
            s6_options_set(&request.options, S6_OPTION_SESSION_REQUEST);
            s6_buf_init(&buf, &mem, BUF_CAP, false);
            assert_int_equal(s6_request_encode(&request, drafts[i], &buf), SOCKS6_OK);
            assert_int_equal(s6_buf_len(&buf) % 4, 0);
            assert_int_equal(s6_buf_slice(&buf).data[8], drafts[i] == SOCKS6_DRAFT_12 ? s6_round4(1 + len) - 1 : len);
            assert_int_equal(s6_request_decode(s6_buf_slice(&buf).data, s6_buf_len(&buf), CAP, &again, &size),
                             SOCKS6_OK);
            assert_int_equal(size, s6_buf_len(&buf));
            assert_true(requests_equal(&request, &again));
            s6_buf_done(&buf);
        }
    }
}

static void test_a_name_without_an_end_is_asked_for_by_its_length(void **state)
{
    static const uint8_t bytes[] = {6, 1, 0, 4, 0, 80, 0, 3, 255};
    struct s6_request request;
    size_t size;

    (void)state;
    assert_int_equal(s6_request_decode(bytes, 8, CAP, &request, &size), SOCKS6_NEED_MORE);
    assert_int_equal(size, 9);
    assert_int_equal(s6_request_decode(bytes, 9, CAP, &request, &size), SOCKS6_NEED_MORE);
    assert_int_equal(size, 8 + 256);
}

static void assert_request_refused(const struct s6_request *request, enum socks6_draft draft, int wanted)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    struct s6_buf buf;

    s6_buf_init(&buf, &mem, BUF_CAP, false);
    assert_int_equal(s6_request_encode(request, draft, &buf), wanted);
    assert_int_equal(s6_buf_len(&buf), 0);
    s6_buf_done(&buf);
}

static void test_encoders_refuse_what_cannot_be_written(void **state)
{
    static const uint8_t id[20480];
    const uint8_t zeros[4] = {0};
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    struct s6_request request = {.command = SOCKS6_COMMAND_CONNECT};
    struct s6_auth_reply reply = {.type = 2};
    struct s6_buf buf;

    (void)state;
    assert_request_refused(&request, SOCKS6_DRAFT_11, SOCKS6_ERR_INVALID); /* no address */
    request.addr = socks6_addr_ipv4(zeros, 0);
    s6_options_set(&request.options, S6_OPTION_SESSION_OK);
    assert_request_refused(&request, SOCKS6_DRAFT_11, SOCKS6_ERR_INVALID); /* a reply's option */

    s6_options_init(&request.options);
    s6_options_set(&request.options, S6_OPTION_SESSION_ID);
    request.options.session_id = (struct socks6_slice){id, 16384};
    assert_request_refused(&request, SOCKS6_DRAFT_11, SOCKS6_ERR_TOO_LONG);
    assert_request_refused(&request, SOCKS6_DRAFT_08, SOCKS6_ERR_TOO_LONG);
    s6_buf_init(&buf, &mem, 2 * BUF_CAP, false);
    request.options.session_id.len = 16384 - 4; /* the cap, exactly */
    assert_int_equal(s6_request_encode(&request, SOCKS6_DRAFT_11, &buf), SOCKS6_OK);
    request.options.session_id.len = 16384;
    assert_int_equal(s6_request_encode(&request, SOCKS6_DRAFT_12, &buf), SOCKS6_OK);
    request.options.session_id.len = 20480;
    assert_request_refused(&request, SOCKS6_DRAFT_12, SOCKS6_ERR_TOO_LONG);

    assert_int_equal(s6_auth_reply_encode(&reply, SOCKS6_DRAFT_11, &buf), SOCKS6_ERR_INVALID);
    reply.type = S6_AUTH_SUCCESS;
    s6_options_set(&reply.options, S6_OPTION_TOKEN_REJECTED);
    assert_int_equal(s6_auth_reply_encode(&reply, SOCKS6_DRAFT_11, &buf), SOCKS6_ERR_INVALID);
    reply.type = S6_AUTH_FAILURE;
    assert_int_equal(s6_auth_reply_encode(&reply, SOCKS6_DRAFT_11, &buf), SOCKS6_OK);
    s6_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_get_their_verdict),
        cmocka_unit_test(test_cut_vectors_need_more_or_get_the_same_verdict),
        cmocka_unit_test(test_hints_lead_to_the_end_in_few_calls),
        cmocka_unit_test(test_bytes_behind_a_message_are_left_alone),
        cmocka_unit_test(test_encoding_is_canonical_and_reversible),
        cmocka_unit_test(test_all_drafts_read_back_the_same),
        cmocka_unit_test(test_encoding_into_too_small_a_buffer_appends_nothing),
        cmocka_unit_test(test_encoding_without_memory_says_so),
        cmocka_unit_test(test_cap_is_the_callers),
        cmocka_unit_test(test_errors_leave_the_head_for_the_log),
        cmocka_unit_test(test_version_is_judged_by_one_byte),
        cmocka_unit_test(test_nothing_needs_one_byte),
        cmocka_unit_test(test_every_address_type_but_three_is_an_error),
        cmocka_unit_test(test_names_of_every_length),
        cmocka_unit_test(test_a_name_without_an_end_is_asked_for_by_its_length),
        cmocka_unit_test(test_encoders_refuse_what_cannot_be_written),
    };

    return cmocka_run_group_tests_name("wire/message", tests, NULL, NULL);
}
