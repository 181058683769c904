#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "proxyd/token_window.h"

static void open_window(struct token_window *window, uint32_t base, uint32_t size)
{
    assert_int_equal(token_window_init(window, base, size), 0);
}

static void assert_base(const struct token_window *window, uint32_t base)
{
    struct socks6_window view = token_window_view(window);

    assert_int_equal(view.base, base);
    assert_int_equal(view.size, window->size);
}

static void test_a_token_is_spent_once(void **state)
{
    struct token_window window;

    (void)state;
    open_window(&window, 100, 10);
    assert_true(token_window_spend(&window, 103));
    assert_false(token_window_spend(&window, 103));
    assert_base(&window, 100);
    token_window_done(&window);
    assert_int_equal(token_window_view(&window).size, 0);
}

static void test_tokens_outside_are_rejected(void **state)
{
    struct token_window window;

    (void)state;
    open_window(&window, 100, 10);
    assert_false(token_window_spend(&window, 99));
    assert_false(token_window_spend(&window, 110));
    assert_false(token_window_spend(&window, 100 + (UINT32_C(1) << 31)));
    assert_false(token_window_spend(&window, 0));
    assert_false(token_window_spend(&window, UINT32_MAX));
    assert_true(token_window_spend(&window, 109)); /* the last one inside: and more than half a window ahead */
    assert_base(&window, 104);
    token_window_done(&window);
}

static void test_the_base_slides_past_leading_spent_tokens(void **state)
{
    struct token_window window;

    (void)state;
    open_window(&window, 0, 10);
    assert_true(token_window_spend(&window, 1));
    assert_true(token_window_spend(&window, 2));
    assert_true(token_window_spend(&window, 4));
    assert_base(&window, 0);
    assert_true(token_window_spend(&window, 0));
    assert_base(&window, 3);
    assert_false(token_window_spend(&window, 2));
    assert_true(token_window_spend(&window, 3));
    assert_base(&window, 5);
    assert_true(token_window_spend(&window, 8)); /* what the slide made room for is unspent */
    assert_false(token_window_spend(&window, 15));
    token_window_done(&window);
}

/* Exactly half a window ahead does not move the base; one more does, and what it skips is spent. */
static void test_the_base_follows_at_half_a_window(void **state)
{
    struct token_window window;

    (void)state;
    open_window(&window, 0, 8);
    assert_true(token_window_spend(&window, 4));
    assert_base(&window, 0);
    assert_true(token_window_spend(&window, 6));
    assert_base(&window, 2);
    assert_false(token_window_spend(&window, 0));
    assert_false(token_window_spend(&window, 1));
    assert_true(token_window_spend(&window, 2));
    assert_base(&window, 3);
    token_window_done(&window);
}

static void test_a_window_of_one_goes_on_by_one(void **state)
{
    struct token_window window;

    (void)state;
    open_window(&window, UINT32_MAX - 2, 1);
    for (uint32_t i = 0; i < 6; i++) {
        assert_false(token_window_spend(&window, UINT32_MAX - 1 + i));
        assert_true(token_window_spend(&window, UINT32_MAX - 2 + i));
        assert_base(&window, UINT32_MAX - 1 + i);
    }
    token_window_done(&window);
}

/*
 * The rules as they are written, over numbers that do not wrap: token t of the model is base0 + t on the wire. Random
 * tokens near the window, every verdict and every base compared.
 */
enum { MODEL_TOKENS = 20000 };

static void compare_with_model(uint32_t base0, uint32_t size, unsigned spends, unsigned seed)
{
    bool *spent = calloc(MODEL_TOKENS, sizeof *spent);
    struct token_window window;
    uint32_t base = 0, highest = 0;

    assert_non_null(spent);
    open_window(&window, base0, size);
    srand(seed);
    for (unsigned i = 0; i < spends && base + 2 * size < MODEL_TOKENS; i++) {
        uint32_t token = base + (uint32_t)rand() % (size + size / 4 + 2);
        bool wanted = token < base + size && !spent[token];

        if (i % 7 == 0 && base > 0) {
            token = base - 1;
            wanted = false;
        }
        assert_int_equal(token_window_spend(&window, base0 + token), wanted);
        if (wanted) {
            spent[token] = true;
            highest = token > highest ? token : highest;
            if (highest > base && highest - base > size / 2) {
                base = highest - size / 2;
            }
            while (spent[base]) {
                base++;
            }
        }
        assert_base(&window, base0 + base);
    }
    token_window_done(&window);
    free(spent);
}

static void test_any_size_and_base_behaves_as_written(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 7, 63, 64, 65, 128, 1000, TOKEN_WINDOW_MAX};
    static const uint32_t bases[] = {0, 1, UINT32_MAX, UINT32_MAX - 500, UINT32_C(1) << 31, (UINT32_C(1) << 31) - 100};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof bases / sizeof *bases; j++) {
            compare_with_model(bases[j], sizes[i], 3000, (unsigned)(i * 10 + j + 1));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_is_spent_once),
        cmocka_unit_test(test_tokens_outside_are_rejected),
        cmocka_unit_test(test_the_base_slides_past_leading_spent_tokens),
        cmocka_unit_test(test_the_base_follows_at_half_a_window),
        cmocka_unit_test(test_a_window_of_one_goes_on_by_one),
        cmocka_unit_test(test_any_size_and_base_behaves_as_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
