/*
 * RUN_REVERSE: the names of an address. What NO_PROXY has is the system's; then hosts(5); then a fake address's name; then the
 * PTR records of the proxy's DNS service, aliases included (RFC 2317).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_names_internal.h"
#include "io/sock.h"

struct reverse {
    struct run_names_job job; /* first */
    struct socks6_addr addr;
    unsigned aliases;
    struct dns_name name; /* below in-addr.arpa or ip6.arpa, or its alias */
    struct dns_link_ask ask;
    uint8_t query[DNS_QUERY_MAX];
};

/* Appends a name with its NUL; as many as there is room for. */
static void put_name(struct run_names *names, const struct dns_name *name, size_t *len)
{
    if (run_name_is_host(name) && sizeof names->out - *len > DNS_NAME_MAX) {
        *len += run_name_text(name, (char *)names->out + *len) + 1;
    }
}

static void trace(struct run_names *names, struct run_names_ask *ask, const struct socks6_addr *addr, int status)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (run_names_is_traced(names)) {
        (void)inet_ntop(addr->type == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6, &addr->u, text, sizeof text);
        run_names_trace(names, ask, "%s: %s", text, status == 0 ? (const char *)names->out : gai_strerror(status));
    }
}

static void end(struct reverse *reverse, enum run_outcome outcome, size_t len)
{
    struct run_names *names = reverse->job.names;
    /* For an address there is no difference between no name and no such name. */
    int status = outcome == RUN_NODATA ? EAI_NONAME : run_outcome_status(outcome);

    trace(names, reverse->job.ask, &reverse->addr, status);
    run_job_done(&reverse->job, status, names->out, len);
}

static enum run_outcome ask_for_names(struct reverse *reverse);

/* The length of the names in an answer. */
static size_t take_names(struct reverse *reverse, const uint8_t *message, size_t len)
{
    struct dns_records records;
    struct dns_record record;
    struct dns_name name;
    size_t out_len = 0;

    if (dns_records_init(&records, message, len) != 0) {
        return 0;
    }
    while (dns_records_next(&records, &record) > 0) {
        if (record.section == DNS_ANSWER && record.type == DNS_TYPE_PTR && record.class == DNS_CLASS_IN &&
            dns_name_equal(&record.owner, &reverse->name) &&
            dns_name_read(message, len, record.rdata_offset, &name, NULL) == 0) {
            put_name(reverse->job.names, &name, &out_len);
        }
    }
    return out_len;
}

static void take_answer(struct reverse *reverse, const uint8_t *message, size_t len)
{
    enum run_outcome outcome = run_outcome_of_rcode(DNS_FLAGS_RCODE(dns_get16(message + 2)));
    unsigned aliases = reverse->aliases;
    size_t out_len;

    if (outcome != RUN_NODATA) {
        end(reverse, outcome, 0);
        return;
    }
    run_follow_aliases(message, len, &reverse->name, &reverse->aliases);
    out_len = take_names(reverse, message, len);
    if (out_len > 0) {
        end(reverse, RUN_FOUND, out_len);
    } else if (reverse->aliases == aliases || reverse->aliases == RUN_ALIASES_MAX) {
        end(reverse, RUN_NODATA, 0);
    } else {
        outcome = ask_for_names(reverse);
        if (outcome != RUN_FOUND) {
            end(reverse, outcome, 0);
        }
    }
}

static void on_answer(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct reverse *reverse = LOOP_OWNER(ask, struct reverse, ask);

    (void)failure;
    if (message != NULL) {
        take_answer(reverse, message, len);
    } else {
        end(reverse, RUN_LOST, 0);
    }
}

/* RUN_FOUND: the question is on its way. */
static enum run_outcome ask_for_names(struct reverse *reverse)
{
    int rc;

    reverse->ask = (struct dns_link_ask){.message = reverse->query,
                                         .len = run_query_build(&reverse->name, DNS_TYPE_PTR, reverse->query),
                                         .done = on_answer};
    rc = run_dns_ask(reverse->job.names->dns, &reverse->ask);
    return rc == 0 ? RUN_FOUND : rc == -ENOMEM ? RUN_NO_MEMORY : RUN_LOST;
}

static void reverse_stop(struct run_names_job *job)
{
    run_dns_cancel(job->names->dns, &LOOP_OWNER(job, struct reverse, job)->ask);
}

static void reverse_late(struct run_names_job *job)
{
    end(LOOP_OWNER(job, struct reverse, job), RUN_LOST, 0);
}

static void start_asking(struct run_names *names, struct run_names_ask *ask, const struct socks6_addr *addr)
{
    struct reverse *reverse = calloc(1, sizeof *reverse);
    enum run_outcome outcome;

    if (reverse == NULL) {
        run_names_tell(ask, EAI_MEMORY, NULL, 0);
        return;
    }
    reverse->addr = *addr;
    reverse->job.stop = reverse_stop;
    reverse->job.late = reverse_late;
    run_reverse_name(addr, &reverse->name);
    run_job_start(&reverse->job, names, ask);
    outcome = ask_for_names(reverse);
    if (outcome != RUN_FOUND) {
        end(reverse, outcome, 0);
    }
}

/* Names that are known here: 0 and their length, or an EAI_ code (negative). Positive: only the proxy knows. */
static int find_here(struct run_names *names, const struct socks6_addr *addr, size_t *len)
{
    static const struct dns_name localhost = {11, "\011localhost"};
    struct dns_name name;
    size_t at = 0;

    while (hosts_next_name(names->files.hosts, addr, &at, &name)) {
        put_name(names, &name, len);
    }
    if (*len > 0) {
        return 0;
    }
    if (sock_is_loopback(addr)) { /* this machine's, and not what the proxy makes of it */
        put_name(names, &localhost, len);
        return 0;
    }
    if (names->fake != NULL) {
        if (run_fake_name(names->fake, addr, &name)) {
            put_name(names, &name, len);
        }
        return *len > 0 ? 0 : EAI_NONAME;
    }
    return addr->type == SOCKS6_ADDR_IPV6 && IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)(const void *)addr->u.ipv6)
               ? EAI_NONAME /* which means nothing elsewhere */
               : 1;
}

void run_reverse(struct run_names *names, struct run_names_ask *ask)
{
    struct run_addr body;
    struct socks6_addr addr;
    size_t len = 0;
    int status;

    if (ask->len != sizeof body) {
        run_names_tell(ask, EAI_FAIL, NULL, 0);
        return;
    }
    memcpy(&body, ask->body, sizeof body);
    if (!run_addr_read(&body, &addr)) {
        run_names_tell(ask, EAI_FAMILY, NULL, 0);
        return;
    }
    if (names->config.is_direct_addr != NULL && names->config.is_direct_addr(names->config.user, &addr)) {
        run_names_tell(ask, RUN_ASK_SYSTEM, NULL, 0);
        return;
    }
    status = find_here(names, &addr, &len);
    if (status > 0) {
        start_asking(names, ask, &addr);
    } else {
        trace(names, ask, &addr, status);
        run_names_tell(ask, status, names->out, len);
    }
}
