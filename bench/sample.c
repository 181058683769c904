/* See sample.h. */
#include "sample.h"

#include "common.h"
#include "cpu.h"

#include <stdio.h>

void sample_init(struct sample *sample, const char *cpu_source, pid_t backend_pid)
{
    *sample = (struct sample){.cpu_source = cpu_source, .has_backend = backend_pid != 0};
    if (sample->has_backend && clock_getcpuclockid(backend_pid, &sample->backend_clock) != 0) {
        die("clock_getcpuclockid");
    }
}

static uint64_t backend_ns(const struct sample *sample)
{
    return sample->has_backend ? clock_ns(sample->backend_clock) : 0;
}

void sample_start(struct sample *sample)
{
    sample->backend_ns = backend_ns(sample);
    sample->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    sample->proxy_ns = cpu_used_ns(sample->cpu_source);
    sample->start_ns = clock_ns(CLOCK_MONOTONIC);
}

void sample_end(struct sample *sample)
{
    sample->duration_ns = clock_ns(CLOCK_MONOTONIC) - sample->start_ns;
    sample->proxy_ns = cpu_used_ns(sample->cpu_source) - sample->proxy_ns;
    sample->client_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - sample->client_ns;
    sample->backend_ns = backend_ns(sample) - sample->backend_ns;
}

void sample_print(const struct sample *sample, const struct sample_counts *counts, const struct latency *latencies)
{
    printf("{\"ops\": %llu, \"bytes\": %llu, \"seconds\": %.6f, ", counts->ops, counts->bytes,
           (double)sample->duration_ns / 1e9);
    printf("\"proxy_cpu_s\": %.6f, \"client_cpu_s\": %.6f, \"backend_cpu_s\": %.6f, ", (double)sample->proxy_ns / 1e9,
           (double)sample->client_ns / 1e9, (double)sample->backend_ns / 1e9);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"stalled\": %u, ", latency_percentile_us(latencies, 0.5),
           latency_percentile_us(latencies, 0.99), counts->stalled);
    if (counts->has_syn_data) {
        printf("\"syn_data\": %llu, ", counts->syn_data);
    }
    sample_print_errors(counts->errors, counts->first_error);
}

void sample_print_errors(unsigned long long errors, const char *first_error)
{
    printf("\"errors\": %llu, \"first_error\": \"", errors);
    for (const char *at = first_error; *at != '\0'; at++) {
        (void)putchar(*at == '"' || *at == '\\' || (unsigned char)*at < ' ' ? '?' : *at);
    }
    printf("\"}\n");
    (void)fflush(stdout);
}
