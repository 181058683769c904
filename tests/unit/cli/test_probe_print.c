#include "cli/probe_print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct probe_report report;

static int setup(void **state)
{
    (void)state;
    probe_report_init(&report);
    return 0;
}

static char *print(void (*printer)(FILE *, const struct probe_report *))
{
    static char *text; /* static: gcc 12 takes pointers into the text for pointers to this one */
    static size_t len;
    FILE *stream = open_memstream(&text, &len);

    assert_non_null(stream);
    printer(stream, &report);
    assert_int_equal(fclose(stream), 0);
    assert_non_null(text);
    return text;
}

static void test_json_escapes_every_byte(void **state)
{
    char *text;

    (void)state;
    (void)snprintf(report.summary, sizeof report.summary, "a\"b\\c\n\x01\x7f\xc3\xa4</");
    text = print(probe_print_json);
    assert_non_null(strstr(text, "\"summary\":\"a\\\"b\\\\c\\u000a\\u0001\\u007f\\u00c3\\u00a4</\","));
    free(text);
}

static void test_json_has_numbers_or_null(void **state)
{
    char *text;

    (void)state;
    probe_set(&report, PROBE_ROW_NOOP, PROBE_YES, "%s", "success");
    probe_set_value(&report, PROBE_ROW_NOOP, 0);
    probe_set_time(&report, PROBE_ROW_NOOP, 1500, 250);
    probe_set_time(&report, PROBE_ROW_CONNECT, 20, 0);
    probe_list_add(&report, PROBE_ROW_METHODS_5, 0);
    probe_list_add(&report, PROBE_ROW_METHODS_5, 255);
    text = print(probe_print_json);
    assert_non_null(strstr(text, "\"command.noop\":{\"state\":\"yes\",\"text\":\"success\",\"value\":0,\"ms\":1.500,"
                                 "\"round_trips\":6.00}"));
    assert_non_null(strstr(text, "\"command.connect\":{\"state\":\"skipped\",\"text\":\"not asked\",\"value\":null,"
                                 "\"ms\":0.020,\"round_trips\":null}"));
    assert_non_null(strstr(text, "\"list\":[0,255]}"));
    assert_non_null(strstr(text,
                           "\"command.bind\":{\"state\":\"skipped\",\"text\":\"not asked\",\"value\":null,\"ms\":null,"
                           "\"round_trips\":null}"));
    free(text);
}

static void test_keys_are_there_once(void **state)
{
    char *text = print(probe_print_json);

    (void)state;
    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        char key[64];
        const char *found;

        (void)snprintf(key, sizeof key, "\"%s\":{", probe_row_names[i].key);
        found = strstr(text, key);
        assert_non_null(found);
        assert_null(strstr(text + (size_t)(found - text) + 1, key));
    }
    free(text);
}

static void test_table_leaves_out_groups_that_were_not_asked(void **state)
{
    char *text;

    (void)state;
    (void)snprintf(report.proxy, sizeof report.proxy, "h:1");
    (void)snprintf(report.summary, sizeof report.summary, "fine");
    probe_set(&report, PROBE_ROW_SOCKS5, PROBE_NO, "silent");
    text = print(probe_print_table);
    assert_string_equal(text, "h:1: fine.\n"
                              "\n"
                              "Versions\n"
                              "  SOCKS 6                  -        not asked\n"
                              "  SOCKS 5                  no       silent\n"
                              "  SOCKS 4a                 -        not asked\n"
                              "  SOCKS 4                  -        not asked\n");
    free(text);
}

static void test_titles_fit_the_column(void **state)
{
    (void)state;
    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        assert_true(strlen(probe_row_names[i].title) <= 24);
    }
}

static void test_long_texts_are_cut(void **state)
{
    char longer[2 * PROBE_TEXT_MAX];

    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    probe_set(&report, PROBE_ROW_TCP, PROBE_YES, "%s", longer);
    assert_int_equal(strlen(report.rows[PROBE_ROW_TCP].text), PROBE_TEXT_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_json_escapes_every_byte, setup),
        cmocka_unit_test_setup(test_json_has_numbers_or_null, setup),
        cmocka_unit_test_setup(test_keys_are_there_once, setup),
        cmocka_unit_test_setup(test_table_leaves_out_groups_that_were_not_asked, setup),
        cmocka_unit_test_setup(test_titles_fit_the_column, setup),
        cmocka_unit_test_setup(test_long_texts_are_cut, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
