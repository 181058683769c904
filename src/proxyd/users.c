/*
 * One copy of the file's text, cut at its colons and line ends, and an array that points into it, sorted by name.
 * Sorting finds names that come twice; looking up is a binary search, which no choice of names makes slow.
 *
 * The grammars of the hashes are those of crypt(5). They are checked to the last character, since a hash that was cut off
 * would be a password that nobody can know, found out by a user and not at the start.
 */
#include "proxyd/users.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Above these a single check takes seconds of a processor: a mistake, or an attack by means of the file. */
#define BCRYPT_COST_MIN 4u
#define BCRYPT_COST_MAX 17u
#define SHA512_ROUNDS_MIN 1000u
#define SHA512_ROUNDS_MAX 10000000u
#define YESCRYPT_N_MAX 'F' /* 2^18 blocks: cost 11, the highest that crypt_gensalt(3) makes */

static const char base64[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

struct users {
    _Atomic unsigned references;
    char *text;
    size_t count;
    struct user *users;
    struct users_pam pam; /* instead of a file; service empty = not so */
};

/* What some editors put in front of a text, unseen. */
static const char byte_order_mark[] = "\xef\xbb\xbf";

static const char unknown_hash[] =
    "is of a kind that is not taken; write it with `socks6 passwd` (yescrypt, bcrypt or sha512crypt)";

static size_t span_base64(const char *text)
{
    return strspn(text, base64);
}

/* NULL if the hash can be used, else what is wrong with it. `$y$` stands before it: j, N, r ... $ salt $ hash */
static const char *judge_yescrypt(const char *hash)
{
    const char *params = hash + 3, *salt, *sum;
    size_t params_len = span_base64(params);

    if (params_len < 3 || params_len > 8 || params[0] != 'j' || params[params_len] != '$') {
        return "is no yescrypt hash";
    }
    if (strchr(base64, params[1]) > strchr(base64, YESCRYPT_N_MAX)) {
        return "has a cost that would take too long; the highest is 11";
    }
    salt = params + params_len + 1;
    sum = salt + span_base64(salt);
    if (sum - salt > 86 || *sum != '$' || span_base64(sum + 1) != 43 || sum[44] != '\0') {
        return "is no whole yescrypt hash";
    }
    return NULL;
}

/* `$2b$`: two digits $ 22 characters of salt and 31 of hash */
static const char *judge_bcrypt(const char *hash)
{
    const char *digits = hash + 4;
    unsigned cost;

    if (strspn(digits, "0123456789") != 2 || digits[2] != '$' || span_base64(digits + 3) != 53 || digits[56] != '\0') {
        return "is no whole bcrypt hash";
    }
    cost = (unsigned)(digits[0] - '0') * 10 + (unsigned)(digits[1] - '0');
    if (cost < BCRYPT_COST_MIN || cost > BCRYPT_COST_MAX) {
        return "has a cost outside 4 .. 17";
    }
    return NULL;
}

/* `$6$`: [rounds=N$] up to 16 characters of salt $ 86 of hash */
static const char *judge_sha512(const char *hash)
{
    static const char rounds_key[] = "rounds=";
    const char *salt = hash + 3;
    size_t salt_len;

    if (strncmp(salt, rounds_key, sizeof rounds_key - 1) == 0) {
        const char *digits = salt + sizeof rounds_key - 1;
        size_t digit_count = strspn(digits, "0123456789");
        unsigned long rounds = digit_count > 0 && digit_count < 10 ? strtoul(digits, NULL, 10) : 0;

        if (digits[0] == '0' || rounds < SHA512_ROUNDS_MIN || rounds > SHA512_ROUNDS_MAX ||
            digits[digit_count] != '$') {
            return "has a number of rounds outside 1000 .. 10000000";
        }
        salt = digits + digit_count + 1;
    }
    salt_len = strcspn(salt, "$");
    if (salt_len > 16 || salt[salt_len] != '$' || span_base64(salt + salt_len + 1) != 86 ||
        salt[salt_len + 87] != '\0') {
        return "is no whole sha512crypt hash";
    }
    return NULL;
}

static const char *judge_hash(const char *hash)
{
    static const struct {
        const char *prefix;
        const char *(*judge)(const char *hash);
    } kinds[] = {
        {"$y$", judge_yescrypt}, {"$2b$", judge_bcrypt}, {"$2y$", judge_bcrypt},
        {"$2a$", judge_bcrypt},  {"$6$", judge_sha512},
    };

    if (strchr(hash, ':') != NULL) {
        return "is followed by another field; a line is NAME:HASH";
    }
    for (const char *c = hash; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') {
            return "has a character that no hash has";
        }
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strncmp(hash, kinds[i].prefix, strlen(kinds[i].prefix)) == 0) {
            return kinds[i].judge(hash);
        }
    }
    return unknown_hash;
}

static const char *judge_name(const char *name, size_t len)
{
    if (len == 0) {
        return "there is no name before the colon";
    }
    if (len > SOCKS6_USERNAME_MAX) {
        return "the name is longer than 255 bytes";
    }
    if (len >= 3 && memcmp(name, byte_order_mark, 3) == 0) {
        return "the name begins with a byte order mark; save the file without";
    }
    if (name[0] == ' ' || name[len - 1] == ' ') {
        return "the name begins or ends with a space";
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f) {
            return "the name has a control character";
        }
    }
    return NULL;
}

/* --- errors --- */

__attribute__((format(printf, 4, 5))) static int fail(const char *file, unsigned line, struct users_error *error,
                                                      const char *format, ...)
{
    va_list args;
    int len = line > 0 ? snprintf(error->text, sizeof error->text, "%.200s:%u: ", file, line)
                       : snprintf(error->text, sizeof error->text, "%.200s: ", file);

    va_start(args, format);
    (void)vsnprintf(error->text + len, sizeof error->text - (size_t)len, format, args);
    va_end(args);
    return -1;
}

struct shown {
    char text[64];
};

/* A name for an error: what is not printable ASCII becomes '?'. */
static struct shown show(const char *name)
{
    struct shown shown;
    size_t len = strnlen(name, sizeof shown.text - 1);

    for (size_t i = 0; i < len; i++) {
        shown.text[i] = (char)(name[i] >= ' ' && name[i] <= '~' ? name[i] : '?');
    }
    shown.text[len] = '\0';
    return shown;
}

/* --- reading --- */

/* One line, without its end, made to end in NUL. 0, and `user` unless it holds none (name NULL); or -1. */
static int read_line(const char *file, unsigned number, char *line, size_t len, struct user *user,
                     struct users_error *error)
{
    char *colon;
    const char *why;

    *user = (struct user){.line = number};
    while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == ' ' || line[len - 1] == '\t')) {
        len--;
    }
    line[len] = '\0';
    if (len == 0 || line[0] == '#') {
        return 0;
    }
    if (memchr(line, '\0', len) != NULL) {
        return fail(file, number, error, "there is a NUL byte in this line");
    }
    colon = strchr(line, ':');
    if (colon == NULL) {
        return fail(file, number, error, "expected NAME:HASH, found no colon");
    }
    *colon = '\0';
    user->name_len = (size_t)(colon - line);
    why = judge_name(line, user->name_len);
    if (why != NULL) {
        return fail(file, number, error, "%s", why);
    }
    user->name = line;
    if (strcmp(colon + 1, "*") == 0) {
        return 0;
    }
    user->hash = colon + 1;
    if (user->hash[0] == '\0') {
        return fail(file, number, error, "user '%s' has no hash; write * for a user without a password",
                    show(line).text);
    }
    why = judge_hash(user->hash);
    if (why != NULL) {
        return fail(file, number, error, "the hash of user '%s' %s", show(line).text, why);
    }
    return 0;
}

static int compare_names(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

/* By name, then by line. */
static int compare_users(const void *a, const void *b)
{
    const struct user *x = a, *y = b;
    int order = compare_names(x->name, x->name_len, y->name, y->name_len);

    return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

/* The first line that repeats a name, which is the one that its reader wants to hear of. */
static int refuse_duplicates(const char *file, const struct users *users, struct users_error *error)
{
    const struct user *first = NULL, *again = NULL;

    for (size_t i = 1; i < users->count; i++) {
        const struct user *user = &users->users[i];

        if (strcmp(user[-1].name, user->name) == 0 && (again == NULL || user->line < again->line)) {
            first = &user[-1];
            again = user;
        }
    }
    if (again == NULL) {
        return 0;
    }
    return fail(file, again->line, error, "user '%s' is already at line %u; remove one of the two",
                show(again->name).text, first->line);
}

static size_t count_lines(const char *text, size_t len)
{
    size_t count = 1;

    for (size_t i = 0; i < len; i++) {
        count += text[i] == '\n';
    }
    return count;
}

/* Cuts users->text, `len` bytes and a NUL, into users. */
static int read_text(const char *file, struct users *users, size_t len, struct users_error *error)
{
    char *at = users->text, *end = users->text + len;
    unsigned number = 0;

    while (at < end) {
        char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t line_len = (size_t)((line_end != NULL ? line_end : end) - at);
        struct user *user = &users->users[users->count];

        if (read_line(file, ++number, at, line_len, user, error) != 0) {
            return -1;
        }
        users->count += user->name != NULL;
        at += line_len + 1;
    }
    qsort(users->users, users->count, sizeof *users->users, compare_users);
    return refuse_duplicates(file, users, error);
}

int users_parse(const char *file, const char *text, size_t len, const struct users **out, struct users_error *error)
{
    struct users *users = calloc(1, sizeof *users);

    if (users == NULL) {
        return fail(file, 0, error, "no memory to read it");
    }
    atomic_init(&users->references, 1);
    users->text = malloc(len + 1);
    users->users = calloc(count_lines(text, len), sizeof *users->users);
    if (users->text == NULL || users->users == NULL) {
        users_release(users);
        return fail(file, 0, error, "no memory to read it");
    }
    if (len > 0) {
        memcpy(users->text, text, len);
    }
    users->text[len] = '\0';
    if (read_text(file, users, len, error) != 0) {
        users_release(users);
        return -1;
    }
    *out = users;
    return 0;
}

/* Reads up to `size` bytes. The number, or -errno. */
static ssize_t read_all(int fd, char *buf, size_t size)
{
    size_t len = 0;

    while (len < size) {
        ssize_t n = read(fd, buf + len, size - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static void judge_mode(const char *path, mode_t mode, struct users_error *warning)
{
    unsigned bits = (unsigned)mode & 07777u;

    if ((bits & 07u) != 0) {
        (void)fail(path, 0, warning, "every user of this machine has access (mode %04o); chmod o= is advised", bits);
    } else if ((bits & 020u) != 0) {
        (void)fail(path, 0, warning, "its group can write it (mode %04o); chmod g-w is advised", bits);
    }
}

static int load(const char *path, int fd, const struct users **out, struct users_error *error,
                struct users_error *warning)
{
    struct stat status;
    char *text;
    ssize_t len;
    int rc;

    if (fstat(fd, &status) < 0) {
        return fail(path, 0, error, "%s", strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        return fail(path, 0, error, "not a regular file");
    }
    if (status.st_size > (off_t)USERS_FILE_MAX) {
        return fail(path, 0, error, "longer than %zu MiB", USERS_FILE_MAX >> 20);
    }
    text = malloc((size_t)status.st_size + 1); /* a byte more, to see that it has not grown meanwhile */
    if (text == NULL) {
        return fail(path, 0, error, "no memory to read it");
    }
    len = read_all(fd, text, (size_t)status.st_size + 1);
    if (len < 0) {
        rc = fail(path, 0, error, "%s", strerror((int)-len));
    } else if (len > status.st_size) {
        rc = fail(path, 0, error, "it is being written; try again");
    } else {
        rc = users_parse(path, text, (size_t)len, out, error);
    }
    if (rc == 0) {
        judge_mode(path, status.st_mode, warning);
    }
    explicit_bzero(text, (size_t)status.st_size + 1);
    free(text);
    return rc;
}

int users_load(const char *path, const struct users **out, struct users_error *error, struct users_error *warning)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int rc;

    warning->text[0] = '\0';
    if (fd < 0) {
        return fail(path, 0, error, "%s", strerror(errno));
    }
    rc = load(path, fd, out, error, warning);
    (void)close(fd);
    return rc;
}

/* --- using --- */

int users_of_pam(const char *service, uint64_t remember_ms, const struct users **out)
{
    static _Atomic unsigned last;
    struct users *users = calloc(1, sizeof *users);

    if (users == NULL) {
        return -ENOMEM;
    }
    atomic_init(&users->references, 1);
    (void)snprintf(users->pam.service, sizeof users->pam.service, "%s", service);
    (void)snprintf(users->pam.source, sizeof users->pam.source, "pam:%u", atomic_fetch_add(&last, 1) + 1);
    users->pam.remember_ms = remember_ms;
    *out = users;
    return 0;
}

const struct users_pam *users_pam(const struct users *users)
{
    return users != NULL && users->pam.service[0] != '\0' ? &users->pam : NULL;
}

const struct users *users_retain(const struct users *users)
{
    /* The count is the only thing that changes in a snapshot. */
    struct users *counted = (struct users *)(uintptr_t)users;

    (void)atomic_fetch_add_explicit(&counted->references, 1, memory_order_relaxed);
    return users;
}

void users_release(const struct users *users)
{
    struct users *counted = (struct users *)(uintptr_t)users;

    if (counted == NULL || atomic_fetch_sub_explicit(&counted->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    free(counted->text);
    free(counted->users);
    free(counted);
}

const struct user *users_find(const struct users *users, struct socks6_slice name)
{
    size_t low = 0, high = users->count;

    while (low < high && name.len > 0) {
        size_t middle = low + (high - low) / 2;
        const struct user *user = &users->users[middle];
        int order = compare_names((const char *)name.data, name.len, user->name, user->name_len);

        if (order == 0) {
            return user;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

bool users_may_have(const struct users *users, struct socks6_slice name)
{
    return users_pam(users) != NULL || users_find(users, name) != NULL;
}

size_t users_count(const struct users *users)
{
    return users->count;
}

const struct user *users_at(const struct users *users, size_t index)
{
    return &users->users[index];
}

static bool is_same_hash(const struct user *a, const struct user *b)
{
    return a->hash == NULL || b->hash == NULL ? a->hash == b->hash : strcmp(a->hash, b->hash) == 0;
}

size_t users_gone(const struct users *before, const struct users *after, bool changed, struct socks6_slice *names)
{
    size_t count = 0;

    for (size_t i = 0; i < before->count; i++) {
        const struct user *user = &before->users[i], *now;
        const struct socks6_slice name = {(const uint8_t *)user->name, user->name_len};

        now = users_find(after, name);
        if (now == NULL || (changed && !is_same_hash(user, now))) {
            names[count++] = name;
        }
    }
    return count;
}

static bool is_same_service(const struct users *before, const struct users *after)
{
    return users_pam(before) != NULL && users_pam(after) != NULL &&
           strcmp(before->pam.service, after->pam.service) == 0;
}

bool users_are_all_gone(const struct users *before, const struct users *after)
{
    return users_pam(before) != NULL && !is_same_service(before, after);
}

bool users_agree(const struct users *before, const struct users *after, struct socks6_slice name)
{
    if (is_same_service(before, after)) {
        return true;
    }
    const struct user *was = users_find(before, name), *is = before == after ? was : users_find(after, name);

    return was != NULL && is != NULL && is_same_hash(was, is);
}
