/* wire/stack: which Stack options are taken, what becomes of legs, values and duplicates. */
#include "wire/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "wire/option_internal.h"

enum { YES = 0x0200, NO = 0x0100 };

/* The table of "Stack Options", written down a second time. */
static const struct {
    uint8_t level;
    uint8_t code;
    bool any_leg;
    bool in_08;
    uint16_t good[4];
    size_t good_count;
    uint16_t bad[4];
    size_t bad_count;
} table[] = {
    {1, 1, true, true, {0x0000, 0xff00}, 2, {0}, 0},
    {1, 2, false, true, {0x0000, NO, YES}, 3, {0x0300, 0xff00}, 2},
    {1, 3, true, false, {0x0100, 0xff00}, 2, {0x0000, 0x00ff}, 2},
    {1, 4, true, false, {0x0000, NO, YES}, 3, {0x0300}, 1},
    {4, 1, false, true, {0x0000, 0x0001, 0xffff}, 3, {0}, 0},
    {4, 2, false, true, {NO, YES}, 2, {0x0000, 0x0300}, 2},
    {4, 3, false, true, {0x0000, 0x0001, 0xffff}, 3, {0}, 0},
    {5, 1, false, false, {0x0000, NO, YES}, 3, {0x0300}, 1},
    {5, 2, false, false, {0x0000, 0x0101, 0x0200, 0x0201}, 4, {0x0300, 0x0002, 0x01ff}, 3},
};

#define ROWS (sizeof table / sizeof table[0])

/* The row of (level, code), or ROWS. */
static size_t row_of(unsigned level, unsigned code)
{
    size_t i = 0;

    while (i < ROWS && (table[i].level != level || table[i].code != code)) {
        i++;
    }
    return i;
}

static bool add(struct s6_options *options, uint8_t leg, uint8_t level, uint8_t code, uint16_t value)
{
    const struct socks6_stack_option option = {leg, level, code, value};

    return s6_options_add_stack(options, &option);
}

static uint16_t value_of(const struct s6_options *options, uint8_t leg, uint8_t level, uint8_t code)
{
    const struct socks6_stack_option *option = s6_stack_find(options->stack, options->stack_count, leg, level, code);

    assert_non_null(option);
    return option->value;
}

static void test_only_known_levels_codes_and_legs_are_taken(void **state)
{
    (void)state;
    for (unsigned leg = 0; leg <= 255; leg++) {
        for (unsigned level = 0; level <= 255; level++) {
            for (unsigned code = 0; code < 8; code++) {
                size_t row = row_of(level, code);
                bool good = row < ROWS && (leg == 2 || (table[row].any_leg && (leg == 1 || leg == 3)));
                struct s6_options options;

                s6_options_init(&options);
                assert_int_equal(add(&options, (uint8_t)leg, (uint8_t)level, (uint8_t)code,
                                     row < ROWS ? table[row].good[0] : 0x0100),
                                 good);
                assert_int_equal(options.stack_count, good ? (leg == 3 ? 2 : 1) : 0);
            }
        }
    }
}

static void test_values_have_their_ranges(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < table[i].good_count; j++) {
            struct s6_options options;

            s6_options_init(&options);
            assert_true(add(&options, 2, table[i].level, table[i].code, table[i].good[j]));
            assert_int_equal(value_of(&options, 2, table[i].level, table[i].code), table[i].good[j]);
        }
        for (size_t j = 0; j < table[i].bad_count; j++) {
            struct s6_options options;

            s6_options_init(&options);
            assert_false(add(&options, 2, table[i].level, table[i].code, table[i].bad[j]));
            assert_int_equal(options.stack_count, 0);
        }
    }
}

static void test_padding_is_zeroed_and_numbers_are_kept(void **state)
{
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    assert_true(add(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x10ff));
    assert_int_equal(value_of(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS), 0x1000);
    assert_true(add(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS, 0x0001));
    assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS), 0);
    assert_true(add(&options, 2, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 0x10ff));
    assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN), 0x10ff);
}

static void test_all_fit_and_are_sorted(void **state)
{
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    for (size_t i = ROWS; i > 0; i--) { /* the wrong way round */
        assert_true(
            add(&options, table[i - 1].any_leg ? 3 : 2, table[i - 1].level, table[i - 1].code, table[i - 1].good[1]));
    }
    assert_int_equal(options.stack_count, 12);
    for (size_t i = 1; i < options.stack_count; i++) {
        const struct socks6_stack_option *a = &options.stack[i - 1];
        const struct socks6_stack_option *b = &options.stack[i];

        assert_true(a->level < b->level || (a->level == b->level && a->code < b->code) ||
                    (a->level == b->level && a->code == b->code && a->leg < b->leg));
    }
    assert_true(s6_stack_is_canonical(options.stack, options.stack_count));
    for (size_t i = 0; i < ROWS; i++) { /* full: nothing new comes in */
        assert_false(add(&options, table[i].any_leg ? 3 : 2, table[i].level, table[i].code, table[i].good[0]));
    }
    assert_int_equal(options.stack_count, 12);
}

static void test_first_of_each_leg_wins(void **state)
{
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    assert_true(add(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0x2000));
    assert_false(add(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0x4000));
    assert_true(add(&options, 3, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0x4000)); /* leg 1 was free */
    assert_false(add(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0x0100));
    assert_int_equal(value_of(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL), 0x4000);
    assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL), 0x2000);
    assert_int_equal(options.stack_count, 2);
}

static void test_find_wants_all_three(void **state)
{
    struct s6_options options;

    (void)state;
    s6_options_init(&options);
    assert_null(s6_stack_find(options.stack, 0, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS));
    assert_true(add(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0x1000));
    assert_non_null(s6_stack_find(options.stack, 1, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS));
    assert_null(s6_stack_find(options.stack, 1, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS));
    assert_null(s6_stack_find(options.stack, 1, 1, SOCKS6_LEVEL_TCP, SOCKS6_IP_TOS));
    assert_null(s6_stack_find(options.stack, 1, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL));
}

static void test_canonical_is_what_add_leaves(void **state)
{
    struct socks6_stack_option pair[2] = {{1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0},
                                          {2, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0}};
    const struct socks6_stack_option good = pair[0];

    (void)state;
    assert_true(s6_stack_is_canonical(pair, 2));
    pair[0] = pair[1];
    assert_false(s6_stack_is_canonical(pair, 2)); /* twice the same */
    pair[1] = good;
    assert_false(s6_stack_is_canonical(pair, 2)); /* order */
    pair[0] = good;
    pair[0].leg = 3;
    assert_false(s6_stack_is_canonical(pair, 1));
    pair[0] = good;
    pair[0].value = 1; /* padding */
    assert_false(s6_stack_is_canonical(pair, 1));
    pair[0] = good;
    pair[0].code = 9;
    assert_false(s6_stack_is_canonical(pair, 1));
    pair[0] = (struct socks6_stack_option){1, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 0}; /* leg */
    assert_false(s6_stack_is_canonical(pair, 1));
    pair[0] = (struct socks6_stack_option){2, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, 0}; /* value */
    assert_false(s6_stack_is_canonical(pair, 1));
}

/* Everything there is, availabilities with `value`. */
static struct s6_options all_with(uint16_t value)
{
    struct s6_options options;

    s6_options_init(&options);
    for (size_t i = 0; i < ROWS; i++) {
        bool is_availability = table[i].good_count == 3 && table[i].good[1] == NO;

        assert_true(add(&options, 2, table[i].level, table[i].code, is_availability ? value : table[i].good[1]));
    }
    return options;
}

static void test_draft_08_has_fewer_options_and_no_values(void **state)
{
    struct s6_options options = all_with(YES);

    (void)state;
    s6_options_fit_draft(&options, SOCKS6_DRAFT_08);
    for (size_t i = 0; i < ROWS; i++) {
        const struct socks6_stack_option *found =
            s6_stack_find(options.stack, options.stack_count, 2, table[i].level, table[i].code);

        assert_int_equal(found != NULL, table[i].in_08);
    }
    assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS), 0);
    assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN), 1);
    assert_true(s6_stack_is_canonical(options.stack, options.stack_count));

    options = all_with(NO); /* which -08 cannot say: absence is its "no" */
    s6_options_fit_draft(&options, SOCKS6_DRAFT_08);
    assert_null(s6_stack_find(options.stack, options.stack_count, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS));
    assert_int_equal(options.stack_count, 4);
}

static void test_later_drafts_state_their_values(void **state)
{
    static const enum socks6_draft later[] = {SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct s6_options options = all_with(0);

        s6_options_fit_draft(&options, later[i]);
        assert_int_equal(options.stack_count, ROWS);
        assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS), YES);
        assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_NO_FRAGMENTATION), YES);
        assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_UDP, SOCKS6_UDP_ERROR), YES);
        options = all_with(NO);
        s6_options_fit_draft(&options, later[i]);
        assert_int_equal(value_of(&options, 2, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS), NO);
        assert_true(add(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, 0));
        s6_options_fit_draft(&options, later[i]);
        assert_int_equal(value_of(&options, 1, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS), 0); /* a value, not an absence */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_known_levels_codes_and_legs_are_taken),
        cmocka_unit_test(test_values_have_their_ranges),
        cmocka_unit_test(test_padding_is_zeroed_and_numbers_are_kept),
        cmocka_unit_test(test_all_fit_and_are_sorted),
        cmocka_unit_test(test_first_of_each_leg_wins),
        cmocka_unit_test(test_find_wants_all_three),
        cmocka_unit_test(test_canonical_is_what_add_leaves),
        cmocka_unit_test(test_draft_08_has_fewer_options_and_no_values),
        cmocka_unit_test(test_later_drafts_state_their_values),
    };

    return cmocka_run_group_tests_name("wire/stack", tests, NULL, NULL);
}
