#include "preload/options.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#include "preload/fresh.h"
#include "preload/sys.h"
#include "preload/talk.h"

#define VALUE_MAX 32

enum manner {
    PLAIN,
    HELPER, /* one that who connects for us may have set for its own ends */
    STICKY  /* once it is set the kernel stops to adapt it: only if the program has */
};

struct option_name {
    int level, name;
    enum manner manner;
};

/* In this order: IP_TOS sets SO_PRIORITY as well. */
static const struct option_name names[] = {
    {SOL_SOCKET, SO_KEEPALIVE, HELPER},
    {SOL_SOCKET, SO_LINGER, HELPER},
    {SOL_SOCKET, SO_OOBINLINE, PLAIN},
    {SOL_SOCKET, SO_REUSEADDR, PLAIN},
    {SOL_SOCKET, SO_REUSEPORT, PLAIN},
    {SOL_SOCKET, SO_BROADCAST, PLAIN},
    {SOL_SOCKET, SO_MARK, HELPER},
    {SOL_SOCKET, SO_RCVBUF, STICKY},
    {SOL_SOCKET, SO_SNDBUF, STICKY},
    {SOL_SOCKET, SO_DONTROUTE, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMP, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMPNS, PLAIN},
    {SOL_SOCKET, SO_ZEROCOPY, PLAIN},
    {SOL_SOCKET, SO_BUSY_POLL, PLAIN},
    {SOL_SOCKET, SO_RXQ_OVFL, PLAIN},
    {SOL_SOCKET, SO_MAX_PACING_RATE, STICKY},
    {IPPROTO_IP, IP_TOS, HELPER},
    {IPPROTO_IP, IP_TTL, PLAIN},
    {IPPROTO_IP, IP_MTU_DISCOVER, PLAIN},
    {IPPROTO_IP, IP_RECVERR, PLAIN},
    {IPPROTO_IP, IP_RECVTTL, PLAIN},
    {IPPROTO_IP, IP_RECVTOS, PLAIN},
    {IPPROTO_IP, IP_PKTINFO, PLAIN},
    {IPPROTO_IP, IP_FREEBIND, PLAIN},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, PLAIN},
    {IPPROTO_IPV6, IPV6_TCLASS, PLAIN},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, PLAIN},
    {IPPROTO_IPV6, IPV6_V6ONLY, PLAIN},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVERR, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, PLAIN},
    {SOL_SOCKET, SO_PRIORITY, HELPER},
    {IPPROTO_TCP, TCP_NODELAY, HELPER},
    {IPPROTO_TCP, TCP_CORK, PLAIN},
    {IPPROTO_TCP, TCP_MAXSEG, STICKY},
    {IPPROTO_TCP, TCP_KEEPIDLE, HELPER},
    {IPPROTO_TCP, TCP_KEEPINTVL, HELPER},
    {IPPROTO_TCP, TCP_KEEPCNT, HELPER},
    {IPPROTO_TCP, TCP_SYNCNT, HELPER},
    {IPPROTO_TCP, TCP_LINGER2, PLAIN},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, HELPER},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, HELPER},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, STICKY},
    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, PLAIN},
    {IPPROTO_TCP, TCP_CONGESTION, PLAIN},
};

struct source { /* of options: a socket or, if `fd` is -1, the helper */
    int fd;
    uint64_t cookie;
};

static socklen_t get_from_helper(uint64_t cookie, const struct option_name *name, void *value)
{
    struct run_option question = {.cookie = cookie, .level = name->level, .name = name->name, .len = VALUE_MAX};
    struct iovec part = {&question, sizeof question};
    int status = 0;
    ssize_t len = talk_ask(RUN_GETSOCKOPT, &part, 1, &status, value, VALUE_MAX);

    return len > 0 && status == 0 ? (socklen_t)len : 0;
}

/* The length of the value, or 0. */
static socklen_t get(const struct source *source, const struct option_name *name, void *value)
{
    socklen_t len = VALUE_MAX;

    memset(value, 0, VALUE_MAX);
    if (source->fd < 0) {
        return get_from_helper(source->cookie, name, value);
    }
    return sys_getsockopt(source->fd, name->level, name->name, value, &len) < 0 ? 0 : len;
}

/* SO_RCVBUF and SO_SNDBUF give twice what was set. */
static void set(int fd, const struct option_name *name, void *value, socklen_t len)
{
    int number;

    if (name->level == SOL_SOCKET && (name->name == SO_RCVBUF || name->name == SO_SNDBUF) && len == sizeof number) {
        memcpy(&number, value, sizeof number);
        number /= 2;
        memcpy(value, &number, sizeof number);
    }
    (void)sys_setsockopt(fd, name->level, name->name, value, len);
}

/* A new socket of the same kind, to see what the program has not set; -1 if there is none to be had. */
static int open_plain(int like)
{
    int domain = sys_get_int(like, SOL_SOCKET, SO_DOMAIN);
    int protocol = sys_get_int(like, SOL_SOCKET, SO_PROTOCOL);
    long fd = SYS_CALL(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, protocol);

    return fd < 0 ? -1 : (int)fd;
}

/* `is_fresh`: nothing was set at the source. */
static void copy(const struct source *from, int plain, int to, bool is_fresh)
{
    char wanted[VALUE_MAX], there[VALUE_MAX];
    struct source target = {.fd = to}, model = {.fd = plain};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bool is_sticky = names[i].manner == STICKY;
        socklen_t len;

        if (is_fresh && names[i].manner != HELPER) {
            continue;
        }
        len = get(from, &names[i], wanted);
        if (len == 0 || (is_sticky && plain < 0)) {
            continue;
        }
        if (get(is_sticky ? &model : &target, &names[i], there) != len || memcmp(wanted, there, len) != 0) {
            set(to, &names[i], wanted, len);
        }
    }
}

void options_copy(int from, int to)
{
    struct source source = {.fd = from};
    bool is_fresh = fresh_is(from);
    int plain = is_fresh ? -1 : open_plain(from);

    copy(&source, plain, to, is_fresh);
    if (plain >= 0) {
        sys_close(plain);
    }
}

void options_copy_from_helper(uint64_t cookie, int to)
{
    struct source source = {.fd = -1, .cookie = cookie};

    copy(&source, to, to, false);
}

static void carry_signals(int from, int to)
{
    struct f_owner_ex owner;
    int number;

    if (SYS_CALL(SYS_fcntl, from, F_GETOWN_EX, &owner) == 0 && owner.pid != 0) {
        (void)SYS_CALL(SYS_fcntl, to, F_SETOWN_EX, &owner);
    }
    number = sys_fcntl(from, F_GETSIG, 0);
    if (number > 0) {
        (void)sys_fcntl(to, F_SETSIG, number);
    }
}

void options_carry(int from, int to)
{
    static const int waits[] = {SO_RCVTIMEO, SO_SNDTIMEO};
    int flags = sys_fcntl(from, F_GETFL, 0);
    int low = sys_get_int(from, SOL_SOCKET, SO_RCVLOWAT);

    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        struct timeval time;
        socklen_t len = sizeof time;

        if (sys_getsockopt(from, SOL_SOCKET, waits[i], &time, &len) == 0) {
            (void)sys_setsockopt(to, SOL_SOCKET, waits[i], &time, len);
        }
    }
    if (low > 1) {
        (void)sys_setsockopt(to, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
    }
    carry_signals(from, to);
    if (flags >= 0) {
        (void)sys_fcntl(to, F_SETFL, flags & ~O_ASYNC);
    }
}
