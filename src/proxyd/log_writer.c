/*
 * Two buffers for each slot: threads append lines to the one while the writer empties the other, and they change places
 * under the slot's lock, which is never held across a system call that waits. What does not fit is counted; the writer
 * says how much that was once it gets something out again.
 *
 * When the writer is woken matters: a futex for each line costs a busy daemon more than the line. A writer that has
 * slept is woken by the next line, so that a quiet daemon's line is out at once. Then it collects: for BATCH_MS, or
 * until half of the buffer is full or a line is urgent, nobody wakes it. Under load that is a wake-up by its own timer
 * for each batch and none by the loops.
 *
 * The writer waits in poll(2) until the descriptor takes bytes, and gives a pipe no more than PIPE_BUF of them at once,
 * so that write(2) does not block: log_writer_stop() and log_writer_move() can interrupt it by an eventfd. A regular
 * file or a terminal can hold it all the same; then log_writer_stop() leaves the thread behind after its time is up.
 */
#include "proxyd/log_writer.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proxyd/log_format.h"

#define BUFFER_SIZE ((size_t)1024 * 1024)
#define BATCH_MS 20u
#define REPORT_MS 10000u
#define STOP_MS 2000
/* What log_writer_stop() grants the writer beyond that to end itself. */
#define STOP_GRACE_MS 200

/* What the writer sleeps for, and so whether a new line has to wake it. */
enum sleep { AWAKE, COLLECTS, SLEEPS };

struct writer {
    pthread_t thread;
    pthread_cond_t wake; /* on CLOCK_MONOTONIC */
    log_writer_notice *notice;
    enum log_slot slot;
    int news_fd; /* eventfd, readable when `stop` or `next` was set: for the wait in poll(2) */

    /* The thread's own. */
    struct log_descriptor to;
    bool is_file;
    bool in_line;         /* the last byte written was no newline: a write failed half-way */
    int error;            /* of the last write that failed and is not reported; 0 = the reader was slow */
    uint64_t report_ms;   /* not before this time, in CLOCK_MONOTONIC, is the next loss reported */
    uint64_t deadline_ms; /* of log_writer_stop(), in CLOCK_MONOTONIC; 0 = not yet */

    /* Under the slot's lock. */
    bool stop;
    bool urgent; /* a line in `filling` is */
    enum sleep sleep;
    struct log_descriptor next; /* to be used from now on; fd -1 = none */
    char *filling, *emptying;
    size_t filled;       /* bytes in `filling` */
    uint64_t unreported; /* lines lost that no line has spoken of */
};

static struct slot {
    pthread_mutex_t lock;
    struct writer *writer; /* under `lock`; NULL = not running */
} slots[LOG_SLOT_COUNT] = {
    {.lock = PTHREAD_MUTEX_INITIALIZER},
    {.lock = PTHREAD_MUTEX_INITIALIZER},
};

static _Atomic uint64_t lost;

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t count_lines(const char *bytes, size_t len)
{
    uint64_t count = 0;

    for (size_t i = 0; i < len; i++) {
        count += bytes[i] == '\n';
    }
    return count;
}

static void close_owned(struct log_descriptor descriptor)
{
    if (descriptor.owned) {
        close(descriptor.fd);
    }
}

static void use(struct writer *writer, struct log_descriptor to)
{
    struct stat status;

    writer->to = to;
    writer->is_file = fstat(to.fd, &status) == 0 && S_ISREG(status.st_mode);
    writer->in_line = false;
}

/* Takes over the descriptor that log_writer_move() has left; returns whether there was one. */
static bool take_next(struct writer *writer)
{
    struct slot *slot = &slots[writer->slot];
    struct log_descriptor next;

    pthread_mutex_lock(&slot->lock);
    next = writer->next;
    writer->next.fd = -1;
    pthread_mutex_unlock(&slot->lock);
    if (next.fd < 0) {
        return false;
    }
    close_owned(writer->to);
    use(writer, next);
    return true;
}

/* ---- writing ---- */

/* How much of `bytes` to write at once: whole lines if possible, so that other writers of a pipe do not get between. */
static size_t portion(const struct writer *writer, const char *bytes, size_t len)
{
    const char *newline;

    if (writer->is_file || len <= PIPE_BUF) {
        return len;
    }
    newline = memrchr(bytes, '\n', PIPE_BUF);
    return newline == NULL ? PIPE_BUF : (size_t)(newline - bytes) + 1;
}

enum readiness { READY, MOVED, GIVEN_UP };

/* The eventfd has something: begin the last two seconds, or go to another descriptor. */
static bool take_news(struct writer *writer)
{
    struct slot *slot = &slots[writer->slot];
    uint64_t count;
    bool stop;

    (void)!read(writer->news_fd, &count, sizeof count); /* empty: what it told of is known already */
    pthread_mutex_lock(&slot->lock);
    stop = writer->stop;
    pthread_mutex_unlock(&slot->lock);
    if (stop && writer->deadline_ms == 0) {
        writer->deadline_ms = now_ms() + STOP_MS;
    }
    return take_next(writer);
}

/* Until the descriptor takes bytes. GIVEN_UP once log_writer_stop() has waited long enough. */
static enum readiness wait_writable(struct writer *writer)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = writer->to.fd, .events = POLLOUT}, {.fd = writer->news_fd, .events = POLLIN}};
        int timeout_ms = -1, ready;

        if (writer->deadline_ms != 0) {
            uint64_t now = now_ms();

            timeout_ms = now < writer->deadline_ms ? (int)(writer->deadline_ms - now) : 0;
        }
        ready = poll(fds, 2, timeout_ms);
        if (ready > 0 && fds[1].revents != 0 && take_news(writer)) {
            return MOVED;
        }
        if (ready > 0 && fds[0].revents != 0) {
            return READY;
        }
        if (ready == 0) {
            return GIVEN_UP;
        }
        if (ready < 0 && errno != EINTR) {
            return READY; /* let write(2) say what is wrong */
        }
    }
}

/* Where the line begins in which `at` lies. */
static size_t line_start(const char *bytes, size_t at)
{
    const char *newline = at == 0 ? NULL : memrchr(bytes, '\n', at);

    return newline == NULL ? 0 : (size_t)(newline - bytes) + 1;
}

/* Returns the number of lines that could not be written. */
static uint64_t write_out(struct writer *writer, const char *bytes, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t written;
        enum readiness readiness = wait_writable(writer);

        if (readiness == GIVEN_UP) {
            return count_lines(bytes + done, len - done);
        }
        if (readiness == MOVED) {
            done = line_start(bytes, done);
            continue;
        }
        if (writer->in_line && done == 0 && write(writer->to.fd, "\n", 1) == 1) {
            writer->in_line = false;
        }
        written = write(writer->to.fd, bytes + done, portion(writer, bytes + done, len - done));
        if (written > 0) {
            done += (size_t)written;
            writer->in_line = bytes[done - 1] != '\n';
        } else if (written < 0 && errno != EINTR && errno != EAGAIN) {
            writer->error = errno; /* nobody reads any more, or the disk is full */
            return count_lines(bytes + done, len - done);
        }
    }
    return 0;
}

/*
 * Lines were lost. Of the daemon's log it says so itself, once it gets something out again; of the access log the
 * daemon's log tells, from the first one on, but not with each batch.
 */
static bool may_report(const struct writer *writer, uint64_t failed, bool stop)
{
    if (writer->slot == LOG_SLOT_DAEMON) {
        return failed == 0;
    }
    return stop || now_ms() >= writer->report_ms;
}

/* Returns the number of lines that are still to be reported. */
static uint64_t report_lost(struct writer *writer, uint64_t count)
{
    static _Thread_local char line[LOG_LINE_MAX];
    size_t len = writer->notice(writer->slot, count, writer->error, line);
    uint64_t failed = write_out(writer, line, len);

    if (failed == 0) {
        writer->error = 0;
        writer->report_ms = now_ms() + REPORT_MS;
    }
    return failed == 0 ? 0 : count;
}

/* ---- the thread ---- */

static bool is_due(const struct writer *writer)
{
    return writer->stop || writer->urgent || writer->next.fd >= 0 || writer->filled >= BUFFER_SIZE / 2;
}

/* With the lock held. */
static void collect(struct writer *writer, pthread_mutex_t *held)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)BATCH_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!is_due(writer)) {
        writer->sleep = COLLECTS;
        if (pthread_cond_timedwait(&writer->wake, held, &until) == ETIMEDOUT) {
            break;
        }
    }
    writer->sleep = AWAKE;
}

/* With the lock held: until there is something to do. */
static void sleep_until_needed(struct writer *writer, pthread_mutex_t *held)
{
    while (writer->filled == 0 && !writer->stop && writer->next.fd < 0) {
        writer->sleep = SLEEPS;
        pthread_cond_wait(&writer->wake, held);
    }
    writer->sleep = AWAKE;
}

/* The full buffer, in exchange for the empty one. With the lock held. */
static char *take_buffer(struct writer *writer, size_t *len)
{
    char *full = writer->filling;

    *len = writer->filled;
    writer->filling = writer->emptying;
    writer->emptying = full;
    writer->filled = 0;
    writer->urgent = false;
    return full;
}

static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    struct slot *slot = &slots[writer->slot];
    bool stop;

    do {
        uint64_t unreported, failed;
        size_t len;
        char *full;

        pthread_mutex_lock(&slot->lock);
        sleep_until_needed(writer, &slot->lock);
        full = take_buffer(writer, &len);
        unreported = writer->unreported;
        writer->unreported = 0;
        stop = writer->stop;
        pthread_mutex_unlock(&slot->lock);

        (void)take_next(writer);
        failed = write_out(writer, full, len);
        atomic_fetch_add(&lost, failed);
        unreported += failed;
        if (unreported > 0 && may_report(writer, failed, stop)) {
            unreported = report_lost(writer, unreported);
        }
        pthread_mutex_lock(&slot->lock);
        writer->unreported += unreported;
        collect(writer, &slot->lock);
        pthread_mutex_unlock(&slot->lock);
    } while (!stop);
    return NULL;
}

/* ---- start and end ---- */

static void writer_free(struct writer *writer)
{
    if (writer->news_fd >= 0) {
        close(writer->news_fd);
    }
    pthread_cond_destroy(&writer->wake);
    free(writer->filling);
    free(writer->emptying);
    free(writer);
}

/* A signal is none of its business, and SIGPIPE, which would be, stays pending for ever. */
static int start_thread(struct writer *writer)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&writer->thread, NULL, writer_run, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -err;
}

static void init_wake(struct writer *writer)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&writer->wake, &attr);
    pthread_condattr_destroy(&attr);
}

int log_writer_start(enum log_slot slot, struct log_descriptor to, log_writer_notice *notice)
{
    struct writer *writer = calloc(1, sizeof *writer);
    int err = -ENOMEM;

    if (writer == NULL) {
        return err;
    }
    init_wake(writer);
    writer->slot = slot;
    writer->notice = notice;
    writer->next.fd = -1;
    writer->filling = malloc(BUFFER_SIZE);
    writer->emptying = malloc(BUFFER_SIZE);
    writer->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    use(writer, to);
    if (writer->news_fd < 0) {
        err = -errno;
    } else if (writer->filling != NULL && writer->emptying != NULL) {
        err = start_thread(writer);
    }
    if (err != 0) {
        writer_free(writer);
        return err;
    }
    pthread_mutex_lock(&slots[slot].lock);
    slots[slot].writer = writer;
    pthread_mutex_unlock(&slots[slot].lock);
    return 0;
}

/* With the lock held. */
static void tell(struct writer *writer)
{
    const uint64_t one = 1;

    pthread_cond_signal(&writer->wake);
    /* Its value cannot come near the one at which this would fail. */
    (void)!write(writer->news_fd, &one, sizeof one);
}

void log_writer_stop(enum log_slot slot)
{
    struct writer *writer;
    struct timespec until;

    pthread_mutex_lock(&slots[slot].lock);
    writer = slots[slot].writer;
    slots[slot].writer = NULL;
    if (writer != NULL) {
        writer->stop = true;
        tell(writer);
    }
    pthread_mutex_unlock(&slots[slot].lock);
    if (writer == NULL) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (STOP_MS + STOP_GRACE_MS) / 1000;
    until.tv_nsec += (long)(STOP_MS + STOP_GRACE_MS) % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    if (pthread_timedjoin_np(writer->thread, NULL, &until) == 0) {
        close_owned(writer->to);
        writer_free(writer);
    } else {
        pthread_detach(writer->thread); /* held in write(2); it keeps its memory and its descriptor */
    }
}

bool log_writer_is_running(enum log_slot slot)
{
    bool is_running;

    pthread_mutex_lock(&slots[slot].lock);
    is_running = slots[slot].writer != NULL;
    pthread_mutex_unlock(&slots[slot].lock);
    return is_running;
}

void log_writer_move(enum log_slot slot, struct log_descriptor to)
{
    struct log_descriptor unused = to;

    pthread_mutex_lock(&slots[slot].lock);
    struct writer *writer = slots[slot].writer;
    if (writer != NULL) {
        unused = writer->next;
        writer->next = to;
        tell(writer);
    }
    pthread_mutex_unlock(&slots[slot].lock);
    if (unused.fd >= 0) {
        close_owned(unused);
    }
}

bool log_writer_submit(enum log_slot slot, const char *lines, size_t len, bool urgent)
{
    struct writer *writer;

    pthread_mutex_lock(&slots[slot].lock);
    writer = slots[slot].writer;
    if (writer != NULL && len > BUFFER_SIZE - writer->filled) {
        uint64_t count = count_lines(lines, len);

        writer->unreported += count;
        atomic_fetch_add(&lost, count);
    } else if (writer != NULL) {
        memcpy(writer->filling + writer->filled, lines, len);
        writer->filled += len;
        writer->urgent = writer->urgent || urgent;
        if (writer->sleep == SLEEPS || (writer->sleep == COLLECTS && is_due(writer))) {
            writer->sleep = AWAKE; /* from here on: no second signal */
            pthread_cond_signal(&writer->wake);
        }
    }
    pthread_mutex_unlock(&slots[slot].lock);
    return writer != NULL;
}

uint64_t log_writer_lost(void)
{
    return atomic_load(&lost);
}
