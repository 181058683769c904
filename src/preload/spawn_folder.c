#include "preload/spawn_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/export.h"
#include "preload/real.h"

/* One change of the working directory. */
struct move {
    struct move *next;
    int fd; /* -1: to `path` */
    char path[];
};

#define PAD_LEN (sizeof((posix_spawn_file_actions_t *)NULL)->__pad)
#define POINTER_LEN sizeof(void *)
#define PLACE (PAD_LEN - POINTER_LEN) /* of our pointer; posix_spawn_file_actions_init(3) has made it NULL */

static struct move *first_move(const posix_spawn_file_actions_t *actions)
{
    struct move *first;

    memcpy(&first, (const char *)actions->__pad + PLACE, POINTER_LEN);
    return first;
}

static void append(posix_spawn_file_actions_t *actions, struct move *move)
{
    struct move *last = first_move(actions);

    if (last == NULL) {
        memcpy((char *)actions->__pad + PLACE, &move, POINTER_LEN);
        return;
    }
    while (last->next != NULL) {
        last = last->next;
    }
    last->next = move;
}

static struct move *new_move(int fd, const char *path)
{
    size_t len = strlen(path) + 1;
    struct move *move = malloc(sizeof *move + len);

    if (move != NULL) {
        move->next = NULL;
        move->fd = fd;
        memcpy(move->path, path, len);
    }
    return move;
}

/* 0 or an errno: `rc` of the real function. */
static int note(posix_spawn_file_actions_t *actions, struct move *move, int rc)
{
    if (rc == 0) {
        append(actions, move);
    } else {
        free(move);
    }
    return rc;
}

PRELOAD_EXPORT int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *restrict actions,
                                                        const char *restrict path)
{
    struct move *move = new_move(-1, path);

    return move == NULL ? ENOMEM : note(actions, move, real(posix_spawn_file_actions_addchdir_np)(actions, path));
}

PRELOAD_EXPORT int posix_spawn_file_actions_addfchdir_np(posix_spawn_file_actions_t *actions, int fd)
{
    struct move *move = new_move(fd, "");

    return move == NULL ? ENOMEM : note(actions, move, real(posix_spawn_file_actions_addfchdir_np)(actions, fd));
}

PRELOAD_EXPORT int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions)
{
    struct move *move = first_move(actions);

    while (move != NULL) {
        struct move *next = move->next;

        free(move);
        move = next;
    }
    memset((char *)actions->__pad + PLACE, 0, POINTER_LEN);
    return real(posix_spawn_file_actions_destroy)(actions);
}

static int go(int folder, const struct move *move)
{
    long fd = move->fd >= 0 ? syscall(SYS_fcntl, move->fd, F_DUPFD_CLOEXEC, 0)
                            : syscall(SYS_openat, folder, move->path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        return (int)fd;
    }
    return move->fd >= 0 || errno == EMFILE || errno == ENFILE || errno == ENOMEM ? SPAWN_FOLDER_UNKNOWN
                                                                                  : SPAWN_FOLDER_MISSING;
}

int spawn_folder_open(const posix_spawn_file_actions_t *actions)
{
    int folder = AT_FDCWD, saved = errno;

    for (const struct move *it = actions == NULL ? NULL : first_move(actions); it != NULL; it = it->next) {
        int next = go(folder, it);

        spawn_folder_close(folder);
        folder = next;
        if (folder < 0) {
            break;
        }
    }
    errno = saved;
    return folder;
}

void spawn_folder_close(int folder)
{
    if (folder >= 0) {
        (void)syscall(SYS_close, folder);
    }
}
