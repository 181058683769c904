/*
 * getaddrinfo(3) in threads. A query is QUEUED until a thread takes it (RUNNING), then POSTED to its loop; the pool's
 * mutex guards the first two states and the step to the third, after which the query belongs to its loop's thread
 * alone.
 *
 * Who frees a query: resolver_cancel() while it is QUEUED; its thread, if it was cancelled while RUNNING (nothing is
 * posted then, so a loop whose queries are all cancelled may go); else its loop, after `done` or instead of it.
 *
 * Threads start when a query finds none idle, and stay. AI_ADDRCONFIG is not used: it would hide ::1 from `localhost`
 * on a host without IPv6 elsewhere, and the order of RFC 6724 puts what cannot be reached last anyway.
 *
 * Names that cannot be a host's are not asked for at all: they could reach a search path or a hosts database in odd
 * ways.
 */
#include "io/resolver.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/sock.h"

#define THREADS_MAX 64u
#define THREAD_STACK_LEN ((size_t)512 * 1024) /* name service modules are not small */
#define HOST_NAME_MAX_LEN 253u                /* RFC 1035: 255 on the wire; without the final dot */
#define LABEL_MAX_LEN 63u

enum query_state { QUERY_QUEUED, QUERY_RUNNING, QUERY_POSTED };

struct resolver_query {
    struct loop_msg msg;
    struct resolver_query *prev, *next; /* QUEUED */
    struct resolver *resolver;
    struct loop *loop;
    resolver_done *done;
    void *user;
    _Atomic(enum query_state) state; /* changed with the mutex held */
    bool is_cancelled;               /* guarded by the mutex, until POSTED */
    uint16_t port;
    struct resolver_answer answer; /* POSTED */
    struct socks6_addr *addrs;
    char name[SOCKS6_NAME_MAX + 1];
};

struct resolver {
    pthread_mutex_t mutex;
    pthread_cond_t has_work;
    struct resolver_query *first, *last;
    size_t queued_count, queue_max;
    unsigned idle_count, thread_count, thread_max;
    bool is_closing;
    pthread_t threads[THREADS_MAX];
};

static void query_free(struct resolver_query *query)
{
    free(query->addrs);
    free(query);
}

static void link_query(struct resolver *resolver, struct resolver_query *query)
{
    query->next = NULL;
    query->prev = resolver->last;
    if (query->prev != NULL) {
        query->prev->next = query;
    } else {
        resolver->first = query;
    }
    resolver->last = query;
    resolver->queued_count++;
}

static void unlink_query(struct resolver *resolver, struct resolver_query *query)
{
    if (query->prev != NULL) {
        query->prev->next = query->next;
    } else {
        resolver->first = query->next;
    }
    if (query->next != NULL) {
        query->next->prev = query->prev;
    } else {
        resolver->last = query->prev;
    }
    resolver->queued_count--;
}

/* ASCII without blanks and control characters, labels of 1 to 63 bytes, a final dot allowed. Numeric forms pass. */
static bool is_askable(const char *name)
{
    size_t len = strlen(name);
    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    if (len == 0 || len > HOST_NAME_MAX_LEN) {
        return false;
    }
    size_t label_len = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c <= ' ' || c >= 0x7f) {
            return false;
        }
        label_len = c == '.' ? 0 : label_len + 1;
        if (label_len > LABEL_MAX_LEN || (c == '.' && (i == 0 || name[i - 1] == '.'))) {
            return false;
        }
    }
    return true;
}

static bool same_addr(const struct socks6_addr *a, const struct socks6_addr *b)
{
    return a->type == b->type && memcmp(&a->u, &b->u, a->len) == 0;
}

/* Appends, unless it is there already or cannot be told in SOCKS: addresses have no scope there. */
static void add_addr(struct resolver_query *query, const struct addrinfo *info)
{
    struct socks6_addr addr;
    struct sockaddr_in6 sin6;
    if (!sock_to_addr(info->ai_addr, info->ai_addrlen, &addr)) {
        return;
    }
    if (info->ai_family == AF_INET6) {
        memcpy(&sin6, info->ai_addr, sizeof sin6);
        if (sin6.sin6_scope_id != 0 || IN6_IS_ADDR_LINKLOCAL(&sin6.sin6_addr)) {
            return;
        }
    }
    for (size_t i = 0; i < query->answer.count; i++) {
        if (same_addr(&query->addrs[i], &addr)) {
            return;
        }
    }
    addr.port = query->port;
    query->addrs[query->answer.count++] = addr;
}

static void set_answer(struct resolver_query *query, enum resolver_status status, const char *why)
{
    query->answer.status = status;
    query->answer.why = why;
}

static void take_addrs(struct resolver_query *query, const struct addrinfo *list)
{
    size_t count = 0;
    for (const struct addrinfo *info = list; info != NULL && count < RESOLVER_ADDRESSES_MAX; info = info->ai_next) {
        count++;
    }
    query->addrs = calloc(count > 0 ? count : 1, sizeof *query->addrs);
    if (query->addrs == NULL) {
        set_answer(query, RESOLVER_FAILED, "out of memory");
        return;
    }
    for (const struct addrinfo *info = list; info != NULL && count > 0; info = info->ai_next, count--) {
        add_addr(query, info);
    }
    query->answer.addrs = query->addrs;
    if (query->answer.count > 0) {
        set_answer(query, RESOLVER_OK, "");
    } else {
        set_answer(query, RESOLVER_NO_ADDRESS, "no usable address");
    }
}

/* Fills in the answer. Blocks. */
static void look_up(struct resolver_query *query)
{
    if (!is_askable(query->name)) {
        set_answer(query, RESOLVER_NO_ADDRESS, "not a host name");
        return;
    }
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    struct addrinfo *list = NULL;
    int code = getaddrinfo(query->name, NULL, &hints, &list);
    switch (code) {
    case 0:
        take_addrs(query, list);
        freeaddrinfo(list);
        break;
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
        set_answer(query, RESOLVER_NO_ADDRESS, "no such name");
        break;
    case EAI_AGAIN:
        set_answer(query, RESOLVER_FAILED, "temporary failure in name resolution");
        break;
    case EAI_FAIL:
        set_answer(query, RESOLVER_FAILED, "the name server failed");
        break;
    case EAI_MEMORY:
        set_answer(query, RESOLVER_FAILED, "out of memory");
        break;
    default: /* codes of the C library, not of ours */
        set_answer(query, RESOLVER_FAILED, "system error in name resolution");
        break;
    }
}

/* On the loop's thread. */
static void on_answer(struct loop_msg *msg)
{
    struct resolver_query *query = LOOP_OWNER(msg, struct resolver_query, msg);
    if (!query->is_cancelled) {
        query->done(query->user, &query->answer);
    }
    query_free(query);
}

/* With the mutex held: the look-up is over. */
static void finish_query(struct resolver *resolver, struct resolver_query *query)
{
    if (query->is_cancelled || resolver->is_closing) {
        query_free(query);
        return;
    }
    query->state = QUERY_POSTED;
    loop_post(query->loop, &query->msg);
}

static void *run(void *arg)
{
    struct resolver *resolver = arg;
    (void)pthread_mutex_lock(&resolver->mutex);
    while (!resolver->is_closing) {
        struct resolver_query *query = resolver->first;
        if (query == NULL) {
            resolver->idle_count++;
            (void)pthread_cond_wait(&resolver->has_work, &resolver->mutex);
            resolver->idle_count--;
            continue;
        }
        unlink_query(resolver, query);
        query->state = QUERY_RUNNING;
        (void)pthread_mutex_unlock(&resolver->mutex);
        look_up(query);
        (void)pthread_mutex_lock(&resolver->mutex);
        finish_query(resolver, query);
    }
    (void)pthread_mutex_unlock(&resolver->mutex);
    return NULL;
}

/* With the mutex held. Signals are for the program's own threads. */
static void start_thread(struct resolver *resolver)
{
    pthread_attr_t attr;
    sigset_t all, old;
    if (pthread_attr_init(&attr) != 0) {
        return;
    }
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK_LEN);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&resolver->threads[resolver->thread_count], &attr, run, resolver) == 0) {
        resolver->thread_count++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
}

int resolver_new(unsigned threads, size_t queue_max, struct resolver **out)
{
    if (threads == 0 || threads > THREADS_MAX || queue_max == 0) {
        return -EINVAL;
    }
    struct resolver *resolver = calloc(1, sizeof *resolver);
    if (resolver == NULL) {
        return -ENOMEM;
    }
    int rc = pthread_mutex_init(&resolver->mutex, NULL);
    if (rc != 0) {
        free(resolver);
        return -rc;
    }
    rc = pthread_cond_init(&resolver->has_work, NULL);
    if (rc != 0) {
        (void)pthread_mutex_destroy(&resolver->mutex);
        free(resolver);
        return -rc;
    }
    resolver->thread_max = threads;
    resolver->queue_max = queue_max;
    *out = resolver;
    return 0;
}

void resolver_free(struct resolver *resolver)
{
    if (resolver == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&resolver->mutex);
    resolver->is_closing = true;
    (void)pthread_cond_broadcast(&resolver->has_work);
    (void)pthread_mutex_unlock(&resolver->mutex);
    for (unsigned i = 0; i < resolver->thread_count; i++) {
        (void)pthread_join(resolver->threads[i], NULL);
    }
    struct resolver_query *query = resolver->first;
    while (query != NULL) {
        struct resolver_query *next = query->next;
        query_free(query);
        query = next;
    }
    (void)pthread_cond_destroy(&resolver->has_work);
    (void)pthread_mutex_destroy(&resolver->mutex);
    free(resolver);
}

/* With the mutex held: 0 or -EAGAIN. */
static int enqueue(struct resolver *resolver, struct resolver_query *query)
{
    if (resolver->queued_count >= resolver->queue_max) {
        return -EAGAIN;
    }
    if (resolver->idle_count <= resolver->queued_count && resolver->thread_count < resolver->thread_max) {
        start_thread(resolver);
    }
    if (resolver->thread_count == 0) {
        return -EAGAIN; /* nobody would ever take it */
    }
    link_query(resolver, query);
    (void)pthread_cond_signal(&resolver->has_work);
    return 0;
}

int resolver_ask(struct resolver *resolver, struct loop *loop, const char *name, uint16_t port, resolver_done *done,
                 void *user, struct resolver_query **out)
{
    size_t len = strlen(name);
    assert(len <= SOCKS6_NAME_MAX);
    struct resolver_query *query = calloc(1, sizeof *query);
    if (query == NULL) {
        return -ENOMEM;
    }
    memcpy(query->name, name, len + 1);
    query->msg.run = on_answer;
    query->resolver = resolver;
    query->loop = loop;
    query->port = port;
    query->done = done;
    query->user = user;

    (void)pthread_mutex_lock(&resolver->mutex);
    int rc = enqueue(resolver, query);
    (void)pthread_mutex_unlock(&resolver->mutex);
    if (rc < 0) {
        query_free(query);
    } else {
        *out = query;
    }
    return rc;
}

void resolver_cancel(struct resolver_query *query)
{
    if (query == NULL) {
        return;
    }
    if (atomic_load(&query->state) == QUERY_POSTED) {
        query->is_cancelled = true; /* it is this thread's now; the pool may even be gone */
        return;
    }
    struct resolver *resolver = query->resolver;
    (void)pthread_mutex_lock(&resolver->mutex);
    query->is_cancelled = true;
    bool is_queued = query->state == QUERY_QUEUED;
    if (is_queued) {
        unlink_query(resolver, query);
    }
    (void)pthread_mutex_unlock(&resolver->mutex);
    if (is_queued) {
        query_free(query);
    }
}
