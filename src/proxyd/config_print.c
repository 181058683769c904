/*
 * The configuration in force as YAML. Texts are double-quoted and ASCII, so that the file reads the same everywhere and
 * no terminal acts on it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/config_internal.h"

/* UTF-8 (from libyaml, so it is well-formed) to a YAML string. */
void config_print_text(const char *text, FILE *out)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0';) {
        unsigned more = *c >= 0xf0 ? 3 : *c >= 0xe0 ? 2 : *c >= 0xc0 ? 1 : 0;
        uint32_t code = more == 0 ? *c : *c & (0x3fu >> more);

        for (c++; more > 0 && *c != '\0'; more--) {
            code = code << 6 | (*c++ & 0x3f);
        }
        if (code >= 0x20 && code < 0x7f && code != '"' && code != '\\') {
            fputc((int)code, out);
        } else {
            fprintf(out, "\\U%08" PRIX32, code);
        }
    }
    fputc('"', out);
}

void config_print_time(const char *key, uint64_t ms, FILE *out)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;

    if (ms == 0) {
        fprintf(out, "  %s: none\n", key);
        return;
    }
    while (ms % units[i].ms != 0) {
        i++;
    }
    fprintf(out, "  %s: %" PRIu64 "%s\n", key, ms / units[i].ms, units[i].name);
}

static void print_listener(const struct config_listener *listener, FILE *out)
{
    char address[SOCKS6_ADDR_TEXT_MAX];
    const char *separator = "";

    (void)socks6_addr_format(&listener->address, address, sizeof address);
    fputs("  - address: ", out);
    config_print_text(address, out);
    fputs("\n    protocols: [", out);
    for (unsigned i = 3; i-- > 0;) {
        if ((listener->protocols & 1u << i) == 0) {
            continue;
        }
        fprintf(out, "%s%s", separator, config_protocol_names[i]);
        separator = ", ";
    }
    fprintf(out, "]\n    open: %s\n", listener->open ? "true" : "false");
    config_print_fast_open("    ", &listener->fast_open, out);
    if (listener->tls != NULL) {
        config_print_tls(listener->tls, out);
    }
}

static void print_addresses(const struct socks6_addr *addrs, size_t count, bool is_first, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        char text[NET_TEXT_MAX];

        source_address_format(&addrs[i], text);
        fprintf(out, "%s\"%s\"", is_first && i == 0 ? "" : ", ", text);
    }
}

static void print_outgoing(const struct dialer_sources *outgoing, FILE *out)
{
    fputs("outgoing: [", out);
    print_addresses(outgoing->ipv4, outgoing->ipv4_count, true, out);
    print_addresses(outgoing->ipv6, outgoing->ipv6_count, outgoing->ipv4_count == 0, out);
    fputc(']', out);
}

static void print_rule(const struct policy_rule *rule, FILE *out)
{
    const char *separator = "";

    fprintf(out, "  - %s: {", rule->allow ? "allow" : "deny");
    for (int i = 0; i < POLICY_CRITERION_COUNT; i++) {
        const struct nameset *shown = &rule->shown[i];

        if (shown->count == 0) {
            continue;
        }
        fprintf(out, "%s%s: [", separator, config_rule_section.keys[i].name);
        separator = ", ";
        for (size_t j = 0; j < shown->count; j++) {
            fputs(j == 0 ? "" : ", ", out);
            config_print_text(shown->items[j], out);
        }
        fputc(']', out);
    }
    if (rule->has_outgoing) {
        fputs(separator, out);
        print_outgoing(&rule->outgoing, out);
    }
    fputs("}\n", out);
}

static void print_number(const char *key, uint32_t value, const char *zero, FILE *out)
{
    if (value == 0) {
        fprintf(out, "  %s: %s\n", key, zero);
    } else {
        fprintf(out, "  %s: %" PRIu32 "\n", key, value);
    }
}

/* What could not be made or written: -t opens nothing, and all this may change until the start. */
static void note_path(const char *key, const char *path, bool is_written, FILE *out)
{
    size_t len = (size_t)(strrchr(path, '/') - path);
    char *dir = len == 0 ? strndup("/", 1) : strndup(path, len);
    bool is_there = is_written && (access(path, W_OK) == 0 || errno != ENOENT);
    const char *needed = is_there ? path : dir;

    if (needed != NULL && access(needed, is_there ? W_OK : W_OK | X_OK) != 0) {
        int error = errno;

        fprintf(out, "note: %s: the daemon would not start now: ", key);
        config_print_text(needed, out);
        fprintf(out, ": %s\n", strerrordesc_np(error));
    }
    free(dir);
}

static void note_paths(const struct config *config, FILE *out)
{
    const struct config_log *log = &config->log;
    bool is_file = log->daemon.target == CONFIG_LOG_FILE;

    if (is_file) {
        note_path("log.output", log->daemon.path, true, out);
    }
    if (log->access && log->access_output.target == CONFIG_LOG_FILE &&
        (!is_file || strcmp(log->access_output.path, log->daemon.path) != 0)) {
        note_path("log.access.output", log->access_output.path, true, out);
    }
    if (config->status.kind == CONFIG_STATUS_PATH) {
        note_path("status.socket", config->status.path, false, out);
    }
}

static void note_missing(void *user, const char *address, unsigned line, int error)
{
    char where[32] = "";

    if (line != 0) {
        (void)snprintf(where, sizeof where, " of the rule at line %u", line);
    }
    fprintf(user, "note: outgoing%s: no connection can come from %s now: %s\n", where, address, strerrordesc_np(error));
}

static void note_certificate(void *user, const char *listener, const char *path, const char *warning)
{
    fprintf(user, "note: the certificate of %s ", listener);
    config_print_text(path, user);
    fprintf(user, " %s\n", warning);
}

void config_notes(const struct config *config, FILE *out)
{
    config_auth_notes(config, out);
    config_certificate_warnings(config, note_certificate, out);
    config_missing_outgoing(config, note_missing, out);
    note_paths(config, out);
}

static void print_output(const char *indent, const struct config_log_output *output, FILE *out)
{
    fprintf(out, "%sformat: %s\n%soutput: ", indent, config_format_names[output->format], indent);
    if (output->target == CONFIG_LOG_FILE) {
        config_print_text(output->path, out);
    } else {
        fputs(config_target_names[output->target], out);
    }
    fputc('\n', out);
}

static void print_log(const struct config_log *log, FILE *out)
{
    fprintf(out, "log:\n  level: %s\n", config_level_names[log->level]);
    print_output("  ", &log->daemon, out);
    if (!log->access) {
        fputs("  access: false\n", out);
        return;
    }
    fputs("  access:\n", out);
    print_output("    ", &log->access_output, out);
    fputs("    fields: [", out);
    for (unsigned i = 0; i < log->fields.count; i++) {
        fprintf(out, "%s%s", i == 0 ? "" : ", ", config_field_names[log->fields.order[i]]);
    }
    fputs("]\n", out);
}

static void print_socket(const struct config_status *status, FILE *out)
{
    switch (status->kind) {
    case CONFIG_STATUS_AUTO:
        fputs("auto", out);
        break;
    case CONFIG_STATUS_NONE:
        fputs("none", out);
        break;
    case CONFIG_STATUS_PATH:
        config_print_text(status->path, out);
        break;
    }
    fputc('\n', out);
}

static void print_remarks(const struct config *config, FILE *out)
{
    const struct policy *policy = config->policy;
    bool has_users = false;

    for (size_t i = 0; i < policy->count; i++) {
        has_users = has_users || rule_has(&policy->rules[i], POLICY_USERS);
    }
    if (has_users && config->auth.methods == CONFIG_AUTH_ANONYMOUS) {
        fputs("# Rules with 'users' match nobody: nobody can log in, every client is anonymous.\n", out);
    }
    fprintf(out, "# What no rule matches is %s%s.\n", policy_default_allow(policy) ? "allowed" : "denied",
            policy->count == 0 ? "" : ", the opposite of the last rule");
    fputs(
        "# In any case clients that are not on loopback reach the proxy's own, loopback and link-local addresses only\n"
        "# where an allow rule names them in 'to'.\n",
        out);
}

static void print_happy_eyeballs(const struct config_happy_eyeballs *eyeballs, FILE *out)
{
    fputs("happy_eyeballs:\n", out);
    config_print_time("resolution_delay", eyeballs->race.resolution_delay_ms, out);
    config_print_time("attempt_delay", eyeballs->race.attempt_delay_ms, out);
    fprintf(out, "  first_family_count: %u\n  prefer: %s\n", eyeballs->race.first_family_count,
            config_prefer_names[eyeballs->race.prefer]);
    config_print_time("remember", eyeballs->remember_ms, out);
    fprintf(out, "  legacy: %s\n", eyeballs->legacy ? "true" : "false");
}

void config_print(const struct config *config, FILE *out)
{
    const struct config_limits *limits = &config->limits;
    const struct policy *policy = config->policy;

    fputs("listeners:\n", out);
    for (size_t i = 0; i < config->listener_count; i++) {
        print_listener(&config->listeners[i], out);
    }
    fprintf(out, "open: %s\n", config_is_open(config) ? "true" : "false");
    config_print_fast_open("", config_fast_open(config), out);
    if (config->workers == 0) {
        fputs("workers: auto\n", out);
    } else {
        fprintf(out, "workers: %u\n", config->workers);
    }
    fprintf(out, "relay: %s\n", config_relay_names[config->relay]);
    print_outgoing(&policy->outgoing, out);
    fputc('\n', out);
    fputs(policy->count == 0 ? "rules: []\n" : "rules:\n", out);
    for (size_t i = 0; i < policy->count; i++) {
        print_rule(&policy->rules[i], out);
    }
    config_print_auth(&config->auth, out);
    fputs("limits:\n", out);
    config_print_time("handshake", limits->handshake_ms, out);
    config_print_time("connect", limits->connect_ms, out);
    config_print_time("idle", limits->relay.idle_ms, out);
    config_print_time("half_closed", limits->relay.half_closed_ms, out);
    print_number("connections", limits->connections, "auto", out);
    if (limits->connections_per_client == CONFIG_PER_CLIENT_AUTO) {
        print_number("connections_per_client", 0, "auto", out);
    } else {
        print_number("connections_per_client", limits->connections_per_client, "none", out);
    }
    print_number("options", limits->options, "0", out);
    print_number("sessions", limits->sessions, "0", out);
    print_number("sessions_anonymous", limits->sessions_anonymous, "none", out);
    print_number("sessions_per_user", limits->sessions_per_user, "none", out);
    print_number("sessions_per_client", limits->sessions_per_client, "none", out);
    config_print_time("session_idle", limits->session_idle_ms, out);
    print_number("token_window", limits->token_window, "0", out);
    print_happy_eyeballs(&config->happy_eyeballs, out);
    config_print_dns(&config->dns, out);
    print_log(&config->log, out);
    fputs("status:\n  socket: ", out);
    print_socket(&config->status, out);
    print_remarks(config, out);
}
