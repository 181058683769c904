/*
 * A helper that answers from a table, as a process of its own behind a real socket. The program under test starts itself anew with
 * SOCKS6_RUN in its environment, as it would be under `socks6 run`.
 *
 * Names: v4.test, v6.test, both.test, many.test (200 addresses), alias.test (which is real.test), in-hosts.test, scope.test (link-local), none.test (no
 * address of the family), again.test (EAI_AGAIN), system.test and localhost (RUN_ASK_SYSTEM), held.test (v4.test, once released). Replies
 * that make no sense: gone.test, short.test, many-too-many.test, odd.test. Addresses: 192.0.2.1 and 192.0.2.3 have names, 192.0.2.9 is
 * EAI_AGAIN, 127.0.0.1 is RUN_ASK_SYSTEM. DNS questions: their own name decides, see names_helper.c.
 */
#ifndef TESTS_NAMES_HELPER_H
#define TESTS_NAMES_HELPER_H

#include <stdint.h>

#include "run/protocol.h"

/* What the helper has been asked last, and how often; shared memory. */
struct seen {
    uint32_t counts[RUN_NOTE + 1]; /* by kind */
    struct run_resolve resolve;
    struct run_addr addr; /* of RUN_REVERSE or RUN_DIRECT */
    uint32_t note_what;
    uint32_t released;           /* of held.test, in all */
    char text[RUN_NAME_MAX + 1]; /* the name that was asked for, the note, the DNS question's name */
};

extern volatile struct seen *seen;

/* In main(): returns only in the process that has the environment and the helper. */
void names_helper_run(char **argv);
void names_helper_stop(void);
/* Lets one held.test be answered, now or when it is asked for; the other form waits until one has been. */
void names_helper_release_next(void);
void names_helper_release(void);
/* The kinds' counts begin anew. */
void names_helper_forget(void);

#endif
