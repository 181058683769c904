/*
 * The hooks of calls that read from sockets.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "preload/addr.h"
#include "preload/config.h"
#include "preload/data.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/stream.h"
#include "preload/sys.h"
#include "preload/udp_dns.h"

void __chk_fail(void) __attribute__((noreturn)); /* libc's, behind the fortified names */

PRELOAD_HOOK(ssize_t, read, int fd, void *buf, size_t len)
{
    ssize_t rc = real(read)(fd, buf, len);

    return rc > 0 || len == 0 ? rc : data_received(fd, rc);
}

PRELOAD_HOOK(ssize_t, readv, int fd, const struct iovec *parts, int count)
{
    ssize_t rc = real(readv)(fd, parts, count);

    return rc > 0 ? rc : data_received(fd, rc);
}

/* A stream has no queue of errors, and would give data instead. */
static bool is_queue_of_none(int fd, int flags)
{
    struct slot slot;

    if ((flags & MSG_ERRQUEUE) == 0 || !stream_find(fd, &slot)) {
        return false;
    }
    errno = EAGAIN;
    return true;
}

PRELOAD_HOOK(ssize_t, recv, int fd, void *buf, size_t len, int flags)
{
    ssize_t rc = is_queue_of_none(fd, flags) ? -1 : real(recv)(fd, buf, len, flags);

    return rc > 0 || len == 0 ? rc : data_received(fd, rc);
}

/* The helper's address means nothing to the program: none, as on TCP. Or that of the DNS server that it asked. */
static socklen_t translate(struct sockaddr_storage *from, socklen_t len)
{
    const struct preload_config *config = preload_config();
    struct run_addr original;

    if (from->ss_family == AF_UNIX) {
        return len == config->helper_len && memcmp(from, &config->helper, len) == 0 ? 0 : len;
    }
    return udp_original_source(from, len, &original) ? addr_show(&original, from->ss_family, from) : len;
}

static ssize_t receive_from(int fd, void *buf, size_t len, int flags, void *addr, socklen_t *room);

PRELOAD_HOOK(ssize_t, recvfrom, int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *room)
{
    ssize_t rc;

    if (is_queue_of_none(fd, flags)) {
        return -1;
    }
    if (addr == NULL || room == NULL) {
        rc = real_as_hook(recvfrom)(fd, buf, len, flags, addr, room);
    } else {
        rc = receive_from(fd, buf, len, flags, addr, room);
    }
    return rc > 0 || len == 0 ? rc : data_received(fd, rc);
}

static ssize_t receive_from(int fd, void *buf, size_t len, int flags, void *addr, socklen_t *room)
{
    struct sockaddr_storage from;
    socklen_t from_len = sizeof from;
    ssize_t rc;
    int wrong;

    from.ss_family = AF_UNSPEC;
    rc = real_as_hook(recvfrom)(fd, buf, len, flags, (struct sockaddr *)&from, &from_len);
    if (rc < 0) {
        return rc;
    }
    wrong = addr_give(&from, translate(&from, from_len), addr, room);
    if (wrong < 0) {
        errno = -wrong;
        return -1;
    }
    return rc;
}

static ssize_t receive_named(int fd, struct msghdr *message, int flags)
{
    struct sockaddr_storage from;
    struct msghdr copy = *message;
    ssize_t rc;

    from.ss_family = AF_UNSPEC;
    copy.msg_name = &from;
    copy.msg_namelen = sizeof from;
    rc = real(recvmsg)(fd, &copy, flags);
    if (rc >= 0) {
        (void)addr_give(&from, translate(&from, copy.msg_namelen), message->msg_name, &message->msg_namelen);
        message->msg_controllen = copy.msg_controllen;
        message->msg_flags = copy.msg_flags;
    }
    return rc;
}

PRELOAD_HOOK(ssize_t, recvmsg, int fd, struct msghdr *message, int flags)
{
    ssize_t rc;

    if (is_queue_of_none(fd, flags)) {
        return -1;
    }
    if (message == NULL || message->msg_name == NULL || (int)message->msg_namelen < 0) {
        rc = real(recvmsg)(fd, message, flags);
    } else {
        rc = receive_named(fd, message, flags);
    }
    return rc > 0 ? rc : data_received(fd, rc);
}

#define BATCH_MAX 1024 /* the kernel takes no more at once */

static void translate_in_place(struct msghdr *message, uint8_t room)
{
    struct sockaddr_storage from = {0};
    socklen_t len = message->msg_namelen;

    if (message->msg_name != NULL && len <= sizeof from && len <= room) {
        memcpy(&from, message->msg_name, len);
        message->msg_namelen = room;
        (void)addr_give(&from, translate(&from, len), message->msg_name, &message->msg_namelen);
    }
}

PRELOAD_HOOK(int, recvmmsg, int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    uint8_t rooms[BATCH_MAX] = {0}; /* of their addresses, as far as we need it */
    int rc;

    if (is_queue_of_none(fd, flags)) {
        return -1;
    }
    count = count < BATCH_MAX ? count : BATCH_MAX;
    for (unsigned i = 0; i < count; i++) {
        rooms[i] = messages[i].msg_hdr.msg_namelen < UINT8_MAX ? (uint8_t)messages[i].msg_hdr.msg_namelen : UINT8_MAX;
    }
    rc = real(recvmmsg)(fd, messages, count, flags, timeout);
    for (int i = 0; i < rc; i++) {
        translate_in_place(&messages[i].msg_hdr, rooms[i]);
    }
    if (rc < 0 || (rc == 1 && messages[0].msg_len == 0)) {
        return data_received(fd, rc < 0 ? rc : 0) < 0 ? -1 : rc < 0 ? 0 : rc;
    }
    return rc;
}

PRELOAD_HOOK(ssize_t, __read, int fd, void *buf, size_t len)
{
    return hook_read(fd, buf, len);
}

PRELOAD_HOOK(ssize_t, __read_chk, int fd, void *buf, size_t len, size_t size)
{
    if (len > size) {
        __chk_fail();
    }
    return hook_read(fd, buf, len);
}

PRELOAD_HOOK(ssize_t, __recv_chk, int fd, void *buf, size_t len, size_t size, int flags)
{
    if (len > size) {
        __chk_fail();
    }
    return hook_recv(fd, buf, len, flags);
}

PRELOAD_HOOK(ssize_t, __recvfrom_chk, int fd, void *buf, size_t len, size_t size, int flags, struct sockaddr *addr,
             socklen_t *room)
{
    if (len > size) {
        __chk_fail();
    }
    return hook_recvfrom(fd, buf, len, flags, addr, room);
}
