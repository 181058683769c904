/* The non-blocking form: what it waits for, and that it never waits itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_proxy.h"

#define REQUEST_LEN 20
#define AUTH_OK "\x06\x00\x00\x00"
#define REPLY(code) "\x06" code "\x00\x00\x12\x34\x00\x01\x7f\x00\x00\x01"

static struct socks6_dial_config config_for(const struct socks6_proxy *proxy)
{
    struct socks6_dial_config config;

    socks6_dial_config_init(&config);
    config.proxy = proxy;
    assert_true(socks6_addr_name("example.com", 11, 81, &config.addr));
    return config;
}

/* Leads the dial as a caller's loop does. */
static int lead(struct socks6_dial *dial, struct socks6_dial_result *result)
{
    int status;

    do {
        struct pollfd pfd = {socks6_dial_fd(dial), socks6_dial_events(dial), 0};

        assert_true(pfd.fd >= 0);
        assert_true(pfd.events != 0);
        assert_true(poll(&pfd, 1, socks6_dial_timeout_ms(dial)) >= 0);
        status = socks6_dial_step(dial, result);
    } while (status == SOCKS6_DIAL_IN_PROGRESS);
    return status;
}

static void test_a_loop_leads_it_to_the_end(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_TRICKLE, FAKE_BYTES(AUTH_OK REPLY("\x00") "app")}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;
    char buf[3];

    (void)state;
    fake_start(&fake, "127.0.0.1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    config = config_for(&proxy);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(socks6_dial_timeout_ms(dial), -1);
    assert_int_equal(lead(dial, &result), SOCKS6_DIAL_OK);
    assert_true(result.fd >= 0);
    assert_int_equal(fcntl(result.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(socks6_dial_fd(dial), -1);
    socks6_dial_free(dial); /* does not close what it handed out */
    assert_int_equal(fcntl(result.fd, F_SETFL, 0), 0);
    assert_int_equal(recv(result.fd, buf, 3, MSG_WAITALL), 3);
    assert_memory_equal(buf, "app", 3);
    close(result.fd);
    fake_done(&fake);
}

static void test_step_without_news_changes_nothing(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN + 1}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;
    struct pollfd pfd;

    (void)state;
    fake_start(&fake, "127.0.0.1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    config = config_for(&proxy);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    pfd = (struct pollfd){socks6_dial_fd(dial), POLLOUT, 0};
    assert_int_equal(poll(&pfd, 1, 30000), 1);
    for (int i = 0; i < 3; i++) { /* the script waits for one byte more than the request */
        assert_int_equal(socks6_dial_step(dial, &result), SOCKS6_DIAL_IN_PROGRESS);
        assert_int_equal(result.fd, -1);
        assert_int_equal(socks6_dial_events(dial), POLLIN);
    }
    assert_int_equal(send(socks6_dial_fd(dial), "x", 1, 0), 1);
    assert_int_equal(lead(dial, &result), SOCKS6_DIAL_OK);
    close(result.fd);
    socks6_dial_free(dial);
    fake_done(&fake);
}

static void test_end_is_told_again(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x05"))}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;

    (void)state;
    fake_start(&fake, "127.0.0.1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    config = config_for(&proxy);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(lead(dial, &result), SOCKS6_DIAL_REMOTE_FAILED);
    memset(&result, 0, sizeof result);
    assert_int_equal(socks6_dial_step(dial, &result), SOCKS6_DIAL_REMOTE_FAILED);
    assert_string_equal(result.error, "connection refused by example.com:81 (reply 5)");
    assert_int_equal(result.fd, -1);
    socks6_dial_free(dial);
    fake_done(&fake);
}

static void test_deadline_is_announced_and_kept(void **state)
{
    static const struct fake_step script[] = {{FAKE_READ, NULL, REQUEST_LEN}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;

    (void)state;
    fake_start(&fake, "127.0.0.1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    config = config_for(&proxy);
    config.timeout_ms = 100;
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_in_range(socks6_dial_timeout_ms(dial), 0, 100);
    assert_int_equal(lead(dial, &result), SOCKS6_DIAL_TIMED_OUT);
    socks6_dial_free(dial);
    fake_done(&fake);
}

static void test_refused_connection_is_told(void **state)
{
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;
    uint16_t port;
    int fd = fake_closed_port("127.0.0.1", &port);
    int status;

    (void)state;
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", port);
    config = config_for(&proxy);
    status = socks6_dial_start(&config, &dial, &result); /* on loopback the refusal may be there at once */
    if (status == SOCKS6_DIAL_IN_PROGRESS) {
        status = lead(dial, &result);
    }
    assert_int_equal(status, SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, "Connection refused"));
    socks6_dial_free(dial);
    close(fd);
}

static void test_name_of_a_proxy_is_invalid(void **state)
{
    struct socks6_proxy proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "localhost", 1080);
    struct socks6_dial_config config = config_for(&proxy);
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;

    (void)state;
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_INVALID);
    assert_null(dial);
    assert_non_null(strstr(result.error, "must be given by IP address"));
}

/* An address with a zone is text (struct socks6_addr has no zone), but needs no name server. */
static void test_address_with_a_zone_is_an_address(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;

    (void)state;
    fake_start(&fake, "::1", script);
    memset(&proxy, 0, sizeof proxy);
    proxy.draft = SOCKS6_DRAFT_11;
    assert_true(socks6_addr_name("::1%1", 5, fake.port, &proxy.addr));
    config = config_for(&proxy);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(lead(dial, &result), SOCKS6_DIAL_OK);
    close(result.fd);
    socks6_dial_free(dial);
    fake_done(&fake);
}

/* The proxy's name stays in messages; the addresses have ports of their own. */
static void test_addresses_of_a_name_are_tried_in_turn(void **state)
{
    static const struct fake_step script[] = {
        {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_addr addresses[3];
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;
    uint16_t port;
    int fd = fake_closed_port("127.0.0.1", &port), status = SOCKS6_DIAL_IN_PROGRESS;

    (void)state;
    fake_start(&fake, "::1", script);
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "proxy.invalid", 1);
    config = config_for(&proxy);
    assert_int_equal(socks6_addr_parse("127.0.0.1", port, &addresses[0]), SOCKS6_OK);
    assert_int_equal(socks6_addr_parse("127.0.0.1", port, &addresses[1]), SOCKS6_OK);
    assert_true(socks6_addr_name("::1%1", 5, fake.port, &addresses[2]));
    config.proxy_addresses = addresses;
    config.proxy_address_count = 3;
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_in_range(socks6_dial_fd_count(dial), 1, 3); /* on loopback refusals may be there at once */
    while (status == SOCKS6_DIAL_IN_PROGRESS && socks6_dial_fd_count(dial) < 3) {
        struct pollfd pfd = {socks6_dial_fd(dial), socks6_dial_events(dial), 0};

        assert_int_equal(poll(&pfd, 1, 30000), 1);
        status = socks6_dial_step(dial, &result); /* the last one may be there, and answer, at once as well */
    }
    assert_int_equal(status == SOCKS6_DIAL_IN_PROGRESS ? lead(dial, &result) : status, SOCKS6_DIAL_OK);
    assert_int_equal(socks6_dial_fd_count(dial), 3);
    close(result.fd);
    socks6_dial_free(dial);
    fake_done(&fake);

    config.proxy_address_count = 2;
    dial = NULL;
    if (socks6_dial_start(&config, &dial, &result) == SOCKS6_DIAL_IN_PROGRESS) {
        assert_int_equal(lead(dial, &result), SOCKS6_DIAL_PROXY_FAILED);
    }
    assert_non_null(strstr(result.error, "proxy.invalid:1 (last address tried: 127.0.0.1:"));
    socks6_dial_free(dial);
    close(fd);
}

static void test_addresses_are_of_the_family_and_no_names(void **state)
{
    static struct socks6_proxy proxy;
    struct socks6_addr addresses[1];
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;

    (void)state;
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "proxy.invalid", 1);
    config = config_for(&proxy);
    config.proxy_addresses = addresses;
    config.proxy_address_count = 1;
    config.family = AF_INET6;
    assert_int_equal(socks6_addr_parse("127.0.0.1", 1, &addresses[0]), SOCKS6_OK);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_string_equal(result.error, "cannot connect to proxy proxy.invalid:1: it has no IPv6 address");
    config.family = AF_UNSPEC;
    assert_int_equal(socks6_addr_parse("localhost", 1, &addresses[0]), SOCKS6_OK);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_INVALID);
    assert_null(dial);
}

static void test_free_closes_what_was_not_handed_out(void **state)
{
    static const struct fake_step script[] = {{FAKE_END, NULL, 0}};
    struct fake_proxy fake;
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;
    static struct socks6_dial_result result; /* large */
    struct socks6_dial *dial = NULL;
    size_t before;

    (void)state;
    fake_start(&fake, "127.0.0.1", script);
    before = fake_open_descriptors();
    proxy = fake_url(SOCKS6_SCHEME_SOCKS6, "127.0.0.1", fake.port);
    config = config_for(&proxy);
    assert_int_equal(socks6_dial_start(&config, &dial, &result), SOCKS6_DIAL_IN_PROGRESS);
    socks6_dial_free(dial);
    socks6_dial_free(NULL);
    fake_wait(&fake); /* which sees the end, so the descriptor is closed */
    fake_done(&fake);
    assert_int_equal(fake_open_descriptors(), before - 1); /* the listener has gone as well */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop_leads_it_to_the_end),
        cmocka_unit_test(test_step_without_news_changes_nothing),
        cmocka_unit_test(test_end_is_told_again),
        cmocka_unit_test(test_deadline_is_announced_and_kept),
        cmocka_unit_test(test_refused_connection_is_told),
        cmocka_unit_test(test_name_of_a_proxy_is_invalid),
        cmocka_unit_test(test_address_with_a_zone_is_an_address),
        cmocka_unit_test(test_addresses_of_a_name_are_tried_in_turn),
        cmocka_unit_test(test_addresses_are_of_the_family_and_no_names),
        cmocka_unit_test(test_free_closes_what_was_not_handed_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
