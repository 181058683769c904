/*
 * resolv.conf(5): text to values. Pure but for the numbers of interfaces in scope ids.
 */
#ifndef DNS_RESOLV_CONF_H
#define DNS_RESOLV_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

#define RESOLV_CONF_SERVERS_MAX 8u /* resolv.conf(5) says 3; nothing speaks against more */

struct resolv_conf {
    struct sockaddr_storage servers[RESOLV_CONF_SERVERS_MAX];
    size_t server_count;
    unsigned timeout_s; /* options timeout:N, 1..30; default 5 */
    unsigned attempts;  /* options attempts:N, 1..5; default 2 */
    bool rotate;        /* options rotate */
    bool use_vc;        /* options use-vc: TCP only */
};

/*
 * Understands `nameserver` (an address, with %SCOPE for link-local ones; "[ADDRESS]:PORT" too) and the options above.
 * Other lines and options change nothing: `search`, `domain` and ndots concern unqualified names, which this resolver
 * takes as they are; EDNS is always used (edns0), and AD only passed on (trust-ad). Lines that make no sense are passed
 * over, as resolv.conf(5) readers do. Without any server, 127.0.0.1 is the one.
 */
void resolv_conf_parse(const char *text, size_t len, struct resolv_conf *out);

#endif
