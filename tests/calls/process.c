/* Descriptors that are copied, closed behind one's back, inherited and passed on; programs that are started; threads. */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static long connect_to(int fd, const char *host, uint16_t port)
{
    struct target target = target_of(host, port);
    return connect(fd, target_addr(&target), target.len);
}

static void copies(void)
{
    int first = new_socket(AF_INET, 0);
    int second = dup(first);
    (void)told("connect", connect_to(first, SERVER4, PORT_ECHO));
    say_names(second);
    say_echo("a dup made before", second);
    int third = dup(first);
    (void)told("close", close(first));
    say_names(third);
    say_echo("a dup made after", third);
    int fourth = fcntl(third, F_DUPFD_CLOEXEC, 100);
    say_echo("F_DUPFD_CLOEXEC", fourth);
    int fifth = new_socket(AF_INET, 0);
    (void)told("dup2 over a new socket", dup2(fourth, fifth) == fifth ? 0 : -1);
    say_echo("dup2", fifth);
    (void)told("dup3 onto itself", dup3(fifth, fifth, 0));
    (void)told("shutdown of one", shutdown(fifth, SHUT_WR));
    char byte;
    (void)told("their end at another", read(second, &byte, 1));
    (void)close(second);
    (void)close(third);
    (void)close(fourth);
    (void)close(fifth);
}

static void non_blocking_copies(void)
{
    int first = new_socket(AF_INET, SOCK_NONBLOCK);
    int second = dup(first);
    (void)told("connect", connect_to(first, SERVER4, PORT_ECHO));
    struct pollfd poll_fd = {.fd = second, .events = POLLOUT};
    say("poll of a dup made before = %d", poll(&poll_fd, 1, WAIT_MS));
    say("  %s", events_text((unsigned short)poll_fd.revents));
    say_error(second);
    (void)fcntl(second, F_SETFL, 0);
    say("  the other is %s", (fcntl(first, F_GETFL) & O_NONBLOCK) != 0 ? "non-blocking" : "blocking");
    say_echo("echo", second);
    (void)close(first);
    (void)close(second);
}

/* Closed by calls that nobody replaces: what comes next under the number is something else. */
static void behind_ones_back(void)
{
    int fd = connected_to(SERVER4, PORT_ECHO);
    (void)told("close_range", close_range((unsigned)fd, (unsigned)fd, 0));
    (void)told("getpeername", getpeername(fd, (struct sockaddr *)&(struct sockaddr_storage){0}, &(socklen_t){128}));
    int again = new_socket(AF_INET, 0);
    say("the same number: %s", again == fd ? "yes" : "no");
    say_names(again);
    (void)told("connect elsewhere", connect_to(again, OTHER4, PORT_ECHO));
    say_names(again);
    (void)syscall(SYS_close, again);
    int ends[2];
    if (pipe(ends) != 0) {
        broken("pipe");
    }
    say("the same number: %s", ends[0] == fd ? "yes" : "no");
    say_names(ends[0]);
    say_error(ends[0]);
    (void)close(ends[0]);
    (void)close(ends[1]);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        broken("socketpair");
    }
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    (void)told("getpeername of a pair", getpeername(ends[0], (struct sockaddr *)&addr, &len));
    say("  family %d, length %u", addr.ss_family, len);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

void section_descriptors(void)
{
    copies();
    non_blocking_copies();
    behind_ones_back();
}

/* ---- processes ---- */

static void wait_for(const char *what, pid_t pid)
{
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        (void)told(what, -1);
        return;
    }
    say("%s: %s %d", what, WIFEXITED(status) ? "status" : "signal",
        WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void forked(void)
{
    int fd = connected_to(SERVER4, PORT_ECHO);
    pid_t pid = fork();
    if (pid == 0) {
        say_inherited(fd);
        int own = connected_to(SERVER6, PORT_ECHO);
        say_echo("  its own", own);
        _exit(3);
    }
    wait_for("fork", pid);
    say_echo("the parent's", fd);
    (void)close(fd);
    /* Begun by the parent, waited for by the child. */
    fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)told("connect", connect_to(fd, SERVER4, PORT_ECHO));
    pid = fork();
    if (pid == 0) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        (void)poll(&poll_fd, 1, WAIT_MS);
        (void)fcntl(fd, F_SETFL, 0);
        say_inherited(fd);
        _exit(0);
    }
    wait_for("fork while it connects", pid);
    (void)close(fd);
    /* Connected by the child: one socket, two processes. */
    fd = new_socket(AF_INET, 0);
    pid = fork();
    if (pid == 0) {
        _exit(connect_to(fd, SERVER4, PORT_ECHO) == 0 ? 0 : 1);
    }
    wait_for("connected by the child", pid);
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    (void)told("connected by the child: getpeername", getpeername(fd, (struct sockaddr *)&peer, &len));
    (void)close(fd);
}

static char self[256];

static void inherited_by_exec(void)
{
    char number[16];
    int fd = connected_to(SERVER4, PORT_ECHO);
    (void)fcntl(fd, F_SETFD, 0);
    (void)snprintf(number, sizeof number, "%d", fd);
    char *arguments[] = {self, "inherited", number, NULL};
    char *nothing[] = {NULL};
    pid_t pid = fork();
    if (pid == 0) {
        (void)execv(self, arguments);
        _exit(127);
    }
    wait_for("fork and execv", pid);
    pid = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork): it is what is tried
    if (pid == 0) {
        (void)execve(self, arguments, nothing);
        _exit(127);
    }
    wait_for("vfork and execve without environment", pid);
    int error = posix_spawn(&pid, self, NULL, NULL, arguments, environ);
    wait_for("posix_spawn", pid);
    say("  returned %d", error);
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, fd, 0);
    char *from_input[] = {self, "inherited", "0", NULL};
    error = posix_spawnp(&pid, self, &actions, NULL, from_input, nothing);
    wait_for("posix_spawnp without environment", pid);
    say("  returned %d", error);
    (void)posix_spawn_file_actions_destroy(&actions);
    int file = open(self, O_RDONLY | O_CLOEXEC);
    pid = fork();
    if (pid == 0) {
        (void)fexecve(file, arguments, nothing);
        _exit(127);
    }
    wait_for("fexecve without environment", pid);
    pid = fork();
    if (pid == 0) {
        (void)execl(self, self, "inherited", number, (char *)NULL);
        _exit(127);
    }
    wait_for("execl", pid);
    pid = fork();
    if (pid == 0) {
        (void)execle(self, self, "inherited", number, (char *)NULL, nothing);
        _exit(127);
    }
    wait_for("execle without environment", pid);
    (void)close(file);
    (void)close(fd);
}

static void started(void)
{
    char *nothing[] = {NULL};
    char *nowhere[] = {"/nonexistent/program", NULL};
    char *reaches[] = {self, "reaches", SERVER4, NULL};
    char *searched[] = {"run-calls-nonexistent", NULL};
    pid_t pid = fork();
    if (pid == 0) {
        (void)execve(self, reaches, nothing);
        _exit(127);
    }
    wait_for("a program without environment", pid);
    pid = -1;
    say("posix_spawn of nothing = %s", error_text(posix_spawn(&pid, nowhere[0], NULL, NULL, nowhere, nothing)));
    say("posix_spawnp of nothing = %s", error_text(posix_spawnp(&pid, searched[0], NULL, NULL, searched, nothing)));
    (void)told("execve of nothing", execve(nowhere[0], nowhere, nothing));
    (void)told("execvp of nothing", execvp(searched[0], searched));
    (void)told("execve of a folder", execve("/", nowhere, nothing));
    (void)told("execv of no program", execv("/etc/passwd", nowhere));
    char command[512];
    (void)snprintf(command, sizeof command, "exec '%s' reaches %s", self, SERVER6);
    int status = system(command); // NOLINT(cert-env33-c,concurrency-mt-unsafe): it is what is tried
    say("system: status %d", status);
    FILE *output = popen(command, "r"); // NOLINT(cert-env33-c)
    char line[64] = "";
    (void)!fgets(line, sizeof line, output);
    (void)told("popen", pclose(output));
    say("%s", line);
}

static void send_fd(int channel, int fd)
{
    char byte = 'f';
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr head;
    } control;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memset(&control, 0, sizeof control);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(channel, &message, 0) != 1) {
        broken("sendmsg with a descriptor");
    }
}

static int receive_fd(int channel)
{
    char byte;
    int fd = -1;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr head;
    } control;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != NULL) {
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    }
    return fd;
}

static void passed_on(void)
{
    int channel[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) != 0) {
        broken("socketpair");
    }
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 2; i++) {
            int fd = receive_fd(channel[1]);
            struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
            (void)poll(&poll_fd, 1, WAIT_MS);
            (void)fcntl(fd, F_SETFL, 0);
            say_inherited(fd);
            int value = -1;
            socklen_t len = sizeof value;
            (void)told("  getsockopt", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
            say("  TCP_NODELAY %s", value == 0 ? "off" : "on");
            (void)close(fd);
            if (write(channel[1], "x", 1) != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    char byte;
    int fd = connected_to(SERVER6, PORT_ECHO);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    send_fd(channel[0], fd);
    (void)close(fd);
    (void)told("the child is ready", read(channel[0], &byte, 1));
    fd = new_socket(AF_INET, SOCK_NONBLOCK);
    (void)connect_to(fd, SERVER4, PORT_ECHO);
    send_fd(channel[0], fd);
    (void)close(fd);
    wait_for("the child that was sent sockets", pid);
    (void)close(channel[0]);
    (void)close(channel[1]);
}

void section_processes(void)
{
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0) {
        broken("readlink");
    }
    forked();
    inherited_by_exec();
    started();
    passed_on();
}

/* ---- threads and signal handlers ---- */

#define THREADS 8
#define ROUNDS 40
#define SIGNALS 200

static void *connects_often(void *failed)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct target target = target_of(i % 2 == 0 ? SERVER4 : SERVER6, PORT_ECHO);
        int fd = socket(target.addr.ss_family, SOCK_STREAM, 0);
        char bytes[8] = "";
        char text[8];
        (void)snprintf(text, sizeof text, "%07d", i);
        if (connect(fd, target_addr(&target), target.len) != 0 || send(fd, text, 7, 0) != 7 ||
            recv(fd, bytes, 7, MSG_WAITALL) != 7 || memcmp(bytes, text, 7) != 0) {
            (void)__atomic_add_fetch((int *)failed, 1, __ATOMIC_RELAXED);
        }
        (void)close(fd);
    }
    return NULL;
}

static volatile sig_atomic_t handled, failures;
static struct target in_handler;

/* All of it is in the list of signal-safety(7). */
static void connects(int number)
{
    int error = errno;
    char byte = 'x';
    (void)number;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, target_addr(&in_handler), in_handler.len) != 0 || write(fd, &byte, 1) != 1 ||
        read(fd, &byte, 1) != 1) {
        failures = failures + 1;
    }
    (void)close(fd);
    handled = handled + 1;
    errno = error;
}

static void in_a_signal_handler(void)
{
    struct sigaction action = {.sa_handler = connects, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    in_handler = target_of(SERVER4, PORT_ECHO);
    (void)alarm(0);
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &often, NULL);
    unsigned long count = 0;
    while (handled < SIGNALS) {
        void *blocks[16];
        for (size_t i = 0; i < 16; i++) {
            blocks[i] = malloc(1 + (count * 2654435761u + i * 977) % 5000);
            count++;
        }
        for (size_t i = 0; i < 16; i++) {
            free(blocks[i]);
        }
        if (count % 4096 == 0) {
            /* The hooks of the main program run as well. */
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            (void)connect(fd, target_addr(&in_handler), in_handler.len);
            (void)close(fd);
        }
    }
    (void)setitimer(ITIMER_REAL, &never, NULL);
    (void)signal(SIGALRM, SIG_DFL);
    say("in a signal handler: %s %d connections, %d failures", handled >= SIGNALS ? "at least" : "only", SIGNALS,
        (int)failures);
}

static void *waits_in_connect(void *unused)
{
    (void)unused;
    int fd = new_socket(AF_INET, 0);
    (void)connect_to(fd, SILENT4, PORT_ECHO);
    return NULL;
}

static void cancelled(void)
{
    pthread_t thread;
    void *result = NULL;
    (void)pthread_create(&thread, NULL, waits_in_connect, NULL);
    sleep_ms(200);
    (void)told("pthread_cancel", pthread_cancel(thread));
    (void)pthread_join(thread, &result);
    say("cancelled in connect: %s", result == PTHREAD_CANCELED ? "yes" : "no");
}

void section_threads(void)
{
    pthread_t threads[THREADS];
    int failed = 0;
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_create(&threads[i], NULL, connects_often, &failed);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    say("%d threads: %d failures", THREADS, failed);
    cancelled();
    in_a_signal_handler();
}
