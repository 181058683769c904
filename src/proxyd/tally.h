/*
 * How many of something each key has, for caps: a count per user, per address. Shared by all workers.
 *
 * A key is known by its hash alone: two keys that share 64 bits of SipHash under a random key would share a count, which
 * nobody can bring about and no cap would notice.
 */
#ifndef PROXYD_TALLY_H
#define PROXYD_TALLY_H

#include <stdint.h>

#include <socks6/types.h>

struct tally;

enum tally_verdict { TALLY_OK, TALLY_FULL, TALLY_NO_MEMORY };

/* 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int tally_new(struct tally **out);
/* Takes NULL. */
void tally_free(struct tally *tally);

/* Counts one more for `hash`, unless there are `max` (0 = no cap) already. What was counted must be given back. */
SOCKS6_MUST_CHECK enum tally_verdict tally_take(struct tally *tally, uint64_t hash, uint32_t max);
void tally_give(struct tally *tally, uint64_t hash);

#endif
