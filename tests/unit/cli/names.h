/*
 * A world for the tests of names: struct run_names over a link that is a scripted table, hosts and resolv.conf files, and asks whose
 * replies are kept. The link's functions are wrapped (--wrap); the clock jumps, see "harness.h".
 */
#ifndef TEST_CLI_NAMES_H
#define TEST_CLI_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/run_names.h"
#include "support.h"

struct names {
    struct loop *loop;
    struct run_names *run;
    char hosts[64], resolv_conf[64]; /* paths */
};

/* What is asked for and what is said; rows of names_zone, which ends with a NULL. */
struct names_row {
    const char *name; /* "www.example." */
    uint16_t type;    /* of the question; 0 = any */
    enum {
        ROW_ADDR,
        ROW_CNAME,
        ROW_PTR,
        ROW_RCODE,
        ROW_SILENT,
        ROW_UNREACHABLE,
        ROW_NODATA,
        ROW_BARE_CNAME,
        ROW_JUNK
    } what;
    const char *data; /* an address of the question's type, or a name */
    unsigned rcode;
};

extern const struct names_row *names_zone; /* what is not there is NXDOMAIN */
extern unsigned names_asked_count;         /* questions that reached the link */
extern char names_asked[4096];             /* and what they were: "www.example./1 ..." */

/* A pointer to it stands for the link. */
extern struct dns_link *const names_link;

/* What getifaddrs(3) says that this machine has beside loopback. Both at first. */
extern bool names_has_ipv4, names_has_ipv6;

void names_open(struct names *names, const char *hosts, const char *resolv_conf, bool fake);
void names_close(struct names *names);
/* Writes a file anew, so that its mark changes. */
void names_write(const char *path, const char *text);

struct reply {
    struct run_names_ask ask;
    unsigned times;
    int status;
    uint8_t body[70000];
    size_t len;
};

/* Asks; the reply may come at once. */
void names_ask(struct names *names, struct reply *reply, enum run_kind kind, const void *body, size_t len);
void names_ask_resolve(struct names *names, struct reply *reply, const char *name, uint16_t family, uint32_t flags);
/* Runs the loop until the reply has come. */
void names_wait(struct names *names, struct reply *reply);

/* Asks and waits. The reply in words: "2001:db8::1 192.0.2.1 =canonical", or "EAI_NONAME". Static storage. */
const char *names_resolve(struct names *names, const char *name, uint16_t family, uint32_t flags);
/* "a.example b.example", or "EAI_NONAME". */
const char *names_reverse(struct names *names, const char *addr);

struct run_addr names_addr(const char *text, uint16_t port);

#endif
