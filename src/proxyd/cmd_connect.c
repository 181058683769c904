#include "proxyd/cmd_connect.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "proxyd/reply_map.h"

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
        .user = job->user,
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

/* An option of the client's for the connection to the server; NULL: it sent none such. */
static const struct socks6_stack_option *find_option(const struct connect_job *job, enum socks6_level level,
                                                     enum socks6_stack_code code)
{
    for (size_t i = 0; i < job->stack_count; i++) {
        const struct socks6_stack_option *option = &job->stack[i];
        if (option->leg == SOCKS6_LEG_PROXY_REMOTE && option->level == level && option->code == code) {
            return option;
        }
    }
    return NULL;
}

/* ---- TCP Fast Open ---- */

static const struct socks6_stack_option *fast_open_option(const struct connect_job *job)
{
    return find_option(job, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN);
}

/* "TFO": the client's bytes, as far as the option allows. */
static struct socks6_slice payload_for(void *user)
{
    struct connect_job *job = user;
    struct socks6_slice payload = job->payload(job);
    uint16_t bound = fast_open_option(job)->value;

    if (bound != 0 && payload.len > bound) {
        payload.len = bound;
    }
    return payload;
}

/* Says how many bytes the server took with the SYN. */
static void answer_fast_open(const struct connect_job *job, size_t in_syn, struct connect_outcome *outcome)
{
    const struct socks6_stack_option *option = fast_open_option(job);
    if (option != NULL) {
        struct socks6_stack_option answer = *option;
        answer.value = in_syn < UINT16_MAX ? (uint16_t)in_syn : UINT16_MAX;
        outcome->stack[outcome->stack_count++] = answer;
    }
}

/* ---- Happy Eyeballs ---- */

/* The client's option; NULL: it sent none that applies here, since the destination is no name. */
static const struct socks6_stack_option *eyeballs_option(const struct connect_job *job)
{
    return job->addr.type == SOCKS6_ADDR_NAME ? find_option(job, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS) : NULL;
}

/* The form up to -10 has no value: its presence is the wish (UNSTATED). */
static bool wants_race(const struct connect_job *job)
{
    const struct socks6_stack_option *option = eyeballs_option(job);
    if (!job->is_socks6) {
        return job->config->happy_eyeballs.legacy;
    }
    return option != NULL && SOCKS6_STACK_FIRST(option->value) != SOCKS6_AVAILABILITY_NO;
}

/* "Happy Eyeballs": says what was done, in the form of the question, whose older one can only say that it was. */
static void answer_eyeballs(const struct connect_job *job, bool was_raced, struct connect_outcome *outcome)
{
    const struct socks6_stack_option *option = eyeballs_option(job);
    if (option == NULL) {
        return;
    }
    bool is_old_form = SOCKS6_STACK_FIRST(option->value) == SOCKS6_AVAILABILITY_UNSTATED;
    if (is_old_form && !was_raced) {
        return;
    }
    struct socks6_stack_option answer = *option;
    if (!is_old_form) {
        answer.value = SOCKS6_STACK_VALUE(was_raced ? SOCKS6_AVAILABILITY_YES : SOCKS6_AVAILABILITY_NO, 0);
    }
    outcome->stack[outcome->stack_count++] = answer;
}

/* What the next request for this name is to begin with. */
static void remember(const struct connect_job *job, const struct dialer_result *result)
{
    if (!job->is_race) {
        return;
    }
    if (result->fd >= 0) {
        winners_put(job->winners, &job->addr, &result->peer, loop_now_ms(job->loop),
                    job->config->happy_eyeballs.remember_ms);
    } else if (result->attempts > 0) {
        winners_forget(job->winners, &job->addr);
    }
}

/* ---- dialling ---- */

/* Nothing was dialled, though a name was to be. */
static void outcome_without_address(const struct connect_job *job, const struct dialer_result *result,
                                    struct connect_outcome *outcome)
{
    if (job->is_denied) {
        outcome_init(outcome, SOCKS6_REPLY_NOT_ALLOWED, job->denied_why);
        outcome->rule_line = job->denied_line;
    } else if (result->error != DIALER_NO_ADDRESS) {
        outcome_init(outcome, SOCKS6_REPLY_FAILURE, "resolver timeout");
    } else if (job->has_failed_answer) {
        outcome_init(outcome, SOCKS6_REPLY_FAILURE, "resolver failure");
    } else {
        outcome_init(outcome, SOCKS6_REPLY_HOST_UNREACHABLE, "name has no address");
    }
}

static void on_dialed(void *user, const struct dialer_result *result)
{
    struct connect_job *job = user;
    struct connect_outcome outcome;

    job->dialer = NULL;
    dns_lookup_cancel(job->lookup); /* the other family's answer is not needed any more */
    job->lookup = NULL;
    if (result->fd >= 0) {
        outcome_init(&outcome, SOCKS6_REPLY_SUCCESS, "");
        outcome.fd = result->fd;
        outcome.fd_is_parked = result->is_parked;
        outcome.bound = result->local;
        outcome.payload_taken = result->payload_taken;
    } else if (result->attempts == 0 && job->addr.type == SOCKS6_ADDR_NAME) {
        outcome_without_address(job, result, &outcome);
    } else {
        outcome_init(&outcome, reply_map_errno(result->error), why_dial_failed(result->error));
    }
    outcome.dialled = result->peer;
    outcome.unavailable_count = result->unavailable_count;
    outcome.unavailable = result->unavailable;
    answer_eyeballs(job, job->is_race && result->attempts > 0, &outcome);
    answer_fast_open(job, result->payload_in_syn ? result->payload_taken : 0, &outcome);
    remember(job, result);
    job->done(job, &outcome);
}

static struct dialer_config dialer_config_for(const struct connect_job *job)
{
    struct dialer_config config = {
        .eyeballs = job->config->happy_eyeballs.race,
        .timeout_ms = job->config->limits.connect_ms,
        .payload = fast_open_option(job) != NULL ? payload_for : NULL,
        .turn = job->source_turn,
    };
    config.eyeballs.race = job->is_race;
    return config;
}

static bool start_address(struct connect_job *job, struct connect_outcome *outcome)
{
    struct policy_request request = request_for(job, &job->addr);
    struct policy_result result = policy_check_addr(job->config->policy, job->local, &request);
    if (result.verdict != POLICY_ALLOW) {
        outcome_denied(outcome, &result);
        return true;
    }
    struct dialer_config config = dialer_config_for(job);
    config.sources = result.outgoing;
    int err = dialer_start(job->loop, &config, &job->addr, 1, on_dialed, job, &job->dialer);
    if (err != 0) {
        outcome_init(outcome, reply_map_errno(-err), why_dial_failed(-err));
        return true;
    }
    return false;
}

/* ---- names ---- */

/* The rules apply again to each address that would really be dialled; those that they leave go to the dialer, each with
   the outgoing addresses of its rule. */
static void add_permitted(struct connect_job *job, struct socks6_addr addr)
{
    socks6_addr_normalize(&addr);
    struct policy_request request = request_for(job, &addr);
    struct policy_result result = policy_check_addr(job->config->policy, job->local, &request);
    if (result.verdict == POLICY_ALLOW) {
        dialer_add(job->dialer, &addr, result.outgoing);
    } else if (!job->is_denied) {
        job->is_denied = true;
        job->denied_why = result.why;
        job->denied_line = result.line;
    }
}

/* One family's answer. */
static void on_answer(void *user, const struct dns_lookup_answer *answer)
{
    struct connect_job *job = user;

    for (size_t i = 0; i < answer->count; i++) {
        add_permitted(job, answer->addrs[i]);
    }
    job->has_failed_answer = job->has_failed_answer || answer->status == DNS_LOOKUP_FAILED;
    if (++job->answer_count == 2) {
        job->lookup = NULL; /* it is gone after this call */
    }
    dialer_add_end(job->dialer, answer->family == AF_INET ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6);
}

/* Look-up and dialer run side by side: the first address is dialled while the other family's answer is on its way. */
static int start_dialling(struct connect_job *job)
{
    struct dialer_config config = dialer_config_for(job);
    struct socks6_addr remembered;

    if (job->is_race && winners_find(job->winners, &job->addr, loop_now_ms(job->loop), &remembered)) {
        config.remembered = &remembered;
    }
    int err = dialer_open(job->loop, &config, on_dialed, job, &job->dialer);
    if (err != 0) {
        return err;
    }
    err = dns_lookup_start(job->dns, job->addr.u.name, job->addr.port, DNS_LOOKUP_BOTH, on_answer, job, &job->lookup);
    if (err != 0) {
        dialer_cancel(job->dialer);
        job->dialer = NULL;
        job->lookup = NULL;
    }
    return err;
}

static bool start_name(struct connect_job *job, struct connect_outcome *outcome)
{
    struct policy_request request = request_for(job, &job->addr);
    struct policy_result result = policy_check_name(job->config->policy, &request);

    job->is_race = wants_race(job);
    if (result.verdict == POLICY_DENY) {
        outcome_denied(outcome, &result);
    } else {
        int err = start_dialling(job);
        if (err == 0) {
            return false;
        }
        outcome_init(outcome, SOCKS6_REPLY_FAILURE, err == -EAGAIN ? "resolver queue full" : "out of memory");
    }
    answer_eyeballs(job, false, outcome);
    return true;
}

static bool start(struct connect_job *job, struct connect_outcome *outcome)
{
    return job->addr.type == SOCKS6_ADDR_NAME ? start_name(job, outcome) : start_address(job, outcome);
}

bool cmd_connect_start(struct connect_job *job, const struct socks6_addr *addr, struct connect_outcome *outcome)
{
    job->addr = *addr;
    socks6_addr_normalize(&job->addr);

    if (!start(job, outcome)) {
        return false;
    }
    answer_fast_open(job, 0, outcome);
    return true;
}

void cmd_connect_cancel(struct connect_job *job)
{
    dns_lookup_cancel(job->lookup);
    job->lookup = NULL;
    dialer_cancel(job->dialer);
    job->dialer = NULL;
}
