#include "fake_proxy.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Not assert(): it must also hold in builds with NDEBUG. */
static void must(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

static void keep(struct fake_proxy *fake, const uint8_t *bytes, size_t len)
{
    fake->got = realloc(fake->got, fake->got_len + len + 1);
    must(fake->got != NULL, "realloc");
    memcpy(fake->got + fake->got_len, bytes, len);
    fake->got_len += len;
}

static ssize_t take(struct fake_proxy *fake, int fd, size_t max)
{
    static __thread uint8_t buf[65536];
    ssize_t n = recv(fd, buf, max < sizeof buf ? max : sizeof buf, 0);

    if (n > 0) {
        keep(fake, buf, (size_t)n);
    }
    return n;
}

static void read_exactly(struct fake_proxy *fake, int fd, size_t len)
{
    while (len > 0) {
        ssize_t n = take(fake, fd, len);

        must(n > 0, "the dialer sent less than the script reads");
        len -= (size_t)n;
    }
}

/* A dialer that gives up early is the test's business, not the script's. */
static void send_all(int fd, const char *bytes, size_t len)
{
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

    must(n == (ssize_t)len || (n < 0 && (errno == EPIPE || errno == ECONNRESET)), "send");
}

static void send_slowly(int fd, const char *bytes, size_t len)
{
    const struct timespec pause = {0, 1000000};

    for (size_t i = 0; i < len; i++) {
        send_all(fd, bytes + i, 1);
        (void)nanosleep(&pause, NULL);
    }
}

/* Returns 0 once the connection is closed. */
static int do_step(struct fake_proxy *fake, int fd, const struct fake_step *step)
{
    const struct linger reset = {1, 0};
    ssize_t n;

    switch (step->action) {
    case FAKE_READ:
        read_exactly(fake, fd, step->len);
        return 1;
    case FAKE_RECV:
        n = take(fake, fd, SIZE_MAX);
        fake->first_recv = fake->first_recv == 0 && n > 0 ? (size_t)n : fake->first_recv;
        return 1;
    case FAKE_SEND:
        send_all(fd, step->bytes, step->len);
        return 1;
    case FAKE_TRICKLE:
        send_slowly(fd, step->bytes, step->len);
        return 1;
    case FAKE_SHUT:
        must(shutdown(fd, SHUT_WR) == 0, "shutdown");
        return 1;
    case FAKE_RESET:
        must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0, "SO_LINGER");
        break;
    case FAKE_END:
        while (take(fake, fd, SIZE_MAX) > 0) {
        }
        break;
    case FAKE_CLOSE:
        break;
    }
    (void)close(fd);
    return 0;
}

static void *run(void *user)
{
    struct fake_proxy *fake = user;
    const struct fake_step *step = fake->script;
    int one = 1;
    int fd = accept(fake->listener, NULL, NULL);

    if (fd < 0) {
        return NULL; /* the test ended without a connection */
    }
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "TCP_NODELAY");
    while (do_step(fake, fd, step)) {
        step++;
    }
    return NULL;
}

static int bind_any(const char *ip, uint16_t *port)
{
    struct sockaddr_storage ss;
    struct sockaddr_in *sin = (struct sockaddr_in *)&ss;
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&ss;
    socklen_t len = sizeof ss;
    int fd;

    memset(&ss, 0, sizeof ss);
    ss.ss_family = strchr(ip, ':') != NULL ? AF_INET6 : AF_INET;
    if (ss.ss_family == AF_INET6) {
        must(inet_pton(AF_INET6, ip, &sin6->sin6_addr) == 1, ip);
    } else {
        must(inet_pton(AF_INET, ip, &sin->sin_addr) == 1, ip);
    }
    fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    must(bind(fd, (struct sockaddr *)&ss, ss.ss_family == AF_INET6 ? sizeof *sin6 : sizeof *sin) == 0, "bind");
    must(getsockname(fd, (struct sockaddr *)&ss, &len) == 0, "getsockname");
    *port = ntohs(ss.ss_family == AF_INET6 ? sin6->sin6_port : sin->sin_port);
    return fd;
}

void fake_start(struct fake_proxy *fake, const char *ip, const struct fake_step *script)
{
    memset(fake, 0, sizeof *fake);
    fake->script = script;
    fake->listener = bind_any(ip, &fake->port);
    must(listen(fake->listener, 8) == 0, "listen");
    errno = pthread_create(&fake->thread, NULL, run, fake);
    must(errno == 0, "pthread_create");
}

void fake_wait(struct fake_proxy *fake)
{
    if (fake->listener >= 0) {
        (void)shutdown(fake->listener, SHUT_RDWR); /* wakes an accept() that nobody came to */
        errno = pthread_join(fake->thread, NULL);
        must(errno == 0, "pthread_join");
        (void)close(fake->listener);
        fake->listener = -1;
    }
}

void fake_done(struct fake_proxy *fake)
{
    fake_wait(fake);
    free(fake->got);
    fake->got = NULL;
}

int fake_closed_port(const char *ip, uint16_t *port)
{
    return bind_any(ip, port);
}

struct socks6_proxy fake_url(enum socks6_scheme scheme, const char *ip, uint16_t port)
{
    struct socks6_proxy proxy;

    memset(&proxy, 0, sizeof proxy);
    proxy.scheme = scheme;
    proxy.draft = SOCKS6_DRAFT_11;
    must(socks6_addr_parse(ip, port, &proxy.addr) == SOCKS6_OK, ip);
    return proxy;
}

size_t fake_open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    must(dir != NULL, "/proc/self/fd");
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}
