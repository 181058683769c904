/* The client's cache file, on a real file system. */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cache.h"
#include "cli/cache_format.h"

#define NOW 1800000000u

static char folder[] = "/tmp/test-cache-XXXXXX";
static char path[64];
static struct socks6_client_config config;
static struct cache_use use;
static const struct cache_key proxy = {
    .host = "proxy.example", .port = 1443, .is_tls = true, .user = "alice", .password = "secret"};
static const struct socks6_slice id = {(const uint8_t *)"0123456789abcdef", 16};

static int setup(void **state)
{
    (void)state;
    (void)alarm(60);
    (void)unlink(path);
    memset(&use, 0, sizeof use);
    socks6_client_config_init(&config);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cache_use_done(&use);
    return 0;
}

static int take(const struct cache_key *key)
{
    cache_use_done(&use);
    socks6_client_config_init(&config);
    config.has_credentials = 1;
    return cache_take(path, key, NOW, 64, &config, &use);
}

static void learn(const struct cache_key *key, const struct socks6_client_session *reply)
{
    assert_int_equal(cache_learn(path, key, NOW, &use, reply), 0);
}

/* A session with a window [1000, 1000 + size). */
static void begin(const struct cache_key *key, uint32_t size)
{
    assert_int_equal(take(key), 0);
    assert_int_equal(config.request_session, 1);
    learn(key, &(struct socks6_client_session){.id = id, .has_window = 1, .window = {1000, size}});
}

static void assert_unknown(const struct cache_key *key)
{
    assert_int_equal(take(key), 0);
    assert_int_equal(config.request_session, 1);
    assert_int_equal(config.session_id.len, 0);
    assert_int_equal(config.has_token, 0);
    assert_null(use.ticket);
}

static void assert_known(const struct cache_key *key, uint32_t token)
{
    assert_int_equal(take(key), 0);
    assert_int_equal(config.request_session, 0);
    assert_int_equal(config.session_id.len, id.len);
    assert_memory_equal(config.session_id.data, id.data, id.len);
    assert_int_equal(config.has_token, 1);
    assert_int_equal(config.token, token);
    assert_true(use.has_token);
    assert_int_equal(use.token, token);
}

static void write_all(const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    assert_int_equal(close(fd), 0);
}

static size_t read_all(uint8_t *out, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t len;

    assert_true(fd >= 0);
    len = read(fd, out, size);
    assert_true(len >= 0 && (size_t)len < size);
    assert_int_equal(close(fd), 0);
    return (size_t)len;
}

static void test_a_session_is_remembered(void **state)
{
    struct stat status;

    (void)state;
    assert_unknown(&proxy);
    assert_int_equal(config.request_window, 64);
    assert_int_equal(config.has_credentials, 1);
    begin(&proxy, 64);
    assert_known(&proxy, 1000);
    assert_int_equal(config.has_credentials, 0);
    assert_known(&proxy, 1001);
    learn(&proxy, &(struct socks6_client_session){.ok = 1, .has_window = 1, .window = {1002, 64}});
    assert_known(&proxy, 1002);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    learn(&proxy, &(struct socks6_client_session){.invalid = 1});
    assert_unknown(&proxy);
}

static void test_every_part_of_the_key_counts(void **state)
{
    struct cache_key others[9];

    (void)state;
    for (size_t i = 0; i < 9; i++) {
        others[i] = proxy;
    }
    others[0].host = "proxy.example.org";
    others[1].port = 1444;
    others[2].is_tls = false;
    others[3].ca = "/etc/ca.pem";
    others[4].certificate = "/etc/ca.pem";
    others[5].user = NULL;
    others[6].user = "";
    others[7].user = "Alice";
    others[8].password = "wrong";
    for (size_t i = 0; i < 9; i++) {
        (void)unlink(path);
        begin(&proxy, 64);
        assert_unknown(&others[i]);
        if (i < 8) {
            assert_known(&proxy, 1000);
        }
    }
    /* After another password for the same user nothing is left of the session that the first one began. */
    assert_unknown(&proxy);
    (void)unlink(path);
    begin(&proxy, 64);
    others[0].host = "PROXY.Example";
    assert_known(&others[0], 1000);
}

static void test_nothing_is_written_in_clear_of_the_password(void **state)
{
    static uint8_t bytes[8192];

    (void)state;
    begin(&proxy, 64);
    assert_null(memmem(bytes, read_all(bytes, sizeof bytes), "secret", 6));
}

static void test_a_token_that_was_not_sent_comes_back(void **state)
{
    (void)state;
    begin(&proxy, 64);
    assert_known(&proxy, 1000);
    assert_int_equal(cache_return_token(path, &proxy, NOW, &use), 0);
    assert_known(&proxy, 1000);
    assert_known(&proxy, 1001);
    use.token = 1000;
    assert_int_equal(cache_return_token(path, &proxy, NOW, &use), 0);
    assert_known(&proxy, 1002);
    learn(&proxy, &(struct socks6_client_session){.invalid = 1});
    assert_int_equal(cache_return_token(path, &proxy, NOW, &use), 0);
}

static void put_ticket(const char *text, uint64_t expires_s)
{
    assert_int_equal(cache_put_ticket(path, &proxy, NOW, (const uint8_t *)text, strlen(text), expires_s), 0);
}

static void assert_ticket(const char *wanted)
{
    assert_int_equal(take(&proxy), 0);
    if (wanted == NULL) {
        assert_null(use.ticket);
        return;
    }
    assert_non_null(use.ticket);
    assert_int_equal(use.ticket_len, strlen(wanted));
    assert_memory_equal(use.ticket, wanted, use.ticket_len);
}

static void test_the_newest_ticket_is_taken_and_the_last_one_kept(void **state)
{
    (void)state;
    assert_ticket(NULL);
    put_ticket("one", NOW + 10);
    put_ticket("two", NOW + 10);
    put_ticket("three", NOW + 10);
    assert_ticket("three");
    assert_ticket("two");
    assert_ticket("one");
    assert_ticket("one");
    for (int i = 0; i < 20; i++) { /* a few are kept */
        put_ticket(i < 19 ? "old" : "new", NOW + 10);
    }
    assert_ticket("new");
    assert_ticket("old");
}

static void test_expired_tickets_are_dropped(void **state)
{
    static uint8_t longest[CACHE_TICKET_MAX + 1];

    (void)state;
    put_ticket("long", NOW + 10);
    put_ticket("short", NOW);
    assert_ticket("long");
    cache_use_done(&use);
    assert_int_equal(cache_take(path, &proxy, NOW + 10, 64, &config, &use), 0);
    assert_null(use.ticket);
    assert_int_equal(cache_put_ticket(path, &proxy, NOW, longest, sizeof longest, NOW + 1), -EMSGSIZE);
    assert_int_equal(cache_put_ticket(path, &proxy, NOW, longest, 0, NOW + 1), -EMSGSIZE);
    assert_int_equal(cache_put_ticket(path, &proxy, NOW, longest, CACHE_TICKET_MAX, NOW + 1), 0);
    assert_int_equal(take(&proxy), 0);
    assert_int_equal(use.ticket_len, CACHE_TICKET_MAX);
}

static void test_old_entries_make_room(void **state)
{
    static uint8_t ticket[CACHE_TICKET_MAX];
    struct cache_key key = proxy;
    struct stat status;

    (void)state;
    begin(&proxy, 64);
    for (uint16_t port = 1; port <= 100; port++) {
        key.port = port;
        for (int i = 0; i < 4; i++) {
            assert_int_equal(cache_put_ticket(path, &key, NOW, ticket, sizeof ticket, NOW + 1), 0);
        }
    }
    assert_int_equal(stat(path, &status), 0);
    assert_in_range(status.st_size, CACHE_FILE_MAX / 2, CACHE_FILE_MAX);
    assert_unknown(&proxy);
    key.port = 100; /* the newest are there */
    assert_int_equal(take(&key), 0);
    assert_non_null(use.ticket);
}

static void test_unused_entries_end(void **state)
{
    (void)state;
    begin(&proxy, 64);
    cache_use_done(&use);
    assert_int_equal(cache_take(path, &proxy, NOW + 7 * 24 * 3600, 64, &config, &use), 0);
    assert_int_equal(config.request_session, 0);
    cache_use_done(&use);
    assert_int_equal(cache_take(path, &proxy, NOW + 14 * 24 * 3600 + 1, 64, &config, &use), 0);
    assert_int_equal(config.request_session, 1);
}

/* --- files that are not as they should be --- */

static void test_a_corrupt_file_is_an_empty_cache(void **state)
{
    static uint8_t good[8192], bad[8192];
    size_t len;

    (void)state;
    begin(&proxy, 64);
    put_ticket("ticket", NOW + 10);
    len = read_all(good, sizeof good);
    for (size_t i = 0; i < len; i++) { /* each byte spoilt */
        memcpy(bad, good, len);
        bad[i] ^= 0x40;
        write_all(bad, len);
        assert_unknown(&proxy);
    }
    for (size_t i = 0; i < len; i++) { /* cut off everywhere */
        write_all(good, i);
        assert_unknown(&proxy);
    }
    memcpy(bad, good, len);
    memcpy(bad + len, "rest of a longer file", 21);
    write_all(bad, len + 21);
    assert_known(&proxy, 1000);
    begin(&(struct cache_key){.host = "other"}, 64); /* and it is repaired */
    assert_known(&proxy, 1001);
}

static void test_a_huge_file_is_an_empty_cache(void **state)
{
    struct stat status;

    (void)state;
    write_all("", 0);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    assert_unknown(&proxy);
    assert_int_equal(stat(path, &status), 0);
    assert_in_range(status.st_size, 1, 4096);
}

static void test_a_file_of_others_is_not_used(void **state)
{
    char target[80];

    (void)state;
    begin(&proxy, 64);
    for (mode_t bit = 1; bit <= 040; bit <<= 1) {
        assert_int_equal(chmod(path, 0600 | bit), 0);
        assert_int_equal(take(&proxy), -EPERM);
        assert_int_equal(config.request_session, 0);
        assert_int_equal(config.session_id.len, 0);
        assert_int_equal(config.has_credentials, 1);
    }
    assert_int_equal(chmod(path, 0600), 0);
    assert_known(&proxy, 1000);
    (void)snprintf(target, sizeof target, "%s.target", path);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(take(&proxy), -ELOOP);
    (void)unlink(path);
    (void)unlink(target);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(take(&proxy), -EPERM);
    (void)unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(take(&proxy), -EISDIR);
    assert_int_equal(rmdir(path), 0);
    if (geteuid() == 0) {
        write_all("", 0);
        assert_int_equal(chown(path, 65534, 65534), 0);
        assert_int_equal(take(&proxy), -EPERM);
    }
}

static void test_a_place_that_does_not_exist_is_told(void **state)
{
    (void)state;
    assert_int_equal(cache_take("/nonexistent/cache", &proxy, NOW, 64, &config, &use), -ENOENT);
    assert_int_equal(cache_learn("/nonexistent/cache", &proxy, NOW, &use, &(struct socks6_client_session){0}), -ENOENT);
    assert_int_equal(config.request_session, 0);
}

/* What cannot be written is not taken. */
static void test_a_full_disk_gives_no_token(void **state)
{
    struct rlimit limit, none;
    struct cache_key big = proxy;
    char long_name[3000];

    (void)state;
    begin(&proxy, 64);
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    big.ca = long_name;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    none = limit;
    none.rlim_cur = 1000;
    (void)signal(SIGXFSZ, SIG_IGN);
    socks6_client_config_init(&config);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(cache_take(path, &big, NOW, 64, &config, &use), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(config.request_session, 0);
    assert_int_equal(config.has_token, 0);
    assert_unknown(&proxy); /* half of a file is none */
    begin(&proxy, 64);
    assert_known(&proxy, 1000);
}

static void test_keys_that_are_too_long_are_refused(void **state)
{
    static char endless[CACHE_KEY_MAX + 1];
    struct cache_key big = proxy;

    (void)state;
    memset(endless, 'n', sizeof endless - 1);
    for (size_t len = CACHE_KEY_MAX - 40; len < CACHE_KEY_MAX; len++) {
        int rc;

        endless[len] = '\0';
        big.ca = endless;
        rc = take(&big);
        assert_true(rc == 0 || rc == -ENAMETOOLONG);
        endless[len] = 'n';
    }
    assert_int_equal(take(&big), -ENAMETOOLONG);
}

static void test_a_lock_that_is_never_given_up_is_not_waited_for(void **state)
{
    int fd;

    (void)state;
    begin(&proxy, 64);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(take(&proxy), -ETIMEDOUT);
    assert_int_equal(config.has_token, 0);
    assert_int_equal(close(fd), 0);
    assert_known(&proxy, 1000);
}

/* --- leases --- */

static struct cache_lease lease;

static void renew(unsigned count, uint32_t first, uint64_t mask)
{
    assert_int_equal(cache_renew(path, &proxy, NOW, false, count, &lease, NULL), 0);
    assert_int_equal(lease.mask, mask);
    if (mask != 0) {
        assert_int_equal(lease.first, first);
    }
}

static void test_leased_tokens_are_spent_in_the_file(void **state)
{
    (void)state;
    memset(&lease, 0, sizeof lease);
    renew(64, 0, 0); /* no session */
    begin(&proxy, 4096);
    renew(4, 1000, 0xf);
    assert_int_equal(lease.session.id_len, id.len);
    assert_known(&proxy, 1004);
    renew(4, 1000, 0xf); /* some are left */
    lease.mask = 0x8;
    renew(4, 1000, 0x8);
    assert_known(&proxy, 1005);
    lease.mask = 0;
    renew(64, 1006, UINT64_MAX);
    assert_known(&proxy, 1070);
}

static void test_a_lease_leaves_some_to_others(void **state)
{
    (void)state;
    memset(&lease, 0, sizeof lease);
    begin(&proxy, 16);
    renew(64, 1000, 0x7);
    lease.mask = 0;
    renew(64, 1003, 0x3);
    for (uint32_t next = 1005; next < 1016; next++) {
        lease.mask = 0;
        renew(64, next, next < 1008 ? 0x3 : 0x1);
        next += next < 1008;
    }
    lease.mask = 0;
    renew(64, 0, 0);
    assert_int_equal(take(&proxy), 0);
    assert_false(use.has_token);
}

static void test_a_lease_goes_back_if_nobody_was_behind_it(void **state)
{
    struct cache_lease other;

    (void)state;
    memset(&lease, 0, sizeof lease);
    begin(&proxy, 4096);
    renew(8, 1000, 0xff);
    lease.mask = 0xf5; /* the fourth and the second were sent */
    assert_int_equal(cache_return_lease(path, &proxy, NOW, &lease), 0);
    assert_known(&proxy, 1004);
    other = lease;
    lease.mask = 0;
    renew(8, 1005, 0xff);
    assert_known(&proxy, 1013);
    assert_int_equal(cache_return_lease(path, &proxy, NOW, &lease), 0); /* 1013 is gone, and so are those before it */
    assert_int_equal(cache_return_lease(path, &proxy, NOW, &other), 0);
    assert_known(&proxy, 1014);
    lease.session.id[0]++; /* of another session */
    lease.first = 1007;
    assert_int_equal(cache_return_lease(path, &proxy, NOW, &lease), 0);
    assert_known(&proxy, 1015);
}

static void test_leased_tokens_end_with_their_window_and_session(void **state)
{
    (void)state;
    memset(&lease, 0, sizeof lease);
    begin(&proxy, 4096);
    renew(8, 1000, 0xff);
    assert_known(&proxy, 1008);
    learn(&proxy, &(struct socks6_client_session){.ok = 1, .has_window = 1, .window = {1006, 4096}});
    renew(8, 1000, 0xc0);
    assert_int_equal(lease.session.window.base, 1006);
    learn(&proxy, &(struct socks6_client_session){.invalid = 1});
    renew(8, 0, 0);
    assert_int_equal(lease.session.id_len, 0);
}

static void test_the_file_hears_of_a_leases_window(void **state)
{
    (void)state;
    memset(&lease, 0, sizeof lease);
    begin(&proxy, 64);
    renew(8, 1000, 0xff);
    lease.session.window.base = 1008;
    lease.mask = 0;
    assert_int_equal(cache_renew(path, &proxy, NOW, true, 64, &lease, NULL), 0);
    assert_int_equal(lease.session.window.base, 1008);
    assert_int_equal(lease.first, 1008);
    assert_int_equal(take(&proxy), 0);
    assert_int_equal(use.session.window.base, 1008);
}

static void test_a_renewal_brings_a_ticket(void **state)
{
    struct cache_use ticket = {0};

    (void)state;
    memset(&lease, 0, sizeof lease);
    begin(&proxy, 64);
    put_ticket("one", NOW + 10);
    put_ticket("two", NOW + 20);
    assert_int_equal(cache_renew(path, &proxy, NOW, false, 1, &lease, &ticket), 0);
    assert_int_equal(ticket.ticket_len, 3);
    assert_memory_equal(ticket.ticket, "two", 3);
    assert_int_equal(ticket.ticket_expires_s, NOW + 20);
    cache_use_done(&ticket);
    assert_ticket("one");
}

static void test_a_renewal_that_cannot_be_written_gives_nothing(void **state)
{
    struct cache_use ticket = {0};

    (void)state;
    memset(&lease, 0, sizeof lease);
    assert_int_equal(cache_renew("/nonexistent/cache", &proxy, NOW, false, 1, &lease, &ticket), -ENOENT);
    assert_int_equal(cache_return_lease("/nonexistent/cache", &proxy, NOW, &lease), 0); /* there is nothing to return */
    lease.mask = 1;
    assert_int_equal(cache_return_lease("/nonexistent/cache", &proxy, NOW, &lease), -ENOENT);
    assert_null(ticket.ticket);
}

/* --- many at once --- */

enum { PROCESSES = 100, TAKES = 10 };

/* One of the processes: takes tokens and marks each in memory that all share. */
static int run_process(_Atomic unsigned *marks)
{
    for (int i = 0; i < TAKES; i++) {
        struct socks6_client_config own;
        struct cache_use taken;

        socks6_client_config_init(&own);
        if (cache_take(path, &proxy, NOW, 4096, &own, &taken) != 0 || !taken.has_token) {
            return 1;
        }
        marks[taken.token - 1000]++;
        if (i % 3 == 0 &&
            cache_learn(path, &proxy, NOW, &taken,
                        &(struct socks6_client_session){.ok = 1, .has_window = 1, .window = {1000, 4096}}) != 0) {
            return 1;
        }
        cache_use_done(&taken);
    }
    return 0;
}

static void test_a_hundred_processes_share_no_token(void **state)
{
    size_t size = (size_t)PROCESSES * TAKES * sizeof(_Atomic unsigned);
    _Atomic unsigned *marks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(marks, MAP_FAILED);
    begin(&proxy, 4096);
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            _exit(run_process(marks));
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (size_t i = 0; i < (size_t)PROCESSES * TAKES; i++) {
        assert_int_equal(marks[i], 1);
    }
    (void)munmap(marks, size);
}

/* A process that is killed at any moment leaves a file that the next one can use, and no token that is given out again. */
static void test_killed_processes_leave_no_harm(void **state)
{
    _Atomic uint32_t *highest = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_ptr_not_equal(highest, MAP_FAILED);
    begin(&proxy, UINT32_C(1) << 30);
    *highest = 999;
    for (int i = 0; i < 50; i++) {
        uint32_t before = *highest;
        pid_t child = fork();

        assert_true(child >= 0);
        while (child == 0) {
            struct cache_use taken;
            struct socks6_client_config own;

            socks6_client_config_init(&own);
            if (cache_take(path, &proxy, NOW, 64, &own, &taken) != 0 || !taken.has_token || taken.token <= *highest) {
                _exit(1);
            }
            *highest = taken.token;
        }
        while (*highest < before + 5 && waitpid(child, NULL, WNOHANG) == 0) {
            (void)usleep(100 + (useconds_t)i * 7);
        }
        assert_true(*highest >= before + 5);
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    assert_int_equal(take(&proxy), 0);
    assert_int_equal(config.has_token, 1);
    assert_true(config.token > *highest);
    (void)munmap(highest, 4096);
}

static void test_the_default_path_is_made(void **state)
{
    char out[128], wanted[128], small[16];
    struct stat status;

    (void)state;
    assert_int_equal(setenv("XDG_CACHE_HOME", folder, 1), 0);
    assert_int_equal(cache_default_path(out, sizeof out), 0);
    (void)snprintf(wanted, sizeof wanted, "%s/socks6/client", folder);
    assert_string_equal(out, wanted);
    (void)snprintf(wanted, sizeof wanted, "%s/socks6", folder);
    assert_int_equal(stat(wanted, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(rmdir(wanted), 0);
    assert_int_equal(cache_default_path(small, sizeof small), -ENAMETOOLONG);

    assert_int_equal(setenv("XDG_CACHE_HOME", "relative", 1), 0);
    assert_int_equal(setenv("HOME", folder, 1), 0);
    assert_int_equal(cache_default_path(out, sizeof out), 0);
    (void)snprintf(wanted, sizeof wanted, "%s/.cache/socks6/client", folder);
    assert_string_equal(out, wanted);
    (void)snprintf(wanted, sizeof wanted, "%s/.cache/socks6", folder);
    assert_int_equal(rmdir(wanted), 0);
    (void)snprintf(wanted, sizeof wanted, "%s/.cache", folder);
    assert_int_equal(rmdir(wanted), 0);

    assert_int_equal(unsetenv("HOME"), 0);
    assert_int_equal(cache_default_path(out, sizeof out), -ENOENT);
}

static int open_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/cache", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_session_is_remembered),
        TEST(test_every_part_of_the_key_counts),
        TEST(test_nothing_is_written_in_clear_of_the_password),
        TEST(test_a_token_that_was_not_sent_comes_back),
        TEST(test_the_newest_ticket_is_taken_and_the_last_one_kept),
        TEST(test_expired_tickets_are_dropped),
        TEST(test_old_entries_make_room),
        TEST(test_unused_entries_end),
        TEST(test_a_corrupt_file_is_an_empty_cache),
        TEST(test_a_huge_file_is_an_empty_cache),
        TEST(test_a_file_of_others_is_not_used),
        TEST(test_a_place_that_does_not_exist_is_told),
        TEST(test_a_full_disk_gives_no_token),
        TEST(test_keys_that_are_too_long_are_refused),
        TEST(test_a_lock_that_is_never_given_up_is_not_waited_for),
        TEST(test_leased_tokens_are_spent_in_the_file),
        TEST(test_a_lease_leaves_some_to_others),
        TEST(test_a_lease_goes_back_if_nobody_was_behind_it),
        TEST(test_leased_tokens_end_with_their_window_and_session),
        TEST(test_the_file_hears_of_a_leases_window),
        TEST(test_a_renewal_brings_a_ticket),
        TEST(test_a_renewal_that_cannot_be_written_gives_nothing),
        TEST(test_a_hundred_processes_share_no_token),
        TEST(test_killed_processes_leave_no_harm),
        TEST(test_the_default_path_is_made),
    };

    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
