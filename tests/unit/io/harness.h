/*
 * What the tests of src/io share: connected socket pairs, peers that send and check a known stream, a clock that can
 * jump, and system calls that fail on demand.
 *
 * The executables are linked with --wrap for the calls named in harness.c, so that the code under test meets them
 * here. Test code that must not meet them uses the real_ functions.
 */
#ifndef TEST_IO_HARNESS_H
#define TEST_IO_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "io/loop.h"

/* Kills the test program if it hangs. Call once per test. */
void harness_guard(void);

/* Open descriptors of this process. */
unsigned harness_fd_count(void);

/* A non-blocking, connected TCP pair on 127.0.0.1. */
void harness_pair(int fds[2]);

/* The running TCP_USER_TIMEOUT of a socket. */
unsigned harness_user_timeout(int fd);

/*
 * Runs the loop until `condition` holds (asked before every epoll_wait). When nothing happens for a moment and a timer
 * is pending, the clock jumps to it: limits of hours pass at once.
 */
void harness_run_until(struct loop *loop, bool (*condition)(void *context), void *context);

/* Runs the loop until nothing happens any more, timers aside. */
void harness_run_until_quiet(struct loop *loop);

/* Moves the clock forward. */
void harness_advance(uint64_t ms);

/*
 * The `n`-th of the calls that can fail, counted from 1, fails with `error`; 0 = none does. `call` NULL = any call,
 * else its name.
 */
void harness_fail(const char *call, unsigned n, int error);
/* Whether the failure has happened since harness_fail(). */
bool harness_has_failed(void);

/*
 * While set, recv() on this descriptor yields full buffers of zeros and send() to any takes all: an endless source. -1
 * = off.
 */
void harness_endless_source(int fd);
/* recv() calls, and splice() calls from it, answered so. */
unsigned harness_endless_count(void);

/* send() and sendmsg() calls of the code under test since the last call. They fail as "send". */
unsigned harness_send_count(void);
/* While not 0, each of them takes, at random, nothing, a part or all. */
void harness_send_in_bits(uint32_t seed);

/* While set, connect() binds the socket to the address it is to connect to: a connection with itself. */
void harness_connect_to_self(bool on);
/* While set, connect() returns only when the connection stands, as it can where no answer need be waited for. */
void harness_connect_at_once(bool on);

/* Bytes that splice() has moved out of pipes since the last call. */
uint64_t harness_spliced(void);

/* The largest block that malloc() gave to the code under test since the last call. */
size_t harness_largest_malloc(void);

ssize_t real_recv(int fd, void *buf, size_t len, int flags);
ssize_t real_send(int fd, const void *buf, size_t len, int flags);

/*
 * The other end of a socket under test: sends `to_send` bytes of a stream known by its seed, and checks what it
 * receives.
 */
struct peer {
    struct loop_io io;
    struct loop *loop;
    int fd; /* -1 after peer_close() */
    uint32_t seed_out, seed_in;
    uint64_t to_send, sent, received;
    bool is_paused;       /* does not read */
    bool shuts_when_sent; /* half-closes after to_send */
    bool is_shut, has_eof;
    int error; /* errno of recv or send that ended it */
};

/* Takes `fd`. */
void peer_open(struct peer *peer, struct loop *loop, int fd, uint32_t seed_out, uint32_t seed_in);
/* After a field was changed: goes on. */
void peer_pump(struct peer *peer);
/* Closes; with `reset`, by a reset. Does nothing if it is closed. */
void peer_close(struct peer *peer, bool reset);

/* The stream of a seed. */
void stream_fill(uint32_t seed, uint64_t pos, uint8_t *out, size_t len);

#endif
