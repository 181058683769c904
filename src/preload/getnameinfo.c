/*
 * getnameinfo(3). libc does all but the name of the host: numbers, services, and what is wrong with the arguments. As in libc, the
 * service is written after the host, and not at all if that fails.
 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "preload/export.h"
#include "preload/idn.h"
#include "preload/names.h"
#include "preload/real.h"

/* The domain of this machine, as libc takes it: of the host's name, or of what the host's name stands for. "" = none. */
static void own_domain(char *out, size_t size)
{
    char host[HOST_NAME_MAX + 1] = "";
    struct names_addresses *found;
    const char *dot;

    (void)gethostname(host, sizeof host - 1);
    dot = strchr(host, '.');
    out[0] = '\0';
    if (dot != NULL || host[0] == '\0') {
        (void)snprintf(out, size, "%s", dot == NULL ? "" : dot + 1);
        return;
    }
    found = malloc(sizeof *found);
    if (found != NULL && names_resolve(host, AF_UNSPEC, 0, found) == 0) {
        dot = strchr(found->canon, '.');
        (void)snprintf(out, size, "%s", dot == NULL ? "" : dot + 1);
    }
    free(found);
}

/* NI_NOFQDN: hosts of our own domain are told without it. */
static void cut_domain(char *name)
{
    char domain[RUN_NAME_MAX + 1];
    size_t len = strlen(name), domain_len;

    own_domain(domain, sizeof domain);
    domain_len = strlen(domain);
    if (domain_len > 0 && len > domain_len + 1 && name[len - domain_len - 1] == '.' &&
        strcasecmp(name + len - domain_len, domain) == 0) {
        name[len - domain_len - 1] = '\0';
    }
}

static int copy_out(const char *name, char *host, socklen_t size)
{
    size_t len = strlen(name) + 1;

    if (len > size) {
        return EAI_OVERFLOW;
    }
    memcpy(host, name, len);
    return 0;
}

static int give_name(char *name, char *host, socklen_t size, int flags)
{
    char *decoded;
    int rc;

    if ((flags & NI_NOFQDN) != 0) {
        cut_domain(name);
    }
    if ((flags & NI_IDN) == 0) {
        return copy_out(name, host, size);
    }
    rc = idn_decode(name, &decoded);
    if (rc == 0) {
        rc = copy_out(decoded, host, size);
        free(decoded);
    }
    return rc;
}

/* 0, NAMES_ASK_SYSTEM or an EAI_ code. */
static int look_up(const struct sockaddr *addr, char *host, socklen_t size, int flags, const char *number)
{
    struct run_addr question;
    char *names = malloc(NAMES_REVERSE_MAX);
    int rc;

    if (names == NULL) {
        return EAI_MEMORY;
    }
    (void)names_from_sockaddr(addr, &question);
    question.port = 0;
    names_unmap(&question);
    rc = names_reverse(&question, names, NAMES_REVERSE_MAX);
    if (rc > 0) {
        rc = give_name(names, host, size, flags);
    } else if (rc != EAI_AGAIN && rc != NAMES_ASK_SYSTEM && rc != EAI_MEMORY) {
        rc = (flags & NI_NAMEREQD) != 0 ? EAI_NONAME : copy_out(number, host, size);
    }
    free(names);
    return rc;
}

PRELOAD_EXPORT int getnameinfo(const struct sockaddr *restrict addr, socklen_t len, char *restrict host,
                               socklen_t host_size, char *restrict service, socklen_t service_size, int flags)
{
    char number[NI_MAXHOST];
    int saved = errno, rc;

    if (host == NULL || host_size == 0 || (flags & NI_NUMERICHOST) != 0 || addr == NULL ||
        len < sizeof addr->sa_family || (addr->sa_family != AF_INET && addr->sa_family != AF_INET6)) {
        return real(getnameinfo)(addr, len, host, host_size, service, service_size, flags);
    }
    rc = real(getnameinfo)(addr, len, number, sizeof number, NULL, 0, (flags & ~NI_NAMEREQD) | NI_NUMERICHOST);
    if (rc != 0) {
        return rc;
    }
    rc = look_up(addr, host, host_size, flags, number);
    errno = saved;
    if (rc == NAMES_ASK_SYSTEM) {
        return real(getnameinfo)(addr, len, host, host_size, service, service_size, flags);
    }
    if (rc != 0 || service == NULL || service_size == 0) {
        return rc;
    }
    return real(getnameinfo)(addr, len, NULL, 0, service, service_size, flags & ~NI_NAMEREQD);
}
