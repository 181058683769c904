/*
 * What the daemon says of itself: one JSON document, for `socks6d --status` and whoever else reads the status socket.
 *
 * Pure but for the numbers of the process, which come from the kernel. daemon.c gathers, status_socket.c delivers.
 */
#ifndef PROXYD_STATUS_H
#define PROXYD_STATUS_H

#include <stddef.h>
#include <time.h>

#include "proxyd/config.h"
#include "proxyd/stats.h"

/* X(name, type, unit, help), as STATS_TABLE: values of the whole process. Those in seconds have a fraction. */
#define STATUS_PROCESS_TABLE(X)                                                                                        \
    X(uptime_seconds, GAUGE, SECONDS, "time since the start")                                                          \
    X(cpu_seconds, COUNTER, SECONDS, "processor time used")                                                            \
    X(memory_bytes, GAUGE, BYTES, "resident memory")                                                                   \
    X(descriptors, GAUGE, NONE, "open descriptors")                                                                    \
    X(log_lines_lost, COUNTER, NONE,                                                                                   \
      "lines of the log that its reader was too slow for, or that could not be written")                               \
    X(sessions, GAUGE, NONE, "SOCKS 6 sessions that live now")                                                         \
    X(sessions_expired, COUNTER, NONE, "sessions ended because nobody used them, or by their age")                     \
    X(logins_waiting, GAUGE, NONE, "log-ins whose password is being checked now, or waits for that")

enum status_process_value {
#define STATUS_ENUM(name, type, unit, help) STATUS_##name,
    STATUS_PROCESS_TABLE(STATUS_ENUM)
#undef STATUS_ENUM
        STATUS_PROCESS_COUNT
};

/* A counter of a part that has its own table (the resolver's is "dns/counters.h"). */
struct status_value {
    const char *name;
    uint64_t value;
};

/* All borrowed. */
struct status_facts {
    const char *config_path; /* NULL = none, the defaults */
    const struct config *config;
    struct timespec started, reloaded; /* CLOCK_REALTIME; `reloaded` all zero = never */
    uint64_t uptime_ms;
    bool draining;
    const struct socks6_addr *bound;        /* [listener of `config`]; type 0: left out */
    const uint64_t (*workers)[STATS_COUNT]; /* as stats_read() gives them */
    unsigned worker_count;
    const struct status_value *dns;
    size_t dns_count;
    uint32_t connections_max, descriptors_max; /* in force */
    uint64_t sessions, sessions_expired;
    unsigned logins_waiting;
    const struct users *users; /* in force; NULL = none */
};

/* The document, ending in a newline; to be freed. NULL = no memory. */
SOCKS6_MUST_CHECK char *status_document(const struct status_facts *facts, size_t *len);

/* The process's values now, from /proc and getrusage(2); those that cannot be read are 0, and so are those of facts. */
void status_process(uint64_t uptime_ms, double out[STATUS_PROCESS_COUNT]);
const struct stats_info *status_process_info(enum status_process_value value);

#endif
