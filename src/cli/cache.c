/*
 * Theory of operation. The file is locked (flock(2)), read as a whole, changed in memory, and written as a whole, in
 * place: it is small, and every reader holds the lock too. Whatever is left of an interrupted write has a wrong checksum
 * and counts as an empty cache.
 *
 * A token is marked before the call that takes it returns, so before it is sent. That it has reached the page cache is
 * enough for that: every process sees it there, also if this one is killed. Only a machine that crashes can set the file
 * back; then a token may be sent a second time, the proxy rejects it, as it rejects every token that it has seen, and the
 * client skips ahead. So there is no fsync(2), which would cost milliseconds per connection to save a round trip after a
 * crash. What must not happen, a request acted on twice, is the proxy's to prevent, and never depends on this file.
 *
 * A file that is not ours alone is not used: the sessions in it are bearer secrets, and one that somebody else has put
 * there would let him answer for our proxy.
 */
#include "cli/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cache_format.h"

/* Whoever holds the lock holds it for less than a millisecond; a process that was stopped with it must not stop us. */
#define LOCK_TRIES 500
#define LOCK_PAUSE_NS 2000000

/* Not used for so long: no proxy keeps a session that long, and no ticket lives longer. */
#define ENTRY_LIFE_S ((uint64_t)7 * 24 * 3600)

/* The most by which one call makes the file longer: a key, a session and a ticket. */
#define GROWTH_MAX (CACHE_KEY_MAX + CACHE_TICKET_MAX + (size_t)1024)

/* An open, locked file and what is in it. */
struct opened {
    int fd;
    uint8_t *bytes; /* as read */
    size_t len;
    struct cache_content content;
    uint8_t key[CACHE_KEY_MAX]; /* the caller's, encoded */
    size_t key_len;
    uint16_t password_check;
};

/* --- the file --- */

static int lock(int fd)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};

    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return 0;
        }
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return -errno;
        }
        (void)nanosleep(&pause, NULL);
    }
    return -ETIMEDOUT;
}

/* 0, or -EPERM for a file that others can read or write, or that is none of ours. */
static int judge(const struct stat *status)
{
    if (!S_ISREG(status->st_mode) || status->st_uid != geteuid() || (status->st_mode & 077) != 0) {
        return -EPERM;
    }
    return 0;
}

/* Up to `size` bytes. The number, or -errno. */
static ssize_t read_file(int fd, uint8_t *buf, size_t size)
{
    size_t len = 0;

    while (len < size) {
        ssize_t n = pread(fd, buf + len, size - len, (off_t)len);

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

static int write_file(int fd, const uint8_t *bytes, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pwrite(fd, bytes + done, len - done, (off_t)done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        done += (size_t)n;
    }
    return ftruncate(fd, (off_t)len) < 0 ? -errno : 0;
}

/* --- keys --- */

static int put_text(struct opened *opened, const char *text)
{
    size_t len = text != NULL ? strlen(text) : 0;

    /* One byte in front tells "none" from "empty", one behind ends it. */
    if (opened->key_len + len + 2 > sizeof opened->key) {
        return -ENAMETOOLONG;
    }
    opened->key[opened->key_len++] = text != NULL ? '+' : '-';
    if (len > 0) {
        memcpy(opened->key + opened->key_len, text, len);
    }
    opened->key_len += len;
    opened->key[opened->key_len++] = '\0';
    return 0;
}

static void fold_case(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] >= 'A' && bytes[i] <= 'Z') {
            bytes[i] = (uint8_t)(bytes[i] - 'A' + 'a');
        }
    }
}

static int encode_key(struct opened *opened, const struct cache_key *key)
{
    int rc = put_text(opened, key->host);

    fold_case(opened->key, opened->key_len);
    if (rc == 0) {
        rc = put_text(opened, key->ca);
    }
    if (rc == 0) {
        rc = put_text(opened, key->certificate);
    }
    if (rc == 0) {
        rc = put_text(opened, key->user);
    }
    if (rc == 0 && opened->key_len + 3 > sizeof opened->key) {
        rc = -ENAMETOOLONG;
    }
    if (rc == 0) {
        opened->key[opened->key_len++] = (uint8_t)(key->port >> 8);
        opened->key[opened->key_len++] = (uint8_t)key->port;
        opened->key[opened->key_len++] = key->is_tls;
    }
    return rc;
}

/*
 * Sixteen bits: a wrong password passes for the right one once in 65536 times, and whoever steals the file learns as little
 * of the password.
 */
static uint16_t check_of(const struct siphash_key *salt, const char *password)
{
    return password == NULL ? 0 : (uint16_t)siphash(salt, (const uint8_t *)password, strlen(password));
}

/* --- entries --- */

static void remove_entry(struct cache_content *content, size_t index)
{
    content->entry_count--;
    memmove(&content->entries[index], &content->entries[index + 1],
            (content->entry_count - index) * sizeof content->entries[0]);
}

static void remove_ticket(struct cache_entry *entry, size_t index)
{
    entry->ticket_count--;
    memmove(&entry->tickets[index], &entry->tickets[index + 1],
            (entry->ticket_count - index) * sizeof entry->tickets[0]);
}

static void drop_old(struct cache_content *content, uint64_t now_s)
{
    for (size_t i = content->entry_count; i > 0; i--) {
        struct cache_entry *entry = &content->entries[i - 1];

        if (now_s > entry->used_s && now_s - entry->used_s > ENTRY_LIFE_S) {
            remove_entry(content, i - 1);
            continue;
        }
        for (size_t j = entry->ticket_count; j > 0; j--) {
            if (entry->tickets[j - 1].expires_s <= now_s) {
                remove_ticket(entry, j - 1);
            }
        }
    }
}

/* The caller's entry, used now, at the front; a new one if there is none, or if the password is another. */
static struct cache_entry *find_entry(struct opened *opened, uint64_t now_s)
{
    struct cache_content *content = &opened->content;
    struct cache_entry found = {0};

    socks6_session_init(&found.session);
    for (size_t i = 0; i < content->entry_count; i++) {
        const struct cache_entry *entry = &content->entries[i];

        if (entry->key_len == opened->key_len && memcmp(entry->key, opened->key, opened->key_len) == 0) {
            if (entry->password_check == opened->password_check) {
                found = *entry;
            }
            remove_entry(content, i);
            break;
        }
    }
    found.key = opened->key;
    found.key_len = opened->key_len;
    found.used_s = now_s;
    found.password_check = opened->password_check;
    if (content->entry_count == CACHE_ENTRIES_MAX) {
        content->entry_count--; /* the one that was not used for longest */
    }
    memmove(&content->entries[1], &content->entries[0], content->entry_count * sizeof content->entries[0]);
    content->entry_count++;
    content->entries[0] = found;
    return &content->entries[0];
}

/* --- one call --- */

static void wipe_and_free(uint8_t *bytes, size_t len)
{
    if (bytes != NULL) {
        explicit_bzero(bytes, len);
        free(bytes);
    }
}

static void close_cache(struct opened *opened)
{
    if (opened->fd >= 0) {
        (void)close(opened->fd); /* and the lock with it */
    }
    wipe_and_free(opened->bytes, opened->len);
    wipe_and_free((uint8_t *)opened, sizeof *opened);
}

/* The whole of it. One that is longer than we write is none of ours, and counts as empty. */
static int read_bytes(struct opened *opened)
{
    struct stat status;
    ssize_t len;

    if (fstat(opened->fd, &status) < 0) { /* anew: its length before the lock says nothing */
        return -errno;
    }
    opened->bytes = malloc(CACHE_FILE_MAX > (size_t)status.st_size ? (size_t)status.st_size + 1 : 1);
    if (opened->bytes == NULL) {
        return -ENOMEM;
    }
    if (status.st_size > (off_t)CACHE_FILE_MAX) {
        return 0;
    }
    len = read_file(opened->fd, opened->bytes, (size_t)status.st_size);
    if (len < 0) {
        return (int)len;
    }
    opened->len = (size_t)len;
    return 0;
}

/* Opens, locks and reads. A file that says nothing sensible is as good as an empty one. */
static int read_cache(struct opened *opened, const char *path)
{
    struct stat status;
    int rc;

    opened->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    if (opened->fd < 0 || fstat(opened->fd, &status) < 0) {
        return -errno;
    }
    rc = judge(&status);
    if (rc == 0) {
        rc = lock(opened->fd);
    }
    if (rc == 0) {
        rc = read_bytes(opened);
    }
    if (rc == 0 && !cache_decode(opened->bytes, opened->len, &opened->content) &&
        getrandom(&opened->content.salt, sizeof opened->content.salt, 0) != (ssize_t)sizeof opened->content.salt) {
        rc = -errno;
    }
    return rc;
}

/* 0 and the caller's entry, to be changed and then written by save_cache(); or -errno. */
static int open_cache(const char *path, const struct cache_key *key, uint64_t now_s, struct opened **out,
                      struct cache_entry **entry)
{
    struct opened *opened = calloc(1, sizeof *opened);
    int rc;

    if (opened == NULL) {
        return -ENOMEM;
    }
    opened->fd = -1;
    rc = encode_key(opened, key);
    if (rc == 0) {
        rc = read_cache(opened, path);
    }
    if (rc != 0) {
        close_cache(opened);
        return rc;
    }
    opened->password_check = check_of(&opened->content.salt, key->password);
    drop_old(&opened->content, now_s);
    *entry = find_entry(opened, now_s);
    *out = opened;
    return 0;
}

static int save_cache(struct opened *opened)
{
    size_t size = opened->len + GROWTH_MAX < CACHE_FILE_MAX ? opened->len + GROWTH_MAX : CACHE_FILE_MAX;
    uint8_t *bytes = malloc(size);
    int rc;

    if (bytes == NULL) {
        return -ENOMEM;
    }
    rc = write_file(opened->fd, bytes, cache_encode(&opened->content, bytes, size));
    if (rc != 0 && ftruncate(opened->fd, 0) < 0) { /* a full disk: better nothing than half of it */
        rc = -errno;                               /* and the checksum tells those who read the half */
    }
    wipe_and_free(bytes, size);
    return rc;
}

/* --- what others call --- */

/* The newest ticket; it is left in the file only if it is the last one, so that connections can be told apart less. */
static int take_ticket(struct cache_entry *entry, struct cache_use *use)
{
    const struct cache_ticket *ticket;

    if (entry->ticket_count == 0) {
        return 0;
    }
    ticket = &entry->tickets[entry->ticket_count - 1];
    use->ticket = malloc(ticket->len > 0 ? ticket->len : 1);
    if (use->ticket == NULL) {
        return -ENOMEM;
    }
    memcpy(use->ticket, ticket->data, ticket->len);
    use->ticket_len = ticket->len;
    use->ticket_expires_s = ticket->expires_s;
    if (entry->ticket_count > 1) {
        entry->ticket_count--;
    }
    return 0;
}

int cache_take(const char *path, const struct cache_key *key, uint64_t now_s, uint32_t window_size,
               struct socks6_client_config *config, struct cache_use *use)
{
    struct socks6_client_config prepared = *config;
    struct opened *opened;
    struct cache_entry *entry;
    int rc = open_cache(path, key, now_s, &opened, &entry);

    *use = (struct cache_use){0};
    if (rc != 0) {
        return rc;
    }
    use->has_token = socks6_session_prepare(&entry->session, window_size, &prepared) != 0;
    use->token = prepared.token;
    use->session = entry->session;
    rc = take_ticket(entry, use);
    if (rc == 0) {
        rc = save_cache(opened);
    }
    close_cache(opened);
    if (rc != 0) {
        cache_use_done(use);
        return rc;
    }
    prepared.session_id.data = prepared.session_id.len > 0 ? use->session.id : NULL;
    *config = prepared;
    return 0;
}

void cache_use_done(struct cache_use *use)
{
    if (use->ticket != NULL) {
        explicit_bzero(use->ticket, use->ticket_len);
    }
    free(use->ticket);
    explicit_bzero(use, sizeof *use);
}

int cache_learn(const char *path, const struct cache_key *key, uint64_t now_s, const struct cache_use *use,
                const struct socks6_client_session *reply)
{
    struct opened *opened;
    struct cache_entry *entry;
    int rc = open_cache(path, key, now_s, &opened, &entry);

    if (rc == 0) {
        socks6_session_learn(&entry->session, &use->session, reply);
        rc = save_cache(opened);
        close_cache(opened);
    }
    return rc;
}

/* --- leases --- */

static bool is_same_session(const struct socks6_session *a, const struct socks6_session *b)
{
    return a->id_len == b->id_len && memcmp(a->id, b->id, a->id_len) == 0;
}

/* The proxy takes none of what lies outside of its window. */
static void drop_worthless(struct cache_lease *lease)
{
    const struct socks6_window *window = &lease->session.window;

    for (unsigned i = 0; i < CACHE_LEASE_MAX; i++) {
        if (lease->first + i - window->base >= window->size) {
            lease->mask &= ~((uint64_t)1 << i);
        }
    }
}

void cache_lease_own(struct cache_lease *lease, unsigned count)
{
    uint32_t left = socks6_session_tokens_left(&lease->session);
    uint32_t number = left / 8 + 1 < count ? left / 8 + 1 : count;

    drop_worthless(lease);
    if (lease->mask != 0 || left == 0) {
        return;
    }
    lease->first = lease->session.next;
    lease->mask = number < CACHE_LEASE_MAX ? ((uint64_t)1 << number) - 1 : UINT64_MAX;
    lease->session.next += number;
}

int cache_renew(const char *path, const struct cache_key *key, uint64_t now_s, bool has_news, unsigned count,
                struct cache_lease *lease, struct cache_use *ticket)
{
    struct cache_lease renewed = *lease;
    struct cache_use taken = {0};
    struct opened *opened;
    struct cache_entry *entry;
    int rc = open_cache(path, key, now_s, &opened, &entry);

    if (rc != 0) {
        return rc;
    }
    if (has_news) {
        const struct socks6_client_session news = {.ok = 1, .has_window = 1, .window = lease->session.window};

        socks6_session_learn(&entry->session, &lease->session, &news);
    }
    if (!is_same_session(&entry->session, &lease->session)) {
        renewed.mask = 0;
    }
    renewed.session = entry->session;
    cache_lease_own(&renewed, count);
    entry->session.next = renewed.session.next;
    if (ticket != NULL) {
        rc = take_ticket(entry, &taken);
    }
    if (rc == 0) {
        rc = save_cache(opened);
    }
    close_cache(opened);
    if (rc != 0) {
        cache_use_done(&taken);
        return rc;
    }
    *lease = renewed;
    if (ticket != NULL) {
        *ticket = taken;
    }
    return 0;
}

int cache_return_lease(const char *path, const struct cache_key *key, uint64_t now_s, const struct cache_lease *lease)
{
    struct opened *opened;
    struct cache_entry *entry;
    int rc;

    if (lease->mask == 0) {
        return 0;
    }
    rc = open_cache(path, key, now_s, &opened, &entry);
    if (rc != 0) {
        return rc;
    }
    for (unsigned i = CACHE_LEASE_MAX; i > 0 && is_same_session(&entry->session, &lease->session); i--) {
        if ((lease->mask >> (i - 1) & 1) != 0) {
            socks6_session_return(&entry->session, lease->first + i - 1); /* if it is the last that was taken */
        }
    }
    rc = save_cache(opened);
    close_cache(opened);
    return rc;
}

int cache_return_token(const char *path, const struct cache_key *key, uint64_t now_s, const struct cache_use *use)
{
    struct opened *opened;
    struct cache_entry *entry;
    int rc;

    if (!use->has_token) {
        return 0;
    }
    rc = open_cache(path, key, now_s, &opened, &entry);
    if (rc == 0) {
        if (is_same_session(&entry->session, &use->session)) {
            socks6_session_return(&entry->session, use->token);
        }
        rc = save_cache(opened);
        close_cache(opened);
    }
    return rc;
}

int cache_put_ticket(const char *path, const struct cache_key *key, uint64_t now_s, const uint8_t *ticket,
                     size_t ticket_len, uint64_t expires_s)
{
    struct opened *opened;
    struct cache_entry *entry;
    int rc;

    if (ticket_len == 0 || ticket_len > CACHE_TICKET_MAX) {
        return -EMSGSIZE;
    }
    rc = open_cache(path, key, now_s, &opened, &entry);
    if (rc != 0) {
        return rc;
    }
    if (entry->ticket_count == CACHE_TICKETS_MAX) {
        remove_ticket(entry, 0);
    }
    entry->tickets[entry->ticket_count++] =
        (struct cache_ticket){.expires_s = expires_s, .data = ticket, .len = ticket_len};
    rc = save_cache(opened);
    close_cache(opened);
    return rc;
}

static int make_folder(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

int cache_default_path(char *out, size_t size)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int len, rc;

    if (base != NULL && *base == '/') { /* a relative one is to be ignored, says the XDG specification */
        len = snprintf(out, size, "%s", base);
    } else if (home != NULL && *home == '/') {
        len = snprintf(out, size, "%s/.cache", home);
    } else {
        return -ENOENT;
    }
    if (len < 0 || (size_t)len + sizeof "/socks6/client" > size) {
        return -ENAMETOOLONG;
    }
    rc = make_folder(out);
    if (rc == 0) {
        len += snprintf(out + len, size - (size_t)len, "/socks6");
        rc = make_folder(out);
    }
    if (rc == 0) {
        (void)snprintf(out + len, size - (size_t)len, "/client");
    }
    return rc;
}
