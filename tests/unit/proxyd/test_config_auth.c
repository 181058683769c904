/*
 * `auth:` and the users file that comes with it.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxyd/config_internal.h"

#define HASH "$2b$04$abcdefghijklmnopqrstuuWkOZKRMLZFMlnlHvVbOGPuKyYdWNFg."

/* A directory with a users file. */
static char dir[] = "/tmp/test_config_auth.XXXXXX", config_path[64], users_path[64];

static void write_users(const char *text, mode_t mode)
{
    FILE *out = fopen(users_path, "w");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(users_path, mode), 0);
}

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    (void)snprintf(config_path, sizeof config_path, "%s/f.yaml", dir);
    (void)snprintf(users_path, sizeof users_path, "%s/users", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(users_path);
    return rmdir(dir);
}

static int load(const char *text, const struct config **config, struct config_error *error)
{
    return config_load_memory(config_path, text, strlen(text), NULL, 0, config, error);
}

static const struct config *load_or_fail(const char *text)
{
    const struct config *config = NULL;
    struct config_error error;

    if (load(text, &config, &error) != 0) {
        fail_msg("%s", error.text);
    }
    return config;
}

static char *written(const struct config *config, void (*write)(const struct config *config, FILE *out))
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    write(config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_without_it_everybody_is_anonymous(void **state)
{
    const struct config *config = load_or_fail("auth: {methods: anonymous, users: none}\n");

    (void)state;
    assert_int_equal(config->auth.methods, CONFIG_AUTH_ANONYMOUS);
    assert_null(config->auth.users);
    config_release(config);
    config = load_or_fail("");
    assert_int_equal(config->auth.methods, CONFIG_AUTH_ANONYMOUS);
    config_release(config);
}

static void test_users_are_found_beside_the_file_and_loaded(void **state)
{
    const struct config *config, *again;
    char *printed;

    (void)state;
    write_users("alice:" HASH "\nrobot:*\n", 0600);
    config = load_or_fail("auth: {methods: [password, anonymous], users: users}\n");
    assert_int_equal(config->auth.methods, CONFIG_AUTH_ANONYMOUS | CONFIG_AUTH_PASSWORD);
    assert_string_equal(config->auth.users_path, users_path);
    assert_int_equal(users_count(config->auth.users), 2);
    assert_string_equal(config->auth.remark.text, "");
    printed = written(config, config_print);
    assert_non_null(strstr(printed, "auth:\n  methods: [anonymous, password]\n  users: \"/tmp/"));
    assert_null(strstr(printed, HASH));
    again = load_or_fail(printed);
    assert_string_equal(again->auth.users_path, users_path);
    assert_int_equal(again->auth.methods, config->auth.methods);
    free(printed);
    config_release(again);
    config_release(config);
}

static void test_whoever_must_log_in_may_come_from_anywhere(void **state)
{
    static const char listen[] = "listeners: [{address: \"0.0.0.0:1080\"}]\n";
    const struct config *config;
    struct config_error error;
    char text[256];

    (void)state;
    write_users("alice:" HASH "\n", 0600);
    (void)snprintf(text, sizeof text, "%sauth: {methods: password, users: users}\n", listen);
    config_release(load_or_fail(text));
    /* It does not matter which comes first. */
    (void)snprintf(text, sizeof text, "auth: {methods: password, users: users}\n%s", listen);
    config_release(load_or_fail(text));
    (void)snprintf(text, sizeof text, "%sauth: {methods: [password, anonymous], users: users}\n", listen);
    assert_int_equal(load(text, &config, &error), -1);
    assert_non_null(strstr(error.text, "would be open to everybody"));
}

static void test_errors_say_where_they_are(void **state)
{
    static const struct {
        const char *text, *users, *error;
    } cases[] = {
        {"auth: {methods: []}\n", "", "f.yaml:1:17: an empty list would let nobody in; write 'anonymous' if nobody"},
        {"auth: {methods: [pasword]}\n", "", "f.yaml:1:18: 'pasword' is not a way to come in; write one of: anonymous"},
        {"auth: {methods: [certificate]}\n", "",
         "f.yaml:1:17: 'certificate' needs to know the users; add 'users: FILE'"},
        {"auth: {methods: [certificate], users: users}\n", "",
         "f.yaml:1:17: no listener asks for the certificate that"},
        {"auth: {methods: [password, password]}\n", "", "f.yaml:1:28: 'password' is in this list already"},
        {"auth:\n  methods: [password]\n", "", "f.yaml:2:12: 'password' needs to know the users; add 'users: FILE'"},
        {"auth:\n  users: users\n", "",
         "f.yaml:2:10: users cannot log in without 'password' or 'certificate' among the"},
        {"auth: {methods: password, users: users/}\n", "", "f.yaml:1:34: 'users/' is a directory"},
        {"auth: {methods: password, users: other}\n", "", "other: No such file or directory"},
        {"auth: {methods: password, users: users}\n", "\nalice:$1$x$y\n",
         "users:2: the hash of user 'alice' is of a kind"},
        {"auth: {methods: password, users: users}\n", "alice\n", "users:1: expected NAME:HASH"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct config *config = NULL;
        struct config_error error = {""};

        write_users(cases[i].users, 0600);
        assert_int_equal(load(cases[i].text, &config, &error), -1);
        if (strncmp(error.text, dir, strlen(dir)) != 0 || strstr(error.text, cases[i].error) == NULL) {
            fail_msg("%s\nexpected: %s", error.text, cases[i].error);
        }
    }
}

#if SOCKS6_WITH_PAM
static void test_pam_is_read_and_printed(void **state)
{
    const struct config *config =
        load_or_fail("auth: {methods: [password, anonymous], pam: no-such_service.1, pam_remember: 90s}\n"
                     "rules:\n  - allow: {users: [alice]}\n");
    char *printed = written(config, config_print), *notes = written(config, config_notes);
    const struct config *again = load_or_fail(printed);

    (void)state;
    assert_string_equal(users_pam(config->auth.users)->service, "no-such_service.1");
    assert_int_equal(users_pam(config->auth.users)->remember_ms, 90000);
    assert_int_equal(users_count(config->auth.users), 0);
    assert_non_null(strstr(printed, "  users: none\n  pam: no-such_service.1\n  pam_remember: 90s\n"));
    assert_string_equal(again->auth.pam, config->auth.pam);
    assert_int_equal(again->auth.pam_remember_ms, 90000);
    assert_non_null(
        strstr(notes, "note: there is no file 'no-such_service.1' in /etc/pam.d; PAM does what its service"));
    assert_null(strstr(notes, "alice")); /* nobody knows whether there is one */
    free(printed);
    free(notes);
    config_release(again);
    config_release(config);
}

static void test_pam_goes_with_passwords_alone(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"auth: {methods: password, users: users, pam: x}\n", ":1:46: users are in a file or with PAM; remove one of"},
        {"auth: {methods: [password, certificate], pam: x}\n", ":1:17: 'certificate' needs a list of the users"},
        {"auth: {methods: certificate, pam: x}\n", ":1:17: 'certificate' needs a list of the users"},
        {"auth: {pam: x}\n", ":1:13: nobody is asked for a password without 'password' among the methods"},
        {"auth: {methods: password}\n", "add 'users: FILE' ('socks6 passwd' writes it), or 'pam: SERVICE'"},
        {"auth: {methods: password, pam: /etc/pam.d/x}\n", ":1:32: '/etc/pam.d/x' is not a service of PAM; write the"},
        {"auth: {methods: password, pam: Socks}\n", "'Socks' is not a service of PAM"},
        {"auth: {methods: password, pam: ..}\n", "'..' is not a service of PAM"},
        {"auth: {methods: password, pam: []}\n", "the name of a service of PAM"},
        {"auth: {methods: password, pam: x, pam_remember: none}\n", "cannot be without a limit"},
        {"auth: {methods: password, pam: x, pam_remember: 60}\n", "has no unit"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct config *config = NULL;
        struct config_error error = {""};

        assert_int_equal(load(cases[i].text, &config, &error), -1);
        if (strstr(error.text, cases[i].error) == NULL) {
            fail_msg("%s\nexpected: %s", error.text, cases[i].error);
        }
    }
}
#else
static void test_a_build_without_pam_refuses_it(void **state)
{
    const struct config *config = NULL;
    struct config_error error;

    (void)state;
    assert_int_equal(load("auth:\n  methods: password\n  pam: socks6d\n", &config, &error), -1);
    assert_non_null(strstr(error.text, "f.yaml:3:8: this socks6d was built without PAM; build it with 'meson setup "
                                       "-Dpam=enabled'"));
    config = load_or_fail("auth: {pam: none, pam_remember: 5m}\n");
    assert_null(config->auth.users);
    config_release(config);
}
#endif

static void test_notes_tell_what_is_unwise(void **state)
{
    const struct config *config;
    char *notes;

    (void)state;
    write_users("alice:" HASH "\n", 0644);
    config = load_or_fail("auth: {methods: password, users: users}\nrules:\n  - allow: {users: [alice, bob]}\n");
    notes = written(config, config_notes);
    assert_non_null(strstr(notes, "users: every user of this machine has access (mode 0644)"));
    assert_non_null(strstr(notes, "note: the rule at line 3 names a user who is not in the users file: \"bob\"\n"));
    assert_null(strstr(notes, "alice"));
    free(notes);
    config_release(config);
}

static void test_limits_of_sessions_are_read_and_printed(void **state)
{
    const struct config *config =
        load_or_fail("limits: {sessions: 10, sessions_anonymous: 5, sessions_per_user: none, sessions_per_client: 3, "
                     "session_idle: 90s, token_window: 16}\n");
    char *printed = written(config, config_print);
    struct config_error error;

    (void)state;
    assert_int_equal(config->limits.sessions, 10);
    assert_int_equal(config->limits.sessions_anonymous, 5);
    assert_int_equal(config->limits.sessions_per_user, 0);
    assert_int_equal(config->limits.sessions_per_client, 3);
    assert_int_equal(config->limits.session_idle_ms, 90000);
    assert_int_equal(config->limits.token_window, 16);
    assert_non_null(strstr(printed, "  sessions: 10\n  sessions_anonymous: 5\n  sessions_per_user: none\n"
                                    "  sessions_per_client: 3\n  session_idle: 90s\n  token_window: 16\n"));
    free(printed);
    config_release(config);
    assert_int_equal(load("limits: {token_window: 4097}\n", &config, &error), -1);
    assert_int_equal(load("limits: {sessions: 0}\n", &config, &error), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_it_everybody_is_anonymous),
        cmocka_unit_test(test_users_are_found_beside_the_file_and_loaded),
        cmocka_unit_test(test_whoever_must_log_in_may_come_from_anywhere),
        cmocka_unit_test(test_errors_say_where_they_are),
#if SOCKS6_WITH_PAM
        cmocka_unit_test(test_pam_is_read_and_printed),
        cmocka_unit_test(test_pam_goes_with_passwords_alone),
#else
        cmocka_unit_test(test_a_build_without_pam_refuses_it),
#endif
        cmocka_unit_test(test_notes_tell_what_is_unwise),
        cmocka_unit_test(test_limits_of_sessions_are_read_and_printed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
