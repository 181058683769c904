#include "cli/dns_local.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/dns_tcp.h"
#include "cli/dns_udp.h"

/* RFC 8914: "Network Error". */
#define EDE_NETWORK_ERROR 23

/* `pending` is what the answer is for; NULL if it comes at once. Answers are in server->answer. */
static void answer(struct dns_local *server, const struct dns_origin *origin, struct dns_pending *pending, size_t len)
{
    if (origin->client != NULL) {
        dns_tcp_answer(origin->client, pending, server->answer, len);
    } else {
        dns_udp_answer(origin, server->answer, len);
    }
}

/* Writes the client's form of what the proxy answered, or SERVFAIL. */
static size_t write_answer(struct dns_pending *pending, const uint8_t *message, size_t len)
{
    struct dns_local *server = pending->server;
    struct dns_forward_limits limits = {.len = DNS_MESSAGE_MAX};
    size_t answer_len = 0;

    if (pending->origin.client != NULL) {
        limits.has_keepalive = true;
        limits.keepalive_tenths = DNS_TCP_IDLE_MS / 100;
    } else {
        limits.len = dns_udp_limit(&pending->origin, pending->forward.udp_len);
    }
    if (message != NULL &&
        dns_forward_answer(&pending->forward, &limits, message, len, server->answer, &answer_len) == 0) {
        return answer_len;
    }
    return dns_forward_error(&pending->forward, DNS_RCODE_SERVFAIL, message == NULL ? EDE_NETWORK_ERROR : -1,
                             server->answer);
}

/* For the ask. */
static void on_done(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct dns_pending *pending = LOOP_OWNER(ask, struct dns_pending, ask);

    (void)failure; /* they all mean the same to a client */
    answer(pending->server, &pending->origin, pending, write_answer(pending, message, len));
    free(pending);
}

static struct dns_pending *new_pending(struct dns_local *server, const struct dns_origin *origin,
                                       const struct dns_forward *forward, const uint8_t *message, size_t len)
{
    struct dns_pending *pending = calloc(1, sizeof *pending + len);

    if (pending != NULL) {
        pending->server = server;
        pending->forward = *forward;
        pending->origin = *origin;
        memcpy(pending->message, message, len);
        pending->ask.question = &pending->forward.question;
        pending->ask.message = pending->message;
        pending->ask.len = len;
        pending->ask.done = on_done;
    }
    return pending;
}

static int pass_on(struct dns_local *server, struct dns_pending *pending)
{
    return server->ask != NULL ? server->ask(server, pending) : dns_link_ask(server->link, &pending->ask);
}

bool dns_local_take(struct dns_local *server, const struct dns_origin *origin, const uint8_t *message, size_t len)
{
    uint8_t out[DNS_FORWARD_OUT_MAX];
    struct dns_pending *pending;
    struct dns_forward forward;
    size_t out_len;
    int rc, rcode = dns_forward_read(message, len, &forward, out, &out_len);

    if (rcode < 0) {
        return false;
    }
    if (rcode == 0) {
        pending = new_pending(server, origin, &forward, out, out_len);
        rc = pending != NULL ? pass_on(server, pending) : -ENOMEM;
        if (rc == 0) {
            if (origin->client != NULL) {
                dns_tcp_pending(origin->client, pending);
            }
            return true;
        }
        free(pending); /* too many, or no memory */
        rcode = rc == -EPERM ? DNS_RCODE_REFUSED : DNS_RCODE_SERVFAIL;
    }
    answer(server, origin, NULL, dns_forward_error(&forward, (unsigned)rcode, -1, server->answer));
    return true;
}

void dns_local_drop(struct dns_pending *pending)
{
    if (pending->server->drop != NULL) {
        pending->server->drop(pending->server, pending);
    } else {
        dns_link_cancel(pending->server->link, &pending->ask);
    }
    free(pending);
}
