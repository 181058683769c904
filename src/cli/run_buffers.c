#include "cli/run_buffers.h"

#include <stdlib.h>

uint8_t *run_buffers_take(struct run_buffers *buffers)
{
    return buffers->spare_count > 0 ? buffers->spare[--buffers->spare_count] : malloc(RUN_BUFFER_LEN);
}

void run_buffers_give(struct run_buffers *buffers, uint8_t *block)
{
    if (block != NULL && buffers->spare_count < RUN_BUFFERS_SPARE_MAX) {
        buffers->spare[buffers->spare_count++] = block;
    } else {
        free(block);
    }
}

void run_buffers_done(struct run_buffers *buffers)
{
    while (buffers->spare_count > 0) {
        free(buffers->spare[--buffers->spare_count]);
    }
}
