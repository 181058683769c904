/* Data, in all the ways it can be sent and taken, and the ends of a connection. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#define BULK_LEN (1u << 20)

static void say_bytes(const char *what, ssize_t got, const char *bytes)
{
    if (got < 0) {
        (void)told(what, got);
    } else {
        say("%s = %zd '%.*s'", what, got, (int)got, bytes);
    }
}

/* Until `len` bytes are there to be read. */
static void wait_for(int fd, size_t len)
{
    char bytes[256];
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < WAIT_MS; i++) {
        (void)poll(&poll_fd, 1, WAIT_MS);
        if (recv(fd, bytes, len, MSG_PEEK | MSG_DONTWAIT) >= (ssize_t)len) {
            return;
        }
        sleep_ms(1);
    }
    broken("nothing came");
}

static void ways_to_read(int fd)
{
    char bytes[64] = "";
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    (void)told("send", send(fd, "abcdefghijklmnopqrstuvwxyz", 26, 0));
    wait_for(fd, 26);
    say_bytes("MSG_PEEK", recv(fd, bytes, 3, MSG_PEEK), bytes);
    say_bytes("recv", recv(fd, bytes, 2, 0), bytes);
    say_bytes("read", read(fd, bytes, 2), bytes);
    addr.ss_family = 99;
    say_bytes("recvfrom", recvfrom(fd, bytes, 2, 0, (struct sockaddr *)&addr, &len), bytes);
    say("  length %u, family %d", len, addr.ss_family);
    char second[4] = "";
    struct iovec parts[2] = {{bytes, 2}, {second, 2}};
    say_bytes("readv", readv(fd, parts, 2), bytes);
    say("  '%.2s'", second);
    struct msghdr message = {.msg_name = &addr, .msg_namelen = sizeof addr, .msg_iov = parts, .msg_iovlen = 2};
    say_bytes("recvmsg", recvmsg(fd, &message, 0), bytes);
    say("  name of %u bytes, flags %x, control of %zu bytes", message.msg_namelen, (unsigned)message.msg_flags,
        message.msg_controllen);
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};
    (void)told("recvmmsg", recvmmsg(fd, messages, 2, 0, NULL));
    say("  %u %u", messages[0].msg_len, messages[1].msg_len);
    (void)told("MSG_TRUNC", recv(fd, bytes, 2, MSG_TRUNC));
    say_bytes("MSG_WAITALL", recv(fd, bytes, 6, MSG_WAITALL), bytes);
    (void)told("MSG_DONTWAIT", recv(fd, bytes, 2, MSG_DONTWAIT));
    (void)told("MSG_PEEK|MSG_DONTWAIT", recv(fd, bytes, 2, MSG_PEEK | MSG_DONTWAIT));
    (void)told("MSG_ERRQUEUE", recv(fd, bytes, 2, MSG_ERRQUEUE));
    (void)told("read into nowhere", read(fd, NULL, 0));
}

static void ways_to_send(int fd)
{
    char bytes[64];
    struct target target = target_of(OTHER4, PORT_MUTE);
    (void)told("sendto an address", sendto(fd, "12", 2, 0, target_addr(&target), target.len));
    struct iovec parts[2] = {{"34", 2}, {"56", 2}};
    (void)told("writev", writev(fd, parts, 2));
    struct msghdr message = {.msg_name = &target.addr, .msg_namelen = target.len, .msg_iov = parts, .msg_iovlen = 1};
    (void)told("sendmsg with an address", sendmsg(fd, &message, 0));
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};
    (void)told("sendmmsg", sendmmsg(fd, messages, 2, 0));
    (void)told("MSG_MORE", send(fd, "78", 2, MSG_MORE));
    (void)told("send of nothing", send(fd, "", 0, 0));
    (void)told("MSG_DONTWAIT", send(fd, "90", 2, MSG_DONTWAIT));
    say_bytes("all of it", recv(fd, bytes, 16, MSG_WAITALL), bytes);
}

static void files(int fd)
{
    char bytes[64];
    int file = memfd_create("file", MFD_CLOEXEC);
    int ends[2];
    if (file < 0 || write(file, "from a file", 11) != 11 || pipe(ends) != 0) {
        broken("a file and a pipe");
    }
    off_t at = 5;
    (void)told("sendfile", sendfile(fd, file, &at, 6));
    say("  at %ld", (long)at);
    say_bytes("recv", recv(fd, bytes, 6, MSG_WAITALL), bytes);
    (void)told("write to a pipe", write(ends[1], "through a pipe", 14));
    (void)told("splice to the socket", splice(ends[0], NULL, fd, NULL, 14, 0));
    wait_for(fd, 14);
    (void)told("splice from the socket", splice(fd, NULL, ends[1], NULL, 14, 0));
    say_bytes("read from the pipe", read(ends[0], bytes, 14), bytes);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)told("splice of nothing", splice(fd, NULL, ends[1], NULL, 14, SPLICE_F_NONBLOCK));
    (void)fcntl(fd, F_SETFL, 0);
    FILE *stream = fdopen(dup(fd), "r+");
    if (stream == NULL) {
        broken("fdopen");
    }
    (void)fprintf(stream, "a line of stdio\n");
    (void)fflush(stream);
    say("stdio: %s", fgets(bytes, sizeof bytes, stream) == NULL ? "nothing\n" : bytes);
    (void)fclose(stream);
    (void)close(file);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* A megabyte there and back on a descriptor that does not block. */
static void bulk(int fd)
{
    uint8_t *out = malloc(BULK_LEN), *in = malloc(BULK_LEN);
    size_t sent = 0, got = 0;
    if (out == NULL || in == NULL) {
        broken("malloc");
    }
    for (size_t i = 0; i < BULK_LEN; i++) {
        out[i] = (uint8_t)(i * 31 + i / 251);
    }
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    while (got < BULK_LEN) {
        struct pollfd poll_fd = {.fd = fd, .events = (short)(POLLIN | (sent < BULK_LEN ? POLLOUT : 0))};
        if (poll(&poll_fd, 1, WAIT_MS) <= 0) {
            break;
        }
        ssize_t len = 0;
        if ((poll_fd.revents & POLLOUT) != 0 && (len = write(fd, out + sent, BULK_LEN - sent)) > 0) {
            sent += (size_t)len;
        }
        if ((poll_fd.revents & POLLIN) != 0 && (len = read(fd, in + got, BULK_LEN - got)) > 0) {
            got += (size_t)len;
        } else if (len == 0 || (len < 0 && errno != EAGAIN)) {
            break;
        }
    }
    say("bulk: %zu of %u bytes, %s", got, BULK_LEN, memcmp(in, out, BULK_LEN) == 0 ? "the same" : "others");
    free(out);
    free(in);
}

void section_stream(void)
{
    int fd = connected_to(SERVER4, PORT_ECHO);
    ways_to_read(fd);
    ways_to_send(fd);
    files(fd);
    bulk(fd);
    (void)close(fd);
    fd = connected_to(SERVER6, PORT_ECHO);
    ways_to_read(fd);
    bulk(fd);
    (void)close(fd);
}

/* ---- ends ---- */

static volatile sig_atomic_t pipes;

static void count_pipe(int number)
{
    (void)number;
    pipes = pipes + 1;
}

static void say_state(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};
    int count = poll(&poll_fd, 1, 0);
    say("  poll = %d %s", count, events_text((unsigned short)poll_fd.revents));
}

static void not_connected(void)
{
    char byte = 'x';
    int fd = new_socket(AF_INET, 0);
    say_state(fd);
    (void)told("not connected: read", read(fd, &byte, 1));
    (void)told("not connected: recv", recv(fd, &byte, 1, 0));
    (void)told("not connected: write", write(fd, &byte, 1));
    (void)told("not connected: send", send(fd, &byte, 1, MSG_NOSIGNAL));
    (void)told("not connected: shutdown", shutdown(fd, SHUT_WR));
    say_error(fd);
    (void)close(fd);
}

static void our_end_first(void)
{
    char bytes[16];
    int fd = connected_to(SERVER4, PORT_ECHO);
    pipes = 0;
    (void)told("write", write(fd, "last", 4));
    (void)told("shutdown, wrong", shutdown(fd, 17));
    (void)told("shutdown", shutdown(fd, SHUT_WR));
    (void)told("write after it", write(fd, "x", 1));
    say("  %d SIGPIPE", (int)pipes);
    (void)told("send after it", send(fd, "x", 1, MSG_NOSIGNAL));
    say("  %d SIGPIPE", (int)pipes);
    say_bytes("recv", recv(fd, bytes, 4, MSG_WAITALL), bytes);
    (void)told("the end", recv(fd, bytes, 4, 0));
    (void)told("the end again", recv(fd, bytes, 4, 0));
    say_state(fd);
    say_error(fd);
    say_names(fd);
    (void)told("shutdown again", shutdown(fd, SHUT_WR));
    (void)close(fd);
}

static void their_end_first(void)
{
    char bytes[16];
    int fd = connected_to(SERVER4, PORT_ENDS_FIRST);
    (void)told("their end", recv(fd, bytes, 4, 0));
    say_state(fd);
    (void)told("write", write(fd, "after ", 6));
    (void)told("write", write(fd, "the end", 7));
    say_names(fd);
    say_error(fd);
    (void)told("shutdown", shutdown(fd, SHUT_WR));
    (void)told("their end", recv(fd, bytes, 4, 0));
    (void)close(fd);
    fd = connected_to(SERVER4, PORT_ECHO);
    (void)told("shutdown for reading", shutdown(fd, SHUT_RD));
    (void)told("read", read(fd, bytes, 4));
    (void)told("write", write(fd, "x", 1));
    (void)close(fd);
    fd = connected_to(SERVER4, PORT_ECHO);
    (void)told("shutdown both ways", shutdown(fd, SHUT_RDWR));
    (void)told("read", read(fd, bytes, 4));
    (void)told("write", write(fd, "x", 1));
    say_error(fd);
    (void)close(fd);
}

/* "hello", then a reset when a byte has come. */
static void reset_by_peer(bool is_waited_for)
{
    char bytes[16];
    int fd = connected_to(SERVER4, PORT_RESETS);
    say_bytes("recv", recv(fd, bytes, 5, MSG_WAITALL), bytes);
    (void)told("write", write(fd, "x", 1));
    if (is_waited_for) {
        struct pollfd poll_fd = {.fd = fd, .events = 0};
        int count = poll(&poll_fd, 1, WAIT_MS);
        say("poll = %d %s", count, events_text((unsigned short)poll_fd.revents));
        say_error(fd);
        say_error(fd);
        (void)told("after that: recv", recv(fd, bytes, 4, 0));
    } else {
        (void)told("recv", recv(fd, bytes, 4, 0));
        (void)told("recv again", recv(fd, bytes, 4, 0));
        say_error(fd);
    }
    pipes = 0;
    (void)told("write", write(fd, "x", 1));
    say("  %d SIGPIPE", (int)pipes);
    say_names(fd);
    (void)told("shutdown", shutdown(fd, SHUT_WR));
    (void)close(fd);
}

/* The peer has closed: the first bytes are answered with a reset, which the next ones meet. */
static void closed_by_peer(void)
{
    char bytes[16];
    int fd = connected_to(SERVER4, PORT_CLOSES);
    say_bytes("recv", recv(fd, bytes, 3, MSG_WAITALL), bytes);
    (void)told("write", write(fd, "x", 1));
    (void)told("its end", recv(fd, bytes, 4, 0));
    pipes = 0;
    ssize_t sent = 1;
    for (int i = 0; sent > 0 && i < WAIT_MS; i++) {
        sent = write(fd, "y", 1);
        sleep_ms(1);
    }
    (void)told("write in the end", sent);
    say("  %d SIGPIPE", (int)pipes);
    (void)told("recv", recv(fd, bytes, 4, 0));
    say_error(fd);
    (void)close(fd);
}

static void full(void)
{
    static char chunk[65536];
    struct timeval limit = {0, 200000};
    int fd = connected_to(SERVER4, PORT_MUTE);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    ssize_t sent = 1;
    for (int i = 0; sent > 0 && i < 10000; i++) {
        sent = write(fd, chunk, sizeof chunk);
    }
    (void)told("SO_SNDTIMEO: write", sent);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)told("full: write", write(fd, chunk, sizeof chunk));
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    say("full: poll = %d", poll(&poll_fd, 1, 50));
    (void)close(fd);
}

void section_ends(void)
{
    (void)signal(SIGPIPE, count_pipe);
    not_connected();
    our_end_first();
    their_end_first();
    reset_by_peer(false);
    reset_by_peer(true);
    closed_by_peer();
    full();
}
