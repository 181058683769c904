/*
 * One transaction of PAM for each question: pam_authenticate(3), pam_acct_mgmt(3), and no session, since there is no
 * process to prepare for the user.
 *
 * There is nobody to talk to: modules get the password where they ask for something that is not to be shown, the name
 * where it may be, and their messages go nowhere. Whatever else they want ends the transaction, as does a module that asks
 * again and again. Modules may not make us wait after a failure, since a thread is all they would stop; making the client
 * wait is up to passwords.c.
 */
#include "proxyd/pamauth.h"

#include <security/pam_appl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxyd/log.h"

/* Questions that may be asked in one transaction; a stack of modules has a handful. */
#define QUESTIONS_MAX 32
#define NOTICE_SECONDS 60

struct talk {
    const struct pamauth_question *question;
    int asked_count;
};

/* --- the conversation --- */

/* What we say to one message: PAM_SUCCESS and text or NULL, allocated. */
static int answer(struct talk *talk, const struct pam_message *message, char **out)
{
    const char *text;

    switch (message->msg_style) {
    case PAM_PROMPT_ECHO_OFF:
        text = talk->question->password;
        break;
    case PAM_PROMPT_ECHO_ON:
        text = talk->question->user;
        break;
    case PAM_TEXT_INFO:
    case PAM_ERROR_MSG:
        *out = NULL;
        return PAM_SUCCESS;
    default:
        return PAM_CONV_ERR;
    }
    if (++talk->asked_count > QUESTIONS_MAX) {
        return PAM_CONV_ERR;
    }
    *out = strdup(text);
    return *out != NULL ? PAM_SUCCESS : PAM_BUF_ERR;
}

static void discard(struct pam_response *responses, int count)
{
    for (int i = 0; i < count; i++) {
        if (responses[i].resp != NULL) {
            explicit_bzero(responses[i].resp, strlen(responses[i].resp));
            free(responses[i].resp);
        }
    }
    free(responses);
}

/* For PAM, which takes the responses, and frees them. */
static int converse(int count, const struct pam_message **messages, struct pam_response **out, void *context)
{
    struct pam_response *responses;
    int rc = PAM_SUCCESS;

    if (count <= 0 || count > PAM_MAX_NUM_MSG) {
        return PAM_CONV_ERR;
    }
    responses = calloc((size_t)count, sizeof *responses);
    if (responses == NULL) {
        return PAM_BUF_ERR;
    }
    for (int i = 0; i < count && rc == PAM_SUCCESS; i++) {
        rc = answer(context, messages[i], &responses[i].resp);
    }
    if (rc != PAM_SUCCESS || out == NULL) { /* some modules want no answers to their messages */
        discard(responses, count);
        return rc;
    }
    *out = responses;
    return PAM_SUCCESS;
}

/* Whatever delay the modules wish for after a failure. */
static void do_not_wait(int status, unsigned usec, void *context)
{
    (void)status;
    (void)usec;
    (void)context;
}

/* --- the transaction --- */

static int set_items(pam_handle_t *pam, const struct pamauth_question *question)
{
    void (*const delay)(int, unsigned, void *) = do_not_wait;
    const void *item; /* of a function: pam_set_item(3) takes objects */
    int rc;

    _Static_assert(sizeof item == sizeof delay, "PAM passes functions as objects");
    memcpy(&item, &delay, sizeof item);
    rc = pam_set_item(pam, PAM_FAIL_DELAY, item);
    if (rc == PAM_SUCCESS) {
        rc = pam_set_item(pam, PAM_RHOST, question->client);
    }
    return rc == PAM_SUCCESS ? pam_set_item(pam, PAM_TTY, "socks6d") : rc;
}

/*
 * A module may come to know the user by another name than ours: in other letters, or with a domain. Rules and limits know
 * the name that the client has sent, so who is somebody else in the end is nobody.
 */
static int check_name(pam_handle_t *pam, const struct pamauth_question *question)
{
    const void *name = NULL;
    int rc = pam_get_item(pam, PAM_USER, &name);

    if (rc == PAM_SUCCESS && (name == NULL || strcmp(name, question->user) != 0)) {
        rc = PAM_USER_UNKNOWN;
    }
    return rc;
}

static int ask(pam_handle_t *pam, const struct pamauth_question *question)
{
    const int flags = PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK;
    int rc = set_items(pam, question);

    if (rc == PAM_SUCCESS) {
        rc = pam_authenticate(pam, flags);
    }
    if (rc == PAM_SUCCESS) {
        rc = pam_acct_mgmt(pam, flags);
    }
    return rc == PAM_SUCCESS ? check_name(pam, question) : rc;
}

static enum pamauth_verdict verdict_of(int rc)
{
    switch (rc) {
    case PAM_SUCCESS:
        return PAMAUTH_RIGHT;
    case PAM_AUTH_ERR:
    case PAM_USER_UNKNOWN:
    case PAM_MAXTRIES:
    case PAM_PERM_DENIED:
    case PAM_ACCT_EXPIRED:
    case PAM_CRED_EXPIRED:
    case PAM_AUTHTOK_EXPIRED:
    case PAM_NEW_AUTHTOK_REQD:
    case PAM_CONV_ERR: /* it wanted more than a password */
        return PAMAUTH_WRONG;
    default:
        return PAMAUTH_FAILED;
    }
}

/* --- the log --- */

/* True once a minute: a service that is broken is broken for everybody. */
static bool may_tell(void)
{
    static _Atomic long long told; /* in seconds of the monotonic clock, and one; 0 = never */
    struct timespec now;
    long long last = atomic_load(&told);

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (last == 0 || now.tv_sec + 1 - last >= NOTICE_SECONDS) &&
           atomic_compare_exchange_strong(&told, &last, (long long)now.tv_sec + 1);
}

static void tell(const struct pamauth_question *question, enum pamauth_verdict verdict, const char *why)
{
    char name[LOG_QUOTE_MAX(SOCKS6_USERNAME_MAX)];

    if (verdict == PAMAUTH_FAILED && may_tell()) {
        log_warning("pam: service '%s' cannot tell who may come in: %s", question->service, why);
    } else if (verdict != PAMAUTH_RIGHT && log_has(CONFIG_LOG_DEBUG)) {
        (void)log_quote(question->user, strlen(question->user), name, sizeof name);
        log_debug("pam: service '%s' does not let %s in: %s", question->service, name, why);
    }
}

enum pamauth_verdict pamauth_ask(const struct pamauth_question *question)
{
    struct talk talk = {.question = question};
    const struct pam_conv conversation = {.conv = converse, .appdata_ptr = &talk};
    pam_handle_t *pam = NULL;
    int rc = pam_start(question->service, question->user, &conversation, &pam);
    enum pamauth_verdict verdict;

    if (rc != PAM_SUCCESS || pam == NULL) {
        tell(question, PAMAUTH_FAILED, pam_strerror(pam, rc));
        return PAMAUTH_FAILED;
    }
    rc = ask(pam, question);
    verdict = verdict_of(rc);
    tell(question, verdict, pam_strerror(pam, rc));
    (void)pam_end(pam, rc);
    return verdict;
}
