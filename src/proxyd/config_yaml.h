/*
 * A YAML document as a tree whose every node knows its line and column, or one exact error.
 *
 * Read through libyaml's event interface. What a configuration has no use for is refused where it stands: anchors,
 * aliases, tags, a second document, deep nesting.
 */
#ifndef PROXYD_CONFIG_YAML_H
#define PROXYD_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "proxyd/config.h"

/* A file may be this long, and lists and mappings nest this deep. */
#define CONFIG_FILE_MAX ((size_t)1024 * 1024)
#define CONFIG_DEPTH_MAX 16u

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAPPING };

struct yaml_node {
    enum yaml_kind kind;
    unsigned line, column; /* from 1; of a mapping or list: its first key, item or bracket */
    bool plain;            /* a scalar without quotes */
    const char *text;      /* of a scalar; UTF-8, ends in NUL, holds no other */
    /* Items of a list; of a mapping, keys (scalars) and values in turn. */
    struct yaml_node *first, *next;
    size_t count; /* items, or keys */
};

struct yaml_tree {
    struct yaml_node *root; /* NULL = an empty file */
    struct yaml_block *blocks;
};

/* Where an error is to be reported. */
struct config_place {
    const char *file;
    struct config_error *error;
};

/*
 * "FILE:LINE:COLUMN: ..."; `line` 0 leaves line and column out. The format's text may hold foreign bytes: they are
 * escaped. Returns -1.
 */
__attribute__((format(printf, 4, 5))) int config_fail(const struct config_place *place, unsigned line, unsigned column,
                                                      const char *format, ...);

/* An error in another file that belongs to the configuration; `text` says where it is. Returns -1. */
int config_fail_elsewhere(const struct config_place *place, const char *text);

/*
 * Foreign text for an error, in single quotes, cut if it is long, control characters escaped. Static buffers in turn:
 * good for one call of config_fail().
 */
const char *config_show(const char *text);
/* The same for a path, most of which is shown whole. */
const char *config_show_path(const char *path);

/* 0, or -1 with the error written. `out` is to be freed with yaml_tree_done() in both cases. */
SOCKS6_MUST_CHECK int yaml_tree_load(struct yaml_tree *out, const char *text, size_t len,
                                     const struct config_place *place);
void yaml_tree_done(struct yaml_tree *tree);

/* An empty place ("key:" and nothing behind it), "~" or "null". */
bool yaml_is_null(const struct yaml_node *node);

#endif
