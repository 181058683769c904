/* What the benchmark programs share: addresses, clocks, and how they fail. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define CHUNK_LEN (1u << 20) /* bytes of one read or write of bulk */

/* In a file that backend and load generators map: what only the backend can count. */
struct tally {
    atomic_ullong sunk_bytes; /* received on the sink port */
    atomic_ullong questions;  /* received on the DNS port */
};

/* Prints `what` and the errno, and ends with status 1. */
_Noreturn void die(const char *what);

/* Nanoseconds. */
uint64_t clock_ns(clockid_t clock);

struct sockaddr_in ipv4(in_addr_t host_order_address, uint16_t port);

/* Sets TCP_NODELAY. */
void set_nodelay(int fd);

/* Raises the soft limit on descriptors to the hard one. */
void raise_fd_limit(void);

/* Maps the file `path`, which is created when missing. */
struct tally *map_tally(const char *path);

/* Values of the command line, an address in host order among them; end the program with status 2 if they are none. */
in_addr_t need_address(const char *text);
unsigned need_number(const char *text);
/* The index of `name` in `names`. */
unsigned need_name(const char *const *names, unsigned count, const char *name);

/* Zeroed memory; ends the program when there is none. */
void *need_memory(size_t count, size_t size);

#endif
