/*
 * The upstream servers and the hosts file as they are now: an immutable snapshot, followed as the files change.
 *
 * The files are looked at (stat(2)) when somebody asks, at most once per second, and read only when they changed.
 */
#ifndef DNS_SERVERS_H
#define DNS_SERVERS_H

#include <stdatomic.h>
#include <sys/socket.h>

#include "dns/hosts.h"
#include "dns/resolver.h"
#include "dns/tls.h"

struct dns_server {
    enum dns_transport transport;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char name[SOCKS6_NAME_MAX + 1]; /* as in struct dns_server_setting */
};

/* What is known of a server's health; any thread. */
struct dns_health {
    _Atomic unsigned failures;      /* in a row */
    _Atomic uint64_t down_until_ms; /* tried last until then */
};

struct dns_servers {
    atomic_uint references;
    uint64_t generation;
    size_t count; /* 1 .. DNS_SERVERS_MAX */
    struct dns_server server[DNS_SERVERS_MAX];
    uint64_t timeout_ms;
    unsigned attempts;
    bool rotate;
    struct hosts *hosts; /* NULL = none */
    struct dns_tls *tls; /* NULL = no server speaks it */
    struct dns_health health[DNS_SERVERS_MAX];
};

struct dns_follower;

/*
 * `changed` (NULL allowed) is called, on whichever thread asked, when other servers are in force than before: what was
 * cached may be wrong now. `settings` are borrowed for the call. 0 or -errno.
 */
SOCKS6_MUST_CHECK int dns_follower_new(const struct dns_settings *settings, const struct siphash_key *key,
                                       void (*changed)(void *user), void *user, struct dns_follower **out);
/* Takes NULL. */
void dns_follower_free(struct dns_follower *follower);
/* Other settings, from any thread; -errno leaves the old ones. What the settings say is in force at the next update. */
SOCKS6_MUST_CHECK int dns_follower_configure(struct dns_follower *follower, const struct dns_settings *settings);

/*
 * Looks whether the files have changed, if that was more than a second ago. Then the snapshot in force: `*servers` is
 * replaced if it is not that one (its reference given back). First call: `*servers` is NULL.
 */
void dns_follower_update(struct dns_follower *follower, uint64_t now_ms, struct dns_servers **servers);

struct dns_servers *dns_servers_retain(struct dns_servers *servers);
/* Takes NULL. */
void dns_servers_release(struct dns_servers *servers);

bool dns_server_equal(const struct dns_server *a, const struct dns_server *b);

#endif
