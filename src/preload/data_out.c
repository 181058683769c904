/*
 * The hooks of calls that write to sockets, or move bytes between them and files.
 *
 * A write to a stream that the helper has closed would raise SIGPIPE, where TCP often gives an errno alone. So it is held back on
 * descriptors that are known to be streams.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "preload/connect.h"
#include "preload/data.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/stream.h"
#include "preload/sys.h"
#include "preload/udp_dns.h"

static enum data_pipe pipe_of(int flags)
{
    return (flags & MSG_NOSIGNAL) != 0 ? DATA_PIPE_OFF : DATA_PIPE_DUE;
}

PRELOAD_HOOK(ssize_t, write, int fd, const void *buf, size_t len)
{
    ssize_t rc;

    if (data_is_stream(fd)) {
        rc = real(send)(fd, buf, len, MSG_NOSIGNAL);
        if (rc >= 0 || errno != ENOTSOCK) {
            return data_sent(fd, rc, DATA_PIPE_DUE);
        }
    }
    rc = real(write)(fd, buf, len);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

PRELOAD_HOOK(ssize_t, writev, int fd, const struct iovec *parts, int count)
{
    ssize_t rc;

    if (data_is_stream(fd) && count >= 0 && count <= IOV_MAX) {
        union { /* sendmsg(2) does not write to it */
            const struct iovec *from;
            struct iovec *to;
        } iov = {parts};
        struct msghdr message = {.msg_iov = iov.to, .msg_iovlen = (size_t)count};

        rc = real(sendmsg)(fd, &message, MSG_NOSIGNAL);
        if (rc >= 0 || errno != ENOTSOCK) {
            return data_sent(fd, rc, DATA_PIPE_DUE);
        }
    }
    rc = real(writev)(fd, parts, count);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

/* TCP's out-of-band byte cannot travel apart from the others: it goes along with them. */
static ssize_t send_on_stream(int fd, const void *buf, size_t len, int flags)
{
    ssize_t rc = real(send)(fd, buf, len, (flags & ~MSG_OOB) | MSG_NOSIGNAL);

    return data_sent(fd, rc, pipe_of(flags));
}

PRELOAD_HOOK(ssize_t, send, int fd, const void *buf, size_t len, int flags)
{
    ssize_t rc;

    if (data_is_stream(fd)) {
        return send_on_stream(fd, buf, len, flags);
    }
    rc = real(send)(fd, buf, len, flags);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

static bool is_inet(int fd)
{
    int domain = sys_get_int(fd, SOL_SOCKET, SO_DOMAIN);

    return domain == AF_INET || domain == AF_INET6;
}

static bool is_tcp(int fd)
{
    int protocol = sys_get_int(fd, SOL_SOCKET, SO_PROTOCOL);

    return is_inet(fd) && sys_get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
           (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

/* connect() first. 0: now it is to be sent; -1 and errno. The kernel does without waiting what we cannot: EINPROGRESS. */
static int open_fast(int fd, const void *addr, socklen_t len, int flags)
{
    return connect_any(fd, addr, len, (flags & MSG_DONTWAIT) != 0);
}

/* Or of no family, which is AF_INET to an IPv4 socket. */
static bool is_of_inet(const void *addr, socklen_t len)
{
    sa_family_t family = AF_UNSPEC;

    memcpy(&family, addr, len < sizeof family ? 0 : sizeof family);
    return family == AF_INET || family == AF_INET6 || family == AF_UNSPEC;
}

/* Not for streams. What kind of message it is, judged by its address, which is there. */
static enum udp_way way_of(int fd, const void *addr, socklen_t len, struct sockaddr_storage *to, socklen_t *to_len)
{
    return is_of_inet(addr, len) && is_inet(fd) && !is_tcp(fd) ? udp_way(fd, addr, len, to, to_len) : UDP_AS_IS;
}

static ssize_t refuse(void)
{
    errno = ENETUNREACH;
    return -1;
}

static ssize_t send_to(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addr_len);

PRELOAD_HOOK(ssize_t, sendto, int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
             socklen_t addr_len)
{
    struct slot slot;

    if (addr == NULL || addr_len == 0) {
        return hook_send(fd, buf, len, flags);
    }
    if ((flags & MSG_FASTOPEN) != 0 && (is_tcp(fd) || stream_find_in_passing(fd, &slot))) {
        return open_fast(fd, addr, addr_len, flags) < 0 ? -1 : hook_send(fd, buf, len, flags & ~MSG_FASTOPEN);
    }
    if (stream_find_in_passing(fd, &slot)) {
        return send_on_stream(fd, buf, len, flags);
    }
    return send_to(fd, buf, len, flags, addr, addr_len);
}

static ssize_t send_to(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addr_len)
{
    struct sockaddr_storage to;
    socklen_t to_len;
    ssize_t rc;

    switch (way_of(fd, addr, addr_len, &to, &to_len)) {
    case UDP_ELSEWHERE:
        return real_as_hook(sendto)(fd, buf, len, flags, (const struct sockaddr *)&to, to_len);
    case UDP_REFUSED:
        return refuse();
    case UDP_AS_IS:
        break;
    }
    rc = real_as_hook(sendto)(fd, buf, len, flags, addr, addr_len);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

static ssize_t send_message_on_stream(int fd, const struct msghdr *message, int flags)
{
    struct msghdr bare = {.msg_iov = message->msg_iov, .msg_iovlen = message->msg_iovlen};
    ssize_t rc = real(sendmsg)(fd, &bare, (flags & ~MSG_OOB) | MSG_NOSIGNAL);

    return data_sent(fd, rc, pipe_of(flags));
}

static ssize_t send_message_to(int fd, const struct msghdr *message, int flags)
{
    struct msghdr copy = *message;
    struct sockaddr_storage to;
    ssize_t rc;

    switch (way_of(fd, message->msg_name, message->msg_namelen, &to, &copy.msg_namelen)) {
    case UDP_ELSEWHERE:
        copy.msg_name = &to;
        copy.msg_control = NULL; /* a source address or an interface is none of loopback's */
        copy.msg_controllen = 0;
        return real(sendmsg)(fd, &copy, flags);
    case UDP_REFUSED:
        return refuse();
    case UDP_AS_IS:
        break;
    }
    rc = real(sendmsg)(fd, message, flags);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

static ssize_t send_message_fast(int fd, const struct msghdr *message, int flags);

PRELOAD_HOOK(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags)
{
    struct slot slot;
    ssize_t rc;

    if (message == NULL) {
        return real(sendmsg)(fd, message, flags);
    }
    if (message->msg_name != NULL && message->msg_namelen > 0) {
        if ((flags & MSG_FASTOPEN) != 0 && (is_tcp(fd) || stream_find_in_passing(fd, &slot))) {
            return send_message_fast(fd, message, flags);
        }
        return stream_find_in_passing(fd, &slot) ? send_message_on_stream(fd, message, flags)
                                                 : send_message_to(fd, message, flags);
    }
    if (data_is_stream(fd) && stream_find_in_passing(fd, &slot)) {
        return send_message_on_stream(fd, message, flags);
    }
    rc = real(sendmsg)(fd, message, flags);
    return rc >= 0 ? rc : data_sent(fd, rc, DATA_PIPE_RAISED);
}

static ssize_t send_message_fast(int fd, const struct msghdr *message, int flags)
{
    struct msghdr rest = *message;

    if (open_fast(fd, message->msg_name, message->msg_namelen, flags) < 0) {
        return -1;
    }
    rest.msg_name = NULL;
    rest.msg_namelen = 0;
    return hook_sendmsg(fd, &rest, flags & ~MSG_FASTOPEN);
}

static bool are_plain(const struct mmsghdr *messages, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (messages[i].msg_hdr.msg_name != NULL) {
            return false;
        }
    }
    return true;
}

PRELOAD_HOOK(int, sendmmsg, int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    unsigned done = 0;

    if (!data_is_stream(fd) && are_plain(messages, count)) {
        return (int)data_sent(fd, real(sendmmsg)(fd, messages, count, flags), DATA_PIPE_RAISED);
    }
    for (count = count < IOV_MAX ? count : IOV_MAX; done < count; done++) {
        ssize_t rc = hook_sendmsg(fd, &messages[done].msg_hdr, flags);

        if (rc < 0) {
            break;
        }
        messages[done].msg_len = (unsigned)rc;
    }
    return done > 0 || count == 0 ? (int)done : -1;
}

/* SIGPIPE cannot be switched off for these calls: it is blocked meanwhile, and taken away if it came. */
struct hold {
    sigset_t before;
    bool was_pending;
};

static void hold_pipe(struct hold *hold)
{
    sigset_t pipe, pending;

    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)sigpending(&pending);
    hold->was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe, &hold->before);
}

static void release_pipe(const struct hold *hold)
{
    static const struct timespec now = {0, 0};
    int saved = errno;
    sigset_t pipe;

    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    if (!hold->was_pending) {
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR) {
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &hold->before, NULL);
    errno = saved;
}

static ssize_t send_file(ssize_t (*function)(int, int, off_t *, size_t), int out, int in, off_t *offset, size_t len)
{
    struct hold hold;
    ssize_t rc;

    if (!data_is_stream(out)) {
        rc = function(out, in, offset, len);
        return rc >= 0 ? rc : data_sent(out, rc, DATA_PIPE_RAISED);
    }
    hold_pipe(&hold);
    rc = function(out, in, offset, len);
    release_pipe(&hold);
    return data_sent(out, rc, DATA_PIPE_DUE);
}

PRELOAD_HOOK(ssize_t, sendfile, int out, int in, off_t *offset, size_t len)
{
    return send_file(real(sendfile), out, in, offset, len);
}

PRELOAD_HOOK(ssize_t, sendfile64, int out, int in, off_t *offset, size_t len)
{
    return send_file(real(sendfile64), out, in, offset, len);
}

PRELOAD_HOOK(ssize_t, splice, int in, off64_t *in_offset, int out, off64_t *out_offset, size_t len, unsigned flags)
{
    struct hold hold;
    ssize_t rc;

    if (!data_is_stream(out)) {
        rc = real(splice)(in, in_offset, out, out_offset, len, flags);
        return rc > 0 || len == 0 ? rc : data_received(in, rc);
    }
    hold_pipe(&hold);
    rc = real(splice)(in, in_offset, out, out_offset, len, flags);
    release_pipe(&hold);
    return data_sent(out, rc, DATA_PIPE_DUE);
}

PRELOAD_HOOK(ssize_t, __write, int fd, const void *buf, size_t len)
{
    return hook_write(fd, buf, len);
}

PRELOAD_HOOK(ssize_t, __send, int fd, const void *buf, size_t len, int flags)
{
    return hook_send(fd, buf, len, flags);
}
