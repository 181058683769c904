#include "cli/run_sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUCKETS 4096u

TAILQ_HEAD(run_socket_list, run_socket);

struct run_sockets {
    struct run_socket *buckets[BUCKETS];
    struct run_socket_list dead, dead_twins; /* oldest first */
    unsigned dead_count, dead_twin_count;
};

/* The kernel counts cookies up in steps (per processor): the low bits alone would do. */
static unsigned bucket_of(uint64_t cookie)
{
    return (unsigned)((cookie ^ cookie >> 12) % BUCKETS);
}

int run_sockets_new(struct run_sockets **out)
{
    struct run_sockets *sockets = calloc(1, sizeof *sockets);

    if (sockets == NULL) {
        return -ENOMEM;
    }
    TAILQ_INIT(&sockets->dead);
    TAILQ_INIT(&sockets->dead_twins);
    *out = sockets;
    return 0;
}

static void drop_twin(struct run_sockets *sockets, struct run_socket *socket)
{
    if (socket->twin < 0) {
        return;
    }
    (void)close(socket->twin);
    socket->twin = -1;
    if (socket->is_dead) {
        TAILQ_REMOVE(&sockets->dead_twins, socket, dead_twin);
        sockets->dead_twin_count--;
    }
}

static void drop(struct run_sockets *sockets, struct run_socket *socket)
{
    struct run_socket **link = &sockets->buckets[bucket_of(socket->cookie)];

    while (*link != socket) {
        link = &(*link)->next;
    }
    *link = socket->next;
    drop_twin(sockets, socket);
    if (socket->is_dead) {
        TAILQ_REMOVE(&sockets->dead, socket, dead);
        sockets->dead_count--;
    }
    free(socket);
}

void run_sockets_free(struct run_sockets *sockets)
{
    if (sockets == NULL) {
        return;
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (sockets->buckets[i] != NULL) {
            drop(sockets, sockets->buckets[i]);
        }
    }
    free(sockets);
}

struct run_socket *run_sockets_find(const struct run_sockets *sockets, uint64_t cookie)
{
    struct run_socket *socket = sockets->buckets[bucket_of(cookie)];

    while (socket != NULL && socket->cookie != cookie) {
        socket = socket->next;
    }
    return socket;
}

struct run_socket *run_sockets_add(struct run_sockets *sockets, uint64_t cookie, int twin)
{
    struct run_socket **bucket = &sockets->buckets[bucket_of(cookie)];
    struct run_socket *old = run_sockets_find(sockets, cookie);
    struct run_socket *socket = NULL;

    if (old == NULL || old->is_dead) {
        socket = calloc(1, sizeof *socket);
    }
    if (socket == NULL) {
        return NULL;
    }
    if (old != NULL) {
        drop(sockets, old);
    }
    socket->cookie = cookie;
    socket->state = RUN_STATE_CONNECTING;
    socket->twin = twin;
    socket->real = -1;
    socket->next = *bucket;
    *bucket = socket;
    return socket;
}

/* Whether bind(2) has given it a port: nobody else could have it as long as we keep the socket. */
static bool holds_port(const struct run_socket *socket)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } addr = {.in6 = {0}};
    socklen_t len = sizeof addr;

    _Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port), "same place");
    return !socket->has_no_port && (getsockname(socket->twin, &addr.sa, &len) != 0 || addr.in.sin_port != 0);
}

static void make_room(struct run_sockets *sockets)
{
    while (sockets->dead_twin_count > RUN_SOCKETS_DEAD_TWINS_MAX) {
        drop_twin(sockets, TAILQ_FIRST(&sockets->dead_twins));
    }
    while (sockets->dead_count > RUN_SOCKETS_DEAD_MAX) {
        drop(sockets, TAILQ_FIRST(&sockets->dead)); // NOLINT(clang-analyzer-unix.Malloc): taken off the list
    }
}

void run_sockets_bury(struct run_sockets *sockets, struct run_socket *socket, enum run_state_of state, int error,
                      bool is_closed_by_program)
{
    socket->state = state;
    socket->error = error;
    socket->real = -1;
    if (socket->twin >= 0 && (is_closed_by_program || holds_port(socket))) {
        drop_twin(sockets, socket);
    }
    socket->is_dead = true;
    TAILQ_INSERT_TAIL(&sockets->dead, socket, dead);
    sockets->dead_count++;
    if (socket->twin >= 0) {
        TAILQ_INSERT_TAIL(&sockets->dead_twins, socket, dead_twin);
        sockets->dead_twin_count++;
    }
    make_room(sockets);
}

int run_sockets_take_twin(struct run_sockets *sockets, uint64_t cookie)
{
    struct run_socket *socket = run_sockets_find(sockets, cookie);
    int twin;

    if (socket == NULL || !socket->is_dead || socket->twin < 0) {
        return -1;
    }
    twin = socket->twin;
    socket->twin = -1;
    TAILQ_REMOVE(&sockets->dead_twins, socket, dead_twin);
    sockets->dead_twin_count--;
    return twin;
}

void run_sockets_status(struct run_sockets *sockets, const struct run_status *ask, struct run_state *out)
{
    struct run_socket *socket = run_sockets_find(sockets, ask->cookie);

    *out = (struct run_state){.state = RUN_STATE_UNKNOWN};
    if (socket == NULL) {
        return;
    }
    *out = (struct run_state){
        .state = socket->state, .error = socket->error, .peer = socket->peer, .local = socket->local};
    if ((ask->flags & RUN_STATUS_TAKE_ERROR) != 0) {
        socket->error = 0;
    }
    if (socket->is_dead) { /* somebody still uses it */
        TAILQ_REMOVE(&sockets->dead, socket, dead);
        TAILQ_INSERT_TAIL(&sockets->dead, socket, dead);
    }
}
