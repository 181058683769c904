/*
 * Host names as rules compare them, and sets of strings that are asked often: user names, and host names with and
 * without "*." in front. A set is filled, closed with nameset_finish(), then only read; a look-up is a test of one word
 * and, if that does not say no, a binary search. Nothing is allocated.
 */
#ifndef PROXYD_NAMESET_H
#define PROXYD_NAMESET_H

#include <stdbool.h>

#include <socks6/types.h>

/* A name without regard to case and to one dot at its end. */
struct host_name {
    char text[SOCKS6_NAME_MAX + 1]; /* ASCII letters small */
    uint64_t bit;                   /* of the text in struct nameset's filter */
    uint64_t suffix_bits;           /* of what follows each of its dots */
};

/* Longer names than SOCKS6_NAME_MAX, which no request has, are cut. */
void host_name_init(struct host_name *host, const char *name);

struct nameset {
    char **items; /* after nameset_finish(): ascending */
    size_t count, size;
    uint64_t filter; /* a bit for each item, by its hash: a text whose bit is not here is not in the set */
};

/* A zeroed set is an empty one. Copies `len` bytes without NUL. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int nameset_add(struct nameset *set, const char *text, size_t len);
void nameset_finish(struct nameset *set);
void nameset_done(struct nameset *set);

/* Whether just this text is in the set. */
bool nameset_has(const struct nameset *set, const char *text);
/* The same for a set of names in the form of struct host_name. */
bool nameset_has_host(const struct nameset *set, const struct host_name *host);
/* Whether what follows one of the name's dots is in the set, which holds "*." patterns without these two characters. */
bool nameset_has_suffix(const struct nameset *set, const struct host_name *host);

#endif
