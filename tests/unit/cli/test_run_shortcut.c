/*
 * What the helper offers to programs: the file, the way that a connection of loopback has taken, and when there is no way to offer.
 */
#include "cli/run_shortcut.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/addr.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* --- calls that fail, or say something else --- */

enum call { CALL_NONE, CALL_MEMFD, CALL_FTRUNCATE, CALL_FCNTL, CALL_MMAP };

static enum call failing;
static int failing_option = -1;        /* of getsockopt(2) */
static bool has_short_tcp_info;        /* an older kernel's */
static uint32_t min_rtt = UINT32_MAX;  /* UINT32_MAX = what the kernel says */
static struct sockaddr_in6 other_peer; /* family 0 = what the kernel says */

static bool fails(enum call call, int error)
{
    if (failing == call) {
        errno = error;
    }
    return failing == call;
}

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
    return fails(CALL_MEMFD, EMFILE) ? -1 : __real_memfd_create(name, flags);
}

int __real_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len)
{
    return fails(CALL_FTRUNCATE, EFBIG) ? -1 : __real_ftruncate(fd, len);
}

int __wrap_ftruncate64(int fd, off_t len);
int __wrap_ftruncate64(int fd, off_t len)
{
    return __wrap_ftruncate(fd, len);
}

int __real_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument);
int __wrap_fcntl(int fd, int command, int argument)
{
    return fails(CALL_FCNTL, EPERM) ? -1 : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, int argument);
int __wrap_fcntl64(int fd, int command, int argument)
{
    return __wrap_fcntl(fd, command, argument);
}

void *__real_mmap(void *addr, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t len, int protection, int flags, int fd, off_t offset)
{
    return fails(CALL_MMAP, ENOMEM) ? MAP_FAILED : __real_mmap(addr, len, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *addr, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *addr, size_t len, int protection, int flags, int fd, off_t offset)
{
    return __wrap_mmap(addr, len, protection, flags, fd, offset);
}

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    int rc;

    if (name == failing_option) {
        errno = ENOPROTOOPT;
        return -1;
    }
    rc = __real_getsockopt(fd, level, name, value, len);
    if (rc == 0 && level == IPPROTO_TCP && name == TCP_INFO) {
        if (has_short_tcp_info) {
            *len = offsetof(struct tcp_info, tcpi_min_rtt);
        } else if (min_rtt != UINT32_MAX) {
            memcpy((char *)value + offsetof(struct tcp_info, tcpi_min_rtt), &min_rtt, sizeof min_rtt);
        }
    }
    return rc;
}

int __real_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (other_peer.sin6_family != 0) {
        assert_true(*len >= sizeof other_peer);
        memcpy(addr, &other_peer, sizeof other_peer);
        *len = sizeof other_peer;
        return 0;
    }
    return __real_getpeername(fd, addr, len);
}

/* --- what connections have in common: a table --- */

static struct {
    struct socks6_slice session, session_afterwards; /* after _take_tokens */
    uint32_t first;                                  /* of the tokens that there are */
    unsigned count;
    /* What happened. */
    unsigned asked_count, asked_for; /* the last time */
    unsigned returned_count, returned_len;
    uint32_t returned_first;
    unsigned window_count;
    struct socks6_window window;
    bool was_window_first; /* at the last _take_tokens */
} table;

static struct reach_shared *const shared = (struct reach_shared *)(void *)&table;

struct socks6_slice __wrap_reach_shared_session(const struct reach_shared *which);
struct socks6_slice __wrap_reach_shared_session(const struct reach_shared *which)
{
    assert_ptr_equal(which, shared);
    return table.session;
}

unsigned __wrap_reach_shared_take_tokens(struct reach_shared *which, unsigned count, uint32_t *first);
unsigned __wrap_reach_shared_take_tokens(struct reach_shared *which, unsigned count, uint32_t *first)
{
    unsigned taken = count < table.count ? count : table.count;

    assert_ptr_equal(which, shared);
    table.asked_count++;
    table.asked_for = count;
    table.was_window_first = table.window_count > 0;
    if (taken > 0) {
        *first = table.first;
        table.first += taken;
        table.count -= taken;
    }
    if (table.session_afterwards.len > 0) {
        table.session = table.session_afterwards;
    }
    return taken;
}

void __wrap_reach_shared_return_tokens(struct reach_shared *which, uint32_t first, unsigned count);
void __wrap_reach_shared_return_tokens(struct reach_shared *which, uint32_t first, unsigned count)
{
    assert_ptr_equal(which, shared);
    if (count > 0) {
        table.returned_count++;
        table.returned_first = first;
        table.returned_len = count;
    }
}

void __wrap_reach_shared_learn_window(struct reach_shared *which, const struct socks6_window *window);
void __wrap_reach_shared_learn_window(struct reach_shared *which, const struct socks6_window *window)
{
    assert_ptr_equal(which, shared);
    table.window_count++;
    table.window = *window;
}

static unsigned count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    assert_int_equal(closedir(dir), 0);
    return count;
}

/* --- the file --- */

static void test_the_file_cannot_be_resized(void **state)
{
    struct run_shortcut shortcut = {.fd = -1};
    unsigned fds = count_fds();
    struct stat stat;
    struct run_route route;

    (void)state;
    assert_int_equal(run_shortcut_open(&shortcut), 0);
    assert_int_equal(fstat(shortcut.fd, &stat), 0);
    assert_int_equal(stat.st_size, run_share_len);
    assert_int_equal(__real_fcntl(shortcut.fd, F_GETFD, 0), FD_CLOEXEC);
    assert_int_equal(__real_ftruncate(shortcut.fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(__real_ftruncate(shortcut.fd, (off_t)run_share_len * 2), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(__real_fcntl(shortcut.fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* nor closed for writing */
    assert_int_equal(errno, EPERM);
    assert_false(run_share_route(shortcut.share, &route));
    run_shortcut_close(&shortcut);
    assert_int_equal(count_fds(), fds);
}

static void test_both_sides_have_the_same_memory(void **state)
{
    struct run_shortcut shortcut = {.fd = -1};
    const struct run_addr here = {.family = AF_INET, .port = 1}, there = {.family = AF_INET, .port = 2};
    struct run_addr peer, local;
    struct run_share *other;

    (void)state;
    assert_int_equal(run_shortcut_open(&shortcut), 0);
    other = __real_mmap(NULL, run_share_len, PROT_READ | PROT_WRITE, MAP_SHARED, shortcut.fd, 0);
    assert_ptr_not_equal(other, MAP_FAILED);
    assert_false(run_shortcut_find(&shortcut, 7, &peer, &local));
    run_share_put(other, 7, &there, &here);
    assert_true(run_shortcut_find(&shortcut, 7, &peer, &local));
    assert_memory_equal(&peer, &there, sizeof peer);
    assert_memory_equal(&local, &here, sizeof local);
    assert_false(run_shortcut_find(&shortcut, 8, &peer, &local));
    assert_false(run_shortcut_find(&shortcut, 0, &peer, &local));
    assert_int_equal(run_shortcut_take_ipv6(&shortcut), RUN_SHARE_IPV6_NO_NEWS);
    run_share_tell_ipv6(other, RUN_SHARE_IPV6_UNREACHABLE);
    assert_int_equal(run_shortcut_take_ipv6(&shortcut), RUN_SHARE_IPV6_UNREACHABLE);
    assert_int_equal(run_shortcut_take_ipv6(&shortcut), RUN_SHARE_IPV6_NO_NEWS);
    assert_int_equal(munmap(other, run_share_len), 0);
    run_shortcut_close(&shortcut);
}

static void test_a_file_that_cannot_be_made(void **state)
{
    static const struct {
        enum call call;
        int error;
    } cases[] = {{CALL_MEMFD, EMFILE}, {CALL_FTRUNCATE, EFBIG}, {CALL_FCNTL, EPERM}, {CALL_MMAP, ENOMEM}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run_shortcut shortcut = {.fd = -1};
        unsigned fds = count_fds();
        int rc;

        failing = cases[i].call;
        rc = run_shortcut_open(&shortcut);
        failing = CALL_NONE;
        assert_int_equal(rc, -cases[i].error);
        assert_int_equal(count_fds(), fds);
        assert_null(shortcut.share);
        assert_int_equal(shortcut.fd, -1);
    }
}

/* --- offers --- */

struct rig {
    struct run_shortcut shortcut;
    int listener, far, fd;
    uint16_t port;
    struct run_route route; /* the last one that was seen */
};

static const uint8_t key[] = {1, 2, 3, 4, 5};
static const uint8_t other_key[] = {1, 2, 3, 4, 6};
static const struct socks6_slice other_session = {other_key, sizeof other_key};
static const struct socks6_slice nobody = {NULL, 0}, session = {key, sizeof key};

#define FIRST_TOKEN 0xffffffe0u /* they go round */
#define AT_ONCE 64u

static void connect_over(struct rig *rig, const struct sockaddr *any, socklen_t len)
{
    struct sockaddr_storage addr;
    socklen_t addr_len = sizeof addr;

    rig->listener = socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(rig->listener, any, len), errno);
    assert_return_code(listen(rig->listener, 1), errno);
    assert_return_code(getsockname(rig->listener, (struct sockaddr *)&addr, &addr_len), errno);
    rig->port = ntohs(((const struct sockaddr_in *)(const void *)&addr)->sin_port); /* at the same place for both */
    rig->fd = socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(rig->fd, (const struct sockaddr *)&addr, addr_len), errno);
    rig->far = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_return_code(rig->far, errno);
}

static void disconnect(const struct rig *rig)
{
    assert_int_equal(close(rig->listener), 0);
    assert_int_equal(close(rig->far), 0);
    assert_int_equal(close(rig->fd), 0);
}

static int set_up(void **state)
{
    static struct rig rig;
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

    memset(&rig, 0, sizeof rig);
    failing = CALL_NONE;
    failing_option = -1;
    has_short_tcp_info = false;
    min_rtt = 900; /* however busy this machine is */
    other_peer.sin6_family = 0;
    memset(&table, 0, sizeof table);
    table.session = session;
    table.first = FIRST_TOKEN;
    table.count = 1000;
    assert_int_equal(run_shortcut_open(&rig.shortcut), 0);
    connect_over(&rig, (const struct sockaddr *)&any, sizeof any);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;

    disconnect(rig);
    run_shortcut_close(&rig->shortcut);
    return 0;
}

static bool has_route(struct rig *rig)
{
    memset(&rig->route, 0, sizeof rig->route);
    return run_share_route(rig->shortcut.share, &rig->route);
}

static bool is_offered(struct rig *rig, struct socks6_slice with)
{
    run_shortcut_offer(&rig->shortcut, rig->fd, with, false);
    return has_route(rig);
}

static void test_a_near_proxy_is_offered(void **state)
{
    struct rig *rig = *state;
    const uint8_t loopback[16] = {127, 0, 0, 1};
    uint64_t namespace = 0;
    socklen_t len = sizeof namespace;

    assert_return_code(__real_getsockopt(rig->fd, SOL_SOCKET, SO_NETNS_COOKIE, &namespace, &len), errno);
    assert_true(is_offered(rig, session));
    assert_int_equal(rig->route.proxy.family, AF_INET);
    assert_int_equal(rig->route.proxy.port, rig->port);
    assert_memory_equal(rig->route.proxy.bytes, loopback, sizeof loopback);
    assert_true(namespace != 0 && rig->route.namespace == namespace);
    assert_int_equal(rig->route.session_len, sizeof key);
    assert_memory_equal(rig->route.session, key, sizeof key);
    assert_true(rig->route.serial != 0);
}

static void test_a_proxy_that_knows_nobody_is_offered(void **state)
{
    struct rig *rig = *state;

    assert_true(is_offered(rig, nobody));
    assert_int_equal(rig->route.session_len, 0);
}

static void test_a_proxy_over_ipv6_is_offered(void **state)
{
    struct rig *rig = *state;
    const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    disconnect(rig);
    connect_over(rig, (const struct sockaddr *)&any, sizeof any);
    assert_true(is_offered(rig, nobody));
    assert_int_equal(rig->route.proxy.family, AF_INET6);
    assert_int_equal(rig->route.proxy.port, rig->port);
    assert_memory_equal(rig->route.proxy.bytes, &any.sin6_addr, 16);
}

static void test_near_is_less_than_a_millisecond(void **state)
{
    struct rig *rig = *state;

    min_rtt = 999;
    assert_true(is_offered(rig, nobody));
    run_shortcut_withdraw(&rig->shortcut);
    min_rtt = 1000;
    assert_false(is_offered(rig, nobody));
    min_rtt = UINT32_MAX - 1;
    assert_false(is_offered(rig, nobody));
}

static void test_link_local_is_not_offered(void **state)
{
    struct rig *rig = *state;

    other_peer = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(1080), .sin6_scope_id = 2};
    assert_int_equal(inet_pton(AF_INET6, "fe80::1", &other_peer.sin6_addr), 1);
    assert_false(is_offered(rig, nobody));
    assert_int_equal(inet_pton(AF_INET6, "febf::1", &other_peer.sin6_addr), 1);
    assert_false(is_offered(rig, nobody));
    assert_int_equal(inet_pton(AF_INET6, "fec0::1", &other_peer.sin6_addr), 1);
    assert_true(is_offered(rig, nobody));
}

static void test_what_is_known_is_not_offered_again(void **state)
{
    struct rig *rig = *state;
    const uint8_t other[] = {1, 2, 3, 4, 6};
    uint64_t serial;

    assert_true(is_offered(rig, session));
    serial = rig->route.serial;
    assert_true(is_offered(rig, session));
    assert_true(rig->route.serial == serial);

    assert_true(is_offered(rig, (struct socks6_slice){other, sizeof other})); /* as long, and another one */
    assert_true(rig->route.serial > serial);
    assert_memory_equal(rig->route.session, other, sizeof other);
    serial = rig->route.serial;
    assert_true(is_offered(rig, (struct socks6_slice){other, sizeof other - 1}));
    assert_true(rig->route.serial > serial);
    serial = rig->route.serial;
    assert_true(is_offered(rig, nobody));
    assert_true(rig->route.serial > serial);
    assert_int_equal(rig->route.session_len, 0);
    serial = rig->route.serial;
    assert_true(is_offered(rig, nobody));
    assert_true(rig->route.serial == serial);
}

static void test_what_was_doubted_is_offered_anew(void **state)
{
    struct rig *rig = *state;
    uint64_t serial;

    assert_true(is_offered(rig, session));
    serial = rig->route.serial;
    run_share_doubt(rig->shortcut.share, serial);
    assert_false(has_route(rig));
    assert_true(is_offered(rig, session));
    assert_true(rig->route.serial > serial);
}

static void test_withdrawn(void **state)
{
    struct rig *rig = *state;
    uint64_t serial;

    assert_true(is_offered(rig, session));
    serial = rig->route.serial;
    run_shortcut_withdraw(&rig->shortcut);
    assert_false(has_route(rig));
    run_shortcut_withdraw(&rig->shortcut);
    assert_false(has_route(rig));
    assert_true(is_offered(rig, session));
    assert_true(rig->route.serial > serial);
}

static bool leave_out(struct rig *rig, const char *text, unsigned bits)
{
    struct socks6_addr addr;
    struct run_addr asked = {.family = 0};

    assert_int_equal(socks6_addr_parse(text, 0, &addr), SOCKS6_OK);
    run_shortcut_leave_out(&rig->shortcut, &addr, bits);
    return run_addr_from_socks(&addr, addr.type == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6, &asked) &&
           run_share_has_network(rig->shortcut.share, &asked);
}

static void test_what_is_direct_is_left_out(void **state)
{
    struct rig *rig = *state;

    assert_true(leave_out(rig, "192.0.2.1", 32));
    assert_true(leave_out(rig, "2001:db8::1", 128));
    assert_true(leave_out(rig, "127.0.0.0", 7)); /* holds others, too */
    assert_true(leave_out(rig, "::1", 127));
    assert_true(is_offered(rig, session));
}

static void test_loopback_and_names_take_no_room(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i <= RUN_SHARE_NETWORKS_MAX; i++) {
        assert_false(leave_out(rig, "127.0.0.1", 32));
        assert_false(leave_out(rig, "127.0.0.0", 8));
        assert_false(leave_out(rig, "::1", 128));
        assert_false(leave_out(rig, "name.test", 0));
    }
    assert_true(is_offered(rig, session));
}

static void test_one_network_too_many_is_the_end(void **state)
{
    struct rig *rig = *state;

    assert_true(is_offered(rig, session));
    for (unsigned i = 0; i < RUN_SHARE_NETWORKS_MAX; i++) {
        const uint8_t bytes[] = {10, 0, 0, (uint8_t)i};
        struct socks6_addr addr = socks6_addr_ipv4(bytes, 0);

        run_shortcut_leave_out(&rig->shortcut, &addr, 32);
        assert_true(has_route(rig));
    }
    assert_true(leave_out(rig, "10.0.0.7", 32)); /* is there already */
    assert_true(has_route(rig));
    assert_false(leave_out(rig, "10.0.1.0", 32));
    assert_false(has_route(rig));
    assert_false(is_offered(rig, session));
    assert_false(is_offered(rig, other_session));
    assert_false(leave_out(rig, "10.0.1.0", 32));
}

static void test_longest_session(void **state)
{
    struct rig *rig = *state;
    uint8_t bytes[RUN_ROUTE_SESSION_MAX + 1];

    memset(bytes, 0xa5, sizeof bytes);
    assert_false(is_offered(rig, (struct socks6_slice){bytes, sizeof bytes}));
    assert_true(is_offered(rig, (struct socks6_slice){bytes, RUN_ROUTE_SESSION_MAX}));
    assert_int_equal(rig->route.session_len, RUN_ROUTE_SESSION_MAX);
    assert_memory_equal(rig->route.session, bytes, RUN_ROUTE_SESSION_MAX);
}

static void test_what_the_kernel_does_not_say_is_not_offered(void **state)
{
    struct rig *rig = *state;

    failing_option = TCP_INFO;
    assert_false(is_offered(rig, nobody));
    failing_option = SO_NETNS_COOKIE;
    assert_false(is_offered(rig, nobody));
    failing_option = -1;
    has_short_tcp_info = true;
    assert_false(is_offered(rig, nobody));
    has_short_tcp_info = false;
    assert_true(is_offered(rig, nobody));
}

static void test_a_connection_that_is_over_is_not_offered(void **state)
{
    struct rig *rig = *state;
    const struct sockaddr none = {.sa_family = AF_UNSPEC};

    assert_return_code(connect(rig->fd, &none, sizeof none), errno);
    assert_false(is_offered(rig, nobody));
}

static void test_fast_open_is_told_and_makes_another_offer(void **state)
{
    struct rig *rig = *state;
    uint64_t serial;

    assert_true(is_offered(rig, session));
    assert_int_equal(rig->route.has_fast_open, 0);
    serial = rig->route.serial;
    run_shortcut_offer(&rig->shortcut, rig->fd, session, true);
    assert_true(has_route(rig) && rig->route.serial > serial);
    assert_int_equal(rig->route.has_fast_open, 1);
    serial = rig->route.serial;
    run_shortcut_offer(&rig->shortcut, rig->fd, session, true);
    assert_true(has_route(rig) && rig->route.serial == serial);
    assert_true(is_offered(rig, session));
    assert_true(rig->route.serial > serial && rig->route.has_fast_open == 0);
}

/* --- tokens --- */

static void offer_fast(struct rig *rig)
{
    run_shortcut_offer(&rig->shortcut, rig->fd, session, true);
    assert_true(has_route(rig) && rig->route.has_fast_open == 1);
}

/* A program takes so many, the first of which is this one. */
static void take(struct rig *rig, uint32_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t token;
        bool is_low;

        assert_true(run_share_take_token(rig->shortcut.share, &token, &is_low));
        assert_int_equal(token, first + i);
    }
}

static void refill(struct rig *rig)
{
    run_shortcut_refill(&rig->shortcut, shared);
}

static unsigned left(const struct rig *rig)
{
    return run_share_tokens_left(rig->shortcut.share);
}

static void test_tokens_are_lent_when_there_are_few(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    refill(rig);
    assert_int_equal(table.asked_count, 1);
    assert_int_equal(table.asked_for, AT_ONCE);
    assert_int_equal(left(rig), AT_ONCE);
    refill(rig);
    take(rig, FIRST_TOKEN, AT_ONCE - RUN_SHARE_TOKENS_LOW - 1);
    refill(rig);
    assert_int_equal(table.asked_count, 1); /* one too many */
    take(rig, FIRST_TOKEN + AT_ONCE - RUN_SHARE_TOKENS_LOW - 1, 1);
    refill(rig);
    assert_int_equal(table.asked_count, 2);
    assert_int_equal(left(rig), AT_ONCE + RUN_SHARE_TOKENS_LOW);
    take(rig, FIRST_TOKEN + AT_ONCE - RUN_SHARE_TOKENS_LOW, AT_ONCE + RUN_SHARE_TOKENS_LOW);
}

static void test_those_that_are_left_give_way_to_others(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    table.count = 10;
    refill(rig);
    take(rig, FIRST_TOKEN, 3);
    table.first += 100; /* others have taken some */
    table.count = 5;
    refill(rig);
    assert_int_equal(left(rig), 5);
    take(rig, FIRST_TOKEN + 110, 5);
    refill(rig); /* there are none */
    assert_int_equal(table.asked_count, 3);
    assert_int_equal(left(rig), 0);
}

static void test_only_those_who_can_use_them_get_tokens(void **state)
{
    struct rig *rig = *state;

    refill(rig); /* no offer */
    run_shortcut_offer(&rig->shortcut, rig->fd, session, false);
    refill(rig); /* no Fast Open */
    offer_fast(rig);
    table.session = other_session;
    refill(rig);
    table.session = nobody;
    refill(rig);
    table.session = (struct socks6_slice){key, sizeof key - 1};
    refill(rig);
    table.session = session;
    run_share_doubt(rig->shortcut.share, rig->route.serial);
    refill(rig);
    offer_fast(rig);
    run_shortcut_withdraw(&rig->shortcut);
    refill(rig);
    run_shortcut_refill(NULL, shared);
    assert_int_equal(table.asked_count, 0);
    offer_fast(rig);
    refill(rig);
    assert_int_equal(table.asked_count, 1);
}

/* The file knew of another session: the tokens are of that one. */
static void test_tokens_of_another_session_are_not_lent(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    table.session_afterwards = other_session;
    refill(rig);
    assert_int_equal(table.asked_count, 1);
    assert_int_equal(left(rig), 0);
}

static void test_a_window_is_passed_on_before_tokens_are_taken(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    run_share_tell_window(rig->shortcut.share, 0xabcdef01u, 2048);
    refill(rig);
    assert_int_equal(table.window_count, 1);
    assert_true(table.was_window_first);
    assert_int_equal(table.window.base, 0xabcdef01u);
    assert_int_equal(table.window.size, 2048);
    take(rig, FIRST_TOKEN, AT_ONCE);
    refill(rig);
    assert_int_equal(table.asked_count, 2);
    assert_int_equal(table.window_count, 1); /* once */
}

static void expect_returned(uint32_t first, unsigned count)
{
    assert_int_equal(table.returned_count, count > 0);
    assert_int_equal(table.returned_len, count);
    assert_int_equal(table.returned_first, first);
}

static void end(struct rig *rig)
{
    run_shortcut_end(&rig->shortcut, shared);
    assert_false(has_route(rig));
}

static void test_the_end_gives_back_what_is_left(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    refill(rig);
    take(rig, FIRST_TOKEN, 40);
    end(rig);
    expect_returned(FIRST_TOKEN + 40, AT_ONCE - 40);
    assert_int_equal(left(rig), 0);
    end(rig); /* again */
    expect_returned(FIRST_TOKEN + 40, AT_ONCE - 40);
    run_shortcut_end(NULL, shared);
}

static void test_the_end_of_nothing_gives_nothing_back(void **state)
{
    struct rig *rig = *state;

    end(rig);
    expect_returned(0, 0);
    offer_fast(rig);
    end(rig);
    expect_returned(0, 0);
    run_shortcut_offer(&rig->shortcut, rig->fd, session, false);
    end(rig);
    expect_returned(0, 0);
}

static void test_tokens_of_a_session_that_is_over_are_not_given_back(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    refill(rig);
    table.session = other_session;
    end(rig);
    expect_returned(0, 0);
}

/* A program has written to the memory what the helper would not: more than can be there is not given back. */
static void test_damaged_counts_are_not_given_back(void **state)
{
    static const unsigned counts[] = {AT_ONCE + RUN_SHARE_TOKENS_LOW + 1, 1000, 0x80000000u, UINT32_MAX};
    struct rig *rig = *state;

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        offer_fast(rig);
        run_share_put_tokens(rig->shortcut.share, 7, counts[i]);
        refill(rig);
        assert_int_equal(table.asked_count, 0);
        end(rig);
        expect_returned(0, 0);
    }
    offer_fast(rig);
    run_share_put_tokens(rig->shortcut.share, 7, counts[0] - 1);
    end(rig);
    expect_returned(7, counts[0] - 1);
}

/* The first of them that is rejected makes a doubt. */
static void test_damaged_counts_are_over_with_the_next_offer(void **state)
{
    struct rig *rig = *state;

    offer_fast(rig);
    run_share_put_tokens(rig->shortcut.share, 7, UINT32_MAX);
    run_share_doubt(rig->shortcut.share, rig->route.serial);
    offer_fast(rig);
    refill(rig);
    assert_int_equal(left(rig), AT_ONCE);
    take(rig, FIRST_TOKEN, AT_ONCE);
}

static void test_without_a_shortcut_nothing_happens(void **state)
{
    struct rig *rig = *state;
    struct run_addr peer = {.family = 1}, local = {.family = 2};
    struct socks6_addr addr = socks6_addr_ipv4((const uint8_t[]){192, 0, 2, 1}, 0);

    run_shortcut_offer(NULL, rig->fd, session, false);
    run_shortcut_withdraw(NULL);
    run_shortcut_leave_out(NULL, &addr, 32);
    assert_false(run_shortcut_find(NULL, 1, &peer, &local));
    assert_int_equal(peer.family, 1);
    assert_int_equal(local.family, 2);
    assert_int_equal(run_shortcut_take_ipv6(NULL), RUN_SHARE_IPV6_NO_NEWS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_file_cannot_be_resized),
        cmocka_unit_test(test_both_sides_have_the_same_memory),
        cmocka_unit_test(test_a_file_that_cannot_be_made),
        TEST(test_a_near_proxy_is_offered),
        TEST(test_a_proxy_that_knows_nobody_is_offered),
        TEST(test_a_proxy_over_ipv6_is_offered),
        TEST(test_near_is_less_than_a_millisecond),
        TEST(test_link_local_is_not_offered),
        TEST(test_what_is_known_is_not_offered_again),
        TEST(test_what_was_doubted_is_offered_anew),
        TEST(test_withdrawn),
        TEST(test_what_is_direct_is_left_out),
        TEST(test_loopback_and_names_take_no_room),
        TEST(test_one_network_too_many_is_the_end),
        TEST(test_longest_session),
        TEST(test_what_the_kernel_does_not_say_is_not_offered),
        TEST(test_a_connection_that_is_over_is_not_offered),
        TEST(test_fast_open_is_told_and_makes_another_offer),
        TEST(test_tokens_are_lent_when_there_are_few),
        TEST(test_those_that_are_left_give_way_to_others),
        TEST(test_only_those_who_can_use_them_get_tokens),
        TEST(test_tokens_of_another_session_are_not_lent),
        TEST(test_a_window_is_passed_on_before_tokens_are_taken),
        TEST(test_the_end_gives_back_what_is_left),
        TEST(test_the_end_of_nothing_gives_nothing_back),
        TEST(test_tokens_of_a_session_that_is_over_are_not_given_back),
        TEST(test_damaged_counts_are_not_given_back),
        TEST(test_damaged_counts_are_over_with_the_next_offer),
        TEST(test_without_a_shortcut_nothing_happens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
