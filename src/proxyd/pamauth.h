/*
 * Asking PAM whether a name and a password belong together, and whether that user may come in now. Blocks for as long as
 * the modules of the service take: only for threads that may wait. Any number of threads at once.
 *
 * Only in builds with the option `pam`; whoever calls it has the address of pamauth_ask() from its caller (passwords.h).
 */
#ifndef PROXYD_PAMAUTH_H
#define PROXYD_PAMAUTH_H

#include <socks6/types.h>

enum pamauth_verdict {
    PAMAUTH_RIGHT,
    PAMAUTH_WRONG, /* the password, the name, or the account: locked, expired, not now, not from there */
    PAMAUTH_FAILED /* PAM could not tell; the log says why */
};

/* Texts that end in NUL; borrowed. */
struct pamauth_question {
    const char *service; /* file in /etc/pam.d */
    const char *user;
    const char *password;
    const char *client; /* address without port: PAM_RHOST */
};

SOCKS6_MUST_CHECK enum pamauth_verdict pamauth_ask(const struct pamauth_question *question);

#endif
