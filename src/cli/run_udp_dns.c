/*
 * RUN_UDP_DNS: ports on loopback at which DNS over UDP is answered, for programs that speak it themselves. A pair, IPv4 and IPv6, for
 * each destination that a program has in mind, so that it can be told from the port alone whom an answer is to seem to come from.
 *
 * When there are PAIRS_MAX, the one that was not used for longest is given another destination. No port is ever closed: programs remember
 * which is whose, and go on sending there, where somebody else's socket could be next. For a program that remembers, nothing changes.
 *
 * Other users of the machine can send to these ports. They are refused: see run_udp_owner.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/dns_local.h"
#include "cli/dns_udp.h"
#include "cli/run_names_internal.h"
#include "cli/run_udp_owner.h"
#include "io/sock.h"

#define PAIRS_MAX 64u

TAILQ_HEAD(pending_list, dns_pending);

struct pair {
    TAILQ_ENTRY(pair) use;
    struct run_addr destination;
    struct dns_udp ipv4, ipv6;
    uint16_t port_ipv4, port_ipv6; /* 0 = none */
    struct pending_list pending;   /* queries that wait; by of_client, which is there for such lists */
};

TAILQ_HEAD(pair_list, pair);

struct run_udp {
    struct dns_local server;
    struct run_names *names;
    struct pair_list uses; /* the one that was not used for longest comes first */
    size_t count;
    void (*answer)(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure);
};

/* ---- queries ---- */

static struct run_udp *of_server(struct dns_local *server)
{
    return LOOP_OWNER(server, struct run_udp, server);
}

static struct pair *of_pending(const struct dns_pending *pending)
{
    return pending->origin.udp->user;
}

static void use(struct run_udp *udp, struct pair *pair)
{
    TAILQ_REMOVE(&udp->uses, pair, use);
    TAILQ_INSERT_TAIL(&udp->uses, pair, use);
}

/* In the place of dns_local.c's, which then has its turn. */
static void on_answer(struct dns_link_ask *ask, const uint8_t *message, size_t len, enum dns_link_failure failure)
{
    struct dns_pending *pending = LOOP_OWNER(ask, struct dns_pending, ask);

    run_names_trace_message(of_server(pending->server)->names, NULL, ask->message, ask->len, message, len);
    TAILQ_REMOVE(&of_pending(pending)->pending, pending, of_client);
    of_server(pending->server)->answer(ask, message, len, failure);
}

/* For dns_local.c. */
static int on_query(struct dns_local *server, struct dns_pending *pending)
{
    struct run_udp *udp = of_server(server);
    struct pair *pair = of_pending(pending);
    int rc;

    if (!run_udp_owner_is_ours((const struct sockaddr *)&pending->origin.peer)) {
        return -EPERM;
    }
    use(udp, pair);
    rc = run_dns_ask(udp->names->dns, &pending->ask);
    if (rc == 0) {
        udp->answer = pending->ask.done;
        pending->ask.done = on_answer;
        TAILQ_INSERT_TAIL(&pair->pending, pending, of_client);
    }
    return rc;
}

static void on_drop(struct dns_local *server, struct dns_pending *pending)
{
    run_dns_cancel(of_server(server)->names->dns, &pending->ask);
}

/* ---- pairs ---- */

/* The port of a socket that is open. */
static uint16_t open_at(struct run_udp *udp, struct dns_udp *at, uint8_t type)
{
    static const uint8_t ipv6[16] = {[15] = 1}, ipv4[4] = {127, 0, 0, 1};
    const struct socks6_addr addr = dns_addr(type, type == SOCKS6_ADDR_IPV4 ? ipv4 : ipv6, 0);
    struct socks6_addr local;

    if (dns_udp_open(at, &udp->server, &addr) != 0) {
        return 0;
    }
    if (sock_local(at->io.fd, &local) != 0) {
        dns_udp_close(at);
        return 0;
    }
    return local.port;
}

/* Queries that wait are dropped: their answers have no way back. */
static void pair_free(struct pair *pair)
{
    struct dns_pending *pending;

    while ((pending = TAILQ_FIRST(&pair->pending)) != NULL) {
        TAILQ_REMOVE(&pair->pending, pending, of_client);
        dns_local_drop(pending);
    }
    dns_udp_close(&pair->ipv4);
    dns_udp_close(&pair->ipv6);
    free(pair);
}

/* 0 or -errno. */
static int pair_new(struct run_udp *udp, const struct run_addr *destination, struct pair **out)
{
    struct pair *pair = calloc(1, sizeof *pair);

    if (pair == NULL) {
        return -ENOMEM;
    }
    pair->destination = *destination;
    pair->ipv4.user = pair->ipv6.user = pair;
    TAILQ_INIT(&pair->pending);
    pair->port_ipv4 = open_at(udp, &pair->ipv4, SOCKS6_ADDR_IPV4);
    pair->port_ipv6 = open_at(udp, &pair->ipv6, SOCKS6_ADDR_IPV6);
    if (pair->port_ipv4 == 0 && pair->port_ipv6 == 0) {
        free(pair);
        return -EMFILE; /* there is no machine without loopback */
    }
    TAILQ_INSERT_TAIL(&udp->uses, pair, use);
    udp->count++;
    *out = pair;
    return 0;
}

/* The pair for another destination. 0 or -errno. */
static int assign(struct run_udp *udp, const struct run_addr *destination, struct pair **out)
{
    if (udp->count < PAIRS_MAX) {
        return pair_new(udp, destination, out);
    }
    *out = TAILQ_FIRST(&udp->uses);
    (*out)->destination = *destination;
    use(udp, *out);
    return 0;
}

static bool same_addr(const struct run_addr *a, const struct run_addr *b)
{
    return a->family == b->family && a->port == b->port && a->scope == b->scope &&
           memcmp(a->bytes, b->bytes, a->family == AF_INET ? 4 : 16) == 0;
}

static struct pair *find_destination(struct run_udp *udp, const struct run_addr *destination)
{
    struct pair *pair;

    TAILQ_FOREACH(pair, &udp->uses, use)
    {
        if (same_addr(&pair->destination, destination)) {
            use(udp, pair);
            return pair;
        }
    }
    return NULL;
}

static struct pair *find_port(struct run_udp *udp, uint16_t port)
{
    struct pair *pair;

    TAILQ_FOREACH(pair, &udp->uses, use)
    {
        if (port != 0 && (pair->port_ipv4 == port || pair->port_ipv6 == port)) {
            return pair;
        }
    }
    return NULL;
}

/* ---- the request ---- */

static int prepare(struct run_names *names)
{
    struct run_udp *udp = names->udp != NULL ? names->udp : calloc(1, sizeof *udp);

    if (udp == NULL) {
        return -ENOMEM;
    }
    if (names->udp == NULL) {
        udp->names = names;
        udp->server.loop = names->config.loop;
        udp->server.ask = on_query;
        udp->server.drop = on_drop;
        TAILQ_INIT(&udp->uses);
        names->udp = udp;
    }
    return 0;
}

void run_udp_dns(struct run_names *names, struct run_names_ask *ask)
{
    struct run_addr addr;
    struct pair *pair = NULL;
    int rc = ask->len == sizeof addr ? prepare(names) : -EINVAL;

    if (rc != 0) {
        run_names_tell(ask, -rc, NULL, 0);
        return;
    }
    memcpy(&addr, ask->body, sizeof addr);
    if (addr.family == AF_UNSPEC) {
        pair = find_port(names->udp, addr.port);
        rc = pair != NULL ? 0 : -ENOENT;
    } else if (addr.family == AF_INET || addr.family == AF_INET6) {
        pair = find_destination(names->udp, &addr);
        rc = pair != NULL ? 0 : assign(names->udp, &addr, &pair);
    } else {
        rc = -EAFNOSUPPORT;
    }
    if (rc != 0) {
        run_names_tell(ask, -rc, NULL, 0);
        return;
    }
    const struct run_udp_dns reply = {
        .port_ipv4 = pair->port_ipv4, .port_ipv6 = pair->port_ipv6, .destination = pair->destination};
    run_names_tell(ask, 0, &reply, sizeof reply);
}

void run_udp_free(struct run_udp *udp)
{
    struct pair *pair;

    if (udp == NULL) {
        return;
    }
    while ((pair = TAILQ_FIRST(&udp->uses)) != NULL) {
        TAILQ_REMOVE(&udp->uses, pair, use);
        pair_free(pair);
    }
    free(udp);
}
