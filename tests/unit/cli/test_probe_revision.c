#include "cli/probe_revision.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct probe_report report;
static struct probe_observations seen;

static int setup(void **state)
{
    (void)state;
    probe_report_init(&report);
    probe_observations_init(&seen);
    return 0;
}

static void conclude(uint8_t first, uint8_t last)
{
    const struct probe_row *row = &report.rows[PROBE_ROW_DRAFT];

    probe_revision_conclude(&seen, &report);
    assert_int_equal(row->list_count, last - first + 1);
    for (uint8_t draft = first; draft <= last; draft++) {
        assert_int_equal(row->list[draft - first], draft);
    }
}

static void test_nothing_seen_tells_nothing(void **state)
{
    (void)state;
    conclude(8, 12);
    assert_int_equal(report.rows[PROBE_ROW_DRAFT].state, PROBE_UNKNOWN);
}

static void test_each_observation_narrows(void **state)
{
    (void)state;
    seen.ttl_answered = true;
    conclude(9, 12);
    assert_string_equal(report.rows[PROBE_ROW_DRAFT].text, "-09 to -12: TTL is answered");
    seen.port_parity_answered = true;
    conclude(10, 12);
    seen.happy_eyeballs = 2;
    conclude(11, 12);
    assert_int_equal(report.rows[PROBE_ROW_DRAFT].state, PROBE_YES);
    seen.refuses_names_12 = true;
    conclude(11, 11);
    assert_string_equal(report.rows[PROBE_ROW_DRAFT].text,
                        "-11: Happy Eyeballs is answered with a value; names are read in the form up to -11 only");
}

static void test_padding_is_told_from_availability(void **state)
{
    (void)state;
    seen.happy_eyeballs = 0;
    conclude(8, 10);
    seen.udp_error = 0;
    conclude(9, 10);
    seen.no_fragmentation = 0;
    conclude(10, 10);
    (void)setup(NULL);
    seen.no_fragmentation = 1;
    conclude(11, 12);
    (void)setup(NULL);
    seen.udp_error = 1;
    conclude(11, 12);
}

static void test_messages_narrow(void **state)
{
    (void)state;
    seen.framing = PROBE_FRAMING_09_ON;
    conclude(9, 12);
    seen.untrusted = true;
    conclude(9, 9);
    (void)setup(NULL);
    seen.framing = PROBE_FRAMING_08;
    conclude(8, 8);
    (void)setup(NULL);
    seen.refuses_names_11 = true;
    conclude(12, 12);
    (void)setup(NULL);
    seen.negotiates_password = true;
    conclude(8, 11);
    (void)setup(NULL);
    seen.refuses_20k = true;
    conclude(8, 11);
}

static void test_contradictions_are_said(void **state)
{
    (void)state;
    seen.framing = PROBE_FRAMING_08;
    seen.happy_eyeballs = 2;
    conclude(1, 0);
    assert_int_equal(report.rows[PROBE_ROW_DRAFT].state, PROBE_UNKNOWN);
    assert_string_equal(report.rows[PROBE_ROW_DRAFT].text,
                        "no single revision does all of this: Happy Eyeballs is answered with a value; a UDP "
                        "association begins with a bare ID");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nothing_seen_tells_nothing, setup),
        cmocka_unit_test_setup(test_each_observation_narrows, setup),
        cmocka_unit_test_setup(test_padding_is_told_from_availability, setup),
        cmocka_unit_test_setup(test_messages_narrow, setup),
        cmocka_unit_test_setup(test_contradictions_are_said, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
