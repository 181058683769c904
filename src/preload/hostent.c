/*
 * gethostbyname(3), gethostbyaddr(3) and their relatives. The ones with _r write into the caller's buffer, and say ERANGE if it is
 * too small; the others into memory of their own, as libc's do, which the next call overwrites.
 *
 * Results are libc's: a name that does not exist is no error of the function (0, but no result), one that could not be asked for
 * is EAGAIN, and h_errno tells more.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "preload/export.h"
#include "preload/names.h"
#include "preload/real.h"

#define ALIASES_MAX 48
#define OWN_BUFFER 32768 /* more than RUN_ADDRESSES_MAX addresses and ALIASES_MAX names of DNS take */

#define LEAST_BUFFER (sizeof(struct in6_addr) + 2 * sizeof(char *) + 1) /* besides the name */

/* The caller's buffer, as far as it is not used yet. */
struct room {
    char *at;
    size_t left;
};

/* NULL: no room. */
static void *take(struct room *room, size_t len, size_t alignment)
{
    size_t skip = (alignment - (uintptr_t)room->at % alignment) % alignment;
    char *start;

    if (skip > room->left || len > room->left - skip) {
        return NULL;
    }
    start = room->at + skip;
    room->at = start + len;
    room->left -= skip + len;
    return start;
}

static char *take_text(struct room *room, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = take(room, len, 1);

    return copy == NULL ? NULL : memcpy(copy, text, len);
}

static char **take_pointers(struct room *room, size_t count)
{
    return take(room, count * sizeof(char *), alignof(char *));
}

/* What is to be put into a struct hostent. */
struct host {
    const char *name;
    const char *aliases; /* a NUL behind each; `aliases_len` bytes */
    size_t aliases_len;
    int family;
    uint32_t count;
    const struct run_addr *addresses;
};

static bool fill_aliases(const struct host *host, struct hostent *out, struct room *room)
{
    const char *at = host->aliases, *end = at + host->aliases_len;
    size_t count = 0;

    for (const char *it = at; it < end && count < ALIASES_MAX; it += strlen(it) + 1) {
        count++;
    }
    out->h_aliases = take_pointers(room, count + 1);
    if (out->h_aliases == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1) {
        out->h_aliases[i] = take_text(room, at);
        if (out->h_aliases[i] == NULL) {
            return false;
        }
    }
    out->h_aliases[count] = NULL;
    return true;
}

static bool fill_addresses(const struct host *host, struct hostent *out, struct room *room)
{
    uint32_t count = 0;

    out->h_addrtype = host->family;
    out->h_length = host->family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
    out->h_addr_list = take_pointers(room, host->count + 1);
    for (uint32_t i = 0; out->h_addr_list != NULL && i < host->count; i++) {
        char *bytes;

        if (host->addresses[i].family != host->family) {
            continue;
        }
        bytes = take(room, (size_t)out->h_length, alignof(struct in6_addr));
        if (bytes == NULL) {
            return false;
        }
        out->h_addr_list[count++] = memcpy(bytes, host->addresses[i].bytes, (size_t)out->h_length);
    }
    if (out->h_addr_list != NULL) {
        out->h_addr_list[count] = NULL;
    }
    return out->h_addr_list != NULL;
}

/* Where a call's results go. */
struct outcome {
    struct hostent *host;
    struct room room;
    struct hostent **result;
    int *herr;
};

/* What the function returns: 0 or an errno. */
static int fail(const struct outcome *to, int herr, int error)
{
    *to->result = NULL;
    *to->herr = herr;
    if (error != 0) {
        errno = error;
    }
    return error;
}

static int fail_name(const struct outcome *to, int rc)
{
    switch (rc) {
    case EAI_NONAME:
        return fail(to, HOST_NOT_FOUND, 0);
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
        return fail(to, NO_DATA, 0);
    case EAI_AGAIN:
        return fail(to, TRY_AGAIN, EAGAIN);
    case EAI_MEMORY:
        return fail(to, NETDB_INTERNAL, ENOMEM);
    default:
        return fail(to, NO_RECOVERY, 0);
    }
}

static int succeed(struct outcome *to, const struct host *host)
{
    to->host->h_name = take_text(&to->room, host->name);
    if (to->host->h_name == NULL || !fill_addresses(host, to->host, &to->room) ||
        !fill_aliases(host, to->host, &to->room)) {
        return fail(to, NETDB_INTERNAL, ERANGE);
    }
    *to->result = to->host;
    *to->herr = NETDB_SUCCESS;
    return to->host->h_addr_list[0] != NULL ? 0 : fail(to, NO_DATA, 0);
}

static int by_number(struct outcome *to, const char *name, const struct run_addr *addr, int family)
{
    const struct host host = {.name = name, .family = family, .count = 1, .addresses = addr};

    return addr->family == family ? succeed(to, &host) : fail(to, HOST_NOT_FOUND, 0);
}

/* The name that was asked for is an alias if the answer has another one; but not if a search domain makes the difference. */
static bool is_alias(const char *name, const char *canon)
{
    size_t len = strlen(name);

    len -= len > 0 && name[len - 1] == '.';
    return strncasecmp(name, canon, len) != 0 || (canon[len] != '\0' && canon[len] != '.');
}

static int by_answer(struct outcome *to, const char *name, int family, const struct names_addresses *found)
{
    struct host host = {.name = found->canon[0] != '\0' ? found->canon : name,
                        .family = family,
                        .count = found->count,
                        .addresses = found->addresses};

    if (strlen(found->canon) < found->canon_len) {
        host.aliases = found->canon + strlen(found->canon) + 1;
        host.aliases_len = found->canon_len + 1 - (strlen(found->canon) + 1);
    } else if (is_alias(name, host.name)) {
        host.aliases = name;
        host.aliases_len = strlen(name) + 1;
    }
    return succeed(to, &host);
}

static int ask_system(struct outcome *to, const char *name, int family)
{
    int rc = real(gethostbyname2_r)(name, family, to->host, to->room.at, to->room.left, to->result, to->herr);
    struct run_addr addr = {.family = (uint16_t)family};

    for (char **it = rc == 0 && *to->result != NULL ? to->host->h_addr_list : NULL; it != NULL && *it != NULL; it++) {
        memcpy(addr.bytes, *it, (size_t)to->host->h_length);
        names_tell_direct(&addr);
    }
    return rc;
}

static int by_name(const char *name, int family, struct outcome *to)
{
    struct names_addresses *found;
    struct run_addr number;
    int rc;

    if (to->room.left < strlen(name) + LEAST_BUFFER) { /* libc finds that out before it looks for anything */
        return fail(to, NETDB_INTERNAL, ERANGE);
    }
    if (names_numeric(name, &number)) {
        return by_number(to, name, &number, family == AF_INET6 ? AF_INET6 : AF_INET);
    }
    if (family != AF_INET && family != AF_INET6) {
        return fail(to, NO_DATA, 0);
    }
    found = malloc(sizeof *found);
    if (found == NULL) {
        return fail(to, NETDB_INTERNAL, ENOMEM);
    }
    rc = names_resolve(name, family, 0, found);
    if (rc == 0) {
        rc = by_answer(to, name, family, found);
    } else {
        rc = rc == RUN_ASK_SYSTEM ? ask_system(to, name, family) : fail_name(to, rc);
    }
    free(found);
    return rc;
}

static int by_names(struct outcome *to, const struct run_addr *addr, const char *names, size_t len)
{
    size_t first_len = strlen(names) + 1;
    const struct host host = {.name = names,
                              .aliases = names + first_len,
                              .aliases_len = len - first_len,
                              .family = addr->family,
                              .count = 1,
                              .addresses = addr};

    return succeed(to, &host);
}

static int by_addr(const void *bytes, socklen_t len, int family, struct outcome *to)
{
    struct run_addr addr = {.family = (uint16_t)family};
    char *names;
    int rc;

    if (!(family == AF_INET && len == sizeof(struct in_addr)) &&
        !(family == AF_INET6 && len == sizeof(struct in6_addr))) {
        return fail(to, NETDB_INTERNAL, EAFNOSUPPORT);
    }
    memcpy(addr.bytes, bytes, len);
    names_unmap(&addr);
    names = malloc(NAMES_REVERSE_MAX);
    if (names == NULL) {
        return fail(to, NETDB_INTERNAL, ENOMEM);
    }
    rc = names_reverse(&addr, names, NAMES_REVERSE_MAX);
    if (rc > 0) {
        rc = by_names(to, &addr, names, (size_t)rc);
    } else if (rc == NAMES_ASK_SYSTEM) {
        rc = real(gethostbyaddr_r)(bytes, len, family, to->host, to->room.at, to->room.left, to->result, to->herr);
    } else {
        rc = fail_name(to, rc);
    }
    free(names);
    return rc;
}

PRELOAD_EXPORT int gethostbyname2_r(const char *name, int family, struct hostent *restrict host, char *restrict buf,
                                    size_t len, struct hostent **restrict result, int *restrict herr)
{
    struct outcome to = {host, {buf, len}, result, herr};

    return by_name(name, family, &to);
}

PRELOAD_EXPORT int gethostbyname_r(const char *restrict name, struct hostent *restrict host, char *restrict buf,
                                   size_t len, struct hostent **restrict result, int *restrict herr)
{
    return gethostbyname2_r(name, AF_INET, host, buf, len, result, herr);
}

PRELOAD_EXPORT int gethostbyaddr_r(const void *restrict addr, socklen_t addr_len, int family,
                                   struct hostent *restrict host, char *restrict buf, size_t len,
                                   struct hostent **restrict result, int *restrict herr)
{
    struct outcome to = {host, {buf, len}, result, herr};

    return by_addr(addr, addr_len, family, &to);
}

PRELOAD_EXPORT struct hostent *gethostbyname(const char *name)
{
    static struct hostent host;
    static char buf[OWN_BUFFER];
    struct hostent *result;
    struct outcome to = {&host, {buf, sizeof buf}, &result, &h_errno};

    return by_name(name, AF_INET, &to) == 0 ? result : NULL;
}

PRELOAD_EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
    static struct hostent host;
    static char buf[OWN_BUFFER];
    struct hostent *result;
    struct outcome to = {&host, {buf, sizeof buf}, &result, &h_errno};

    return by_name(name, family, &to) == 0 ? result : NULL;
}

PRELOAD_EXPORT struct hostent *gethostbyaddr(const void *addr, socklen_t len, int family)
{
    static struct hostent host;
    static char buf[OWN_BUFFER];
    struct hostent *result;
    struct outcome to = {&host, {buf, sizeof buf}, &result, &h_errno};

    return by_addr(addr, len, family, &to) == 0 ? result : NULL;
}
