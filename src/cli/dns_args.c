#include "cli/dns_args.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/dns_words.h"
#include "cli/exit.h"
#include "cli/say.h"
#include "dns/text.h"

/* Longer than two tries of 5 seconds, after which most resolvers give up: their "no" is better than our silence. */
#define QUESTION_TIMEOUT_MS 15000
/* Shorter than what stub resolvers wait: they ask again after 5 seconds (resolv.conf(5), "timeout"). */
#define LISTEN_TIMEOUT_MS 4000
#define EDNS_UDP_LEN 1232

enum {
    OPTION_PROXY = COMMAND_OPTION_OWN,
    OPTION_REVERSE,
    OPTION_LISTEN,
    OPTION_OPEN,
    OPTION_NO_EARLY_DATA,
    OPTION_NO_RECURSE,
    OPTION_NO_SESSION,
    OPTION_NO_TFO,
    OPTION_EDNSOPT,
    OPTION_PLUS_FIRST, /* long forms of "+" words: see plus_words */
    OPTION_SHORT = OPTION_PLUS_FIRST,
    OPTION_JSON,
    OPTION_DNSSEC,
    OPTION_CD,
    OPTION_NO_EDNS,
    OPTION_NSID
};

static const char *const plus_words[] = {"short", "json", "dnssec", "cd", "noedns", "nsid"};

static const char command[] = "dns";

bool dns_args_reverse(const char *text, struct dns_name *out)
{
    char name[sizeof "f." * 32 + sizeof "ip6.arpa."];
    uint8_t bytes[16];
    size_t len = 0;

    if (inet_pton(AF_INET, text, bytes) == 1) {
        (void)snprintf(name, sizeof name, "%u.%u.%u.%u.in-addr.arpa.", bytes[3], bytes[2], bytes[1], bytes[0]);
    } else if (inet_pton(AF_INET6, text, bytes) == 1) {
        for (size_t i = 16; i-- > 0;) {
            len += (size_t)snprintf(name + len, sizeof name - len, "%x.%x.", bytes[i] & 0xfu, bytes[i] >> 4);
        }
        (void)snprintf(name + len, sizeof name - len, "ip6.arpa.");
    } else {
        return false;
    }
    return dns_name_parse(name, out) == 0;
}

static int take_seconds(const char *text, int *out_ms)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 || value > INT_MAX / 1000) {
        return say_usage(command, "-w: '%s' is not a number of seconds, 1 or more", text);
    }
    *out_ms = (int)value * 1000;
    return 0;
}

/* ADDR, ADDR:PORT, [IPv6]:PORT. */
static int take_listen(const char *text, struct dns_args *out)
{
    char host[INET6_ADDRSTRLEN + 3];
    const char *colon = strrchr(text, ':');
    bool has_port = colon != NULL && (text[0] == '[' ? colon[-1] == ']' : strchr(text, ':') == colon);
    size_t host_len = has_port ? (size_t)(colon - text) : strlen(text);
    char *end = NULL;
    unsigned long port = 53;

    if (out->listen_count == DNS_ARGS_LISTEN_MAX) {
        return say_usage(command, "--listen: more than %u addresses", DNS_ARGS_LISTEN_MAX);
    }
    if (has_port) {
        port = strtoul(colon + 1, &end, 10);
    }
    if (host_len < sizeof host && (!has_port || (colon[1] >= '0' && colon[1] <= '9' && *end == '\0')) &&
        port <= UINT16_MAX) {
        memcpy(host, text, host_len);
        host[host_len] = '\0';
        if (socks6_addr_parse(host, (uint16_t)port, &out->listen[out->listen_count]) == SOCKS6_OK &&
            out->listen[out->listen_count].type != SOCKS6_ADDR_NAME) {
            out->listen_count++;
            return 0;
        }
    }
    return say_usage(command, "--listen: '%s' is not an address and port, such as 127.0.0.1:53 or [::1]:53", text);
}

/* Two options share the letter: the proxy's URL, as before the subcommand, and dig(1)'s address to find the name of. */
static int take_x(const char *text, struct proxy_options *proxy, struct dns_words *words)
{
    struct dns_name name;

    if (strstr(text, "://") != NULL) {
        proxy->url = text;
        return 0;
    }
    if (!dns_args_reverse(text, &name)) {
        return say_usage(command, "-x: '%s' is neither the URL of a proxy nor an IP address", text);
    }
    return dns_words_reverse(words, text);
}

static int set_family(struct dns_args *out, int family)
{
    if (out->family != AF_UNSPEC && out->family != family) {
        return say_usage(command, "-4 and -6 exclude each other");
    }
    out->family = family;
    return 0;
}

/* A word that is no option. */
static int take_word(struct dns_args *out, struct dns_words *words, const char *word)
{
    return word[0] == '+' ? dns_words_option(out, word + 1) : dns_words_take(words, word);
}

static int take_option(int option, char **argv, struct proxy_options *proxy, struct dns_args *out,
                       struct dns_words *words, const char **file)
{
    switch (option) {
    case 1:
        return take_word(out, words, optarg);
    case '4':
        return set_family(out, AF_INET);
    case '6':
        return set_family(out, AF_INET6);
    case 'c':
        return dns_words_class(words, optarg);
    case 'f':
        *file = optarg;
        return 0;
    case 'h':
        out->help = true;
        return 0;
    case 'q':
        return dns_words_name(words, optarg);
    case 't':
        return dns_words_type(words, optarg);
    case 'v':
        out->verbose = true;
        return 0;
    case 'w':
        return take_seconds(optarg, &out->timeout_ms);
    case 'x':
        return take_x(optarg, proxy, words);
    case OPTION_PROXY:
        proxy->url = optarg;
        return 0;
    case OPTION_REVERSE:
        return dns_words_reverse(words, optarg);
    case OPTION_LISTEN:
        return take_listen(optarg, out);
    case OPTION_OPEN:
        out->open = true;
        return 0;
    case OPTION_NO_EARLY_DATA:
        out->no_early_data = true;
        return 0;
    case OPTION_NO_SESSION:
        out->no_session = true;
        return 0;
    case OPTION_NO_TFO:
        out->no_fast_open = true;
        return 0;
    case OPTION_NO_RECURSE:
        return dns_words_option(out, "norecurse");
    case OPTION_EDNSOPT:
        return dns_words_edns_option(out, optarg);
    default:
        if (option >= OPTION_PLUS_FIRST) {
            return dns_words_option(out, plus_words[option - OPTION_PLUS_FIRST]);
        }
        return command_take_option(proxy, option, optarg) ? 0 : command_bad_option(command, option, argv);
    }
}

static int check(const struct dns_args *out, const char *file)
{
    if (out->listen_count > 0 && (out->question_count > 0 || file != NULL)) {
        return say_usage(command, "--listen serves others; it does not go together with a NAME");
    }
    if (out->open && out->listen_count == 0) {
        return say_usage(command, "--open goes with --listen");
    }
    if (out->listen_count == 0 && out->question_count == 0) {
        return file != NULL ? say_usage(command, "there is no NAME in %s", file)
                            : say_usage(command, "NAME is missing");
    }
    return 0;
}

static void init(struct dns_args *out)
{
    memset(out, 0, sizeof *out);
    out->family = AF_UNSPEC;
    out->view = (struct dns_view){.comments = true,
                                  .question = true,
                                  .answer = true,
                                  .authority = true,
                                  .additional = true,
                                  .stats = true,
                                  .split = DNS_SPLIT_WIDTH};
    out->flags = DNS_FLAG_RD | DNS_FLAG_AD;
    out->with_edns = true;
    out->edns_udp_len = EDNS_UDP_LEN;
}

int dns_args_parse(int argc, char **argv, struct proxy_options *proxy, struct dns_args *out)
{
    static const struct option longs[] = {
        {"proxy", required_argument, NULL, OPTION_PROXY}, /* before the one with 'x' */
        COMMAND_LONG_OPTIONS,
        {"reverse", required_argument, NULL, OPTION_REVERSE},
        {"listen", required_argument, NULL, OPTION_LISTEN},
        {"open", no_argument, NULL, OPTION_OPEN},
        {"short", no_argument, NULL, OPTION_SHORT},
        {"json", no_argument, NULL, OPTION_JSON},
        {"dnssec", no_argument, NULL, OPTION_DNSSEC},
        {"cd", no_argument, NULL, OPTION_CD},
        {"no-recurse", no_argument, NULL, OPTION_NO_RECURSE},
        {"no-edns", no_argument, NULL, OPTION_NO_EDNS},
        {"no-early-data", no_argument, NULL, OPTION_NO_EARLY_DATA},
        {"no-session", no_argument, NULL, OPTION_NO_SESSION},
        {"no-tfo", no_argument, NULL, OPTION_NO_TFO},
        {"nsid", no_argument, NULL, OPTION_NSID},
        {"ednsopt", required_argument, NULL, OPTION_EDNSOPT},
        {"type", required_argument, NULL, 't'},
        {"class", required_argument, NULL, 'c'},
        {"file", required_argument, NULL, 'f'},
        {NULL, 0, NULL, 0}};
    struct dns_words words;
    const char *file = NULL;
    int option, rc = 0;

    init(out);
    dns_words_init(&words, out);
    opterr = 0;
    optind = 0; /* start anew: main() has used getopt_long() on the words before ours */
    /* '-': other words come in their place, as option 1. */
    while (rc == 0 && (option = getopt_long(argc, argv, "-:46c:f:q:t:vw:" COMMAND_SHORT_OPTIONS, longs, NULL)) != -1) {
        rc = take_option(option, argv, proxy, out, &words, &file);
        if (out->help) {
            return 0;
        }
    }
    for (; rc == 0 && optind < argc; optind++) { /* behind "--" */
        rc = take_word(out, &words, argv[optind]);
    }
    if (rc == 0) {
        rc = dns_words_end(&words);
    }
    if (rc == 0 && file != NULL) {
        rc = dns_words_file(&words, file);
    }
    if (rc == 0) {
        rc = check(out, file);
    }
    if (out->timeout_ms == 0) {
        out->timeout_ms = out->listen_count > 0 ? LISTEN_TIMEOUT_MS : QUESTION_TIMEOUT_MS;
    }
    return rc;
}

void dns_args_done(struct dns_args *args)
{
    free(args->questions);
    args->questions = NULL;
}
