/*
 * Makes what the helper's server works with, from what the user has asked for: the tables, the dialer, the names, the socket and the
 * variable that tells programs of it. Called by run_serve.c.
 */
#include "cli/run_serve_internal.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKENS_AT_ONCE 64u /* of the cache file: see reach_shared.h */

/* --- the socket, and what programs are told of it --- */

static char *append_hex(char *out, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    return out;
}

static void make_variable(struct run_serve *serve, const struct run_serve_config *config, const uint8_t *address)
{
    char *out = serve->variable;

    _Static_assert(RUN_VERSION == 1, "one digit");
    out += sprintf(out, "%u:", RUN_VERSION);
    out = append_hex(out, address, RUN_ADDRESS_LEN);
    *out++ = ':';
    out = append_hex(out, serve->secret, RUN_SECRET_LEN);
    *out++ = ':';
    if (config->verbose > 0) {
        *out++ = RUN_FLAG_VERBOSE;
    }
    if (config->allow_direct) {
        *out++ = RUN_FLAG_ALLOW_DIRECT;
    }
    if (config->is_fake) {
        *out++ = RUN_FLAG_FAKE_NAMES;
    }
    *out = '\0';
}

static int fill_random(uint8_t *out, size_t len)
{
    ssize_t n = getrandom(out, len, 0); /* as few bytes as these come at once */

    if (n < 0) {
        return -errno;
    }
    return (size_t)n == len ? 0 : -EIO;
}

static int open_listener(struct run_serve *serve, const struct run_serve_config *config)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + RUN_ADDRESS_LEN);
    uint8_t address[RUN_ADDRESS_LEN];
    int rc = fill_random(serve->secret, sizeof serve->secret);

    if (rc == 0) {
        rc = fill_random(address, sizeof address);
    }
    if (rc != 0) {
        return rc;
    }
    memcpy(addr.sun_path + 1, address, sizeof address);
    serve->listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (serve->listener.fd < 0) {
        return -errno;
    }
    if (bind(serve->listener.fd, (const struct sockaddr *)&addr, len) != 0 ||
        listen(serve->listener.fd, SOMAXCONN) != 0) {
        return -errno;
    }
    make_variable(serve, config, address);
    return loop_add(serve->loop, &serve->listener, EPOLLIN);
}

/* --- what is told to the user --- */

static void complain_of_entry(const char *entry)
{
    char text[SOCKS6_NAME_MAX + 1];

    (void)snprintf(text, sizeof text, "%s", entry);
    run_say_clean(text, strlen(text));
    run_say("NO_PROXY: '%s' is neither a name nor an address nor a network", text);
}

static void trace_step(void *user, const char *what)
{
    run_say_of((pid_t)(intptr_t)user, "%s", what);
}

/* For -vv: what happens on the way to the DNS service. */
static void trace_link(void *user, const char *what)
{
    (void)user;
    run_say("DNS service: %s", what);
}

static void on_link_changed(void *user, const char *why, bool is_absent)
{
    char text[1024];

    (void)user;
    run_names_service_text(why, is_absent, text, sizeof text);
    run_say("%s", text);
}

static void trace_names(void *user, struct run_names_ask *ask, const char *text)
{
    (void)user;
    run_say_of(run_serve_asker(ask), "%s", text);
}

/* --- names --- */

static bool is_direct_name(void *user, const char *name)
{
    const struct run_serve *serve = user;

    return run_direct_has_name(serve->connects.direct, name);
}

static bool is_direct_addr(void *user, const struct socks6_addr *addr)
{
    const struct run_serve *serve = user;

    return run_direct_has_addr(serve->connects.direct, addr);
}

static int open_names(struct run_serve *serve, const struct run_serve_config *config)
{
    struct dns_link_config link = {.loop = serve->loop,
                                   .proxy = config->proxy,
                                   .addresses = config->addresses->list,
                                   .address_count = config->addresses->count,
                                   .shared = serve->shared,
                                   .timeout_ms = run_names_timeout_ms(NULL),
                                   .no_early_data = config->no_early_data,
                                   .no_fast_open = config->no_fast_open,
                                   .verbose = config->verbose > 1,
                                   .changed = on_link_changed,
                                   .trace = trace_link,
                                   .user = serve};
    struct run_names_config names = {.loop = serve->loop,
                                     .fake = config->is_fake,
                                     .is_direct_name = is_direct_name,
                                     .is_direct_addr = is_direct_addr,
                                     .trace = config->verbose > 0 ? trace_names : NULL,
                                     .user = serve};
    int rc = config->is_fake ? 0 : dns_link_new(&link, &serve->link);

    if (rc != 0) {
        return rc;
    }
    names.link = serve->link;
    return run_names_new(&names, &serve->connects.names);
}

/* --- connections --- */

/* Programs may go to the proxy themselves, as far as it depends on what was asked for. */
static bool may_take_shortcut(const struct run_serve_config *config)
{
    return !config->is_early && !config->is_fake && config->verbose < 2 &&
           config->proxy->scheme == SOCKS6_SCHEME_SOCKS6 && !config->proxy->is_tls;
}

static void leave_out(void *arg, const struct socks6_addr *addr, unsigned bits)
{
    run_shortcut_leave_out(arg, addr, bits);
}

static void fill(struct run_serve *serve, const struct run_serve_config *config)
{
    struct run_connects *connects = &serve->connects;

    run_serve_set_limit(serve, (unsigned long)sysconf(_SC_OPEN_MAX)); /* none is -1, and so ULONG_MAX */
    connects->shortcut = may_take_shortcut(config) ? config->shortcut : NULL;
    run_direct_visit(connects->direct, leave_out, connects->shortcut);
    serve->tunnels.loop = serve->loop;
    serve->tunnels.sockets = connects->sockets;
    serve->tunnels.verbose = config->verbose > 0;
    connects->tunnels = &serve->tunnels;
    connects->is_early = config->is_early;
    connects->is_fake = config->is_fake;
    connects->verbose = config->verbose > 0;
    connects->dialer = (struct run_dialer){.loop = serve->loop,
                                           .proxy = config->proxy,
                                           .addresses = config->addresses,
                                           .shared = serve->shared,
                                           .family = config->family,
                                           .timeout_ms = config->timeout_ms,
                                           .no_fast_open = config->no_fast_open,
                                           .no_early_data = config->no_early_data,
                                           .trace = config->verbose > 1 ? trace_step : NULL};
}

/* --- all of it --- */

int run_serve_open(struct run_serve *serve, const struct run_serve_config *config)
{
    const struct reach_shared_config shared = {
        .proxy = config->proxy, .no_session = config->no_session, .batch = TOKENS_AT_ONCE};
    int rc = loop_new(&serve->loop);

    if (rc == 0) {
        rc = run_sockets_new(&serve->connects.sockets);
    }
    if (rc == 0) {
        rc = run_direct_new(config->no_proxy, complain_of_entry, &serve->connects.direct);
    }
    if (rc == 0) {
        rc = reach_shared_new(&shared, &serve->shared);
    }
    if (rc != 0) {
        return rc;
    }
    fill(serve, config);
    rc = open_names(serve, config);
    return rc == 0 ? open_listener(serve, config) : rc;
}
