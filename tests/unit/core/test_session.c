/* The client's memory of a session. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <socks6/session.h>

#include "talk.h"

static const uint8_t id_bytes[] = "0123456789abcdef";
static const struct socks6_slice id = {id_bytes, 16};

static struct socks6_session session;
static struct socks6_client_config config;

static int setup(void **state)
{
    (void)state;
    socks6_session_init(&session);
    socks6_client_config_init(&config);
    config.addr = socks6_addr_ipv4((const uint8_t[4]){192, 0, 2, 1}, 80);
    return 0;
}

static void learn(const struct socks6_client_session *reply)
{
    socks6_session_learn(&session, &session, reply);
    assert_true(socks6_session_is_valid(&session));
}

static void begin(uint32_t base, uint32_t size)
{
    learn(&(struct socks6_client_session){.id = id, .has_window = size > 0, .window = {base, size}});
}

static void learn_window(uint32_t base, uint32_t size)
{
    learn(&(struct socks6_client_session){.ok = 1, .has_window = 1, .window = {base, size}});
}

/* Prepares and demands that the machine takes the settings. */
static int prepare(uint32_t window_size)
{
    struct socks6_client *client = NULL;
    int has_token = socks6_session_prepare(&session, window_size, &config);

    assert_int_equal(has_token, config.has_token);
    assert_int_equal(socks6_client_new(&config, 0, &client), 0);
    socks6_client_free(client);
    return has_token;
}

static void take(uint32_t wanted)
{
    assert_int_equal(prepare(16), 1);
    assert_int_equal(config.token, wanted);
}

static void set_credentials(void)
{
    config.has_credentials = 1;
    config.credentials.username = (struct socks6_slice){(const uint8_t *)"alice", 5};
    config.credentials.password = (struct socks6_slice){(const uint8_t *)"secret", 6};
    config.initial_data_len = 100;
}

static void test_without_a_session_one_is_asked_for(void **state)
{
    (void)state;
    set_credentials();
    assert_int_equal(prepare(64), 0);
    assert_int_equal(config.request_session, 1);
    assert_int_equal(config.request_window, 64);
    assert_int_equal(config.session_id.len, 0);
    assert_int_equal(config.has_credentials, 1);
    assert_int_equal(config.initial_data_len, 100);
    assert_int_equal(prepare(0), 0);
    assert_int_equal(config.request_session, 1);
    assert_int_equal(config.request_window, 0);
}

static void test_in_a_session_the_id_stands_for_the_credentials(void **state)
{
    (void)state;
    begin(1000, 16);
    set_credentials();
    assert_int_equal(prepare(16), 1);
    assert_int_equal(config.request_session, 0);
    assert_int_equal(config.session_id.len, id.len);
    assert_memory_equal(config.session_id.data, id.data, id.len);
    assert_int_equal(config.has_credentials, 0);
    assert_int_equal(config.initial_data_len, 0);
    assert_int_equal(config.token, 1000);
}

static void test_an_untrusted_session_authenticates_each_time(void **state)
{
    (void)state;
    learn(&(struct socks6_client_session){.id = id, .untrusted = 1});
    set_credentials();
    assert_int_equal(prepare(0), 0);
    assert_int_equal(config.session_id.len, id.len);
    assert_int_equal(config.has_credentials, 1);
    assert_int_equal(config.initial_data_len, 100);
    learn(&(struct socks6_client_session){.ok = 1});
    (void)prepare(0);
    assert_int_equal(config.has_credentials, 1);
}

static void test_tokens_are_taken_smallest_first(void **state)
{
    (void)state;
    begin(UINT32_MAX - 1, 4);
    take(UINT32_MAX - 1);
    take(UINT32_MAX);
    take(0);
    take(1);
    assert_int_equal(prepare(16), 0); /* none left: the request goes without */
    assert_int_equal(config.session_id.len, id.len);
    learn_window(1, 4);
    take(2);
    take(3);
    take(4);
    assert_int_equal(prepare(16), 0);
}

static void test_a_stale_window_is_ignored(void **state)
{
    (void)state;
    begin(5, 16);
    take(5);
    learn_window(10, 16);
    take(10);
    learn_window(6, 16); /* overtaken on its way */
    take(11);
    learn_window(UINT32_MAX, 16);
    take(12);
    assert_int_equal(session.window.base, 10);
    learn_window(12, 16); /* newer, but 12 is taken */
    take(13);
}

static void test_a_window_is_asked_for_before_it_runs_dry(void **state)
{
    (void)state;
    begin(0, 16);
    for (uint32_t i = 0; i < 16; i++) {
        take(i);
        assert_int_equal(config.request_window, i < 11 ? 0 : 16); /* the last quarter is left */
    }
    assert_int_equal(prepare(16), 0);
    assert_int_equal(config.request_window, 16);
}

static void test_without_a_window_one_is_asked_for(void **state)
{
    (void)state;
    begin(0, 0);
    assert_int_equal(prepare(16), 0);
    assert_int_equal(config.request_window, 16);
    assert_int_equal(prepare(0), 0);
    assert_int_equal(config.request_window, 0);
    learn_window(7, 8);
    assert_int_equal(prepare(0), 0); /* who wants no window wants no token */
    take(7);
}

static void test_an_invalid_session_is_forgotten(void **state)
{
    (void)state;
    begin(0, 16);
    learn(&(struct socks6_client_session){.invalid = 1});
    assert_int_equal(prepare(16), 0);
    assert_int_equal(config.request_session, 1);
    assert_int_equal(config.session_id.len, 0);
}

static void test_replies_to_another_session_change_nothing(void **state)
{
    struct socks6_session old, before;

    (void)state;
    begin(0, 16);
    old = session;
    learn(&(struct socks6_client_session){.invalid = 1});
    learn(&(struct socks6_client_session){.id = {(const uint8_t *)"another1", 8}, .has_window = 1, .window = {500, 8}});
    before = session;
    socks6_session_learn(&session, &old, &(struct socks6_client_session){.invalid = 1});
    socks6_session_learn(&session, &old, &(struct socks6_client_session){.ok = 1, .has_window = 1, .window = {600, 8}});
    socks6_session_init(&old); /* another conversation that began without one, and got one too */
    socks6_session_learn(&session, &old, &(struct socks6_client_session){.id = id});
    assert_memory_equal(&session, &before, sizeof session);
    take(500);
}

/* One public proxy sends the id in the Operation Reply, behind the window. */
static void test_an_id_may_come_after_its_window(void **state)
{
    (void)state;
    learn(&(struct socks6_client_session){.has_window = 1, .window = {70, 8}, .untrusted = 1});
    assert_int_equal(prepare(8), 0);
    learn(&(struct socks6_client_session){.id = id});
    take(70);
    assert_int_equal(session.untrusted, 1);
}

static void test_an_id_that_is_too_long_is_not_kept(void **state)
{
    static const uint8_t longest[SOCKS6_SESSION_ID_MAX + 4];

    (void)state;
    learn(&(struct socks6_client_session){.id = {longest, SOCKS6_SESSION_ID_MAX + 4}});
    assert_int_equal(session.id_len, 0);
    learn(&(struct socks6_client_session){.id = {longest, SOCKS6_SESSION_ID_MAX}});
    assert_int_equal(session.id_len, SOCKS6_SESSION_ID_MAX);
    (void)prepare(0);
}

static void test_windows_out_of_range_are_ignored(void **state)
{
    (void)state;
    begin(0, 8);
    learn_window(1, 0);
    learn_window(2, UINT32_C(1) << 31);
    assert_int_equal(session.window.base, 0);
    take(0);
}

/* A memory that was set back (a file from a backup, a machine that crashed) must not try every token in turn. */
static void test_after_a_rejection_tokens_are_skipped(void **state)
{
    (void)state;
    begin(100, 16);
    take(100);
    learn(&(struct socks6_client_session){.token_rejected = 1, .has_window = 1, .window = {100, 16}});
    take(105);
    learn(&(struct socks6_client_session){.token_rejected = 1, .has_window = 1, .window = {100, 16}});
    learn(&(struct socks6_client_session){.token_rejected = 1, .has_window = 1, .window = {100, 16}});
    take(114);
    learn(&(struct socks6_client_session){.token_rejected = 1, .has_window = 1, .window = {100, 16}});
    assert_int_equal(socks6_session_tokens_left(&session), 0);
    learn(&(struct socks6_client_session){.token_rejected = 1}); /* and nothing about the window */
    assert_int_equal(prepare(16), 0);
    assert_int_equal(config.request_window, 16);
    learn_window(300, 16);
    take(300);
}

static void test_a_session_that_stays_dry_is_given_up(void **state)
{
    unsigned replies = 0;

    (void)state;
    begin(0, 8);
    for (uint32_t i = 0; i < 8; i++) {
        take(i); /* and none of them ever arrives */
    }
    while (session.id_len > 0) {
        assert_int_equal(prepare(8), 0);
        learn_window(0, 8);
        assert_in_range(++replies, 1, 64);
    }
    assert_in_range(replies, 8, 64);
    assert_int_equal(prepare(8), 0);
    assert_int_equal(config.request_session, 1);
}

static void test_a_token_that_was_not_sent_can_be_taken_again(void **state)
{
    (void)state;
    begin(10, 8);
    take(10);
    socks6_session_return(&session, 10);
    take(10);
    take(11);
    socks6_session_return(&session, 10); /* 11 was taken since: 10 is lost */
    take(12);
    learn_window(13, 8);
    socks6_session_return(&session, 12); /* behind the window by now */
    take(13);
}

static void test_values_from_outside_are_judged(void **state)
{
    (void)state;
    assert_true(socks6_session_is_valid(&session));
    begin(UINT32_MAX, 8);
    session.next = 7;
    assert_true(socks6_session_is_valid(&session));
    session.next = 8;
    assert_false(socks6_session_is_valid(&session));
    session.next = UINT32_MAX - 1;
    assert_false(socks6_session_is_valid(&session));
    session.next = UINT32_MAX;
    session.id_len = 15;
    assert_false(socks6_session_is_valid(&session));
    session.id_len = SOCKS6_SESSION_ID_MAX + 4;
    assert_false(socks6_session_is_valid(&session));
    session.id_len = 16;
    session.untrusted = 2;
    assert_false(socks6_session_is_valid(&session));
    session.untrusted = 0;
    session.window.size = UINT32_C(1) << 31;
    assert_false(socks6_session_is_valid(&session));
}

/*
 * A proxy that keeps the rules, and conversations whose requests and replies arrive in any order: no token is sent twice,
 * none is rejected, and there is nearly always one to send.
 */
enum { FLIGHTS = 12, REQUESTS = 20000, PROXY_WINDOW = 64 };

struct flight {
    struct socks6_session used;
    int stage; /* 0 = none, 1 = request on its way, 2 = reply on its way */
    int has_token;
    uint32_t token;
    struct socks6_client_session reply;
};

static void spend(uint32_t *base, uint8_t *spent, uint32_t first, struct flight *flight)
{
    flight->reply = (struct socks6_client_session){.ok = 1, .has_window = 1};
    if (flight->has_token) {
        assert_in_range(flight->token - *base, 0, PROXY_WINDOW - 1);
        assert_false(spent[flight->token - first]);
        spent[flight->token - first] = 1;
        flight->reply.token_accepted = 1;
    }
    while (spent[*base - first]) {
        ++*base;
    }
    flight->reply.window = (struct socks6_window){*base, PROXY_WINDOW};
    flight->stage = 2;
}

static void test_any_order_of_replies_will_do(void **state)
{
    const uint32_t first = UINT32_MAX - 5000;
    uint8_t *spent = calloc(REQUESTS * 2, 1);
    static struct flight flights[FLIGHTS];
    uint32_t base = first;
    unsigned sent = 0, without = 0;

    (void)state;
    assert_non_null(spent);
    begin(first, PROXY_WINDOW);
    srand(1);
    while (sent < REQUESTS) {
        struct flight *flight = &flights[(unsigned)rand() % FLIGHTS];

        if (flight->stage == 0) {
            flight->used = session;
            flight->has_token = socks6_session_prepare(&session, PROXY_WINDOW, &config);
            flight->token = config.token;
            flight->stage = 1;
            sent++;
            without += !flight->has_token;
        } else if (flight->stage == 1) {
            spend(&base, spent, first, flight);
        } else {
            socks6_session_learn(&session, &flight->used, &flight->reply);
            flight->stage = 0;
        }
    }
    assert_in_range(without, 0, REQUESTS / 100);
    free(spent);
}

/* Real machines on both ends: what is prepared is understood, and what is answered is learnt. */
static void test_prepared_requests_pass_between_the_machines(void **state)
{
    static const char known[] = "sessn-01";
    static struct talk talk;

    (void)state;
    learn(&(struct socks6_client_session){.id = {(const uint8_t *)known, 8}, .has_window = 1, .window = {1000, 10}});
    talk_init(&talk);
    talk.proxy.username = "alice";
    talk.proxy.password = "secret";
    talk.proxy.known_session = known;
    talk.proxy.window = (struct socks6_window){1000, 10};
    set_credentials();
    talk.client_config.has_credentials = 1;
    talk.client_config.credentials = config.credentials;
    assert_int_equal(socks6_session_prepare(&session, 10, &talk.client_config), 1);
    talk_run(&talk);
    assert_int_equal(talk.client_new, 0);
    assert_non_null(strstr(talk.server_log.text, "1000"));
    assert_null(strstr(talk.server_log.text, "alice"));
    assert_int_equal(talk.client_error, 0);
    assert_int_equal(talk.server_error, 0);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_a_session_one_is_asked_for),
        TEST(test_in_a_session_the_id_stands_for_the_credentials),
        TEST(test_an_untrusted_session_authenticates_each_time),
        TEST(test_tokens_are_taken_smallest_first),
        TEST(test_a_stale_window_is_ignored),
        TEST(test_a_window_is_asked_for_before_it_runs_dry),
        TEST(test_without_a_window_one_is_asked_for),
        TEST(test_an_invalid_session_is_forgotten),
        TEST(test_replies_to_another_session_change_nothing),
        TEST(test_an_id_may_come_after_its_window),
        TEST(test_an_id_that_is_too_long_is_not_kept),
        TEST(test_windows_out_of_range_are_ignored),
        TEST(test_after_a_rejection_tokens_are_skipped),
        TEST(test_a_session_that_stays_dry_is_given_up),
        TEST(test_a_token_that_was_not_sent_can_be_taken_again),
        TEST(test_values_from_outside_are_judged),
        TEST(test_any_order_of_replies_will_do),
        TEST(test_prepared_requests_pass_between_the_machines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
