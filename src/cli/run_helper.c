/*
 * Theory of operation. The server is open before the program starts. When the program has ended, what it has written may still be
 * on its way, and programs that it has started may live on: then the launcher is told the status at once, and the helper stays in
 * the background until there is nobody left to serve.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/exit.h"
#include "cli/proxy.h"
#include "cli/run_launch.h"
#include "cli/say.h"
#include "run/protocol.h"

#define PRELOAD_VARIABLE "LD_PRELOAD"

/* Turns of the loop in which the ends of the last connections are to come through, and after that how long they may take. */
#define END_TURNS 16
#define END_POLL_MS 20
#define END_MS 60000

/* What the kernel sends when the launcher has ended. */
#define PARENT_GONE SIGUSR1

static const char command[] = "run";

struct helper {
    const struct run_plan *plan;
    const struct run_signals *before;
    struct run_serve *serve;
    struct loop *loop;
    struct loop_io signals;
    struct loop_task end_task;
    struct loop_timer end_timer;
    pid_t launcher, program;
    bool has_ended, is_alone, is_reported;
    int status;
    unsigned turns;
    int report_fd;
};

/* --- the program --- */

static void report(const struct helper *h, const struct run_report *report)
{
    ssize_t n = write(h->report_fd, report, sizeof *report);

    (void)n; /* the launcher has been killed, and so shall we be */
}

/* Our library first, then what was there; but not ours twice, as where one `socks6 run` starts another. */
static int set_preload(const char *library)
{
    const char *old = getenv(PRELOAD_VARIABLE);
    size_t size = strlen(library) + (old != NULL ? strlen(old) : 0) + 2;
    char *list = malloc(size);
    int rc;

    if (list == NULL) {
        return -1;
    }
    (void)snprintf(list, size, "%s", library);
    while (old != NULL && *old != '\0') {
        size_t len = strcspn(old, ": ");

        if (len > 0 && (len != strlen(library) || strncmp(old, library, len) != 0)) {
            (void)snprintf(list + strlen(list), size - strlen(list), ":%.*s", (int)len, old);
        }
        old += len + (old[len] != '\0' ? 1 : 0);
    }
    rc = setenv(PRELOAD_VARIABLE, list, 1);
    free(list);
    return rc;
}

/* A program that speaks SOCKS itself would go to the proxy through the proxy; and most do not know our schemes. */
static void unset_proxy(void)
{
    static const char *const names[] = {"ALL_PROXY", "all_proxy"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);

        if (value != NULL && proxy_is_our_url(value)) {
            (void)unsetenv(names[i]);
        }
    }
}

static _Noreturn void start_program(const struct helper *h)
{
    char *const *argv = h->plan->argv;

    if (set_preload(h->plan->library) != 0 || setenv(RUN_VARIABLE, run_serve_variable(h->serve), 1) != 0) {
        say(command, "out of memory");
        _exit(RUN_EXIT_CANNOT);
    }
    unset_proxy();
    /* By itself: the helper can be killed at any time, and the launcher must know for whom to wait. */
    report(h, &(struct run_report){.kind = RUN_REPORT_STARTED, .pid = getpid()});
    run_signals_restore(h->before);
    (void)execvp(argv[0], argv);
    say(command, "cannot run '%s': %s", argv[0], strerror(errno));
    _exit(errno == ENOENT ? RUN_EXIT_NOT_FOUND : RUN_EXIT_CANNOT);
}

/* --- the end --- */

/* A file of the proxy's URL that may have to be read again. */
static bool is_relative(const char *path)
{
    return path[0] != '\0' && path[0] != '/';
}

/* Nobody shall wait for us, neither for our end nor for that of a pipe; nor find a file system in use. */
static void go_to_background(const struct socks6_proxy *proxy)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)prctl(PR_SET_PDEATHSIG, 0);
    (void)setsid();
    if (!is_relative(proxy->ca) && !is_relative(proxy->certificate) && !is_relative(proxy->key) && chdir("/") != 0) {
        /* then it stays in use */
    }
    if (null >= 0) {
        (void)dup2(null, STDERR_FILENO);
        (void)close(null);
    }
}

static void report_end(struct helper *h, bool is_staying)
{
    if (h->is_reported) {
        return;
    }
    h->is_reported = true;
    if (is_staying) {
        go_to_background(h->plan->serve.proxy);
    }
    report(h, &(struct run_report){.kind = RUN_REPORT_ENDED, .status = h->status, .is_staying = is_staying});
    (void)close(h->report_fd);
    h->report_fd = -1;
}

/* Called until the last bytes have gone. */
static void try_to_end(struct helper *h)
{
    bool is_busy = run_serve_is_busy(h->serve);

    h->turns++;
    if (!is_busy || h->turns > END_TURNS + END_MS / END_POLL_MS) {
        report_end(h, false);
        loop_stop(h->loop);
    } else if (h->turns < END_TURNS) {
        loop_defer(h->loop, &h->end_task);
    } else {
        report_end(h, true);
        loop_timer_set(h->loop, &h->end_timer, END_POLL_MS);
    }
}

static void on_end_task(struct loop_task *task)
{
    try_to_end(LOOP_OWNER(task, struct helper, end_task));
}

static void on_end_timer(struct loop_timer *timer)
{
    try_to_end(LOOP_OWNER(timer, struct helper, end_timer));
}

/* --- children --- */

static void take_child(struct helper *h, pid_t pid, int status)
{
    if (pid != h->program) {
        return;
    }
    if (WIFSTOPPED(status)) {
        report(h, &(struct run_report){.kind = RUN_REPORT_STOPPED});
        return;
    }
    h->has_ended = true;
    h->program = 0;
    h->status = status;
}

/* The launcher cannot tell that it is killed: the program ends as it did. */
static void on_launcher_gone(struct helper *h)
{
    if (getppid() != h->launcher && h->program > 0 && !h->is_reported) {
        (void)kill(h->program, SIGKILL);
    }
}

static void on_signal(struct loop_io *io, uint32_t events)
{
    struct helper *h = LOOP_OWNER(io, struct helper, signals);
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    (void)events;
    while (read(io->fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == PARENT_GONE) {
            on_launcher_gone(h);
        }
    }
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        take_child(h, pid, status);
    }
    if (!h->has_ended || h->is_alone) {
        return;
    }
    if (pid == 0) { /* children of the program live on; they are ours now */
        report_end(h, true);
        return;
    }
    h->is_alone = true;
    loop_defer(h->loop, &h->end_task);
}

/* --- life --- */

/* Those that the loop takes. */
static void fill_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGCHLD);
    (void)sigaddset(set, PARENT_GONE);
}

static void set_signals(void)
{
    static const int ignored[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR2,
                                  SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM};
    sigset_t set;

    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        (void)signal(ignored[i], SIG_IGN);
    }
    (void)signal(PARENT_GONE, SIG_DFL); /* ignored, it would not come */
    fill_signals(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL);
}

static int watch_children(struct helper *h)
{
    sigset_t set;
    int rc;

    fill_signals(&set);
    h->signals = (struct loop_io){on_signal, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)};
    if (h->signals.fd < 0) {
        return -errno;
    }
    rc = loop_add(h->loop, &h->signals, EPOLLIN);
    if (rc != 0) {
        (void)close(h->signals.fd);
        h->signals.fd = -1;
    }
    return rc;
}

/* Each connection is up to three descriptors of ours. The program keeps the limit that it was given. */
static void raise_limit(const struct helper *h)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        run_serve_set_limit(h->serve, limit.rlim_cur);
    }
}

static int fail(int rc)
{
    say(command, "cannot start: %s", strerror(-rc));
    return CLI_EXIT_PROXY;
}

static int serve(struct helper *h)
{
    int rc;

    h->loop = run_serve_loop(h->serve);
    h->end_task.run = on_end_task;
    h->end_timer.expired = on_end_timer;
    rc = watch_children(h);
    if (rc != 0) {
        return fail(rc);
    }
    h->program = fork();
    if (h->program == 0) {
        start_program(h);
    }
    if (h->program < 0) {
        return fail(-errno);
    }
    run_drop_descriptors();
    raise_limit(h);
    rc = loop_run(h->loop);
    return rc == 0 ? CLI_EXIT_OK : fail(rc);
}

int run_helper(const struct run_plan *plan, const struct run_signals *before, pid_t launcher, int report_fd)
{
    struct helper h = {
        .plan = plan, .before = before, .launcher = launcher, .report_fd = report_fd, .signals = {.fd = -1}};
    int rc;

    set_signals();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)prctl(PR_SET_PDEATHSIG, PARENT_GONE);
    if (getppid() != launcher) { /* it was killed before that */
        return CLI_EXIT_PROXY;
    }
    rc = run_serve_new(&plan->serve, &h.serve);
    if (rc != 0) {
        return fail(rc);
    }
    rc = serve(&h);
    if (h.signals.fd >= 0) {
        loop_close(h.loop, &h.signals);
    }
    run_serve_free(h.serve);
    return rc;
}
