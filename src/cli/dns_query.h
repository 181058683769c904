/*
 * Questions to the proxy's DNS service, many at a time over one connection (RFC 7766 section 6.2.1.1), for a program
 * that does nothing else meanwhile. Called by cmd_dns.c.
 */
#ifndef CLI_DNS_QUERY_H
#define CLI_DNS_QUERY_H

#include "cli/dns_args.h"

/* Questions that are on their way, or whose answers wait for those of earlier ones. */
#define DNS_QUERY_WINDOW 100u

struct dns_query_config {
    const struct socks6_proxy *proxy;
    const struct dns_args *args;
    /*
     * Called once for each question, in their order. `message` is NULL if there is no answer; then `why` says why not.
     * The message belongs to the question; whether it is well-formed is for the callback to find out.
     */
    void (*done)(void *user, const struct dns_question *question, const uint8_t *message, size_t len, uint64_t time_ms,
                 const char *why);
    void *user;
};

/*
 * Returns CLI_EXIT_OK if done() was called for all questions. Else the proxy could not be used, an error was printed,
 * and done() was called for those before.
 */
int dns_query_run(const struct dns_query_config *config);

/* The SOCKS destination that means the proxy's DNS service: 0.0.0.0, port 53. */
struct socks6_addr dns_query_destination(void);
/* Whether a dial failed because the proxy has no such service. */
bool dns_query_is_absent(int status, const struct socks6_dial_result *result);
/* The sentence for a dial to the service that failed. `size` of 1 or more. */
void dns_query_dial_error(int status, const struct socks6_dial_result *result, char *text, size_t size);

#endif
