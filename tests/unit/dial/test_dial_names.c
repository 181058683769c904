/*
 * Proxies by name, and failures of the system: getaddrinfo(3) and the allocator are replaced by the linker (--wrap), so
 * that a name has the addresses that a test wants and memory ends where it wants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_proxy.h"

#define REQUEST_LEN 20
#define AUTH_OK "\x06\x00\x00\x00"
#define REPLY(code) "\x06" code "\x00\x00\x12\x34\x00\x01\x7f\x00\x00\x01"

/* What the name has. */
static struct {
    int error; /* EAI_..., or 0 */
    struct sockaddr_in addrs[40];
    struct addrinfo infos[40];
    size_t count;
    int asked_family;
} names;

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list);
void __wrap_freeaddrinfo(struct addrinfo *list);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    assert_string_equal(node, "proxy.example");
    assert_int_equal(hints->ai_socktype, SOCK_STREAM);
    names.asked_family = hints->ai_family;
    if (names.error != 0) {
        errno = EMFILE;
        return names.error;
    }
    for (size_t i = 0; i < names.count; i++) {
        names.addrs[i].sin_family = AF_INET;
        names.addrs[i].sin_port = htons((uint16_t)atoi(service));
        names.infos[i].ai_addr = (struct sockaddr *)&names.addrs[i];
        names.infos[i].ai_addrlen = sizeof names.addrs[i];
        names.infos[i].ai_next = i + 1 < names.count ? &names.infos[i + 1] : NULL;
    }
    *list = names.count > 0 ? names.infos : NULL;
    return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
    assert_true(list == NULL || list == names.infos);
}

/* Memory for that many allocations more; negative = without end. */
static int allocations_left = -1;

static int may_allocate(void)
{
    if (allocations_left > 0) {
        allocations_left--;
        return 1;
    }
    return allocations_left != 0;
}

void *__wrap_malloc(size_t size)
{
    return may_allocate() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return may_allocate() ? __real_calloc(count, size) : NULL;
}

static void has_address(const char *ip)
{
    assert_int_equal(inet_pton(AF_INET, ip, &names.addrs[names.count++].sin_addr), 1);
}

static int set_up(void **state)
{
    (void)state;
    memset(&names, 0, sizeof names);
    return 0;
}

static char traced[8192];

static void gather(void *user, const char *what)
{
    (void)user;
    (void)snprintf(traced + strlen(traced), sizeof traced - strlen(traced), "%s\n", what);
}

static int dial(uint16_t port, uint64_t timeout_ms, struct socks6_dial_result *result)
{
    static struct socks6_proxy proxy;
    struct socks6_dial_config config;

    memset(&proxy, 0, sizeof proxy);
    proxy.draft = SOCKS6_DRAFT_11;
    assert_true(socks6_addr_name("proxy.example", 13, port, &proxy.addr));
    socks6_dial_config_init(&config);
    config.proxy = &proxy;
    config.timeout_ms = timeout_ms;
    config.trace = gather;
    traced[0] = '\0';
    assert_true(socks6_addr_name("example.com", 11, 81, &config.addr));
    return socks6_dial(&config, result);
}

static const struct fake_step good_script[] = {
    {FAKE_READ, NULL, REQUEST_LEN}, {FAKE_SEND, FAKE_BYTES(AUTH_OK REPLY("\x00"))}, {FAKE_END, NULL, 0}};

static void test_addresses_are_tried_in_turn(void **state)
{
    struct socks6_dial_result result;
    struct fake_proxy fake;

    (void)state;
    fake_start(&fake, "127.0.0.3", good_script);
    has_address("127.0.0.1"); /* nobody listens there */
    has_address("127.0.0.2");
    has_address("127.0.0.3");
    assert_int_equal(dial(fake.port, 30000, &result), SOCKS6_DIAL_OK);
    assert_int_equal(names.asked_family, AF_UNSPEC);
    assert_non_null(strstr(traced, "looking up proxy proxy.example:"));
    assert_non_null(strstr(traced, "cannot connect to proxy 127.0.0.1:"));
    assert_non_null(strstr(traced, "cannot connect to proxy 127.0.0.2:"));
    assert_non_null(strstr(traced, "\nconnected to proxy 127.0.0.3:"));
    close(result.fd);
    fake_done(&fake);
}

static void test_last_failure_is_told(void **state)
{
    struct socks6_dial_result result;
    char error[256];
    uint16_t port;
    int fd = fake_closed_port("127.0.0.2", &port);

    (void)state;
    has_address("127.0.0.2");
    assert_int_equal(dial(port, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    (void)snprintf(error, sizeof error, "cannot connect to proxy proxy.example:%u (127.0.0.2:%u): Connection refused",
                   (unsigned)port, (unsigned)port);
    assert_string_equal(result.error, error);
    has_address("127.0.0.2");
    assert_int_equal(dial(port, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, "(last address tried: 127.0.0.2:"));
    close(fd);
}

/* A listener whose queue is full drops the SYN: a connection attempt there hangs. */
struct black_hole {
    int listener;
    int clients[8];
    uint16_t port;
};

static void black_hole_open(struct black_hole *hole, const char *ip)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};

    hole->listener = fake_closed_port(ip, &hole->port);
    assert_int_equal(listen(hole->listener, 0), 0);
    assert_int_equal(inet_pton(AF_INET, ip, &sin.sin_addr), 1);
    sin.sin_port = htons(hole->port);
    for (size_t i = 0; i < sizeof hole->clients / sizeof *hole->clients; i++) {
        hole->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(hole->clients[i], (struct sockaddr *)&sin, sizeof sin);
    }
}

static void black_hole_close(struct black_hole *hole)
{
    for (size_t i = 0; i < sizeof hole->clients / sizeof *hole->clients; i++) {
        close(hole->clients[i]);
    }
    close(hole->listener);
}

static void test_black_hole_takes_its_share_only(void **state)
{
    struct socks6_dial_result result;
    struct black_hole hole;
    struct sockaddr_in sin = {.sin_family = AF_INET};
    int second;

    (void)state;
    black_hole_open(&hole, "127.0.0.1");
    has_address("127.0.0.1");
    has_address("127.0.0.2");
    second = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(inet_pton(AF_INET, "127.0.0.2", &sin.sin_addr), 1);
    sin.sin_port = htons(hole.port);
    assert_int_equal(bind(second, (struct sockaddr *)&sin, sizeof sin), 0);
    assert_int_equal(listen(second, 1), 0); /* accepted by the kernel; never answers */
    assert_int_equal(dial(hole.port, 200, &result), SOCKS6_DIAL_TIMED_OUT);
    assert_non_null(strstr(traced, "cannot connect to proxy 127.0.0.1:"));
    assert_non_null(strstr(traced, "connected to proxy 127.0.0.2:"));
    assert_non_null(strstr(result.error, "waiting for a reply"));
    close(second);
    black_hole_close(&hole);
}

static void test_black_hole_alone_times_out(void **state)
{
    struct socks6_dial_result result;
    struct black_hole hole;

    (void)state;
    black_hole_open(&hole, "127.0.0.1");
    has_address("127.0.0.1");
    assert_int_equal(dial(hole.port, 50, &result), SOCKS6_DIAL_TIMED_OUT);
    assert_non_null(strstr(result.error, "timed out connecting to proxy proxy.example:"));
    black_hole_close(&hole);
}

static void test_more_addresses_than_are_kept(void **state)
{
    struct socks6_dial_result result;
    uint16_t port;
    int fd = fake_closed_port("127.0.0.1", &port);

    (void)state;
    for (int i = 0; i < 40; i++) {
        has_address("127.0.0.1");
    }
    assert_int_equal(dial(port, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, "Connection refused"));
    close(fd);
}

static void test_resolver_failures_are_told(void **state)
{
    struct socks6_dial_result result;

    (void)state;
    names.error = EAI_NONAME;
    assert_int_equal(dial(1080, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, "cannot find the address of proxy proxy.example:1080: "));
    names.error = EAI_SYSTEM;
    assert_int_equal(dial(1080, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, strerror(EMFILE)));
    names.error = EAI_MEMORY;
    assert_int_equal(dial(1080, 0, &result), SOCKS6_DIAL_NOMEM);
    names.error = 0; /* and an empty list */
    assert_int_equal(dial(1080, 0, &result), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(result.error, "it has no usable address"));
}

/* Memory that ends at the first, second, ... allocation: told each time, and nothing is left behind. */
static void test_every_allocation_may_fail(void **state)
{
    int status = SOCKS6_DIAL_NOMEM;
    size_t before = fake_open_descriptors();

    (void)state;
    for (int n = 0; status != SOCKS6_DIAL_OK; n++) {
        struct socks6_dial_result result;
        struct fake_proxy fake;

        fake_start(&fake, "127.0.0.1", good_script);
        names.count = 0;
        has_address("127.0.0.1");
        fake.script = good_script;
        allocations_left = n;
        status = dial(fake.port, 30000, &result);
        allocations_left = -1;
        if (status == SOCKS6_DIAL_OK) {
            assert_true(n > 0);
            close(result.fd);
        } else {
            assert_int_equal(status, SOCKS6_DIAL_NOMEM);
            assert_non_null(strstr(result.error, "out of memory"));
            assert_int_equal(result.fd, -1);
        }
        fake_done(&fake);
        assert_true(n < 100);
    }
    assert_int_equal(fake_open_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_addresses_are_tried_in_turn, set_up),
        cmocka_unit_test_setup(test_last_failure_is_told, set_up),
        cmocka_unit_test_setup(test_black_hole_takes_its_share_only, set_up),
        cmocka_unit_test_setup(test_black_hole_alone_times_out, set_up),
        cmocka_unit_test_setup(test_more_addresses_than_are_kept, set_up),
        cmocka_unit_test_setup(test_resolver_failures_are_told, set_up),
        cmocka_unit_test_setup(test_every_allocation_may_fail, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
