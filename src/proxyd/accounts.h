/*
 * Users, their passwords and their sessions, for all workers: one object of the daemon. It reads the users file again
 * when that changes, and tells the workers who is in force; what was bound to users who are gone is ended.
 *
 * On the main thread, but for what says otherwise.
 */
#ifndef PROXYD_ACCOUNTS_H
#define PROXYD_ACCOUNTS_H

#include <stdatomic.h>

#include "proxyd/config.h"
#include "proxyd/passwords.h"
#include "proxyd/store.h"

struct accounts;

/* One worker's copy of the news; made beforehand, since nobody may stay a user for want of memory. */
struct accounts_order {
    struct loop_msg msg; /* whose `run` the worker sets */
    void *worker;
    struct accounts_change *change; /* a reference */
};

/* Other users are in force. Immutable but for the count. */
struct accounts_change {
    _Atomic unsigned references;
    struct store *store;
    const struct users *before, *after; /* references; NULL = no users */
    /* With PAM in `before`, where nobody is listed: the connections, the sessions of all who have logged in end. */
    bool removes_everyone, changes_everyone;
    struct socks6_slice *removed; /* whose connections end */
    size_t removed_count;
    struct socks6_slice *changed; /* whose sessions end: these, and those who have another password */
    size_t changed_count;
    struct accounts_order orders[]; /* [worker] */
};

/* From any thread. The last one ends the sessions that were started until all workers had heard of the change, and logs it. */
void accounts_change_release(struct accounts_change *change);

/*
 * `tell`: hands the orders of a change to the workers, `worker_count` of them. `config` says which users there are (they
 * are in force at once, and nobody is told), and the limits. 0 or -errno.
 */
SOCKS6_MUST_CHECK int accounts_new(struct loop *loop, const struct config *config, unsigned worker_count,
                                   void (*tell)(void *user, struct accounts_change *change), void *user,
                                   struct accounts **out);
/* The workers must be gone. Takes NULL. */
void accounts_free(struct accounts *accounts);

/* From any thread. */
struct passwords *accounts_passwords(const struct accounts *accounts);
struct store *accounts_store(const struct accounts *accounts);
/* In force; NULL = none. */
const struct users *accounts_users(const struct accounts *accounts);

/*
 * A reload in two steps: what can fail, and what cannot. `*out` NULL: nothing changes for anybody. A change is either
 * committed or discarded. 0 or -ENOMEM.
 */
SOCKS6_MUST_CHECK int accounts_prepare(const struct accounts *accounts, const struct users *users,
                                       struct accounts_change **out);
/* Takes NULL. */
void accounts_change_discard(struct accounts_change *change);
/* `config` is in force from now on; `change` may be NULL. */
void accounts_commit(struct accounts *accounts, const struct config *config, struct accounts_change *change);

#endif
