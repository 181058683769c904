/*
 * Questions in SOCKS 5, 4 and 4a, and bytes for those who speak neither. Each is one connection.
 */
#ifndef CLI_PROBE_OLD_H
#define CLI_PROBE_OLD_H

#include <socks6/types.h>

#include "cli/probe_talk.h"

enum probe_old_outcome {
    PROBE_OLD_ANSWERED, /* in the protocol asked: see `method`, `code` */
    PROBE_OLD_REFUSED,  /* SOCKS 5: no method fits, or the login failed */
    PROBE_OLD_FOREIGN,  /* something came that this protocol does not have: `why`, and the bytes in talk.in */
    PROBE_OLD_CLOSED,
    PROBE_OLD_TIME_OUT,
    PROBE_OLD_FAILED /* no connection, or our own trouble: talk.error */
};

enum probe_old_form {
    PROBE_OLD_GREETING5, /* SOCKS 5, which method is chosen of `methods` */
    PROBE_OLD_CONNECT5,  /* SOCKS 5 CONNECT, with `methods` of 0 and 2 */
    PROBE_OLD_CONNECT4,  /* SOCKS 4 to an IPv4 address, 4a to a name */
    PROBE_OLD_RAW        /* `raw` goes out; what comes back is for the caller to judge */
};

#define PROBE_OLD_METHODS_MAX 16

struct probe_old {
    /* What to ask. The rest is zero. Strings and bytes are borrowed. */
    enum probe_old_form form;
    struct socks6_addr target;
    uint8_t methods[PROBE_OLD_METHODS_MAX];
    size_t method_count;
    const char *user;
    const char *password;
    struct socks6_slice raw;
    bool fast_open;

    /* The answer. */
    enum probe_old_outcome outcome;
    int method;    /* chosen by the proxy; -1 = none yet */
    unsigned code; /* of the reply, in the protocol's own numbers */
    uint64_t reply_us;
    char why[160];

    /* Its own. */
    struct probe_talk talk;
    int stage;
    size_t used;
};

void probe_old_run(struct probe_old *const *asks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                   uint64_t deadline_us);
void probe_old_done(struct probe_old *ask);

/* What a reply of SOCKS 5 or of SOCKS 4 says; static storage. */
const char *probe_old_reply5(unsigned code);
const char *probe_old_reply4(unsigned code);

#define PROBE_OLD_GRANTED5 0u
#define PROBE_OLD_GRANTED4 90u

/* A method of the registry that SOCKS 5 and 6 share: "user name and password"; static storage. */
const char *probe_method_name(unsigned method);

#endif
