/*
 * The processes of `socks6 run`. Called by cmd_run.c.
 *
 *     launcher      what the shell has started and waits for: passes signals on, ends as the program ended
 *      +- helper    run_helper.c: serves the whole tree of programs
 *          +- program
 *
 * The helper is the program's parent, and as a "subreaper" (prctl(2)) the one to whom orphans of the tree come: so it knows when
 * the last of them has ended. If the launcher is killed, it kills the program. If it is killed itself, the program
 * comes to the launcher, which waits for it all the same.
 */
#ifndef CLI_RUN_LAUNCH_H
#define CLI_RUN_LAUNCH_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "cli/run_serve.h"

struct run_plan {
    struct run_serve_config serve;
    const char *library; /* absolute path of libsocks6-preload.so */
    char **argv;         /* the program, to be looked for in PATH, and its arguments */
};

/* Exit statuses of a program that could not be started, as those of the shell. */
enum { RUN_EXIT_CANNOT = 126, RUN_EXIT_NOT_FOUND = 127 };

/* Runs it to its end. An exit status; or it does not return, because the program was killed by a signal. */
int run_launch(const struct run_plan *plan);

/* --- between the two --- */

/* What the helper tells the launcher, each in one write(2). */
enum run_report_kind { RUN_REPORT_STARTED, RUN_REPORT_STOPPED, RUN_REPORT_ENDED };
struct run_report {
    enum run_report_kind kind;
    pid_t pid;       /* STARTED: the program's */
    int status;      /* ENDED: as of waitpid(2) */
    bool is_staying; /* ENDED: the helper goes on in the background */
};

/* The signals whose handling is changed on the way, and how it was. */
#define RUN_SIGNAL_COUNT 12
struct run_signals {
    sigset_t mask;
    struct sigaction actions[RUN_SIGNAL_COUNT];
};
/* For the program, right before it is started: as it was when we were. */
void run_signals_restore(const struct run_signals *before);

/* The inherited descriptors are the program's: standard input and output become /dev/null, others from 3 on are closed. */
void run_drop_descriptors(void);

/* The helper's life; an exit status. `launcher` is its parent. */
int run_helper(const struct run_plan *plan, const struct run_signals *before, pid_t launcher, int report_fd);

#endif
