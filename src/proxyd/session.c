#include "proxyd/session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/worker.h"

/* An IP address and a port in 20 bytes; struct socks6_addr has room for a name and needs 260. */
struct endpoint {
    uint16_t port;
    uint8_t type;
    uint8_t ip[16];
};

struct session {
    struct session *prev, *next;
    struct worker *worker;
    const struct config *config;
    struct relay *relay;
    const char *protocol;
    uint64_t id;
    uint64_t accepted_ms;
    struct endpoint client, listener, dialled, asked;
    char asked_name[]; /* if asked.type is NAME: ends in NUL */
};

static struct endpoint pack(const struct socks6_addr *addr)
{
    struct endpoint endpoint = {.port = addr->port, .type = addr->type};
    if (addr->type != SOCKS6_ADDR_NAME) {
        memcpy(endpoint.ip, &addr->u, addr->len <= sizeof endpoint.ip ? addr->len : 0);
    }
    return endpoint;
}

static struct socks6_addr unpack(const struct endpoint *endpoint, const char *name)
{
    struct socks6_addr addr = {0};
    switch (endpoint->type) {
    case SOCKS6_ADDR_IPV4:
        return socks6_addr_ipv4(endpoint->ip, endpoint->port);
    case SOCKS6_ADDR_IPV6:
        return socks6_addr_ipv6(endpoint->ip, endpoint->port);
    case SOCKS6_ADDR_NAME:
        assert(name != NULL);                                              /* only `asked` can be one */
        (void)socks6_addr_name(name, strlen(name), endpoint->port, &addr); /* was valid when it was packed */
        return addr;
    default:
        return addr;
    }
}

static const char *reason_of(const struct relay_result *result)
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
        return "shut down";
    case ENOMEM:
    case ENOBUFS:
        return "out of memory";
    default:
        return is_client ? "client reset" : "server reset";
    }
}

/* Gives back everything but the relay itself. */
static void session_free(struct session *session)
{
    struct worker *worker = session->worker;
    struct socks6_addr client = unpack(&session->client, NULL);

    if (session->prev != NULL) {
        session->prev->next = session->next;
    } else {
        worker->sessions = session->next;
    }
    if (session->next != NULL) {
        session->next->prev = session->prev;
    }
    limits_release(worker->shared->limits, &client);
    config_release(session->config);
    free(session);
    worker_connection_gone(worker);
}

static void write_entry(const struct session *session, const char *reason, uint64_t bytes_up, uint64_t bytes_down)
{
    struct log_access entry = {
        .id = session->id,
        .client = unpack(&session->client, NULL),
        .listener = unpack(&session->listener, NULL),
        .protocol = session->protocol,
        .command = socks6_command_name(SOCKS6_COMMAND_CONNECT),
        .asked = unpack(&session->asked, session->asked_name),
        .dialled = unpack(&session->dialled, NULL),
        .reply = SOCKS6_REPLY_SUCCESS,
        .bytes_up = bytes_up,
        .bytes_down = bytes_down,
        .duration_ms = loop_now_ms(session->worker->loop) - session->accepted_ms,
        .reason = reason,
    };
    log_access_write(&entry);
}

static void on_relay_done(void *user, const struct relay_result *result)
{
    struct session *session = user;
    struct stats *stats = &session->worker->stats;

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
    write_entry(session, reason_of(result), result->bytes[RELAY_A], result->bytes[RELAY_B]);
    session_free(session);
}

static void log_failed_start(const struct worker *worker, const struct log_access *entry, uint64_t accepted_ms)
{
    struct log_access failed = *entry;
    failed.duration_ms = loop_now_ms(worker->loop) - accepted_ms;
    failed.reason = "out of memory";
    log_access_write(&failed);
}

static struct session *session_new(struct worker *worker, const struct config *config, const struct log_access *entry,
                                   uint64_t accepted_ms)
{
    size_t name_len = entry->asked.type == SOCKS6_ADDR_NAME ? strlen(entry->asked.u.name) + 1 : 0;
    struct session *session = calloc(1, sizeof *session + name_len);
    if (session == NULL) {
        return NULL;
    }
    session->worker = worker;
    session->config = config;
    session->protocol = entry->protocol;
    session->id = entry->id;
    session->accepted_ms = accepted_ms;
    session->client = pack(&entry->client);
    session->listener = pack(&entry->listener);
    session->dialled = pack(&entry->dialled);
    session->asked = pack(&entry->asked);
    if (name_len != 0) {
        memcpy(session->asked_name, entry->asked.u.name, name_len);
    }
    session->next = worker->sessions;
    if (session->next != NULL) {
        session->next->prev = session;
    }
    worker->sessions = session;
    return session;
}

void session_start(struct worker *worker, const struct config *config, int client_fd, int server_fd, uint8_t *early,
                   size_t early_len, const struct log_access *entry, uint64_t accepted_ms)
{
    const struct relay_config relay_config = {
        .idle_ms = config->limits.idle_ms,
        .half_closed_ms = config->limits.half_closed_ms,
    };
    struct session *session = session_new(worker, config, entry, accepted_ms);

    if (session == NULL) {
        sock_reset_on_close(client_fd);
        sock_reset_on_close(server_fd);
        close(client_fd);
        close(server_fd);
        free(early);
        stats_add(&worker->stats, STATS_closed, 1);
        log_failed_start(worker, entry, accepted_ms);
        limits_release(worker->shared->limits, &entry->client);
        config_release(config);
        worker_connection_gone(worker);
        return;
    }
    if (relay_start(worker->relays, client_fd, server_fd, early, early_len, &relay_config, on_relay_done, session,
                    &session->relay) != 0) {
        stats_add(&worker->stats, STATS_closed, 1);
        log_failed_start(worker, entry, accepted_ms);
        session_free(session);
    }
}

void session_abort_all(struct worker *worker)
{
    while (worker->sessions != NULL) {
        relay_abort(worker->sessions->relay);
    }
}
