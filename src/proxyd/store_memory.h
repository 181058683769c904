/*
 * The store's back end in this process' memory: every question is answered within the call (STORE_NOW), from any thread.
 */
#ifndef PROXYD_STORE_MEMORY_H
#define PROXYD_STORE_MEMORY_H

#include "proxyd/store.h"

/* Caps, all at once in force; 0 = none, but for `total`. With a window of the largest size a session takes about 1 KB. */
struct store_limits {
    uint32_t total;       /* at least 1 */
    uint32_t per_user;    /* sessions of one named user */
    uint32_t per_client;  /* sessions started from one address (IPv6: /64), named and anonymous ones together */
    uint32_t anonymous;   /* sessions without a name, together: they cannot crowd out those with one */
    uint32_t window_size; /* largest window granted, 1 .. 4096 */
    uint64_t idle_ms;     /* a session ends when it was not used for that long; 0 = never */
};

/* 65536 sessions, half of them for the anonymous, 64 per user, 1024 per client address; windows of 4096; an hour. */
void store_limits_init(struct store_limits *limits);

/* 0, -ENOMEM, or -EINVAL for limits out of range. To be freed by store_free(). */
SOCKS6_MUST_CHECK int store_memory_new(const struct store_limits *limits, struct store **out);

/*
 * After a reload: from now on. Sessions over a lower cap are not ended, new ones are not granted. From any thread.
 * 0 or -EINVAL.
 */
SOCKS6_MUST_CHECK int store_memory_set_limits(struct store *store, const struct store_limits *limits);

#endif
