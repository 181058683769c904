/*
 * CONNECT to port 53 of the unspecified address: "DNS Provided by SOCKS". Who may have it, and whether it is built in,
 * handed to another server, or off.
 *
 * Helper of conn_command.c. The service itself is in dns_service.h.
 */
#ifndef PROXYD_CMD_DNS_H
#define PROXYD_CMD_DNS_H

#include "proxyd/cmd_connect.h"

/* A stream to the server of `dns.relay`. */
struct dns_relay_job {
    struct loop *loop;
    struct dns_client *dns;
    const struct config *config;

    void (*done)(struct dns_relay_job *job, const struct connect_outcome *outcome);

    /* Its own from here on. */
    struct dialer *dialer;
    struct dns_lookup *lookup;
    unsigned answer_count;
};

/* Whether a request to `addr` means the service: SOCKS 6, or SOCKS 5 where the configuration says so. */
bool cmd_dns_is_meant(const struct config *config, const struct socks6_addr *addr, unsigned version);

enum cmd_dns_verdict {
    CMD_DNS_REFUSED,  /* `outcome` says why */
    CMD_DNS_BUILT_IN, /* reply with `outcome`, a success without a descriptor, then dns_service_start() */
    CMD_DNS_RELAYED   /* job->done will be called with the outcome */
};

/* `request` says who asks for what. The job's fields above its own are set before. */
enum cmd_dns_verdict cmd_dns_start(struct dns_relay_job *job, const struct policy_request *request,
                                   struct connect_outcome *outcome);
/* `done` will not be called. No effect on a job that is done or was never started (zeroed). */
void cmd_dns_cancel(struct dns_relay_job *job);

#endif
