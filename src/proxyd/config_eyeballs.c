/*
 * The keys of `happy_eyeballs:`.
 */
#include <inttypes.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *const config_prefer_names[] = {"ipv6", "ipv4", "rfc6724", NULL};

_Static_assert(DESTINATION_IPV6 == 0 && DESTINATION_IPV4 == 1 && DESTINATION_RFC6724 == 2, "preference names");

/* A time between `min_ms` and `max_ms`, both below a minute; 0, if allowed, is "none" too. */
static int read_delay(const struct config_place *place, const struct yaml_node *value, uint64_t min_ms, uint64_t max_ms,
                      uint64_t *out)
{
    uint64_t ms;

    if (read_time(place, value, min_ms == 0, &ms) != 0) {
        return -1;
    }
    if (ms < min_ms || ms > max_ms) {
        return config_fail(place, value->line, value->column,
                           "%s is out of range; write a time from %" PRIu64 "ms to %" PRIu64 "ms",
                           config_show(value->text), min_ms, max_ms);
    }
    *out = ms;
    return 0;
}

static int read_resolution_delay(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;

    return read_delay(place, value, 0, CONFIG_RESOLUTION_DELAY_MAX_MS, &eyeballs->race.resolution_delay_ms);
}

static int read_attempt_delay(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;

    return read_delay(place, value, HAPPY_EYEBALLS_ATTEMPT_DELAY_MIN_MS, HAPPY_EYEBALLS_ATTEMPT_DELAY_MAX_MS,
                      &eyeballs->race.attempt_delay_ms);
}

static int read_first_family_count(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;
    uint32_t count;

    if (read_number(place, value, 1, CONFIG_FIRST_FAMILY_COUNT_MAX, NULL, 0, &count) != 0) {
        return -1;
    }
    eyeballs->race.first_family_count = count;
    return 0;
}

static int read_prefer(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;
    unsigned index;

    if (read_choice(place, value, config_prefer_names, "a preference", &index) != 0) {
        return -1;
    }
    eyeballs->race.prefer = (enum destination_preference)index;
    return 0;
}

static int read_remember(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;

    return read_time(place, value, true, &eyeballs->remember_ms);
}

static int read_legacy(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_happy_eyeballs *eyeballs = target;

    return read_bool(place, value, &eyeballs->legacy);
}

static const struct config_key keys[] = {
    {"resolution_delay", read_resolution_delay},
    {"attempt_delay", read_attempt_delay},
    {"first_family_count", read_first_family_count},
    {"prefer", read_prefer},
    {"remember", read_remember},
    {"legacy", read_legacy},
};

const struct config_section config_happy_eyeballs_section = {"happy_eyeballs", keys, COUNT(keys)};

int config_read_happy_eyeballs(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return read_mapping(place, value, keys, COUNT(keys), &draft->snapshot->config.happy_eyeballs);
}
