/*
 * Client machine against server machine, every combination of what a request can ask for with what a proxy can answer:
 * the outcome must be the expected one, and the same however the bytes are cut on their way, in both directions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "heap.h"
#include "talk.h"

enum auth { AUTH_OPEN, AUTH_OPEN_WITH_CREDENTIALS, AUTH_GOOD, AUTH_BAD, AUTH_MISSING, AUTH_COUNT };

enum session {
    SESSION_NONE,
    SESSION_NEW,
    SESSION_NOT_GRANTED,
    SESSION_KNOWN,
    SESSION_UNKNOWN,
    SESSION_ENDED,
    SESSION_ENDED_AND_NEW,
    SESSION_NEW_WITH_TOKEN, /* and the window that it is of */
    SESSION_TOKEN_GOOD,
    SESSION_TOKEN_BAD,
    SESSION_TOKEN_WITHOUT_WINDOW,
    SESSION_COUNT
};

struct scenario {
    enum socks6_command command;
    uint8_t addr_type;
    enum auth auth;
    bool negotiates;
    enum session session;
    enum socks6_draft draft;
    enum socks6_reply_code code;
};

static const uint8_t known_id[] = "known-id";
static const uint8_t other_id[] = "other-id";
static const uint8_t upload[] = "upload!";
static const uint8_t download[] = "download";

static struct socks6_addr address(uint8_t type)
{
    static const uint8_t bytes[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
    struct socks6_addr addr;

    if (type == SOCKS6_ADDR_IPV4) {
        return socks6_addr_ipv4((const uint8_t[4]){192, 0, 2, 1}, 80);
    }
    if (type == SOCKS6_ADDR_IPV6) {
        return socks6_addr_ipv6(bytes, 80);
    }
    assert_int_equal(socks6_addr_name("a.example", 9, 80, &addr), 1);
    return addr;
}

static struct socks6_slice text(const uint8_t *bytes, size_t len)
{
    return (struct socks6_slice){.data = bytes, .len = len};
}

static void set_auth(struct talk *talk, const struct scenario *scenario)
{
    bool needed = scenario->auth == AUTH_GOOD || scenario->auth == AUTH_BAD || scenario->auth == AUTH_MISSING;

    if (needed) {
        talk->proxy.username = "alice";
        talk->proxy.password = "secret";
    }
    talk->proxy.prefers_negotiation = scenario->negotiates;
    talk->strips_auth_data = scenario->negotiates;
    talk->server_config.offer_userpass = scenario->negotiates;
    if (scenario->auth == AUTH_OPEN || scenario->auth == AUTH_MISSING) {
        return;
    }
    talk->client_config.has_credentials = 1;
    talk->client_config.credentials.username = text((const uint8_t *)"alice", 5);
    talk->client_config.credentials.password =
        scenario->auth == AUTH_BAD ? text((const uint8_t *)"guess", 5) : text((const uint8_t *)"secret", 6);
    talk->client_config.initial_data_len = 3;
}

static void set_session(struct talk *talk, enum session session)
{
    struct socks6_client_config *config = &talk->client_config;

    talk->proxy.known_session = "known-id";
    talk->proxy.new_session = session == SESSION_NOT_GRANTED ? NULL : "new-id..";
    talk->proxy.grant = 8;
    if (session >= SESSION_KNOWN && session != SESSION_NEW_WITH_TOKEN) {
        config->session_id = text(session == SESSION_UNKNOWN ? other_id : known_id, 8);
    }
    config->teardown_session = session == SESSION_ENDED || session == SESSION_ENDED_AND_NEW;
    config->request_session = session == SESSION_NEW || session == SESSION_NOT_GRANTED ||
                              session == SESSION_ENDED_AND_NEW || session == SESSION_NEW_WITH_TOKEN;
    if (session == SESSION_NEW_WITH_TOKEN) {
        config->request_window = 16;
    }
    if (session >= SESSION_NEW_WITH_TOKEN) {
        config->has_token = 1;
        config->token = session == SESSION_TOKEN_BAD ? 999 : 1000;
    }
    if (session == SESSION_TOKEN_GOOD || session == SESSION_TOKEN_BAD) {
        talk->proxy.window = (struct socks6_window){.base = 1000, .size = 8};
    }
}

static void prepare(struct talk *talk, const struct scenario *scenario)
{
    static const struct socks6_stack_option stack = {SOCKS6_LEG_BOTH, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x2000};

    talk_init(talk);
    talk->client_config.command = scenario->command;
    talk->client_config.addr = address(scenario->addr_type);
    talk->client_config.draft = scenario->draft;
    talk->client_config.stack = &stack;
    talk->client_config.stack_count = 1;
    talk->server_config.draft = scenario->draft;
    talk->proxy.code = scenario->code;
    talk->proxy.stack = &stack;
    talk->proxy.stack_count = 1;
    talk->upload = upload;
    talk->upload_len = sizeof upload;
    talk->download = download;
    talk->download_len = sizeof download;
    set_auth(talk, scenario);
    set_session(talk, scenario->session);
}

static void describe(const struct talk *talk, const struct scenario *scenario)
{
    print_error("command %u, address type %u, auth %u, negotiates %d, session %u, draft %u, reply %u\n"
                "upstream cut %zu chunk %zu, downstream cut %zu chunk %zu\nclient:\n%sserver:\n%s",
                scenario->command, scenario->addr_type, scenario->auth, scenario->negotiates, scenario->session,
                scenario->draft, scenario->code, talk->upstream.cut, talk->upstream.chunk, talk->downstream.cut,
                talk->downstream.chunk, talk->client_log.text, talk->server_log.text);
}

/* How the client's log must end, by the rules alone. */
static const char *expected_end(const struct scenario *scenario)
{
    bool inside = scenario->session == SESSION_KNOWN || scenario->session >= SESSION_TOKEN_GOOD;
    bool is_refused = scenario->auth == AUTH_BAD || scenario->auth == AUTH_MISSING;

    if (scenario->session == SESSION_UNKNOWN) {
        return "CLOSE 3 byte=0 the proxy does not know the session invalid\n";
    }
    if (!inside && is_refused) {
        return scenario->negotiates && scenario->auth == AUTH_BAD
                   ? "CLOSE 1 byte=0 the proxy refused username and password\n"
                   : "CLOSE 1 byte=0 authentication failed\n";
    }
    if (scenario->session == SESSION_TOKEN_BAD) {
        return "CLOSE 4 byte=0 the idempotence token was rejected window=1000+8 rejected\n";
    }
    if (scenario->session == SESSION_TOKEN_WITHOUT_WINDOW) {
        return "CLOSE 4 byte=0 the idempotence token was rejected rejected\n";
    }
    if (scenario->addr_type == SOCKS6_ADDR_NAME &&
        (scenario->command == SOCKS6_COMMAND_BIND || scenario->command == SOCKS6_COMMAND_UDP_ASSOCIATE)) {
        return "REPLY 8 addr=0.0.0.0:0\nCLOSE 0 byte=0 the request failed\n";
    }
    if (scenario->code != SOCKS6_REPLY_SUCCESS) {
        return "REPLY 5 addr=198.51.100.7:4000 stack=1.1.1:8192 stack=2.1.1:8192\nCLOSE 0 byte=0 the request failed\n";
    }
    switch (scenario->command) {
    case SOCKS6_COMMAND_NOOP:
        return "REPLY 0 addr=198.51.100.7:4000 stack=1.1.1:8192 stack=2.1.1:8192\nCLOSE 0 byte=0 done\n";
    case SOCKS6_COMMAND_BIND:
        return "SECOND 0 addr=[2001:db8::9]:5000\n";
    case SOCKS6_COMMAND_CONNECT:
    case SOCKS6_COMMAND_UDP_ASSOCIATE:
        break;
    }
    return "REPLY 0 addr=198.51.100.7:4000 stack=1.1.1:8192 stack=2.1.1:8192\n";
}

/* What the client must learn of its session if the Authentication Reply is a success. */
static const char *expected_session(const struct scenario *scenario)
{
    switch (scenario->session) {
    case SESSION_NEW:
    case SESSION_ENDED_AND_NEW:
        return "AUTHENTICATED id=new-id..\n";
    case SESSION_KNOWN:
        return "AUTHENTICATED ok\n";
    case SESSION_NEW_WITH_TOKEN:
        return "AUTHENTICATED id=new-id.. window=1001+8 accepted\n";
    case SESSION_TOKEN_GOOD:
        return "AUTHENTICATED window=1001+8 ok accepted\n";
    case SESSION_NONE:
    case SESSION_NOT_GRANTED:
    case SESSION_UNKNOWN:
    case SESSION_ENDED:
    case SESSION_TOKEN_BAD:
    case SESSION_TOKEN_WITHOUT_WINDOW:
    case SESSION_COUNT:
        break;
    }
    return "AUTHENTICATED\n";
}

static bool ends_with(const char *log, const char *end)
{
    size_t len = strlen(log);

    return len >= strlen(end) && strcmp(log + len - strlen(end), end) == 0;
}

static bool is_outcome_right(const struct talk *talk, const struct scenario *scenario)
{
    const char *end = expected_end(scenario);
    const char *session = expected_session(scenario);
    bool is_authenticated = strncmp(end, "CLOSE", 5) != 0;
    bool is_open = strstr(end, "CLOSE") == NULL;

    if (talk->client_new != 0 || talk->client_error != 0 || talk->server_error != 0 || !talk_is_well_formed(talk)) {
        return false;
    }
    if (!ends_with(talk->client_log.text, end)) {
        return false;
    }
    if (is_authenticated != (strncmp(talk->client_log.text, session, strlen(session)) == 0)) {
        return false;
    }
    if (is_open) { /* everything arrives, in order, once */
        return talk->uploaded_len == sizeof upload && memcmp(talk->uploaded, upload, sizeof upload) == 0 &&
               talk->downloaded_len == sizeof download && memcmp(talk->downloaded, download, sizeof download) == 0;
    }
    /* Nothing reaches a remote host before authentication succeeded. */
    return talk->downloaded_len == 0 && (talk->is_requested || talk->uploaded_len == 0);
}

static void compare(const struct talk *talk, const struct talk *whole, const struct scenario *scenario)
{
    bool same = strcmp(talk->client_log.text, whole->client_log.text) == 0 &&
                strcmp(talk->server_log.text, whole->server_log.text) == 0 && is_outcome_right(talk, scenario);

    if (!same) {
        print_error("in one piece:\n%s%s", whole->client_log.text, whole->server_log.text);
        describe(talk, scenario);
    }
    assert_true(same);
}

static void run_cut(const struct talk *whole, const struct scenario *scenario, struct talk_cut up, struct talk_cut down)
{
    static struct talk talk;

    prepare(&talk, scenario);
    talk.upstream = up;
    talk.downstream = down;
    talk_run(&talk);
    compare(&talk, whole, scenario);
}

static void run(const struct scenario *scenario, bool cuts_everywhere)
{
    const struct talk_cut none = {0};
    static struct talk whole;

    prepare(&whole, scenario);
    talk_run(&whole);
    if (!is_outcome_right(&whole, scenario)) {
        describe(&whole, scenario);
        print_error("expected at the end: %s", expected_end(scenario));
    }
    assert_true(is_outcome_right(&whole, scenario));
    for (size_t chunk = 1; chunk <= (cuts_everywhere ? 40u : 3u); chunk++) {
        run_cut(&whole, scenario, (struct talk_cut){.chunk = chunk}, (struct talk_cut){.chunk = chunk});
    }
    for (size_t cut = 1; cuts_everywhere && cut < whole.up.sent; cut++) {
        run_cut(&whole, scenario, (struct talk_cut){.cut = cut}, none);
    }
    for (size_t cut = 1; cuts_everywhere && cut < whole.down.sent; cut++) {
        run_cut(&whole, scenario, none, (struct talk_cut){.cut = cut});
    }
}

/* Every auth and session for one (command, address type, draft, reply code). */
static void run_all(struct scenario scenario, bool cuts_everywhere)
{
    for (unsigned auth = 0; auth < AUTH_COUNT; auth++) {
        for (unsigned session = 0; session < SESSION_COUNT; session++) {
            for (unsigned negotiates = 0; negotiates < 2; negotiates++) {
                scenario.auth = (enum auth)auth;
                scenario.session = (enum session)session;
                scenario.negotiates = negotiates != 0;
                run(&scenario, cuts_everywhere);
            }
        }
    }
}

static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};
static const uint8_t types[] = {SOCKS6_ADDR_IPV4, SOCKS6_ADDR_NAME, SOCKS6_ADDR_IPV6};

static void run_command(enum socks6_command command)
{
    for (size_t draft = 0; draft < 3; draft++) {
        for (size_t type = 0; type < 3; type++) {
            /* Where the bytes are cut matters to the framing: IPv4 has the least of it, names the most. */
            bool cuts_everywhere = types[type] == SOCKS6_ADDR_NAME && drafts[draft] != SOCKS6_DRAFT_08;

            run_all((struct scenario){.command = command, .addr_type = types[type], .draft = drafts[draft]},
                    cuts_everywhere);
        }
    }
}

static void test_noop_in_every_combination(void **state)
{
    (void)state;
    run_command(SOCKS6_COMMAND_NOOP);
}

static void test_connect_in_every_combination(void **state)
{
    (void)state;
    run_command(SOCKS6_COMMAND_CONNECT);
}

static void test_bind_in_every_combination(void **state)
{
    (void)state;
    run_command(SOCKS6_COMMAND_BIND);
    /* Names end early there, so the cuts through both replies are here. */
    run_all((struct scenario){.command = SOCKS6_COMMAND_BIND, .addr_type = SOCKS6_ADDR_IPV6, .draft = SOCKS6_DRAFT_11},
            true);
}

static void test_udp_associate_in_every_combination(void **state)
{
    (void)state;
    run_command(SOCKS6_COMMAND_UDP_ASSOCIATE);
}

static void test_failed_operations_in_every_combination(void **state)
{
    (void)state;
    for (unsigned command = 0; command <= SOCKS6_COMMAND_UDP_ASSOCIATE; command++) {
        run_all((struct scenario){.command = (enum socks6_command)command,
                                  .addr_type = SOCKS6_ADDR_IPV4,
                                  .draft = SOCKS6_DRAFT_11,
                                  .code = SOCKS6_REPLY_REFUSED},
                false);
    }
}

/* --- Memory --- */

enum side { SERVER_SIDE, CLIENT_SIDE };

/* One run with the n-th allocation refused. Returns how many were asked for. */
static size_t run_starved(const struct scenario *scenario, enum side side, size_t fail_at, bool fail_on)
{
    static struct talk talk;
    struct heap heaps[2];
    size_t limits[2] = {0};

    limits[side] = fail_at;
    prepare(&talk, scenario);
    for (size_t i = 0; i < 2; i++) {
        heap_init(&heaps[i]);
        heaps[i].fail_at = limits[i];
        heaps[i].fail_on = fail_on;
        heaps[i].secret = "secret";
    }
    talk.server_config.allocator = &heaps[SERVER_SIDE].allocator;
    talk.client_config.allocator = &heaps[CLIENT_SIDE].allocator;
    talk_run(&talk);
    if (fail_at != 0) {
        bool is_said = side == SERVER_SIDE
                           ? talk.server_error == SOCKS6_ERR_NOMEM
                           : talk.client_new == SOCKS6_ERR_NOMEM || talk.client_error == SOCKS6_ERR_NOMEM;

        if (!is_said || !talk_is_well_formed(&talk)) {
            describe(&talk, scenario);
        }
        assert_true(is_said);
        assert_true(talk_is_well_formed(&talk));
    } else {
        assert_true(is_outcome_right(&talk, scenario));
    }
    if (fail_at > 1 && side == SERVER_SIDE) { /* the machine existed: both come to an end, each says so */
        assert_true(ends_with(talk.server_log.text, "CLOSE -20 out of memory\n"));
        assert_true(talk.is_client_closed);
    }
    if (side == CLIENT_SIDE && talk.client_new == 0 && fail_at != 0) {
        assert_non_null(strstr(talk.client_log.text, "CLOSE 8 byte=0 out of memory"));
    }
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(heaps[i].blocks, 0);
        assert_int_equal(heaps[i].spilled, 0);
    }
    return heaps[side].requests;
}

static void starve(const struct scenario *scenario, enum side side)
{
    size_t count = run_starved(scenario, side, 0, false);

    assert_true(count > 0);
    for (size_t n = 1; n <= count; n++) {
        (void)run_starved(scenario, side, n, false);
        (void)run_starved(scenario, side, n, true);
    }
}

static void starve_all(enum side side)
{
    for (unsigned command = 0; command <= SOCKS6_COMMAND_UDP_ASSOCIATE; command++) {
        for (unsigned auth = 0; auth < AUTH_COUNT; auth++) {
            for (unsigned session = 0; session < SESSION_COUNT; session++) {
                for (unsigned negotiates = 0; negotiates < 2; negotiates++) {
                    struct scenario scenario = {.command = (enum socks6_command)command,
                                                .addr_type = SOCKS6_ADDR_IPV6,
                                                .auth = (enum auth)auth,
                                                .session = (enum session)session,
                                                .negotiates = negotiates != 0,
                                                .draft = SOCKS6_DRAFT_11};

                    starve(&scenario, side);
                    scenario.addr_type = SOCKS6_ADDR_NAME;
                    starve(&scenario, side);
                }
            }
        }
    }
}

static void test_server_survives_each_refused_allocation(void **state)
{
    (void)state;
    starve_all(SERVER_SIDE);
}

static void test_client_survives_each_refused_allocation(void **state)
{
    (void)state;
    starve_all(CLIENT_SIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noop_in_every_combination),
        cmocka_unit_test(test_connect_in_every_combination),
        cmocka_unit_test(test_bind_in_every_combination),
        cmocka_unit_test(test_udp_associate_in_every_combination),
        cmocka_unit_test(test_failed_operations_in_every_combination),
        cmocka_unit_test(test_server_survives_each_refused_allocation),
        cmocka_unit_test(test_client_survives_each_refused_allocation),
    };

    return cmocka_run_group_tests_name("talk", tests, NULL, NULL);
}
