/* getsockopt(2) and setsockopt(2) before and after connect(2), and what else a descriptor tells of itself. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

struct option {
    int level, name;
    const char *text;
    int value;        /* to be set; -1 = only read */
    bool is_volatile; /* what is read is the kernel's affair: only its length is told */
};

#define OPTION(level, name, value)                                                                                     \
    {                                                                                                                  \
        level, name, #name, value, false                                                                               \
    }
#define VOLATILE(level, name, value)                                                                                   \
    {                                                                                                                  \
        level, name, #name, value, true                                                                                \
    }

static const struct option options[] = {
    OPTION(SOL_SOCKET, SO_TYPE, -1),
    OPTION(SOL_SOCKET, SO_DOMAIN, -1),
    OPTION(SOL_SOCKET, SO_PROTOCOL, -1),
    OPTION(SOL_SOCKET, SO_ACCEPTCONN, -1),
    OPTION(SOL_SOCKET, SO_KEEPALIVE, 1),
    OPTION(SOL_SOCKET, SO_REUSEADDR, 1),
    OPTION(SOL_SOCKET, SO_REUSEPORT, 1),
    OPTION(SOL_SOCKET, SO_BROADCAST, 1),
    OPTION(SOL_SOCKET, SO_OOBINLINE, 1),
    OPTION(SOL_SOCKET, SO_DONTROUTE, -1),
    OPTION(SOL_SOCKET, SO_RCVLOWAT, 3),
    OPTION(SOL_SOCKET, SO_SNDLOWAT, 3),
    OPTION(SOL_SOCKET, SO_PRIORITY, 4),
    OPTION(SOL_SOCKET, SO_TIMESTAMP, 1),
    OPTION(SOL_SOCKET, SO_SNDBUF, 50000),
    OPTION(SOL_SOCKET, SO_RCVBUF, 50000),
    VOLATILE(SOL_SOCKET, SO_INCOMING_CPU, -1),
    VOLATILE(SOL_SOCKET, SO_COOKIE, -1),
    OPTION(IPPROTO_TCP, TCP_NODELAY, 1),
    OPTION(IPPROTO_TCP, TCP_CORK, 1),
    VOLATILE(IPPROTO_TCP, TCP_MAXSEG, 1000),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE, 77),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL, 11),
    OPTION(IPPROTO_TCP, TCP_KEEPCNT, 5),
    OPTION(IPPROTO_TCP, TCP_SYNCNT, 4),
    OPTION(IPPROTO_TCP, TCP_LINGER2, 9),
    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT, 12345),
    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 23456),
    VOLATILE(IPPROTO_TCP, TCP_QUICKACK, 1),
    VOLATILE(IPPROTO_TCP, TCP_WINDOW_CLAMP, 60000),
    OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT, -1),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, -1),
    OPTION(IPPROTO_TCP, 9999, 1),
    OPTION(IPPROTO_IP, IP_TOS, 0x10),
    OPTION(IPPROTO_IP, IP_TTL, 33),
    OPTION(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO),
    OPTION(IPPROTO_IP, IP_RECVTTL, 1),
    OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1),
    VOLATILE(IPPROTO_IP, IP_MTU, -1),
    OPTION(IPPROTO_IP, 9999, 1),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY, -1),
    OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44),
    OPTION(IPPROTO_IPV6, IPV6_TCLASS, 0x20),
    OPTION(SOL_SOCKET, 9999, 1),
    OPTION(9999, 1, 1),
};
#define OPTION_COUNT (sizeof options / sizeof options[0])

static void say_option(const struct option *option, const char *when, int fd)
{
    int value[16] = {0};
    socklen_t len = sizeof value;
    if (getsockopt(fd, option->level, option->name, value, &len) != 0) {
        say("%s %d %s: %s", when, option->level, option->text, error_text(errno));
    } else if (option->is_volatile) {
        say("%s %d %s: length %u", when, option->level, option->text, len);
    } else {
        say("%s %d %s: %d, length %u", when, option->level, option->text, value[0], len);
    }
}

static void say_set(const struct option *option, const char *when, int fd)
{
    if (option->value < 0) {
        return;
    }
    int result = setsockopt(fd, option->level, option->name, &option->value, sizeof option->value);
    say("%s set %d %s: %s", when, option->level, option->text, result == 0 ? "done" : error_text(errno));
}

static void say_info(int fd)
{
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    socklen_t len = sizeof info;
    int result = getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    say("  TCP_INFO = %d, state %u, length %s", result, info.tcpi_state, len >= 104 ? "enough" : "short");
    char name[16] = "";
    len = sizeof name;
    result = getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len);
    say("  TCP_CONGESTION = %d, length %u, %s", result, len, name);
}

static void say_times(int fd)
{
    struct timeval got = {0, 0};
    socklen_t len = sizeof got;
    (void)getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &len);
    say("  SO_RCVTIMEO %ld.%06ld, length %u", (long)got.tv_sec, (long)got.tv_usec, len);
    (void)getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &got, &len);
    say("  SO_SNDTIMEO %ld.%06ld, length %u", (long)got.tv_sec, (long)got.tv_usec, len);
    struct linger linger = {0, 0};
    len = sizeof linger;
    (void)getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
    say("  SO_LINGER %d %d, length %u", linger.l_onoff, linger.l_linger, len);
    struct {
        int pid;
        unsigned uid, gid;
    } peer = {0, 0, 0};
    len = sizeof peer;
    int result = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    say("  SO_PEERCRED = %d: %d %d %d", result, peer.pid, (int)peer.uid, (int)peer.gid);
    char device[32] = "";
    len = sizeof device;
    result = getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &len);
    say("  SO_BINDTODEVICE = %d, length %u", result, len);
}

static void set_times(int fd)
{
    struct timeval limit = {7, 500000};
    struct linger linger = {1, 6};
    (void)told("set SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    limit.tv_sec = 8;
    (void)told("set SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    (void)told("set SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    (void)told("set TCP_CONGESTION", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    (void)told("set TCP_CONGESTION of none", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8));
}

static void wrong_arguments(int fd)
{
    int value = 1;
    socklen_t len = 0;
    (void)told("getsockopt, no room", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
    say("  length %u", len);
    len = 1;
    (void)told("getsockopt, room for 1", getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &len));
    say("  length %u", len);
    len = (socklen_t)-1;
    (void)told("getsockopt, negative", getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
    (void)told("setsockopt, no value", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 0));
    (void)told("setsockopt, 1 byte", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 1));
    value = -5;
    (void)told("setsockopt, out of range", setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof value));
    (void)told("setsockopt of SO_TYPE", setsockopt(fd, SOL_SOCKET, SO_TYPE, &value, sizeof value));
    (void)told("setsockopt of SO_ERROR", setsockopt(fd, SOL_SOCKET, SO_ERROR, &value, sizeof value));
    (void)told("getsockopt of -1", getsockopt(-1, SOL_SOCKET, SO_TYPE, &value, &len));
    struct sockaddr_storage addr;
    len = 4;
    (void)told("getpeername, room for 4", getpeername(fd, (struct sockaddr *)&addr, &len));
    say("  length %u", len);
    len = 0;
    (void)told("getsockname, no room", getsockname(fd, (struct sockaddr *)&addr, &len));
    say("  length %u", len);
    len = (socklen_t)-1;
    (void)told("getpeername, negative", getpeername(fd, (struct sockaddr *)&addr, &len));
}

static void say_nature(int fd)
{
    struct stat status;
    (void)told("fstat", fstat(fd, &status));
    say("  %s", S_ISSOCK(status.st_mode) ? "a socket" : "no socket");
    int count = -1;
    (void)told("FIONREAD", ioctl(fd, FIONREAD, &count));
    say("  %d bytes", count);
    (void)told("write", write(fd, "four", 4));
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    (void)told("poll", poll(&poll_fd, 1, WAIT_MS));
    (void)told("FIONREAD", ioctl(fd, FIONREAD, &count));
    say("  %d bytes", count);
    count = 1;
    (void)told("FIONBIO", ioctl(fd, FIONBIO, &count));
    say("  %s", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 ? "non-blocking" : "blocking");
    (void)told("lseek", lseek(fd, 0, SEEK_CUR));
    (void)told("F_SETPIPE_SZ", fcntl(fd, F_SETPIPE_SZ, 4096));
}

static void one_family(const char *host, bool is_set_before)
{
    struct target target = target_of(host, PORT_ECHO);
    int fd = new_socket(target.addr.ss_family, 0);
    say("options of %s, set %s connect", host, is_set_before ? "before" : "after");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        say_option(&options[i], "new", fd);
    }
    say_info(fd);
    for (size_t i = 0; is_set_before && i < OPTION_COUNT; i++) {
        say_set(&options[i], "new", fd);
    }
    if (is_set_before) {
        set_times(fd);
    }
    (void)told("connect", connect(fd, target_addr(&target), target.len));
    for (size_t i = 0; !is_set_before && i < OPTION_COUNT; i++) {
        say_set(&options[i], "connected", fd);
    }
    if (!is_set_before) {
        set_times(fd);
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        say_option(&options[i], "connected", fd);
    }
    say_info(fd);
    say_times(fd);
    wrong_arguments(fd);
    set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
    set_int(fd, IPPROTO_TCP, TCP_CORK, 0);
    say_echo("echo", fd);
    say_nature(fd);
    (void)close(fd);
}

void section_options(void)
{
    one_family(SERVER4, true);
    one_family(SERVER4, false);
    one_family(SERVER6, true);
    one_family(SERVER6, false);
}
