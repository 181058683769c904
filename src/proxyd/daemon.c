#include "proxyd/daemon.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/accounts.h"
#include "proxyd/log.h"
#include "proxyd/sockets.h"
#include "proxyd/status.h"
#include "proxyd/status_socket.h"
#include "proxyd/worker.h"

#define WORKERS_MAX 256u
/* Descriptors that are not connections: standard streams, loops, log, netlink, and a margin. */
#define DESCRIPTORS_RESERVED 64u
/* Of each worker to DNS servers: four sockets and a connection to each of a few. There can be more for a while. */
#define DESCRIPTORS_DNS 16u

struct daemon {
    struct daemon_options options;
    struct loop *loop;
    struct shared shared;
    const struct config *config;
    struct worker **workers; /* [worker_count] */
    unsigned worker_count;
    unsigned running;
    unsigned stop_signals;
    int signal_fd;
    struct loop_io signal_io;
    uint32_t descriptors;
    char *config_path;         /* absolute, for the status; NULL = the defaults */
    struct socks6_addr *bound; /* [listener of `config`]: where it listens; type 0: left out */
    struct status_socket *status;
    struct timespec started, reloaded; /* CLOCK_REALTIME */
    uint64_t started_ms;
};

/* on_worker_finished() has only the worker at hand; there is one daemon in a process. */
static struct daemon *the_daemon;

/* ---- descriptor limit ---- */

static uint32_t descriptors_allowed(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
            limit = raised;
        }
    }
    return limit.rlim_cur > INT32_MAX ? (uint32_t)INT32_MAX : (uint32_t)limit.rlim_cur;
}

/* Every relayed connection needs two descriptors; accepting more than can be relayed would only make them fail later. */
static uint32_t connections_allowed(uint32_t descriptors, unsigned workers, size_t listeners)
{
    uint64_t reserved = DESCRIPTORS_RESERVED + workers * (2 + DESCRIPTORS_DNS + (uint64_t)listeners);
    if (reserved > descriptors / 2) {
        reserved = descriptors / 2;
    }
    uint64_t connections = (descriptors - reserved) / 2;
    return connections == 0 ? 1 : (uint32_t)connections;
}

static uint32_t connections_max(const struct daemon *daemon)
{
    uint32_t max = daemon->config->limits.connections;

    return max != 0 ? max : daemon->shared.connections_auto;
}

/* ---- counters and status ---- */

struct counter_line {
    char text[1024];
    size_t len;
};

static void add_counter(void *user, const char *name, uint64_t value)
{
    struct counter_line *line = user;
    size_t room = sizeof line->text - line->len;
    int n = snprintf(line->text + line->len, room, " %s=%" PRIu64, name, value);

    line->len += n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static void log_dns_counters(const struct daemon *daemon)
{
    static struct counter_line line; /* large, and of the main thread alone */

    line.len = 0;
    if (daemon->shared.dns != NULL) {
        dns_resolver_count(daemon->shared.dns, add_counter, &line);
        line.text[line.len] = '\0';
        log_info("resolver:%s", line.text);
    }
}

static void log_counters(const struct daemon *daemon)
{
    uint64_t sum[STATS_COUNT] = {0}, values[STATS_COUNT];
    static char line[STATS_LINE_MAX]; /* large, and of the main thread alone */

    for (unsigned i = 0; i < daemon->worker_count; i++) {
        stats_read(&daemon->workers[i]->stats, values);
        stats_sum(sum, values);
    }
    stats_line(sum, line);
    log_info("counters: log_lines_lost=%" PRIu64 "%s", log_lost(), line);
    const struct store *store = accounts_store(daemon->shared.accounts);
    log_info("sessions: open=%" PRIu32 " expired=%" PRIu64, store_session_count(store), store_expired_count(store));
    log_dns_counters(daemon);
}

struct dns_values {
    struct status_value items[64];
    size_t count;
};

static void add_dns_value(void *user, const char *name, uint64_t value)
{
    struct dns_values *values = user;

    assert(values->count < sizeof values->items / sizeof values->items[0]);
    values->items[values->count++] = (struct status_value){.name = name, .value = value};
}

/* A status_make. */
static char *make_status(void *user, size_t *len)
{
    const struct daemon *daemon = user;
    uint64_t(*values)[STATS_COUNT] = calloc(daemon->worker_count, sizeof *values);
    struct dns_values dns = {.count = 0};
    char *text;

    if (values == NULL || daemon->workers == NULL) {
        free(values);
        return NULL;
    }
    for (unsigned i = 0; i < daemon->worker_count; i++) {
        if (daemon->workers[i] != NULL) { /* a start that fails */
            stats_read(&daemon->workers[i]->stats, values[i]);
        }
    }
    dns_resolver_count(daemon->shared.dns, add_dns_value, &dns);
    const struct store *store = accounts_store(daemon->shared.accounts);
    const struct status_facts facts = {
        .config_path = daemon->config_path,
        .config = daemon->config,
        .started = daemon->started,
        .reloaded = daemon->reloaded,
        .uptime_ms = loop_now_ms(daemon->loop) - daemon->started_ms,
        .draining = daemon->stop_signals > 0,
        .bound = daemon->bound,
        .workers = (const uint64_t(*)[STATS_COUNT])values,
        .worker_count = daemon->worker_count,
        .dns = dns.items,
        .dns_count = dns.count,
        .connections_max = connections_max(daemon),
        .descriptors_max = daemon->descriptors,
        .sessions = store_session_count(store),
        .sessions_expired = store_expired_count(store),
        .logins_waiting = passwords_waiting_count(accounts_passwords(daemon->shared.accounts)),
        .users = accounts_users(daemon->shared.accounts),
    };
    text = status_document(&facts, len);
    free(values);
    return text;
}

/*
 * Opens, moves or closes the status socket as `config` wants it. What was asked for by its path must be had: then 0 or
 * -errno, and the old one stays. The default one is a convenience, of which a second daemon has none.
 */
static int apply_status(struct daemon *daemon, const struct config *config, char *why, size_t why_size)
{
    struct status_socket *opened = NULL;
    char path[128];
    bool wanted = config_status_path(&config->status, path, sizeof path);

    if (wanted && daemon->status != NULL && strcmp(path, status_socket_path(daemon->status)) == 0 &&
        status_socket_is_reachable(daemon->status)) {
        return 0;
    }
    if (wanted) {
        int err = status_socket_open(daemon->loop, path, make_status, daemon, &opened);
        if (err != 0 && config->status.kind == CONFIG_STATUS_PATH) {
            (void)snprintf(why, why_size, "cannot listen on %s: %s", path,
                           err == -EADDRINUSE ? "another process has it, or it is not a socket" : strerror(-err));
            return err;
        }
        if (err != 0) {
            log_info("no status socket at %s: %s", path,
                     err == -EADDRINUSE ? "another process has it" : strerror(-err));
        }
    }
    status_socket_close(daemon->status);
    daemon->status = opened;
    return 0;
}

/* Where each listener of `config` is now; those that stay open keep their place. NULL = no memory. */
static struct socks6_addr *find_bound(const struct daemon *daemon, const struct config *config,
                                      const struct sockets *sockets)
{
    struct socks6_addr *bound = calloc(config->listener_count, sizeof *bound);

    for (size_t i = 0; bound != NULL && i < config->listener_count; i++) {
        if (sockets_address(sockets, i, &bound[i]) || daemon->bound == NULL) {
            continue;
        }
        const struct config_listener *open =
            config_find_listener(daemon->config, &config->listeners[i].address, config->listeners[i].nth);
        if (open != NULL) {
            bound[i] = daemon->bound[open - daemon->config->listeners];
        }
    }
    return bound;
}

/* ---- reload ---- */

static void give_to_workers(struct daemon *daemon, const struct config *config, struct sockets *sockets)
{
    for (unsigned i = 0; i < daemon->worker_count; i++) {
        if (worker_reload(daemon->workers[i], config, sockets_of(sockets, i)) == 0) {
            sockets_taken(sockets, i);
        } else {
            log_error("no memory to reload worker %u; reload again", i);
        }
    }
}

/* The resolver is one for all connections, whichever configuration they were accepted under. */
static void reload_dns(struct daemon *daemon, const struct config *config)
{
    static struct dns_settings settings; /* large, and of the main thread alone */

    config_dns_settings(&config->dns, &settings);
    int err = dns_resolver_configure(daemon->shared.dns, &settings);
    if (err == -EINVAL) {
        log_error("dns: the servers in force stay: no certificates in %s",
                  config->dns.ca != NULL ? config->dns.ca : "dns.ca");
    } else if (err != 0) {
        log_error("dns: the servers in force stay: %s", strerror(-err));
    }
}

/* For accounts.h. */
static void tell_users(void *user, struct accounts_change *change)
{
    struct daemon *daemon = user;

    for (unsigned i = 0; i < daemon->worker_count; i++) {
        worker_change_users(daemon->workers[i], &change->orders[i]);
    }
}

static void warn_of_missing(void *user, const char *address, unsigned line, int error)
{
    char where[32] = "";

    (void)user;
    if (line != 0) {
        (void)snprintf(where, sizeof where, " of the rule at line %u", line);
    }
    log_warning("outgoing%s: no connection can come from %s now: %s", where, address, strerror(error));
}

static void warn_of_certificate(void *user, const char *listener, const char *path, const char *warning)
{
    (void)user;
    log_warning("the certificate of %s (%s) %s", listener, path, warning);
}

/* 0, or -1 with nothing changed and the reason. Takes `config` if it succeeds. */
static int apply_config(struct daemon *daemon, const struct config *config, char *why, size_t why_size)
{
    struct sockets *sockets = NULL;
    struct accounts_change *change = NULL;
    struct socks6_addr *bound;

    if (sockets_open(config, daemon->config, daemon->worker_count, &sockets, why, why_size) != 0) {
        return -1;
    }
    bound = find_bound(daemon, config, sockets);
    if (bound == NULL || accounts_prepare(daemon->shared.accounts, config->auth.users, &change) != 0) {
        (void)snprintf(why, why_size, "out of memory");
        sockets_free(sockets);
        free(bound);
        return -1;
    }
    if (apply_status(daemon, config, why, why_size) != 0) {
        accounts_change_discard(change);
        sockets_free(sockets);
        free(bound);
        return -1;
    }
    config_missing_outgoing(config, warn_of_missing, NULL);
    config_certificate_warnings(config, warn_of_certificate, NULL);
    config_set_ticket_keys(config, daemon->shared.ticket_keys);
    if (config->workers != daemon->config->workers) {
        log_warning("a change of `workers` takes effect at the next start");
    }
    accounts_commit(daemon->shared.accounts, config, change); /* before anybody comes in by the new configuration */
    give_to_workers(daemon, config, sockets);
    reload_dns(daemon, config);
    sockets_free(sockets);
    config_release(daemon->config);
    daemon->config = config;
    free(daemon->bound);
    daemon->bound = bound;
    clock_gettime(CLOCK_REALTIME, &daemon->reloaded);
    return 0;
}

static void reload(struct daemon *daemon)
{
    struct config_error error;
    const struct config *config;
    int err =
        config_load(daemon->options.config_path, daemon->options.listen, daemon->options.listen_count, &config, &error);

    if (err == 0) {
        config_set_verbosity(config, daemon->options.verbosity);
        err = apply_config(daemon, config, error.text, sizeof error.text);
        if (err != 0) {
            config_release(config);
        }
    }
    /* In any case: a rotation of the log must not wait for the configuration to be mended. */
    log_apply(&daemon->config->log);
    if (err == 0) {
        log_info("configuration reloaded");
    } else {
        log_error("reload failed, the configuration in force stays: %s", error.text);
    }
}

/* ---- signals ---- */

static void stop(struct daemon *daemon)
{
    daemon->stop_signals++;
    if (daemon->stop_signals > 2) {
        return;
    }
    bool now = daemon->stop_signals == 2;
    if (now) {
        log_info("ending now");
    } else {
        log_info("draining: %" PRIu32 " connections left; a second signal ends them",
                 limits_total(daemon->shared.limits));
    }
    for (unsigned i = 0; i < daemon->worker_count; i++) {
        worker_drain(daemon->workers[i], now);
    }
}

static void on_signal(struct loop_io *io, uint32_t events)
{
    struct daemon *daemon = the_daemon;
    struct signalfd_siginfo info;

    (void)events;
    while (read(io->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGHUP:
            if (daemon->stop_signals == 0) {
                reload(daemon);
            }
            break;
        case SIGUSR1:
            log_counters(daemon);
            break;
        default:
            stop(daemon);
            break;
        }
    }
}

/* Before any thread is made, so that all inherit the mask and only the signalfd sees them. */
static int block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
    return -pthread_sigmask(SIG_BLOCK, set, NULL);
}

static int open_signals(struct daemon *daemon, const sigset_t *set)
{
    daemon->signal_fd = signalfd(-1, set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (daemon->signal_fd < 0) {
        return -errno;
    }
    daemon->signal_io = (struct loop_io){.ready = on_signal, .fd = daemon->signal_fd};
    return loop_add(daemon->loop, &daemon->signal_io, EPOLLIN);
}

/* ---- start and end ---- */

static void on_worker_finished(struct worker *worker)
{
    (void)worker;
    if (--the_daemon->running == 0) {
        loop_stop(the_daemon->loop);
    }
}

static unsigned count_workers(const struct config *config)
{
    long n = config->workers != 0 ? (long)config->workers : sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1) {
        return 1;
    }
    return n > (long)WORKERS_MAX ? WORKERS_MAX : (unsigned)n;
}

static int start_workers(struct daemon *daemon, struct sockets *sockets)
{
    daemon->workers = calloc(daemon->worker_count, sizeof(struct worker *));
    if (daemon->workers == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < daemon->worker_count; i++) {
        int err = worker_new(&daemon->shared, daemon->config, sockets_of(sockets, i), on_worker_finished,
                             &daemon->workers[i]);
        sockets_taken(sockets, i);
        if (err != 0) {
            return err;
        }
    }
    for (unsigned i = 0; i < daemon->worker_count; i++) {
        int err = worker_start(daemon->workers[i]);
        if (err != 0) {
            return err;
        }
        daemon->running++;
    }
    return 0;
}

static int start_shared(struct daemon *daemon, const sigset_t *signals)
{
    struct shared *shared = &daemon->shared;
    int err = loop_new(&daemon->loop);
    if (err == 0) {
        shared->main_loop = daemon->loop;
        daemon->started_ms = loop_now_ms(daemon->loop);
        err = open_signals(daemon, signals);
    }
    if (err == 0) {
        static struct dns_settings settings; /* large, and of the main thread alone */
        config_dns_settings(&daemon->config->dns, &settings);
        err = dns_resolver_new(&settings, &shared->dns);
        if (err == -EINVAL) {
            log_error("%s: no certificates that could be read",
                      daemon->config->dns.ca != NULL ? daemon->config->dns.ca : "dns.ca");
        }
    }
    if (err == 0) {
        err = tls_keys_new(&shared->ticket_keys);
    }
    if (err == 0) {
        config_set_ticket_keys(daemon->config, shared->ticket_keys);
        err = dns_limits_new(&shared->dns_limits);
    }
    if (err == 0) {
        err = winners_new(&shared->winners);
    }
    if (err == 0) {
        err = limits_new(&shared->limits);
    }
    if (err == 0) {
        err = local_addrs_new(daemon->loop, &shared->local);
    }
    if (err == 0) {
        err = accounts_new(daemon->loop, daemon->config, daemon->worker_count, tell_users, daemon, &shared->accounts);
    }
    return err;
}

static void free_all(struct daemon *daemon)
{
    for (unsigned i = 0; daemon->workers != NULL && i < daemon->worker_count; i++) {
        if (daemon->workers[i] != NULL) {
            worker_free(daemon->workers[i]);
        }
    }
    free(daemon->workers);
    accounts_free(daemon->shared.accounts);
    local_addrs_free(daemon->shared.local);
    dns_resolver_free(daemon->shared.dns);
    dns_limits_free(daemon->shared.dns_limits);
    winners_free(daemon->shared.winners);
    limits_free(daemon->shared.limits);
    if (daemon->signal_fd >= 0) {
        loop_remove(daemon->loop, &daemon->signal_io);
        close(daemon->signal_fd);
    }
    status_socket_close(daemon->status);
    loop_free(daemon->loop);
    config_release(daemon->config);
    tls_keys_release(daemon->shared.ticket_keys);
    free(daemon->bound);
    free(daemon->config_path);
}

/* What the workers do not need to run. 0 or -errno, reported. */
static int start_status(struct daemon *daemon, const struct sockets *sockets)
{
    char why[256];
    int err = 0;

    daemon->bound = find_bound(daemon, daemon->config, sockets);
    if (daemon->options.config_path != NULL) {
        daemon->config_path = realpath(daemon->options.config_path, NULL); /* NULL, if it is gone again already */
    }
    if (daemon->bound == NULL) {
        err = -ENOMEM;
        (void)snprintf(why, sizeof why, "cannot start: %s", strerror(-err));
    } else {
        err = apply_status(daemon, daemon->config, why, sizeof why);
    }
    if (err != 0) {
        log_error("%s", why);
    }
    return err;
}

static int daemon_start(struct daemon *daemon, const sigset_t *signals)
{
    struct sockets *sockets = NULL;
    char why[256];

    int err = start_shared(daemon, signals);
    if (err != 0) {
        log_error("cannot start: %s", strerror(-err));
        return err;
    }
    err = sockets_open(daemon->config, NULL, daemon->worker_count, &sockets, why, sizeof why);
    if (err != 0) {
        log_error("%s", why);
        return err;
    }
    err = start_status(daemon, sockets);
    if (err != 0) {
        sockets_free(sockets);
        return err;
    }
    err = start_workers(daemon, sockets);
    sockets_free(sockets);
    if (err != 0) {
        log_error("cannot start the workers: %s", strerror(-err));
        for (unsigned i = 0; i < daemon->running; i++) {
            worker_drain(daemon->workers[i], true);
        }
        if (daemon->running > 0 && loop_run(daemon->loop) != 0) { /* until they have said that they finished */
            abort();
        }
    }
    return err;
}

static int run(struct daemon *daemon)
{
    int err;

    config_missing_outgoing(daemon->config, warn_of_missing, NULL);
    config_certificate_warnings(daemon->config, warn_of_certificate, NULL);
    log_info("ready: %u workers, at most %" PRIu32 " connections", daemon->worker_count, connections_max(daemon));
    if (daemon->status != NULL) {
        log_debug("status socket: %s", status_socket_path(daemon->status));
    }
    err = loop_run(daemon->loop);
    log_counters(daemon);
    log_info("stopped");
    return err;
}

int daemon_run(const struct daemon_options *options, const struct config *config)
{
    struct daemon daemon = {.options = *options, .config = config, .signal_fd = -1};
    sigset_t signals;
    char why[LOG_WHY_MAX];

    the_daemon = &daemon;
    int err = block_signals(&signals);
    clock_gettime(CLOCK_REALTIME, &daemon.started);
    daemon.descriptors = descriptors_allowed();
    daemon.worker_count = count_workers(config);
    daemon.shared.connections_auto =
        connections_allowed(daemon.descriptors, daemon.worker_count, config->listener_count);
    atomic_init(&daemon.shared.next_id, 1);
    if (err == 0) {
        err = log_start(&config->log, why);
        if (err != 0) {
            log_error("%s", why);
        }
    }
    if (err == 0) {
        err = daemon_start(&daemon, &signals);
    }
    if (err == 0) {
        err = run(&daemon);
    }
    free_all(&daemon);
    log_stop();
    the_daemon = NULL;
    return err == 0 ? 0 : 1;
}
