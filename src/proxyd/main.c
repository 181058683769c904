/*
 * socks6d: the command line. Everything else is daemon.c.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/daemon.h"
#include "proxyd/status_client.h"

#define DEFAULT_CONFIG "/etc/socks6d.yaml"
#define LISTEN_MAX 64

enum { EXIT_CONFIG = 1, EXIT_USAGE = 2 };

enum { OPT_PRINT_CONFIG = 256, OPT_STATUS, OPT_VERSION, OPT_HELP };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"test", no_argument, NULL, 't'},
    {"listen", required_argument, NULL, 'l'},
    {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
    {"print-config", no_argument, NULL, OPT_PRINT_CONFIG},
    {"status", optional_argument, NULL, OPT_STATUS},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static const char usage[] =
    "usage: socks6d [-t] [-v | -q] [-c FILE] [-l ADDR:PORT]... [--print-config]\n"
    "       socks6d --status[=SOCKET] [-c FILE]\n"
    "\n"
    "SOCKS proxy daemon: SOCKS 6, 5, 4a and 4 on one port. Without a configuration it\n"
    "serves local clients on 127.0.0.1:1080 and [::1]:1080.\n"
    "\n"
    "  -c, --config FILE       configuration (default: " DEFAULT_CONFIG ", if it exists)\n"
    "  -l, --listen ADDR:PORT  listen there instead of where the configuration says; repeatable\n"
    "  -v, --verbose           log debug messages, too\n"
    "  -q, --quiet             log warnings and errors alone, and no connections\n"
    "  -t, --test              check the configuration and exit: 0 if it is good, 1 if not\n"
    "      --print-config      print the configuration in force, defaults included, and exit\n"
    "      --status[=SOCKET]   ask the running daemon how it does, print its answer (JSON) and\n"
    "                          exit: 3 if none answers. SOCKET: default as configured\n"
    "      --version           print the version and exit\n"
    "      --help              print this and exit\n"
    "\n"
    "Signals: HUP reloads the configuration, TERM and INT drain (twice: end now), USR1 logs\n"
    "all counters. See socks6d(8) and socks6d.yaml(5).\n";

struct arguments {
    const char *config_path;
    const char *listen[LISTEN_MAX];
    size_t listen_count;
    bool test, print_config, status;
    const char *status_socket; /* NULL = as configured */
    enum config_verbosity verbosity;
};

static int usage_error(void)
{
    (void)fputs("Try 'socks6d --help'.\n", stderr);
    return EXIT_USAGE;
}

/* -1: go on; else the exit status. */
static int parse_arguments(int argc, char **argv, struct arguments *args)
{
    int opt;

    while ((opt = getopt_long(argc, argv, "c:tl:vq", long_options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            args->config_path = optarg;
            break;
        case 't':
            args->test = true;
            break;
        case 'l':
            if (args->listen_count == LISTEN_MAX) {
                (void)fprintf(stderr, "socks6d: more than %d times -l\n", LISTEN_MAX);
                return usage_error();
            }
            args->listen[args->listen_count++] = optarg;
            break;
        case 'v':
            args->verbosity = CONFIG_VERBOSE;
            break;
        case 'q':
            args->verbosity = CONFIG_QUIET;
            break;
        case OPT_PRINT_CONFIG:
            args->print_config = true;
            break;
        case OPT_STATUS:
            args->status = true;
            args->status_socket = optarg;
            break;
        case OPT_VERSION:
            (void)puts("socks6d " SOCKS6_BUILD_VERSION);
            return EXIT_SUCCESS;
        case OPT_HELP:
            (void)fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            return usage_error();
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "socks6d: unexpected argument '%s'\n", argv[optind]);
        return usage_error();
    }
    return -1;
}

static int ask_status(const struct config *config)
{
    char path[128];

    if (!config_status_path(&config->status, path, sizeof path)) {
        (void)fputs(config->status.kind == CONFIG_STATUS_NONE
                        ? "socks6d: the configuration has no status socket ('socket: none' under 'status')\n"
                        : "socks6d: no place for a status socket, XDG_RUNTIME_DIR is not set; name one: "
                          "--status=SOCKET\n",
                    stderr);
        return EXIT_CONFIG;
    }
    return status_ask(path);
}

int main(int argc, char **argv)
{
    struct arguments args = {0};
    struct config_error error;
    const struct config *config;

    (void)signal(SIGPIPE, SIG_IGN); /* a log reader that goes away must not end the daemon */
    int status = parse_arguments(argc, argv, &args);
    if (status >= 0) {
        return status;
    }
    if (args.status_socket != NULL) {
        return status_ask(args.status_socket); /* whatever has become of the configuration */
    }
    if (args.config_path == NULL && access(DEFAULT_CONFIG, F_OK) == 0) {
        args.config_path = DEFAULT_CONFIG;
    }
    if (config_load(args.config_path, args.listen, args.listen_count, &config, &error) != 0) {
        (void)fprintf(stderr, "%s\n", error.text);
        return EXIT_CONFIG;
    }
    config_set_verbosity(config, args.verbosity);
    if (args.status) {
        status = ask_status(config);
        config_release(config);
        return status;
    }
    if (args.print_config) {
        config_print(config, stdout);
    }
    if (args.test && !args.print_config) {
        (void)puts("configuration is good");
        config_notes(config, stderr);
        config_note_fast_open(config, stderr);
    }
    if (args.test || args.print_config) {
        config_release(config);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_CONFIG;
    }
    const struct daemon_options options = {
        .config_path = args.config_path,
        .listen = args.listen,
        .listen_count = args.listen_count,
        .verbosity = args.verbosity,
    };
    return daemon_run(&options, config);
}
