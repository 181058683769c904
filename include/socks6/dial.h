/*
 * A small dialing layer: a connected socket through a proxy, blocking or not. The only part of libsocks6 that does I/O.
 *
 * One dial is one connection to the proxy. After success the descriptor is an ordinary connected TCP socket on which
 * the application's bytes start: nothing has been read beyond the proxy's reply. With a layer (TLS) they start in that.
 */
#ifndef SOCKS6_DIAL_H
#define SOCKS6_DIAL_H

#include <socks6/client.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Proxy URL schemes. */
enum socks6_scheme {
    SOCKS6_SCHEME_SOCKS6, /* socks6://, and socks6s:// with is_tls */
    SOCKS6_SCHEME_SOCKS5H /* socks5h:// SOCKS 5, names resolved by the proxy */
};

/* The longest path of a file in a proxy URL. */
#define SOCKS6_PATH_MAX 511u

/*
 * A proxy URL taken apart: socks6://[user[:password]@]host[:port][?draft=8|11|12], and socks6s:// with the parameters ca,
 * cert, key and tls.
 */
struct socks6_proxy {
    enum socks6_scheme scheme;
    int is_tls;              /* socks6s://: SOCKS over TLS */
    struct socks6_addr addr; /* host and port; default port 1080, with TLS 1443 */
    int has_credentials;
    char username[SOCKS6_USERNAME_MAX + 1]; /* percent-decoded, ends in NUL */
    char password[SOCKS6_PASSWORD_MAX + 1];
    enum socks6_draft draft;
    char ca[SOCKS6_PATH_MAX + 1];          /* TLS: certificates of authorities (PEM); empty = the system's */
    char certificate[SOCKS6_PATH_MAX + 1]; /* ours, and those between it and the authority; empty = none */
    char key[SOCKS6_PATH_MAX + 1];         /* its key; empty = in the same file */
    int tls_1_2;                           /* TLS 1.2 is good enough */
};

/*
 * Parses a URL. SOCKS6_OK, or SOCKS6_ERR_INVALID with a sentence for people in `why` (which names the part that is wrong and never
 * holds a password); `out` is untouched then.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_proxy_parse(const char *url, struct socks6_proxy *out, char *why,
                                                    size_t why_size);

/* What a dial ended with. */
enum socks6_dial_status {
    SOCKS6_DIAL_OK = 0,
    SOCKS6_DIAL_IN_PROGRESS,   /* non-blocking: wait for socks6_dial_events() and call socks6_dial_step() */
    SOCKS6_DIAL_REMOTE_FAILED, /* the proxy answered with a reply code other than success */
    SOCKS6_DIAL_PROXY_FAILED,  /* it cannot be reached, refused us, or does not speak SOCKS */
    SOCKS6_DIAL_TIMED_OUT,     /* the deadline given passed */
    SOCKS6_DIAL_INVALID,       /* an argument out of its range */
    SOCKS6_DIAL_NOMEM
};

/* TCP Fast Open (RFC 7413) towards the proxy. Where the kernel or the path does not do it, it is as if it were off. */
enum socks6_fast_open {
    SOCKS6_FAST_OPEN_OFF = 0,
    SOCKS6_FAST_OPEN_COOKIE, /* no data in the SYN, but ask for the cookie that later connections need */
    /*
     * The first bytes may travel in the SYN, if all of them fit. They can then arrive more than once. The caller knows that this
     * does no harm: the request spends a token, or the layer sends nothing of it yet ("TCP Fast Open on the Client-Proxy Leg").
     */
    SOCKS6_FAST_OPEN_DATA
};

/*
 * What lies between the conversation and the socket: TLS. The library has none; a program that links a TLS library supplies
 * it, without I/O: the dial moves the bytes between the layer and the socket. After success the layer goes on with the
 * socket, and may hold bytes that came behind the reply.
 */
struct socks6_dial_layer {
    void *user;
    /* Takes bytes to send: all of both parts or none before it is open, then as much as it likes. How many it took. */
    size_t (*write)(void *user, struct socks6_slice first, struct socks6_slice second);
    /* What is to be sent through the socket, from the first write() on; valid until the next call. */
    struct socks6_slice (*output)(void *user);
    void (*output_sent)(void *user, size_t len);
    /* Takes all of what came through the socket; an empty slice is its end. */
    void (*input)(void *user, struct socks6_slice bytes);
    /* Looks at what has come for the conversation without taking it: the length, 0 = nothing now. Then takes `len` of it. */
    size_t (*peek)(void *user, uint8_t *buf, size_t size);
    void (*discard)(void *user, size_t len);
    /* The peer has ended its side properly. */
    int (*is_ended)(void *user);
    /* Why it has failed, as a sentence without full stop; NULL = it has not. */
    const char *(*error)(void *user);
    /* How many round trips it took to open, beyond the others; 1 is usual, 0 with early data. */
    unsigned (*round_trips)(void *user);
    /* For trace(): "TLSv1.3, resumed". */
    void (*describe)(void *user, char *out, size_t size);
};

/* Fill with socks6_dial_config_init(). Pointers are borrowed until the dial is freed. */
struct socks6_dial_config {
    size_t size; /* sizeof, set by _init */
    const struct socks6_proxy *proxy;
    /* Default CONNECT. Not BIND, which has two replies; with SOCKS 5 CONNECT only: else INVALID. */
    enum socks6_command command;
    struct socks6_addr addr;                 /* destination */
    const struct socks6_stack_option *stack; /* SOCKS 6 only */
    size_t stack_count;
    int family; /* of the connection to the proxy: AF_UNSPEC (default), AF_INET, AF_INET6 */
    /*
     * The proxy's addresses with their ports, to be tried in turn in the place of proxy->addr, for callers who have looked its name
     * up. IPv4, IPv6, or the name form of an IPv6 address with a zone ("fe80::1%eth0"). Without any: proxy->addr.
     */
    const struct socks6_addr *proxy_addresses;
    size_t proxy_address_count;
    uint64_t timeout_ms; /* whole dial but getaddrinfo(3), shared by the addresses tried; 0 = none */
    /*
     * Application data that travels with the request (CONNECT only). Up to 16384 bytes when credentials are given. All of
     * it is sent before the dial succeeds; with SOCKS 5 it follows the reply. What the remote end answers meanwhile stays
     * in the socket: if it answers much before it has read it all, more early data than the socket buffers on the way hold
     * stalls until the timeout.
     */
    struct socks6_slice early;
    /*
     * SOCKS 6: the session settings that socks6_session_prepare() has made in here go along. Of the rest only
     * has_credentials counts: whether the proxy's user name and password are sent (not inside most sessions). NULL = no
     * session.
     */
    const struct socks6_client_config *session;
    /* What the proxy says of the session, for socks6_session_learn(); also before a failure. Once or twice; may be NULL. */
    void (*on_session)(void *user, const struct socks6_client_session *reply);
    void *on_session_user;
    enum socks6_fast_open fast_open;       /* default off */
    const struct socks6_dial_layer *layer; /* needed if the proxy is_tls; else NULL */
    /* Called with one sentence per step ("connected to 192.0.2.1:1080"), for -v. May be NULL. */
    void (*trace)(void *user, const char *what);
    void *trace_user;
};

struct socks6_dial_result {
    int fd;         /* the connected socket, owned by the caller; -1 if there is none */
    unsigned reply; /* the proxy's reply code (enum socks6_reply_code), if has_reply */
    int has_reply;
    struct socks6_addr bound;                           /* the reply's address */
    struct socks6_stack_option stack[SOCKS6_STACK_MAX]; /* the proxy's answers */
    size_t stack_count;
    int sent_in_syn;      /* 1 = the first bytes travelled in a SYN, and may have arrived more than once */
    int sent;             /* 1 = something of the request may have reached the proxy */
    unsigned round_trips; /* to the proxy, until the reply: TCP, and each time that we had to wait for its answer */
    char error[512];      /* one line for people when the status is not OK: what failed, where, why */
};

struct socks6_dial;

SOCKS6_API void socks6_dial_config_init(struct socks6_dial_config *config);

/*
 * Blocking: resolves the proxy's name with getaddrinfo(3), tries its addresses in turn, leads the conversation.
 * Returns enum socks6_dial_status and fills `result` in every case. The socket comes back in blocking mode, close-on-exec.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_dial(const struct socks6_dial_config *config,
                                             struct socks6_dial_result *result);

/*
 * Non-blocking, for a caller with its own loop. The proxy's address must be an IP address here, or proxy_addresses be given
 * (resolving blocks): else SOCKS6_DIAL_INVALID. IN_PROGRESS and `*out`, or a failure with `result` filled.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_dial_start(const struct socks6_dial_config *config, struct socks6_dial **out,
                                                   struct socks6_dial_result *result);
/* The descriptor to wait on now, the poll(2) events to wait for, and the milliseconds until step() is due (-1 = none). */
SOCKS6_API int socks6_dial_fd(const struct socks6_dial *dial);
/*
 * How many descriptors there were so far. If step() changes it, fd() is another one, even with the same number: epoll(7) does not
 * watch it yet.
 */
SOCKS6_API unsigned socks6_dial_fd_count(const struct socks6_dial *dial);
SOCKS6_API short socks6_dial_events(const struct socks6_dial *dial);
SOCKS6_API int socks6_dial_timeout_ms(const struct socks6_dial *dial);
/* Goes on as far as it can without waiting. On OK the (non-blocking) descriptor is in `result` and no longer the dial's. */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_dial_step(struct socks6_dial *dial, struct socks6_dial_result *result);
/* Takes NULL; closes the descriptor unless it was handed out. */
SOCKS6_API void socks6_dial_free(struct socks6_dial *dial);

#ifdef __cplusplus
}
#endif
#endif
