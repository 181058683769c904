/*
 * A question as it came from a client of the DNS service, or as the process asks it itself: what of it is asked
 * upstream, and what concerns this hop alone (RFC 6891: OPT is hop by hop). Pure.
 *
 * Of the EDNS options COOKIE, TCP keepalive and padding concern the hop and are never forwarded. All others, ECS among
 * them, are; such a question is `private`: its answer may be for this client alone, so it is neither cached nor merged
 * with another's.
 */
#ifndef DNS_REQUEST_H
#define DNS_REQUEST_H

#include "dns/message.h"

struct dns_request {
    uint16_t id;
    uint16_t flags; /* of the header */
    struct dns_question question;
    bool has_question; /* after an error it may not be known */
    bool has_edns;
    bool wants_keepalive; /* RFC 7828: the option is there */
    bool wants_padding;   /* RFC 7830 */
    bool is_private;
    uint8_t edns_version;
    uint16_t edns_flags;         /* DNS_EDNS_DO */
    uint16_t edns_udp_len;       /* what it can receive over UDP; at least 512 */
    struct socks6_slice options; /* all EDNS options of a private one; borrowed from the message */
};

/* What has to be done with it. */
enum dns_request_verdict {
    DNS_REQUEST_ASK,   /* a question to be answered */
    DNS_REQUEST_ERROR, /* `rcode` is the answer */
    DNS_REQUEST_JUNK   /* no question at all (shorter than a header, or a response): there is no answer to it */
};

/*
 * `out` is set as far as it could be read (JUNK: untouched). `rcode`: FORMERR for what is malformed, has not exactly
 * one question, or has records other than OPT; NOTIMP for other opcodes; REFUSED for AXFR and IXFR; BADVERS.
 */
enum dns_request_verdict dns_request_read(const uint8_t *message, size_t len, struct dns_request *out,
                                          enum dns_rcode *rcode);

/* A question of our own: RD, EDNS, no DO. */
void dns_request_init(struct dns_request *request, const struct dns_name *name, uint16_t type);

/* EDNS options that go no further than the next hop. */
bool dns_option_is_hop_by_hop(uint16_t code);

/* What the cache and the merging of questions distinguish. */
struct dns_key {
    uint8_t bytes[DNS_NAME_MAX + 5]; /* RD, DO, CD; type; class; the name in lower case */
    size_t len;
};
void dns_key_init(struct dns_key *key, const struct dns_request *request);

/* What our OPT upstream says that we can receive: passes everywhere without fragments (DNS flag day 2020). */
#define DNS_UPSTREAM_UDP_LEN 1232u

/*
 * The query for an upstream server. `with_edns` false for a server that does not know it. `options` (NULL allowed) are
 * of this hop, as dns_option_put() writes them. -ENOSPC.
 */
SOCKS6_MUST_CHECK int dns_request_build(const struct dns_request *request, uint16_t id, bool with_edns,
                                        const struct socks6_slice *options, uint8_t *buf, size_t size, size_t *len);

#endif
