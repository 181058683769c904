/*
 * What `socks6 probe` has found out: one row per question, always the same rows in the same order. Filled by the plan
 * (probe_plan.c and its kin), printed by probe_table.c and probe_json.c. Pure values, no I/O.
 */
#ifndef CLI_PROBE_REPORT_H
#define CLI_PROBE_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#include "cli/probe_guess.h"

enum probe_state {
    PROBE_SKIPPED = 0, /* not asked */
    PROBE_YES,
    PROBE_NO,
    PROBE_UNKNOWN, /* asked; the answer does not tell */
    PROBE_BROKEN,  /* the answer breaks the protocol */
    PROBE_STATE_COUNT
};

enum probe_row_id {
    PROBE_ROW_TCP,
    PROBE_ROW_TFO_CLIENT,
    PROBE_ROW_SOCKS6,
    PROBE_ROW_SOCKS5,
    PROBE_ROW_SOCKS4A,
    PROBE_ROW_SOCKS4,
    PROBE_ROW_DRAFT,
    PROBE_ROW_NAMES_11,
    PROBE_ROW_NAMES_12,
    PROBE_ROW_OPTIONS_20K,
    PROBE_ROW_UDP_FRAMING,
    PROBE_ROW_METHODS_6,
    PROBE_ROW_METHODS_5,
    PROBE_ROW_LOGIN,
    PROBE_ROW_NOOP,
    PROBE_ROW_CONNECT,
    PROBE_ROW_CONNECT_NAME,
    PROBE_ROW_BIND,
    PROBE_ROW_UDP,
    PROBE_ROW_CONNECT_5,
    PROBE_ROW_TOS_CLIENT,
    PROBE_ROW_TOS_REMOTE,
    PROBE_ROW_HAPPY_EYEBALLS,
    PROBE_ROW_TTL_CLIENT,
    PROBE_ROW_TTL_REMOTE,
    PROBE_ROW_NO_FRAGMENTATION_CLIENT,
    PROBE_ROW_NO_FRAGMENTATION_REMOTE,
    PROBE_ROW_TFO_REMOTE,
    PROBE_ROW_MULTIPATH,
    PROBE_ROW_BACKLOG,
    PROBE_ROW_UDP_ERROR,
    PROBE_ROW_PORT_PARITY,
    PROBE_ROW_DNS_IPV4,
    PROBE_ROW_DNS_IPV6,
    PROBE_ROW_SESSION,
    PROBE_ROW_SESSION_RESUME,
    PROBE_ROW_TOKENS,
    PROBE_ROW_SESSION_END,
    PROBE_ROW_TIME_NOOP,
    PROBE_ROW_TIME_CONNECT,
    PROBE_ROW_TIME_COLD,
    PROBE_ROW_TIME_WARM,
    PROBE_ROW_TIME_SOCKS5,
    PROBE_ROW_COUNT
};

#define PROBE_TEXT_MAX 256
#define PROBE_LIST_MAX 16

struct probe_row {
    enum probe_state state;
    char text[PROBE_TEXT_MAX]; /* a sentence without full stop; printable */
    bool has_value;
    uint32_t value; /* what the row's description in socks6(1) says */
    bool has_time;
    double ms;
    double round_trips;           /* of the connection; below 0 = unknown */
    uint8_t list[PROBE_LIST_MAX]; /* authentication methods; revisions */
    size_t list_count;
};

struct probe_report {
    char proxy[SOCKS6_ADDR_TEXT_MAX];  /* as it was named */
    char target[SOCKS6_ADDR_TEXT_MAX]; /* what CONNECT asked for */
    bool target_is_default;
    enum probe_kind kind;
    char summary[512];
    int exit_status; /* enum cli_exit */
    bool complete;   /* the time was enough for all questions */
    uint64_t elapsed_ms;
    struct probe_row rows[PROBE_ROW_COUNT];
};

/* What the rows are called. `group` changes where the table has a heading. */
struct probe_row_name {
    const char *group; /* heading of the table */
    const char *key;   /* of the JSON object: never changes */
    const char *title; /* of the table */
};
extern const struct probe_row_name probe_row_names[PROBE_ROW_COUNT];

/* "yes", "no", ...: for both outputs. */
const char *probe_state_name(enum probe_state state);

/* All rows unasked, everything else empty. */
void probe_report_init(struct probe_report *report);

/* Fills a row. What does not fit is cut. */
__attribute__((format(printf, 4, 5))) void probe_set(struct probe_report *report, enum probe_row_id id,
                                                     enum probe_state state, const char *format, ...);
/* Adds to a row. */
void probe_set_value(struct probe_report *report, enum probe_row_id id, uint32_t value);
void probe_set_time(struct probe_report *report, enum probe_row_id id, uint64_t us, uint32_t rtt_us);
void probe_list_add(struct probe_report *report, enum probe_row_id id, uint8_t entry);

#endif
