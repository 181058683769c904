/*
 * What is written is compared with the bytes of the draft, and read back by libsocks6's decoder; the replies are those of its encoder,
 * cut at every byte, each part in memory of exactly its size.
 */
#include "run/handshake.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/bytebuf.h"
#include "base/mem.h"
#include "wire/message.h"

static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};
#define DRAFTS (sizeof drafts / sizeof drafts[0])

/* --- the request --- */

static const struct run_addr ipv4 = {.family = AF_INET, .port = 0x1f90, .bytes = {192, 0, 2, 1}};
static const struct run_addr ipv6 = {
    .family = AF_INET6,
    .port = 443,
    .scope = 7,
    .bytes = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x2a},
};
static const struct run_addr mapped = {
    .family = AF_INET6,
    .port = 1,
    .bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 9},
};

static struct run_route route_with(uint32_t session_len)
{
    struct run_route route = {.serial = 2, .proxy = ipv4, .session_len = session_len};

    for (size_t i = 0; i < sizeof route.session; i++) {
        route.session[i] = (uint8_t)(0xa0 + i);
    }
    return route;
}

/* In memory that has no byte more. */
static size_t request_with(uint32_t session_len, const struct run_addr *destination, const uint32_t *token,
                           uint8_t out[RUN_REQUEST_MAX])
{
    struct run_route route = route_with(session_len);
    uint8_t *exact = malloc(RUN_REQUEST_MAX);
    size_t len;

    assert_non_null(exact);
    len = run_handshake_request(&route, destination, token, exact);
    assert_true(len <= RUN_REQUEST_MAX);
    memcpy(out, exact, len);
    free(exact);
    return len;
}

static size_t request(uint32_t session_len, const struct run_addr *destination, uint8_t out[RUN_REQUEST_MAX])
{
    return request_with(session_len, destination, NULL, out);
}

static void expect_request(uint32_t session_len, const struct run_addr *destination, const uint8_t *want,
                           size_t want_len)
{
    uint8_t bytes[RUN_REQUEST_MAX];

    assert_int_equal(request(session_len, destination, bytes), want_len);
    assert_memory_equal(bytes, want, want_len);
}

#define EXPECT_REQUEST(session_len, destination, ...)                                                                  \
    do {                                                                                                               \
        static const uint8_t want[] = {__VA_ARGS__};                                                                   \
        expect_request(session_len, destination, want, sizeof want);                                                   \
    } while (0)

/* Version, CONNECT, length of options (2), port (2), padding, type, address, options: kind (2), length (2), data. */
static void test_a_request_is_that_of_the_draft(void **state)
{
    (void)state;
    EXPECT_REQUEST(0, &ipv4, 6, 1, 0, 0, 0x1f, 0x90, 0, 1, 192, 0, 2, 1);
    EXPECT_REQUEST(0, &ipv6, 6, 1, 0, 0, 0x01, 0xbb, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                   0x2a);
    EXPECT_REQUEST(0, &mapped, 6, 1, 0, 0, 0, 1, 0, 1, 198, 51, 100, 9);
}

static void test_a_request_in_a_session_carries_its_id(void **state)
{
    (void)state;
    EXPECT_REQUEST(4, &ipv4, 6, 1, 0, 8, 0x1f, 0x90, 0, 1, 192, 0, 2, 1, 0, 6, 0, 8, 0xa0, 0xa1, 0xa2, 0xa3);
    EXPECT_REQUEST(8, &mapped, 6, 1, 0, 12, 0, 1, 0, 1, 198, 51, 100, 9, 0, 6, 0, 12, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4,
                   0xa5, 0xa6, 0xa7);
    EXPECT_REQUEST(4, &ipv6, 6, 1, 0, 8, 0x01, 0xbb, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                   0x2a, 0, 6, 0, 8, 0xa0, 0xa1, 0xa2, 0xa3);
}

static void expect_request_reads_back(uint32_t session_len, const struct run_addr *destination,
                                      const struct socks6_addr *want)
{
    struct run_route route = route_with(session_len);
    uint8_t bytes[RUN_REQUEST_MAX];
    size_t len = request(session_len, destination, bytes), size = 0;
    struct s6_request there;

    assert_true(len > 0);
    assert_int_equal(s6_request_decode(bytes, len, SOCKS6_OPTIONS_CAP_11, &there, &size), 0);
    assert_int_equal(size, len);
    assert_int_equal(there.command, SOCKS6_COMMAND_CONNECT);
    assert_true(socks6_addr_equal(&there.addr, want));
    assert_int_equal(there.options.stack_count, 0);
    if (session_len == 0) {
        assert_int_equal(there.options.present, 0);
        return;
    }
    assert_int_equal(there.options.present, 1u << S6_OPTION_SESSION_ID);
    assert_int_equal(there.options.session_id.len, session_len);
    assert_memory_equal(there.options.session_id.data, route.session, session_len);
}

static void test_requests_of_all_lengths_read_back(void **state)
{
    const struct socks6_addr want_ipv4 = socks6_addr_ipv4(ipv4.bytes, ipv4.port);
    const struct socks6_addr want_ipv6 = socks6_addr_ipv6(ipv6.bytes, ipv6.port);
    const struct socks6_addr want_mapped = socks6_addr_ipv4(mapped.bytes + 12, mapped.port);

    (void)state;
    for (uint32_t session_len = 0; session_len <= RUN_ROUTE_SESSION_MAX; session_len += 4) {
        expect_request_reads_back(session_len, &ipv4, &want_ipv4);
        expect_request_reads_back(session_len, &ipv6, &want_ipv6);
        expect_request_reads_back(session_len, &mapped, &want_mapped);
    }
}

/* Behind the session's ID, big-endian. */
static void test_a_request_spends_its_token(void **state)
{
    static const uint8_t want[] = {6, 1, 0,    16,   0x1f, 0x90, 0, 1,  192, 0, 2,    1,    0,    6,
                                   0, 8, 0xa0, 0xa1, 0xa2, 0xa3, 0, 13, 0,   8, 0x01, 0x23, 0xcd, 0xef};
    const uint32_t token = 0x0123cdef;
    uint8_t bytes[RUN_REQUEST_MAX];

    (void)state;
    assert_int_equal(request_with(4, &ipv4, &token, bytes), sizeof want);
    assert_memory_equal(bytes, want, sizeof want);
}

static void test_tokens_of_all_kinds_read_back(void **state)
{
    static const uint32_t tokens[] = {0, 1, 0x80000000u, UINT32_MAX};
    const struct socks6_addr want = socks6_addr_ipv6(ipv6.bytes, ipv6.port);

    (void)state;
    for (uint32_t session_len = 4; session_len <= RUN_ROUTE_SESSION_MAX; session_len += 4) {
        for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
            struct run_route route = route_with(session_len);
            uint8_t bytes[RUN_REQUEST_MAX];
            size_t len = request_with(session_len, &ipv6, &tokens[i], bytes), size = 0;
            struct s6_request there;

            assert_true(len > 0);
            assert_int_equal(s6_request_decode(bytes, len, SOCKS6_OPTIONS_CAP_11, &there, &size), 0);
            assert_int_equal(size, len);
            assert_int_equal(there.command, SOCKS6_COMMAND_CONNECT);
            assert_true(socks6_addr_equal(&there.addr, &want));
            assert_int_equal(there.options.present, 1u << S6_OPTION_SESSION_ID | 1u << S6_OPTION_TOKEN);
            assert_int_equal(there.options.session_id.len, session_len);
            assert_memory_equal(there.options.session_id.data, route.session, session_len);
            assert_int_equal(there.options.token, tokens[i]);
        }
    }
}

static void test_what_makes_no_request_has_no_length(void **state)
{
    static const uint16_t families[] = {AF_UNSPEC, AF_UNIX, AF_PACKET, UINT16_MAX};
    static const uint32_t lengths[] = {RUN_ROUTE_SESSION_MAX + 1, RUN_ROUTE_SESSION_MAX + 4, 65536, UINT32_MAX - 3,
                                       UINT32_MAX};
    uint8_t bytes[RUN_REQUEST_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        struct run_addr strange = ipv4;

        strange.family = families[i];
        assert_int_equal(request(0, &strange, bytes), 0);
        assert_int_equal(request(4, &strange, bytes), 0);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        assert_int_equal(request(lengths[i], &ipv4, bytes), 0);
    }
    for (uint32_t session_len = 1; session_len < RUN_ROUTE_SESSION_MAX; session_len++) { /* IDs are aligned */
        if (session_len % 4 != 0) {
            assert_int_equal(request(session_len, &ipv6, bytes), 0);
        }
    }
}

/* --- the replies --- */

static const char remote_data[] = "\x06\x01\x00\x00 of the remote end";

/* What the proxy has sent, and where its own bytes end. */
struct stream {
    struct socks6_allocator mem;
    struct s6_buf buf;
};

static void stream_init(struct stream *stream)
{
    stream->mem = s6_allocator_or_default(NULL);
    s6_buf_init(&stream->buf, &stream->mem, 65536, false);
}

static void stream_add(struct stream *stream, const void *bytes, size_t len)
{
    assert_int_equal(s6_buf_append(&stream->buf, bytes, len), 0);
}

/* Of the first `len` bytes, in memory that has no byte more. */
static enum run_handshake judge(const struct stream *stream, size_t len, struct run_handshake_reply *out)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);
    enum run_handshake said;

    assert_non_null(exact);
    if (len > 0) {
        memcpy(exact, s6_buf_slice(&stream->buf).data, len);
    }
    said = run_handshake_reply(exact, len, out);
    free(exact);
    return said;
}

static void expect_nothing_told(const struct run_handshake_reply *reply)
{
    assert_int_equal(reply->used, 4711);
    assert_int_equal(reply->code, 815);
    assert_int_equal(reply->bound.type, 0);
}

static const struct run_handshake_reply untold = {.used = 4711, .code = 815};

/* MORE for all shorter ones, `want` from `whole` bytes on, whatever follows. The stream is at its end afterwards. */
static struct run_handshake_reply expect_from(struct stream *stream, size_t whole, enum run_handshake want)
{
    struct run_handshake_reply reply = untold;

    stream_add(stream, remote_data, sizeof remote_data);
    for (size_t len = 0; len <= s6_buf_len(&stream->buf); len++) {
        reply = untold;
        assert_int_equal(judge(stream, len, &reply), len < whole ? RUN_HANDSHAKE_MORE : want);
        if (len >= whole && (want == RUN_HANDSHAKE_CONNECTED || want == RUN_HANDSHAKE_FAILED)) {
            assert_int_equal(reply.used, whole);
        } else {
            expect_nothing_told(&reply);
        }
    }
    s6_buf_done(&stream->buf);
    return reply;
}

static void add_auth(struct stream *stream, enum s6_auth_type type, const struct s6_options *options,
                     enum socks6_draft draft)
{
    struct s6_auth_reply reply = {.type = (uint8_t)type};

    if (options != NULL) {
        reply.options = *options;
    }
    assert_int_equal(s6_auth_reply_encode(&reply, draft, &stream->buf), 0);
}

static void add_reply(struct stream *stream, unsigned code, const struct socks6_addr *bound,
                      const struct s6_options *options, enum socks6_draft draft)
{
    struct s6_reply reply = {.code = (uint8_t)code, .addr = *bound};

    if (options != NULL) {
        reply.options = *options;
    }
    assert_int_equal(s6_reply_encode(&reply, draft, &stream->buf), 0);
}

static void expect_outcome(struct stream *stream, unsigned code, const struct socks6_addr *bound)
{
    struct run_handshake_reply reply =
        expect_from(stream, s6_buf_len(&stream->buf),
                    code == SOCKS6_REPLY_SUCCESS ? RUN_HANDSHAKE_CONNECTED : RUN_HANDSHAKE_FAILED);

    assert_int_equal(reply.code, code);
    assert_int_equal(reply.bound.type, bound->type);
    assert_true(socks6_addr_equal(&reply.bound, bound));
}

static struct socks6_addr name_addr(size_t len)
{
    char name[SOCKS6_NAME_MAX];
    struct socks6_addr addr;

    memset(name, 'n', sizeof name);
    assert_int_equal(socks6_addr_name(name, len, 65535, &addr), 1);
    return addr;
}

static void test_replies_of_all_codes_with_all_kinds_of_addresses(void **state)
{
    const struct socks6_addr bounds[] = {
        socks6_addr_ipv4(ipv4.bytes, 1025), socks6_addr_ipv6(ipv6.bytes, 0), name_addr(1), name_addr(3), name_addr(4),
        name_addr(SOCKS6_NAME_MAX),
    };

    (void)state;
    for (size_t d = 0; d < DRAFTS; d++) {
        for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
            for (unsigned code = 0; code <= SOCKS6_REPLY_COUNT; code++) {
                struct stream stream;

                stream_init(&stream);
                add_auth(&stream, S6_AUTH_SUCCESS, NULL, drafts[d]);
                add_reply(&stream, code, &bounds[i], NULL, drafts[d]);
                expect_outcome(&stream, code, &bounds[i]);
            }
        }
    }
}

static void test_codes_without_a_name_are_failures(void **state)
{
    const struct socks6_addr bound = socks6_addr_ipv4(ipv4.bytes, 80);

    (void)state;
    for (unsigned code = SOCKS6_REPLY_COUNT; code < 256; code++) {
        struct stream stream;

        stream_init(&stream);
        add_auth(&stream, S6_AUTH_SUCCESS, NULL, SOCKS6_DRAFT_11);
        add_reply(&stream, code, &bound, NULL, SOCKS6_DRAFT_11);
        expect_outcome(&stream, code, &bound);
    }
}

static void set_session_options(struct s6_options *options)
{
    static const uint8_t id[20] = {1, 2, 3};

    s6_options_init(options);
    s6_options_set(options, S6_OPTION_SESSION_OK);
    s6_options_set(options, S6_OPTION_SESSION_ID);
    options->session_id = (struct socks6_slice){id, sizeof id};
    s6_options_set(options, S6_OPTION_WINDOW);
    options->window = (struct socks6_window){.base = UINT32_MAX, .size = 100};
    s6_options_set(options, S6_OPTION_TOKEN_ACCEPTED);
}

static void test_options_that_nobody_asked_for_do_no_harm(void **state)
{
    static const struct socks6_stack_option stack[] = {
        {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 1400},
        {SOCKS6_LEG_CLIENT_PROXY, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x1000},
    };
    const struct socks6_addr bound = socks6_addr_ipv6(ipv6.bytes, 80);
    struct s6_options auth_options, reply_options;

    (void)state;
    set_session_options(&auth_options);
    s6_options_init(&reply_options);
    for (size_t i = 0; i < 2; i++) {
        assert_true(s6_options_add_stack(&reply_options, &stack[i]));
    }
    for (size_t d = 0; d < DRAFTS; d++) {
        struct stream stream;

        stream_init(&stream);
        add_auth(&stream, S6_AUTH_SUCCESS, &auth_options, drafts[d]);
        add_reply(&stream, SOCKS6_REPLY_SUCCESS, &bound, &reply_options, drafts[d]);
        expect_outcome(&stream, SOCKS6_REPLY_SUCCESS, &bound);
    }
}

static void test_a_window_is_told(void **state)
{
    static const struct socks6_window windows[] = {{0, 1}, {7, 4096}, {UINT32_MAX, 100}, {0xfffffff0u, 0x7fffffff}};
    const struct socks6_addr bound = socks6_addr_ipv4(ipv4.bytes, 80);

    (void)state;
    for (size_t d = 0; d < DRAFTS; d++) {
        for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
            for (unsigned code = 0; code < SOCKS6_REPLY_COUNT; code++) { /* refused connections tell, too */
                struct run_handshake_reply reply;
                struct s6_options options;
                struct stream stream;

                set_session_options(&options);
                options.window = windows[i];
                stream_init(&stream);
                add_auth(&stream, S6_AUTH_SUCCESS, &options, drafts[d]);
                add_reply(&stream, code, &bound, NULL, drafts[d]);
                reply = expect_from(&stream, s6_buf_len(&stream.buf),
                                    code == 0 ? RUN_HANDSHAKE_CONNECTED : RUN_HANDSHAKE_FAILED);
                assert_int_equal(reply.window.base, windows[i].base);
                assert_int_equal(reply.window.size, windows[i].size);
            }
        }
    }
}

static void test_a_window_that_is_not_told_has_no_size(void **state)
{
    const struct socks6_addr bound = socks6_addr_ipv4(ipv4.bytes, 80);
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    s6_options_set(&options, S6_OPTION_SESSION_OK);
    options.window = (struct socks6_window){.base = 1, .size = 2}; /* without being set */
    for (size_t d = 0; d < DRAFTS; d++) {
        for (int i = 0; i < 2; i++) {
            struct run_handshake_reply reply;
            struct stream stream;

            stream_init(&stream);
            add_auth(&stream, S6_AUTH_SUCCESS, i == 0 ? NULL : &options, drafts[d]);
            add_reply(&stream, SOCKS6_REPLY_SUCCESS, &bound, NULL, drafts[d]);
            reply = expect_from(&stream, s6_buf_len(&stream.buf), RUN_HANDSHAKE_CONNECTED);
            assert_int_equal(reply.window.base, 0);
            assert_int_equal(reply.window.size, 0);
        }
    }
}

/* The bytes of the draft: kind (2), length (2), base (4), size (4). */
static void test_a_window_by_hand(void **state)
{
    static const uint8_t good[] = {6,  0, 0, 12, 0, 12, 0, 12, 1, 2, 3,   4, 0, 0,
                                   16, 0, 6, 0,  0, 0,  0, 80, 0, 1, 127, 0, 0, 1};
    struct run_handshake_reply reply;
    struct stream stream;

    (void)state;
    stream_init(&stream);
    stream_add(&stream, good, sizeof good);
    reply = expect_from(&stream, sizeof good, RUN_HANDSHAKE_CONNECTED);
    assert_int_equal(reply.window.base, 0x01020304);
    assert_int_equal(reply.window.size, 4096);
}

static void test_refused_authentication_wants_another_request(void **state)
{
    struct s6_options options[6];

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        s6_options_init(&options[i]);
    }
    s6_options_set(&options[1], S6_OPTION_SESSION_INVALID);
    s6_options_set(&options[2], S6_OPTION_TOKEN_REJECTED);
    s6_options_set(&options[3], S6_OPTION_METHOD);
    options[3].method = SOCKS6_METHOD_USERPASS;
    s6_options_set(&options[4], S6_OPTION_METHOD);
    options[4].method = SOCKS6_METHOD_UNACCEPTABLE;
    s6_options_set(&options[5], S6_OPTION_METHOD);
    options[5].method = SOCKS6_METHOD_NONE;
    for (size_t d = 0; d < DRAFTS; d++) {
        for (size_t i = 0; i < 6; i++) {
            const struct socks6_addr bound = socks6_addr_ipv4(ipv4.bytes, 80);
            struct stream stream;
            size_t whole;

            stream_init(&stream);
            add_auth(&stream, S6_AUTH_FAILURE, &options[i], drafts[d]);
            whole = s6_buf_len(&stream.buf);
            add_reply(&stream, SOCKS6_REPLY_SUCCESS, &bound, NULL, drafts[d]);
            expect_from(&stream, whole, RUN_HANDSHAKE_USELESS);
        }
    }
}

/* `bytes` are of no use from the `whole`th on. */
static void expect_useless(const void *bytes, size_t len, size_t whole)
{
    struct stream stream;

    stream_init(&stream);
    stream_add(&stream, bytes, len);
    expect_from(&stream, whole, RUN_HANDSHAKE_USELESS);
}

#define EXPECT_USELESS(whole, ...)                                                                                     \
    do {                                                                                                               \
        static const uint8_t stream_bytes[] = {__VA_ARGS__};                                                           \
        expect_useless(stream_bytes, sizeof stream_bytes, whole);                                                      \
    } while (0)

#define GOOD_AUTH 6, 0, 0, 0

static void test_another_protocol_is_of_no_use_from_its_first_byte_on(void **state)
{
    (void)state;
    EXPECT_USELESS(1, 5, 0xff);
    EXPECT_USELESS(1, 0);
    EXPECT_USELESS(1, 'H', 'T', 'T', 'P', '/', '1', '.', '1');
    EXPECT_USELESS(5, GOOD_AUTH, 5, 0, 0, 1);
    EXPECT_USELESS(5, GOOD_AUTH, 0);
}

static void test_replies_that_make_no_sense_are_of_no_use(void **state)
{
    (void)state;
    EXPECT_USELESS(2, 6, 2, 0, 0);
    EXPECT_USELESS(2, 6, 255);
    /* address types that do not exist */
    EXPECT_USELESS(12, GOOD_AUTH, 6, 0, 0, 0, 0, 80, 0, 0, 1, 2, 3, 4);
    EXPECT_USELESS(12, GOOD_AUTH, 6, 0, 0, 0, 0, 80, 0, 2, 1, 2, 3, 4);
    /* a name without a byte, and one with NUL in it */
    EXPECT_USELESS(16, GOOD_AUTH, 6, 0, 0, 0, 0, 80, 0, 3, 0, 0, 0, 0);
    EXPECT_USELESS(16, GOOD_AUTH, 6, 0, 0, 0, 0, 80, 0, 3, 3, 'a', 0, 'b');
    /* a window without a size */
    EXPECT_USELESS(12, 6, 0, 0, 8, 0, 12, 0, 8, 1, 2, 3, 4, 6, 0, 0, 0, 0, 80, 0, 1, 127, 0, 0, 1);
    /* options shorter than their head, and past the end of their area */
    EXPECT_USELESS(8, 6, 0, 0, 4, 0, 8, 0, 3);
    EXPECT_USELESS(8, 6, 0, 0, 4, 0, 8, 0, 8);
    EXPECT_USELESS(20, GOOD_AUTH, 6, 0, 0, 4, 0, 80, 0, 1, 1, 2, 3, 4, 0xfc, 0, 0, 0);
    EXPECT_USELESS(19, GOOD_AUTH, 6, 0, 0, 3, 0, 80, 0, 1, 1, 2, 3, 4, 0xfc, 0, 0);
}

static void test_what_clients_tolerate_is_tolerated(void **state)
{
    /* an option whose length is not aligned, one that nobody knows, padding that is not 0 */
    static const uint8_t bytes[] = {6, 0, 0, 7,    0, 4, 0, 7, 2, 0, 0, 6,    0, 0, 8, 0,
                                    9, 7, 1, 0x7f, 0, 0, 1, 0, 5, 0, 4, 0xfc, 7, 0, 4};
    const struct socks6_addr bound = socks6_addr_ipv4((const uint8_t[4]){127, 0, 0, 1}, 9);
    struct stream stream;

    (void)state;
    stream_init(&stream);
    stream_add(&stream, bytes, sizeof bytes);
    expect_outcome(&stream, SOCKS6_REPLY_SUCCESS, &bound);
}

/* An area of options that nobody knows, `len` bytes. */
static void add_unknown_options(struct stream *stream, size_t len)
{
    static uint8_t option[4096] = {0xfc, 0};

    assert_true(len <= sizeof option && len % 4 == 0);
    option[2] = (uint8_t)(len >> 8);
    option[3] = (uint8_t)len;
    stream_add(stream, option, len);
}

/* Both replies, with so many bytes of options each: 16 bytes in all without them. */
static void add_long(struct stream *stream, size_t auth_len, size_t reply_len)
{
    const uint8_t auth[] = {6, 0, (uint8_t)(auth_len >> 8), (uint8_t)auth_len};
    const uint8_t reply[] = {6, 0, (uint8_t)(reply_len >> 8), (uint8_t)reply_len, 0, 80, 0, 1, 192, 0, 2, 1};

    stream_add(stream, auth, sizeof auth);
    add_unknown_options(stream, auth_len);
    stream_add(stream, reply, sizeof reply);
    add_unknown_options(stream, reply_len);
}

static void test_options_longer_than_any_are_of_no_use_at_once(void **state)
{
    struct stream stream;

    (void)state;
    stream_init(&stream);
    add_long(&stream, RUN_REPLY_MAX + 4, 0);
    expect_from(&stream, 4, RUN_HANDSHAKE_USELESS);
    stream_init(&stream);
    add_long(&stream, 0, RUN_REPLY_MAX + 4);
    expect_from(&stream, 12, RUN_HANDSHAKE_USELESS);
}

static void test_replies_are_taken_up_to_the_most_together(void **state)
{
    const size_t heads = 16;
    const struct socks6_addr bound = socks6_addr_ipv4(ipv4.bytes, 80);

    (void)state;
    for (size_t auth_len = 0; auth_len <= RUN_REPLY_MAX; auth_len += 4) {
        size_t longest = auth_len + heads <= RUN_REPLY_MAX ? RUN_REPLY_MAX - heads - auth_len : 0;
        struct run_handshake_reply reply;
        struct stream stream;

        stream_init(&stream);
        add_long(&stream, auth_len, longest);
        if (auth_len % 64 == 0 && auth_len + heads <= RUN_REPLY_MAX) {
            expect_outcome(&stream, SOCKS6_REPLY_SUCCESS, &bound);
        }
        s6_buf_done(&stream.buf);
        add_long(&stream, auth_len, longest + 4);
        assert_int_equal(judge(&stream, auth_len + heads - 1, &reply),
                         auth_len + heads <= RUN_REPLY_MAX ? RUN_HANDSHAKE_MORE : RUN_HANDSHAKE_USELESS);
        for (size_t len = 0; len <= s6_buf_len(&stream.buf); len += 4) {
            enum run_handshake said = judge(&stream, len, &reply);

            assert_true(said == RUN_HANDSHAKE_USELESS || (said == RUN_HANDSHAKE_MORE && len < RUN_REPLY_MAX));
            assert_true(said == RUN_HANDSHAKE_USELESS || len < auth_len + heads);
        }
        s6_buf_done(&stream.buf);
    }
}

static uint32_t next_random(uint32_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    return *random;
}

/* Good replies, some bytes of which are changed. */
static void test_damaged_replies_never_use_more_than_there_is(void **state)
{
    static const uint8_t good[] = {6, 0, 0, 8,   0,   6,   0, 8, 1, 2, 3,    4, 6, 0,    0, 8, 0, 80,
                                   0, 3, 3, 'a', 'b', 'c', 0, 1, 0, 8, 0x84, 1, 5, 0xb4, 1, 2, 3, 4};
    uint32_t random = 1;
    unsigned outcomes[RUN_HANDSHAKE_USELESS + 1] = {0};

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct run_handshake_reply reply;
        struct stream stream;
        uint8_t bytes[sizeof good];
        size_t len = next_random(&random) % 2 == 0 ? sizeof good : next_random(&random) % sizeof good;
        enum run_handshake said;

        memcpy(bytes, good, sizeof good);
        for (uint32_t changes = next_random(&random) % 4; changes > 0; changes--) {
            bytes[next_random(&random) % sizeof bytes] ^= (uint8_t)(1u << next_random(&random) % 8);
        }
        stream_init(&stream);
        stream_add(&stream, bytes, sizeof bytes);
        said = judge(&stream, len, &reply);
        outcomes[said]++;
        if (said == RUN_HANDSHAKE_CONNECTED || said == RUN_HANDSHAKE_FAILED) {
            assert_true(reply.used > 0 && reply.used <= len);
            assert_true((reply.code == SOCKS6_REPLY_SUCCESS) == (said == RUN_HANDSHAKE_CONNECTED));
        }
        s6_buf_done(&stream.buf);
    }
    for (size_t i = 0; i <= RUN_HANDSHAKE_USELESS; i++) {
        assert_true(outcomes[i] > 100);
    }
}

/* --- errno --- */

static void test_codes_become_errors_of_connect(void **state)
{
    static const int want[SOCKS6_REPLY_COUNT] = {
        [SOCKS6_REPLY_FAILURE] = ENETUNREACH,
        [SOCKS6_REPLY_NOT_ALLOWED] = EACCES,
        [SOCKS6_REPLY_NET_UNREACHABLE] = ENETUNREACH,
        [SOCKS6_REPLY_HOST_UNREACHABLE] = EHOSTUNREACH,
        [SOCKS6_REPLY_REFUSED] = ECONNREFUSED,
        [SOCKS6_REPLY_TTL_EXPIRED] = EHOSTUNREACH,
        [SOCKS6_REPLY_COMMAND_UNSUPPORTED] = ENETUNREACH,
        [SOCKS6_REPLY_ADDRESS_UNSUPPORTED] = ENETUNREACH,
        [SOCKS6_REPLY_TIMED_OUT] = ETIMEDOUT,
    };

    (void)state;
    for (unsigned code = 1; code < 300; code++) {
        assert_int_equal(run_handshake_errno(code), code < SOCKS6_REPLY_COUNT ? want[code] : ENETUNREACH);
    }
    assert_int_equal(run_handshake_errno(UINT32_MAX), ENETUNREACH);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_that_of_the_draft),
        cmocka_unit_test(test_a_request_in_a_session_carries_its_id),
        cmocka_unit_test(test_requests_of_all_lengths_read_back),
        cmocka_unit_test(test_a_request_spends_its_token),
        cmocka_unit_test(test_tokens_of_all_kinds_read_back),
        cmocka_unit_test(test_what_makes_no_request_has_no_length),
        cmocka_unit_test(test_replies_of_all_codes_with_all_kinds_of_addresses),
        cmocka_unit_test(test_codes_without_a_name_are_failures),
        cmocka_unit_test(test_options_that_nobody_asked_for_do_no_harm),
        cmocka_unit_test(test_a_window_is_told),
        cmocka_unit_test(test_a_window_that_is_not_told_has_no_size),
        cmocka_unit_test(test_a_window_by_hand),
        cmocka_unit_test(test_refused_authentication_wants_another_request),
        cmocka_unit_test(test_another_protocol_is_of_no_use_from_its_first_byte_on),
        cmocka_unit_test(test_replies_that_make_no_sense_are_of_no_use),
        cmocka_unit_test(test_what_clients_tolerate_is_tolerated),
        cmocka_unit_test(test_options_longer_than_any_are_of_no_use_at_once),
        cmocka_unit_test(test_replies_are_taken_up_to_the_most_together),
        cmocka_unit_test(test_damaged_replies_never_use_more_than_there_is),
        cmocka_unit_test(test_codes_become_errors_of_connect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
