/* The machine in virtual time: a script of answers and hosts goes in, a transcript of what it did comes out. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/happy_eyeballs.h"

#define NEVER UINT64_MAX

enum outcome { SILENT, ACCEPTS, REFUSAL, POSTPONED_ONCE, NO_SOURCE /* and refused */ };

/* An address of the script, "6a" or "4a"; `after_ms` counts from the attempt's start. */
struct host {
    const char *name;
    enum outcome outcome;
    uint64_t after_ms;
};

struct script {
    struct happy_eyeballs_config config;
    uint64_t timeout_ms;
    uint64_t answer4_ms, answer6_ms; /* when the families' answers are complete; NEVER: never */
    const char *remembered;
    struct host hosts[24];
};

#define DEFAULTS                                                                                                       \
    {                                                                                                                  \
        .race = true, .resolution_delay_ms = HAPPY_EYEBALLS_RESOLUTION_DELAY_MS,                                       \
        .attempt_delay_ms = HAPPY_EYEBALLS_ATTEMPT_DELAY_MS, .first_family_count = 1                                   \
    }
#define SEQUENTIAL                                                                                                     \
    {                                                                                                                  \
        .race = false                                                                                                  \
    }

struct run {
    const struct script *script;
    struct happy_eyeballs eyeballs;
    struct happy_eyeballs_candidate candidates[32];
    uint64_t now_ms, at_ms[32];  /* when a running attempt comes to its end */
    bool has_started, has_ended; /* an attempt; since the last one started */
    bool has_data;               /* to send with a SYN, where the machine lets it */
    bool has_sent_data;          /* and it was not refused */
    uint64_t started_ms;
    bool added[24], answered4, answered6, postponed;
    char text[4096];
    size_t len;
};

/* "6a" is 2001:db8::61, "4a" 192.0.2.97. */
static struct destination address(const char *name)
{
    struct destination destination = {.port = 80};
    if (name[0] == '6') {
        destination.family = SOCKS6_ADDR_IPV6;
        memcpy(destination.addr, (const uint8_t[4]){0x20, 0x01, 0x0d, 0xb8}, 4);
        destination.addr[15] = (uint8_t)name[1];
    } else {
        destination.family = SOCKS6_ADDR_IPV4;
        memcpy(destination.addr, (const uint8_t[4]){192, 0, 2, (uint8_t)name[1]}, 4);
    }
    return destination;
}

static const struct host *host_of(const struct run *run, size_t index)
{
    for (size_t i = 0; i < 24 && run->script->hosts[i].name != NULL; i++) {
        struct destination one = address(run->script->hosts[i].name);
        if (destination_equal(&one, &run->candidates[index].destination)) {
            return &run->script->hosts[i];
        }
    }
    fail_msg("an address that nobody gave");
    return NULL;
}

static void note(struct run *run, const char *what, size_t index)
{
    const char *name = index == SIZE_MAX ? "" : host_of(run, index)->name;
    int n = snprintf(run->text + run->len, sizeof run->text - run->len, "%s%" PRIu64 " %s%s%s",
                     run->len == 0 ? "" : ", ", run->now_ms, what, *name == '\0' ? "" : " ", name);
    assert_in_range(n, 1, sizeof run->text - run->len - 1);
    run->len += (size_t)n;
}

static unsigned running_count(const struct run *run)
{
    unsigned count = 0;
    for (size_t i = 0; i < run->eyeballs.count; i++) {
        count += run->candidates[i].state == HAPPY_EYEBALLS_RUNNING;
    }
    return count;
}

/* What has to hold whenever an attempt starts: not too many, and the delay, unless an attempt has ended. */
static void check_start(struct run *run)
{
    const struct happy_eyeballs_config *config = &run->script->config;
    assert_in_range(running_count(run), 1, config->race ? HAPPY_EYEBALLS_RUNNING_MAX : 1);
    if (run->has_started && !run->has_ended) {
        assert_true(config->race && run->now_ms - run->started_ms >= run->eyeballs.config.attempt_delay_ms);
    }
    run->has_started = true;
    run->has_ended = false;
    run->started_ms = run->now_ms;
}

static void start(struct run *run, size_t index)
{
    const struct host *host = host_of(run, index);
    bool is_alone = happy_eyeballs_stands_alone(&run->eyeballs, index);
    note(run, run->has_data && is_alone ? "start with data" : "start", index);
    check_start(run);
    assert_false(run->has_sent_data); /* it must not come to two servers */
    if (host->outcome == POSTPONED_ONCE && !run->postponed && running_count(run) > 1) {
        run->postponed = true;
        happy_eyeballs_postpone(&run->eyeballs, index);
        note(run, "postponed", index);
        run->has_ended = true; /* it never began */
        return;
    }
    if (run->has_data && is_alone) {
        assert_int_equal(running_count(run), 1);
        run->has_sent_data = true;
        happy_eyeballs_carries_data(&run->eyeballs);
    }
    run->at_ms[index] = host->outcome == SILENT ? NEVER : run->now_ms + host->after_ms;
}

static void probe(struct run *run, size_t index)
{
    struct destination *destination = &run->candidates[index].destination;
    destination->is_probed = true;
    destination->has_source = host_of(run, index)->outcome != NO_SOURCE;
    memcpy(destination->source, destination->addr, 16);
}

/* Everything that happens at this moment. */
static void report(struct run *run)
{
    for (size_t i = 0; i < run->eyeballs.count; i++) {
        if (run->candidates[i].state == HAPPY_EYEBALLS_RUNNING && run->at_ms[i] == run->now_ms) {
            if (host_of(run, i)->outcome == REFUSAL) {
                happy_eyeballs_refused(&run->eyeballs, i);
                run->has_ended = true;
                run->has_sent_data = false;
            } else if (host_of(run, i)->outcome == NO_SOURCE) {
                happy_eyeballs_failed(&run->eyeballs, i);
                run->has_ended = true;
            } else if (!run->eyeballs.has_winner) {
                happy_eyeballs_connected(&run->eyeballs, i);
            }
        }
    }
    for (size_t i = 0; i < 24 && run->script->hosts[i].name != NULL; i++) {
        const struct host *host = &run->script->hosts[i];
        uint64_t family_ms = host->name[0] == '6' ? run->script->answer6_ms : run->script->answer4_ms;
        if (!run->added[i] && family_ms == run->now_ms) {
            struct destination destination = address(host->name);
            run->added[i] = true;
            happy_eyeballs_add(&run->eyeballs, &destination, run->now_ms);
        }
    }
    if (run->script->answer4_ms == run->now_ms && !run->answered4) {
        run->answered4 = true;
        happy_eyeballs_answered(&run->eyeballs, HAPPY_EYEBALLS_IPV4);
    }
    if (run->script->answer6_ms == run->now_ms && !run->answered6) {
        run->answered6 = true;
        happy_eyeballs_answered(&run->eyeballs, HAPPY_EYEBALLS_IPV6);
    }
}

static uint64_t later_of_now(const struct run *run, uint64_t at_ms, uint64_t next_ms)
{
    return at_ms > run->now_ms && at_ms < next_ms ? at_ms : next_ms;
}

/* When the next thing happens, the machine's wish included. */
static uint64_t next_time(const struct run *run, uint64_t wake_ms)
{
    uint64_t next_ms = wake_ms;
    next_ms = later_of_now(run, run->script->answer4_ms, next_ms);
    next_ms = later_of_now(run, run->script->answer6_ms, next_ms);
    for (size_t i = 0; i < run->eyeballs.count; i++) {
        if (run->candidates[i].state == HAPPY_EYEBALLS_RUNNING) {
            next_ms = later_of_now(run, run->at_ms[i], next_ms);
        }
    }
    assert_true(next_ms > run->now_ms && next_ms != NEVER); /* otherwise it would spin, or sleep for ever */
    return next_ms;
}

/* What has to hold at any end. */
static void check_end(const struct run *run, const struct happy_eyeballs_step *last)
{
    assert_int_equal(running_count(run), 0);
    assert_true(run->now_ms <= run->script->timeout_ms);
    if (last->type == HAPPY_EYEBALLS_WON) {
        enum outcome outcome = host_of(run, last->index)->outcome;
        assert_true(outcome == ACCEPTS || outcome == POSTPONED_ONCE);
        return;
    }
    assert_int_equal(last->timed_out, run->now_ms == run->script->timeout_ms);
    if (run->has_sent_data) {
        return; /* whatever is left must not be tried */
    }
    for (size_t i = 0; !last->timed_out && i < run->eyeballs.count; i++) {
        assert_int_equal(run->candidates[i].state, HAPPY_EYEBALLS_FAILED);
    }
    assert_true(last->timed_out || (run->answered4 && run->answered6));
}

/* Plays the script to its end; `expected` is the transcript, NULL = any. */
static void play_one(const struct script *script, bool has_data, const char *expected)
{
    static struct run run;
    struct happy_eyeballs_step step;
    memset(&run, 0, sizeof run);
    run.script = script;
    run.has_data = has_data;
    happy_eyeballs_init(&run.eyeballs, &script->config, run.candidates, 32, HAPPY_EYEBALLS_IPV4 | HAPPY_EYEBALLS_IPV6,
                        script->timeout_ms, 0);
    if (script->remembered != NULL) {
        struct destination winner = address(script->remembered);
        happy_eyeballs_remember(&run.eyeballs, &winner);
    }
    report(&run);
    for (;;) {
        happy_eyeballs_next(&run.eyeballs, run.now_ms, &step);
        switch (step.type) {
        case HAPPY_EYEBALLS_WAIT:
            run.now_ms = next_time(&run, step.wake_ms);
            report(&run);
            continue;
        case HAPPY_EYEBALLS_PROBE:
            probe(&run, step.index);
            continue;
        case HAPPY_EYEBALLS_START:
            start(&run, step.index);
            continue;
        case HAPPY_EYEBALLS_CANCEL:
            note(&run, step.timed_out ? "give up" : "cancel", step.index);
            run.has_ended = true;
            continue;
        case HAPPY_EYEBALLS_WON:
            note(&run, "won", step.index);
            break;
        case HAPPY_EYEBALLS_LOST:
            note(&run, step.timed_out ? "time is over" : "lost", SIZE_MAX);
            break;
        }
        break;
    }
    if (expected != NULL) {
        assert_string_equal(run.text, expected);
    }
    check_end(&run, &step);
}

static void play(const struct script *script, const char *expected)
{
    play_one(script, false, expected);
}

static void play_with_data(const struct script *script, const char *expected)
{
    play_one(script, true, expected);
}

/* ---- section 3: the two answers ---- */

static void test_preferred_answer_first_starts_at_once(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 900, 10, NULL, {{"6a", ACCEPTS, 20}, {"4a", ACCEPTS, 20}}},
         "10 start 6a, 30 won 6a");
}

static void test_other_answer_first_waits_for_the_resolution_delay(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 10, 900, NULL, {{"6a", ACCEPTS, 20}, {"4a", ACCEPTS, 20}}},
         "60 start 4a, 80 won 4a");
}

static void test_preferred_answer_within_the_resolution_delay_goes_first(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 10, 59, NULL, {{"6a", ACCEPTS, 20}, {"4a", ACCEPTS, 20}}},
         "59 start 6a, 79 won 6a");
}

static void test_negative_preferred_answer_ends_the_wait(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 10, 25, NULL, {{"4a", ACCEPTS, 20}}}, "25 start 4a, 45 won 4a");
    play(&(struct script){DEFAULTS, 30000, 40, 25, NULL, {{"4a", ACCEPTS, 20}}}, "40 start 4a, 60 won 4a");
}

static void test_no_address_at_all_is_lost(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 10, 25, NULL, {{0}}}, "25 lost");
    play(&(struct script){SEQUENTIAL, 30000, 25, 10, NULL, {{0}}}, "25 lost");
}

static void test_answer_that_never_comes_ends_with_the_time(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 10, NEVER, NULL, {{0}}}, "30000 time is over");
    play(&(struct script){DEFAULTS, 3000, 10, NEVER, NULL, {{"4a", REFUSAL, 5}}}, "60 start 4a, 3000 time is over");
}

static void test_prefer_ipv4_turns_it_round(void **state)
{
    (void)state;
    struct script script = {DEFAULTS, 30000, 40, 10, NULL, {{"6a", SILENT, 0}, {"4a", ACCEPTS, 300}}};
    script.config.prefer = DESTINATION_IPV4;
    play(&script, "40 start 4a, 290 start 6a, 340 cancel 6a, 340 won 4a");
}

/* ---- section 4: the order ---- */

static void test_families_take_turns(void **state)
{
    (void)state;
    struct script script = {
        DEFAULTS, 30000,
        0,        0,
        NULL,     {{"6a", SILENT, 0}, {"6b", SILENT, 0}, {"6c", SILENT, 0}, {"4a", SILENT, 0}, {"4b", ACCEPTS, 10}}};
    play(&script, "0 start 6a, 250 start 4a, 500 start 6b, 750 start 4b, 760 cancel 6a, 760 cancel 4a, 760 cancel 6b, "
                  "760 won 4b");
    script.config.first_family_count = 2;
    play(&script, "0 start 6a, 250 start 6b, 500 start 4a, 750 start 6c, 1000 start 4b, 1010 cancel 6a, 1010 cancel "
                  "6b, 1010 cancel 4a, 1010 cancel 6c, 1010 won 4b");
}

static void test_one_family_alone_goes_on(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"4a", SILENT, 0}, {"4b", REFUSAL, 10}, {"4c", ACCEPTS, 1}}},
         "0 start 4a, 250 start 4b, 260 start 4c, 261 cancel 4a, 261 won 4c");
}

static void test_family_that_cannot_be_reached_comes_last(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", NO_SOURCE, 1}, {"4a", SILENT, 0}, {"4b", ACCEPTS, 400}}},
         "0 start 4a, 250 start 6a, 251 start 4b, 651 cancel 4a, 651 won 4b");
}

static void test_remembered_winner_goes_first(void **state)
{
    (void)state;
    struct script script = {DEFAULTS, 30000, 10,
                            10,       "4b",  {{"6a", ACCEPTS, 500}, {"4a", ACCEPTS, 500}, {"4b", ACCEPTS, 20}}};
    play(&script, "10 start 4b, 30 won 4b");
    script.answer6_ms = 900; /* not waited for */
    play(&script, "10 start 4b, 30 won 4b");
    script.remembered = "4z"; /* the name has it no more */
    play(&script, "60 start 4a, 310 start 4b, 330 cancel 4a, 330 won 4b");
    script.remembered = "4b";
    script.hosts[2].outcome = REFUSAL; /* it is not there any more: the others follow */
    play(&script, "10 start 4b, 30 start 4a, 530 won 4a");
}

/* ---- section 5: the attempts ---- */

static void test_black_hole_costs_one_attempt_delay(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 5, 5, NULL, {{"6a", SILENT, 0}, {"4a", ACCEPTS, 20}}},
         "5 start 6a, 255 start 4a, 275 cancel 6a, 275 won 4a");
}

static void test_refusal_starts_the_next_at_once(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 5, 5, NULL, {{"6a", REFUSAL, 1}, {"4a", ACCEPTS, 20}}},
         "5 start 6a, 6 start 4a, 26 won 4a");
}

static void test_each_failure_starts_one(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS,
                          30000,
                          0,
                          0,
                          NULL,
                          {{"6a", REFUSAL, 260}, {"4a", REFUSAL, 10}, {"6b", SILENT, 0}, {"4b", ACCEPTS, 1}}},
         "0 start 6a, 250 start 4a, 260 start 6b, 510 start 4b, 511 cancel 6b, 511 won 4b");
}

static void test_slow_first_still_wins_if_it_is_first(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", ACCEPTS, 300}, {"4a", ACCEPTS, 100}}},
         "0 start 6a, 250 start 4a, 300 cancel 4a, 300 won 6a");
}

static void test_two_at_the_same_moment_have_one_winner(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", ACCEPTS, 300}, {"4a", ACCEPTS, 50}}},
         "0 start 6a, 250 start 4a, 300 cancel 4a, 300 won 6a");
}

static void test_late_answer_joins_in(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 100, NULL, {{"4a", SILENT, 0}, {"4b", SILENT, 0}, {"6a", ACCEPTS, 20}}},
         "50 start 4a, 300 start 6a, 320 cancel 4a, 320 won 6a");
}

static void test_late_answer_after_all_have_failed_starts_at_once(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS, 30000, 0, 4000, NULL, {{"4a", REFUSAL, 1}, {"6a", ACCEPTS, 20}}},
         "50 start 4a, 4000 start 6a, 4020 won 6a");
    play(&(struct script){DEFAULTS, 30000, 4000, 0, NULL, {{"6a", REFUSAL, 1}, {"4a", ACCEPTS, 20}}},
         "0 start 6a, 4000 start 4a, 4020 won 4a");
}

static void test_attempt_delay_keeps_to_its_range(void **state)
{
    (void)state;
    struct script script = {DEFAULTS, 30000, 0, 0, NULL, {{"6a", SILENT, 0}, {"4a", ACCEPTS, 1}}};
    script.config.attempt_delay_ms = 0;
    play(&script, "0 start 6a, 10 start 4a, 11 cancel 6a, 11 won 4a");
    script.config.attempt_delay_ms = 60000;
    play(&script, "0 start 6a, 2000 start 4a, 2001 cancel 6a, 2001 won 4a");
}

static void test_all_dead_ends_in_time(void **state)
{
    (void)state;
    play(
        &(struct script){
            DEFAULTS, 700, 0, 0, NULL, {{"6a", SILENT, 0}, {"4a", REFUSAL, 5}, {"6b", SILENT, 0}, {"4b", SILENT, 0}}},
        "0 start 6a, 250 start 4a, 255 start 6b, 505 start 4b, 700 give up 6a, 700 give up 6b, 700 give up 4b, 700 "
        "time is over");
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", REFUSAL, 3}, {"4a", REFUSAL, 5}}},
         "0 start 6a, 3 start 4a, 8 lost");
}

static void test_ten_addresses_with_the_last_alive(void **state)
{
    (void)state;
    play(&(struct script){DEFAULTS,
                          30000,
                          0,
                          0,
                          NULL,
                          {{"6a", SILENT, 0},
                           {"6b", SILENT, 0},
                           {"6c", SILENT, 0},
                           {"6d", SILENT, 0},
                           {"6e", SILENT, 0},
                           {"4a", SILENT, 0},
                           {"4b", SILENT, 0},
                           {"4c", SILENT, 0},
                           {"4d", SILENT, 0},
                           {"4e", ACCEPTS, 7}}},
         "0 start 6a, 250 start 4a, 500 start 6b, 750 start 4b, 1000 start 6c, 1250 start 4c, 1500 start 6d, 1750 "
         "start 4d, 2000 start 6e, 2250 start 4e, 2257 cancel 6a, 2257 cancel 4a, 2257 cancel 6b, 2257 cancel 4b, 2257 "
         "cancel 6c, 2257 cancel 4c, 2257 cancel 6d, 2257 cancel 4d, 2257 cancel 6e, 2257 won 4e");
}

/* More addresses than places: the oldest makes way, but not before it has had some time. */
static void test_running_attempts_are_bounded(void **state)
{
    (void)state;
    static const char *const names[] = {"4a", "4b", "4c", "4d", "4e", "4f", "4g", "4h", "4i",
                                        "4j", "4k", "4l", "4m", "4n", "4o", "4p", "4q", "4r"};
    struct script script = {DEFAULTS, 30000, 0, 0, NULL, {{0}}};
    char expected[2048];
    size_t len = 0;
    script.config.attempt_delay_ms = 100;
    for (size_t i = 0; i < 18; i++) {
        script.hosts[i] = (struct host){names[i], i == 17 ? ACCEPTS : SILENT, 50};
    }
    for (size_t i = 0; i < 18; i++) {
        uint64_t at_ms = i < 16 ? i * 100 : 2000 + (i - 16) * 100;
        if (i >= 16) {
            len += (size_t)snprintf(expected + len, sizeof expected - len, ", %" PRIu64 " give up %s", at_ms,
                                    names[i - 16]);
        }
        len += (size_t)snprintf(expected + len, sizeof expected - len, "%s%" PRIu64 " start %s", i == 0 ? "" : ", ",
                                at_ms, names[i]);
    }
    for (size_t i = 2; i < 17; i++) {
        len += (size_t)snprintf(expected + len, sizeof expected - len, ", 2150 cancel %s", names[i]);
    }
    (void)snprintf(expected + len, sizeof expected - len, ", 2150 won 4r");
    play(&script, expected);
}

static void test_postponed_attempt_waits_for_a_place(void **state)
{
    (void)state;
    play(
        &(struct script){
            DEFAULTS, 30000, 0, 0, NULL, {{"6a", REFUSAL, 700}, {"4a", POSTPONED_ONCE, 20}, {"6b", SILENT, 0}}},
        "0 start 6a, 250 start 4a, 250 postponed 4a, 700 start 4a, 720 won 4a");
    play(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", SILENT, 0}, {"4a", POSTPONED_ONCE, 20}}},
         "0 start 6a, 250 start 4a, 250 postponed 4a, 2000 give up 6a, 2000 start 4a, 2020 won 4a");
}

/* ---- one after the other ---- */

static void test_sequential_tries_ipv4_when_ipv6_has_failed(void **state)
{
    (void)state;
    play(
        &(struct script){
            SEQUENTIAL, 30000, 0, 0, NULL, {{"4a", ACCEPTS, 20}, {"6a", REFUSAL, 700}, {"6b", REFUSAL, 10}}},
        "0 start 6a, 700 start 6b, 710 start 4a, 730 won 4a");
}

static void test_sequential_gives_each_its_share(void **state)
{
    (void)state;
    play(&(struct script){SEQUENTIAL, 30000, 0, 0, NULL, {{"6a", SILENT, 0}, {"6b", SILENT, 0}, {"4a", ACCEPTS, 20}}},
         "0 start 6a, 10000 give up 6a, 10000 start 6b, 20000 give up 6b, 20000 start 4a, 20020 won 4a");
    play(&(struct script){SEQUENTIAL, 1000, 0, 0, NULL, {{"6a", SILENT, 0}, {"4a", SILENT, 0}}},
         "0 start 6a, 500 give up 6a, 500 start 4a, 1000 give up 4a, 1000 time is over");
}

static void test_sequential_waits_for_the_preferred_answer(void **state)
{
    (void)state;
    play(&(struct script){SEQUENTIAL, 30000, 0, 4000, NULL, {{"4a", ACCEPTS, 20}, {"6a", ACCEPTS, 20}}},
         "4000 start 6a, 4020 won 6a");
    play(&(struct script){SEQUENTIAL, 30000, 4000, 0, NULL, {{"4a", ACCEPTS, 20}, {"6a", ACCEPTS, 20}}},
         "0 start 6a, 20 won 6a");
}

static void test_sequential_counts_a_missing_answer_as_one_address(void **state)
{
    (void)state;
    play(&(struct script){SEQUENTIAL, 30000, 4000, 0, NULL, {{"4a", ACCEPTS, 20}, {"6a", SILENT, 0}}},
         "0 start 6a, 15000 give up 6a, 15000 start 4a, 15020 won 4a");
    /* Nobody to make way for: it keeps its chance. */
    play(&(struct script){SEQUENTIAL, 30000, NEVER, 0, NULL, {{"6a", ACCEPTS, 20000}}}, "0 start 6a, 20000 won 6a");
}

/* ---- data in the SYN ---- */

static void test_single_address_may_carry_data(void **state)
{
    (void)state;
    struct script script = {DEFAULTS, 30000, 10, 20, NULL, {{"4a", ACCEPTS, 20}}};
    play_with_data(&script, "20 start with data 4a, 40 won 4a");
    script.answer6_ms = 900; /* there may be more: at first it does not stand alone */
    play_with_data(&script, "60 start 4a, 80 won 4a");
    play_with_data(&(struct script){SEQUENTIAL, 30000, 10, 20, NULL, {{"6a", ACCEPTS, 20}}},
                   "20 start with data 6a, 40 won 6a");
}

static void test_race_carries_no_data_until_one_is_left(void **state)
{
    (void)state;
    play_with_data(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", ACCEPTS, 300}, {"4a", ACCEPTS, 20}}},
                   "0 start 6a, 250 start 4a, 270 cancel 6a, 270 won 4a");
    play_with_data(&(struct script){DEFAULTS, 30000, 0, 0, NULL, {{"6a", REFUSAL, 30}, {"4a", ACCEPTS, 20}}},
                   "0 start 6a, 30 start with data 4a, 50 won 4a");
    play_with_data(&(struct script){SEQUENTIAL, 30000, 0, 0, NULL, {{"6a", REFUSAL, 30}, {"4a", ACCEPTS, 9}}},
                   "0 start 6a, 30 start with data 4a, 39 won 4a");
}

static void test_remembered_winner_with_data_has_no_company(void **state)
{
    (void)state;
    play_with_data(&(struct script){DEFAULTS, 900, 0, 0, "4a", {{"6a", ACCEPTS, 1}, {"4a", SILENT, 0}}},
                   "0 start with data 4a, 900 give up 4a, 900 time is over");
    play_with_data(&(struct script){DEFAULTS, 900, 0, 0, "4a", {{"6a", ACCEPTS, 1}, {"4a", NO_SOURCE, 40}}},
                   "0 start with data 4a, 40 lost");
    play_with_data(&(struct script){DEFAULTS, 900, 0, 500, "4a", {{"6a", ACCEPTS, 1}, {"4a", NO_SOURCE, 40}}},
                   "0 start with data 4a, 40 lost");
}

static void test_refused_data_lets_the_others_go(void **state)
{
    (void)state;
    play_with_data(
        &(struct script){DEFAULTS, 900, 0, 0, "4a", {{"6a", REFUSAL, 5}, {"4a", REFUSAL, 40}, {"4b", ACCEPTS, 9}}},
        "0 start with data 4a, 40 start 6a, 45 start with data 4b, 54 won 4b");
}

/* ---- anything ---- */

/* Reproducible, and good enough to choose with: below `limit`. */
static uint32_t choose(uint64_t *seed, uint32_t limit)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33) % limit;
}

static void test_every_script_comes_to_a_sound_end(void **state)
{
    static const char *const names[] = {"4a", "6a", "4b", "6b", "4c", "6c", "4d", "6d", "4e", "6e", "4f", "6f",
                                        "4g", "6g", "4h", "6h", "4i", "6i", "4j", "6j", "4k", "6k", "4l", "6l"};
    (void)state;
    for (uint64_t round = 0; round < 20000; round++) {
        uint64_t seed = round;
        struct script script = {DEFAULTS, 1 + choose(&seed, 20000), choose(&seed, 900), choose(&seed, 900), NULL,
                                {{0}}};
        uint32_t count = choose(&seed, 25);
        script.config.race = choose(&seed, 4) > 0;
        script.config.attempt_delay_ms = 10 + choose(&seed, 400);
        script.config.resolution_delay_ms = choose(&seed, 100);
        script.config.first_family_count = 1 + choose(&seed, 4);
        script.config.prefer = (enum destination_preference)choose(&seed, 3);
        script.answer4_ms = choose(&seed, 10) == 0 ? NEVER : script.answer4_ms;
        script.answer6_ms = choose(&seed, 10) == 0 ? NEVER : script.answer6_ms;
        script.remembered = script.config.race && choose(&seed, 2) == 0 ? names[choose(&seed, 24)] : NULL;
        for (uint32_t i = 0; i < count; i++) {
            script.hosts[i] =
                (struct host){names[i], (enum outcome)choose(&seed, NO_SOURCE + 1), 1 + choose(&seed, 3000)};
        }
        play_one(&script, choose(&seed, 2) == 0, NULL);
    }
}

/* ---- limits ---- */

static void test_addresses_beyond_the_room_are_left_out(void **state)
{
    (void)state;
    struct happy_eyeballs eyeballs;
    struct happy_eyeballs_candidate candidates[2];
    const struct happy_eyeballs_config config = SEQUENTIAL;
    happy_eyeballs_init(&eyeballs, &config, candidates, 2, 0, 1000, 0);
    const char *const names[] = {"4a", "4a", "4b", "4c"};
    for (size_t i = 0; i < 4; i++) {
        struct destination one = address(names[i]);
        happy_eyeballs_add(&eyeballs, &one, 0);
    }
    assert_int_equal(eyeballs.count, 2);
    assert_int_equal(candidates[0].destination.addr[3], 'a');
    assert_int_equal(candidates[1].destination.addr[3], 'b');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preferred_answer_first_starts_at_once),
        cmocka_unit_test(test_other_answer_first_waits_for_the_resolution_delay),
        cmocka_unit_test(test_preferred_answer_within_the_resolution_delay_goes_first),
        cmocka_unit_test(test_negative_preferred_answer_ends_the_wait),
        cmocka_unit_test(test_no_address_at_all_is_lost),
        cmocka_unit_test(test_answer_that_never_comes_ends_with_the_time),
        cmocka_unit_test(test_prefer_ipv4_turns_it_round),
        cmocka_unit_test(test_families_take_turns),
        cmocka_unit_test(test_one_family_alone_goes_on),
        cmocka_unit_test(test_family_that_cannot_be_reached_comes_last),
        cmocka_unit_test(test_remembered_winner_goes_first),
        cmocka_unit_test(test_black_hole_costs_one_attempt_delay),
        cmocka_unit_test(test_refusal_starts_the_next_at_once),
        cmocka_unit_test(test_each_failure_starts_one),
        cmocka_unit_test(test_slow_first_still_wins_if_it_is_first),
        cmocka_unit_test(test_two_at_the_same_moment_have_one_winner),
        cmocka_unit_test(test_late_answer_joins_in),
        cmocka_unit_test(test_late_answer_after_all_have_failed_starts_at_once),
        cmocka_unit_test(test_attempt_delay_keeps_to_its_range),
        cmocka_unit_test(test_all_dead_ends_in_time),
        cmocka_unit_test(test_ten_addresses_with_the_last_alive),
        cmocka_unit_test(test_running_attempts_are_bounded),
        cmocka_unit_test(test_postponed_attempt_waits_for_a_place),
        cmocka_unit_test(test_sequential_tries_ipv4_when_ipv6_has_failed),
        cmocka_unit_test(test_sequential_gives_each_its_share),
        cmocka_unit_test(test_sequential_waits_for_the_preferred_answer),
        cmocka_unit_test(test_sequential_counts_a_missing_answer_as_one_address),
        cmocka_unit_test(test_single_address_may_carry_data),
        cmocka_unit_test(test_race_carries_no_data_until_one_is_left),
        cmocka_unit_test(test_remembered_winner_with_data_has_no_company),
        cmocka_unit_test(test_refused_data_lets_the_others_go),
        cmocka_unit_test(test_every_script_comes_to_a_sound_end),
        cmocka_unit_test(test_addresses_beyond_the_room_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
