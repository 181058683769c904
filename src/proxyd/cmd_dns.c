#include "proxyd/cmd_dns.h"

#include <string.h>
#include <sys/socket.h>

#include "proxyd/reply_map.h"

#define DNS_PORT 53

static void outcome_init(struct connect_outcome *outcome, enum socks6_reply_code code, const char *why)
{
    memset(outcome, 0, sizeof *outcome);
    outcome->code = code;
    outcome->fd = -1;
    outcome->why = why;
}

bool cmd_dns_is_meant(const struct config *config, const struct socks6_addr *addr, unsigned version)
{
    bool is_offered = version == SOCKS6_VERSION || (version == 5 && config->dns.service_socks5);
    struct socks6_addr plain = *addr;

    socks6_addr_normalize(&plain);
    return is_offered && plain.port == DNS_PORT && socks6_addr_is_unspecified(&plain);
}

/* The client is told nothing of the server behind: the bound address stays unspecified, as if it were built in. */
static void on_dialed(void *user, const struct dialer_result *result)
{
    struct dns_relay_job *job = user;
    struct connect_outcome outcome;

    job->dialer = NULL;
    dns_lookup_cancel(job->lookup);
    job->lookup = NULL;
    if (result->fd >= 0) {
        static const uint8_t unspecified[4];
        outcome_init(&outcome, SOCKS6_REPLY_SUCCESS, "");
        outcome.fd = result->fd;
        outcome.fd_is_parked = result->is_parked;
        outcome.bound = socks6_addr_ipv4(unspecified, 0);
    } else if (result->attempts == 0) {
        outcome_init(&outcome, SOCKS6_REPLY_FAILURE, "the DNS server's name has no address");
    } else {
        outcome_init(&outcome, reply_map_errno(result->error), "the DNS server cannot be reached");
    }
    outcome.dialled = result->peer;
    job->done(job, &outcome);
}

static void on_answer(void *user, const struct dns_lookup_answer *answer)
{
    struct dns_relay_job *job = user;

    for (size_t i = 0; i < answer->count; i++) {
        dialer_add(job->dialer, &answer->addrs[i], NULL);
    }
    if (++job->answer_count == 2) {
        job->lookup = NULL; /* it is gone after this call */
    }
    dialer_add_end(job->dialer, answer->family == AF_INET ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6);
}

/* The rules were asked for the service; which server is behind it is the administrator's choice. 0 or -errno. */
static int start_relay(struct dns_relay_job *job)
{
    const struct socks6_addr *relay = &job->config->dns.relay;
    const struct dialer_config config = {
        .eyeballs = job->config->happy_eyeballs.race,
        .timeout_ms = job->config->limits.connect_ms,
    };

    if (relay->type != SOCKS6_ADDR_NAME) {
        return dialer_start(job->loop, &config, relay, 1, on_dialed, job, &job->dialer);
    }
    job->answer_count = 0;
    int err = dialer_open(job->loop, &config, on_dialed, job, &job->dialer);
    if (err != 0) {
        return err;
    }
    err = dns_lookup_start(job->dns, relay->u.name, relay->port, DNS_LOOKUP_BOTH, on_answer, job, &job->lookup);
    if (err != 0) {
        job->lookup = NULL;
        dialer_cancel(job->dialer);
        job->dialer = NULL;
    }
    return err;
}

enum cmd_dns_verdict cmd_dns_start(struct dns_relay_job *job, const struct policy_request *request,
                                   struct connect_outcome *outcome)
{
    const struct config_dns *dns = &job->config->dns;

    if (!dns->service) {
        outcome_init(outcome, SOCKS6_REPLY_REFUSED, "no DNS service");
        return CMD_DNS_REFUSED;
    }
    struct policy_result result = policy_check_dns(job->config->policy, request);
    if (result.verdict != POLICY_ALLOW) {
        outcome_init(outcome, SOCKS6_REPLY_NOT_ALLOWED, result.why);
        outcome->rule_line = result.line;
        return CMD_DNS_REFUSED;
    }
    if (dns->relay.type == 0) {
        outcome_init(outcome, SOCKS6_REPLY_SUCCESS, "");
        return CMD_DNS_BUILT_IN;
    }
    int err = start_relay(job);
    if (err != 0) {
        outcome_init(outcome, reply_map_errno(-err), "the DNS server cannot be reached");
        return CMD_DNS_REFUSED;
    }
    return CMD_DNS_RELAYED;
}

void cmd_dns_cancel(struct dns_relay_job *job)
{
    dns_lookup_cancel(job->lookup);
    job->lookup = NULL;
    dialer_cancel(job->dialer);
    job->dialer = NULL;
}
