#include "cli/probe_report.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define VERSIONS "Versions"
#define REVISION "Revision of SOCKS 6"
#define AUTH "Authentication"
#define COMMANDS "Commands"
#define STACK "Stack options of SOCKS 6"
#define SESSIONS "Sessions of SOCKS 6"
#define TIMES "Reply times"

const struct probe_row_name probe_row_names[PROBE_ROW_COUNT] = {
    [PROBE_ROW_TCP] = {"Connection", "connection.tcp", "TCP"},
    [PROBE_ROW_TFO_CLIENT] = {"Connection", "connection.fast_open", "TCP Fast Open"},
    [PROBE_ROW_SOCKS6] = {VERSIONS, "version.socks6", "SOCKS 6"},
    [PROBE_ROW_SOCKS5] = {VERSIONS, "version.socks5", "SOCKS 5"},
    [PROBE_ROW_SOCKS4A] = {VERSIONS, "version.socks4a", "SOCKS 4a"},
    [PROBE_ROW_SOCKS4] = {VERSIONS, "version.socks4", "SOCKS 4"},
    [PROBE_ROW_DRAFT] = {REVISION, "revision.draft", "draft"},
    [PROBE_ROW_NAMES_11] = {REVISION, "revision.names_11", "names as in -08 to -11"},
    [PROBE_ROW_NAMES_12] = {REVISION, "revision.names_12", "names as in -12"},
    [PROBE_ROW_OPTIONS_20K] = {REVISION, "revision.options_20k", "20 KiB of options"},
    [PROBE_ROW_UDP_FRAMING] = {REVISION, "revision.udp_framing", "UDP messages of -09 on"},
    [PROBE_ROW_METHODS_6] = {AUTH, "auth.socks6_methods", "SOCKS 6 without login"},
    [PROBE_ROW_METHODS_5] = {AUTH, "auth.socks5_methods", "SOCKS 5 without login"},
    [PROBE_ROW_LOGIN] = {AUTH, "auth.login", "user name and password"},
    [PROBE_ROW_NOOP] = {COMMANDS, "command.noop", "NOOP"},
    [PROBE_ROW_CONNECT] = {COMMANDS, "command.connect", "CONNECT"},
    [PROBE_ROW_CONNECT_NAME] = {COMMANDS, "command.connect_name", "CONNECT by name"},
    [PROBE_ROW_BIND] = {COMMANDS, "command.bind", "BIND"},
    [PROBE_ROW_UDP] = {COMMANDS, "command.udp_associate", "UDP ASSOCIATE"},
    [PROBE_ROW_CONNECT_5] = {COMMANDS, "command.socks5_connect", "CONNECT of SOCKS 5"},
    [PROBE_ROW_TOS_CLIENT] = {STACK, "stack.tos.client_proxy", "TOS, to us"},
    [PROBE_ROW_TOS_REMOTE] = {STACK, "stack.tos.proxy_remote", "TOS, to the target"},
    [PROBE_ROW_HAPPY_EYEBALLS] = {STACK, "stack.happy_eyeballs", "Happy Eyeballs"},
    [PROBE_ROW_TTL_CLIENT] = {STACK, "stack.ttl.client_proxy", "TTL, to us"},
    [PROBE_ROW_TTL_REMOTE] = {STACK, "stack.ttl.proxy_remote", "TTL, to the target"},
    [PROBE_ROW_NO_FRAGMENTATION_CLIENT] = {STACK, "stack.no_fragmentation.client_proxy", "no fragments, to us"},
    [PROBE_ROW_NO_FRAGMENTATION_REMOTE] = {STACK, "stack.no_fragmentation.proxy_remote", "no fragments, target"},
    [PROBE_ROW_TFO_REMOTE] = {STACK, "stack.fast_open", "TCP Fast Open, target"},
    [PROBE_ROW_MULTIPATH] = {STACK, "stack.multipath", "Multipath TCP"},
    [PROBE_ROW_BACKLOG] = {STACK, "stack.listen_backlog", "listen backlog"},
    [PROBE_ROW_UDP_ERROR] = {STACK, "stack.udp_error", "UDP errors"},
    [PROBE_ROW_PORT_PARITY] = {STACK, "stack.port_parity", "port parity"},
    [PROBE_ROW_DNS_IPV4] = {"DNS service of SOCKS 6", "dns.ipv4", "0.0.0.0:53"},
    [PROBE_ROW_DNS_IPV6] = {"DNS service of SOCKS 6", "dns.ipv6", "[::]:53"},
    [PROBE_ROW_SESSION] = {SESSIONS, "session.start", "session"},
    [PROBE_ROW_SESSION_RESUME] = {SESSIONS, "session.resume", "used again"},
    [PROBE_ROW_TOKENS] = {SESSIONS, "session.tokens", "idempotence tokens"},
    [PROBE_ROW_SESSION_END] = {SESSIONS, "session.teardown", "ended"},
    [PROBE_ROW_TIME_NOOP] = {TIMES, "time.noop", "NOOP"},
    [PROBE_ROW_TIME_CONNECT] = {TIMES, "time.connect", "CONNECT"},
    [PROBE_ROW_TIME_COLD] = {TIMES, "time.cold", "from nothing, cold"},
    [PROBE_ROW_TIME_WARM] = {TIMES, "time.warm", "from nothing, warm"},
    [PROBE_ROW_TIME_SOCKS5] = {TIMES, "time.socks5_connect", "CONNECT of SOCKS 5"},
};

const char *probe_state_name(enum probe_state state)
{
    switch (state) {
    case PROBE_SKIPPED:
        return "skipped";
    case PROBE_YES:
        return "yes";
    case PROBE_NO:
        return "no";
    case PROBE_UNKNOWN:
        return "unknown";
    case PROBE_BROKEN:
        return "broken";
    case PROBE_STATE_COUNT:
        break;
    }
    return "";
}

void probe_report_init(struct probe_report *report)
{
    memset(report, 0, sizeof *report);
    report->complete = true;
    for (size_t i = 0; i < PROBE_ROW_COUNT; i++) {
        (void)snprintf(report->rows[i].text, sizeof report->rows[i].text, "not asked");
    }
}

void probe_set(struct probe_report *report, enum probe_row_id id, enum probe_state state, const char *format, ...)
{
    struct probe_row *row = &report->rows[id];
    va_list args;

    row->state = state;
    va_start(args, format);
    (void)vsnprintf(row->text, sizeof row->text, format, args);
    va_end(args);
}

void probe_set_value(struct probe_report *report, enum probe_row_id id, uint32_t value)
{
    report->rows[id].has_value = true;
    report->rows[id].value = value;
}

void probe_set_time(struct probe_report *report, enum probe_row_id id, uint64_t us, uint32_t rtt_us)
{
    struct probe_row *row = &report->rows[id];

    row->has_time = true;
    row->ms = (double)us / 1000.0;
    row->round_trips = rtt_us > 0 ? (double)us / (double)rtt_us : -1.0;
}

void probe_list_add(struct probe_report *report, enum probe_row_id id, uint8_t entry)
{
    struct probe_row *row = &report->rows[id];

    assert(row->list_count < PROBE_LIST_MAX);
    row->list[row->list_count++] = entry;
}
