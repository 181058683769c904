/*
 * A dial through a layer, as TLS is one, and with a session. The layer here says HELLO, waits for WELCOME, and then turns each
 * byte into its complement.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>

#include "fake_proxy.h"

#define REQUEST_LEN 20
#define HELLO "HELLO"
#define WELCOME "WELCOME"
/* Complements of an Authentication Reply and an Operation Reply of success. */
#define AUTH_OK "\xf9\xff\xff\xff"
#define REPLY_OK "\xf9\xff\xff\xff\xed\xcb\xff\xfe\x80\xff\xff\xfe"

struct layer {
    uint8_t in[4096], out[4096];
    size_t in_len, out_len, out_sent;
    int is_started, is_open, is_ended, takes_early;
    const char *error;
};

static int is_welcome(struct layer *l)
{
    size_t len = sizeof WELCOME - 1;

    if (l->in_len < len) {
        return 0;
    }
    if (memcmp(l->in, WELCOME, len) != 0) {
        l->error = "it is not welcome";
        return 0;
    }
    l->in_len -= len;
    memmove(l->in, l->in + len, l->in_len);
    return 1;
}

static void put(struct layer *l, const void *bytes, size_t len, uint8_t mask)
{
    assert_true(l->out_len + len <= sizeof l->out);
    for (size_t i = 0; i < len; i++) {
        l->out[l->out_len++] = ((const uint8_t *)bytes)[i] ^ mask;
    }
}

static size_t layer_write(void *user, struct socks6_slice first, struct socks6_slice second)
{
    struct layer *l = user;
    int may = l->is_open;

    if (!l->is_started) {
        put(l, HELLO, sizeof HELLO - 1, 0);
        l->is_started = 1;
        may = l->takes_early;
    }
    if (!may) {
        return 0;
    }
    put(l, first.data, first.len, 0xff);
    put(l, second.data, second.len, 0xff);
    return first.len + second.len;
}

static struct socks6_slice layer_output(void *user)
{
    struct layer *l = user;

    return (struct socks6_slice){l->out + l->out_sent, l->out_len - l->out_sent};
}

static void layer_output_sent(void *user, size_t len)
{
    struct layer *l = user;

    l->out_sent += len;
    assert_true(l->out_sent <= l->out_len);
}

static void layer_input(void *user, struct socks6_slice bytes)
{
    struct layer *l = user;

    if (bytes.len == 0) {
        l->is_ended = l->is_open;
        l->error = l->is_open ? l->error : "it hung up";
        return;
    }
    assert_true(l->in_len + bytes.len <= sizeof l->in);
    memcpy(l->in + l->in_len, bytes.data, bytes.len);
    l->in_len += bytes.len;
    l->is_open = l->is_open || is_welcome(l);
}

static size_t layer_peek(void *user, uint8_t *buf, size_t size)
{
    struct layer *l = user;
    size_t n = l->in_len < size ? l->in_len : size;

    if (!l->is_open) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        buf[i] = l->in[i] ^ 0xff;
    }
    return n;
}

static void layer_discard(void *user, size_t len)
{
    struct layer *l = user;

    assert_true(len <= l->in_len);
    l->in_len -= len;
    memmove(l->in, l->in + len, l->in_len);
}

static int layer_is_ended(void *user)
{
    return ((struct layer *)user)->is_ended;
}

static const char *layer_error(void *user)
{
    return ((struct layer *)user)->error;
}

static unsigned layer_round_trips(void *user)
{
    return ((struct layer *)user)->takes_early ? 0 : 1;
}

static void layer_describe(void *user, char *out, size_t size)
{
    (void)user;
    (void)snprintf(out, size, "a layer");
}

struct fixture {
    struct fake_proxy fake;
    struct socks6_proxy proxy;
    struct layer layer;
    struct socks6_dial_layer face;
    struct socks6_dial_config config;
    struct socks6_dial_result result;
    struct socks6_client_session told;
    int told_count;
};

static struct fixture f;

static void start(const struct fake_step *script)
{
    memset(&f, 0, sizeof f);
    fake_start(&f.fake, "127.0.0.1", script);
    f.proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", f.fake.port);
    f.proxy.is_tls = 1;
    f.face = (struct socks6_dial_layer){
        .user = &f.layer,
        .write = layer_write,
        .output = layer_output,
        .output_sent = layer_output_sent,
        .input = layer_input,
        .peek = layer_peek,
        .discard = layer_discard,
        .is_ended = layer_is_ended,
        .error = layer_error,
        .round_trips = layer_round_trips,
        .describe = layer_describe,
    };
    socks6_dial_config_init(&f.config);
    f.config.proxy = &f.proxy;
    f.config.layer = &f.face;
    assert_true(socks6_addr_name("example.com", 11, 81, &f.config.addr));
}

static void assert_got_complement(size_t at, const char *bytes, size_t len)
{
    assert_true(f.fake.got_len >= at + len);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(f.fake.got[at + i] ^ 0xff, (uint8_t)bytes[i]);
    }
}

static void test_conversation_goes_through_the_layer(void **state)
{
    static const struct fake_step script[] = {{FAKE_READ, NULL, sizeof HELLO - 1},
                                              {FAKE_TRICKLE, FAKE_BYTES(WELCOME)},
                                              {FAKE_READ, NULL, REQUEST_LEN + 5},
                                              {FAKE_TRICKLE, FAKE_BYTES(AUTH_OK REPLY_OK "\x9e\x8f\x8f")},
                                              {FAKE_END, NULL, 0}};

    (void)state;
    start(script);
    f.config.early = (struct socks6_slice){(const uint8_t *)"early", 5};
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_OK);
    assert_int_equal(f.result.round_trips, 3); /* TCP, the layer, the request */
    close(f.result.fd);
    fake_wait(&f.fake);
    assert_memory_equal(f.fake.got, HELLO, 5);
    assert_int_equal(f.fake.got_len, 5 + REQUEST_LEN + 5);
    assert_int_equal(f.fake.got[5] ^ 0xff, 6);
    assert_got_complement(5 + REQUEST_LEN, "early", 5);
    fake_done(&f.fake);
}

static void test_first_message_and_early_data_are_one_write(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES(WELCOME AUTH_OK REPLY_OK "\x9e\x8f\x8f")}, {FAKE_END, NULL, 0}};
    uint8_t buf[8];

    (void)state;
    start(script);
    f.layer.takes_early = 1;
    f.config.early = (struct socks6_slice){(const uint8_t *)"early", 5};
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_OK);
    assert_int_equal(f.result.round_trips, 2);
    assert_int_equal(layer_peek(&f.layer, buf, sizeof buf), 3);
    assert_memory_equal(buf, "app", 3);
    close(f.result.fd);
    fake_wait(&f.fake);
    assert_int_equal(f.fake.first_recv, 5 + REQUEST_LEN + 5);
    fake_done(&f.fake);
}

static void test_failure_of_the_layer_is_said(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, 5}, {FAKE_SEND, FAKE_BYTES("GO AWAY")}, {FAKE_END, NULL, 0}};

    (void)state;
    start(script);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(f.result.error, ": it is not welcome"));
    assert_int_equal(f.result.sent, 0); /* nothing of the request has left */
    fake_wait(&f.fake);
    assert_int_equal(f.fake.got_len, 5);
    fake_done(&f.fake);
}

static void test_ends_within_the_layer(void **state)
{
    static const struct fake_step early[] = {{FAKE_READ, NULL, 5}, {FAKE_CLOSE, NULL, 0}, {FAKE_END, NULL, 0}};
    static const struct fake_step late[] = {{FAKE_READ, NULL, 5},           {FAKE_SEND, FAKE_BYTES(WELCOME)},
                                            {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK)},
                                            {FAKE_CLOSE, NULL, 0},          {FAKE_END, NULL, 0}};

    (void)state;
    start(early);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(f.result.error, "it hung up"));
    fake_wait(&f.fake);
    fake_done(&f.fake);
    start(late);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(f.result.error, "in mid-reply"));
    fake_wait(&f.fake);
    fake_done(&f.fake);
}

static void test_tls_without_a_layer_is_refused(void **state)
{
    static const struct fake_step script[] = {{FAKE_END, NULL, 0}};

    (void)state;
    start(script);
    f.config.layer = NULL;
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_INVALID);
    assert_non_null(strstr(f.result.error, "socks6s://"));
    f.proxy.is_tls = 0; /* so that the script ends */
    f.config.timeout_ms = 1;
    assert_int_not_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_OK);
    fake_wait(&f.fake);
    fake_done(&f.fake);
}

/* --- sessions --- */

static void on_session(void *user, const struct socks6_client_session *reply)
{
    assert_ptr_equal(user, &f);
    f.told = *reply;
    f.told_count++;
}

static void with_session(struct socks6_client_config *settings)
{
    f.proxy.is_tls = 0;
    f.config.layer = NULL;
    f.proxy.has_credentials = 1;
    memcpy(f.proxy.username, "alice", 6);
    socks6_client_config_init(settings);
    settings->session_id = (struct socks6_slice){(const uint8_t *)"abcd", 4};
    settings->has_token = 1;
    settings->token = 0x01020304;
    f.config.session = settings;
    f.config.on_session = on_session;
    f.config.on_session_user = &f;
}

static void test_session_goes_along_in_the_place_of_the_login(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0},
        {FAKE_SEND, FAKE_BYTES("\x06\x00\x00\x08\x00\x08\x00\x04\x00\x0e\x00\x04"
                               "\x06\x00\x00\x00\x12\x34\x00\x01\x7f\x00\x00\x01")},
        {FAKE_END, NULL, 0}};
    static const uint8_t options[] = "\x00\x06\x00\x08"
                                     "abcd\x00\x0d\x00\x08\x01\x02\x03\x04";
    struct socks6_client_config settings;

    (void)state;
    start(script);
    with_session(&settings);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_OK);
    close(f.result.fd);
    fake_wait(&f.fake);
    assert_int_equal(f.fake.got_len, REQUEST_LEN + sizeof options - 1);
    assert_memory_equal(f.fake.got + REQUEST_LEN, options, sizeof options - 1);
    assert_int_equal(f.told_count, 1);
    assert_true(f.told.ok && f.told.token_accepted);
    assert_int_equal(f.result.sent, 1);
    assert_int_equal(f.result.round_trips, 2);
    fake_done(&f.fake);
}

static void test_refusals_of_the_session_are_told(void **state)
{
    static const struct fake_step invalid[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x04\x00\x09\x00\x04")}, {FAKE_END, NULL, 0}};
    static const struct fake_step rejected[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x04\x00\x0f\x00\x04")}, {FAKE_END, NULL, 0}};
    struct socks6_client_config settings;

    (void)state;
    start(invalid);
    with_session(&settings);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_PROXY_FAILED);
    assert_true(f.told.invalid && f.told_count == 1);
    assert_non_null(strstr(f.result.error, "does not know our session"));
    fake_wait(&f.fake);
    fake_done(&f.fake);
    start(rejected);
    with_session(&settings);
    assert_int_equal(socks6_dial(&f.config, &f.result), SOCKS6_DIAL_PROXY_FAILED);
    assert_true(f.told.token_rejected && f.told_count == 1);
    fake_wait(&f.fake);
    fake_done(&f.fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversation_goes_through_the_layer),
        cmocka_unit_test(test_first_message_and_early_data_are_one_write),
        cmocka_unit_test(test_failure_of_the_layer_is_said),
        cmocka_unit_test(test_ends_within_the_layer),
        cmocka_unit_test(test_tls_without_a_layer_is_refused),
        cmocka_unit_test(test_session_goes_along_in_the_place_of_the_login),
        cmocka_unit_test(test_refusals_of_the_session_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
