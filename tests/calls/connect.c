/* connect(2): every way it can end. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static long say_connect(const char *what, int fd, const char *host, uint16_t port)
{
    char text[128];
    struct target target = target_of(host, port);
    (void)snprintf(text, sizeof text, "%s: connect", what);
    return told(text, connect(fd, target_addr(&target), target.len));
}

static void say_poll(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};
    int count = poll(&poll_fd, 1, WAIT_MS);
    say("  poll = %d %s", count, events_text((unsigned short)poll_fd.revents));
}

static int family_of(const char *host)
{
    return strchr(host, ':') == NULL ? AF_INET : AF_INET6;
}

static void open_blocking(const char *host)
{
    int fd = new_socket(family_of(host), 0);
    say_names(fd);
    (void)say_connect("blocking", fd, host, PORT_ECHO);
    say_error(fd);
    say_names(fd);
    (void)say_connect("again", fd, host, PORT_ECHO);
    (void)say_connect("elsewhere", fd, host, PORT_MUTE);
    say_echo("echo", fd);
    (void)told("close", close(fd));
    (void)told("close again", close(fd));
}

static void open_non_blocking(const char *host)
{
    int fd = new_socket(family_of(host), SOCK_NONBLOCK | SOCK_CLOEXEC);
    (void)say_connect("non-blocking", fd, host, PORT_ECHO);
    say_poll(fd, POLLOUT);
    say_error(fd);
    say_names(fd);
    (void)say_connect("for the result", fd, host, PORT_ECHO);
    (void)say_connect("for the result again", fd, host, PORT_ECHO);
    say("  flags %s, %s", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 ? "non-blocking" : "blocking",
        (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 ? "close-on-exec" : "inherited");
    char byte;
    (void)told("read of nothing", read(fd, &byte, 1));
    (void)fcntl(fd, F_SETFL, 0);
    say_echo("echo", fd);
    (void)close(fd);
}

static void failing_blocking(const char *what, const char *host, const char *open_host)
{
    int fd = new_socket(family_of(host), 0);
    (void)say_connect(what, fd, host, PORT_ECHO);
    say_error(fd);
    say_names(fd);
    if (strncmp(what, "refused", 7) == 0) { /* after ICMP it depends on the queue of errors, which Linux keeps */
        say_poll(fd, POLLIN | POLLOUT);
    }
    (void)say_connect("once more", fd, host, PORT_ECHO);
    (void)say_connect("then one that works", fd, open_host, PORT_ECHO);
    say_names(fd);
    say_echo("echo", fd);
    (void)close(fd);
}

/* Without `open_host` that is all: what Linux does after ICMP to a socket that tries again depends on when it comes. */
static void failing_non_blocking(const char *what, const char *host, const char *open_host)
{
    int fd = new_socket(family_of(host), SOCK_NONBLOCK);
    (void)say_connect(what, fd, host, PORT_ECHO);
    say_poll(fd, POLLIN | POLLOUT | POLLRDHUP);
    say_poll(fd, POLLOUT);
    say_error(fd);
    say_error(fd);
    say_names(fd);
    if (open_host == NULL) {
        (void)close(fd);
        return;
    }
    say_poll(fd, POLLOUT);
    (void)say_connect("once more", fd, host, PORT_ECHO);
    say_poll(fd, POLLOUT);
    say_error(fd);
    (void)say_connect("and again", fd, host, PORT_ECHO);
    say_poll(fd, POLLOUT);
    (void)say_connect("for the error", fd, host, PORT_ECHO);
    say_error(fd);
    (void)say_connect("then one that works", fd, open_host, PORT_ECHO);
    say_poll(fd, POLLOUT);
    say_error(fd);
    (void)fcntl(fd, F_SETFL, 0);
    say_names(fd);
    say_echo("echo", fd);
    (void)close(fd);
}

static void error_by_data(const char *what, bool is_read)
{
    char byte = 'x';
    int fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)say_connect(what, fd, REFUSING4, PORT_ECHO);
    say_poll(fd, POLLOUT);
    (void)told("the first", is_read ? read(fd, &byte, 1) : send(fd, &byte, 1, MSG_NOSIGNAL));
    (void)told("the second", is_read ? read(fd, &byte, 1) : send(fd, &byte, 1, MSG_NOSIGNAL));
    say_error(fd);
    (void)close(fd);
}

/* While nobody answers. */
static void pending(void)
{
    char byte = 'x';
    int fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)say_connect("pending", fd, SILENT4, PORT_ECHO);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    int count = poll(&poll_fd, 1, 100);
    say("  poll = %d %s", count, events_text((unsigned short)poll_fd.revents));
    (void)say_connect("pending, again", fd, SILENT4, PORT_ECHO);
    (void)say_connect("pending, elsewhere", fd, SERVER4, PORT_ECHO);
    say_error(fd);
    say_names(fd);
    (void)told("pending: write", write(fd, &byte, 1));
    (void)told("pending: read", read(fd, &byte, 1));
    (void)told("pending: send", send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    (void)told("pending: recv of 0 bytes", recv(fd, &byte, 0, 0));
    (void)told("pending: close", close(fd));
}

static void dissolved(void)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    int fd = new_socket(AF_INET, 0);
    (void)told("AF_UNSPEC on a new socket: connect", connect(fd, &none, sizeof none));
    (void)say_connect("first", fd, SERVER4, PORT_ECHO);
    (void)told("AF_UNSPEC: connect", connect(fd, &none, sizeof none));
    say_names(fd);
    (void)say_connect("second", fd, OTHER4, PORT_ECHO);
    say_names(fd);
    say_echo("echo", fd);
    (void)close(fd);
    fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)say_connect("pending", fd, SILENT4, PORT_ECHO);
    (void)told("AF_UNSPEC while pending: connect", connect(fd, &none, sizeof none));
    (void)fcntl(fd, F_SETFL, 0);
    (void)say_connect("after that", fd, SERVER4, PORT_ECHO);
    say_echo("echo", fd);
    (void)close(fd);
}

static void wrong_arguments(void)
{
    struct target ipv4 = target_of(SERVER4, PORT_ECHO);
    struct target ipv6 = target_of(SERVER6, PORT_ECHO);
    int ends[2];
    if (pipe(ends) != 0) {
        broken("pipe");
    }
    int fd = new_socket(AF_INET, 0);
    int fd6 = new_socket(AF_INET6, 0);
    (void)told("connect of -1", connect(-1, target_addr(&ipv4), ipv4.len));
    (void)told("connect of a pipe", connect(ends[0], target_addr(&ipv4), ipv4.len));
    (void)told("connect, too short", connect(fd, target_addr(&ipv4), 7));
    (void)told("connect, 1 byte", connect(fd, target_addr(&ipv4), 1));
    (void)told("connect, too long", connect(fd, target_addr(&ipv4), sizeof(struct sockaddr_storage) + 1));
    (void)told("connect, IPv6 address on IPv4", connect(fd, target_addr(&ipv6), ipv6.len));
    (void)told("connect, IPv4 address on IPv6", connect(fd6, target_addr(&ipv4), ipv4.len));
    (void)told("connect, IPv6, too short", connect(fd6, target_addr(&ipv6), 20));
    (void)say_connect("multicast", fd, "224.0.0.1", PORT_ECHO);
    (void)say_connect("broadcast", fd, "255.255.255.255", PORT_ECHO);
    say_names(fd);
    (void)say_connect("then one that works", fd, SERVER4, PORT_ECHO);
    (void)close(fd);
    (void)close(fd6);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void mapped(void)
{
    int fd = new_socket(AF_INET6, 0);
    (void)say_connect("mapped", fd, "::ffff:" SERVER4, PORT_ECHO);
    say_names(fd);
    say_echo("echo", fd);
    (void)close(fd);
    fd = new_socket(AF_INET6, 0);
    (void)say_connect("mapped, refused", fd, "::ffff:" REFUSING4, PORT_ECHO);
    set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    (void)say_connect("mapped, IPv6 only", fd, "::ffff:" SERVER4, PORT_ECHO);
    (void)close(fd);
}

static void bound(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = new_socket(AF_INET, 0);
    (void)told("bind", bind(fd, (const struct sockaddr *)&any, sizeof any));
    (void)say_connect("bound", fd, SERVER4, PORT_ECHO);
    say_names(fd);
    (void)told("bind when connected", bind(fd, (const struct sockaddr *)&any, sizeof any));
    (void)told("listen when connected", listen(fd, 1));
    (void)told("accept when connected", accept(fd, NULL, NULL));
    say_echo("echo", fd);
    (void)close(fd);
}

void section_connect(void)
{
    open_blocking(SERVER4);
    open_blocking(SERVER6);
    open_non_blocking(SERVER4);
    open_non_blocking(SERVER6);
    failing_blocking("refused", REFUSING4, SERVER4);
    failing_blocking("refused, IPv6", REFUSING6, SERVER6);
    failing_blocking("unreachable", UNREACHABLE4, SERVER4);
    failing_blocking("unreachable, IPv6", UNREACHABLE6, SERVER6);
    failing_non_blocking("non-blocking, refused", REFUSING4, SERVER4);
    failing_non_blocking("non-blocking, refused, IPv6", REFUSING6, SERVER6);
    failing_non_blocking("non-blocking, unreachable", UNREACHABLE4, NULL);
    failing_non_blocking("non-blocking, unreachable, IPv6", UNREACHABLE6, NULL);
    error_by_data("error by read", true);
    error_by_data("error by send", false);
    pending();
    dissolved();
    wrong_arguments();
    mapped();
    bound();
}

static volatile sig_atomic_t alarms;

static void count_alarm(int number)
{
    (void)number;
    alarms = alarms + 1;
}

static void alarm_soon(int flags)
{
    struct sigaction action = {.sa_handler = count_alarm, .sa_flags = flags};
    struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    alarms = 0;
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &soon, NULL) != 0) {
        broken("setitimer");
    }
}

static void send_timeout(int fd, long ms)
{
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) {
        broken("SO_SNDTIMEO");
    }
}

void section_interrupted(void)
{
    int fd = new_socket(AF_INET, 0);
    alarm_soon(0);
    (void)say_connect("interrupted", fd, SILENT4, PORT_ECHO);
    say("  %d signals", (int)alarms);
    say_error(fd);
    say_names(fd);
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    say("  poll = %d", poll(&poll_fd, 1, 50));
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)say_connect("again, non-blocking", fd, SILENT4, PORT_ECHO);
    (void)close(fd);

    fd = new_socket(AF_INET, 0);
    send_timeout(fd, 300);
    (void)say_connect("SO_SNDTIMEO", fd, SILENT4, PORT_ECHO);
    say_error(fd);
    (void)say_connect("SO_SNDTIMEO, again", fd, SILENT4, PORT_ECHO);
    (void)close(fd);

    fd = new_socket(AF_INET, 0);
    send_timeout(fd, 20000);
    alarm_soon(SA_RESTART);
    (void)say_connect("SO_SNDTIMEO, interrupted with SA_RESTART", fd, SILENT4, PORT_ECHO);
    say("  %d signals", (int)alarms);
    (void)close(fd);

    fd = connected_to(SERVER4, PORT_MUTE);
    char byte;
    alarm_soon(0);
    (void)told("read, interrupted", read(fd, &byte, 1));
    struct timeval limit = {0, 300000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)told("read with SO_RCVTIMEO", read(fd, &byte, 1));
    (void)told("recv with SO_RCVTIMEO", recv(fd, &byte, 1, MSG_WAITALL));
    (void)close(fd);
}

void section_timed_out(void)
{
    int waiting = new_socket(AF_INET, SOCK_NONBLOCK);
    int fd = new_socket(AF_INET, 0);
    set_int(waiting, IPPROTO_TCP, TCP_SYNCNT, 1);
    set_int(fd, IPPROTO_TCP, TCP_SYNCNT, 1);
    (void)say_connect("non-blocking", waiting, SILENT4, PORT_ECHO);
    alarm_soon(SA_RESTART);
    (void)say_connect("blocking, interrupted with SA_RESTART", fd, SILENT4, PORT_ECHO);
    say("  %d signals", (int)alarms);
    say_error(fd);
    say_poll(waiting, POLLIN | POLLOUT);
    say_error(waiting);
    (void)say_connect("then one that works", fd, SERVER4, PORT_ECHO);
    say_echo("echo", fd);
    (void)close(fd);
    (void)close(waiting);
}
