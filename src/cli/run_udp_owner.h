/*
 * Whose a UDP socket of this machine is, from /proc/net/udp (proc(5)). Called by run_udp_dns.c for each query.
 */
#ifndef CLI_RUN_UDP_OWNER_H
#define CLI_RUN_UDP_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>

/*
 * Whether it is ours to answer: whether the socket at that address of loopback belongs to our user. For root everyone's is: programs
 * that root starts change their user. Where the file cannot be read there is nothing to tell by, and the answer is yes. No such socket
 * any more: no.
 */
bool run_udp_owner_is_ours(const struct sockaddr *peer);

/* Whether one of the sockets in the table, an open /proc/net/udp or udp6, is at `peer` and belongs to one of the two. */
bool run_udp_owner_in(FILE *table, const struct sockaddr *peer, uid_t real, uid_t effective);

#endif
