/*
 * The daemon as a whole: sockets, workers, signals, reload, drain. main.c starts it; workers do the work.
 *
 * The main thread runs a small loop of its own for signals (signalfd) and interface addresses (netlink).
 *   SIGHUP            reload: read and checked first, the old configuration stays in force on any error; log files
 *                     are opened anew in any case
 *   SIGTERM, SIGINT   drain: no new connections, those that exist run on; a second one ends them
 *   SIGUSR1           log all counters
 * It also answers at the status socket (status_socket.h).
 */
#ifndef PROXYD_DAEMON_H
#define PROXYD_DAEMON_H

#include <stddef.h>

#include "proxyd/config.h"

struct daemon_options {
    const char *config_path; /* NULL: the default */
    const char *const *listen;
    size_t listen_count;
    enum config_verbosity verbosity;
};

/* Runs until it is told to end. `config`: a reference, taken. The process's exit status: 0, or 1 if it could not start. */
int daemon_run(const struct daemon_options *options, const struct config *config);

#endif
