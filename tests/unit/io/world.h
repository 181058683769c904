/*
 * A relay between real sockets: client <-> a | relay | b <-> server, all driven by one loop.
 */
#ifndef TEST_IO_WORLD_H
#define TEST_IO_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness.h"
#include "io/loop.h"
#include "io/relay.h"

#define MIB (1u << 20)

struct world {
    struct loop *loop;
    struct relay_shared *shared;
    struct relay *relay; /* NULL before the start and after the end */
    int fd_a, fd_b;      /* the relay's once it is started */
    bool b_is_parked;
    struct tls_stream *tls; /* over fd_a, for the relay; NULL = none */
    struct peer client, server;
    struct relay_limits limits;
    bool is_over;
    unsigned no_pipe_count;
    struct relay_result result;
    struct loop_timer timer; /* world_run_for() */
    bool has_expired;
    unsigned fds_before;
};

/* Whether relays may splice: set by main(), from the program's first argument, before any test. */
extern bool world_splices;

/* Takes the program's arguments: "splice" or none. */
void world_init(int argc, char **argv);

/* Everything but the relay. The limits are off. */
void world_open(struct world *world);
/* Starts the relay, as far as it can be; 0 or relay_start()'s error. */
int world_try_start(struct world *world, const uint8_t *early, size_t early_len);
/* Starts the relay; failing is an error of the test. */
void world_start(struct world *world, const uint8_t *early, size_t early_len);
/* Closes and frees everything, and demands that no descriptor stays. */
void world_close(struct world *world);

/* Runs for that long on the (jumping) clock. */
void world_run_for(struct world *world, uint64_t ms);

/* Conditions for harness_run_until(). */
bool world_relay_is_over(void *world);
/* The relay has ended and both peers have heard of it. */
bool world_is_over(void *world);
bool world_client_has_eof(void *world);
bool world_server_has_eof(void *world);

#endif
