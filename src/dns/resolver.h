/*
 * The resolver: one for the whole process (struct dns_resolver: settings, cache, questions in flight), with a client
 * on every loop (struct dns_client: sockets to the upstream servers). What is asked on one loop is answered on it.
 *
 * Address look-ups are in "dns/lookup.h", whole messages in "dns/ask.h".
 */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "io/loop.h"

struct dns_resolver;
struct dns_client;

enum dns_transport { DNS_UDP, DNS_TCP, DNS_TLS };

/* An upstream server as it is configured. */
struct dns_server_setting {
    enum dns_transport transport;   /* UDP: with TCP for answers that are cut short */
    struct socks6_addr addr;        /* IPv4 or IPv6, with a port */
    char name[SOCKS6_NAME_MAX + 1]; /* TLS: what the certificate must be for; "" = the address */
};

#define DNS_SERVERS_MAX 8u

struct dns_settings {
    const struct dns_server_setting *servers;
    size_t server_count;     /* at most DNS_SERVERS_MAX; 0 = those of resolv_conf, which is followed when it changes */
    const char *resolv_conf; /* NULL = /etc/resolv.conf. Read only without servers */
    const char *hosts;       /* NULL = /etc/hosts, "" = none; followed when it changes */
    const char *ca_file;     /* TLS: certificates to trust; NULL = the system's */
    uint64_t timeout_ms;     /* per attempt; 0 = resolv.conf's, or 2 s for given servers */
    unsigned attempts;       /* times that every server is tried; 0 = resolv.conf's, or 2 */
    size_t cache_len;        /* bytes at most; 0 = no cache */
};

#define DNS_CACHE_LEN_DEFAULT ((size_t)32 << 20)

/*
 * `settings` are copied. 0 or -errno: -EINVAL if ca_file holds no certificates. A resolv.conf or hosts file that cannot
 * be read counts as empty.
 */
SOCKS6_MUST_CHECK int dns_resolver_new(const struct dns_settings *settings, struct dns_resolver **out);
/* All clients must be gone. Takes NULL. */
void dns_resolver_free(struct dns_resolver *resolver);
/* Other settings, from any thread: in force for the next question. -errno leaves the old ones. */
SOCKS6_MUST_CHECK int dns_resolver_configure(struct dns_resolver *resolver, const struct dns_settings *settings);

/* The client of `loop`; belongs to its thread. 0 or -errno. */
SOCKS6_MUST_CHECK int dns_client_new(struct dns_resolver *resolver, struct loop *loop, struct dns_client **out);
/*
 * Everything asked through it must be done or cancelled. To be called before its loop is freed, on its thread or when
 * that has ended; as soon as the loop does not run any more, since other clients may wait for what it asked. Takes
 * NULL.
 */
void dns_client_free(struct dns_client *client);

/*
 * Any thread: calls `each` for every counter of the resolver, "hits" and so on (DNS_COUNTERS in "dns/counters.h"), and
 * "bytes", "entries" and "evictions" of the cache.
 */
void dns_resolver_count(struct dns_resolver *resolver, void (*each)(void *user, const char *name, uint64_t value),
                        void *user);

#endif
