#include "cli/probe_verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct probe_report report;
static struct probe_facts facts;

static int setup(void **state)
{
    (void)state;
    probe_report_init(&report);
    memset(&facts, 0, sizeof facts);
    facts.is_reached = true;
    report.target_is_default = true;
    (void)snprintf(report.target, sizeof report.target, "t:1");
    return 0;
}

static void verdict(enum socks6_scheme scheme, bool any_version, int exit_status, const char *summary)
{
    probe_verdict(&facts, scheme, any_version, &report);
    assert_string_equal(report.summary, summary);
    assert_int_equal(report.exit_status, exit_status);
}

static void test_a_proxy_that_connects_is_0(void **state)
{
    (void)state;
    facts.socks6.progress = PROBE_REPLIED;
    verdict(SOCKS6_SCHEME_SOCKS6, false, 0, "this is a SOCKS 6 proxy, and can be used");
    assert_int_equal(report.kind, PROBE_KIND_SOCKS6);
}

static void test_a_target_that_fails_is_1(void **state)
{
    (void)state;
    report.target_is_default = false;
    facts.socks6 = (struct probe_progress_of){PROBE_REPLIED, 5, "connection refused"};
    verdict(SOCKS6_SCHEME_SOCKS6, false, 1,
            "this is a SOCKS 6 proxy, but does not connect to t:1: connection refused (reply 5)");
}

static void test_itself_refused_is_0_unless_connect_is_not_there(void **state)
{
    (void)state;
    facts.socks6 = (struct probe_progress_of){PROBE_REPLIED, 2, "not allowed"};
    verdict(SOCKS6_SCHEME_SOCKS6, false, 0,
            "this is a SOCKS 6 proxy, and answers; to itself it does not connect: not allowed (reply 2). Name a "
            "--target to see more");
    facts.socks6.code = 7;
    verdict(SOCKS6_SCHEME_SOCKS6, false, 1, "this is a SOCKS 6 proxy, but does not offer CONNECT");
}

static void test_logins_are_3(void **state)
{
    (void)state;
    facts.socks5.progress = PROBE_LOGIN_WANTED;
    verdict(SOCKS6_SCHEME_SOCKS5H, false, 3,
            "this is a SOCKS 5 proxy, and wants a login, which the proxy's URL does not give");
    facts.socks5.progress = PROBE_LOGIN_FAILED;
    verdict(SOCKS6_SCHEME_SOCKS5H, false, 3, "this is a SOCKS 5 proxy, and refuses this user name and password");
    facts.socks5.progress = PROBE_SPOKEN;
    verdict(SOCKS6_SCHEME_SOCKS5H, false, 3, "this is a SOCKS 5 proxy, but does not answer a CONNECT as it should");
}

static void test_another_version_is_3_unless_any_will_do(void **state)
{
    (void)state;
    facts.socks5.progress = PROBE_REPLIED;
    verdict(SOCKS6_SCHEME_SOCKS6, false, 3,
            "this is a SOCKS 5 proxy, and does not speak SOCKS 6; name it by socks5h://");
    verdict(SOCKS6_SCHEME_SOCKS6, true, 0, "this is a SOCKS 5 proxy, and can be used");
    (void)setup(NULL);
    facts.speaks_socks4 = true;
    verdict(SOCKS6_SCHEME_SOCKS6, true, 3, "this is a SOCKS 4 proxy, and does not speak SOCKS 6");
    (void)setup(NULL);
    facts.socks6.progress = PROBE_REPLIED;
    verdict(SOCKS6_SCHEME_SOCKS5H, false, 3,
            "this is a SOCKS 6 proxy, and does not speak SOCKS 5; name it by socks6://");
}

static void test_strangers_are_3(void **state)
{
    (void)state;
    report.kind = PROBE_KIND_WEB;
    verdict(SOCKS6_SCHEME_SOCKS6, false, 3, "this is a web server, not a SOCKS proxy");
    report.kind = PROBE_KIND_OTHER;
    (void)snprintf(facts.first_bytes, sizeof facts.first_bytes, "moo");
    verdict(SOCKS6_SCHEME_SOCKS6, false, 3,
            "this is not a SOCKS proxy, and nothing else that is known here; it says \"moo\"");
    facts.begins_as_socks6 = true;
    probe_set(&report, PROBE_ROW_SOCKS6, PROBE_BROKEN, "bad");
    verdict(SOCKS6_SCHEME_SOCKS6, false, 3,
            "this begins to answer as a SOCKS 6 proxy does, and breaks the protocol: bad");
    facts.is_reached = false;
    facts.unreached = "no route";
    verdict(SOCKS6_SCHEME_SOCKS6, false, 3, "this cannot be reached: no route");
}

static void test_defects_and_lack_of_time_are_1(void **state)
{
    (void)state;
    facts.socks6.progress = PROBE_REPLIED;
    probe_set(&report, PROBE_ROW_TOKENS, PROBE_BROKEN, "x");
    verdict(SOCKS6_SCHEME_SOCKS6, false, 1, "this is a SOCKS 6 proxy, and can be used; 1 answer breaks the protocol");
    probe_set(&report, PROBE_ROW_BIND, PROBE_BROKEN, "x");
    report.complete = false;
    verdict(SOCKS6_SCHEME_SOCKS6, false, 1,
            "this is a SOCKS 6 proxy, and can be used; 2 answers break the protocol; the time ran out before all was "
            "asked");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_proxy_that_connects_is_0, setup),
        cmocka_unit_test_setup(test_a_target_that_fails_is_1, setup),
        cmocka_unit_test_setup(test_itself_refused_is_0_unless_connect_is_not_there, setup),
        cmocka_unit_test_setup(test_logins_are_3, setup),
        cmocka_unit_test_setup(test_another_version_is_3_unless_any_will_do, setup),
        cmocka_unit_test_setup(test_strangers_are_3, setup),
        cmocka_unit_test_setup(test_defects_and_lack_of_time_are_1, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
