/*
 * What the doors of one worker need to know of who may come in: the users in force, whoever checks passwords, whoever
 * keeps sessions. Set up by the worker; changed on its thread only.
 */
#ifndef PROXYD_AUTH_H
#define PROXYD_AUTH_H

#include "proxyd/identity.h"
#include "proxyd/passwords.h"
#include "proxyd/stats.h"
#include "proxyd/store.h"
#include "proxyd/users.h"

struct auth {
    struct loop *loop;
    struct passwords *passwords; /* of all workers, as the store */
    struct store *store;
    const struct users *users; /* in force, a reference; NULL = none */
    struct identities identities;
    struct stats *stats;
    uint64_t full_told_ms; /* when the log was last told that there is no room for sessions; 0 = never */
};

#endif
