/*
 * Sockets that could go past the proxy, and those on which others could reach the program: refused, with a note, unless
 * --allow-direct. The kernel is asked first, so that its own errors are what the program sees.
 */
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "preload/addr.h"
#include "preload/config.h"
#include "preload/export.h"
#include "preload/fresh.h"
#include "preload/real.h"
#include "preload/sys.h"
#include "preload/talk.h"

#define LOOPBACK_INDEX 1 /* of the interface, in each network namespace */
#define TYPE_MASK 0xf    /* the rest of the type is SOCK_NONBLOCK and SOCK_CLOEXEC */
#define TYPE_PACKET 10   /* SOCK_PACKET of Linux 2.0: whole frames */

/* 0, or the errno for a socket of the Internet that cannot be had. */
static int judge_inet(int type, int protocol)
{
    switch (type) {
    case SOCK_STREAM:
        return protocol == 0 || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP ? 0 : EPROTONOSUPPORT;
    case SOCK_DGRAM:
        if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
            return EPERM;
        }
        return protocol == 0 || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ? 0 : EPROTONOSUPPORT;
    case SOCK_RAW:
    case TYPE_PACKET:
        return EPERM;
    default: /* SCTP, DCCP */
        return EPROTONOSUPPORT;
    }
}

/* Families other than those that stay on this machine, or on buses that are no network, are not let through. */
static int judge(int domain, int type, int protocol)
{
    switch (domain) {
    case AF_INET:
    case AF_INET6:
        return judge_inet(type & TYPE_MASK, protocol);
    case AF_UNIX:
    case AF_NETLINK:
    case AF_ALG:
    case AF_KEY:
    case AF_VSOCK:
    case AF_BLUETOOTH:
    case AF_CAN:
        return 0;
    case AF_PACKET:
    case AF_XDP:
        return EPERM;
    default:
        return EAFNOSUPPORT;
    }
}

static void note_fresh(int fd, int domain, int type, int protocol)
{
    if (fd >= 0 && (domain == AF_INET || domain == AF_INET6) && (type & TYPE_MASK) == SOCK_STREAM) {
        fresh_note(fd, domain, protocol == 0 || protocol == IPPROTO_TCP);
    }
}

PRELOAD_HOOK(int, socket, int domain, int type, int protocol)
{
    int fd = real(socket)(domain, type, protocol);
    int wrong = fd < 0 || preload_config()->allow_direct ? 0 : judge(domain, type, protocol);

    if (wrong == 0) {
        note_fresh(fd, domain, type, protocol);
        return fd;
    }
    sys_close(fd);
    talk_note(RUN_NOTE_REFUSED, "socket of family %d, type %d, protocol %d, which no proxy can serve: refused", domain,
              type & TYPE_MASK, protocol);
    errno = wrong;
    return -1;
}

static bool is_inet(int fd)
{
    int domain = sys_get_int(fd, SOL_SOCKET, SO_DOMAIN);

    return domain == AF_INET || domain == AF_INET6;
}

static bool is_stream(int fd)
{
    return sys_get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
}

/* What does not come over the loopback device is dropped. False if it cannot be had. */
static bool attach_filter(int fd)
{
    static const struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LOOPBACK_INDEX, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog filter = {sizeof steps / sizeof *steps, (struct sock_filter *)(uintptr_t)steps};

    return sys_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0;
}

/* After bind(2). The program cannot take it off, nor replace it. */
static void settle_filter(int fd, bool is_bound)
{
    const int on = 1;

    (void)sys_setsockopt(fd, SOL_SOCKET, is_bound ? SO_LOCK_FILTER : SO_DETACH_FILTER, &on, sizeof on);
    if (is_bound) {
        talk_note(RUN_NOTE_REFUSED, "receive from other machines without TCP: refused");
    }
}

static int refuse_bind(const struct run_addr *local)
{
    char text[ADDR_TEXT_LEN];

    talk_note(RUN_NOTE_REFUSED, "receive at %s, without TCP: refused", addr_text(local, text));
    errno = EADDRNOTAVAIL; /* with EACCES some try one port after the other */
    return -1;
}

/*
 * Datagrams at a port that others can know. Servers take one, who shall not be reached; and so do resolvers, to ask from where nobody
 * guesses: both have it, and hear this machine alone. The address of a TCP connection's end, on the other hand, is harmless.
 */
PRELOAD_HOOK(int, bind, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct run_addr local;
    int rc;

    fresh_bind(fd);
    if (preload_config()->allow_direct || !addr_parse(addr, len, &local, NULL) || local.port == 0 ||
        addr_is_loopback(&local) || !is_inet(fd) || is_stream(fd)) {
        return real_as_hook(bind)(fd, addr, len);
    }
    if (!attach_filter(fd)) {
        return refuse_bind(&local);
    }
    rc = real_as_hook(bind)(fd, addr, len);
    settle_filter(fd, rc == 0);
    return rc;
}

/* Not bound yet is bound to all addresses, as soon as it listens. What is connected cannot listen. */
static bool is_open_to_others(int fd, struct run_addr *out)
{
    struct sockaddr_storage local, peer;
    socklen_t len = sizeof local, peer_len = sizeof peer;

    return is_inet(fd) && sys_getpeername(fd, &peer, &peer_len) != 0 && is_stream(fd) &&
           sys_getsockname(fd, &local, &len) == 0 && addr_parse(&local, len, out, NULL) && !addr_is_loopback(out);
}

PRELOAD_HOOK(int, listen, int fd, int backlog)
{
    struct run_addr local;
    char text[ADDR_TEXT_LEN];

    if (preload_config()->allow_direct || !is_open_to_others(fd, &local)) {
        return real(listen)(fd, backlog);
    }
    talk_note(RUN_NOTE_REFUSED, "listen at %s: refused", addr_text(&local, text));
    errno = EACCES;
    return -1;
}
