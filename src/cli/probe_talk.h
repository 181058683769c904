/*
 * Conversations of `socks6 probe`: TCP connections to one peer, several at once, each with a limit in time and in bytes,
 * whatever the peer does. Knows no protocol: a `step` function says what to send and when it has seen enough.
 */
#ifndef CLI_PROBE_TALK_H
#define CLI_PROBE_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "cli/tls_client.h"

/* Who is asked. */
struct probe_peer {
    struct sockaddr_storage addr;
    socklen_t len;
    const struct socks6_proxy *tls;   /* over TLS, as this proxy; NULL = without */
    char tls_why[TLS_CLIENT_WHY_MAX]; /* the first failure of TLS, as a sentence */
};

enum probe_talk_end {
    PROBE_TALK_ENOUGH_SEEN, /* step() said so */
    PROBE_TALK_CLOSED,      /* the peer ended the stream, or reset it (`error`) */
    PROBE_TALK_TIME_OUT,
    PROBE_TALK_FLOOD, /* PROBE_TALK_IN_MAX bytes, and step() wanted more */
    PROBE_TALK_FAILED /* no connection, or our own trouble: `error`; EPROTO: TLS, see the peer's tls_why */
};

enum probe_talk_next { PROBE_TALK_MORE, PROBE_TALK_ENOUGH };

/* The longest answer: two replies with all the options that fit, and one DNS message. */
#define PROBE_TALK_IN_MAX (160u * 1024u)

struct probe_talk {
    /* Set by the caller; the rest is zero. */
    /*
     * Called once the connection is there, with TLS once that is open, and whenever bytes have come. Sends with probe_talk_send(). Looks at `in`,
     * which grows and keeps what came before.
     */
    enum probe_talk_next (*step)(struct probe_talk *talk);
    void *user;
    bool fast_open; /* try to send the first bytes in the SYN */

    /* The outcome. */
    enum probe_talk_end end;
    int error; /* an errno, or 0 */
    bool connected;
    uint8_t *in; /* all that came; freed by probe_talk_done() */
    size_t in_len;
    uint64_t connected_us; /* by probe_now_us(); with TLS when that was open */
    uint64_t connect_us;   /* how long it took to connect */
    uint64_t ended_us;     /* when it ended */
    uint32_t rtt_us;       /* the kernel's measure of the connection when it was made: the handshake; 0 = unknown */
    bool syn_data;         /* bytes sent in the SYN were acknowledged with it */

    char tls_text[64]; /* "TLSv1.3", with TLS */

    /* Its own. */
    struct probe_peer *peer;
    struct tls_client *tls;
    int fd;
    bool over;
    uint64_t started_us;
    size_t in_size;
    uint8_t *out;
    size_t out_len;
    size_t out_sent;
};

/* How many conversations run at once; more wait for their turn. */
#define PROBE_TALK_AT_ONCE 4

uint64_t probe_now_us(void);

/*
 * Leads all of them to an end. None lasts longer than `limit_us`, or beyond `deadline_us` (by probe_now_us()): what has
 * no time left ends in TIME_OUT without a connection.
 */
void probe_talk_run(struct probe_talk *const *talks, size_t count, struct probe_peer *peer, uint64_t limit_us,
                    uint64_t deadline_us);

/* For step(): queues a copy of the bytes. Without memory the talk ends in FAILED. */
void probe_talk_send(struct probe_talk *talk, const void *bytes, size_t len);

/* Frees what a talk holds; it may be one that never ran. */
void probe_talk_done(struct probe_talk *talk);

#endif
