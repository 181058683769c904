/*
 * A report for people (a table) and for programs (JSON).
 */
#ifndef CLI_PROBE_PRINT_H
#define CLI_PROBE_PRINT_H

#include <stdio.h>

#include "cli/probe_report.h"

/* Whether it could be written is for the caller to ask the stream. */
void probe_print_table(FILE *out, const struct probe_report *report);

/* One object in one line, described in socks6(1). Whatever bytes the texts hold, the result is valid JSON in ASCII. */
void probe_print_json(FILE *out, const struct probe_report *report);

#endif
