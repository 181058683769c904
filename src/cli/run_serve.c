/*
 * Theory of operation. One connection, one request. It is read as it comes; nothing but a few bytes in the client's struct is kept
 * before the secret was seen, and who is silent for long, or one of too many who are, is closed. After that a client is trusted:
 * it is one of ours, or may do all that we could do for it.
 *
 * Most requests come whole before we have accepted the connection: they are answered without a look at epoll(7).
 */
#include "cli/run_serve.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/run_reply.h"
#include "cli/run_serve_internal.h"
#include "run/addr.h"

#define ACCEPTS 64   /* connections to accept before others have their turn */
#define PAUSE_MS 100 /* without descriptors */
#define RESERVE 64u  /* descriptors for requests that are answered at once; or a quarter of all */

/* What the first read takes: the longest of the usual requests, and RUN_CONNECT, behind which other bytes may come, exactly. */
#define FIRST_LEN (sizeof(struct run_request) + sizeof(struct run_connect))

struct client {
    TAILQ_ENTRY(client) entry;
    struct run_serve *serve;
    struct loop_io io;
    struct loop_timer timer;
    bool is_watched, is_asking;
    int passed; /* -1 = none */
    size_t got;
    struct run_request header;
    uint8_t first[FIRST_LEN];
    uint8_t *whole; /* NULL = it fits into `first` */
    struct run_names_ask ask;
};

/* --- clients --- */

static pid_t pid_of(const struct client *c, bool *is_ours)
{
    struct ucred cred = {0};
    socklen_t len = sizeof cred;
    bool is_known = getsockopt(c->io.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0;

    if (is_ours != NULL) {
        *is_ours = is_known && cred.uid == geteuid();
    }
    return is_known ? cred.pid : 0;
}

pid_t run_serve_asker(struct run_names_ask *ask)
{
    return ask != NULL ? pid_of(LOOP_OWNER(ask, struct client, ask), NULL) : 0;
}

/* Frees it, but for the descriptor. */
static void forget(struct client *c)
{
    struct run_serve *serve = c->serve;

    if (c->is_asking) {
        TAILQ_REMOVE(&serve->asking, c, entry);
    } else {
        TAILQ_REMOVE(&serve->silent, c, entry);
        serve->silent_count--;
    }
    loop_timer_cancel(serve->loop, &c->timer);
    if (c->passed >= 0) {
        (void)close(c->passed);
    }
    explicit_bzero(&c->header, sizeof c->header);
    explicit_bzero(c->first, sizeof c->first);
    free(c->whole);
    free(c);
}

static void drop(struct client *c)
{
    loop_close(c->serve->loop, &c->io);
    forget(c);
}

/* The end of a request. If the program does not take the reply it sees that we have closed. `pass` goes along, unless it is -1. */
static void answer_with(struct client *c, int status, const void *body, size_t len, int pass)
{
    (void)run_reply_send(c->io.fd, status, body, len, pass);
    drop(c);
}

static void answer(struct client *c, int status, const void *body, size_t len)
{
    answer_with(c, status, body, len, -1);
}

/* --- requests --- */

static void take_connect(struct client *c, const uint8_t *body)
{
    struct run_serve *serve = c->serve;
    struct run_connect request;
    struct run_connect_start start = {.fd = c->io.fd,
                                      .is_registered = c->is_watched,
                                      .pid = serve->connects.verbose ? pid_of(c, NULL) : 0,
                                      .request = &request,
                                      .passed = c->passed};

    memcpy(&request, body, sizeof request);
    c->passed = -1;
    loop_park(serve->loop, &c->io);
    forget(c);
    run_connect_take(&serve->connects, &start);
}

static void take_status(struct client *c, const uint8_t *body)
{
    struct run_status ask;
    struct run_state state;

    memcpy(&ask, body, sizeof ask);
    run_sockets_status(c->serve->connects.sockets, &ask, &state);
    if (state.state == RUN_STATE_UNKNOWN &&
        run_shortcut_find(c->serve->connects.shortcut, ask.cookie, &state.peer, &state.local)) {
        state.state = RUN_STATE_CONNECTED;
    }
    answer(c, 0, &state, sizeof state);
}

static void take_getsockopt(struct client *c, const uint8_t *body)
{
    struct run_option option;
    const struct run_socket *known;
    uint8_t *value = c->serve->option;
    uint32_t len;
    int error = ENOENT;

    memcpy(&option, body, sizeof option);
    known = run_sockets_find(c->serve->connects.sockets, option.cookie);
    len = option.len < RUN_OPTION_MAX ? option.len : RUN_OPTION_MAX;
    memset(value, 0, len);
    if (known != NULL) {
        error = run_sockopt_get(known, option.level, option.name, value, &len);
    }
    answer(c, error, value, error == 0 ? len : 0);
}

static void take_setsockopt(struct client *c, const uint8_t *body, size_t len)
{
    struct run_option option;
    const struct run_socket *known;
    bool is_ours = false;
    int error = ENOENT;

    memcpy(&option, body, sizeof option);
    known = run_sockets_find(c->serve->connects.sockets, option.cookie);
    if (option.len != len - sizeof option || option.len > RUN_OPTION_MAX) {
        drop(c);
        return;
    }
    (void)pid_of(c, &is_ours);
    if (known != NULL) {
        error = run_sockopt_set(known, option.level, option.name, body + sizeof option, option.len, is_ours);
    }
    answer(c, error, NULL, 0);
}

static void take_direct(struct client *c, const uint8_t *body)
{
    struct run_connects *connects = &c->serve->connects;
    struct run_addr addr;
    struct socks6_addr direct;

    memcpy(&addr, body, sizeof addr);
    if (run_addr_to_socks(&addr, &direct)) {
        run_direct_remember(connects->direct, &direct);
        run_shortcut_leave_out(connects->shortcut, &direct, direct.len * 8u);
    }
    answer(c, 0, NULL, 0);
}

static void take_share(struct client *c)
{
    const struct run_shortcut *shortcut = c->serve->connects.shortcut;
    bool is_ours = false;

    (void)pid_of(c, &is_ours);
    if (!is_ours || shortcut == NULL) {
        answer(c, is_ours ? ENOENT : EACCES, NULL, 0);
    } else {
        answer_with(c, 0, NULL, 0, shortcut->fd);
    }
}

static void take_note(struct client *c, const uint8_t *body, size_t len)
{
    struct run_note note;
    char text[RUN_NOTE_MAX + 1];
    pid_t pid = pid_of(c, NULL);

    memcpy(&note, body, sizeof note);
    len -= sizeof note;
    len = len < RUN_NOTE_MAX ? len : RUN_NOTE_MAX;
    memcpy(text, body + sizeof note, len);
    run_say_clean(text, len);
    if (note.what == RUN_NOTE_TRACE ? c->serve->connects.verbose
                                    : run_say_is_new(&c->serve->notes, (uint64_t)pid, text)) {
        run_say_of(pid, "%s", text);
    }
    drop(c);
}

static void on_names(struct run_names_ask *ask, int status, const void *body, size_t len)
{
    answer(LOOP_OWNER(ask, struct client, ask), status, body, len);
}

/* What programs have seen of IPv6 on their own way counts as what we have seen. */
static void take_news(struct run_connects *connects)
{
    enum run_share_ipv6 news = run_shortcut_take_ipv6(connects->shortcut);

    if (news != RUN_SHARE_IPV6_NO_NEWS) {
        run_names_connected(connects->names, AF_INET6, news == RUN_SHARE_IPV6_WORKS);
    }
}

/* Until there is an answer, the program can only go. */
static void take_names(struct client *c, enum run_kind kind, const uint8_t *body, size_t len)
{
    struct run_serve *serve = c->serve;
    int rc = c->is_watched ? loop_modify(serve->loop, &c->io, EPOLLRDHUP) : loop_add(serve->loop, &c->io, EPOLLRDHUP);

    if (rc != 0) {
        drop(c);
        return;
    }
    c->is_watched = c->is_asking = true;
    TAILQ_REMOVE(&serve->silent, c, entry);
    serve->silent_count--;
    TAILQ_INSERT_TAIL(&serve->asking, c, entry);
    loop_timer_cancel(serve->loop, &c->timer);
    take_news(&serve->connects);
    c->ask = (struct run_names_ask){.kind = kind, .body = body, .len = len, .done = on_names};
    run_names_ask(serve->connects.names, &c->ask);
}

/* What each kind needs at least. */
static size_t min_len(enum run_kind kind)
{
    switch (kind) {
    case RUN_CONNECT:
        return sizeof(struct run_connect);
    case RUN_STATUS:
        return sizeof(struct run_status);
    case RUN_GETSOCKOPT:
    case RUN_SETSOCKOPT:
        return sizeof(struct run_option);
    case RUN_RESOLVE:
        return sizeof(struct run_resolve);
    case RUN_REVERSE:
    case RUN_DIRECT:
    case RUN_UDP_DNS:
        return sizeof(struct run_addr);
    case RUN_QUERY:
        return 1;
    case RUN_NOTE:
        return sizeof(struct run_note);
    case RUN_SHARE:
    case RUN_TOKENS:
        return 0;
    }
    return SIZE_MAX;
}

static void take_request(struct client *c)
{
    const uint8_t *body = (c->whole != NULL ? c->whole : c->first) + sizeof c->header;
    enum run_kind kind = (enum run_kind)c->header.kind;
    size_t len = c->header.len - sizeof c->header;

    if (len < min_len(kind)) {
        drop(c);
        return;
    }
    switch (kind) {
    case RUN_CONNECT:
        take_connect(c, body);
        break;
    case RUN_STATUS:
        take_status(c, body);
        break;
    case RUN_GETSOCKOPT:
        take_getsockopt(c, body);
        break;
    case RUN_SETSOCKOPT:
        take_setsockopt(c, body, len);
        break;
    case RUN_RESOLVE:
    case RUN_REVERSE:
    case RUN_QUERY:
    case RUN_UDP_DNS:
        take_names(c, kind, body, len);
        break;
    case RUN_DIRECT:
        take_direct(c, body);
        break;
    case RUN_NOTE:
        take_note(c, body, len);
        break;
    case RUN_SHARE:
        take_share(c);
        break;
    case RUN_TOKENS:
        run_shortcut_refill(c->serve->connects.shortcut, c->serve->shared);
        drop(c);
        break;
    }
}

/* --- reading --- */

/* In constant time: how much of a guess was right must not be told. */
static bool is_secret(const struct run_serve *serve, const uint8_t *guess)
{
    unsigned difference = 0;

    for (size_t i = 0; i < RUN_SECRET_LEN; i++) {
        difference |= (unsigned)(serve->secret[i] ^ guess[i]);
    }
    return difference == 0;
}

/* Looks at the header once it is there. False: this is none of ours. */
static bool take_header(struct client *c)
{
    struct run_request *header = &c->header;

    memcpy(header, c->first, sizeof *header);
    if (!is_secret(c->serve, header->secret) || header->version != RUN_VERSION || header->len < sizeof *header ||
        header->len > RUN_MESSAGE_MAX || (header->kind == RUN_CONNECT && header->len != FIRST_LEN)) {
        return false;
    }
    if (header->len > sizeof c->first) {
        c->whole = malloc(header->len);
        if (c->whole == NULL) {
            return false;
        }
        memcpy(c->whole, c->first, c->got);
    }
    return true;
}

union control { /* room for one descriptor, aligned */
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* As recv(2), with the descriptor that came along. */
static ssize_t receive(struct client *c, void *buf, size_t size)
{
    union control control;
    struct iovec iov = {buf, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(c->io.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        if (c->passed >= 0) {
            (void)close(c->passed); /* none of ours sends two */
        }
        memcpy(&c->passed, CMSG_DATA(header), sizeof c->passed);
    }
    return n;
}

enum reading { READING_MORE, READING_WHOLE, READING_FAILED };

static enum reading read_once(struct client *c)
{
    bool had_header = c->got >= sizeof c->header;
    uint8_t *at = (c->whole != NULL ? c->whole : c->first) + c->got;
    size_t size = (c->whole != NULL ? c->header.len : sizeof c->first) - c->got;
    ssize_t n = receive(c, at, size);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return READING_MORE;
    }
    if (n <= 0) {
        return READING_FAILED;
    }
    c->got += (size_t)n;
    if (!had_header && c->got >= sizeof c->header && !take_header(c)) {
        return READING_FAILED;
    }
    if (c->got < sizeof c->header) {
        return READING_MORE;
    }
    return c->got >= c->header.len ? READING_WHOLE : READING_MORE;
}

/* Reads what there is. True: more is to come, and the client is still there. */
static bool go_on(struct client *c)
{
    size_t before;
    enum reading reading;

    do {
        before = c->got;
        reading = read_once(c);
    } while (reading == READING_MORE && c->got > before && c->whole != NULL);
    if (reading == READING_WHOLE) {
        take_request(c);
    } else if (reading == READING_FAILED) {
        drop(c);
    }
    return reading == READING_MORE;
}

static void on_client(struct loop_io *io, uint32_t events)
{
    struct client *c = LOOP_OWNER(io, struct client, io);

    (void)events;
    if (c->is_asking) {
        run_names_cancel(c->serve->connects.names, &c->ask);
        drop(c);
        return;
    }
    (void)go_on(c);
}

static void on_silent(struct loop_timer *timer)
{
    drop(LOOP_OWNER(timer, struct client, timer));
}

static void welcome(struct run_serve *serve, int fd)
{
    struct client *c = calloc(1, sizeof *c);

    if (c == NULL) {
        (void)close(fd);
        return;
    }
    c->serve = serve;
    c->io = (struct loop_io){on_client, fd};
    c->timer.expired = on_silent;
    c->passed = -1;
    TAILQ_INSERT_TAIL(&serve->silent, c, entry);
    serve->silent_count++;
    if (!go_on(c)) {
        return;
    }
    if (loop_add(serve->loop, &c->io, EPOLLIN) != 0) {
        drop(c);
        return;
    }
    c->is_watched = true;
    loop_timer_set(serve->loop, &c->timer, RUN_SERVE_SILENT_MS);
    if (serve->silent_count > RUN_SERVE_SILENT_MAX) {
        drop(TAILQ_FIRST(&serve->silent));
    }
}

static void on_pause_over(struct loop_timer *timer)
{
    struct run_serve *serve = LOOP_OWNER(timer, struct run_serve, pause);

    if (loop_modify(serve->loop, &serve->listener, EPOLLIN) != 0) {
        loop_timer_set(serve->loop, &serve->pause, PAUSE_MS);
    }
}

static void on_listener(struct loop_io *io, uint32_t events)
{
    struct run_serve *serve = LOOP_OWNER(io, struct run_serve, listener);

    (void)events;
    for (int i = 0; i < ACCEPTS; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            welcome(serve, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            if (loop_modify(serve->loop, io, 0) == 0) { /* programs wait, until others have closed something */
                loop_timer_set(serve->loop, &serve->pause, PAUSE_MS);
            }
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

/* --- life --- */

int run_serve_new(const struct run_serve_config *config, struct run_serve **out)
{
    struct run_serve *serve = calloc(1, sizeof *serve);
    int rc;

    if (serve == NULL) {
        return -ENOMEM;
    }
    TAILQ_INIT(&serve->silent);
    TAILQ_INIT(&serve->asking);
    serve->listener = (struct loop_io){on_listener, -1};
    serve->pause.expired = on_pause_over;
    rc = run_serve_open(serve, config);
    if (rc != 0) {
        run_serve_free(serve);
        return rc;
    }
    *out = serve;
    return 0;
}

void run_serve_free(struct run_serve *serve)
{
    if (serve == NULL) {
        return;
    }
    if (serve->loop != NULL) {
        loop_timer_cancel(serve->loop, &serve->pause);
        loop_close(serve->loop, &serve->listener);
    }
    while (!TAILQ_EMPTY(&serve->silent)) {
        drop(TAILQ_FIRST(&serve->silent)); // NOLINT(clang-analyzer-unix.Malloc): taken off the list
    }
    run_names_free(serve->connects.names); /* answers those who ask */
    while (!TAILQ_EMPTY(&serve->asking)) {
        drop(TAILQ_FIRST(&serve->asking)); // NOLINT(clang-analyzer-unix.Malloc): taken off the list
    }
    run_connects_done(&serve->connects);
    run_tunnels_done(&serve->tunnels);
    if (serve->shared != NULL) {
        run_shortcut_end(serve->connects.shortcut, serve->shared); /* programs may live longer than we */
    }
    run_sockets_free(serve->connects.sockets);
    run_direct_free(serve->connects.direct);
    dns_link_free(serve->link);
    reach_shared_free(serve->shared);
    loop_free(serve->loop);
    explicit_bzero(serve, sizeof *serve);
    free(serve);
}

struct loop *run_serve_loop(const struct run_serve *serve)
{
    return serve->loop;
}

void run_serve_set_limit(struct run_serve *serve, unsigned long limit)
{
    unsigned long reserve = limit / 4 < RESERVE ? limit / 4 : RESERVE;

    serve->connects.fd_max = limit - reserve < INT_MAX ? (int)(limit - reserve) : INT_MAX;
}

bool run_serve_is_busy(const struct run_serve *serve)
{
    return !LIST_EMPTY(&serve->connects.list) || !LIST_EMPTY(&serve->tunnels.list);
}

const char *run_serve_variable(const struct run_serve *serve)
{
    return serve->variable;
}
