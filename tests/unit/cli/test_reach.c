/*
 * The non-blocking way to a proxy, led by a loop as its callers do it, with and without what connections share. The proxy is a
 * thread with sessions and tokens, on a real loopback socket; the cache is a file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/proxy_find.h"
#include "cli/reach.h"

enum {
    OPTION_SESSION_REQUEST = 5,
    OPTION_SESSION_ID,
    OPTION_SESSION_UNTRUSTED,
    OPTION_SESSION_OK,
    OPTION_SESSION_INVALID
};
enum { OPTION_WINDOW_REQUEST = 11, OPTION_WINDOW, OPTION_TOKEN, OPTION_TOKEN_ACCEPTED, OPTION_TOKEN_REJECTED };

#define MANY 200u
#define WINDOW_MAX 4096u
#define FIRST_TOKEN 0xffffffc0u /* so that tokens go round */

/* --- memory that fails --- */

static _Thread_local long fails_in = -1; /* allocations until one fails; below 0 = never */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return fails_in >= 0 && fails_in-- == 0 ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return fails_in >= 0 && fails_in-- == 0 ? NULL : __real_calloc(count, size);
}

/* --- the proxy --- */

struct request {
    bool has_id, has_token, asks_session, asks_window, has_credentials, has_data;
    uint8_t id[16];
    uint32_t token;
};

static struct {
    int listener;
    uint16_t port;
    pthread_t thread;
    bool is_untrusted; /* its sessions are */
    size_t hold;       /* connections that are answered together, the last one first */
    uint32_t window;   /* its size */
    uint8_t sessions;  /* the number of the running one is its id */
    uint32_t base;
    uint8_t spent[WINDOW_MAX]; /* by token modulo the size */
    /* What happened. */
    struct request requests[4 * MANY];
    size_t count, rejected, invalid, with_token;
    int fds[4 * MANY];
} fake;

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

/* A request for an IPv4 address is 12 bytes and options. */
static void parse(const uint8_t *bytes, size_t len, struct request *out)
{
    size_t end, at = 12;

    *out = (struct request){0};
    must(len >= 12 && bytes[0] == 6 && bytes[7] == 1, "request");
    end = at + ((size_t)bytes[2] << 8 | bytes[3]);
    must(end <= len, "the request came in one piece");
    out->has_data = len > end;
    while (at < end) {
        unsigned kind = (unsigned)bytes[at] << 8 | bytes[at + 1];

        switch (kind) {
        case 4:
            out->has_credentials = true;
            break;
        case OPTION_SESSION_REQUEST:
            out->asks_session = true;
            break;
        case OPTION_SESSION_ID:
            out->has_id = true;
            memcpy(out->id, bytes + at + 4, sizeof out->id);
            break;
        case OPTION_WINDOW_REQUEST:
            out->asks_window = true;
            break;
        case OPTION_TOKEN:
            out->has_token = true;
            out->token = get32(bytes + at + 4);
            break;
        default:
            break;
        }
        at += (size_t)bytes[at + 2] << 8 | bytes[at + 3];
    }
}

/* As a proxy may: a token in the upper half of the window costs the lower half. */
static bool spend(uint32_t token)
{
    uint32_t offset = token - fake.base;

    if (offset >= fake.window || fake.spent[token % fake.window]) {
        return false;
    }
    fake.spent[token % fake.window] = 1;
    while (token - fake.base > fake.window / 2 && token - fake.base < fake.window) {
        fake.spent[fake.base++ % fake.window] = 0;
    }
    while (fake.spent[fake.base % fake.window]) {
        fake.spent[fake.base++ % fake.window] = 0;
    }
    return true;
}

static size_t put_option(uint8_t *at, unsigned kind, const uint8_t *data, size_t len)
{
    at[0] = 0;
    at[1] = (uint8_t)kind;
    at[2] = 0;
    at[3] = (uint8_t)(4 + len);
    if (len > 0) {
        memcpy(at + 4, data, len);
    }
    return 4 + len;
}

static void begin_session(void)
{
    fake.sessions++;
    fake.base = FIRST_TOKEN;
    memset(fake.spent, 0, sizeof fake.spent);
}

static void answer(int fd, const struct request *request)
{
    uint8_t out[128] = {6}, id[16] = {fake.sessions}, window[8];
    static const uint8_t reply[12] = {6, 0, 0, 0, 0x12, 0x34, 0, 1, 127, 0, 0, 1};
    bool is_known = request->has_id && memcmp(request->id, id, sizeof id) == 0 && fake.sessions > 0;
    size_t len = 4;

    if (request->has_id && !is_known) {
        fake.invalid++;
        out[1] = 1;
        len += put_option(out + len, OPTION_SESSION_INVALID, NULL, 0);
    } else if (is_known) {
        len += put_option(out + len, OPTION_SESSION_OK, NULL, 0);
    } else if (request->asks_session) {
        begin_session();
        id[0] = fake.sessions;
        len += put_option(out + len, OPTION_SESSION_ID, id, sizeof id);
        if (fake.is_untrusted) {
            len += put_option(out + len, OPTION_SESSION_UNTRUSTED, NULL, 0);
        }
        is_known = true;
    }
    if (is_known && request->has_token) {
        bool is_good = spend(request->token);

        fake.with_token++;
        fake.rejected += !is_good;
        out[1] = !is_good;
        len += put_option(out + len, is_good ? OPTION_TOKEN_ACCEPTED : OPTION_TOKEN_REJECTED, NULL, 0);
    }
    if (is_known) {
        put32(window, fake.base);
        put32(window + 4, fake.window);
        len += put_option(out + len, OPTION_WINDOW, window, sizeof window);
    }
    out[3] = (uint8_t)(len - 4);
    if (out[1] == 0) {
        memcpy(out + len, reply, sizeof reply);
        len += sizeof reply;
    }
    if (send(fd, out, len, MSG_NOSIGNAL) != (ssize_t)len) { /* it was given up meanwhile */
        must(errno == ECONNRESET || errno == EPIPE, "send");
    }
    if (out[1] != 0) {
        (void)shutdown(fd, SHUT_WR);
    }
}

static void *serve(void *unused)
{
    size_t held = 0;
    static uint8_t buf[2048];

    (void)unused;
    for (;;) {
        int fd = accept(fake.listener, NULL, NULL);
        ssize_t len;

        if (fd < 0) {
            return NULL;
        }
        must(fake.count < 4 * MANY, "room");
        len = recv(fd, buf, sizeof buf, 0);
        if (len <= 0) { /* it was given up */
            (void)close(fd);
            continue;
        }
        fake.fds[fake.count] = fd;
        parse(buf, (size_t)len, &fake.requests[fake.count++]);
        held++;
        if (held >= fake.hold) {
            for (; held > 0; held--) {
                size_t i = fake.count - fake.hold + held - 1;

                answer(fake.fds[i], &fake.requests[i]);
            }
        }
    }
}

static void start_proxy(size_t hold, uint32_t window)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof sin;

    fake.hold = hold;
    fake.window = window;
    fake.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fake.listener >= 0 && bind(fake.listener, (struct sockaddr *)&sin, sizeof sin) == 0, "bind");
    must(listen(fake.listener, 4096) == 0 && getsockname(fake.listener, (struct sockaddr *)&sin, &len) == 0, "listen");
    fake.port = ntohs(sin.sin_port);
    must(pthread_create(&fake.thread, NULL, serve, NULL) == 0, "pthread_create");
}

/* What it has noted can be read between this and the next start_proxy(). */
static void stop_proxy(void)
{
    (void)shutdown(fake.listener, SHUT_RDWR);
    must(pthread_join(fake.thread, NULL) == 0, "pthread_join");
    (void)close(fake.listener);
    for (size_t i = 0; i < fake.count; i++) {
        (void)close(fake.fds[i]);
    }
}

/* The last request but `back`. */
static const struct request *asked(size_t back)
{
    assert_true(fake.count > back);
    return &fake.requests[fake.count - 1 - back];
}

/* --- the client --- */

static char folder[] = "/tmp/test-reach-XXXXXX";
static char cache_path[64];
static struct socks6_proxy proxy;
static struct reach_config config;

static int setup(void **state)
{
    (void)state;
    (void)alarm(120);
    memset(&fake, 0, sizeof fake);
    (void)unlink(cache_path);
    return setenv("XDG_CACHE_HOME", folder, 1);
}

/* After start_proxy(). */
static void configure(struct reach_shared *shared)
{
    char why[128], url[64];

    (void)snprintf(url, sizeof url, "socks6://alice:secret@127.0.0.1:%u", fake.port);
    assert_int_equal(socks6_proxy_parse(url, &proxy, why, sizeof why), SOCKS6_OK);
    config = (struct reach_config){.shared = shared, .no_fast_open = true};
    socks6_dial_config_init(&config.dial);
    config.dial.proxy = &proxy;
    config.dial.timeout_ms = 60000;
    assert_int_equal(socks6_addr_parse("192.0.2.1", 80, &config.dial.addr), SOCKS6_OK);
}

static struct reach_shared *share(unsigned batch)
{
    struct reach_shared_config wanted = {.proxy = &proxy, .batch = batch};
    struct reach_shared *shared = NULL;

    configure(NULL);
    assert_int_equal(reach_shared_new(&wanted, &shared), 0);
    configure(shared);
    return shared;
}

/* `count` connections at once; all must succeed. */
static void reach_many(size_t count)
{
    static struct reach *reaches[MANY];
    static struct pollfd pfds[MANY];
    static struct stream streams[MANY];
    struct socks6_dial_result result;
    size_t left = count;

    assert_true(count <= MANY);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(reach_start(&config, &reaches[i], &streams[i], &result), SOCKS6_DIAL_IN_PROGRESS);
        assert_int_equal(streams[i].fd, -1);
    }
    while (left > 0) {
        for (size_t i = 0; i < count; i++) {
            pfds[i] = (struct pollfd){reaches[i] != NULL ? reach_fd(reaches[i]) : -1,
                                      reaches[i] != NULL ? reach_events(reaches[i]) : 0, 0};
            assert_true(reaches[i] == NULL || reach_timeout_ms(reaches[i]) > 0);
        }
        assert_true(poll(pfds, count, 60000) > 0);
        for (size_t i = 0; i < count; i++) {
            int status = SOCKS6_DIAL_IN_PROGRESS;

            if (pfds[i].revents != 0) {
                status = reach_step(reaches[i], &streams[i], &result);
            }
            if (status != SOCKS6_DIAL_IN_PROGRESS) {
                assert_string_equal(result.error, "");
                assert_int_equal(status, SOCKS6_DIAL_OK);
                assert_true(streams[i].fd >= 0);
                reach_free(reaches[i]);
                reaches[i] = NULL;
                left--;
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        stream_done(&streams[i]);
    }
}

static void reach_one(void)
{
    reach_many(1);
}

/* What another process takes. */
static struct cache_key key(void)
{
    return (struct cache_key){.host = "127.0.0.1", .port = fake.port, .user = "alice", .password = "secret"};
}

static uint32_t take_elsewhere(void)
{
    struct socks6_client_config settings;
    struct cache_key own = key();
    struct cache_use use;
    uint32_t token;

    socks6_client_config_init(&settings);
    assert_int_equal(cache_take(cache_path, &own, (uint64_t)time(NULL), 1024, &settings, &use), 0);
    assert_true(use.has_token);
    token = use.token;
    cache_use_done(&use);
    return token;
}

/* --- tests --- */

static void test_blocking_and_not_are_one(void **state)
{
    struct socks6_dial_result result;
    struct stream stream;

    (void)state;
    start_proxy(1, 1024);
    configure(NULL);
    assert_int_equal(reach(&config, &stream, &result), SOCKS6_DIAL_OK);
    assert_true(stream.fd >= 0);
    assert_null(stream.tls);
    stream_done(&stream);
    reach_one();
    stop_proxy();
    assert_true(asked(1)->asks_session && asked(1)->has_credentials);
    assert_true(asked(0)->has_id && asked(0)->has_token && !asked(0)->has_credentials);
    assert_int_equal(asked(0)->token, FIRST_TOKEN);
}

static void test_the_name_need_not_be_an_address(void **state)
{
    struct socks6_addr addresses[2];
    struct socks6_dial_result result;
    struct reach *one = NULL;
    struct stream stream;

    (void)state;
    start_proxy(1, 1024);
    configure(NULL);
    assert_int_equal(socks6_addr_parse("127.0.0.1", fake.port, &addresses[1]), SOCKS6_OK);
    assert_int_equal(socks6_addr_parse("127.0.0.2", fake.port, &addresses[0]), SOCKS6_OK); /* refuses */
    assert_int_equal(socks6_addr_parse("proxy.invalid", 1443, &proxy.addr), SOCKS6_OK);
    assert_int_equal(reach_start(&config, &one, &stream, &result), SOCKS6_DIAL_INVALID);
    assert_null(one);
    config.dial.proxy_addresses = addresses;
    config.dial.proxy_address_count = 2;
    reach_one();
    reach_one();
    stop_proxy();
    assert_int_equal(fake.count, 2);
    assert_true(asked(0)->has_token); /* the cache knows the name, whichever address it has */
}

static void test_lost_session_is_replaced(void **state)
{
    struct socks6_dial_result result;
    struct reach *one = NULL;
    struct stream stream;
    int status;

    (void)state;
    start_proxy(1, 1024);
    configure(NULL);
    reach_one();
    reach_one();
    fake.sessions++; /* nobody is connected */
    config.dial.early = (struct socks6_slice){(const uint8_t *)"data", 4};
    assert_int_equal(reach_start(&config, &one, &stream, &result), SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(reach_fd_count(one), 1);
    do {
        struct pollfd pfd = {reach_fd(one), reach_events(one), 0};
        unsigned count = reach_fd_count(one);

        assert_true(poll(&pfd, 1, 60000) > 0);
        status = reach_step(one, &stream, &result);
        if (status == SOCKS6_DIAL_IN_PROGRESS && reach_fd_count(one) != count) {
            assert_int_equal(reach_fd_count(one), 2);
        }
    } while (status == SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(status, SOCKS6_DIAL_OK);
    stream_done(&stream);
    reach_free(one);
    stop_proxy();
    assert_int_equal(fake.invalid, 1);
    assert_int_equal(fake.count, 4);
    assert_true(asked(1)->has_id && asked(1)->has_data);
    assert_true(asked(0)->asks_session && asked(0)->has_credentials && asked(0)->has_data);
}

static void test_one_asks_for_the_session_of_all(void **state)
{
    struct reach_shared *shared;
    size_t asking = 0;

    (void)state;
    start_proxy(50, 1024);
    shared = share(16);
    reach_many(50);
    stop_proxy();
    assert_int_equal(fake.sessions, 1);
    for (size_t i = 0; i < 50; i++) {
        assert_true(fake.requests[i].has_credentials && !fake.requests[i].has_token);
        asking += fake.requests[i].asks_session;
    }
    assert_int_equal(asking, 1);
    reach_shared_free(shared);
}

/* Answers come in the other order, so that with more on their way than half of the window tokens would be overtaken. */
static void test_many_at_once_and_none_rejected(void **state)
{
    static const uint32_t windows[] = {4096, 256, 16};
    struct reach_shared *shared;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        (void)setup(NULL);
        start_proxy(1, windows[i]);
        shared = share(64);
        reach_one();
        fake.hold = MANY;
        reach_many(MANY);
        fake.hold = 1;
        reach_many(MANY);
        stop_proxy();
        assert_int_equal(fake.sessions, 1);
        assert_int_equal(fake.rejected, 0);
        assert_int_equal(fake.count, 2 * MANY + 1);
        for (size_t j = 1; j <= 2u * MANY; j++) {
            assert_true(fake.requests[j].has_id && !fake.requests[j].has_credentials);
        }
        assert_true(fake.with_token >= (windows[i] == 4096 ? 2 * MANY : windows[i] / 2));
        reach_shared_free(shared);
    }
}

/* A token is in the file before it is sent, so the file's next one is beyond all that the proxy has seen. */
static void test_the_file_is_ahead_of_what_was_sent(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share(8);
    reach_one();
    for (uint32_t i = 0; i < 30; i++) {
        reach_one();
        assert_int_equal(asked(0)->token, FIRST_TOKEN + i);
    }
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 32);
    reach_one();
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 31);
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 33);
    reach_shared_free(shared);
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 34); /* the others of the lease went back */
    stop_proxy();
    assert_int_equal(fake.rejected, 0);
}

/* Another process has the file, and does not let go of it: what is leased is there all the same. */
static void test_a_lease_needs_no_file(void **state)
{
    struct reach_shared *shared;
    int fd;

    (void)state;
    start_proxy(1, 4096);
    shared = share(64);
    reach_one();
    reach_one();
    fd = open(cache_path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    reach_many(62);
    assert_true(asked(0)->has_token && asked(61)->has_token);
    reach_one(); /* all were given out, and no others can be marked in the file */
    assert_true(asked(0)->has_id && asked(0)->has_token);
    reach_one();
    assert_true(asked(0)->has_id && !asked(0)->has_token);
    assert_int_equal(close(fd), 0);
    stop_proxy();
    assert_int_equal(fake.rejected, 0);
    reach_shared_free(shared);
}

static void test_a_set_back_file_is_noticed(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 1024);
    shared = share(4);
    reach_one();
    reach_one();
    reach_shared_free(shared);
    for (int i = 0; i < 10; i++) { /* somebody else spends what the file believes to be unspent */
        must(spend(FIRST_TOKEN + 1 + (uint32_t)i), "spend");
    }
    shared = share(4);
    reach_one();
    reach_one();
    stop_proxy();
    assert_int_equal(fake.rejected, 1);
    assert_true(asked(0)->has_token && asked(1)->has_token && asked(2)->has_token);
    assert_int_equal(asked(2)->token, FIRST_TOKEN + 1);
    reach_shared_free(shared);
}

static void test_a_lost_session_is_told_to_others(void **state)
{
    struct reach_shared *shared, *other;

    (void)state;
    start_proxy(1, 1024);
    shared = share(16);
    reach_one();
    reach_one();
    fake.sessions++;
    reach_one();
    assert_int_equal(fake.invalid, 1);
    other = share(16); /* as another process */
    reach_one();
    configure(shared);
    reach_one();
    stop_proxy();
    assert_int_equal(fake.invalid, 1);
    assert_true(asked(0)->has_token && asked(1)->has_token);
    assert_int_not_equal(asked(0)->token, asked(1)->token);
    reach_shared_free(shared);
    reach_shared_free(other);
}

static void check_session(const struct reach_shared *shared, uint8_t number)
{
    struct socks6_slice session = reach_shared_session(shared);
    const uint8_t id[16] = {number};

    assert_int_equal(session.len, number == 0 ? 0 : sizeof id);
    if (number != 0) {
        assert_memory_equal(session.data, id, sizeof id);
    }
}

static void test_the_session_that_connections_are_in(void **state)
{
    struct reach_shared *shared, *other;

    (void)state;
    start_proxy(1, 1024);
    shared = share(16);
    check_session(shared, 0); /* none yet */
    reach_one();              /* has begun one, which stands in the file: the next one finds it there */
    reach_one();
    check_session(shared, 1);
    reach_one();
    check_session(shared, 1);
    fake.sessions++; /* the proxy has forgotten it */
    reach_one();
    assert_int_equal(fake.invalid, 1);
    check_session(shared, 0);
    reach_one();
    assert_int_equal(fake.invalid, 1);
    check_session(shared, 3);
    other = share(16); /* as another process, which learns of it when it needs it */
    check_session(other, 0);
    reach_one();
    check_session(other, 3);
    stop_proxy();
    reach_shared_free(shared);
    reach_shared_free(other);
}

static void test_the_session_without_a_file(void **state)
{
    struct reach_shared *shared;

    (void)state;
    assert_int_equal(setenv("XDG_CACHE_HOME", "/dev/null", 1), 0);
    start_proxy(1, 1024);
    shared = share(8);
    check_session(shared, 0);
    reach_one();
    check_session(shared, 1);
    stop_proxy();
    reach_shared_free(shared);
}

static void test_an_untrusted_session_is_none_to_go_by(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 1024);
    fake.is_untrusted = true;
    shared = share(16);
    reach_one();
    check_session(shared, 0);
    reach_one();
    check_session(shared, 0);
    stop_proxy();
    assert_true(asked(0)->has_id && asked(0)->has_credentials); /* though there is one */
    reach_shared_free(shared);
}

/* --- tokens for requests that are made elsewhere --- */

/* `count` tokens from `first` on, if `wanted` were asked for. */
static void expect_lent(struct reach_shared *shared, unsigned wanted, uint32_t first, unsigned count)
{
    uint32_t there = ~first;

    assert_int_equal(reach_shared_take_tokens(shared, wanted, &there), count);
    assert_int_equal(there, count > 0 ? first : ~first);
}

/* With a session, and one token spent. */
static struct reach_shared *share_in_session(unsigned batch)
{
    struct reach_shared *shared = share(batch);

    reach_one();
    reach_one();
    return shared;
}

static void test_lent_tokens_are_spent_for_everybody_else(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    assert_int_equal(asked(0)->token, FIRST_TOKEN);
    expect_lent(shared, 10, FIRST_TOKEN + 1, 10);
    expect_lent(shared, 0, 0, 0);
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 64);
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 11);
    expect_lent(shared, 64, FIRST_TOKEN + 12, 52); /* what the lease has */
    expect_lent(shared, 64, FIRST_TOKEN + 65, 64); /* another one, around the end */
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 129);
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 130);
    stop_proxy();
    assert_int_equal(fake.rejected, 0);
    reach_shared_free(shared);
}

static void test_lent_tokens_lie_in_a_row(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    expect_lent(shared, 10, FIRST_TOKEN + 1, 10);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 2, 3);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 7, 1);
    expect_lent(shared, 64, FIRST_TOKEN + 2, 3);
    expect_lent(shared, 64, FIRST_TOKEN + 7, 1);
    expect_lent(shared, 64, FIRST_TOKEN + 11, 53);
    stop_proxy();
    reach_shared_free(shared);
}

static void test_without_a_session_none_are_lent(void **state)
{
    const struct reach_shared_config keeps_nothing = {.proxy = &proxy, .batch = 64, .no_session = true};
    const struct socks6_window window = {.base = 5, .size = 100};
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share(64);
    expect_lent(shared, 64, 0, 0);
    reach_shared_learn_window(shared, &window); /* of nothing */
    expect_lent(shared, 64, 0, 0);
    reach_shared_free(shared);

    assert_int_equal(reach_shared_new(&keeps_nothing, &shared), 0);
    configure(shared);
    reach_one();
    reach_one();
    expect_lent(shared, 64, 0, 0);
    reach_shared_free(shared);

    shared = share(0); /* each connection has its own */
    configure(NULL);
    reach_one();
    reach_one();
    assert_true(asked(0)->has_token);
    expect_lent(shared, 64, 0, 0);
    reach_shared_learn_window(shared, &window);
    expect_lent(shared, 64, 0, 0);
    reach_shared_free(shared);
    stop_proxy();
}

static void test_without_a_file_tokens_are_lent_from_memory(void **state)
{
    struct reach_shared *shared;

    (void)state;
    assert_int_equal(setenv("XDG_CACHE_HOME", "/dev/null", 1), 0);
    start_proxy(1, 4096);
    shared = share_in_session(64);
    expect_lent(shared, 60, FIRST_TOKEN + 1, 60);
    expect_lent(shared, 60, FIRST_TOKEN + 61, 3);
    expect_lent(shared, 60, FIRST_TOKEN + 64, 60);
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 124);
    stop_proxy();
    reach_shared_free(shared);
}

/* One is on its way, and the proxy would give it up if one half a window ahead came first. */
static void test_no_token_is_lent_that_overtakes_one_on_its_way(void **state)
{
    struct socks6_dial_result result;
    struct reach_shared *shared;
    struct reach *one = NULL;
    struct stream stream;
    uint32_t first = 0, next = FIRST_TOKEN + 2;
    unsigned count;
    int status;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    assert_int_equal(reach_start(&config, &one, &stream, &result), SOCKS6_DIAL_IN_PROGRESS); /* FIRST_TOKEN + 1 */
    while ((count = reach_shared_take_tokens(shared, 64, &first)) > 0) {
        assert_int_equal(first, next);
        next = first + count;
    }
    assert_int_equal(next, FIRST_TOKEN + 1 + 4096 / 2);
    do {
        struct pollfd pfd = {reach_fd(one), reach_events(one), 0};

        assert_true(poll(&pfd, 1, 60000) > 0);
        status = reach_step(one, &stream, &result);
    } while (status == SOCKS6_DIAL_IN_PROGRESS);
    assert_int_equal(status, SOCKS6_DIAL_OK);
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 1);
    stream_done(&stream);
    reach_free(one);
    expect_lent(shared, 1, next, 1);
    stop_proxy();
    reach_shared_free(shared);
}

static void test_what_was_not_used_comes_back(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    expect_lent(shared, 40, FIRST_TOKEN + 1, 40);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 31, 10);
    reach_shared_return_tokens(shared, 0, 0);
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 31);
    expect_lent(shared, 64, FIRST_TOKEN + 32, 32);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 50, 14);
    reach_shared_free(shared);
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 50); /* by way of the file */
    stop_proxy();
}

static void test_what_comes_back_too_late_stays_spent(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    expect_lent(shared, 64, FIRST_TOKEN + 1, 63);
    reach_one(); /* has another lease */
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 64);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 1, 63);
    reach_shared_return_tokens(shared, FIRST_TOKEN + 128, 70); /* nor what was never ours */
    reach_one();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 65);
    expect_lent(shared, 64, FIRST_TOKEN + 66, 62);
    expect_lent(shared, 64, FIRST_TOKEN + 128, 64);
    /* Of two leases that were lent as one, what belongs to the running one. */
    reach_shared_return_tokens(shared, FIRST_TOKEN + 120, 72);
    expect_lent(shared, 64, FIRST_TOKEN + 128, 64);
    stop_proxy();
    reach_shared_free(shared);
}

static void test_a_window_that_is_told_gives_tokens_to_all(void **state)
{
    struct socks6_window window = {.base = FIRST_TOKEN + 17, .size = 16};
    struct reach_shared *shared;
    uint32_t first = 0, next = FIRST_TOKEN + 1;
    unsigned count;

    (void)state;
    start_proxy(1, 16);
    shared = share_in_session(64);
    while ((count = reach_shared_take_tokens(shared, 64, &first)) > 0) {
        assert_int_equal(first, next);
        next = first + count;
    }
    assert_int_equal(next, FIRST_TOKEN + 17); /* the whole window */
    reach_shared_learn_window(shared, &window);
    expect_lent(shared, 1, FIRST_TOKEN + 17, 1);
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 20); /* behind a lease of 16 / 8 + 1 */
    window.base = FIRST_TOKEN;                            /* it was told late */
    reach_shared_learn_window(shared, &window);
    expect_lent(shared, 64, FIRST_TOKEN + 18, 2);
    expect_lent(shared, 1, FIRST_TOKEN + 21, 1);
    stop_proxy();
    reach_shared_free(shared);
}

static void test_a_window_that_is_told_reaches_the_file(void **state)
{
    const struct socks6_window window = {.base = FIRST_TOKEN + 1000, .size = 4096};
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 4096);
    shared = share_in_session(64);
    expect_lent(shared, 64, FIRST_TOKEN + 1, 63);
    expect_lent(shared, 64, FIRST_TOKEN + 64, 64); /* the file knows all that the connections have heard */
    reach_shared_learn_window(shared, &window);
    reach_shared_free(shared);
    assert_int_equal(take_elsewhere(), FIRST_TOKEN + 1000);
    stop_proxy();
}

/* Two processes with leases and some without, one after the other and at once. */
static void test_processes_share_a_window(void **state)
{
    struct reach_shared *one, *other;
    size_t with_token;

    (void)state;
    start_proxy(1, 4096);
    one = share(64);
    other = share(16);
    for (int i = 0; i < 50; i++) {
        configure(one);
        reach_many(3);
        configure(other);
        reach_many(2);
        configure(NULL);
        reach_one();
    }
    with_token = fake.with_token;
    configure(one);
    fake.hold = MANY;
    reach_many(MANY);
    fake.hold = 1;
    stop_proxy();
    assert_int_equal(fake.rejected, 0);
    assert_int_equal(fake.sessions, 1);
    assert_true(with_token >= 50 * 6 - 3);
    assert_int_equal(fake.with_token, with_token + MANY);
    reach_shared_free(one);
    reach_shared_free(other);
}

static struct cache_use take_ticket_elsewhere(void)
{
    struct socks6_client_config settings;
    struct cache_key own = key();
    struct cache_use use;

    socks6_client_config_init(&settings);
    assert_int_equal(cache_take(cache_path, &own, (uint64_t)time(NULL), 0, &settings, &use), 0);
    return use;
}

static void assert_ticket(struct cache_use use, const char *wanted)
{
    if (wanted == NULL) {
        assert_null(use.ticket);
        return;
    }
    assert_non_null(use.ticket);
    assert_int_equal(use.ticket_len, strlen(wanted));
    assert_memory_equal(use.ticket, wanted, use.ticket_len);
    cache_use_done(&use);
}

static struct cache_use take_ticket_here(struct reach_shared *shared)
{
    struct socks6_client_config settings;
    struct reach_use use;
    struct cache_use taken;

    socks6_client_config_init(&settings);
    assert_int_equal(reach_shared_take(shared, &settings, &use), 0);
    taken = use.cache; /* the ticket is ours */
    use.cache.ticket = NULL;
    reach_shared_end(shared, &use);
    return taken;
}

static void put_ticket(struct reach_shared *shared, const char *text, uint64_t life_s)
{
    assert_int_equal(
        reach_shared_put_ticket(shared, (const uint8_t *)text, strlen(text), (uint64_t)time(NULL) + life_s), 0);
}

static void test_tickets_are_used_once_while_there_are_some(void **state)
{
    struct reach_shared *shared;

    (void)state;
    start_proxy(1, 1024);
    shared = share(8);
    assert_ticket(take_ticket_here(shared), NULL);
    put_ticket(shared, "one", 3600);
    put_ticket(shared, "two", 3600);
    put_ticket(shared, "old", 0);
    assert_ticket(take_ticket_here(shared), "two");
    assert_ticket(take_ticket_here(shared), "one");
    assert_ticket(take_ticket_here(shared), "one"); /* better than none */
    put_ticket(shared, "three", 3600);
    put_ticket(shared, "four", 3600);
    assert_ticket(take_ticket_here(shared), "four");
    assert_ticket(take_ticket_elsewhere(), NULL);
    reach_shared_free(shared);
    assert_ticket(take_ticket_elsewhere(), "three"); /* not the one that was used */
    shared = share(8);
    assert_ticket(take_ticket_here(shared), "three"); /* the last one stays in the file */
    reach_shared_free(shared);
    assert_ticket(take_ticket_elsewhere(), "three");
    assert_int_equal(reach_shared_new(&(struct reach_shared_config){.proxy = &proxy, .batch = 8}, &shared), 0);
    assert_int_equal(reach_shared_put_ticket(shared, (const uint8_t *)"", 0, 1), -EMSGSIZE);
    for (int i = 0; i < 20; i++) {
        put_ticket(shared, i < 19 ? "early" : "late", 3600);
    }
    assert_ticket(take_ticket_here(shared), "late");
    reach_shared_free(shared);
    stop_proxy();
}

static void test_without_a_file_memory_does(void **state)
{
    struct reach_shared *shared;

    (void)state;
    assert_int_equal(setenv("XDG_CACHE_HOME", "/dev/null", 1), 0);
    start_proxy(1, 1024);
    shared = share(8);
    reach_one();
    for (uint32_t i = 0; i < 20; i++) {
        reach_one();
        assert_true(asked(0)->has_token);
        assert_int_equal(asked(0)->token, FIRST_TOKEN + i);
    }
    fake.sessions++;
    reach_one();
    assert_int_equal(fake.invalid, 1);
    reach_one();
    assert_true(asked(0)->has_token);
    reach_shared_free(shared);

    fake.count = 0;
    configure(NULL);
    reach_one();
    reach_one();
    stop_proxy();
    assert_false(asked(0)->asks_session); /* by itself a connection could not remember it */
}

static void test_no_session_asks_for_none(void **state)
{
    struct reach_shared_config wanted = {.proxy = &proxy, .batch = 8, .no_session = true};
    struct reach_shared *shared = NULL;

    (void)state;
    start_proxy(1, 1024);
    configure(NULL);
    config.no_session = true;
    reach_one();
    assert_int_equal(reach_shared_new(&wanted, &shared), 0);
    configure(shared);
    reach_many(2);
    check_session(shared, 0);
    reach_shared_free(shared);
    stop_proxy();
    for (size_t i = 0; i < 3; i++) {
        assert_true(fake.requests[i].has_credentials);
        assert_false(fake.requests[i].asks_session || fake.requests[i].has_id || fake.requests[i].has_token);
    }
    assert_int_equal(access(cache_path, F_OK), -1);
}

/* Nobody listens: nothing was sent, and the tokens come back. One that is given up meanwhile may have sent its token. */
static void test_tokens_that_were_not_sent_come_back(void **state)
{
    struct socks6_dial_result result;
    struct reach_shared *shared;
    struct reach *one = NULL;
    struct stream stream;
    uint16_t port;

    (void)state;
    start_proxy(1, 1024);
    shared = share(4);
    reach_one();
    reach_one();
    port = proxy.addr.port;
    for (int i = 0; i < 10; i++) {
        struct socks6_addr closed;
        int status;

        assert_int_equal(socks6_addr_parse("127.0.0.2", port, &closed), SOCKS6_OK);
        config.dial.proxy_addresses = &closed;
        config.dial.proxy_address_count = 1;
        status = reach_start(&config, &one, &stream, &result);
        while (status == SOCKS6_DIAL_IN_PROGRESS) {
            struct pollfd pfd = {reach_fd(one), reach_events(one), 0};

            assert_true(poll(&pfd, 1, 60000) > 0);
            status = reach_step(one, &stream, &result);
            if (status != SOCKS6_DIAL_IN_PROGRESS) {
                reach_free(one);
            }
        }
        assert_int_equal(status, SOCKS6_DIAL_PROXY_FAILED);
        assert_non_null(strstr(result.error, "refused"));
        assert_int_equal(stream.fd, -1);
    }
    configure(shared);
    assert_int_equal(reach_start(&config, &one, &stream, &result), SOCKS6_DIAL_IN_PROGRESS);
    reach_free(one);
    reach_free(NULL);
    reach_one();
    reach_shared_free(shared);
    stop_proxy();
    assert_int_equal(asked(0)->token, FIRST_TOKEN + 2);
}

/* One connection while the n-th allocation fails. */
static bool survive(long n)
{
    struct socks6_dial_result result;
    struct reach *one = NULL;
    struct stream stream;
    int status;

    fails_in = n;
    status = reach_start(&config, &one, &stream, &result);
    while (status == SOCKS6_DIAL_IN_PROGRESS) {
        struct pollfd pfd = {reach_fd(one), reach_events(one), 0};

        assert_true(poll(&pfd, 1, 60000) > 0);
        status = reach_step(one, &stream, &result);
    }
    reach_free(one);
    assert_true(status == SOCKS6_DIAL_OK || status == SOCKS6_DIAL_NOMEM || status == SOCKS6_DIAL_PROXY_FAILED);
    assert_int_equal(stream.fd >= 0, status == SOCKS6_DIAL_OK);
    assert_int_equal(result.error[0] != '\0', status != SOCKS6_DIAL_OK);
    stream_done(&stream);
    n = fails_in;
    fails_in = -1;
    return status == SOCKS6_DIAL_OK && n >= 0;
}

static void test_memory_may_fail_anywhere(void **state)
{
    (void)state;
    start_proxy(1, 4096);
    for (unsigned batch = 0; batch <= 8; batch += 8) {
        struct reach_shared *shared = share(batch);
        long n = 0;

        reach_one();
        config.shared = batch > 0 ? shared : NULL;
        while (!survive(n)) {
            n++;
            assert_true(n < 1000);
        }
        assert_true(n > 2);
        reach_one();
        assert_true(asked(0)->has_token);
        reach_shared_free(shared);
    }
    stop_proxy();
    assert_int_equal(fake.rejected, 0);
}

static void test_addresses_are_found(void **state)
{
    static struct proxy_addresses found;
    char why[256];

    (void)state;
    fake.port = 1080;
    configure(NULL);
    assert_int_equal(proxy_find(&proxy, AF_UNSPEC, &found, NULL, NULL, why, sizeof why), SOCKS6_DIAL_OK);
    assert_int_equal(found.count, 1);
    assert_memory_equal(&found.list[0], &proxy.addr, sizeof proxy.addr);
    assert_int_equal(proxy_find(&proxy, AF_INET6, &found, NULL, NULL, why, sizeof why), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(why, "it has no IPv6 address"));
    assert_int_equal(socks6_addr_parse("localhost", 1443, &proxy.addr), SOCKS6_OK);
    assert_int_equal(proxy_find(&proxy, AF_INET, &found, NULL, NULL, why, sizeof why), SOCKS6_DIAL_OK);
    assert_true(found.count >= 1);
    assert_int_equal(found.list[0].type, SOCKS6_ADDR_IPV4);
    assert_int_equal(found.list[0].port, 1443);
    assert_true(socks6_addr_name("::1%1", 5, 1443, &proxy.addr)); /* a zone stays where it is */
    assert_int_equal(proxy_find(&proxy, AF_UNSPEC, &found, NULL, NULL, why, sizeof why), SOCKS6_DIAL_OK);
    assert_int_equal(found.list[0].type, SOCKS6_ADDR_NAME);
    assert_int_equal(socks6_addr_parse("no-such-host.invalid", 1443, &proxy.addr), SOCKS6_OK);
    assert_int_equal(proxy_find(&proxy, AF_UNSPEC, &found, NULL, NULL, why, sizeof why), SOCKS6_DIAL_PROXY_FAILED);
    assert_non_null(strstr(why, "cannot find the address of proxy no-such-host.invalid:1443: "));
}

static int open_folder(void **state)
{
    char path[64];

    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/socks6", folder);
    (void)snprintf(cache_path, sizeof cache_path, "%s/socks6/client", folder);
    return mkdir(path, 0700);
}

static int close_folder(void **state)
{
    char path[64];

    (void)state;
    (void)unlink(cache_path);
    (void)snprintf(path, sizeof path, "%s/socks6", folder);
    return rmdir(path) != 0 ? -1 : rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_blocking_and_not_are_one),
        TEST(test_the_name_need_not_be_an_address),
        TEST(test_lost_session_is_replaced),
        TEST(test_one_asks_for_the_session_of_all),
        TEST(test_many_at_once_and_none_rejected),
        TEST(test_the_file_is_ahead_of_what_was_sent),
        TEST(test_a_lease_needs_no_file),
        TEST(test_a_set_back_file_is_noticed),
        TEST(test_a_lost_session_is_told_to_others),
        TEST(test_the_session_that_connections_are_in),
        TEST(test_the_session_without_a_file),
        TEST(test_an_untrusted_session_is_none_to_go_by),
        TEST(test_lent_tokens_are_spent_for_everybody_else),
        TEST(test_lent_tokens_lie_in_a_row),
        TEST(test_without_a_session_none_are_lent),
        TEST(test_without_a_file_tokens_are_lent_from_memory),
        TEST(test_no_token_is_lent_that_overtakes_one_on_its_way),
        TEST(test_what_was_not_used_comes_back),
        TEST(test_what_comes_back_too_late_stays_spent),
        TEST(test_a_window_that_is_told_gives_tokens_to_all),
        TEST(test_a_window_that_is_told_reaches_the_file),
        TEST(test_processes_share_a_window),
        TEST(test_tickets_are_used_once_while_there_are_some),
        TEST(test_without_a_file_memory_does),
        TEST(test_no_session_asks_for_none),
        TEST(test_tokens_that_were_not_sent_come_back),
        TEST(test_memory_may_fail_anywhere),
        TEST(test_addresses_are_found),
    };

    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
