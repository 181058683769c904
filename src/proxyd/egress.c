#include "proxyd/egress.h"

#include <inttypes.h>
#include <string.h>

#include "io/sock.h"
#include "proxyd/config_values.h"
#include "proxyd/log.h"

static void tell(uint64_t count, const struct socks6_addr *source)
{
    char text[NET_TEXT_MAX] = "any address";
    int err = 0;

    if (source->type != 0) {
        source_address_format(source, text);
        err = sock_try_bind(source);
    }
    if (err != 0) {
        log_warning("%" PRIu64 " times no outgoing connection could come from an address of `outgoing`, last from %s: "
                    "%s; give it to an interface of this host, or take it out of the configuration",
                    count, text, strerror(-err));
        return;
    }
    log_warning("%" PRIu64 " times no port was free for an outgoing connection, last from %s; put more addresses into "
                "`outgoing`, widen net.ipv4.ip_local_port_range, or set net.ipv4.tcp_tw_reuse to 1",
                count, text);
}

void egress_unavailable(struct egress_notices *notices, struct stats *stats, unsigned count,
                        const struct socks6_addr *source, uint64_t now_ms)
{
    uint64_t due_ms = atomic_load(&notices->due_ms);

    if (count == 0) {
        return;
    }
    stats_add(stats, STATS_source_unavailable, count);
    atomic_fetch_add(&notices->untold, count);
    /* Of several workers at the same moment one tells. */
    if (now_ms >= due_ms && atomic_compare_exchange_strong(&notices->due_ms, &due_ms, now_ms + EGRESS_NOTICE_MS)) {
        tell(atomic_exchange(&notices->untold, 0), source);
    }
}
