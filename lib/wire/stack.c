/*
 * Stack options ("Stack Options"): which there are, what their values may be, and the rules for legs and duplicates.
 *
 * Everything known about an option is its row in the table; a new option is a new row.
 */
#include "wire/option.h"

#include <assert.h>
#include <string.h>

#include "wire/option_internal.h"

/* How to read the two value bytes. */
enum shape {
    SHAPE_BYTE,  /* the first counts and has a range, the second is padding */
    SHAPE_WORD,  /* both are one number, any */
    SHAPE_PARITY /* "Port Parity": the first has a range, the second is 0 or 1 */
};

struct row {
    uint8_t level;
    uint8_t code;
    bool both_legs; /* any leg; else proxy-remote only */
    enum shape shape;
    uint8_t first_min; /* range of the first value byte; 0 for availabilities is the form up to -10 */
    uint8_t first_max;
    bool in_draft_08; /* known to -08 */
};

/* By level, code: the order in which they are kept and written. */
static const struct row rows[] = {
    {SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, true, SHAPE_BYTE, 0, 255, true},
    {SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS, false, SHAPE_BYTE, 0, SOCKS6_AVAILABILITY_YES, true},
    {SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, true, SHAPE_BYTE, 1, 255, false},
    {SOCKS6_LEVEL_IP, SOCKS6_IP_NO_FRAGMENTATION, true, SHAPE_BYTE, 0, SOCKS6_AVAILABILITY_YES, false},
    {SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, false, SHAPE_WORD, 0, 0, true},
    {SOCKS6_LEVEL_TCP, SOCKS6_TCP_MULTIPATH, false, SHAPE_BYTE, SOCKS6_AVAILABILITY_NO, SOCKS6_AVAILABILITY_YES, true},
    {SOCKS6_LEVEL_TCP, SOCKS6_TCP_LISTEN_BACKLOG, false, SHAPE_WORD, 0, 0, true},
    {SOCKS6_LEVEL_UDP, SOCKS6_UDP_ERROR, false, SHAPE_BYTE, 0, SOCKS6_AVAILABILITY_YES, false},
    {SOCKS6_LEVEL_UDP, SOCKS6_UDP_PORT_PARITY, false, SHAPE_PARITY, 0, SOCKS6_PARITY_ODD, false},
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])
/* Three rows have two legs. */
static_assert(ROW_COUNT + 3 <= SOCKS6_STACK_MAX, "one of each must fit");

static const struct row *find_row(uint8_t level, uint8_t code)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].level == level && rows[i].code == code) {
            return &rows[i];
        }
    }
    return NULL;
}

/* The value without what padding may hold; false if it is out of range. */
static bool clean_value(const struct row *row, uint16_t value, uint16_t *out)
{
    uint8_t first = SOCKS6_STACK_FIRST(value);
    bool in_range = first >= row->first_min && first <= row->first_max;

    switch (row->shape) {
    case SHAPE_BYTE:
        *out = SOCKS6_STACK_VALUE(first, 0);
        return in_range;
    case SHAPE_WORD:
        *out = value;
        return true;
    case SHAPE_PARITY:
        *out = value;
        return in_range && SOCKS6_STACK_SECOND(value) <= 1;
    }
    return false;
}

/* Below, equal to or above 0 as `a` stands before, at or behind `b` in the canonical order. */
static int compare(const struct socks6_stack_option *a, const struct socks6_stack_option *b)
{
    if (a->level != b->level) {
        return a->level - b->level;
    }
    if (a->code != b->code) {
        return a->code - b->code;
    }
    return a->leg - b->leg;
}

/* Puts a clean option of one leg into its place, unless there is one already. */
static bool insert(struct s6_options *options, const struct socks6_stack_option *option)
{
    size_t at = 0;

    while (at < options->stack_count && compare(&options->stack[at], option) < 0) {
        at++;
    }
    if (at < options->stack_count && compare(&options->stack[at], option) == 0) {
        return false;
    }
    assert(options->stack_count < SOCKS6_STACK_MAX);
    memmove(&options->stack[at + 1], &options->stack[at], (options->stack_count - at) * sizeof options->stack[0]);
    options->stack[at] = *option;
    options->stack_count++;
    return true;
}

bool s6_options_add_stack(struct s6_options *options, const struct socks6_stack_option *option)
{
    const struct row *row = find_row(option->level, option->code);
    struct socks6_stack_option clean = {.level = option->level, .code = option->code};
    bool taken = false;

    if (row == NULL || option->leg < SOCKS6_LEG_CLIENT_PROXY || option->leg > SOCKS6_LEG_BOTH ||
        (option->leg != SOCKS6_LEG_PROXY_REMOTE && !row->both_legs) || !clean_value(row, option->value, &clean.value)) {
        return false;
    }
    for (unsigned leg = SOCKS6_LEG_CLIENT_PROXY; leg <= SOCKS6_LEG_PROXY_REMOTE; leg++) {
        clean.leg = (uint8_t)leg;
        if ((option->leg & leg) != 0 && insert(options, &clean)) {
            taken = true;
        }
    }
    return taken;
}

bool s6_stack_is_canonical(const struct socks6_stack_option *stack, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct row *row = find_row(stack[i].level, stack[i].code);
        uint16_t clean;

        if (row == NULL || !clean_value(row, stack[i].value, &clean) || clean != stack[i].value) {
            return false;
        }
        if (stack[i].leg != SOCKS6_LEG_PROXY_REMOTE && (stack[i].leg != SOCKS6_LEG_CLIENT_PROXY || !row->both_legs)) {
            return false;
        }
        if (i > 0 && compare(&stack[i - 1], &stack[i]) >= 0) {
            return false;
        }
    }
    return count <= SOCKS6_STACK_MAX;
}

const struct socks6_stack_option *s6_stack_find(const struct socks6_stack_option *stack, size_t count, uint8_t leg,
                                                uint8_t level, uint8_t code)
{
    for (size_t i = 0; i < count; i++) {
        if (stack[i].leg == leg && stack[i].level == level && stack[i].code == code) {
            return &stack[i];
        }
    }
    return NULL;
}

/* One option in the form of `draft`; false if that has none for it. */
static bool fit_option(struct socks6_stack_option *option, enum socks6_draft draft)
{
    const struct row *row = find_row(option->level, option->code);
    bool had_no_value = row->shape == SHAPE_BYTE && row->first_min == 0 && row->first_max == SOCKS6_AVAILABILITY_YES;

    if (draft == SOCKS6_DRAFT_08) {
        if (!row->in_draft_08 || (had_no_value && SOCKS6_STACK_FIRST(option->value) == SOCKS6_AVAILABILITY_NO)) {
            return false;
        }
        option->value = had_no_value ? 0 : option->value;
    } else if (had_no_value && option->value == 0) {
        option->value = SOCKS6_STACK_VALUE(SOCKS6_AVAILABILITY_YES, 0);
    }
    return true;
}

void s6_options_fit_draft(struct s6_options *options, enum socks6_draft draft)
{
    size_t kept = 0;

    for (size_t i = 0; i < options->stack_count; i++) {
        struct socks6_stack_option option = options->stack[i];

        if (fit_option(&option, draft)) {
            options->stack[kept++] = option;
        }
    }
    options->stack_count = kept;
}
