/*
 * Checking passwords. A hash that is good takes milliseconds, so they are checked by a few threads behind a bounded queue,
 * and the answer comes back on the asking loop; what was right a while ago is remembered and answered at once. One object
 * for all workers.
 *
 * Nobody learns from the time it takes whether a name exists: a check of one that does not costs what a check of one that
 * does costs, with the hash of a user whom the name chooses.
 */
#ifndef PROXYD_PASSWORDS_H
#define PROXYD_PASSWORDS_H

#include "io/loop.h"
#include "proxyd/users.h"

struct passwords;
struct password_check;

struct passwords_config {
    unsigned threads;           /* 1 .. 64 */
    size_t queue_max;           /* checks waiting for a thread */
    size_t cache_entries;       /* passwords remembered */
    uint64_t cache_ms;          /* for so long */
    uint64_t (*clock_ms)(void); /* any monotonic clock, from any thread; NULL = CLOCK_MONOTONIC */
};

/* Two threads, a queue of 256, 4096 passwords for ten minutes. */
void passwords_config_init(struct passwords_config *config);

/* 0 or -errno. */
SOCKS6_MUST_CHECK int passwords_new(const struct passwords_config *config, struct passwords **out);
/*
 * Waits for running checks. All loops must have stopped; checks that are open are dropped and gone: cancel them before, or
 * not at all. Takes NULL. A loop may be freed before if all its checks were cancelled.
 */
void passwords_free(struct passwords *passwords);

enum password_verdict {
    PASSWORD_RIGHT,
    PASSWORD_WRONG,    /* or no such user, or one without a password */
    PASSWORD_BACK_OFF, /* not looked at: too many wrong ones came from this address. See backoff.h */
    PASSWORD_BUSY      /* not looked at: too many are being looked at, of this address or at all; or no memory */
};

typedef void password_done(void *user, enum password_verdict verdict);

enum password_timing {
    PASSWORD_NOW,  /* the verdict is there; `done` will not be called */
    PASSWORD_LATER /* `done` will be called once on `loop`'s thread, unless password_cancel() comes before */
};

/*
 * Checks `credentials` (copied, and wiped afterwards; 1 .. 255 bytes of name) against `users` (a reference is taken).
 * `client`: IPv4 or IPv6. With NOW `*verdict` is set, with LATER `*out`. Equal checks that are under way at once cost one.
 */
SOCKS6_MUST_CHECK enum password_timing passwords_check(struct passwords *passwords, const struct users *users,
                                                       struct loop *loop, const struct socks6_addr *client,
                                                       const struct socks6_credentials *credentials,
                                                       password_done *done, void *user, enum password_verdict *verdict,
                                                       struct password_check **out);
/* The answer is not wanted any more: `done` will not be called. On the loop's thread. Takes NULL. */
void password_cancel(struct password_check *check);

#endif
