/*
 * Moves bytes between standard input and output and a connection, until both directions are over. Called by
 * cmd_connect.c once the dial has succeeded.
 */
#ifndef CLI_PUMP_H
#define CLI_PUMP_H

#include <stddef.h>
#include <stdint.h>

#include "cli/stream.h"

struct pump_config {
    int in;  /* read until its end, which is passed on as the end of our side of the connection: see shutdown_ms */
    int out; /* written; closed by pump_run() once the remote end has closed its side and all is written */
    struct stream *net; /* stays open */
    int idle_ms;        /* end after that long without a byte in either direction; -1 = never */
    int quit_ms;        /* end that long after the end of `in` was passed on (or would have been); -1 = never */
    /*
     * When the end of `in` is passed on (half-close): once the remote end has been silent for that long, or has closed its side; 0 = at
     * once; -1 = never. Many servers, nginx among them, drop an answer that they are still sending when they see the end.
     */
    int shutdown_ms;
    int in_ended;                                /* 1: the end of `in` has been seen already */
    void (*trace)(void *user, const char *what); /* one sentence per step; may be NULL */
    void *trace_user;
};

enum pump_end {
    PUMP_DONE,      /* both directions ended; or the remote's did, and `in` is a terminal */
    PUMP_QUIT,      /* quit_ms passed */
    PUMP_IDLE,      /* idle_ms passed */
    PUMP_OUT_GONE,  /* nobody reads `out` any more */
    PUMP_NET_ERROR, /* the connection broke */
    PUMP_IN_ERROR,  /* `in` could not be read */
    PUMP_OUT_ERROR, /* `out` could not be written */
    PUMP_NO_MEMORY
};

struct pump_result {
    enum pump_end end;
    int error; /* errno of the three errors */
    uint64_t sent;
    uint64_t received;
};

void pump_run(const struct pump_config *config, struct pump_result *result);

#endif
