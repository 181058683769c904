/*
 * The least that a proxy that terminates TLS can be: what socks6d's bulk over TLS costs is measured against it.
 *
 *   tls_pump CERTIFICATE LISTEN_ADDRESS UP_PORT DOWN_PORT TO_ADDRESS TO_UP_PORT TO_DOWN_PORT
 *
 * CERTIFICATE has certificate and key in PEM form. Two processes, a pump for each direction: what comes on UP_PORT is read by
 * SSL_read() and sent on to TO_UP_PORT; on DOWN_PORT what comes from TO_DOWN_PORT is sent by SSL_write(). A thread for each
 * connection, sockets that block, OpenSSL's defaults, nothing is waited for but by reading and writing. The other direction
 * is not served, and there are no time limits: for benchmarks alone.
 */
#include "common.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD_LEN 16384 /* the most that a record holds */

static SSL_CTX *context;
static struct sockaddr_in to;
static bool is_up;

static bool send_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t put = send(fd, data, len, MSG_NOSIGNAL);
        if (put < 0) {
            return false;
        }
        data += put;
        len -= (size_t)put;
    }
    return true;
}

static void pump_up(SSL *ssl, int server, uint8_t *buffer)
{
    int got;
    while ((got = SSL_read(ssl, buffer, RECORD_LEN)) > 0 && send_all(server, buffer, (size_t)got)) {
    }
}

static void pump_down(SSL *ssl, int server, uint8_t *buffer)
{
    ssize_t got;
    while ((got = recv(server, buffer, RECORD_LEN, 0)) > 0 && SSL_write(ssl, buffer, (int)got) > 0) {
    }
}

static void *serve(void *argument)
{
    int client = (int)(intptr_t)argument;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint8_t *buffer = need_memory(1, RECORD_LEN);
    SSL *ssl = SSL_new(context);
    if (server < 0 || ssl == NULL || SSL_set_fd(ssl, client) != 1) {
        die("socket");
    }
    if (SSL_accept(ssl) == 1 && connect(server, (const struct sockaddr *)&to, sizeof to) == 0) {
        set_nodelay(server);
        if (is_up) {
            pump_up(ssl, server, buffer);
        } else {
            pump_down(ssl, server, buffer);
        }
    }
    SSL_free(ssl);
    free(buffer);
    (void)close(server);
    (void)close(client);
    return NULL;
}

static _Noreturn void run(const struct sockaddr_in *own)
{
    const int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (const struct sockaddr *)own, sizeof *own) < 0 || listen(listener, 4096) < 0) {
        die("listen");
    }
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (client < 0) {
            die("accept");
        }
        set_nodelay(client);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) != 0 || pthread_detach(thread) != 0) {
            die("pthread_create");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr,
                "usage: tls_pump CERTIFICATE LISTEN_ADDRESS UP_PORT DOWN_PORT TO_ADDRESS TO_UP_PORT TO_DOWN_PORT\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    raise_fd_limit();
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[1], SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "tls_pump: %s: no certificate and key in it\n", argv[1]);
        return 1;
    }
    pid_t parent = getpid(), child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            return 1;
        }
    }
    is_up = child != 0;
    to = ipv4(need_address(argv[5]), (uint16_t)need_number(argv[is_up ? 6 : 7]));
    struct sockaddr_in own = ipv4(need_address(argv[2]), (uint16_t)need_number(argv[is_up ? 3 : 4]));
    run(&own);
}
