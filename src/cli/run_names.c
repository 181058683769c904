#include "cli/run_names.h"

#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_names_internal.h"
#include "dns/random.h"
#include "dns/text.h"

/* Whether the proxy has a way to IPv6 is asked anew after that time. */
#define IPV6_LAST_MS 600000u
#define TRACE_MAX 1024u

/* ---- addresses ---- */

bool run_addr_read(const struct run_addr *addr, struct socks6_addr *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (addr->family == AF_INET6 && memcmp(addr->bytes, mapped, sizeof mapped) == 0) {
        *out = dns_addr(SOCKS6_ADDR_IPV4, addr->bytes + sizeof mapped, addr->port);
    } else if (addr->family == AF_INET6) {
        *out = dns_addr(SOCKS6_ADDR_IPV6, addr->bytes, addr->port);
    } else if (addr->family == AF_INET) {
        *out = dns_addr(SOCKS6_ADDR_IPV4, addr->bytes, addr->port);
    } else {
        return false;
    }
    return true;
}

struct run_addr run_addr_write(const struct socks6_addr *addr)
{
    bool is_ipv4 = addr->type == SOCKS6_ADDR_IPV4;
    struct run_addr out = {.family = is_ipv4 ? AF_INET : AF_INET6, .port = addr->port};

    memcpy(out.bytes, is_ipv4 ? addr->u.ipv4 : addr->u.ipv6, is_ipv4 ? 4 : 16);
    return out;
}

/* ---- jobs ---- */

void run_names_tell(struct run_names_ask *ask, int status, const void *body, size_t len)
{
    ask->job = NULL;
    ask->done(ask, status, body, len);
}

static void on_timer(struct loop_timer *timer)
{
    struct run_names_job *job = LOOP_OWNER(timer, struct run_names_job, timer);

    job->late(job);
}

void run_job_start(struct run_names_job *job, struct run_names *names, struct run_names_ask *ask)
{
    const struct run_search *search = names->files.search;

    job->names = names;
    job->ask = ask;
    job->timer.expired = on_timer;
    ask->job = job;
    LIST_INSERT_HEAD(&names->jobs, job, entry);
    loop_timer_set(names->config.loop, &job->timer, (uint64_t)search->timeout_s * search->attempts * 1000);
}

static void job_end(struct run_names_job *job)
{
    job->ask->job = NULL;
    job->stop(job);
    loop_timer_cancel(job->names->config.loop, &job->timer);
    LIST_REMOVE(job, entry);
}

void run_job_done(struct run_names_job *job, int status, const void *body, size_t len)
{
    job_end(job);
    job->ask->done(job->ask, status, body, len);
    free(job);
}

void run_job_hurry(struct run_names_job *job, uint64_t ms)
{
    struct loop *loop = job->names->config.loop;

    if (!loop_timer_is_armed(&job->timer) || job->timer.due_ms > loop_now_ms(loop) + ms) {
        loop_timer_set(loop, &job->timer, ms);
    }
}

/* ---- tracing ---- */

bool run_names_is_traced(const struct run_names *names)
{
    return names->config.trace != NULL;
}

void run_names_trace(const struct run_names *names, struct run_names_ask *ask, const char *format, ...)
{
    char text[TRACE_MAX];
    va_list args;

    if (names->config.trace != NULL) {
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        names->config.trace(names->config.user, ask, text);
    }
}

/* ---- messages ---- */

size_t run_query_build(const struct dns_name *name, uint16_t type, uint8_t *message)
{
    const struct dns_query query = {.flags = DNS_FLAG_RD, .name = name, .type = type, .class = DNS_CLASS_IN};
    size_t len = 0;

    return dns_query_build(&query, message, DNS_QUERY_MAX, &len) == 0 ? len : 0; /* DNS_QUERY_MAX is enough for all */
}

static bool follow_alias(const uint8_t *message, size_t len, struct dns_name *name)
{
    struct dns_records records;
    struct dns_record record;

    if (dns_records_init(&records, message, len) != 0) {
        return false;
    }
    while (dns_records_next(&records, &record) > 0 && record.section == DNS_ANSWER) {
        if (record.type == DNS_TYPE_CNAME && record.class == DNS_CLASS_IN && dns_name_equal(&record.owner, name)) {
            return dns_name_read(message, len, record.rdata_offset, name, NULL) == 0;
        }
    }
    return false;
}

void run_follow_aliases(const uint8_t *message, size_t len, struct dns_name *name, unsigned *count)
{
    while (*count < RUN_ALIASES_MAX && follow_alias(message, len, name)) {
        (*count)++;
    }
}

/* ---- whole messages ---- */

struct query_job {
    struct run_names_job job; /* first */
    struct dns_link_ask ask;
    uint8_t message[];
};

static void query_stop(struct run_names_job *job)
{
    run_dns_cancel(job->names->dns, &LOOP_OWNER(job, struct query_job, job)->ask);
}

static void query_late(struct run_names_job *job)
{
    run_job_done(job, ETIMEDOUT, NULL, 0);
}

void run_names_trace_message(const struct run_names *names, struct run_names_ask *ask, const uint8_t *query,
                             size_t query_len, const uint8_t *answer, size_t answer_len)
{
    char name[DNS_NAME_TEXT_MAX], type[DNS_MNEMONIC_MAX], outcome[DNS_MNEMONIC_MAX];
    struct dns_question question;
    struct dns_header header;

    if (!run_names_is_traced(names) || dns_question_read(query, query_len, &question, NULL) != 0) {
        return;
    }
    (void)dns_name_format(&question.name, name);
    (void)dns_type_format(question.type, type);
    if (answer == NULL || dns_header_read(answer, answer_len, &header) != 0) {
        run_names_trace(names, ask, "query for %s %s: no answer", name, type);
        return;
    }
    (void)dns_rcode_format(DNS_FLAGS_RCODE(header.flags), outcome);
    run_names_trace(names, ask, "query for %s %s: %s, %u records", name, type, outcome,
                    (unsigned)header.count[DNS_ANSWER]);
}

static void on_answer(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct query_job *query = LOOP_OWNER(ask, struct query_job, ask);

    run_names_trace_message(query->job.names, query->job.ask, ask->message, ask->len, message, len);
    if (message != NULL) {
        run_job_done(&query->job, 0, message, len);
    } else {
        run_job_done(&query->job, failure == DNS_LINK_TIMED_OUT ? ETIMEDOUT : ECONNREFUSED, NULL, 0);
    }
}

void run_query(struct run_names *names, struct run_names_ask *ask)
{
    struct query_job *query;
    int rc;

    if (ask->len > DNS_MESSAGE_MAX) {
        run_names_tell(ask, EMSGSIZE, NULL, 0);
        return;
    }
    query = calloc(1, sizeof *query + ask->len);
    if (query == NULL) {
        run_names_tell(ask, ENOMEM, NULL, 0);
        return;
    }
    if (ask->len > 0) {
        memcpy(query->message, ask->body, ask->len);
    }
    query->ask.message = query->message;
    query->ask.len = ask->len;
    query->ask.done = on_answer;
    query->job.stop = query_stop;
    query->job.late = query_late;
    rc = run_dns_ask(names->dns, &query->ask);
    if (rc != 0) {
        free(query);
        run_names_tell(ask, -rc, NULL, 0);
        return;
    }
    run_job_start(&query->job, names, ask);
}

/* ---- asks ---- */

void run_names_ask(struct run_names *names, struct run_names_ask *ask)
{
    ask->job = NULL;
    run_files_look(&names->files, loop_now_ms(names->config.loop));
    if (ask->kind == RUN_RESOLVE) {
        run_resolve(names, ask);
    } else if (ask->kind == RUN_REVERSE) {
        run_reverse(names, ask);
    } else if (ask->kind == RUN_QUERY) {
        run_query(names, ask);
    } else if (ask->kind == RUN_UDP_DNS) {
        run_udp_dns(names, ask);
    } else {
        run_names_tell(ask, EINVAL, NULL, 0);
    }
}

void run_names_cancel(struct run_names *names, struct run_names_ask *ask)
{
    struct run_names_job *job = ask->job;

    (void)names;
    if (job != NULL) {
        job_end(job);
        free(job);
    }
}

/* ---- what others tell us, and ask ---- */

bool run_names_is_fake(const struct run_names *names, const struct run_addr *addr)
{
    struct socks6_addr read;

    return names->fake != NULL && run_addr_read(addr, &read) && run_fake_has(names->fake, &read);
}

bool run_names_fake(struct run_names *names, const struct run_addr *addr, struct socks6_addr *out)
{
    char text[DNS_NAME_MAX + 1];
    struct socks6_addr read;
    struct dns_name name;

    if (names->fake == NULL || !run_addr_read(addr, &read) || !run_fake_name(names->fake, &read, &name)) {
        return false;
    }
    return socks6_addr_name(text, run_name_text(&name, text), addr->port, out) != 0;
}

void run_names_connected(struct run_names *names, uint16_t family, bool has_route)
{
    if (family == AF_INET6) {
        names->ipv6_last_until_ms = has_route ? 0 : loop_now_ms(names->config.loop) + IPV6_LAST_MS;
    }
}

void run_names_service_text(const char *why, bool is_absent, char *text, size_t size)
{
    if (why == NULL) {
        (void)snprintf(text, size, "names can be looked up again");
    } else if (is_absent) {
        (void)snprintf(text, size,
                       "no names can be looked up: %s; with --fake-names programs are given addresses that stand for "
                       "names, and the proxy looks a name up when they connect",
                       why);
    } else {
        (void)snprintf(text, size, "no names can be looked up until that changes: %s", why);
    }
}

/* ---- life ---- */

uint64_t run_names_timeout_ms(const char *resolv_conf)
{
    static const struct siphash_key key = {0, 0}; /* no name is looked up */
    struct run_files files;
    uint64_t ms = 10000;

    if (run_files_init(&files, "/dev/null", resolv_conf, &key, 0) == 0) {
        ms = (uint64_t)files.search->timeout_s * files.search->attempts * 1000;
        run_files_done(&files);
    }
    return ms;
}

int run_names_new(const struct run_names_config *config, struct run_names **out)
{
    struct run_names *names = calloc(1, sizeof *names);
    struct run_dns_config dns = {.loop = config->loop, .link = config->link};
    int rc;

    if (names == NULL) {
        return -ENOMEM;
    }
    names->config = *config;
    LIST_INIT(&names->jobs);
    dns_random_fill(&dns.key, sizeof dns.key);
    rc = run_files_init(&names->files, config->hosts, config->resolv_conf, &dns.key, loop_now_ms(config->loop));
    if (rc == 0 && config->fake) {
        names->fake = dns.fake = run_fake_new(&dns.key, RUN_FAKE_NAMES_MAX);
        rc = names->fake != NULL ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        rc = run_dns_new(&dns, &names->dns);
    }
    if (rc != 0) {
        run_names_free(names);
        return rc;
    }
    *out = names;
    return 0;
}

void run_names_free(struct run_names *names)
{
    if (names == NULL) {
        return;
    }
    run_dns_free(names->dns); /* ends the jobs that wait for it, which are all */
    run_udp_free(names->udp);
    run_fake_free(names->fake);
    run_files_done(&names->files);
    free(names);
}
