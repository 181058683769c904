/*
 * What the exec and the spawn functions have in common: a program is judged, gets our variables into its environment, and is started.
 *
 * Safe in signal handlers and in children made by vfork(2), as execve(2) is: arrays are on the stack, as libc's own are.
 */
#ifndef PRELOAD_START_H
#define PRELOAD_START_H

#include <spawn.h>
#include <stdbool.h>

enum start_how { START_EXECVE, START_EXECVEAT, START_FEXECVE, START_SPAWN };

/* posix_spawn(3) and pidfd_spawn(3). */
typedef int start_spawn(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                        char *const[], char *const[]);

struct start {
    enum start_how how;
    /* Where relative paths begin; AT_FDCWD in EXECVE. SPAWN: SPAWN_FOLDER_UNKNOWN refuses them. FEXECVE: the descriptor. */
    int directory;
    int flags; /* EXECVEAT */
    /* SPAWN */
    start_spawn *spawn;
    int *pid; /* or descriptor */
    const posix_spawn_file_actions_t *actions;
    const posix_spawnattr_t *attributes;
};

/* 0 = spawned; or the errno, negative if it was we that refused. An exec that succeeds does not come back. */
int start_program(const struct start *how, const char *path, char *const argv[], char *const envp[]);

/* As execvp(3) and posix_spawnp(3): `file` is searched for in PATH; `with_shell`: a file of no known format is a script of /bin/sh. */
int start_searched(const struct start *how, const char *file, char *const argv[], char *const envp[], bool with_shell);

#endif
