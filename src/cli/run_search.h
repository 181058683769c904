/*
 * Which names are asked for when a program wants to know one, and what is said when none of them is there: resolv.conf(5)'s
 * `search`, `domain` and `options ndots`, LOCALDOMAIN and RES_OPTIONS, as resolver(3)'s res_search() does it. Pure.
 *
 * A walk goes from one candidate to the next:
 *
 *     run_walk_init(&walk, search, "www");
 *     while (run_walk_next(&walk, &name)) {
 *         outcome = ask for it;
 *         if (run_walk_told(&walk, outcome)) stop: this is the outcome
 *     }
 *     the outcome is run_walk_outcome(&walk)
 */
#ifndef CLI_RUN_SEARCH_H
#define CLI_RUN_SEARCH_H

#include "dns/message.h"

#define RUN_SEARCH_DOMAINS_MAX 32u /* what is more is left out */
#define RUN_SEARCH_NDOTS_MAX 15u   /* resolv.conf(5) */

struct run_search {
    size_t domain_count;
    struct dns_name domains[RUN_SEARCH_DOMAINS_MAX];
    unsigned ndots;               /* a name with as many dots is tried as it is first */
    unsigned timeout_s, attempts; /* 1..30, 1..5 */
    bool no_tld_query;            /* a name without a dot is not tried as it is, if there are domains */
    unsigned references;          /* the owner's */
};

/*
 * `text` is what resolv.conf holds; `local_domain` and `res_options` are the variables' values, `host_name` what gethostname(2) says:
 * each may be NULL.
 */
void run_search_parse(const char *text, size_t len, const char *local_domain, const char *res_options,
                      const char *host_name, struct run_search *out);

/* What came of asking for a name; the EAI_ code of getaddrinfo(3) that it means if it is the last word. */
enum run_outcome {
    RUN_FOUND,
    RUN_NXDOMAIN, /* EAI_NONAME: there is no such name */
    RUN_NODATA,   /* EAI_NODATA: it has no address of that family */
    RUN_SERVFAIL, /* EAI_AGAIN: the server could not find out; others may be tried */
    RUN_REFUSED,  /* EAI_AGAIN: the server does not want to */
    RUN_BROKEN,   /* EAI_FAIL: the server makes no sense */
    RUN_LOST,     /* EAI_AGAIN: there is no answer at all */
    RUN_NO_MEMORY /* EAI_MEMORY */
};

/* From an answer's rcode, for one that has no records. */
enum run_outcome run_outcome_of_rcode(unsigned rcode);
/* 0 or an EAI_ code. */
int run_outcome_status(enum run_outcome outcome);

struct run_walk {
    const struct run_search *search; /* borrowed */
    struct dns_name name;            /* as it was given */
    unsigned dots;
    bool is_absolute;  /* given with a final dot */
    bool tried_as_is;  /* first of all, or as the root in the list of domains */
    bool is_over;      /* no further domains */
    bool at_as_is;     /* the candidate is the name as it is */
    size_t next;       /* domain */
    bool has_searched; /* a domain was tried */
    bool had_nodata, had_servfail, has_first;
    enum run_outcome first, last; /* of the name as it is, tried first; of the candidate before */
};

/* Letters, digits, `-` and `_` between dots, without `-` at the start: what libc takes for a host's name. */
bool run_name_is_host(const struct dns_name *name);
/* `localhost` and what is below it: loopback (RFC 6761 section 6.3). */
bool run_name_is_localhost(const struct dns_name *name);
/*
 * Whether it makes sense to ask for such a name's addresses: not below `invalid` (RFC 6761 section 6.4), and no address with a slip in it: a
 * top-level domain is never a number (RFC 3696 section 2).
 */
bool run_name_is_askable(const struct dns_name *name);
/* Such a name without its final dot. `text` has DNS_NAME_MAX + 1 bytes. Returns the length without NUL. */
size_t run_name_text(const struct dns_name *name, char text[DNS_NAME_MAX + 1]);

/* `text` is no numeric address. False: this can be nobody's name (RUN_NXDOMAIN). */
bool run_walk_init(struct run_walk *walk, const struct run_search *search, const char *text);
/* The next candidate; false: that was all. */
bool run_walk_next(struct run_walk *walk, struct dns_name *out);
/* True: nothing else is to be tried, and this is the outcome. */
bool run_walk_told(struct run_walk *walk, enum run_outcome outcome);
/* After all of them. */
enum run_outcome run_walk_outcome(const struct run_walk *walk);

#endif
