#include "proxyd/stats.h"

#include <inttypes.h>
#include <stdio.h>

#include "proxyd/log_format.h"

static const struct stats_info infos[] = {
#define STATS_INFO(name, type, unit, help) {#name, STATS_##type, STATS_##unit, help},
    STATS_TABLE(STATS_INFO)
#undef STATS_INFO
};

_Static_assert(sizeof infos / sizeof infos[0] == STATS_COUNT, "one row per counter");
/* With room for what stands before it. A table that grows beyond needs a larger LOG_MESSAGE_MAX. */
_Static_assert(STATS_LINE_MAX + 64 <= LOG_MESSAGE_MAX, "the counters fit into a message");

void stats_read(const struct stats *stats, uint64_t out[STATS_COUNT])
{
    for (size_t i = 0; i < STATS_COUNT; i++) {
        out[i] = atomic_load_explicit(&stats->value[i], memory_order_relaxed);
    }
    /* The worker may have gone on between the two: never less than none. */
    uint64_t accepted = out[STATS_accepted], closed = out[STATS_closed];
    out[STATS_connections] = accepted > closed ? accepted - closed : 0;
}

void stats_sum(uint64_t sum[STATS_COUNT], const uint64_t values[STATS_COUNT])
{
    for (size_t i = 0; i < STATS_COUNT; i++) {
        sum[i] += values[i];
    }
}

const struct stats_info *stats_info(enum stats_counter counter)
{
    return &infos[counter];
}

void stats_line(const uint64_t values[STATS_COUNT], char out[STATS_LINE_MAX])
{
    size_t len = 0;

    for (size_t i = 0; i < STATS_COUNT; i++) {
        len += (size_t)snprintf(out + len, STATS_LINE_MAX - len, " %s=%" PRIu64, infos[i].name, values[i]);
    }
}
