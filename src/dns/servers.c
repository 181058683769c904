/*
 * The generation is read without the lock: a client that has the snapshot in force takes no lock at all.
 *
 * When a file cannot be read, what was read before stays in force; at the start it counts as empty.
 */
#include "dns/servers.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dns/resolv_conf.h"
#include "io/sock.h"

#define CHECK_INTERVAL_MS 1000u
#define GIVEN_TIMEOUT_MS 2000u
#define GIVEN_ATTEMPTS 2u
#define FILE_LEN_MAX ((size_t)64 << 20)

/* What tells one state of a file from another. */
struct mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
};

struct followed {
    char *path; /* NULL = none */
    struct mark mark;
};

/* Settings and what belongs to them; replaced as a whole. */
struct source {
    struct dns_server_setting given[DNS_SERVERS_MAX];
    size_t given_count;
    uint64_t timeout_ms; /* 0 = what belongs to the servers; as `attempts` */
    unsigned attempts;
    struct followed resolv_conf, hosts;
    struct dns_tls *tls;
};

struct dns_follower {
    struct siphash_key key;
    void (*changed)(void *user);
    void *user;
    _Atomic uint64_t next_check_ms;
    _Atomic uint64_t generation; /* of `current` */
    pthread_mutex_t mutex;       /* for what follows */
    struct source *source;       /* NULL only before the first settings */
    struct dns_servers *current;
};

/* ---- files ---- */

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Whether it looks different from when it was read last. */
static bool has_changed(const struct followed *file, struct mark *mark)
{
    struct stat st;

    memset(mark, 0, sizeof *mark);
    if (file->path == NULL) {
        return false;
    }
    if (stat(file->path, &st) == 0) {
        mark->dev = st.st_dev;
        mark->ino = st.st_ino;
        mark->size = st.st_size;
        mark->mtime = st.st_mtim;
        mark->ctime = st.st_ctim;
    }
    return mark->dev != file->mark.dev || mark->ino != file->mark.ino || mark->size != file->mark.size ||
           !same_time(&mark->mtime, &file->mark.mtime) || !same_time(&mark->ctime, &file->mark.ctime);
}

/* The whole file, malloc'ed; NULL and -errno in `err` if it cannot be had. */
static char *read_file(const char *path, size_t *len, int *err)
{
    struct stat st;
    char *text = NULL;
    size_t got = 0;

    assert(path != NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        *err = -errno;
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_LEN_MAX) {
        *err = -EINVAL;
        goto out;
    }
    text = malloc((size_t)st.st_size + 1);
    if (text == NULL) {
        *err = -ENOMEM;
        goto out;
    }
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, text + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        got += (size_t)n;
    }
    *len = got;
    *err = 0;
out:
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

/* ---- snapshots ---- */

struct dns_servers *dns_servers_retain(struct dns_servers *servers)
{
    (void)atomic_fetch_add_explicit(&servers->references, 1, memory_order_relaxed);
    return servers;
}

void dns_servers_release(struct dns_servers *servers)
{
    if (servers != NULL && atomic_fetch_sub_explicit(&servers->references, 1, memory_order_acq_rel) == 1) {
        hosts_free(servers->hosts);
        dns_tls_release(servers->tls);
        free(servers);
    }
}

bool dns_server_equal(const struct dns_server *a, const struct dns_server *b)
{
    return a->transport == b->transport && a->addr_len == b->addr_len && memcmp(&a->addr, &b->addr, a->addr_len) == 0 &&
           strcmp(a->name, b->name) == 0;
}

static socklen_t sockaddr_len(const struct sockaddr_storage *addr)
{
    return addr->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static void fill_given(struct dns_servers *servers, const struct source *source)
{
    for (size_t i = 0; i < source->given_count; i++) {
        const struct dns_server_setting *setting = &source->given[i];
        struct dns_server *server = &servers->server[servers->count];
        if (sock_from_addr(&setting->addr, &server->addr, &server->addr_len)) {
            server->transport = setting->transport;
            memcpy(server->name, setting->name, sizeof server->name);
            servers->count++;
        }
    }
    servers->timeout_ms = GIVEN_TIMEOUT_MS;
    servers->attempts = GIVEN_ATTEMPTS;
}

static void fill_system(struct dns_servers *servers, const char *text, size_t len)
{
    struct resolv_conf conf;

    resolv_conf_parse(text, len, &conf);
    for (size_t i = 0; i < conf.server_count && i < DNS_SERVERS_MAX; i++) {
        struct dns_server *server = &servers->server[servers->count++];
        server->addr = conf.servers[i];
        server->addr_len = sockaddr_len(&server->addr);
        server->transport = conf.use_vc ? DNS_TCP : DNS_UDP;
    }
    servers->timeout_ms = (uint64_t)conf.timeout_s * 1000;
    servers->attempts = conf.attempts;
    servers->rotate = conf.rotate;
}

static int fill_servers(const struct source *source, bool is_first, struct dns_servers *servers)
{
    size_t len = 0;
    int err = 0;

    if (source->given_count != 0) {
        fill_given(servers, source);
    } else {
        char *text = read_file(source->resolv_conf.path, &len, &err);
        if (err == 0 || is_first) {
            fill_system(servers, text != NULL ? text : "", len);
            err = 0;
        }
        free(text);
    }
    if (source->timeout_ms != 0) {
        servers->timeout_ms = source->timeout_ms;
    }
    if (source->attempts != 0) {
        servers->attempts = source->attempts;
    }
    if (source->tls != NULL) {
        servers->tls = dns_tls_retain(source->tls);
    }
    return err;
}

static int fill_hosts(const struct source *source, const struct siphash_key *key, bool is_first,
                      struct dns_servers *servers)
{
    size_t len = 0;
    int err = 0;

    if (source->hosts.path == NULL) {
        return 0;
    }
    char *text = read_file(source->hosts.path, &len, &err);
    if (err == 0) {
        servers->hosts = hosts_parse(text, len, key);
        err = servers->hosts == NULL ? -ENOMEM : 0;
    }
    free(text);
    return is_first && err != -ENOMEM ? 0 : err; /* a host need not have one */
}

static bool same_servers(const struct dns_servers *a, const struct dns_servers *b)
{
    bool same = a->count == b->count;

    for (size_t i = 0; same && i < a->count; i++) {
        same = dns_server_equal(&a->server[i], &b->server[i]);
    }
    return same;
}

/* Reads the files. `is_first`: one that cannot be read counts as empty. */
static int load(const struct source *source, const struct siphash_key *key, bool is_first, struct dns_servers **out)
{
    struct dns_servers *servers = calloc(1, sizeof *servers);
    if (servers == NULL) {
        return -ENOMEM;
    }
    atomic_init(&servers->references, 1);
    int err = fill_servers(source, is_first, servers);
    if (err == 0) {
        err = fill_hosts(source, key, is_first, servers);
    }
    if (err != 0) {
        dns_servers_release(servers);
        return err;
    }
    *out = servers;
    return 0;
}

/* With the mutex held: puts a snapshot in force. Whether its servers are others than before. */
static bool put_in_force(struct dns_follower *follower, struct dns_servers *servers)
{
    bool is_other = follower->current != NULL && !same_servers(servers, follower->current);

    servers->generation = atomic_load(&follower->generation) + 1;
    dns_servers_release(follower->current);
    follower->current = servers;
    atomic_store(&follower->generation, servers->generation);
    return is_other;
}

static void check_files(struct dns_follower *follower)
{
    struct source *source = follower->source;
    struct mark resolv_conf, hosts;
    struct dns_servers *servers;
    bool is_other = false;

    (void)pthread_mutex_lock(&follower->mutex);
    bool changed = has_changed(&source->resolv_conf, &resolv_conf);
    changed |= has_changed(&source->hosts, &hosts);
    /* The marks were taken before reading: what changes meanwhile is seen next time. A file being replaced may be gone. */
    if (changed && load(source, &follower->key, false, &servers) == 0) {
        source->resolv_conf.mark = resolv_conf;
        source->hosts.mark = hosts;
        is_other = put_in_force(follower, servers);
    }
    (void)pthread_mutex_unlock(&follower->mutex);
    if (is_other && follower->changed != NULL) {
        follower->changed(follower->user);
    }
}

void dns_follower_update(struct dns_follower *follower, uint64_t now_ms, struct dns_servers **servers)
{
    uint64_t next_ms = atomic_load_explicit(&follower->next_check_ms, memory_order_relaxed);

    if (now_ms >= next_ms &&
        atomic_compare_exchange_strong(&follower->next_check_ms, &next_ms, now_ms + CHECK_INTERVAL_MS)) {
        check_files(follower);
    }
    if (*servers != NULL && (*servers)->generation == atomic_load(&follower->generation)) {
        return;
    }
    dns_servers_release(*servers);
    (void)pthread_mutex_lock(&follower->mutex);
    *servers = dns_servers_retain(follower->current);
    (void)pthread_mutex_unlock(&follower->mutex);
}

/* ---- life ---- */

static int copy_path(const char *path, const char *standard, char **out)
{
    const char *chosen = path == NULL ? standard : path;

    if (chosen[0] == '\0') {
        return 0;
    }
    *out = strdup(chosen);
    return *out == NULL ? -ENOMEM : 0;
}

static void source_free(struct source *source)
{
    if (source != NULL) {
        free(source->resolv_conf.path);
        free(source->hosts.path);
        dns_tls_release(source->tls);
        free(source);
    }
}

static int source_init(struct source *source, const struct dns_settings *settings)
{
    bool needs_tls = false;
    int err = 0;

    source->timeout_ms = settings->timeout_ms;
    source->attempts = settings->attempts;
    for (size_t i = 0; i < settings->server_count && i < DNS_SERVERS_MAX; i++) {
        source->given[source->given_count++] = settings->servers[i];
        needs_tls |= settings->servers[i].transport == DNS_TLS;
    }
    if (settings->server_count == 0) {
        err = copy_path(settings->resolv_conf, "/etc/resolv.conf", &source->resolv_conf.path);
    }
    if (err == 0) {
        err = copy_path(settings->hosts, "/etc/hosts", &source->hosts.path);
    }
    if (err == 0 && needs_tls) {
        err = dns_tls_new(settings->ca_file, &source->tls);
    }
    (void)has_changed(&source->resolv_conf, &source->resolv_conf.mark);
    (void)has_changed(&source->hosts, &source->hosts.mark);
    return err;
}

int dns_follower_configure(struct dns_follower *follower, const struct dns_settings *settings)
{
    struct source *source = calloc(1, sizeof *source);
    struct dns_servers *servers = NULL;

    int err = source == NULL ? -ENOMEM : source_init(source, settings);
    if (err == 0) {
        err = load(source, &follower->key, true, &servers);
    }
    if (err != 0) {
        source_free(source);
        return err;
    }
    (void)pthread_mutex_lock(&follower->mutex);
    struct source *old = follower->source;
    follower->source = source;
    bool is_other = put_in_force(follower, servers);
    (void)pthread_mutex_unlock(&follower->mutex);
    source_free(old);
    if (is_other && follower->changed != NULL) {
        follower->changed(follower->user);
    }
    return 0;
}

int dns_follower_new(const struct dns_settings *settings, const struct siphash_key *key, void (*changed)(void *user),
                     void *user, struct dns_follower **out)
{
    struct dns_follower *follower = calloc(1, sizeof *follower);

    if (follower == NULL) {
        return -ENOMEM;
    }
    follower->key = *key;
    follower->changed = changed;
    follower->user = user;
    int err = -pthread_mutex_init(&follower->mutex, NULL);
    if (err != 0) {
        free(follower);
        return err;
    }
    err = dns_follower_configure(follower, settings);
    if (err != 0) {
        dns_follower_free(follower);
        return err;
    }
    *out = follower;
    return 0;
}

void dns_follower_free(struct dns_follower *follower)
{
    if (follower != NULL) {
        dns_servers_release(follower->current);
        source_free(follower->source);
        (void)pthread_mutex_destroy(&follower->mutex);
        free(follower);
    }
}
