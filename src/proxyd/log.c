/*
 * The log as the rest of the daemon sees it: levels, settings, and which line goes where. Formatting is log_format.c,
 * writing log_writer.c.
 *
 * The settings in force are an immutable view behind an atomic pointer, so that logging takes no lock for them. A
 * reader may still be at the old view when there is a new one; a reload that changes something is rare, so old views
 * are kept until the end instead of counting their readers.
 *
 * Daemon and access log share one writer if they go to the same place, and have one each otherwise.
 */
#include "proxyd/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proxyd/log_format.h"
#include "proxyd/log_writer.h"

struct view {
    const struct view *retired; /* the one before */
    enum config_log_level level;
    bool access;
    enum log_slot access_slot;
    enum config_log_format format[LOG_SLOT_COUNT]; /* no AUTO */
    struct config_log_fields fields;
};

static const struct view first_view = {.level = CONFIG_LOG_INFO};
static _Atomic(const struct view *) current_view = &first_view;

/* Where the slots write: of the thread that starts and reloads alone. */
static struct output {
    enum config_log_target target;
    int fd; /* -1 = the slot does not run; owned by the writer */
} outputs[LOG_SLOT_COUNT] = {{.fd = -1}, {.fd = -1}};

/* Too large for a stack, and never in use twice in one thread. */
static _Thread_local char line_buf[LOG_LINE_MAX];
static _Thread_local char message_buf[LOG_MESSAGE_MAX + 2];

static const struct view *view(void)
{
    return atomic_load_explicit(&current_view, memory_order_acquire);
}

/* ---- outputs ---- */

/* O_NONBLOCK: a FIFO without a reader is an error then, and not a wait without an end. -errno, or a descriptor. */
static int open_output(const struct config_log_output *output)
{
    int fd = -1;

    switch (output->target) {
    case CONFIG_LOG_STDERR:
        return STDERR_FILENO;
    case CONFIG_LOG_STDOUT:
        return STDOUT_FILENO;
    case CONFIG_LOG_FILE:
        fd = open(output->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
        break;
    }
    return fd < 0 ? -errno : fd;
}

static bool is_same_place(const struct config_log_output *a, const struct config_log_output *b)
{
    return a->target == b->target && (a->target != CONFIG_LOG_FILE || strcmp(a->path, b->path) == 0);
}

/* systemd.exec(5): JOURNAL_STREAM is "device:inode" of the socket to the journal, if a standard stream is one. */
static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;
    char *end;

    if (stream == NULL || fstat(fd, &status) != 0) {
        return false;
    }
    device = strtoull(stream, &end, 10);
    if (end == stream || *end != ':') {
        return false;
    }
    stream = end + 1;
    inode = strtoull(stream, &end, 10);
    return end != stream && *end == '\0' && status.st_dev == device && status.st_ino == inode;
}

static enum config_log_format format_for(enum config_log_format format, int fd)
{
    if (format != CONFIG_LOG_AUTO) {
        return format;
    }
    return is_journal(fd) ? CONFIG_LOG_JOURNALD : CONFIG_LOG_TEXT;
}

static size_t make_notice(enum log_slot slot, uint64_t count, int error, char *buf)
{
    const char *why = error == 0 ? "the reader does not keep up" : strerrordesc_np(error);
    struct timespec now;

    /* What counts the lines of the access log should find nothing else in it. */
    if (slot == LOG_SLOT_ACCESS) {
        log_warning("access log: %" PRIu64 " lines were lost: %s", count, why);
        return 0;
    }
    (void)snprintf(message_buf, sizeof message_buf, "log: %" PRIu64 " lines were lost: %s", count, why);
    clock_gettime(CLOCK_REALTIME, &now);
    return log_format_message(buf, view()->format[slot], &now, CONFIG_LOG_WARNING, message_buf);
}

static const char *slot_name(enum log_slot slot)
{
    return slot == LOG_SLOT_ACCESS ? "access log" : "log";
}

static const char *place_name(const struct config_log_output *output)
{
    switch (output->target) {
    case CONFIG_LOG_STDERR:
        return "standard error";
    case CONFIG_LOG_STDOUT:
        return "standard output";
    case CONFIG_LOG_FILE:
        break;
    }
    return output->path;
}

/* Opens, and starts the slot or moves it there. 0, or -errno and the reason, with everything as it was. */
static int direct(enum log_slot slot, const struct config_log_output *output, char why[LOG_WHY_MAX])
{
    bool is_file = output->target == CONFIG_LOG_FILE;
    int err = 0, fd;

    if (outputs[slot].fd >= 0 && !is_file && outputs[slot].target == output->target) {
        return 0;
    }
    fd = open_output(output);
    const struct log_descriptor to = {.fd = fd, .owned = is_file};
    if (fd < 0) {
        err = fd;
    } else if (outputs[slot].fd >= 0) {
        log_writer_move(slot, to);
    } else {
        err = log_writer_start(slot, to, make_notice);
        if (err != 0 && is_file) {
            close(fd);
        }
    }
    if (err != 0) {
        (void)snprintf(why, LOG_WHY_MAX, "%s: cannot write to %.300s: %s", slot_name(slot), place_name(output),
                       strerrordesc_np(-err));
        return err;
    }
    outputs[slot] = (struct output){.target = output->target, .fd = fd};
    return 0;
}

static void stop_slot(enum log_slot slot)
{
    log_writer_stop(slot);
    outputs[slot].fd = -1;
}

/* ---- settings ---- */

static struct view view_of(const struct config_log *settings, bool has_own_slot)
{
    struct view new = {
        .level = settings->level,
        .access = settings->access,
        .access_slot = has_own_slot ? LOG_SLOT_ACCESS : LOG_SLOT_DAEMON,
        .fields = settings->fields,
    };

    new.format[LOG_SLOT_DAEMON] = format_for(settings->daemon.format, outputs[LOG_SLOT_DAEMON].fd);
    new.format[LOG_SLOT_ACCESS] = format_for(settings->access_output.format, outputs[new.access_slot].fd);
    return new;
}

static bool is_same_view(const struct view *a, const struct view *b)
{
    return a->level == b->level && a->access == b->access && a->access_slot == b->access_slot &&
           a->format[LOG_SLOT_DAEMON] == b->format[LOG_SLOT_DAEMON] &&
           a->format[LOG_SLOT_ACCESS] == b->format[LOG_SLOT_ACCESS] && a->fields.count == b->fields.count &&
           memcmp(a->fields.order, b->fields.order, a->fields.count) == 0;
}

/* 0 or -ENOMEM. */
static int publish(const struct view *new)
{
    const struct view *old = view();
    struct view *copy;

    if (is_same_view(new, old)) {
        return 0;
    }
    copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *copy = *new;
    copy->retired = old;
    atomic_store_explicit(&current_view, copy, memory_order_release);
    return 0;
}

int log_start(const struct config_log *settings, char why[LOG_WHY_MAX])
{
    bool is_apart = settings->access && !is_same_place(&settings->daemon, &settings->access_output);
    int err = direct(LOG_SLOT_DAEMON, &settings->daemon, why);

    if (err == 0 && is_apart) {
        err = direct(LOG_SLOT_ACCESS, &settings->access_output, why);
    }
    if (err == 0) {
        const struct view new = view_of(settings, is_apart);

        err = publish(&new);
        if (err != 0) {
            (void)snprintf(why, LOG_WHY_MAX, "log: %s", strerrordesc_np(-err));
        }
    }
    if (err != 0) {
        stop_slot(LOG_SLOT_ACCESS);
        stop_slot(LOG_SLOT_DAEMON);
    }
    return err;
}

void log_apply(const struct config_log *settings)
{
    bool is_apart = settings->access && !is_same_place(&settings->daemon, &settings->access_output);
    char why[LOG_SLOT_COUNT][LOG_WHY_MAX] = {"", ""};

    (void)direct(LOG_SLOT_DAEMON, &settings->daemon, why[LOG_SLOT_DAEMON]); /* `why` tells */
    if (is_apart && direct(LOG_SLOT_ACCESS, &settings->access_output, why[LOG_SLOT_ACCESS]) != 0) {
        is_apart = outputs[LOG_SLOT_ACCESS].fd >= 0;
    }
    const struct view new = view_of(settings, is_apart);
    if (publish(&new) != 0) {
        log_error("log: no memory for the new settings; reload again");
        return;
    }
    for (int slot = 0; slot < LOG_SLOT_COUNT; slot++) {
        if (why[slot][0] != '\0') {
            log_error("%s; going on with %s", why[slot],
                      slot == LOG_SLOT_DAEMON || is_apart ? "the old one" : "the daemon's log");
        }
    }
    if (!is_apart && outputs[LOG_SLOT_ACCESS].fd >= 0) {
        stop_slot(LOG_SLOT_ACCESS);
    }
}

void log_stop(void)
{
    struct view *last;

    stop_slot(LOG_SLOT_ACCESS);
    stop_slot(LOG_SLOT_DAEMON);
    /* Nobody else logs any more; the current view is kept for what comes after. */
    last = (struct view *)(uintptr_t)view();
    if (last == &first_view) {
        return;
    }
    for (const struct view *old = last->retired; old != &first_view && old != NULL;) {
        const struct view *next = old->retired;

        free((void *)(uintptr_t)old);
        old = next;
    }
    last->retired = &first_view;
}

uint64_t log_lost(void)
{
    return log_writer_lost();
}

/* ---- lines ---- */

static void submit(enum log_slot slot, const char *line, size_t len, bool urgent)
{
    /* The access log may have been stopped since the view was read. */
    if (log_writer_submit(slot, line, len, urgent) || log_writer_submit(LOG_SLOT_DAEMON, line, len, urgent)) {
        return;
    }
    /* Nowhere to complain if standard error does not take it. */
    (void)!write(STDERR_FILENO, line, len);
}

bool log_has(enum config_log_level level)
{
    return level <= view()->level;
}

__attribute__((format(printf, 2, 0))) static void message(enum config_log_level level, const char *format, va_list args)
{
    struct timespec now;
    size_t len;

    if (!log_has(level)) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    (void)vsnprintf(message_buf, sizeof message_buf, format, args);
    len = log_format_message(line_buf, view()->format[LOG_SLOT_DAEMON], &now, level, message_buf);
    submit(LOG_SLOT_DAEMON, line_buf, len, level <= CONFIG_LOG_WARNING);
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
    const struct view *now_in_force = view();
    struct timespec now;
    size_t len;

    if (!now_in_force->access) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    len = log_format_access(line_buf, now_in_force->format[LOG_SLOT_ACCESS], &now, &now_in_force->fields, entry);
    submit(now_in_force->access_slot, line_buf, len, false);
}

/* "-" for one that is not known. What socks6_addr_format() writes is printable and one word. */
static const char *addr_text(const struct socks6_addr *addr, char text[SOCKS6_ADDR_TEXT_MAX])
{
    if (addr->type == 0) {
        return "-";
    }
    (void)socks6_addr_format(addr, text, SOCKS6_ADDR_TEXT_MAX);
    return text;
}

void log_step(const struct log_access *entry, const char *step)
{
    char client[SOCKS6_ADDR_TEXT_MAX], asked[SOCKS6_ADDR_TEXT_MAX], dialled[SOCKS6_ADDR_TEXT_MAX];

    if (!log_has(CONFIG_LOG_DEBUG)) {
        return;
    }
    log_debug("connection %" PRIu64 ": %s, client=%s protocol=%s command=%s asked=%s dialled=%s", entry->id, step,
              addr_text(&entry->client, client), entry->protocol == NULL ? "-" : entry->protocol,
              entry->command == NULL ? "-" : entry->command, addr_text(&entry->asked, asked),
              addr_text(&entry->dialled, dialled));
}
