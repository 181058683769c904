/*
 * A conversation with a proxy, SOCKS 6 or SOCKS 5 behind one face, without I/O. dial.c moves the bytes; this file's
 * functions say which, and what came of it, in words.
 */
#ifndef S6_DIAL_TALK_H
#define S6_DIAL_TALK_H

#include <socks6/dial.h>

struct s6_socks5;

/* Room for an address in a message: long names are cut, so that the reason behind them is not. */
#define S6_BRIEF_MAX 160

struct s6_talk {
    const struct socks6_dial_config *config; /* borrowed, as everything it points to */
    struct socks6_dial_result *result;       /* borrowed: reply, bound address, Stack answers, error are written here */
    struct socks6_client *client;            /* SOCKS 6 */
    struct s6_socks5 *socks5;                /* SOCKS 5 */
    uint64_t received;                       /* bytes taken from the proxy */
    int is_waiting;                          /* something was sent that the proxy has not answered yet */
    int status; /* enum socks6_dial_status: IN_PROGRESS, OK once the reply was success, or how it ended */
    char proxy_text[S6_BRIEF_MAX];
    char dest_text[S6_BRIEF_MAX];
};

/* SOCKS6_DIAL_IN_PROGRESS, or INVALID/NOMEM with result->error set. Call _done in every case. */
SOCKS6_MUST_CHECK int s6_talk_init(struct s6_talk *talk, const struct socks6_dial_config *config, uint64_t now_ms,
                                   struct socks6_dial_result *result);
/* Whether user name and password go along: not inside a session that the proxy trusts. */
int s6_talk_sends_credentials(const struct socks6_dial_config *config);

/* Wipes credentials. Takes an object of zeroes. */
void s6_talk_done(struct s6_talk *talk);

/* Protocol bytes to send; valid until the next call. */
struct socks6_slice s6_talk_output(const struct s6_talk *talk);
void s6_talk_output_sent(struct s6_talk *talk, size_t len);
/* How many bytes of early data in total may have been sent so far. */
size_t s6_talk_credit(const struct s6_talk *talk);

/* Takes the protocol's bytes and returns how many; `status` tells whether it goes on. */
SOCKS6_MUST_CHECK size_t s6_talk_input(struct s6_talk *talk, const uint8_t *bytes, size_t len, uint64_t now_ms);
/* The proxy closed its side before the reply was whole: sets `status`. */
void s6_talk_eof(struct s6_talk *talk);

/* Writes the error sentence into the result and returns `status`. */
__attribute__((format(printf, 3, 4))) int s6_talk_fail(struct s6_talk *talk, int status, const char *format, ...);
/* One sentence for the caller's trace function, if there is one. */
__attribute__((format(printf, 2, 3))) void s6_talk_trace(const struct s6_talk *talk, const char *format, ...);

/* Text of an address for messages: printable ASCII only. */
void s6_brief(const struct socks6_addr *addr, char out[S6_BRIEF_MAX]);

#endif
