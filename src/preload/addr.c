#include "preload/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define SIN6_LEN_MIN 24 /* without sin6_scope_id, as in RFC 2133: the kernel takes it still */

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

static void parse_ipv6(const void *addr, socklen_t len, struct run_addr *out, bool *is_mapped)
{
    struct sockaddr_in6 in6 = {0};

    memcpy(&in6, addr, len < sizeof in6 ? len : sizeof in6);
    out->port = ntohs(in6.sin6_port);
    if (memcmp(&in6.sin6_addr, mapped_prefix, sizeof mapped_prefix) == 0) {
        *is_mapped = true;
        out->family = AF_INET;
        memcpy(out->bytes, in6.sin6_addr.s6_addr + 12, 4);
        return;
    }
    out->family = AF_INET6;
    out->scope = in6.sin6_scope_id;
    memcpy(out->bytes, &in6.sin6_addr, 16);
}

bool addr_parse(const void *addr, socklen_t len, struct run_addr *out, bool *is_mapped)
{
    struct run_addr parsed = {0};
    struct sockaddr_in in;
    sa_family_t family;
    bool mapped = false;

    if (addr == NULL || len < sizeof family || len > sizeof(struct sockaddr_storage)) {
        return false;
    }
    memcpy(&family, addr, sizeof family);
    if (family == AF_INET && len >= sizeof in) {
        memcpy(&in, addr, sizeof in);
        parsed.family = AF_INET;
        parsed.port = ntohs(in.sin_port);
        memcpy(parsed.bytes, &in.sin_addr, 4);
    } else if (family == AF_INET6 && len >= SIN6_LEN_MIN) {
        parse_ipv6(addr, len, &parsed, &mapped);
    } else {
        return false;
    }
    *out = parsed;
    if (is_mapped != NULL) {
        *is_mapped = mapped;
    }
    return true;
}

static socklen_t show_ipv4(const struct run_addr *addr, struct sockaddr_storage *out)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(addr->port)};

    if (addr->family == AF_INET) {
        memcpy(&in.sin_addr, addr->bytes, 4);
    }
    memcpy(out, &in, sizeof in);
    return sizeof in;
}

static socklen_t show_ipv6(const struct run_addr *addr, struct sockaddr_storage *out)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(addr->port)};

    if (addr->family == AF_INET) {
        memcpy(&in6.sin6_addr, mapped_prefix, sizeof mapped_prefix);
        memcpy(in6.sin6_addr.s6_addr + 12, addr->bytes, 4);
    } else if (addr->family == AF_INET6) {
        memcpy(&in6.sin6_addr, addr->bytes, 16);
        in6.sin6_scope_id = addr_is_link_local(addr) ? addr->scope : 0;
    }
    memcpy(out, &in6, sizeof in6);
    return sizeof in6;
}

socklen_t addr_show(const struct run_addr *addr, int domain, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    return domain == AF_INET6 ? show_ipv6(addr, out) : show_ipv4(addr, out);
}

int addr_give(const struct sockaddr_storage *from, socklen_t len, void *to, socklen_t *room)
{
    if ((int)*room < 0) {
        return -EINVAL;
    }
    memcpy(to, from, *room < len ? *room : len);
    *room = len;
    return 0;
}

bool addr_is_loopback(const struct run_addr *addr)
{
    static const uint8_t one[16] = {[15] = 1};

    return addr->family == AF_INET ? addr->bytes[0] == 127
                                   : addr->family == AF_INET6 && memcmp(addr->bytes, one, sizeof one) == 0;
}

bool addr_is_wildcard(const struct run_addr *addr)
{
    static const uint8_t zeros[16];

    return (addr->family == AF_INET || addr->family == AF_INET6) &&
           memcmp(addr->bytes, zeros, addr->family == AF_INET ? 4 : 16) == 0;
}

bool addr_is_multicast(const struct run_addr *addr)
{
    static const uint8_t broadcast[4] = {255, 255, 255, 255};

    if (addr->family == AF_INET) {
        return addr->bytes[0] >> 4 == 14 || memcmp(addr->bytes, broadcast, sizeof broadcast) == 0;
    }
    return addr->family == AF_INET6 && addr->bytes[0] == 0xff;
}

bool addr_is_link_local(const struct run_addr *addr)
{
    return addr->family == AF_INET6 && addr->bytes[0] == 0xfe && (addr->bytes[1] & 0xc0) == 0x80;
}

bool addr_equal(const struct run_addr *a, const struct run_addr *b)
{
    return a->family == b->family && a->port == b->port && a->scope == b->scope &&
           memcmp(a->bytes, b->bytes, a->family == AF_INET ? 4 : 16) == 0;
}

const char *addr_text(const struct run_addr *addr, char *text)
{
    char host[INET6_ADDRSTRLEN] = "?";
    bool is_ipv6 = addr->family == AF_INET6;

    (void)inet_ntop(addr->family, addr->bytes, host, sizeof host);
    (void)snprintf(text, ADDR_TEXT_LEN, is_ipv6 ? "[%s]:%u" : "%s:%u", host, (unsigned)addr->port);
    return text;
}
