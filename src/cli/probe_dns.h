/*
 * One DNS query over TCP and a look at its answer (RFC 1035, RFC 7766). Pure.
 */
#ifndef CLI_PROBE_DNS_H
#define CLI_PROBE_DNS_H

#include <stddef.h>
#include <stdint.h>

#define PROBE_DNS_NAME_MAX 253
#define PROBE_DNS_QUERY_MAX (2 + 12 + PROBE_DNS_NAME_MAX + 2 + 4)

/*
 * Writes a query with its length in front: the NS of the root for ".", else the A of `name`. Returns its length, or 0 if
 * `name` is no domain name: labels of 1 to 63 bytes between dots, 253 in all, a dot at the end or not.
 */
size_t probe_dns_query(const char *name, uint16_t id, uint8_t out[PROBE_DNS_QUERY_MAX]);

/* For struct probe_ask6: how many bytes a whole message with its length has. */
size_t probe_dns_need(const uint8_t *bytes, size_t len);

/*
 * Judges a whole answer to `query`. 1: it is one, and `out` says with which result ("NOERROR, 13 records"); 0: it is
 * not, and `out` says why.
 */
int probe_dns_judge(const uint8_t *query, const uint8_t *answer, size_t len, char *out, size_t size);

#endif
