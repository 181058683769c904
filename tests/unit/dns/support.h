/*
 * What the tests of src/dns share: messages put together by hand, and a scripted DNS server on loopback, over UDP and TCP
 * on one port, that runs on the test's own loop.
 */
#ifndef TEST_DNS_SUPPORT_H
#define TEST_DNS_SUPPORT_H

#include "dns/request.h"
#include "dns/resolver.h"

/* A message that is being written. */
struct draft {
    uint8_t bytes[DNS_MESSAGE_MAX];
    size_t len;
};

/* A response with this question; `flags` beside QR. */
void draft_response(struct draft *draft, uint16_t id, unsigned flags, const char *name, uint16_t type);
/* A record at the end of `section`; sections in their order. `owner` "" = the question's name, compressed. */
void draft_record(struct draft *draft, enum dns_section section, const char *owner, uint16_t type, uint32_t ttl,
                  const void *rdata, size_t rdata_len);
void draft_a(struct draft *draft, const char *owner, uint32_t ttl, const char *ipv4);
void draft_aaaa(struct draft *draft, const char *owner, uint32_t ttl, const char *ipv6);
void draft_cname(struct draft *draft, const char *owner, uint32_t ttl, const char *target);
/* In the authority section. */
void draft_soa(struct draft *draft, const char *owner, uint32_t ttl, uint32_t minimum);
void draft_opt(struct draft *draft, uint16_t udp_len, unsigned extended_rcode, unsigned flags, const void *options,
               size_t options_len);

struct dns_name name_of(const char *text);
struct dns_request question_of(const char *name, uint16_t type);

/* ---- a scripted server ---- */

struct fake;

/* A query that came. Valid during the handler's call; a TCP connection may end after it. */
struct fake_query {
    struct fake *fake;
    bool is_tcp;
    const uint8_t *message;
    size_t len;
    uint16_t id;
    char name[DNS_NAME_TEXT_MAX]; /* "www.example." */
    uint16_t type;
    struct dns_edns edns;
    void *from; /* for fake_send() */
};

/* A TCP connection. */
struct fake_peer {
    struct loop_io io;
    struct fake *fake;
    struct fake_peer *next;
    uint8_t in[2 + DNS_MESSAGE_MAX];
    size_t in_len;
    bool is_over;
};

struct fake {
    struct loop *loop;
    struct loop_io udp, tcp;
    struct fake_peer *peers; /* TCP connections */
    uint16_t port;
    void (*handle)(struct fake_query *query);
    unsigned udp_count, tcp_count; /* queries */
    unsigned connection_count;
    uint16_t source_ports[64]; /* of the first UDP queries */
    uint16_t ids[64];
};

void fake_open(struct fake *fake, struct loop *loop, void (*handle)(struct fake_query *query));
void fake_close(struct fake *fake);
/* Sends a message to whoever asked, the same way. */
void fake_send(struct fake_query *query, const void *message, size_t len);
/* Sends bytes as they are, without length, over TCP. */
void fake_send_raw(struct fake_query *query, const void *bytes, size_t len);
/* Ends the query's TCP connection. */
void fake_hang_up(struct fake_query *query);
/* Ends all TCP connections. */
void fake_hang_up_all(struct fake *fake);
/* An A record 192.0.2.1, or AAAA 2001:db8::1, or an empty answer for other types. */
void fake_answer(struct fake_query *query);

struct dns_server_setting fake_setting(const struct fake *fake, enum dns_transport transport);

#endif
