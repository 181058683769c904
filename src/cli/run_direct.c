/*
 * Theory of operation. The entries are kept as they are written, taken apart once, and gone through one after the other: there are a
 * few of them. Remembered addresses are many, and looked for at each connection: a ring of them, oldest first to go, and
 * buckets that chain them by index.
 */
#include "cli/run_direct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/sock.h"

#define ENTRIES_MAX 1024u
#define BUCKETS 1024u
#define NONE UINT16_MAX

_Static_assert(RUN_DIRECT_ADDRESSES_MAX < NONE, "indices");

struct entry {
    const char *name; /* NULL = an address; else `len` bytes, without dots around them */
    size_t len;
    struct socks6_addr addr;
    unsigned bits; /* of `addr` that count */
};

struct remembered {
    uint8_t type; /* enum socks6_addr_type; 0 = free */
    uint16_t next;
    uint8_t bytes[16];
};

struct run_direct {
    char *text;
    bool everything;
    size_t entry_count;
    struct entry *entries;
    unsigned ring_next;
    uint16_t buckets[BUCKETS];
    struct remembered ring[RUN_DIRECT_ADDRESSES_MAX];
};

/* --- NO_PROXY --- */

static const char *address_bytes(const struct socks6_addr *addr)
{
    return addr->type == SOCKS6_ADDR_IPV4 ? (const char *)addr->u.ipv4 : (const char *)addr->u.ipv6;
}

static bool parse_bits(const char *text, unsigned max, unsigned *out)
{
    unsigned value = 0;
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 3 || text[digits] != '\0') {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *out = value;
    return value <= max;
}

/* An address without anything round it. */
static bool parse_address(const char *text, struct socks6_addr *out)
{
    uint8_t bytes[16];

    if (inet_pton(AF_INET, text, bytes) == 1) {
        *out = socks6_addr_ipv4(bytes, 0);
        return true;
    }
    if (inet_pton(AF_INET6, text, bytes) == 1) {
        static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

        /* Connections to such an address are known as ones to the IPv4 address. */
        *out = memcmp(bytes, mapped, sizeof mapped) == 0 ? socks6_addr_ipv4(bytes + sizeof mapped, 0)
                                                         : socks6_addr_ipv6(bytes, 0);
        return true;
    }
    return false;
}

/* Takes one word, which it may change. False if it makes no sense. */
static bool parse_entry(char *word, struct entry *out)
{
    char *slash = strchr(word, '/');
    size_t len = strlen(word);

    *out = (struct entry){0};
    if (slash != NULL) {
        *slash = '\0';
        len = (size_t)(slash - word);
    }
    if (word[0] == '[' && len > 1 && word[len - 1] == ']') {
        word[len - 1] = '\0';
        word++;
    }
    if (parse_address(word, &out->addr)) {
        unsigned max = out->addr.len * 8u;

        out->bits = max;
        return slash == NULL || parse_bits(slash + 1, max, &out->bits);
    }
    if (slash != NULL) {
        return false;
    }
    if (strncmp(word, "*.", 2) == 0) {
        word++;
    }
    word += word[0] == '.' ? 1 : 0;
    len = strlen(word);
    len -= len > 0 && word[len - 1] == '.' ? 1 : 0;
    out->name = word;
    out->len = len;
    return len > 0 && len <= SOCKS6_NAME_MAX;
}

/* Cuts the text into its words. 0 or -ENOMEM. */
static int parse(struct run_direct *direct, void (*complain)(const char *entry))
{
    static const char separators[] = ", \t\r\n";
    char *rest = NULL;
    char original[SOCKS6_NAME_MAX + 1];

    direct->entries = calloc(ENTRIES_MAX, sizeof *direct->entries);
    if (direct->entries == NULL) {
        return -ENOMEM;
    }
    for (char *word = strtok_r(direct->text, separators, &rest); word != NULL && direct->entry_count < ENTRIES_MAX;
         word = strtok_r(NULL, separators, &rest)) {
        size_t len = strlen(word) < sizeof original - 1 ? strlen(word) : sizeof original - 1;

        memcpy(original, word, len);
        original[len] = '\0';
        if (parse_entry(word, &direct->entries[direct->entry_count])) {
            direct->entry_count++;
        } else if (complain != NULL) {
            complain(original);
        }
    }
    return 0;
}

static int take_text(struct run_direct *direct, const char *text, void (*complain)(const char *entry))
{
    const char *start = text + strspn(text, " \t\r\n");

    if (start[0] == '*' && start[1 + strspn(start + 1, " \t\r\n")] == '\0') {
        direct->everything = true;
        return 0;
    }
    direct->text = strdup(text);
    return direct->text != NULL ? parse(direct, complain) : -ENOMEM;
}

int run_direct_new(const char *text, void (*complain)(const char *entry), struct run_direct **out)
{
    struct run_direct *direct = calloc(1, sizeof *direct);
    int rc = 0;

    if (direct == NULL) {
        return -ENOMEM;
    }
    memset(direct->buckets, 0xff, sizeof direct->buckets);
    if (text != NULL) {
        rc = take_text(direct, text, complain);
    }
    if (rc != 0) {
        run_direct_free(direct);
        return rc;
    }
    *out = direct;
    return 0;
}

void run_direct_free(struct run_direct *direct)
{
    if (direct != NULL) {
        free(direct->text);
        free(direct->entries);
        free(direct);
    }
}

const char *run_direct_environment(void)
{
    static const char *const names[] = {"no_proxy", "NO_PROXY"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);

        if (value != NULL && *value != '\0') {
            return value;
        }
    }
    return NULL;
}

bool run_direct_has_name(const struct run_direct *direct, const char *name)
{
    size_t len = strlen(name);

    if (direct->everything) {
        return true;
    }
    len -= len > 0 && name[len - 1] == '.' ? 1 : 0;
    for (size_t i = 0; i < direct->entry_count; i++) {
        const struct entry *entry = &direct->entries[i];

        if (entry->name == NULL || len < entry->len) {
            continue;
        }
        if (strncasecmp(name + (len - entry->len), entry->name, entry->len) == 0 &&
            (len == entry->len || name[len - entry->len - 1] == '.')) {
            return true;
        }
    }
    return false;
}

/* --- addresses --- */

static bool matches(const struct entry *entry, const struct socks6_addr *addr)
{
    const char *a = address_bytes(&entry->addr), *b = address_bytes(addr);
    unsigned whole = entry->bits / 8, rest = entry->bits % 8;

    if (entry->name != NULL || entry->addr.type != addr->type || memcmp(a, b, whole) != 0) {
        return false;
    }
    return rest == 0 || (((unsigned char)a[whole] ^ (unsigned char)b[whole]) >> (8 - rest)) == 0;
}

/* Its neighbours have hardly anything in common but the first bytes: FNV-1a. */
static unsigned bucket_of(const struct socks6_addr *addr)
{
    const char *bytes = address_bytes(addr);
    uint32_t hash = 2166136261u;

    for (unsigned i = 0; i < addr->len; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    }
    return (hash ^ hash >> 16) % BUCKETS;
}

static bool is_same(const struct remembered *kept, const struct socks6_addr *addr)
{
    return kept->type == addr->type && memcmp(kept->bytes, address_bytes(addr), addr->len) == 0;
}

static bool is_remembered(const struct run_direct *direct, const struct socks6_addr *addr)
{
    for (uint16_t i = direct->buckets[bucket_of(addr)]; i != NONE; i = direct->ring[i].next) {
        if (is_same(&direct->ring[i], addr)) {
            return true;
        }
    }
    return false;
}

bool run_direct_has_addr(const struct run_direct *direct, const struct socks6_addr *addr)
{
    if (direct->everything) {
        return true;
    }
    if (addr->type == SOCKS6_ADDR_NAME) {
        return false;
    }
    for (size_t i = 0; i < direct->entry_count; i++) {
        if (matches(&direct->entries[i], addr)) {
            return true;
        }
    }
    return is_remembered(direct, addr);
}

void run_direct_visit(const struct run_direct *direct,
                      void (*visit)(void *arg, const struct socks6_addr *addr, unsigned bits), void *arg)
{
    if (direct->everything) {
        static const uint8_t zero[16];
        const struct socks6_addr any[] = {socks6_addr_ipv4(zero, 0), socks6_addr_ipv6(zero, 0)};

        visit(arg, &any[0], 0);
        visit(arg, &any[1], 0);
    }
    for (size_t i = 0; i < direct->entry_count; i++) {
        if (direct->entries[i].name == NULL) {
            visit(arg, &direct->entries[i].addr, direct->entries[i].bits);
        }
    }
}

static void forget(struct run_direct *direct, uint16_t index)
{
    struct remembered *kept = &direct->ring[index];
    struct socks6_addr addr;
    uint16_t *link;

    if (kept->type == 0) {
        return;
    }
    addr = kept->type == SOCKS6_ADDR_IPV4 ? socks6_addr_ipv4(kept->bytes, 0) : socks6_addr_ipv6(kept->bytes, 0);
    for (link = &direct->buckets[bucket_of(&addr)]; *link != index; link = &direct->ring[*link].next) {
    }
    *link = kept->next;
    kept->type = 0;
}

void run_direct_remember(struct run_direct *direct, const struct socks6_addr *addr)
{
    uint16_t index = (uint16_t)direct->ring_next;
    struct remembered *kept = &direct->ring[index];
    unsigned bucket;

    if (addr->type == SOCKS6_ADDR_NAME || sock_is_loopback(addr) || is_remembered(direct, addr)) {
        return;
    }
    forget(direct, index);
    bucket = bucket_of(addr);
    kept->type = addr->type;
    memcpy(kept->bytes, address_bytes(addr), addr->len);
    kept->next = direct->buckets[bucket];
    direct->buckets[bucket] = index;
    direct->ring_next = (direct->ring_next + 1) % RUN_DIRECT_ADDRESSES_MAX;
}
