#include "proxyd/policy_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct policy *policy_new(void)
{
    return calloc(1, sizeof(struct policy));
}

/* The lists are ours: const is for those who read them. */
static struct socks6_addr *own(const struct socks6_addr *list)
{
    return (struct socks6_addr *)(uintptr_t)list;
}

static void outgoing_done(struct dialer_sources *outgoing)
{
    free(own(outgoing->ipv4));
    free(own(outgoing->ipv6));
}

static void rule_done(struct policy_rule *rule)
{
    nameset_done(&rule->users);
    netset_done(&rule->from);
    netset_done(&rule->to.nets);
    nameset_done(&rule->to.names);
    nameset_done(&rule->to.suffixes);
    free(rule->ports);
    outgoing_done(&rule->outgoing);
    for (int i = 0; i < POLICY_CRITERION_COUNT; i++) {
        nameset_done(&rule->shown[i]);
    }
}

void policy_free(struct policy *policy)
{
    if (policy == NULL) {
        return;
    }
    for (size_t i = 0; i < policy->count; i++) {
        rule_done(&policy->rules[i]);
    }
    free(policy->rules);
    outgoing_done(&policy->outgoing);
    free(policy);
}

struct policy_rule *policy_add(struct policy *policy, bool allow, unsigned line)
{
    struct policy_rule *rule;

    if (policy->count == policy->size) {
        size_t size = policy->size == 0 ? 8 : policy->size * 2;
        struct policy_rule *rules = reallocarray(policy->rules, size, sizeof *rules);

        if (rules == NULL) {
            return NULL;
        }
        policy->rules = rules;
        policy->size = size;
    }
    rule = &policy->rules[policy->count++];
    *rule = (struct policy_rule){.allow = allow, .line = line};
    return rule;
}

static int compare_ports(const void *a, const void *b)
{
    const struct port_range *left = a, *right = b;

    return (int)left->first - (int)right->first;
}

static void finish_ports(struct policy_rule *rule)
{
    size_t kept = 0;

    if (rule->port_count == 0) {
        return;
    }
    qsort(rule->ports, rule->port_count, sizeof *rule->ports, compare_ports);
    for (size_t i = 1; i < rule->port_count; i++) {
        if (rule->ports[i].first > rule->ports[kept].last + 1) {
            rule->ports[++kept] = rule->ports[i];
        } else if (rule->ports[i].last > rule->ports[kept].last) {
            rule->ports[kept].last = rule->ports[i].last;
        }
    }
    rule->port_count = kept + 1;
}

void policy_finish(struct policy *policy)
{
    for (size_t i = 0; i < policy->count; i++) {
        struct policy_rule *rule = &policy->rules[i];

        nameset_finish(&rule->users);
        netset_finish(&rule->from);
        netset_finish(&rule->to.nets);
        nameset_finish(&rule->to.names);
        nameset_finish(&rule->to.suffixes);
        finish_ports(rule);
    }
}

static int show(struct policy_rule *rule, enum policy_criterion criterion, const char *shown)
{
    rule->criteria |= 1u << criterion;
    return nameset_add(&rule->shown[criterion], shown, strlen(shown));
}

int rule_add_user(struct policy_rule *rule, const char *user)
{
    int err = nameset_add(&rule->users, user, strlen(user));

    return err != 0 ? err : show(rule, POLICY_USERS, user);
}

int rule_add_from(struct policy_rule *rule, const struct net *net, const char *shown)
{
    int err = netset_add(&rule->from, net);

    return err != 0 ? err : show(rule, POLICY_FROM, shown);
}

int rule_add_to_keyword(struct policy_rule *rule, enum policy_keyword keyword, const char *shown)
{
    rule->to.keywords |= (unsigned)keyword;
    return show(rule, POLICY_TO, shown);
}

int rule_add_to_net(struct policy_rule *rule, const struct net *net, const char *shown)
{
    int err = netset_add(&rule->to.nets, net);

    return err != 0 ? err : show(rule, POLICY_TO, shown);
}

int rule_add_to_name(struct policy_rule *rule, const char *name)
{
    bool is_suffix = strncmp(name, "*.", 2) == 0;
    struct nameset *set = is_suffix ? &rule->to.suffixes : &rule->to.names;
    struct host_name host;
    int err;

    host_name_init(&host, is_suffix ? name + 2 : name);
    err = nameset_add(set, host.text, strlen(host.text));
    return err != 0 ? err : show(rule, POLICY_TO, name);
}

int rule_add_ports(struct policy_rule *rule, struct port_range range, const char *shown)
{
    if (rule->port_count == rule->port_size) {
        size_t size = rule->port_size == 0 ? 4 : rule->port_size * 2;
        struct port_range *ports = reallocarray(rule->ports, size, sizeof *ports);

        if (ports == NULL) {
            return -ENOMEM;
        }
        rule->ports = ports;
        rule->port_size = size;
    }
    rule->ports[rule->port_count++] = range;
    return show(rule, POLICY_PORTS, shown);
}

int rule_add_command(struct policy_rule *rule, enum socks6_command command, const char *shown)
{
    rule->commands |= 1u << command;
    return show(rule, POLICY_COMMANDS, shown);
}

int outgoing_add(struct dialer_sources *outgoing, const struct socks6_addr *addr)
{
    bool is_ipv4 = addr->type == SOCKS6_ADDR_IPV4;
    const struct socks6_addr **list = is_ipv4 ? &outgoing->ipv4 : &outgoing->ipv6;
    struct socks6_addr *grown, added = *addr;
    size_t *count = is_ipv4 ? &outgoing->ipv4_count : &outgoing->ipv6_count;

    added.port = 0;
    for (size_t i = 0; i < *count; i++) {
        if (socks6_addr_equal(&(*list)[i], &added)) {
            return -EEXIST;
        }
    }
    if (*count == POLICY_OUTGOING_MAX) {
        return -ENOSPC;
    }
    grown = reallocarray(own(*list), *count + 1, sizeof *grown);
    if (grown == NULL) {
        return -ENOMEM;
    }
    grown[(*count)++] = added;
    *list = grown;
    return 0;
}

bool rule_has(const struct policy_rule *rule, enum policy_criterion criterion)
{
    return (rule->criteria & 1u << criterion) != 0;
}

bool policy_default_allow(const struct policy *policy)
{
    return policy->count == 0 || !policy->rules[policy->count - 1].allow;
}
