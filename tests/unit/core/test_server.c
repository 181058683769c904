/* The server machine: requests, authentication, replies, time, misuse. Sessions are in test_server_session.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

#define REQUEST_HEAD "0050 00 01 c0000201"
#define CONNECT "0601 0000 0050 00 01 c0000201"

static struct server_rig rig;

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

/* Up to REQUEST, with nothing needed; the Authentication Reply is taken. */
static void let_in(enum socks6_command command)
{
    server_rig_start(&rig);
    server_rig_request(&rig, command, "");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
}

static void refused(const char *request, int reason)
{
    server_rig_start(&rig);
    (void)server_rig_offer(&rig, request);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, reason);
    socks6_server_free(rig.server);
    rig.server = NULL;
}

/* --- Requests --- */

static void test_connect_is_authenticated_asked_and_answered(void **state)
{
    const uint8_t bound_bytes[4] = {198, 51, 100, 1};
    const struct socks6_addr bound = socks6_addr_ipv4(bound_bytes, 4096);
    const uint8_t wanted[4] = {192, 0, 2, 1};
    const struct socks6_addr destination = socks6_addr_ipv4(wanted, 80);

    (void)state;
    server_rig_start(&rig);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    server_rig_send(&rig, CONNECT);
    server_rig_output(&rig, "");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.round, 1);
    assert_int_equal(rig.event.u.auth.has_credentials, 0);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
    assert_int_equal(rig.event.u.auth.request->command, SOCKS6_COMMAND_CONNECT);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_true(socks6_addr_equal(&rig.event.u.request.request->addr, &destination));
    assert_int_equal(rig.event.u.request.in_session, 0);
    assert_int_equal(rig.event.u.request.token_spent, 0);
    assert_int_equal(rig.event.u.request.initial_data.len, 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &bound, NULL, 0), 0);
    server_rig_output(&rig, "0600 0000 1000 00 01 c6336401");
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
}

static void test_application_data_stays_with_the_caller(void **state)
{
    (void)state;
    server_rig_start(&rig);
    assert_int_equal(server_rig_offer(&rig, CONNECT "474554"), 12);
    assert_int_equal(server_rig_offer(&rig, "474554"), 0); /* a question is open */
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(server_rig_offer(&rig, "474554"), 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    assert_int_equal(server_rig_offer(&rig, "474554"), 0);
}

static void test_domain_names_of_every_draft_are_taken(void **state)
{
    const char *names[] = {
        "0601 0000 01bb 00 03 0b 6578616d706c652e636f6d", /* 1 + 11, no padding needed in any */
        "0601 0000 01bb 00 03 05 612e6f7267 0000",        /* padding outside, -08 and -11 */
        "0601 0000 01bb 00 03 07 612e6f7267 0000",        /* inside, -12 */
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        server_rig_start(&rig);
        server_rig_send(&rig, names[i]);
        server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
        assert_int_equal(rig.event.u.auth.request->addr.type, SOCKS6_ADDR_NAME);
        assert_string_equal(rig.event.u.auth.request->addr.u.name, i == 0 ? "example.com" : "a.org");
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_wrong_version_is_answered_after_one_byte(void **state)
{
    (void)state;
    server_rig_start(&rig);
    assert_int_equal(server_rig_offer(&rig, "05"), 1);
    server_rig_output(&rig, "06");
    server_rig_closed(&rig, SOCKS6_ERR_VERSION);
}

static void test_wrong_version_takes_one_byte_of_many(void **state)
{
    (void)state;
    server_rig_start(&rig);
    assert_int_equal(server_rig_offer(&rig, "16 03 01 02 00 01 00 01 fc 03 03"), 1);
    server_rig_output(&rig, "06");
    server_rig_closed(&rig, SOCKS6_ERR_VERSION);
}

static void test_malformed_requests_are_refused(void **state)
{
    (void)state;
    refused("0601 0002 0050 00 01 c0000201 0000", SOCKS6_ERR_MALFORMED);      /* unaligned options length */
    refused("0601 0004 0050 00 01 c0000201 ffff 0003", SOCKS6_ERR_MALFORMED); /* option shorter than a header */
    refused("0601 0008 0050 00 01 c0000201 ffff 0006 0000 0000", SOCKS6_ERR_MALFORMED); /* unaligned option */
    refused("0601 0004 0050 00 01 c0000201 ffff 0008", SOCKS6_ERR_MALFORMED);           /* option past the end */
    refused("0601 0000 0050 00 03 00 000000", SOCKS6_ERR_MALFORMED);                    /* empty name */
    refused("0601 0000 0050 00 03 03 610062", SOCKS6_ERR_MALFORMED);                    /* NUL in a name */
}

static void test_options_up_to_the_cap_are_taken_and_more_refused(void **state)
{
    static uint8_t bytes[12 + 20484];
    size_t used;

    (void)state;
    (void)rig_bytes("0601 5000 " REQUEST_HEAD, bytes, sizeof bytes);
    for (size_t i = 0; i < 20480; i += 4) { /* 5120 options of an unknown kind */
        memcpy(bytes + 12 + i, "\xff\x00\x00\x04", 4);
    }
    server_rig_start(&rig);
    assert_int_equal(socks6_server_input(rig.server, bytes, 12 + 20480, 0, &used), 0);
    assert_int_equal(used, 12 + 20480);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    socks6_server_free(rig.server);
    refused("0601 5004 " REQUEST_HEAD, SOCKS6_ERR_TOO_LONG);
    rig.config.options_cap = 8;
    refused("0601 000c " REQUEST_HEAD, SOCKS6_ERR_TOO_LONG);
}

static void ask_unknown_address(void)
{
    server_rig_start(&rig);
    assert_int_equal(server_rig_offer(&rig, "0601 0014 0050 00 02 " OPT_ALICE), 8);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.request->addr.type, 0);
    assert_int_equal(rig.event.u.auth.request->command, SOCKS6_COMMAND_CONNECT);
    assert_int_equal(rig.event.u.auth.has_credentials, 0);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
}

static void test_unknown_address_type_is_told_to_who_needs_no_authentication(void **state)
{
    (void)state;
    ask_unknown_address();
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS REPLY_ANY("08"));
    server_rig_closed(&rig, SOCKS6_ERR_ADDRESS);
}

static void test_unknown_address_type_is_a_failure_to_others(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    ask_unknown_address();
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_ADDRESS);
}

static void test_unknown_command_is_answered_behind_authentication(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, (enum socks6_command)4, "");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.request->command, 4);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS REPLY_ANY("07"));
    server_rig_closed(&rig, 0);
}

static void test_unknown_command_is_not_told_to_strangers(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, (enum socks6_command)255, "");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, 0);
}

static void test_names_are_for_connect_alone(void **state)
{
    const char *requests[] = {
        "0600 0000 0000 00 03 05 612e6f7267 0000", /* NOOP */
        "0602 0000 0000 00 03 05 612e6f7267 0000", /* BIND */
        "0603 0000 0000 00 03 05 612e6f7267 0000", /* UDP ASSOCIATE */
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        server_rig_start(&rig);
        server_rig_send(&rig, requests[i]);
        server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
        assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
        server_rig_output(&rig, AUTH_SUCCESS REPLY_ANY("08"));
        server_rig_closed(&rig, 0);
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_ip_literal_in_a_name_counts_as_that_address(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_send(&rig, "0602 0000 0000 00 03 07 302e302e302e30"); /* BIND "0.0.0.0" */
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
}

static void test_noop_fields_are_ignored(void **state)
{
    (void)state;
    let_in(SOCKS6_COMMAND_NOOP);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    server_rig_output(&rig, REPLY_ANY("00"));
    server_rig_closed(&rig, 0);
}

static void test_stack_options_reach_the_caller_by_the_rules(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT,
                       "0001 0008 c1 01 2000"   /* TOS on both legs */
                       "0001 0008 81 01 4000"   /* again for leg 2: too late */
                       "0001 0008 81 03 0000"   /* TTL 0 */
                       "0001 0008 44 01 0000"   /* TFO on leg 1 */
                       "0001 0008 84 01 0100"); /* TFO */
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.event.u.request.request->stack_count, 3);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(rig.event.u.request.request->stack[i].leg, i + 1);
        assert_int_equal(rig.event.u.request.request->stack[i].level, SOCKS6_LEVEL_IP);
        assert_int_equal(rig.event.u.request.request->stack[i].value, 0x2000);
    }
    assert_int_equal(rig.event.u.request.request->stack[2].level, SOCKS6_LEVEL_TCP);
    assert_int_equal(rig.event.u.request.request->stack[2].value, 0x100);
}

/* --- Authentication --- */

static void test_no_method_that_was_not_advertised_is_selected(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, "0002 0008 0000 01 03");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, 0);
}

static void test_nothing_is_selected_unless_it_is_offered(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), SOCKS6_ERR_INVALID);
}

static void test_advertisement_is_ignored_if_nothing_is_needed(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, OPT_METHODS_5);
    assert_int_equal(server_rig_offer(&rig, "68656c6c6f"), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.can_negotiate, 1);
    assert_int_equal(rig.event.u.auth.request->initial_data_len, 5);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.event.u.request.initial_data.len, 0);
    assert_int_equal(server_rig_offer(&rig, "68656c6c6f"), 0);
}

static void test_good_credentials_are_answered_with_their_status(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, OPT_METHODS OPT_ALICE);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.has_credentials, 1);
    assert_int_equal(rig.event.u.auth.credentials.username.len, 5);
    assert_memory_equal(rig.event.u.auth.credentials.username.data, "alice", 5);
    assert_int_equal(rig.event.u.auth.credentials.password.len, 6);
    assert_memory_equal(rig.event.u.auth.credentials.password.data, "secret", 6);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_auth_reply(&rig, 0, OPT_STATUS_GOOD);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
}

static void test_bad_credentials_get_no_second_try(void **state)
{
    (void)state;
    rig.config.offer_userpass = 1;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, OPT_METHODS OPT_ALICE);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_auth_reply(&rig, 1, OPT_STATUS_BAD);
    server_rig_closed(&rig, 0);
}

static void test_malformed_credentials_make_the_request_malformed(void **state)
{
    (void)state;
    refused("0601 0008 " REQUEST_HEAD "0004 0008 02 01 09 61", SOCKS6_ERR_MALFORMED); /* past the option */
    refused("0601 0008 " REQUEST_HEAD "0004 0008 02 05 00 00", SOCKS6_ERR_MALFORMED); /* not RFC 1929 */
}

static void test_only_the_first_credentials_count(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, OPT_ALICE "0004 0008 02 01 00 00");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.credentials.username.len, 5);
}

/* Up to the selection of method 2, which is taken. */
static void start_negotiation(enum socks6_command command, const char *options)
{
    rig.config.offer_userpass = 1;
    server_rig_start(&rig);
    server_rig_request(&rig, command, options);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.can_negotiate, 1);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), 0);
    server_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
}

static void expect_alice_again(void)
{
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.round, 2);
    assert_int_equal(rig.event.u.auth.can_negotiate, 0);
    assert_int_equal(rig.event.u.auth.has_credentials, 1);
    assert_int_equal(rig.event.u.auth.credentials.username.len, 5);
    assert_memory_equal(rig.event.u.auth.credentials.username.data, "alice", 5);
    assert_int_equal(rig.event.u.auth.credentials.password.len, 6);
    assert_memory_equal(rig.event.u.auth.credentials.password.data, "secret", 6);
}

static void test_negotiation_ends_with_status_and_second_reply(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    server_rig_send(&rig, USERPASS_ALICE);
    expect_alice_again();
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_NEGOTIATE), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, "0100" AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
}

static void test_negotiation_can_fail(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    server_rig_send(&rig, USERPASS_ALICE);
    expect_alice_again();
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_FAILURE), 0);
    server_rig_output(&rig, "0101" AUTH_FAILURE);
    server_rig_closed(&rig, 0);
}

static void test_initial_data_is_set_aside_in_front_of_a_negotiation(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS_5);
    /* "hello", the negotiation, and data behind it that is the application's. */
    assert_int_equal(server_rig_offer(&rig, "6865"), 2);
    assert_int_equal(server_rig_offer(&rig, "6c6c6f" USERPASS_ALICE "776f"), 3 + 14);
    expect_alice_again();
    assert_int_equal(server_rig_offer(&rig, "776f"), 0);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.event.u.request.initial_data.len, 5);
    assert_memory_equal(rig.event.u.request.initial_data.data, "hello", 5);
    assert_int_equal(server_rig_offer(&rig, "776f"), 0);
}

static void test_initial_data_counts_for_connect_alone(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_BIND, "0002 0008 ffff 02 00");
    server_rig_send(&rig, USERPASS_ALICE);
    expect_alice_again();
    assert_int_equal(rig.event.u.auth.request->initial_data_len, 0);
}

static void test_most_initial_data_is_taken_and_more_refused(void **state)
{
    static uint8_t data[16384];
    size_t used;

    (void)state;
    memset(data, 'x', sizeof data);
    start_negotiation(SOCKS6_COMMAND_CONNECT, "0002 0008 4000 02 00");
    for (size_t i = 0; i < sizeof data; i += 1000) {
        size_t len = sizeof data - i < 1000 ? sizeof data - i : 1000;

        assert_int_equal(socks6_server_input(rig.server, data + i, len, 0, &used), 0);
        assert_int_equal(used, len);
    }
    server_rig_send(&rig, USERPASS_ALICE);
    expect_alice_again();
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.event.u.request.initial_data.len, sizeof data);
    assert_memory_equal(rig.event.u.request.initial_data.data, data, sizeof data);
    server_rig_output(&rig, "0100" AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    assert_true(rig.heap.bytes < 2048); /* the set-aside data is gone once the caller had it */
    socks6_server_free(rig.server);
    refused("0601 0008 " REQUEST_HEAD "0002 0008 4001 02 00", SOCKS6_ERR_TOO_LONG);
}

static void test_malformed_negotiation_is_answered_and_closed(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    assert_int_equal(server_rig_offer(&rig, "05 01 00"), 1);
    server_rig_output(&rig, "0101" AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_MALFORMED);
}

static void test_empty_credentials_are_the_callers_to_judge(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    server_rig_send(&rig, "01 00 00");
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.has_credentials, 1);
    assert_int_equal(rig.event.u.auth.credentials.username.len, 0);
    assert_int_equal(rig.event.u.auth.credentials.password.len, 0);
}

static void test_longest_credentials_are_taken_whatever_the_options_cap(void **state)
{
    static uint8_t message[3 + 255 + 255];
    size_t used;

    (void)state;
    rig.config.options_cap = 8;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    memset(message, 'x', sizeof message);
    message[0] = 1;
    message[1] = 255;
    message[2 + 255] = 255;
    assert_int_equal(socks6_server_input(rig.server, message, sizeof message, 0, &used), 0);
    assert_int_equal(used, sizeof message);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(rig.event.u.auth.credentials.username.len, 255);
    assert_int_equal(rig.event.u.auth.credentials.password.len, 255);
}

/* --- Operation Replies --- */

static void test_each_reply_code_but_success_closes(void **state)
{
    char hex[64];

    (void)state;
    for (unsigned code = 1; code < SOCKS6_REPLY_COUNT; code++) {
        let_in(SOCKS6_COMMAND_CONNECT);
        assert_int_equal(socks6_server_reply(rig.server, (enum socks6_reply_code)code, NULL, NULL, 0), 0);
        (void)snprintf(hex, sizeof hex, "06%02x 0000 0000 00 01 00000000", code);
        server_rig_output(&rig, hex);
        server_rig_closed(&rig, 0);
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

static void test_bind_replies_twice(void **state)
{
    const uint8_t peer_bytes[4] = {203, 0, 113, 9};
    const struct socks6_addr peer = socks6_addr_ipv4(peer_bytes, 256);

    (void)state;
    let_in(SOCKS6_COMMAND_BIND);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    server_rig_output(&rig, REPLY_ANY("00"));
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    assert_int_equal(server_rig_offer(&rig, "68"), 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &peer, NULL, 0), 0);
    server_rig_output(&rig, "0600 0000 0100 00 01 cb007109");
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &peer, NULL, 0), SOCKS6_ERR_INVALID);
}

static void test_bind_can_fail_at_its_second_reply(void **state)
{
    (void)state;
    let_in(SOCKS6_COMMAND_BIND);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_TIMED_OUT, NULL, NULL, 0), 0);
    server_rig_output(&rig, REPLY_ANY("00") REPLY_ANY("09"));
    server_rig_closed(&rig, 0);
}

static void test_replies_carry_stack_answers(void **state)
{
    const struct socks6_stack_option answers[] = {
        {SOCKS6_LEG_BOTH, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x2000},
        {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 5},
    };

    (void)state;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_REFUSED, NULL, answers, 2), 0);
    server_rig_output(&rig, "0605 0010 0000 00 01 00000000 0001 0008 c1 01 2000 0001 0008 84 01 0005");
    server_rig_closed(&rig, 0);
}

static void test_mapped_bound_address_is_sent_as_ipv4(void **state)
{
    const uint8_t mapped[16] = {[10] = 0xff, 0xff, 198, 51, 100, 1};
    const struct socks6_addr bound = socks6_addr_ipv6(mapped, 4096);

    (void)state;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &bound, NULL, 0), 0);
    server_rig_output(&rig, "0600 0000 1000 00 01 c6336401");
}

static void test_names_in_replies_follow_the_draft(void **state)
{
    const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};
    const char *replies[] = {
        "0600 0000 0050 00 03 05 612e6f7267 0000",
        "0600 0000 0050 00 03 05 612e6f7267 0000",
        "0600 0000 0050 00 03 07 612e6f7267 0000",
    };
    struct socks6_addr bound;

    (void)state;
    assert_int_equal(socks6_addr_name("a.org", 5, 80, &bound), 1);
    for (size_t i = 0; i < 3; i++) {
        rig.config.draft = drafts[i];
        let_in(SOCKS6_COMMAND_CONNECT);
        assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &bound, NULL, 0), 0);
        server_rig_output(&rig, replies[i]);
        socks6_server_free(rig.server);
    }
    rig.server = NULL;
}

/* --- Time --- */

static void test_unfinished_request_times_out(void **state)
{
    (void)state;
    rig.now_ms = 5000;
    server_rig_start(&rig);
    assert_int_equal(socks6_server_deadline(rig.server), 15000);
    server_rig_send(&rig, "0601 0000");
    socks6_server_timeout(rig.server, 14999);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    socks6_server_timeout(rig.server, 15000);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

static void test_silent_client_times_out_silently(void **state)
{
    (void)state;
    server_rig_start(&rig);
    socks6_server_timeout(rig.server, 10000);
    server_rig_output(&rig, "");
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

static void test_open_question_times_out(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_send(&rig, CONNECT);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    socks6_server_timeout(rig.server, 10000);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

static void test_negotiation_times_out_with_both_answers(void **state)
{
    (void)state;
    start_negotiation(SOCKS6_COMMAND_CONNECT, OPT_METHODS);
    server_rig_send(&rig, "01 05 61");
    socks6_server_timeout(rig.server, 10000);
    server_rig_output(&rig, "0101" AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

static void test_late_bytes_are_not_taken(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_send(&rig, "0601");
    rig.now_ms = 10000;
    assert_int_equal(server_rig_offer(&rig, "0000 0050 00 01 c0000201"), 0);
    server_rig_output(&rig, AUTH_FAILURE);
    server_rig_closed(&rig, SOCKS6_ERR_TIMEOUT);
}

static void test_deadline_ends_with_the_request(void **state)
{
    (void)state;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(socks6_server_deadline(rig.server), UINT64_MAX);
    socks6_server_timeout(rig.server, UINT64_MAX);
    server_rig_expect(&rig, SOCKS6_SERVER_NONE);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
}

static void test_no_limit_is_no_deadline(void **state)
{
    (void)state;
    rig.config.handshake_ms = 0;
    server_rig_start(&rig);
    assert_int_equal(socks6_server_deadline(rig.server), UINT64_MAX);
    socks6_server_free(rig.server);
    rig.config.handshake_ms = UINT64_MAX;
    rig.now_ms = 1;
    server_rig_start(&rig);
    assert_int_equal(socks6_server_deadline(rig.server), UINT64_MAX);
}

/* --- Misuse --- */

static void test_settings_out_of_range_are_refused(void **state)
{
    struct socks6_server *server = NULL;

    (void)state;
    rig.config.options_cap = SOCKS6_OPTIONS_CAP_12 + 1;
    assert_int_equal(socks6_server_new(&rig.config, 0, &server), SOCKS6_ERR_INVALID);
    rig.config.options_cap = 0;
    rig.config.draft = (enum socks6_draft)9;
    assert_int_equal(socks6_server_new(&rig.config, 0, &server), SOCKS6_ERR_INVALID);
    rig.config.draft = SOCKS6_DRAFT_12;
    rig.config.size--;
    assert_int_equal(socks6_server_new(&rig.config, 0, &server), SOCKS6_ERR_INVALID);
    assert_null(server);
    socks6_server_free(NULL);
}

static void test_memory_comes_from_malloc_by_default(void **state)
{
    (void)state;
    rig.config.allocator = NULL;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(rig.heap.requests, 0);
}

static void test_answers_without_their_question_are_invalid(void **state)
{
    const struct socks6_window window = {.base = 1, .size = 1};

    (void)state;
    server_rig_start(&rig);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), SOCKS6_ERR_INVALID);
    server_rig_send(&rig, CONNECT);
    /* The question was not pulled yet. */
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), SOCKS6_ERR_INVALID);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_session_done(rig.server, 1, NULL), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_session_started(rig.server, NULL, 0), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_window_done(rig.server, &window), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_token_done(rig.server, 1, &window), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, (enum socks6_auth_outcome)9), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), SOCKS6_ERR_INVALID);
    /* REQUEST was not pulled yet. */
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), SOCKS6_ERR_INVALID);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), SOCKS6_ERR_INVALID);
}

static void test_replies_that_cannot_be_written_are_invalid(void **state)
{
    const struct socks6_addr bad_addr = {.type = 2, .len = 4};
    const struct socks6_stack_option bad_option = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0};

    (void)state;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_COUNT, NULL, NULL, 0), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, &bad_addr, NULL, 0), SOCKS6_ERR_INVALID);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, &bad_option, 1), SOCKS6_ERR_INVALID);
    server_rig_output(&rig, "");
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    server_rig_output(&rig, REPLY_ANY("00"));
}

static void test_output_can_be_taken_in_pieces(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_send(&rig, CONNECT);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    assert_int_equal(socks6_server_output(rig.server).len, 4);
    socks6_server_output_sent(rig.server, 3);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0), 0);
    server_rig_output(&rig, "00" REPLY_ANY("00"));
    socks6_server_output_sent(rig.server, 100); /* there is no more */
    server_rig_output(&rig, "");
}

/* --- Traces, memory --- */

static char trail[256];

static void record(void *user, const char *state_name)
{
    size_t len = strlen(trail);

    assert_ptr_equal(user, &rig);
    (void)snprintf(trail + len, sizeof trail - len, "%s; ", state_name);
}

static void test_each_state_is_traced(void **state)
{
    (void)state;
    trail[0] = '\0';
    rig.config.trace = record;
    rig.config.trace_user = &rig;
    let_in(SOCKS6_COMMAND_CONNECT);
    assert_int_equal(socks6_server_reply(rig.server, SOCKS6_REPLY_REFUSED, NULL, NULL, 0), 0);
    assert_string_equal(trail, "read request; ask for authentication; ask for decision; closed; ");
}

static void test_waiting_for_a_reply_holds_little_memory(void **state)
{
    static uint8_t options[20480 * 2 + 1];

    (void)state;
    for (size_t i = 0; i + 8 <= sizeof options; i += 8) {
        memcpy(options + i, "ff000004", 8);
    }
    server_rig_start(&rig);
    server_rig_request(&rig, SOCKS6_COMMAND_CONNECT, (const char *)options);
    assert_true(rig.heap.peak > 20480);
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_int_equal(socks6_server_auth_done(rig.server, SOCKS6_AUTH_SUCCESS), 0);
    server_rig_output(&rig, AUTH_SUCCESS);
    server_rig_expect(&rig, SOCKS6_SERVER_REQUEST);
    assert_int_equal(rig.heap.blocks, 1);
    assert_true(rig.heap.bytes < 2048);
}

static void test_memory_follows_what_came_not_what_was_announced(void **state)
{
    (void)state;
    server_rig_start(&rig);
    server_rig_send(&rig, "0601 5000 0050 00 01 c0000201");
    assert_true(rig.heap.bytes < 2048);
}

static void test_bytes_one_at_a_time_cost_no_more(void **state)
{
    static uint8_t bytes[12 + 20480];
    size_t used;

    (void)state;
    (void)rig_bytes("0601 5000 " REQUEST_HEAD, bytes, sizeof bytes);
    for (size_t i = 0; i < 20480; i += 4) {
        memcpy(bytes + 12 + i, "\xff\x00\x00\x04", 4);
    }
    server_rig_start(&rig);
    for (size_t i = 0; i < sizeof bytes; i++) {
        server_rig_expect(&rig, SOCKS6_SERVER_NONE);
        assert_int_equal(socks6_server_input(rig.server, bytes + i, 1, 0, &used), 0);
        assert_int_equal(used, 1);
    }
    server_rig_expect(&rig, SOCKS6_SERVER_AUTHENTICATE);
    assert_true(rig.heap.requests < 16); /* the buffer doubles */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_connect_is_authenticated_asked_and_answered),
        CASE(test_application_data_stays_with_the_caller),
        CASE(test_domain_names_of_every_draft_are_taken),
        CASE(test_wrong_version_is_answered_after_one_byte),
        CASE(test_wrong_version_takes_one_byte_of_many),
        CASE(test_malformed_requests_are_refused),
        CASE(test_options_up_to_the_cap_are_taken_and_more_refused),
        CASE(test_unknown_address_type_is_told_to_who_needs_no_authentication),
        CASE(test_unknown_address_type_is_a_failure_to_others),
        CASE(test_unknown_command_is_answered_behind_authentication),
        CASE(test_unknown_command_is_not_told_to_strangers),
        CASE(test_names_are_for_connect_alone),
        CASE(test_ip_literal_in_a_name_counts_as_that_address),
        CASE(test_noop_fields_are_ignored),
        CASE(test_stack_options_reach_the_caller_by_the_rules),
        CASE(test_no_method_that_was_not_advertised_is_selected),
        CASE(test_nothing_is_selected_unless_it_is_offered),
        CASE(test_advertisement_is_ignored_if_nothing_is_needed),
        CASE(test_good_credentials_are_answered_with_their_status),
        CASE(test_bad_credentials_get_no_second_try),
        CASE(test_malformed_credentials_make_the_request_malformed),
        CASE(test_only_the_first_credentials_count),
        CASE(test_negotiation_ends_with_status_and_second_reply),
        CASE(test_negotiation_can_fail),
        CASE(test_initial_data_is_set_aside_in_front_of_a_negotiation),
        CASE(test_initial_data_counts_for_connect_alone),
        CASE(test_most_initial_data_is_taken_and_more_refused),
        CASE(test_malformed_negotiation_is_answered_and_closed),
        CASE(test_empty_credentials_are_the_callers_to_judge),
        CASE(test_longest_credentials_are_taken_whatever_the_options_cap),
        CASE(test_each_reply_code_but_success_closes),
        CASE(test_bind_replies_twice),
        CASE(test_bind_can_fail_at_its_second_reply),
        CASE(test_replies_carry_stack_answers),
        CASE(test_mapped_bound_address_is_sent_as_ipv4),
        CASE(test_names_in_replies_follow_the_draft),
        CASE(test_unfinished_request_times_out),
        CASE(test_silent_client_times_out_silently),
        CASE(test_open_question_times_out),
        CASE(test_negotiation_times_out_with_both_answers),
        CASE(test_late_bytes_are_not_taken),
        CASE(test_deadline_ends_with_the_request),
        CASE(test_no_limit_is_no_deadline),
        CASE(test_settings_out_of_range_are_refused),
        CASE(test_memory_comes_from_malloc_by_default),
        CASE(test_answers_without_their_question_are_invalid),
        CASE(test_replies_that_cannot_be_written_are_invalid),
        CASE(test_output_can_be_taken_in_pieces),
        CASE(test_each_state_is_traced),
        CASE(test_waiting_for_a_reply_holds_little_memory),
        CASE(test_bytes_one_at_a_time_cost_no_more),
        CASE(test_memory_follows_what_came_not_what_was_announced),
    };

    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
