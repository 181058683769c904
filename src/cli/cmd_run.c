#include "cli/cmd_run.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/command.h"
#include "cli/exit.h"
#include "cli/proxy_find.h"
#include "cli/run_direct.h"
#include "cli/run_launch.h"
#include "cli/run_library.h"
#include "cli/run_program.h"
#include "cli/run_shortcut.h"
#include "cli/say.h"

/* About what Linux gives a connection without a proxy. */
#define TIMEOUT_MS 130000

enum {
    OPTION_ALLOW_DIRECT = COMMAND_OPTION_OWN,
    OPTION_EARLY,
    OPTION_FAKE_NAMES,
    OPTION_NO_EARLY_DATA,
    OPTION_NO_SESSION,
    OPTION_NO_TFO
};

static const char name[] = "run";

static const char help_text[] =
    "Usage: socks6 run [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
    "Runs a program that need not know of proxies: its TCP connections, and those of\n"
    "the programs that it starts, go through the proxy, and names are looked up by\n"
    "the proxy's DNS service. What cannot go there is refused: other UDP, raw\n"
    "sockets, servers for other machines, statically linked and set-user-ID programs.\n"
    "\n"
    "Connections to this machine (loopback, but for port 53) and to what NO_PROXY\n"
    "names are made directly.\n"
    "\n"
    "  -4, -6                 reach the proxy over IPv4, or IPv6, only\n"
    "      --allow-direct     let what cannot go through the proxy go its own way\n"
    "      --early            connect() returns at once; the first bytes travel with\n"
    "                         the request. Failures are seen when reading or writing\n"
    "      --fake-names       for proxies without a DNS service: programs get made-up\n"
    "                         addresses for names, and the proxy gets the names\n"
    "      --no-early-data    over TLS, send nothing before the handshake is over\n"
    "      --no-session       introduce ourselves to the proxy anew each time, and\n"
    "                         keep nothing: the cache file is not touched\n"
    "      --no-tfo           no TCP Fast Open: the SYN to the proxy carries no data\n"
    "  -v                     say on standard error what each call did; -vv: and each\n"
    "                         step to the proxy\n"
    "  -w SECONDS             give a connection up that is not made in that time\n"
    "                         (default 130)\n" COMMAND_OPTIONS_HELP "  -h, --help             show this\n"
    "\n"
    "Exit status: that of PROGRAM; 126 it was found but cannot be run; 127 it was not\n"
    "found; 2 usage; 3 the proxy's name cannot be looked up, or something of ours is\n"
    "missing.\n";

static int set_family(struct run_options *out, int family)
{
    if (out->family != AF_UNSPEC && out->family != family) {
        return say_usage(name, "-4 and -6 exclude each other");
    }
    out->family = family;
    return 0;
}

static int take_timeout(const char *text, struct run_options *out)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > INT_MAX / 1000) {
        return say_usage(name, "-w: '%s' is not a number of seconds, 1 or more", text);
    }
    out->timeout_ms = (int)value * 1000;
    return 0;
}

static int take_option(int option, char **argv, struct proxy_options *proxy, struct run_options *out)
{
    if (command_take_option(proxy, option, optarg)) {
        return 0;
    }
    switch (option) {
    case '4':
        return set_family(out, AF_INET);
    case '6':
        return set_family(out, AF_INET6);
    case 'v':
        out->verbose++;
        return 0;
    case 'w':
        return take_timeout(optarg, out);
    case OPTION_ALLOW_DIRECT:
        out->allow_direct = 1;
        return 0;
    case OPTION_EARLY:
        out->early = 1;
        return 0;
    case OPTION_FAKE_NAMES:
        out->fake_names = 1;
        return 0;
    case OPTION_NO_EARLY_DATA:
        out->no_early = 1;
        return 0;
    case OPTION_NO_SESSION:
        out->no_session = 1;
        return 0;
    case OPTION_NO_TFO:
        out->no_tfo = 1;
        return 0;
    case 'h':
        out->help = 1;
        return 0;
    default:
        return command_bad_option(name, option, argv);
    }
}

int run_parse(int argc, char **argv, struct proxy_options *proxy, struct run_options *out)
{
    static const struct option longs[] = {COMMAND_LONG_OPTIONS,
                                          {"allow-direct", no_argument, NULL, OPTION_ALLOW_DIRECT},
                                          {"early", no_argument, NULL, OPTION_EARLY},
                                          {"fake-names", no_argument, NULL, OPTION_FAKE_NAMES},
                                          {"no-early-data", no_argument, NULL, OPTION_NO_EARLY_DATA},
                                          {"no-session", no_argument, NULL, OPTION_NO_SESSION},
                                          {"no-tfo", no_argument, NULL, OPTION_NO_TFO},
                                          {NULL, 0, NULL, 0}};
    int option, rc;

    memset(out, 0, sizeof *out);
    out->family = AF_UNSPEC;
    out->timeout_ms = TIMEOUT_MS;
    opterr = 0;
    optind = 0; /* start anew: main() has used getopt_long() on the words before ours */
    /* '+': what stands behind the program's name is the program's. */
    while ((option = getopt_long(argc, argv, "+:46vw:" COMMAND_SHORT_OPTIONS, longs, NULL)) != -1) {
        rc = take_option(option, argv, proxy, out);
        if (rc != 0 || out->help) {
            return rc;
        }
    }
    if (optind == argc) {
        (void)say_usage(name, "which program?");
        return CLI_EXIT_USAGE;
    }
    out->program = argv + optind;
    return 0;
}

/* For -v. */
static void trace(void *user, const char *what)
{
    (void)user;
    say(name, "%s", what);
}

/* What is found out before anything is started. Too large for the stack. */
struct preparation {
    struct proxy_addresses addresses;
    char library[PATH_MAX];
    char why[PATH_MAX + 128];
};

/* 0, or an exit status after an error was printed. */
static int prepare(const struct run_options *options, const struct socks6_proxy *proxy, struct preparation *p)
{
    void (*const say_step)(void *user, const char *what) = options->verbose > 1 ? trace : NULL;

    if (run_library_find(NULL, p->library, sizeof p->library, p->why, sizeof p->why) != 0 ||
        proxy_find(proxy, options->family, &p->addresses, say_step, NULL, p->why, sizeof p->why) != SOCKS6_DIAL_OK) {
        say(name, "%s", p->why);
        return CLI_EXIT_PROXY;
    }
    return run_program_check(options->program[0], p->library, options->allow_direct != 0);
}

static int launch_prepared(const struct run_options *options, const struct socks6_proxy *proxy,
                           const struct preparation *p)
{
    struct run_shortcut shortcut;
    bool has_shortcut = run_shortcut_open(&shortcut) == 0;
    const struct run_plan plan = {.library = p->library,
                                  .argv = options->program,
                                  .serve = {.proxy = proxy,
                                            .addresses = &p->addresses,
                                            .shortcut = has_shortcut ? &shortcut : NULL,
                                            .no_proxy = run_direct_environment(),
                                            .family = options->family,
                                            .timeout_ms = (uint64_t)options->timeout_ms,
                                            .verbose = options->verbose,
                                            .is_early = options->early != 0,
                                            .is_fake = options->fake_names != 0,
                                            .allow_direct = options->allow_direct != 0,
                                            .no_fast_open = options->no_tfo != 0,
                                            .no_early_data = options->no_early != 0,
                                            .no_session = options->no_session != 0}};
    int rc = run_launch(&plan);

    if (has_shortcut) {
        run_shortcut_close(&shortcut);
    }
    return rc;
}

static int launch(const struct run_options *options, const struct socks6_proxy *proxy)
{
    struct preparation *p = malloc(sizeof *p);
    int rc;

    if (p == NULL) {
        say(name, "out of memory");
        return CLI_EXIT_PROXY;
    }
    rc = prepare(options, proxy, p);
    if (rc == 0) {
        rc = launch_prepared(options, proxy, p);
    }
    free(p);
    return rc;
}

int cmd_run(struct proxy_options *proxy_options, int argc, char **argv)
{
    struct run_options options;
    struct socks6_proxy proxy;
    const char *source = NULL;
    int rc = run_parse(argc, argv, proxy_options, &options);

    if (rc != 0) {
        return rc;
    }
    if (options.help) {
        return command_print_help(name, help_text);
    }
    memset(&proxy, 0, sizeof proxy);
    rc = proxy_choose(proxy_options, name, &proxy, &source);
    if (rc == 0) {
        if (options.verbose > 0) {
            proxy_say(&proxy, source, name);
        }
        rc = launch(&options, &proxy);
    }
    explicit_bzero(&proxy, sizeof proxy);
    return rc;
}
