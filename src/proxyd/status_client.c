#include "proxyd/status_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* For a daemon that lives and is stopped, or a socket that is somebody else's. */
#define ANSWER_S 10
/* 256 workers with 60 counters each are a quarter of it. */
#define ANSWER_MAX ((size_t)4 * 1024 * 1024)

static int fail(const char *path, const char *what)
{
    (void)fprintf(stderr, "socks6d: no daemon answers at %s: %s\n", path, what);
    return STATUS_EXIT_NONE;
}

static const char *why_not_connected(int error)
{
    switch (error) {
    case ENOENT:
        return "there is no such socket; is it running, with this configuration, as this user?";
    case ECONNREFUSED:
        return "it is not running, the socket is left over from one that was";
    case EACCES:
        return "permission denied; ask as the daemon's user or as root";
    default:
        return strerror(error);
    }
}

/* A connected socket or -errno. */
static int connect_to(const char *path)
{
    const struct timeval limit = {.tv_sec = ANSWER_S};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof name.sun_path) {
        return -ENAMETOOLONG;
    }
    memcpy(name.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 || /* of connect(2), too */
        connect(fd, (const struct sockaddr *)&name, sizeof name) != 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return fd;
}

/* Until the end of the answer. Its length, or -errno. */
static ssize_t read_answer(int fd, char *text)
{
    size_t len = 0;

    while (len < ANSWER_MAX) {
        ssize_t got = read(fd, text + len, ANSWER_MAX - len);

        if (got == 0) {
            return (ssize_t)len;
        }
        if (got > 0) {
            len += (size_t)got;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return -EMSGSIZE;
}

static int print_answer(const char *path, int fd)
{
    char *text = malloc(ANSWER_MAX);
    ssize_t len = text == NULL ? -ENOMEM : read_answer(fd, text);
    int status = EXIT_SUCCESS;

    if (len == -EAGAIN) {
        status = fail(path, "it does not answer in time");
    } else if (len < 0) {
        status = fail(path, strerror((int)-len));
    } else if (len < 4 || memcmp(text, "{\n", 2) != 0 || memcmp(text + len - 2, "}\n", 2) != 0) {
        status = fail(path, "what it says is not whole, or not from a socks6d");
    } else if (fwrite(text, 1, (size_t)len, stdout) != (size_t)len || fflush(stdout) != 0) {
        perror("socks6d: standard output");
        status = EXIT_FAILURE;
    }
    free(text);
    return status;
}

int status_ask(const char *path)
{
    int fd = connect_to(path), status;

    if (fd < 0) {
        return fail(path, why_not_connected(-fd));
    }
    status = print_answer(path, fd);
    close(fd);
    return status;
}
