/*
 * The Unix socket that gives a JSON document to whoever connects, and closes: no request, no protocol.
 *
 * It belongs to the main thread's loop. Clients are bounded in number and time, and a document is one allocation, so a
 * client that does not read costs nothing but its own answer. Only the daemon's user (and root) can connect: the
 * socket's mode is 0600 from its first moment.
 *
 * A socket that a dead daemon left behind is replaced; one that a living process listens on is not.
 */
#ifndef PROXYD_STATUS_SOCKET_H
#define PROXYD_STATUS_SOCKET_H

#include "io/loop.h"

struct status_socket;

/* A document to be freed, and its length; NULL = there is none now. */
typedef char *status_make(void *user, size_t *len);

#define STATUS_CLIENTS_MAX 8
/* An answer that is not read within this time is given up. */
#define STATUS_CLIENT_MS 5000

/* Listens on `path` (copied). 0, or -errno: EADDRINUSE = a living process has it, or it is no socket. */
SOCKS6_MUST_CHECK int status_socket_open(struct loop *loop, const char *path, status_make *make, void *user,
                                         struct status_socket **out);
/* Gives clients up, and removes the socket's file if it is still this one. Takes NULL. */
void status_socket_close(struct status_socket *socket);
const char *status_socket_path(const struct status_socket *socket);
/* Whether the file is still there and still this one. */
bool status_socket_is_reachable(const struct status_socket *socket);

#endif
