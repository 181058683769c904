/*
 * The addresses of a proxy, looked up where that may block. Called at the start of a program, or by reach().
 */
#ifndef CLI_PROXY_FIND_H
#define CLI_PROXY_FIND_H

#include <socks6/dial.h>

/* More addresses of one proxy than that are not tried. */
#define PROXY_ADDRESSES_MAX 16u

struct proxy_addresses {
    struct socks6_addr
        list[PROXY_ADDRESSES_MAX]; /* for struct reach_config: an address with a zone is in the form of a name */
    size_t count;
};

/*
 * Looks the proxy's name up with getaddrinfo(3). `family`: AF_UNSPEC, AF_INET, AF_INET6. SOCKS6_DIAL_OK and at least one address;
 * or SOCKS6_DIAL_PROXY_FAILED or _NOMEM with a sentence in `why`. `trace` may be NULL: struct socks6_dial_config.
 */
SOCKS6_MUST_CHECK int proxy_find(const struct socks6_proxy *proxy, int family, struct proxy_addresses *out,
                                 void (*trace)(void *user, const char *what), void *trace_user, char *why,
                                 size_t why_size);

#endif
