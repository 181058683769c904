/* The server machine: sessions and idempotence tokens ("Session Options", "Idempotence Options"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

static struct server_rig rig;
static const struct socks6_window window = {.base = 1000, .size = 16};
static const struct socks6_window slid = {.base = 1001, .size = 16};
static const uint8_t new_id[] = "secretid";

static int setup(void **state)
{
    (void)state;
    server_rig_init(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_rig_done(&rig);
    return 0;
}

static void start(const char *options)
{
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, options);
}

static void expect_session_question(enum socks6_server_event_type type)
{
    server_rig_expect(&rig, type);
    assert_int_equal(rig.event.u.session.id.len, 8);
    assert_memory_equal(rig.event.u.session.id.data, "ABCDEFGH", 8);
}

/* SESSION_LOOKUP, found. */
static void start_inside(const char *options, const struct socks6_window *has)
{
    start(options);
    expect_session_question(SOCKS6_SERVER_SESSION_LOOKUP);
    assert_int_equal(socks6_server_session_done(rig.server, 1, has), 0);
}

static void authenticate(void)
{
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
}

/* AUTHENTICATE, SESSION_START, granted. */
static void start_new(const char *options)
{
    start(options);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, new_id, 8), 0);
}

static void expect_request(int in_session, int token_spent)
{
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.event.u.request.in_session, in_session);
    assert_int_equal(rig.event.u.request.token_spent, token_spent);
}

/* --- Sessions --- */

static void test_session_request_is_answered_with_an_id(void **state)
{
    (void)state;
    start_new(OPT_SESSION_REQUEST);
    server_rig_auth_reply(&rig, 0, "0006 000c 7365637265746964");
    expect_request(1, 0);
}

static void test_session_not_granted_goes_on_outside_one(void **state)
{
    (void)state;
    start(OPT_SESSION_REQUEST OPT_WINDOW_REQUEST OPT_TOKEN);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, NULL, 0), 0);
    server_rig_output(&rig, AUTH_SUCCESS);
    expect_request(0, 0);
}

static void test_longest_session_id_is_sent(void **state)
{
    static uint8_t id[260];
    struct socks6_slice out;

    (void)state;
    memset(id, 'i', sizeof id);
    start(OPT_SESSION_REQUEST);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, id, 3), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_started(rig.server, id, 260), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_started(rig.server, id, 256), 0);
    assert_int_equal(socks6_server_session_started(rig.server, id, 256), SOCKS6_ERR_INVALID);
    out = socks6_server_output(rig.server);
    assert_int_equal(out.len, 4 + 4 + 256);
    assert_memory_equal(out.data + 8, id, 256);
    expect_request(1, 0);
}

static void test_request_inside_a_session_is_not_authenticated(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_METHODS OPT_ALICE, NULL);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
}

static void test_bad_credentials_inside_a_session_are_not_looked_at(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID "0004 0008 02 01 09 61", NULL);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
}

static void test_announced_initial_data_inside_a_session_does_not_matter(void **state)
{
    (void)state;
    start_inside("0002 0008 ffff 02 00" OPT_SESSION_ID, NULL);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
    assert_int_equal(rig.event.u.request.request->initial_data_len, 0);
}

static void test_unknown_session_is_refused(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    start(OPT_SESSION_ID OPT_METHODS);
    expect_session_question(SOCKS6_SERVER_SESSION_LOOKUP);
    assert_int_equal(socks6_server_session_done(rig.server, 0, NULL), 0);
    server_rig_auth_reply(&rig, 1, OPT_SESSION_INVALID);
    server_rig_closed(&rig, 0);
}

static void test_session_request_inside_a_session_is_ignored(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_REQUEST OPT_SESSION_ID, NULL);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
}

static void test_malformed_session_options_are_refused(void **state)
{
    const char *options[] = {"0006 0004", "0005 0008 00000000", "0006 000c 4142434445464748 000a 0008 00000000"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        start(options[i]);
        server_rig_output(&rig, AUTH_FAILURE);
        server_rig_closed(&rig, SOCKS6_ERR_MALFORMED);
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_teardown_comes_before_authentication(void **state)
{
    (void)state;
    start(OPT_SESSION_ID OPT_TEARDOWN OPT_ALICE);
    expect_session_question(SOCKS6_SERVER_SESSION_TEARDOWN);
    assert_int_equal(socks6_server_session_done(rig.server, 1, &window), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.has_credentials, 1);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_auth_reply(&rig, 0, OPT_STATUS_GOOD); /* no Session OK, no window */
    expect_request(0, 0);
}

static void test_teardown_happens_even_if_authentication_fails(void **state)
{
    (void)state;
    start(OPT_SESSION_ID OPT_TEARDOWN);
    expect_session_question(SOCKS6_SERVER_SESSION_TEARDOWN);
    assert_int_equal(socks6_server_session_done(rig.server, 1, NULL), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, 0);
}

static void test_teardown_of_an_unknown_session_is_refused(void **state)
{
    (void)state;
    start(OPT_SESSION_ID OPT_TEARDOWN);
    expect_session_question(SOCKS6_SERVER_SESSION_TEARDOWN);
    assert_int_equal(socks6_server_session_done(rig.server, 0, NULL), 0);
    server_rig_auth_reply(&rig, 1, OPT_SESSION_INVALID);
    server_rig_closed(&rig, 0);
}

static void test_teardown_without_an_id_is_ignored(void **state)
{
    (void)state;
    start(OPT_TEARDOWN);
    authenticate();
    server_rig_output(&rig, AUTH_SUCCESS);
    expect_request(0, 0);
}

static void test_teardown_can_start_another_session(void **state)
{
    (void)state;
    start(OPT_SESSION_REQUEST OPT_SESSION_ID OPT_TEARDOWN);
    expect_session_question(SOCKS6_SERVER_SESSION_TEARDOWN);
    assert_int_equal(socks6_server_session_done(rig.server, 1, NULL), 0);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, new_id, 8), 0);
    server_rig_auth_reply(&rig, 0, "0006 000c 7365637265746964");
    expect_request(1, 0);
}

static void test_session_starts_behind_a_negotiation(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    start(OPT_METHODS OPT_SESSION_REQUEST OPT_WINDOW_REQUEST);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), 0);
    server_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    server_rig_send(&rig, USERPASS_ALICE);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, new_id, 8), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(rig.event.u.window.size, 16);
    assert_int_equal(socks6_server_window_done(rig.server, &window), 0);
    server_rig_output(&rig, "0100 06 00 0018 0006 000c 7365637265746964" OPT_WINDOW);
    expect_request(1, 0);
}

static void test_status_and_second_reply_go_out_together_or_not_at_all(void **state)
{
    static uint8_t id[256];

    (void)state;
    rig.config.offer_userpass = 1;
    for (size_t n = 1; n <= 4; n++) {
        start(OPT_METHODS OPT_SESSION_REQUEST);
        server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
        assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), 0);
        server_rig_auth_reply(&rig, 1, OPT_SELECT_2);
        server_rig_send(&rig, USERPASS_ALICE);
        authenticate();
        server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
        rig.heap.fail_at = rig.heap.requests + n;
        if (socks6_server_session_started(rig.server, id, sizeof id) == SOCKS6_ERR_NOMEM) {
            assert_true(n <= 2); /* the copy of the ID, and the room for both */
            server_rig_output(&rig, "0101" AUTH_FAILURE);
            server_rig_closed(&rig, SOCKS6_ERR_NOMEM);
        } else {
            assert_true(n > 2);
            assert_int_equal(socks6_server_output(rig.server).len, 2 + 4 + 4 + 256);
        }
        rig.heap.fail_at = 0;
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_the_machines_own_reply_can_run_out_of_memory(void **state)
{
    static uint8_t id[52]; /* with it, the Authentication Reply leaves no room for the Operation Reply */

    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, (enum socks6_command)77, OPT_SESSION_REQUEST);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    rig.heap.fail_at = rig.heap.requests + 3;
    assert_int_equal(socks6_server_session_started(rig.server, id, sizeof id), SOCKS6_ERR_NOMEM);
    assert_int_equal(socks6_server_output(rig.server).len, 4 + 4 + sizeof id);
    socks6_server_output_sent(rig.server, 4 + 4 + sizeof id);
    server_rig_output(&rig, REPLY_ANY("01"));
    server_rig_closed(&rig, SOCKS6_ERR_NOMEM);
}

static void test_granted_session_survives_a_failed_operation(void **state)
{
    (void)state;
    start_new(OPT_SESSION_REQUEST);
    expect_request(1, 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_REFUSED, NULL, NULL, 0), 0);
    server_rig_output(&rig, "06 00 000c 0006 000c 7365637265746964" REPLY_ANY("05"));
    server_rig_closed(&rig, 0);
}

/* --- Tokens --- */

static void test_window_is_asked_for_and_told(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_WINDOW_REQUEST, NULL);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(rig.event.u.window.size, 16);
    assert_int_equal(socks6_server_window_done(rig.server, &window), 0);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK OPT_WINDOW);
    expect_request(1, 0);
}

static void test_window_not_granted_is_not_told(void **state)
{
    const struct socks6_window none = {.base = 7, .size = 0};

    (void)state;
    start_inside(OPT_SESSION_ID OPT_WINDOW_REQUEST, NULL);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(socks6_server_window_done(rig.server, &none), 0);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
}

static void test_second_window_request_changes_nothing(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_WINDOW_REQUEST, &window);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK OPT_WINDOW);
    expect_request(1, 0);
}

static void test_window_is_told_in_each_request_of_its_session(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID, &window);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK OPT_WINDOW);
    expect_request(1, 0);
}

static void test_window_of_none_is_not_asked_for(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID "000b 0008 00000000", NULL);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    expect_request(1, 0);
}

static void test_huge_window_is_clamped(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID "000b 0008 80000000", NULL);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(rig.event.u.window.size, 0x7fffffff);
}

static void test_token_is_spent_before_the_request(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_TOKEN, &window);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(rig.event.u.token.token, 1000);
    server_rig_output(&rig, "");
    assert_int_equal(socks6_server_token_done(rig.server, 1, &slid), 0);
    server_rig_auth_reply(&rig, 0, OPT_SESSION_OK "000c 000c 000003e9 00000010" OPT_ACCEPTED);
    expect_request(1, 1);
}

static void test_token_is_spent_in_the_request_that_starts_the_session(void **state)
{
    (void)state;
    start_new(OPT_SESSION_REQUEST OPT_WINDOW_REQUEST OPT_TOKEN);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(socks6_server_window_done(rig.server, &window), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 1, &slid), 0);
    server_rig_auth_reply(&rig, 0, "0006 000c 7365637265746964 000c 000c 000003e9 00000010" OPT_ACCEPTED);
    expect_request(1, 1);
}

static void test_rejected_token_stops_the_request(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_TOKEN, &window);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 0, &window), 0);
    server_rig_auth_reply(&rig, 1, OPT_WINDOW OPT_REJECTED);
    server_rig_closed(&rig, 0);
}

static void test_token_without_a_window_is_rejected_without_one(void **state)
{
    (void)state;
    start_inside(OPT_SESSION_ID OPT_TOKEN, NULL);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 1, NULL), SOCKS6_ERR_INVALID); /* spent from what? */
    assert_int_equal(socks6_server_token_done(rig.server, 0, NULL), 0);
    server_rig_auth_reply(&rig, 1, OPT_REJECTED);
    server_rig_closed(&rig, 0);
}

static void test_rejected_token_leaves_good_credentials_good(void **state)
{
    (void)state;
    start_new(OPT_ALICE OPT_SESSION_REQUEST OPT_TOKEN);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 0, NULL), 0);
    server_rig_auth_reply(&rig, 1, OPT_STATUS_GOOD OPT_REJECTED);
    server_rig_closed(&rig, 0);
}

static void test_rejected_token_behind_a_negotiation_keeps_the_framing(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    start(OPT_METHODS OPT_SESSION_REQUEST OPT_TOKEN);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), 0);
    server_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    server_rig_send(&rig, USERPASS_ALICE);
    authenticate();
    server_rig_expect(&rig, SOCKS6_SERVER_SESSION_START);
    assert_int_equal(socks6_server_session_started(rig.server, new_id, 8), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 0, NULL), 0);
    server_rig_output(&rig, "0100 0601 0004" OPT_REJECTED);
    server_rig_closed(&rig, 0);
}

static void test_tokens_outside_a_session_are_ignored(void **state)
{
    const char *options[] = {
        OPT_WINDOW_REQUEST OPT_TOKEN, "000b 0004 000d 0004", /* malformed, and not looked at */
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        start(options[i]);
        authenticate();
        server_rig_output(&rig, AUTH_SUCCESS);
        expect_request(0, 0);
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_tokens_are_ignored_with_a_teardown(void **state)
{
    (void)state;
    start(OPT_SESSION_ID OPT_TEARDOWN OPT_WINDOW_REQUEST OPT_TOKEN);
    expect_session_question(SOCKS6_SERVER_SESSION_TEARDOWN);
    assert_int_equal(socks6_server_session_done(rig.server, 1, &window), 0);
    authenticate();
    server_rig_output(&rig, AUTH_SUCCESS);
    expect_request(0, 0);
}

static void test_malformed_token_inside_a_session_is_refused(void **state)
{
    (void)state;
    start(OPT_SESSION_ID "000d 0004"); /* the length of the draft's figure */
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_MALFORMED);
}

static void test_windows_out_of_range_are_invalid_answers(void **state)
{
    const struct socks6_window huge = {.base = 0, .size = 0x80000000};

    (void)state;
    start(OPT_SESSION_ID OPT_WINDOW_REQUEST OPT_TOKEN);
    expect_session_question(SOCKS6_SERVER_SESSION_LOOKUP);
    assert_int_equal(socks6_server_session_done(rig.server, 1, &huge), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_done(rig.server, 1, NULL), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_WINDOW_REQUEST);
    assert_int_equal(socks6_server_window_done(rig.server, &huge), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_window_done(rig.server, NULL), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_window_done(rig.server, &window), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_TOKEN_SPEND);
    assert_int_equal(socks6_server_token_done(rig.server, 1, &huge), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_token_done(rig.server, 1, &slid), 0);
    expect_request(1, 1);
}

static void test_late_answer_is_invalid(void **state)
{
    (void)state;
    start(OPT_SESSION_ID);
    expect_session_question(SOCKS6_SERVER_SESSION_LOOKUP);
    socks6_server_timeout(rig.server, 10000);
    assert_int_equal(socks6_server_session_done(rig.server, 1, NULL), SOCKS6_ERR_INVALID);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_session_request_is_answered_with_an_id),
        CASE(test_session_not_granted_goes_on_outside_one),
        CASE(test_longest_session_id_is_sent),
        CASE(test_request_inside_a_session_is_not_authenticated),
        CASE(test_bad_credentials_inside_a_session_are_not_looked_at),
        CASE(test_announced_initial_data_inside_a_session_does_not_matter),
        CASE(test_unknown_session_is_refused),
        CASE(test_session_request_inside_a_session_is_ignored),
        CASE(test_malformed_session_options_are_refused),
        CASE(test_teardown_comes_before_authentication),
        CASE(test_teardown_happens_even_if_authentication_fails),
        CASE(test_teardown_of_an_unknown_session_is_refused),
        CASE(test_teardown_without_an_id_is_ignored),
        CASE(test_teardown_can_start_another_session),
        CASE(test_session_starts_behind_a_negotiation),
        CASE(test_status_and_second_reply_go_out_together_or_not_at_all),
        CASE(test_the_machines_own_reply_can_run_out_of_memory),
        CASE(test_granted_session_survives_a_failed_operation),
        CASE(test_window_is_asked_for_and_told),
        CASE(test_window_not_granted_is_not_told),
        CASE(test_second_window_request_changes_nothing),
        CASE(test_window_is_told_in_each_request_of_its_session),
        CASE(test_window_of_none_is_not_asked_for),
        CASE(test_huge_window_is_clamped),
        CASE(test_token_is_spent_before_the_request),
        CASE(test_token_is_spent_in_the_request_that_starts_the_session),
        CASE(test_rejected_token_stops_the_request),
        CASE(test_token_without_a_window_is_rejected_without_one),
        CASE(test_rejected_token_leaves_good_credentials_good),
        CASE(test_rejected_token_behind_a_negotiation_keeps_the_framing),
        CASE(test_tokens_outside_a_session_are_ignored),
        CASE(test_tokens_are_ignored_with_a_teardown),
        CASE(test_malformed_token_inside_a_session_is_refused),
        CASE(test_windows_out_of_range_are_invalid_answers),
        CASE(test_late_answer_is_invalid),
    };

    return cmocka_run_group_tests_name("server_session", tests, NULL, NULL);
}
