/*
 * A proxy on a real loopback socket that follows a script, in a thread of its own, so that the test can dial it with the
 * blocking call. One connection. What the dialer sent is kept for the test to look at.
 */
#ifndef TESTS_FAKE_PROXY_H
#define TESTS_FAKE_PROXY_H

#include <pthread.h>
#include <socks6/dial.h>

enum fake_action {
    FAKE_END,     /* of the script: reads until the dialer closes, then closes */
    FAKE_READ,    /* reads exactly `len` bytes */
    FAKE_RECV,    /* one recv(2), whatever it gives; the size of the first is kept in first_recv */
    FAKE_SEND,    /* sends `len` bytes of `bytes` */
    FAKE_TRICKLE, /* the same, each byte in a segment of its own */
    FAKE_SHUT,    /* closes its sending side */
    FAKE_CLOSE,   /* closes */
    FAKE_RESET    /* closes with a RST */
};

struct fake_step {
    enum fake_action action;
    const char *bytes;
    size_t len;
};

#define FAKE_BYTES(literal) (literal), sizeof(literal) - 1

struct fake_proxy {
    const struct fake_step *script;
    int listener;
    uint16_t port;
    pthread_t thread;
    uint8_t *got; /* all bytes that came, in order */
    size_t got_len;
    size_t first_recv;
};

/* Listens on `ip` (such as "127.0.0.1") and runs the script for the first connection. Aborts the test on errors. */
void fake_start(struct fake_proxy *fake, const char *ip, const struct fake_step *script);
/* Waits for the script's end; `got` is complete then, and is freed by fake_done(). */
void fake_wait(struct fake_proxy *fake);
void fake_done(struct fake_proxy *fake);

/* A port of `ip` where nobody listens: a socket bound to it that never does. The caller closes it. */
int fake_closed_port(const char *ip, uint16_t *port);

/* The proxy's URL form, filled by hand. */
struct socks6_proxy fake_url(enum socks6_scheme scheme, const char *ip, uint16_t port);

/* How many descriptors this process has open. */
size_t fake_open_descriptors(void);

#endif
