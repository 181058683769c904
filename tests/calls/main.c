/* run-calls SECTION | inherited FD | reaches HOST: see calls.h. */
#include "calls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    void (*run)(void);
} sections[] = {
    {"connect", section_connect},     {"interrupted", section_interrupted},
    {"timed-out", section_timed_out}, {"wait", section_wait},
    {"epoll", section_epoll},         {"uring", section_uring},
    {"options", section_options},     {"stream", section_stream},
    {"ends", section_ends},           {"descriptors", section_descriptors},
    {"processes", section_processes}, {"threads", section_threads},
    {"names", section_names},         {"resolver", section_resolver},
};

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    (void)putchar('\n');
    (void)fflush(stdout);
}

const char *error_text(int error)
{
    const char *name = error == 0 ? "0" : strerrorname_np(error);
    return name == NULL ? "an unknown error" : name;
}

long told(const char *call, long value)
{
    int error = errno;
    if (value < 0) {
        say("%s = %ld %s", call, value, error_text(error));
    } else {
        say("%s = %ld", call, value);
    }
    return value;
}

void broken(const char *what)
{
    say("broken: %s: %s", what, strerror(errno));
    exit(1);
}

struct target target_of(const char *host, uint16_t port)
{
    struct target target = {.len = sizeof(struct sockaddr_in)};
    struct sockaddr_in *ipv4 = (struct sockaddr_in *)&target.addr;
    if (inet_pton(AF_INET, host, &ipv4->sin_addr) == 1) {
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(port);
        return target;
    }
    struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&target.addr;
    target.len = sizeof *ipv6;
    if (inet_pton(AF_INET6, host, &ipv6->sin6_addr) != 1) {
        broken(host);
    }
    ipv6->sin6_family = AF_INET6;
    ipv6->sin6_port = htons(port);
    return target;
}

const struct sockaddr *target_addr(const struct target *target)
{
    return (const struct sockaddr *)&target->addr;
}

int new_socket(int family, int flags)
{
    int fd = socket(family, SOCK_STREAM | flags, 0);
    if (fd < 0) {
        broken("socket");
    }
    return fd;
}

int connected_to(const char *host, uint16_t port)
{
    struct target target = target_of(host, port);
    int fd = new_socket(target.addr.ss_family, SOCK_CLOEXEC);
    if (connect(fd, target_addr(&target), target.len) != 0) {
        broken(host);
    }
    return fd;
}

void say_error(int fd)
{
    int error = -1;
    socklen_t len = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        (void)told("  SO_ERROR", -1);
        return;
    }
    say("  SO_ERROR: %s, length %u", error_text(error), len);
}

/* An address of the world in full, another one as far as it is the same in each run. */
static void say_address(const char *what, int result, const struct sockaddr_storage *addr, socklen_t len, bool is_whole)
{
    char host[INET6_ADDRSTRLEN] = "";
    uint16_t port = 0;
    if (result != 0) {
        (void)told(what, result);
        return;
    }
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)addr;
        (void)inet_ntop(AF_INET, &ipv4->sin_addr, host, sizeof host);
        port = ntohs(ipv4->sin_port);
    } else if (addr->ss_family == AF_INET6) {
        const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)addr;
        (void)inet_ntop(AF_INET6, &ipv6->sin6_addr, host, sizeof host);
        port = ntohs(ipv6->sin6_port);
    }
    bool is_any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    if (is_whole) {
        say("%s: family %d, length %u, %s, port %u", what, addr->ss_family, len, host, port);
    } else {
        say("%s: family %d, length %u, %s address, %s port", what, addr->ss_family, len, is_any ? "no" : "an",
            port == 0 ? "no" : "a");
    }
}

void say_names(int fd)
{
    struct sockaddr_storage addr;
    memset(&addr, 0, sizeof addr);
    socklen_t len = sizeof addr;
    int result = getpeername(fd, (struct sockaddr *)&addr, &len);
    const char *what = result == 0 ? "  getsockname" : "  getsockname, not connected";
    say_address("  getpeername", result, &addr, len, true);
    memset(&addr, 0, sizeof addr);
    len = sizeof addr;
    result = getsockname(fd, (struct sockaddr *)&addr, &len);
    say_address(what, result, &addr, len, false);
}

void say_echo(const char *what, int fd)
{
    static const char line[] = "there and back";
    char back[sizeof line];
    size_t len = 0;
    if (send(fd, line, sizeof line, MSG_NOSIGNAL) != (ssize_t)sizeof line) {
        say("%s: not sent: %s", what, error_text(errno));
        return;
    }
    while (len < sizeof back) {
        ssize_t got = recv(fd, back + len, sizeof back - len, 0);
        if (got <= 0) {
            say("%s: %zd after %zu bytes: %s", what, got, len, error_text(got < 0 ? errno : 0));
            return;
        }
        len += (size_t)got;
    }
    say("%s: %s", what, memcmp(line, back, sizeof line) == 0 ? "echoed" : "something else came back");
}

void set_int(int fd, int level, int name, int value)
{
    if (setsockopt(fd, level, name, &value, sizeof value) != 0) {
        broken("setsockopt");
    }
}

void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

const char *events_text(unsigned events)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{0x001, "IN"},  {0x002, "PRI"},  {0x004, "OUT"},   {0x008, "ERR"},
                 {0x010, "HUP"}, {0x020, "NVAL"}, {0x2000, "RDHUP"}};
    static char text[64];
    text[0] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if ((events & names[i].bit) != 0) {
            (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", text[0] == '\0' ? "" : "|",
                           names[i].name);
        }
    }
    return text[0] == '\0' ? "nothing" : text;
}

void say_inherited(int fd)
{
    say_names(fd);
    say_error(fd);
    say_echo("  echo", fd);
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(60); /* whatever hangs: not for ever */
    if (argc == 3 && strcmp(argv[1], "inherited") == 0) {
        say_inherited(atoi(argv[2]));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "reaches") == 0) {
        int fd = connected_to(argv[2], PORT_ECHO);
        say_echo("  reached", fd);
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof sections / sizeof sections[0]; i++) {
        if (strcmp(argv[1], sections[i].name) == 0) {
            sections[i].run();
            say("end of %s", argv[1]);
            return 0;
        }
    }
    (void)fprintf(stderr, "usage: run-calls SECTION | inherited FD | reaches HOST\n");
    return 2;
}
