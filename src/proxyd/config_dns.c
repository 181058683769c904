/*
 * The keys of `dns:`.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define DNS_PORT 53
#define DOT_PORT 853
#define CACHE_MAX ((uint64_t)64 << 30)

static const struct {
    const char *prefix;
    enum dns_transport transport;
    uint16_t port;
} schemes[] = {{"udp://", DNS_UDP, DNS_PORT}, {"tcp://", DNS_TCP, DNS_PORT}, {"tls://", DNS_TLS, DOT_PORT}};

/* "ADDRESS", "ADDRESS:PORT", "[ADDRESS]", "[ADDRESS]:PORT" in `text`, which is changed. */
static bool parse_endpoint(char *text, uint16_t port, struct socks6_addr *out)
{
    char why[CONFIG_WHY_MAX], with_port[SOCKS6_NAME_MAX + 16];
    char *bracket = strrchr(text, ']'), *colon = strrchr(text, ':');
    bool is_bare_ipv6 = colon != NULL && bracket == NULL && strchr(text, ':') != colon;
    bool has_port = colon != NULL && !is_bare_ipv6 && (bracket == NULL || colon > bracket);

    (void)snprintf(with_port, sizeof with_port,
                   has_port       ? "%.260s"
                   : is_bare_ipv6 ? "[%.260s]:%u"
                                  : "%.260s:%u",
                   text, (unsigned)port);
    return listen_address_parse(with_port, out, why) && out->port != 0;
}

static int bad_server(const struct config_place *place, const struct yaml_node *item)
{
    return config_fail(place, item->line, item->column,
                       "%s is not a DNS server; write 'system', or servers such as udp://192.0.2.53, "
                       "\"tcp://[2001:db8::53]:5353\" or tls://192.0.2.53#dns.example.net, with addresses",
                       config_show(item->text));
}

static int read_server(const struct config_place *place, const struct yaml_node *item, void *target)
{
    struct config_dns *dns = target;
    struct dns_server_setting *server = &dns->servers[dns->server_count];
    char text[SOCKS6_NAME_MAX + 1];

    if (require_scalar(place, item, "a DNS server such as udp://192.0.2.53") != 0) {
        return -1;
    }
    if (dns->server_count == DNS_SERVERS_MAX) {
        return config_fail(place, item->line, item->column, "more than %u servers; remove some", DNS_SERVERS_MAX);
    }
    size_t i = 0;
    while (i < COUNT(schemes) && strncmp(item->text, schemes[i].prefix, strlen(schemes[i].prefix)) != 0) {
        i++;
    }
    if (i == COUNT(schemes) || strlen(item->text) > SOCKS6_NAME_MAX) {
        return bad_server(place, item);
    }
    memcpy(text, item->text + strlen(schemes[i].prefix), strlen(item->text + strlen(schemes[i].prefix)) + 1);
    char *name = strchr(text, '#'), why[CONFIG_WHY_MAX];
    if (name != NULL) {
        *name++ = '\0';
        if (schemes[i].transport != DNS_TLS) {
            return config_fail(place, item->line, item->column, "%s: a name after '#' is for tls:// only; remove it",
                               config_show(item->text));
        }
        if (!host_pattern_check(name, why) || name[0] == '*') {
            return config_fail(place, item->line, item->column, "%s: what follows '#' is not the name of a server",
                               config_show(item->text));
        }
        memcpy(server->name, name, strlen(name) + 1);
    }
    server->transport = schemes[i].transport;
    if (!parse_endpoint(text, schemes[i].port, &server->addr)) {
        return bad_server(place, item);
    }
    dns->server_count++;
    return 0;
}

static int read_upstream(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    dns->server_count = 0;
    if (value->kind == YAML_SCALAR && strcmp(value->text, "system") == 0) {
        return 0;
    }
    return read_each(place, value, "would ask nobody; write 'system', or at least one server", read_server, dns);
}

/* Relative paths start from the folder of the configuration file. malloc'ed; NULL = no memory. */
static char *resolve_path(const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');
    char *out = NULL;

    if (path[0] == '/' || slash == NULL) {
        return strdup(path);
    }
    return asprintf(&out, "%.*s/%s", (int)(slash - file), file, path) < 0 ? NULL : out;
}

static int read_path(const struct config_place *place, const struct yaml_node *value, char **out)
{
    if (require_scalar(place, value, "a file's path") != 0) {
        return -1;
    }
    free(*out);
    *out = resolve_path(place->file, value->text);
    return *out == NULL ? config_fail(place, 0, 0, "no memory to read it") : 0;
}

static int read_resolv_conf(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_path(place, value, &dns->resolv_conf);
}

static int read_hosts(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    if (value->kind == YAML_SCALAR && (strcmp(value->text, "none") == 0 || strcmp(value->text, "off") == 0)) {
        free(dns->hosts);
        dns->hosts = strdup("");
        return dns->hosts == NULL ? config_fail(place, 0, 0, "no memory to read it") : 0;
    }
    return read_path(place, value, &dns->hosts);
}

static int read_ca(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    if (value->kind == YAML_SCALAR && strcmp(value->text, "system") == 0) {
        free(dns->ca);
        dns->ca = NULL;
        return 0;
    }
    return read_path(place, value, &dns->ca);
}

static int read_timeout(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;
    uint64_t ms;

    if (value->kind == YAML_SCALAR && strcmp(value->text, "auto") == 0) {
        dns->timeout_ms = 0;
        return 0;
    }
    if (read_time(place, value, false, &ms) != 0) {
        return -1;
    }
    if (ms < 50 || ms > 20000) {
        return config_fail(place, value->line, value->column,
                           "%s is out of range; write a time from 50ms to 20s, or 'auto'", config_show(value->text));
    }
    dns->timeout_ms = ms;
    return 0;
}

static int read_attempts(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_number(place, value, 1, 5, "auto", 0, &dns->attempts);
}

/* Bytes: digits and KiB, MiB or GiB. */
static int read_cache(const struct config_place *place, const struct yaml_node *value, void *target)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {{"KiB", 1u << 10}, {"MiB", 1u << 20}, {"GiB", 1u << 30}};
    struct config_dns *dns = target;

    if (require_scalar(place, value, "a size such as 32MiB") != 0) {
        return -1;
    }
    if (strcmp(value->text, "none") == 0 || strcmp(value->text, "off") == 0 || strcmp(value->text, "0") == 0) {
        dns->cache_len = 0;
        return 0;
    }
    size_t digits = strspn(value->text, "0123456789");
    for (size_t i = 0; digits > 0 && digits <= 12 && i < COUNT(units); i++) {
        if (strcmp(value->text + digits, units[i].unit) == 0) {
            uint64_t number = strtoull(value->text, NULL, 10);
            if (number > 0 && number <= CACHE_MAX / units[i].bytes) {
                dns->cache_len = number * units[i].bytes;
                return 0;
            }
        }
    }
    return config_fail(place, value->line, value->column,
                       "%s is not a size; write a number and a unit, such as 512KiB, 32MiB or 1GiB, or 'none'",
                       config_show(value->text));
}

static int read_service(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_bool(place, value, &dns->service);
}

static int read_service_socks5(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_bool(place, value, &dns->service_socks5);
}

static int read_relay(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;
    char host[SOCKS6_NAME_MAX + 8], *end = host;

    if (value->kind == YAML_SCALAR && (strcmp(value->text, "none") == 0 || strcmp(value->text, "off") == 0)) {
        dns->relay.type = 0;
        return 0;
    }
    if (require_scalar(place, value, "a DNS server such as 192.0.2.53:53") != 0) {
        return -1;
    }
    const char *colon = strrchr(value->text, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - value->text);
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    bool is_valid = colon != NULL && len > 0 && len < sizeof host && colon[1] >= '0' && colon[1] <= '9' &&
                    *end == '\0' && port > 0 && port <= UINT16_MAX;
    if (is_valid) {
        memcpy(host, value->text, len);
        host[len] = '\0';
        /* An IPv6 address leaves open where the port begins, unless it stands in brackets. */
        is_valid =
            (strchr(host, ':') == NULL || host[0] == '[') && socks6_addr_parse(host, (uint16_t)port, &dns->relay) == 0;
    }
    if (!is_valid) {
        dns->relay.type = 0;
        return config_fail(place, value->line, value->column,
                           "%s is not a server and a port; write 192.0.2.53:53, \"[2001:db8::53]:53\" or "
                           "dns.example.net:53, or 'none'",
                           config_show(value->text));
    }
    return 0;
}

static int read_idle(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_time(place, value, false, &dns->idle_ms);
}

static int read_queries_in_flight(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    return read_number(place, value, 1, CONFIG_DNS_IN_FLIGHT_MAX, NULL, 0, &dns->queries_in_flight);
}

static int read_queries_per_second(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_dns *dns = target;

    if (value->kind == YAML_SCALAR && strcmp(value->text, "auto") == 0) {
        dns->queries_per_second = CONFIG_PER_CLIENT_AUTO;
        return 0;
    }
    return read_number(place, value, 1, 10000000, "none", 0, &dns->queries_per_second);
}

static const struct config_key keys[] = {
    {"upstream", read_upstream},
    {"resolv_conf", read_resolv_conf},
    {"hosts", read_hosts},
    {"ca", read_ca},
    {"timeout", read_timeout},
    {"attempts", read_attempts},
    {"cache", read_cache},
    {"service", read_service},
    {"service_socks5", read_service_socks5},
    {"relay", read_relay},
    {"idle", read_idle},
    {"queries_in_flight", read_queries_in_flight},
    {"queries_per_second", read_queries_per_second},
};

const struct config_section config_dns_section = {"dns", keys, COUNT(keys)};

int config_read_dns(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return read_mapping(place, value, keys, COUNT(keys), &draft->snapshot->config.dns);
}

void config_dns_init(struct config_dns *dns)
{
    *dns = (struct config_dns){
        .cache_len = DNS_CACHE_LEN_DEFAULT,
        .service = true,
        .idle_ms = 60000, /* 1 min */
        .queries_in_flight = 256,
        .queries_per_second = CONFIG_PER_CLIENT_AUTO,
    };
}

void config_dns_done(struct config_dns *dns)
{
    free(dns->resolv_conf);
    free(dns->hosts);
    free(dns->ca);
}

void config_dns_settings(const struct config_dns *dns, struct dns_settings *out)
{
    *out = (struct dns_settings){
        .servers = dns->servers,
        .server_count = dns->server_count,
        .resolv_conf = dns->resolv_conf,
        .hosts = dns->hosts,
        .ca_file = dns->ca,
        .timeout_ms = dns->timeout_ms,
        .attempts = dns->attempts,
        .cache_len = (size_t)dns->cache_len,
    };
}

/* ---- printing ---- */

static void print_servers(const struct config_dns *dns, FILE *out)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    if (dns->server_count == 0) {
        fputs("  upstream: system\n", out);
        return;
    }
    fputs("  upstream:\n", out);
    for (size_t i = 0; i < dns->server_count; i++) {
        const struct dns_server_setting *server = &dns->servers[i];
        size_t scheme = 0;
        while (schemes[scheme].transport != server->transport) {
            scheme++;
        }
        (void)socks6_addr_format(&server->addr, text, sizeof text);
        fprintf(out, "    - \"%s%s%s%s\"\n", schemes[scheme].prefix, text, server->name[0] != '\0' ? "#" : "",
                server->name);
    }
}

static void print_size(uint64_t bytes, FILE *out)
{
    if (bytes == 0) {
        fputs("  cache: none\n", out);
    } else if (bytes % (1u << 20) == 0) {
        fprintf(out, "  cache: %" PRIu64 "MiB\n", bytes >> 20);
    } else {
        fprintf(out, "  cache: %" PRIu64 "KiB\n", bytes >> 10);
    }
}

static void print_path(const char *key, const char *path, const char *standard, FILE *out)
{
    fprintf(out, "  %s: ", key);
    if (path == NULL) {
        config_print_text(standard, out);
        fputc('\n', out);
    } else if (path[0] == '\0') {
        fputs("none\n", out);
    } else {
        config_print_text(path, out);
        fputc('\n', out);
    }
}

static void print_service(const struct config_dns *dns, FILE *out)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    fprintf(out, "  service: %s\n  service_socks5: %s\n  relay: ", dns->service ? "true" : "false",
            dns->service_socks5 ? "true" : "false");
    if (dns->relay.type == 0) {
        fputs("none\n", out);
    } else {
        (void)socks6_addr_format(&dns->relay, text, sizeof text);
        config_print_text(text, out);
        fputc('\n', out);
    }
    config_print_time("idle", dns->idle_ms, out);
    fprintf(out, "  queries_in_flight: %" PRIu32 "\n", dns->queries_in_flight);
    if (dns->queries_per_second == CONFIG_PER_CLIENT_AUTO) {
        fputs("  queries_per_second: auto\n", out);
    } else if (dns->queries_per_second == 0) {
        fputs("  queries_per_second: none\n", out);
    } else {
        fprintf(out, "  queries_per_second: %" PRIu32 "\n", dns->queries_per_second);
    }
}

void config_print_dns(const struct config_dns *dns, FILE *out)
{
    fputs("dns:\n", out);
    print_servers(dns, out);
    print_path("resolv_conf", dns->resolv_conf, "/etc/resolv.conf", out);
    print_path("hosts", dns->hosts, "/etc/hosts", out);
    if (dns->ca == NULL) {
        fputs("  ca: system\n", out);
    } else {
        print_path("ca", dns->ca, "", out);
    }
    if (dns->timeout_ms == 0) {
        fputs("  timeout: auto\n", out);
    } else {
        config_print_time("timeout", dns->timeout_ms, out);
    }
    if (dns->attempts == 0) {
        fputs("  attempts: auto\n", out);
    } else {
        fprintf(out, "  attempts: %" PRIu32 "\n", dns->attempts);
    }
    print_size(dns->cache_len, out);
    print_service(dns, out);
}
