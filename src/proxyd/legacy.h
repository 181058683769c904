/*
 * SOCKS 4, 4a and 5: the older front doors. Bytes in, one request out, one reply back; no I/O and no memory of its own.
 *
 * SOCKS 4 and 4a are as in the memos by Ying-Da Lee and David Koblas, SOCKS 5 is RFC 1928 with methods 0 (no authentication)
 * and 2 (user name and password, RFC 1929).
 * Clients that send greeting, request and data in one go are served: the parser takes its own bytes and leaves the rest.
 */
#ifndef PROXYD_LEGACY_H
#define PROXYD_LEGACY_H

#include <stdbool.h>

#include <socks6/types.h>

/* The longest message there is to parse, so that whoever keeps unparsed bytes knows how many are enough. */
#define LEGACY_MESSAGE_MAX (8u + LEGACY_USERID_MAX + 1u + SOCKS6_NAME_MAX + 1u)
/* User ids are not looked at, since they prove nothing; a longer one is refused. */
#define LEGACY_USERID_MAX 255u

/* How clients may come in: bits. Of a client that can do both it is wanted to log in. */
enum legacy_method { LEGACY_ANONYMOUS = 1, LEGACY_PASSWORD = 2 };

enum legacy_status {
    LEGACY_MORE,        /* the next message is not whole */
    LEGACY_CREDENTIALS, /* `credentials` are there; answer with legacy_auth_done() */
    LEGACY_REQUEST,     /* `command` and `addr` are there; answer with legacy_reply() */
    LEGACY_REFUSED      /* over: send the output, close; `why` says it */
};

/* SOCKS 5: what comes next. */
enum legacy_stage { LEGACY_GREETING, LEGACY_LOGIN, LEGACY_VERDICT, LEGACY_ASKING };

struct legacy {
    uint8_t version; /* 4 or 5 */
    uint8_t methods; /* enum legacy_method */
    uint8_t stage;   /* enum legacy_stage */
    uint8_t is_4a;
    uint8_t done;        /* the request was taken: nothing more is */
    uint8_t needs_login; /* refused because it did not log in */
    uint8_t command;     /* enum socks6_command, or a number that it does not have */
    struct socks6_addr addr;
    struct socks6_credentials
        credentials; /* in the bytes of the call that said LEGACY_CREDENTIALS; the name is not empty */
    uint8_t out[32]; /* bytes to send */
    uint8_t out_len;
    const char *why; /* static */
};

/* `version`: the first byte, 4 or 5 (not consumed). `methods`: enum legacy_method; 0 = nobody comes in. */
void legacy_init(struct legacy *legacy, uint8_t version, unsigned methods);

/* Takes whole messages only: bytes of an unfinished one stay with the caller and are offered again with more behind them. */
SOCKS6_MUST_CHECK enum legacy_status legacy_input(struct legacy *legacy, const uint8_t *bytes, size_t len,
                                                  size_t *used);

/* The answer to LEGACY_CREDENTIALS. If they were wrong it is over: send the output, close. */
void legacy_auth_done(struct legacy *legacy, bool is_good);

/* The reply to the request. `bound` may be NULL; SOCKS 4 cannot name an IPv6 address and says 0.0.0.0 then. */
void legacy_reply(struct legacy *legacy, enum socks6_reply_code code, const struct socks6_addr *bound);

/* "socks4", "socks4a", "socks5". */
const char *legacy_protocol(const struct legacy *legacy);

#endif
