/*
 * Interface addresses. One socket hears that something has changed; what there is now is then asked for anew, as a
 * whole, over another one. So a notice that was lost (ENOBUFS) needs no care of its own, and there is one way only in
 * which the table comes about.
 *
 * The kernel answers a dump inside the system calls that ask for it: nothing is waited for on the loop.
 */
#include "proxyd/local_addrs.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxyd/log.h"
#include "proxyd/netset.h"

/* Larger than any message of a dump: netlink(7), "the maximum is 32 kB". */
#define BUFFER_SIZE 32768u
/* A dump that a change fell into is marked by the kernel and asked for again. */
#define DUMP_TRIES 5
/* After a dump that failed altogether: memory is short. */
#define RETRY_MS 1000

/* One state of things. */
struct table {
    size_t count, size;
    struct ip *items; /* ascending once it is in place */
};

struct local_addrs {
    struct loop *loop;
    struct loop_io notices;
    struct loop_timer retry;
    struct table table; /* under `lock`, which is held for a look-up or for putting in a new table that is ready */
    pthread_rwlock_t *lock;
    uint8_t *buffer; /* BUFFER_SIZE, the loop's thread only */
};

static int compare(const void *a, const void *b)
{
    const struct ip *left = a, *right = b;

    if (left->family != right->family) {
        return left->family < right->family ? -1 : 1;
    }
    if (left->hi != right->hi) {
        return left->hi < right->hi ? -1 : 1;
    }
    if (left->lo != right->lo) {
        return left->lo < right->lo ? -1 : 1;
    }
    return 0;
}

static int table_add(struct table *table, const struct ip *ip)
{
    if (table->count == table->size) {
        size_t size = table->size == 0 ? 16 : table->size * 2;
        struct ip *items = reallocarray(table->items, size, sizeof *items);

        if (items == NULL) {
            return -ENOMEM;
        }
        table->items = items;
        table->size = size;
    }
    table->items[table->count++] = *ip;
    return 0;
}

/*
 * One RTM_NEWADDR, without its header. On a point-to-point link IFA_ADDRESS is the other end and IFA_LOCAL our own; an
 * IPv6 address often comes with the former alone.
 */
static int take_address(struct table *table, const uint8_t *bytes, size_t len)
{
    const uint8_t *local = NULL, *address = NULL;
    struct ifaddrmsg message;
    struct rtattr attr;
    struct ip ip;
    size_t want;

    if (len < sizeof message) {
        return 0;
    }
    memcpy(&message, bytes, sizeof message);
    if (message.ifa_family != AF_INET && message.ifa_family != AF_INET6) {
        return 0;
    }
    want = message.ifa_family == AF_INET ? 4 : 16;
    for (size_t at = NLMSG_ALIGN(sizeof message); at + sizeof attr <= len; at += RTA_ALIGN(attr.rta_len)) {
        memcpy(&attr, bytes + at, sizeof attr);
        if (attr.rta_len < sizeof attr || attr.rta_len > len - at) {
            break;
        }
        if (attr.rta_len < RTA_LENGTH(want)) {
            continue;
        }
        if (attr.rta_type == IFA_LOCAL) {
            local = bytes + at + RTA_LENGTH(0);
        } else if (attr.rta_type == IFA_ADDRESS) {
            address = bytes + at + RTA_LENGTH(0);
        }
    }
    if (local == NULL) {
        local = address;
    }
    if (local == NULL) {
        return 0;
    }
    ip = want == 4 ? ip_from_bytes4(local) : ip_from_bytes16(local);
    return table_add(table, &ip);
}

/* The messages of one recv(2). 1 = more are to come, 0 = that was all, -EINTR = ask anew, or another -errno. */
static int take_messages(struct table *table, const uint8_t *bytes, size_t len)
{
    struct nlmsghdr header;

    for (size_t at = 0; at + sizeof header <= len; at += NLMSG_ALIGN(header.nlmsg_len)) {
        const uint8_t *body = bytes + at + NLMSG_HDRLEN;
        size_t body_len;
        int err = 0;

        memcpy(&header, bytes + at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > len - at) {
            return -EBADMSG;
        }
        body_len = header.nlmsg_len - sizeof header;
        if ((header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) {
            return -EINTR;
        }
        if (header.nlmsg_type == NLMSG_DONE) {
            return 0;
        }
        if (header.nlmsg_type == NLMSG_ERROR && body_len >= sizeof err) {
            memcpy(&err, body, sizeof err); /* struct nlmsgerr begins with it */
        } else if (header.nlmsg_type == RTM_NEWADDR) {
            err = take_address(table, body, body_len);
        }
        if (err != 0) {
            return err;
        }
    }
    return 1;
}

static int dump_once(struct table *table, uint8_t *buffer)
{
    struct {
        struct nlmsghdr header;
        struct ifaddrmsg message;
    } request = {
        .header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_GETADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .message = {.ifa_family = AF_UNSPEC},
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    int err;

    if (fd < 0) {
        return -errno;
    }
    err = send(fd, &request, sizeof request, 0) < 0 ? -errno : 1;
    while (err > 0) {
        ssize_t got = recv(fd, buffer, BUFFER_SIZE, MSG_TRUNC | MSG_DONTWAIT);

        if (got < 0) {
            err = -errno;
        } else if ((size_t)got > BUFFER_SIZE) {
            err = -EMSGSIZE;
        } else {
            err = take_messages(table, buffer, (size_t)got);
        }
    }
    close(fd);
    return err;
}

static int dump(struct table *out, uint8_t *buffer)
{
    int err = -EINTR;

    for (int i = 0; i < DUMP_TRIES && err == -EINTR; i++) {
        struct table table = {0};

        err = dump_once(&table, buffer);
        if (err == 0) {
            if (table.count > 1) {
                qsort(table.items, table.count, sizeof *table.items, compare);
            }
            *out = table;
        } else {
            free(table.items);
        }
    }
    return err;
}

static int refresh(struct local_addrs *local)
{
    struct table table;
    struct ip *old;
    int err = dump(&table, local->buffer);

    if (err != 0) {
        return err;
    }
    pthread_rwlock_wrlock(local->lock);
    old = local->table.items;
    local->table = table;
    pthread_rwlock_unlock(local->lock);
    free(old);
    return 0;
}

static void refresh_or_retry(struct local_addrs *local)
{
    int err = refresh(local);

    if (err == 0) {
        return;
    }
    log_warning("addresses of the interfaces cannot be read, those known stay in force: %s", strerrordesc_np(-err));
    loop_timer_set(local->loop, &local->retry, RETRY_MS);
}

static void retry_expired(struct loop_timer *timer)
{
    struct local_addrs *local = (void *)((char *)timer - offsetof(struct local_addrs, retry));

    refresh_or_retry(local);
}

/* What the notices say does not matter; they are read so that the next one wakes us. */
static void notices_ready(struct loop_io *io, uint32_t events)
{
    struct local_addrs *local = (void *)((char *)io - offsetof(struct local_addrs, notices));
    ssize_t got;

    (void)events; /* EPOLLERR is ENOBUFS: notices were lost, which does not matter either */
    do {
        got = recv(io->fd, local->buffer, BUFFER_SIZE, MSG_DONTWAIT);
    } while (got >= 0 || errno == EINTR);
    refresh_or_retry(local);
}

static int open_notices(void)
{
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    int err;

    if (fd < 0) {
        return -errno;
    }
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) == 0) {
        return fd;
    }
    err = errno;
    close(fd);
    return -err;
}

/* A flood of look-ups does not keep a new table out. NULL = no memory. */
static pthread_rwlock_t *new_lock(void)
{
    pthread_rwlock_t *lock = malloc(sizeof *lock);
    pthread_rwlockattr_t attr;

    if (lock == NULL) {
        return NULL;
    }
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return lock;
}

int local_addrs_new(struct loop *loop, struct local_addrs **out)
{
    struct local_addrs *local = calloc(1, sizeof *local);
    int err = -ENOMEM;

    if (local == NULL) {
        return err;
    }
    local->loop = loop;
    local->retry.expired = retry_expired;
    local->notices.ready = notices_ready;
    local->notices.fd = -1;
    local->lock = new_lock();
    local->buffer = malloc(BUFFER_SIZE);
    if (local->lock == NULL || local->buffer == NULL) {
        goto fail;
    }
    /* Listening comes first: what changes between the dump and the first notice would be missed else. */
    err = open_notices();
    if (err < 0) {
        goto fail;
    }
    local->notices.fd = err;
    err = refresh(local);
    if (err == 0) {
        err = loop_add(loop, &local->notices, EPOLLIN);
    }
    if (err == 0) {
        *out = local;
        return 0;
    }
    /* Not registered, so that local_addrs_free() would not close it. */
    close(local->notices.fd);
    local->notices.fd = -1;
fail:
    local_addrs_free(local);
    return err;
}

void local_addrs_free(struct local_addrs *local)
{
    int fd;

    if (local == NULL) {
        return;
    }
    loop_timer_cancel(local->loop, &local->retry);
    fd = local->notices.fd;
    loop_remove(local->loop, &local->notices);
    if (fd >= 0) {
        close(fd);
    }
    if (local->lock != NULL) {
        pthread_rwlock_destroy(local->lock);
    }
    free(local->lock);
    free(local->table.items);
    free(local->buffer);
    free(local);
}

bool local_addrs_has(const struct local_addrs *local, const struct socks6_addr *addr)
{
    struct ip ip;
    bool found;

    if (!ip_from_addr(addr, &ip)) {
        return false;
    }
    pthread_rwlock_rdlock(local->lock);
    found = local->table.count > 0 && bsearch(&ip, local->table.items, local->table.count, sizeof ip, compare) != NULL;
    pthread_rwlock_unlock(local->lock);
    return found;
}
