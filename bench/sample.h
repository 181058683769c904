/* What a load generator measures of all who take part between the ends of a sample, and the line of JSON that it ends with. */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include "latency.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct sample {
    const char *cpu_source; /* of the proxy, as cpu.h has it */
    clockid_t backend_clock;
    bool has_backend;
    uint64_t start_ns, duration_ns;           /* of the sample */
    uint64_t proxy_ns, client_ns, backend_ns; /* CPU time */
};

/* `backend_pid` 0 = none. */
void sample_init(struct sample *sample, const char *cpu_source, pid_t backend_pid);
void sample_start(struct sample *sample);
void sample_end(struct sample *sample);

/* Counted by the load generator itself. */
struct sample_counts {
    unsigned long long ops, bytes, errors;
    unsigned stalled;
    const char *first_error;
    bool has_syn_data; /* syn_data is to be told */
    unsigned long long syn_data;
};

void sample_print(const struct sample *sample, const struct sample_counts *counts, const struct latency *latencies);

/* The end of that line, for other lines that end so. */
void sample_print_errors(unsigned long long errors, const char *first_error);

#endif
