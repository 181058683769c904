#include "proxyd/token_window.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define WORD_BITS 64u

/* The bit of the token `offset` above the base. */
static bool is_spent(const struct token_window *window, uint32_t offset)
{
    uint32_t at = (window->head + offset) % window->size;

    return (window->spent[at / WORD_BITS] >> at % WORD_BITS & 1) != 0;
}

static void set_spent(struct token_window *window, uint32_t offset, bool spent)
{
    uint32_t at = (window->head + offset) % window->size;
    uint64_t bit = UINT64_C(1) << at % WORD_BITS;

    if (spent) {
        window->spent[at / WORD_BITS] |= bit;
    } else {
        window->spent[at / WORD_BITS] &= ~bit;
    }
}

/* Leaves the lowest token behind: its place in the ring becomes that of a token at the far end, which is unspent. */
static void slide_by_one(struct token_window *window)
{
    set_spent(window, 0, false);
    window->head = (window->head + 1) % window->size;
    window->base++; /* modulo 2^32 */
    window->reach--;
}

int token_window_init(struct token_window *window, uint32_t base, uint32_t size)
{
    uint64_t *spent;

    assert(size > 0 && size <= TOKEN_WINDOW_MAX);
    spent = calloc((size + WORD_BITS - 1) / WORD_BITS, sizeof *spent);
    if (spent == NULL) {
        return -ENOMEM;
    }
    *window = (struct token_window){.spent = spent, .base = base, .size = size};
    return 0;
}

void token_window_done(struct token_window *window)
{
    free(window->spent);
    *window = (struct token_window){0};
}

bool token_window_spend(struct token_window *window, uint32_t token)
{
    uint32_t offset = token - window->base; /* modulo 2^32: what lies before the base is far above */

    if (offset >= window->size || is_spent(window, offset)) {
        return false;
    }
    set_spent(window, offset, true);
    if (offset >= window->reach) {
        window->reach = offset + 1;
    }
    while (window->reach > window->size / 2 + 1) {
        slide_by_one(window);
    }
    while (window->reach > 0 && is_spent(window, 0)) {
        slide_by_one(window);
    }
    return true;
}

struct socks6_window token_window_view(const struct token_window *window)
{
    return (struct socks6_window){.base = window->base, .size = window->size};
}
