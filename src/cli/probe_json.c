/* The report for programs. */
#include <inttypes.h>

#include "cli/probe_print.h"

/* A string of RFC 8259 in ASCII: what is not printable becomes \u00XX, byte by byte. */
static void print_string(FILE *out, const char *text)
{
    (void)fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') {
            (void)fprintf(out, "\\%c", *at);
        } else if (*at < ' ' || *at > '~') {
            (void)fprintf(out, "\\u%04x", (unsigned)*at);
        } else {
            (void)fputc(*at, out);
        }
    }
    (void)fputc('"', out);
}

static void print_member(FILE *out, const char *key, const char *text)
{
    (void)fprintf(out, "\"%s\":", key);
    print_string(out, text);
    (void)fputc(',', out);
}

/* Rows that can have a list always show one. */
static int has_list(enum probe_row_id id)
{
    return id == PROBE_ROW_DRAFT || id == PROBE_ROW_METHODS_6 || id == PROBE_ROW_METHODS_5;
}

static void print_times(FILE *out, const struct probe_row *row)
{
    if (!row->has_time) {
        (void)fputs(",\"ms\":null,\"round_trips\":null", out);
        return;
    }
    /* A locale is never set: the decimal point is a point. */
    (void)fprintf(out, ",\"ms\":%.3f", row->ms);
    if (row->round_trips >= 0.0) {
        (void)fprintf(out, ",\"round_trips\":%.2f", row->round_trips);
    } else {
        (void)fputs(",\"round_trips\":null", out);
    }
}

static void print_check(FILE *out, enum probe_row_id id, const struct probe_row *row)
{
    (void)fprintf(out, "\"%s\":{\"state\":\"%s\",\"text\":", probe_row_names[id].key, probe_state_name(row->state));
    print_string(out, row->text);
    if (row->has_value) {
        (void)fprintf(out, ",\"value\":%" PRIu32, row->value);
    } else {
        (void)fputs(",\"value\":null", out);
    }
    print_times(out, row);
    if (has_list(id)) {
        (void)fputs(",\"list\":[", out);
        for (size_t i = 0; i < row->list_count; i++) {
            (void)fprintf(out, "%s%u", i > 0 ? "," : "", (unsigned)row->list[i]);
        }
        (void)fputc(']', out);
    }
    (void)fputc('}', out);
}

void probe_print_json(FILE *out, const struct probe_report *report)
{
    (void)fputc('{', out);
    print_member(out, "proxy", report->proxy);
    print_member(out, "target", report->target);
    (void)fprintf(out, "\"target_is_default\":%s,", report->target_is_default ? "true" : "false");
    print_member(out, "looks_like", probe_kind_key(report->kind));
    print_member(out, "summary", report->summary);
    (void)fprintf(out, "\"exit_status\":%d,\"complete\":%s,\"elapsed_ms\":%" PRIu64 ",\"checks\":{",
                  report->exit_status, report->complete ? "true" : "false", report->elapsed_ms);
    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        if (i > 0) {
            (void)fputc(',', out);
        }
        print_check(out, (enum probe_row_id)i, &report->rows[i]);
    }
    (void)fputs("}}\n", out);
}
