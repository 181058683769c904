#include "proxyd/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/log.h"

/* The kernel cuts it to net.core.somaxconn. */
#define BACKLOG 65535

struct sockets {
    size_t listener_count;
    unsigned workers;
    int fds[]; /* [worker][listener] */
};

static bool was_open(const struct config *old, const struct config_listener *listener)
{
    return old != NULL && config_find_listener(old, &listener->address, listener->nth) != NULL;
}

static const char *hint_for(int error)
{
    switch (error) {
    case EADDRINUSE:
        return " (is another proxy running there?)";
    case EACCES:
        return " (ports below 1024 need CAP_NET_BIND_SERVICE)";
    case EADDRNOTAVAIL:
        return " (no interface of this host has that address)";
    default:
        return "";
    }
}

/* Many hosts and containers have no IPv6, and the built-in listeners must do there, too. */
static bool may_be_left_out(const struct config_listener *listener, int err)
{
    return listener->optional && (err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT);
}

/* One listener for all workers. The first bind is exclusive; a port of 0 is then the same for the others. */
static int open_listener(struct sockets *sockets, size_t index, const struct socks6_addr *configured, bool has_tls)
{
    struct socks6_addr address = *configured;
    char text[SOCKS6_ADDR_TEXT_MAX];

    for (unsigned i = 0; i < sockets->workers; i++) {
        int fd = sock_listen(&address, BACKLOG, i == 0);
        if (fd < 0) {
            return fd;
        }
        sockets->fds[i * sockets->listener_count + index] = fd;
        int err = i == 0 ? sock_local(fd, &address) : 0;
        if (err != 0) {
            return err;
        }
    }
    (void)socks6_addr_format(&address, text, sizeof text);
    log_info("listening on %s%s", text, has_tls ? " (TLS)" : "");
    return 0;
}

static void log_closed(const struct config *config, const struct config *old)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    for (size_t i = 0; old != NULL && i < old->listener_count; i++) {
        if (!was_open(config, &old->listeners[i])) {
            (void)socks6_addr_format(&old->listeners[i].address, text, sizeof text);
            log_info("no longer listening on %s", text);
        }
    }
}

int sockets_open(const struct config *config, const struct config *old, unsigned workers, struct sockets **out,
                 char *why, size_t why_size)
{
    size_t count = config->listener_count * workers;
    struct sockets *sockets = calloc(1, sizeof *sockets + count * sizeof sockets->fds[0]);
    if (sockets == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    sockets->listener_count = config->listener_count;
    sockets->workers = workers;
    for (size_t i = 0; i < count; i++) {
        sockets->fds[i] = -1;
    }
    size_t left_out = 0;
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct socks6_addr *address = &config->listeners[i].address;
        int err = was_open(old, &config->listeners[i])
                      ? 0
                      : open_listener(sockets, i, address, config->listeners[i].tls != NULL);
        if (err == 0) {
            continue;
        }
        char text[SOCKS6_ADDR_TEXT_MAX];
        (void)socks6_addr_format(address, text, sizeof text);
        if (may_be_left_out(&config->listeners[i], err) && ++left_out < config->listener_count) {
            log_warning("going on without %s: %s", text, strerror(-err));
            continue;
        }
        (void)snprintf(why, why_size, "cannot listen on %.100s: %s%s", text, strerror(-err), hint_for(-err));
        sockets_free(sockets);
        return err;
    }
    log_closed(config, old);
    *out = sockets;
    return 0;
}

const int *sockets_of(const struct sockets *sockets, unsigned worker)
{
    return &sockets->fds[worker * sockets->listener_count];
}

bool sockets_address(const struct sockets *sockets, size_t listener, struct socks6_addr *out)
{
    int fd = sockets->fds[listener];

    return fd >= 0 && sock_local(fd, out) == 0;
}

void sockets_taken(struct sockets *sockets, unsigned worker)
{
    for (size_t i = 0; i < sockets->listener_count; i++) {
        sockets->fds[worker * sockets->listener_count + i] = -1;
    }
}

void sockets_free(struct sockets *sockets)
{
    if (sockets == NULL) {
        return;
    }
    for (size_t i = 0; i < sockets->workers * sockets->listener_count; i++) {
        if (sockets->fds[i] >= 0) {
            close(sockets->fds[i]);
        }
    }
    free(sockets);
}
