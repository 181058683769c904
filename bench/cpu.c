/* See cpu.h. */
#include "cpu.h"

#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t of_cgroup_ns(const char *path)
{
    FILE *file = fopen(path, "re");
    unsigned long long value = 0;
    if (file == NULL) {
        die(path);
    }
    uint64_t unit_ns = 1000;
    if (fscanf(file, "usage_usec %llu", &value) != 1) {
        unit_ns = 1;
        rewind(file);
        if (fscanf(file, "%llu", &value) != 1) {
            fprintf(stderr, "%s: no CPU time in it\n", path);
            exit(1);
        }
    }
    (void)fclose(file);
    return value * unit_ns;
}

/* All of its threads, those that have ended as well; 0 for a process that is gone. */
static uint64_t of_process_ns(const char *process)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid((pid_t)strtol(process, NULL, 10), &clock) != 0 || clock_gettime(clock, &used) < 0) {
        return 0;
    }
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

uint64_t cpu_used_ns(const char *source)
{
    if (source == NULL || source[0] == '\0') {
        return 0;
    }
    if (source[0] == '/') {
        return of_cgroup_ns(source);
    }
    uint64_t sum = 0;
    char *list = strdup(source), *state = NULL;
    if (list == NULL) {
        die("strdup");
    }
    for (const char *pid = strtok_r(list, ",", &state); pid != NULL; pid = strtok_r(NULL, ",", &state)) {
        sum += of_process_ns(pid);
    }
    free(list);
    return sum;
}
