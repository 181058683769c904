/*
 * May this program be started under `socks6 run`? Only what loads our library may: the dynamic linker of this system does so, unless
 * the kernel tells it that the program gets rights which its starter has not. Used by the library before each exec, and by
 * `socks6 run` for the first program.
 *
 * System calls only: no lock, no memory but the stack's, no cancellation point, errno as it was. So all of it may be called from a
 * signal handler and from a child made by vfork(2).
 */
#ifndef RUN_PROGRAM_H
#define RUN_PROGRAM_H

#include <socks6/types.h>

enum program_verdict {
    /* The library will be loaded into it; or it cannot be started at all, and execve(2) knows best why. */
    PROGRAM_FITS,
    PROGRAM_STATIC,
    PROGRAM_FOREIGN,    /* another machine, word size or C library */
    PROGRAM_SET_ID,     /* it runs with other IDs than those of its starter, or its starter with other than its own */
    PROGRAM_CAPABLE,    /* file capabilities */
    PROGRAM_UNREADABLE, /* it may be executed, but not read */
    PROGRAM_NO_LIBRARY, /* the library is not there: chroot(2), or rights */
    PROGRAM_VERDICT_COUNT
};

/*
 * Judges the program that execveat(2) would start with these arguments in this process, scripts by their interpreter. `library`: the
 * path of libsocks6-preload.so, which has to be readable; NULL = that is not asked.
 * A verdict, or -errno: this could not be found out (-EMFILE, -ENFILE, -ENOMEM), which execve(2) may answer with as well.
 */
SOCKS6_MUST_CHECK int program_judge(int directory, const char *path, int flags, const char *library);

/* What follows the program's name in a message: "is statically linked". */
const char *program_reason(enum program_verdict verdict);

#endif
