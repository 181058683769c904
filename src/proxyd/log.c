/*
 * The log's queue and its writer thread.
 *
 * Two buffers: threads append lines to the one while the writer empties the other, and they change places under the
 * lock, which is never held across a system call that waits. What does not fit is counted; the writer says how much
 * that was once it gets something out again.
 *
 * The writer waits in poll(2) until the descriptor takes bytes, and gives a pipe no more than PIPE_BUF of them at once,
 * so that write(2) does not block: log_stop() can interrupt it. A regular file or a terminal can hold it all the same;
 * then log_stop() leaves the thread behind after its time is up.
 */
#include "proxyd/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proxyd/log_format.h"

#define BUFFER_SIZE ((size_t)1024 * 1024)
#define STOP_MS 2000
/* What log_stop() grants the writer beyond that to end itself. */
#define STOP_GRACE_MS 200

struct writer {
    pthread_t thread;
    pthread_cond_t wake;
    int fd;
    int stop_fd; /* eventfd, readable once the writer has to end */
    bool is_file;
    bool in_line;         /* the last byte written was no newline: a write failed half-way */
    uint64_t deadline_ms; /* of log_stop(), in CLOCK_MONOTONIC; 0 = not yet. The thread's own */

    /* Under `lock`. */
    bool stop;
    char *filling, *emptying;
    size_t filled;       /* bytes in `filling` */
    uint64_t unreported; /* lines lost that no line has spoken of */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct writer *current; /* under `lock`; NULL = straight to standard error */

static atomic_uint current_format = CONFIG_LOG_TEXT;
static atomic_uint current_level = CONFIG_LOG_INFO;
static atomic_bool current_access = true;
static _Atomic uint64_t lost;

/* Too large for a stack, and never in use twice in one thread. */
static _Thread_local char line_buf[LOG_LINE_MAX];
static _Thread_local char message_buf[LOG_MESSAGE_MAX + 2];

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

/* Until the descriptor takes bytes. False once log_stop() has waited long enough. */
static bool wait_writable(struct writer *writer)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = writer->fd, .events = POLLOUT}, {.fd = writer->stop_fd, .events = POLLIN}};
        int timeout_ms = -1, ready;

        if (writer->deadline_ms != 0) {
            uint64_t now = now_ms();

            timeout_ms = now < writer->deadline_ms ? (int)(writer->deadline_ms - now) : 0;
            fds[1].fd = -1;
        }
        ready = poll(fds, 2, timeout_ms);
        if (ready > 0 && fds[0].revents != 0) {
            return true;
        }
        if (ready > 0) {
            writer->deadline_ms = now_ms() + STOP_MS;
        } else if (ready == 0) {
            return false;
        } else if (errno != EINTR) {
            return true; /* let write(2) say what is wrong */
        }
    }
}

/* Returns the number of lines that could not be written. */
static uint64_t write_out(struct writer *writer, const char *bytes, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t written;

        if (!wait_writable(writer)) {
            return count_lines(bytes + done, len - done);
        }
        if (writer->in_line && done == 0 && write(writer->fd, "\n", 1) == 1) {
            writer->in_line = false;
        }
        written = write(writer->fd, bytes + done, portion(writer, bytes + done, len - done));
        if (written > 0) {
            done += (size_t)written;
            writer->in_line = bytes[done - 1] != '\n';
        } else if (written < 0 && errno != EINTR && errno != EAGAIN) {
            return count_lines(bytes + done, len - done); /* nobody reads any more, or the disk is full */
        }
    }
    return 0;
}

static uint64_t report_lost(struct writer *writer, uint64_t count)
{
    struct timespec now;
    size_t len;

    (void)snprintf(message_buf, sizeof message_buf, "log: %llu lines were lost, the reader does not keep up",
                   (unsigned long long)count);
    clock_gettime(CLOCK_REALTIME, &now);
    len = log_format_message(line_buf, (enum config_log_format)atomic_load(&current_format), &now, "warning",
                             message_buf);
    return write_out(writer, line_buf, len) == 0 ? 0 : count;
}

static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    bool stop;

    do {
        uint64_t unreported, failed;
        size_t len;
        char *full;

        pthread_mutex_lock(&lock);
        while (writer->filled == 0 && !writer->stop) {
            pthread_cond_wait(&writer->wake, &lock);
        }
        full = writer->filling;
        len = writer->filled;
        writer->filling = writer->emptying;
        writer->emptying = full;
        writer->filled = 0;
        unreported = writer->unreported;
        writer->unreported = 0;
        stop = writer->stop;
        pthread_mutex_unlock(&lock);

        failed = write_out(writer, full, len);
        if (failed > 0) {
            atomic_fetch_add(&lost, failed);
        } else if (unreported > 0) {
            unreported = report_lost(writer, unreported);
        }
        pthread_mutex_lock(&lock);
        writer->unreported += unreported + failed;
        pthread_mutex_unlock(&lock);
    } while (!stop);
    return NULL;
}

static void writer_free(struct writer *writer)
{
    if (writer->stop_fd >= 0) {
        close(writer->stop_fd);
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

int log_start(int fd)
{
    struct writer *writer = calloc(1, sizeof *writer);
    struct stat status;
    int err = -ENOMEM;

    if (writer == NULL) {
        return err;
    }
    pthread_cond_init(&writer->wake, NULL);
    writer->fd = fd;
    writer->is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    writer->filling = malloc(BUFFER_SIZE);
    writer->emptying = malloc(BUFFER_SIZE);
    writer->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (writer->stop_fd < 0) {
        err = -errno;
    } else if (writer->filling != NULL && writer->emptying != NULL) {
        err = start_thread(writer);
    }
    if (err != 0) {
        writer_free(writer);
        return err;
    }
    pthread_mutex_lock(&lock);
    current = writer;
    pthread_mutex_unlock(&lock);
    return 0;
}

void log_stop(void)
{
    const uint64_t one = 1;
    struct writer *writer;
    struct timespec until;

    pthread_mutex_lock(&lock);
    writer = current;
    current = NULL;
    if (writer != NULL) {
        writer->stop = true;
        pthread_cond_signal(&writer->wake);
    }
    pthread_mutex_unlock(&lock);
    if (writer == NULL) {
        return;
    }
    /* Cannot fail: the counter is at zero. */
    (void)!write(writer->stop_fd, &one, sizeof one);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (STOP_MS + STOP_GRACE_MS) / 1000;
    until.tv_nsec += (STOP_MS + STOP_GRACE_MS) % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    if (pthread_timedjoin_np(writer->thread, NULL, &until) == 0) {
        writer_free(writer);
    } else {
        (void)pthread_detach(writer->thread); /* held in write(2); it keeps its memory, the process is about to end */
    }
}

void log_configure(enum config_log_format format, enum config_log_level level, bool access)
{
    atomic_store(&current_format, (unsigned)format);
    atomic_store(&current_level, (unsigned)level);
    atomic_store(&current_access, access);
}

uint64_t log_lost(void)
{
    return atomic_load(&lost);
}

static void submit(const char *line, size_t len)
{
    struct writer *writer;

    pthread_mutex_lock(&lock);
    writer = current;
    if (writer != NULL && len > BUFFER_SIZE - writer->filled) {
        writer->unreported++;
        atomic_fetch_add(&lost, 1);
    } else if (writer != NULL) {
        memcpy(writer->filling + writer->filled, line, len);
        if (writer->filled == 0) {
            pthread_cond_signal(&writer->wake);
        }
        writer->filled += len;
    }
    pthread_mutex_unlock(&lock);
    /* Nowhere to complain if standard error does not take it. */
    if (writer == NULL) {
        (void)!write(STDERR_FILENO, line, len);
    }
}

__attribute__((format(printf, 2, 0))) static void message(enum config_log_level level, const char *format, va_list args)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    struct timespec now;
    size_t len;

    if ((unsigned)level > atomic_load(&current_level)) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    (void)vsnprintf(message_buf, sizeof message_buf, format, args);
    len = log_format_message(line_buf, (enum config_log_format)atomic_load(&current_format), &now, names[level],
                             message_buf);
    submit(line_buf, len);
}

void log_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message(CONFIG_LOG_ERROR, format, args);
    va_end(args);
}

void log_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message(CONFIG_LOG_WARNING, format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message(CONFIG_LOG_INFO, format, args);
    va_end(args);
}

void log_debug(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message(CONFIG_LOG_DEBUG, format, args);
    va_end(args);
}

void log_access_write(const struct log_access *entry)
{
    struct timespec now;
    size_t len;

    if (!atomic_load(&current_access)) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    len = log_format_access(line_buf, (enum config_log_format)atomic_load(&current_format), &now, entry);
    submit(line_buf, len);
}
