/* A machine on the bench; see rig.h. */
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int nibble(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *at = strchr(digits, digit);

    assert_true(digit != '\0' && at != NULL);
    return (int)(at - digits);
}

size_t rig_bytes(const char *hex, uint8_t *out, size_t size)
{
    size_t len = 0;

    while (*hex != '\0') {
        if (*hex == ' ') {
            hex++;
            continue;
        }
        assert_true(len < size);
        out[len++] = (uint8_t)(nibble(hex[0]) << 4 | nibble(hex[1]));
        hex += 2;
    }
    return len;
}

static void assert_hex(const uint8_t *bytes, size_t len, const char *hex)
{
    static uint8_t wanted[32768];
    size_t wanted_len = rig_bytes(hex, wanted, sizeof wanted);

    if (len != wanted_len || memcmp(bytes, wanted, len) != 0) {
        print_error("wanted: %s\ngot:    ", hex);
        for (size_t i = 0; i < len; i++) {
            print_error("%02x", bytes[i]);
        }
        print_error("\n");
    }
    assert_int_equal(len, wanted_len);
    assert_memory_equal(bytes, wanted, len);
}

/* "06 TYPE LENGTH options" with the length filled in. */
static const char *with_length(const char *head, const char *tail, const char *options)
{
    static char text[65536];
    static uint8_t scratch[32768];
    size_t len = rig_bytes(options, scratch, sizeof scratch);

    (void)snprintf(text, sizeof text, "%s%04zx%s%s", head, len, tail, options);
    return text;
}

static const char *auth_reply(unsigned type, const char *options)
{
    return with_length(type == 0 ? "0600" : "0601", "", options);
}

/* --- Server --- */

void server_rig_init(struct server_rig *rig)
{
    memset(rig, 0, sizeof *rig);
    heap_init(&rig->heap);
    rig->heap.secret = "secret";
    socks6_server_config_init(&rig->config);
    rig->config.allocator = &rig->heap.allocator;
}

void server_rig_start(struct server_rig *rig)
{
    assert_int_equal(socks6_server_new(&rig->config, rig->now_ms, &rig->server), 0);
}

void server_rig_done(struct server_rig *rig)
{
    socks6_server_free(rig->server);
    rig->server = NULL;
    assert_int_equal(rig->heap.blocks, 0);
    assert_int_equal(rig->heap.spilled, 0);
}

size_t server_rig_offer(struct server_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];
    size_t len = rig_bytes(hex, bytes, sizeof bytes);
    size_t used;

    assert_int_equal(socks6_server_input(rig->server, bytes, len, rig->now_ms, &used), 0);
    assert_true(used <= len);
    return used;
}

void server_rig_send(struct server_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];

    assert_int_equal(server_rig_offer(rig, hex), rig_bytes(hex, bytes, sizeof bytes));
}

void server_rig_request(struct server_rig *rig, enum socks6_command command, const char *options)
{
    char head[8];

    (void)snprintf(head, sizeof head, "06%02x", (unsigned)command);
    server_rig_send(rig, with_length(head, "0050 00 01 c0000201", options));
}

void server_rig_expect(struct server_rig *rig, enum socks6_server_event_type type)
{
    socks6_server_next_event(rig->server, &rig->event);
    assert_int_equal(rig->event.type, type);
}

void server_rig_output(struct server_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];
    size_t len = 0;

    for (;;) {
        struct socks6_slice out = socks6_server_output(rig->server);

        if (out.len == 0) {
            break;
        }
        assert_true(out.len <= sizeof bytes - len);
        memcpy(bytes + len, out.data, out.len);
        len += out.len;
        socks6_server_output_sent(rig->server, out.len);
    }
    assert_hex(bytes, len, hex);
}

void server_rig_auth_reply(struct server_rig *rig, unsigned type, const char *options)
{
    server_rig_output(rig, auth_reply(type, options));
}

void server_rig_closed(struct server_rig *rig, int reason)
{
    const struct socks6_window window = {.base = 1, .size = 1};

    server_rig_expect(rig, SOCKS6_SERVER_CLOSE);
    assert_int_equal(rig->event.u.close.reason, reason);
    assert_non_null(rig->event.u.close.why);
    assert_true(strlen(rig->event.u.close.why) > 0);
    server_rig_expect(rig, SOCKS6_SERVER_NONE);
    assert_int_equal(server_rig_offer(rig, "06010000"), 0);
    assert_int_equal(socks6_server_deadline(rig->server), UINT64_MAX);
    assert_int_equal(socks6_server_auth_done(rig->server, SOCKS6_AUTH_SUCCESS), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_done(rig->server, 1, NULL), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_started(rig->server, NULL, 0), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_window_done(rig->server, &window), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_token_done(rig->server, 1, &window), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_reply(rig->server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), SOCKS6_ERR_INVALID);
    server_rig_output(rig, "");
    server_rig_expect(rig, SOCKS6_SERVER_NONE);
}

/* --- Client --- */

void client_rig_init(struct client_rig *rig)
{
    static const uint8_t destination[4] = {192, 0, 2, 1};

    memset(rig, 0, sizeof *rig);
    heap_init(&rig->heap);
    rig->heap.secret = "secret";
    socks6_client_config_init(&rig->config);
    rig->config.allocator = &rig->heap.allocator;
    rig->config.addr = socks6_addr_ipv4(destination, 80);
}

void client_rig_alice(struct client_rig *rig)
{
    rig->config.has_credentials = 1;
    rig->config.credentials.username = (struct socks6_slice){.data = (const uint8_t *)"alice", .len = 5};
    rig->config.credentials.password = (struct socks6_slice){.data = (const uint8_t *)"secret", .len = 6};
}

void client_rig_start(struct client_rig *rig)
{
    assert_int_equal(socks6_client_new(&rig->config, rig->now_ms, &rig->client), 0);
}

void client_rig_done(struct client_rig *rig)
{
    socks6_client_free(rig->client);
    rig->client = NULL;
    assert_int_equal(rig->heap.blocks, 0);
    assert_int_equal(rig->heap.spilled, 0);
}

size_t client_rig_offer(struct client_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];
    size_t len = rig_bytes(hex, bytes, sizeof bytes);
    size_t used;

    assert_int_equal(socks6_client_input(rig->client, bytes, len, rig->now_ms, &used), 0);
    assert_true(used <= len);
    return used;
}

void client_rig_send(struct client_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];

    assert_int_equal(client_rig_offer(rig, hex), rig_bytes(hex, bytes, sizeof bytes));
}

void client_rig_auth_reply(struct client_rig *rig, unsigned type, const char *options)
{
    client_rig_send(rig, auth_reply(type, options));
}

void client_rig_expect(struct client_rig *rig, enum socks6_client_event_type type)
{
    socks6_client_next_event(rig->client, &rig->event);
    assert_int_equal(rig->event.type, type);
}

void client_rig_output(struct client_rig *rig, const char *hex)
{
    static uint8_t bytes[32768];
    size_t len = 0;

    for (;;) {
        struct socks6_slice out = socks6_client_output(rig->client);

        if (out.len == 0) {
            break;
        }
        assert_true(out.len <= sizeof bytes - len);
        memcpy(bytes + len, out.data, out.len);
        len += out.len;
        socks6_client_output_sent(rig->client, out.len);
    }
    assert_hex(bytes, len, hex);
}

void client_rig_closed(struct client_rig *rig, enum socks6_client_close_reason reason)
{
    struct socks6_client_event none;

    client_rig_expect(rig, SOCKS6_CLIENT_CLOSE);
    assert_int_equal(rig->event.u.close.reason, reason);
    assert_non_null(rig->event.u.close.why);
    assert_true(strlen(rig->event.u.close.why) > 0);
    assert_int_equal(client_rig_offer(rig, "06000000"), 0);
    assert_int_equal(socks6_client_deadline(rig->client), UINT64_MAX);
    socks6_client_timeout(rig->client, UINT64_MAX);
    socks6_client_eof(rig->client);
    socks6_client_next_event(rig->client, &none);
    assert_int_equal(none.type, SOCKS6_CLIENT_NONE);
}
