/*
 * Theory of operation. A name has a number from 0 on; its addresses are made of that. Numbers are given in their order until
 * `max` is reached, and then taken away from the name that was not used for longest. A number's place in the array has its name, is in
 * a chain of the hash table, and in the list of uses.
 */
#include "cli/run_fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "cli/run_search.h"
#include "dns/random.h"

#define PER_BLOCK 254u /* of a /24: without .0 and .255, which look like no host's */
#define PREFIX_LEN 8u
#define BUCKETS 16384u
#define PLACES_STEP 256u

_Static_assert((RUN_FAKE_NAMES_MAX + PER_BLOCK - 1) / PER_BLOCK <= 512, "198.18.0.0/15 has room for all");

struct place {
    TAILQ_ENTRY(place) use;
    struct place *chain;
    uint32_t number;
    struct dns_name *name; /* in lower case; as long as it is */
};

TAILQ_HEAD(use_list, place);

struct run_fake {
    struct siphash_key key;
    uint8_t prefix[PREFIX_LEN];
    size_t max, count;
    struct place **places; /* by number */
    size_t place_size;
    struct use_list uses; /* the one that was not used for longest comes first */
    struct place *table[BUCKETS];
};

struct run_fake *run_fake_new(const struct siphash_key *key, size_t max)
{
    struct run_fake *fake = calloc(1, sizeof *fake);

    if (fake != NULL) {
        fake->key = *key;
        fake->max = max < RUN_FAKE_NAMES_MAX ? max : RUN_FAKE_NAMES_MAX;
        TAILQ_INIT(&fake->uses);
        dns_random_fill(fake->prefix, sizeof fake->prefix);
        fake->prefix[0] = 0xfd;
    }
    return fake;
}

void run_fake_free(struct run_fake *fake)
{
    if (fake == NULL) {
        return;
    }
    for (size_t i = 0; i < fake->count; i++) {
        free(fake->places[i]->name);
        free(fake->places[i]);
    }
    free(fake->places);
    free(fake);
}

/* ---- names ---- */

static struct place **bucket(struct run_fake *fake, const struct dns_name *name)
{
    return &fake->table[siphash(&fake->key, name->wire, name->len) % BUCKETS];
}

/* `name` is in lower case. */
static struct place *find(struct run_fake *fake, const struct dns_name *name)
{
    struct place *place = *bucket(fake, name);

    while (place != NULL && (place->name->len != name->len || memcmp(place->name->wire, name->wire, name->len) != 0)) {
        place = place->chain;
    }
    return place;
}

static void use(struct run_fake *fake, struct place *place)
{
    TAILQ_REMOVE(&fake->uses, place, use);
    TAILQ_INSERT_TAIL(&fake->uses, place, use);
}

/* A place that has no name yet; NULL = no memory. */
static struct place *new_place(struct run_fake *fake)
{
    struct place *place;

    if (fake->count == fake->place_size) {
        // NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers
        struct place **grown = realloc(fake->places, (fake->place_size + PLACES_STEP) * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        fake->places = grown;
        fake->place_size += PLACES_STEP;
    }
    place = calloc(1, sizeof *place);
    if (place != NULL) {
        place->number = (uint32_t)fake->count;
        fake->places[fake->count++] = place;
        TAILQ_INSERT_TAIL(&fake->uses, place, use);
    }
    return place;
}

/* Takes the place that was not used for longest from its name. */
static struct place *old_place(struct run_fake *fake)
{
    struct place *place = TAILQ_FIRST(&fake->uses);
    struct place **at = bucket(fake, place->name);

    while (*at != place) {
        at = &(*at)->chain;
    }
    *at = place->chain;
    free(place->name);
    place->name = NULL;
    return place;
}

static struct place *add(struct run_fake *fake, const struct dns_name *name)
{
    size_t size = offsetof(struct dns_name, wire) + name->len;
    struct dns_name *copy = malloc(size);
    struct place *place = NULL;
    struct place **at;

    if (copy != NULL) {
        place = fake->count < fake->max ? new_place(fake) : old_place(fake);
    }
    if (place == NULL) {
        free(copy);
        return NULL;
    }
    memcpy(copy, name, size);
    place->name = copy;
    at = bucket(fake, copy);
    place->chain = *at;
    *at = place;
    return place;
}

/* ---- addresses ---- */

static struct socks6_addr ipv4_of(const struct place *place)
{
    uint32_t block = place->number / PER_BLOCK;
    const uint8_t bytes[4] = {198, (uint8_t)(18 + block / 256), (uint8_t)(block % 256),
                              (uint8_t)(1 + place->number % PER_BLOCK)};

    return dns_addr(SOCKS6_ADDR_IPV4, bytes, 0);
}

static struct socks6_addr ipv6_of(const struct run_fake *fake, const struct place *place)
{
    uint8_t bytes[16] = {0};

    memcpy(bytes, fake->prefix, sizeof fake->prefix);
    dns_put32(bytes + 12, place->number + 1);
    return dns_addr(SOCKS6_ADDR_IPV6, bytes, 0);
}

int run_fake_addresses(struct run_fake *fake, const struct dns_name *name, struct socks6_addr *ipv4,
                       struct socks6_addr *ipv6)
{
    struct dns_name folded = *name;
    struct place *place;

    dns_name_lower(&folded);
    place = find(fake, &folded);
    if (place == NULL) {
        place = add(fake, &folded);
    }
    if (place == NULL) {
        return -ENOMEM;
    }
    use(fake, place);
    *ipv4 = ipv4_of(place);
    *ipv6 = ipv6_of(fake, place);
    return 0;
}

bool run_fake_has(const struct run_fake *fake, const struct socks6_addr *addr)
{
    if (addr->type == SOCKS6_ADDR_IPV4) {
        return addr->u.ipv4[0] == 198 && (addr->u.ipv4[1] & 0xfe) == 18;
    }
    return addr->type == SOCKS6_ADDR_IPV6 && memcmp(addr->u.ipv6, fake->prefix, sizeof fake->prefix) == 0;
}

/* The number in an address of ours; RUN_FAKE_NAMES_MAX if there is none. */
static uint32_t number_of(const struct socks6_addr *addr)
{
    const uint8_t *ipv4 = addr->u.ipv4;

    if (addr->type == SOCKS6_ADDR_IPV4) {
        return ipv4[3] == 0 || ipv4[3] == 255 ? RUN_FAKE_NAMES_MAX
                                              : ((ipv4[1] & 1u) * 256u + ipv4[2]) * PER_BLOCK + ipv4[3] - 1u;
    }
    return dns_get32(addr->u.ipv6 + 8) == 0 && dns_get32(addr->u.ipv6 + 12) > 0 ? dns_get32(addr->u.ipv6 + 12) - 1
                                                                                : RUN_FAKE_NAMES_MAX;
}

bool run_fake_name(struct run_fake *fake, const struct socks6_addr *addr, struct dns_name *out)
{
    uint32_t number;

    if (!run_fake_has(fake, addr)) {
        return false;
    }
    number = number_of(addr);
    if (number >= fake->count) {
        return false;
    }
    memcpy(out, fake->places[number]->name, offsetof(struct dns_name, wire) + fake->places[number]->name->len);
    use(fake, fake->places[number]);
    return true;
}

/* ---- names of addresses ---- */

static const struct dns_name in_addr_arpa = {14, "\007in-addr\004arpa"};
static const struct dns_name ip6_arpa = {10, "\003ip6\004arpa"};

static int hex_digit(uint8_t c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c != 0 ? strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* A label of 1 to 3 digits, as a byte; -1. */
static int decimal_label(const uint8_t *label)
{
    int value = 0;

    if (label[0] < 1 || label[0] > 3 || (label[0] > 1 && label[1] == '0')) {
        return -1;
    }
    for (size_t i = 1; i <= label[0]; i++) {
        if (label[i] < '0' || label[i] > '9') {
            return -1;
        }
        value = value * 10 + (label[i] - '0');
    }
    return value < 256 ? value : -1;
}

static bool reverse_ipv4(const uint8_t *at, uint8_t bytes[4])
{
    for (size_t i = 4; i-- > 0; at += 1u + at[0]) {
        int value = decimal_label(at);
        if (value < 0) {
            return false;
        }
        bytes[i] = (uint8_t)value;
    }
    return true;
}

static bool reverse_ipv6(const uint8_t *at, uint8_t bytes[16])
{
    for (size_t i = 32; i-- > 0; at += 2) {
        int value = at[0] == 1 ? hex_digit(at[1]) : -1;
        if (value < 0) {
            return false;
        }
        bytes[i / 2] = (uint8_t)(i % 2 == 1 ? value : bytes[i / 2] | value << 4);
    }
    return true;
}

/* The labels before the domain are as many as there are in it: the rest must be just that domain. */
bool run_reverse_addr(const struct dns_name *name, struct socks6_addr *out)
{
    uint8_t bytes[16] = {0};
    size_t labels = 0;

    for (size_t at = 0; name->wire[at] != 0; at += 1u + name->wire[at]) {
        labels++;
    }
    if (labels == 6 && dns_name_is_under(name, &in_addr_arpa) && reverse_ipv4(name->wire, bytes)) {
        *out = dns_addr(SOCKS6_ADDR_IPV4, bytes, 0);
        return true;
    }
    if (labels == 34 && dns_name_is_under(name, &ip6_arpa) && reverse_ipv6(name->wire, bytes)) {
        *out = dns_addr(SOCKS6_ADDR_IPV6, bytes, 0);
        return true;
    }
    return false;
}

void run_reverse_name(const struct socks6_addr *addr, struct dns_name *out)
{
    static const char digits[] = "0123456789abcdef";
    const struct dns_name *domain = addr->type == SOCKS6_ADDR_IPV4 ? &in_addr_arpa : &ip6_arpa;
    uint8_t *at = out->wire;

    if (addr->type == SOCKS6_ADDR_IPV4) {
        for (size_t i = 4; i-- > 0;) {
            unsigned value = addr->u.ipv4[i];
            uint8_t *label = at++;

            if (value >= 100) {
                *at++ = (uint8_t)digits[value / 100];
            }
            if (value >= 10) {
                *at++ = (uint8_t)digits[value / 10 % 10];
            }
            *at++ = (uint8_t)digits[value % 10];
            *label = (uint8_t)(at - label - 1);
        }
    } else {
        for (size_t i = 32; i-- > 0;) {
            uint8_t byte = addr->u.ipv6[i / 2];

            *at++ = 1;
            *at++ = (uint8_t)digits[i % 2 == 1 ? byte & 0xf : byte >> 4];
        }
    }
    memcpy(at, domain->wire, domain->len);
    out->len = (uint8_t)((size_t)(at - out->wire) + domain->len);
}

/* ---- answers ---- */

static struct dns_answer *answer_name(const struct dns_request *request, const struct dns_name *name, uint64_t now_ms)
{
    uint8_t message[DNS_QUERY_MAX + 12 + DNS_NAME_MAX];
    const struct dns_query query = {.flags = DNS_FLAG_QR | DNS_FLAG_RA,
                                    .name = &request->question.name,
                                    .type = request->question.type,
                                    .class = request->question.class};
    struct dns_answer *answer;
    size_t len = 0;

    if (dns_query_build(&query, message, sizeof message, &len) != 0) {
        return NULL;
    }
    dns_put16(message + 6, 1);
    dns_put16(message + len, 0xc000u | DNS_HEADER_LEN);
    dns_put16(message + len + 2, DNS_TYPE_PTR);
    dns_put16(message + len + 4, DNS_CLASS_IN);
    dns_put32(message + len + 6, RUN_FAKE_TTL_S);
    dns_put16(message + len + 10, name->len);
    memcpy(message + len + 12, name->wire, name->len);
    len += 12u + name->len;
    return dns_answer_new(message, len, request, now_ms, &answer) == 0 ? answer : NULL;
}

static struct dns_answer *answer_ptr(struct run_fake *fake, const struct dns_request *request, uint64_t now_ms)
{
    struct socks6_addr addr;
    struct dns_name name;

    if (run_reverse_addr(&request->question.name, &addr) && run_fake_name(fake, &addr, &name)) {
        return answer_name(request, &name, now_ms);
    }
    return dns_answer_make(request, DNS_RCODE_NXDOMAIN, NULL, 0, 0, now_ms);
}

static struct dns_answer *answer_addr(struct run_fake *fake, const struct dns_request *request, uint64_t now_ms)
{
    static const uint8_t loopback[16] = {[15] = 1}, loopback_ipv4[4] = {127, 0, 0, 1};
    const struct dns_name *name = &request->question.name;
    struct socks6_addr ipv4 = dns_addr(SOCKS6_ADDR_IPV4, loopback_ipv4, 0);
    struct socks6_addr ipv6 = dns_addr(SOCKS6_ADDR_IPV6, loopback, 0);

    if (!run_name_is_askable(name)) {
        return dns_answer_make(request, DNS_RCODE_NXDOMAIN, NULL, 0, 0, now_ms);
    }
    if (!run_name_is_localhost(name) && run_fake_addresses(fake, name, &ipv4, &ipv6) != 0) {
        return NULL;
    }
    return dns_answer_make(request, DNS_RCODE_NOERROR, request->question.type == DNS_TYPE_A ? &ipv4 : &ipv6, 1,
                           RUN_FAKE_TTL_S, now_ms);
}

struct dns_answer *run_fake_answer(struct run_fake *fake, const struct dns_request *request, uint64_t now_ms)
{
    uint16_t type = request->question.class == DNS_CLASS_IN ? request->question.type : 0;

    if (type == DNS_TYPE_A || type == DNS_TYPE_AAAA) {
        return answer_addr(fake, request, now_ms);
    }
    if (type == DNS_TYPE_PTR) {
        return answer_ptr(fake, request, now_ms);
    }
    return dns_answer_make(request, DNS_RCODE_NOTIMP, NULL, 0, 0, now_ms);
}
