/*
 * The command line of `socks6 probe`; what is asked is in probe_plan.c, how it is printed in probe_table.c and
 * probe_json.c.
 */
#include "cli/cmd_probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd_connect.h"
#include "cli/command.h"
#include "cli/exit.h"
#include "cli/probe_dns.h"
#include "cli/probe_print.h"
#include "cli/say.h"

#define TIMEOUT_S 15
#define TIMEOUT_MAX_S 3600

/* A URL with its files. */
#define URL_MAX 4096u

static const char name[] = "probe";

enum own_option { OPTION_JSON = COMMAND_OPTION_OWN, OPTION_TARGET, OPTION_TIMEOUT, OPTION_DNS_NAME };

static const char help_text[] = "Usage: socks6 [-x PROXY] probe [OPTION]... [PROXY]\n"
                                "Asks a proxy what it is and can do, by real requests, and prints a table.\n"
                                "\n"
                                "PROXY is a URL as with -x, or HOST[:PORT]: any version of SOCKS will do then.\n"
                                "\n"
                                "  -4, -6                 reach the proxy over IPv4 or IPv6 only\n"
                                "      --dns-name NAME    ask the proxy's DNS service for the address of NAME;\n"
                                "                         default: for the name servers of the root\n"
                                "      --json             print JSON\n"
                                "      --target HOST:PORT ask the proxy to connect there (nothing is sent); default:\n"
                                "                         to itself, so that nobody else is bothered\n"
                                "      --timeout SECONDS  time for all questions together (15); one question may\n"
                                "                         take a quarter of it\n"
                                "  -v                     say on standard error what is asked\n" COMMAND_OPTIONS_HELP
                                "  -h, --help             show this\n"
                                "\n"
                                "Exit status, for health checks: 0 the proxy can be used; 1 it answers, but does not\n"
                                "reach the target, breaks the protocol somewhere, or the time ran out; 2 usage;\n"
                                "3 it cannot be reached, refuses us, or is no proxy of that kind.\n";

/* Takes "HOST:PORT" apart, "[IPV6]:PORT" too. */
static int take_target(char *text, struct probe_options *out)
{
    char *colon = strrchr(text, ':');
    uint16_t port = colon != NULL ? connect_parse_port(colon + 1) : 0;
    size_t host_len = colon != NULL ? (size_t)(colon - text) : 0;
    char host[SOCKS6_NAME_MAX + 3]; /* with the brackets */

    if (port == 0) {
        return say_usage(name, "--target: '%s' is not HOST:PORT", text);
    }
    if (host_len > 0 && host_len < sizeof host && (memchr(text, ':', host_len) == NULL || text[0] == '[')) {
        memcpy(host, text, host_len);
        host[host_len] = '\0';
        if (socks6_addr_parse(host, port, &out->target) == SOCKS6_OK) {
            socks6_addr_normalize(&out->target);
            out->has_target = 1;
            return 0;
        }
    }
    return say_usage(name, "--target: '%s' is not HOST:PORT; an IPv6 address stands in brackets", text);
}

static int take_timeout(const char *text, struct probe_options *out)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > TIMEOUT_MAX_S) {
        return say_usage(name, "--timeout: '%s' is not a number of seconds from 1 to %d", text, TIMEOUT_MAX_S);
    }
    out->timeout_ms = (uint64_t)value * 1000u;
    return 0;
}

static int take_dns_name(const char *text, struct probe_options *out)
{
    uint8_t query[PROBE_DNS_QUERY_MAX];

    if (probe_dns_query(text, 0, query) == 0) {
        return say_usage(name, "--dns-name: '%s' is not a domain name", text);
    }
    out->dns_name = text;
    return 0;
}

static int take_family(int family, struct probe_options *out)
{
    if (out->family != AF_UNSPEC && out->family != family) {
        return say_usage(name, "-4 and -6 exclude each other");
    }
    out->family = family;
    return 0;
}

static int take_option(int option, char **argv, struct proxy_options *proxy, struct probe_options *out)
{
    if (command_take_option(proxy, option, optarg)) {
        return 0;
    }
    switch (option) {
    case '4':
        return take_family(AF_INET, out);
    case '6':
        return take_family(AF_INET6, out);
    case 'v':
        out->verbose = 1;
        return 0;
    case 'h':
        out->help = 1;
        return 0;
    case OPTION_JSON:
        out->json = 1;
        return 0;
    case OPTION_TARGET:
        return take_target(optarg, out);
    case OPTION_TIMEOUT:
        return take_timeout(optarg, out);
    case OPTION_DNS_NAME:
        return take_dns_name(optarg, out);
    default:
        return command_bad_option(name, option, argv);
    }
}

int probe_parse(int argc, char **argv, struct proxy_options *proxy, struct probe_options *out)
{
    static const struct option longs[] = {COMMAND_LONG_OPTIONS,
                                          {"json", no_argument, NULL, OPTION_JSON},
                                          {"target", required_argument, NULL, OPTION_TARGET},
                                          {"timeout", required_argument, NULL, OPTION_TIMEOUT},
                                          {"dns-name", required_argument, NULL, OPTION_DNS_NAME},
                                          {NULL, 0, NULL, 0}};
    int option, rc;

    memset(out, 0, sizeof *out);
    out->family = AF_UNSPEC;
    out->timeout_ms = TIMEOUT_S * 1000u;
    out->dns_name = ".";
    opterr = 0;
    optind = 0; /* start anew: main() has used getopt_long() on the words before ours */
    while ((option = getopt_long(argc, argv, ":46v" COMMAND_SHORT_OPTIONS, longs, NULL)) != -1) {
        rc = take_option(option, argv, proxy, out);
        if (rc != 0 || out->help) {
            return rc;
        }
    }
    if (argc - optind > 1) {
        return say_usage(name, "there is a word too many: '%s'", argv[optind + 1]);
    }
    out->proxy = argv[optind]; /* NULL behind the last */
    if (out->proxy != NULL && proxy->url != NULL) {
        return say_usage(name, "the proxy is named twice: by -x and by '%s'", out->proxy);
    }
    return 0;
}

static void trace(const char *what)
{
    say(name, "asking %s", what);
}

/* The proxy as PROXY or the usual places name it. `url`: room for PROXY with a scheme. 0 or an exit status. */
static int choose_proxy(const struct probe_options *options, struct proxy_options *proxy_options, char *url,
                        size_t size, struct probe_settings *settings)
{
    const char *source = NULL;
    int rc;

    if (options->proxy != NULL) {
        settings->any_version = strstr(options->proxy, "://") == NULL;
        rc = snprintf(url, size, "%s%s", settings->any_version ? "socks6://" : "", options->proxy);
        if (rc < 0 || (size_t)rc >= size) {
            return say_usage(name, "the name of the proxy is too long");
        }
        proxy_options->url = url;
    }
    rc = proxy_choose(proxy_options, name, &settings->proxy, &source);
    if (rc == 0 && options->verbose) {
        proxy_say(&settings->proxy, options->proxy != NULL ? "the command line" : source, name);
    }
    return rc;
}

static int print_report(const struct probe_options *options, const struct probe_report *report)
{
    if (options->json) {
        probe_print_json(stdout, report);
    } else {
        probe_print_table(stdout, report);
    }
    if (fflush(stdout) == EOF || ferror(stdout)) {
        say(name, "cannot write to standard output: %s", strerror(errno));
        return CLI_EXIT_REMOTE;
    }
    return report->exit_status;
}

static int run(const struct probe_options *options, const struct probe_settings *settings)
{
    struct probe_report *report = malloc(sizeof *report);
    int rc = -ENOMEM;

    if (report != NULL) {
        probe_report_init(report);
        rc = probe_plan_run(settings, report);
    }
    if (rc == 0) {
        rc = print_report(options, report);
    } else {
        say(name, "out of memory");
        rc = CLI_EXIT_REMOTE;
    }
    free(report);
    return rc;
}

int cmd_probe(struct proxy_options *proxy_options, int argc, char **argv)
{
    struct probe_options options;
    struct probe_settings settings;
    char *url;
    int rc = probe_parse(argc, argv, proxy_options, &options);

    if (rc != 0) {
        return rc;
    }
    if (options.help) {
        return command_print_help(name, help_text);
    }
    memset(&settings, 0, sizeof settings);
    settings.has_target = options.has_target != 0;
    settings.target = options.target;
    settings.dns_name = options.dns_name;
    settings.timeout_ms = options.timeout_ms;
    settings.family = options.family;
    settings.trace = options.verbose ? trace : NULL;
    url = malloc(URL_MAX);
    if (url == NULL) {
        say(name, "out of memory");
        return CLI_EXIT_REMOTE;
    }
    rc = choose_proxy(&options, proxy_options, url, URL_MAX, &settings);
    if (rc == 0) {
        rc = run(&options, &settings);
    }
    explicit_bzero(&settings, sizeof settings);
    explicit_bzero(url, URL_MAX);
    free(url);
    return rc;
}
