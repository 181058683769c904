/*
 * run-calls: makes the calls that libsocks6-preload.so replaces, and prints a line for each: what it returned, errno, and what
 * else can be seen of it. tests/e2e/test_run_calls.py compares what is printed without and with `socks6 run`.
 *
 * Nothing that differs from one run to the next is printed: no port, no time, no process ID. The addresses are those of
 * tests/e2e/lib/run_world.py.
 */
#ifndef CALLS_H
#define CALLS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SERVER4 "10.60.0.1"
#define SERVER6 "fd60::1"
#define OTHER4 "10.60.0.2"
#define REFUSING4 "10.60.0.97"
#define REFUSING6 "fd60::97"
#define UNREACHABLE4 "10.60.0.98"
#define UNREACHABLE6 "fd60::98"
#define SILENT4 "10.60.0.99"

/* What listens at the SERVERs, by port. */
#define PORT_ECHO 7    /* sends back what comes, then its end */
#define PORT_RESETS 11 /* "hello", waits for a byte, resets */
#define PORT_ENDS_FIRST                                                                                                \
    12                 /* its end at once; reads on, and resets the connection if what comes is not "after the end" */
#define PORT_CLOSES 13 /* "bye", waits for a byte, closes: both directions are over */
#define PORT_MUTE 14   /* reads nothing, says nothing */

#define WAIT_MS 10000 /* for what must happen; the test fails after it */

struct target {
    struct sockaddr_storage addr;
    socklen_t len;
};

/* ---- lines ---- */

__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* "CALL = VALUE", or "CALL = -1 ENAME" with errno as it is. Returns the value. */
long told(const char *call, long value);
/* Ends the program: something that is not the subject has failed. */
_Noreturn void broken(const char *what);
/* Names of poll(2)'s and epoll(7)'s events, which are the same bits, in a static buffer. */
const char *events_text(unsigned events);
/* The name of an error, "0" for none. */
const char *error_text(int error);

/* ---- sockets ---- */

struct target target_of(const char *host, uint16_t port);
const struct sockaddr *target_addr(const struct target *target);
int new_socket(int family, int flags);
/* A socket that is connected to `host`, or the end of the program. */
int connected_to(const char *host, uint16_t port);
/* Says what SO_ERROR, getpeername and getsockname tell. */
void say_error(int fd);
void say_names(int fd);
/* A line to PORT_ECHO and back: says whether it came. */
void say_echo(const char *what, int fd);
void set_int(int fd, int level, int name, int value);
void sleep_ms(long ms);

/* ---- sections ---- */

void section_connect(void);
void section_interrupted(void);
void section_timed_out(void);
void section_wait(void);
void section_epoll(void);
void section_uring(void);
void section_options(void);
void section_stream(void);
void section_ends(void);
void section_descriptors(void);
void section_processes(void);
void section_threads(void);
void section_names(void);
void section_resolver(void);

/* The program itself, started by section_processes: `fd` was inherited. */
void say_inherited(int fd);

#endif
