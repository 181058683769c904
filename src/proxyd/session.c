/*
 * The record is packed: addresses in their bytes, times and numbers in as many bits as they need. The destination as
 * asked for is on the heap, and only if it is not the address that was dialled, for names above all.
 */
#include "proxyd/session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/sock.h"
#include "io/tls_stream.h"
#include "proxyd/listener.h"
#include "proxyd/worker.h"

/* In the order of protocol_names. */
enum protocol { SOCKS4, SOCKS4A, SOCKS5, SOCKS6 };

static const char *const protocol_names[] = {"socks4", "socks4a", "socks5", "socks6"};

/* A destination, on the heap. */
struct asked {
    uint16_t port;
    uint8_t type, len;
    uint8_t bytes[]; /* of the address, or the name without NUL */
};

struct session {
    union {
        struct conn *conn;   /* before the start */
        struct asked *asked; /* after it; NULL = what was dialled */
    } u;
    const struct config *config; /* NULL before the start */
    struct identity *user;       /* a reference; NULL = anonymous */
    uint64_t id : 48;
    uint64_t place : 16; /* of the listener: see listener.h */
    uint64_t accepted_ms : 48;
    uint64_t client_port : 16;
    uint8_t client_ip[16], dialled_ip[16];
    uint16_t dialled_port;
    uint8_t client_type, dialled_type;
    uint8_t protocol;
};

_Static_assert(sizeof(struct session) <= 80, "memory budget of an idle connection: with struct relay below 256 bytes");

size_t session_record_len(void)
{
    return sizeof(struct session);
}

void session_set_conn(struct relay *relay, struct conn *conn)
{
    struct session *session = relay_record(relay);
    session->u.conn = conn;
}

struct conn *session_conn(struct relay *relay)
{
    struct session *session = relay_record(relay);
    return session->u.conn;
}

static void pack_ip(uint8_t ip[16], const struct socks6_addr *addr)
{
    memcpy(ip, &addr->u, addr->len <= 16 ? addr->len : 0);
}

static struct socks6_addr unpack_ip(uint8_t type, const uint8_t ip[16], uint16_t port)
{
    return type == SOCKS6_ADDR_IPV4 ? socks6_addr_ipv4(ip, port) : socks6_addr_ipv6(ip, port);
}

/* False: no memory. */
static bool pack_asked(const struct socks6_addr *addr, const struct socks6_addr *dialled, struct asked **out)
{
    *out = NULL;
    if (socks6_addr_equal(addr, dialled)) {
        return true;
    }
    struct asked *asked = malloc(sizeof *asked + addr->len);
    if (asked == NULL) {
        return false;
    }
    asked->port = addr->port;
    asked->type = addr->type;
    asked->len = addr->len;
    memcpy(asked->bytes, &addr->u, addr->len);
    *out = asked;
    return true;
}

static struct socks6_addr unpack_asked(const struct asked *asked)
{
    if (asked->type != SOCKS6_ADDR_NAME) {
        return unpack_ip(asked->type, asked->bytes, asked->port);
    }
    struct socks6_addr addr = {0};
    bool was_valid = socks6_addr_name((const char *)asked->bytes, asked->len, asked->port, &addr);
    assert(was_valid);
    (void)was_valid;
    return addr;
}

static uint8_t pack_protocol(const char *name)
{
    uint8_t protocol = SOCKS4;
    while (protocol < SOCKS6 && strcmp(protocol_names[protocol], name) != 0) {
        protocol++;
    }
    return protocol;
}

static const char *reason_of(const struct session *session, const struct relay_result *result)
{
    bool is_client = result->side == RELAY_A;
    switch (result->end) {
    case RELAY_DONE:
        return "done";
    case RELAY_IDLE:
        return "idle";
    case RELAY_HALF_CLOSED_IDLE:
        return "half-closed idle";
    case RELAY_RESET:
        break;
    }
    switch (result->error) {
    case ETIMEDOUT:
        return is_client ? "client timed out" : "server timed out";
    case ECONNABORTED:
        return session->user != NULL && session->user->is_gone ? "user removed" : "shut down";
    case ENOMEM:
    case ENOBUFS:
        return "out of memory";
    case ENODATA:
        return "client ended without close_notify";
    case EPROTO:
        return "client broke TLS";
    default:
        return is_client ? "client reset" : "server reset";
    }
}

static struct worker *worker_of(const struct relay *relay)
{
    return relay_context(relay);
}

/* What every connection has, once its descriptors are closed. */
static void give_back(struct worker *worker, const struct config *config, uint16_t place,
                      const struct socks6_addr *client, struct identity *user)
{
    identity_release(&worker->auth.identities, user);
    limits_release(worker->shared->limits, client);
    config_release(config);
    listener_place_release(worker, place);
    worker_connection_gone(worker);
}

static void write_entry(const struct worker *worker, const struct session *session, const char *tls, const char *reason,
                        const struct relay_result *result)
{
    struct log_access entry = {
        .id = session->id,
        .client = unpack_ip(session->client_type, session->client_ip, session->client_port),
        .listener = *listener_place(worker, session->place),
        .protocol = protocol_names[session->protocol],
        .user = session->user == NULL ? NULL : session->user->name,
        .tls = tls,
        .command = socks6_command_name(SOCKS6_COMMAND_CONNECT),
        .dialled = unpack_ip(session->dialled_type, session->dialled_ip, session->dialled_port),
        .reply = SOCKS6_REPLY_SUCCESS,
        .bytes_up = result->bytes[RELAY_A],
        .bytes_down = result->bytes[RELAY_B],
        .duration_ms = loop_now_ms(worker->loop) - session->accepted_ms,
        .reason = reason,
    };
    entry.asked = session->u.asked == NULL ? entry.dialled : unpack_asked(session->u.asked);
    log_access_write(&entry);
}

static void on_relay_done(struct relay *relay, const struct relay_result *result)
{
    struct session *session = relay_record(relay);
    struct worker *worker = worker_of(relay);
    struct stats *stats = &worker->stats;

    stats_add(stats, STATS_bytes_up, result->bytes[RELAY_A]);
    stats_add(stats, STATS_bytes_down, result->bytes[RELAY_B]);
    stats_add(stats, STATS_closed, 1);
    switch (result->end) {
    case RELAY_DONE:
        break;
    case RELAY_RESET:
        stats_add(stats, STATS_relay_resets, 1);
        break;
    case RELAY_IDLE:
    case RELAY_HALF_CLOSED_IDLE:
        stats_add(stats, STATS_relay_idle, 1);
        break;
    }
    const struct tls_stream *tls = relay_tls(relay);
    write_entry(worker, session, tls == NULL ? NULL : tls_version(tls), reason_of(session, result), result);
    struct socks6_addr client = unpack_ip(session->client_type, session->client_ip, session->client_port);
    free(session->u.asked);
    give_back(worker, session->config, session->place, &client, session->user);
}

static void on_no_pipe(void *context)
{
    struct worker *worker = context;
    stats_add(&worker->stats, STATS_splice_refused, 1);
}

struct relay_hooks session_hooks(struct worker *worker)
{
    return (struct relay_hooks){.done = on_relay_done, .no_pipe = on_no_pipe, .context = worker};
}

static bool is_local(const struct worker *worker, const struct socks6_addr *addr)
{
    return sock_is_loopback(addr) || local_addrs_has(worker->shared->local, addr);
}

/* Measured: on loopback copying is quicker, and where a network interface is on both legs splicing is. */
static bool may_splice(const struct worker *worker, const struct config *config, const struct log_access *entry)
{
    switch (config->relay) {
    case CONFIG_RELAY_AUTO:
        return !is_local(worker, &entry->client) && !is_local(worker, &entry->dialled);
    case CONFIG_RELAY_COPY:
        return false;
    case CONFIG_RELAY_SPLICE:
        return true;
    }
    return false;
}

static void log_failed_start(const struct worker *worker, const struct log_access *entry, uint64_t accepted_ms)
{
    struct log_access failed = *entry;
    failed.duration_ms = loop_now_ms(worker->loop) - accepted_ms;
    failed.reason = "out of memory";
    log_access_write(&failed);
}

void session_start(struct relay *relay, struct worker *worker, const struct config *config, uint16_t place,
                   struct relay_start *start, const struct log_access *entry, uint64_t accepted_ms,
                   struct identity *user)
{
    struct session *session = relay_record(relay);
    struct asked *asked;
    int err = 0;

    if (!pack_asked(&entry->asked, &entry->dialled, &asked)) {
        relay_refuse(relay, start->fd_b);
        err = -ENOMEM;
    } else {
        session->u.asked = asked;
        session->config = config;
        session->user = user;
        session->id = entry->id & ((UINT64_C(1) << 48) - 1);
        session->place = place;
        session->accepted_ms = accepted_ms & ((UINT64_C(1) << 48) - 1);
        session->protocol = pack_protocol(entry->protocol);
        session->client_type = entry->client.type;
        session->client_port = entry->client.port;
        pack_ip(session->client_ip, &entry->client);
        session->dialled_type = entry->dialled.type;
        session->dialled_port = entry->dialled.port;
        pack_ip(session->dialled_ip, &entry->dialled);
        start->limits = &config->limits.relay;
        start->may_splice = may_splice(worker, config, entry);
        err = relay_start(relay, start);
        if (err != 0) {
            free(asked);
        }
    }
    if (err != 0) {
        stats_add(&worker->stats, STATS_closed, 1);
        log_failed_start(worker, entry, accepted_ms);
        give_back(worker, config, place, &entry->client, user);
    }
}

void session_abort_all(struct worker *worker)
{
    /* A worker that could not be made has none. */
    struct relay *next = worker->relays == NULL ? NULL : relay_next(worker->relays, NULL, true);
    while (next != NULL) {
        struct relay *relay = next;
        next = relay_next(worker->relays, relay, true);
        relay_abort(relay);
    }
}

void session_abort_gone(struct worker *worker)
{
    struct relay *next = relay_next(worker->relays, NULL, true);

    while (next != NULL) {
        struct relay *relay = next;
        const struct session *session = relay_record(relay);

        next = relay_next(worker->relays, relay, true);
        if (session->user != NULL && session->user->is_gone) {
            relay_abort(relay);
        }
    }
}
