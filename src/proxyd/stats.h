/*
 * Counters, one set per worker, written by its thread alone and read by anyone: no lock, no shared cache line.
 */
#ifndef PROXYD_STATS_H
#define PROXYD_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, help): every counter once; the name is what users see. */
#define STATS_COUNTERS(X)                                                                                              \
    X(accepted, "connections accepted")                                                                                \
    X(closed, "connections ended")                                                                                     \
    X(refused_client_limit, "connections closed at once: too many of one client")                                      \
    X(accept_paused, "times accepting was paused: descriptors, memory or the total limit")                             \
    X(accept_errors, "failed accepts")                                                                                 \
    X(requests_socks4, "requests by SOCKS 4 and 4a")                                                                   \
    X(requests_socks5, "requests by SOCKS 5")                                                                          \
    X(requests_socks6, "requests by SOCKS 6")                                                                          \
    X(handshake_errors, "conversations that ended before a request: malformed, wrong version, gone")                   \
    X(handshake_timeouts, "conversations that took longer than limits.handshake")                                      \
    X(denied, "requests denied by rules or protection")                                                                \
    X(connected, "outgoing connections made")                                                                          \
    X(connect_failed, "requests whose destination could not be reached")                                               \
    X(resolve_failed, "requests whose name could not be resolved")                                                     \
    X(dns_streams, "streams to the DNS service")                                                                       \
    X(dns_questions, "questions to the DNS service")                                                                   \
    X(dns_answers, "answers of the DNS service, errors included")                                                      \
    X(dns_malformed, "questions to it that were malformed or not supported")                                           \
    X(dns_denied, "questions to it for names that a rule denies")                                                      \
    X(relay_resets, "relays ended by a reset")                                                                         \
    X(relay_idle, "relays ended by an idle limit")                                                                     \
    X(splice_refused, "times a bulk stream was copied because there was no pipe to splice it through")                 \
    X(bytes_up, "bytes from clients to servers")                                                                       \
    X(bytes_down, "bytes from servers to clients")

enum stats_counter {
#define STATS_ENUM(name, help) STATS_##name,
    STATS_COUNTERS(STATS_ENUM)
#undef STATS_ENUM
        STATS_COUNT
};

struct stats {
    _Alignas(64) _Atomic uint64_t value[STATS_COUNT];
};

/* From the owning thread. */
static inline void stats_add(struct stats *stats, enum stats_counter counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(&stats->value[counter], memory_order_relaxed);
    atomic_store_explicit(&stats->value[counter], old + n, memory_order_relaxed);
}

/* From any thread: adds `stats` to `sum`. */
void stats_sum(const struct stats *stats, uint64_t sum[STATS_COUNT]);
/* "accepted" and so on. */
const char *stats_name(enum stats_counter counter);

#endif
