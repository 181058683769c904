#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "io/resolver.h"
#include "io/sock.h"

int __real_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list);
int __wrap_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list);
void __real_freeaddrinfo(struct addrinfo *list);
void __wrap_freeaddrinfo(struct addrinfo *list);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

int __real_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result);

/* What look-ups do: go to the system, or answer `code`, or a made-up list; "wait..." waits at the gate first. */
static struct {
    bool is_real;
    int code;
    struct addrinfo *list;
    unsigned frees, threads, looked_up;
    bool has_signal_open;
    bool no_threads;
    unsigned open_when_joined; /* times the gate opens once the pool is closing */
    sem_t entered, gate;
} fake;

int __wrap_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    sigset_t blocked;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (!sigismember(&blocked, SIGTERM)) {
        fake.has_signal_open = true;
    }
    if (strncmp(name, "wait", 4) == 0) {
        (void)sem_post(&fake.entered);
        while (sem_wait(&fake.gate) < 0) {
            continue;
        }
    }
    __atomic_add_fetch(&fake.looked_up, 1, __ATOMIC_SEQ_CST);
    if (fake.is_real) {
        return __real_getaddrinfo(name, service, hints, list);
    }
    if (fake.code == 0) {
        *list = fake.list;
    }
    return fake.code;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
    __atomic_add_fetch(&fake.frees, 1, __ATOMIC_SEQ_CST);
    if (fake.is_real) {
        __real_freeaddrinfo(list);
    }
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    if (fake.no_threads) {
        return EAGAIN;
    }
    fake.threads++;
    return __real_pthread_create(thread, attr, run, arg);
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    for (; fake.open_when_joined > 0; fake.open_when_joined--) {
        (void)sem_post(&fake.gate);
    }
    return __real_pthread_join(thread, result);
}

static struct loop *loop;
static struct resolver *resolver;

static struct {
    unsigned calls;
    enum resolver_status status;
    char why[64];
    struct socks6_addr addrs[RESOLVER_ADDRESSES_MAX];
    size_t count;
} answers;

static void on_answer(void *user, const struct resolver_answer *answer)
{
    (void)user;
    answers.calls++;
    answers.status = answer->status;
    (void)strncpy(answers.why, answer->why, sizeof answers.why - 1);
    answers.count = answer->count;
    assert_true(answer->count <= RESOLVER_ADDRESSES_MAX);
    if (answer->count > 0) {
        memcpy(answers.addrs, answer->addrs, answer->count * sizeof answer->addrs[0]);
    }
}

static unsigned wanted;

static bool has_answers(void *context)
{
    (void)context;
    return answers.calls >= wanted;
}

static int open_all(void **state)
{
    (void)state;
    harness_guard();
    memset(&fake, 0, sizeof fake);
    memset(&answers, 0, sizeof answers);
    fake.is_real = true;
    if (sem_init(&fake.entered, 0, 0) < 0 || sem_init(&fake.gate, 0, 0) < 0 || loop_new(&loop) < 0) {
        return -1;
    }
    return resolver_new(2, 3, &resolver);
}

static int close_all(void **state)
{
    (void)state;
    harness_fail(NULL, 0, 0);
    resolver_free(resolver);
    loop_free(loop);
    (void)sem_destroy(&fake.entered);
    (void)sem_destroy(&fake.gate);
    return fake.has_signal_open ? -1 : 0;
}

static struct resolver_query *start(const char *name)
{
    struct resolver_query *query = NULL;
    unsigned before = answers.calls;
    assert_int_equal(resolver_ask(resolver, loop, name, 443, on_answer, NULL, &query), 0);
    assert_int_equal(answers.calls, before);
    assert_non_null(query);
    return query;
}

static void wait_answers(unsigned count)
{
    wanted = count;
    harness_run_until(loop, has_answers, NULL);
}

static void ask(const char *name)
{
    (void)start(name);
    wait_answers(answers.calls + 1);
}

/* ---- answers ---- */

static void test_localhost_has_a_loopback_address(void **state)
{
    (void)state;
    static const uint8_t ipv6_loopback[16] = {[15] = 1};
    ask("localhost");
    assert_int_equal(answers.status, RESOLVER_OK);
    assert_string_equal(answers.why, "");
    assert_true(answers.count >= 1);
    for (size_t i = 0; i < answers.count; i++) {
        assert_int_equal(answers.addrs[i].port, 443);
        if (answers.addrs[i].type == SOCKS6_ADDR_IPV4) {
            assert_int_equal(answers.addrs[i].u.ipv4[0], 127);
        } else {
            assert_memory_equal(answers.addrs[i].u.ipv6, ipv6_loopback, 16);
        }
    }
}

static void test_numeric_forms_are_addresses(void **state)
{
    (void)state;
    ask("192.0.2.7");
    assert_int_equal(answers.status, RESOLVER_OK);
    assert_int_equal(answers.count, 1);
    assert_int_equal(answers.addrs[0].type, SOCKS6_ADDR_IPV4);
    assert_memory_equal(answers.addrs[0].u.ipv4, ((uint8_t[]){192, 0, 2, 7}), 4);
    ask("2001:db8::5");
    assert_int_equal(answers.count, 1);
    assert_int_equal(answers.addrs[0].type, SOCKS6_ADDR_IPV6);
    assert_int_equal(answers.addrs[0].u.ipv6[15], 5);
    ask("::ffff:192.0.2.7");
    assert_int_equal(answers.count, 1);
    assert_int_equal(answers.addrs[0].type, SOCKS6_ADDR_IPV4);
}

static void test_odd_names_have_no_address(void **state)
{
    (void)state;
    char longest[SOCKS6_NAME_MAX + 1], labels[SOCKS6_NAME_MAX + 1];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    for (size_t i = 0; i < sizeof labels - 1; i++) {
        labels[i] = i % 2 == 0 ? 'a' : '.';
    }
    labels[sizeof labels - 1] = '\0';
    const char *const names[] = {
        longest,   longest + 1, labels,       "",     ".",        "..", "a..b",       ".a",
        "a b",     "a\nb",      "\x01",       "\x7f", "\xff\xfe", "é",  "a.b.c.d..e", longest + (SOCKS6_NAME_MAX - 64),
        " x.test", "x.test ",   "fe80::1%lo",
    };
    unsigned count = sizeof names / sizeof names[0];
    for (unsigned i = 0; i < count; i++) {
        ask(names[i]);
        assert_int_equal(answers.status, RESOLVER_NO_ADDRESS);
        assert_int_equal(answers.count, 0);
        assert_true(strlen(answers.why) > 0);
    }
    assert_true(fake.looked_up <= 1); /* none of them was asked for but the scoped one */
}

static void test_names_at_the_limits_are_asked(void **state)
{
    (void)state;
    char name[256];
    fake.is_real = false;
    fake.code = EAI_NONAME;
    for (size_t i = 0; i < 253; i++) {
        name[i] = i % 64 == 63 ? '.' : 'a';
    }
    name[253] = '\0';
    ask(name);
    assert_int_equal(fake.looked_up, 1);
    name[253] = '.';
    name[254] = '\0';
    ask(name);
    assert_int_equal(fake.looked_up, 2);
}

static void test_codes_become_statuses(void **state)
{
    static const struct {
        int code;
        enum resolver_status status;
    } cases[] = {
        {EAI_NONAME, RESOLVER_NO_ADDRESS}, {EAI_NODATA, RESOLVER_NO_ADDRESS}, {EAI_ADDRFAMILY, RESOLVER_NO_ADDRESS},
        {EAI_AGAIN, RESOLVER_FAILED},      {EAI_FAIL, RESOLVER_FAILED},       {EAI_MEMORY, RESOLVER_FAILED},
        {EAI_SYSTEM, RESOLVER_FAILED},     {EAI_OVERFLOW, RESOLVER_FAILED},
    };
    (void)state;
    fake.is_real = false;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake.code = cases[i].code;
        ask("name.test");
        assert_int_equal(answers.status, cases[i].status);
        assert_int_equal(answers.count, 0);
        assert_true(strlen(answers.why) > 0);
    }
}

static void test_duplicates_and_scopes_are_dropped_and_order_kept(void **state)
{
    (void)state;
    struct sockaddr_in ipv4[3] = {{.sin_family = AF_INET}, {.sin_family = AF_INET}, {.sin_family = AF_INET}};
    ipv4[0].sin_addr.s_addr = htonl(0xc0000202);
    ipv4[1].sin_addr.s_addr = htonl(0xc0000201);
    ipv4[2].sin_addr.s_addr = htonl(0xc0000202);
    struct sockaddr_in6 ipv6[2] = {{.sin6_family = AF_INET6, .sin6_scope_id = 3}, {.sin6_family = AF_INET6}};
    ipv6[0].sin6_addr = (struct in6_addr){.s6_addr = {0xfe, 0x80, [15] = 1}};
    ipv6[1].sin6_addr = (struct in6_addr){.s6_addr = {0x20, 0x01, 0x0d, 0xb8, [15] = 9}};
    struct addrinfo infos[5];
    memset(infos, 0, sizeof infos);
    for (size_t i = 0; i < 5; i++) {
        infos[i].ai_next = i < 4 ? &infos[i + 1] : NULL;
        bool is_ipv6 = i == 1 || i == 3;
        infos[i].ai_family = is_ipv6 ? AF_INET6 : AF_INET;
        infos[i].ai_addr = is_ipv6 ? (struct sockaddr *)&ipv6[i / 2] : (struct sockaddr *)&ipv4[i / 2];
        infos[i].ai_addrlen = is_ipv6 ? sizeof ipv6[0] : sizeof ipv4[0];
    }
    fake.is_real = false;
    fake.list = infos;
    ask("name.test");
    assert_int_equal(answers.status, RESOLVER_OK);
    assert_int_equal(answers.count, 3);
    assert_int_equal(answers.addrs[0].u.ipv4[3], 2);
    assert_int_equal(answers.addrs[1].u.ipv4[3], 1);
    assert_int_equal(answers.addrs[2].u.ipv6[15], 9);
    assert_int_equal(fake.frees, 1);

    fake.list = &infos[1]; /* the scoped one alone is no address */
    infos[1].ai_next = NULL;
    ask("name.test");
    assert_int_equal(answers.status, RESOLVER_NO_ADDRESS);
}

static void test_long_lists_are_cut(void **state)
{
    enum { MANY = RESOLVER_ADDRESSES_MAX + 30 };
    static struct sockaddr_in addrs[MANY];
    static struct addrinfo infos[MANY];
    (void)state;
    memset(infos, 0, sizeof infos);
    for (unsigned i = 0; i < MANY; i++) {
        addrs[i].sin_family = AF_INET;
        addrs[i].sin_addr.s_addr = htonl(0x0a000000 + i);
        infos[i].ai_family = AF_INET;
        infos[i].ai_addr = (struct sockaddr *)&addrs[i];
        infos[i].ai_addrlen = sizeof addrs[i];
        infos[i].ai_next = i + 1 < MANY ? &infos[i + 1] : NULL;
    }
    fake.is_real = false;
    fake.list = infos;
    ask("name.test");
    assert_int_equal(answers.status, RESOLVER_OK);
    assert_int_equal(answers.count, RESOLVER_ADDRESSES_MAX);
    assert_int_equal(answers.addrs[0].u.ipv4[3], 0);
}

/* ---- the pool ---- */

static void wait_entered(unsigned count)
{
    while (count-- > 0) {
        while (sem_wait(&fake.entered) < 0) {
            continue;
        }
    }
}

static void open_gate(unsigned count)
{
    while (count-- > 0) {
        (void)sem_post(&fake.gate);
    }
}

static void test_full_queue_refuses(void **state)
{
    (void)state;
    fake.is_real = false;
    fake.code = EAI_NONAME;
    (void)start("wait1");
    (void)start("wait2");
    wait_entered(2); /* both threads are busy */
    for (int i = 0; i < 3; i++) {
        (void)start("wait-in-queue");
    }
    struct resolver_query *query = NULL;
    assert_int_equal(resolver_ask(resolver, loop, "name.test", 1, on_answer, NULL, &query), -EAGAIN);
    assert_null(query);
    open_gate(5);
    wait_answers(5);
    assert_int_equal(fake.threads, 2);
    ask("name.test"); /* there is room again */
}

static void test_threads_start_only_when_needed(void **state)
{
    (void)state;
    fake.is_real = false;
    fake.code = EAI_NONAME;
    assert_int_equal(fake.threads, 0);
    ask("name.test");
    assert_int_equal(fake.threads, 1);
}

static void test_no_thread_at_all_refuses(void **state)
{
    (void)state;
    struct resolver_query *query = NULL;
    fake.no_threads = true;
    assert_int_equal(resolver_ask(resolver, loop, "name.test", 1, on_answer, NULL, &query), -EAGAIN);
    assert_null(query);
    fake.no_threads = false;
    fake.is_real = false;
    fake.code = EAI_NONAME;
    ask("name.test");
}

static void test_cancelled_queries_are_silent(void **state)
{
    (void)state;
    fake.is_real = false;
    fake.code = EAI_NONAME;
    struct resolver_query *running[2] = {start("wait1"), start("wait2")};
    wait_entered(2);
    struct resolver_query *queued[3] = {start("wait3"), start("name.test"), start("wait5")};
    resolver_cancel(queued[1]); /* in the middle, then the first, then the last of the queue */
    resolver_cancel(queued[0]);
    resolver_cancel(queued[2]);
    struct resolver_query *last = start("last.test"); /* there is room again */
    (void)last;
    resolver_cancel(running[0]);
    open_gate(2);
    wait_answers(2); /* running[1] and last */
    harness_run_until_quiet(loop);
    assert_int_equal(answers.calls, 2);
    assert_int_equal(fake.looked_up, 3);
    resolver_cancel(NULL);
}

/*
 * With one thread: a query whose answer is in the mailbox, the loop not having run, because the next one is being
 * looked up.
 */
static struct resolver_query *answered_query(void)
{
    resolver_free(resolver);
    assert_int_equal(resolver_new(1, 3, &resolver), 0);
    fake.is_real = false;
    fake.code = EAI_NONAME;
    struct resolver_query *query = start("name.test");
    (void)start("wait1");
    wait_entered(1);
    return query;
}

static void test_cancel_of_an_answer_on_its_way_is_silent(void **state)
{
    (void)state;
    struct resolver_query *query = answered_query();
    resolver_cancel(query);
    open_gate(1);
    wait_answers(1);
    harness_run_until_quiet(loop);
    assert_int_equal(answers.calls, 1);
    assert_int_equal(fake.looked_up, 2);
}

static void test_answer_on_its_way_outlives_the_resolver(void **state)
{
    (void)state;
    struct resolver_query *query = answered_query();
    open_gate(1);
    resolver_free(resolver);
    resolver = NULL;
    resolver_cancel(query);
    harness_run_until_quiet(loop);
    assert_true(answers.calls <= 1); /* the other query's */
}

static void test_loop_may_go_first_if_its_queries_are_cancelled(void **state)
{
    (void)state;
    resolver_free(resolver);
    assert_int_equal(resolver_new(1, 3, &resolver), 0);
    fake.is_real = false;
    fake.code = EAI_NONAME;
    struct resolver_query *query = start("wait1");
    wait_entered(1);
    resolver_cancel(query);
    loop_free(loop);
    assert_int_equal(loop_new(&loop), 0);
    open_gate(1);
    ask("name.test"); /* by the same thread: the cancelled look-up has ended, and did not touch its loop */
    assert_int_equal(answers.calls, 1);
}

static struct resolver_query *own_query;

static void cancel_itself(void *user, const struct resolver_answer *answer)
{
    on_answer(user, answer);
    resolver_cancel(own_query);
}

static void test_cancel_within_the_answer_is_harmless(void **state)
{
    (void)state;
    assert_int_equal(resolver_ask(resolver, loop, "192.0.2.1", 1, cancel_itself, NULL, &own_query), 0);
    wait_answers(1);
}

static void test_free_drops_what_waits_and_runs(void **state)
{
    (void)state;
    fake.is_real = false;
    fake.code = EAI_NONAME;
    (void)start("wait1");
    (void)start("wait2");
    wait_entered(2);
    (void)start("name.test"); /* waits in the queue */
    (void)start("name.test");
    fake.open_when_joined = 2;
    resolver_free(resolver);
    resolver = NULL;
    harness_run_until_quiet(loop);
    assert_int_equal(answers.calls, 0); /* and AddressSanitizer counts the memory */
    assert_int_equal(fake.looked_up, 2);
}

static void test_without_memory_fails(void **state)
{
    (void)state;
    struct resolver *none = NULL;
    struct resolver_query *query = NULL;
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(resolver_new(1, 1, &none), -ENOMEM);
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(resolver_ask(resolver, loop, "name.test", 1, on_answer, NULL, &query), -ENOMEM);
    assert_null(query);
    harness_fail("calloc", 2, ENOMEM); /* the list of addresses, in the thread */
    ask("192.0.2.1");
    assert_int_equal(answers.status, RESOLVER_FAILED);
    assert_string_equal(answers.why, "out of memory");
    assert_int_equal(resolver_new(0, 1, &none), -EINVAL);
    assert_int_equal(resolver_new(65, 1, &none), -EINVAL);
    assert_int_equal(resolver_new(1, 0, &none), -EINVAL);
    assert_null(none);
    resolver_free(NULL);
}

#define RESOLVER_TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESOLVER_TEST(test_localhost_has_a_loopback_address),
        RESOLVER_TEST(test_numeric_forms_are_addresses),
        RESOLVER_TEST(test_odd_names_have_no_address),
        RESOLVER_TEST(test_names_at_the_limits_are_asked),
        RESOLVER_TEST(test_codes_become_statuses),
        RESOLVER_TEST(test_duplicates_and_scopes_are_dropped_and_order_kept),
        RESOLVER_TEST(test_long_lists_are_cut),
        RESOLVER_TEST(test_full_queue_refuses),
        RESOLVER_TEST(test_threads_start_only_when_needed),
        RESOLVER_TEST(test_no_thread_at_all_refuses),
        RESOLVER_TEST(test_cancelled_queries_are_silent),
        RESOLVER_TEST(test_cancel_of_an_answer_on_its_way_is_silent),
        RESOLVER_TEST(test_answer_on_its_way_outlives_the_resolver),
        RESOLVER_TEST(test_loop_may_go_first_if_its_queries_are_cancelled),
        RESOLVER_TEST(test_cancel_within_the_answer_is_harmless),
        RESOLVER_TEST(test_free_drops_what_waits_and_runs),
        RESOLVER_TEST(test_without_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
