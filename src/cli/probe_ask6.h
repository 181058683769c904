/*
 * One question in SOCKS 6: a request, and what came of it. The conversation is led by libsocks6; the bytes are walked a
 * second time for exact words (probe_walk.h).
 */
#ifndef CLI_PROBE_ASK6_H
#define CLI_PROBE_ASK6_H

#include <socks6/client.h>

#include "cli/probe_talk.h"
#include "cli/probe_walk.h"

enum probe_outcome6 {
    PROBE6_REPLIED,  /* an Operation Reply: `code` */
    PROBE6_REFUSED,  /* an Authentication Reply of failure: `reason` */
    PROBE6_BROKEN,   /* the answer breaks the protocol: `why` */
    PROBE6_FOREIGN,  /* the answer does not begin with a 6: the bytes are in talk.in */
    PROBE6_LONE,     /* a lone 6 and the end: version mismatch, or cut */
    PROBE6_CLOSED,   /* the end without an answer, or in the middle of one */
    PROBE6_TIME_OUT, /* talk.connected and talk.in_len say how far it came */
    PROBE6_FAILED    /* no connection, or our own trouble: talk.error */
};

#define PROBE_SESSION_ID_MAX 1024

struct probe_ask6 {
    /* What to ask. Filled by probe_ask6_init(), then changed. */
    struct socks6_client_config config;
    struct socks6_slice raw;    /* goes out in place of the request that `config` makes, if not empty; borrowed */
    struct socks6_slice early;  /* data behind the request; borrowed. With credentials: config.initial_data_len, too */
    struct socks6_slice follow; /* sent after a reply of success; borrowed */
    /* If set, bytes behind the reply of success are read until it asks for no more than there are. */
    size_t (*follow_need)(const uint8_t *bytes, size_t len);
    bool fast_open;

    /* The answer. */
    enum probe_outcome6 outcome;
    unsigned code;
    struct socks6_addr bound;
    enum socks6_client_close_reason reason;
    struct socks6_client_session session; /* of the Authentication Reply; its id is in session_id */
    uint8_t session_id[PROBE_SESSION_ID_MAX];
    size_t session_id_len; /* 0 = none, or one longer than the room here */
    bool session_in_reply; /* the id came in the Operation Reply */
    struct probe_walk walk;
    struct socks6_slice after; /* what came behind the reply */
    bool follow_complete;
    uint64_t reply_us;  /* from the connection to the whole reply */
    uint64_t follow_us; /* from there to the end */
    char why[240];      /* a sentence for every outcome but REPLIED */

    /* Its own. */
    struct probe_talk talk;
    struct socks6_client *client;
    size_t used; /* of talk.in, by the client */
    uint64_t replied_us;
    bool is_over;
};

/* A CONNECT without anything; credentials (borrowed) if `user` is not NULL. */
void probe_ask6_init(struct probe_ask6 *ask, const char *user, const char *password);

/* Asks all of them, some at once; time limits as in probe_talk_run(). */
void probe_ask6_run(struct probe_ask6 *const *asks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                    uint64_t deadline_us);

/* Frees what the answer holds. */
void probe_ask6_done(struct probe_ask6 *ask);

#endif
