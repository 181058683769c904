/*
 * The rules as the DNS service sees them: who may use it, and which names it does not tell about.
 *
 * Names are denied only by rules that name them. A rule that ends a list ("deny everything else") is about where
 * connections go, and those have to pass the rules anyway, whatever a client has learnt about their addresses.
 */
#include <assert.h>
#include <stddef.h>

#include "proxyd/policy_addr.h"
#include "proxyd/policy_rules.h"

static bool matches_client(const struct policy_rule *rule, const struct policy_request *request,
                           const struct ip *client)
{
    if (rule_has(rule, POLICY_COMMANDS) && (request->command > 31 || (rule->commands & 1u << request->command) == 0)) {
        return false;
    }
    if (rule_has(rule, POLICY_USERS) && (request->user == NULL || !nameset_has(&rule->users, request->user))) {
        return false;
    }
    return !rule_has(rule, POLICY_FROM) || netset_has(&rule->from, client);
}

static bool has_port(const struct policy_rule *rule, uint16_t port)
{
    bool found = !rule_has(rule, POLICY_PORTS);

    for (size_t i = 0; i < rule->port_count && !found; i++) {
        found = rule->ports[i].first <= port && port <= rule->ports[i].last;
    }
    return found;
}

static bool to_is_service(const struct policy_rule *rule, const struct ip *asked)
{
    return !rule_has(rule, POLICY_TO) || (rule->to.keywords & (POLICY_ANY | POLICY_DNS)) != 0 ||
           netset_has(&rule->to.nets, asked);
}

static void ip_init(const struct socks6_addr *addr, struct ip *out)
{
    bool is_ip = ip_from_addr(addr, out);

    assert(is_ip);
    (void)is_ip; /* without assertions */
}

struct policy_result policy_check_dns(const struct policy *policy, const struct policy_request *request)
{
    bool allow = policy_default_allow(policy);
    struct ip client, asked;

    ip_init(request->client, &client);
    ip_init(request->addr, &asked);
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        if (matches_client(rule, request, &client) && has_port(rule, request->addr->port) &&
            to_is_service(rule, &asked)) {
            return (struct policy_result){
                .verdict = rule->allow ? POLICY_ALLOW : POLICY_DENY,
                .line = rule->line,
                .why = rule->allow ? "allowed by rule" : "denied by rule",
            };
        }
    }
    return (struct policy_result){
        .verdict = allow ? POLICY_ALLOW : POLICY_DENY,
        .why = allow ? "allowed: no rule denies it" : "denied: no rule allows it",
    };
}

struct policy_result policy_check_dns_name(const struct policy *policy, const struct policy_request *request)
{
    struct host_name name;
    struct ip client;

    ip_init(request->client, &client);
    host_name_init(&name, request->name);
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        bool is_partial_deny = !rule->allow && rule_has(rule, POLICY_PORTS);

        if (is_partial_deny || !matches_client(rule, request, &client)) {
            continue;
        }
        if (nameset_has_host(&rule->to.names, &name) || nameset_has_suffix(&rule->to.suffixes, &name)) {
            return (struct policy_result){
                .verdict = rule->allow ? POLICY_ALLOW : POLICY_DENY,
                .line = rule->line,
                .why = rule->allow ? "allowed by rule" : "denied by rule",
            };
        }
    }
    return (struct policy_result){.verdict = POLICY_ALLOW, .why = "allowed: no rule names it"};
}

bool policy_denies_names(const struct policy *policy)
{
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        if (!rule->allow && (rule->to.names.count > 0 || rule->to.suffixes.count > 0)) {
            return true;
        }
    }
    return false;
}
