/*
 * `rules:`: a list of mappings with one key each, allow or deny.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define EMPTY_CRITERION "would match nothing; remove the key to match everything, or say what it is for"

static const struct {
    const char *name;
    enum policy_keyword keyword;
} keywords[] = {
    {"any", POLICY_ANY}, {"private", POLICY_PRIVATE}, {"loopback", POLICY_LOOPBACK}, {"link-local", POLICY_LINK_LOCAL},
    {"own", POLICY_OWN}, {"dns", POLICY_DNS},
};

/* [enum socks6_command] */
static const char *const command_names[] = {"noop", "connect", "bind", "udp-associate", NULL};
_Static_assert(SOCKS6_COMMAND_NOOP == 0 && SOCKS6_COMMAND_CONNECT == 1 && SOCKS6_COMMAND_BIND == 2 &&
                   SOCKS6_COMMAND_UDP_ASSOCIATE == 3,
               "command names");

/* The result of a rule_add_*(). */
static int added(const struct config_place *place, int err)
{
    return err == 0 ? 0 : config_fail(place, 0, 0, "no memory to read it");
}

static int read_user(const struct config_place *place, const struct yaml_node *item, void *target)
{
    if (require_scalar(place, item, "a user name") != 0) {
        return -1;
    }
    if (strlen(item->text) > SOCKS6_USERNAME_MAX) {
        return config_fail(place, item->line, item->column, "a user name of more than %u bytes; no user has one",
                           SOCKS6_USERNAME_MAX);
    }
    return added(place, rule_add_user(target, item->text));
}

static int read_source(const struct config_place *place, const struct yaml_node *item, void *target)
{
    char why[CONFIG_WHY_MAX], shown[NET_TEXT_MAX];
    struct net net;

    if (require_scalar(place, item, "an address or a network") != 0) {
        return -1;
    }
    for (size_t i = 0; i < COUNT(keywords); i++) {
        if (strcmp(item->text, keywords[i].name) == 0) {
            return config_fail(place, item->line, item->column,
                               "'%s' is a word of 'to' only; write networks here, such as 10.0.0.0/8", item->text);
        }
    }
    if (!net_parse(item->text, &net, why)) {
        return config_fail(place, item->line, item->column, "%s", why);
    }
    net_format(&net, shown);
    return added(place, rule_add_from(target, &net, shown));
}

/* A keyword with a slip in it would be taken for a host of that name, and a deny rule would not deny. */
static const char *nearest_keyword(const char *text)
{
    if (strchr(text, '.') != NULL) {
        return NULL;
    }
    for (size_t i = 0; i < COUNT(keywords); i++) {
        unsigned allowed = strlen(keywords[i].name) > 3 ? 2 : 0;

        if (strcasecmp(text, keywords[i].name) == 0 || text_distance(text, keywords[i].name) <= allowed) {
            return keywords[i].name;
        }
    }
    return NULL;
}

/* An address or a network, to judge by its characters: so that a slip in one is told as such. */
static bool looks_like_net(const char *text)
{
    return strpbrk(text, ":/[") != NULL ||
           (isdigit((unsigned char)text[0]) && strspn(text, "0123456789.") == strlen(text));
}

static int read_destination(const struct config_place *place, const struct yaml_node *item, void *target)
{
    char why[CONFIG_WHY_MAX], shown[NET_TEXT_MAX];
    const char *near;
    struct net net;

    if (require_scalar(place, item, "an address, a network, a name or a word such as private") != 0) {
        return -1;
    }
    for (size_t i = 0; i < COUNT(keywords); i++) {
        if (strcmp(item->text, keywords[i].name) == 0) {
            return added(place, rule_add_to_keyword(target, keywords[i].keyword, item->text));
        }
    }
    if (looks_like_net(item->text)) {
        if (!net_parse(item->text, &net, why)) {
            return config_fail(place, item->line, item->column, "%s", why);
        }
        net_format(&net, shown);
        return added(place, rule_add_to_net(target, &net, shown));
    }
    near = nearest_keyword(item->text);
    if (near != NULL) {
        return config_fail(place, item->line, item->column,
                           "%s is near to the word '%s'; write that, or '%.60s.' for a host of this name",
                           config_show(item->text), near, item->text);
    }
    if (!host_pattern_check(item->text, why)) {
        return config_fail(place, item->line, item->column, "%s", why);
    }
    return added(place, rule_add_to_name(target, item->text));
}

static int read_port(const struct config_place *place, const struct yaml_node *item, void *target)
{
    char why[CONFIG_WHY_MAX];
    struct port_range range;

    if (require_scalar(place, item, "a port such as 443 or a range such as 8000-8999") != 0) {
        return -1;
    }
    if (!ports_parse(item->text, &range, why)) {
        return config_fail(place, item->line, item->column, "%s", why);
    }
    return added(place, rule_add_ports(target, range, item->text));
}

static int read_command(const struct config_place *place, const struct yaml_node *item, void *target)
{
    unsigned command;

    if (read_choice(place, item, command_names, "a command", &command) != 0) {
        return -1;
    }
    return added(place, rule_add_command(target, (enum socks6_command)command, item->text));
}

static int read_users(const struct config_place *place, const struct yaml_node *value, void *target)
{
    return read_each(place, value, EMPTY_CRITERION, read_user, target);
}

static int read_from(const struct config_place *place, const struct yaml_node *value, void *target)
{
    return read_each(place, value, EMPTY_CRITERION, read_source, target);
}

static int read_to(const struct config_place *place, const struct yaml_node *value, void *target)
{
    return read_each(place, value, EMPTY_CRITERION, read_destination, target);
}

static int read_ports(const struct config_place *place, const struct yaml_node *value, void *target)
{
    return read_each(place, value, EMPTY_CRITERION, read_port, target);
}

static int read_commands(const struct config_place *place, const struct yaml_node *value, void *target)
{
    return read_each(place, value, EMPTY_CRITERION, read_command, target);
}

static int read_outgoing_address(const struct config_place *place, const struct yaml_node *item, void *target)
{
    char why[CONFIG_WHY_MAX];
    struct socks6_addr addr;

    if (require_scalar(place, item, "an address of this host") != 0) {
        return -1;
    }
    if (!source_address_parse(item->text, &addr, why)) {
        return config_fail(place, item->line, item->column, "%s", why);
    }
    switch (outgoing_add(target, &addr)) {
    case 0:
        return 0;
    case -EEXIST:
        return config_fail(place, item->line, item->column, "%s is in this list already; remove one of the two",
                           config_show(item->text));
    case -ENOSPC:
        return config_fail(place, item->line, item->column, "more than %u addresses; remove this and what follows",
                           POLICY_OUTGOING_MAX);
    default:
        return config_fail(place, 0, 0, "no memory to read it");
    }
}

int config_read_outgoing(const struct config_place *place, const struct yaml_node *node,
                         struct dialer_sources *outgoing)
{
    if (node->kind == YAML_LIST && node->count == 0) {
        return 0;
    }
    return read_each(place, node, "has to be written as one: [], to let the system choose; or list addresses",
                     read_outgoing_address, outgoing);
}

static int read_outgoing(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct policy_rule *rule = target;

    if (!rule->allow) {
        return config_fail(place, value->line, value->column,
                           "a deny rule connects to nothing; remove 'outgoing' here, or write 'allow'");
    }
    rule->has_outgoing = true;
    return config_read_outgoing(place, value, &rule->outgoing);
}

/* The criteria in the order of enum policy_criterion, then the rest. */
static const struct config_key rule_keys[] = {
    {"users", read_users}, {"from", read_from},         {"to", read_to},
    {"ports", read_ports}, {"commands", read_commands}, {"outgoing", read_outgoing},
};

const struct config_section config_rule_section = {"rules", rule_keys, COUNT(rule_keys)};

static int read_rule(const struct config_place *place, const struct yaml_node *node, struct policy *policy)
{
    const struct yaml_node *key = node->first;
    struct policy_rule *rule;
    bool allow;

    if (node->kind != YAML_MAPPING || node->count == 0) {
        return config_fail(place, node->line, node->column, "expected 'allow: {...}' or 'deny: {...}', found %s",
                           node->kind == YAML_SCALAR ? config_show(node->text) : "something else");
    }
    allow = strcmp(key->text, "allow") == 0;
    if (!allow && strcmp(key->text, "deny") != 0) {
        return config_fail(place, key->line, key->column, "unknown kind of rule %s; write 'allow' or 'deny'",
                           config_show(key->text));
    }
    if (node->count > 1) {
        return config_fail(place, key->next->next->line, key->next->next->column,
                           "a second key in one rule; begin each rule with '- ', and indent what belongs to '%s'",
                           key->text);
    }
    rule = policy_add(policy, allow, key->line);
    if (rule == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    return read_mapping(place, key->next, rule_keys, COUNT(rule_keys), rule);
}

int config_read_rules(const struct config_place *place, const struct yaml_node *node, struct policy *policy)
{
    if (yaml_is_null(node)) {
        return 0;
    }
    if (require_list(place, node, "- allow: {...}") != 0) {
        return -1;
    }
    for (const struct yaml_node *item = node->first; item != NULL; item = item->next) {
        if (read_rule(place, item, policy) != 0) {
            return -1;
        }
    }
    return 0;
}
