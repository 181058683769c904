/*
 * What a forwarding DNS server does to messages, without any I/O: a client's query becomes one for the proxy, the
 * proxy's answer one for the client. Called by dns_local.c.
 *
 * Ids and EDNS are each hop's own (RFC 6891 section 6.2.1): the proxy is always asked with EDNS, COOKIE, keepalive and
 * padding stay on their hop, all other options pass.
 */
#ifndef CLI_DNS_FORWARD_H
#define CLI_DNS_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns/message.h"

/* Longer queries are refused: a name and a kilobyte or two of options is what there can be. */
#define DNS_FORWARD_QUERY_MAX 2048u
/* Room for the query to the proxy: what came, and our own OPT record with a keepalive option. */
#define DNS_FORWARD_OUT_MAX (DNS_FORWARD_QUERY_MAX + 32u)
/* Room for an answer that we make ourselves. */
#define DNS_FORWARD_ERROR_MAX (DNS_QUERY_MAX + 128u)
/* The UDP size in our OPT records, and the most that is sent over UDP to another machine (RFC 9715). */
#define DNS_FORWARD_UDP_LEN 1232u

/* What must be remembered of a query for its answer. */
struct dns_forward {
    uint16_t id, flags;
    bool has_question, has_edns, wants_keepalive;
    uint16_t udp_len, edns_flags;
    struct dns_question question;
};

/*
 * Reads a client's query and writes the one for the proxy to `out`; its id is 0. 0: done. Positive: the rcode of the
 * answer, see dns_forward_error(). -EBADMSG: not to be answered at all (no header, or not a query).
 */
SOCKS6_MUST_CHECK int dns_forward_read(const uint8_t *message, size_t len, struct dns_forward *query,
                                       uint8_t out[DNS_FORWARD_OUT_MAX], size_t *out_len);

/* An answer of our own. `why` is an extended error (RFC 8914) for clients with EDNS, or -1. Returns its length. */
size_t dns_forward_error(const struct dns_forward *query, unsigned rcode, int why, uint8_t out[DNS_FORWARD_ERROR_MAX]);

/* How an answer may look. */
struct dns_forward_limits {
    size_t len;                /* longest message: 512 or more */
    bool has_keepalive;        /* say how long a connection may be idle, if the client has asked */
    uint16_t keepalive_tenths; /* of a second */
};

/*
 * Writes the client's form of an answer, or, over the limit, one without its records: additional records are left out,
 * and if that is not enough all of them, with TC set. `out` has DNS_MESSAGE_MAX bytes. -EBADMSG if the message is
 * malformed or answers another question.
 */
SOCKS6_MUST_CHECK int dns_forward_answer(const struct dns_forward *query, const struct dns_forward_limits *limits,
                                         const uint8_t *message, size_t len, uint8_t *out, size_t *out_len);

/* Whether a message answers the question. A server that did not understand it may leave it out. */
bool dns_forward_matches(const struct dns_question *asked, const uint8_t *message, size_t len);

/* The idle time that the sender of an answer grants (RFC 7828): tenths of a second, or -1 if it says nothing. */
int dns_forward_keepalive(const uint8_t *message, size_t len);

#endif
