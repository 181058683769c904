#include "cli/run_say.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_LEN 1024
#define COMM_MAX 32

/* A terminal or pipe that has room takes this without waiting; files always do. */
static void write_line(const char *line, size_t len)
{
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t n = 0;

    if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) != 0) {
        n = write(STDERR_FILENO, line, len);
    }
    (void)n; /* there is nobody else to tell */
}

void run_say_clean(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] > '~') {
            text[i] = '?';
        }
    }
    text[len] = '\0';
}

/* The name of a program, which it may have chosen itself; false if it has gone. */
static bool read_comm(pid_t pid, char out[COMM_MAX])
{
    char path[sizeof "/proc//comm" + 3 * sizeof pid];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%ld/comm", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    n = read(fd, out, COMM_MAX - 1);
    (void)close(fd);
    if (n <= 0) {
        return false;
    }
    n -= out[n - 1] == '\n' ? 1 : 0;
    run_say_clean(out, (size_t)n);
    return true;
}

__attribute__((format(printf, 2, 0))) static void say_line(const char *who, const char *format, va_list args)
{
    char line[LINE_MAX_LEN];
    int start = snprintf(line, sizeof line - 1, "socks6 run: %s", who);
    size_t len = start > 0 ? (size_t)start : 0;
    int n = vsnprintf(line + len, sizeof line - 1 - len, format, args);

    if (n > 0) {
        len += (size_t)n < sizeof line - 1 - len ? (size_t)n : sizeof line - 2 - len;
    }
    line[len++] = '\n';
    write_line(line, len);
}

void run_say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_line("", format, args);
    va_end(args);
}

void run_say_of(pid_t pid, const char *format, ...)
{
    char comm[COMM_MAX] = "?";
    char who[COMM_MAX + sizeof "[]: " + 3 * sizeof pid] = "";
    va_list args;

    if (pid > 0) {
        (void)read_comm(pid, comm);
        (void)snprintf(who, sizeof who, "%s[%ld]: ", comm, (long)pid);
    }
    va_start(args, format);
    say_line(who, format, args);
    va_end(args);
}

bool run_say_is_new(struct run_say_once *once, uint64_t number, const char *text)
{
    uint64_t hash = 14695981039346656037u ^ number * 0x9e3779b97f4a7c15u;

    for (const char *c = text; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    }
    hash += hash == 0 ? 1 : 0;
    for (unsigned i = 0; i < RUN_SAY_ONCE_MAX; i++) {
        if (once->hashes[i] == hash) {
            return false;
        }
    }
    once->hashes[once->next] = hash;
    once->next = (once->next + 1) % RUN_SAY_ONCE_MAX;
    return true;
}
