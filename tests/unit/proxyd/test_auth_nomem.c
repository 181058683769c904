/*
 * The n-th allocation fails, for every n: users, passwords and sessions say so, keep what they had, and lose nothing. A
 * password that cannot be checked is busy, never right.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/passwords.h"
#include "proxyd/store_memory.h"

/* Allocations that still succeed, then none does; negative = all. From any thread. */
static _Atomic int left = -1;

static bool fails(void)
{
    int now = atomic_load(&left);

    while (now > 0 && !atomic_compare_exchange_weak(&left, &now, now - 1)) {
    }
    return now == 0;
}

/* The linker sends our calls here (--wrap); libc, libcrypt and OpenSSL keep their own. */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

/* bcrypt at its lowest cost, of "right". */
#define USERS "alice:$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\nrobot:*\n"

static const struct users *read_users(void)
{
    const struct users *users = NULL;
    struct users_error error;

    assert_int_equal(users_parse("users", USERS, sizeof USERS - 1, &users, &error), 0);
    return users;
}

static void test_reading_users_fails_cleanly(void **state)
{
    const struct users *users = NULL;
    struct users_error error;
    int n = 0, rc;

    (void)state;
    do {
        left = n++;
        rc = users_parse("users", USERS, sizeof USERS - 1, &users, &error);
        left = -1;
        if (rc != 0) {
            assert_string_equal(error.text, "users: no memory to read it");
            assert_null(users);
        }
    } while (rc != 0);
    assert_int_equal(n, 4); /* three allocations */
    users_release(users);
}

/* Everything a request can ask of a store; how many of the steps were done. */
static unsigned use_store(struct store *store)
{
    static const uint8_t local[4] = {127, 0, 0, 1};
    const struct store_owner owner = {
        .realm = "plain", .user = {(const uint8_t *)"alice", 5}, .client = socks6_addr_ipv4(local, 1)};
    struct store_query query = {.now_ms = 1};
    uint8_t id[STORE_ID_LEN];
    const struct socks6_slice id_slice = {id, sizeof id};

    assert_int_equal(store_session_start(store, &query, &owner), STORE_NOW);
    if (query.answer.status != STORE_OK) {
        assert_int_equal(query.answer.status, STORE_FAILED);
        assert_int_equal(store_session_count(store), 0);
        return 0;
    }
    memcpy(id, query.answer.id, sizeof id);
    assert_int_equal(store_window_request(store, &query, id_slice, "plain", 100), STORE_NOW);
    if (query.answer.status != STORE_OK) {
        assert_int_equal(query.answer.status, STORE_FAILED);
        assert_int_equal(query.answer.window.size, 0);
        assert_int_equal(store_session_end(store, &query, id_slice, "plain"), STORE_NOW);
        assert_int_equal(query.answer.status, STORE_OK);
        return 1;
    }
    assert_int_equal(store_token_spend(store, &query, id_slice, "plain", query.answer.window.base), STORE_NOW);
    assert_true(query.answer.accepted);
    assert_int_equal(store_session_end(store, &query, id_slice, "plain"), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_OK);
    return 2;
}

static void test_a_store_without_memory_grants_nothing(void **state)
{
    struct store_limits limits;
    struct store *store = NULL;
    unsigned seen[3] = {0, 0, 0}, done;
    int n = 0, rc;

    (void)state;
    store_limits_init(&limits);
    limits.per_user = 1; /* a place that is lost would be missed */
    limits.per_client = 1;
    do {
        left = n++;
        rc = store_memory_new(&limits, &store);
        left = -1;
        assert_true(rc == 0 || rc == -ENOMEM);
    } while (rc != 0);
    n = 0;
    do {
        left = n++;
        done = use_store(store);
        left = -1;
        seen[done]++;
        assert_int_equal(store_session_count(store), 0);
    } while (done < 2);
    assert_true(seen[0] > 0 && seen[1] > 0);
    assert_int_equal(use_store(store), 2);
    store_free(store);
}

static struct loop *loop;
static enum password_verdict answered;

static void on_answer(void *user, enum password_verdict verdict)
{
    (void)user;
    answered = verdict;
    loop_stop(loop);
}

static void test_a_password_without_memory_is_not_right(void **state)
{
    static const uint8_t local[4] = {127, 0, 0, 1};
    const struct socks6_addr client = socks6_addr_ipv4(local, 1);
    const struct socks6_credentials given = {.username = {(const uint8_t *)"alice", 5},
                                             .password = {(const uint8_t *)"right", 5}};
    const struct users *users = read_users();
    struct passwords_config config;
    struct passwords *passwords = NULL;
    struct password_check *check;
    unsigned refusals = 0;
    int n = 0, rc;

    (void)state;
    (void)alarm(60);
    passwords_config_init(&config);
    do {
        left = n++;
        rc = passwords_new(&config, &passwords);
        left = -1;
        assert_true(rc == 0 || rc == -ENOMEM);
    } while (rc != 0);
    assert_int_equal(loop_new(&loop), 0);
    n = 0;
    do {
        left = n++;
        if (passwords_check(passwords, users, loop, &client, &given, on_answer, NULL, &answered, &check) ==
            PASSWORD_LATER) {
            rc = loop_run(loop);
        }
        left = -1;
        assert_int_equal(rc, 0);
        refusals += answered != PASSWORD_RIGHT;
        assert_true(answered == PASSWORD_RIGHT || answered == PASSWORD_BUSY);
    } while (answered != PASSWORD_RIGHT);
    assert_in_range(refusals, 2, 9);
    passwords_free(passwords);
    loop_free(loop);
    users_release(users);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading_users_fails_cleanly),
        cmocka_unit_test(test_a_store_without_memory_grants_nothing),
        cmocka_unit_test(test_a_password_without_memory_is_not_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
