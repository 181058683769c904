/*
 * Signals. What the terminal sends (Ctrl-C) goes to all processes of its foreground group, the program among them: the launcher
 * passes on only what another process has sent to it. The helper ignores all of them: it lives as long as it is needed.
 *
 * Stopping. Ctrl-Z stops launcher and program alike. If the program alone stops, the launcher stops itself, so that the
 * shell notices, and wakes the program when it is woken.
 */
#include "cli/run_launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/exit.h"
#include "cli/run_say.h"
#include "cli/run_shortcut.h"
#include "cli/say.h"

static const char command[] = "run";

/* Those that the helper ignores, and SIGCHLD. */
static const int changed[RUN_SIGNAL_COUNT] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
                                              SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM, SIGCHLD};
/* Those that the launcher passes on. */
static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH};

struct launcher {
    struct run_shortcut *shortcut; /* NULL = none */
    pid_t helper, program;         /* 0 = not known, or gone */
    bool has_ended;                /* the program */
    int status;                    /* its */
    bool is_staying;               /* the helper */
    int signal_fd, report_fd;
};

/* --- what both processes do --- */

void run_signals_restore(const struct run_signals *before)
{
    for (size_t i = 0; i < RUN_SIGNAL_COUNT; i++) {
        (void)sigaction(changed[i], &before->actions[i], NULL); /* cannot fail: it was like that */
    }
    (void)sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

static void save_signals(struct run_signals *before)
{
    memset(before, 0, sizeof *before);
    for (size_t i = 0; i < RUN_SIGNAL_COUNT; i++) {
        (void)sigaction(changed[i], NULL, &before->actions[i]);
    }
    (void)sigprocmask(SIG_SETMASK, NULL, &before->mask);
}

static void close_if_inherited(int fd, int keep)
{
    int flags = fcntl(fd, F_GETFD);

    if (fd > STDERR_FILENO && fd != keep && flags >= 0 && (flags & FD_CLOEXEC) == 0) {
        (void)close(fd);
    }
}

/* All of ours are close-on-exec; what was inherited cannot have been. */
static void close_inherited(void)
{
    DIR *folder = opendir("/proc/self/fd");
    const struct dirent *entry;
    long max = sysconf(_SC_OPEN_MAX);

    if (folder == NULL) {
        for (int fd = STDERR_FILENO + 1; fd < (max < 65536 ? max : 65536); fd++) {
            close_if_inherited(fd, -1);
        }
        return;
    }
    while ((entry = readdir(folder)) != NULL) {
        close_if_inherited(atoi(entry->d_name), dirfd(folder)); /* "." and ".." are 0 */
    }
    (void)closedir(folder);
}

void run_drop_descriptors(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO);
        (void)dup2(null, STDOUT_FILENO);
        (void)close(null);
    }
    close_inherited();
}

/* --- the launcher --- */

static void pass_on(const struct launcher *l, const struct signalfd_siginfo *info)
{
    if (info->ssi_code != SI_KERNEL && l->program > 0 && !l->has_ended) {
        (void)kill(l->program, (int)info->ssi_signo);
    }
}

/* The helper was killed: the program is our child now, as all that had nobody else. */
static void reap(struct launcher *l)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == l->helper) {
            l->helper = 0;
            if (l->program == 0) { /* it could not begin */
                l->has_ended = true;
                l->status = status;
            }
        } else if (pid == l->program) {
            l->has_ended = true;
            l->status = status;
        }
    }
}

static void take_signals(struct launcher *l)
{
    struct signalfd_siginfo info;

    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) {
            pass_on(l, &info);
        }
    }
}

/* proc(5): the state follows the name, which may hold anything. */
static bool is_stopped(pid_t pid)
{
    char path[32], stat[512];
    const char *state;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    n = read(fd, stat, sizeof stat - 1);
    (void)close(fd);
    stat[n > 0 ? n : 0] = '\0';
    state = strrchr(stat, ')');
    return state != NULL && strncmp(state, ") T", 3) == 0;
}

/*
 * A report of a stop that is over by now was made when we were stopped, too: whoever woke us has woken the program, or we have. It may
 * well come after SIGCONT.
 */
static void take_report(struct launcher *l, const struct run_report *report)
{
    switch (report->kind) {
    case RUN_REPORT_STARTED:
        l->program = report->pid;
        break;
    case RUN_REPORT_STOPPED:
        if (is_stopped(l->program)) {
            (void)raise(SIGSTOP);
        }
        break;
    case RUN_REPORT_ENDED:
        l->has_ended = true;
        l->status = report->status;
        l->is_staying = report->is_staying;
        break;
    }
}

static void take_reports(struct launcher *l)
{
    struct run_report report;
    ssize_t n;

    while ((n = read(l->report_fd, &report, sizeof report)) == (ssize_t)sizeof report) {
        take_report(l, &report);
    }
    if (n == 0) { /* the helper has ended */
        (void)close(l->report_fd);
        l->report_fd = -1;
        if (!l->has_ended && l->program > 0) {
            run_shortcut_withdraw(l->shortcut);
            run_say("the helper was killed: the program has no network any more");
        }
    }
}

/* Signals that come before there is a program wait for it. */
static void wait_for_start(struct launcher *l)
{
    while (l->program == 0 && l->report_fd >= 0) {
        struct pollfd report = {l->report_fd, POLLIN, 0};

        if (poll(&report, 1, -1) < 0 && errno != EINTR) {
            break;
        }
        take_reports(l);
    }
}

static void wait_for_end(struct launcher *l)
{
    while (!l->has_ended) {
        struct pollfd fds[] = {{l->signal_fd, POLLIN, 0}, {l->report_fd, POLLIN, 0}};

        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            break; /* without memory; the end of the helper, and so of the program's network, is ours */
        }
        take_signals(l);
        if (l->report_fd >= 0) {
            take_reports(l);
        }
        if (l->report_fd < 0) {
            reap(l);
        }
    }
    if (!l->is_staying && l->helper > 0) {
        while (waitpid(l->helper, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

/* As the program has ended. */
static int end_like(int status)
{
    const struct rlimit none = {0, 0};
    sigset_t set;

    if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
    }
    (void)setrlimit(RLIMIT_CORE, &none); /* there is one of the program already, if it was to be */
    (void)signal(WTERMSIG(status), SIG_DFL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, WTERMSIG(status));
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

static int fail(const char *what)
{
    say(command, "cannot start: %s: %s", what, strerror(errno));
    return CLI_EXIT_PROXY;
}

static int open_signals(struct launcher *l)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++) {
        (void)sigaddset(&set, passed_on[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return -1;
    }
    l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return l->signal_fd < 0 ? -1 : 0;
}

int run_launch(const struct run_plan *plan)
{
    struct launcher l = {.shortcut = plan->serve.shortcut, .signal_fd = -1, .report_fd = -1};
    struct run_signals before;
    const pid_t self = getpid();
    int ends[2];

    save_signals(&before);
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, children would end without a word */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (open_signals(&l) != 0 || pipe2(ends, O_CLOEXEC) != 0) {
        return fail("signals");
    }
    l.helper = fork();
    if (l.helper < 0) {
        return fail("fork");
    }
    if (l.helper == 0) {
        (void)close(ends[0]);
        (void)close(l.signal_fd);
        _exit(run_helper(plan, &before, self, ends[1]));
    }
    (void)close(ends[1]);
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    l.report_fd = ends[0];
    (void)signal(SIGPIPE, SIG_IGN);
    run_drop_descriptors();
    wait_for_start(&l);
    wait_for_end(&l);
    return end_like(l.status);
}
