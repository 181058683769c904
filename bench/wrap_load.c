/*
 * A program that knows no proxy, as load for what wraps such programs: see harness/wrap.py.
 *
 *   wrap_load KEY=VALUE...   kind, host, port, count, workers, seconds, warm
 *
 * kind: connect  connect, close, again
 *       request  connect, 64 bytes there and back, close, again
 *       keep     64 bytes there and back, one after the other, on a standing connection
 *
 * Each of `workers` processes calls what any program calls: socket(2), connect(2), which blocks, send(2), recv(2). Wrappers may
 * serialise threads or work inside of connect(2): among processes neither is held against anybody. Destinations rotate over
 * `count` consecutive addresses from `host` on. After `warm` seconds come the `seconds` that count.
 *
 * The result is one line of JSON: operations, errors and the first of them, and mean and percentiles of the time that one operation took.
 */
#include "common.h"
#include "latency.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGE_LEN 64u
#define WORKERS_MAX 256u
#define ERROR_LIMIT 100u /* of one worker: something is wrong for good */

enum kind { CONNECT, REQUEST, KEEP, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"connect", "request", "keep"};

/* What a worker leaves, in memory that all share. */
struct result {
    struct latency latency;
    uint64_t total_ns; /* of those in `latency` */
    unsigned long long errors;
    char first_error[96];
};

static enum kind kind;
static unsigned host_count = 1, worker_count = 1;
static in_addr_t host;
static uint16_t port;
static double seconds = 1, warm_seconds = 0.3;

static void fail(struct result *result, const char *what)
{
    if (result->errors++ == 0) {
        (void)snprintf(result->first_error, sizeof result->first_error, "%s: %s", what, strerror(errno));
    }
}

/* A connected descriptor, or -1. */
static int open_one(struct result *result, unsigned number)
{
    struct sockaddr_in addr = ipv4(host + number % host_count, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        die("socket");
    }
    set_nodelay(fd);
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0) {
        fail(result, "connect");
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* One message there and back. False, and an error, if it did not come whole. */
static bool exchange(struct result *result, int fd, uint8_t mark)
{
    uint8_t message[MESSAGE_LEN], answer[MESSAGE_LEN];
    memset(message, mark, sizeof message);
    errno = 0;
    if (send(fd, message, sizeof message, MSG_NOSIGNAL) != (ssize_t)sizeof message) {
        fail(result, "send");
        return false;
    }
    for (size_t len = 0; len < sizeof answer;) {
        ssize_t got = recv(fd, answer + len, sizeof answer - len, 0);
        if (got <= 0) {
            fail(result, "recv");
            return false;
        }
        len += (size_t)got;
    }
    if (memcmp(message, answer, sizeof answer) != 0) {
        fail(result, "another message came back");
        return false;
    }
    return true;
}

static void work(struct result *result, unsigned number)
{
    uint64_t counts_from = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(warm_seconds * 1e9);
    uint64_t end = counts_from + (uint64_t)(seconds * 1e9);
    int standing = -1;
    for (unsigned i = number;; i += worker_count) {
        uint64_t started = clock_ns(CLOCK_MONOTONIC);
        if (started >= end || result->errors >= ERROR_LIMIT) {
            return;
        }
        bool is_standing = standing >= 0;
        int fd = is_standing ? standing : open_one(result, i);
        bool is_good = fd >= 0 && (kind == CONNECT || exchange(result, fd, (uint8_t)i));
        standing = kind == KEEP && is_good ? fd : -1;
        if (fd >= 0 && standing < 0) {
            (void)close(fd);
        }
        /* Counted is what ends within the time: what was cut off at its end is made up for by what was on its way at the beginning. */
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (is_good && now >= counts_from && now <= end && (kind != KEEP || is_standing)) {
            latency_add(&result->latency, now - started);
            result->total_ns += now - started;
        }
    }
}

static void set_key(const char *key, const char *value)
{
    if (strcmp(key, "kind") == 0) {
        kind = (enum kind)need_name(kind_names, KIND_COUNT, value);
    } else if (strcmp(key, "host") == 0) {
        host = need_address(value);
    } else if (strcmp(key, "port") == 0) {
        port = (uint16_t)need_number(value);
    } else if (strcmp(key, "count") == 0) {
        host_count = need_number(value);
    } else if (strcmp(key, "workers") == 0) {
        worker_count = need_number(value);
    } else if (strcmp(key, "seconds") == 0) {
        seconds = strtod(value, NULL);
    } else if (strcmp(key, "warm") == 0) {
        warm_seconds = strtod(value, NULL);
    } else {
        (void)fprintf(stderr, "wrap_load: no key '%s'\n", key);
        exit(2);
    }
}

static void print(const struct result *results)
{
    static struct latency all;
    unsigned long long errors = 0;
    uint64_t total_ns = 0;
    const char *first = "";
    for (unsigned w = 0; w < worker_count; w++) {
        for (size_t i = 0; i < LATENCY_CLASSES; i++) {
            all.counts[i] += results[w].latency.counts[i];
        }
        all.total += results[w].latency.total;
        total_ns += results[w].total_ns;
        errors += results[w].errors;
        first = *first == '\0' ? results[w].first_error : first;
    }
    printf("{\"ops\": %llu, \"seconds\": %g, \"errors\": %llu, \"first_error\": \"%s\", \"mean_us\": %.1f, \"p50_us\": "
           "%.1f, "
           "\"p99_us\": %.1f}\n",
           (unsigned long long)all.total, seconds, errors, first,
           all.total == 0 ? 0.0 : (double)total_ns / 1e3 / (double)all.total, latency_percentile_us(&all, 0.5),
           latency_percentile_us(&all, 0.99));
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) {
            (void)fprintf(stderr, "usage: wrap_load KEY=VALUE...\n");
            return 2;
        }
        *value++ = '\0';
        set_key(argv[i], value);
    }
    if (worker_count == 0 || worker_count > WORKERS_MAX || host_count == 0 || port == 0) {
        (void)fprintf(stderr, "wrap_load: workers (1 to %u), count and port are needed\n", WORKERS_MAX);
        return 2;
    }
    struct result *results =
        mmap(NULL, worker_count * sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED) {
        die("mmap");
    }
    for (unsigned w = 0; w < worker_count; w++) {
        pid_t pid = fork();
        if (pid < 0) {
            die("fork");
        }
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            work(&results[w], w);
            _exit(0);
        }
    }
    for (unsigned w = 0; w < worker_count; w++) {
        int status;
        if (wait(&status) < 0 || status != 0) {
            (void)fprintf(stderr, "wrap_load: a worker has died\n");
            return 1;
        }
    }
    print(results);
    return 0;
}
