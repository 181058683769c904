/* The little of SOCKS 6 that a load generator needs: a request without options, and the proxy's two replies. */
#ifndef BENCH_SOCKS6_H
#define BENCH_SOCKS6_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define SOCKS6_REQUEST_LEN 12u

/* Writes CONNECT to `to`. */
void socks6_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_REQUEST_LEN]);

/* Length of Authentication Reply and Operation Reply, 0 while they are incomplete. */
size_t socks6_reply_len(const uint8_t *head, size_t len);

/* The code of the Operation Reply, 0 for success; 255 if authentication failed or the replies are no SOCKS 6. */
unsigned socks6_reply_code(const uint8_t *head);

#endif
