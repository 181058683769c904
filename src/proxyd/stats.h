/*
 * Counters and gauges, one set per worker, written by its thread alone and read by anyone: no lock, no shared cache
 * line.
 *
 * The table below is all there is to say about each: the log line of SIGUSR1, the status document and whatever exports
 * them later are made from it.
 */
#ifndef PROXYD_STATS_H
#define PROXYD_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * X(name, type, unit, help): every value once; the name is what users see. A COUNTER only grows. `connections` is
 * computed from others when it is read; a worker adds to the rest.
 */
#define STATS_TABLE(X)                                                                                                 \
    X(connections, GAUGE, NONE, "connections of clients that are open now")                                            \
    X(accepted, COUNTER, NONE, "connections accepted")                                                                 \
    X(closed, COUNTER, NONE, "connections ended")                                                                      \
    X(refused_client_limit, COUNTER, NONE, "connections closed at once: too many of one client")                       \
    X(accept_paused, COUNTER, NONE, "times accepting was paused: descriptors, memory or the total limit")              \
    X(accept_errors, COUNTER, NONE, "failed accepts")                                                                  \
    X(requests_socks4, COUNTER, NONE, "requests by SOCKS 4 and 4a")                                                    \
    X(requests_socks5, COUNTER, NONE, "requests by SOCKS 5")                                                           \
    X(requests_socks6, COUNTER, NONE, "requests by SOCKS 6")                                                           \
    X(requests_in_syn, COUNTER, NONE, "requests that came with a SYN (TCP Fast Open)")                                 \
    X(requests_waited, COUNTER, NONE, "requests without a token that waited for the end of their client's handshake")  \
    X(handshake_errors, COUNTER, NONE, "conversations that ended before a request: malformed, wrong version, gone")    \
    X(handshake_timeouts, COUNTER, NONE, "conversations that took longer than limits.handshake")                       \
    X(tls_handshakes, COUNTER, NONE, "TLS handshakes that were finished")                                              \
    X(tls_resumed, COUNTER, NONE, "of these, those by a ticket")                                                       \
    X(tls_early_data_accepted, COUNTER, NONE, "TLS connections whose early data was taken, finished or not")           \
    X(tls_failures, COUNTER, NONE, "TLS handshakes that failed: not TLS, no version, protocol or certificate, gone")   \
    X(auth_ok, COUNTER, NONE, "log-ins with the right password")                                                       \
    X(auth_certificates, COUNTER, NONE, "log-ins by a certificate")                                                    \
    X(auth_failed, COUNTER, NONE, "log-ins with a wrong password or name")                                             \
    X(auth_missing, COUNTER, NONE, "clients refused because they did not log in")                                      \
    X(auth_backoff, COUNTER, NONE, "log-ins refused unseen: too many wrong ones from that address")                    \
    X(auth_busy, COUNTER, NONE, "log-ins refused unseen: too many passwords to check, or no memory")                   \
    X(auth_errors, COUNTER, NONE, "log-ins refused because PAM could not tell whether the password is right")          \
    X(sessions_started, COUNTER, NONE, "SOCKS 6 sessions granted")                                                     \
    X(sessions_refused, COUNTER, NONE, "sessions not granted: a limit, or no memory")                                  \
    X(sessions_resumed, COUNTER, NONE, "requests inside a session that there is")                                      \
    X(sessions_invalid, COUNTER, NONE, "requests with the id of a session that there is not, or not here")             \
    X(sessions_torn_down, COUNTER, NONE, "sessions ended by their client")                                             \
    X(tokens_accepted, COUNTER, NONE, "idempotence tokens spent")                                                      \
    X(tokens_rejected, COUNTER, NONE, "requests refused for their token: spent already, or outside of the window")     \
    X(denied, COUNTER, NONE, "requests denied by rules or protection")                                                 \
    X(connected, COUNTER, NONE, "outgoing connections made")                                                           \
    X(connect_failed, COUNTER, NONE, "requests whose destination could not be reached")                                \
    X(source_unavailable, COUNTER, NONE, "attempts to connect for which no address or port of ours was free")          \
    X(resolve_failed, COUNTER, NONE, "requests whose name could not be resolved")                                      \
    X(dns_streams, COUNTER, NONE, "streams to the DNS service")                                                        \
    X(dns_questions, COUNTER, NONE, "questions to the DNS service")                                                    \
    X(dns_answers, COUNTER, NONE, "answers of the DNS service, errors included")                                       \
    X(dns_malformed, COUNTER, NONE, "questions to it that were malformed or not supported")                            \
    X(dns_denied, COUNTER, NONE, "questions to it for names that a rule denies")                                       \
    X(relay_resets, COUNTER, NONE, "relays ended by a reset")                                                          \
    X(relay_idle, COUNTER, NONE, "relays ended by an idle limit")                                                      \
    X(splice_refused, COUNTER, NONE, "times a bulk stream was copied because there was no pipe to splice it through")  \
    X(bytes_up, COUNTER, BYTES, "bytes from clients to servers")                                                       \
    X(bytes_down, COUNTER, BYTES, "bytes from servers to clients")

enum stats_type { STATS_COUNTER, STATS_GAUGE };
enum stats_unit { STATS_NONE, STATS_BYTES, STATS_SECONDS };

enum stats_counter {
#define STATS_ENUM(name, type, unit, help) STATS_##name,
    STATS_TABLE(STATS_ENUM)
#undef STATS_ENUM
        STATS_COUNT
};

struct stats_info {
    const char *name; /* "accepted" */
    enum stats_type type;
    enum stats_unit unit;
    const char *help;
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

/* From any thread: what `stats` says now. */
void stats_read(const struct stats *stats, uint64_t out[STATS_COUNT]);
/* Adds one such reading to `sum`. */
void stats_sum(uint64_t sum[STATS_COUNT], const uint64_t values[STATS_COUNT]);
const struct stats_info *stats_info(enum stats_counter counter);

/*
 * " accepted=1 closed=0 ...": every value in the table's order. Room for STATS_LINE_MAX bytes is always enough, and a
 * message of the log takes as many.
 */
struct stats_line_room {
#define STATS_LINE_ROOM(name, type, unit, help) char name[sizeof " " #name "=" + 20];
    STATS_TABLE(STATS_LINE_ROOM)
#undef STATS_LINE_ROOM
};
#define STATS_LINE_MAX (sizeof(struct stats_line_room) + 1)
void stats_line(const uint64_t values[STATS_COUNT], char out[STATS_LINE_MAX]);

#endif
