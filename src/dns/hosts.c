/*
 * One array of (name, address) pairs in the order of the file, chained from a hash table; names lie in wire form in one
 * block of bytes. Link-local addresses with a scope are left out: an address on its own cannot say the interface.
 */
#include "dns/hosts.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct pair {
    uint32_t next;  /* in the bucket's chain, in the order of the file; NONE = the last */
    uint32_t name;  /* offset in `names`: a length byte, then the name in lower case */
    uint32_t first; /* as `name`: the first one of its line */
    uint8_t type;
    uint8_t bytes[16];
};

struct hosts {
    struct siphash_key key;
    struct pair *pairs;
    size_t pair_count, pair_size;
    uint8_t *names;
    size_t names_len, names_size;
    uint32_t *table; /* first of each chain */
    size_t table_count;
    uint64_t lengths[4]; /* bit n: some name has n bytes; a short file is nearly always told apart by that */
};

static bool reserve(void **block, size_t *size, size_t count, size_t more, size_t unit)
{
    size_t wanted = *size == 0 ? 64 : *size;

    while (wanted < count + more) {
        wanted *= 2;
    }
    if (wanted == *size) {
        return true;
    }
    void *grown = realloc(*block, wanted * unit);
    if (grown == NULL) {
        return false;
    }
    *block = grown;
    *size = wanted;
    return true;
}

/* `first`: the name of this line that came first, as an offset; NONE: this is it. */
static bool add(struct hosts *hosts, const struct dns_name *name, const struct pair *address, uint32_t *first)
{
    void *pairs = hosts->pairs, *names = hosts->names;

    bool ok = reserve(&pairs, &hosts->pair_size, hosts->pair_count, 1, sizeof *hosts->pairs);
    hosts->pairs = pairs;
    ok = ok && reserve(&names, &hosts->names_size, hosts->names_len, 1 + (size_t)name->len, 1);
    hosts->names = names;
    if (!ok) {
        return false;
    }
    struct pair *pair = &hosts->pairs[hosts->pair_count++];
    *pair = *address;
    pair->name = (uint32_t)hosts->names_len;
    *first = *first == NONE ? pair->name : *first;
    pair->first = *first;
    hosts->names[hosts->names_len] = name->len;
    memcpy(hosts->names + hosts->names_len + 1, name->wire, name->len);
    hosts->names_len += 1 + (size_t)name->len;
    hosts->lengths[name->len / 64] |= UINT64_C(1) << name->len % 64;
    return true;
}

/* The next word of a line that `stop` ends; its length, 0 at the end. */
static size_t next_word(const char **at, const char *stop)
{
    const char *end;

    while (*at < stop && (**at == ' ' || **at == '\t' || **at == '\r')) {
        (*at)++;
    }
    for (end = *at; end < stop && *end != ' ' && *end != '\t' && *end != '\r';) {
        end++;
    }
    return (size_t)(end - *at);
}

static bool parse_address(const char *word, size_t len, struct pair *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char text[INET6_ADDRSTRLEN];

    if (len == 0 || len >= sizeof text) {
        return false;
    }
    memcpy(text, word, len);
    text[len] = '\0';
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, out->bytes) == 1) {
        out->type = SOCKS6_ADDR_IPV4;
        return true;
    }
    out->type = SOCKS6_ADDR_IPV6;
    if (inet_pton(AF_INET6, text, out->bytes) != 1) {
        return false;
    }
    if (memcmp(out->bytes, mapped, sizeof mapped) == 0) {
        memmove(out->bytes, out->bytes + 12, 4);
        out->type = SOCKS6_ADDR_IPV4;
    }
    return true;
}

static bool parse_name(const char *word, size_t len, struct dns_name *out)
{
    char text[DNS_NAME_MAX + 1];

    if (len >= sizeof text || memchr(word, '\\', len) != NULL || memchr(word, '\0', len) != NULL) {
        return false;
    }
    memcpy(text, word, len);
    text[len] = '\0';
    if (dns_name_parse(text, out) != 0 || out->len == 1) {
        return false;
    }
    dns_name_lower(out);
    return true;
}

static bool parse_line(struct hosts *hosts, const char *at, const char *stop)
{
    const char *comment = memchr(at, '#', (size_t)(stop - at));
    struct dns_name name;
    struct pair address;
    uint32_t first = NONE;

    stop = comment != NULL ? comment : stop;
    size_t len = next_word(&at, stop);
    if (!parse_address(at, len, &address)) {
        return true;
    }
    for (at += len; (len = next_word(&at, stop)) > 0 && hosts->pair_count < HOSTS_NAMES_MAX; at += len) {
        if (parse_name(at, len, &name) && !add(hosts, &name, &address, &first)) {
            return false;
        }
    }
    return true;
}

static uint32_t *bucket(const struct hosts *hosts, const uint8_t *name, size_t len)
{
    return &hosts->table[siphash(&hosts->key, name, len) & (hosts->table_count - 1)];
}

/* From the last to the first, each to the head of its chain: chains are then in the order of the file. */
static bool make_table(struct hosts *hosts)
{
    hosts->table_count = 16;
    while (hosts->table_count < hosts->pair_count) {
        hosts->table_count *= 2;
    }
    hosts->table = malloc(hosts->table_count * sizeof *hosts->table);
    if (hosts->table == NULL) {
        return false;
    }
    memset(hosts->table, 0xff, hosts->table_count * sizeof *hosts->table);
    for (size_t i = hosts->pair_count; i-- > 0;) {
        struct pair *pair = &hosts->pairs[i];
        uint32_t *head = bucket(hosts, hosts->names + pair->name + 1, hosts->names[pair->name]);
        pair->next = *head;
        *head = (uint32_t)i;
    }
    return true;
}

struct hosts *hosts_parse(const char *text, size_t len, const struct siphash_key *key)
{
    struct hosts *hosts = calloc(1, sizeof *hosts);
    const char *end = text + len;
    bool ok = hosts != NULL;

    if (ok) {
        hosts->key = *key;
    }
    while (ok && text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        ok = parse_line(hosts, text, stop != NULL ? stop : end);
        text = stop != NULL ? stop + 1 : end;
    }
    if (!ok || !make_table(hosts)) {
        hosts_free(hosts);
        return NULL;
    }
    return hosts;
}

void hosts_free(struct hosts *hosts)
{
    if (hosts != NULL) {
        free(hosts->pairs);
        free(hosts->names);
        free(hosts->table);
        free(hosts);
    }
}

/* The first pair of the name from `from` on, a place in its chain; NONE. `name` is in lower case. */
static uint32_t next_pair(const struct hosts *hosts, const struct dns_name *name, uint32_t from)
{
    uint32_t i = from;

    while (i != NONE) {
        const uint8_t *its = hosts->names + hosts->pairs[i].name;
        if (its[0] == name->len && memcmp(its + 1, name->wire, name->len) == 0) {
            break;
        }
        i = hosts->pairs[i].next;
    }
    return i;
}

static struct dns_name fold(const struct dns_name *name)
{
    struct dns_name folded = *name;

    dns_name_lower(&folded);
    return folded;
}

bool hosts_have(const struct hosts *hosts, const struct dns_name *name)
{
    if ((hosts->lengths[name->len / 64] >> name->len % 64 & 1) == 0) {
        return false;
    }
    struct dns_name folded = fold(name);
    return next_pair(hosts, &folded, *bucket(hosts, folded.wire, folded.len)) != NONE;
}

size_t hosts_find(const struct hosts *hosts, const struct dns_name *name, uint8_t type,
                  struct socks6_addr out[HOSTS_ADDRESSES_MAX])
{
    struct dns_name folded = fold(name);
    uint32_t i = next_pair(hosts, &folded, *bucket(hosts, folded.wire, folded.len));
    size_t count = 0;

    for (; i != NONE && count < HOSTS_ADDRESSES_MAX; i = next_pair(hosts, &folded, hosts->pairs[i].next)) {
        if (hosts->pairs[i].type == type) {
            out[count++] = dns_addr(type, hosts->pairs[i].bytes, 0);
        }
    }
    return count;
}

static struct dns_name name_at(const struct hosts *hosts, uint32_t offset)
{
    struct dns_name name = {.len = hosts->names[offset]};

    memcpy(name.wire, hosts->names + offset + 1, name.len);
    return name;
}

/* The first pair that has this name and an address of this type, or NONE. */
static uint32_t find_pair(const struct hosts *hosts, const struct dns_name *name, uint8_t type)
{
    struct dns_name folded = fold(name);
    uint32_t i = next_pair(hosts, &folded, *bucket(hosts, folded.wire, folded.len));

    while (i != NONE && hosts->pairs[i].type != type) {
        i = next_pair(hosts, &folded, hosts->pairs[i].next);
    }
    return i;
}

bool hosts_canonical(const struct hosts *hosts, const struct dns_name *name, uint8_t type, struct dns_name *out)
{
    uint32_t i = find_pair(hosts, name, type);

    if (i == NONE) {
        return false;
    }
    *out = name_at(hosts, hosts->pairs[i].first);
    return true;
}

/* The pairs of a line are one behind the other; all of them tell where its first name is. */
bool hosts_next_alias(const struct hosts *hosts, const struct dns_name *name, uint8_t type, size_t *at,
                      struct dns_name *out)
{
    uint32_t i = find_pair(hosts, name, type);
    size_t next = *at;

    if (i == NONE) {
        return false;
    }
    if (next == 0) {
        for (next = i; hosts->pairs[next].name != hosts->pairs[i].first; next--) {
        }
        next++;
    }
    if (next >= hosts->pair_count || hosts->pairs[next].first != hosts->pairs[i].first) {
        return false;
    }
    *out = name_at(hosts, hosts->pairs[next].name);
    *at = next + 1;
    return true;
}

bool hosts_next_name(const struct hosts *hosts, const struct socks6_addr *addr, size_t *at, struct dns_name *out)
{
    bool is_ipv4 = addr->type == SOCKS6_ADDR_IPV4;
    const uint8_t *bytes = is_ipv4 ? addr->u.ipv4 : addr->u.ipv6;

    while (*at < hosts->pair_count) {
        const struct pair *pair = &hosts->pairs[(*at)++];
        if (pair->type == addr->type && memcmp(pair->bytes, bytes, is_ipv4 ? 4 : 16) == 0) {
            *out = name_at(hosts, pair->name);
            return true;
        }
    }
    return false;
}
