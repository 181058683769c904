#include "preload/start.h"

#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/config.h"
#include "preload/environment.h"
#include "preload/real.h"
#include "preload/spawn_folder.h"
#include "preload/talk.h"
#include "run/program.h"

/* Neither the heap nor a fixed size would do; libc's execl(3) and execvp(3) put as much onto the stack. */
#pragma GCC diagnostic ignored "-Walloca"

#define USUAL_PATH "/bin:/usr/bin"
#define SHELL "/bin/sh"

static void tell(bool is_refused, const struct start *how, const char *path, const char *reason)
{
    uint32_t what = is_refused ? RUN_NOTE_REFUSED : RUN_NOTE_TRACE;
    const char *done = is_refused ? "not started" : "started directly";

    if (how->how == START_FEXECVE || path[0] == '\0') {
        talk_note(what, "%s: the program of descriptor %d %s", done, how->directory, reason);
    } else {
        talk_note(what, "%s: %s %s", done, path, reason);
    }
}

static int judge(const struct start *how, const char *path, const struct preload_config *config)
{
    const char *library = config->preload[0] != '\0' ? strchr(config->preload, '=') + 1 : NULL;

    switch (how->how) {
    case START_FEXECVE:
        return program_judge(how->directory, "", AT_EMPTY_PATH, library);
    case START_EXECVEAT:
        return program_judge(how->directory, path, how->flags, library);
    case START_SPAWN:
        if (how->directory == SPAWN_FOLDER_UNKNOWN && path[0] != '/') {
            return PROGRAM_UNREADABLE;
        }
        break;
    case START_EXECVE:
        break;
    }
    return program_judge(how->directory, path, 0, library);
}

/* 0, or minus the errno with which the start is refused. */
static int admit(const struct start *how, const char *path)
{
    const struct preload_config *config = preload_config();
    int verdict;

    if (config->allow_direct && !config->verbose) {
        return 0;
    }
    verdict = judge(how, path, config);
    if (verdict < 0) {
        return config->allow_direct ? 0 : verdict;
    }
    if (verdict != PROGRAM_FITS) {
        tell(!config->allow_direct, how, path, program_reason((enum program_verdict)verdict));
    }
    return verdict == PROGRAM_FITS || config->allow_direct ? 0 : -EACCES;
}

static int start_really(const struct start *how, const char *path, char *const argv[], char *const envp[])
{
    switch (how->how) {
    case START_EXECVE:
        (void)real(execve)(path, argv, envp);
        break;
    case START_EXECVEAT:
        (void)real(execveat)(how->directory, path, argv, envp, how->flags);
        break;
    case START_FEXECVE:
        (void)real(fexecve)(how->directory, argv, envp);
        break;
    case START_SPAWN:
        return how->spawn(how->pid, path, how->actions, how->attributes, argv, envp);
    }
    return errno;
}

int start_program(const struct start *how, const char *path, char *const argv[], char *const envp[])
{
    const struct preload_config *config = preload_config();
    struct environment_plan plan;
    int refused = admit(how, path);

    if (refused != 0) {
        return refused;
    }
    environment_look(envp, config, &plan);
    if (!plan.is_complete) {
        char **entries = alloca(plan.count * sizeof *entries);

        environment_fill(&plan, envp, config, entries, alloca(plan.text_len));
        envp = entries;
    }
    return start_really(how, path, argv, envp);
}

/* A file that the kernel does not know how to start, as a script of the shell. */
static int start_shell(const struct start *how, const char *path, char *const argv[], char *const envp[])
{
    size_t count = 0;
    const char **ours;
    union {
        const char **ours;
        char *const *plain; /* as execve(2) declares it, which writes to nothing */
    } all;

    while (argv[count] != NULL) {
        count++;
    }
    ours = alloca((count + 3) * sizeof *ours);
    ours[0] = SHELL;
    ours[1] = path;
    ours[2] = NULL;
    for (size_t i = 1; i < count; i++) {
        ours[i + 1] = argv[i];
        ours[i + 2] = NULL;
    }
    all.ours = ours;
    return start_program(how, SHELL, all.plain, envp);
}

static int start_file(const struct start *how, const char *path, char *const argv[], char *const envp[],
                      bool with_shell)
{
    int rc = start_program(how, path, argv, envp);

    return rc == ENOEXEC && with_shell ? start_shell(how, path, argv, envp) : rc;
}

/* Errors with which libc goes on to the next folder of PATH. */
static bool is_elsewhere(int rc)
{
    return rc == EACCES || rc == ENOENT || rc == ESTALE || rc == ENOTDIR || rc == ENODEV || rc == ETIMEDOUT;
}

static bool is_missing(const struct start *how, const char *path)
{
    bool is_known = how->directory >= 0 || how->directory == AT_FDCWD || path[0] == '/';

    return is_known && faccessat(how->directory, path, F_OK, 0) != 0;
}

/*
 * A program that we refuse ends the search, since one of the same name further on is not what was asked for. In spawns a file that is
 * not there is found out here, so that the actions on descriptors are not repeated for each folder.
 */
static int search(const struct start *how, const char *file, char *const argv[], char *const envp[], bool with_shell)
{
    const char *folders = getenv("PATH");
    size_t file_len = strlen(file);
    int rc = ENOENT, result = ENOENT;
    char *path;

    folders = folders == NULL ? USUAL_PATH : folders;
    path = alloca(strnlen(folders, PATH_MAX) + file_len + 2);
    for (const char *at = folders, *end; at != NULL; at = *end == '\0' ? NULL : end + 1) {
        size_t len = strcspn(at, ":");

        end = at + len;
        if (len >= PATH_MAX) {
            continue;
        }
        memcpy(path, at, len);
        path[len] = '/';
        memcpy(path + len + (len > 0), file, file_len + 1); /* an empty folder is the current one */
        rc = how->how == START_SPAWN && is_missing(how, path) ? errno : start_file(how, path, argv, envp, with_shell);
        if (!is_elsewhere(rc)) {
            return rc;
        }
        result = result == EACCES ? EACCES : rc;
    }
    return result;
}

int start_searched(const struct start *how, const char *file, char *const argv[], char *const envp[], bool with_shell)
{
    if (file[0] == '\0') {
        return ENOENT;
    }
    if (strchr(file, '/') != NULL) {
        return start_file(how, file, argv, envp, with_shell);
    }
    return strlen(file) > NAME_MAX ? ENAMETOOLONG : search(how, file, argv, envp, with_shell);
}
