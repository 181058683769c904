/*
 * Addresses, networks, ports and host names as people write them in the configuration, and what to tell those who wrote
 * something else.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proxyd/config_values.h"

/* Always false, for `return say(...)`. */
__attribute__((format(printf, 2, 3))) static bool say(char why[CONFIG_WHY_MAX], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(why, CONFIG_WHY_MAX, format, args);
    va_end(args);
    return false;
}

/* 0 .. 65535 in decimal digits without a sign; false for anything else. */
static bool parse_port(const char *text, size_t len, unsigned *out)
{
    unsigned value = 0;

    if (len == 0 || len > 5) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)text[i])) {
            return false;
        }
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *out = value;
    return value <= UINT16_MAX;
}

/* IPv4 or IPv6 without brackets; an IPv4-mapped address becomes IPv4. */
static bool parse_ip(const char *text, size_t len, struct socks6_addr *out)
{
    char copy[INET6_ADDRSTRLEN];
    uint8_t bytes[16];

    if (len >= sizeof copy) {
        return false;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET, copy, bytes) == 1) {
        *out = socks6_addr_ipv4(bytes, 0);
    } else if (inet_pton(AF_INET6, copy, bytes) == 1) {
        *out = socks6_addr_ipv6(bytes, 0);
    } else {
        return false;
    }
    socks6_addr_normalize(out);
    return true;
}

/* What stands before the port: between brackets an IPv6 address, without them an IPv4 address. */
static bool parse_host(const char *text, size_t len, struct socks6_addr *out)
{
    bool brackets = len >= 2 && text[0] == '[' && text[len - 1] == ']';

    if (brackets) {
        return memchr(text, ':', len) != NULL && parse_ip(text + 1, len - 2, out);
    }
    return memchr(text, ':', len) == NULL && parse_ip(text, len, out);
}

bool listen_address_parse(const char *text, struct socks6_addr *out, char why[CONFIG_WHY_MAX])
{
    const char *colon = strrchr(text, ':'), *shown = config_show(text);
    size_t host_len = colon == NULL ? strlen(text) : (size_t)(colon - text);
    struct socks6_addr addr;
    unsigned port;

    if (colon == NULL && strspn(text, "0123456789") == strlen(text)) {
        return say(why, "%s is a port alone; write an address before it: 127.0.0.1:%.20s", shown, text);
    }
    if (colon == NULL || text[strlen(text) - 1] == ']') {
        return say(why, "%s has no port; write ADDRESS:PORT, such as 127.0.0.1:1080 or \"[::1]:1080\"", shown);
    }
    if (parse_ip(text, strlen(text), &addr) && addr.type == SOCKS6_ADDR_IPV6) {
        return say(why, "%s leaves open where the port begins; write \"[ADDRESS]:PORT\", such as \"[::1]:1080\"",
                   shown);
    }
    if (host_len == 0 || (host_len == 1 && text[0] == '*')) {
        return say(why, "%s has no address; write 0.0.0.0%.20s and \"[::]%.20s\" for every interface", shown, colon,
                   colon);
    }
    if (!parse_host(text, host_len, &addr)) {
        return say(why, "%s is not an IP address and a port; write 127.0.0.1:1080 or \"[::1]:1080\"", shown);
    }
    if (!parse_port(colon + 1, strlen(colon + 1), &port)) {
        return say(why, "%s is not a port; write a number from 1 to 65535, or 0 for any free one",
                   config_show(colon + 1));
    }
    addr.port = (uint16_t)port;
    *out = addr;
    return true;
}

void net_format(const struct net *net, char out[NET_TEXT_MAX])
{
    bool is_ipv4 = net->ip.family == NET_IPV4;
    uint8_t bytes[16];
    char text[INET6_ADDRSTRLEN];

    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(net->ip.hi >> (56 - 8 * i));
        bytes[8 + i] = (uint8_t)(net->ip.lo >> (56 - 8 * i));
    }
    /* An IPv4 address is the last four bytes of the number. Cannot fail: the text has room for every address. */
    (void)inet_ntop(is_ipv4 ? AF_INET : AF_INET6, is_ipv4 ? bytes + 12 : bytes, text, sizeof text);
    if (net->bits == (is_ipv4 ? 32u : 128u)) {
        (void)snprintf(out, NET_TEXT_MAX, "%s", text);
    } else {
        (void)snprintf(out, NET_TEXT_MAX, "%s/%u", text, net->bits);
    }
}

/* For those who wrote a port behind an address, or brackets around it. */
static bool say_no_net(const char *text, char why[CONFIG_WHY_MAX])
{
    struct socks6_addr addr;
    char unused[CONFIG_WHY_MAX];

    if (listen_address_parse(text, &addr, unused)) {
        return say(why, "%s has a port; write the address alone, and the port under 'ports'", config_show(text));
    }
    if (text[0] == '[') {
        return say(why, "%s is not an address; write an IPv6 address without brackets", config_show(text));
    }
    return say(why, "%s is not an address or a network; write 192.0.2.1, 10.0.0.0/8 or \"fe80::/10\"",
               config_show(text));
}

bool net_parse(const char *text, struct net *out, char why[CONFIG_WHY_MAX])
{
    const char *slash = strchr(text, '/');
    size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
    bool written_ipv6 = memchr(text, ':', len) != NULL;
    unsigned max = written_ipv6 ? 128 : 32, bits = max;
    struct socks6_addr addr;
    struct net net;
    struct ip ip;

    if (!parse_ip(text, len, &addr) || !ip_from_addr(&addr, &ip)) {
        return say_no_net(text, why);
    }
    if (slash != NULL && (!parse_port(slash + 1, strlen(slash + 1), &bits) || bits > max)) {
        return say(why, "%s is not the length of an IPv%c prefix; write a number from 0 to %u", config_show(slash + 1),
                   written_ipv6 ? '6' : '4', max);
    }
    /* ::ffff:10.0.0.0/104: what arrives from such an address is IPv4 to us. Shorter prefixes reach beyond. */
    if (written_ipv6 && ip.family == NET_IPV4) {
        if (bits < 96) {
            return say(why, "%s holds all of IPv4 and more; write 0.0.0.0/0 and the IPv6 network", config_show(text));
        }
        bits -= 96;
    }
    net = net_mask(ip, bits);
    if (!ip_equal(&net.ip, &ip)) {
        char network[NET_TEXT_MAX], address[NET_TEXT_MAX];

        net_format(&net, network);
        net_format(&(struct net){.ip = ip, .bits = ip.family == NET_IPV4 ? 32 : 128}, address);
        return say(why, "%s has bits set behind its prefix; write %s for the network, or %s for the one address",
                   config_show(text), network, address);
    }
    *out = net;
    return true;
}

/* What no connection can come from; NULL = it is none of that. */
static const char *never_a_source(const struct socks6_addr *addr)
{
    bool is_ipv4 = addr->type == SOCKS6_ADDR_IPV4;

    if (is_ipv4 ? addr->u.ipv4[0] == 0 : socks6_addr_is_unspecified(addr)) {
        return "is no address of a host; write one, or nothing to let the system choose";
    }
    if (is_ipv4 ? addr->u.ipv4[0] >= 224 : addr->u.ipv6[0] == 0xff) {
        return "is not the address of one host; write one that this host has";
    }
    if (!is_ipv4 && addr->u.ipv6[0] == 0xfe && (addr->u.ipv6[1] & 0xc0) == 0x80) {
        return "is link-local, which needs an interface to say more; write another address of this host";
    }
    return NULL;
}

bool source_address_parse(const char *text, struct socks6_addr *out, char why[CONFIG_WHY_MAX])
{
    struct socks6_addr addr;
    char unused[CONFIG_WHY_MAX];
    struct net net;

    if (!parse_ip(text, strlen(text), &addr)) {
        if (listen_address_parse(text, &addr, unused)) {
            return say(why, "%s has a port; write the address alone", config_show(text));
        }
        if (net_parse(text, &net, unused)) {
            return say(why, "%s is a network; write each address", config_show(text));
        }
        return say(why, "%s is not an IP address; write one of this host, such as 192.0.2.1 or \"2001:db8::1\"",
                   config_show(text));
    }
    if (never_a_source(&addr) != NULL) {
        return say(why, "%s %s", config_show(text), never_a_source(&addr));
    }
    *out = addr;
    return true;
}

void source_address_format(const struct socks6_addr *addr, char out[NET_TEXT_MAX])
{
    struct ip ip = {0};

    (void)ip_from_addr(addr, &ip); /* source_address_parse() made it */
    net_format(&(struct net){.ip = ip, .bits = ip.family == NET_IPV4 ? 32 : 128}, out);
}

bool ports_parse(const char *text, struct port_range *out, char why[CONFIG_WHY_MAX])
{
    const char *dash = strchr(text, '-');
    size_t first_len = dash == NULL ? strlen(text) : (size_t)(dash - text);
    unsigned first = 0, last = 0;
    bool valid = parse_port(text, first_len, &first) && first != 0;

    last = first;
    if (dash != NULL) {
        valid = valid && parse_port(dash + 1, strlen(dash + 1), &last) && last != 0;
    }
    if (!valid) {
        return say(why, "%s is not a port; write a number from 1 to 65535, or a range such as 8000-8999",
                   config_show(text));
    }
    if (last < first) {
        return say(why, "%s runs backwards; write %u-%u", config_show(text), last, first);
    }
    *out = (struct port_range){.first = (uint16_t)first, .last = (uint16_t)last};
    return true;
}

/* One label: letters, digits, '-' and '_' (which occurs in practice), 1 to 63 of them. */
static bool is_label(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) && text[i] != '-' && text[i] != '_') {
            return false;
        }
    }
    return len >= 1 && len <= 63;
}

bool host_pattern_check(const char *text, char why[CONFIG_WHY_MAX])
{
    const char *name = text[0] == '*' && text[1] == '.' ? text + 2 : text;
    size_t len = strlen(name);
    const char *last;

    if (strcmp(text, "*") == 0) {
        return say(why, "'*' is no pattern; write 'any'");
    }
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80) {
            return say(why, "%s is not ASCII; write the name as it goes over the network: xn--...", config_show(text));
        }
    }
    if (strchr(name, '*') != NULL) {
        return say(why, "%s is no pattern; '*.' at the beginning stands for every name below: \"*.example.org\"",
                   config_show(text));
    }
    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    if (len > 253) {
        return say(why, "%s is longer than any host name (253); correct it", config_show(text));
    }
    last = name;
    for (const char *at = name; at <= name + len;) {
        size_t label = strcspn(at, ".");

        if (label > (size_t)(name + len - at)) {
            label = (size_t)(name + len - at);
        }
        if (!is_label(at, label)) {
            return say(why,
                       "%s is not a host name, an address or a network; write example.org, \"*.example.org\", "
                       "192.0.2.1 or 10.0.0.0/8",
                       config_show(text));
        }
        last = at;
        at += label + 1;
    }
    /* 10.0.0.256 is a mistake, not a name: no top-level domain is a number. */
    if (strspn(last, "0123456789") == (size_t)(name + len - last)) {
        return say(why, "%s is not an address; write four numbers from 0 to 255", config_show(text));
    }
    return true;
}
