/*
 * What PAM is told, what its modules get to hear, what its answers mean. libpam is a stand-in whose module does what the
 * test says; the real one is in the end-to-end tests.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <security/pam_appl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/pamauth.h"

int __wrap_pam_start(const char *service, const char *user, const struct pam_conv *conversation, pam_handle_t **out);
int __wrap_pam_set_item(pam_handle_t *pam, int type, const void *item);
int __wrap_pam_get_item(const pam_handle_t *pam, int type, const void **item);
int __wrap_pam_authenticate(pam_handle_t *pam, int flags);
int __wrap_pam_acct_mgmt(pam_handle_t *pam, int flags);
int __wrap_pam_end(pam_handle_t *pam, int status);
const char *__wrap_pam_strerror(pam_handle_t *pam, int rc);

/* One message of the module, with what it should be answered. */
struct line {
    int style;
    const char *answer; /* NULL = none */
};

static struct {
    /* What it does. */
    int start_rc, item_rc, auth_rc, account_rc;
    const char *renamed; /* what PAM_USER is in the end; NULL = what we said */
    const struct line *lines;
    int line_count;
    int repeats;        /* of all lines */
    bool wants_nothing; /* passes no place for the answers */
    /* What it saw. */
    struct pam_conv conversation;
    const char *service, *user;
    char host[64], tty[64];
    bool has_delay;
    int flags, starts, ends, end_status, accounts, talk_rc;
} module;

static char handle; /* its address is one */

int __wrap_pam_start(const char *service, const char *user, const struct pam_conv *conversation, pam_handle_t **out)
{
    module.starts++;
    module.service = service;
    module.user = user;
    module.conversation = *conversation;
    if (module.start_rc == PAM_SUCCESS) {
        *out = (pam_handle_t *)(void *)&handle;
    }
    return module.start_rc;
}

int __wrap_pam_set_item(pam_handle_t *pam, int type, const void *item)
{
    void (*delay)(int, unsigned, void *);

    assert_ptr_equal(pam, &handle);
    switch (type) {
    case PAM_RHOST:
        (void)strcpy(module.host, item);
        return module.item_rc;
    case PAM_TTY:
        (void)strcpy(module.tty, item);
        return PAM_SUCCESS;
    case PAM_FAIL_DELAY:
        memcpy(&delay, &item, sizeof delay);
        delay(PAM_AUTH_ERR, 3600000000u, module.conversation.appdata_ptr); /* comes back at once */
        module.has_delay = true;
        return PAM_SUCCESS;
    default:
        fail_msg("item %d", type);
        return PAM_BAD_ITEM;
    }
}

int __wrap_pam_get_item(const pam_handle_t *pam, int type, const void **item)
{
    assert_ptr_equal(pam, &handle);
    assert_int_equal(type, PAM_USER);
    *item = module.renamed != NULL ? module.renamed : module.user;
    return PAM_SUCCESS;
}

/* Says all lines in one call, and looks at the answers. */
static int say(void)
{
    struct pam_message messages[PAM_MAX_NUM_MSG + 1];
    const struct pam_message *pointers[PAM_MAX_NUM_MSG + 1];
    struct pam_response *responses = NULL;
    int rc;

    for (int i = 0; i < module.line_count; i++) {
        messages[i] = (struct pam_message){.msg_style = module.lines[i].style, .msg = "?"};
        pointers[i] = &messages[i];
    }
    rc = module.conversation.conv(module.line_count, pointers, module.wants_nothing ? NULL : &responses,
                                  module.conversation.appdata_ptr);
    if (rc != PAM_SUCCESS || module.wants_nothing) {
        assert_null(responses);
        return rc;
    }
    assert_non_null(responses);
    for (int i = 0; i < module.line_count; i++) {
        assert_int_equal(responses[i].resp_retcode, 0);
        if (module.lines[i].answer == NULL) {
            assert_null(responses[i].resp);
        } else {
            assert_string_equal(responses[i].resp, module.lines[i].answer);
        }
        free(responses[i].resp);
    }
    free(responses);
    return PAM_SUCCESS;
}

int __wrap_pam_authenticate(pam_handle_t *pam, int flags)
{
    assert_ptr_equal(pam, &handle);
    module.flags = flags;
    for (int i = 0; i < module.repeats && module.talk_rc == PAM_SUCCESS; i++) {
        module.talk_rc = say();
    }
    return module.talk_rc != PAM_SUCCESS ? module.talk_rc : module.auth_rc;
}

int __wrap_pam_acct_mgmt(pam_handle_t *pam, int flags)
{
    assert_ptr_equal(pam, &handle);
    assert_int_equal(flags, module.flags);
    module.accounts++;
    return module.account_rc;
}

int __wrap_pam_end(pam_handle_t *pam, int status)
{
    assert_ptr_equal(pam, &handle);
    module.ends++;
    module.end_status = status;
    return PAM_SUCCESS;
}

const char *__wrap_pam_strerror(pam_handle_t *pam, int rc)
{
    (void)pam;
    (void)rc;
    return "because";
}

static enum pamauth_verdict ask(void)
{
    const struct pamauth_question question = {
        .service = "socks6d", .user = "alice", .password = "secret", .client = "192.0.2.1"};

    return pamauth_ask(&question);
}

static int setup(void **state)
{
    (void)state;
    memset(&module, 0, sizeof module);
    return 0;
}

static void use_lines(const struct line *lines, int count)
{
    module.lines = lines;
    module.line_count = count;
    module.repeats = 1;
    module.talk_rc = PAM_SUCCESS;
}

static void test_who_is_let_in_by_both_steps_is_right(void **state)
{
    static const struct line lines[] = {{PAM_PROMPT_ECHO_OFF, "secret"}};

    (void)state;
    use_lines(lines, 1);
    assert_int_equal(ask(), PAMAUTH_RIGHT);
    assert_string_equal(module.service, "socks6d");
    assert_string_equal(module.user, "alice");
    assert_string_equal(module.host, "192.0.2.1");
    assert_string_equal(module.tty, "socks6d");
    assert_true(module.has_delay);
    assert_int_equal(module.flags, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
    assert_int_equal(module.accounts, 1);
    assert_int_equal(module.ends, 1);
    assert_int_equal(module.end_status, PAM_SUCCESS);
}

static void test_answers_of_pam_are_told_apart(void **state)
{
    static const int wrong[] = {PAM_AUTH_ERR,    PAM_USER_UNKNOWN,     PAM_MAXTRIES,
                                PAM_PERM_DENIED, PAM_ACCT_EXPIRED,     PAM_CRED_EXPIRED,
                                PAM_CONV_ERR,    PAM_NEW_AUTHTOK_REQD, PAM_AUTHTOK_EXPIRED};
    static const int failed[] = {
        PAM_OPEN_ERR, PAM_SYMBOL_ERR, PAM_SERVICE_ERR,      PAM_SYSTEM_ERR,     PAM_BUF_ERR, PAM_ABORT,
        PAM_IGNORE,   PAM_INCOMPLETE, PAM_AUTHINFO_UNAVAIL, PAM_MODULE_UNKNOWN, 9999};

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        module.auth_rc = wrong[i];
        assert_int_equal(ask(), PAMAUTH_WRONG);
        assert_int_equal(module.accounts, 0);
        assert_int_equal(module.end_status, wrong[i]);
    }
    for (size_t i = 0; i < sizeof failed / sizeof *failed; i++) {
        module.auth_rc = failed[i];
        assert_int_equal(ask(), PAMAUTH_FAILED);
    }
    module.auth_rc = PAM_SUCCESS;
    module.account_rc = PAM_ACCT_EXPIRED;
    assert_int_equal(ask(), PAMAUTH_WRONG);
    assert_int_equal(module.accounts, 1);
    assert_int_equal(module.ends, module.starts);
}

static void test_pam_that_cannot_begin_has_failed(void **state)
{
    (void)state;
    module.start_rc = PAM_ABORT;
    assert_int_equal(ask(), PAMAUTH_FAILED);
    assert_int_equal(module.ends, 0);
    module.start_rc = PAM_SUCCESS;
    module.item_rc = PAM_BUF_ERR;
    assert_int_equal(ask(), PAMAUTH_FAILED);
    assert_int_equal(module.accounts, 0);
    assert_int_equal(module.ends, 1);
}

static void test_who_gets_another_name_is_not_let_in(void **state)
{
    static const char *const names[] = {"Alice", "alice@example.org", "", "root"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        module.renamed = names[i];
        assert_int_equal(ask(), PAMAUTH_WRONG);
    }
    module.renamed = "alice";
    assert_int_equal(ask(), PAMAUTH_RIGHT);
}

static void test_messages_are_heard_and_prompts_answered(void **state)
{
    static const struct line lines[] = {
        {PAM_TEXT_INFO, NULL},           {PAM_PROMPT_ECHO_ON, "alice"},   {PAM_ERROR_MSG, NULL},
        {PAM_PROMPT_ECHO_OFF, "secret"}, {PAM_PROMPT_ECHO_OFF, "secret"},
    };
    static const struct line info[] = {{PAM_TEXT_INFO, NULL}};

    (void)state;
    use_lines(lines, 5);
    assert_int_equal(ask(), PAMAUTH_RIGHT);
    use_lines(info, 1);
    module.repeats = 1000;
    assert_int_equal(ask(), PAMAUTH_RIGHT);
    module.wants_nothing = true;
    assert_int_equal(ask(), PAMAUTH_RIGHT);
    use_lines(lines, 4);
    module.wants_nothing = true; /* whatever it is good for */
    assert_int_equal(ask(), PAMAUTH_RIGHT);
}

static void test_everything_else_ends_the_conversation(void **state)
{
    static const struct line binary[] = {{PAM_PROMPT_ECHO_OFF, "secret"}, {PAM_BINARY_PROMPT, NULL}};
    static const struct line radio[] = {{PAM_RADIO_TYPE, NULL}};
    static const struct line prompt[] = {{PAM_PROMPT_ECHO_OFF, "secret"}};
    static const struct line many[PAM_MAX_NUM_MSG + 1] = {{PAM_TEXT_INFO, NULL}};

    (void)state;
    use_lines(binary, 2);
    assert_int_equal(ask(), PAMAUTH_WRONG);
    assert_int_equal(module.talk_rc, PAM_CONV_ERR);
    use_lines(radio, 1);
    assert_int_equal(ask(), PAMAUTH_WRONG);
    use_lines(prompt, 1);
    module.repeats = 33; /* once more than is answered */
    assert_int_equal(ask(), PAMAUTH_WRONG);
    assert_int_equal(module.talk_rc, PAM_CONV_ERR);
    use_lines(prompt, 1);
    module.repeats = 32;
    assert_int_equal(ask(), PAMAUTH_RIGHT);
    use_lines(many, PAM_MAX_NUM_MSG + 1);
    assert_int_equal(ask(), PAMAUTH_WRONG);
    use_lines(many, 0);
    assert_int_equal(ask(), PAMAUTH_WRONG);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_is_let_in_by_both_steps_is_right),    TEST(test_answers_of_pam_are_told_apart),
        TEST(test_pam_that_cannot_begin_has_failed),        TEST(test_who_gets_another_name_is_not_let_in),
        TEST(test_messages_are_heard_and_prompts_answered), TEST(test_everything_else_ends_the_conversation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
