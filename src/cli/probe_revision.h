/*
 * Which revision of the SOCKS 6 draft a proxy speaks, from what its answers look like. Pure.
 *
 * All revisions share the version byte, so only their differences tell ("Which revision" in the manual page socks6(1)
 * says the same for users):
 *
 *   Stack option TTL answered                     -09 and later
 *   No Fragmentation answered                     -10 and later; with an availability -11 and later, without it -10
 *   Port Parity answered                          -10 and later
 *   Happy Eyeballs answered with an availability  -11 and later; with padding -08 to -10
 *   UDP Error answered with an availability       -11 and later; with padding -09 or -10
 *   UDP association begins with a header          -09 and later; with a bare ID -08
 *   names are read with padding outside (only)    -08 to -11; inside (only) -12
 *   more than 16 KiB of options refused           -08 to -11
 *   Session Untrusted sent                        -08 or -09
 *   password asked for in a negotiation           -08 to -11
 *
 * Options are optional: one that is not answered tells nothing. What a proxy reads beyond its own revision does not
 * either, because a careful one reads all forms; so only refusals count there.
 */
#ifndef CLI_PROBE_REVISION_H
#define CLI_PROBE_REVISION_H

#include <stdbool.h>

#include "cli/probe_report.h"

enum probe_framing { PROBE_FRAMING_UNKNOWN = 0, PROBE_FRAMING_08, PROBE_FRAMING_09_ON };

/* What was observed. -1: no answer. */
struct probe_observations {
    bool ttl_answered;
    bool port_parity_answered;
    int no_fragmentation; /* value of the answer, 0 = padding */
    int happy_eyeballs;
    int udp_error;
    enum probe_framing framing;
    bool refuses_names_11; /* while it reads those of -12 */
    bool refuses_names_12; /* while it reads those of -11 */
    bool refuses_20k;
    bool untrusted;
    bool negotiates_password;
};

void probe_observations_init(struct probe_observations *seen);

/* Fills PROBE_ROW_DRAFT: words, and as list the revisions that all of it fits. */
void probe_revision_conclude(const struct probe_observations *seen, struct probe_report *report);

#endif
