/* The little of SOCKS 6 that a load generator needs: requests without options, with a password, in a session; and the proxy's
 * two replies. */
#ifndef BENCH_SOCKS6_H
#define BENCH_SOCKS6_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOCKS6_REQUEST_LEN 12u
#define SOCKS6_LOGIN_REQUEST_LEN (SOCKS6_REQUEST_LEN + 20u)
#define SOCKS6_SESSION_ID_MAX 64u
#define SOCKS6_SESSION_REQUEST_MAX (SOCKS6_REQUEST_LEN + 4u + SOCKS6_SESSION_ID_MAX + 8u)
#define SOCKS6_TOKEN_WINDOW 4096u /* asked for */

/* Who socks6_login_request() says it is: name and password. */
#define SOCKS6_LOGIN_NAME "bench"
#define SOCKS6_LOGIN_PASSWORD "secret"

/* Zeroed: none yet. */
struct socks6_session {
    uint8_t id[SOCKS6_SESSION_ID_MAX];
    size_t id_len;  /* 0 = there is no session */
    uint32_t token; /* the next one */
};

/* Writes CONNECT to `to`. */
void socks6_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_REQUEST_LEN]);

/* The same with name and password (Authentication Data). */
void socks6_login_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_LOGIN_REQUEST_LEN]);

/* The same, starting a session with a window of tokens, or within it and spending the next token. Returns the length. */
size_t socks6_session_request(const struct sockaddr_in *to, struct socks6_session *session,
                              uint8_t out[SOCKS6_SESSION_REQUEST_MAX]);

/* Length of Authentication Reply and Operation Reply, 0 while they are incomplete. A failure has no Operation Reply. */
size_t socks6_reply_len(const uint8_t *head, size_t len);

/* The code of the Operation Reply, 0 for success; 255 if authentication failed or the replies are no SOCKS 6. */
unsigned socks6_reply_code(const uint8_t *head);

/*
 * What a whole reply to socks6_session_request() says: id and window are kept if there was no session. False if it lacks
 * them, or if there was one and no token was accepted.
 */
bool socks6_session_reply(struct socks6_session *session, const uint8_t *head);

#endif
