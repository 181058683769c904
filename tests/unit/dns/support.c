#include "support.h"

#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- messages ---- */

struct dns_name name_of(const char *text)
{
    struct dns_name name;
    assert_int_equal(dns_name_parse(text, &name), 0);
    return name;
}

struct dns_request question_of(const char *name, uint16_t type)
{
    struct dns_request request;
    struct dns_name wire = name_of(name);
    dns_request_init(&request, &wire, type);
    return request;
}

static void put(struct draft *draft, const void *bytes, size_t len)
{
    assert_true(draft->len + len <= sizeof draft->bytes);
    memcpy(draft->bytes + draft->len, bytes, len);
    draft->len += len;
}

static void put_name(struct draft *draft, const char *text)
{
    struct dns_name name = name_of(text);
    put(draft, name.wire, name.len);
}

static void put_number(struct draft *draft, uint32_t number, size_t len)
{
    uint8_t bytes[4];
    dns_put32(bytes, number);
    put(draft, bytes + 4 - len, len);
}

void draft_response(struct draft *draft, uint16_t id, unsigned flags, const char *name, uint16_t type)
{
    memset(draft->bytes, 0, DNS_HEADER_LEN);
    draft->len = DNS_HEADER_LEN;
    dns_put16(draft->bytes, id);
    dns_put16(draft->bytes + 2, DNS_FLAG_QR | flags);
    dns_put16(draft->bytes + 4, 1);
    put_name(draft, name);
    put_number(draft, type, 2);
    put_number(draft, DNS_CLASS_IN, 2);
}

static void add_count(struct draft *draft, enum dns_section section)
{
    uint8_t *at = draft->bytes + 4 + 2 * (size_t)section;
    dns_put16(at, dns_get16(at) + 1u);
}

void draft_record(struct draft *draft, enum dns_section section, const char *owner, uint16_t type, uint32_t ttl,
                  const void *rdata, size_t rdata_len)
{
    add_count(draft, section);
    if (owner[0] == '\0') {
        put_number(draft, 0xc00c, 2);
    } else {
        put_name(draft, owner);
    }
    put_number(draft, type, 2);
    put_number(draft, DNS_CLASS_IN, 2);
    put_number(draft, ttl, 4);
    put_number(draft, (uint32_t)rdata_len, 2);
    put(draft, rdata, rdata_len);
}

void draft_a(struct draft *draft, const char *owner, uint32_t ttl, const char *ipv4)
{
    uint8_t bytes[4];
    assert_int_equal(inet_pton(AF_INET, ipv4, bytes), 1);
    draft_record(draft, DNS_ANSWER, owner, DNS_TYPE_A, ttl, bytes, 4);
}

void draft_aaaa(struct draft *draft, const char *owner, uint32_t ttl, const char *ipv6)
{
    uint8_t bytes[16];
    assert_int_equal(inet_pton(AF_INET6, ipv6, bytes), 1);
    draft_record(draft, DNS_ANSWER, owner, DNS_TYPE_AAAA, ttl, bytes, 16);
}

void draft_cname(struct draft *draft, const char *owner, uint32_t ttl, const char *target)
{
    struct dns_name name = name_of(target);
    draft_record(draft, DNS_ANSWER, owner, DNS_TYPE_CNAME, ttl, name.wire, name.len);
}

void draft_soa(struct draft *draft, const char *owner, uint32_t ttl, uint32_t minimum)
{
    uint8_t rdata[2 + 20] = {0};
    dns_put32(rdata + 18, minimum);
    draft_record(draft, DNS_AUTHORITY, owner, DNS_TYPE_SOA, ttl, rdata, sizeof rdata);
}

void draft_opt(struct draft *draft, uint16_t udp_len, unsigned extended_rcode, unsigned flags, const void *options,
               size_t options_len)
{
    add_count(draft, DNS_ADDITIONAL);
    put(draft, "", 1);
    put_number(draft, DNS_TYPE_OPT, 2);
    put_number(draft, udp_len, 2);
    put_number(draft, extended_rcode << 24 | flags, 4);
    put_number(draft, (uint32_t)options_len, 2);
    if (options_len > 0) {
        put(draft, options, options_len);
    }
}

/* ---- the server ---- */

struct origin {
    struct sockaddr_in udp;
    struct fake_peer *tcp;
};

static void handle(struct fake *fake, struct origin *origin, const uint8_t *message, size_t len)
{
    struct fake_query query = {
        .fake = fake, .is_tcp = origin->tcp != NULL, .message = message, .len = len, .from = origin};
    struct dns_question question;
    size_t end;

    assert_int_equal(dns_question_read(message, len, &question, NULL), 0);
    assert_int_equal(dns_message_check(message, len, &query.edns, &end), 0);
    assert_int_equal(end, len);
    query.id = dns_get16(message);
    query.type = question.type;
    (void)dns_name_format(&question.name, query.name);
    if (!query.is_tcp) {
        if (fake->udp_count < 64) {
            fake->source_ports[fake->udp_count] = ntohs(origin->udp.sin_port);
            fake->ids[fake->udp_count] = query.id;
        }
        fake->udp_count++;
    } else {
        fake->tcp_count++;
    }
    fake->handle(&query);
}

static void on_udp(struct loop_io *io, uint32_t events)
{
    struct fake *fake = LOOP_OWNER(io, struct fake, udp);
    static uint8_t message[DNS_MESSAGE_MAX]; /* too much for a stack frame */
    struct origin origin = {.tcp = NULL};
    socklen_t len = sizeof origin.udp;

    (void)events;
    ssize_t n = recvfrom(io->fd, message, sizeof message, 0, (struct sockaddr *)&origin.udp, &len);
    if (n >= 0) {
        handle(fake, &origin, message, (size_t)n);
    }
}

static void peer_close(struct fake_peer *peer)
{
    struct fake_peer **at = &peer->fake->peers;
    while (*at != peer) {
        at = &(*at)->next;
    }
    *at = peer->next;
    loop_close(peer->fake->loop, &peer->io);
    free(peer);
}

static void on_peer(struct loop_io *io, uint32_t events)
{
    struct fake_peer *peer = LOOP_OWNER(io, struct fake_peer, io);
    struct origin origin = {.tcp = peer};

    (void)events;
    ssize_t n = recv(io->fd, peer->in + peer->in_len, sizeof peer->in - peer->in_len, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            peer_close(peer);
        }
        return;
    }
    peer->in_len += (size_t)n;
    while (!peer->is_over && peer->in_len >= 2 && peer->in_len - 2 >= dns_get16(peer->in)) {
        size_t whole = 2 + (size_t)dns_get16(peer->in);
        handle(peer->fake, &origin, peer->in + 2, whole - 2);
        memmove(peer->in, peer->in + whole, peer->in_len - whole);
        peer->in_len -= whole;
    }
    if (peer->is_over) {
        peer_close(peer);
    }
}

static void on_connection(struct loop_io *io, uint32_t events)
{
    struct fake *fake = LOOP_OWNER(io, struct fake, tcp);

    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    /* Not calloc(), and no assertion: tests let those fail. */
    struct fake_peer *peer = aligned_alloc(16, (sizeof *peer + 15) & ~(size_t)15);
    assert_non_null(peer);
    memset(peer, 0, sizeof *peer);
    peer->fake = fake;
    peer->io = (struct loop_io){.ready = on_peer, .fd = fd};
    if (loop_add(fake->loop, &peer->io, EPOLLIN) != 0) {
        close(fd);
        free(peer);
        return;
    }
    peer->next = fake->peers;
    fake->peers = peer;
    fake->connection_count++;
}

void fake_open(struct fake *fake, struct loop *loop, void (*handler)(struct fake_query *query))
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;

    memset(fake, 0, sizeof *fake);
    fake->loop = loop;
    fake->handle = handler;
    fake->tcp = (struct loop_io){on_connection, socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    fake->udp = (struct loop_io){on_udp, socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(fake->tcp.fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fake->tcp.fd, 16), 0);
    assert_int_equal(getsockname(fake->tcp.fd, (struct sockaddr *)&addr, &len), 0);
    assert_int_equal(bind(fake->udp.fd, (struct sockaddr *)&addr, sizeof addr), 0);
    fake->port = ntohs(addr.sin_port);
    assert_int_equal(loop_add(loop, &fake->tcp, EPOLLIN), 0);
    assert_int_equal(loop_add(loop, &fake->udp, EPOLLIN), 0);
}

void fake_close(struct fake *fake)
{
    fake_hang_up_all(fake);
    loop_close(fake->loop, &fake->tcp);
    loop_close(fake->loop, &fake->udp);
}

void fake_send_raw(struct fake_query *query, const void *bytes, size_t len)
{
    const struct origin *origin = query->from;
    assert_int_equal(send(origin->tcp->io.fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

void fake_send(struct fake_query *query, const void *message, size_t len)
{
    const struct origin *origin = query->from;
    static uint8_t framed[2 + DNS_MESSAGE_MAX]; /* one write: the second of two would wait for an acknowledgement */

    if (origin->tcp == NULL) {
        (void)sendto(query->fake->udp.fd, message, len, 0, (const struct sockaddr *)&origin->udp, sizeof origin->udp);
        return;
    }
    dns_put16(framed, (unsigned)len);
    memcpy(framed + 2, message, len);
    fake_send_raw(query, framed, 2 + len);
}

void fake_hang_up(struct fake_query *query)
{
    const struct origin *origin = query->from;
    origin->tcp->is_over = true;
}

void fake_hang_up_all(struct fake *fake)
{
    while (fake->peers != NULL) {
        peer_close(fake->peers);
    }
}

void fake_answer(struct fake_query *query)
{
    static struct draft draft;

    draft_response(&draft, query->id, DNS_FLAG_RD | DNS_FLAG_RA, query->name, query->type);
    if (query->type == DNS_TYPE_A) {
        draft_a(&draft, "", 300, "192.0.2.1");
    } else if (query->type == DNS_TYPE_AAAA) {
        draft_aaaa(&draft, "", 300, "2001:db8::1");
    }
    draft_opt(&draft, 4096, 0, 0, NULL, 0);
    fake_send(query, draft.bytes, draft.len);
}

struct dns_server_setting fake_setting(const struct fake *fake, enum dns_transport transport)
{
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    return (struct dns_server_setting){
        .transport = transport,
        .addr = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = fake->port, .u.ipv4 = {loopback[0], 0, 0, loopback[3]}},
    };
}
