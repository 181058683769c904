/* Counts of durations in classes whose width is at most 1/32 of their value, and percentiles of them. */
#ifndef BENCH_LATENCY_H
#define BENCH_LATENCY_H

#include <stdint.h>

#define LATENCY_FINE 32u
#define LATENCY_CLASSES (LATENCY_FINE * 60u)

struct latency {
    uint64_t counts[LATENCY_CLASSES];
    uint64_t total;
};

void latency_add(struct latency *latency, uint64_t duration_ns);

/* Microseconds that `share` (0 to 1) of the durations do not exceed; 0 without any. */
double latency_percentile_us(const struct latency *latency, double share);

#endif
