#include "cli/run_reply.h"

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "run/protocol.h"

union control { /* room for one descriptor, aligned */
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

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

bool run_reply_send(int fd, int status, const void *body, size_t len, int pass)
{
    struct run_reply header = {.len = (uint32_t)(sizeof header + len), .status = status};
    struct iovec iov[] = {{&header, sizeof header}, {(void *)(uintptr_t)body, len}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    union control control;

    if (pass >= 0) {
        attach(&message, &control, pass);
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)header.len;
}
