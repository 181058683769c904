#include "cli/probe_stack.h"

/*
 * What is asked for differs from what a connection has without being asked: "lower effort" traffic (RFC 8622), a hop
 * limit of 63. Both do no harm.
 */
#define ASKED_TOS 0x04
#define ASKED_TTL 63
#define ASKED_BACKLOG 4

#define YES SOCKS6_STACK_VALUE(SOCKS6_AVAILABILITY_YES, 0)
#define CLIENT SOCKS6_LEG_CLIENT_PROXY
#define REMOTE SOCKS6_LEG_PROXY_REMOTE

const struct probe_stack_row probe_stack_rows[PROBE_STACK_ROW_COUNT] = {
    {.row = PROBE_ROW_TOS_CLIENT,
     .where = PROBE_STACK_CONNECT,
     .asked = {CLIENT, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, SOCKS6_STACK_VALUE(ASKED_TOS, 0)},
     .shape = PROBE_STACK_BYTE,
     .yes = "TOS"},
    {.row = PROBE_ROW_TOS_REMOTE,
     .where = PROBE_STACK_CONNECT,
     .asked = {REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TOS, SOCKS6_STACK_VALUE(ASKED_TOS, 0)},
     .shape = PROBE_STACK_BYTE,
     .yes = "TOS"},
    {.row = PROBE_ROW_HAPPY_EYEBALLS,
     .where = PROBE_STACK_CONNECT_NAME,
     .asked = {REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS, YES},
     .shape = PROBE_STACK_AVAILABILITY,
     .yes = "attempted",
     .no = "not performed here"},
    {.row = PROBE_ROW_TTL_CLIENT,
     .where = PROBE_STACK_CONNECT,
     .asked = {CLIENT, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, SOCKS6_STACK_VALUE(ASKED_TTL, 0)},
     .shape = PROBE_STACK_BYTE,
     .yes = "the hop limit"},
    {.row = PROBE_ROW_TTL_REMOTE,
     .where = PROBE_STACK_CONNECT,
     .asked = {REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_TTL, SOCKS6_STACK_VALUE(ASKED_TTL, 0)},
     .shape = PROBE_STACK_BYTE,
     .yes = "the hop limit"},
    {.row = PROBE_ROW_NO_FRAGMENTATION_CLIENT,
     .where = PROBE_STACK_CONNECT,
     .asked = {CLIENT, SOCKS6_LEVEL_IP, SOCKS6_IP_NO_FRAGMENTATION, YES},
     .shape = PROBE_STACK_AVAILABILITY,
     .yes = "fragments are avoided",
     .no = "not enforced"},
    {.row = PROBE_ROW_NO_FRAGMENTATION_REMOTE,
     .where = PROBE_STACK_CONNECT,
     .asked = {REMOTE, SOCKS6_LEVEL_IP, SOCKS6_IP_NO_FRAGMENTATION, YES},
     .shape = PROBE_STACK_AVAILABILITY,
     .yes = "fragments are avoided",
     .no = "not enforced"},
    {.row = PROBE_ROW_TFO_REMOTE,
     .where = PROBE_STACK_CONNECT_DATA,
     .asked = {REMOTE, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN, 0},
     .shape = PROBE_STACK_SYN_BYTES},
    {.row = PROBE_ROW_MULTIPATH,
     .where = PROBE_STACK_CONNECT,
     .asked = {REMOTE, SOCKS6_LEVEL_TCP, SOCKS6_TCP_MULTIPATH, YES},
     .shape = PROBE_STACK_CHOICE,
     .yes = "the connection uses several paths",
     .no = "this connection is plain TCP"},
    {.row = PROBE_ROW_BACKLOG,
     .where = PROBE_STACK_BIND,
     .asked = {REMOTE, SOCKS6_LEVEL_TCP, SOCKS6_TCP_LISTEN_BACKLOG, ASKED_BACKLOG},
     .shape = PROBE_STACK_CONNECTIONS},
    {.row = PROBE_ROW_UDP_ERROR,
     .where = PROBE_STACK_UDP,
     .asked = {REMOTE, SOCKS6_LEVEL_UDP, SOCKS6_UDP_ERROR, YES},
     .shape = PROBE_STACK_AVAILABILITY,
     .yes = "ICMP errors will be reported",
     .no = "they will not be reported"},
    {.row = PROBE_ROW_PORT_PARITY,
     .where = PROBE_STACK_UDP,
     .asked = {REMOTE, SOCKS6_LEVEL_UDP, SOCKS6_UDP_PORT_PARITY, SOCKS6_STACK_VALUE(SOCKS6_PARITY_EVEN, 0)},
     .shape = PROBE_STACK_PARITY},
};

size_t probe_stack_collect(enum probe_stack_where where, struct socks6_stack_option out[PROBE_STACK_ROW_COUNT])
{
    size_t count = 0;

    for (size_t i = 0; i < PROBE_STACK_ROW_COUNT; i++) {
        if (probe_stack_rows[i].where == where) {
            out[count++] = probe_stack_rows[i].asked;
        }
    }
    return count;
}

static void tell_byte(struct probe_report *report, const struct probe_stack_row *row, unsigned got)
{
    unsigned asked = SOCKS6_STACK_FIRST(row->asked.value);

    if (got == asked) {
        probe_set(report, row->row, PROBE_YES, "%s is %u, as asked", row->yes, got);
    } else {
        probe_set(report, row->row, PROBE_NO, "understood, but %s is %u, not the %u asked for", row->yes, got, asked);
    }
}

static void tell_nonsense(struct probe_report *report, const struct probe_stack_row *row, unsigned value)
{
    probe_set(report, row->row, PROBE_BROKEN, "answered with the value %u, which means nothing", value);
}

static void tell_availability(struct probe_report *report, const struct probe_stack_row *row, unsigned value)
{
    if (value == SOCKS6_AVAILABILITY_UNSTATED && row->shape == PROBE_STACK_AVAILABILITY) {
        probe_set(report, row->row, PROBE_YES, "%s (said in the form up to -10)", row->yes);
    } else if (value == SOCKS6_AVAILABILITY_NO) {
        probe_set(report, row->row, PROBE_NO, "understood, but %s", row->no);
    } else if (value == SOCKS6_AVAILABILITY_YES) {
        probe_set(report, row->row, PROBE_YES, "%s", row->yes);
    } else {
        tell_nonsense(report, row, value);
    }
}

static void tell_syn_bytes(struct probe_report *report, const struct probe_stack_row *row, unsigned value)
{
    if (value > 0) {
        probe_set(report, row->row, PROBE_YES, "%u bytes travelled in the SYN to the target", value);
    } else {
        probe_set(report, row->row, PROBE_YES, "understood; no bytes travelled in the SYN this time");
    }
}

static void tell_connections(struct probe_report *report, const struct probe_stack_row *row, unsigned value)
{
    if (value > row->asked.value) {
        probe_set(report, row->row, PROBE_BROKEN, "%u connections granted, more than the %u asked for", value,
                  (unsigned)row->asked.value);
    } else if (value > 0) {
        probe_set(report, row->row, PROBE_YES, "%u of %u connections granted", value, (unsigned)row->asked.value);
    } else {
        probe_set(report, row->row, PROBE_NO, "understood, but none granted");
    }
}

static void tell_parity(struct probe_report *report, const struct probe_stack_row *row, uint16_t value)
{
    static const char *const words[] = {"any", "even", "odd"};
    unsigned parity = SOCKS6_STACK_FIRST(value);

    if (parity > SOCKS6_PARITY_ODD || SOCKS6_STACK_SECOND(value) > 1) {
        tell_nonsense(report, row, value);
    } else if (parity == SOCKS6_PARITY_EVEN) {
        probe_set(report, row->row, PROBE_YES, "an even port, as asked");
    } else {
        probe_set(report, row->row, PROBE_NO, "understood, but the parity is '%s'", words[parity]);
    }
}

void probe_stack_answered(struct probe_report *report, const struct probe_stack_row *row, uint16_t value)
{
    unsigned first = SOCKS6_STACK_FIRST(value);

    switch (row->shape) {
    case PROBE_STACK_BYTE:
        probe_set_value(report, row->row, first);
        tell_byte(report, row, first);
        break;
    case PROBE_STACK_AVAILABILITY:
    case PROBE_STACK_CHOICE:
        probe_set_value(report, row->row, first);
        tell_availability(report, row, first);
        break;
    case PROBE_STACK_SYN_BYTES:
        probe_set_value(report, row->row, value);
        tell_syn_bytes(report, row, value);
        break;
    case PROBE_STACK_CONNECTIONS:
        probe_set_value(report, row->row, value);
        tell_connections(report, row, value);
        break;
    case PROBE_STACK_PARITY:
        probe_set_value(report, row->row, value);
        tell_parity(report, row, value);
        break;
    }
}
