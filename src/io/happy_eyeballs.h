/*
 * In which order and at what times the addresses of a name are dialled: Happy Eyeballs version 2, RFC 8305, and the
 * plain way, one after the other. A pure state machine: no clock, no socket, no memory of its own.
 *
 * The caller reports what happens (answers of the two look-ups, outcomes of attempts) with the time, and after each
 * report, and when the time has come that the machine asked for, pulls steps with happy_eyeballs_next() until it says
 * WAIT, WON or LOST. The dialer does that; tests do it in virtual time.
 *
 * Racing, sections 3 to 5 of the RFC: nothing starts before the preferred family has answered, but for no longer than
 * the resolution delay once the other one has. The best address by destination_compare() goes first, then the families
 * take turns, so that whatever is wrong with one of them costs one attempt. A further attempt starts when the attempt
 * delay has passed since the last one began, or at once when one fails; those before go on. Answers that come late join
 * what is still to be tried. The first connection wins, and the other attempts are cancelled.
 *
 * An attempt may carry application data in its SYN if it stands alone: nothing else runs, and nothing is left to be
 * tried, or it is the remembered winner. Once one has, no other starts beside or after it, unless it was refused: a
 * server can have read the data although the attempt never gets beyond SYN_SENT here, and two servers must not.
 *
 * One after the other: the addresses of both families in the order of destination_compare(), each with a fair share of
 * the time that is left, so that a dead first address does not eat the time of a live second one.
 */
#ifndef IO_HAPPY_EYEBALLS_H
#define IO_HAPPY_EYEBALLS_H

#include <stddef.h>

#include "io/destination_order.h"

/* RFC 8305 section 8. The range of the attempt delay is an obligation: it protects networks and servers. */
#define HAPPY_EYEBALLS_RESOLUTION_DELAY_MS 50u
#define HAPPY_EYEBALLS_ATTEMPT_DELAY_MS 250u
#define HAPPY_EYEBALLS_ATTEMPT_DELAY_MIN_MS 10u
#define HAPPY_EYEBALLS_ATTEMPT_DELAY_MAX_MS 2000u

/* Attempts at the same time, and how long one has before it makes way for the next where there are more. */
#define HAPPY_EYEBALLS_RUNNING_MAX 16u
#define HAPPY_EYEBALLS_PATIENCE_MS 2000u

struct happy_eyeballs_config {
    bool race;                    /* false: one after the other */
    uint64_t resolution_delay_ms; /* race only, as the next two */
    uint64_t attempt_delay_ms;    /* raised or lowered to the range above */
    unsigned first_family_count;  /* attempts to the first family before the other's turn; at least 1 */
    enum destination_preference prefer;
};

enum happy_eyeballs_state {
    HAPPY_EYEBALLS_PENDING,
    HAPPY_EYEBALLS_RUNNING,
    HAPPY_EYEBALLS_FAILED, /* or given up */
    HAPPY_EYEBALLS_CONNECTED
};

struct happy_eyeballs_candidate {
    struct destination destination;
    enum happy_eyeballs_state state;
    bool is_asked; /* PROBE was said */
    uint64_t started_ms;
    uint64_t until_ms; /* one after the other: when its share of the time ends */
};

/* Bits: families whose answer is still to come. */
enum happy_eyeballs_family { HAPPY_EYEBALLS_IPV4 = 1, HAPPY_EYEBALLS_IPV6 = 2 };

struct happy_eyeballs {
    struct happy_eyeballs_config config;
    struct happy_eyeballs_candidate *candidates; /* the caller's memory */
    size_t count, size;
    uint64_t deadline_ms;
    uint64_t answered_ms; /* when the first address came */
    uint64_t started_ms;  /* of the last attempt */
    unsigned outstanding; /* enum happy_eyeballs_family */
    unsigned running, started;
    unsigned running_max;   /* HAPPY_EYEBALLS_RUNNING_MAX, or fewer after happy_eyeballs_postpone() */
    unsigned first_started; /* attempts to the family that went first */
    uint8_t first_family, last_family;
    bool at_once; /* an attempt has failed: the next need not wait */
    bool has_winner, has_remembered;
    bool is_exclusive; /* a SYN has carried data */
    size_t winner;
    struct destination remembered;
};

enum happy_eyeballs_step_type {
    HAPPY_EYEBALLS_WAIT,   /* for a report, or until `wake_ms` */
    HAPPY_EYEBALLS_PROBE,  /* fill in the source of candidate `index`: destination_probe() */
    HAPPY_EYEBALLS_START,  /* dial candidate `index`; report the outcome */
    HAPPY_EYEBALLS_CANCEL, /* give up the running attempt `index`; nothing more is reported of it */
    HAPPY_EYEBALLS_WON,    /* candidate `index` is connected, no attempt is left beside it */
    HAPPY_EYEBALLS_LOST    /* nothing is left to try, or the time is over; no attempt is left */
};

struct happy_eyeballs_step {
    enum happy_eyeballs_step_type type;
    size_t index;
    uint64_t wake_ms; /* WAIT */
    bool timed_out;   /* CANCEL: it had its time; LOST: the time is over */
};

/*
 * `candidates`: room for `size` addresses, until the end; further ones are not tried. `outstanding`: the families that
 * happy_eyeballs_answer() will be called for. `timeout_ms` bounds the whole; `now_ms` is of any monotonic clock.
 */
void happy_eyeballs_init(struct happy_eyeballs *eyeballs, const struct happy_eyeballs_config *config,
                         struct happy_eyeballs_candidate *candidates, size_t size, unsigned outstanding,
                         uint64_t timeout_ms, uint64_t now_ms);

/* Race only, before the first answer: an address that won not long ago. If it is among the answers it goes first. */
void happy_eyeballs_remember(struct happy_eyeballs *eyeballs, const struct destination *winner);

/* One address of an answer; those that are known already are left out. */
void happy_eyeballs_add(struct happy_eyeballs *eyeballs, const struct destination *destination, uint64_t now_ms);
/* One family's answer (or failure) is complete: all of its addresses have been added. */
void happy_eyeballs_answered(struct happy_eyeballs *eyeballs, enum happy_eyeballs_family family);

/* Outcomes of running attempts. */
void happy_eyeballs_connected(struct happy_eyeballs *eyeballs, size_t index);
void happy_eyeballs_failed(struct happy_eyeballs *eyeballs, size_t index);
/*
 * The attempt could not be made for want of descriptors or memory while others run: it is tried again, with no more at
 * the same time than there are now.
 */
void happy_eyeballs_postpone(struct happy_eyeballs *eyeballs, size_t index);

/* Whether the attempt that START has just named stands alone, so that its SYN may carry data. */
bool happy_eyeballs_stands_alone(const struct happy_eyeballs *eyeballs, size_t index);
/* Its SYN does. */
void happy_eyeballs_carries_data(struct happy_eyeballs *eyeballs);
/* In place of happy_eyeballs_failed() when a reset refused the attempt: nobody has the data. */
void happy_eyeballs_refused(struct happy_eyeballs *eyeballs, size_t index);

void happy_eyeballs_next(struct happy_eyeballs *eyeballs, uint64_t now_ms, struct happy_eyeballs_step *step);

#endif
