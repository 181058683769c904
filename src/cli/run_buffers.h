/*
 * Blocks of memory for bytes on their way, shared by the tunnels of one loop: a tunnel has one only while it moves bytes, or
 * holds some that the other side does not take. Used by run_tunnel.c.
 */
#ifndef CLI_RUN_BUFFERS_H
#define CLI_RUN_BUFFERS_H

#include <stdint.h>

#define RUN_BUFFER_LEN (128u * 1024u)
/* Blocks that are kept although nobody uses them. */
#define RUN_BUFFERS_SPARE_MAX 8u

/* Zero-initialise. */
struct run_buffers {
    uint8_t *spare[RUN_BUFFERS_SPARE_MAX];
    unsigned spare_count;
};

/* NULL without memory. */
uint8_t *run_buffers_take(struct run_buffers *buffers);
/* Takes NULL. */
void run_buffers_give(struct run_buffers *buffers, uint8_t *block);
/* Frees those that are not used. */
void run_buffers_done(struct run_buffers *buffers);

#endif
