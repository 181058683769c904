/*
 * The client's side of a SOCKS 5 CONNECT (RFC 1928) with no authentication or username/password (RFC 1929), without
 * I/O. Used by talk.c for socks5h:// proxies; the destination goes to the proxy as it is, names unresolved.
 */
#ifndef S6_DIAL_SOCKS5_H
#define S6_DIAL_SOCKS5_H

#include <socks6/types.h>

/* What the machine waits for. */
enum s6_socks5_state {
    S6_SOCKS5_METHOD,    /* RFC 1928, 3: the method selected */
    S6_SOCKS5_AUTH,      /* RFC 1929, 2: the status */
    S6_SOCKS5_REPLY,     /* RFC 1928, 6 */
    S6_SOCKS5_CONNECTED, /* the reply was success, and is whole */
    S6_SOCKS5_REFUSED,   /* the reply was another code: see `reply` */
    S6_SOCKS5_FAILED     /* see `failure` */
};

enum s6_socks5_failure {
    S6_SOCKS5_OK,
    S6_SOCKS5_NOT_SOCKS5,     /* the first byte of a reply was not 5: see in[0] */
    S6_SOCKS5_NO_METHOD,      /* none of our methods was acceptable */
    S6_SOCKS5_FOREIGN_METHOD, /* it selected one that we did not offer */
    S6_SOCKS5_AUTH_FAILED,
    S6_SOCKS5_MALFORMED
};

/* Longest messages: RFC 1929 request 1+1+255+1+255; a reply with a domain name 4+1+255+2. */
#define S6_SOCKS5_OUT_MAX 513
#define S6_SOCKS5_IN_MAX 262

struct s6_socks5 {
    enum s6_socks5_state state;
    enum s6_socks5_failure failure;
    struct socks6_addr dest;
    struct socks6_addr bound; /* CONNECTED: as the proxy said; all zero if it sent nothing usable */
    unsigned reply;
    int has_credentials;
    struct socks6_credentials credentials; /* borrowed */
    uint8_t out[S6_SOCKS5_OUT_MAX];
    size_t out_len;
    size_t out_sent;
    uint8_t in[S6_SOCKS5_IN_MAX];
    size_t in_len;
};

/* `credentials` may be NULL; borrowed until _done. The first message is there at once. */
void s6_socks5_init(struct s6_socks5 *m, const struct socks6_addr *dest, const struct socks6_credentials *credentials);
/* Wipes it all. */
void s6_socks5_done(struct s6_socks5 *m);

/* Bytes to send; valid until the next call. */
struct socks6_slice s6_socks5_output(const struct s6_socks5 *m);
void s6_socks5_output_sent(struct s6_socks5 *m, size_t len);

/* Takes bytes of the protocol and returns how many; never one behind the reply. */
size_t s6_socks5_input(struct s6_socks5 *m, const uint8_t *bytes, size_t len);

#endif
