/*
 * The log's queues and the threads that write them out: a full pipe or a slow disk never blocks whoever logs.
 *
 * There are two slots, so that a stuck reader of the one holds up nothing of the other. Called by log.c, which knows
 * what a line is and where it belongs.
 */
#ifndef PROXYD_LOG_WRITER_H
#define PROXYD_LOG_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

enum log_slot { LOG_SLOT_DAEMON, LOG_SLOT_ACCESS, LOG_SLOT_COUNT };

/* Where a slot's lines go. `owned`: closed when it is not needed any more. */
struct log_descriptor {
    int fd;
    bool owned;
};

/*
 * Makes the line that tells of `count` lost lines into `buf` of LOG_LINE_MAX bytes and returns its length; 0 if it went
 * another way. `error` is why: an errno, or 0 for a reader who is too slow. From the writer's thread.
 */
typedef size_t log_writer_notice(enum log_slot slot, uint64_t count, int error, char *buf);

/* Starts the thread of a slot that has none. Takes the descriptor unless it fails: 0 or -errno. */
SOCKS6_MUST_CHECK int log_writer_start(enum log_slot slot, struct log_descriptor to, log_writer_notice *notice);
/*
 * Writes what is queued (for at most two seconds, if the reader is stuck), ends the thread. Does nothing for a slot
 * that has none.
 */
void log_writer_stop(enum log_slot slot);
bool log_writer_is_running(enum log_slot slot);
/*
 * From here on lines go to `to`, which is taken: all those submitted after the call, and those before it that are not
 * out yet. A line is whole in the new place even if its beginning went to the old one. The slot is running.
 */
void log_writer_move(enum log_slot slot, struct log_descriptor to);

/*
 * Queues `len` bytes, whole lines; they are lost, and counted, if there is no room. `urgent`: do not wait for more
 * before writing. False: the slot has no thread, and nothing was done.
 */
SOCKS6_MUST_CHECK bool log_writer_submit(enum log_slot slot, const char *lines, size_t len, bool urgent);

/* Lines lost so far, of all slots: a queue was full, or a descriptor took no more. */
uint64_t log_writer_lost(void);

#endif
