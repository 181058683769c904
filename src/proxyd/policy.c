/*
 * Evaluation of the rules. Called by conn for each request: once with the name, once per address that would be dialled;
 * runs on every worker at once over one policy that does not change.
 *
 * With an address each rule says yes or no. With only a name a rule on networks says "maybe", and the walk asks whether
 * any course of events ends in "allow". It is led once as if the name had IPv4 addresses only, once for IPv6: 0.0.0.0/0
 * then says yes in the one and no in the other.
 *
 * Embedded addresses count against the client only. A deny rule matches if the address or one that it embeds is in its
 * networks; an allow rule must hold the address itself, and lifts the protection only of those addresses, embedded ones
 * included, that it names.
 */
#include "proxyd/policy.h"

#include <assert.h>
#include <string.h>

#include "proxyd/local_addrs.h"
#include "proxyd/policy_addr.h"
#include "proxyd/policy_rules.h"

/* A request in the form in which rules look at it. */
struct subject {
    const struct policy_request *request;
    const struct local_addrs *local;
    struct ip client;
    uint16_t port;
    bool has_destination; /* NOOP has none: no rule on a destination matches it, nothing is protected */
    bool has_name;
    struct host_name name;
    struct policy_addr dest;
};

enum match { NO, MAYBE, YES };

static bool is_own(const struct local_addrs *local, const struct ip *ip)
{
    struct socks6_addr addr = {.type = SOCKS6_ADDR_IPV4, .len = 4};

    if (local == NULL) {
        return false;
    }
    if (ip->family == NET_IPV4) {
        for (unsigned i = 0; i < 4; i++) {
            addr.u.ipv4[i] = (uint8_t)(ip->lo >> (24 - 8 * i));
        }
    } else {
        addr.type = SOCKS6_ADDR_IPV6;
        addr.len = 16;
        for (unsigned i = 0; i < 8; i++) {
            addr.u.ipv6[i] = (uint8_t)(ip->hi >> (56 - 8 * i));
            addr.u.ipv6[8 + i] = (uint8_t)(ip->lo >> (56 - 8 * i));
        }
    }
    return local_addrs_has(local, &addr);
}

/* `local` is asked last: it is the only one that takes a lock. */
static bool keywords_have(unsigned keywords, const struct local_addrs *local, const struct ip *ip)
{
    if ((keywords & POLICY_LOOPBACK) != 0 && ip_is_loopback(ip)) {
        return true;
    }
    if ((keywords & POLICY_LINK_LOCAL) != 0 && ip_is_link_local(ip)) {
        return true;
    }
    if ((keywords & POLICY_PRIVATE) != 0 && ip_is_private(ip)) {
        return true;
    }
    return (keywords & (POLICY_OWN | POLICY_PRIVATE)) != 0 && !ip_is_loopback(ip) && is_own(local, ip);
}

static bool to_has_ip(const struct policy_rule *rule, const struct local_addrs *local, const struct ip *ip)
{
    return netset_has(&rule->to.nets, ip) || keywords_have(rule->to.keywords, local, ip);
}

/*
 * Whether `to:` was written with just this address in mind. "any", 0.0.0.0/0 and ::/0 were not, and neither was
 * "private": who opens the networks around the proxy does not think of the proxy itself or of the metadata service of
 * its cloud.
 */
static bool to_names_ip(const struct policy_rule *rule, const struct local_addrs *local, const struct ip *ip)
{
    unsigned keywords = rule->to.keywords & ~(unsigned)POLICY_PRIVATE;

    return netset_names(&rule->to.nets, ip) || keywords_have(keywords, local, ip);
}

static bool rule_has_name(const struct policy_rule *rule, const struct host_name *name)
{
    return nameset_has_host(&rule->to.names, name) || nameset_has_suffix(&rule->to.suffixes, name);
}

static bool rule_has_port(const struct policy_rule *rule, uint16_t port)
{
    size_t low = 0, high = rule->port_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (rule->ports[middle].first <= port) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 && port <= rule->ports[low - 1].last;
}

/* All criteria but `to:`. */
static bool matches_but_to(const struct policy_rule *rule, const struct subject *subject)
{
    const struct policy_request *request = subject->request;

    if (rule_has(rule, POLICY_COMMANDS) && (request->command > 31 || (rule->commands & 1u << request->command) == 0)) {
        return false;
    }
    if (rule_has(rule, POLICY_PORTS) && (!subject->has_destination || !rule_has_port(rule, subject->port))) {
        return false;
    }
    if (rule_has(rule, POLICY_USERS) && (request->user == NULL || !nameset_has(&rule->users, request->user))) {
        return false;
    }
    return !rule_has(rule, POLICY_FROM) || netset_has(&rule->from, &subject->client);
}

static bool to_matches(const struct policy_rule *rule, const struct subject *subject)
{
    size_t judged = rule->allow ? 1 : subject->dest.count;

    if (!rule_has(rule, POLICY_TO)) {
        return true;
    }
    if (!subject->has_destination) {
        return false;
    }
    if ((rule->to.keywords & POLICY_ANY) != 0 || (subject->has_name && rule_has_name(rule, &subject->name))) {
        return true;
    }
    for (size_t i = 0; i < judged; i++) {
        if (to_has_ip(rule, subject->local, &subject->dest.all[i])) {
            return true;
        }
    }
    return false;
}

/* `to:` against a name whose addresses, all of `family`, are not known yet. */
static enum match to_may_match(const struct policy_rule *rule, const struct subject *subject, enum net_family family)
{
    if (!rule_has(rule, POLICY_TO)) {
        return YES;
    }
    if (!subject->has_destination) {
        return NO;
    }
    if ((rule->to.keywords & POLICY_ANY) != 0 || rule->to.nets.all[family] || rule_has_name(rule, &subject->name)) {
        return YES;
    }
    if ((rule->to.keywords & ~(unsigned)POLICY_DNS) != 0 || rule->to.nets.ranges[family].count > 0) {
        return MAYBE;
    }
    /*
     * A deny rule for IPv4 networks concerns IPv6 addresses that embed them, too. But "maybe denied" changes nothing.
     */
    return NO;
}

static struct policy_result denied(unsigned line, const char *why)
{
    return (struct policy_result){.verdict = POLICY_DENY, .line = line, .why = why};
}

static struct policy_result by_rule(const struct policy *policy, const struct policy_rule *rule)
{
    if (!rule->allow) {
        return denied(rule->line, "denied by rule");
    }
    return (struct policy_result){
        .verdict = POLICY_ALLOW,
        .line = rule->line,
        .why = "allowed by rule",
        .outgoing = rule->has_outgoing ? &rule->outgoing : &policy->outgoing,
    };
}

static struct policy_result by_default(const struct policy *policy)
{
    if (!policy_default_allow(policy)) {
        return denied(0, "denied: no rule allows it");
    }
    return (struct policy_result){
        .verdict = POLICY_ALLOW,
        .why = "allowed: no rule denies it",
        .outgoing = &policy->outgoing,
    };
}

static void subject_init(struct subject *subject, const struct policy_request *request, const struct local_addrs *local)
{
    bool is_ip = ip_from_addr(request->client, &subject->client);

    assert(is_ip);
    (void)is_ip; /* without assertions */
    subject->request = request;
    subject->local = local;
    subject->has_destination = request->command != SOCKS6_COMMAND_NOOP;
    subject->port = request->addr == NULL ? 0 : request->addr->port;
    subject->has_name = request->name != NULL;
    host_name_init(&subject->name, subject->has_name ? request->name : "");
    subject->dest.count = 0;
}

/* Allowed if some course of events allows it; else what denies it for certain. */
static struct policy_result walk_name(const struct policy *policy, const struct subject *subject,
                                      enum net_family family)
{
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        enum match match;

        if (!matches_but_to(rule, subject)) {
            continue;
        }
        match = to_may_match(rule, subject, family);
        if (match == YES || (match == MAYBE && rule->allow)) {
            return by_rule(policy, rule);
        }
    }
    return by_default(policy);
}

struct policy_result policy_check_name(const struct policy *policy, const struct policy_request *request)
{
    struct subject subject;
    struct policy_result by_ipv4;

    subject_init(&subject, request, NULL);
    by_ipv4 = walk_name(policy, &subject, NET_IPV4);
    if (by_ipv4.verdict == POLICY_DENY && walk_name(policy, &subject, NET_IPV6).verdict == POLICY_DENY) {
        return by_ipv4;
    }
    return (struct policy_result){.verdict = POLICY_UNDECIDED, .why = "undecided"};
}

/* Why clients elsewhere do not reach this address unless a rule names it; NULL = they may. */
static const char *protection(const struct ip *ip, const struct local_addrs *local)
{
    if (ip_is_loopback(ip)) {
        return "denied: loopback";
    }
    if (ip_is_link_local(ip)) {
        return "denied: link-local";
    }
    return is_own(local, ip) ? "denied: own address" : NULL;
}

/* `rule` allowed the request (NULL: what no rule matches is allowed). */
static struct policy_result check_protection(const struct subject *subject, const struct policy_rule *rule,
                                             struct policy_result allowed)
{
    if (ip_is_loopback(&subject->client)) {
        return allowed;
    }
    for (size_t i = 0; i < subject->dest.count; i++) {
        const struct ip *ip = &subject->dest.all[i];
        const char *why = protection(ip, subject->local);

        if (why != NULL && (rule == NULL || !to_names_ip(rule, subject->local, ip))) {
            return denied(0, why);
        }
    }
    return allowed;
}

struct policy_result policy_check_addr(const struct policy *policy, const struct local_addrs *local,
                                       const struct policy_request *request)
{
    struct subject subject;
    struct ip ip;

    subject_init(&subject, request, local);
    if (subject.has_destination) {
        if (request->addr == NULL || !ip_from_addr(request->addr, &ip)) {
            return denied(0, "denied: unspecified");
        }
        subject.dest = policy_addr_from_ip(&ip);
        for (size_t i = 0; i < subject.dest.count; i++) {
            const char *why = ip_never_dialled(&subject.dest.all[i]);

            if (why != NULL) {
                return denied(0, why);
            }
        }
    }
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];

        if (!matches_but_to(rule, &subject) || !to_matches(rule, &subject)) {
            continue;
        }
        if (!rule->allow) {
            return by_rule(policy, rule);
        }
        return check_protection(&subject, rule, by_rule(policy, rule));
    }
    if (!policy_default_allow(policy)) {
        return by_default(policy);
    }
    return check_protection(&subject, NULL, by_default(policy));
}

/* Whether `to:` holds every address and every name. */
static bool to_is_everything(const struct policy_rule *rule)
{
    return !rule_has(rule, POLICY_TO) || (rule->to.keywords & POLICY_ANY) != 0 ||
           (rule->to.nets.all[NET_IPV4] && rule->to.nets.all[NET_IPV6]);
}

/*
 * Whether an allow rule lets some clients of `family` whom it does not name reach some destination that it does not
 * name.
 */
static bool allows_strangers(const struct policy_rule *rule, enum net_family family)
{
    bool any_source = !rule_has(rule, POLICY_FROM) || rule->from.all[family];
    /* A resolver for everybody is as little meant as a proxy. */
    bool any_destination = !rule_has(rule, POLICY_TO) || (rule->to.keywords & (POLICY_ANY | POLICY_DNS)) != 0 ||
                           rule->to.nets.all[NET_IPV4] || rule->to.nets.all[NET_IPV6];
    bool only_noop = rule_has(rule, POLICY_COMMANDS) && rule->commands == 1u << SOCKS6_COMMAND_NOOP;

    return any_source && any_destination && !rule_has(rule, POLICY_USERS) && !only_noop;
}

static bool denies_all(const struct policy_rule *rule, enum net_family family)
{
    return (!rule_has(rule, POLICY_FROM) || rule->from.all[family]) && to_is_everything(rule) &&
           !rule_has(rule, POLICY_USERS) && !rule_has(rule, POLICY_PORTS) && !rule_has(rule, POLICY_COMMANDS);
}

/* As policy_is_open(), for clients of one family. */
static bool is_open_to(const struct policy *policy, enum net_family family)
{
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];

        if (rule->allow && allows_strangers(rule, family)) {
            return true;
        }
        if (!rule->allow && denies_all(rule, family)) {
            return false;
        }
    }
    return policy_default_allow(policy);
}

bool policy_is_open(const struct policy *policy)
{
    return is_open_to(policy, NET_IPV4) || is_open_to(policy, NET_IPV6);
}
