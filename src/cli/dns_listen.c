/*
 * Sets up the server: the proxy's addresses, sockets, signals. Then the loop has it until a signal comes.
 *
 * The proxy's name is looked up once, at the start: we may be the machine's own name server afterwards, and would ask
 * ourselves.
 */
#include "cli/dns_listen.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/dns_local.h"
#include "cli/dns_tcp.h"
#include "cli/dns_udp.h"
#include "cli/exit.h"
#include "cli/proxy_find.h"
#include "cli/reach_shared.h"
#include "cli/say.h"
#include "io/sock.h"

/* A port that is free for TCP need not be so for UDP: for port 0, others are tried. */
#define PORT_TRIES 20

static const char command[] = "dns";

struct listen {
    const struct dns_args *args;
    const struct socks6_proxy *proxy;
    struct dns_local server;
    struct dns_tcp_clients clients;
    struct dns_udp udp[DNS_ARGS_LISTEN_MAX];
    struct dns_tcp tcp[DNS_ARGS_LISTEN_MAX];
    size_t open_count; /* of the two above */
    struct loop_io signals;
    struct proxy_addresses addresses;
    struct reach_shared *shared;
};

/* ---- the proxy ---- */

static void trace(void *user, const char *what)
{
    (void)user;
    say(command, "%s", what);
}

static int find_proxy(struct listen *l)
{
    char why[512];
    int status =
        proxy_find(l->proxy, l->args->family, &l->addresses, l->args->verbose ? trace : NULL, NULL, why, sizeof why);

    if (status == SOCKS6_DIAL_OK) {
        return 0;
    }
    say(command, "%s", why);
    return status == SOCKS6_DIAL_NOMEM ? CLI_EXIT_REMOTE : CLI_EXIT_PROXY;
}

/* Files that cannot be used are better said now than with the first question. */
static int open_shared(struct listen *l)
{
    /* One connection follows the other: a token is taken when there is one to be made. */
    const struct reach_shared_config config = {.proxy = l->proxy, .no_session = l->args->no_session, .batch = 1};
    struct tls_context *tls = NULL;
    char why[TLS_CLIENT_WHY_MAX];
    int rc = reach_shared_new(&config, &l->shared);

    if (rc != 0) {
        say(command, "out of memory");
        return CLI_EXIT_REMOTE;
    }
    if (l->proxy->is_tls) {
        rc = reach_shared_tls(l->shared, &tls, why);
    }
    if (rc != 0) {
        say(command, "%s", why);
        return rc == -ENOMEM ? CLI_EXIT_REMOTE : CLI_EXIT_USAGE;
    }
    return 0;
}

/* ---- sockets ---- */

/* One address for UDP and TCP. 0 or -errno; `addr` gets the port that was chosen. */
static int open_one(struct listen *l, size_t i, struct socks6_addr *addr)
{
    bool any_port = addr->port == 0;
    int rc = 0;

    for (int tries = 0; tries < (any_port ? PORT_TRIES : 1); tries++) {
        addr->port = any_port ? 0 : addr->port;
        rc = dns_tcp_open(&l->tcp[i], &l->server, &l->clients, addr);
        if (rc == 0) {
            rc = sock_local(l->tcp[i].io.fd, addr);
        }
        if (rc == 0) {
            rc = dns_udp_open(&l->udp[i], &l->server, addr);
        }
        if (rc == 0) {
            return 0;
        }
        dns_tcp_close(&l->tcp[i]);
    }
    return rc;
}

static int open_all(struct listen *l)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    for (size_t i = 0; i < l->args->listen_count; i++) {
        struct socks6_addr addr = l->args->listen[i];
        int rc;

        (void)socks6_addr_format(&addr, text, sizeof text);
        if (!l->args->open && !sock_is_loopback(&addr)) {
            return say_usage(command, "--listen %s: other machines could ask there; if that is meant, give --open",
                             text);
        }
        rc = open_one(l, i, &addr);
        if (rc != 0) {
            say(command, "cannot listen on %s: %s", text, strerror(-rc));
            return CLI_EXIT_USAGE;
        }
        l->open_count++;
        (void)socks6_addr_format(&addr, text, sizeof text);
        say(command, "listening on %s, UDP and TCP", text);
    }
    return 0;
}

/* ---- signals ---- */

static void on_signal(struct loop_io *io, uint32_t events)
{
    struct listen *l = LOOP_OWNER(io, struct listen, signals);

    (void)events;
    loop_stop(l->server.loop);
}

static int open_signals(struct listen *l)
{
    sigset_t set;
    int rc;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return -errno;
    }
    l->signals = (struct loop_io){on_signal, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
    if (l->signals.fd < 0) {
        return -errno;
    }
    rc = loop_add(l->server.loop, &l->signals, EPOLLIN);
    if (rc != 0) {
        (void)close(l->signals.fd);
        l->signals.fd = -1;
    }
    return rc;
}

/* ---- life ---- */

static int open_loop(struct listen *l)
{
    const struct dns_args *args = l->args;
    struct dns_link_config config = {.proxy = l->proxy,
                                     .shared = l->shared,
                                     .addresses = l->addresses.list,
                                     .address_count = l->addresses.count,
                                     .no_early_data = args->no_early_data,
                                     .no_fast_open = args->no_fast_open,
                                     .timeout_ms = (uint64_t)args->timeout_ms,
                                     .verbose = args->verbose};
    int rc = loop_new(&l->server.loop);

    config.loop = l->server.loop;
    if (rc == 0) {
        rc = dns_link_new(&config, &l->server.link);
    }
    if (rc == 0) {
        rc = open_signals(l);
    }
    if (rc != 0) {
        say(command, "cannot start: %s", strerror(-rc));
        return CLI_EXIT_REMOTE;
    }
    return 0;
}

static int serve(struct listen *l)
{
    int rc = loop_run(l->server.loop);

    if (rc != 0) {
        say(command, "cannot go on: %s", strerror(-rc));
        return CLI_EXIT_REMOTE;
    }
    return CLI_EXIT_OK;
}

/* Open questions are answered (with SERVFAIL) before the sockets go. */
static void done(struct listen *l)
{
    for (size_t i = 0; i < l->open_count; i++) {
        dns_tcp_close(&l->tcp[i]);
    }
    dns_link_free(l->server.link);
    reach_shared_free(l->shared);
    dns_tcp_clients_done(&l->clients);
    for (size_t i = 0; i < l->open_count; i++) {
        dns_udp_close(&l->udp[i]);
    }
    if (l->signals.fd >= 0) {
        loop_close(l->server.loop, &l->signals);
    }
    loop_free(l->server.loop);
}

int dns_listen_run(const struct dns_args *args, const struct socks6_proxy *proxy)
{
    struct listen *l = calloc(1, sizeof *l);
    int rc;

    if (l == NULL) {
        say(command, "out of memory");
        return CLI_EXIT_REMOTE;
    }
    l->args = args;
    l->proxy = proxy;
    l->signals.fd = -1;
    dns_tcp_clients_init(&l->clients);
    rc = find_proxy(l);
    if (rc == 0) {
        rc = open_shared(l);
    }
    if (rc == 0) {
        rc = open_loop(l);
    }
    if (rc == 0) {
        rc = open_all(l);
    }
    if (rc == 0) {
        rc = serve(l);
    }
    done(l);
    free(l);
    return rc;
}
