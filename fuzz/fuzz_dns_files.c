/*
 * resolv.conf and hosts: any bytes are read; servers are addresses, numbers are within their bounds, and the names of a
 * hosts file are found again.
 */
#include <string.h>

#include "dns/hosts.h"
#include "dns/resolv_conf.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct siphash_key key = {1, 2};
    static struct socks6_addr addrs[HOSTS_ADDRESSES_MAX];
    struct resolv_conf conf;
    struct dns_name name;

    resolv_conf_parse((const char *)data, size, &conf);
    require(conf.server_count >= 1 && conf.server_count <= RESOLV_CONF_SERVERS_MAX, "there is a server");
    for (size_t i = 0; i < conf.server_count; i++) {
        require(conf.servers[i].ss_family == AF_INET || conf.servers[i].ss_family == AF_INET6, "it has an address");
    }
    require(conf.timeout_s >= 1 && conf.timeout_s <= 30 && conf.attempts >= 1 && conf.attempts <= 5, "bounds hold");

    struct hosts *hosts = hosts_parse((const char *)data, size, &key);
    require(hosts != NULL, "there is memory");
    require(dns_name_parse("www.example", &name) == 0, "the name is one");
    bool found = hosts_have(hosts, &name);
    size_t count = hosts_find(hosts, &name, SOCKS6_ADDR_IPV4, addrs);
    require(count <= HOSTS_ADDRESSES_MAX && (count == 0 || found), "what has addresses is there");
    for (size_t i = 0; i < count; i++) {
        require(addrs[i].type == SOCKS6_ADDR_IPV4 && addrs[i].len == 4, "they are of the family");
    }
    if (count > 0) {
        struct dns_name canonical, each;
        size_t at = 0, steps = 0;
        bool is_there = false;

        require(hosts_canonical(hosts, &name, SOCKS6_ADDR_IPV4, &canonical), "what has addresses has a canonical name");
        while (hosts_next_name(hosts, &addrs[0], &at, &each)) {
            is_there = is_there || dns_name_equal(&each, &name);
            require(++steps <= size, "the names end");
        }
        require(is_there, "the address has the name");
    }
    hosts_free(hosts);
    return 0;
}
