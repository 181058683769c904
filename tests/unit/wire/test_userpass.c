/* wire/userpass: the vectors, each cut at every byte. */
#include "wire/userpass.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vectors.h"

/* Decodes and writes again into `out` (at least S6_USERPASS_REQUEST_MAX); the verdict. */
static int decode(const struct vector *vector, const uint8_t *bytes, size_t len, size_t *size, uint8_t *out,
                  size_t *out_len)
{
    struct s6_writer writer;
    int err;

    s6_writer_init(&writer, out, S6_USERPASS_REQUEST_MAX);
    if (strcmp(vector->context[0], "request") == 0) {
        struct socks6_credentials credentials;

        err = s6_userpass_request_decode(bytes, len, &credentials, size);
        if (err == SOCKS6_OK) {
            s6_userpass_request_encode(&writer, &credentials);
            assert_int_equal(s6_writer_len(&writer), s6_userpass_request_len(&credentials));
        }
    } else {
        uint8_t status;

        assert_string_equal(vector->context[0], "reply");
        err = s6_userpass_reply_decode(bytes, len, &status, size);
        if (err == SOCKS6_OK) {
            s6_userpass_reply_encode(&writer, status);
        }
    }
    assert_false(writer.failed);
    *out_len = s6_writer_len(&writer);
    return err;
}

static void check_vector(const struct vector *vector)
{
    uint8_t out[S6_USERPASS_REQUEST_MAX];
    size_t out_len = 0;
    size_t size = 1;
    int calls = 0;
    int err = SOCKS6_NEED_MORE;

    for (size_t len = 0; len <= vector->len; len++) {
        uint8_t *bytes = malloc(len + 1);
        size_t needed = 0;

        assert_non_null(bytes);
        memcpy(bytes, vector->bytes, len);
        err = decode(vector, bytes, len, &needed, out, &out_len);
        free(bytes);
        if (len < vector->len && err == SOCKS6_NEED_MORE) {
            assert_true(needed > len);
            assert_true(needed <= vector->len || vector->verdict != SOCKS6_OK);
        } else if (err != vector->verdict || (err == SOCKS6_OK && len < vector->len)) {
            fail_msg("%s cut at %zu: %s", vector->name, len, socks6_strerror(err));
        }
    }
    if (vector->verdict == SOCKS6_OK) {
        assert_int_equal(out_len, vector->len);
        assert_memory_equal(out, vector->bytes, out_len);
    }
    for (err = SOCKS6_NEED_MORE; err == SOCKS6_NEED_MORE && size <= vector->len; calls++) {
        err = decode(vector, vector->bytes, size, &size, out, &out_len);
    }
    assert_int_equal(err, vector->verdict);
    assert_true(calls <= 5);
}

static void test_vectors(void **state)
{
    struct vectors vectors = vectors_load("userpass.hex");

    (void)state;
    for (size_t i = 0; i < vectors.count; i++) {
        check_vector(&vectors.items[i]);
    }
    vectors_free(&vectors);
}

static void test_slices_are_borrowed_and_exact(void **state)
{
    static const uint8_t bytes[] = {1, 2, 'm', 'e', 3, 'p', 0, 'w', 'r', 'e', 's', 't'};
    struct socks6_credentials credentials;
    size_t size;

    (void)state;
    assert_int_equal(s6_userpass_request_decode(bytes, sizeof bytes, &credentials, &size), SOCKS6_OK);
    assert_int_equal(size, 8);
    assert_ptr_equal(credentials.username.data, bytes + 2);
    assert_int_equal(credentials.username.len, 2);
    assert_ptr_equal(credentials.password.data, bytes + 5);
    assert_int_equal(credentials.password.len, 3);
}

static void test_failure_leaves_results_untouched(void **state)
{
    static const uint8_t bytes[] = {5, 2, 'm', 'e', 0};
    struct socks6_credentials credentials = {.username = {bytes, 99}};
    uint8_t status = 77;
    size_t size = 4711;

    (void)state;
    assert_int_equal(s6_userpass_request_decode(bytes, sizeof bytes, &credentials, &size), SOCKS6_ERR_MALFORMED);
    assert_int_equal(s6_userpass_reply_decode(bytes, sizeof bytes, &status, &size), SOCKS6_ERR_MALFORMED);
    /* The first byte alone shows it. */
    assert_int_equal(s6_userpass_request_decode(bytes, 1, &credentials, &size), SOCKS6_ERR_MALFORMED);
    assert_int_equal(s6_userpass_reply_decode(bytes, 1, &status, &size), SOCKS6_ERR_MALFORMED);
    assert_int_equal(credentials.username.len, 99);
    assert_int_equal(status, 77);
    assert_int_equal(size, 4711);
}

static void test_nothing_needs_one_byte(void **state)
{
    struct socks6_credentials credentials;
    uint8_t status;
    size_t size = 0;

    (void)state;
    assert_int_equal(s6_userpass_request_decode(NULL, 0, &credentials, &size), SOCKS6_NEED_MORE);
    assert_int_equal(size, 1);
    assert_int_equal(s6_userpass_reply_decode(NULL, 0, &status, &size), SOCKS6_NEED_MORE);
    assert_int_equal(size, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_slices_are_borrowed_and_exact),
        cmocka_unit_test(test_failure_leaves_results_untouched),
        cmocka_unit_test(test_nothing_needs_one_byte),
    };

    return cmocka_run_group_tests_name("wire/userpass", tests, NULL, NULL);
}
