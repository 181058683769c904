/* See latency.h. A class is the number of bits of the value together with the LATENCY_FINE steps below its first bit. */
#include "latency.h"

static unsigned class_of(uint64_t value)
{
    if (value < LATENCY_FINE) {
        return (unsigned)value;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - 5u; /* 5: bits of LATENCY_FINE */
    unsigned class = (shift + 1) * LATENCY_FINE + (unsigned)((value >> shift) & (LATENCY_FINE - 1));
    return class < LATENCY_CLASSES ? class : LATENCY_CLASSES - 1;
}

/* The largest value of a class. */
static uint64_t upper_of(unsigned class)
{
    if (class < LATENCY_FINE) {
        return class;
    }
    unsigned shift = class / LATENCY_FINE - 1;
    return ((uint64_t)(LATENCY_FINE + class % LATENCY_FINE + 1) << shift) - 1;
}

void latency_add(struct latency *latency, uint64_t duration_ns)
{
    latency->counts[class_of(duration_ns)]++;
    latency->total++;
}

double latency_percentile_us(const struct latency *latency, double share)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCY_CLASSES; i++) {
        seen += latency->counts[i];
        if (seen > 0 && (double)seen >= share * (double)latency->total) {
            return (double)upper_of(i) / 1e3;
        }
    }
    return 0;
}
