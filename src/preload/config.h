/*
 * What `socks6 run` told us through the environment. Read once, before the program's main().
 */
#ifndef PRELOAD_CONFIG_H
#define PRELOAD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "run/protocol.h"

struct preload_config {
    bool is_valid; /* without it nothing is let through, but for loopback */
    bool verbose, allow_direct, fake_names;
    uint8_t secret[RUN_SECRET_LEN];
    struct sockaddr_un helper;
    socklen_t helper_len;
    /* For programs that are started with another environment: "SOCKS6_RUN=...", "LD_PRELOAD=..." with our part alone. */
    char variable[160];
    char preload[4096]; /* empty = unknown */
};

/* Made on the first call, which is safe in a signal handler. Never NULL. */
const struct preload_config *preload_config(void);

/* For tests: takes the text of the variable apart. False, and `out` all zero, if it makes no sense. */
bool preload_config_parse(const char *text, struct preload_config *out);

#endif
