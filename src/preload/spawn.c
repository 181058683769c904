/*
 * posix_spawn(3), pidfd_spawn(3), and the functions of libc that start a shell inside, where no hook of ours is: system(3), popen(3), wordexp(3).
 * The latter take the environment as it is; so a program that has cleared it gets our variables back before.
 */
#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wordexp.h>

#include "preload/environment.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/spawn_folder.h"
#include "preload/start.h"

static int spawn_by(start_spawn *function, bool is_searched, int *pid, const char *path,
                    const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, char *const argv[],
                    char *const envp[])
{
    const struct start how = {.how = START_SPAWN,
                              .spawn = function,
                              .directory = spawn_folder_open(actions),
                              .pid = pid,
                              .actions = actions,
                              .attributes = attributes};
    int saved = errno;
    int rc = is_searched ? start_searched(&how, path, argv, envp, false) : start_program(&how, path, argv, envp);

    spawn_folder_close(how.directory);
    errno = saved;
    return rc < 0 ? -rc : rc;
}

static int spawn(bool is_searched, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    return spawn_by(real(posix_spawn), is_searched, pid, path, actions, attributes, argv, envp);
}

/* glibc has it since 2.39. Programs that ask for it where there is none are told as by a kernel without pidfd_open(2). */
static int spawn_pidfd(bool is_searched, int *pidfd, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    union {
        void *object;
        start_spawn *function; /* what dlsym(3) has found: POSIX has both look alike */
    } found = {.object = dlsym(RTLD_NEXT, "pidfd_spawn")};

    if (found.object == NULL) {
        return ENOSYS;
    }
    return spawn_by(found.function, is_searched, pidfd, path, actions, attributes, argv, envp);
}

PRELOAD_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                               const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    return spawn(false, pid, path, actions, attributes, argv, envp);
}

PRELOAD_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                                const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    return spawn(true, pid, file, actions, attributes, argv, envp);
}

PRELOAD_HOOK(int, pidfd_spawn, int *pidfd, const char *path, const posix_spawn_file_actions_t *actions,
             const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    return spawn_pidfd(false, pidfd, path, actions, attributes, argv, envp);
}

PRELOAD_HOOK(int, pidfd_spawnp, int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,
             const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
    return spawn_pidfd(true, pidfd, file, actions, attributes, argv, envp);
}

PRELOAD_EXPORT int system(const char *command)
{
    environment_repair();
    return real(system)(command);
}

PRELOAD_EXPORT FILE *popen(const char *command, const char *type)
{
    environment_repair();
    return real(popen)(command, type);
}

/* popen(3) as programs know it that were built with old headers. */
FILE *_IO_popen(const char *command, const char *type);
PRELOAD_EXPORT FILE *_IO_popen(const char *command, const char *type)
{
    return popen(command, type);
}

PRELOAD_EXPORT int wordexp(const char *words, wordexp_t *out, int flags)
{
    environment_repair();
    return real(wordexp)(words, out, flags);
}
