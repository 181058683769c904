/*
 * A look-up has two halves, one per family, that run side by side. Each asks for its type; an answer that ends in an
 * alias without its addresses is followed by asking for the alias's target, a bounded number of times.
 *
 * What is known at once is told by a task, so that nothing is called from within dns_lookup_start().
 */
#include "dns/lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "dns/resolver_internal.h"

#define ALIASES_MAX 16u /* in one answer */
#define CHASES_MAX 8u   /* questions for targets of aliases */
#define HOST_NAME_MAX_LEN 253u

enum half_state { UNASKED, ASKED, KNOWN, TOLD };

struct half {
    struct dns_lookup *lookup;
    int family;
    enum half_state state;
    struct dns_ask *ask;  /* ASKED */
    struct dns_name name; /* what is asked for: the name, later the target of aliases */
    unsigned chases;
    enum dns_lookup_status status; /* KNOWN */
    const char *why;
    size_t count;
    struct socks6_addr *addrs; /* heap */
};

struct dns_lookup {
    struct dns_client *client;
    struct loop_task task;
    uint16_t port;
    dns_lookup_done *done;
    void *user;
    bool is_telling, is_cancelled;
    struct half halves[2]; /* IPv6 first */
};

static void lookup_free(struct dns_lookup *lookup)
{
    loop_defer_cancel(lookup->client->loop, &lookup->task);
    for (size_t i = 0; i < 2; i++) {
        dns_ask_cancel(lookup->halves[i].ask);
        free(lookup->halves[i].addrs);
    }
    free(lookup);
}

/* ---- telling ---- */

/* Tells what is known; frees the look-up when that was all. */
static void tell(struct dns_lookup *lookup)
{
    bool is_over = true;

    lookup->is_telling = true;
    for (size_t i = 0; i < 2 && !lookup->is_cancelled; i++) {
        struct half *half = &lookup->halves[i];
        if (half->state == KNOWN) {
            half->state = TOLD;
            const struct dns_lookup_answer answer = {
                .family = half->family,
                .status = half->status,
                .why = half->why,
                .addrs = half->addrs,
                .count = half->count,
            };
            lookup->done(lookup->user, &answer);
        }
        is_over = is_over && half->state == TOLD;
    }
    lookup->is_telling = false;
    if (is_over || lookup->is_cancelled) {
        lookup_free(lookup);
    }
}

static void on_task(struct loop_task *task)
{
    tell(LOOP_OWNER(task, struct dns_lookup, task));
}

static void half_known(struct half *half, enum dns_lookup_status status, const char *why)
{
    half->state = KNOWN;
    half->status = status;
    half->why = why;
    loop_defer(half->lookup->client->loop, &half->lookup->task);
}

static bool half_add(struct half *half, const struct socks6_addr *addr)
{
    if (half->addrs == NULL) {
        half->addrs = malloc(DNS_LOOKUP_ADDRESSES_MAX * sizeof *half->addrs);
        if (half->addrs == NULL) {
            return false;
        }
    }
    if (half->count < DNS_LOOKUP_ADDRESSES_MAX) {
        half->addrs[half->count++] = *addr;
    }
    return true;
}

/* ---- answers ---- */

/* The alias of half->name in the answer section: true, and half->name is its target. */
static bool follow_alias(struct half *half, struct socks6_slice message)
{
    struct dns_records records;
    struct dns_record record;

    if (dns_records_init(&records, message.data, message.len) != 0) {
        return false;
    }
    while (dns_records_next(&records, &record) > 0 && record.section == DNS_ANSWER) {
        if (record.type == DNS_TYPE_CNAME && record.class == DNS_CLASS_IN &&
            dns_name_equal(&record.owner, &half->name)) {
            return dns_name_read(message.data, message.len, record.rdata_offset, &half->name, NULL) == 0;
        }
    }
    return false;
}

/* Takes the addresses of half->name; `has_soa`: the answer says with authority what it lacks. False = no memory. */
static bool take_addresses(struct half *half, struct socks6_slice message, bool *has_soa)
{
    uint16_t type = half->family == AF_INET ? DNS_TYPE_A : DNS_TYPE_AAAA;
    struct dns_records records;
    struct dns_record record;
    struct socks6_addr addr;

    *has_soa = false;
    if (dns_records_init(&records, message.data, message.len) != 0) {
        return true;
    }
    while (dns_records_next(&records, &record) > 0) {
        *has_soa |= record.section == DNS_AUTHORITY && record.type == DNS_TYPE_SOA;
        if (record.section == DNS_ANSWER && record.type == type && dns_name_equal(&record.owner, &half->name) &&
            dns_record_addr(&record, half->lookup->port, &addr) && !half_add(half, &addr)) {
            return false;
        }
    }
    return true;
}

static void half_ask(struct half *half);

static void take_answer(struct half *half, struct dns_answer *answer)
{
    struct socks6_slice message = dns_answer_message(answer);
    unsigned rcode = DNS_FLAGS_RCODE(dns_get16(message.data + 2));
    unsigned aliases = 0;
    bool has_soa;

    if (rcode == DNS_RCODE_NXDOMAIN) {
        half_known(half, DNS_LOOKUP_NO_ADDRESS, "no such name");
        return;
    }
    if (rcode != DNS_RCODE_NOERROR) {
        half_known(half, DNS_LOOKUP_FAILED,
                   rcode == DNS_RCODE_REFUSED ? "refused by the upstream server" : "server failure");
        return;
    }
    while (aliases < ALIASES_MAX && follow_alias(half, message)) {
        aliases++;
    }
    if (!take_addresses(half, message, &has_soa)) {
        half_known(half, DNS_LOOKUP_FAILED, "out of memory");
    } else if (half->count > 0) {
        half_known(half, DNS_LOOKUP_OK, "");
    } else if (aliases == 0 || has_soa) {
        half_known(half, DNS_LOOKUP_NO_ADDRESS, "no address of this family");
    } else if (aliases == ALIASES_MAX || half->chases == CHASES_MAX) {
        half_known(half, DNS_LOOKUP_FAILED, "too many aliases");
    } else {
        half->chases++;
        half_ask(half);
    }
}

static void on_answer(void *user, struct dns_answer *answer, const char *why)
{
    struct half *half = user;

    half->ask = NULL;
    if (answer != NULL) {
        take_answer(half, answer);
    } else {
        half_known(half, DNS_LOOKUP_FAILED, why);
    }
}

static void half_ask(struct half *half)
{
    struct dns_client *client = half->lookup->client;
    struct dns_request request;

    dns_request_init(&request, &half->name, half->family == AF_INET ? DNS_TYPE_A : DNS_TYPE_AAAA);
    half->state = ASKED;
    struct dns_answer *answer = dns_ask_at_once(client, &request);
    if (answer != NULL) {
        take_answer(half, answer);
        dns_answer_release(answer);
        return;
    }
    int err = dns_ask_start(client, DNS_ASKER_LOOKUP, &request, on_answer, half, &half->ask);
    if (err != 0) {
        half->ask = NULL;
        half_known(half, DNS_LOOKUP_FAILED, err == -EAGAIN ? "too many questions" : "out of memory");
    }
}

/* ---- names that are not asked for ---- */

/* The forms that inet_aton(3) takes are addresses, as they are for every program of this host: 127.1, 0x7f000001. */
static bool is_numeric(const char *name, struct socks6_addr *out)
{
    uint8_t bytes[16];
    struct in_addr ipv4;

    if (inet_pton(AF_INET6, name, bytes) == 1) {
        *out = dns_addr(SOCKS6_ADDR_IPV6, bytes, 0);
        return true;
    }
    if (strpbrk(name, " \t\r\n\v\f") != NULL || inet_aton(name, &ipv4) == 0) {
        return false;
    }
    memcpy(bytes, &ipv4, 4);
    *out = dns_addr(SOCKS6_ADDR_IPV4, bytes, 0);
    return true;
}

/* A top-level domain is never a number (RFC 3696 section 2): such a name is an address with a slip in it. */
static bool ends_in_number(const char *name, size_t len)
{
    size_t at = len;

    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') {
        at--;
    }
    return at < len && (at == 0 || name[at - 1] == '.');
}

/* ASCII without blanks, control characters and what only an address or an escape would hold. */
static bool is_askable(const char *name, struct dns_name *out)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < len; i++) {
        if (name[i] <= ' ' || name[i] > '~' || strchr("\\:[]%/", name[i]) != NULL) {
            return false;
        }
    }
    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    return len > 0 && len <= HOST_NAME_MAX_LEN && !ends_in_number(name, len) && dns_name_parse(name, out) == 0;
}

static void half_from_addr(struct half *half, const struct socks6_addr *addr)
{
    struct socks6_addr own = *addr;

    own.port = half->lookup->port;
    if ((addr->type == SOCKS6_ADDR_IPV4) != (half->family == AF_INET)) {
        half_known(half, DNS_LOOKUP_NO_ADDRESS, "no address of this family");
    } else if (!half_add(half, &own)) {
        half_known(half, DNS_LOOKUP_FAILED, "out of memory");
    } else {
        half_known(half, DNS_LOOKUP_OK, "");
    }
}

int dns_lookup_start(struct dns_client *client, const char *name, uint16_t port, unsigned families,
                     dns_lookup_done *done, void *user, struct dns_lookup **out)
{
    struct dns_lookup *lookup = calloc(1, sizeof *lookup);
    struct socks6_addr addr;
    struct dns_name wire = {.len = 0};

    if (lookup == NULL) {
        return -ENOMEM;
    }
    lookup->client = client;
    lookup->task.run = on_task;
    lookup->port = port;
    lookup->done = done;
    lookup->user = user;
    bool numeric = is_numeric(name, &addr);
    bool askable = !numeric && is_askable(name, &wire);
    for (size_t i = 0; i < 2; i++) {
        struct half *half = &lookup->halves[i];
        half->lookup = lookup;
        half->family = i == 0 ? AF_INET6 : AF_INET;
        if ((families & (i == 0 ? DNS_LOOKUP_IPV6 : DNS_LOOKUP_IPV4)) == 0) {
            half->state = TOLD;
        } else if (numeric) {
            half_from_addr(half, &addr);
        } else if (!askable) {
            half_known(half, DNS_LOOKUP_NO_ADDRESS, "not a host name");
        } else {
            half->name = wire;
            half_ask(half);
        }
    }
    *out = lookup;
    return 0;
}

void dns_lookup_cancel(struct dns_lookup *lookup)
{
    if (lookup == NULL) {
        return;
    }
    if (lookup->is_telling) {
        lookup->is_cancelled = true;
    } else {
        lookup_free(lookup);
    }
}
