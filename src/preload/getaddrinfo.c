/*
 * Theory of operation. The helper says which addresses a name has; libc makes the list: each address as text goes through the real
 * getaddrinfo(3) with AI_NUMERICHOST, so that services, protocols, socket types and errors are its own, and freeaddrinfo(3)
 * can free what it gets. The lists are chained, one address after the other, as libc has them.
 */
#include "preload/getaddrinfo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload/export.h"
#include "preload/idn.h"
#include "preload/real.h"

const struct addrinfo getaddrinfo_no_hints = {.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};

/* Flags that are for us, or for the name, and not for a numeric address. */
#define FLAGS_OF_NAMES (AI_ADDRCONFIG | AI_CANONNAME | AI_ALL | AI_IDN | AI_CANONIDN)

bool getaddrinfo_is_local(const char *node, const struct addrinfo *hints)
{
    struct run_addr addr;

    return node == NULL || strcmp(node, "*") == 0 || (hints->ai_flags & AI_NUMERICHOST) != 0 ||
           names_numeric(node, &addr);
}

static struct addrinfo numeric_hints(const struct addrinfo *hints)
{
    struct addrinfo out = {.ai_flags = (hints->ai_flags & ~FLAGS_OF_NAMES) | AI_NUMERICHOST,
                           .ai_family = hints->ai_family,
                           .ai_socktype = hints->ai_socktype,
                           .ai_protocol = hints->ai_protocol};

    return out;
}

int getaddrinfo_check(const char *service, const struct addrinfo *hints)
{
    const struct addrinfo numeric = numeric_hints(hints);
    struct addrinfo *list;
    int rc = real(getaddrinfo)(hints->ai_family == AF_INET6 ? "::1" : "127.0.0.1", service, &numeric, &list);

    if (rc == 0) {
        freeaddrinfo(list);
    }
    return rc;
}

static bool wants_mapped(const struct addrinfo *hints)
{
    return hints->ai_family == AF_INET6 && (hints->ai_flags & AI_V4MAPPED) != 0;
}

int getaddrinfo_ask(const char *node, const struct addrinfo *hints)
{
    uint32_t flags = (hints->ai_flags & AI_ADDRCONFIG) != 0 ? RUN_RESOLVE_ADDRCONFIG : 0;
    int family = wants_mapped(hints) ? AF_UNSPEC : hints->ai_family;
    char *encoded = NULL;
    int rc = (hints->ai_flags & AI_IDN) != 0 ? idn_encode(node, &encoded) : 0;

    if (rc == 0) {
        rc = names_ask(encoded != NULL ? encoded : node, family, flags);
    }
    free(encoded);
    return rc;
}

static bool has_ipv6(const struct names_addresses *found)
{
    for (uint32_t i = 0; i < found->count; i++) {
        if (found->addresses[i].family == AF_INET6) {
            return true;
        }
    }
    return false;
}

static int list_of(const struct run_addr *addr, const char *service, const struct addrinfo *hints,
                   struct addrinfo **out)
{
    char text[INET6_ADDRSTRLEN + sizeof "%4294967295"];
    size_t len;

    if (inet_ntop(addr->family, addr->bytes, text, sizeof text) == NULL) {
        return EAI_FAIL;
    }
    len = strlen(text);
    if (addr->family == AF_INET6 && addr->scope != 0) {
        (void)snprintf(text + len, sizeof text - len, "%%%u", (unsigned)addr->scope);
    }
    return real(getaddrinfo)(text, service, hints, out);
}

/* Chains the lists of all addresses that are wanted. */
static int chain(const char *service, const struct addrinfo *hints, const struct names_addresses *found,
                 struct addrinfo **out)
{
    const struct addrinfo numeric = numeric_hints(hints);
    bool is_mapped_too = !has_ipv6(found) || (hints->ai_flags & AI_ALL) != 0;
    struct addrinfo **end = out;
    int rc = EAI_NODATA;

    *out = NULL;
    for (uint32_t i = 0; i < found->count; i++) {
        const struct run_addr *addr = &found->addresses[i];

        if (wants_mapped(hints) && addr->family == AF_INET && !is_mapped_too) {
            continue;
        }
        rc = list_of(addr, service, &numeric, end);
        if (rc == EAI_MEMORY || rc == EAI_SYSTEM) {
            break;
        }
        for (*end = rc == 0 ? *end : NULL; *end != NULL; end = &(*end)->ai_next) {
            (*end)->ai_flags = hints->ai_flags;
        }
    }
    if (*out != NULL && rc != EAI_MEMORY && rc != EAI_SYSTEM) {
        return 0;
    }
    *end = NULL;
    freeaddrinfo(*out);
    return rc;
}

/* On the first of the list, as libc has it. */
static int add_canonical_name(const char *node, const struct addrinfo *hints, const char *canon, struct addrinfo *list)
{
    const char *name = canon[0] != '\0' ? canon : node;

    if ((hints->ai_flags & AI_CANONNAME) == 0) {
        return 0;
    }
    if ((hints->ai_flags & AI_CANONIDN) != 0) {
        return idn_decode(name, &list->ai_canonname);
    }
    list->ai_canonname = strdup(name);
    return list->ai_canonname == NULL ? EAI_MEMORY : 0;
}

static int ask_system(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    struct run_addr addr, last = {0};
    int rc = real(getaddrinfo)(node, service, hints, out);

    for (const struct addrinfo *it = rc == 0 ? *out : NULL; it != NULL; it = it->ai_next) {
        if (names_from_sockaddr(it->ai_addr, &addr) && memcmp(&addr, &last, sizeof addr) != 0) {
            names_tell_direct(&addr);
            last = addr;
        }
    }
    return rc;
}

int getaddrinfo_finish(const char *node, const char *service, const struct addrinfo *hints, int status,
                       const struct names_addresses *found, struct addrinfo **out)
{
    struct addrinfo *list;
    int rc;

    if (status != 0) {
        return status == RUN_ASK_SYSTEM ? ask_system(node, service, hints, out) : status;
    }
    rc = chain(service, hints, found, &list);
    if (rc != 0) {
        return rc;
    }
    rc = add_canonical_name(node, hints, found->canon, list);
    if (rc != 0) {
        freeaddrinfo(list);
        return rc;
    }
    *out = list;
    return 0;
}

static int look_up(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    struct names_addresses *found;
    int fd, rc = getaddrinfo_check(service, hints);

    if (rc != 0) {
        return rc;
    }
    fd = getaddrinfo_ask(node, hints);
    if (fd < 0) {
        return fd;
    }
    found = malloc(sizeof *found);
    if (found == NULL) {
        return EAI_MEMORY;
    }
    rc = names_await(fd, found);
    rc = getaddrinfo_finish(node, service, hints, rc, found, out);
    free(found);
    return rc;
}

PRELOAD_EXPORT int getaddrinfo(const char *restrict node, const char *restrict service,
                               const struct addrinfo *restrict hints, struct addrinfo **restrict out)
{
    const struct addrinfo *wanted = hints != NULL ? hints : &getaddrinfo_no_hints;

    if (getaddrinfo_is_local(node, wanted)) {
        return real(getaddrinfo)(node, service, hints, out);
    }
    return look_up(node, service, wanted, out);
}
