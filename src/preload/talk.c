#include "preload/talk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/config.h"

/* A system call without libc's wrapper: its result or -errno, and errno as it was. */
#define CALL(...) call_result(errno, syscall(__VA_ARGS__))

static long call_result(int saved, long rc)
{
    if (rc < 0) {
        rc = -errno;
    }
    errno = saved;
    return rc;
}

union control { /* room for one descriptor, aligned */
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int talk_open(void)
{
    const struct preload_config *config = preload_config();
    long fd, rc;

    if (!config->is_valid) {
        return -ENETUNREACH;
    }
    fd = CALL(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return (int)fd;
    }
    do {
        rc = CALL(SYS_connect, fd, &config->helper, config->helper_len);
    } while (rc == -EINTR);
    if (rc < 0) {
        talk_close((int)fd);
        return rc == -ECONNREFUSED ? -ENETUNREACH : (int)rc;
    }
    return (int)fd;
}

void talk_close(int fd)
{
    (void)CALL(SYS_close, fd);
}

static void attach(struct msghdr *message, union control *control, int fd)
{
    memset(control, 0, sizeof *control);
    message->msg_control = control->bytes;
    message->msg_controllen = sizeof control->bytes;
    control->header.cmsg_level = SOL_SOCKET;
    control->header.cmsg_type = SCM_RIGHTS;
    control->header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control->header), &fd, sizeof fd);
}

/* Takes `len` bytes off the front of `iov`. */
static void advance(struct msghdr *message, size_t len)
{
    while (len > 0) {
        struct iovec *part = message->msg_iov;

        if (len < part->iov_len) {
            part->iov_base = (char *)part->iov_base + len;
            part->iov_len -= len;
            return;
        }
        len -= part->iov_len;
        message->msg_iov++;
        message->msg_iovlen--;
    }
}

static int send_all(int fd, struct msghdr *message, size_t len)
{
    while (len > 0) {
        long n = CALL(SYS_sendmsg, fd, message, MSG_NOSIGNAL);

        if (n < 0 && n != -EINTR) {
            return n == -EPIPE || n == -ECONNRESET ? -ENETUNREACH : (int)n;
        }
        if (n > 0) {
            advance(message, (size_t)n);
            len -= (size_t)n;
            message->msg_control = NULL;
            message->msg_controllen = 0;
        }
    }
    return 0;
}

int talk_send(int fd, enum run_kind kind, const struct iovec *parts, int part_count, int pass)
{
    struct run_request header = {.len = sizeof header, .version = RUN_VERSION, .kind = (uint16_t)kind};
    struct iovec iov[1 + TALK_PARTS_MAX] = {{&header, sizeof header}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 1 + (size_t)part_count};
    union control control;

    memcpy(header.secret, preload_config()->secret, sizeof header.secret);
    for (int i = 0; i < part_count; i++) {
        iov[1 + i] = parts[i];
        header.len += (uint32_t)parts[i].iov_len;
    }
    if (pass >= 0) {
        attach(&message, &control, pass);
    }
    return send_all(fd, &message, header.len);
}

/* The descriptor that came along, or -1. */
static int detach(struct msghdr *message)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int fd = -1;

    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof fd)) {
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    }
    return fd;
}

/* Exactly `len` bytes. 0 or -errno. */
static int receive_all(int fd, void *buf, size_t len, int *passed, int stops)
{
    size_t got = 0;

    while (got < len) {
        struct iovec iov = {(char *)buf + got, len - got};
        union control control;
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        long n = CALL(SYS_recvmsg, fd, &message, MSG_CMSG_CLOEXEC);

        if (n == 0 || n == -ECONNRESET) {
            return -ENETUNREACH; /* the helper has gone */
        }
        if (n < 0 && (n != -EINTR || (stops && got == 0))) {
            return (int)n;
        }
        if (n > 0) {
            int came = detach(&message);

            if (came >= 0 && *passed >= 0) {
                talk_close(came); /* none of ours sends two */
            } else if (came >= 0) {
                *passed = came;
            }
            got += (size_t)n;
        }
    }
    return 0;
}

/* The length of the body, all of which has come, or -errno. */
static ssize_t receive_reply(int fd, int *status, void *body, size_t size, int *passed, int stops)
{
    struct run_reply header;
    size_t len;
    int rc = receive_all(fd, &header, sizeof header, passed, stops);

    if (rc != 0) {
        return rc;
    }
    if (header.len < sizeof header || header.len - sizeof header > size) {
        return -EPROTO;
    }
    len = header.len - sizeof header;
    rc = receive_all(fd, body, len, passed, 0);
    *status = header.status;
    return rc != 0 ? rc : (ssize_t)len;
}

ssize_t talk_receive(int fd, int *status, void *body, size_t size, int *passed, int stops)
{
    int came = -1;
    ssize_t len = receive_reply(fd, status, body, size, &came, stops);

    if (came >= 0 && (len < 0 || passed == NULL)) {
        talk_close(came);
        came = -1;
    }
    if (passed != NULL) {
        *passed = came;
    }
    return len;
}

ssize_t talk_ask(enum run_kind kind, const struct iovec *parts, int part_count, int *status, void *body, size_t size)
{
    int fd = talk_open();
    ssize_t len;

    if (fd < 0) {
        return fd;
    }
    len = talk_send(fd, kind, parts, part_count, -1);
    if (len == 0) {
        len = talk_receive(fd, status, body, size, NULL, 0);
    }
    talk_close(fd);
    return len;
}

void talk_tell(enum run_kind kind)
{
    int fd = talk_open(), rc;

    if (fd >= 0) {
        rc = talk_send(fd, kind, NULL, 0, -1);
        (void)rc; /* the helper has gone */
        talk_close(fd);
    }
}

void talk_note(uint32_t what, const char *format, ...)
{
    struct run_note note = {.what = what};
    char text[RUN_NOTE_MAX];
    struct iovec parts[] = {{&note, sizeof note}, {text, 0}};
    va_list args;
    int fd, n;

    if (what == RUN_NOTE_TRACE && !preload_config()->verbose) {
        return;
    }
    va_start(args, format);
    /* Without a lock or memory for the formats that we use: %s, %d, %u. */
    n = vsnprintf(text, sizeof text, format, args); // NOLINT(clang-analyzer-valist.Uninitialized): it is begun
    va_end(args);
    parts[1].iov_len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    fd = talk_open();
    if (fd >= 0) {
        n = talk_send(fd, RUN_NOTE, parts, 2, -1);
        (void)n; /* nobody is there to be told */
        talk_close(fd);
    }
}
