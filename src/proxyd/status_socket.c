/*
 * Taking a path over is a race between daemons that start at the same time: one could remove the socket that the other
 * has just made. So looking, removing and binding happen under a lock on the directory (flock(2)), which leaves no file
 * behind.
 */
#include "proxyd/status_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How often, and how long apart, the directory's lock is asked for. */
#define LOCK_TRIES 100
#define LOCK_PAUSE_NS 10000000L
#define BACKLOG 16
/* When no descriptor is left for a client. */
#define RETRY_MS 1000

struct client {
    struct status_socket *owner; /* NULL = this place is free */
    struct loop_io io;
    struct loop_timer timer;
    char *text;
    size_t len, sent;
};

struct status_socket {
    struct loop *loop;
    struct loop_io io;
    struct loop_timer retry;
    int fd;
    status_make *make;
    void *user;
    struct sockaddr_un name;
    dev_t device; /* of the file, to know it again */
    ino_t inode;
    struct client clients[STATUS_CLIENTS_MAX];
};

/* ---- clients ---- */

static void listen_again(struct status_socket *server)
{
    server->io.fd = server->fd;
    if (loop_add(server->loop, &server->io, EPOLLIN) != 0) {
        server->io.fd = -1;
        loop_timer_set(server->loop, &server->retry, RETRY_MS);
    }
}

static void client_free(struct client *client)
{
    loop_timer_cancel(client->owner->loop, &client->timer);
    loop_close(client->owner->loop, &client->io);
    free(client->text);
    client->text = NULL;
    client->owner = NULL;
}

static void client_end(struct client *client)
{
    struct status_socket *owner = client->owner;

    client_free(client);
    if (owner->io.fd < 0 && !loop_timer_is_armed(&owner->retry)) {
        listen_again(owner);
    }
}

static void on_client(struct loop_io *io, uint32_t events)
{
    struct client *client = LOOP_OWNER(io, struct client, io);

    (void)events; /* an error shows when sending */
    while (client->sent < client->len) {
        ssize_t n = send(io->fd, client->text + client->sent, client->len - client->sent, MSG_NOSIGNAL);

        if (n >= 0) {
            client->sent += (size_t)n;
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            break; /* gone */
        }
    }
    client_end(client);
}

static void on_client_timer(struct loop_timer *timer)
{
    client_end(LOOP_OWNER(timer, struct client, timer));
}

static struct client *free_place(struct status_socket *server)
{
    for (int i = 0; i < STATUS_CLIENTS_MAX; i++) {
        if (server->clients[i].owner == NULL) {
            return &server->clients[i];
        }
    }
    return NULL;
}

/* Takes `fd`. */
static void client_start(struct status_socket *server, struct client *client, int fd)
{
    size_t len = 0;
    char *text = server->make(server->user, &len);

    *client = (struct client){
        .owner = server,
        .io = {.ready = on_client, .fd = fd},
        .timer = {.expired = on_client_timer},
        .text = text,
        .len = len,
    };
    if (text == NULL || loop_add(server->loop, &client->io, EPOLLOUT) != 0) {
        client->owner = NULL;
        free(text);
        close(fd);
        return;
    }
    loop_timer_set(server->loop, &client->timer, STATUS_CLIENT_MS);
}

/* ---- accepting ---- */

/* Those who come meanwhile wait in the backlog. */
static void pause_accepting(struct status_socket *server)
{
    loop_remove(server->loop, &server->io);
}

static void on_ready(struct loop_io *io, uint32_t events)
{
    struct status_socket *server = LOOP_OWNER(io, struct status_socket, io);
    struct client *client = free_place(server);

    (void)events; /* level-triggered: what is left wakes us again */
    if (client == NULL) {
        pause_accepting(server);
        return;
    }
    int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        client_start(server, client, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        pause_accepting(server); /* no descriptor: it would wake us for ever */
        loop_timer_set(server->loop, &server->retry, RETRY_MS);
    }
}

static void on_retry(struct loop_timer *timer)
{
    listen_again(LOOP_OWNER(timer, struct status_socket, retry));
}

/* ---- the file ---- */

/* A descriptor of the directory, locked; or -errno. */
static int lock_directory(const char *path)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
    char dir[sizeof((struct sockaddr_un *)NULL)->sun_path];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);
    int fd, err;

    memcpy(dir, path, len);
    dir[len] = '\0';
    fd = open(slash == NULL ? "." : len == 0 ? "/" : dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return fd;
        }
        if (errno != EWOULDBLOCK) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    err = -errno;
    close(fd);
    return err;
}

/* Whether a process listens there. */
static bool is_alive(const struct sockaddr_un *name)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused;

    if (fd < 0) {
        return true; /* not known: leave it alone */
    }
    refused = connect(fd, (const struct sockaddr *)name, sizeof *name) != 0 && errno == ECONNREFUSED;
    close(fd);
    return !refused;
}

/* Makes the path free, unless somebody uses it. 0 or -errno. */
static int clear_path(const struct sockaddr_un *name)
{
    struct stat status;

    if (lstat(name->sun_path, &status) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(status.st_mode) || is_alive(name)) {
        return -EADDRINUSE;
    }
    return unlink(name->sun_path) == 0 ? 0 : -errno;
}

static int bind_and_listen(struct status_socket *server)
{
    struct stat status;

    /* The mode that the file gets: set before it is there, so that it is never another one. */
    if (fchmod(server->fd, 0600) != 0 ||
        bind(server->fd, (const struct sockaddr *)&server->name, sizeof server->name) != 0 ||
        listen(server->fd, BACKLOG) != 0 || lstat(server->name.sun_path, &status) != 0) {
        return -errno;
    }
    server->device = status.st_dev;
    server->inode = status.st_ino;
    return 0;
}

static int take_path(struct status_socket *server)
{
    int lock = lock_directory(server->name.sun_path), err;

    if (lock < 0) {
        return lock;
    }
    err = clear_path(&server->name);
    if (err == 0) {
        err = bind_and_listen(server);
    }
    close(lock);
    return err;
}

int status_socket_open(struct loop *loop, const char *path, status_make *make, void *user, struct status_socket **out)
{
    struct status_socket *server = calloc(1, sizeof *server);
    int err;

    if (server == NULL) {
        return -ENOMEM;
    }
    server->loop = loop;
    server->make = make;
    server->user = user;
    server->retry.expired = on_retry;
    server->io = (struct loop_io){.ready = on_ready, .fd = -1};
    server->name.sun_family = AF_UNIX;
    server->fd = -1;
    if (strlen(path) >= sizeof server->name.sun_path) {
        free(server);
        return -ENAMETOOLONG;
    }
    memcpy(server->name.sun_path, path, strlen(path) + 1);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    err = server->fd < 0 ? -errno : take_path(server);
    if (err == 0) {
        server->io.fd = server->fd;
        err = loop_add(loop, &server->io, EPOLLIN);
        if (err != 0) {
            server->io.fd = -1;
        }
    }
    if (err != 0) {
        status_socket_close(server);
        return err;
    }
    *out = server;
    return 0;
}

bool status_socket_is_reachable(const struct status_socket *socket)
{
    struct stat status;

    return socket->inode != 0 && lstat(socket->name.sun_path, &status) == 0 && status.st_dev == socket->device &&
           status.st_ino == socket->inode;
}

void status_socket_close(struct status_socket *socket)
{
    if (socket == NULL) {
        return;
    }
    loop_timer_cancel(socket->loop, &socket->retry);
    loop_remove(socket->loop, &socket->io);
    for (int i = 0; i < STATUS_CLIENTS_MAX; i++) {
        if (socket->clients[i].owner != NULL) {
            client_free(&socket->clients[i]);
        }
    }
    if (status_socket_is_reachable(socket)) {
        (void)unlink(socket->name.sun_path);
    }
    if (socket->fd >= 0) {
        close(socket->fd);
    }
    free(socket);
}

const char *status_socket_path(const struct status_socket *socket)
{
    return socket->name.sun_path;
}
