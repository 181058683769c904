/*
 * What the files behind run_names.h share. A request that is not answered at once is a job: one struct per kind, which begins with
 * struct run_names_job.
 */
#ifndef CLI_RUN_NAMES_INTERNAL_H
#define CLI_RUN_NAMES_INTERNAL_H

#include <sys/queue.h>

#include "cli/run_dns.h"
#include "cli/run_fake.h"
#include "cli/run_files.h"
#include "cli/run_names.h"

/* Room for each reply but RUN_QUERY's. */
#define RUN_NAMES_OUT_MAX                                                                                              \
    (sizeof(struct run_resolved) + RUN_ADDRESSES_MAX * sizeof(struct run_addr) + (size_t)2 * DNS_NAME_MAX)

struct run_names_job {
    LIST_ENTRY(run_names_job) entry; /* of names->jobs */
    struct run_names *names;
    struct run_names_ask *ask;
    struct loop_timer timer;
    void (*stop)(struct run_names_job *job); /* cancels what it has asked */
    void (*late)(struct run_names_job *job); /* its time is over: it is to end */
};

LIST_HEAD(run_names_jobs, run_names_job);

struct run_udp;

struct run_names {
    struct run_names_config config;
    struct run_dns *dns;
    struct run_fake *fake; /* NULL = real addresses */
    struct run_files files;
    struct run_udp *udp; /* NULL until somebody wants it */
    struct run_names_jobs jobs;
    uint64_t ipv6_last_until_ms; /* the proxy has no way to IPv6, as far as we know */
    uint64_t families_until_ms;  /* what follows holds so long: */
    bool has_ipv4, has_ipv6;     /* this machine has an address of that family, loopback aside */
    uint8_t out[RUN_NAMES_OUT_MAX];
};

/* ---- run_names.c ---- */

/* Ends an ask for which there is no job. */
void run_names_tell(struct run_names_ask *ask, int status, const void *body, size_t len);
/* Begins a job; it ends by run_job_done(). `job` was calloc'ed. */
void run_job_start(struct run_names_job *job, struct run_names *names, struct run_names_ask *ask);
/* Tells, and frees the job. `body` may lie in it. */
void run_job_done(struct run_names_job *job, int status, const void *body, size_t len);
/* What is left of its time becomes at most that. */
void run_job_hurry(struct run_names_job *job, uint64_t ms);

bool run_names_is_traced(const struct run_names *names);
__attribute__((format(printf, 3, 4))) void run_names_trace(const struct run_names *names, struct run_names_ask *ask,
                                                           const char *format, ...);

/* What became of a query; `ask` NULL: it came over UDP; `answer` NULL: there is none. */
void run_names_trace_message(const struct run_names *names, struct run_names_ask *ask, const uint8_t *query,
                             size_t query_len, const uint8_t *answer, size_t answer_len);

/* An IPv4-mapped address becomes IPv4. False for AF_UNSPEC and what is no family of ours. */
bool run_addr_read(const struct run_addr *addr, struct socks6_addr *out);
struct run_addr run_addr_write(const struct socks6_addr *addr);

/* ---- one file per kind ---- */

void run_resolve(struct run_names *names, struct run_names_ask *ask);
void run_reverse(struct run_names *names, struct run_names_ask *ask);
void run_query(struct run_names *names, struct run_names_ask *ask);
void run_udp_dns(struct run_names *names, struct run_names_ask *ask);
void run_udp_free(struct run_udp *udp);

/* A query of ours for `name` into `message` (DNS_QUERY_MAX bytes). Returns its length. */
size_t run_query_build(const struct dns_name *name, uint16_t type, uint8_t *message);
/*
 * The alias of `name` in the answers of a message: true, and `name` is what it stands for. A chain of them, up to a sane length; how
 * many there were is added to `*count`.
 */
void run_follow_aliases(const uint8_t *message, size_t len, struct dns_name *name, unsigned *count);
#define RUN_ALIASES_MAX 16u

#endif
