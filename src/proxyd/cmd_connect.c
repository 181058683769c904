#include "proxyd/cmd_connect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/reply_map.h"

/* "DNS Provided by SOCKS": this port of the unspecified address is the proxy's own DNS service. */
#define DNS_PORT 53

static void outcome_init(struct connect_outcome *outcome, enum socks6_reply_code code, const char *why)
{
    memset(outcome, 0, sizeof *outcome);
    outcome->code = code;
    outcome->fd = -1;
    outcome->why = why;
}

static void outcome_denied(struct connect_outcome *outcome, const struct policy_result *result)
{
    outcome_init(outcome, SOCKS6_REPLY_NOT_ALLOWED, result->why);
    outcome->rule_line = result->line;
}

static struct policy_request request_for(const struct connect_job *job, const struct socks6_addr *addr)
{
    return (struct policy_request){
        .client = job->client,
        .user = NULL,
        .command = SOCKS6_COMMAND_CONNECT,
        .name = job->addr.type == SOCKS6_ADDR_NAME ? job->addr.u.name : NULL,
        .addr = addr,
    };
}

static const char *why_dial_failed(int error)
{
    switch (error) {
    case DIALER_TTL_EXPIRED:
        return "TTL expired";
    case ECONNREFUSED:
        return "connection refused";
    case ETIMEDOUT:
        return "connect timeout";
    case EADDRNOTAVAIL:
        return "no local address or port";
    case EMFILE:
    case ENFILE:
        return "out of descriptors";
    case ENOMEM:
    case ENOBUFS:
        return "out of memory";
    default:
        return socks6_reply_name(reply_map_errno(error));
    }
}

static void on_dialed(void *user, const struct dialer_result *result)
{
    struct connect_job *job = user;
    struct connect_outcome outcome;

    job->dialer = NULL;
    if (result->fd >= 0) {
        outcome_init(&outcome, SOCKS6_REPLY_SUCCESS, "");
        outcome.fd = result->fd;
        outcome.bound = result->local;
    } else {
        outcome_init(&outcome, reply_map_errno(result->error), why_dial_failed(result->error));
    }
    outcome.dialled = result->peer;
    outcome.unavailable_count = result->unavailable_count;
    outcome.unavailable = result->unavailable;
    job->done(job, &outcome);
}

/* true: it could not be started, and `outcome` says so. */
static bool dial(struct connect_job *job, const struct socks6_addr *addrs, size_t count,
                 struct connect_outcome *outcome)
{
    uint64_t now = loop_now_ms(job->loop);
    const struct dialer_config config = {
        .timeout_ms = job->deadline_ms > now ? job->deadline_ms - now : 1,
        .sources = job->sources,
        .turn = job->source_turn,
    };
    int err = dialer_start(job->loop, &config, addrs, count, on_dialed, job, &job->dialer);
    if (err == 0) {
        return false;
    }
    outcome_init(outcome, reply_map_errno(-err), why_dial_failed(-err));
    return true;
}

/* Keeps the addresses that the rules allow; returns how many, and in `denied` why the others are not. */
static size_t filter_addrs(const struct connect_job *job, const struct resolver_answer *answer,
                           struct socks6_addr *permitted, struct policy_result *denied)
{
    size_t count = 0;
    for (size_t i = 0; i < answer->count; i++) {
        struct socks6_addr addr = answer->addrs[i];
        socks6_addr_normalize(&addr);
        struct policy_request request = request_for(job, &addr);
        struct policy_result result = policy_check_addr(job->config->policy, job->local, &request);
        if (result.verdict == POLICY_ALLOW) {
            permitted[count++] = addr;
        } else {
            *denied = result;
        }
    }
    return count;
}

/* The rules apply again to each address that would really be dialled; what they leave is dialled, and nothing else. */
static bool dial_permitted(struct connect_job *job, const struct resolver_answer *answer,
                           struct connect_outcome *outcome)
{
    struct policy_result denied = {.verdict = POLICY_DENY, .why = "denied: no address"};
    struct socks6_addr *permitted = calloc(answer->count, sizeof *permitted);
    bool is_over = true;

    if (permitted == NULL) {
        outcome_init(outcome, SOCKS6_REPLY_FAILURE, "out of memory");
        return true;
    }
    size_t count = filter_addrs(job, answer, permitted, &denied);
    if (count == 0) {
        outcome_denied(outcome, &denied);
    } else {
        is_over = dial(job, permitted, count, outcome);
    }
    free(permitted);
    return is_over;
}

static void on_resolved(void *user, const struct resolver_answer *answer)
{
    struct connect_job *job = user;
    struct connect_outcome outcome;
    bool is_over = true;

    job->query = NULL;
    loop_timer_cancel(job->loop, &job->timer);
    switch (answer->status) {
    case RESOLVER_OK:
        is_over = dial_permitted(job, answer, &outcome);
        break;
    case RESOLVER_NO_ADDRESS:
        outcome_init(&outcome, SOCKS6_REPLY_HOST_UNREACHABLE, "name has no address");
        break;
    case RESOLVER_FAILED:
        outcome_init(&outcome, SOCKS6_REPLY_FAILURE, "resolver failure");
        break;
    }
    if (is_over) {
        job->done(job, &outcome);
    }
}

static void on_resolve_timeout(struct loop_timer *timer)
{
    struct connect_job *job = LOOP_OWNER(timer, struct connect_job, timer);
    struct connect_outcome outcome;

    resolver_cancel(job->query);
    job->query = NULL;
    outcome_init(&outcome, SOCKS6_REPLY_FAILURE, "resolver timeout");
    job->done(job, &outcome);
}

static bool start_name(struct connect_job *job, struct connect_outcome *outcome)
{
    struct policy_request request = request_for(job, &job->addr);
    struct policy_result result = policy_check_name(job->config->policy, &request);
    if (result.verdict == POLICY_DENY) {
        outcome_denied(outcome, &result);
        return true;
    }
    int err = resolver_ask(job->resolver, job->loop, job->addr.u.name, job->addr.port, on_resolved, job, &job->query);
    if (err != 0) {
        job->query = NULL;
        outcome_init(outcome, SOCKS6_REPLY_FAILURE, err == -EAGAIN ? "resolver queue full" : "out of memory");
        return true;
    }
    job->timer.expired = on_resolve_timeout;
    loop_timer_set(job->loop, &job->timer, job->config->limits.connect_ms);
    return false;
}

bool cmd_connect_start(struct connect_job *job, const struct socks6_addr *addr, bool is_socks6,
                       struct connect_outcome *outcome)
{
    job->addr = *addr;
    job->deadline_ms = loop_now_ms(job->loop) + job->config->limits.connect_ms;
    socks6_addr_normalize(&job->addr);

    if (job->addr.type == SOCKS6_ADDR_NAME) {
        return start_name(job, outcome);
    }
    if (is_socks6 && job->addr.port == DNS_PORT && socks6_addr_is_unspecified(&job->addr)) {
        outcome_init(outcome, SOCKS6_REPLY_REFUSED, "no DNS service");
        return true;
    }
    struct policy_request request = request_for(job, &job->addr);
    struct policy_result result = policy_check_addr(job->config->policy, job->local, &request);
    if (result.verdict != POLICY_ALLOW) {
        outcome_denied(outcome, &result);
        return true;
    }
    return dial(job, &job->addr, 1, outcome);
}

void cmd_connect_cancel(struct connect_job *job)
{
    if (job->query != NULL) {
        resolver_cancel(job->query);
        job->query = NULL;
        loop_timer_cancel(job->loop, &job->timer);
    }
    dialer_cancel(job->dialer);
    job->dialer = NULL;
}
