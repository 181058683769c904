/*
 * How much a client asks of the DNS service, counted over all its streams and workers: questions in flight, and per
 * second. IPv6 clients count by /64, as connections do.
 */
#ifndef PROXYD_DNS_LIMITS_H
#define PROXYD_DNS_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include <socks6/types.h>

struct dns_limits;
struct dns_asker_count;

/* 0 or -errno. */
SOCKS6_MUST_CHECK int dns_limits_new(struct dns_limits **out);
/* Takes NULL. */
void dns_limits_free(struct dns_limits *limits);

/* The client's count, shared by all its streams: once per stream. NULL = no memory. */
struct dns_asker_count *dns_limits_join(struct dns_limits *limits, const struct socks6_addr *client);
void dns_limits_leave(struct dns_limits *limits, struct dns_asker_count *count);

/*
 * Any thread. One question more: true, and it is to be given back by dns_limits_done(). `in_flight_max`; `per_second`
 * (0 = no limit) on average, after a first second's worth at once.
 */
bool dns_limits_ask(struct dns_asker_count *count, uint32_t in_flight_max, uint32_t per_second, uint64_t now_ms);
void dns_limits_done(struct dns_asker_count *count);

#endif
