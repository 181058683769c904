/*
 * A users file of socks6d(8), to be changed: NAME:HASH lines, comments, and whatever else is in it, which stays as it is.
 */
#ifndef CLI_PASSWD_FILE_H
#define CLI_PASSWD_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include <socks6/types.h>

enum passwd_change {
    PASSWD_ADDED,
    PASSWD_CHANGED,
    PASSWD_DELETED,
    PASSWD_NOT_THERE, /* no such user: nothing was changed */
    PASSWD_TWICE      /* the name stands in the file more than once: nothing was changed */
};

/* NULL if `name` can stand in such a file, else why it cannot: a predicate for a sentence that begins with the name. */
const char *passwd_judge_name(const char *name);

/*
 * Finds the user in a file's text. PASSWD_CHANGED if there is one: `*start` and `*len` are the line's, with its end;
 * PASSWD_NOT_THERE or PASSWD_TWICE else.
 */
enum passwd_change passwd_find(const char *text, size_t text_len, const char *name, size_t *start, size_t *len);

/*
 * The text with the user's line replaced, appended, or (hash NULL) removed: ADDED, CHANGED or DELETED, and `*out` to be
 * freed; or NOT_THERE (on removal), or TWICE. -ENOMEM.
 */
SOCKS6_MUST_CHECK int passwd_edit(const char *text, size_t text_len, const char *name, const char *hash, char **out,
                                  size_t *out_len);

/*
 * The same on a file: the new one takes the old one's place at once or not at all, and keeps its owner and mode; others
 * who change it meanwhile wait. With `create` the file must not exist; it is made with mode 0600. An enum passwd_change
 * or -errno.
 */
SOCKS6_MUST_CHECK int passwd_update(const char *path, const char *name, const char *hash, bool create);

/*
 * The user's hash, to be freed. PASSWD_CHANGED, NOT_THERE, TWICE or -errno.
 */
SOCKS6_MUST_CHECK int passwd_look_up(const char *path, const char *name, char **hash);

#endif
