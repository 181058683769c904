/*
 * Once a second: idle sessions end, and stat(2) tells whether the users file is another one. A file that is being written
 * must not be taken for the whole, or those in its second half would be cut off: it is read when it has looked the same
 * for two looks.
 *
 * The order of a change: the file is read; sessions of those who are gone or have another password end; each worker, by
 * message, takes the new users, and ends the connections of those who are gone. Until a worker has heard it, it can let
 * somebody in by the old users and start a session; so the sessions are ended once more when all have heard it.
 */
#include "proxyd/accounts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "proxyd/log.h"
#include "proxyd/store_memory.h"

#define LOOK_MS 1000u

/* What tells one content of a file from another. All zero: never looked at. */
struct file_state {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
    int error; /* of stat(2) */
};

struct accounts {
    struct loop *loop;
    struct loop_timer timer;
    struct passwords *passwords;
    struct store *store;
    const struct users *users; /* in force, a reference; NULL = none */
    char *path;                /* of the users file; NULL = none */
    struct file_state read;    /* as it was when it was read, or tried */
    struct file_state seen;    /* at the last look */
    unsigned worker_count;
    void (*tell)(void *user, struct accounts_change *change);
    void *user;
};

/* ---- changes ---- */

static void change_free(struct accounts_change *change)
{
    users_release(change->before);
    users_release(change->after);
    free(change->removed);
    free(change->changed);
    free(change);
}

void accounts_change_discard(struct accounts_change *change)
{
    if (change != NULL) {
        change_free(change);
    }
}

static void drop_sessions(const struct accounts_change *change)
{
    if (change->changes_everyone) {
        store_drop_every_user(change->store);
    }
    store_drop_users(change->store, change->changed, change->changed_count);
}

static void log_change(const struct accounts_change *change)
{
    const struct users_pam *pam = users_pam(change->after);

    if (change->removes_everyone) {
        log_info("users: all whom PAM had let in were removed");
    }
    if (pam != NULL) {
        log_info("users: whoever PAM lets in by its service '%s'; %zu were removed", pam->service,
                 change->removed_count);
        return;
    }
    log_info("users: %zu in force; %zu were removed, %zu have another password",
             change->after == NULL ? 0 : users_count(change->after), change->removed_count,
             change->changed_count - change->removed_count);
}

void accounts_change_release(struct accounts_change *change)
{
    if (change == NULL || atomic_fetch_sub_explicit(&change->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    drop_sessions(change);
    log_change(change);
    change_free(change);
}

/* Those of `before` who are gone, for a list that may be freed; false: no memory. */
static bool list_gone(const struct users *before, const struct users *after, bool changed, struct socks6_slice **names,
                      size_t *count)
{
    if (before == NULL || users_count(before) == 0) {
        return true;
    }
    *names = calloc(users_count(before), sizeof **names);
    if (*names == NULL) {
        return false;
    }
    *count = users_gone(before, after, changed, *names);
    return true;
}

/* Nobody: for the time without users. */
static const struct users *no_users(void)
{
    const struct users *users = NULL;
    struct users_error error;

    return users_parse("", "", 0, &users, &error) == 0 ? users : NULL;
}

/* What PAM has let in is forgotten at every reload: nobody but the administrator knows that a user of it is gone. */
static bool is_same(const struct users *a, const struct users *b, const struct accounts_change *change)
{
    return users_pam(a) == users_pam(b) && (a == NULL) == (b == NULL) &&
           (a == NULL || users_count(a) == users_count(b)) && change->changed_count == 0;
}

int accounts_prepare(const struct accounts *accounts, const struct users *users, struct accounts_change **out)
{
    size_t orders_len = accounts->worker_count * sizeof(struct accounts_order);
    struct accounts_change *change = calloc(1, sizeof *change + orders_len);
    const struct users *after = users != NULL ? users_retain(users) : no_users();

    if (change == NULL || after == NULL) {
        free(change);
        users_release(after);
        return -ENOMEM;
    }
    atomic_init(&change->references, 1 + accounts->worker_count);
    change->store = accounts->store;
    change->before = accounts->users == NULL ? NULL : users_retain(accounts->users);
    change->after = after;
    if (!list_gone(change->before, after, false, &change->removed, &change->removed_count) ||
        !list_gone(change->before, after, true, &change->changed, &change->changed_count)) {
        change_free(change);
        return -ENOMEM;
    }
    change->removes_everyone = users_are_all_gone(change->before, users);
    change->changes_everyone = users_pam(change->before) != NULL;
    *out = NULL;
    if (is_same(change->before, users, change)) {
        change_free(change);
        return 0;
    }
    if (users == NULL) {
        users_release(change->after);
        change->after = NULL;
    }
    for (unsigned i = 0; i < accounts->worker_count; i++) {
        change->orders[i].change = change;
    }
    *out = change;
    return 0;
}

/* Takes the change. */
static void carry_out(struct accounts *accounts, struct accounts_change *change)
{
    users_release(accounts->users);
    accounts->users = change->after == NULL ? NULL : users_retain(change->after);
    drop_sessions(change);
    accounts->tell(accounts->user, change);
    accounts_change_release(change);
}

/* ---- the file ---- */

static struct file_state look_at(const char *path)
{
    struct file_state state = {0};
    struct stat status;

    if (stat(path, &status) != 0) {
        state.error = errno;
        return state;
    }
    state.device = status.st_dev;
    state.inode = status.st_ino;
    state.size = status.st_size;
    state.modified = status.st_mtim;
    state.changed = status.st_ctim;
    return state;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool is_same_state(const struct file_state *a, const struct file_state *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->error == b->error &&
           is_same_time(&a->modified, &b->modified) && is_same_time(&a->changed, &b->changed);
}

static void read_users(struct accounts *accounts)
{
    struct accounts_change *change = NULL;
    struct users_error error, remark;
    const struct users *users;

    if (users_load(accounts->path, &users, &error, &remark) != 0) {
        log_error("the users in force stay: %s", error.text);
        return;
    }
    if (remark.text[0] != '\0') {
        log_warning("%s", remark.text);
    }
    if (accounts_prepare(accounts, users, &change) != 0) {
        log_error("the users in force stay: no memory for others; this is tried again");
        memset(&accounts->read, 0, sizeof accounts->read);
    } else if (change != NULL) {
        carry_out(accounts, change);
    }
    users_release(users);
}

static void look(struct accounts *accounts)
{
    struct file_state now = look_at(accounts->path);
    bool has_settled = is_same_state(&now, &accounts->seen);

    accounts->seen = now;
    if (has_settled && !is_same_state(&now, &accounts->read)) {
        accounts->read = now;
        read_users(accounts);
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct accounts *accounts = LOOP_OWNER(timer, struct accounts, timer);

    store_expire(accounts->store, loop_now_ms(accounts->loop));
    if (accounts->path != NULL) {
        look(accounts);
    }
    loop_timer_set(accounts->loop, timer, LOOK_MS);
}

/* ---- the configuration ---- */

static struct store_limits limits_of(const struct config *config)
{
    return (struct store_limits){
        .total = config->limits.sessions,
        .per_user = config->limits.sessions_per_user,
        .per_client = config->limits.sessions_per_client,
        .anonymous = config->limits.sessions_anonymous,
        .window_size = config->limits.token_window,
        .idle_ms = config->limits.session_idle_ms,
    };
}

/* Another file, or the same one read a moment ago; what happened to it since then is found at the next looks. */
static void watch(struct accounts *accounts, const char *path)
{
    char *copy = path == NULL ? NULL : strdup(path);

    if (path != NULL && copy == NULL) {
        log_error("no memory to watch %s: changes are seen at a reload", path);
    }
    free(accounts->path);
    accounts->path = copy;
    memset(&accounts->read, 0, sizeof accounts->read);
    memset(&accounts->seen, 0, sizeof accounts->seen);
}

static void tell_remark(const struct config_auth *auth)
{
    if (auth->remark.text[0] != '\0') {
        log_warning("%s", auth->remark.text);
    }
}

void accounts_commit(struct accounts *accounts, const struct config *config, struct accounts_change *change)
{
    const struct store_limits limits = limits_of(config);

    if (store_memory_set_limits(accounts->store, &limits) != 0) {
        abort(); /* the configuration was checked */
    }
    tell_remark(&config->auth);
    if (change != NULL) {
        carry_out(accounts, change);
    }
    watch(accounts, config->auth.users_path);
}

/* ---- life ---- */

int accounts_new(struct loop *loop, const struct config *config, unsigned worker_count,
                 void (*tell)(void *user, struct accounts_change *change), void *user, struct accounts **out)
{
    const struct store_limits limits = limits_of(config);
    struct accounts *accounts = calloc(1, sizeof *accounts);
    struct passwords_config settings;
    int err;

    if (accounts == NULL) {
        return -ENOMEM;
    }
    accounts->loop = loop;
    accounts->worker_count = worker_count;
    accounts->tell = tell;
    accounts->user = user;
    passwords_config_init(&settings);
#if SOCKS6_WITH_PAM
    settings.ask_pam = pamauth_ask;
#endif
    err = passwords_new(&settings, &accounts->passwords);
    if (err == 0) {
        err = store_memory_new(&limits, &accounts->store);
    }
    if (err != 0) {
        accounts_free(accounts);
        return err;
    }
    accounts->users = config->auth.users == NULL ? NULL : users_retain(config->auth.users);
    tell_remark(&config->auth);
    watch(accounts, config->auth.users_path);
    accounts->timer.expired = on_timer;
    loop_timer_set(loop, &accounts->timer, LOOK_MS);
    *out = accounts;
    return 0;
}

void accounts_free(struct accounts *accounts)
{
    if (accounts == NULL) {
        return;
    }
    loop_timer_cancel(accounts->loop, &accounts->timer);
    passwords_free(accounts->passwords);
    store_free(accounts->store);
    users_release(accounts->users);
    free(accounts->path);
    free(accounts);
}

struct passwords *accounts_passwords(const struct accounts *accounts)
{
    return accounts->passwords;
}

struct store *accounts_store(const struct accounts *accounts)
{
    return accounts->store;
}

const struct users *accounts_users(const struct accounts *accounts)
{
    return accounts->users;
}
