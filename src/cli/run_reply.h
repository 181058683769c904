/*
 * A reply of run/protocol.h, as run_serve.c and run_connect.c send it.
 */
#ifndef CLI_RUN_REPLY_H
#define CLI_RUN_REPLY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * `fd` is the socket on which the request came: nothing waits in it to be read by the program, so it takes the reply at once. `pass`
 * goes along, unless it is -1. False if the program has gone.
 */
bool run_reply_send(int fd, int status, const void *body, size_t len, int pass);

#endif
