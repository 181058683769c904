/*
 * Sets up the server: the proxy's addresses, sockets, signals. Then the loop has it until a signal comes.
 *
 * The proxy's name is looked up once, at the start: we may be the machine's own name server afterwards, and would ask
 * ourselves.
 */
#include "cli/dns_listen.h"

#include <errno.h>
#include <netdb.h>
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
#include "cli/say.h"
#include "io/sock.h"

#define PROXY_ADDRESSES_MAX 16u
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
    struct socks6_addr addresses[PROXY_ADDRESSES_MAX];
    size_t address_count;
};

/* ---- the proxy ---- */

static int no_address(const struct listen *l, const char *why)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(&l->proxy->addr, text, sizeof text);
    say(command, "cannot find the address of proxy %s: %s", text, why);
    return CLI_EXIT_PROXY;
}

/* Adds an address of a family that -4 or -6 allow. */
static void add_address(struct listen *l, const struct sockaddr *sa, socklen_t len)
{
    struct socks6_addr *addr = &l->addresses[l->address_count];

    if (l->address_count < PROXY_ADDRESSES_MAX && (l->args->family == AF_UNSPEC || l->args->family == sa->sa_family) &&
        sock_to_addr(sa, len, addr)) {
        addr->port = l->proxy->addr.port;
        l->address_count++;
    }
}

static int find_proxy(struct listen *l)
{
    const struct addrinfo hints = {.ai_family = l->args->family, .ai_socktype = SOCK_STREAM};
    struct sockaddr_storage sa;
    struct addrinfo *list = NULL;
    socklen_t len;
    int rc;

    if (sock_from_addr(&l->proxy->addr, &sa, &len)) {
        add_address(l, (const struct sockaddr *)&sa, len);
    } else {
        rc = getaddrinfo(l->proxy->addr.u.name, NULL, &hints, &list);
        if (rc != 0) {
            return no_address(l, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
        }
        for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
            add_address(l, ai->ai_addr, ai->ai_addrlen);
        }
        freeaddrinfo(list);
    }
    return l->address_count > 0 ? 0 : no_address(l, "it has none of the family that is wanted");
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
                                     .addresses = l->addresses,
                                     .address_count = l->address_count,
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
