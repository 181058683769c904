/*
 * RUN_RESOLVE: names to addresses, as getaddrinfo(3) would do it with "hosts: files dns" in nsswitch.conf(5).
 *
 * What NO_PROXY has is the system's. Then hosts(5); then what a name means by itself (localhost, and numeric addresses); then fake
 * addresses, with --fake-names; then the walk over candidates of run_search.c. Each candidate is asked for in two halves, A and
 * AAAA, at once; an answer that ends in an alias without its addresses is followed by asking for the alias's target.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_names_internal.h"
#include "io/sock.h"

#define PER_FAMILY (RUN_ADDRESSES_MAX / 2u)
#define CHASES_MAX 8u        /* questions for targets of aliases */
#define OTHER_FAMILY_MS 2000 /* one family's addresses wait no longer than that for the other's */
#define FAMILIES_FOR_MS 1000u

struct list {
    size_t count;
    struct run_addr addrs[PER_FAMILY];
};

/* What a name has been found to be. */
struct found {
    struct list ipv4, ipv6;
    struct dns_name canonical;
    size_t aliases_len;
    char aliases[RUN_NAME_MAX - DNS_NAME_MAX]; /* a NUL before each; those of the hosts file alone */
};

struct half {
    struct resolve *owner;
    uint16_t type;
    bool is_wanted, is_asked; /* its family; and its answer has not come */
    enum run_outcome outcome; /* when it has */
    unsigned chases;
    struct dns_name name; /* what is asked for: the candidate, or the target of its aliases */
    struct dns_link_ask ask;
    uint8_t query[DNS_QUERY_MAX];
};

struct resolve {
    struct run_names_job job; /* first */
    struct run_walk walk;
    struct run_search *search; /* a reference */
    uint32_t flags;
    uint16_t family;
    struct half halves[2]; /* AAAA, A */
    struct dns_name candidate;
    struct found found;
    char name[RUN_NAME_MAX + 1];
};

/* ---- replies ---- */

/* Looks which families this machine has addresses of, but not for each question. */
static void look_at_families(struct run_names *names)
{
    uint64_t now = loop_now_ms(names->config.loop);
    struct ifaddrs *list, *at;

    if (now < names->families_until_ms || getifaddrs(&list) != 0) {
        return;
    }
    names->families_until_ms = now + FAMILIES_FOR_MS;
    names->has_ipv4 = names->has_ipv6 = false;
    for (at = list; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr != NULL && (at->ifa_flags & IFF_LOOPBACK) == 0) {
            names->has_ipv4 = names->has_ipv4 || at->ifa_addr->sa_family == AF_INET;
            names->has_ipv6 = names->has_ipv6 || at->ifa_addr->sa_family == AF_INET6;
        }
    }
    freeifaddrs(list);
}

static void append(uint8_t *out, size_t *len, const struct list *list)
{
    memcpy(out + *len, list->addrs, list->count * sizeof list->addrs[0]);
    *len += list->count * sizeof list->addrs[0];
}

/* AI_ADDRCONFIG: a family that this machine has not is left out if the other one has something. */
static void leave_out(struct run_names *names, uint32_t flags, struct found *found)
{
    if ((flags & RUN_RESOLVE_ADDRCONFIG) == 0 || found->ipv4.count == 0 || found->ipv6.count == 0) {
        return;
    }
    look_at_families(names);
    if (names->has_ipv4 && !names->has_ipv6) {
        found->ipv6.count = 0;
    } else if (names->has_ipv6 && !names->has_ipv4) {
        found->ipv4.count = 0;
    }
}

static size_t put_list(const struct list *list, char *text, size_t size, size_t len)
{
    char addr[INET6_ADDRSTRLEN];

    for (size_t i = 0; i < list->count && len + INET6_ADDRSTRLEN + 2 < size; i++) {
        (void)inet_ntop(list->addrs[i].family, list->addrs[i].bytes, addr, sizeof addr);
        len += (size_t)snprintf(text + len, size - len, " %s", addr);
    }
    return len;
}

static void trace_found(struct run_names *names, struct run_names_ask *ask, const char *name, const struct list *first,
                        const struct list *second, const char *by)
{
    char text[256] = "";

    if (run_names_is_traced(names)) {
        (void)put_list(second, text, sizeof text, put_list(first, text, sizeof text, 0));
        run_names_trace(names, ask, "%s:%s (%s)", name, text, by);
    }
}

/* Writes the reply to names->out; returns its length. */
static size_t write_reply(struct run_names *names, struct run_names_ask *ask, uint32_t flags, const char *name,
                          const char *by, struct found *found)
{
    bool ipv6_last = loop_now_ms(names->config.loop) < names->ipv6_last_until_ms;
    const struct list *first = ipv6_last ? &found->ipv4 : &found->ipv6;
    const struct list *second = ipv6_last ? &found->ipv6 : &found->ipv4;
    struct run_resolved resolved;
    char canonical[DNS_NAME_MAX + 1];
    size_t len = sizeof resolved;

    leave_out(names, flags, found);
    append(names->out, &len, first);
    append(names->out, &len, second);
    resolved.count = (uint32_t)(found->ipv4.count + found->ipv6.count);
    resolved.canon_len = (uint32_t)run_name_text(&found->canonical, canonical);
    memcpy(names->out + len, canonical, resolved.canon_len);
    memcpy(names->out + len + resolved.canon_len, found->aliases, found->aliases_len);
    resolved.canon_len += (uint32_t)found->aliases_len;
    memcpy(names->out, &resolved, sizeof resolved);
    trace_found(names, ask, name, first, second, by);
    return len + resolved.canon_len;
}

static void add(struct found *found, const struct socks6_addr *addr)
{
    struct list *list = addr->type == SOCKS6_ADDR_IPV4 ? &found->ipv4 : &found->ipv6;

    if (list->count < PER_FAMILY) {
        list->addrs[list->count++] = run_addr_write(addr);
    }
}

/* ---- answers ---- */

/* The addresses of half->name; `has_soa`: the answer says with authority what it lacks. */
static size_t take_addresses(struct half *half, const uint8_t *message, size_t len, bool *has_soa)
{
    struct dns_records records;
    struct dns_record record;
    struct socks6_addr addr;
    size_t count = 0;

    *has_soa = false;
    if (dns_records_init(&records, message, len) != 0) {
        return 0;
    }
    while (dns_records_next(&records, &record) > 0) {
        *has_soa |= record.section == DNS_AUTHORITY && record.type == DNS_TYPE_SOA;
        if (record.section == DNS_ANSWER && record.type == half->type && dns_name_equal(&record.owner, &half->name) &&
            dns_record_addr(&record, 0, &addr)) {
            add(&half->owner->found, &addr);
            count++;
        }
    }
    return count;
}

static void half_ask(struct half *half);

static void half_known(struct half *half, enum run_outcome outcome)
{
    half->is_asked = false;
    half->outcome = outcome;
}

static void take_answer(struct half *half, const uint8_t *message, size_t len)
{
    unsigned rcode = DNS_FLAGS_RCODE(dns_get16(message + 2));
    unsigned aliases = 0;
    bool has_soa;

    if (rcode != DNS_RCODE_NOERROR) {
        half_known(half, run_outcome_of_rcode(rcode));
        return;
    }
    run_follow_aliases(message, len, &half->name, &aliases);
    if (take_addresses(half, message, len, &has_soa) > 0) {
        half->owner->found.canonical = run_name_is_host(&half->name) ? half->name : half->owner->candidate;
        half_known(half, RUN_FOUND);
    } else if (aliases == 0 || has_soa) {
        half_known(half, RUN_NODATA);
    } else if (aliases == RUN_ALIASES_MAX || half->chases == CHASES_MAX) {
        half_known(half, RUN_SERVFAIL);
    } else {
        half->chases++;
        half_ask(half);
    }
}

static void go_on(struct resolve *resolve);

static void on_answer(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct half *half = LOOP_OWNER(ask, struct half, ask);

    (void)failure; /* nobody waits for longer, whichever it is */
    if (message != NULL) {
        take_answer(half, message, len);
    } else {
        half_known(half, RUN_LOST);
    }
    go_on(half->owner);
}

/* ---- candidates ---- */

static void half_ask(struct half *half)
{
    int rc;

    half->ask = (struct dns_link_ask){
        .message = half->query, .len = run_query_build(&half->name, half->type, half->query), .done = on_answer};
    half->is_asked = true;
    rc = run_dns_ask(half->owner->job.names->dns, &half->ask);
    if (rc != 0) {
        half_known(half, rc == -ENOMEM ? RUN_NO_MEMORY : RUN_LOST);
    }
}

static void ask_for_candidate(struct resolve *resolve)
{
    for (size_t i = 0; i < 2; i++) {
        struct half *half = &resolve->halves[i];

        half->name = resolve->candidate;
        half->chases = 0;
        half->outcome = RUN_NXDOMAIN;
        if (half->is_wanted && run_name_is_askable(&resolve->candidate)) {
            half_ask(half);
        }
    }
}

/* Of both halves: what was found counts most, then that it may be there. */
static enum run_outcome outcome_of(const struct resolve *resolve)
{
    static const enum run_outcome by_weight[] = {RUN_FOUND,   RUN_NO_MEMORY, RUN_LOST,   RUN_SERVFAIL,
                                                 RUN_REFUSED, RUN_BROKEN,    RUN_NODATA, RUN_NXDOMAIN};

    for (size_t i = 0; i < sizeof by_weight / sizeof by_weight[0]; i++) {
        for (size_t k = 0; k < 2; k++) {
            if (resolve->halves[k].is_wanted && resolve->halves[k].outcome == by_weight[i]) {
                return by_weight[i];
            }
        }
    }
    return RUN_NXDOMAIN;
}

static bool is_direct(const struct run_names *names, const struct dns_name *name)
{
    char text[DNS_NAME_MAX + 1];

    if (names->config.is_direct_name == NULL) {
        return false;
    }
    (void)run_name_text(name, text);
    return names->config.is_direct_name(names->config.user, text);
}

static void end(struct resolve *resolve, enum run_outcome outcome)
{
    struct run_names *names = resolve->job.names;
    struct run_names_ask *ask = resolve->job.ask;
    int status = run_outcome_status(outcome);
    size_t len = 0;

    if (outcome == RUN_FOUND) {
        len = write_reply(names, ask, resolve->flags, resolve->name, "the proxy's DNS service", &resolve->found);
    } else {
        run_names_trace(names, ask, "%s: %s", resolve->name, gai_strerror(status));
    }
    run_job_done(&resolve->job, status, names->out, len);
}

/*
 * Takes the next candidate. False: that was the end.
 *
 * One that NO_PROXY has is not the proxy's to know. The system can only be asked for the name as it was given, and would then try all candidates
 * itself, the name as it is among them: that is right for a name without a dot, which is this network's, but would tell its
 * servers of every other name, too. So such a candidate of a name with dots is passed over.
 */
static bool take_next(struct resolve *resolve)
{
    bool is_ours;

    do {
        if (!run_walk_next(&resolve->walk, &resolve->candidate)) {
            end(resolve, run_walk_outcome(&resolve->walk));
            return false;
        }
        is_ours = !is_direct(resolve->job.names, &resolve->candidate);
        if (!is_ours && resolve->walk.dots == 0) {
            run_job_done(&resolve->job, RUN_ASK_SYSTEM, NULL, 0);
            return false;
        }
    } while (!is_ours && !run_walk_told(&resolve->walk, RUN_NXDOMAIN));
    ask_for_candidate(resolve);
    return true;
}

/* Takes candidates until one has to be waited for. */
static void go_on(struct resolve *resolve)
{
    while (!resolve->halves[0].is_asked && !resolve->halves[1].is_asked) {
        if (run_walk_told(&resolve->walk, outcome_of(resolve))) {
            end(resolve, outcome_of(resolve));
            return;
        }
        if (!take_next(resolve)) {
            return;
        }
    }
    if (outcome_of(resolve) == RUN_FOUND) {
        run_job_hurry(&resolve->job, OTHER_FAMILY_MS);
    }
}

static void resolve_stop(struct run_names_job *job)
{
    struct resolve *resolve = LOOP_OWNER(job, struct resolve, job);

    for (size_t i = 0; i < 2; i++) {
        if (resolve->halves[i].is_asked) {
            run_dns_cancel(job->names->dns, &resolve->halves[i].ask);
        }
    }
    run_search_release(resolve->search);
}

static void resolve_late(struct run_names_job *job)
{
    struct resolve *resolve = LOOP_OWNER(job, struct resolve, job);

    end(resolve, outcome_of(resolve) == RUN_FOUND ? RUN_FOUND : RUN_LOST);
}

static void start_walk(struct run_names *names, struct run_names_ask *ask, const struct run_resolve *request,
                       const char *name)
{
    struct resolve *resolve = calloc(1, sizeof *resolve);

    if (resolve == NULL) {
        run_names_tell(ask, EAI_MEMORY, NULL, 0);
        return;
    }
    resolve->search = run_search_retain(names->files.search);
    resolve->flags = request->flags;
    resolve->family = request->family;
    (void)snprintf(resolve->name, sizeof resolve->name, "%s", name);
    for (size_t i = 0; i < 2; i++) {
        resolve->halves[i].owner = resolve;
        resolve->halves[i].type = i == 0 ? DNS_TYPE_AAAA : DNS_TYPE_A;
        resolve->halves[i].is_wanted = request->family != (i == 0 ? AF_INET : AF_INET6);
    }
    resolve->job.stop = resolve_stop;
    resolve->job.late = resolve_late;
    run_job_start(&resolve->job, names, ask);
    (void)run_walk_init(&resolve->walk, resolve->search, name);
    if (take_next(resolve)) {
        go_on(resolve);
    }
}

/* ---- what is known here ---- */

/* The forms that inet_aton(3) takes are addresses, as they are for getaddrinfo(3): 127.1, 0x7f000001. */
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

/* As many as there is room for. */
static void add_aliases(const struct hosts *hosts, const struct dns_name *name, uint8_t type, struct found *found)
{
    char text[DNS_NAME_MAX + 1];
    struct dns_name alias;
    size_t at = 0, len;

    while (hosts_next_alias(hosts, name, type, &at, &alias)) {
        len = run_name_text(&alias, text);
        if (len >= sizeof found->aliases - found->aliases_len) {
            return;
        }
        found->aliases[found->aliases_len++] = '\0';
        memcpy(found->aliases + found->aliases_len, text, len);
        found->aliases_len += len;
    }
}

/* `status` becomes EAI_MEMORY if there is none. */
static bool in_hosts(struct run_names *names, const struct dns_name *name, uint16_t family, struct found *found,
                     int *status)
{
    const struct hosts *hosts = names->files.hosts;
    struct socks6_addr *addrs;

    if (!hosts_have(hosts, name)) {
        return false;
    }
    addrs = malloc(HOSTS_ADDRESSES_MAX * sizeof *addrs);
    if (addrs == NULL) {
        *status = EAI_MEMORY;
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        uint8_t type = i == 0 ? SOCKS6_ADDR_IPV6 : SOCKS6_ADDR_IPV4;
        size_t count = family == (i == 0 ? AF_INET : AF_INET6) ? 0 : hosts_find(hosts, name, type, addrs);

        for (size_t k = 0; k < count; k++) {
            add(found, &addrs[k]);
        }
        if (count > 0 && !hosts_canonical(hosts, name, type, &found->canonical)) {
            found->canonical = *name;
        }
        if (count > 0 && found->aliases_len == 0) {
            add_aliases(hosts, name, type, found);
        }
    }
    free(addrs);
    return found->ipv4.count + found->ipv6.count > 0;
}

static void add_loopback(uint16_t family, struct found *found)
{
    static const uint8_t ipv6[16] = {[15] = 1}, ipv4[4] = {127, 0, 0, 1};
    const struct socks6_addr addrs[2] = {dns_addr(SOCKS6_ADDR_IPV6, ipv6, 0), dns_addr(SOCKS6_ADDR_IPV4, ipv4, 0)};

    if (family != AF_INET) {
        add(found, &addrs[0]);
    }
    if (family != AF_INET6) {
        add(found, &addrs[1]);
    }
}

/* One family is enough: the proxy picks among the real addresses anyway, and a program would only try the same name twice. */
static int add_fake(struct run_names *names, const struct dns_name *name, uint16_t family, struct found *found)
{
    struct socks6_addr ipv4, ipv6;

    if (!run_name_is_askable(name)) {
        return EAI_NONAME;
    }
    if (run_fake_addresses(names->fake, name, &ipv4, &ipv6) != 0) {
        return EAI_MEMORY;
    }
    add(found, family == AF_INET6 ? &ipv6 : &ipv4);
    return 0;
}

/* Who knows it: NULL = the proxy alone. `status`: 0 or an EAI_ code. */
static const char *find_here(struct run_names *names, const struct dns_name *name, uint16_t family, struct found *found,
                             int *status)
{
    *status = 0;
    found->canonical = *name;
    if (in_hosts(names, name, family, found, status)) {
        return "hosts file";
    }
    if (run_name_is_localhost(name)) {
        add_loopback(family, found);
        return "loopback";
    }
    if (names->fake != NULL) {
        *status = add_fake(names, name, family, found);
        return "stands for the name";
    }
    return NULL;
}

static void tell_numeric(struct run_names *names, struct run_names_ask *ask, const struct run_resolve *request,
                         const char *name, const struct socks6_addr *addr)
{
    struct run_resolved resolved = {.count = 1, .canon_len = (uint32_t)strlen(name)};
    struct run_addr out = run_addr_write(addr);

    if (request->family != AF_UNSPEC && request->family != out.family) {
        run_names_tell(ask, EAI_NONAME, NULL, 0);
        return;
    }
    if (resolved.canon_len > INET6_ADDRSTRLEN) {
        resolved.canon_len = 0; /* leading zeros */
    }
    memcpy(names->out, &resolved, sizeof resolved);
    memcpy(names->out + sizeof resolved, &out, sizeof out);
    memcpy(names->out + sizeof resolved + sizeof out, name, resolved.canon_len);
    run_names_tell(ask, 0, names->out, sizeof resolved + sizeof out + resolved.canon_len);
}

static void resolve_name(struct run_names *names, struct run_names_ask *ask, const struct run_resolve *request,
                         const char *name)
{
    struct found *found;
    struct run_walk walk;
    const char *by;
    size_t len = 0;
    int status;

    if (!run_walk_init(&walk, names->files.search, name)) {
        run_names_tell(ask, EAI_NONAME, NULL, 0);
        return;
    }
    if (is_direct(names, &walk.name)) {
        run_names_tell(ask, RUN_ASK_SYSTEM, NULL, 0);
        return;
    }
    found = calloc(1, sizeof *found);
    if (found == NULL) {
        run_names_tell(ask, EAI_MEMORY, NULL, 0);
        return;
    }
    by = find_here(names, &walk.name, request->family, found, &status);
    if (by != NULL && status == 0) {
        len = write_reply(names, ask, request->flags, name, by, found);
    }
    free(found);
    if (by != NULL) {
        run_names_tell(ask, status, names->out, len);
    } else {
        start_walk(names, ask, request, name);
    }
}

void run_resolve(struct run_names *names, struct run_names_ask *ask)
{
    struct run_resolve request;
    char name[RUN_NAME_MAX + 1];
    struct socks6_addr addr;

    if (ask->len < sizeof request) {
        run_names_tell(ask, EAI_FAIL, NULL, 0);
        return;
    }
    memcpy(&request, ask->body, sizeof request);
    if (ask->len != sizeof request + request.name_len || request.name_len > RUN_NAME_MAX) {
        run_names_tell(ask, EAI_FAIL, NULL, 0);
        return;
    }
    memcpy(name, (const char *)ask->body + sizeof request, request.name_len);
    name[request.name_len] = '\0';
    if (request.family != AF_UNSPEC && request.family != AF_INET && request.family != AF_INET6) {
        run_names_tell(ask, EAI_FAMILY, NULL, 0);
    } else if (request.name_len == 0 || strlen(name) != request.name_len) {
        run_names_tell(ask, EAI_NONAME, NULL, 0);
    } else if (is_numeric(name, &addr)) {
        tell_numeric(names, ask, &request, name, &addr);
    } else {
        resolve_name(names, ask, &request, name);
    }
}
