#include "cli/cmd_connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/exit.h"
#include "cli/pump.h"
#include "cli/reach.h"
#include "cli/say.h"

/* The most that is sent along with a request: what may go with credentials, and about what one round trip carries. */
#define EARLY_MAX SOCKS6_INITIAL_DATA_MAX

/* Silence of the remote end after which the end of standard input is passed on: longer than most answers take to begin. */
#define SHUTDOWN_MS 500

enum {
    OPTION_EARLY = COMMAND_OPTION_OWN,
    OPTION_HAPPY_EYEBALLS,
    OPTION_NO_EARLY_DATA,
    OPTION_NO_SESSION,
    OPTION_NO_SHUTDOWN,
    OPTION_NO_TFO,
    OPTION_REMOTE_TFO
};

static const char name[] = "connect";

static const char help_text[] = "Usage: socks6 connect [OPTION]... HOST PORT\n"
                                "Connects to HOST and PORT through a proxy: standard input goes there, what comes\n"
                                "back goes to standard output.\n"
                                "\n"
                                "HOST is a name or an IP address and is given to the proxy as it is; PORT is a\n"
                                "number or a service name of services(5).\n"
                                "\n"
                                "  -4                     reach the proxy over IPv4 only\n"
                                "  -6                     reach the proxy over IPv6 only\n"
                                "      --early            wait for the first bytes of standard input and send\n"
                                "                         them together with the request (for protocols in which\n"
                                "                         the client speaks first)\n"
                                "      --happy-eyeballs[=off]\n"
                                "                         ask the proxy to race the addresses of HOST, IPv6 and\n"
                                "                         IPv4 (RFC 8305); off: ask it not to. Without it that\n"
                                "                         is left to the proxy\n"
                                "  -N                     at the end of standard input close our side of the\n"
                                "                         connection at once. Without it that waits until the\n"
                                "                         remote end has been silent for half a second, because\n"
                                "                         many servers drop their answer when they see it\n"
                                "      --no-early-data    over TLS, send nothing before the handshake is over\n"
                                "      --no-session       introduce ourselves to the proxy anew, and keep\n"
                                "                         nothing: the cache file is not touched\n"
                                "      --no-shutdown      never close our side\n"
                                "      --no-tfo           no TCP Fast Open: the SYN to the proxy carries no data\n"
                                "      --remote-tfo[=BYTES]\n"
                                "                         let the proxy send what it has of our data by then,\n"
                                "                         BYTES of it at most, in its SYN to HOST (TCP Fast\n"
                                "                         Open). HOST may get that twice; for use with --early\n"
                                "  -q SECONDS             end that long after the end of standard input;\n"
                                "                         negative: when the remote end closes (the default)\n"
                                "  -v                     say each step on standard error\n"
                                "  -w SECONDS             give up if the connection is not made in that time; end\n"
                                "                         when nothing moves for that long\n" COMMAND_OPTIONS_HELP
                                "  -h, --help             show this\n"
                                "\n"
                                "As a ProxyCommand of ssh(1): ssh -o ProxyCommand='socks6 connect %h %p' HOST\n"
                                "\n"
                                "Exit status: 0 done; 1 the remote end failed; 2 usage; 3 the proxy cannot be\n"
                                "reached or refused us.\n";

uint16_t connect_parse_port(const char *text)
{
    const struct servent *service;
    unsigned long value = 0;
    size_t digits = strspn(text, "0123456789");

    if (text[digits] != '\0') {
        service = getservbyname(text, "tcp");
        return service != NULL ? ntohs((uint16_t)service->s_port) : 0;
    }
    for (size_t i = 0; i < digits && value <= UINT16_MAX; i++) {
        value = value * 10 + (unsigned long)(text[i] - '0');
    }
    return value <= UINT16_MAX ? (uint16_t)value : 0;
}

/* Whole seconds between `min` and what an int of milliseconds holds. */
static int parse_seconds(const char *text, long min, int *out_ms)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > INT_MAX / 1000) {
        return 0;
    }
    *out_ms = value < 0 ? -1 : (int)value * 1000;
    return 1;
}

static int take_destination(const char *host, const char *port, struct connect_options *out)
{
    uint16_t number = connect_parse_port(port);

    if (number == 0) {
        return say_usage(name, "'%s' is not a port: give a number from 1 to 65535 or a service name", port);
    }
    if (socks6_addr_parse(host, number, &out->destination) != SOCKS6_OK) {
        return say_usage(name, "HOST must be an address or a name of 1 to %u bytes", SOCKS6_NAME_MAX);
    }
    return 0;
}

static int set_family(struct connect_options *out, int family)
{
    if (out->family != AF_UNSPEC && out->family != family) {
        return say_usage(name, "-4 and -6 exclude each other");
    }
    out->family = family;
    return 0;
}

static int take_eyeballs(const char *text, struct connect_options *out)
{
    if (text == NULL || strcmp(text, "on") == 0) {
        out->eyeballs = SOCKS6_AVAILABILITY_YES;
        return 0;
    }
    if (strcmp(text, "off") == 0) {
        out->eyeballs = SOCKS6_AVAILABILITY_NO;
        return 0;
    }
    return say_usage(name, "--happy-eyeballs is on or off, not '%s'", text);
}

static int take_remote_tfo(const char *text, struct connect_options *out)
{
    char *end = NULL;
    long bytes = 0;

    if (text != NULL) {
        errno = 0;
        bytes = strtol(text, &end, 10);
        if (errno != 0 || end == text || *end != '\0' || bytes < 1 || bytes > UINT16_MAX) {
            return say_usage(name, "--remote-tfo: '%s' is not a number of bytes from 1 to %d", text, UINT16_MAX);
        }
    }
    out->remote_tfo = (int)bytes;
    return 0;
}

static int take_option(int option, char **argv, struct proxy_options *proxy, struct connect_options *out)
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
        out->verbose = 1;
        return 0;
    case 'N':
        out->shutdown_ms = 0;
        return 0;
    case OPTION_HAPPY_EYEBALLS:
        return take_eyeballs(optarg, out);
    case OPTION_NO_EARLY_DATA:
        out->no_early = 1;
        return 0;
    case OPTION_NO_SESSION:
        out->no_session = 1;
        return 0;
    case OPTION_NO_SHUTDOWN:
        out->shutdown_ms = -1;
        return 0;
    case OPTION_NO_TFO:
        out->no_tfo = 1;
        return 0;
    case OPTION_REMOTE_TFO:
        return take_remote_tfo(optarg, out);
    case 'w':
        return parse_seconds(optarg, 1, &out->timeout_ms)
                   ? 0
                   : say_usage(name, "-w: '%s' is not a number of seconds, 1 or more", optarg);
    case 'q': /* implies -N, as with Debian's nc */
        out->shutdown_ms = 0;
        return parse_seconds(optarg, LONG_MIN, &out->quit_ms)
                   ? 0
                   : say_usage(name, "-q: '%s' is not a number of seconds", optarg);
    case 'h':
        out->help = 1;
        return 0;
    case OPTION_EARLY:
        out->early = 1;
        return 0;
    default:
        return command_bad_option(name, option, argv);
    }
}

int connect_parse(int argc, char **argv, struct proxy_options *proxy, struct connect_options *out)
{
    static const struct option longs[] = {COMMAND_LONG_OPTIONS,
                                          {"early", no_argument, NULL, OPTION_EARLY},
                                          {"happy-eyeballs", optional_argument, NULL, OPTION_HAPPY_EYEBALLS},
                                          {"no-early-data", no_argument, NULL, OPTION_NO_EARLY_DATA},
                                          {"no-session", no_argument, NULL, OPTION_NO_SESSION},
                                          {"no-shutdown", no_argument, NULL, OPTION_NO_SHUTDOWN},
                                          {"no-tfo", no_argument, NULL, OPTION_NO_TFO},
                                          {"remote-tfo", optional_argument, NULL, OPTION_REMOTE_TFO},
                                          {NULL, 0, NULL, 0}};
    int option, rc;

    memset(out, 0, sizeof *out);
    out->family = AF_UNSPEC;
    out->timeout_ms = -1;
    out->quit_ms = -1;
    out->remote_tfo = -1;
    out->shutdown_ms = SHUTDOWN_MS;
    opterr = 0;
    optind = 0; /* start anew: main() has used getopt_long() on the words before ours */
    while ((option = getopt_long(argc, argv, ":46Nq:vw:" COMMAND_SHORT_OPTIONS, longs, NULL)) != -1) {
        rc = take_option(option, argv, proxy, out);
        if (rc != 0 || out->help) {
            return rc;
        }
    }
    if (argc - optind < 2) {
        return say_usage(name, "%s is missing", argc == optind ? "HOST PORT" : "PORT");
    }
    if (argc - optind > 2) {
        return say_usage(name, "there is a word too many: '%s'", argv[optind + 2]);
    }
    return take_destination(argv[optind], argv[optind + 1], out);
}

/* For -v. */
static void trace(void *user, const char *what)
{
    (void)user;
    say(name, "%s", what);
}

/* Waits for the first bytes of standard input or its end. Returns how many there are, or -1 after an error was printed. */
static ssize_t read_early(uint8_t buf[EARLY_MAX])
{
    ssize_t n;

    do {
        n = read(STDIN_FILENO, buf, EARLY_MAX);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        say(name, "cannot read standard input: %s", strerror(errno));
    }
    return n;
}

static int dial_exit(int status)
{
    switch ((enum socks6_dial_status)status) {
    case SOCKS6_DIAL_OK:
        return CLI_EXIT_OK;
    case SOCKS6_DIAL_REMOTE_FAILED:
    case SOCKS6_DIAL_NOMEM:
        return CLI_EXIT_REMOTE;
    case SOCKS6_DIAL_INVALID:
        return CLI_EXIT_USAGE;
    case SOCKS6_DIAL_IN_PROGRESS: /* not from the blocking call */
    case SOCKS6_DIAL_PROXY_FAILED:
    case SOCKS6_DIAL_TIMED_OUT:
        break;
    }
    return CLI_EXIT_PROXY;
}

/* The proxy's answer for its connection to HOST; NULL: it gave none. */
static const struct socks6_stack_option *find_answer(const struct socks6_dial_result *result, enum socks6_level level,
                                                     enum socks6_stack_code code)
{
    for (size_t i = 0; i < result->stack_count; i++) {
        const struct socks6_stack_option *option = &result->stack[i];
        if (option->leg == SOCKS6_LEG_PROXY_REMOTE && option->level == level && option->code == code) {
            return option;
        }
    }
    return NULL;
}

/* For -v: what the proxy has to say on --happy-eyeballs. */
static void say_eyeballs(const struct socks6_dial_result *result)
{
    const struct socks6_stack_option *answer = find_answer(result, SOCKS6_LEVEL_IP, SOCKS6_IP_HAPPY_EYEBALLS);

    if (answer != NULL) {
        say(name, "Happy Eyeballs: the proxy %s",
            SOCKS6_STACK_FIRST(answer->value) == SOCKS6_AVAILABILITY_NO ? "did not use it" : "used it");
    } else if (result->has_reply) {
        say(name, "Happy Eyeballs: the proxy does not say whether it used it");
    }
}

/* And on --remote-tfo. */
static void say_remote_tfo(const struct socks6_dial_result *result)
{
    const struct socks6_stack_option *answer = find_answer(result, SOCKS6_LEVEL_TCP, SOCKS6_TCP_FAST_OPEN);

    if (answer != NULL && answer->value > 0) {
        say(name, "TCP Fast Open to the remote end: it took %u bytes with the SYN", (unsigned)answer->value);
    } else if (answer != NULL) {
        say(name, "TCP Fast Open to the remote end: it took nothing with the SYN");
    } else if (result->has_reply) {
        say(name, "TCP Fast Open to the remote end: the proxy does not say whether it used it");
    }
}

/* The Stack options that the command line asks for; how many. */
static size_t choose_stack(const struct connect_options *options, struct socks6_stack_option stack[2])
{
    size_t count = 0;

    if (options->eyeballs != 0) {
        stack[count++] = (struct socks6_stack_option){
            .leg = SOCKS6_LEG_PROXY_REMOTE,
            .level = SOCKS6_LEVEL_IP,
            .code = SOCKS6_IP_HAPPY_EYEBALLS,
            .value = SOCKS6_STACK_VALUE(options->eyeballs, 0),
        };
    }
    if (options->remote_tfo >= 0) {
        stack[count++] = (struct socks6_stack_option){
            .leg = SOCKS6_LEG_PROXY_REMOTE,
            .level = SOCKS6_LEVEL_TCP,
            .code = SOCKS6_TCP_FAST_OPEN,
            .value = (uint16_t)options->remote_tfo,
        };
    }
    return count;
}

/*
 * The connection through the proxy: 0 and the stream, or an exit status after an error was printed. Not inlined, so that the
 * result does not lie in the frame of the whole run.
 */
__attribute__((noinline)) static int dial(const struct connect_options *options, const struct socks6_proxy *proxy,
                                          struct socks6_slice early, struct stream *stream)
{
    struct reach_config config = {.no_session = options->no_session != 0,
                                  .no_early_data = options->no_early != 0,
                                  .no_fast_open = options->no_tfo != 0};
    struct socks6_stack_option stack[2];
    struct socks6_dial_result result;
    int status;

    socks6_dial_config_init(&config.dial);
    config.dial.proxy = proxy;
    config.dial.addr = options->destination;
    config.dial.family = options->family;
    config.dial.timeout_ms = options->timeout_ms < 0 ? 0 : (uint64_t)options->timeout_ms;
    config.dial.early = early;
    config.dial.stack_count = choose_stack(options, stack);
    config.dial.stack = config.dial.stack_count > 0 ? stack : NULL;
    config.dial.trace = options->verbose ? trace : NULL;
    status = reach(&config, stream, &result);
    if (options->verbose && options->eyeballs != 0) {
        say_eyeballs(&result);
    }
    if (options->verbose && options->remote_tfo >= 0) {
        say_remote_tfo(&result);
    }
    if (status != SOCKS6_DIAL_OK) {
        say(name, "%s", result.error);
    }
    return dial_exit(status);
}

/* Like a program that writes into a pipe without readers: quietly, by SIGPIPE unless whoever started us ignores it. */
static int end_without_reader(const struct connect_options *options)
{
    if (options->verbose) {
        say(name, "nobody reads our standard output any more");
    }
    (void)raise(SIGPIPE);
    return CLI_EXIT_REMOTE;
}

/* Not inlined, so that its text does not lie in the frame of the whole run. */
__attribute__((noinline)) static int pump_exit(const struct connect_options *options, const struct stream *stream,
                                               const struct pump_result *result)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(&options->destination, text, sizeof text);
    switch (result->end) {
    case PUMP_DONE:
    case PUMP_QUIT:
        return CLI_EXIT_OK;
    case PUMP_IDLE:
        say(name, "nothing moved for %d seconds", options->timeout_ms / 1000);
        break;
    case PUMP_OUT_GONE:
        return end_without_reader(options);
    case PUMP_NET_ERROR:
        say(name, "connection to %s lost: %s", text, stream_error(stream, result->error));
        break;
    case PUMP_IN_ERROR:
        say(name, "cannot read standard input: %s", strerror(result->error));
        break;
    case PUMP_OUT_ERROR:
        say(name, "cannot write to standard output: %s", strerror(result->error));
        break;
    case PUMP_NO_MEMORY:
        say(name, "cannot go on: %s", strerror(result->error));
        break;
    }
    return CLI_EXIT_REMOTE;
}

static int pump(const struct connect_options *options, struct stream *stream, size_t early_len)
{
    const struct pump_config config = {
        .in = STDIN_FILENO,
        .out = STDOUT_FILENO,
        .net = stream,
        .idle_ms = options->timeout_ms,
        .quit_ms = options->quit_ms,
        .shutdown_ms = options->shutdown_ms,
        .in_ended = options->early && early_len == 0,
        .trace = options->verbose ? trace : NULL,
    };
    struct pump_result result;

    pump_run(&config, &result);
    if (options->verbose) {
        say(name, "%llu bytes sent, %llu received", (unsigned long long)(result.sent + early_len),
            (unsigned long long)result.received);
    }
    return pump_exit(options, stream, &result);
}

static int run(const struct connect_options *options, const struct socks6_proxy *proxy)
{
    uint8_t *buf = NULL;
    struct socks6_slice early = {NULL, 0};
    struct stream stream;
    int rc;

    if (options->early) {
        ssize_t n;

        buf = malloc(EARLY_MAX);
        if (buf == NULL) {
            say(name, "out of memory");
            return CLI_EXIT_REMOTE;
        }
        n = read_early(buf);
        if (n < 0) {
            free(buf);
            return CLI_EXIT_REMOTE;
        }
        early = (struct socks6_slice){buf, (size_t)n};
    }
    rc = dial(options, proxy, early, &stream);
    free(buf);
    if (rc == CLI_EXIT_OK) {
        rc = pump(options, &stream, early.len);
    }
    stream_done(&stream);
    return rc;
}

int cmd_connect(struct proxy_options *proxy_options, int argc, char **argv)
{
    struct connect_options options;
    struct socks6_proxy proxy;
    const char *source = NULL;
    int rc = connect_parse(argc, argv, proxy_options, &options);

    if (rc != 0) {
        return rc;
    }
    if (options.help) {
        return command_print_help(name, help_text);
    }
    memset(&proxy, 0, sizeof proxy);
    rc = proxy_choose(proxy_options, name, &proxy, &source);
    if (rc == 0) {
        if (options.verbose) {
            proxy_say(&proxy, source, name);
        }
        rc = run(&options, &proxy);
    }
    explicit_bzero(&proxy, sizeof proxy);
    return rc;
}
