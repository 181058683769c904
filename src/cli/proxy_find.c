#include "cli/proxy_find.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "io/sock.h"

static const char *family_name(int family)
{
    if (family == AF_UNSPEC) {
        return "usable";
    }
    return family == AF_INET ? "IPv4" : "IPv6";
}

/* struct socks6_addr has no zone: an address that has one keeps it as text. */
static bool to_addr(const struct addrinfo *found, struct socks6_addr *out)
{
    char text[NI_MAXHOST];
    struct sockaddr_in6 sin6;

    if (found->ai_family == AF_INET6 && found->ai_addrlen >= sizeof sin6) {
        memcpy(&sin6, found->ai_addr, sizeof sin6);
        if (sin6.sin6_scope_id != 0) {
            return getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0 &&
                   socks6_addr_name(text, strlen(text), ntohs(sin6.sin6_port), out) != 0;
        }
    }
    return sock_to_addr(found->ai_addr, found->ai_addrlen, out);
}

static bool is_of_other_family(const struct socks6_addr *addr, int family)
{
    return (addr->type == SOCKS6_ADDR_IPV4 && family == AF_INET6) ||
           (addr->type == SOCKS6_ADDR_IPV6 && family == AF_INET);
}

static int no_address(const char *proxy, int family, char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "cannot connect to proxy %s: it has no %s address", proxy, family_name(family));
    return SOCKS6_DIAL_PROXY_FAILED;
}

static int look_up(const struct socks6_addr *addr, int family, int flags, struct addrinfo **out)
{
    const struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    char port[sizeof "65535"];

    (void)snprintf(port, sizeof port, "%u", (unsigned)addr->port);
    return getaddrinfo(addr->u.name, port, &hints, out);
}

int proxy_find(const struct socks6_proxy *proxy, int family, struct proxy_addresses *out,
               void (*trace)(void *user, const char *what), void *trace_user, char *why, size_t why_size)
{
    char text[SOCKS6_ADDR_TEXT_MAX], line[SOCKS6_ADDR_TEXT_MAX + sizeof "looking up proxy "];
    struct addrinfo *list = NULL;
    int rc;

    out->count = 0;
    (void)socks6_addr_format(&proxy->addr, text, sizeof text);
    if (is_of_other_family(&proxy->addr, family)) {
        return no_address(text, family, why, why_size);
    }
    if (proxy->addr.type != SOCKS6_ADDR_NAME || look_up(&proxy->addr, family, AI_NUMERICHOST, &list) == 0) {
        freeaddrinfo(list);
        out->list[out->count++] = proxy->addr;
        return SOCKS6_DIAL_OK;
    }
    if (trace != NULL) {
        (void)snprintf(line, sizeof line, "looking up proxy %s", text);
        trace(trace_user, line);
    }
    rc = look_up(&proxy->addr, family, 0, &list);
    if (rc == EAI_MEMORY) {
        (void)snprintf(why, why_size, "out of memory");
        return SOCKS6_DIAL_NOMEM;
    }
    if (rc != 0) {
        (void)snprintf(why, why_size, "cannot find the address of proxy %s: %s", text,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
        return SOCKS6_DIAL_PROXY_FAILED;
    }
    for (const struct addrinfo *found = list; found != NULL && out->count < PROXY_ADDRESSES_MAX;
         found = found->ai_next) {
        out->count += to_addr(found, &out->list[out->count]);
    }
    freeaddrinfo(list);
    return out->count > 0 ? SOCKS6_DIAL_OK : no_address(text, family, why, why_size);
}
