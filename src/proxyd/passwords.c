/*
 * Theory of operation. Whoever asks becomes a `struct password_check`, which waits for a `struct job`, the hashing of one
 * (name, hash, password). Equal questions share a job: a hundred connections that a program opens at once cost one hash.
 * `mutex` guards the list of jobs, each job's waiting checks, and a check's step from WAITING to POSTED; after that the
 * check is its loop's alone.
 *
 * Who frees a check: its loop when the answer arrives there, else password_cancel(). Who frees a job: the thread that
 * has run it; or password_cancel(), if it was the last check and the job had not begun. A wrong guess whose connection is
 * gone counts as a failure all the same if it was looked at.
 *
 * The order of things in passwords_check() is what keeps guessing slow: an address that must wait is told so before its
 * password is looked at, even if that is in the cache, or the cache would be a fast way to guess.
 *
 * PAM's jobs have threads of their own, more of them, since its modules wait for servers; one that never returns costs one
 * of these. What it refuses is HELD on the asker's loop until the next whole second since the question, so that the time
 * does not tell whether the name exists.
 */
#include "proxyd/passwords.h"

#include <assert.h>
#include <crypt.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <openssl/crypto.h>

#include "io/pool.h"
#include "proxyd/backoff.h"
#include "proxyd/client_key.h"
#include "proxyd/config_values.h"
#include "proxyd/log.h"
#include "proxyd/password_cache.h"

/* What unknown names are hashed with where there is no user with a password: yescrypt as crypt_gensalt(3) sets it up. */
static const char default_decoy[] = "$y$j9T$FTRAn2I8dj.r9NIrN4TdM/$168cNiPfnhPtTxxhm4puw02AXMOdSZ9AUtg7NRTrFpC";

/* What PAM is given to end when the daemon does. */
#define PAM_END_MS 2000u
/* A question to PAM that takes longer is worth a line in the log, once a minute. */
#define PAM_SLOW_MS 10000u
#define PAM_NOTICE_MS 60000u

enum check_state { CHECK_WAITING, CHECK_POSTED, CHECK_HELD };

struct password_check {
    struct loop_msg msg;
    struct password_check *prev, *next; /* of the same job */
    struct passwords *passwords;
    struct job *job;
    struct loop *loop;
    password_done *done;
    void *user;
    _Atomic(enum check_state) state; /* changed with the mutex held; to HELD by the loop's thread */
    bool is_cancelled;               /* POSTED: the loop's thread only */
    enum password_verdict verdict;   /* POSTED, HELD */
    bool is_for_pam;
    uint64_t asked_ms;
    struct loop_timer timer; /* HELD */
};

struct job {
    struct pool_job work;
    struct job *prev, *next;
    struct passwords *passwords;
    struct pool *pool;
    struct password_check *checks;
    const struct users *users; /* holds `hash` and `pam` */
    const char *hash;          /* NULL if PAM is asked */
    const struct users_pam *pam;
    bool can_be_right; /* the user exists, and the password has no NUL; PAM: it may be asked */
    uint64_t client;   /* hashed; for the back-off */
    uint64_t begun_ms; /* on a thread; 0 = not yet */
    struct password_tag tag;
    char name[SOCKS6_USERNAME_MAX + 1]; /* for PAM, as `address` */
    char password[SOCKS6_PASSWORD_MAX + 1];
    char address[NET_TEXT_MAX];
};

struct passwords {
    pthread_mutex_t mutex;
    struct pool *pool, *pam_pool; /* no PAM: NULL */
    struct backoff *backoff;
    struct password_cache *cache;
    struct siphash_key hash_key;
    uint64_t cache_ms;
    enum pamauth_verdict (*ask_pam)(const struct pamauth_question *question);
    uint64_t pam_step_ms;
    uint64_t slow_told_ms; /* when the log was last told of a slow PAM; 0 = never */
    _Atomic unsigned waiting_count;
    uint64_t (*clock_ms)(void);
    struct job *jobs;
    bool is_closing;
};

static uint64_t monotonic_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- jobs; with the mutex held, unless said otherwise --- */

static void link_job(struct passwords *passwords, struct job *job)
{
    job->next = passwords->jobs;
    if (job->next != NULL) {
        job->next->prev = job;
    }
    passwords->jobs = job;
}

static void unlink_job(struct job *job)
{
    if (job->prev != NULL) {
        job->prev->next = job->next;
    } else {
        job->passwords->jobs = job->next;
    }
    if (job->next != NULL) {
        job->next->prev = job->prev;
    }
}

static void link_check(struct job *job, struct password_check *check)
{
    check->job = job;
    check->next = job->checks;
    if (check->next != NULL) {
        check->next->prev = check;
    }
    job->checks = check;
    job->passwords->waiting_count++;
}

static void unlink_check(struct password_check *check)
{
    if (check->prev != NULL) {
        check->prev->next = check->next;
    } else {
        check->job->checks = check->next;
    }
    if (check->next != NULL) {
        check->next->prev = check->prev;
    }
    check->passwords->waiting_count--;
}

/* Without the mutex. The checks are gone. */
static void job_free(struct job *job)
{
    users_release(job->users);
    explicit_bzero(job, sizeof *job);
    free(job);
}

/* --- on a thread of the pool --- */

/* Whether the password fits the hash. Costs the same whether it can or not. BUSY: there was no memory to find out. */
static enum password_verdict judge(const struct job *job)
{
    struct crypt_data *data = calloc(1, sizeof *data); /* 32 KiB: too much for the stack */
    size_t len = strlen(job->hash);
    const char *hashed;
    enum password_verdict verdict = PASSWORD_BUSY;

    if (data == NULL) {
        return verdict;
    }
    hashed = crypt_rn(job->password, job->hash, data, (int)sizeof *data);
    if (hashed != NULL) {
        bool is_same = strlen(hashed) == len && CRYPTO_memcmp(hashed, job->hash, len) == 0;

        verdict = is_same && job->can_be_right ? PASSWORD_RIGHT : PASSWORD_WRONG;
    }
    explicit_bzero(data, sizeof *data);
    free(data);
    return verdict;
}

static enum password_verdict judge_by_pam(const struct job *job)
{
    const struct pamauth_question question = {
        .service = job->pam->service,
        .user = job->name,
        .password = job->password,
        .client = job->address,
    };

    if (!job->can_be_right) {
        return PASSWORD_WRONG;
    }
    switch (job->passwords->ask_pam(&question)) {
    case PAMAUTH_RIGHT:
        return PASSWORD_RIGHT;
    case PAMAUTH_WRONG:
        return PASSWORD_WRONG;
    case PAMAUTH_FAILED:
        break;
    }
    return PASSWORD_FAILED;
}

/* On the loop's thread, as the next two. */
static void tell(struct password_check *check)
{
    check->done(check->user, check->verdict);
    free(check);
}

static void on_held_enough(struct loop_timer *timer)
{
    tell(LOOP_OWNER(timer, struct password_check, timer));
}

static void on_answer(struct loop_msg *msg)
{
    struct password_check *check = LOOP_OWNER(msg, struct password_check, msg);

    if (check->is_cancelled) {
        free(check);
    } else if (check->is_for_pam && check->verdict != PASSWORD_RIGHT) {
        uint64_t step_ms = check->passwords->pam_step_ms;
        uint64_t taken_ms = check->passwords->clock_ms() - check->asked_ms;

        check->state = CHECK_HELD;
        check->timer.expired = on_held_enough;
        loop_timer_set(check->loop, &check->timer, step_ms - taken_ms % step_ms);
    } else {
        tell(check);
    }
}

/* The job's checks go to their loops; nobody is there any more when the whole is closing. */
static void post_checks(struct job *job, enum password_verdict verdict)
{
    struct password_check *check = job->checks;

    while (check != NULL) {
        struct password_check *next = check->next;

        job->passwords->waiting_count--;
        if (job->passwords->is_closing) {
            free(check);
        } else {
            check->verdict = verdict;
            check->state = CHECK_POSTED;
            loop_post(check->loop, &check->msg);
        }
        check = next;
    }
    job->checks = NULL;
}

static void run(struct pool_job *work)
{
    struct job *job = LOOP_OWNER(work, struct job, work);
    struct passwords *passwords = job->passwords;
    enum password_verdict verdict;
    uint64_t now_ms;

    (void)pthread_mutex_lock(&passwords->mutex);
    job->begun_ms = passwords->clock_ms();
    (void)pthread_mutex_unlock(&passwords->mutex);
    verdict = job->pam != NULL ? judge_by_pam(job) : judge(job);
    now_ms = passwords->clock_ms();
    if (verdict == PASSWORD_RIGHT) {
        password_cache_add(passwords->cache, &job->tag,
                           now_ms + (job->pam != NULL ? job->pam->remember_ms : passwords->cache_ms));
    }
    backoff_leave(passwords->backoff, job->client, verdict == PASSWORD_WRONG, now_ms);
    (void)pthread_mutex_lock(&passwords->mutex);
    unlink_job(job);
    post_checks(job, verdict);
    (void)pthread_mutex_unlock(&passwords->mutex);
    job_free(job);
}

/* From pool_free(): all threads have ended. */
static void drop(struct pool_job *work)
{
    struct job *job = LOOP_OWNER(work, struct job, work);

    post_checks(job, PASSWORD_BUSY); /* is_closing: frees them */
    job_free(job);
}

/* --- asking --- */

/*
 * The hash that an unknown name is checked against: that of a user chosen by the name, so that the costs of names that do
 * not exist are spread as the costs of those that do.
 */
static const char *decoy(const struct passwords *passwords, const struct users *users, struct socks6_slice name)
{
    size_t count = users_count(users);
    size_t start = count > 0 ? (size_t)(siphash(&passwords->hash_key, name.data, name.len) % count) : 0;

    for (size_t i = 0; i < count; i++) {
        const struct user *user = users_at(users, (start + i) % count);

        if (user->hash != NULL) {
            return user->hash;
        }
    }
    return default_decoy;
}

static bool can_be_right(const struct user *user, struct socks6_slice password)
{
    return user != NULL && user->hash != NULL && password.len <= SOCKS6_PASSWORD_MAX &&
           (password.len == 0 || memchr(password.data, '\0', password.len) == NULL);
}

/* Whether PAM may be asked: see passwords_check(). */
static bool is_for_pam(const struct socks6_credentials *credentials)
{
    const uint8_t *name = credentials->username.data;
    size_t len = credentials->username.len;

    if (credentials->password.len == 0 || credentials->password.len > SOCKS6_PASSWORD_MAX ||
        memchr(credentials->password.data, '\0', credentials->password.len) != NULL || len == 0 ||
        len > SOCKS6_USERNAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (name[i] < ' ' || name[i] == 0x7f || name[i] == '/' || name[i] == ':') {
            return false;
        }
    }
    return name[0] != '-' && !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* What one question needs to know before anything is begun. */
struct question {
    const struct users *users;
    const char *hash; /* NULL if PAM is asked */
    const struct users_pam *pam;
    bool can_be_right;
    uint64_t client;
    uint64_t now_ms;
    struct password_tag tag;
    struct socks6_slice name, password;
    char address[NET_TEXT_MAX]; /* for PAM */
};

/* `text` has room for `max` bytes and a NUL. */
static void copy_text(char *text, struct socks6_slice slice, size_t max)
{
    size_t len = slice.len < max ? slice.len : max;

    if (len > 0) {
        memcpy(text, slice.data, len);
    }
    text[len] = '\0';
}

/* A new job in the queue; NULL if there is no room for it. With the mutex held. */
static struct job *start_job(struct passwords *passwords, const struct question *question)
{
    struct job *job = calloc(1, sizeof *job);

    if (job == NULL) {
        return NULL;
    }
    if (!backoff_enter(passwords->backoff, question->client, question->now_ms)) {
        free(job);
        return NULL;
    }
    job->work.run = run;
    job->work.drop = drop;
    job->passwords = passwords;
    job->pool = question->pam != NULL ? passwords->pam_pool : passwords->pool;
    job->pam = question->pam;
    job->users = users_retain(question->users);
    job->hash = question->hash;
    job->can_be_right = question->can_be_right;
    job->client = question->client;
    job->tag = question->tag;
    copy_text(job->password, question->password, SOCKS6_PASSWORD_MAX);
    copy_text(job->name, question->name, SOCKS6_USERNAME_MAX);
    memcpy(job->address, question->address, sizeof job->address);
    if (pool_submit(job->pool, &job->work) != 0) {
        backoff_leave(passwords->backoff, job->client, false, question->now_ms);
        job_free(job);
        return NULL;
    }
    link_job(passwords, job);
    return job;
}

static struct job *find_job(const struct passwords *passwords, const struct password_tag *tag)
{
    struct job *job = passwords->jobs;

    while (job != NULL && !password_tag_is_same(&job->tag, tag)) {
        job = job->next;
    }
    return job;
}

/* Nobody can end a module of PAM that hangs; the administrator should know of it. With the mutex held. */
static void tell_slow(struct passwords *passwords, uint64_t now_ms)
{
    unsigned slow_count = 0;
    const char *service = "";

    if (passwords->slow_told_ms != 0 && now_ms - passwords->slow_told_ms < PAM_NOTICE_MS) {
        return;
    }
    for (const struct job *job = passwords->jobs; job != NULL; job = job->next) {
        if (job->pam != NULL && job->begun_ms != 0 && now_ms - job->begun_ms >= PAM_SLOW_MS) {
            slow_count++;
            service = job->pam->service;
        }
    }
    if (slow_count > 0) {
        passwords->slow_told_ms = now_ms;
        log_warning("pam: service '%s' is slow: %u of its answers are outstanding for more than %u s", service,
                    slow_count, PAM_SLOW_MS / 1000);
    }
}

/* False if there is no room. */
static bool wait_for_job(struct passwords *passwords, const struct question *question, struct password_check *check)
{
    struct job *job;

    (void)pthread_mutex_lock(&passwords->mutex);
    if (question->pam != NULL) {
        tell_slow(passwords, question->now_ms);
    }
    job = find_job(passwords, &question->tag);
    if (job == NULL) {
        job = start_job(passwords, question);
    }
    if (job != NULL) {
        link_check(job, check);
    }
    (void)pthread_mutex_unlock(&passwords->mutex);
    return job != NULL;
}

/* PAM may judge by the client's address, and must be asked again after a reload: both are in the tag. */
static int make_tag(const struct passwords *passwords, struct question *question,
                    const struct socks6_credentials *credentials)
{
    char context[sizeof question->pam->source + 1 + NET_TEXT_MAX];

    if (question->pam == NULL) {
        return password_cache_tag(passwords->cache, question->hash, credentials, &question->tag);
    }
    (void)snprintf(context, sizeof context, "%s %s", question->pam->source, question->address);
    return password_cache_tag(passwords->cache, context, credentials, &question->tag);
}

/* What can be told without hashing. False if nothing can. */
static bool answer_now(struct passwords *passwords, struct question *question,
                       const struct socks6_credentials *credentials, enum password_verdict *verdict)
{
    if (backoff_is_blocked(passwords->backoff, question->client, question->now_ms)) {
        *verdict = PASSWORD_BACK_OFF;
        return true;
    }
    if (make_tag(passwords, question, credentials) != 0) {
        *verdict = PASSWORD_BUSY;
        return true;
    }
    if (question->can_be_right && password_cache_has(passwords->cache, &question->tag, question->now_ms)) {
        *verdict = PASSWORD_RIGHT;
        return true;
    }
    return false;
}

/* Whom to ask, and whether it is worth it. */
static void set_out(const struct passwords *passwords, const struct socks6_addr *client,
                    const struct socks6_credentials *credentials, struct question *question)
{
    const struct user *known = users_find(question->users, credentials->username);

    question->pam = users_pam(question->users);
    if (question->pam != NULL) {
        assert(passwords->ask_pam != NULL); /* the configuration takes no PAM without */
        question->can_be_right = is_for_pam(credentials);
        source_address_format(client, question->address);
    } else {
        question->can_be_right = can_be_right(known, credentials->password);
        question->hash = known != NULL && known->hash != NULL
                             ? known->hash
                             : decoy(passwords, question->users, credentials->username);
    }
}

enum password_timing passwords_check(struct passwords *passwords, const struct users *users, struct loop *loop,
                                     const struct socks6_addr *client, const struct socks6_credentials *credentials,
                                     password_done *done, void *user, enum password_verdict *verdict,
                                     struct password_check **out)
{
    struct client_key key = client_key_of(client);
    struct question question = {
        .users = users,
        .client = client_key_hash(&passwords->hash_key, &key),
        .now_ms = passwords->clock_ms(),
        .name = credentials->username,
        .password = credentials->password,
    };
    struct password_check *check;

    set_out(passwords, client, credentials, &question);
    if (answer_now(passwords, &question, credentials, verdict)) {
        return PASSWORD_NOW;
    }
    check = calloc(1, sizeof *check);
    if (check != NULL) {
        check->msg.run = on_answer;
        check->passwords = passwords;
        check->loop = loop;
        check->done = done;
        check->user = user;
        check->is_for_pam = question.pam != NULL;
        check->asked_ms = question.now_ms;
        if (wait_for_job(passwords, &question, check)) {
            *out = check;
            return PASSWORD_LATER;
        }
        free(check);
    }
    *verdict = PASSWORD_BUSY;
    return PASSWORD_NOW;
}

/* With the mutex held: nobody waits for the job any more. Returns it if it is to be freed. */
static struct job *abandon(struct job *job)
{
    struct passwords *passwords = job->passwords;

    if (job->checks != NULL || !pool_withdraw(job->pool, &job->work)) {
        return NULL; /* it goes on, and frees itself */
    }
    unlink_job(job);
    backoff_leave(passwords->backoff, job->client, false, passwords->clock_ms());
    return job;
}

void password_cancel(struct password_check *check)
{
    struct passwords *passwords;
    struct job *job = NULL;
    bool is_waiting;

    if (check == NULL) {
        return;
    }
    if (atomic_load(&check->state) == CHECK_POSTED) {
        check->is_cancelled = true; /* it is this thread's now; the rest may even be gone */
        return;
    }
    if (atomic_load(&check->state) == CHECK_HELD) {
        loop_timer_cancel(check->loop, &check->timer);
        free(check);
        return;
    }
    passwords = check->passwords;
    (void)pthread_mutex_lock(&passwords->mutex);
    is_waiting = check->state == CHECK_WAITING;
    if (is_waiting) {
        unlink_check(check);
        job = abandon(check->job);
    }
    (void)pthread_mutex_unlock(&passwords->mutex);
    if (job != NULL) {
        job_free(job);
    }
    if (is_waiting) {
        free(check);
    } else {
        check->is_cancelled = true;
    }
}

unsigned passwords_waiting_count(const struct passwords *passwords)
{
    return passwords->waiting_count;
}

/* --- birth and death --- */

void passwords_config_init(struct passwords_config *config)
{
    *config = (struct passwords_config){
        .threads = 2,
        .queue_max = 256,
        .cache_entries = 4096,
        .cache_ms = UINT64_C(600) * 1000,
        .clock_ms = NULL,
        .ask_pam = NULL,
        .pam_threads = 32,
        .pam_step_ms = 1000,
    };
}

static int init(struct passwords *passwords, const struct passwords_config *config)
{
    int rc = pool_new(config->threads, config->queue_max, &passwords->pool);

    if (rc == 0 && config->ask_pam != NULL) {
        rc = pool_new(config->pam_threads, config->queue_max, &passwords->pam_pool);
    }
    if (rc == 0) {
        rc = backoff_new(&passwords->backoff);
    }
    if (rc == 0) {
        rc = password_cache_new(config->cache_entries, &passwords->cache);
    }
    if (rc == 0 &&
        getrandom(&passwords->hash_key, sizeof passwords->hash_key, 0) != (ssize_t)sizeof passwords->hash_key) {
        rc = -errno;
    }
    return rc;
}

int passwords_new(const struct passwords_config *config, struct passwords **out)
{
    struct passwords *passwords = calloc(1, sizeof *passwords);
    int rc;

    if (passwords == NULL) {
        return -ENOMEM;
    }
    (void)pthread_mutex_init(&passwords->mutex, NULL);
    passwords->cache_ms = config->cache_ms;
    passwords->ask_pam = config->ask_pam;
    passwords->pam_step_ms = config->pam_step_ms;
    passwords->clock_ms = config->clock_ms != NULL ? config->clock_ms : monotonic_ms;
    rc = init(passwords, config);
    if (rc != 0) {
        passwords_free(passwords);
        return rc;
    }
    *out = passwords;
    return 0;
}

void passwords_free(struct passwords *passwords)
{
    if (passwords == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&passwords->mutex);
    passwords->is_closing = true;
    (void)pthread_mutex_unlock(&passwords->mutex);
    pool_free(passwords->pool);
    passwords->pool = NULL;
    if (!pool_free_within(passwords->pam_pool, PAM_END_MS)) {
        log_warning("pam: some questions are not answered; not waiting for them");
        return;
    }
    backoff_free(passwords->backoff);
    password_cache_free(passwords->cache);
    (void)pthread_mutex_destroy(&passwords->mutex);
    explicit_bzero(passwords, sizeof *passwords);
    free(passwords);
}
