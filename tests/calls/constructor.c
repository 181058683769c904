/*
 * A library with a constructor that waits for a thread, which makes calls that libsocks6-preload.so replaces. dlopen(3) holds the dynamic
 * linker's lock meanwhile: whoever needed it for them would wait for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void *make_calls(void *arg)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    struct msghdr message = {.msg_iovlen = 0};
    struct mmsghdr messages = {.msg_len = 0};
    struct epoll_event event = {.events = EPOLLIN};
    struct iovec part = {.iov_len = 0};
    int value = 0;
    ssize_t failed = 0;

    failed += connect(-1, (struct sockaddr *)&addr, len) + bind(-1, (struct sockaddr *)&addr, len) + listen(-1, 1);
    failed += socket(-1, 0, 0) + shutdown(-1, 0) + getpeername(-1, (struct sockaddr *)&addr, &len);
    failed += getsockname(-1, (struct sockaddr *)&addr, &len);
    failed += getsockopt(-1, 0, 0, &value, &len) + setsockopt(-1, 0, 0, &value, sizeof value);
    failed += read(-1, &value, 1) + readv(-1, &part, 1) + recv(-1, &value, 1, 0);
    failed += recvfrom(-1, &value, 1, 0, NULL, NULL) + recvmsg(-1, &message, 0) + recvmmsg(-1, &messages, 1, 0, NULL);
    failed += write(-1, &value, 1) + writev(-1, &part, 1) + send(-1, &value, 1, 0);
    failed += sendto(-1, &value, 1, 0, NULL, 0) + sendmsg(-1, &message, 0) + sendmmsg(-1, &messages, 1, 0);
    failed += sendfile(-1, -1, NULL, 1) + splice(-1, NULL, -1, NULL, 1, 0);
    failed += dup(-1) + dup2(-1, -1) + dup3(-1, -1, 0) + fcntl(-1, F_GETFD) + epoll_ctl(-1, EPOLL_CTL_ADD, 0, &event);
    failed += prctl(-1, 0, 0, 0, 0) + execve("/nonexistent", (char *[]){NULL}, (char *[]){NULL});
    *(ssize_t *)arg = -failed;
    return NULL;
}

__attribute__((constructor)) static void wait_for_thread(void)
{
    pthread_t thread;
    ssize_t failed = 0;

    if (pthread_create(&thread, NULL, make_calls, &failed) == 0 && pthread_join(thread, NULL) == 0) {
        printf("%zd calls failed\n", failed);
        (void)fflush(stdout);
    }
}
