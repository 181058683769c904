/*
 * See happy_eyeballs.h. Which address is next is looked for anew each time, in one pass over the candidates: what is
 * known (answers, sources) may have changed since the last, and there are at most some dozens.
 */
#include "io/happy_eyeballs.h"

#include <assert.h>
#include <string.h>

#define NONE SIZE_MAX

void happy_eyeballs_init(struct happy_eyeballs *eyeballs, const struct happy_eyeballs_config *config,
                         struct happy_eyeballs_candidate *candidates, size_t size, unsigned outstanding,
                         uint64_t timeout_ms, uint64_t now_ms)
{
    memset(eyeballs, 0, sizeof *eyeballs);
    eyeballs->config = *config;
    eyeballs->candidates = candidates;
    eyeballs->size = size;
    eyeballs->outstanding = outstanding;
    eyeballs->deadline_ms = timeout_ms < UINT64_MAX - now_ms ? now_ms + timeout_ms : UINT64_MAX;
    eyeballs->running_max = config->race ? HAPPY_EYEBALLS_RUNNING_MAX : 1;
    if (eyeballs->config.attempt_delay_ms < HAPPY_EYEBALLS_ATTEMPT_DELAY_MIN_MS) {
        eyeballs->config.attempt_delay_ms = HAPPY_EYEBALLS_ATTEMPT_DELAY_MIN_MS;
    }
    if (eyeballs->config.attempt_delay_ms > HAPPY_EYEBALLS_ATTEMPT_DELAY_MAX_MS) {
        eyeballs->config.attempt_delay_ms = HAPPY_EYEBALLS_ATTEMPT_DELAY_MAX_MS;
    }
}

void happy_eyeballs_remember(struct happy_eyeballs *eyeballs, const struct destination *winner)
{
    eyeballs->has_remembered = true;
    eyeballs->remembered = *winner;
}

void happy_eyeballs_add(struct happy_eyeballs *eyeballs, const struct destination *destination, uint64_t now_ms)
{
    if (eyeballs->count == eyeballs->size) {
        return;
    }
    for (size_t i = 0; i < eyeballs->count; i++) {
        if (destination_equal(&eyeballs->candidates[i].destination, destination)) {
            return;
        }
    }
    if (eyeballs->count == 0) {
        eyeballs->answered_ms = now_ms;
    }
    eyeballs->candidates[eyeballs->count++] = (struct happy_eyeballs_candidate){.destination = *destination};
}

void happy_eyeballs_answered(struct happy_eyeballs *eyeballs, enum happy_eyeballs_family family)
{
    eyeballs->outstanding &= ~(unsigned)family;
}

static uint8_t other_family(uint8_t family)
{
    return family == SOCKS6_ADDR_IPV4 ? SOCKS6_ADDR_IPV6 : SOCKS6_ADDR_IPV4;
}

/* A running attempt ends, `state` is what it came to. */
static void leave(struct happy_eyeballs *eyeballs, size_t index, enum happy_eyeballs_state state)
{
    assert(eyeballs->candidates[index].state == HAPPY_EYEBALLS_RUNNING);
    eyeballs->candidates[index].state = state;
    eyeballs->running--;
}

void happy_eyeballs_connected(struct happy_eyeballs *eyeballs, size_t index)
{
    assert(!eyeballs->has_winner);
    leave(eyeballs, index, HAPPY_EYEBALLS_CONNECTED);
    eyeballs->has_winner = true;
    eyeballs->winner = index;
}

void happy_eyeballs_failed(struct happy_eyeballs *eyeballs, size_t index)
{
    leave(eyeballs, index, HAPPY_EYEBALLS_FAILED);
    eyeballs->at_once = true;
}

void happy_eyeballs_refused(struct happy_eyeballs *eyeballs, size_t index)
{
    happy_eyeballs_failed(eyeballs, index);
    eyeballs->is_exclusive = false;
}

void happy_eyeballs_carries_data(struct happy_eyeballs *eyeballs)
{
    eyeballs->is_exclusive = true;
}

void happy_eyeballs_postpone(struct happy_eyeballs *eyeballs, size_t index)
{
    uint8_t family = eyeballs->candidates[index].destination.family;

    leave(eyeballs, index, HAPPY_EYEBALLS_PENDING);
    assert(eyeballs->running > 0);
    eyeballs->running_max = eyeballs->running;
    eyeballs->started--;
    eyeballs->first_started -= family == eyeballs->first_family;
    eyeballs->last_family = other_family(family); /* so that it is this one's turn again */
}

/* ---- which ---- */

static bool is_pending(const struct happy_eyeballs *eyeballs, size_t index)
{
    return eyeballs->candidates[index].state == HAPPY_EYEBALLS_PENDING;
}

static size_t pending_count(const struct happy_eyeballs *eyeballs)
{
    size_t count = 0;
    for (size_t i = 0; i < eyeballs->count; i++) {
        count += is_pending(eyeballs, i);
    }
    return count;
}

/* The best of the pending ones by address; `family` 0 = of either. Of equal ones the first that came. */
static size_t best(const struct happy_eyeballs *eyeballs, uint8_t family)
{
    size_t found = NONE;
    for (size_t i = 0; i < eyeballs->count; i++) {
        const struct destination *one = &eyeballs->candidates[i].destination;
        if (!is_pending(eyeballs, i) || (family != 0 && one->family != family)) {
            continue;
        }
        if (found == NONE ||
            destination_compare(one, &eyeballs->candidates[found].destination, eyeballs->config.prefer) < 0) {
            found = i;
        }
    }
    return found;
}

/* The pending candidate that won not long ago. */
static size_t find_remembered(const struct happy_eyeballs *eyeballs)
{
    for (size_t i = 0; eyeballs->has_remembered && i < eyeballs->count; i++) {
        if (is_pending(eyeballs, i) && destination_equal(&eyeballs->candidates[i].destination, &eyeballs->remembered)) {
            return i;
        }
    }
    return NONE;
}

/* The next to start; there is one. RFC 8305 section 4: the families take turns. */
static size_t pick(const struct happy_eyeballs *eyeballs)
{
    size_t found = eyeballs->started == 0 ? find_remembered(eyeballs) : NONE;
    if (found == NONE && eyeballs->config.race && eyeballs->started > 0) {
        bool is_first_again = eyeballs->first_started == eyeballs->started &&
                              eyeballs->first_started < eyeballs->config.first_family_count;
        found = best(eyeballs, is_first_again ? eyeballs->first_family : other_family(eyeballs->last_family));
    }
    return found != NONE ? found : best(eyeballs, 0);
}

bool happy_eyeballs_stands_alone(const struct happy_eyeballs *eyeballs, size_t index)
{
    const struct destination *destination = &eyeballs->candidates[index].destination;

    if (eyeballs->running != 1) {
        return false;
    }
    if (eyeballs->outstanding == 0 && pending_count(eyeballs) == 0) {
        return true;
    }
    return eyeballs->started == 1 && eyeballs->has_remembered && destination_equal(destination, &eyeballs->remembered);
}

/* A candidate whose source is still to be asked for before it can be compared with another. */
static size_t find_unasked(const struct happy_eyeballs *eyeballs)
{
    for (size_t i = 0; i < eyeballs->count; i++) {
        if (is_pending(eyeballs, i) && !eyeballs->candidates[i].is_asked) {
            return i;
        }
    }
    return NONE;
}

/* ---- when ---- */

/* From when on the first attempt may start: section 3 of the RFC. UINT64_MAX: when more answers are there. */
static uint64_t first_start_ms(const struct happy_eyeballs *eyeballs)
{
    bool prefers_ipv4 = eyeballs->config.prefer == DESTINATION_IPV4;
    unsigned preferred = prefers_ipv4 ? HAPPY_EYEBALLS_IPV4 : HAPPY_EYEBALLS_IPV6;
    bool is_preferred_missing = (eyeballs->outstanding & preferred) != 0;

    if (eyeballs->outstanding == 0 || find_remembered(eyeballs) != NONE) {
        return 0;
    }
    if (eyeballs->config.race) {
        return is_preferred_missing ? eyeballs->answered_ms + eyeballs->config.resolution_delay_ms : 0;
    }
    /* One after the other: the preferred family is worth waiting for, and the other one need not be there. */
    return is_preferred_missing ? UINT64_MAX : 0;
}

/* From when on the next attempt may start, if there is one. */
static uint64_t start_ms(const struct happy_eyeballs *eyeballs)
{
    if (eyeballs->started == 0) {
        return first_start_ms(eyeballs);
    }
    if (eyeballs->at_once || eyeballs->running == 0) {
        return 0;
    }
    return eyeballs->config.race ? eyeballs->started_ms + eyeballs->config.attempt_delay_ms : UINT64_MAX;
}

static size_t find_oldest(const struct happy_eyeballs *eyeballs)
{
    size_t found = NONE;
    for (size_t i = 0; i < eyeballs->count; i++) {
        const struct happy_eyeballs_candidate *one = &eyeballs->candidates[i];
        if (one->state == HAPPY_EYEBALLS_RUNNING &&
            (found == NONE || one->started_ms < eyeballs->candidates[found].started_ms)) {
            found = i;
        }
    }
    return found;
}

/* When the oldest attempt makes way for another one that waits. UINT64_MAX: it need not. */
static uint64_t give_up_ms(const struct happy_eyeballs *eyeballs, size_t oldest)
{
    if (eyeballs->running < eyeballs->running_max || eyeballs->is_exclusive || pending_count(eyeballs) == 0) {
        return UINT64_MAX;
    }
    if (!eyeballs->config.race) {
        return eyeballs->candidates[oldest].until_ms;
    }
    return eyeballs->candidates[oldest].started_ms + HAPPY_EYEBALLS_PATIENCE_MS;
}

/* ---- steps ---- */

static void cancel(struct happy_eyeballs *eyeballs, size_t index, bool timed_out, struct happy_eyeballs_step *step)
{
    leave(eyeballs, index, HAPPY_EYEBALLS_FAILED);
    *step = (struct happy_eyeballs_step){.type = HAPPY_EYEBALLS_CANCEL, .index = index, .timed_out = timed_out};
}

static void start(struct happy_eyeballs *eyeballs, uint64_t now_ms, struct happy_eyeballs_step *step)
{
    size_t unasked = pending_count(eyeballs) > 1 ? find_unasked(eyeballs) : NONE;
    if (unasked != NONE) {
        eyeballs->candidates[unasked].is_asked = true; /* once, even if in vain */
        *step = (struct happy_eyeballs_step){.type = HAPPY_EYEBALLS_PROBE, .index = unasked};
        return;
    }
    size_t index = pick(eyeballs);
    struct happy_eyeballs_candidate *one = &eyeballs->candidates[index];
    /* An answer that is outstanding counts as one address. */
    size_t shares = pending_count(eyeballs) + (eyeballs->outstanding != 0);
    uint64_t share_ms = (eyeballs->deadline_ms - now_ms) / shares;

    if (eyeballs->started == 0) {
        eyeballs->first_family = one->destination.family;
    }
    eyeballs->started++;
    eyeballs->first_started += one->destination.family == eyeballs->first_family;
    eyeballs->last_family = one->destination.family;
    eyeballs->started_ms = now_ms;
    eyeballs->at_once = false;
    eyeballs->running++;
    one->state = HAPPY_EYEBALLS_RUNNING;
    one->started_ms = now_ms;
    one->until_ms = now_ms + share_ms;
    *step = (struct happy_eyeballs_step){.type = HAPPY_EYEBALLS_START, .index = index};
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void happy_eyeballs_next(struct happy_eyeballs *eyeballs, uint64_t now_ms, struct happy_eyeballs_step *step)
{
    size_t oldest = find_oldest(eyeballs);
    size_t pending = eyeballs->is_exclusive ? 0 : pending_count(eyeballs);
    bool is_over = now_ms >= eyeballs->deadline_ms;

    if (oldest != NONE && (eyeballs->has_winner || is_over)) {
        cancel(eyeballs, oldest, !eyeballs->has_winner, step);
        return;
    }
    if (eyeballs->has_winner) {
        *step = (struct happy_eyeballs_step){.type = HAPPY_EYEBALLS_WON, .index = eyeballs->winner};
        return;
    }
    if (is_over || (oldest == NONE && pending == 0 && (eyeballs->outstanding == 0 || eyeballs->is_exclusive))) {
        *step = (struct happy_eyeballs_step){.type = HAPPY_EYEBALLS_LOST, .timed_out = is_over};
        return;
    }
    uint64_t start_at = pending > 0 ? start_ms(eyeballs) : UINT64_MAX;
    if (eyeballs->running == eyeballs->running_max) {
        uint64_t give_up_at = give_up_ms(eyeballs, oldest);
        start_at = eyeballs->config.race ? later(give_up_at, start_at) : give_up_at;
        if (now_ms >= start_at) {
            cancel(eyeballs, oldest, true, step);
            eyeballs->at_once = true;
            return;
        }
    } else if (now_ms >= start_at) {
        start(eyeballs, now_ms, step);
        return;
    }
    *step = (struct happy_eyeballs_step){
        .type = HAPPY_EYEBALLS_WAIT,
        .wake_ms = start_at < eyeballs->deadline_ms ? start_at : eyeballs->deadline_ms,
    };
}
