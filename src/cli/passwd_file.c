/*
 * Replacing a file: the new text goes to a temporary file beside it, which is then renamed, so that a daemon that reads the
 * file at any moment sees the old or the new one. Who changes it holds a lock (flock(2)) on the file that has the name:
 * after waiting it may be another one, and then the game starts anew.
 */
#include "cli/passwd_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the daemon's own limit. */
#define FILE_LEN_MAX ((off_t)64 * 1024 * 1024)

const char *passwd_judge_name(const char *name)
{
    size_t len = strlen(name);

    if (len == 0) {
        return "is empty";
    }
    if (len > SOCKS6_USERNAME_MAX) {
        return "is longer than 255 bytes";
    }
    if (strchr(name, ':') != NULL) {
        return "has a colon";
    }
    if (strncmp(name, "\xef\xbb\xbf", 3) == 0) {
        return "begins with a byte order mark";
    }
    if (name[0] == '#') {
        return "begins as a comment does";
    }
    if (name[0] == ' ' || name[len - 1] == ' ') {
        return "begins or ends with a space";
    }
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            return "has a control character";
        }
    }
    return NULL;
}

/* --- text --- */

enum passwd_change passwd_find(const char *text, size_t text_len, const char *name, size_t *start, size_t *len)
{
    size_t name_len = strlen(name);
    bool found = false;

    for (size_t at = 0; at < text_len;) {
        const char *end = memchr(text + at, '\n', text_len - at);
        size_t line_len = end != NULL ? (size_t)(end - (text + at)) + 1 : text_len - at;

        if (line_len > name_len && memcmp(text + at, name, name_len) == 0 && text[at + name_len] == ':') {
            if (found) {
                return PASSWD_TWICE;
            }
            found = true;
            *start = at;
            *len = line_len;
        }
        at += line_len;
    }
    return found ? PASSWD_CHANGED : PASSWD_NOT_THERE;
}

static char *append(char *at, const char *bytes, size_t len)
{
    if (len > 0) {
        memcpy(at, bytes, len);
    }
    return at + len;
}

int passwd_edit(const char *text, size_t text_len, const char *name, const char *hash, char **out, size_t *out_len)
{
    size_t start = text_len, len = 0;
    enum passwd_change found = passwd_find(text, text_len, name, &start, &len);
    size_t line_len = hash != NULL ? strlen(name) + strlen(hash) + 2 : 0;
    char *edited, *at;

    if (found == PASSWD_TWICE || (found == PASSWD_NOT_THERE && hash == NULL)) {
        return (int)found;
    }
    edited = malloc(text_len - len + line_len + 2);
    if (edited == NULL) {
        return -ENOMEM;
    }
    at = append(edited, text, start);
    if (found == PASSWD_NOT_THERE && start > 0 && text[start - 1] != '\n') {
        *at++ = '\n'; /* the last line was left open */
    }
    if (hash != NULL) {
        at += sprintf(at, "%s:%s\n", name, hash);
    }
    at = append(at, text + start + len, text_len - start - len);
    *out = edited;
    *out_len = (size_t)(at - edited);
    if (hash == NULL) {
        return PASSWD_DELETED;
    }
    return found == PASSWD_CHANGED ? PASSWD_CHANGED : PASSWD_ADDED;
}

/* --- files --- */

static int read_text(int fd, char **out, size_t *out_len)
{
    struct stat status;
    size_t len = 0;
    char *text;

    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_LEN_MAX) {
        return S_ISREG(status.st_mode) ? -EFBIG : -EINVAL;
    }
    text = malloc((size_t)status.st_size + 1);
    if (text == NULL) {
        return -ENOMEM;
    }
    while (len < (size_t)status.st_size) {
        ssize_t n = read(fd, text + len, (size_t)status.st_size - len);

        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            int rc = -errno;

            free(text);
            return rc;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    *out = text;
    *out_len = len;
    return 0;
}

static int write_text(int fd, const char *text, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(fd, text + done, len - done);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* So that the rename outlives a crash. Some file systems cannot, and need not. */
static void sync_folder(const char *path)
{
    char *copy = strdup(path); /* which dirname() changes */
    int fd = copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(copy);
}

/* The old file's owner and mode for the new one. */
static int copy_owner(int fd, const struct stat *old)
{
    if ((old->st_uid != geteuid() || old->st_gid != getegid()) && fchown(fd, old->st_uid, old->st_gid) < 0) {
        return -errno;
    }
    return fchmod(fd, old->st_mode & 0777) < 0 ? -errno : 0;
}

static int replace(const char *path, const struct stat *old, const char *text, size_t len)
{
    char *temporary = NULL;
    int fd, rc;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        return -ENOMEM;
    }
    fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        rc = -errno;
        free(temporary);
        return rc;
    }
    rc = copy_owner(fd, old);
    if (rc == 0) {
        rc = write_text(fd, text, len);
    }
    if (close(fd) < 0 && rc == 0) {
        rc = -errno;
    }
    if (rc == 0 && rename(temporary, path) < 0) {
        rc = -errno;
    }
    if (rc != 0) {
        (void)unlink(temporary);
    } else {
        sync_folder(path);
    }
    free(temporary);
    return rc;
}

/* Opens the file that has this name now, and locks it. The descriptor or -errno. */
static int open_locked(const char *path, struct stat *status)
{
    for (;;) {
        struct stat named;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc = 0;

        if (fd < 0) {
            return -errno;
        }
        while ((rc = flock(fd, LOCK_EX)) < 0 && errno == EINTR) {
        }
        if (rc == 0 && fstat(fd, status) == 0 && stat(path, &named) == 0 && named.st_ino == status->st_ino &&
            named.st_dev == status->st_dev) {
            return fd;
        }
        rc = rc < 0 ? -errno : 0;
        (void)close(fd);
        if (rc != 0) {
            return rc;
        }
        /* It was replaced, or removed, while we waited: which of them the next open() finds out. */
    }
}

static int update_locked(const char *path, int fd, const struct stat *status, const char *name, const char *hash)
{
    char *text = NULL, *edited = NULL;
    size_t len = 0, edited_len = 0;
    int change, rc = read_text(fd, &text, &len);

    if (rc != 0) {
        return rc;
    }
    change = passwd_edit(text, len, name, hash, &edited, &edited_len);
    free(text);
    if (change == PASSWD_ADDED || change == PASSWD_CHANGED || change == PASSWD_DELETED) {
        rc = replace(path, status, edited, edited_len);
        free(edited);
    }
    return rc != 0 ? rc : change;
}

int passwd_update(const char *path, const char *name, const char *hash, bool create)
{
    struct stat status = {0};
    char *real;
    int fd, rc;

    if (create) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0) {
            return -errno;
        }
        (void)close(fd);
    }
    real = realpath(path, NULL); /* a link stays one: what it points to is replaced */
    if (real == NULL) {
        return -errno;
    }
    fd = open_locked(real, &status);
    rc = fd;
    if (fd >= 0) {
        rc = update_locked(real, fd, &status, name, hash);
        (void)close(fd);
    }
    if (create && rc < 0) {
        (void)unlink(real);
    }
    free(real);
    return rc;
}

/* What stands between the colon and the line's end, without blanks. */
static char *copy_hash(const char *line, size_t len, size_t name_len)
{
    const char *hash = line + name_len + 1;
    size_t hash_len = len - name_len - 1;

    while (hash_len > 0 && strchr(" \t\r\n", hash[hash_len - 1]) != NULL) {
        hash_len--;
    }
    return strndup(hash, hash_len);
}

int passwd_look_up(const char *path, const char *name, char **hash)
{
    size_t len = 0, start = 0, line_len = 0;
    char *text = NULL;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        return -errno;
    }
    rc = read_text(fd, &text, &len);
    (void)close(fd);
    if (rc != 0) {
        return rc;
    }
    rc = (int)passwd_find(text, len, name, &start, &line_len);
    if (rc == PASSWD_CHANGED) {
        *hash = copy_hash(text + start, line_len, strlen(name));
        rc = *hash != NULL ? rc : -ENOMEM;
    }
    free(text);
    return rc;
}
