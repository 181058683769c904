/*
 * Who has guessed wrong too often, and how many guesses are being looked at: one count per client address, in a table of
 * fixed size. Thread-safe. Times are any monotonic milliseconds.
 *
 * The first BACKOFF_FREE failures cost nothing. From then on each makes the address wait: a second, two, four, up to
 * BACKOFF_MAX_MS; and a failure is forgotten every BACKOFF_FORGET_MS. Success is no excuse, or an attacker with an account
 * could guess for ever.
 */
#ifndef PROXYD_BACKOFF_H
#define PROXYD_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

#define BACKOFF_FREE 10u
#define BACKOFF_FIRST_MS 1000u
#define BACKOFF_MAX_MS 10000u
#define BACKOFF_FORGET_MS 10000u
/* Guesses of one address that may be under way at once; one, when it has used up its free failures. */
#define BACKOFF_PENDING_MAX 64u
/* Addresses that are remembered. */
#define BACKOFF_ENTRIES 8192u

struct backoff;

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int backoff_new(struct backoff **out);
/* Takes NULL. */
void backoff_free(struct backoff *backoff);

/* Must this address wait? `client`: a keyed hash of the address. */
bool backoff_is_blocked(struct backoff *backoff, uint64_t client, uint64_t now_ms);
/* A guess begins: true if it may; then backoff_leave() must follow. False: it must wait, or has too many under way. */
SOCKS6_MUST_CHECK bool backoff_enter(struct backoff *backoff, uint64_t client, uint64_t now_ms);
/* It ends; `failed` if it was wrong. */
void backoff_leave(struct backoff *backoff, uint64_t client, bool failed, uint64_t now_ms);

#endif
