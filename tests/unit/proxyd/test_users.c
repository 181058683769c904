#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxyd/users.h"

#define YESCRYPT "$y$j9T$g63lcRo4AM4OH18TY70130$8nOJGk7gz0t6MmBMascTXdrR0Di66/Jw9z7/g8mz96/"
#define BCRYPT "$2b$05$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2"
#define SHA512                                                                                                         \
    "$6$iJjiovwOr9NtkjG/$S06k4Ew/wq120tfrQ4xVyYV8Qp15DRL22ddSPCULEg2SxO2SC4ImRHqKLJCrlvbIJPxmJIX/KtyI1re4VK1R6/"
#define SUM86 "4MjOne1jVRKP4IuHRPFedC4vlQHNjvcBfQJVlfB8ciQ5YUzW2g81Pyw4sptw4femJ071/eApI0WDsBAOOCmTl0"

static struct socks6_slice slice(const char *text)
{
    return (struct socks6_slice){(const uint8_t *)text, strlen(text)};
}

static const struct users *parse(const char *text)
{
    const struct users *users = NULL;
    struct users_error error = {""};

    if (users_parse("users.passwd", text, strlen(text), &users, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return users;
}

static void assert_error(const char *text, size_t len, const char *wanted)
{
    const struct users *users = NULL;
    struct users_error error = {""};

    assert_int_equal(users_parse("users.passwd", text, len, &users, &error), -1);
    assert_string_equal(error.text, wanted);
    assert_null(users);
}

static void test_users_are_found_with_their_hashes(void **state)
{
    const struct users *users = parse("# staff\n"
                                      "zoe:" SHA512 "\r\n"
                                      "\n"
                                      "alice:" YESCRYPT " \t\n"
                                      "  \n"
                                      "Bob Smith:" BCRYPT "\n"
                                      "j\xc3\xb6rg:" BCRYPT "\n"
                                      "robot:*");
    const struct user *user;

    (void)state;
    assert_int_equal(users_count(users), 5);
    user = users_find(users, slice("alice"));
    assert_non_null(user);
    assert_string_equal(user->hash, YESCRYPT);
    assert_int_equal(user->line, 4);
    assert_string_equal(users_find(users, slice("zoe"))->hash, SHA512);
    assert_string_equal(users_find(users, slice("Bob Smith"))->hash, BCRYPT);
    assert_non_null(users_find(users, slice("j\xc3\xb6rg")));
    assert_null(users_find(users, slice("robot"))->hash);
    assert_null(users_find(users, slice("Alice")));
    assert_null(users_find(users, slice("alic")));
    assert_null(users_find(users, slice("alice ")));
    assert_null(users_find(users, slice("")));
    assert_null(users_find(users, (struct socks6_slice){(const uint8_t *)"alice\0x", 7}));
    for (size_t i = 1; i < users_count(users); i++) {
        assert_true(strcmp(users_at(users, i - 1)->name, users_at(users, i)->name) < 0);
    }
    users_release(users);
}

static void test_hashes_of_the_three_kinds_are_taken(void **state)
{
    static const char *const hashes[] = {
        YESCRYPT,
        BCRYPT,
        "$2y$17$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2",
        "$2a$04$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2",
        SHA512,
        "$6$rounds=10000000$abcdefghijklmnop$" SUM86,
        "$6$rounds=1000$$" SUM86,
        "$y$jFT$$8nOJGk7gz0t6MmBMascTXdrR0Di66/Jw9z7/g8mz96/",
        "$y$j75$g63lcRo4AM4OH18TY70130$8nOJGk7gz0t6MmBMascTXdrR0Di66/Jw9z7/g8mz96/",
    };

    (void)state;
    for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
        char line[256];
        const struct users *users;

        (void)snprintf(line, sizeof line, "u:%s\n", hashes[i]);
        users = parse(line);
        assert_string_equal(users_at(users, 0)->hash, hashes[i]);
        users_release(users);
    }
}

static void test_every_other_hash_is_an_error_with_its_line(void **state)
{
    static const struct {
        const char *hash, *why;
    } cases[] = {
        {"secret", "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)"},
        {"$1$Vetwv2Mh$hocUzpEmrVlqim/0xPxpm1",
         "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)"},
        {"$5$0FD50ES/xiae3Ka0$8rNTnsekTRJdztbHp4j5f1.abElSsD6z7x8eeMwz.PC",
         "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)"},
        {"{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
         "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)"},
        {"$2x$05$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2",
         "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)"},
        {"$y$j9T$g63lcRo4AM4OH18TY70130$8nOJGk7gz0t6MmBMascTXdrR0Di66/Jw9z7/g8mz96", "is no whole yescrypt hash"},
        {"$y$j9T$g63lcRo4AM4OH18TY70130", "is no whole yescrypt hash"},
        {"$y$", "is no yescrypt hash"},
        {"$y$jGT$g63lcRo4AM4OH18TY70130$8nOJGk7gz0t6MmBMascTXdrR0Di66/Jw9z7/g8mz96/",
         "has a cost that would take too long; the highest is 11"},
        {"$2b$05$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP", "is no whole bcrypt hash"},
        {"$2b$05$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP22", "is no whole bcrypt hash"},
        {"$2b$5$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2", "is no whole bcrypt hash"},
        {"$2b$03$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2", "has a cost outside 4 .. 17"},
        {"$2b$31$OddfEJvSGTGFAvLT4jBIxe7lSAn0UsoPxTqbcHhS62f10AlIIBNP2", "has a cost outside 4 .. 17"},
        {"$6$abc", "is no whole sha512crypt hash"},
        {"$6$abcdefghijklmnopq$" SUM86, "is no whole sha512crypt hash"},
        {"$6$rounds=999$abc$" SUM86, "has a number of rounds outside 1000 .. 10000000"},
        {"$6$rounds=10000001$abc$" SUM86, "has a number of rounds outside 1000 .. 10000000"},
        {"$6$rounds=99999999999999999999$abc$" SUM86, "has a number of rounds outside 1000 .. 10000000"},
        {"$6$rounds=$abc$" SUM86, "has a number of rounds outside 1000 .. 10000000"},
        {BCRYPT ":1000:1000", "is followed by another field; a line is NAME:HASH"},
        {"$6$a c$" SUM86, "has a character that no hash has"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512], wanted[512];

        (void)snprintf(text, sizeof text, "good:%s\n\nu:%s\n", BCRYPT, cases[i].hash);
        (void)snprintf(wanted, sizeof wanted, "users.passwd:3: the hash of user 'u' %s", cases[i].why);
        assert_error(text, strlen(text), wanted);
    }
}

static void test_lines_that_are_no_user_are_errors(void **state)
{
    static const char nul[] = "a:*\nb\0c:*\n";
    char text[600];

    (void)state;
    assert_error("alice\n", 6, "users.passwd:1: expected NAME:HASH, found no colon");
    assert_error("\n:*\n", 4, "users.passwd:2: there is no name before the colon");
    assert_error("a:\n", 3, "users.passwd:1: user 'a' has no hash; write * for a user without a password");
    assert_error(" a:*\n", 5, "users.passwd:1: the name begins or ends with a space");
    assert_error("a :*\n", 5, "users.passwd:1: the name begins or ends with a space");
    assert_error("a\x1b[2J:*\n", 8, "users.passwd:1: the name has a control character");
    assert_error(nul, sizeof nul - 1, "users.passwd:2: there is a NUL byte in this line");
    assert_error("\xef\xbb\xbf"
                 "a:*\n",
                 7, "users.passwd:1: the name begins with a byte order mark; save the file without");
    (void)memset(text, 'n', 256);
    (void)strcpy(text + 256, ":*\n");
    assert_error(text, strlen(text), "users.passwd:1: the name is longer than 255 bytes");
    users_release(parse(text + 1)); /* 255 */
}

static void test_a_name_comes_once(void **state)
{
    static const char text[] = "alice:*\nbob:*\nbob:*\n# alice\nalice:" BCRYPT "\nbob:*\n";

    (void)state;
    assert_error(text, sizeof text - 1, "users.passwd:3: user 'bob' is already at line 2; remove one of the two");
}

static void test_an_empty_file_has_no_users(void **state)
{
    const struct users *users = parse("");

    (void)state;
    assert_int_equal(users_count(users), 0);
    assert_null(users_find(users, slice("alice")));
    users_release(users);
    users_release(NULL);
}

static void test_a_reload_tells_who_is_gone(void **state)
{
    const struct users *before = parse("alice:" BCRYPT "\nbob:" BCRYPT "\ncarol:*\ndave:*\neve:" BCRYPT "\n");
    const struct users *after = parse("eve:" BCRYPT "\nalice:" YESCRYPT "\ncarol:" BCRYPT "\nfrank:*\n");
    struct socks6_slice names[5];

    (void)state;
    assert_int_equal(users_gone(before, after, false, names), 2);
    assert_memory_equal(names[0].data, "bob", 3);
    assert_memory_equal(names[1].data, "dave", 4);
    assert_int_equal(users_gone(before, after, true, names), 4);
    assert_memory_equal(names[0].data, "alice", 5);
    assert_memory_equal(names[2].data, "carol", 5);
    assert_int_equal(users_gone(before, before, true, names), 0);
    users_release(before);
    users_release(after);
}

/* --- from files --- */

static char folder[] = "/tmp/test-users-XXXXXX";
static char path[64];

static void write_file(const char *text, mode_t mode)
{
    int fd;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void assert_warning(mode_t mode, const char *wanted)
{
    const struct users *users = NULL;
    struct users_error error = {""}, warning = {"x"};

    write_file("alice:" BCRYPT "\n", mode);
    assert_int_equal(users_load(path, &users, &error, &warning), 0);
    assert_int_equal(users_count(users), 1);
    if (wanted == NULL) {
        assert_string_equal(warning.text, "");
    } else {
        assert_non_null(strstr(warning.text, wanted));
        assert_memory_equal(warning.text, path, strlen(path));
    }
    users_release(users);
}

static void test_users_of_pam_are_not_listed(void **state)
{
    const struct users *pam, *again, *other, *file = parse("alice:*\n");

    (void)state;
    assert_int_equal(users_of_pam("one", 60000, &pam), 0);
    assert_int_equal(users_of_pam("one", 60000, &again), 0);
    assert_int_equal(users_of_pam("other", 60000, &other), 0);
    assert_null(users_pam(NULL));
    assert_null(users_pam(file));
    assert_string_equal(users_pam(pam)->service, "one");
    assert_int_equal(users_pam(pam)->remember_ms, 60000);
    assert_string_not_equal(users_pam(pam)->source, users_pam(again)->source);
    assert_int_equal(users_count(pam), 0);
    assert_null(users_find(pam, slice("alice")));
    assert_true(users_may_have(pam, slice("alice")) && users_may_have(file, slice("alice")));
    assert_false(users_may_have(file, slice("bob")));
    /* Who has logged in with one of them is still somebody with the other. */
    assert_true(users_agree(pam, again, slice("alice")));
    assert_false(users_agree(pam, other, slice("alice")));
    assert_false(users_agree(pam, file, slice("alice")) || users_agree(file, pam, slice("alice")));
    assert_false(users_are_all_gone(pam, again) || users_are_all_gone(file, pam) || users_are_all_gone(NULL, pam));
    assert_true(users_are_all_gone(pam, other) && users_are_all_gone(pam, file) && users_are_all_gone(pam, NULL));
    users_release(pam);
    users_release(again);
    users_release(other);
    users_release(file);
}

static void test_bad_permissions_are_told(void **state)
{
    (void)state;
    assert_warning(0600, NULL);
    assert_warning(0640, NULL);
    assert_warning(0644, "every user of this machine has access (mode 0644)");
    assert_warning(0602, "every user of this machine has access (mode 0602)");
    assert_warning(0660, "its group can write it (mode 0660)");
}

static void test_files_that_cannot_be_read_are_errors(void **state)
{
    const struct users *users = NULL;
    struct users_error error = {""}, warning;
    char wanted[128];

    (void)state;
    assert_int_equal(users_load("/nonexistent/users", &users, &error, &warning), -1);
    assert_string_equal(error.text, "/nonexistent/users: No such file or directory");
    assert_int_equal(users_load(folder, &users, &error, &warning), -1);
    (void)snprintf(wanted, sizeof wanted, "%s: not a regular file", folder);
    assert_string_equal(error.text, wanted);
    write_file("alice:*\nalice\n", 0600);
    assert_int_equal(users_load(path, &users, &error, &warning), -1);
    (void)snprintf(wanted, sizeof wanted, "%s:2: expected NAME:HASH, found no colon", path);
    assert_string_equal(error.text, wanted);
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* and it does not wait for a writer */
    assert_int_equal(users_load(path, &users, &error, &warning), -1);
    assert_null(users);
}

static int open_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/users", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_users_are_found_with_their_hashes),
        cmocka_unit_test(test_hashes_of_the_three_kinds_are_taken),
        cmocka_unit_test(test_every_other_hash_is_an_error_with_its_line),
        cmocka_unit_test(test_lines_that_are_no_user_are_errors),
        cmocka_unit_test(test_a_name_comes_once),
        cmocka_unit_test(test_an_empty_file_has_no_users),
        cmocka_unit_test(test_a_reload_tells_who_is_gone),
        cmocka_unit_test(test_users_of_pam_are_not_listed),
        cmocka_unit_test(test_bad_permissions_are_told),
        cmocka_unit_test(test_files_that_cannot_be_read_are_errors),
    };

    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
