/*
 * Checking passwords. A hash that is good takes milliseconds, so they are checked by a few threads behind a bounded queue,
 * and the answer comes back on the asking loop; what was right a while ago is remembered and answered at once. One object
 * for all workers.
 *
 * Nobody learns from the time it takes whether a name exists: a check of one that does not costs what a check of one that
 * does costs, with the hash of a user whom the name chooses. How long PAM takes nobody can say; so who is refused by it
 * is told so at one of a few moments only.
 */
#ifndef PROXYD_PASSWORDS_H
#define PROXYD_PASSWORDS_H

#include "io/loop.h"
#include "proxyd/pamauth.h"
#include "proxyd/users.h"

struct passwords;
struct password_check;

struct passwords_config {
    unsigned threads;     /* 1 .. 64 */
    size_t queue_max;     /* checks waiting for a thread */
    size_t cache_entries; /* passwords remembered */
    uint64_t cache_ms;    /* for so long; with PAM as the users say */
    /* For users of PAM; NULL = there are none, as in a build without it. Called by threads of its own. */
    enum pamauth_verdict (*ask_pam)(const struct pamauth_question *question);
    unsigned pam_threads;       /* 1 .. 64: so many questions to PAM at once; each may wait for a server, or for ever */
    uint64_t pam_step_ms;       /* what PAM refuses is told at a whole number of these after it was asked for; not 0 */
    uint64_t (*clock_ms)(void); /* any monotonic clock, from any thread; NULL = CLOCK_MONOTONIC */
};

/*
 * Two threads, a queue of 256, 4096 passwords for ten minutes; without PAM, or for it 32 threads, another queue of 256, and
 * steps of a second.
 */
void passwords_config_init(struct passwords_config *config);

/* 0 or -errno. */
SOCKS6_MUST_CHECK int passwords_new(const struct passwords_config *config, struct passwords **out);
/*
 * Waits for running checks, but for those by PAM only a moment: if some go on, all this is left for them, to be freed again or never. All
 * loops must have stopped; checks that are open are dropped and gone: cancel them before, or not at all (with PAM: cancel
 * them). Takes NULL. A loop may be freed before if all its checks were cancelled.
 */
void passwords_free(struct passwords *passwords);

enum password_verdict {
    PASSWORD_RIGHT,
    PASSWORD_WRONG,    /* or no such user, or one without a password */
    PASSWORD_BACK_OFF, /* not looked at: too many wrong ones came from this address. See backoff.h */
    PASSWORD_BUSY,     /* not looked at: too many are being looked at, of this address or at all; or no memory */
    PASSWORD_FAILED    /* PAM could not tell */
};

typedef void password_done(void *user, enum password_verdict verdict);

enum password_timing {
    PASSWORD_NOW,  /* the verdict is there; `done` will not be called */
    PASSWORD_LATER /* `done` will be called once on `loop`'s thread, unless password_cancel() comes before */
};

/*
 * Checks `credentials` (copied, and wiped afterwards; 1 .. 255 bytes of name) against `users` (a reference is taken), or
 * has PAM do it. PAM is not asked about empty passwords (which some servers take for a question without one), nor about
 * names that may not be what they seem to a module: with control characters, '/' or ':', with a '-' in front, "." and "..".
 * `client`: IPv4 or IPv6. With NOW `*verdict` is set, with LATER `*out`. Equal checks that are under way at once cost one.
 */
SOCKS6_MUST_CHECK enum password_timing passwords_check(struct passwords *passwords, const struct users *users,
                                                       struct loop *loop, const struct socks6_addr *client,
                                                       const struct socks6_credentials *credentials,
                                                       password_done *done, void *user, enum password_verdict *verdict,
                                                       struct password_check **out);
/* The answer is not wanted any more: `done` will not be called. On the loop's thread. Takes NULL. */
void password_cancel(struct password_check *check);

/* Checks that wait to be looked at, or are being looked at. From any thread. */
unsigned passwords_waiting_count(const struct passwords *passwords);

#endif
