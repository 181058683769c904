/*
 * For tests of the helper of `socks6 run` with failing calls: the nth call of those that are wrapped fails in the thread that wants it;
 * a proxy in a thread of its own; and a program's side of run/protocol.h, whose calls do not fail.
 */
#ifndef TESTS_CLI_FAULTS_H
#define TESTS_CLI_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <socks6/dial.h>

#include "cli/proxy_find.h"
#include "cli/run_serve.h"
#include "run/protocol.h"

#define FAULTS_TIMEOUT_MS 20000

/* --- calls --- */

extern _Thread_local unsigned faults_countdown; /* 1 = the next call fails; 0 = none does */
extern bool faults_has_failed;
extern const char *faults_what; /* the one that has */
extern int faults_errno;        /* with which it does */

/* For the tests' own calls. */
int __real_socket(int domain, int type, int protocol);
ssize_t __real_send(int fd, const void *buf, size_t size, int flags);
ssize_t __real_recv(int fd, void *buf, size_t size, int flags);
int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);

/* --- the proxy: answers one connection after the other, and echoes what comes then --- */

enum faults_manner {
    FAULTS_YES,
    FAULTS_REFUSED, /* the remote end has */
    FAULTS_USELESS  /* it wants to know who is there */
};

/* The port in requests that programs make themselves: by it the proxy knows them. */
#define FAULTS_OWN_PORT 9

extern struct socks6_proxy faults_proxy;
extern struct proxy_addresses faults_addresses;

/* 0, or nothing can be tested. It says yes to all. */
int faults_proxy_start(void);
/* From now on. `waits`: the program's own request is answered after faults_proxy_go_on(), to be called once for each. */
void faults_proxy_behave(enum faults_manner own, enum faults_manner others, bool waits);
/* Connections are reset after the first echo, until the next faults_proxy_behave(). */
void faults_proxy_reset_after(void);
/* A socket that is connected to the proxy, which has its request. */
int faults_proxy_ask(void);
void faults_proxy_go_on(void);
/* Waits until the connection of faults_proxy_ask() is over for the proxy. 0, or the errno that it has seen. */
int faults_proxy_end(void);

/* --- the program --- */

/* A connection to the helper, and the secret for it. */
int faults_open_talk(const struct run_serve *serve, uint8_t secret[RUN_SECRET_LEN]);
/* With a descriptor, unless that is -1. */
void faults_send_with(int fd, void *bytes, size_t len, int own);
/* False: it has ended before. `*is_hung` becomes true if nothing came for a long time. */
bool faults_receive(int fd, void *buf, size_t len, bool *is_hung);
/* The same for a reply with `len` bytes of body. `*passed` is what came along, or -1. */
bool faults_receive_reply(int fd, int *status, void *body, size_t len, int *passed, bool *is_hung);

unsigned faults_count_fds(void);
/* Whether it is that many, in a while. */
bool faults_has_fds(unsigned count);

#endif
