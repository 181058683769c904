/*
 * SOCKS 4, 4a and 5: the older front doors. Bytes in, one request out, one reply back; no I/O and no memory of its own.
 *
 * SOCKS 4 and 4a are as in the memos by Ying-Da Lee and David Koblas, SOCKS 5 is RFC 1928 with method 0 (no authentication).
 * Clients that send greeting, request and data in one go are served: the parser takes its own bytes and leaves the rest.
 */
#ifndef PROXYD_LEGACY_H
#define PROXYD_LEGACY_H

#include <socks6/types.h>

/* The longest message there is to parse, so that whoever keeps unparsed bytes knows how many are enough. */
#define LEGACY_MESSAGE_MAX (8u + LEGACY_USERID_MAX + 1u + SOCKS6_NAME_MAX + 1u)
/* User ids are not looked at; a longer one is refused. */
#define LEGACY_USERID_MAX 255u

enum legacy_status {
    LEGACY_MORE,    /* the next message is not whole */
    LEGACY_REQUEST, /* `command` and `addr` are there; answer with legacy_reply() */
    LEGACY_REFUSED  /* over: send the output, close; `why` says it */
};

struct legacy {
    uint8_t version; /* 4 or 5 */
    uint8_t greeted; /* SOCKS 5: the method negotiation is done */
    uint8_t is_4a;
    uint8_t done;    /* the request was taken: nothing more is */
    uint8_t command; /* enum socks6_command, or a number that it does not have */
    struct socks6_addr addr;
    uint8_t out[32]; /* bytes to send */
    uint8_t out_len;
    const char *why; /* static */
};

/* `version`: the first byte, 4 or 5 (not consumed). */
void legacy_init(struct legacy *legacy, uint8_t version);

/* Takes whole messages only: bytes of an unfinished one stay with the caller and are offered again with more behind them. */
SOCKS6_MUST_CHECK enum legacy_status legacy_input(struct legacy *legacy, const uint8_t *bytes, size_t len,
                                                  size_t *used);

/* The reply to the request. `bound` may be NULL; SOCKS 4 cannot name an IPv6 address and says 0.0.0.0 then. */
void legacy_reply(struct legacy *legacy, enum socks6_reply_code code, const struct socks6_addr *bound);

/* "socks4", "socks4a", "socks5". */
const char *legacy_protocol(const struct legacy *legacy);

#endif
