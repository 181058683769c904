/*
 * The environment of a program that is about to be started: as its starter wants it, and our two variables.
 * In LD_PRELOAD our library goes first and the program's own ones stay. SOCKS6_RUN is kept if it makes sense, for `socks6 run` may well be
 * used under `socks6 run`; what is stale leads to no helper, and lets nothing through. Pure, but for the last function.
 */
#ifndef PRELOAD_ENVIRONMENT_H
#define PRELOAD_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "preload/config.h"

struct environment_plan {
    bool is_complete;    /* nothing is to be done: use it as it is */
    bool keeps_variable; /* SOCKS6_RUN is right already */
    size_t count;        /* room that environment_fill() needs: pointers, the NULL included */
    size_t text_len;     /* and bytes for the text of LD_PRELOAD, the NUL included */
    const char *others;  /* what LD_PRELOAD has besides our library, "" = nothing */
};

/* `envp` may be NULL, which Linux takes as empty. */
void environment_look(char *const envp[], const struct preload_config *config, struct environment_plan *out);

/* `entries` then refers to the strings of `envp`, to `config` and to `text`. */
void environment_fill(const struct environment_plan *plan, char *const envp[], const struct preload_config *config,
                      char **entries, char *text);

/* Puts them back into this process's own environment if the program has taken them out. Not safe in a signal handler. */
void environment_repair(void);

#endif
