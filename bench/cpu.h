/* The CPU time that a proxy has used so far: of a control group, or of processes with all their threads. */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <stdint.h>

/*
 * Nanoseconds. `source` is NULL or "" (nothing: 0), the path of a cgroup's cpu.stat (or cpuacct.usage), which counts
 * processes that have ended as well, or a list of process ids with commas in between, whose children are not counted.
 */
uint64_t cpu_used_ns(const char *source);

#endif
