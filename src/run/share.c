/*
 * Theory of operation. The route, and each entry of the table, is words behind a sequence number, odd while somebody writes. Readers
 * take what they have read if the number was even and is the same afterwards. Writers that find it odd go to another entry: the one
 * who writes may be the same thread below a signal handler, or dead. The route has one writer.
 *
 * A cookie has WAYS places where it can be. A writer takes the one that holds it, or one that is empty, or one at random.
 */
#include "run/share.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#define WORDS_OF(type) ((sizeof(type) + sizeof(uint64_t) - 1) / sizeof(uint64_t))
#define WAYS 4u
#define SET_BITS 12u
#define SETS (1u << SET_BITS)
#define MISSES_MAX 9u /* 1 << 8 is RUN_SHARE_PATIENCE_MAX */

struct known {
    uint64_t cookie;
    struct run_addr peer, local;
};

struct entry {
    _Atomic uint64_t sequence;
    _Atomic uint64_t words[WORDS_OF(struct known)];
};

/* Of IPv4 as of ::ffff:0:0/96. */
struct network {
    _Atomic uint64_t high, low;
    atomic_uint bits;
};

struct run_share {
    _Atomic uint64_t route_sequence;
    _Atomic uint64_t route_words[WORDS_OF(struct run_route)];
    _Atomic uint64_t doubted; /* serial */
    _Atomic uint64_t tokens;  /* upper half: the next one; lower half: how many there are */
    _Atomic uint64_t window;  /* upper half: base; lower half: size, 0 = no news */
    atomic_uint misses;       /* in a row: how long to go without waiting */
    atomic_uint skips;        /* that are left */
    atomic_uint ipv6;         /* enum run_share_ipv6 */
    atomic_uint network_count;
    struct network networks[RUN_SHARE_NETWORKS_MAX];
    struct entry table[SETS][WAYS];
};

const size_t run_share_len = sizeof(struct run_share);

/* --- words behind a sequence number --- */

static void load_words(const _Atomic uint64_t *from, uint64_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
    }
}

static void store_words(_Atomic uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        atomic_store_explicit(&to[i], from[i], memory_order_relaxed);
    }
}

/* False if it was being written. */
static bool read_words(const _Atomic uint64_t *sequence, const _Atomic uint64_t *from, uint64_t *to, size_t count)
{
    uint64_t before = atomic_load_explicit(sequence, memory_order_acquire);

    load_words(from, to, count);
    atomic_thread_fence(memory_order_acquire);
    return before % 2 == 0 && atomic_load_explicit(sequence, memory_order_relaxed) == before;
}

/* False if somebody else is writing. */
static bool write_words(_Atomic uint64_t *sequence, _Atomic uint64_t *to, const uint64_t *from, size_t count)
{
    uint64_t before = atomic_load_explicit(sequence, memory_order_relaxed);

    if (before % 2 != 0 || !atomic_compare_exchange_strong_explicit(sequence, &before, before + 1, memory_order_acquire,
                                                                    memory_order_relaxed)) {
        return false;
    }
    atomic_thread_fence(memory_order_release);
    store_words(to, from, count);
    atomic_store_explicit(sequence, before + 2, memory_order_release);
    return true;
}

/* --- the route --- */

/* If it cannot be written, a program has spoilt the number: there is no route any more. */
static void put_route(struct run_share *share, const struct run_route *route)
{
    uint64_t words[WORDS_OF(struct run_route)] = {0};
    bool is_written;

    memcpy(words, route, sizeof *route);
    is_written = write_words(&share->route_sequence, share->route_words, words, WORDS_OF(struct run_route));
    (void)is_written;
}

static uint64_t last_serial(const struct run_share *share)
{
    return atomic_load_explicit(&share->route_sequence, memory_order_relaxed);
}

void run_share_publish(struct run_share *share, const struct run_route *route)
{
    struct run_route numbered = *route;

    numbered.serial = last_serial(share) + 2; /* what the sequence will be */
    atomic_store_explicit(&share->tokens, 0, memory_order_relaxed);
    atomic_store_explicit(&share->window, 0, memory_order_relaxed);
    put_route(share, &numbered);
}

void run_share_withdraw(struct run_share *share)
{
    struct run_route none = {.serial = 0};

    put_route(share, &none);
}

bool run_share_route(const struct run_share *share, struct run_route *out)
{
    uint64_t words[WORDS_OF(struct run_route)];

    if (!read_words(&share->route_sequence, share->route_words, words, WORDS_OF(struct run_route))) {
        return false;
    }
    memcpy(out, words, sizeof *out);
    return out->serial != 0 && out->session_len <= RUN_ROUTE_SESSION_MAX &&
           atomic_load_explicit(&share->doubted, memory_order_relaxed) != out->serial;
}

static uint64_t serial_there(const struct run_share *share)
{
    return atomic_load_explicit(&share->route_words[offsetof(struct run_route, serial) / sizeof(uint64_t)],
                                memory_order_relaxed);
}

/*
 * There is room for one doubt. One that comes late, about a route that is gone, must not take the place of one about the route that is
 * there: whoever has stored that one has seen its route, and so does everybody who sees the doubt.
 */
void run_share_doubt(struct run_share *share, uint64_t serial)
{
    uint64_t doubted = atomic_load_explicit(&share->doubted, memory_order_acquire);

    while (serial_there(share) == serial && doubted != serial &&
           !atomic_compare_exchange_weak_explicit(&share->doubted, &doubted, serial, memory_order_acq_rel,
                                                  memory_order_acquire)) {
    }
}

/* --- networks --- */

struct prefix {
    uint64_t high, low;
    unsigned bits;
};

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < sizeof value; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static struct prefix prefix_of(const struct run_addr *addr, unsigned bits)
{
    if (addr->family == AF_INET) {
        uint64_t mapped = UINT64_C(0xffff) << 32;

        return (struct prefix){.low = mapped | big_endian(addr->bytes) >> 32, .bits = 96 + bits};
    }
    return (struct prefix){.high = big_endian(addr->bytes), .low = big_endian(addr->bytes + 8), .bits = bits};
}

/* The first `bits` of 64, which may be more. */
static uint64_t mask_of(unsigned bits)
{
    return bits == 0 ? 0 : bits >= 64 ? UINT64_MAX : UINT64_MAX << (64 - bits);
}

static bool holds(const struct network *network, const struct prefix *prefix)
{
    unsigned bits = atomic_load_explicit(&network->bits, memory_order_relaxed);
    uint64_t high = atomic_load_explicit(&network->high, memory_order_relaxed);
    uint64_t low = atomic_load_explicit(&network->low, memory_order_relaxed);

    return bits <= prefix->bits && ((high ^ prefix->high) & mask_of(bits)) == 0 &&
           ((low ^ prefix->low) & mask_of(bits > 64 ? bits - 64 : 0)) == 0;
}

static bool is_held(const struct run_share *share, const struct prefix *prefix)
{
    unsigned count = atomic_load_explicit(&share->network_count, memory_order_acquire);

    for (unsigned i = 0; i < count && i < RUN_SHARE_NETWORKS_MAX; i++) {
        if (holds(&share->networks[i], prefix)) {
            return true;
        }
    }
    return false;
}

bool run_share_add_network(struct run_share *share, const struct run_addr *addr, unsigned bits)
{
    struct prefix prefix = prefix_of(addr, bits);
    unsigned count = atomic_load_explicit(&share->network_count, memory_order_relaxed);

    if (is_held(share, &prefix)) {
        return true;
    }
    if (count >= RUN_SHARE_NETWORKS_MAX) {
        return false;
    }
    atomic_store_explicit(&share->networks[count].high, prefix.high, memory_order_relaxed);
    atomic_store_explicit(&share->networks[count].low, prefix.low, memory_order_relaxed);
    atomic_store_explicit(&share->networks[count].bits, prefix.bits, memory_order_relaxed);
    atomic_store_explicit(&share->network_count, count + 1, memory_order_release);
    return true;
}

bool run_share_has_network(const struct run_share *share, const struct run_addr *addr)
{
    struct prefix prefix = prefix_of(addr, addr->family == AF_INET ? 32 : 128);

    return is_held(share, &prefix);
}

/* --- tokens --- */

static uint64_t pack(uint32_t upper, uint32_t lower)
{
    return (uint64_t)upper << 32 | lower;
}

static uint32_t upper_half(uint64_t pair)
{
    return (uint32_t)(pair >> 32);
}

static uint32_t lower_half(uint64_t pair)
{
    return (uint32_t)pair;
}

void run_share_put_tokens(struct run_share *share, uint32_t first, unsigned count)
{
    uint64_t before = atomic_load_explicit(&share->tokens, memory_order_relaxed), after;

    do {
        uint32_t left = lower_half(before);
        bool is_next = left > 0 && upper_half(before) + left == first;

        after = is_next ? pack(upper_half(before), left + count) : pack(first, count);
    } while (!atomic_compare_exchange_weak_explicit(&share->tokens, &before, after, memory_order_release,
                                                    memory_order_relaxed));
}

unsigned run_share_tokens_left(const struct run_share *share)
{
    return lower_half(atomic_load_explicit(&share->tokens, memory_order_relaxed));
}

unsigned run_share_take_tokens_back(struct run_share *share, uint32_t *first)
{
    uint64_t before = atomic_exchange_explicit(&share->tokens, 0, memory_order_acq_rel);

    *first = upper_half(before);
    return lower_half(before);
}

bool run_share_take_token(struct run_share *share, uint32_t *token, bool *is_low)
{
    uint64_t before = atomic_load_explicit(&share->tokens, memory_order_acquire);
    uint32_t left;

    do {
        left = lower_half(before);
        if (left == 0) {
            *is_low = false;
            return false;
        }
        left--;
    } while (!atomic_compare_exchange_weak_explicit(&share->tokens, &before, pack(upper_half(before) + 1, left),
                                                    memory_order_acq_rel, memory_order_acquire));
    *token = upper_half(before);
    *is_low = left == RUN_SHARE_TOKENS_LOW || left == 0;
    return true;
}

void run_share_tell_window(struct run_share *share, uint32_t base, uint32_t size)
{
    atomic_store_explicit(&share->window, pack(base, size), memory_order_relaxed);
}

bool run_share_take_window(struct run_share *share, uint32_t *base, uint32_t *size)
{
    uint64_t window = atomic_exchange_explicit(&share->window, 0, memory_order_relaxed);

    *base = upper_half(window);
    *size = lower_half(window);
    return *size != 0;
}

/* --- the sockets --- */

/*
 * The kernel gives 4096 cookies at a time to each processor, which counts them up. Times the golden ratio those that are counted up lie
 * evenly spread, and those of processors that count in step do not meet.
 */
static uint64_t spread(uint64_t cookie)
{
    return cookie * UINT64_C(0x9e3779b97f4a7c15);
}

static unsigned set_of(uint64_t cookie)
{
    return (unsigned)(spread(cookie) >> (64 - SET_BITS));
}

static uint64_t cookie_in(const struct entry *entry)
{
    return atomic_load_explicit(&entry->words[offsetof(struct known, cookie) / sizeof(uint64_t)], memory_order_relaxed);
}

/* Where the cookie is, or may go: 0 to WAYS - 1. */
static unsigned way_for(const struct entry *set, uint64_t cookie)
{
    unsigned empty = WAYS;

    for (unsigned way = 0; way < WAYS; way++) {
        uint64_t there = cookie_in(&set[way]);

        if (there == cookie) {
            return way;
        }
        empty = there == 0 && empty == WAYS ? way : empty;
    }
    return empty < WAYS ? empty : (unsigned)(spread(cookie) << SET_BITS >> 32) % WAYS;
}

void run_share_put(struct run_share *share, uint64_t cookie, const struct run_addr *peer, const struct run_addr *local)
{
    const struct known known = {.cookie = cookie, .peer = *peer, .local = *local};
    struct entry *set = share->table[set_of(cookie)];
    uint64_t words[WORDS_OF(struct known)] = {0};
    unsigned way = way_for(set, cookie);

    memcpy(words, &known, sizeof known);
    for (unsigned tries = 0; tries < WAYS; tries++, way = (way + 1) % WAYS) {
        if (write_words(&set[way].sequence, set[way].words, words, WORDS_OF(struct known))) {
            return;
        }
    }
}

bool run_share_get(const struct run_share *share, uint64_t cookie, struct run_addr *peer, struct run_addr *local)
{
    const struct entry *set = share->table[set_of(cookie)];

    for (unsigned way = 0; way < WAYS && cookie != 0; way++) {
        uint64_t words[WORDS_OF(struct known)];
        struct known known;

        if (cookie_in(&set[way]) == cookie &&
            read_words(&set[way].sequence, set[way].words, words, WORDS_OF(struct known))) {
            memcpy(&known, words, sizeof known);
            if (known.cookie == cookie) {
                *peer = known.peer;
                *local = known.local;
                return true;
            }
        }
    }
    return false;
}

/* --- hints --- */

bool run_share_is_patient(struct run_share *share)
{
    unsigned left = atomic_load_explicit(&share->skips, memory_order_relaxed);

    if (left == 0) {
        return true;
    }
    /* Two at once may count as one. More than the most can only be damage. */
    left = left > RUN_SHARE_PATIENCE_MAX ? RUN_SHARE_PATIENCE_MAX : left;
    atomic_store_explicit(&share->skips, left - 1, memory_order_relaxed);
    return false;
}

void run_share_was_quick(struct run_share *share, bool is_quick)
{
    unsigned misses = is_quick ? 0 : atomic_load_explicit(&share->misses, memory_order_relaxed) + 1;

    misses = misses > MISSES_MAX ? MISSES_MAX : misses;
    atomic_store_explicit(&share->misses, misses, memory_order_relaxed);
    atomic_store_explicit(&share->skips, misses == 0 ? 0 : 1u << (misses - 1), memory_order_relaxed);
}

void run_share_tell_ipv6(struct run_share *share, enum run_share_ipv6 what)
{
    atomic_store_explicit(&share->ipv6, (unsigned)what, memory_order_relaxed);
}

enum run_share_ipv6 run_share_take_ipv6(struct run_share *share)
{
    unsigned what = atomic_exchange_explicit(&share->ipv6, RUN_SHARE_IPV6_NO_NEWS, memory_order_relaxed);

    return what == RUN_SHARE_IPV6_WORKS         ? RUN_SHARE_IPV6_WORKS
           : what == RUN_SHARE_IPV6_UNREACHABLE ? RUN_SHARE_IPV6_UNREACHABLE
                                                : RUN_SHARE_IPV6_NO_NEWS;
}
