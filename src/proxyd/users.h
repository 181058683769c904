/*
 * The users file: who may log in, and the hash of each password.
 *
 *     # a comment
 *     alice:$y$j9T$...        as `socks6 passwd`, htpasswd(1) -B and mkpasswd(1) write hashes
 *     robot:*                 a user without a password, for client certificates
 *
 * A snapshot is immutable and counted: whoever checks a password holds the one that it began with, a reload swaps the
 * pointer for new ones.
 *
 * Instead of a file there can be PAM, which nobody can ask for a list: such a snapshot has no user in it, and whoever PAM
 * lets in is one.
 */
#ifndef PROXYD_USERS_H
#define PROXYD_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

struct users;

struct user {
    const char *name; /* 1 .. 255 bytes, no control characters, no colon; ends in NUL */
    const char *hash; /* for crypt(3); NULL = no password is right */
    size_t name_len;
    unsigned line;
};

/* A file may be this long. */
#define USERS_FILE_MAX ((size_t)64 * 1024 * 1024)

struct users_error {
    char text[512]; /* FILE:LINE: what is wrong, in printable ASCII; never a part of a hash */
};

/*
 * Reads `text` (not kept). 0 and a snapshot with one reference; -1 and `error`, which names `file`, for a line that is no
 * user, a hash of a kind that is not taken, a cost out of reason, a name that comes twice; or for want of memory.
 * Hashes: yescrypt ($y$), bcrypt ($2b$, $2y$, $2a$) and sha512crypt ($6$).
 */
SOCKS6_MUST_CHECK int users_parse(const char *file, const char *text, size_t len, const struct users **out,
                                  struct users_error *error);
/*
 * The same from a file. With 0 `warning` is empty, or says that others than its owner and group can read the file, or
 * others than its owner write it.
 */
SOCKS6_MUST_CHECK int users_load(const char *path, const struct users **out, struct users_error *error,
                                 struct users_error *warning);

/* The longest name of a service of PAM. */
#define USERS_SERVICE_MAX 64u

/* Whom to ask instead of a file. */
struct users_pam {
    char service[USERS_SERVICE_MAX + 1];
    char source[16];      /* "pam:7": no other snapshot of this process has it */
    uint64_t remember_ms; /* its good answers hold for so long */
};

/* Whoever PAM lets in by this service (1 .. USERS_SERVICE_MAX bytes). 0 and a snapshot with one reference, or -ENOMEM. */
SOCKS6_MUST_CHECK int users_of_pam(const char *service, uint64_t remember_ms, const struct users **out);
/* NULL: these are a file's. Takes NULL. Valid as long as the snapshot. */
const struct users_pam *users_pam(const struct users *users);

/* Counted references; any thread. Release takes NULL. */
const struct users *users_retain(const struct users *users);
void users_release(const struct users *users);

/* NULL if there is none, as of all names where PAM is asked. Valid as long as the snapshot. */
const struct user *users_find(const struct users *users, struct socks6_slice name);
/* Whether somebody who has logged in before under this name is still a user, as far as can be known: with PAM, yes. */
bool users_may_have(const struct users *users, struct socks6_slice name);

size_t users_count(const struct users *users);
/* In the order of their names, bytewise; `index` below the count. */
const struct user *users_at(const struct users *users, size_t index);

/*
 * After a reload: fills `names` (room for users_count(before)) with the users of `before` whom `after` does not have, or,
 * with `changed`, has with another hash. How many there are, in the order of users_at(); valid as long as `before`.
 */
size_t users_gone(const struct users *before, const struct users *after, bool changed, struct socks6_slice *names);
/* Whether both have this user, with the same hash; or ask the same service of PAM. */
bool users_agree(const struct users *before, const struct users *after, struct socks6_slice name);
/* Whether all users of `before` are gone without being listed: those of a service of PAM that is not asked any more. Takes NULL. */
bool users_are_all_gone(const struct users *before, const struct users *after);

#endif
