#include "cli/run_shortcut.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/sock.h"
#include "run/addr.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* Programs that wait are kept for so long at most, or are the helper's; and without Fast Open it is a round trip more. */
#define NEAR_US 1000u
/* Lent at once. A program that is killed in between has not lost more than one. */
#define TOKENS_AT_ONCE 64u

static int make_file(void)
{
    int fd = memfd_create("socks6-run", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int error;

    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)run_share_len) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        return fd;
    }
    error = errno;
    (void)close(fd);
    return -error;
}

int run_shortcut_open(struct run_shortcut *shortcut)
{
    int fd = make_file();
    void *memory;

    if (fd < 0) {
        return fd;
    }
    memory = mmap(NULL, run_share_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        int error = errno;

        (void)close(fd);
        return -error;
    }
    *shortcut = (struct run_shortcut){.share = memory, .fd = fd};
    return 0;
}

void run_shortcut_close(struct run_shortcut *shortcut)
{
    (void)munmap(shortcut->share, run_share_len);
    (void)close(shortcut->fd);
}

static bool is_near(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           len >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof info.tcpi_min_rtt && info.tcpi_min_rtt < NEAR_US;
}

static bool find_proxy(int fd, struct run_addr *out)
{
    struct socks6_addr peer;

    return sock_peer(fd, &peer) == 0 &&
           run_addr_from_socks(&peer, peer.type == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6, out);
}

/* One that needs to be told by which interface. */
static bool is_link_local(const struct run_addr *addr)
{
    return addr->family == AF_INET6 && addr->bytes[0] == 0xfe && (addr->bytes[1] & 0xc0) == 0x80;
}

static bool is_known(const struct run_share *share, struct socks6_slice session, bool has_fast_open)
{
    struct run_route there;

    return run_share_route(share, &there) && (there.has_fast_open != 0) == has_fast_open &&
           there.session_len == session.len &&
           (session.len == 0 || memcmp(there.session, session.data, session.len) == 0);
}

void run_shortcut_offer(struct run_shortcut *shortcut, int fd, struct socks6_slice session, bool has_fast_open)
{
    struct run_route route = {.session_len = (uint32_t)session.len, .has_fast_open = has_fast_open};
    socklen_t len = sizeof route.namespace;

    if (shortcut == NULL || shortcut->is_over || session.len > sizeof route.session ||
        is_known(shortcut->share, session, has_fast_open)) {
        return;
    }
    if (!is_near(fd) || !find_proxy(fd, &route.proxy) || is_link_local(&route.proxy) ||
        getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &route.namespace, &len) != 0) {
        return;
    }
    if (session.len > 0) {
        memcpy(route.session, session.data, session.len);
    }
    run_share_publish(shortcut->share, &route);
}

static void pass_window_on(struct run_share *share, struct reach_shared *shared)
{
    struct socks6_window window;

    if (run_share_take_window(share, &window.base, &window.size)) {
        reach_shared_learn_window(shared, &window);
    }
}

/* What was offered is for the session that we are in. */
static bool needs_tokens(const struct run_share *share, const struct reach_shared *shared)
{
    return is_known(share, reach_shared_session(shared), true) && run_share_tokens_left(share) <= RUN_SHARE_TOKENS_LOW;
}

void run_shortcut_refill(struct run_shortcut *shortcut, struct reach_shared *shared)
{
    uint32_t first = 0;
    unsigned count;

    if (shortcut == NULL || !needs_tokens(shortcut->share, shared)) {
        return;
    }
    pass_window_on(shortcut->share, shared);
    count = reach_shared_take_tokens(shared, TOKENS_AT_ONCE, &first);
    if (count > 0 && needs_tokens(shortcut->share, shared)) { /* looking into the file may have changed the session */
        run_share_put_tokens(shortcut->share, first, count);
    }
}

void run_shortcut_end(struct run_shortcut *shortcut, struct reach_shared *shared)
{
    uint32_t first = 0;
    unsigned count;

    if (shortcut == NULL) {
        return;
    }
    count = is_known(shortcut->share, reach_shared_session(shared), true)
                ? run_share_take_tokens_back(shortcut->share, &first)
                : 0;
    run_share_withdraw(shortcut->share);
    if (count <= TOKENS_AT_ONCE + RUN_SHARE_TOKENS_LOW) { /* more would be damage */
        reach_shared_return_tokens(shared, first, count);
    }
}

bool run_shortcut_find(const struct run_shortcut *shortcut, uint64_t cookie, struct run_addr *peer,
                       struct run_addr *local)
{
    return shortcut != NULL && run_share_get(shortcut->share, cookie, peer, local);
}

enum run_share_ipv6 run_shortcut_take_ipv6(struct run_shortcut *shortcut)
{
    return shortcut != NULL ? run_share_take_ipv6(shortcut->share) : RUN_SHARE_IPV6_NO_NEWS;
}

void run_shortcut_withdraw(struct run_shortcut *shortcut)
{
    if (shortcut != NULL) {
        run_share_withdraw(shortcut->share);
    }
}

static bool is_loopback(const struct socks6_addr *addr, unsigned bits)
{
    return sock_is_loopback(addr) && bits >= (addr->type == SOCKS6_ADDR_IPV4 ? 8 : 128);
}

void run_shortcut_leave_out(struct run_shortcut *shortcut, const struct socks6_addr *addr, unsigned bits)
{
    struct run_addr network;

    if (shortcut == NULL || shortcut->is_over || is_loopback(addr, bits) ||
        !run_addr_from_socks(addr, addr->type == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6, &network)) {
        return;
    }
    if (!run_share_add_network(shortcut->share, &network, bits)) {
        run_share_withdraw(shortcut->share);
        shortcut->is_over = true;
    }
}
