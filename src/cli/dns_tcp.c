/*
 * A connection reads as long as there is room: for queries in flight, and for answers that the client has not taken. It
 * ends when the client has closed its side and all answers are sent, when it is idle, when it sends what is no query,
 * or when it does not take its answers. Closing is left to a task at the end of the loop's batch, so that an answer can
 * be given to a connection from anywhere.
 */
#include "cli/dns_tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "io/sock.h"

#define BACKLOG 128
#define ACCEPT_BATCH 16
#define IN_ROOM (2u + DNS_FORWARD_QUERY_MAX)
/* Answers that wait for the client: above the first no more queries are read, above the second it has to go. */
#define OUT_FULL (128u << 10)
#define OUT_MAX (4u << 20)

struct dns_tcp_client {
    struct dns_local *server;
    struct dns_tcp_clients *clients;
    TAILQ_ENTRY(dns_tcp_client) entry;
    struct loop_io io;
    uint32_t events;
    struct loop_timer idle;
    struct loop_task task;
    TAILQ_HEAD(, dns_pending) pending;
    size_t pending_count;
    bool ended;  /* the client has closed its side */
    bool broken; /* to be closed at once */
    uint8_t *out;
    size_t out_room, out_start, out_end;
    size_t in_len;
    uint8_t in[IN_ROOM];
};

static void client_free(struct dns_tcp_client *client)
{
    struct dns_pending *pending;

    while ((pending = TAILQ_FIRST(&client->pending)) != NULL) {
        TAILQ_REMOVE(&client->pending, pending, of_client);
        dns_local_drop(pending);
    }
    TAILQ_REMOVE(&client->clients->list, client, entry);
    client->clients->count--;
    loop_close(client->server->loop, &client->io);
    loop_timer_cancel(client->server->loop, &client->idle);
    loop_defer_cancel(client->server->loop, &client->task);
    free(client->out);
    free(client);
}

static size_t waiting(const struct dns_tcp_client *client)
{
    return client->out_end - client->out_start;
}

static bool wants_input(const struct dns_tcp_client *client)
{
    return !client->ended && client->pending_count < DNS_TCP_PENDING_MAX && waiting(client) < OUT_FULL;
}

/* Something has moved: it is the last that would have to go now, and has its time anew. */
static void touch(struct dns_tcp_client *client)
{
    TAILQ_REMOVE(&client->clients->list, client, entry);
    TAILQ_INSERT_TAIL(&client->clients->list, client, entry);
    loop_timer_set(client->server->loop, &client->idle, DNS_TCP_IDLE_MS);
}

/* ---- answers ---- */

/* Room for `len` more bytes. */
static bool reserve(struct dns_tcp_client *client, size_t len)
{
    size_t room = client->out_room > 0 ? client->out_room : 4096;
    uint8_t *more;

    if (client->out_start > 0) {
        memmove(client->out, client->out + client->out_start, waiting(client));
        client->out_end -= client->out_start;
        client->out_start = 0;
    }
    while (room - client->out_end < len) {
        room *= 2;
    }
    if (room > OUT_MAX) {
        return false;
    }
    if (room != client->out_room) {
        more = realloc(client->out, room);
        if (more == NULL) {
            return false;
        }
        client->out = more;
        client->out_room = room;
    }
    return true;
}

static void flush(struct dns_tcp_client *client)
{
    ssize_t n = send(client->io.fd, client->out + client->out_start, waiting(client), MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0) {
        client->broken = client->broken || (errno != EAGAIN && errno != EINTR);
        return;
    }
    client->out_start += (size_t)n;
    touch(client);
    if (waiting(client) == 0) { /* an idle connection owns no buffer */
        free(client->out);
        client->out = NULL;
        client->out_room = client->out_start = client->out_end = 0;
    }
}

void dns_tcp_pending(struct dns_tcp_client *client, struct dns_pending *pending)
{
    TAILQ_INSERT_TAIL(&client->pending, pending, of_client);
    client->pending_count++;
}

void dns_tcp_answer(struct dns_tcp_client *client, struct dns_pending *pending, const uint8_t *message, size_t len)
{
    if (pending != NULL) {
        TAILQ_REMOVE(&client->pending, pending, of_client);
        client->pending_count--;
    }
    loop_defer(client->server->loop, &client->task);
    if (!client->broken && !reserve(client, 2 + len)) {
        client->broken = true;
    }
    if (!client->broken) {
        dns_put16(client->out + client->out_end, (unsigned)len);
        memcpy(client->out + client->out_end + 2, message, len);
        client->out_end += 2 + len;
    }
}

/* ---- queries ---- */

static void take_queries(struct dns_tcp_client *client)
{
    const struct dns_origin origin = {.client = client};
    size_t at = 0;

    while (!client->broken && wants_input(client) && client->in_len - at >= 2) {
        size_t len = dns_get16(client->in + at);

        if (len > IN_ROOM - 2) {
            client->broken = true;
        } else if (client->in_len - at - 2 < len) {
            break;
        } else {
            client->broken = !dns_local_take(client->server, &origin, client->in + at + 2, len);
            at += 2 + len;
        }
    }
    memmove(client->in, client->in + at, client->in_len - at);
    client->in_len -= at;
}

static void receive(struct dns_tcp_client *client)
{
    ssize_t n = recv(client->io.fd, client->in + client->in_len, IN_ROOM - client->in_len, MSG_DONTWAIT);

    if (n > 0) {
        client->in_len += (size_t)n;
        touch(client);
    } else if (n == 0) {
        client->ended = true;
    } else {
        client->broken = client->broken || (errno != EAGAIN && errno != EINTR);
    }
}

/* ---- events ---- */

/* After events and answers: what can go on goes on. May free the client. */
static void go_on(struct dns_tcp_client *client)
{
    uint32_t events;

    take_queries(client);
    if (!client->broken && waiting(client) > 0) {
        flush(client);
    }
    if (client->broken || (client->ended && client->pending_count == 0 && waiting(client) == 0)) {
        client_free(client);
        return;
    }
    events = (wants_input(client) && client->in_len < IN_ROOM ? (uint32_t)EPOLLIN : 0) |
             (waiting(client) > 0 ? (uint32_t)EPOLLOUT : 0);
    if (events != client->events && loop_modify(client->server->loop, &client->io, events) != 0) {
        client_free(client);
        return;
    }
    client->events = events;
}

static void on_task(struct loop_task *task)
{
    go_on(LOOP_OWNER(task, struct dns_tcp_client, task));
}

static void on_client_ready(struct loop_io *io, uint32_t events)
{
    struct dns_tcp_client *client = LOOP_OWNER(io, struct dns_tcp_client, io);

    if ((events & (EPOLLERR | EPOLLHUP)) != 0) { /* both directions are over: nobody hears an answer */
        client_free(client);
        return;
    }
    if ((events & EPOLLIN) != 0) {
        receive(client);
    }
    go_on(client);
}

static void on_idle(struct loop_timer *timer)
{
    struct dns_tcp_client *client = LOOP_OWNER(timer, struct dns_tcp_client, idle);

    if (client->pending_count > 0 && waiting(client) == 0) { /* it is not the client that is slow */
        loop_timer_set(client->server->loop, timer, DNS_TCP_IDLE_MS);
    } else {
        client_free(client);
    }
}

static void add_client(struct dns_tcp *tcp, int fd)
{
    struct dns_tcp_client *client = calloc(1, sizeof *client);

    if (client == NULL) {
        (void)close(fd);
        return;
    }
    client->server = tcp->server;
    client->clients = tcp->clients;
    client->io = (struct loop_io){on_client_ready, fd};
    client->events = EPOLLIN;
    client->idle.expired = on_idle;
    client->task.run = on_task;
    TAILQ_INIT(&client->pending);
    if (loop_add(tcp->server->loop, &client->io, client->events) != 0) {
        (void)close(fd);
        free(client);
        return;
    }
    TAILQ_INSERT_TAIL(&tcp->clients->list, client, entry);
    tcp->clients->count++;
    loop_timer_set(tcp->server->loop, &client->idle, DNS_TCP_IDLE_MS);
    if (tcp->clients->count > DNS_TCP_CLIENTS_MAX) {
        client_free(TAILQ_FIRST(&tcp->clients->list));
    }
}

static void on_listener_ready(struct loop_io *io, uint32_t events)
{
    struct dns_tcp *tcp = LOOP_OWNER(io, struct dns_tcp, io);

    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(tcp->io.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            add_client(tcp, fd);
        } else if ((errno == EMFILE || errno == ENFILE) && tcp->clients->count > 0) {
            client_free(TAILQ_FIRST(&tcp->clients->list));
        } else {
            return;
        }
    }
}

/* ---- life ---- */

void dns_tcp_clients_init(struct dns_tcp_clients *clients)
{
    TAILQ_INIT(&clients->list);
    clients->count = 0;
}

void dns_tcp_clients_done(struct dns_tcp_clients *clients)
{
    struct dns_tcp_client *client, *next;

    for (client = TAILQ_FIRST(&clients->list); client != NULL; client = next) {
        next = TAILQ_NEXT(client, entry);
        if (!client->broken && waiting(client) > 0) {
            flush(client);
        }
        client_free(client);
    }
}

int dns_tcp_open(struct dns_tcp *tcp, struct dns_local *server, struct dns_tcp_clients *clients,
                 const struct socks6_addr *addr)
{
    int fd = sock_listen(addr, BACKLOG, true);
    int rc;

    tcp->server = server;
    tcp->clients = clients;
    tcp->io = (struct loop_io){on_listener_ready, fd};
    if (fd < 0) {
        tcp->io.fd = -1;
        return fd;
    }
    rc = loop_add(server->loop, &tcp->io, EPOLLIN);
    if (rc != 0) {
        tcp->io.fd = -1;
        (void)close(fd);
    }
    return rc;
}

void dns_tcp_close(struct dns_tcp *tcp)
{
    if (tcp->io.fd >= 0) {
        loop_close(tcp->server->loop, &tcp->io);
    }
}
