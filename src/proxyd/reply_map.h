/*
 * errno of an outgoing connection -> SOCKS reply code ("Operation Replies"). In the daemon, because io knows no SOCKS
 * messages and the library knows no errno.
 */
#ifndef PROXYD_REPLY_MAP_H
#define PROXYD_REPLY_MAP_H

#include <socks6/types.h>

/* `error`: an errno value or DIALER_TTL_EXPIRED. */
enum socks6_reply_code reply_map_errno(int error);

/* SOCKS 5 (RFC 1928) has no code for a time-out: host unreachable. SOCKS 4 only knows granted and refused. */
uint8_t reply_map_socks5(enum socks6_reply_code code);
uint8_t reply_map_socks4(enum socks6_reply_code code);

#endif
