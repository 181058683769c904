#include "proxyd/status.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxyd/config_internal.h"
#include "proxyd/log.h"

static const struct stats_info process_infos[] = {
#define STATUS_INFO(name, type, unit, help) {#name, STATS_##type, STATS_##unit, help},
    STATUS_PROCESS_TABLE(STATUS_INFO)
#undef STATUS_INFO
};

_Static_assert(sizeof process_infos / sizeof process_infos[0] == STATUS_PROCESS_COUNT, "one row per value");

const struct stats_info *status_process_info(enum status_process_value value)
{
    return &process_infos[value];
}

/* ---- the process ---- */

static double resident_bytes(void)
{
    unsigned long size, resident;
    FILE *file = fopen("/proc/self/statm", "re");
    int got;

    if (file == NULL) {
        return 0;
    }
    got = fscanf(file, "%lu %lu", &size, &resident);
    (void)fclose(file); /* only read from */
    return got == 2 ? (double)resident * (double)sysconf(_SC_PAGESIZE) : 0;
}

/* Since Linux 6.2 the directory's size is their number; before, they have to be counted. */
static double count_descriptors(void)
{
    struct stat status;
    double count = 0;
    DIR *dir;

    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0) {
        return (double)status.st_size;
    }
    dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return 0;
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    return count - 1; /* the directory's own */
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

void status_process(uint64_t uptime_ms, double out[STATUS_PROCESS_COUNT])
{
    struct rusage usage = {0};

    (void)getrusage(RUSAGE_SELF, &usage); /* cannot fail for this process */
    out[STATUS_uptime_seconds] = (double)uptime_ms / 1000;
    out[STATUS_cpu_seconds] = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    out[STATUS_memory_bytes] = resident_bytes();
    out[STATUS_descriptors] = count_descriptors();
    out[STATUS_log_lines_lost] = (double)log_lost();
    out[STATUS_sessions] = out[STATUS_sessions_expired] = out[STATUS_logins_waiting] = 0;
}

/* ---- the document ---- */

/* As in the log: bytes that are not printable ASCII come out as \xNN, so that the text is valid whatever went in. */
static void put_text(const char *text, FILE *out)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            fprintf(out, "\\%c", *c);
        } else if (*c >= 0x20 && *c < 0x7f) {
            fputc(*c, out);
        } else {
            fprintf(out, "\\\\x%02x", *c);
        }
    }
    fputc('"', out);
}

static void put_time(const char *key, const struct timespec *when, FILE *out)
{
    char text[64];
    struct tm tm;

    fprintf(out, "  \"%s\": ", key);
    if (when->tv_sec == 0 || gmtime_r(&when->tv_sec, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        fputs("null,\n", out);
        return;
    }
    fprintf(out, "\"%s.%03dZ\",\n", text, (int)(when->tv_nsec / 1000000));
}

static void put_values(const uint64_t values[STATS_COUNT], const char *indent, FILE *out)
{
    fputs("{\n", out);
    for (unsigned i = 0; i < STATS_COUNT; i++) {
        fprintf(out, "%s  \"%s\": %" PRIu64 "%s\n", indent, stats_info((enum stats_counter)i)->name, values[i],
                i + 1 < STATS_COUNT ? "," : "");
    }
    fprintf(out, "%s}", indent);
}

static void put_process(const struct status_facts *facts, FILE *out)
{
    double values[STATUS_PROCESS_COUNT];

    status_process(facts->uptime_ms, values);
    values[STATUS_sessions] = (double)facts->sessions;
    values[STATUS_sessions_expired] = (double)facts->sessions_expired;
    values[STATUS_logins_waiting] = facts->logins_waiting;
    fputs("  \"process\": {\n", out);
    for (unsigned i = 0; i < STATUS_PROCESS_COUNT; i++) {
        fprintf(out, "    \"%s\": %.*f%s\n", process_infos[i].name, process_infos[i].unit == STATS_SECONDS ? 3 : 0,
                values[i], i + 1 < STATUS_PROCESS_COUNT ? "," : "");
    }
    fputs("  },\n", out);
}

/* `zero` is a limit that there is not. */
static void put_limit(const char *key, uint64_t value, FILE *out)
{
    if (value == 0) {
        fprintf(out, "    \"%s\": null,\n", key);
    } else {
        fprintf(out, "    \"%s\": %" PRIu64 ",\n", key, value);
    }
}

static void put_limits(const struct status_facts *facts, FILE *out)
{
    const struct config_limits *limits = &facts->config->limits;
    uint32_t per_client = limits->connections_per_client;

    fputs("  \"limits\": {\n", out);
    put_limit("connections", facts->connections_max, out);
    put_limit("connections_per_client", per_client == CONFIG_PER_CLIENT_AUTO ? CONFIG_PER_CLIENT_DEFAULT : per_client,
              out);
    put_limit("handshake_ms", limits->handshake_ms, out);
    put_limit("connect_ms", limits->connect_ms, out);
    put_limit("idle_ms", limits->relay.idle_ms, out);
    put_limit("half_closed_ms", limits->relay.half_closed_ms, out);
    put_limit("options_bytes", limits->options, out);
    put_limit("sessions", limits->sessions, out);
    put_limit("sessions_anonymous", limits->sessions_anonymous, out);
    put_limit("sessions_per_user", limits->sessions_per_user, out);
    put_limit("sessions_per_client", limits->sessions_per_client, out);
    put_limit("session_idle_ms", limits->session_idle_ms, out);
    put_limit("token_window", limits->token_window, out);
    fprintf(out, "    \"descriptors\": %" PRIu32 "\n  },\n", facts->descriptors_max);
}

static void put_listener(const struct config_listener *listener, const struct socks6_addr *bound, FILE *out)
{
    char text[SOCKS6_ADDR_TEXT_MAX];
    const char *separator = "";

    (void)socks6_addr_format(bound, text, sizeof text);
    fprintf(out, "    {\"address\": \"%s\", \"protocols\": [", text);
    for (unsigned i = 3; i-- > 0;) {
        if ((listener->protocols & 1u << i) != 0) {
            fprintf(out, "%s\"%s\"", separator, config_protocol_names[i]);
            separator = ", ";
        }
    }
    fprintf(out, "], \"tls\": %s}", listener->tls != NULL ? "true" : "false");
}

/* Who may come in; for the users their number, or which service of PAM knows them. */
static void put_auth(const struct status_facts *facts, FILE *out)
{
    const struct config_auth *auth = &facts->config->auth;
    const struct users_pam *pam = users_pam(facts->users);
    const char *separator = "";

    fputs("  \"auth\": {\"methods\": [", out);
    for (unsigned i = 0; config_method_names[i] != NULL; i++) {
        if ((auth->methods & 1u << i) != 0) {
            fprintf(out, "%s\"%s\"", separator, config_method_names[i]);
            separator = ", ";
        }
    }
    if (pam != NULL) {
        fprintf(out, "], \"users\": null, \"pam\": \"%s\"},\n", pam->service); /* of plain letters */
    } else {
        fprintf(out, "], \"users\": %zu},\n", facts->users == NULL ? 0 : users_count(facts->users));
    }
}

static void put_listeners(const struct status_facts *facts, FILE *out)
{
    const char *separator = "";

    fputs("  \"listeners\": [\n", out);
    for (size_t i = 0; !facts->draining && i < facts->config->listener_count; i++) {
        if (facts->bound[i].type == 0) {
            continue;
        }
        fputs(separator, out);
        put_listener(&facts->config->listeners[i], &facts->bound[i], out);
        separator = ",\n";
    }
    fputs("\n  ],\n", out);
}

static void put_workers(const struct status_facts *facts, FILE *out)
{
    uint64_t sum[STATS_COUNT] = {0};

    for (unsigned i = 0; i < facts->worker_count; i++) {
        stats_sum(sum, facts->workers[i]);
    }
    fputs("  \"totals\": ", out);
    put_values(sum, "  ", out);
    fputs(",\n  \"dns\": {\n", out);
    for (size_t i = 0; i < facts->dns_count; i++) {
        fprintf(out, "    \"%s\": %" PRIu64 "%s\n", facts->dns[i].name, facts->dns[i].value,
                i + 1 < facts->dns_count ? "," : "");
    }
    fputs("  },\n  \"workers\": [\n", out);
    for (unsigned i = 0; i < facts->worker_count; i++) {
        fputs("    ", out);
        put_values(facts->workers[i], "    ", out);
        fputs(i + 1 < facts->worker_count ? ",\n" : "\n", out);
    }
    fputs("  ]\n", out);
}

static void put_document(const struct status_facts *facts, FILE *out)
{
    fprintf(out, "{\n  \"version\": \"%s\",\n  \"pid\": %ld,\n  \"state\": \"%s\",\n", SOCKS6_BUILD_VERSION,
            (long)getpid(), facts->draining ? "draining" : "running");
    put_time("started", &facts->started, out);
    put_time("reloaded", &facts->reloaded, out);
    fputs("  \"config\": ", out);
    if (facts->config_path == NULL) {
        fputs("null", out);
    } else {
        put_text(facts->config_path, out);
    }
    fputs(",\n", out);
    put_process(facts, out);
    put_limits(facts, out);
    put_auth(facts, out);
    put_listeners(facts, out);
    put_workers(facts, out);
    fputs("}\n", out);
}

char *status_document(const struct status_facts *facts, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);

    if (out == NULL) {
        return NULL;
    }
    put_document(facts, out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
