/*
 * A client's stream to the DNS service, in pieces: the first byte says how large. Whatever comes in, what goes out is
 * whole responses, as many as there were whole questions before the first message that is none; and the stream ends.
 *
 * Names that are not local get SERVFAIL: the upstream server is a closed port of loopback.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dns/answer.h"
#include "fuzz.h"
#include "proxyd/dns_service.h"

static struct loop *loop;
static struct dns_resolver *resolver;
static struct dns_client *client;
static struct dns_limits *limits;
static struct dns_service_shared *shared;
static const struct config *config;
static struct stats *stats;

static struct dns_service *service;
static bool is_running;
static struct loop_io io;

static void open_world(void)
{
    struct dns_settings settings = {.hosts = "", .server_count = 1, .attempts = 1, .timeout_ms = 1000};
    struct config_error error;

    const struct dns_server_setting server = {
        .transport = DNS_TCP, .addr = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = 1, .u.ipv4 = {127, 0, 0, 1}}};
    settings.servers = &server;
    require(config_load(NULL, NULL, 0, &config, &error) == 0, "the defaults load");
    require(loop_new(&loop) == 0 && dns_resolver_new(&settings, &resolver) == 0 &&
                dns_client_new(resolver, loop, &client) == 0 && dns_limits_new(&limits) == 0,
            "there is a world");
    shared = dns_service_shared_new();
    stats = aligned_alloc(_Alignof(struct stats), sizeof *stats);
    require(shared != NULL && stats != NULL, "there is memory");
    memset(stats, 0, sizeof *stats);
}

static void on_over(void *user, const char *reason)
{
    (void)user;
    require(reason != NULL && reason[0] != '\0', "it ends for a reason");
    dns_service_free(service);
    service = NULL;
    if (is_running) { /* else the next run would end at once */
        loop_stop(loop);
    }
}

static void on_ready(struct loop_io *its, uint32_t events)
{
    (void)its;
    if (service != NULL) {
        dns_service_events(service, events);
    }
}

/* Questions that must be answered: whole messages, up to the first that is junk. */
static size_t count_questions(const uint8_t *data, size_t size)
{
    struct dns_request request;
    enum dns_rcode rcode;
    size_t count = 0;

    while (size >= 2 && size - 2 >= dns_get16(data)) {
        size_t len = dns_get16(data);
        if (dns_request_read(data + 2, len, &request, &rcode) == DNS_REQUEST_JUNK) {
            break;
        }
        count++;
        data += 2 + len;
        size -= 2 + len;
    }
    return count;
}

static size_t count_answers(int fd)
{
    static uint8_t all[1 << 20];
    size_t len = 0, at = 0, count = 0;
    ssize_t n;

    while ((n = recv(fd, all + len, sizeof all - len, MSG_DONTWAIT)) > 0) {
        len += (size_t)n;
    }
    while (at < len) {
        struct dns_edns edns;
        size_t end;
        require(len - at >= 2 && len - at - 2 >= dns_get16(all + at), "answers are whole");
        size_t message_len = dns_get16(all + at);
        require(dns_message_check(all + at + 2, message_len, &edns, &end) == 0 && end == message_len,
                "and well-formed");
        require((all[at + 4] & 0x80) != 0, "and responses");
        at += 2 + message_len;
        count++;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct socks6_addr from = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = 9, .u.ipv4 = {127, 0, 0, 1}};
    int fds[2];

    if (loop == NULL) {
        open_world();
    }
    if (size == 0 || size > 2048) {
        return 0;
    }
    size_t piece = 8 + (size_t)data[0] * 4; /* smaller ones would fill the socket with overhead */
    data++;
    size--;
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "there is a socket");
    size_t early = piece < size ? piece : size;
    const struct dns_service_setup setup = {
        .shared = shared,
        .loop = loop,
        .dns = client,
        .limits = limits,
        .config = config,
        .client = &from,
        .stats = stats,
        .fd = fds[0],
        .events = EPOLLIN | EPOLLOUT,
        .early = data,
        .early_len = early,
        .over = on_over,
    };
    require(dns_service_start(&setup, &service) == 0, "it starts");
    io = (struct loop_io){.ready = on_ready, .fd = fds[0]};
    require(loop_add(loop, &io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) == 0, "there is room in epoll");
    for (size_t at = early; at < size && service != NULL; at += piece) {
        size_t len = piece < size - at ? piece : size - at;
        require(send(fds[1], data + at, len, MSG_NOSIGNAL) == (ssize_t)len, "the socket takes it");
        dns_service_events(service, EPOLLIN);
    }
    require(shutdown(fds[1], SHUT_WR) == 0, "the stream can end");
    if (service != NULL) {
        is_running = true;
        require(loop_run(loop) == 0, "the loop runs");
        is_running = false;
    }
    require(service == NULL, "the stream is over");
    require(count_answers(fds[1]) == count_questions(data, size), "every question has an answer");
    loop_close(loop, &io);
    close(fds[1]);
    return 0;
}
