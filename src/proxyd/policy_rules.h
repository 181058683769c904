/*
 * The rules behind a struct policy: how the configuration fills them, policy.c reads them and config_print.c shows
 * them.
 *
 * A policy is made with policy_new(), gets its rules with policy_add(), each filled through the fields and rule_add_*()
 * below, is closed with policy_finish(), and does not change any more.
 */
#ifndef PROXYD_POLICY_RULES_H
#define PROXYD_POLICY_RULES_H

#include "io/dialer.h"
#include "proxyd/nameset.h"
#include "proxyd/netset.h"
#include "proxyd/policy.h"

/* Words of `to:`, bits. */
enum policy_keyword {
    POLICY_ANY = 1,        /* everything, names too */
    POLICY_PRIVATE = 2,    /* ip_is_private(), and POLICY_OWN */
    POLICY_LOOPBACK = 4,   /* ip_is_loopback() */
    POLICY_LINK_LOCAL = 8, /* ip_is_link_local() */
    POLICY_OWN = 16,       /* addresses of the host's interfaces but loopback ones */
    POLICY_DNS = 32        /* no address: the DNS service */
};

/* The criteria of a rule; one that was not given (nothing shown) matches everything. */
enum policy_criterion { POLICY_USERS, POLICY_FROM, POLICY_TO, POLICY_PORTS, POLICY_COMMANDS, POLICY_CRITERION_COUNT };

struct port_range {
    uint16_t first, last;
};

/* What is looked at first stands first: of most rules a walk reads no more than the beginning. */
struct policy_rule {
    bool allow;
    unsigned line;
    unsigned criteria; /* those given: 1 << enum policy_criterion, bits */
    unsigned commands; /* 1 << enum socks6_command, bits */
    struct {
        unsigned keywords;       /* enum policy_keyword, bits */
        struct nameset names;    /* as struct host_name has them */
        struct nameset suffixes; /* the same, "*." dropped */
        struct netset nets;
    } to;
    struct port_range *ports; /* after policy_finish(): ascending, with gaps between them */
    size_t port_count, port_size;
    struct netset from;
    struct nameset users;

    bool has_outgoing; /* its own, even if they are none */
    struct dialer_sources outgoing;

    struct nameset shown[POLICY_CRITERION_COUNT]; /* each criterion's entries as they were written, in their order */
};

struct policy {
    struct policy_rule *rules;
    size_t count, size;
    struct dialer_sources outgoing; /* of rules without their own, and of what no rule matches */
};

/* The most addresses that a family's list may have. */
#define POLICY_OUTGOING_MAX 1024u

/* NULL = no memory. */
struct policy *policy_new(void);
/* Takes NULL. */
void policy_free(struct policy *policy);
/* An empty rule at the end; NULL = no memory. Valid until the next policy_add(). */
struct policy_rule *policy_add(struct policy *policy, bool allow, unsigned line);
void policy_finish(struct policy *policy);

/* 0 or -ENOMEM. `shown` is how the entry reads in the file. */
SOCKS6_MUST_CHECK int rule_add_user(struct policy_rule *rule, const char *user);
SOCKS6_MUST_CHECK int rule_add_from(struct policy_rule *rule, const struct net *net, const char *shown);
SOCKS6_MUST_CHECK int rule_add_to_keyword(struct policy_rule *rule, enum policy_keyword keyword, const char *shown);
SOCKS6_MUST_CHECK int rule_add_to_net(struct policy_rule *rule, const struct net *net, const char *shown);
/* `name` may begin with "*.". */
SOCKS6_MUST_CHECK int rule_add_to_name(struct policy_rule *rule, const char *name);
SOCKS6_MUST_CHECK int rule_add_ports(struct policy_rule *rule, struct port_range range, const char *shown);
SOCKS6_MUST_CHECK int rule_add_command(struct policy_rule *rule, enum socks6_command command, const char *shown);

/* To lists that belong to a policy. 0; -ENOMEM; -EEXIST = it is there already; -ENOSPC = POLICY_OUTGOING_MAX are. The port of `addr` does not matter. */
SOCKS6_MUST_CHECK int outgoing_add(struct dialer_sources *outgoing, const struct socks6_addr *addr);

/* Whether the rule has this criterion. */
bool rule_has(const struct policy_rule *rule, enum policy_criterion criterion);

/* What no rule matches: the opposite of the last rule; without rules, allowed. */
bool policy_default_allow(const struct policy *policy);

#endif
