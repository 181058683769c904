/*
 * getaddrinfo_a(3), gai_suspend(3), gai_error(3) and gai_cancel(3).
 *
 * Theory of operation. Where libc has threads that wait, we have the connection on which the helper answers: a request is in flight
 * as long as its connection is. Whoever looks at it (gai_error, gai_suspend, gai_cancel) makes the list when the answer is
 * there. What is known about a request is kept in the part of struct gaicb that is reserved for libc:
 *
 *   __return              EAI_INPROGRESS until the rest is complete; the last to be written
 *   __glibc_reserved[0]   NONE, WAITING, or BUSY: someone has taken it and is about to complete it
 *   [1]                   the connection
 *   [2], [3]              its cookie: a program may close descriptors that it does not know, and get the number anew
 *
 * A thread exists only where the program has asked to be notified, by a signal or by a function that runs in a thread, as in libc.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "preload/export.h"
#include "preload/getaddrinfo.h"
#include "preload/names.h"
#include "preload/real.h"
#include "preload/talk.h"

enum { NONE, WAITING, BUSY };
enum { STATE, CONNECTION, COOKIE, COOKIE_HIGH };

static bool change_state(struct gaicb *request, int from, int to)
{
    return __atomic_compare_exchange_n(&request->__glibc_reserved[STATE], &from, to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static int result_of(const struct gaicb *request)
{
    return __atomic_load_n(&request->__return, __ATOMIC_ACQUIRE);
}

static void complete(struct gaicb *request, int rc)
{
    __atomic_store_n(&request->__glibc_reserved[STATE], NONE, __ATOMIC_RELAXED);
    __atomic_store_n(&request->__return, rc, __ATOMIC_RELEASE);
}

static const struct addrinfo *hints_of(const struct gaicb *request)
{
    return request->ar_request != NULL ? request->ar_request : &getaddrinfo_no_hints;
}

/* Descriptors are looked at by system calls, since our own hooks have libc's names. */
static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof cookie;
    int saved = errno;

    (void)syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
    errno = saved;
    return cookie;
}

static bool is_connection_of(const struct gaicb *request, int fd)
{
    uint64_t cookie;

    memcpy(&cookie, &request->__glibc_reserved[COOKIE], sizeof cookie);
    return cookie != 0 && cookie_of(fd) == cookie;
}

static long poll_all(struct pollfd *all, size_t count, const struct timespec *timeout)
{
    struct timespec left = timeout != NULL ? *timeout : (struct timespec){0};

    return syscall(SYS_ppoll, all, count, timeout != NULL ? &left : NULL, NULL, (size_t)0);
}

static bool has_answer(const struct gaicb *request)
{
    static const struct timespec no_time = {0};
    struct pollfd one = {.fd = request->__glibc_reserved[CONNECTION], .events = POLLIN};

    return poll_all(&one, 1, &no_time) > 0;
}

/* Reads the answer, and makes the list. */
static int take_answer(struct gaicb *request)
{
    struct names_addresses *found = malloc(sizeof *found);
    int rc = EAI_MEMORY;

    if (found == NULL) {
        talk_close(request->__glibc_reserved[CONNECTION]);
        return rc;
    }
    rc = names_await(request->__glibc_reserved[CONNECTION], found);
    rc = getaddrinfo_finish(request->ar_name, request->ar_service, hints_of(request), rc, found, &request->ar_result);
    free(found);
    return rc;
}

/* Completes a request whose answer has come; else does nothing. Several threads may try. */
static void look_at(struct gaicb *request)
{
    int saved = errno;

    if (result_of(request) != EAI_INPROGRESS || !change_state(request, WAITING, BUSY)) {
        return;
    }
    if (!is_connection_of(request, request->__glibc_reserved[CONNECTION])) {
        complete(request, EAI_AGAIN);
    } else if (has_answer(request)) {
        complete(request, take_answer(request));
    } else {
        (void)change_state(request, BUSY, WAITING);
    }
    errno = saved;
}

static void start(struct gaicb *request)
{
    const struct addrinfo *hints = hints_of(request);
    uint64_t cookie;
    int rc;

    request->ar_result = NULL;
    if (getaddrinfo_is_local(request->ar_name, hints)) {
        complete(request,
                 real(getaddrinfo)(request->ar_name, request->ar_service, request->ar_request, &request->ar_result));
        return;
    }
    rc = getaddrinfo_check(request->ar_service, hints);
    if (rc == 0) {
        rc = getaddrinfo_ask(request->ar_name, hints);
    }
    if (rc < 0) {
        complete(request, rc);
        return;
    }
    cookie = cookie_of(rc);
    request->__glibc_reserved[CONNECTION] = rc;
    memcpy(&request->__glibc_reserved[COOKIE], &cookie, sizeof cookie);
    __atomic_store_n(&request->__return, EAI_INPROGRESS, __ATOMIC_RELAXED);
    __atomic_store_n(&request->__glibc_reserved[STATE], WAITING, __ATOMIC_RELEASE);
}

/*
 * Waits for any of the requests that are in flight: 0, -EAGAIN (timeout), -EINTR, -ENOMEM; -ENOENT if none is. It waits at duplicates
 * of the connections: another thread may complete a request meanwhile, and close the connection.
 */
static int wait_for_any(struct gaicb *const list[], int count, const struct timespec *timeout)
{
    struct pollfd *all = calloc(count > 0 ? (size_t)count : 1, sizeof *all);
    size_t waiting = 0;
    int result = 0;

    if (all == NULL) {
        return -ENOMEM;
    }
    for (int i = 0; i < count; i++) {
        if (list[i] != NULL && result_of(list[i]) == EAI_INPROGRESS) {
            long fd = syscall(SYS_fcntl, list[i]->__glibc_reserved[CONNECTION], F_DUPFD_CLOEXEC, 0);

            all[waiting++] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
            result = is_connection_of(list[i], (int)fd) ? result : -1;
        }
    }
    if (waiting == 0) {
        result = -ENOENT;
    } else if (result == 0) { /* else one is gone, or there are no more descriptors: look at all of them again */
        long n = poll_all(all, waiting, timeout);

        result = n < 0 ? -errno : n == 0 ? -EAGAIN : 0;
    }
    while (waiting > 0) {
        talk_close(all[--waiting].fd);
    }
    free(all);
    return result == -1 ? 0 : result;
}

static bool look_at_all(struct gaicb *const list[], int count)
{
    bool is_open = false;

    for (int i = 0; i < count; i++) {
        if (list[i] != NULL) {
            look_at(list[i]);
            is_open = is_open || result_of(list[i]) == EAI_INPROGRESS;
        }
    }
    return is_open;
}

static void wait_for_all(struct gaicb *const list[], int count)
{
    while (look_at_all(list, count) && wait_for_any(list, count, NULL) != -ENOMEM) {
    }
}

/* What a thread needs that notifies the program. */
struct notice {
    struct sigevent event;
    pid_t caller;
    int count;
    struct gaicb *list[];
};

static void send_signal(const struct notice *notice)
{
    siginfo_t info;

    memset(&info, 0, sizeof info);
    info.si_signo = notice->event.sigev_signo;
    info.si_code = SI_ASYNCNL;
    info.si_pid = notice->caller;
    info.si_uid = getuid();
    info.si_value = notice->event.sigev_value;
    (void)syscall(SYS_rt_sigqueueinfo, notice->caller, info.si_signo, &info);
}

static void *notify(void *argument)
{
    struct notice *notice = argument;
    struct sigevent event = notice->event;

    (void)pthread_detach(pthread_self());
    wait_for_all(notice->list, notice->count);
    if (event.sigev_notify == SIGEV_SIGNAL) {
        send_signal(notice);
    }
    free(notice);
    if (event.sigev_notify == SIGEV_THREAD) {
        sigset_t none;

        (void)sigemptyset(&none);
        (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
        event.sigev_notify_function(event.sigev_value);
    }
    return NULL;
}

/* The thread starts with all signals blocked: they are the program's. */
static int start_thread(struct notice *notice)
{
    const pthread_attr_t *attributes =
        notice->event.sigev_notify == SIGEV_THREAD ? notice->event.sigev_notify_attributes : NULL;
    sigset_t all, before;
    pthread_t thread;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, attributes, notify, notice);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int arrange_notice(struct gaicb *const list[], int count, const struct sigevent *event)
{
    size_t list_len = (size_t)count * sizeof(void *);
    struct notice *notice = malloc(sizeof *notice + list_len);

    if (notice == NULL) {
        return EAI_AGAIN;
    }
    notice->event = *event;
    notice->caller = getpid();
    notice->count = count;
    memcpy(notice->list, list, list_len);
    if (start_thread(notice) != 0) {
        free(notice);
        return EAI_AGAIN;
    }
    return 0;
}

PRELOAD_EXPORT int getaddrinfo_a(int mode, struct gaicb *list[restrict], int count, struct sigevent *restrict event)
{
    if ((mode != GAI_WAIT && mode != GAI_NOWAIT) || count < 0) {
        errno = EINVAL;
        return EAI_SYSTEM;
    }
    for (int i = 0; i < count; i++) {
        if (list[i] != NULL) {
            start(list[i]);
        }
    }
    if (mode == GAI_WAIT) {
        wait_for_all(list, count);
        return 0;
    }
    return event == NULL || event->sigev_notify == SIGEV_NONE ? 0 : arrange_notice(list, count, event);
}

PRELOAD_EXPORT int gai_error(struct gaicb *request)
{
    look_at(request);
    return result_of(request);
}

PRELOAD_EXPORT int gai_cancel(struct gaicb *request)
{
    look_at(request);
    if (result_of(request) != EAI_INPROGRESS) {
        return EAI_ALLDONE;
    }
    if (!change_state(request, WAITING, BUSY)) {
        return EAI_NOTCANCELED;
    }
    talk_close(request->__glibc_reserved[CONNECTION]);
    complete(request, EAI_CANCELED);
    return EAI_CANCELED;
}

static int suspended(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case -ENOENT:
        return EAI_ALLDONE;
    case -EAGAIN:
        return EAI_AGAIN;
    case -EINTR:
        return EAI_INTR;
    case -ENOMEM:
        return EAI_MEMORY;
    default:
        errno = -rc;
        return EAI_SYSTEM;
    }
}

/* The list that the program gives is of constant requests; but completing one is what the call is for. */
PRELOAD_EXPORT int gai_suspend(const struct gaicb *const list[], int count, const struct timespec *timeout)
{
    union {
        const struct gaicb *const *given;
        struct gaicb *const *requests;
    } all = {list};
    int rc = wait_for_any(all.requests, count, timeout);

    if (rc == 0) {
        (void)look_at_all(all.requests, count);
    }
    return suspended(rc);
}
