/* The client machine against replies written by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rig.h"

#define CONNECT "0601 0000 0050 00 01 c0000201"
#define REPLY_SUCCESS "0600 0000 1000 00 01 c6336401"

static struct client_rig rig;

static int setup(void **state)
{
    (void)state;
    client_rig_init(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    client_rig_done(&rig);
    return 0;
}

static void start(const char *request)
{
    client_rig_start(&rig);
    client_rig_output(&rig, request);
}

/* CONNECT of alice, with her credentials and `announced` (4 digits) bytes of initial data. */
static void start_alice(const char *announced)
{
    char hex[256];

    client_rig_alice(&rig);
    (void)snprintf(hex, sizeof hex, "0601 001c 0050 00 01 c0000201 0002 0008 %s 02 00" OPT_ALICE, announced);
    start(hex);
}

static void invalid(void)
{
    struct socks6_client *client = NULL;

    assert_int_equal(socks6_client_new(&rig.config, 0, &client), SOCKS6_ERR_INVALID);
    assert_null(client);
    assert_int_equal(rig.heap.blocks, 0);
}

/* --- Requests --- */

static void test_connect_writes_the_request_at_once(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
}

static void test_noop_has_no_address(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_NOOP;
    rig.config.addr = (struct socks6_addr){0};
    start("0600 0000 0000 00 01 00000000");
}

static void test_names_follow_the_draft(void **state)
{
    const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};

    (void)state;
    assert_int_equal(socks6_addr_name("a.org", 5, 80, &rig.config.addr), 1);
    for (size_t i = 0; i < 3; i++) {
        rig.config.draft = drafts[i];
        start(i < 2 ? "0601 0000 0050 00 03 05 612e6f7267 0000" : "0601 0000 0050 00 03 07 612e6f7267 0000");
        socks6_client_free(rig.client);
    }
    rig.client = NULL;
}

static void test_stack_options_follow_the_draft(void **state)
{
    const struct socks6_stack_option stack[] = {
        {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS,
         SOCKS6_STACK_VALUE(SOCKS6_AVAILABILITY_YES, 0)},
        {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_NO_FRAGMENTATION,
         SOCKS6_STACK_VALUE(SOCKS6_AVAILABILITY_YES, 0)},
        {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_UDP, SOCKS6_UDP_ERROR, SOCKS6_STACK_VALUE(SOCKS6_AVAILABILITY_YES, 0)},
    };

    (void)state;
    rig.config.stack = stack;
    rig.config.stack_count = 3;
    rig.config.draft = SOCKS6_DRAFT_08;
    start("0601 0008 0050 00 01 c0000201 0001 0008 81 02 0000");
    socks6_client_free(rig.client);
    rig.config.draft = SOCKS6_DRAFT_11;
    start("0601 0018 0050 00 01 c0000201 0001 0008 81 02 0200 0001 0008 81 04 0200 0001 0008 85 01 0200");
}

static void test_options_cap_follows_the_draft(void **state)
{
    static uint8_t id[20476];

    (void)state;
    memset(id, 'i', sizeof id);
    rig.config.session_id = (struct socks6_slice){.data = id, .len = 16380};
    client_rig_start(&rig);
    assert_int_equal(socks6_client_output(rig.client).len, 12 + 16384);
    socks6_client_free(rig.client);
    rig.client = NULL;
    rig.config.session_id.len = 16384;
    invalid();
    rig.config.draft = SOCKS6_DRAFT_12;
    rig.config.session_id.len = 20476;
    client_rig_start(&rig);
    assert_int_equal(socks6_client_output(rig.client).len, 12 + 20480);
}

static void test_settings_out_of_range_are_refused(void **state)
{
    static const uint8_t text[256];
    const struct socks6_stack_option bad = {SOCKS6_LEG_CLIENT_PROXY, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 0};
    struct socks6_client_config good = rig.config;

    (void)state;
    rig.config.size++;
    invalid();
    rig.config = good;
    rig.config.draft = (enum socks6_draft)10;
    invalid();
    rig.config = good;
    rig.config.command = (enum socks6_command)4;
    invalid();
    rig.config = good;
    rig.config.addr.type = 2;
    invalid();
    rig.config = good;
    rig.config.has_credentials = 1;
    rig.config.credentials.username = (struct socks6_slice){.data = text, .len = 256};
    invalid();
    rig.config.credentials.username.len = 255;
    rig.config.credentials.password = (struct socks6_slice){.data = text, .len = 256};
    invalid();
    rig.config = good;
    rig.config.initial_data_len = 16385;
    invalid();
    rig.config = good;
    rig.config.stack = &bad;
    rig.config.stack_count = 1;
    invalid();
    socks6_client_free(NULL);
}

static void test_session_settings_that_contradict_are_refused(void **state)
{
    struct socks6_client_config good = rig.config;
    const struct socks6_slice id = {.data = (const uint8_t *)"ABCDEFGH", .len = 8};

    (void)state;
    rig.config.session_id = (struct socks6_slice){.data = id.data, .len = 7};
    invalid();
    rig.config = good;
    rig.config.teardown_session = 1; /* of what? */
    invalid();
    rig.config = good;
    rig.config.session_id = id;
    rig.config.request_session = 1; /* inside another */
    invalid();
    rig.config = good;
    rig.config.has_token = 1; /* outside a session */
    invalid();
    rig.config = good;
    rig.config.request_window = 1;
    invalid();
    rig.config.request_session = 1;
    rig.config.request_window = 0x80000000;
    invalid();
    rig.config.request_window = 0x7fffffff;
    client_rig_start(&rig);
}

static void test_session_options_are_written(void **state)
{
    (void)state;
    rig.config.session_id = (struct socks6_slice){.data = (const uint8_t *)"ABCDEFGH", .len = 8};
    rig.config.teardown_session = 1;
    rig.config.request_session = 1;
    rig.config.request_window = 16;
    rig.config.has_token = 1;
    rig.config.token = 1000;
    start("0601 0024 0050 00 01 c0000201" OPT_SESSION_REQUEST OPT_SESSION_ID OPT_TEARDOWN OPT_WINDOW_REQUEST OPT_TOKEN);
}

static void test_settings_are_copied(void **state)
{
    char password[] = "secret";

    (void)state;
    client_rig_alice(&rig);
    rig.config.credentials.password.data = (const uint8_t *)password;
    client_rig_start(&rig);
    memset(password, 'x', sizeof password - 1);
    client_rig_output(&rig, "0601 001c 0050 00 01 c0000201" OPT_METHODS OPT_ALICE);
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, USERPASS_ALICE);
}

/* --- False starts, initial data --- */

static void test_connect_may_start_at_once(void **state)
{
    (void)state;
    start(CONNECT);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
}

static void test_credentials_hold_data_back_until_they_were_good(void **state)
{
    (void)state;
    rig.config.initial_data_len = 5;
    start_alice("0005");
    assert_int_equal(socks6_client_data_credit(rig.client), 5);
    client_rig_auth_reply(&rig, 0, OPT_STATUS_GOOD);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
}

static void test_data_may_follow_the_last_negotiation_message(void **state)
{
    (void)state;
    start_alice("0000");
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    socks6_client_output_sent(rig.client, 13);
    assert_int_equal(socks6_client_data_credit(rig.client), 0); /* one byte is still here */
    socks6_client_output_sent(rig.client, 1);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
    client_rig_send(&rig, "0101");
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX); /* never less than before */
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
}

static void test_initial_data_is_for_connect_alone(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_UDP_ASSOCIATE;
    rig.config.initial_data_len = 5;
    client_rig_alice(&rig);
    start("0603 001c 0050 00 01 c0000201" OPT_METHODS OPT_ALICE);
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
    client_rig_auth_reply(&rig, 0, "");
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
    client_rig_send(&rig, REPLY_SUCCESS);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
}

static void test_bind_data_waits_for_the_second_reply(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_BIND;
    start("0602 0000 0050 00 01 c0000201");
    client_rig_send(&rig, AUTH_SUCCESS REPLY_SUCCESS);
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
    client_rig_send(&rig, REPLY_SUCCESS);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
}

/* --- Replies --- */

static void test_success_is_told_and_application_data_left(void **state)
{
    (void)state;
    start(CONNECT);
    assert_int_equal(client_rig_offer(&rig, AUTH_SUCCESS REPLY_SUCCESS "474554"), 16);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.u.reply.code, 0);
    assert_int_equal(rig.event.u.reply.bound.port, 4096);
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
    assert_int_equal(client_rig_offer(&rig, "474554"), 0);
    socks6_client_eof(rig.client); /* the application's business now */
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
}

static void test_failed_reply_closes(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_send(&rig, AUTH_SUCCESS REPLY_ANY("05"));
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.u.reply.code, SOCKS6_REPLY_REFUSED);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_DONE);
}

static void test_unnamed_reply_code_is_passed_on(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_send(&rig, AUTH_SUCCESS REPLY_ANY("c8"));
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.u.reply.code, 200);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_DONE);
}

static void test_noop_closes_after_its_reply(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_NOOP;
    start("0600 0000 0000 00 01 00000000");
    client_rig_send(&rig, AUTH_SUCCESS REPLY_ANY("00"));
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_DONE);
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
}

static void test_stack_answers_are_told(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_send(&rig, AUTH_SUCCESS "0600 0008 0000 00 01 00000000 0001 0008 84 01 0005");
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.u.reply.stack_count, 1);
    assert_int_equal(rig.event.u.reply.stack[0].level, SOCKS6_LEVEL_TCP);
    assert_int_equal(rig.event.u.reply.stack[0].code, SOCKS6_TCP_FAST_OPEN);
    assert_int_equal(rig.event.u.reply.stack[0].value, 5);
}

static void test_bind_tells_both_replies_of_one_input(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_BIND;
    start("0602 0000 0050 00 01 c0000201");
    assert_int_equal(client_rig_offer(&rig, AUTH_SUCCESS REPLY_SUCCESS "0600 0000 0100 00 01 cb007109 ff"), 28);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.u.reply.bound.port, 4096);
    client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
    assert_int_equal(rig.event.u.reply.bound.port, 256);
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
}

static void test_bind_can_fail_at_its_second_reply(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_BIND;
    start("0602 0000 0050 00 01 c0000201");
    client_rig_send(&rig, AUTH_SUCCESS REPLY_SUCCESS REPLY_ANY("09"));
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
    assert_int_equal(rig.event.u.reply.code, SOCKS6_REPLY_TIMED_OUT);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_DONE);
    assert_int_equal(socks6_client_data_credit(rig.client), 0);
}

/* BIND with a backlog, as far as its first reply, which grants `granted` (4 digits). */
static void start_backlog(const char *granted)
{
    static const struct socks6_stack_option backlog = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP,
                                                       SOCKS6_TCP_LISTEN_BACKLOG, 8};
    char hex[128];

    rig.config.command = SOCKS6_COMMAND_BIND;
    rig.config.stack = &backlog;
    rig.config.stack_count = 1;
    start("0602 0008 0050 00 01 c0000201 0001 0008 84 03 0008");
    (void)snprintf(hex, sizeof hex, AUTH_SUCCESS "0600 0008 1000 00 01 c6336401 0001 0008 84 03 %s", granted);
    client_rig_send(&rig, hex);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
}

static void test_listeners_handle_takes_any_number_of_replies(void **state)
{
    (void)state;
    start_backlog("0004");
    for (int i = 0; i < 3; i++) {
        client_rig_send(&rig, REPLY_SUCCESS);
        client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
        client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
        assert_int_equal(socks6_client_data_credit(rig.client), 0);
    }
    /* One at a time: the rest is offered again. */
    assert_int_equal(client_rig_offer(&rig, REPLY_SUCCESS REPLY_SUCCESS), 12);
    client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
    client_rig_send(&rig, REPLY_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
    socks6_client_eof(rig.client);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_EOF);
    assert_non_null(strstr(rig.event.u.close.why, "listener"));
}

static void test_backlog_of_none_is_a_plain_bind(void **state)
{
    (void)state;
    start_backlog("0000");
    client_rig_send(&rig, REPLY_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_SECOND_REPLY);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
    assert_int_equal(client_rig_offer(&rig, "06"), 0);
}

static void test_backlog_that_nobody_asked_for_is_a_plain_bind(void **state)
{
    (void)state;
    rig.config.command = SOCKS6_COMMAND_BIND;
    start("0602 0000 0050 00 01 c0000201");
    client_rig_send(&rig, AUTH_SUCCESS "0600 0008 1000 00 01 c6336401 0001 0008 84 03 0004" REPLY_SUCCESS);
    assert_int_equal(socks6_client_data_credit(rig.client), SIZE_MAX);
}

static void test_first_byte_of_another_protocol_is_told(void **state)
{
    (void)state;
    start(CONNECT);
    assert_int_equal(client_rig_offer(&rig, "48545450"), 1);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_VERSION);
    assert_int_equal(rig.event.u.close.byte, 0x48);
}

static void test_lone_version_byte_and_end_is_told(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_send(&rig, "06");
    socks6_client_eof(rig.client);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_EOF);
    assert_string_equal(rig.event.u.close.why, "version mismatch or truncated reply");
}

static void test_end_in_mid_conversation_closes(void **state)
{
    const char *stages[] = {"", "0600", AUTH_SUCCESS, AUTH_SUCCESS "06"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        start(CONNECT);
        client_rig_send(&rig, stages[i]);
        if (i >= 2) {
            client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
        }
        socks6_client_eof(rig.client);
        client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_EOF);
        assert_null(strstr(rig.event.u.close.why, "version"));
        socks6_client_free(rig.client);
    }
    rig.client = NULL;
}

static void test_malformed_replies_close(void **state)
{
    const char *replies[] = {
        "0602 0000",                                  /* a type above 1 */
        "0600 0004 0006 0003",                        /* an option shorter than a header */
        "0600 0004 0006 0008",                        /* ... past the end */
        "0600 5001",                                  /* more options than in any draft */
        AUTH_SUCCESS "0500 0000",                     /* another version in mid-conversation */
        AUTH_SUCCESS "0600 0000 0050 00 02",          /* unknown address type */
        AUTH_SUCCESS "0600 0000 0050 00 03 00000000", /* empty name */
    };

    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        start(CONNECT);
        (void)client_rig_offer(&rig, replies[i]);
        if (i >= 4) {
            client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
        }
        client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_PROTOCOL);
        socks6_client_free(rig.client);
    }
    rig.client = NULL;
}

static void test_unaligned_options_in_replies_are_tolerated(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 0, "0004 0007 02 01 00");
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_send(&rig, REPLY_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
}

/* --- Authentication --- */

static void test_refusal_closes(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_STATUS_BAD);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
}

static void test_no_acceptable_method_closes(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, "0003 0008 ff 000000");
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
}

static void test_negotiation_is_gone_through_if_asked_for(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
    client_rig_output(&rig, USERPASS_ALICE);
    client_rig_send(&rig, "0100");
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
    client_rig_send(&rig, AUTH_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_send(&rig, REPLY_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
}

static void test_negotiation_can_be_turned_off(void **state)
{
    (void)state;
    rig.config.allow_negotiation = 0;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, "");
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
}

static void test_bad_status_closes(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, USERPASS_ALICE);
    assert_int_equal(client_rig_offer(&rig, "0101" AUTH_FAILURE), 2);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
}

static void test_malformed_status_closes(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, USERPASS_ALICE);
    assert_int_equal(client_rig_offer(&rig, "0600"), 1);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_PROTOCOL);
}

static void test_second_reply_can_fail_and_select_nothing(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, USERPASS_ALICE);
    client_rig_send(&rig, "0100");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_output(&rig, "");
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_AUTH_FAILED);
    assert_string_equal(rig.event.u.close.why, "authentication failed");
}

static void test_end_within_a_negotiation_closes(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_send(&rig, "01");
    socks6_client_eof(rig.client);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_EOF);
}

static void test_selection_in_a_success_is_ignored(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_auth_reply(&rig, 0, "0003 0008 01 000000");
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    client_rig_send(&rig, REPLY_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
}

static void test_selection_of_what_was_not_advertised_closes(void **state)
{
    (void)state;
    start(CONNECT);
    client_rig_auth_reply(&rig, 1, OPT_SELECT_2);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_NO_METHOD);
    socks6_client_free(rig.client);
    start_alice("0000");
    client_rig_auth_reply(&rig, 1, "0003 0008 01 000000");
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_NO_METHOD);
}

/* --- Sessions --- */

static void test_session_id_is_taken_from_the_authentication_reply(void **state)
{
    (void)state;
    rig.config.request_session = 1;
    start("0601 0004 0050 00 01 c0000201" OPT_SESSION_REQUEST);
    client_rig_auth_reply(&rig, 0, OPT_SESSION_ID OPT_WINDOW);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    assert_int_equal(rig.event.session.id.len, 8);
    assert_memory_equal(rig.event.session.id.data, "ABCDEFGH", 8);
    assert_int_equal(rig.event.session.has_window, 1);
    assert_int_equal(rig.event.session.window.base, 1000);
    assert_int_equal(rig.event.session.window.size, 16);
}

static void test_session_id_is_taken_from_the_operation_reply(void **state)
{
    (void)state;
    rig.config.request_session = 1;
    start("0601 0004 0050 00 01 c0000201" OPT_SESSION_REQUEST);
    client_rig_send(&rig, AUTH_SUCCESS "0600 000c 0000 00 01 00000000" OPT_SESSION_ID);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    assert_int_equal(rig.event.session.id.len, 0);
    client_rig_expect(&rig, SOCKS6_CLIENT_REPLY);
    assert_int_equal(rig.event.session.id.len, 8);
    assert_memory_equal(rig.event.session.id.data, "ABCDEFGH", 8);
}

static void start_session(void)
{
    rig.config.session_id = (struct socks6_slice){.data = (const uint8_t *)"ABCDEFGH", .len = 8};
    rig.config.has_token = 1;
    rig.config.token = 1000;
    start("0601 0014 0050 00 01 c0000201" OPT_SESSION_ID OPT_TOKEN);
}

static void test_accepted_token_is_told(void **state)
{
    (void)state;
    start_session();
    client_rig_auth_reply(&rig, 0, OPT_SESSION_OK OPT_WINDOW OPT_ACCEPTED);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    assert_int_equal(rig.event.session.ok, 1);
    assert_int_equal(rig.event.session.token_accepted, 1);
    assert_int_equal(rig.event.session.token_rejected, 0);
}

static void test_rejected_token_closes_and_tells_the_window(void **state)
{
    (void)state;
    start_session();
    client_rig_auth_reply(&rig, 1, OPT_SESSION_OK OPT_WINDOW OPT_REJECTED);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_TOKEN_REJECTED);
    assert_int_equal(rig.event.session.ok, 1);
    assert_int_equal(rig.event.session.token_rejected, 1);
    assert_int_equal(rig.event.session.has_window, 1);
    assert_int_equal(rig.event.session.window.base, 1000);
}

static void test_invalid_session_closes(void **state)
{
    (void)state;
    start_session();
    client_rig_auth_reply(&rig, 1, OPT_SESSION_INVALID);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_SESSION_INVALID);
    assert_int_equal(rig.event.session.invalid, 1);
}

static void test_untrusted_session_is_told(void **state)
{
    (void)state;
    start_session();
    client_rig_auth_reply(&rig, 0, "0007 0004" OPT_SESSION_OK);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    assert_int_equal(rig.event.session.untrusted, 1);
}

static void test_end_after_success_tells_no_session(void **state)
{
    (void)state;
    start_session();
    client_rig_auth_reply(&rig, 0, OPT_SESSION_OK);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    socks6_client_eof(rig.client);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_EOF);
    assert_int_equal(rig.event.session.ok, 0);
}

/* --- Time, traces, memory --- */

static void test_deadline_covers_everything_up_to_the_reply(void **state)
{
    (void)state;
    rig.now_ms = 1000;
    rig.config.handshake_ms = 500;
    start(CONNECT);
    assert_int_equal(socks6_client_deadline(rig.client), 1500);
    client_rig_send(&rig, AUTH_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    socks6_client_timeout(rig.client, 1499);
    client_rig_expect(&rig, SOCKS6_CLIENT_NONE);
    rig.now_ms = 1500;
    assert_int_equal(client_rig_offer(&rig, REPLY_SUCCESS), 0);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_TIMEOUT);
}

static void test_deadline_ends_with_the_reply(void **state)
{
    (void)state;
    rig.config.handshake_ms = 500;
    rig.config.command = SOCKS6_COMMAND_BIND;
    start("0602 0000 0050 00 01 c0000201");
    client_rig_send(&rig, AUTH_SUCCESS REPLY_SUCCESS);
    assert_int_equal(socks6_client_deadline(rig.client), UINT64_MAX);
}

static void test_default_is_no_deadline(void **state)
{
    (void)state;
    start(CONNECT);
    assert_int_equal(socks6_client_deadline(rig.client), UINT64_MAX);
    socks6_client_free(rig.client);
    rig.config.handshake_ms = UINT64_MAX;
    rig.now_ms = 1;
    client_rig_start(&rig);
    assert_int_equal(socks6_client_deadline(rig.client), UINT64_MAX);
}

static void test_session_id_that_cannot_be_kept_closes(void **state)
{
    static uint8_t bytes[64];
    size_t len = rig_bytes("0600 000c 0000 00 01 00000000" OPT_SESSION_ID, bytes, sizeof bytes);
    size_t used;

    (void)state;
    rig.config.request_session = 1;
    start("0601 0004 0050 00 01 c0000201" OPT_SESSION_REQUEST);
    client_rig_send(&rig, AUTH_SUCCESS);
    client_rig_expect(&rig, SOCKS6_CLIENT_AUTHENTICATED);
    rig.heap.fail_at = rig.heap.requests + 2; /* the reply is gathered first */
    assert_int_equal(socks6_client_input(rig.client, bytes, len, 0, &used), SOCKS6_ERR_NOMEM);
    assert_int_equal(used, len);
    client_rig_closed(&rig, SOCKS6_CLIENT_CLOSE_NOMEM);
}

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
    start(CONNECT);
    client_rig_send(&rig, AUTH_SUCCESS REPLY_SUCCESS);
    assert_string_equal(trail, "read authentication reply; read operation reply; done; ");
}

static void test_nothing_but_the_object_is_held_after_the_replies(void **state)
{
    (void)state;
    start_alice("0000");
    client_rig_auth_reply(&rig, 0, OPT_STATUS_GOOD);
    client_rig_send(&rig, REPLY_SUCCESS);
    assert_int_equal(rig.heap.blocks, 1);
}

static void test_memory_comes_from_malloc_by_default(void **state)
{
    (void)state;
    rig.config.allocator = NULL;
    start_alice("0000");
    client_rig_auth_reply(&rig, 0, OPT_SESSION_ID);
    assert_int_equal(rig.heap.requests, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_connect_writes_the_request_at_once),
        CASE(test_noop_has_no_address),
        CASE(test_names_follow_the_draft),
        CASE(test_stack_options_follow_the_draft),
        CASE(test_options_cap_follows_the_draft),
        CASE(test_settings_out_of_range_are_refused),
        CASE(test_session_settings_that_contradict_are_refused),
        CASE(test_session_options_are_written),
        CASE(test_settings_are_copied),
        CASE(test_connect_may_start_at_once),
        CASE(test_credentials_hold_data_back_until_they_were_good),
        CASE(test_data_may_follow_the_last_negotiation_message),
        CASE(test_initial_data_is_for_connect_alone),
        CASE(test_bind_data_waits_for_the_second_reply),
        CASE(test_success_is_told_and_application_data_left),
        CASE(test_failed_reply_closes),
        CASE(test_unnamed_reply_code_is_passed_on),
        CASE(test_noop_closes_after_its_reply),
        CASE(test_stack_answers_are_told),
        CASE(test_bind_tells_both_replies_of_one_input),
        CASE(test_bind_can_fail_at_its_second_reply),
        CASE(test_listeners_handle_takes_any_number_of_replies),
        CASE(test_backlog_of_none_is_a_plain_bind),
        CASE(test_backlog_that_nobody_asked_for_is_a_plain_bind),
        CASE(test_first_byte_of_another_protocol_is_told),
        CASE(test_lone_version_byte_and_end_is_told),
        CASE(test_end_in_mid_conversation_closes),
        CASE(test_malformed_replies_close),
        CASE(test_unaligned_options_in_replies_are_tolerated),
        CASE(test_refusal_closes),
        CASE(test_no_acceptable_method_closes),
        CASE(test_negotiation_is_gone_through_if_asked_for),
        CASE(test_negotiation_can_be_turned_off),
        CASE(test_bad_status_closes),
        CASE(test_malformed_status_closes),
        CASE(test_second_reply_can_fail_and_select_nothing),
        CASE(test_end_within_a_negotiation_closes),
        CASE(test_selection_in_a_success_is_ignored),
        CASE(test_selection_of_what_was_not_advertised_closes),
        CASE(test_session_id_is_taken_from_the_authentication_reply),
        CASE(test_session_id_is_taken_from_the_operation_reply),
        CASE(test_accepted_token_is_told),
        CASE(test_rejected_token_closes_and_tells_the_window),
        CASE(test_invalid_session_closes),
        CASE(test_untrusted_session_is_told),
        CASE(test_end_after_success_tells_no_session),
        CASE(test_deadline_covers_everything_up_to_the_reply),
        CASE(test_deadline_ends_with_the_reply),
        CASE(test_default_is_no_deadline),
        CASE(test_session_id_that_cannot_be_kept_closes),
        CASE(test_each_state_is_traced),
        CASE(test_nothing_but_the_object_is_held_after_the_replies),
        CASE(test_memory_comes_from_malloc_by_default),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
