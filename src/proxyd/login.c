/*
 * Users can vanish, and their passwords change, while one is being checked. So what was right for the users that the
 * check began with counts only if the users in force agree on this one. All of it happens on the worker's thread, where
 * new users come into force too: either the verdict is first, and whoever logged in is among those who are cut, or it
 * is judged by the new users.
 */
#include "proxyd/login.h"

#include <stddef.h>

static struct socks6_slice name_of(const struct identity *identity)
{
    return (struct socks6_slice){(const uint8_t *)identity->name, identity->len};
}

static enum login_verdict verdict_of(const struct login *login, enum password_verdict password)
{
    const struct users *now = login->auth->users;

    switch (password) {
    case PASSWORD_RIGHT:
        return now != NULL && users_agree(login->users, now, name_of(login->identity)) ? LOGIN_GOOD : LOGIN_WRONG;
    case PASSWORD_WRONG:
        return LOGIN_WRONG;
    case PASSWORD_BACK_OFF:
        return LOGIN_BACK_OFF;
    case PASSWORD_FAILED:
        return LOGIN_FAILED;
    case PASSWORD_BUSY:
        break;
    }
    return LOGIN_BUSY;
}

static void count(struct stats *stats, enum login_verdict verdict)
{
    enum stats_counter counter = STATS_auth_busy;

    switch (verdict) {
    case LOGIN_GOOD:
        counter = STATS_auth_ok;
        break;
    case LOGIN_WRONG:
        counter = STATS_auth_failed;
        break;
    case LOGIN_BACK_OFF:
        counter = STATS_auth_backoff;
        break;
    case LOGIN_FAILED:
        counter = STATS_auth_errors;
        break;
    case LOGIN_BUSY:
        break;
    }
    stats_add(stats, counter, 1);
}

static void forget(struct login *login)
{
    identity_release(&login->auth->identities, login->identity);
    login->identity = NULL;
}

static enum login_verdict end(struct login *login, enum password_verdict password)
{
    enum login_verdict verdict = verdict_of(login, password);

    count(login->auth->stats, verdict);
    users_release(login->users);
    login->users = NULL;
    login->check = NULL;
    if (verdict != LOGIN_GOOD) {
        forget(login);
    }
    return verdict;
}

static void on_checked(void *user, enum password_verdict password)
{
    struct login *login = user;

    login->done(login, end(login, password));
}

/* Without looking at any password. */
static bool refuse(struct login *login, enum login_verdict why, enum login_verdict *verdict)
{
    count(login->auth->stats, why);
    *verdict = why;
    return true;
}

bool login_start(struct login *login, const struct socks6_addr *client, const struct socks6_credentials *credentials,
                 enum login_verdict *verdict)
{
    struct auth *auth = login->auth;
    enum password_verdict password;

    if (credentials->username.len == 0 || credentials->username.len > SOCKS6_USERNAME_MAX || auth->users == NULL) {
        return refuse(login, LOGIN_WRONG, verdict); /* nobody is called so: nothing is told by answering at once */
    }
    login->identity = identity_take(&auth->identities, credentials->username);
    if (login->identity == NULL) {
        return refuse(login, LOGIN_BUSY, verdict);
    }
    login->users = users_retain(auth->users);
    if (passwords_check(auth->passwords, login->users, auth->loop, client, credentials, on_checked, login, &password,
                        &login->check) == PASSWORD_LATER) {
        return false;
    }
    *verdict = end(login, password);
    return true;
}

void login_cancel(struct login *login)
{
    password_cancel(login->check);
    login->check = NULL;
    users_release(login->users);
    login->users = NULL;
    if (login->identity != NULL) {
        forget(login);
    }
}

const char *login_why(enum login_verdict verdict)
{
    switch (verdict) {
    case LOGIN_GOOD:
        return "logged in";
    case LOGIN_WRONG:
        return "wrong user name or password";
    case LOGIN_BACK_OFF:
        return "too many wrong passwords from this address";
    case LOGIN_FAILED:
        return "PAM could not tell";
    case LOGIN_BUSY:
        break;
    }
    return "too many passwords to check";
}
