/*
 * A second look at what a SOCKS 6 proxy answered, byte by byte: the options as they stood, and exact words for the first
 * place that breaks the format. The conversation itself is led by libsocks6, which says what an answer means, but not
 * where it is wrong, and drops options that make no sense. Pure.
 */
#ifndef CLI_PROBE_WALK_H
#define CLI_PROBE_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Option kinds, "SOCKS Options". */
enum {
    PROBE_OPTION_STACK = 1,
    PROBE_OPTION_ADVERTISEMENT = 2,
    PROBE_OPTION_SELECTION = 3,
    PROBE_OPTION_SESSION_ID = 6,
    PROBE_OPTION_SESSION_UNTRUSTED = 7
};

struct probe_option {
    uint16_t kind;
    uint16_t len;        /* of the data */
    const uint8_t *data; /* borrowed from the bytes walked */
};

#define PROBE_WALK_OPTIONS_MAX 48

struct probe_walk {
    bool has_auth; /* a whole Authentication Reply was seen; the last of two */
    uint8_t auth_type;
    int selection; /* method selected by the first Authentication Reply, -1 = none */
    bool has_reply;
    uint8_t code;
    size_t count;      /* options of all messages, in their order; what is over the maximum is walked, not kept */
    size_t reply_from; /* index of the Operation Reply's first */
    struct probe_option options[PROBE_WALK_OPTIONS_MAX];
    char fault[160];  /* "" = nothing is wrong as far as the bytes go */
    char oddity[160]; /* something the draft does not allow, that does no harm */
};

/*
 * Walks an Authentication Reply and an Operation Reply. `negotiates`: after a failure that selects username/password the
 * two bytes of its status and a second Authentication Reply follow.
 */
void probe_walk(const uint8_t *bytes, size_t len, bool negotiates, struct probe_walk *walk);

/* The Operation Reply's Stack option of that place, or NULL. One whose length is wrong is not found. */
const struct probe_option *probe_walk_stack(const struct probe_walk *walk, uint8_t leg, uint8_t level, uint8_t code);

/* The first option of that kind in any message, or NULL; `*in_reply` tells which message. */
const struct probe_option *probe_walk_find(const struct probe_walk *walk, uint16_t kind, bool *in_reply);

#endif
