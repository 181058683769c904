/* wire/option: the vectors of option areas, the meaning of what is decoded, and what cannot be encoded. */
#include "wire/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compare.h"
#include "vectors.h"

static enum s6_where where_of(const struct vector *vector)
{
    static const struct {
        const char *word;
        enum s6_where where;
    } words[] = {
        {"request", S6_IN_REQUEST},
        {"auth-success", S6_IN_AUTH_SUCCESS},
        {"auth-failure", S6_IN_AUTH_FAILURE},
        {"reply", S6_IN_REPLY},
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(vector->context[0], words[i].word) == 0) {
            return words[i].where;
        }
    }
    fail_msg("%s: in which message?", vector->name);
    return S6_IN_REQUEST;
}

/* Encodes into `out` of `size` bytes, which must be met exactly; returns the length. */
static size_t encode(const struct s6_options *options, enum s6_where where, uint8_t *out, size_t size)
{
    struct s6_writer writer;

    assert_int_equal(s6_options_check(options, where), SOCKS6_OK);
    assert_true(s6_options_encoded_len(options, where) <= size);
    s6_writer_init(&writer, out, s6_options_encoded_len(options, where));
    s6_options_encode(&writer, options, where);
    assert_false(writer.failed);
    assert_int_equal(s6_writer_len(&writer), s6_options_encoded_len(options, where));
    assert_int_equal(s6_writer_len(&writer) % 4, 0);
    return s6_writer_len(&writer);
}

static void check_vector(const struct vector *vector)
{
    enum s6_where where = where_of(vector);
    struct s6_options options;
    struct s6_options again;
    uint8_t bytes[2048];
    size_t len;
    int err = s6_options_decode(vector->bytes, vector->len, where, &options);

    if (err != vector->verdict) {
        fail_msg("%s: %s", vector->name, socks6_strerror(err));
    }
    if (err != SOCKS6_OK) {
        return;
    }
    len = encode(&options, where, bytes, sizeof bytes);
    if (len != vector->canonical_len || memcmp(bytes, vector->canonical, len) != 0) {
        fail_msg("%s: not the canonical form", vector->name);
    }
    assert_int_equal(s6_options_decode(bytes, len, where, &again), SOCKS6_OK);
    if (!options_equal(&options, &again)) {
        fail_msg("%s: decode(encode(x)) is not x", vector->name);
    }
}

static void test_vectors(void **state)
{
    struct vectors vectors = vectors_load("options.hex");

    (void)state;
    for (size_t i = 0; i < vectors.count; i++) {
        check_vector(&vectors.items[i]);
    }
    vectors_free(&vectors);
}

/* An area that ends in mid-option is malformed, and nothing reads beyond it. */
static void test_cut_vectors_never_pass_for_whole(void **state)
{
    struct vectors vectors = vectors_load("options.hex");

    (void)state;
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *vector = &vectors.items[i];

        for (size_t len = 0; vector->verdict == SOCKS6_OK && len < vector->len && len < 600; len++) {
            struct s6_options options;
            uint8_t *bytes = malloc(len > 0 ? len : 1);
            size_t at = 0;
            int err;

            assert_non_null(bytes);
            memcpy(bytes, vector->bytes, len);
            while (at < len && len - at >= 4) {
                at += (size_t)bytes[at + 2] << 8 | bytes[at + 3];
            }
            err = s6_options_decode(bytes, len, where_of(vector), &options);
            if (at != len) {
                assert_int_equal(err, SOCKS6_ERR_MALFORMED); /* not at a border */
            }
            free(bytes);
        }
    }
    vectors_free(&vectors);
}

static void test_failure_leaves_the_result_untouched(void **state)
{
    static const uint8_t bad[] = {0, 5, 0, 4, 0, 6, 0, 4};
    struct s6_options options;
    struct s6_options before;

    (void)state;
    memset(&options, 0x5a, sizeof options);
    memcpy(&before, &options, sizeof before);
    assert_int_equal(s6_options_decode(bad, sizeof bad, S6_IN_REQUEST, &options), SOCKS6_ERR_MALFORMED);
    assert_memory_equal(&options, &before, sizeof before);
}

static void test_request_fields(void **state)
{
    static const uint8_t area[] = {
        0, 2,  0, 12, 0x12, 0x34, 2,    5,    0,   0, 0,   0,   /* methods */
        0, 4,  0, 12, 2,    1,    2,    'm',  'e', 2, 'p', 'w', /* credentials */
        0, 5,  0, 4,                                            /* Session Request */
        0, 11, 0, 8,  0,    0,    1,    0,                      /* window of 256 */
        0, 13, 0, 8,  0xfe, 0xdc, 0xba, 0x98,                   /* token */
    };
    struct s6_options options;

    (void)state;
    assert_int_equal(s6_options_decode(area, sizeof area, S6_IN_REQUEST, &options), SOCKS6_OK);
    assert_int_equal(options.initial_data_len, 0x1234);
    assert_true(s6_methods_has(&options, 2));
    assert_true(s6_methods_has(&options, 5));
    assert_false(s6_methods_has(&options, 0));
    assert_false(s6_methods_has(&options, 3));
    assert_int_equal(options.credentials.username.len, 2);
    assert_memory_equal(options.credentials.username.data, "me", 2);
    assert_memory_equal(options.credentials.password.data, "pw", 2);
    assert_ptr_equal(options.credentials.username.data, area + 19); /* borrowed */
    assert_true(s6_options_has(&options, S6_OPTION_SESSION_REQUEST));
    assert_false(s6_options_has(&options, S6_OPTION_SESSION_ID));
    assert_false(s6_options_in_session(&options));
    assert_int_equal(options.window_request, 256);
    assert_true(options.token == 0xfedcba98u);
}

static void test_in_session_unless_torn_down(void **state)
{
    static const uint8_t area[] = {0, 6, 0, 8, 1, 2, 3, 4, 0, 10, 0, 4};
    struct s6_options options;

    (void)state;
    assert_int_equal(s6_options_decode(area, 8, S6_IN_REQUEST, &options), SOCKS6_OK);
    assert_true(s6_options_in_session(&options));
    assert_ptr_equal(options.session_id.data, area + 4);
    assert_int_equal(options.session_id.len, 4);
    assert_int_equal(s6_options_decode(area, 12, S6_IN_REQUEST, &options), SOCKS6_OK);
    assert_false(s6_options_in_session(&options));
    assert_true(s6_options_has(&options, S6_OPTION_SESSION_TEARDOWN));
}

static void test_reply_fields(void **state)
{
    static const uint8_t area[] = {
        0, 3, 0, 8, 2, 0, 0, 0, 0, 4, 0, 8, 2, 1, 0x80, 0, 0, 12, 0, 12, 1, 2, 3, 4, 0, 0, 0, 9,
    };
    struct s6_options options;

    (void)state;
    assert_int_equal(s6_options_decode(area, sizeof area, S6_IN_AUTH_FAILURE, &options), SOCKS6_OK);
    assert_int_equal(options.method, 2);
    assert_int_equal(options.auth_status, 0x80);
    assert_int_equal(options.window.base, 0x01020304);
    assert_int_equal(options.window.size, 9);
}

/* Every kind in every message: only those of the table are taken, whatever their contents. */
static void test_each_kind_belongs_to_its_messages(void **state)
{
    static const enum s6_where wheres[] = {S6_IN_REQUEST, S6_IN_AUTH_SUCCESS, S6_IN_AUTH_FAILURE, S6_IN_REPLY};
    static const struct {
        enum s6_option_kind kind;
        unsigned where;
        uint8_t len; /* of a good one */
    } rows[] = {
        {S6_OPTION_METHODS, S6_IN_REQUEST, 8},
        {S6_OPTION_METHOD, S6_IN_AUTH_FAILURE, 8},
        {S6_OPTION_SESSION_REQUEST, S6_IN_REQUEST, 4},
        {S6_OPTION_SESSION_ID, S6_IN_REQUEST | S6_IN_AUTH_SUCCESS | S6_IN_REPLY, 8},
        {S6_OPTION_SESSION_UNTRUSTED, S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE, 4},
        {S6_OPTION_SESSION_OK, S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE, 4},
        {S6_OPTION_SESSION_INVALID, S6_IN_AUTH_FAILURE, 4},
        {S6_OPTION_WINDOW, S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE, 12},
        {S6_OPTION_TOKEN_ACCEPTED, S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE, 4},
        {S6_OPTION_TOKEN_REJECTED, S6_IN_AUTH_FAILURE, 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint8_t good[12] = {0, (uint8_t)rows[i].kind, 0, rows[i].len, 1, 1, 1, 1, 1, 1, 1, 1};
        const uint8_t bad[12] = {0, (uint8_t)rows[i].kind, 0, rows[i].len == 4 ? 8 : 4};

        for (size_t j = 0; j < sizeof wheres / sizeof wheres[0]; j++) {
            const bool belongs = (rows[i].where & (unsigned)wheres[j]) != 0;
            struct s6_options options;

            assert_int_equal(s6_options_decode(good, rows[i].len, wheres[j], &options), SOCKS6_OK);
            assert_int_equal(s6_options_has(&options, rows[i].kind), belongs);
            assert_int_equal(options.present != 0, belongs);
            assert_int_equal(s6_options_decode(bad, bad[3], wheres[j], &options),
                             belongs ? SOCKS6_ERR_MALFORMED : SOCKS6_OK);
        }
    }
}

/* All kinds that mean nothing, each with every length that fits: skipped. */
static void test_unknown_kinds_are_skipped(void **state)
{
    (void)state;
    for (unsigned kind = S6_OPTION_COUNT; kind <= 0xffff; kind++) {
        const uint8_t area[8] = {(uint8_t)(kind >> 8), (uint8_t)(kind & 0xff), 0, 8, 0, 5, 0, 4};
        struct s6_options options;

        assert_int_equal(s6_options_decode(area, sizeof area, S6_IN_REQUEST, &options), SOCKS6_OK);
        assert_int_equal(options.present, 0);
        assert_int_equal(options.stack_count, 0);
    }
}

static void test_methods_are_a_set(void **state)
{
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    s6_methods_add(&options, 0);
    for (unsigned method = 0; method <= 255; method++) {
        assert_false(s6_methods_has(&options, (uint8_t)method));
    }
    s6_methods_add(&options, 255);
    s6_methods_add(&options, 1);
    s6_methods_add(&options, 1);
    for (unsigned method = 0; method <= 255; method++) {
        assert_int_equal(s6_methods_has(&options, (uint8_t)method), method == 1 || method == 255);
    }
}

static void test_all_methods_fit(void **state)
{
    struct s6_options options;
    struct s6_options again;
    uint8_t bytes[300];
    size_t len;

    (void)state;
    s6_options_init(&options);
    s6_options_set(&options, S6_OPTION_METHODS);
    for (unsigned method = 0; method <= 255; method++) {
        s6_methods_add(&options, (uint8_t)method);
    }
    len = encode(&options, S6_IN_REQUEST, bytes, sizeof bytes);
    assert_int_equal(len, 4 + 2 + 255 + 3);
    assert_int_equal(s6_options_decode(bytes, len, S6_IN_REQUEST, &again), SOCKS6_OK);
    assert_true(options_equal(&options, &again));
}

/* -08's untrusted sessions: a client may send both, although our decoder then looks at the session alone. */
static void test_session_and_credentials_may_be_written_together(void **state)
{
    static const uint8_t id[] = {1, 2, 3, 4};
    struct s6_options options;
    struct s6_options again;
    uint8_t bytes[64];
    size_t len;

    (void)state;
    s6_options_init(&options);
    s6_options_set(&options, S6_OPTION_SESSION_ID);
    options.session_id = (struct socks6_slice){id, sizeof id};
    s6_options_set(&options, S6_OPTION_AUTH_DATA);
    options.credentials.username = (struct socks6_slice){id, 2};
    len = encode(&options, S6_IN_REQUEST, bytes, sizeof bytes);
    assert_int_equal(len, 12 + 8);
    assert_int_equal(s6_options_decode(bytes, len, S6_IN_REQUEST, &again), SOCKS6_OK);
    assert_false(s6_options_has(&again, S6_OPTION_AUTH_DATA));
    assert_int_equal(again.credentials.username.len, 0);
}

static const uint8_t some_bytes[65536];

/* One option with a field set; the check must refuse it. */
static void assert_refused(const struct s6_options *options, enum s6_where where)
{
    assert_int_equal(s6_options_check(options, where), SOCKS6_ERR_INVALID);
}

static struct s6_options with(enum s6_option_kind kind)
{
    struct s6_options options;

    s6_options_init(&options);
    s6_options_set(&options, kind);
    return options;
}

static void test_check_refuses_fields_out_of_range(void **state)
{
    struct s6_options options;

    (void)state;
    options = with(S6_OPTION_AUTH_DATA);
    options.credentials.username = (struct socks6_slice){some_bytes, 256};
    assert_refused(&options, S6_IN_REQUEST);
    assert_int_equal(s6_options_check(&options, S6_IN_AUTH_SUCCESS), SOCKS6_OK); /* the status is what counts there */
    options.credentials.username.len = 255;
    assert_int_equal(s6_options_check(&options, S6_IN_REQUEST), SOCKS6_OK);
    options.credentials.password = (struct socks6_slice){some_bytes, 256};
    assert_refused(&options, S6_IN_REQUEST);

    options = with(S6_OPTION_SESSION_ID);
    assert_refused(&options, S6_IN_REQUEST);
    options.session_id = (struct socks6_slice){some_bytes, 6};
    assert_refused(&options, S6_IN_REQUEST);
    options.session_id.len = 65532;
    assert_refused(&options, S6_IN_REQUEST);
    options.session_id.len = 65528;
    assert_int_equal(s6_options_check(&options, S6_IN_REQUEST), SOCKS6_OK);

    options = with(S6_OPTION_WINDOW_REQUEST);
    s6_options_set(&options, S6_OPTION_SESSION_REQUEST);
    assert_refused(&options, S6_IN_REQUEST);
    options.window_request = 0x80000000u;
    assert_refused(&options, S6_IN_REQUEST);
    options.window_request = 0x7fffffffu;
    assert_int_equal(s6_options_check(&options, S6_IN_REQUEST), SOCKS6_OK);

    options = with(S6_OPTION_WINDOW);
    assert_refused(&options, S6_IN_AUTH_SUCCESS);
    options.window.size = 0x80000000u;
    assert_refused(&options, S6_IN_AUTH_SUCCESS);
    options.window.size = 1;
    assert_int_equal(s6_options_check(&options, S6_IN_AUTH_SUCCESS), SOCKS6_OK);
}

static void test_check_refuses_what_the_decoder_would_drop(void **state)
{
    const struct socks6_stack_option tos = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x1000};
    struct s6_options options;

    (void)state;
    options = with(S6_OPTION_SESSION_TEARDOWN);
    assert_refused(&options, S6_IN_REQUEST); /* no session */
    options = with(S6_OPTION_TOKEN);
    assert_refused(&options, S6_IN_REQUEST);
    options = with(S6_OPTION_WINDOW_REQUEST);
    options.window_request = 1;
    assert_refused(&options, S6_IN_REQUEST);
    options = with(S6_OPTION_SESSION_ID);
    options.session_id = (struct socks6_slice){some_bytes, 4};
    s6_options_set(&options, S6_OPTION_SESSION_REQUEST);
    assert_refused(&options, S6_IN_REQUEST);

    options = with(S6_OPTION_COUNT); /* no such kind */
    assert_refused(&options, S6_IN_REQUEST);
    options = with(S6_OPTION_STACK); /* has no bit */
    assert_refused(&options, S6_IN_REQUEST);

    s6_options_init(&options);
    assert_true(s6_options_add_stack(&options, &tos));
    assert_int_equal(s6_options_check(&options, S6_IN_REPLY), SOCKS6_OK);
    assert_refused(&options, S6_IN_AUTH_SUCCESS);
    options.stack[0].leg = SOCKS6_LEG_BOTH; /* put there past s6_options_add_stack() */
    assert_refused(&options, S6_IN_REPLY);
}

/* Sessions are judged as a whole, wherever in the area their options stand. */
static void test_order_in_the_area_does_not_matter(void **state)
{
    static const uint8_t token_first[] = {0, 13, 0, 8, 0, 0, 0, 1, 0, 6, 0, 8, 1, 2, 3, 4};
    static const uint8_t id_first[] = {0, 6, 0, 8, 1, 2, 3, 4, 0, 13, 0, 8, 0, 0, 0, 1};
    struct s6_options first;
    struct s6_options second;

    (void)state;
    assert_int_equal(s6_options_decode(token_first, sizeof token_first, S6_IN_REQUEST, &first), SOCKS6_OK);
    assert_true(s6_options_has(&first, S6_OPTION_TOKEN));
    assert_int_equal(s6_options_decode(id_first, sizeof id_first, S6_IN_REQUEST, &second), SOCKS6_OK);
    assert_true(options_equal(&first, &second));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_cut_vectors_never_pass_for_whole),
        cmocka_unit_test(test_failure_leaves_the_result_untouched),
        cmocka_unit_test(test_request_fields),
        cmocka_unit_test(test_in_session_unless_torn_down),
        cmocka_unit_test(test_reply_fields),
        cmocka_unit_test(test_each_kind_belongs_to_its_messages),
        cmocka_unit_test(test_unknown_kinds_are_skipped),
        cmocka_unit_test(test_methods_are_a_set),
        cmocka_unit_test(test_all_methods_fit),
        cmocka_unit_test(test_session_and_credentials_may_be_written_together),
        cmocka_unit_test(test_check_refuses_fields_out_of_range),
        cmocka_unit_test(test_check_refuses_what_the_decoder_would_drop),
        cmocka_unit_test(test_order_in_the_area_does_not_matter),
    };

    return cmocka_run_group_tests_name("wire/option", tests, NULL, NULL);
}
