/*
 * UDP sockets to upstream servers, connected: the kernel then takes datagrams of that address and port only, and
 * reports a port that is closed.
 *
 * The port of each socket is random (the kernel's choice), and so is which of the server's sockets a query takes. After
 * SOCKET_USES queries a socket takes no new ones, and another takes its place. A forger has to guess port and id, and
 * the question.
 */
#include "dns/upstream_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCKETS_PER_SERVER 4u
#define SOCKETS_MAX 128u /* in all; then old ones are used on */
#define SOCKET_USES 64u
#define SOCKET_AGE_MS 10000u
#define SOCKET_IDLE_MS 500u /* a new one costs little, and its port is another */
#define WRONG_MAX 64u       /* a socket that gets that many forged or stray datagrams is not used for new queries */
#define READS_MAX 64u       /* per wake-up; the rest in the next one */

struct udp_channel {
    struct upstream_channel channel;
    struct udp_channel *prev, *next;
    struct loop_io io;
    unsigned uses, wrong;
    uint64_t opened_ms, used_ms;
};

static void close_socket(struct udp_channel *udp)
{
    struct upstream *upstream = udp->channel.upstream;

    if (udp->prev != NULL) {
        udp->prev->next = udp->next;
    } else {
        upstream->sockets = udp->next;
    }
    if (udp->next != NULL) {
        udp->next->prev = udp->prev;
    }
    upstream->socket_count--;
    loop_close(upstream->loop, &udp->io);
    free(udp);
}

static void on_datagram(struct loop_io *io, uint32_t events)
{
    struct udp_channel *udp = LOOP_OWNER(io, struct udp_channel, io);
    struct upstream *upstream = udp->channel.upstream;

    (void)events;
    for (unsigned i = 0; i < READS_MAX; i++) {
        ssize_t n = recv(io->fd, upstream->scratch, UPSTREAM_SCRATCH_LEN, 0);
        if (n >= 0) {
            if (!upstream_input(&udp->channel, upstream->scratch, (size_t)n)) {
                udp->wrong++;
                dns_count(upstream->counters, DNS_COUNTER_wrong_answers, 1);
            }
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            /* ICMP: nobody listens there, or no way leads there */
            udp->uses = SOCKET_USES;
            upstream_channel_failed(&udp->channel, "upstream server cannot be reached", false);
        }
    }
}

static bool takes_queries(const struct udp_channel *udp, uint64_t now_ms)
{
    return udp->uses < SOCKET_USES && udp->wrong < WRONG_MAX && now_ms - udp->opened_ms < SOCKET_AGE_MS;
}

static int open_socket(struct upstream *upstream, const struct dns_server *server, struct udp_channel **out)
{
    struct udp_channel *udp = calloc(1, sizeof *udp);
    int err = -ENOMEM;

    if (udp == NULL) {
        return err;
    }
    udp->channel.upstream = upstream;
    udp->channel.server = *server;
    udp->opened_ms = loop_now_ms(upstream->loop);
    udp->io.ready = on_datagram;
    udp->io.fd = socket(server->addr.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int fd = udp->io.fd;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&server->addr, server->addr_len) != 0) {
        err = -errno;
        goto out;
    }
    err = loop_add(upstream->loop, &udp->io, EPOLLIN);
out:
    if (err != 0) {
        if (fd >= 0) {
            close(fd);
        }
        free(udp);
        return err;
    }
    udp->next = upstream->sockets;
    if (udp->next != NULL) {
        udp->next->prev = udp;
    }
    upstream->sockets = udp;
    upstream->socket_count++;
    *out = udp;
    return 0;
}

/* One of the server's sockets, at random; a fresh one as long as there are few, or if all are used up. */
static int pick_socket(struct upstream *upstream, const struct dns_server *server, struct udp_channel **out)
{
    struct udp_channel *usable[SOCKETS_PER_SERVER], *any = NULL;
    uint64_t now_ms = loop_now_ms(upstream->loop);
    unsigned count = 0;

    for (struct udp_channel *udp = upstream->sockets; udp != NULL && count < SOCKETS_PER_SERVER; udp = udp->next) {
        if (dns_server_equal(&udp->channel.server, server)) {
            any = udp;
            if (takes_queries(udp, now_ms)) {
                usable[count++] = udp;
            }
        }
    }
    if (count < SOCKETS_PER_SERVER && (upstream->socket_count < SOCKETS_MAX || any == NULL)) {
        int err = open_socket(upstream, server, out);
        if (err == 0 || any == NULL) {
            return err;
        }
    }
    *out = count != 0 ? usable[dns_random16(&upstream->random) % count] : any;
    return 0;
}

int udp_send(struct upstream_query *query, const struct dns_server *server)
{
    struct upstream *upstream = query->upstream;
    struct udp_channel *udp;
    size_t len;

    int err = pick_socket(upstream, server, &udp);
    if (err != 0) {
        return err;
    }
    upstream_attach(query, &udp->channel);
    udp->uses++;
    udp->used_ms = loop_now_ms(upstream->loop);
    err = upstream_build(query, false, false, &len);
    if (err == 0 && send(udp->io.fd, upstream->query_buf + 2, len, MSG_NOSIGNAL) < 0) {
        err = -errno;
        if (err == -EAGAIN || err == -EINTR || err == -ENOBUFS) {
            err = 0; /* as if it were lost on the way */
        } else {
            udp->uses = SOCKET_USES; /* the error may be an earlier datagram's: the next try takes another socket */
        }
    }
    if (err != 0) {
        upstream_detach(query);
    }
    return err;
}

void udp_sweep(struct upstream *upstream, bool all)
{
    uint64_t now_ms = loop_now_ms(upstream->loop);
    struct udp_channel *next;

    for (struct udp_channel *udp = upstream->sockets; udp != NULL; udp = next) {
        next = udp->next;
        bool is_over = !takes_queries(udp, now_ms) || now_ms - udp->used_ms >= SOCKET_IDLE_MS;
        if (all || (is_over && udp->channel.pending == 0)) {
            close_socket(udp);
        }
    }
}
