#include "preload/async.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "preload/sys.h"

/* As the kernel would have: to oneself with what it is about, as far as one may; to others as kill(2) can. */
static void send_signal(int fd)
{
    struct f_owner_ex owner = {.pid = 0};
    int number = sys_fcntl(fd, F_GETSIG, 0);
    pid_t own = (pid_t)SYS_CALL(SYS_getpid);
    siginfo_t info;

    if (SYS_CALL(SYS_fcntl, fd, F_GETOWN_EX, &owner) != 0 || owner.pid == 0) {
        return;
    }
    if (number <= 0) {
        (void)SYS_CALL(SYS_kill, owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid, SIGIO);
        return;
    }
    memset(&info, 0, sizeof info);
    info.si_signo = number;
    info.si_code = POLL_OUT;
    info.si_band = POLLOUT | POLLWRNORM;
    info.si_fd = fd;
    if (owner.type == F_OWNER_TID && SYS_CALL(SYS_rt_tgsigqueueinfo, own, owner.pid, number, &info) == 0) {
        return;
    }
    if (owner.type != F_OWNER_PID || owner.pid != own || SYS_CALL(SYS_rt_sigqueueinfo, own, number, &info) != 0) {
        (void)SYS_CALL(SYS_kill, owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid, number);
    }
}

/*
 * The kernel sends the signal only after a write has found no room. This one has nothing to write: the kernel looks for room first and
 * for the byte, at an address where there is none, afterwards. If it says so there is room already: then the signal is ours to send.
 */
void async_expect_room(int fd)
{
    int flags = sys_fcntl(fd, F_GETFL, 0);

    if (flags >= 0 && (flags & O_ASYNC) != 0 &&
        SYS_CALL(SYS_sendto, fd, (uintptr_t)1, 1, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0) == -EFAULT) {
        send_signal(fd);
    }
}
