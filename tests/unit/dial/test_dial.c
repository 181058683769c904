/* Dialing over real sockets: proxies that follow a script, and what comes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_proxy.h"

/* A SOCKS 6 CONNECT to example.com:81 without options, and the replies to it. */
#define REQUEST                                                                                                        \
    "\x06\x01\x00\x00\x00\x51\x00\x03\x0b"                                                                             \
    "example.com"
#define REQUEST_LEN (sizeof REQUEST - 1)
#define AUTH_OK "\x06\x00\x00\x00"
#define REPLY(code) "\x06" code "\x00\x00\x12\x34\x00\x01\x7f\x00\x00\x01"

struct fixture {
    struct fake_proxy fake;
    struct socks6_proxy proxy;
    struct socks6_dial_config config;
    struct socks6_dial_result result;
    size_t descriptors;
    char trace[4096];
};

static void gather(void *user, const char *what)
{
    struct fixture *f = user;
    size_t len = strlen(f->trace);

    (void)snprintf(f->trace + len, sizeof f->trace - len, "%s\n", what);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->descriptors = fake_open_descriptors();
    socks6_dial_config_init(&f->config);
    f->config.proxy = &f->proxy;
    f->config.timeout_ms = 30000; /* so that a mistake ends the test */
    f->config.trace = gather;
    f->config.trace_user = f;
    assert_true(socks6_addr_name("example.com", 11, 81, &f->config.addr));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->fake.script != NULL) {
        fake_done(&f->fake);
    }
    assert_int_equal(fake_open_descriptors(), f->descriptors);
    free(f);
    return 0;
}

static void serve(struct fixture *f, enum socks6_scheme scheme, const struct fake_step *script)
{
    fake_start(&f->fake, "127.0.0.1", script);
    f->proxy = fake_url(scheme, "127.0.0.1", f->fake.port);
}

static void give_credentials(struct fixture *f)
{
    f->proxy.has_credentials = 1;
    strcpy(f->proxy.username, "alice");
    strcpy(f->proxy.password, "hunter2");
}

static int dial(struct fixture *f)
{
    int status = socks6_dial(&f->config, &f->result);

    if (status != SOCKS6_DIAL_OK) {
        assert_int_equal(f->result.fd, -1);
        assert_true(strlen(f->result.error) > 0);
        assert_null(strstr(f->result.error, "hunter2"));
        assert_null(strchr(f->result.error, '\n'));
    }
    return status;
}

static void assert_dial(struct fixture *f, int status, const char *error)
{
    int got = dial(f);

    if (got != status) {
        fail_msg("status %d instead of %d: %s", got, status, f->result.error);
    }
    if (error != NULL && strstr(f->result.error, error) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", f->result.error, error);
    }
}

/* Waits for the script to end, and looks at all the bytes that it got. */
static void assert_got(struct fixture *f, const void *bytes, size_t len)
{
    fake_wait(&f->fake);
    assert_int_equal(f->fake.got_len, len);
    assert_memory_equal(f->fake.got, bytes, len);
}

static void assert_reads(int fd, const char *bytes, size_t len)
{
    char buf[256];

    assert_int_equal(recv(fd, buf, len, MSG_WAITALL), (ssize_t)len);
    assert_memory_equal(buf, bytes, len);
}

static void test_connect_gives_a_plain_socket(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;
    int value = 0;
    socklen_t len = sizeof value;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_int_equal(f->result.has_reply, 1);
    assert_int_equal(f->result.reply, SOCKS6_REPLY_SUCCESS);
    assert_int_equal(f->result.bound.port, 0x1234);
    assert_int_equal(fcntl(f->result.fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(f->result.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(getsockopt(f->result.fd, IPPROTO_TCP, TCP_NODELAY, &value, &len), 0);
    assert_int_equal(value, 1);
    assert_int_equal(write(f->result.fd, "hi", 2), 2);
    close(f->result.fd);
    assert_got(f, REQUEST "hi", REQUEST_LEN + 2);
    assert_non_null(strstr(f->trace, "connected to proxy 127.0.0.1:"));
    assert_non_null(strstr(f->trace, "127.0.0.1:4660"));
}

static void test_data_behind_the_reply_stays_in_the_socket(void **state)
{
    static const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN},
                                              {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00") "\x06"
                                                                                           "first bytes")},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd,
                 "\x06"
                 "first bytes",
                 12);
    close(f->result.fd);
}

static void test_data_and_end_behind_the_reply_stay_in_the_socket(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_TRICKLE, FAKE_BYTES(AUTH_OK REPLY("\x00") "bye")}, {FAKE_CLOSE, NULL, 0}};
    struct fixture *f = *state;
    char byte;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd, "bye", 3);
    assert_int_equal(read(f->result.fd, &byte, 1), 0);
    close(f->result.fd);
}

static void test_long_reply_is_taken_whole(void **state)
{
    /* 4096 bytes of options of an unknown kind in each reply: more than one look at the socket. */
    static const char head[] = "\x06\x00\x10\x00"
                               "\xf0\x00\x10\x00";
    static const char head2[] = "\x06\x00\x10\x00\x12\x34\x00\x01\x7f\x00\x00\x01"
                                "\xf0\x00\x10\x00";
    static char bytes[8 + 4092 + 16 + 4092 + 3];
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, bytes, sizeof bytes}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    memcpy(bytes, head, 8);
    memcpy(bytes + 8 + 4092, head2, 16);
    memcpy(bytes + sizeof bytes - 3, "app", 3);
    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd, "app", 3);
    close(f->result.fd);
}

static void test_every_reply_code_is_named(void **state)
{
    struct fixture *f = *state;

    for (unsigned code = 1; code <= 255; code++) {
        char bytes[16] = AUTH_OK REPLY("\x00");
        const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, bytes, 16}, {FAKE_END, NULL, 0}};
        char number[32];

        bytes[5] = (char)code;
        serve(f, SOCKS6_SCHEME_SOCKS6, script);
        (void)snprintf(number, sizeof number, "(reply %u)", code);
        assert_dial(f, SOCKS6_DIAL_REMOTE_FAILED, number);
        assert_non_null(strstr(f->result.error, "example.com:81"));
        assert_non_null(strstr(f->result.error, socks6_reply_name(code)));
        assert_int_equal(f->result.has_reply, 1);
        assert_int_equal(f->result.reply, code);
        fake_done(&f->fake);
        f->fake.script = NULL;
    }
}

static void test_refusal_reads_well(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x05"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_REMOTE_FAILED, NULL);
    assert_string_equal(f->result.error, "connection refused by example.com:81 (reply 5)");
}

static void test_stack_answers_are_handed_out(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN + 8},
        {FAKE_SEND, FAKE_BYTES(AUTH_OK "\x06\x00\x00\x08\x12\x34\x00\x01\x7f\x00\x00\x01"
                                       "\x00\x01\x00\x08\x81\x01\x20\x00")},
        {FAKE_END, NULL, 0}};
    static const struct socks6_stack_option tos = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x2000};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    f->config.stack = &tos;
    f->config.stack_count = 1;
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_int_equal(f->result.stack_count, 1);
    assert_memory_equal(&f->result.stack[0], &tos, sizeof tos);
    close(f->result.fd);
    fake_wait(&f->fake);
    assert_memory_equal(f->fake.got + REQUEST_LEN, "\x00\x01\x00\x08\x81\x01\x20\x00", 8);
}

static void test_other_protocols_are_recognized(void **state)
{
    static const struct {
        struct fake_step answer;
        const char *error;
    } cases[] = {
        {{FAKE_SEND, FAKE_BYTES("HTTP/1.1 400 Bad Request\r\n\r\n")},
         "does not speak SOCKS 6 (its first byte was 0x48 'H')"},
        {{FAKE_SEND, FAKE_BYTES("\x05\xff")}, "(its first byte was 0x05); a SOCKS 5 proxy is written socks5h://"},
        {{FAKE_SEND, FAKE_BYTES("\x1b[2J")}, "(its first byte was 0x1b)"},
        {{FAKE_SEND, FAKE_BYTES("\x00")}, "(its first byte was 0x00)"},
        {{FAKE_SEND, FAKE_BYTES("\xff")}, "(its first byte was 0xff)"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN}, cases[i].answer, {FAKE_END, NULL, 0}};

        serve(f, SOCKS6_SCHEME_SOCKS6, script);
        assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, cases[i].error);
        assert_int_equal(f->result.has_reply, 0);
        fake_done(&f->fake);
        f->fake.script = NULL;
    }
}

/* Malformed replies of each kind. */
static void test_malformed_replies_fail(void **state)
{
    static const struct fake_step answers[] = {
        {FAKE_SEND, FAKE_BYTES("\x06\x02\x00\x00")}, /* type */
        {FAKE_SEND, FAKE_BYTES("\x06\x00\xff\xff")}, /* options past the cap */
        {FAKE_SEND, FAKE_BYTES("\x06\x00\x00\x04"
                               "\x00\x09\x00\x08")},                                         /* option past the end */
        {FAKE_SEND, FAKE_BYTES(AUTH_OK "\x06\x00\x00\x00\x12\x34\x00\x07\x7f\x00\x00\x01")}, /* address type */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN}, answers[i], {FAKE_END, NULL, 0}};

        serve(f, SOCKS6_SCHEME_SOCKS6, script);
        assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "malformed reply");
        fake_done(&f->fake);
        f->fake.script = NULL;
    }
}

/* The end of the stream after every byte of the replies. */
static void test_cut_replies_fail_at_every_byte(void **state)
{
    static const char whole[] = AUTH_OK REPLY("\x00");
    struct fixture *f = *state;

    for (size_t len = 0; len < sizeof whole - 1; len++) {
        const struct fake_step script[] = {
            {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, whole, len}, {FAKE_SHUT, NULL, 0}, {FAKE_END, NULL, 0}};

        serve(f, SOCKS6_SCHEME_SOCKS6, script);
        assert_dial(f, SOCKS6_DIAL_PROXY_FAILED,
                    len == 0 ? "closed the connection without a reply" : "closed the connection in mid-reply");
        fake_done(&f->fake);
        f->fake.script = NULL;
    }
}

static void test_reset_is_told(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK)}, {FAKE_RESET, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "lost: Connection reset by peer");
}

static void test_silent_proxy_times_out(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK)}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    f->config.timeout_ms = 50;
    assert_dial(f, SOCKS6_DIAL_TIMED_OUT, "timed out waiting for a reply of proxy 127.0.0.1:");
}

static void test_nobody_listening_is_told(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    int fd = fake_closed_port("127.0.0.1", &port);
    char error[128];

    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", port);
    (void)snprintf(error, sizeof error, "cannot connect to proxy 127.0.0.1:%u: Connection refused", (unsigned)port);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, NULL);
    assert_string_equal(f->result.error, error);
    close(fd);
}

static void test_family_must_fit(void **state)
{
    struct fixture *f = *state;

    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", 1);
    f->config.family = AF_INET6;
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "has no IPv6 address");
    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "::1", 1);
    f->config.family = AF_INET;
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "has no IPv4 address");
}

static void test_ipv6_proxy_is_reached(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    fake_start(&f->fake, "::1", script);
    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "::1", f->fake.port);
    f->config.family = AF_INET6;
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    close(f->result.fd);
}

/* Early data. */

static void test_early_data_shares_the_first_segment(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    f->config.early = (struct socks6_slice){(const uint8_t *)"GET /", 5};
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    close(f->result.fd);
    assert_got(f, REQUEST "GET /", REQUEST_LEN + 5);
    assert_int_equal(f->fake.first_recv, REQUEST_LEN + 5);
}

static void fill(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    }
}

/* With credentials: the advertisement announces as many bytes as follow. */
static void test_early_data_with_credentials_is_announced(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;
    uint8_t *early = malloc(SOCKS6_INITIAL_DATA_MAX);
    const uint8_t advertisement[] = {0, 2, 0, 8, 0x40, 0x00, 2, 0};
    size_t options;

    assert_non_null(early);
    fill(early, SOCKS6_INITIAL_DATA_MAX);
    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    give_credentials(f);
    f->config.early = (struct socks6_slice){early, SOCKS6_INITIAL_DATA_MAX};
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    close(f->result.fd);
    fake_wait(&f->fake);
    options = (size_t)f->fake.got[2] << 8 | f->fake.got[3];
    assert_int_equal(f->fake.got_len, REQUEST_LEN + options + SOCKS6_INITIAL_DATA_MAX);
    assert_non_null(memmem(f->fake.got + REQUEST_LEN, options, advertisement, sizeof advertisement));
    assert_non_null(memmem(f->fake.got + REQUEST_LEN, options,
                           "\x01\x05"
                           "alice\x07hunter2",
                           15));
    assert_memory_equal(f->fake.got + REQUEST_LEN + options, early, SOCKS6_INITIAL_DATA_MAX);
    free(early);
}

static void test_too_much_early_data_with_credentials_is_invalid(void **state)
{
    struct fixture *f = *state;
    uint8_t byte = 0;

    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", 1);
    give_credentials(f);
    f->config.early = (struct socks6_slice){&byte, SOCKS6_INITIAL_DATA_MAX + 1};
    assert_dial(f, SOCKS6_DIAL_INVALID, "16384");
}

/* The proxy takes none of the early data before it has answered, nor before it has sent something of its own. */
static void test_much_early_data_does_not_block_the_reply(void **state)
{
    enum { SIZE = 8 * 1024 * 1024 };
    static const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN},
                                              {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00") "from the server")},
                                              {FAKE_READ, NULL, SIZE},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;
    uint8_t *early = malloc(SIZE);

    assert_non_null(early);
    fill(early, SIZE);
    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    f->config.early = (struct socks6_slice){early, SIZE};
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd, "from the server", 15);
    close(f->result.fd);
    fake_wait(&f->fake);
    assert_int_equal(f->fake.got_len, REQUEST_LEN + SIZE);
    assert_memory_equal(f->fake.got + REQUEST_LEN, early, SIZE);
    free(early);
}

/* A refusal is heard although most of the early data was never taken. */
static void test_refusal_in_the_middle_of_early_data_is_heard(void **state)
{
    enum { SIZE = 8 * 1024 * 1024 };
    static const struct fake_step shut[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x05"))}, {FAKE_END, NULL, 0}};
    static const struct fake_step reset[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x05"))}, {FAKE_RESET, NULL, 0}};
    struct fixture *f = *state;
    uint8_t *early = calloc(1, SIZE);

    assert_non_null(early);
    f->config.early = (struct socks6_slice){early, SIZE};
    serve(f, SOCKS6_SCHEME_SOCKS6, shut);
    assert_dial(f, SOCKS6_DIAL_REMOTE_FAILED, "connection refused by example.com:81 (reply 5)");
    fake_done(&f->fake);
    serve(f, SOCKS6_SCHEME_SOCKS6, reset);
    assert_dial(f, SOCKS6_DIAL_REMOTE_FAILED, "connection refused by example.com:81 (reply 5)");
    free(early);
}

static void test_early_data_that_cannot_be_sent_fails_the_dial(void **state)
{
    enum { SIZE = 8 * 1024 * 1024 };
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_RESET, NULL, 0}};
    struct fixture *f = *state;
    uint8_t *early = calloc(1, SIZE);

    assert_non_null(early);
    f->config.early = (struct socks6_slice){early, SIZE};
    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "lost: ");
    free(early);
}

static void test_early_data_that_nobody_takes_times_out(void **state)
{
    enum { SIZE = 64 * 1024 * 1024 };
    static const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN},
                                              {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))},
                                              {FAKE_SHUT, NULL, 0}, /* waits below until the dialer is gone */
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;
    uint8_t *early = calloc(1, SIZE);
    int listener;
    uint16_t port;

    (void)script;
    assert_non_null(early);
    listener = fake_closed_port("127.0.0.1", &port);
    assert_int_equal(listen(listener, 1), 0); /* the kernel accepts, and nobody reads */
    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", port);
    f->config.early = (struct socks6_slice){early, SIZE};
    f->config.timeout_ms = 100;
    assert_dial(f, SOCKS6_DIAL_TIMED_OUT, "timed out sending to proxy");
    close(listener);
    free(early);
}

/* Authentication. */

static void test_accepted_password_connects(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0},
        {FAKE_TRICKLE, FAKE_BYTES("\x06\x00\x00\x08"
                                  "\x00\x04\x00\x08\x02\x01\x00\x00" REPLY("\x00"))},
        {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    give_credentials(f);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_null(strstr(f->trace, "hunter2"));
    close(f->result.fd);
}

static void test_refused_password_is_told(void **state)
{
    static const struct fake_step script[] = {{FAKE_RECV, NULL, 0},
                                              {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x08"
                                                                     "\x00\x04\x00\x08\x02\x01\x01\x00")},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    give_credentials(f);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "refused the user name or password");
}

static void test_wanted_password_is_told(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x00")}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "it may want a user name and password");
}

static void test_foreign_method_is_told(void **state)
{
    static const struct fake_step script[] = {{FAKE_RECV, NULL, 0},
                                              {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x08"
                                                                     "\x00\x03\x00\x08\x01\x00\x00\x00")}, /* GSSAPI */
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    give_credentials(f);
    assert_dial(f, SOCKS6_DIAL_PROXY_FAILED, "wants a method of authentication that was not offered");
}

/* The "long form": the negotiation message comes behind all of the initial data. */
static void test_negotiation_follows_the_early_data(void **state)
{
    static const struct fake_step script[] = {{FAKE_RECV, NULL, 0},
                                              {FAKE_SEND, FAKE_BYTES("\x06\x01\x00\x08"
                                                                     "\x00\x03\x00\x08\x02\x00\x00\x00")},
                                              {FAKE_RECV, NULL, 0},
                                              {FAKE_TRICKLE, FAKE_BYTES("\x01\x00" AUTH_OK REPLY("\x00") "app")},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    give_credentials(f);
    f->config.early = (struct socks6_slice){(const uint8_t *)"early", 5};
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd, "app", 3);
    close(f->result.fd);
    fake_wait(&f->fake);
    assert_memory_equal(f->fake.got + f->fake.got_len - 20,
                        "early"
                        "\x01\x05"
                        "alice\x07hunter2",
                        20);
}

/* SOCKS 5. */

#define REQUEST5                                                                                                       \
    "\x05\x01\x00\x03\x0b"                                                                                             \
    "example.com\x00\x51"
#define REPLY5 "\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"

static void test_socks5_early_data_follows_the_reply(void **state)
{
    static const struct fake_step script[] = {{FAKE_READ, NULL, 3},
                                              {FAKE_SEND, FAKE_BYTES("\x05\x00")},
                                              {FAKE_READ, NULL, sizeof REQUEST5 - 1},
                                              {FAKE_TRICKLE, FAKE_BYTES(REPLY5 "app")},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS5H, script);
    f->config.early = (struct socks6_slice){(const uint8_t *)"early", 5};
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_reads(f->result.fd, "app", 3);
    close(f->result.fd);
    assert_got(f, "\x05\x01\x00" REQUEST5 "early", 3 + sizeof REQUEST5 - 1 + 5);
}

static void test_socks5_password(void **state)
{
    static const struct fake_step script[] = {{FAKE_READ, NULL, 4},  {FAKE_SEND, FAKE_BYTES("\x05\x02")},
                                              {FAKE_READ, NULL, 15}, {FAKE_SEND, FAKE_BYTES("\x01\x00")},
                                              {FAKE_READ, NULL, 18}, {FAKE_SEND, FAKE_BYTES(REPLY5)},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS5H, script);
    give_credentials(f);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    assert_int_equal(f->result.bound.port, 0x1234);
    close(f->result.fd);
    assert_got(f,
               "\x05\x02\x00\x02"
               "\x01\x05"
               "alice\x07hunter2" REQUEST5,
               4 + 15 + 18);
}

static void test_socks5_failures_are_told(void **state)
{
    static const struct {
        const char *method;
        struct fake_step answer;
        int status;
        const char *error;
    } cases[] = {
        {"\x05\xff", {FAKE_END, NULL, 0}, SOCKS6_DIAL_PROXY_FAILED, "it may want a user name and password"},
        {"\x05\x02", {FAKE_END, NULL, 0}, SOCKS6_DIAL_PROXY_FAILED, "was not offered"},
        {"\x06\x00", {FAKE_END, NULL, 0}, SOCKS6_DIAL_PROXY_FAILED, "a SOCKS 6 proxy is written socks6://"},
        {"\x05\x00",
         {FAKE_SEND, FAKE_BYTES("\x05\x04")},
         SOCKS6_DIAL_REMOTE_FAILED,
         "host unreachable: example.com:81 (reply 4)"},
        {"\x05\x00",
         {FAKE_SEND, FAKE_BYTES("\x05\x05")},
         SOCKS6_DIAL_REMOTE_FAILED,
         "connection refused by example.com:81 (reply 5)"},
        {"\x05\x00",
         {FAKE_SEND, FAKE_BYTES("\x05\x09")},
         SOCKS6_DIAL_REMOTE_FAILED,
         "unassigned reply code: example.com:81 (reply 9)"},
        {"\x05\x00", {FAKE_SEND, FAKE_BYTES("\x05\x00\x00\x09\x00")}, SOCKS6_DIAL_PROXY_FAILED, "malformed reply"},
        {"\x05\x00", {FAKE_SHUT, NULL, 0}, SOCKS6_DIAL_PROXY_FAILED, "closed the connection in mid-reply"},
        {"\x05\x00", {FAKE_RESET, NULL, 0}, SOCKS6_DIAL_PROXY_FAILED, "Connection reset by peer"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int talks_on = memcmp(cases[i].method, "\x05", 2) == 0; /* method 0 */
        const struct fake_step script[] = {{FAKE_READ, NULL, 3},
                                           {FAKE_SEND, cases[i].method, 2},
                                           {FAKE_READ, NULL, talks_on ? 18 : 0},
                                           cases[i].answer,
                                           {FAKE_END, NULL, 0}};

        serve(f, SOCKS6_SCHEME_SOCKS5H, script);
        assert_dial(f, cases[i].status, cases[i].error);
        fake_done(&f->fake);
        f->fake.script = NULL;
    }
}

/* What cannot be asked for. */

static void test_invalid_configurations_are_refused(void **state)
{
    static const struct socks6_stack_option tos = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x2000};
    struct fixture *f = *state;
    struct socks6_dial_config good;

    f->proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", 1);
    good = f->config;
    f->config.size = 0;
    assert_dial(f, SOCKS6_DIAL_INVALID, "not configured");
    f->config = good;
    f->config.proxy = NULL;
    assert_dial(f, SOCKS6_DIAL_INVALID, "not configured");
    f->config = good;
    f->config.addr.len = 0;
    assert_dial(f, SOCKS6_DIAL_INVALID, "no destination");
    f->config = good;
    f->config.family = AF_UNIX;
    assert_dial(f, SOCKS6_DIAL_INVALID, "family");
    f->config = good;
    f->config.command = SOCKS6_COMMAND_BIND;
    assert_dial(f, SOCKS6_DIAL_INVALID, "BIND");
    f->config.command = SOCKS6_COMMAND_UDP_ASSOCIATE;
    f->config.early = (struct socks6_slice){(const uint8_t *)"x", 1};
    assert_dial(f, SOCKS6_DIAL_INVALID, "CONNECT only");
    f->config = good;
    f->proxy.scheme = SOCKS6_SCHEME_SOCKS5H;
    f->config.command = SOCKS6_COMMAND_NOOP;
    assert_dial(f, SOCKS6_DIAL_INVALID, "NOOP through a socks5h:// proxy");
    f->config = good;
    f->config.stack = &tos;
    f->config.stack_count = 1;
    assert_dial(f, SOCKS6_DIAL_INVALID, "Stack options");
}

static void test_noop_needs_no_destination(void **state)
{
    static const struct fake_step script[] = {{FAKE_RECV, NULL, 0},
                                              {FAKE_SEND, FAKE_BYTES(AUTH_OK "\x06\x00\x00\x00\0\0\0\x01\0\0\0\0")},
                                              {FAKE_END, NULL, 0}};
    struct fixture *f = *state;

    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    f->config.command = SOCKS6_COMMAND_NOOP;
    memset(&f->config.addr, 0, sizeof f->config.addr);
    assert_dial(f, SOCKS6_DIAL_OK, NULL);
    close(f->result.fd);
}

static void test_long_names_do_not_hide_the_reason(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_RECV, NULL, 0}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x04"))}, {FAKE_END, NULL, 0}};
    struct fixture *f = *state;
    char name[255];

    memset(name, '\x1b', sizeof name); /* and no control character is repeated */
    assert_true(socks6_addr_name(name, sizeof name, 81, &f->config.addr));
    serve(f, SOCKS6_SCHEME_SOCKS6, script);
    assert_dial(f, SOCKS6_DIAL_REMOTE_FAILED, "...:81 (reply 4)");
    assert_null(strchr(f->result.error, '\x1b'));
}

int main(void)
{
#define DIAL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        DIAL_TEST(test_connect_gives_a_plain_socket),
        DIAL_TEST(test_data_behind_the_reply_stays_in_the_socket),
        DIAL_TEST(test_data_and_end_behind_the_reply_stay_in_the_socket),
        DIAL_TEST(test_long_reply_is_taken_whole),
        DIAL_TEST(test_every_reply_code_is_named),
        DIAL_TEST(test_refusal_reads_well),
        DIAL_TEST(test_stack_answers_are_handed_out),
        DIAL_TEST(test_other_protocols_are_recognized),
        DIAL_TEST(test_malformed_replies_fail),
        DIAL_TEST(test_cut_replies_fail_at_every_byte),
        DIAL_TEST(test_reset_is_told),
        DIAL_TEST(test_silent_proxy_times_out),
        DIAL_TEST(test_nobody_listening_is_told),
        DIAL_TEST(test_family_must_fit),
        DIAL_TEST(test_ipv6_proxy_is_reached),
        DIAL_TEST(test_early_data_shares_the_first_segment),
        DIAL_TEST(test_early_data_with_credentials_is_announced),
        DIAL_TEST(test_too_much_early_data_with_credentials_is_invalid),
        DIAL_TEST(test_much_early_data_does_not_block_the_reply),
        DIAL_TEST(test_refusal_in_the_middle_of_early_data_is_heard),
        DIAL_TEST(test_early_data_that_cannot_be_sent_fails_the_dial),
        DIAL_TEST(test_early_data_that_nobody_takes_times_out),
        DIAL_TEST(test_accepted_password_connects),
        DIAL_TEST(test_refused_password_is_told),
        DIAL_TEST(test_wanted_password_is_told),
        DIAL_TEST(test_foreign_method_is_told),
        DIAL_TEST(test_negotiation_follows_the_early_data),
        DIAL_TEST(test_socks5_early_data_follows_the_reply),
        DIAL_TEST(test_socks5_password),
        DIAL_TEST(test_socks5_failures_are_told),
        DIAL_TEST(test_invalid_configurations_are_refused),
        DIAL_TEST(test_noop_needs_no_destination),
        DIAL_TEST(test_long_names_do_not_hide_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
