/*
 * The command line of `socks6 dns`: options as usual, dig(1)'s "+" words, and names, types and classes in any order.
 */
#ifndef CLI_DNS_ARGS_H
#define CLI_DNS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/proxy.h"
#include "dns/message.h"

#define DNS_ARGS_LISTEN_MAX 16u
#define DNS_ARGS_OPTIONS_MAX 1024u /* bytes of EDNS options that can be asked for */

/* What is shown of an answer. */
struct dns_view {
    bool is_short, json;
    bool comments, question, answer, authority, additional, stats;
    size_t split; /* see dns_rdata_format() */
};

struct dns_args {
    int family;                                   /* -4, -6: of the connection to the proxy; else AF_UNSPEC */
    int timeout_ms;                               /* -w */
    bool verbose;                                 /* -v */
    bool no_session, no_early_data, no_fast_open; /* --no-session, --no-early-data, --no-tfo: see struct reach_config */
    bool help;                                    /* --help: nothing else was looked at */
    struct dns_view view;

    struct dns_question *questions; /* owned; in the order of the command line, then of the file */
    size_t question_count, question_room;
    uint16_t flags; /* of the header of each question */
    bool with_edns;
    uint16_t edns_flags, edns_udp_len;
    uint8_t edns_options[DNS_ARGS_OPTIONS_MAX];
    size_t edns_options_len;

    struct socks6_addr listen[DNS_ARGS_LISTEN_MAX]; /* --listen; IPv4 or IPv6 */
    size_t listen_count;
    bool open; /* --open: also others than this machine */
};

/* Reads argv. 0, or an exit status after an error was printed; `out` is to be freed in both cases. */
int dns_args_parse(int argc, char **argv, struct proxy_options *proxy, struct dns_args *out);
void dns_args_done(struct dns_args *args);

/* The name that belongs to an IP address: 1.2.0.192.in-addr.arpa. False if `text` is none. */
bool dns_args_reverse(const char *text, struct dns_name *out);

#endif
