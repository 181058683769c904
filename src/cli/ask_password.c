/*
 * The terminal shows nothing while a password is typed. A signal that would end or stop the process then must not leave it
 * so: such signals are blocked but while ppoll(2) waits, where they are noted; the terminal is put back, and the signal
 * raised again.
 */
#include "cli/ask_password.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM};
#define SIGNAL_COUNT (sizeof signals / sizeof *signals)

static volatile sig_atomic_t noted;

static void note(int number)
{
    noted = number;
}

static void show(int fd, const char *text)
{
    while (write(fd, text, strlen(text)) < 0 && errno == EINTR) {
    }
}

/* One byte; 0 at the end; -EINTR when a signal was noted. */
static int read_byte(int fd, const sigset_t *open_mask, char *out)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    for (;;) {
        ssize_t n;

        if (ppoll(&poll_fd, 1, NULL, open_mask) < 0) {
            if (noted != 0 || errno != EINTR) {
                return -errno;
            }
            continue;
        }
        n = read(fd, out, 1);
        if (n >= 0 || errno != EINTR) {
            return n < 0 ? -errno : (int)n;
        }
    }
}

/* A line, without its end. Too long a one is read to its end all the same, or the rest would be typed into the shell. */
static int read_line(int fd, const sigset_t *open_mask, char out[SOCKS6_PASSWORD_MAX + 1])
{
    size_t len = 0;
    bool too_long = false, has_nul = false;
    char byte = 0;
    int rc;

    while ((rc = read_byte(fd, open_mask, &byte)) > 0 && byte != '\n') {
        too_long |= len == SOCKS6_PASSWORD_MAX;
        has_nul |= byte == '\0';
        if (!too_long) {
            out[len++] = byte;
        }
    }
    out[len] = '\0';
    if (rc < 0) {
        return rc;
    }
    if (rc == 0 && len == 0) {
        return -EPIPE;
    }
    if (too_long) {
        return -EMSGSIZE;
    }
    return has_nul ? -EILSEQ : 0;
}

/* With the terminal's echo off. */
static int ask_hidden(int fd, const char *prompt, const sigset_t *open_mask, char out[SOCKS6_PASSWORD_MAX + 1])
{
    struct termios before, hidden;
    int rc;

    if (tcgetattr(fd, &before) < 0) {
        return -errno;
    }
    hidden = before;
    hidden.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    hidden.c_lflag |= ICANON | ISIG;
    if (tcsetattr(fd, TCSAFLUSH, &hidden) < 0) {
        return -errno;
    }
    show(fd, prompt);
    rc = read_line(fd, open_mask, out);
    show(fd, "\n");
    (void)tcsetattr(fd, TCSANOW, &before);
    return rc;
}

/* Once. The signal that came in between, if one did, has done its work when this returns. */
static int ask(int fd, const char *prompt, char out[SOCKS6_PASSWORD_MAX + 1])
{
    struct sigaction before[SIGNAL_COUNT];
    struct sigaction action = {.sa_handler = note};
    sigset_t blocked, open_mask;
    int rc;

    (void)sigemptyset(&blocked);
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        (void)sigaddset(&blocked, signals[i]);
    }
    (void)sigprocmask(SIG_BLOCK, &blocked, &open_mask);
    noted = 0;
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        (void)sigaction(signals[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) {
            (void)sigaction(signals[i], &action, NULL);
        }
    }
    rc = ask_hidden(fd, prompt, &open_mask, out);
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        (void)sigaction(signals[i], &before[i], NULL);
    }
    if (noted != 0) {
        (void)raise(noted); /* delivered as soon as it is unblocked */
    }
    (void)sigprocmask(SIG_SETMASK, &open_mask, NULL);
    return rc;
}

int ask_password(const char *prompt, char out[SOCKS6_PASSWORD_MAX + 1])
{
    int rc, fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

    if (fd < 0) {
        return -ENXIO;
    }
    do { /* again, when somebody had stopped the process and has continued it */
        rc = ask(fd, prompt, out);
    } while (rc == -EINTR && (noted == SIGTSTP || noted == SIGTTIN || noted == SIGTTOU));
    (void)close(fd);
    if (rc != 0) {
        explicit_bzero(out, SOCKS6_PASSWORD_MAX + 1);
    }
    return rc;
}
