/*
 * One client's try to log in by name and password, whichever protocol brought them: checked off the loop, against the
 * users in force when the answer comes. Embedded in the door, which asks once at a time.
 */
#ifndef PROXYD_LOGIN_H
#define PROXYD_LOGIN_H

#include "proxyd/auth.h"

enum login_verdict {
    LOGIN_GOOD,
    LOGIN_WRONG,    /* the password, or there is no such user */
    LOGIN_BACK_OFF, /* not looked at: this address has guessed wrong too often */
    LOGIN_BUSY,     /* not looked at: too many are being looked at, or there is no memory */
    LOGIN_FAILED    /* PAM could not tell */
};

struct login {
    /* Set by the owner. */
    struct auth *auth;
    void (*done)(struct login *login, enum login_verdict verdict);
    /* With GOOD: who it is, a reference for the owner to take (set it to NULL). */
    struct identity *identity;
    /* Its own. */
    struct password_check *check; /* while it runs */
    const struct users *users;    /* that it began with */
};

/*
 * True: `*verdict` is there. False: `done` is called later, once, unless login_cancel() comes before. `credentials` are
 * copied, and wiped when they are not needed any more.
 */
SOCKS6_MUST_CHECK bool login_start(struct login *login, const struct socks6_addr *client,
                                   const struct socks6_credentials *credentials, enum login_verdict *verdict);
/* Also for one that is over, or was never started (zeroed). Gives back what nobody took. */
void login_cancel(struct login *login);

/* For the log, of any verdict but GOOD; static. */
const char *login_why(enum login_verdict verdict);

#endif
