#include "cli/cmd_dns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/dns_args.h"
#include "cli/dns_listen.h"
#include "cli/dns_print.h"
#include "cli/dns_query.h"
#include "cli/exit.h"
#include "cli/say.h"
#include "dns/text.h"

static const char name[] = "dns";

static const char help_text[] =
    "Usage: socks6 dns [OPTION]... NAME [TYPE]... [NAME [TYPE]...]...\n"
    "       socks6 dns [OPTION]... --listen ADDR:PORT...\n"
    "Asks the DNS service of a proxy, as dig(1) asks a server. With --listen: is a\n"
    "DNS server for programs on this machine that asks there.\n"
    "\n"
    "TYPE is a record type (A, which is the default, AAAA, MX, HTTPS, TYPE65280 ...).\n"
    "Types follow their name; those before the first name are for all names without\n"
    "their own. All questions go over one connection, and none waits for another.\n"
    "\n"
    "  -4, -6                 reach the proxy over IPv4, or IPv6, only\n"
    "  -c, --class CLASS      class of the question: IN, CH, HS, CLASSnnn\n"
    "  -f, --file FILE        names and types, one line each; -: standard input\n"
    "  -q NAME                a name, even if it looks like a type\n"
    "  -t, --type TYPE        a type\n"
    "  -v                     say each step on standard error\n"
    "  -w SECONDS             give up if the connection is not made, or an answer not\n"
    "                         there, in that time (default 15; with --listen 4)\n"
    "  -x, --reverse ADDRESS  the name that belongs to an IP address (-x URL, with\n"
    "                         ://, is the proxy)\n"
    "      --listen ADDR[:PORT]\n"
    "                         serve DNS over UDP and TCP there (default port 53)\n"
    "      --open             with --listen: also for other machines than this one\n"
    "      --no-early-data    over TLS, send nothing before the handshake is over\n"
    "      --no-session       introduce ourselves to the proxy anew, and keep nothing\n"
    "      --no-tfo           no TCP Fast Open: the SYN to the proxy carries no data\n"
    "      --short, --json    show only the data; one JSON object for each answer\n"
    "      --dnssec, --cd, --no-recurse, --no-edns, --nsid, --ednsopt CODE[:HEX]\n"
    "                         what the question says; the words below do the same\n" COMMAND_OPTIONS_HELP
    "  -h, --help             show this\n"
    "\n"
    "Words as of dig(1), of which most take 'no': +short +json +dnssec +recurse +cd\n"
    "+ad +edns +bufsize=N +nsid +subnet=ADDR/LEN +ednsopt=CODE:HEX +split=N +all\n"
    "+comments +question +answer +authority +additional +stats\n"
    "\n"
    "Exit status: 0 each question was answered, be it with \"no such name\"; 1 one was\n"
    "not, or with a failure (SERVFAIL, REFUSED ...); 2 usage; 3 the proxy cannot be\n"
    "reached, refused us, or offers no DNS service.\n";

/* What the callback below needs and leaves behind. */
struct show {
    const struct dns_args *args;
    struct dns_print print;
    char server[SOCKS6_ADDR_TEXT_MAX + sizeof "proxy socks5h://, DNS service"];
    bool failed;
};

/* For dns_query_run(). */
static void on_done(void *user, const struct dns_question *question, const uint8_t *message, size_t len,
                    uint64_t time_ms, const char *why)
{
    struct show *show = user;
    struct dns_edns edns;
    struct dns_shown answer = {message, len, &edns, show->server, time_ms};
    unsigned rcode;

    if (message != NULL && dns_message_check(message, len, &edns, NULL) != 0) {
        why = "the answer is malformed";
    }
    if (why != NULL) {
        char text[DNS_NAME_TEXT_MAX], type[DNS_MNEMONIC_MAX];

        (void)dns_name_format(&question->name, text);
        (void)dns_type_format(question->type, type);
        dns_print_failure(stdout, &show->args->view, question, why);
        (void)fflush(stdout);
        say(name, "%s %s: %s", text, type, why);
        show->failed = true;
        return;
    }
    rcode = dns_shown_rcode(&answer);
    show->failed = show->failed || (rcode != DNS_RCODE_NOERROR && rcode != DNS_RCODE_NXDOMAIN);
    dns_print_answer(stdout, &show->print, &show->args->view, &answer);
    (void)fflush(stdout); /* the next answer may take its time */
}

/* Not inlined, so that its texts do not lie in the frame of the whole run. */
__attribute__((noinline)) static int query(const struct dns_args *args, const struct socks6_proxy *proxy)
{
    struct show show = {.args = args, .print = {malloc(DNS_RDATA_TEXT_MAX), DNS_RDATA_TEXT_MAX}};
    const struct dns_query_config config = {.proxy = proxy, .args = args, .done = on_done, .user = &show};
    char proxy_text[SOCKS6_ADDR_TEXT_MAX];
    int rc;

    if (show.print.text == NULL) {
        say(name, "out of memory");
        return CLI_EXIT_REMOTE;
    }
    (void)socks6_addr_format(&proxy->addr, proxy_text, sizeof proxy_text);
    (void)snprintf(show.server, sizeof show.server, "proxy %s://%s, DNS service", proxy_scheme_name(proxy), proxy_text);
    rc = dns_query_run(&config);
    free(show.print.text);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        say(name, "cannot write to standard output: %s", strerror(errno));
        return CLI_EXIT_REMOTE;
    }
    return rc == CLI_EXIT_OK && show.failed ? CLI_EXIT_REMOTE : rc;
}

static int run(const struct dns_args *args, struct proxy_options *proxy_options)
{
    struct socks6_proxy proxy;
    const char *source = NULL;
    int rc;

    memset(&proxy, 0, sizeof proxy);
    rc = proxy_choose(proxy_options, name, &proxy, &source);
    if (rc == 0) {
        if (args->verbose) {
            proxy_say(&proxy, source, name);
        }
        rc = args->listen_count > 0 ? dns_listen_run(args, &proxy) : query(args, &proxy);
    }
    explicit_bzero(&proxy, sizeof proxy);
    return rc;
}

int cmd_dns(struct proxy_options *proxy_options, int argc, char **argv)
{
    struct dns_args *args = malloc(sizeof *args);
    int rc;

    if (args == NULL) {
        say(name, "out of memory");
        return CLI_EXIT_REMOTE;
    }
    rc = dns_args_parse(argc, argv, proxy_options, args);
    if (rc == 0 && args->help) {
        rc = command_print_help(name, help_text);
    } else if (rc == 0) {
        rc = run(args, proxy_options);
    }
    dns_args_done(args);
    free(args);
    return rc;
}
