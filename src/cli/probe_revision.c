#include "cli/probe_revision.h"

#include <stdio.h>
#include <string.h>

#define FIRST 8
#define LAST 12

/* Revisions as bits. */
#define FROM_TO(first, last) ((2u << (last)) - (1u << (first)))
#define ALL FROM_TO(FIRST, LAST)

struct conclusion {
    unsigned possible;
    bool is_mixed;
    char reasons[PROBE_TEXT_MAX];
};

static void narrow(struct conclusion *c, unsigned fits, const char *reason)
{
    size_t len = strlen(c->reasons);

    if (c->is_mixed || (c->possible & fits) == c->possible) {
        return; /* tells nothing new */
    }
    (void)snprintf(c->reasons + len, sizeof c->reasons - len, "%s%s", len > 0 ? "; " : "", reason);
    c->is_mixed = (c->possible & fits) == 0;
    c->possible &= fits;
}

static void narrow_by_values(const struct probe_observations *seen, struct conclusion *c)
{
    if (seen->happy_eyeballs == 0) {
        narrow(c, FROM_TO(8, 10), "Happy Eyeballs is answered without a value");
    } else if (seen->happy_eyeballs > 0) {
        narrow(c, FROM_TO(11, 12), "Happy Eyeballs is answered with a value");
    }
    if (seen->no_fragmentation == 0) {
        narrow(c, FROM_TO(10, 10), "No Fragmentation is answered without a value");
    } else if (seen->no_fragmentation > 0) {
        narrow(c, FROM_TO(11, 12), "No Fragmentation is answered with a value");
    }
    if (seen->udp_error == 0) {
        narrow(c, FROM_TO(9, 10), "UDP Error is answered without a value");
    } else if (seen->udp_error > 0) {
        narrow(c, FROM_TO(11, 12), "UDP Error is answered with a value");
    }
    if (seen->port_parity_answered) {
        narrow(c, FROM_TO(10, 12), "Port Parity is answered");
    }
    if (seen->ttl_answered) {
        narrow(c, FROM_TO(9, 12), "TTL is answered");
    }
}

static void narrow_by_messages(const struct probe_observations *seen, struct conclusion *c)
{
    if (seen->framing == PROBE_FRAMING_08) {
        narrow(c, FROM_TO(8, 8), "a UDP association begins with a bare ID");
    } else if (seen->framing == PROBE_FRAMING_09_ON) {
        narrow(c, FROM_TO(9, 12), "UDP messages have a header");
    }
    if (seen->refuses_names_11) {
        narrow(c, FROM_TO(12, 12), "names are read in the form of -12 only");
    }
    if (seen->refuses_names_12) {
        narrow(c, FROM_TO(8, 11), "names are read in the form up to -11 only");
    }
    if (seen->untrusted) {
        narrow(c, FROM_TO(8, 9), "sessions are untrusted");
    }
    if (seen->negotiates_password) {
        narrow(c, FROM_TO(8, 11), "a password is asked for in a negotiation");
    }
    if (seen->refuses_20k) {
        narrow(c, FROM_TO(8, 11), "more than 16 KiB of options are refused");
    }
}

void probe_observations_init(struct probe_observations *seen)
{
    memset(seen, 0, sizeof *seen);
    seen->no_fragmentation = -1;
    seen->happy_eyeballs = -1;
    seen->udp_error = -1;
}

/* Every set that can come out is a range. */
static void name_range(unsigned possible, char *out, size_t size)
{
    unsigned first = FIRST, last = LAST;

    while ((possible & 1u << first) == 0) {
        first++;
    }
    while ((possible & 1u << last) == 0) {
        last--;
    }
    if (first == last) {
        (void)snprintf(out, size, "-%02u", first);
    } else {
        (void)snprintf(out, size, "-%02u %s -%02u", first, last == first + 1 ? "or" : "to", last);
    }
}

void probe_revision_conclude(const struct probe_observations *seen, struct probe_report *report)
{
    struct conclusion c = {.possible = ALL};
    char range[24];

    report->rows[PROBE_ROW_DRAFT].list_count = 0;
    narrow_by_values(seen, &c);
    narrow_by_messages(seen, &c);
    if (c.is_mixed) {
        probe_set(report, PROBE_ROW_DRAFT, PROBE_UNKNOWN, "no single revision does all of this: %.200s", c.reasons);
        return;
    }
    for (unsigned draft = FIRST; draft <= LAST; draft++) {
        if ((c.possible & 1u << draft) != 0) {
            probe_list_add(report, PROBE_ROW_DRAFT, (uint8_t)draft);
        }
    }
    if (c.possible == ALL) {
        probe_set(report, PROBE_ROW_DRAFT, PROBE_UNKNOWN, "nothing in the answers tells -08 to -12 apart");
        return;
    }
    name_range(c.possible, range, sizeof range);
    probe_set(report, PROBE_ROW_DRAFT, PROBE_YES, "%s: %.220s", range, c.reasons);
}
