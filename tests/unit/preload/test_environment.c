/* Which environment a program is started with. */
#include "preload/environment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VARIABLE "SOCKS6_RUN=1:00112233445566778899aabbccddeeff:00112233445566778899aabbccddeeff:v"
#define INNER "SOCKS6_RUN=1:ffffffffffffffffffffffffffffffff:ffffffffffffffffffffffffffffffff:"
#define PRELOAD "LD_PRELOAD=/usr/lib/socks6/libsocks6-preload.so"

static struct preload_config config;

static int set_up(void **state)
{
    (void)state;
    strcpy(config.variable, VARIABLE);
    strcpy(config.preload, PRELOAD);
    return 0;
}

/* All entries, with a space between. */
static const char *become(char *const envp[])
{
    static char out[8192];
    struct environment_plan plan;
    char **entries, *text;

    environment_look(envp, &config, &plan);
    if (plan.is_complete) {
        return "as it is";
    }
    entries = malloc(plan.count * sizeof *entries); /* as much as it asked for, for the sanitizer */
    text = malloc(plan.text_len);
    assert_non_null(entries);
    assert_non_null(text);
    environment_fill(&plan, envp, &config, entries, text);
    out[0] = '\0';
    for (char **it = entries; *it != NULL; it++) {
        strcat(strcat(out, it == entries ? "" : " "), *it);
    }
    free(entries);
    free(text);
    return out;
}

static char a[] = "A=1", b[] = "B=2", ours[] = VARIABLE, preload[] = PRELOAD;

static void test_a_complete_one_is_used_as_it_is(void **state)
{
    char both[] = PRELOAD ":/lib/other.so", spaced[] = PRELOAD " /lib/other.so", inner[] = INNER;

    (void)state;
    assert_string_equal(become((char *[]){a, ours, preload, b, NULL}), "as it is");
    assert_string_equal(become((char *[]){ours, both, NULL}), "as it is");
    assert_string_equal(become((char *[]){ours, spaced, NULL}), "as it is");
    assert_string_equal(become((char *[]){inner, preload, NULL}), "as it is"); /* socks6 run under socks6 run */
}

static void test_an_empty_one_gets_both(void **state)
{
    (void)state;
    assert_string_equal(become((char *[]){NULL}), VARIABLE " " PRELOAD);
    assert_string_equal(become(NULL), VARIABLE " " PRELOAD);
    assert_string_equal(become((char *[]){a, b, NULL}), "A=1 B=2 " VARIABLE " " PRELOAD);
}

static void test_other_libraries_stay_behind_ours(void **state)
{
    char theirs[] = "LD_PRELOAD=/lib/x.so:/lib/y.so", empty[] = "LD_PRELOAD=", longer[] = PRELOAD ".old";
    char colon[] = "LD_PRELOAD=:/lib/x.so";

    (void)state;
    assert_string_equal(become((char *[]){ours, theirs, NULL}), VARIABLE " " PRELOAD ":/lib/x.so:/lib/y.so");
    assert_string_equal(become((char *[]){ours, empty, NULL}), VARIABLE " " PRELOAD);
    assert_string_equal(become((char *[]){ours, colon, NULL}), VARIABLE " " PRELOAD ":/lib/x.so");
    assert_string_equal(become((char *[]){ours, longer, NULL}),
                        VARIABLE " " PRELOAD ":/usr/lib/socks6/libsocks6-preload.so.old");
}

static void test_doubles_are_taken_out(void **state)
{
    char theirs[] = "LD_PRELOAD=/lib/x.so";

    (void)state;
    /* The dynamic linker takes the last LD_PRELOAD, getenv(3) the first SOCKS6_RUN. */
    assert_string_equal(become((char *[]){preload, a, ours, theirs, NULL}), "A=1 " VARIABLE " " PRELOAD ":/lib/x.so");
    assert_string_equal(become((char *[]){ours, ours, preload, NULL}), VARIABLE " " PRELOAD);
}

static void test_a_variable_without_sense_is_replaced(void **state)
{
    char empty[] = "SOCKS6_RUN=", other[] = "SOCKS6_RUN=2:0:0:", cut[] = "SOCKS6_RUN=1:0011",
         like[] = "SOCKS6_RUNNER=1";

    (void)state;
    assert_string_equal(become((char *[]){empty, preload, NULL}), VARIABLE " " PRELOAD);
    assert_string_equal(become((char *[]){other, preload, NULL}), VARIABLE " " PRELOAD);
    assert_string_equal(become((char *[]){cut, preload, NULL}), VARIABLE " " PRELOAD);
    assert_string_equal(become((char *[]){like, preload, NULL}), "SOCKS6_RUNNER=1 " VARIABLE " " PRELOAD);
}

static void test_without_a_configuration_nothing_is_lost(void **state)
{
    char theirs[] = "LD_PRELOAD=/lib/x.so";

    (void)state;
    memset(&config, 0, sizeof config);
    assert_string_equal(become((char *[]){a, theirs, ours, NULL}), "as it is");
    strcpy(config.variable, VARIABLE); /* but not our own path, which happens in tests alone */
    assert_string_equal(become((char *[]){a, theirs, NULL}), "A=1 " VARIABLE " LD_PRELOAD=/lib/x.so");
    assert_string_equal(become((char *[]){a, NULL}), "A=1 " VARIABLE);
    (void)set_up(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_complete_one_is_used_as_it_is),
        cmocka_unit_test(test_an_empty_one_gets_both),
        cmocka_unit_test(test_other_libraries_stay_behind_ours),
        cmocka_unit_test(test_doubles_are_taken_out),
        cmocka_unit_test(test_a_variable_without_sense_is_replaced),
        cmocka_unit_test(test_without_a_configuration_nothing_is_lost),
    };

    return cmocka_run_group_tests_name("preload/environment", tests, set_up, NULL);
}
