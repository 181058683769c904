/* Where the proxy and its password come from. What is printed on standard error is captured. */
#include "cli/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/exit.h"

static const char *const variables[] = {"SOCKS6_PROXY", "ALL_PROXY", "all_proxy", "SOCKS6_PASSWORD"};

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        assert_int_equal(unsetenv(variables[i]), 0);
    }
    return 0;
}

/* What the last choose() printed. */
static char printed[4096];

static int choose(const struct proxy_options *options, struct socks6_proxy *out, const char **source)
{
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    size_t len;
    int rc;

    assert_non_null(file);
    fflush(stderr);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    rc = proxy_choose(options, "connect", out, source);
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    rewind(file);
    len = fread(printed, 1, sizeof printed - 1, file);
    printed[len] = '\0';
    fclose(file);
    return rc;
}

static void assert_chosen(const char *url_option, const char *addr, const char *source)
{
    const struct proxy_options options = {.url = url_option};
    struct socks6_proxy proxy;
    const char *got_source = NULL;
    char text[SOCKS6_ADDR_TEXT_MAX];

    assert_int_equal(choose(&options, &proxy, &got_source), 0);
    assert_string_equal(printed, "");
    (void)socks6_addr_format(&proxy.addr, text, sizeof text);
    assert_string_equal(text, addr);
    assert_string_equal(got_source, source);
}

static void assert_usage(const struct proxy_options *options, const char *sentence)
{
    struct socks6_proxy proxy;
    const char *source = NULL;

    assert_int_equal(choose(options, &proxy, &source), CLI_EXIT_USAGE);
    if (strstr(printed, sentence) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", printed, sentence);
    }
    assert_non_null(strstr(printed, "socks6 connect --help"));
    assert_null(strstr(printed, "hunter2"));
}

static void test_order_of_sources(void **state)
{
    (void)state;
    assert_chosen(NULL, "127.0.0.1:1080", "the default");
    setenv("all_proxy", "socks5h://lower:1", 1);
    assert_chosen(NULL, "lower:1", "all_proxy");
    setenv("ALL_PROXY", "SOCKS6://upper:2", 1);
    assert_chosen(NULL, "upper:2", "ALL_PROXY");
    setenv("SOCKS6_PROXY", "socks6://ours:3", 1);
    assert_chosen(NULL, "ours:3", "SOCKS6_PROXY");
    assert_chosen("socks6://option:4", "option:4", "-x");
}

static void test_empty_variable_counts_as_unset(void **state)
{
    (void)state;
    setenv("SOCKS6_PROXY", "", 1);
    setenv("ALL_PROXY", "", 1);
    setenv("all_proxy", "socks6://h", 1);
    assert_chosen(NULL, "h:1080", "all_proxy");
}

static void test_foreign_scheme_is_passed_over_in_all_proxy_only(void **state)
{
    const struct proxy_options none = {NULL, NULL, NULL};
    const struct proxy_options http = {.url = "http://h:8080"};

    (void)state;
    setenv("ALL_PROXY", "http://h:8080", 1);
    assert_chosen(NULL, "127.0.0.1:1080", "the default");
    setenv("all_proxy", "socks6://h", 1);
    assert_chosen(NULL, "h:1080", "all_proxy");
    assert_usage(&http, "the proxy URL of -x: the scheme");
    setenv("SOCKS6_PROXY", "http://h:8080", 1);
    assert_usage(&none, "the proxy URL of SOCKS6_PROXY: the scheme");
}

static void test_tls_is_a_scheme_of_ours(void **state)
{
    const struct proxy_options none = {NULL, NULL, NULL};
    const struct proxy_options certificate = {.url = "socks6://h?ca=x"};

    (void)state;
    assert_usage(&certificate, "socks6s:// only");
    setenv("ALL_PROXY", "socks6s://h?tls=1", 1); /* not passed over */
    assert_usage(&none, "the proxy URL of ALL_PROXY: tls= takes 1.3 or 1.2");
}

static void test_empty_option_is_an_error(void **state)
{
    const struct proxy_options empty = {.url = ""};

    (void)state;
    assert_usage(&empty, "the proxy URL of -x: a proxy URL starts with");
}

static void assert_credentials(const struct proxy_options *options, const char *user, const char *password)
{
    struct socks6_proxy proxy;
    const char *source = NULL;

    assert_int_equal(choose(options, &proxy, &source), 0);
    assert_int_equal(proxy.has_credentials, user != NULL);
    assert_string_equal(proxy.username, user != NULL ? user : "");
    assert_string_equal(proxy.password, password);
}

/* A file with a password; the caller unlinks it. */
static void write_file(char path[32], const char *bytes, size_t len)
{
    int fd;

    strcpy(path, "/tmp/test_proxy_XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

static void test_sources_of_user_and_password(void **state)
{
    char path[32];
    const struct proxy_options in_url = {.url = "socks6://alice:hunter2@h"};
    const struct proxy_options user_in_url = {.url = "socks6://alice@h"};
    const struct proxy_options user = {.user = "bob"};
    const struct proxy_options with_file = {.user = "bob", .password_file = path};
    const struct proxy_options url_and_file = {.url = "socks6://alice@h", .password_file = path};

    (void)state;
    write_file(path, "of the file\n", 12);
    assert_credentials(&in_url, "alice", "hunter2");
    assert_credentials(&user_in_url, "alice", "");
    assert_credentials(&user, "bob", "");
    setenv("SOCKS6_PASSWORD", "of the variable", 1);
    assert_credentials(&in_url, "alice", "hunter2");
    assert_credentials(&user_in_url, "alice", "of the variable");
    assert_credentials(&user, "bob", "of the variable");
    assert_credentials(&with_file, "bob", "of the file");
    assert_credentials(&url_and_file, "alice", "of the file");
    assert_credentials(&(const struct proxy_options){NULL, NULL, NULL}, NULL, ""); /* a password alone is none */
    unlink(path);
}

static void test_contradictions_are_refused(void **state)
{
    char path[32], longest[300];
    const struct proxy_options two_users = {.url = "socks6://alice:hunter2@h", .user = "bob"};
    const struct proxy_options no_user = {.password_file = path};
    const struct proxy_options two_passwords = {.url = "socks6://alice:hunter2@h", .password_file = path};
    const struct proxy_options empty_user = {.user = ""};
    const struct proxy_options long_user = {.user = longest};
    const struct proxy_options user = {.user = "bob"};
    const struct proxy_options no_file = {.user = "bob", .password_file = "/nonexistent/file"};

    (void)state;
    write_file(path, "hunter2\n", 8);
    memset(longest, 'x', sizeof longest);
    longest[256] = '\0';
    assert_usage(&two_users, "has a user name too");
    assert_usage(&no_user, "there is no user name");
    assert_usage(&two_passwords, "has a password too");
    assert_usage(&empty_user, "1 to 255 bytes");
    assert_usage(&long_user, "1 to 255 bytes");
    assert_usage(&no_file, "cannot read /nonexistent/file: No such file or directory");
    setenv("SOCKS6_PASSWORD", longest, 1);
    assert_usage(&user, "SOCKS6_PASSWORD is longer than 255 bytes");
    unlink(path);
}

static void assert_file_gives(const char *bytes, size_t len, int rc, const char *password)
{
    char path[32];
    char got[SOCKS6_PASSWORD_MAX + 1];

    memset(got, '#', sizeof got);
    write_file(path, bytes, len);
    assert_int_equal(proxy_read_password(path, got), rc);
    unlink(path);
    if (rc == 0) {
        assert_string_equal(got, password);
    } else {
        assert_int_equal(got[0], '#');
        assert_int_equal(got[255], '#');
    }
}

static void test_forms_of_a_password_file(void **state)
{
    char bytes[300];

    (void)state;
    assert_file_gives("pw\n", 3, 0, "pw");
    assert_file_gives("pw\r\n", 4, 0, "pw");
    assert_file_gives("pw", 2, 0, "pw");
    assert_file_gives("pw\nsecond line\n", 15, 0, "pw");
    assert_file_gives(" p w \n", 6, 0, " p w ");
    assert_file_gives("p\rw\n", 4, 0, "p\rw");
    assert_file_gives("\n", 1, 0, "");
    assert_file_gives("", 0, 0, "");
    assert_file_gives("a\0b\n", 4, -EILSEQ, NULL);
    assert_file_gives("pw\na\0b\n", 7, 0, "pw");
    memset(bytes, 'x', sizeof bytes);
    for (size_t len = 250; len <= 260; len++) {
        char password[300] = "";

        memcpy(password, bytes, len);
        assert_file_gives(bytes, len, len <= 255 ? 0 : -EMSGSIZE, password);
        bytes[len] = '\n';
        assert_file_gives(bytes, len + 1, len <= 255 ? 0 : -EMSGSIZE, password);
        bytes[len] = '\r';
        bytes[len + 1] = '\n';
        assert_file_gives(bytes, len + 2, len <= 255 ? 0 : -EMSGSIZE, password);
        memset(bytes, 'x', sizeof bytes);
    }
}

static void test_password_comes_through_a_pipe_in_pieces(void **state)
{
    char path[32], got[SOCKS6_PASSWORD_MAX + 1];
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "pass", 4), 4);
    assert_int_equal(write(fds[1], "word\n", 5), 5); /* the writing end stays open: the line end is enough */
    (void)snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    assert_int_equal(proxy_read_password(path, got), 0);
    assert_string_equal(got, "password");
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(proxy_read_password("/", got), -EISDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order_of_sources, set_up),
        cmocka_unit_test_setup(test_empty_variable_counts_as_unset, set_up),
        cmocka_unit_test_setup(test_foreign_scheme_is_passed_over_in_all_proxy_only, set_up),
        cmocka_unit_test_setup(test_tls_is_a_scheme_of_ours, set_up),
        cmocka_unit_test_setup(test_empty_option_is_an_error, set_up),
        cmocka_unit_test_setup(test_sources_of_user_and_password, set_up),
        cmocka_unit_test_setup(test_contradictions_are_refused, set_up),
        cmocka_unit_test_setup(test_forms_of_a_password_file, set_up),
        cmocka_unit_test_setup(test_password_comes_through_a_pipe_in_pieces, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
