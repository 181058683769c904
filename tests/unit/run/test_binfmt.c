/* Entries of binfmt_misc as the kernel shows them. */
#include "run/binfmt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char found[64];

static bool matches(const char *entry, const char *head, size_t len, const char *path)
{
    found[0] = '\0';
    return binfmt_matches(entry, head, len, path, found, sizeof found);
}

static void test_magic_with_mask_and_offset(void **state)
{
    static const char entry[] = "enabled\ninterpreter /usr/bin/qemu\nflags: OC\noffset 2\nmagic 4142ff\nmask ffff0f\n";

    (void)state;
    assert_true(matches(entry, "..AB\x3f", 5, "/x"));
    assert_string_equal(found, "/usr/bin/qemu");
    assert_false(matches(entry, "..AB\x3e", 5, "/x"));
    assert_false(matches(entry, "..AB", 4, "/x")); /* one byte short */
    assert_false(matches(entry, "AB\x3f", 3, "/x"));
}

static void test_magic_without_mask_matches_exactly(void **state)
{
    static const char entry[] = "enabled\ninterpreter /bin/i\nflags: \noffset 0\nmagic cafebabe\n";

    (void)state;
    assert_true(matches(entry, "\xca\xfe\xba\xbe\x01", 5, "/x"));
    assert_false(matches(entry, "\xca\xfe\xba\xbf\x01", 5, "/x"));
}

static void test_extension_is_what_follows_the_last_dot(void **state)
{
    static const char entry[] = "enabled\ninterpreter /bin/i\nflags: \nextension .py\n";

    (void)state;
    assert_true(matches(entry, "", 0, "/a.b/c.py"));
    assert_false(matches(entry, "", 0, "/a/c.pyc"));
    assert_false(matches(entry, "", 0, "/a/c.py.x"));
    assert_false(matches(entry, "", 0, "/a/cpy"));
}

static void test_disabled_or_unfinished_entries_match_nothing(void **state)
{
    (void)state;
    assert_false(matches("disabled\ninterpreter /bin/i\nflags: \nextension .py\n", "", 0, "a.py"));
    assert_false(matches("enabled\nflags: \nextension .py\n", "", 0, "a.py"));
    assert_false(matches("enabled\ninterpreter /bin/i\nflags: \n", "", 0, "a.py"));
    assert_false(matches("", "", 0, "a.py"));
}

static void test_a_long_interpreter_is_cut_off(void **state)
{
    char room[8];

    (void)state;
    assert_true(binfmt_matches("enabled\ninterpreter /usr/bin/qemu\nextension .x\n", "", 0, "a.x", room, sizeof room));
    assert_string_equal(room, "/usr/bi");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_magic_with_mask_and_offset),
        cmocka_unit_test(test_magic_without_mask_matches_exactly),
        cmocka_unit_test(test_extension_is_what_follows_the_last_dot),
        cmocka_unit_test(test_disabled_or_unfinished_entries_match_nothing),
        cmocka_unit_test(test_a_long_interpreter_is_cut_off),
    };

    return cmocka_run_group_tests_name("run/binfmt", tests, NULL, NULL);
}
