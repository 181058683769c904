#include "proxyd/stats.h"

static const char *const names[] = {
#define STATS_NAME(name, help) #name,
    STATS_COUNTERS(STATS_NAME)
#undef STATS_NAME
};

_Static_assert(sizeof names / sizeof names[0] == STATS_COUNT, "one name per counter");

void stats_sum(const struct stats *stats, uint64_t sum[STATS_COUNT])
{
    for (size_t i = 0; i < STATS_COUNT; i++) {
        sum[i] += atomic_load_explicit(&stats->value[i], memory_order_relaxed);
    }
}

const char *stats_name(enum stats_counter counter)
{
    return names[counter];
}
