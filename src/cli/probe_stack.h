/*
 * The Stack options that are asked for, and what the answers mean: one table. Pure.
 */
#ifndef CLI_PROBE_STACK_H
#define CLI_PROBE_STACK_H

#include <socks6/types.h>

#include "cli/probe_report.h"

/* In which request an option is asked: those to which it applies. */
enum probe_stack_where {
    PROBE_STACK_CONNECT,      /* CONNECT to the target */
    PROBE_STACK_CONNECT_NAME, /* CONNECT by name */
    PROBE_STACK_CONNECT_DATA, /* CONNECT, with data behind the request */
    PROBE_STACK_BIND,
    PROBE_STACK_UDP
};

/* How the value of an answer reads. */
enum probe_stack_shape {
    PROBE_STACK_BYTE,         /* what was asked for, or something else */
    PROBE_STACK_AVAILABILITY, /* 1 no, 2 yes; 0 yes, in the form up to -10 */
    PROBE_STACK_CHOICE,       /* 1 no, 2 yes in all revisions */
    PROBE_STACK_SYN_BYTES,
    PROBE_STACK_CONNECTIONS,
    PROBE_STACK_PARITY
};

struct probe_stack_row {
    enum probe_row_id row;
    enum probe_stack_where where;
    struct socks6_stack_option asked;
    enum probe_stack_shape shape;
    const char *yes; /* the words for it; of PROBE_STACK_BYTE the name of what is set */
    const char *no;
};

#define PROBE_STACK_ROW_COUNT 12
extern const struct probe_stack_row probe_stack_rows[PROBE_STACK_ROW_COUNT];

/* The options of one kind of request. Returns how many. */
size_t probe_stack_collect(enum probe_stack_where where, struct socks6_stack_option out[PROBE_STACK_ROW_COUNT]);

/* Fills the row of an option that was answered with `value`. */
void probe_stack_answered(struct probe_report *report, const struct probe_stack_row *row, uint16_t value);

#endif
