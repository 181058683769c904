/*
 * What a client remembers of its session with a proxy: the id, and which idempotence tokens it has not used yet. A plain
 * value without memory of its own, to be kept from one conversation to the next, in a file or among threads under a lock
 * (draft-11 "Session Options", "Idempotence Options").
 *
 *     socks6_session_prepare()   before socks6_client_new(): fills the settings, takes a token
 *     socks6_session_learn()     for the events AUTHENTICATED, REPLY and CLOSE of that conversation
 *
 * Any number of conversations may be under way between the two. A token is taken once, whatever becomes of it.
 */
#ifndef SOCKS6_SESSION_H
#define SOCKS6_SESSION_H

#include <socks6/client.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sessions with a longer id are not kept. */
#define SOCKS6_SESSION_ID_MAX 256u

struct socks6_session {
    uint8_t id[SOCKS6_SESSION_ID_MAX];
    uint16_t id_len;             /* a multiple of 4; 0 = no session */
    uint8_t untrusted;           /* 1: authenticate with every request (-08, -09) */
    uint8_t dry;                 /* replies in a row that left no token to take */
    struct socks6_window window; /* the newest that was heard of; size 0 = none */
    uint32_t next;               /* the smallest token that was not taken; base .. base + size modulo 2^32 */
};

/* No session. */
SOCKS6_API void socks6_session_init(struct socks6_session *session);

/* 1 if a value that was stored somewhere can be used. */
SOCKS6_API int socks6_session_is_valid(const struct socks6_session *session);

/* Tokens that can be taken before the next reply. */
SOCKS6_API uint32_t socks6_session_tokens_left(const struct socks6_session *session);

/*
 * Sets the session part of `config`. Without a session one is asked for, with a window of `window_size` tokens (0 = none).
 * With one its id is sent, and the smallest token; a window is asked for when there is none or it runs low. Credentials
 * are taken out of `config`, and the initial data that is counted for their sake, unless the session is untrusted.
 * Returns 1 if the request carries a token: the proxy then acts on it once, however often it arrives. `config` borrows
 * from `session` until socks6_client_new() has copied.
 */
SOCKS6_API int socks6_session_prepare(struct socks6_session *session, uint32_t window_size,
                                      struct socks6_client_config *config);

/* The token of a conversation of which nothing was sent. It can be taken again if none was taken since. */
SOCKS6_API void socks6_session_return(struct socks6_session *session, uint32_t token);

/*
 * What a reply says of the session. `used`: the session as it was when the conversation was prepared (its id decides; it
 * may be `session` itself). A reply to another session than the one that is remembered now changes nothing.
 */
SOCKS6_API void socks6_session_learn(struct socks6_session *session, const struct socks6_session *used,
                                     const struct socks6_client_session *reply);

#ifdef __cplusplus
}
#endif
#endif
