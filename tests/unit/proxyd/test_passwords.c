/*
 * Checking passwords: on real loops and threads, with a clock of the tests' own. Hashing is real, or waits at a gate and
 * answers what the test says. PAM is a function of ours.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <crypt.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proxyd/backoff.h"
#include "proxyd/password_cache.h"
#include "proxyd/passwords.h"

char *__real_crypt_rn(const char *phrase, const char *setting, void *data, int size);
char *__wrap_crypt_rn(const char *phrase, const char *setting, void *data, int size);

static pthread_mutex_t setting_lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    _Atomic bool is_gated;
    _Atomic unsigned calls;
    sem_t entered, gate;
    char setting[CRYPT_OUTPUT_SIZE]; /* of the last call */
} hashing;

static void pass(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0) {
    }
}

char *__wrap_crypt_rn(const char *phrase, const char *setting, void *data, int size)
{
    hashing.calls++;
    if (hashing.is_gated) {
        (void)sem_post(&hashing.entered);
        pass(&hashing.gate);
    }
    (void)pthread_mutex_lock(&setting_lock);
    (void)strcpy(hashing.setting, setting);
    (void)pthread_mutex_unlock(&setting_lock);
    return __real_crypt_rn(phrase, setting, data, size);
}

static _Atomic uint64_t now_ms;

static uint64_t test_clock(void)
{
    return now_ms;
}

static struct loop *loop;
static struct passwords *passwords;
static struct passwords_config config;
static const struct users *users;
static struct socks6_addr client;

static struct {
    unsigned calls, wanted;
    enum password_verdict verdicts[512];
} answers;

static void on_answer(void *user, enum password_verdict verdict)
{
    (void)user;
    answers.verdicts[answers.calls++] = verdict;
    if (answers.calls == answers.wanted) {
        loop_stop(loop);
    }
}

static void await(unsigned count)
{
    answers.wanted = count;
    if (answers.calls < count) {
        assert_int_equal(loop_run(loop), 0);
    }
    assert_int_equal(answers.calls, count);
}

/* Hashes of "right" at the lowest costs, one of each kind. */
static const char *hash_of(const char *prefix, unsigned long cost, const char *password)
{
    static struct crypt_data data;
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];

    assert_non_null(crypt_gensalt_rn(prefix, cost, NULL, 0, setting, sizeof setting));
    memset(&data, 0, sizeof data);
    return __real_crypt_rn(password, setting, &data, sizeof data);
}

static const struct users *parse(const char *text)
{
    const struct users *parsed = NULL;
    struct users_error error;

    if (users_parse("users", text, strlen(text), &parsed, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return parsed;
}

static void set_client(uint8_t last)
{
    client = socks6_addr_ipv4((const uint8_t[4]){192, 0, 2, last}, 1);
}

static int setup(void **state)
{
    char text[1024];
    int len = 0;

    (void)state;
    (void)alarm(60);
    memset(&answers, 0, sizeof answers);
    hashing.is_gated = false;
    hashing.calls = 0;
    (void)sem_init(&hashing.entered, 0, 0);
    (void)sem_init(&hashing.gate, 0, 0);
    now_ms = 1000;
    set_client(1);
    len += snprintf(text + len, sizeof text - (size_t)len, "alice:%s\n", hash_of("$6$", 1000, "right"));
    len += snprintf(text + len, sizeof text - (size_t)len, "bob:%s\n", hash_of("$2b$", 4, "right"));
    len += snprintf(text + len, sizeof text - (size_t)len, "carol:%s\n", hash_of("$y$", 1, "right"));
    (void)snprintf(text + len, sizeof text - (size_t)len, "robot:*\n");
    users = parse(text);
    passwords_config_init(&config);
    config.clock_ms = test_clock;
    return loop_new(&loop) == 0 && passwords_new(&config, &passwords) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    passwords_free(passwords);
    loop_free(loop);
    users_release(users);
    return 0;
}

static struct socks6_credentials credentials(const char *name, const char *password)
{
    return (struct socks6_credentials){
        .username = {(const uint8_t *)name, strlen(name)},
        .password = {(const uint8_t *)password, strlen(password)},
    };
}

static enum password_timing ask(const struct socks6_credentials *given, enum password_verdict *verdict,
                                struct password_check **check)
{
    return passwords_check(passwords, users, loop, &client, given, on_answer, NULL, verdict, check);
}

/* Asks and waits. */
static enum password_verdict check_given(const struct socks6_credentials *given)
{
    enum password_verdict verdict;
    struct password_check *check;

    if (ask(given, &verdict, &check) == PASSWORD_NOW) {
        return verdict;
    }
    await(answers.calls + 1);
    return answers.verdicts[answers.calls - 1];
}

static enum password_verdict check(const char *name, const char *password)
{
    struct socks6_credentials given = credentials(name, password);

    return check_given(&given);
}

static struct password_check *ask_later(const char *name, const char *password)
{
    struct socks6_credentials given = credentials(name, password);
    enum password_verdict verdict;
    struct password_check *later = NULL;

    assert_int_equal(ask(&given, &verdict, &later), PASSWORD_LATER);
    assert_non_null(later);
    return later;
}

static enum password_verdict ask_now(const char *name, const char *password)
{
    struct socks6_credentials given = credentials(name, password);
    enum password_verdict verdict;
    struct password_check *later = NULL;

    assert_int_equal(ask(&given, &verdict, &later), PASSWORD_NOW);
    return verdict;
}

static void open_gate(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        (void)sem_post(&hashing.gate);
    }
}

static void test_each_kind_of_hash_is_checked(void **state)
{
    static const char *const names[] = {"alice", "bob", "carol"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(check(names[i], "wrong"), PASSWORD_WRONG);
        assert_int_equal(check(names[i], "righ"), PASSWORD_WRONG);
        assert_int_equal(check(names[i], ""), PASSWORD_WRONG);
        assert_int_equal(check(names[i], "right"), PASSWORD_RIGHT);
    }
}

static void test_who_has_no_password_cannot_log_in(void **state)
{
    (void)state;
    assert_int_equal(check("robot", "right"), PASSWORD_WRONG);
    assert_int_equal(check("robot", "*"), PASSWORD_WRONG);
    assert_int_equal(check("robot", ""), PASSWORD_WRONG);
    assert_int_equal(check("zed", "right"), PASSWORD_WRONG);
    assert_int_equal(check("", "right"), PASSWORD_WRONG);
    assert_int_equal(check("Alice", "right"), PASSWORD_WRONG);
}

/* crypt(3) would look at what stands before the NUL only. */
static void test_a_password_with_a_nul_is_wrong(void **state)
{
    struct socks6_credentials given = credentials("alice", "right");
    static const uint8_t longer[] = "right\0and more";

    (void)state;
    given.password = (struct socks6_slice){longer, sizeof longer - 1};
    assert_int_equal(check_given(&given), PASSWORD_WRONG);
    given.password.len = 6;
    assert_int_equal(check_given(&given), PASSWORD_WRONG);
    given.password.len = 5;
    assert_int_equal(check_given(&given), PASSWORD_RIGHT);
}

static void test_the_longest_passwords_work(void **state)
{
    char password[SOCKS6_PASSWORD_MAX + 1], line[512];
    const struct users *setup_users = users;

    (void)state;
    memset(password, 'p', SOCKS6_PASSWORD_MAX);
    password[SOCKS6_PASSWORD_MAX] = '\0';
    (void)snprintf(line, sizeof line, "dave:%s\n", hash_of("$6$", 1000, password));
    users = parse(line);
    assert_int_equal(check("dave", password), PASSWORD_RIGHT);
    password[SOCKS6_PASSWORD_MAX - 1] = 'q';
    assert_int_equal(check("dave", password), PASSWORD_WRONG);
    users_release(users);
    users = setup_users;
}

static void test_what_was_right_is_answered_at_once(void **state)
{
    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(hashing.calls, 1);
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    set_client(2); /* whoever it is */
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(hashing.calls, 1);
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG); /* what was wrong is not remembered */
    assert_int_equal(check("bob", "right"), PASSWORD_RIGHT);
    assert_int_equal(hashing.calls, 4);
}

static void test_what_was_right_is_forgotten_in_time(void **state)
{
    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    now_ms += config.cache_ms - 1;
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    now_ms += 1;
    (void)ask_later("alice", "right");
    await(2);
    assert_int_equal(hashing.calls, 2);
}

static void test_a_changed_or_removed_user_is_not_in_the_cache(void **state)
{
    const struct users *before = users;
    char line[256];

    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    (void)snprintf(line, sizeof line, "alice:%s\n", hash_of("$6$", 1000, "new"));
    users = parse(line);
    assert_int_equal(check("alice", "right"), PASSWORD_WRONG);
    assert_int_equal(check("alice", "new"), PASSWORD_RIGHT);
    users_release(users);
    users = parse("alice:*\n");
    assert_int_equal(check("alice", "right"), PASSWORD_WRONG);
    users_release(users);
    users = parse("");
    assert_int_equal(check("alice", "right"), PASSWORD_WRONG);
    users_release(users);
    users = before;
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
}

/* With no user that has a password the decoy is our own, and must be one that crypt(3) really works on. */
static void test_unknown_names_cost_a_hash(void **state)
{
    static struct crypt_data data;
    const struct users *before = users;
    bool seen[3] = {false, false, false};

    (void)state;
    for (int i = 0; i < 300; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "nobody%d", i);
        set_client((uint8_t)(i / 5));
        assert_int_equal(check(name, "right"), PASSWORD_WRONG);
        assert_int_equal(hashing.calls, i + 1);
        for (size_t j = 0; j < 3; j++) {
            seen[j] |= strcmp(hashing.setting, users_at(users, j)->hash) == 0;
        }
    }
    assert_true(seen[0] && seen[1] && seen[2]); /* the costs of all who have one */
    assert_int_equal(check("nobody7", "right"), PASSWORD_WRONG);
    users = parse("robot:*\n");
    assert_int_equal(check("alice", "right"), PASSWORD_WRONG);
    assert_int_equal(hashing.calls, 302);
    assert_memory_equal(hashing.setting, "$y$j9T$", 7);
    memset(&data, 0, sizeof data);
    assert_int_equal(strlen(__real_crypt_rn("x", hashing.setting, &data, sizeof data)), strlen(hashing.setting));
    users_release(users);
    users = before;
}

/* The same name gets the same decoy: else asking twice would tell that it does not exist. */
static void test_an_unknown_name_keeps_its_decoy(void **state)
{
    char first[CRYPT_OUTPUT_SIZE];

    (void)state;
    assert_int_equal(check("nobody", "a"), PASSWORD_WRONG);
    (void)strcpy(first, hashing.setting);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(check("nobody", "b"), PASSWORD_WRONG);
        assert_string_equal(hashing.setting, first);
    }
}

static void test_equal_checks_cost_one_hash(void **state)
{
    (void)state;
    hashing.is_gated = true;
    for (int i = 0; i < 100; i++) {
        set_client((uint8_t)i);
        (void)ask_later("alice", "right");
    }
    open_gate(1);
    await(100);
    assert_int_equal(hashing.calls, 1);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(answers.verdicts[i], PASSWORD_RIGHT);
    }
}

static void test_guessing_must_wait(void **state)
{
    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT); /* cached from now on */
    for (unsigned i = 0; i <= BACKOFF_FREE; i++) {
        assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    }
    assert_int_equal(ask_now("alice", "wrong"), PASSWORD_BACK_OFF);
    assert_int_equal(ask_now("nobody", "wrong"), PASSWORD_BACK_OFF);
    assert_int_equal(ask_now("alice", "right"), PASSWORD_BACK_OFF); /* the cache is no oracle */
    set_client(2);
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    set_client(1);
    now_ms += BACKOFF_FIRST_MS;
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    assert_int_equal(ask_now("alice", "right"), PASSWORD_BACK_OFF);
}

/* As many guesses as may be under way, each another password. */
static void test_one_address_cannot_take_the_whole_queue(void **state)
{
    char password[16];

    (void)state;
    hashing.is_gated = true;
    for (unsigned i = 0; i < BACKOFF_PENDING_MAX; i++) {
        (void)snprintf(password, sizeof password, "wrong%u", i);
        (void)ask_later("alice", password);
    }
    assert_int_equal(ask_now("alice", "more"), PASSWORD_BUSY);
    set_client(2);
    (void)ask_later("alice", "right");
    open_gate(BACKOFF_PENDING_MAX + 1);
    await(BACKOFF_PENDING_MAX + 1);
}

static void test_a_full_queue_is_busy(void **state)
{
    struct password_check *last = NULL;
    char password[16];

    (void)state;
    hashing.is_gated = true;
    for (unsigned i = 0; i < config.threads + config.queue_max; i++) {
        (void)snprintf(password, sizeof password, "wrong%u", i);
        set_client((uint8_t)(i % 100));
        last = ask_later("alice", password);
        if (i < config.threads) {
            pass(&hashing.entered);
        }
    }
    set_client(200);
    assert_int_equal(ask_now("alice", "wrong"), PASSWORD_BUSY);
    password_cancel(last); /* it had not begun: there is room again */
    (void)ask_later("alice", "wrong");
    assert_int_equal(ask_now("alice", "another"), PASSWORD_BUSY);
    open_gate(300);
}

static void test_cancelled_checks_are_not_answered(void **state)
{
    struct password_check *running, *shared, *queued;

    (void)state;
    hashing.is_gated = true;
    running = ask_later("alice", "one");
    (void)ask_later("alice", "two");
    pass(&hashing.entered);
    pass(&hashing.entered);
    queued = ask_later("alice", "three");
    shared = ask_later("alice", "four");
    (void)ask_later("alice", "four");
    password_cancel(running);
    password_cancel(queued);
    password_cancel(shared);
    password_cancel(NULL);
    open_gate(3);
    await(2);
    assert_int_equal(hashing.calls, 3); /* three was never looked at */
}

static void on_answer_cancel_other(void *user, enum password_verdict verdict)
{
    password_cancel(*(struct password_check **)user);
    on_answer(NULL, verdict);
}

static void test_one_answer_may_cancel_the_next(void **state)
{
    struct socks6_credentials given = credentials("alice", "right");
    struct password_check *checks[2];
    enum password_verdict verdict;

    (void)state;
    hashing.is_gated = true;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(passwords_check(passwords, users, loop, &client, &given, on_answer_cancel_other,
                                         &checks[1 - i], &verdict, &checks[i]),
                         PASSWORD_LATER);
    }
    open_gate(1);
    await(1);
}

/* A guess whose connection went away while it was looked at is a guess. */
static void test_a_cancelled_guess_counts(void **state)
{
    (void)state;
    passwords_free(passwords);
    config.threads = 1; /* so that what is asked later ends later */
    assert_int_equal(passwords_new(&config, &passwords), 0);
    for (unsigned i = 0; i <= BACKOFF_FREE; i++) {
        struct password_check *later;

        hashing.is_gated = true;
        set_client(1);
        later = ask_later("alice", "wrong");
        pass(&hashing.entered);
        password_cancel(later);
        hashing.is_gated = false;
        open_gate(1);
        set_client((uint8_t)(100 + i));
        assert_int_equal(check("alice", "another"), PASSWORD_WRONG);
    }
    set_client(1);
    assert_int_equal(ask_now("bob", "right"), PASSWORD_BACK_OFF);
}

static void test_freeing_drops_what_is_open(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        char password[16];

        (void)snprintf(password, sizeof password, "wrong%d", i);
        set_client((uint8_t)i); /* some are looked at meanwhile: one address would have to wait */
        (void)ask_later("alice", password);
        (void)ask_later("alice", password);
    }
    passwords_free(passwords);
    passwords = NULL;
    passwords_free(NULL);
}

/* --- by PAM --- */

static struct {
    _Atomic bool is_gated;
    _Atomic unsigned calls;
    sem_t entered, gate;
    enum pamauth_verdict failure;
    char service[80], user[SOCKS6_USERNAME_MAX + 1], client[64]; /* of the last call */
    size_t password_len;
} asked;

/* Lets everybody in with the password "right". */
static enum pamauth_verdict fake_pam(const struct pamauth_question *question)
{
    asked.calls++;
    if (asked.is_gated) {
        (void)sem_post(&asked.entered);
        pass(&asked.gate);
    }
    (void)pthread_mutex_lock(&setting_lock);
    (void)snprintf(asked.service, sizeof asked.service, "%s", question->service);
    (void)snprintf(asked.user, sizeof asked.user, "%s", question->user);
    (void)snprintf(asked.client, sizeof asked.client, "%s", question->client);
    asked.password_len = strlen(question->password);
    (void)pthread_mutex_unlock(&setting_lock);
    return strcmp(question->password, "right") == 0 ? PAMAUTH_RIGHT : asked.failure;
}

static void renew_pam(void)
{
    users_release(users);
    assert_int_equal(users_of_pam("socks6d", 60000, &users), 0);
}

static int setup_pam(void **state)
{
    if (setup(state) != 0) {
        return -1;
    }
    asked.is_gated = false;
    asked.calls = 0;
    asked.failure = PAMAUTH_WRONG;
    (void)sem_init(&asked.entered, 0, 0);
    (void)sem_init(&asked.gate, 0, 0);
    renew_pam();
    passwords_free(passwords);
    config.ask_pam = fake_pam;
    config.pam_threads = 2;
    config.pam_step_ms = 20;
    return passwords_new(&config, &passwords);
}

static void test_pam_is_asked_with_what_is_known(void **state)
{
    char name[SOCKS6_USERNAME_MAX + 1], password[SOCKS6_PASSWORD_MAX + 1];

    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    assert_string_equal(asked.service, "socks6d");
    assert_string_equal(asked.user, "alice");
    assert_string_equal(asked.client, "192.0.2.1");
    assert_int_equal(check("alice", "Right"), PASSWORD_WRONG);
    asked.failure = PAMAUTH_FAILED;
    assert_int_equal(check("alice", "wrong"), PASSWORD_FAILED);
    memset(name, 'n', sizeof name - 1);
    memset(password, 'p', sizeof password - 1);
    name[sizeof name - 1] = password[sizeof password - 1] = '\0';
    assert_int_equal(check(name, password), PASSWORD_FAILED);
    assert_string_equal(asked.user, name);
    assert_int_equal(asked.password_len, SOCKS6_PASSWORD_MAX);
    assert_int_equal(hashing.calls, 0);
}

static void test_pam_is_not_asked_about_what_could_mislead_a_module(void **state)
{
    static const char *const names[] = {"", "a/b", "/", "a:b", "-a", "-", ".", "..", "a\n", "\x7f", "a\tb"};
    struct socks6_credentials given = credentials("alice", "right");
    static const uint8_t longer[] = "right\0and more", name[] = "alice\0";

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        set_client((uint8_t)(10 + i));
        assert_int_equal(check(names[i], "right"), PASSWORD_WRONG);
    }
    set_client(1);
    assert_int_equal(check("alice", ""), PASSWORD_WRONG); /* some servers let those in who bring none */
    given.password = (struct socks6_slice){longer, sizeof longer - 1};
    assert_int_equal(check_given(&given), PASSWORD_WRONG);
    given = credentials("alice", "right");
    given.username = (struct socks6_slice){name, 6};
    assert_int_equal(check_given(&given), PASSWORD_WRONG);
    assert_int_equal(asked.calls, 0);
    assert_int_equal(check("...", "right"), PASSWORD_RIGHT);
    assert_int_equal(check("a-b.c@example.org", "right"), PASSWORD_RIGHT);
    assert_int_equal(check("j\xc3\xb6rg", "right"), PASSWORD_RIGHT);
}

/* For this user, password and address, for a while, until a reload. */
static void test_what_pam_let_in_is_remembered_for_a_while(void **state)
{
    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    now_ms += 59999;
    assert_int_equal(ask_now("alice", "right"), PASSWORD_RIGHT);
    set_client(2);
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(asked.calls, 2);
    set_client(1);
    assert_int_equal(check("bob", "right"), PASSWORD_RIGHT);
    assert_int_equal(asked.calls, 3);
    now_ms += 1;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(asked.calls, 4);
    renew_pam();
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    assert_int_equal(asked.calls, 5);
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    assert_int_equal(asked.calls, 7);
}

static void test_guessing_with_pam_must_wait(void **state)
{
    (void)state;
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    asked.failure = PAMAUTH_FAILED; /* a broken server is nobody's guess */
    for (unsigned i = 0; i <= 2 * BACKOFF_FREE; i++) {
        assert_int_equal(check("alice", "wrong"), PASSWORD_FAILED);
    }
    asked.failure = PAMAUTH_WRONG;
    for (unsigned i = 0; i <= BACKOFF_FREE; i++) {
        assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    }
    assert_int_equal(ask_now("alice", "right"), PASSWORD_BACK_OFF);
    set_client(2);
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
}

static uint64_t real_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* With the tests' clock at a standstill PAM takes no time, and what is told is told one whole step later. */
static void test_refusals_by_pam_are_held_and_can_be_cancelled_meanwhile(void **state)
{
    uint64_t start_ms;
    struct password_check *held;

    (void)state;
    passwords_free(passwords);
    config.pam_step_ms = 300;
    assert_int_equal(passwords_new(&config, &passwords), 0);
    start_ms = real_ms();
    assert_int_equal(check("alice", "wrong"), PASSWORD_WRONG);
    assert_true(real_ms() - start_ms >= 300 - LOOP_TICK_MS);
    (void)ask_later("alice", "wrong");
    assert_int_equal(check("bob", "right"), PASSWORD_RIGHT); /* asked later, told before */
    await(3);
    assert_int_equal(answers.verdicts[2], PASSWORD_WRONG);
    held = ask_later("carol", "wrong");
    while (passwords_waiting_count(passwords) > 0) {
        (void)usleep(1000);
    }
    assert_int_equal(check("dave", "right"), PASSWORD_RIGHT); /* behind carol's answer, which is held now */
    password_cancel(held);
    asked.failure = PAMAUTH_FAILED;
    assert_int_equal(check("erin", "wrong"), PASSWORD_FAILED); /* the next that is told anything */
}

/* Whoever waits for PAM waits with others; what hashes does not wait at all, nor does the daemon when it ends. */
static void test_a_pam_that_hangs_holds_up_nothing_else(void **state)
{
    const struct users *pam_users = users;
    struct passwords *left = passwords;
    char text[256];

    (void)state;
    asked.is_gated = true;
    for (unsigned i = 0; i < config.pam_threads; i++) {
        set_client((uint8_t)i);
        (void)ask_later(i == 0 ? "alice" : "bob", "hangs");
        pass(&asked.entered);
    }
    assert_int_equal(passwords_waiting_count(passwords), 2);
    (void)ask_later("carol", "waits");
    assert_int_equal(passwords_waiting_count(passwords), 3);
    (void)snprintf(text, sizeof text, "alice:%s\n", hash_of("$6$", 1000, "right"));
    users = parse(text);
    assert_int_equal(check("alice", "right"), PASSWORD_RIGHT);
    users_release(users);
    users = pam_users;
    passwords_free(passwords); /* comes back, and leaves it where it is */
    passwords = NULL;
    for (unsigned i = 0; i < config.pam_threads; i++) {
        (void)sem_post(&asked.gate);
    }
    while (passwords_waiting_count(left) > 1) { /* carol is never asked about */
        (void)usleep(1000);
    }
    passwords_free(left); /* a second time, when all is over */
    assert_int_equal(asked.calls, 2);
}

/* --- the cache by itself --- */

static void test_the_cache_is_bounded_and_keeps_the_newest(void **state)
{
    struct password_cache *cache;
    struct password_tag tag;
    unsigned kept = 0;

    (void)state;
    assert_int_equal(password_cache_new(64, &cache), 0);
    for (unsigned i = 0; i < 10000; i++) {
        char password[16];
        struct socks6_credentials given;

        (void)snprintf(password, sizeof password, "%u", i);
        given = credentials("alice", password);
        assert_int_equal(password_cache_tag(cache, "hash", &given, &tag), 0);
        password_cache_add(cache, &tag, 1000 + i);
        assert_true(password_cache_has(cache, &tag, 999 + i));
        assert_false(password_cache_has(cache, &tag, 1000 + i));
    }
    for (unsigned i = 0; i < 10000; i++) {
        char password[16];
        struct socks6_credentials given;

        (void)snprintf(password, sizeof password, "%u", i);
        given = credentials("alice", password);
        assert_int_equal(password_cache_tag(cache, "hash", &given, &tag), 0);
        kept += password_cache_has(cache, &tag, 0);
    }
    assert_int_equal(kept, 64);
    password_cache_free(cache);
    password_cache_free(NULL);
}

/* Every part counts, and so does where one ends and the next begins. */
static void test_tags_tell_everything_apart(void **state)
{
    static const struct {
        const char *hash, *name, *password;
    } cases[] = {
        {"h", "alice", "secret"}, {"h", "alic", "esecret"}, {"h", "alices", "ecret"}, {"ha", "lice", "secret"},
        {"h", "alice", "secreT"}, {"H", "alice", "secret"}, {"h", "", "alicesecret"}, {"h", "alice", ""},
    };
    struct password_tag tags[8], again;
    struct password_cache *cache, *other;
    struct socks6_credentials given;

    (void)state;
    assert_int_equal(password_cache_new(1, &cache), 0);
    assert_int_equal(password_cache_new(1, &other), 0);
    for (size_t i = 0; i < 8; i++) {
        given = credentials(cases[i].name, cases[i].password);
        assert_int_equal(password_cache_tag(cache, cases[i].hash, &given, &tags[i]), 0);
        for (size_t j = 0; j < i; j++) {
            assert_false(password_tag_is_same(&tags[i], &tags[j]));
        }
        assert_int_equal(password_cache_tag(cache, cases[i].hash, &given, &again), 0);
        assert_true(password_tag_is_same(&tags[i], &again));
        assert_int_equal(password_cache_tag(other, cases[i].hash, &given, &again), 0);
        assert_false(password_tag_is_same(&tags[i], &again)); /* each process has a key of its own */
    }
    password_cache_free(cache);
    password_cache_free(other);
}

/* Contexts go from hand to hand; a tag does not tell which of them made it. */
struct tagger {
    pthread_t thread;
    struct password_cache *cache;
    unsigned wrong;
};

static const char *const tagged_hashes[] = {
    "h", "$y$j9T$FTRAn2I8dj.r9NIrN4TdM/$168cNiPfnhPtTxxhm4puw02AXMOdSZ9AUtg7NRTrFpC"};

static void *tag_often(void *argument)
{
    struct tagger *tagger = argument;
    struct socks6_credentials given = credentials("alice", "secret");
    struct password_tag first[2], tag;

    for (unsigned i = 0; i < 3000; i++) {
        if (password_cache_tag(tagger->cache, tagged_hashes[i % 2], &given, i < 2 ? &first[i] : &tag) != 0 ||
            (i >= 2 && !password_tag_is_same(&tag, &first[i % 2]))) {
            tagger->wrong++;
        }
    }
    tagger->wrong += password_tag_is_same(&first[0], &first[1]);
    return NULL;
}

static void test_tags_are_the_same_from_every_thread(void **state)
{
    static struct tagger taggers[24];
    struct password_cache *cache;

    (void)state;
    assert_int_equal(password_cache_new(1, &cache), 0);
    for (size_t i = 0; i < sizeof taggers / sizeof taggers[0]; i++) {
        taggers[i] = (struct tagger){.cache = cache};
        assert_int_equal(pthread_create(&taggers[i].thread, NULL, tag_often, &taggers[i]), 0);
    }
    for (size_t i = 0; i < sizeof taggers / sizeof taggers[0]; i++) {
        assert_int_equal(pthread_join(taggers[i].thread, NULL), 0);
        assert_int_equal(taggers[i].wrong, 0);
    }
    password_cache_free(cache);
}

/* As much as is put together at once, and more; the longest names. */
static void test_tags_of_long_parts_tell_apart(void **state)
{
    static char hash[700], name[SOCKS6_USERNAME_MAX + 1];
    struct password_tag tags[3], again;
    struct password_cache *cache;
    struct socks6_credentials given;

    (void)state;
    assert_int_equal(password_cache_new(1, &cache), 0);
    memset(name, 'n', SOCKS6_USERNAME_MAX);
    for (size_t len = 250; len < sizeof hash; len++) {
        memset(hash, 'h', len);
        hash[len] = '\0';
        given = credentials(name, "secret");
        assert_int_equal(password_cache_tag(cache, hash, &given, &tags[0]), 0);
        assert_int_equal(password_cache_tag(cache, hash, &given, &again), 0);
        assert_true(password_tag_is_same(&tags[0], &again));
        given = credentials(name + 1, "nsecret");
        assert_int_equal(password_cache_tag(cache, hash, &given, &tags[1]), 0);
        given = credentials(name, "secret");
        assert_int_equal(password_cache_tag(cache, hash + 1, &given, &tags[2]), 0);
        assert_false(password_tag_is_same(&tags[0], &tags[1]));
        assert_false(password_tag_is_same(&tags[0], &tags[2]));
    }
    password_cache_free(cache);
}

static void test_tags_differ_by_any_bit(void **state)
{
    struct password_tag one = {{0}};

    (void)state;
    for (unsigned bit = 0; bit < PASSWORD_TAG_LEN * 8; bit++) {
        struct password_tag other = one;
        other.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(password_tag_is_same(&one, &other));
        assert_true(password_tag_is_same(&other, &other));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define PAM_TEST(name) cmocka_unit_test_setup_teardown(name, setup_pam, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_kind_of_hash_is_checked),
        TEST(test_who_has_no_password_cannot_log_in),
        TEST(test_a_password_with_a_nul_is_wrong),
        TEST(test_the_longest_passwords_work),
        TEST(test_what_was_right_is_answered_at_once),
        TEST(test_what_was_right_is_forgotten_in_time),
        TEST(test_a_changed_or_removed_user_is_not_in_the_cache),
        TEST(test_unknown_names_cost_a_hash),
        TEST(test_an_unknown_name_keeps_its_decoy),
        TEST(test_equal_checks_cost_one_hash),
        TEST(test_guessing_must_wait),
        TEST(test_one_address_cannot_take_the_whole_queue),
        TEST(test_a_full_queue_is_busy),
        TEST(test_cancelled_checks_are_not_answered),
        TEST(test_one_answer_may_cancel_the_next),
        TEST(test_a_cancelled_guess_counts),
        TEST(test_freeing_drops_what_is_open),
        PAM_TEST(test_pam_is_asked_with_what_is_known),
        PAM_TEST(test_pam_is_not_asked_about_what_could_mislead_a_module),
        PAM_TEST(test_what_pam_let_in_is_remembered_for_a_while),
        PAM_TEST(test_guessing_with_pam_must_wait),
        PAM_TEST(test_refusals_by_pam_are_held_and_can_be_cancelled_meanwhile),
        PAM_TEST(test_a_pam_that_hangs_holds_up_nothing_else),
        TEST(test_the_cache_is_bounded_and_keeps_the_newest),
        TEST(test_tags_tell_everything_apart),
        TEST(test_tags_are_the_same_from_every_thread),
        TEST(test_tags_of_long_parts_tell_apart),
        TEST(test_tags_differ_by_any_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
