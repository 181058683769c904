/*
 * Who is in force, and what a change of it tells the workers: whose connections end, whose sessions. The n-th allocation
 * fails, for every n, and nothing has changed then.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/accounts.h"
#include "proxyd/config_internal.h"

#define HASH "$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC"
#define OTHER "$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiD"
#define WORKERS 3

static _Atomic int left = -1;

static bool fails(void)
{
    int now = atomic_load(&left);

    while (now > 0 && !atomic_compare_exchange_weak(&left, &now, now - 1)) {
    }
    return now == 0;
}

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

static char path[] = "/tmp/test_accounts.XXXXXX";
static struct loop *loop;
static struct accounts *accounts;
static struct accounts_change *told; /* the last change, with the workers' references */

static void tell(void *user, struct accounts_change *change)
{
    assert_ptr_equal(user, &loop);
    assert_null(told);
    told = change;
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_ptr_equal(change->orders[i].change, change);
    }
}

/* All workers have heard it. */
static void hear(void)
{
    struct accounts_change *change = told;

    told = NULL;
    for (unsigned i = 0; i < WORKERS; i++) {
        accounts_change_release(change);
    }
}

static void write_users(const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* NULL: nobody logs in. */
static const struct config *load(const char *users)
{
    const struct config *config = NULL;
    struct config_error error;
    char text[256] = "";

    if (users != NULL) {
        write_users(users);
        (void)snprintf(text, sizeof text, "auth: {methods: password, users: %s}\n", path);
    }
    if (config_load_memory("f.yaml", text, strlen(text), NULL, 0, &config, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return config;
}

static void start(const char *users)
{
    const struct config *config = load(users);

    assert_int_equal(accounts_new(loop, config, WORKERS, tell, &loop, &accounts), 0);
    config_release(config);
}

/* A reload. Whether there was anything to tell. */
static bool reload(const char *users)
{
    const struct config *config = load(users);
    struct accounts_change *change = NULL;

    assert_int_equal(accounts_prepare(accounts, config->auth.users, &change), 0);
    accounts_commit(accounts, config, change);
    config_release(config);
    return change != NULL;
}

static void new_session(const char *user, uint8_t id[STORE_ID_LEN])
{
    const uint8_t ip[4] = {192, 0, 2, 1};
    struct store_query query = {.loop = loop, .now_ms = 1};
    const struct store_owner owner = {
        .realm = "here",
        .user = {(const uint8_t *)user, strlen(user)},
        .client = socks6_addr_ipv4(ip, 1),
    };

    assert_int_equal(store_session_start(accounts_store(accounts), &query, &owner), STORE_NOW);
    assert_int_equal(query.answer.status, STORE_OK);
    memcpy(id, query.answer.id, STORE_ID_LEN);
}

static bool lives(const uint8_t id[STORE_ID_LEN])
{
    struct store_query query = {.loop = loop, .now_ms = 1};

    assert_int_equal(
        store_session_lookup(accounts_store(accounts), &query, (struct socks6_slice){id, STORE_ID_LEN}, "here"),
        STORE_NOW);
    return query.answer.status == STORE_OK;
}

static bool is_name(struct socks6_slice slice, const char *name)
{
    return slice.len == strlen(name) && memcmp(slice.data, name, slice.len) == 0;
}

static void test_a_change_names_who_is_gone_and_ends_sessions_twice(void **state)
{
    uint8_t alice[STORE_ID_LEN], bob[STORE_ID_LEN], carol[STORE_ID_LEN], late[STORE_ID_LEN], nobody[STORE_ID_LEN];

    (void)state;
    start("alice:" HASH "\nbob:" HASH "\ncarol:" HASH "\n");
    new_session("alice", alice);
    new_session("bob", bob);
    new_session("carol", carol);
    new_session("", nobody);
    assert_true(reload("alice:" HASH "\ncarol:" OTHER "\ndave:" HASH "\n"));
    assert_int_equal(told->removed_count, 1);
    assert_true(is_name(told->removed[0], "bob"));
    assert_int_equal(told->changed_count, 2);
    assert_true(is_name(told->changed[0], "bob") && is_name(told->changed[1], "carol"));
    assert_int_equal(users_count(told->after), 3);
    assert_ptr_equal(accounts_users(accounts), told->after);
    assert_true(lives(alice) && lives(nobody));
    assert_false(lives(bob) || lives(carol));
    new_session("bob", late); /* by a worker that has not heard of it */
    hear();
    assert_false(lives(late));
    assert_true(lives(alice) && lives(nobody));
    accounts_free(accounts);
}

static void test_the_same_users_are_no_news(void **state)
{
    (void)state;
    start("alice:" HASH "\n");
    assert_false(reload("# another comment\nalice:" HASH "\n"));
    assert_true(reload("alice:" HASH "\nbob:*\n"));
    assert_int_equal(told->changed_count, 0);
    hear();
    accounts_free(accounts);
    start(NULL);
    assert_null(accounts_users(accounts));
    assert_false(reload(NULL));
    accounts_free(accounts);
}

static void test_without_users_all_are_gone(void **state)
{
    (void)state;
    start("alice:" HASH "\nbob:*\n");
    assert_true(reload(NULL));
    assert_int_equal(told->removed_count, 2);
    assert_null(told->after);
    assert_null(accounts_users(accounts));
    hear();
    assert_true(reload("alice:" HASH "\n"));
    assert_int_equal(told->removed_count, 0);
    hear();
    accounts_free(accounts);
}

/* A reload with PAM, by this service; NULL: with nobody. */
static void reload_pam(const char *service)
{
    const struct config *config = load(NULL);
    const struct users *users = NULL;
    struct accounts_change *change = NULL;

    if (service != NULL) {
        assert_int_equal(users_of_pam(service, 60000, &users), 0);
    }
    assert_int_equal(accounts_prepare(accounts, users, &change), 0);
    assert_non_null(change);
    accounts_commit(accounts, config, change);
    users_release(users);
    config_release(config);
}

static void test_with_pam_all_sessions_end_and_connections_if_it_goes(void **state)
{
    uint8_t alice[STORE_ID_LEN], bob[STORE_ID_LEN], late[STORE_ID_LEN], nobody[STORE_ID_LEN];

    (void)state;
    start("alice:" HASH "\n");
    reload_pam("socks6d");
    assert_int_equal(told->removed_count, 1); /* alice of the file */
    assert_false(told->removes_everyone || told->changes_everyone);
    hear();
    new_session("alice", alice);
    new_session("bob", bob);
    new_session("", nobody);
    reload_pam("socks6d");
    assert_int_equal(told->removed_count, 0);
    assert_false(told->removes_everyone);
    assert_false(lives(alice) || lives(bob));
    new_session("bob", late); /* by a worker that has not heard of it */
    hear();
    assert_false(lives(late));
    assert_true(lives(nobody));
    reload_pam("other");
    assert_true(told->removes_everyone);
    hear();
    new_session("bob", bob);
    assert_true(reload("bob:" HASH "\n"));
    assert_true(told->removes_everyone);
    assert_int_equal(told->removed_count, 0);
    hear();
    assert_false(lives(bob));
    reload_pam("other");
    hear();
    reload_pam(NULL);
    assert_true(told->removes_everyone);
    assert_null(told->after);
    hear();
    assert_true(lives(nobody));
    accounts_free(accounts);
}

static void test_a_change_can_be_discarded(void **state)
{
    struct accounts_change *change = NULL;
    const struct config *config;

    (void)state;
    start("alice:" HASH "\n");
    config = load("bob:" HASH "\n");
    assert_int_equal(accounts_prepare(accounts, config->auth.users, &change), 0);
    assert_non_null(change);
    accounts_change_discard(change);
    accounts_change_discard(NULL);
    accounts_change_release(NULL);
    assert_null(told);
    config_release(config);
    accounts_free(accounts);
}

static void test_without_memory_nothing_changes(void **state)
{
    const struct config *config = load("bob:" HASH "\n"), *before = load("alice:" HASH "\n");
    struct accounts_change *change = NULL;
    int n = 0, rc;

    (void)state;
    do {
        left = n++;
        rc = accounts_new(loop, before, WORKERS, tell, &loop, &accounts);
        left = -1;
        assert_true(rc == 0 || rc == -ENOMEM);
    } while (rc != 0);
    assert_in_range(n, 4, 100);
    n = 0;
    do {
        left = n++;
        rc = accounts_prepare(accounts, config->auth.users, &change);
        left = -1;
        assert_true(rc == 0 || (rc == -ENOMEM && change == NULL));
    } while (rc != 0);
    assert_int_equal(n, 4); /* three allocations */
    accounts_change_discard(change);
    config_release(config);
    config_release(before);
    accounts_free(accounts);
}

/* Runs the loop for so long that the file was looked at some times more. */
static void on_end(struct loop_timer *timer)
{
    (void)timer;
    loop_stop(loop);
}

static void run_for(uint64_t ms)
{
    struct loop_timer timer = {.expired = on_end};

    loop_timer_set(loop, &timer, ms);
    assert_int_equal(loop_run(loop), 0);
}

static void test_the_file_is_followed_and_a_bad_one_is_not_taken(void **state)
{
    const struct users *before;

    (void)state;
    start("alice:" HASH "\n");
    before = accounts_users(accounts);
    write_users("alice:secret\n");
    run_for(2500);
    assert_null(told);
    assert_ptr_equal(accounts_users(accounts), before);
    write_users("bob:" HASH "\n");
    run_for(2500);
    assert_non_null(told);
    assert_true(is_name(told->removed[0], "alice"));
    hear();
    /* What could not be read is reported once, and read again when it changes. */
    write_users("carol:" HASH "\n");
    left = 0;
    run_for(2500);
    left = -1;
    assert_null(told);
    write_users("carol:" HASH "\n\n");
    run_for(2500);
    assert_non_null(told);
    hear();
    accounts_free(accounts);
}

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 || close(fd) != 0 || loop_new(&loop) != 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_change_names_who_is_gone_and_ends_sessions_twice),
        cmocka_unit_test(test_the_same_users_are_no_news),
        cmocka_unit_test(test_without_users_all_are_gone),
        cmocka_unit_test(test_with_pam_all_sessions_end_and_connections_if_it_goes),
        cmocka_unit_test(test_a_change_can_be_discarded),
        cmocka_unit_test(test_without_memory_nothing_changes),
        cmocka_unit_test(test_the_file_is_followed_and_a_bad_one_is_not_taken),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
