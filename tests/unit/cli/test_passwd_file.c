#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/passwd_file.h"

/* Edits and compares: what is done, and the text that comes out (NULL: none). */
static void assert_edit(const char *text, const char *name, const char *hash, int wanted, const char *wanted_text)
{
    char *out = NULL;
    size_t len = 0;

    assert_int_equal(passwd_edit(text, strlen(text), name, hash, &out, &len), wanted);
    if (wanted_text == NULL) {
        assert_null(out);
        return;
    }
    assert_int_equal(len, strlen(wanted_text));
    assert_memory_equal(out, wanted_text, len);
    free(out);
}

static void test_users_are_added_at_the_end(void **state)
{
    (void)state;
    assert_edit("", "a", "h", PASSWD_ADDED, "a:h\n");
    assert_edit("b:x\n", "a", "h", PASSWD_ADDED, "b:x\na:h\n");
    assert_edit("b:x", "a", "h", PASSWD_ADDED, "b:x\na:h\n");
    assert_edit("# a:x\nab:x\nb:a:\n a:x\n\n", "a", "h", PASSWD_ADDED, "# a:x\nab:x\nb:a:\n a:x\n\na:h\n");
}

static void test_a_user_is_changed_in_place(void **state)
{
    (void)state;
    assert_edit("b:x\na:old\n# end", "a", "h", PASSWD_CHANGED, "b:x\na:h\n# end");
    assert_edit("a:old\r\nb:x\n", "a", "h", PASSWD_CHANGED, "a:h\nb:x\n");
    assert_edit("b:x\na:old", "a", "h", PASSWD_CHANGED, "b:x\na:h\n");
    assert_edit("a:\n", "a", "h", PASSWD_CHANGED, "a:h\n");
}

static void test_a_user_is_deleted_with_the_line(void **state)
{
    (void)state;
    assert_edit("b:x\na:old\n# end", "a", NULL, PASSWD_DELETED, "b:x\n# end");
    assert_edit("a:old", "a", NULL, PASSWD_DELETED, "");
    assert_edit("b:x\n", "a", NULL, PASSWD_NOT_THERE, NULL);
    assert_edit("", "a", NULL, PASSWD_NOT_THERE, NULL);
}

static void test_a_name_that_comes_twice_is_left_alone(void **state)
{
    (void)state;
    assert_edit("a:x\nb:x\na:y\n", "a", "h", PASSWD_TWICE, NULL);
    assert_edit("a:x\nb:x\na:y\n", "a", NULL, PASSWD_TWICE, NULL);
}

static void test_names_are_judged(void **state)
{
    char longest[258];

    (void)state;
    assert_null(passwd_judge_name("alice"));
    assert_null(passwd_judge_name("Bob Smith"));
    assert_null(passwd_judge_name("j\xc3\xb6rg"));
    assert_non_null(passwd_judge_name(""));
    assert_non_null(passwd_judge_name("a:b"));
    assert_non_null(passwd_judge_name("#a"));
    assert_non_null(passwd_judge_name("\xef\xbb\xbf"
                                      "a"));
    assert_non_null(passwd_judge_name(" a"));
    assert_non_null(passwd_judge_name("a "));
    assert_non_null(passwd_judge_name("a\nb"));
    assert_non_null(passwd_judge_name("a\x7f"));
    memset(longest, 'n', 256);
    longest[256] = '\0';
    assert_non_null(passwd_judge_name(longest));
    assert_null(passwd_judge_name(longest + 1));
}

/* --- files --- */

static char folder[] = "/tmp/test-passwd-XXXXXX";
static char path[64];

static void write_all(const char *text, mode_t mode)
{
    int fd;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void assert_text(const char *wanted)
{
    char text[2048];
    int fd = open(path, O_RDONLY);
    ssize_t len;

    assert_true(fd >= 0);
    len = read(fd, text, sizeof text);
    assert_int_equal(len, (ssize_t)strlen(wanted));
    assert_memory_equal(text, wanted, (size_t)len);
    assert_int_equal(close(fd), 0);
}

static mode_t mode_of(const char *file)
{
    struct stat status;

    assert_int_equal(lstat(file, &status), 0);
    return status.st_mode & 07777;
}

static void test_a_file_is_created_for_its_owner_alone(void **state)
{
    mode_t before = umask(0);

    (void)state;
    (void)unlink(path);
    assert_int_equal(passwd_update(path, "a", "h", false), -ENOENT);
    assert_int_equal(passwd_update(path, "a", "h", true), PASSWD_ADDED);
    assert_text("a:h\n");
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(passwd_update(path, "b", "h", true), -EEXIST);
    assert_text("a:h\n");
    (void)umask(before);
}

static void test_owner_and_mode_are_kept(void **state)
{
    struct stat status;

    (void)state;
    write_all("a:x\n", 0640);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 23456), 0);
    }
    assert_int_equal(passwd_update(path, "a", "h", false), PASSWD_CHANGED);
    assert_text("a:h\n");
    assert_int_equal(mode_of(path), 0640);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_uid, geteuid() == 0 ? 12345 : geteuid());
    assert_int_equal(status.st_gid, geteuid() == 0 ? 23456 : getegid());
}

static void test_a_link_stays_one(void **state)
{
    char target[80], found[80];
    ssize_t len;

    (void)state;
    write_all("a:x\n", 0600);
    (void)snprintf(target, sizeof target, "%s.target", path);
    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink("users.target", path), 0);
    assert_int_equal(passwd_update(path, "a", "h", false), PASSWD_CHANGED);
    len = readlink(path, found, sizeof found);
    assert_int_equal(len, 12);
    assert_text("a:h\n");
    assert_int_equal(unlink(target), 0);
}

/* Nothing is left beside the file, whatever the outcome. */
static void test_what_does_not_change_is_not_written(void **state)
{
    struct stat before, after;

    (void)state;
    write_all("a:x\na:y\n", 0600);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(passwd_update(path, "a", "h", false), PASSWD_TWICE);
    assert_int_equal(passwd_update(path, "b", NULL, false), PASSWD_NOT_THERE);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_text("a:x\na:y\n");
    assert_int_equal(passwd_update(folder, "a", "h", false), -EINVAL);
}

static void test_a_hash_is_looked_up(void **state)
{
    char *hash = NULL;

    (void)state;
    write_all("a:x \r\nb:y\nc:z\nc:z\n", 0600);
    assert_int_equal(passwd_look_up(path, "a", &hash), PASSWD_CHANGED);
    assert_string_equal(hash, "x");
    free(hash);
    assert_int_equal(passwd_look_up(path, "d", &hash), PASSWD_NOT_THERE);
    assert_int_equal(passwd_look_up(path, "c", &hash), PASSWD_TWICE);
    assert_int_equal(passwd_look_up("/nonexistent/users", "c", &hash), -ENOENT);
}

/* Processes that add a user each at the same time: every one of them is there in the end. */
static void test_changes_at_the_same_time_are_not_lost(void **state)
{
    enum { PROCESSES = 30 };

    (void)state;
    write_all("", 0600);
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            char name[16];

            (void)snprintf(name, sizeof name, "user%d", i);
            _exit(passwd_update(path, name, "h", false) == PASSWD_ADDED ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        char name[16], *hash = NULL;

        (void)snprintf(name, sizeof name, "user%d", i);
        assert_int_equal(passwd_look_up(path, name, &hash), PASSWD_CHANGED);
        free(hash);
    }
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

/* The folder must be empty by then: no temporary file was left behind. */
static int close_folder(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_users_are_added_at_the_end),
        cmocka_unit_test(test_a_user_is_changed_in_place),
        cmocka_unit_test(test_a_user_is_deleted_with_the_line),
        cmocka_unit_test(test_a_name_that_comes_twice_is_left_alone),
        cmocka_unit_test(test_names_are_judged),
        cmocka_unit_test(test_a_file_is_created_for_its_owner_alone),
        cmocka_unit_test(test_owner_and_mode_are_kept),
        cmocka_unit_test(test_a_link_stays_one),
        cmocka_unit_test(test_what_does_not_change_is_not_written),
        cmocka_unit_test(test_a_hash_is_looked_up),
        cmocka_unit_test(test_changes_at_the_same_time_are_not_lost),
    };

    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
