/* The report for people. */
#include <string.h>

#include "cli/probe_print.h"

#define TITLE_WIDTH 24
#define STATE_WIDTH 8

/* Whether no row of a group was asked; `end` is the first row behind the group. */
static bool is_group_skipped(const struct probe_report *report, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        if (report->rows[i].state != PROBE_SKIPPED) {
            return false;
        }
    }
    return true;
}

static size_t group_end(size_t first)
{
    size_t end = first;

    while (end < PROBE_ROW_COUNT && strcmp(probe_row_names[end].group, probe_row_names[first].group) == 0) {
        end++;
    }
    return end;
}

static void print_row(FILE *out, const char *title, const struct probe_row *row)
{
    (void)fprintf(out, "  %-*s %-*s %s\n", TITLE_WIDTH, title, STATE_WIDTH,
                  row->state == PROBE_SKIPPED ? "-" : probe_state_name(row->state), row->text);
}

void probe_print_table(FILE *out, const struct probe_report *report)
{
    size_t end;

    (void)fprintf(out, "%s: %s.\n", report->proxy, report->summary);
    for (size_t first = 0; first < PROBE_ROW_COUNT; first = end) {
        end = group_end(first);
        if (is_group_skipped(report, first, end)) {
            continue; /* the summary and the rows of the versions say why */
        }
        (void)fprintf(out, "\n%s\n", probe_row_names[first].group);
        for (size_t i = first; i < end; i++) {
            print_row(out, probe_row_names[i].title, &report->rows[i]);
        }
    }
}
