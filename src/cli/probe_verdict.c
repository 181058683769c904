#include "cli/probe_verdict.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/exit.h"

__attribute__((format(printf, 3, 4))) static void conclude(struct probe_report *report, int exit_status,
                                                           const char *format, ...)
{
    va_list args;

    report->exit_status = exit_status;
    va_start(args, format);
    (void)vsnprintf(report->summary, sizeof report->summary, format, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void add(struct probe_report *report, const char *format, ...)
{
    size_t len = strlen(report->summary);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(report->summary + len, sizeof report->summary - len, format, args);
    va_end(args);
}

static void choose_kind(const struct probe_facts *facts, struct probe_report *report)
{
    if (!facts->is_reached) {
        report->kind = PROBE_KIND_UNREACHABLE;
    } else if (facts->socks6.progress != PROBE_NOT_SPOKEN) {
        report->kind = PROBE_KIND_SOCKS6;
    } else if (facts->socks5.progress != PROBE_NOT_SPOKEN) {
        report->kind = PROBE_KIND_SOCKS5;
    } else if (facts->speaks_socks4) {
        report->kind = PROBE_KIND_SOCKS4;
    }
}

static void conclude_stranger(const struct probe_facts *facts, struct probe_report *report)
{
    if (!facts->is_reached) {
        conclude(report, CLI_EXIT_PROXY, "this cannot be reached: %s", facts->unreached);
    } else if (facts->begins_as_socks6 && report->kind == PROBE_KIND_OTHER) {
        conclude(report, CLI_EXIT_PROXY, "this begins to answer as a SOCKS 6 proxy does, and breaks the protocol: %s",
                 report->rows[PROBE_ROW_SOCKS6].text);
    } else {
        conclude(report, CLI_EXIT_PROXY, "%s", probe_kind_sentence(report->kind));
        if (report->kind == PROBE_KIND_OTHER && facts->first_bytes[0] != '\0') {
            add(report, "; it says \"%s\"", facts->first_bytes);
        }
    }
}

/* A proxy, but not of the version that the URL asks for. */
static void conclude_other_version(const struct probe_facts *facts, enum socks6_scheme scheme,
                                   struct probe_report *report)
{
    const char *wanted = scheme == SOCKS6_SCHEME_SOCKS6 ? "6" : "5";

    if (facts->socks6.progress != PROBE_NOT_SPOKEN || facts->socks5.progress != PROBE_NOT_SPOKEN) {
        conclude(report, CLI_EXIT_PROXY, "%s, and does not speak SOCKS %s; name it by %s://",
                 probe_kind_sentence(report->kind), wanted, scheme == SOCKS6_SCHEME_SOCKS6 ? "socks5h" : "socks6");
    } else {
        conclude(report, CLI_EXIT_PROXY, "%s, and does not speak SOCKS %s", probe_kind_sentence(report->kind), wanted);
    }
}

static void conclude_replied(const struct probe_progress_of *of, struct probe_report *report)
{
    const char *kind = probe_kind_sentence(report->kind);

    if (of->code == 0) {
        conclude(report, CLI_EXIT_OK, "%s, and can be used", kind);
    } else if (!report->target_is_default) {
        conclude(report, CLI_EXIT_REMOTE, "%s, but does not connect to %.300s: %s (reply %u)", kind, report->target,
                 of->reply, of->code);
    } else if (of->code == SOCKS6_REPLY_COMMAND_UNSUPPORTED) {
        conclude(report, CLI_EXIT_REMOTE, "%s, but does not offer CONNECT", kind);
    } else {
        conclude(report, CLI_EXIT_OK,
                 "%s, and answers; to itself it does not connect: %s (reply %u). Name a --target to see more", kind,
                 of->reply, of->code);
    }
}

static void conclude_proxy(const struct probe_progress_of *of, struct probe_report *report)
{
    const char *kind = probe_kind_sentence(report->kind);

    switch (of->progress) {
    case PROBE_NOT_SPOKEN:
        break;
    case PROBE_SPOKEN:
        conclude(report, CLI_EXIT_PROXY, "%s, but does not answer a CONNECT as it should", kind);
        break;
    case PROBE_LOGIN_WANTED:
        conclude(report, CLI_EXIT_PROXY, "%s, and wants a login, which the proxy's URL does not give", kind);
        break;
    case PROBE_LOGIN_FAILED:
        conclude(report, CLI_EXIT_PROXY, "%s, and refuses this user name and password", kind);
        break;
    case PROBE_REPLIED:
        conclude_replied(of, report);
        break;
    }
}

/* What keeps a proxy that can be used from a clean bill of health. */
static void note_defects(struct probe_report *report)
{
    unsigned broken = 0;

    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        broken += report->rows[i].state == PROBE_BROKEN ? 1 : 0;
    }
    if (broken > 0) {
        add(report, "; %u answer%s the protocol", broken, broken == 1 ? " breaks" : "s break");
    }
    if (!report->complete) {
        add(report, "; the time ran out before all was asked");
    }
    if (report->exit_status == CLI_EXIT_OK && (broken > 0 || !report->complete)) {
        report->exit_status = CLI_EXIT_REMOTE;
    }
}

void probe_verdict(const struct probe_facts *facts, enum socks6_scheme scheme, bool any_version,
                   struct probe_report *report)
{
    const struct probe_progress_of *of = scheme == SOCKS6_SCHEME_SOCKS6 ? &facts->socks6 : &facts->socks5;
    bool is_proxy;

    choose_kind(facts, report);
    is_proxy = facts->is_reached && (report->kind == PROBE_KIND_SOCKS6 || report->kind == PROBE_KIND_SOCKS5 ||
                                     report->kind == PROBE_KIND_SOCKS4);
    if (any_version && facts->socks6.progress < facts->socks5.progress) {
        of = &facts->socks5;
    }
    if (!is_proxy) {
        conclude_stranger(facts, report);
    } else if (of->progress == PROBE_NOT_SPOKEN) {
        conclude_other_version(facts, scheme, report);
    } else {
        conclude_proxy(of, report);
    }
    if (is_proxy) {
        note_defects(report);
    }
}
