/* All of libsocks6. */
#ifndef SOCKS6_SOCKS6_H
#define SOCKS6_SOCKS6_H

#include <socks6/client.h>
#include <socks6/dial.h>
#include <socks6/error.h>
#include <socks6/server.h>
#include <socks6/session.h>
#include <socks6/types.h>
#include <socks6/udp.h>

#endif
