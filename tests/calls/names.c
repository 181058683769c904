/* Names: getaddrinfo(3) and what came before it, getnameinfo(3), getaddrinfo_a(3), and resolver(3). */
#include "calls.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define LINE_LEN 1024u
#define MAPPED4 ("::ffff:" SERVER4)

static const char *eai_text(int code)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {{0, "0"},
                 {EAI_BADFLAGS, "EAI_BADFLAGS"},
                 {EAI_NONAME, "EAI_NONAME"},
                 {EAI_AGAIN, "EAI_AGAIN"},
                 {EAI_FAIL, "EAI_FAIL"},
                 {EAI_NODATA, "EAI_NODATA"},
                 {EAI_FAMILY, "EAI_FAMILY"},
                 {EAI_SOCKTYPE, "EAI_SOCKTYPE"},
                 {EAI_SERVICE, "EAI_SERVICE"},
                 {EAI_ADDRFAMILY, "EAI_ADDRFAMILY"},
                 {EAI_MEMORY, "EAI_MEMORY"},
                 {EAI_SYSTEM, "EAI_SYSTEM"},
                 {EAI_OVERFLOW, "EAI_OVERFLOW"},
                 {EAI_INPROGRESS, "EAI_INPROGRESS"},
                 {EAI_CANCELED, "EAI_CANCELED"},
                 {EAI_ALLDONE, "EAI_ALLDONE"}};
    for (size_t i = 0; i < COUNT(names); i++) {
        if (names[i].code == code) {
            return names[i].name;
        }
    }
    return "another code";
}

static void append(char *line, const char *text)
{
    (void)snprintf(line + strlen(line), LINE_LEN - strlen(line), "%s", text);
}

/* "ADDRESS port PORT", in a static buffer. */
static const char *address_text(const struct sockaddr *addr)
{
    static char text[96];
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *ipv4 = (const void *)addr;
    const struct sockaddr_in6 *ipv6 = (const void *)addr;
    bool is_ipv6 = addr->sa_family == AF_INET6;
    (void)inet_ntop(addr->sa_family, is_ipv6 ? (const void *)&ipv6->sin6_addr : (const void *)&ipv4->sin_addr, host,
                    sizeof host);
    (void)snprintf(text, sizeof text, "%s port %u", host, ntohs(is_ipv6 ? ipv6->sin6_port : ipv4->sin_port));
    return text;
}

/* What comes twice is told once: glibc takes "::1 localhost" of /etc/hosts for a second 127.0.0.1. */
static void say_list(const char *what, int code, const struct addrinfo *list)
{
    char line[LINE_LEN] = "", text[192];
    for (const struct addrinfo *one = list; code == 0 && one != NULL; one = one->ai_next) {
        (void)snprintf(text, sizeof text, "; %s %d/%d/%d flags %x length %u", address_text(one->ai_addr),
                       one->ai_family, one->ai_socktype, one->ai_protocol, (unsigned)one->ai_flags, one->ai_addrlen);
        if (strstr(line, text) == NULL) {
            append(line, text);
        }
        if (one->ai_canonname != NULL) {
            append(line, " '");
            append(line, one->ai_canonname);
            append(line, "'");
        }
    }
    say("%s: %s%s", what, eai_text(code), line);
}

static void ask(const char *node, const char *service, int family, int type, int flags, const char *flags_text)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = type, .ai_flags = flags};
    struct addrinfo *list = NULL;
    char what[256];
    (void)snprintf(what, sizeof what, "getaddrinfo %s %s family %d type %d %s", node == NULL ? "NULL" : node,
                   service == NULL ? "NULL" : service, family, type, flags_text);
    int code = getaddrinfo(node, service, &hints, &list);
    say_list(what, code, list);
    if (code == 0) {
        freeaddrinfo(list);
    }
}

#define FLAGS(flags)                                                                                                   \
    {                                                                                                                  \
        flags, #flags                                                                                                  \
    }

static void all_combinations(void)
{
    static const char *const nodes[] = {"web.run.test",
                                        "web.run.test.",
                                        "WEB.Run.Test",
                                        "alias.run.test",
                                        "www",
                                        "no-data.run.test",
                                        "no-such.run.test",
                                        "in-hosts.run.test",
                                        "localhost",
                                        SERVER4,
                                        SERVER6,
                                        "10.60.1",
                                        "fe80::1%lo",
                                        "",
                                        NULL};
    static const char *const services[] = {NULL, "80", "http", "no-such-service"};
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
    static const int types[] = {0, SOCK_STREAM};
    static const struct {
        int flags;
        const char *text;
    } flags[] = {FLAGS(0),
                 FLAGS(AI_CANONNAME),
                 FLAGS(AI_NUMERICHOST),
                 FLAGS(AI_PASSIVE),
                 FLAGS(AI_ADDRCONFIG),
                 FLAGS(AI_V4MAPPED),
                 FLAGS(AI_V4MAPPED | AI_ALL),
                 FLAGS(AI_V4MAPPED | AI_ADDRCONFIG | AI_CANONNAME),
                 FLAGS(AI_NUMERICSERV),
                 FLAGS(0x8000)};
    for (size_t n = 0; n < COUNT(nodes); n++) {
        for (size_t f = 0; f < COUNT(flags); f++) {
            for (size_t a = 0; a < COUNT(families); a++) {
                for (size_t s = 0; s < COUNT(services); s++) {
                    ask(nodes[n], services[s], families[a], types[s % 2], flags[f].flags, flags[f].text);
                }
            }
        }
    }
}

static void odd_questions(void)
{
    char text[512];
    struct addrinfo *list = NULL;
    say_list("no hints", getaddrinfo("web.run.test", "80", NULL, &list), list);
    freeaddrinfo(list);
    ask("web.run.test", "80", AF_UNIX, 0, 0, "0");
    ask("web.run.test", "80", AF_INET, SOCK_RAW, 0, "0");
    ask("web.run.test", "80", AF_INET, 77, 0, "0");
    ask("web.run.test", "99999", AF_INET, SOCK_STREAM, AI_NUMERICSERV, "AI_NUMERICSERV");
    ask(" web.run.test", "80", AF_INET, SOCK_STREAM, 0, "0");
    ask("we b.run.test", "80", AF_INET, SOCK_STREAM, 0, "0");
    ask("-web.run.test", "80", AF_INET, SOCK_STREAM, 0, "0");
    ask("web..run.test", "80", AF_INET, SOCK_STREAM, 0, "0");
    ask(".", "80", AF_INET, SOCK_STREAM, 0, "0");
    memset(text, 'x', 300);
    text[300] = '\0';
    ask(text, "80", AF_INET, SOCK_STREAM, 0, "0");
    memset(text, 'y', 64);
    (void)snprintf(text + 64, sizeof text - 64, ".run.test");
    ask(text, "80", AF_INET, SOCK_STREAM, 0, "0");
    /* The order in which addresses of both families come. */
    ask("web.run.test", NULL, AF_UNSPEC, SOCK_STREAM, 0, "0");
}

/* ---- gethostbyname and its relatives ---- */

static const char *h_error_text(int code)
{
    switch (code) {
    case 0:
        return "0";
    case HOST_NOT_FOUND:
        return "HOST_NOT_FOUND";
    case TRY_AGAIN:
        return "TRY_AGAIN";
    case NO_RECOVERY:
        return "NO_RECOVERY";
    case NO_DATA:
        return "NO_DATA";
    case NETDB_INTERNAL:
        return "NETDB_INTERNAL";
    default:
        return "another code";
    }
}

static void say_host(const char *what, const struct hostent *host, int code)
{
    char line[LINE_LEN] = "", text[INET6_ADDRSTRLEN + 1];
    if (host == NULL) {
        say("%s: %s", what, h_error_text(code));
        return;
    }
    for (char **alias = host->h_aliases; *alias != NULL; alias++) {
        append(line, " alias ");
        append(line, *alias);
    }
    for (char **addr = host->h_addr_list; *addr != NULL; addr++) {
        text[0] = ' ';
        if (inet_ntop(host->h_addrtype, *addr, text + 1, sizeof text - 1) != NULL && strstr(line, text) == NULL) {
            append(line, text);
        }
    }
    say("%s: '%s' family %d length %d%s", what, host->h_name, host->h_addrtype, host->h_length, line);
}

static void by_name(const char *name)
{
    char what[256], buffer[2048];
    struct hostent entry, *host = NULL;
    int code = 0;
    (void)snprintf(what, sizeof what, "gethostbyname %s", name);
    host = gethostbyname(name); // NOLINT(concurrency-mt-unsafe): it is what is tried
    say_host(what, host, h_errno);
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    for (size_t i = 0; i < COUNT(families); i++) {
        (void)snprintf(what, sizeof what, "gethostbyname2 %s family %d", name, families[i]);
        host = gethostbyname2(name, families[i]);
        say_host(what, host, h_errno);
    }
    int result = gethostbyname_r(name, &entry, buffer, sizeof buffer, &host, &code);
    (void)snprintf(what, sizeof what, "gethostbyname_r %s = %s", name, error_text(result));
    say_host(what, host, code);
    result = gethostbyname_r(name, &entry, buffer, 24, &host, &code);
    (void)snprintf(what, sizeof what, "gethostbyname_r %s, small buffer = %s", name, error_text(result));
    say_host(what, host, code);
    result = gethostbyname2_r(name, AF_INET6, &entry, buffer, sizeof buffer, &host, &code);
    (void)snprintf(what, sizeof what, "gethostbyname2_r %s = %s", name, error_text(result));
    say_host(what, host, code);
}

static void by_address(const char *text, socklen_t wrong_len)
{
    char what[256], buffer[2048];
    struct in6_addr addr;
    struct hostent entry, *host = NULL;
    int code = 0;
    int family = strchr(text, ':') == NULL ? AF_INET : AF_INET6;
    (void)inet_pton(family, text, &addr);
    socklen_t len = wrong_len != 0 ? wrong_len : family == AF_INET ? 4 : 16;
    (void)snprintf(what, sizeof what, "gethostbyaddr %s length %u", text, len);
    host = gethostbyaddr(&addr, len, family); // NOLINT(concurrency-mt-unsafe): it is what is tried
    say_host(what, host, h_errno);
    int result = gethostbyaddr_r(&addr, len, family, &entry, buffer, sizeof buffer, &host, &code);
    (void)snprintf(what, sizeof what, "gethostbyaddr_r %s = %s", text, error_text(result));
    say_host(what, host, code);
}

static void name_info(const char *text, int flags, const char *flags_text, socklen_t host_len, socklen_t service_len)
{
    struct target target = target_of(text, 80);
    char host[NI_MAXHOST] = "", service[NI_MAXSERV] = "";
    int code = getnameinfo(target_addr(&target), target.len, host, host_len, service, service_len, flags);
    say("getnameinfo %s %s %u %u: %s '%s' '%s'", text, flags_text, host_len, service_len, eai_text(code),
        code == 0 ? host : "", code == 0 ? service : "");
}

static void names_of_addresses(void)
{
    static const char *const addresses[] = {SERVER4, SERVER6, OTHER4, "127.0.0.1", "::1", MAPPED4};
    static const struct {
        int flags;
        const char *text;
    } flags[] = {FLAGS(0),
                 FLAGS(NI_NUMERICHOST),
                 FLAGS(NI_NAMEREQD),
                 FLAGS(NI_NUMERICSERV),
                 FLAGS(NI_DGRAM),
                 FLAGS(NI_NOFQDN),
                 FLAGS(NI_NAMEREQD | NI_NUMERICHOST),
                 FLAGS(0x8000)};
    for (size_t i = 0; i < COUNT(addresses); i++) {
        by_address(addresses[i], 0);
        for (size_t f = 0; f < COUNT(flags); f++) {
            name_info(addresses[i], flags[f].flags, flags[f].text, NI_MAXHOST, NI_MAXSERV);
        }
    }
    by_address(SERVER4, 3);
    name_info(SERVER4, 0, "0", 4, NI_MAXSERV);
    name_info(SERVER4, NI_NUMERICHOST, "NI_NUMERICHOST", 4, NI_MAXSERV);
    name_info(SERVER4, 0, "0", 0, NI_MAXSERV);
    name_info(SERVER4, 0, "0", NI_MAXHOST, 0);
    name_info(SERVER4, 0, "0", 0, 0);
    struct target target = target_of(SERVER4, 80);
    char host[NI_MAXHOST];
    say("getnameinfo, short address: %s",
        eai_text(getnameinfo(target_addr(&target), 4, host, sizeof host, NULL, 0, 0)));
    target.addr.ss_family = AF_UNIX;
    say("getnameinfo, wrong family: %s",
        eai_text(getnameinfo(target_addr(&target), target.len, host, sizeof host, NULL, 0, 0)));
}

/* ---- getaddrinfo_a ---- */

static void asynchronous(void)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct gaicb first = {.ar_name = "web.run.test", .ar_service = "80", .ar_request = &hints};
    struct gaicb second = {.ar_name = "no-such.run.test", .ar_request = &hints};
    struct gaicb third = {.ar_name = SERVER4, .ar_request = &hints};
    struct gaicb *list[] = {&first, &second, NULL, &third};
    say("getaddrinfo_a, GAI_WAIT: %s", eai_text(getaddrinfo_a(GAI_WAIT, list, 4, NULL)));
    say_list("first", gai_error(&first), first.ar_result);
    say_list("second", gai_error(&second), NULL);
    say_list("third", gai_error(&third), third.ar_result);
    freeaddrinfo(first.ar_result);
    freeaddrinfo(third.ar_result);
    first.ar_result = third.ar_result = NULL;
    say("getaddrinfo_a, GAI_NOWAIT: %s", eai_text(getaddrinfo_a(GAI_NOWAIT, list, 4, NULL)));
    struct timespec limit = {WAIT_MS / 1000, 0};
    for (size_t i = 0; i < COUNT(list); i++) {
        const struct gaicb *one[] = {list[i]};
        while (list[i] != NULL && gai_error(list[i]) == EAI_INPROGRESS) {
            (void)gai_suspend(one, 1, &limit);
        }
    }
    say_list("first", gai_error(&first), first.ar_result);
    say_list("second", gai_error(&second), NULL);
    say_list("third", gai_error(&third), third.ar_result);
    say("gai_cancel of one that is done: %s", eai_text(gai_cancel(&first)));
    freeaddrinfo(first.ar_result);
    freeaddrinfo(third.ar_result);
    say("getaddrinfo_a, wrong mode: %s", error_text(getaddrinfo_a(17, list, 4, NULL) == EAI_SYSTEM ? errno : 0));
}

void section_names(void)
{
    all_combinations();
    odd_questions();
    static const char *const names[] = {
        "web.run.test", "alias.run.test", "www",  "no-data.run.test", "no-such.run.test", "in-hosts.run.test",
        "localhost",    SERVER4,          SERVER6};
    for (size_t i = 0; i < COUNT(names); i++) {
        by_name(names[i]);
    }
    names_of_addresses();
    asynchronous();
}

/* ---- resolver(3) ---- */

static void say_answer(const char *what, int len, const uint8_t *answer, int code)
{
    ns_msg message;
    ns_rr record;
    char line[LINE_LEN] = "";
    if (len < 0) {
        say("%s: %s", what, h_error_text(code));
        return;
    }
    if (ns_initparse(answer, len, &message) != 0) {
        say("%s: not a message", what);
        return;
    }
    for (int i = 0; i < ns_msg_count(message, ns_s_an) && ns_parserr(&message, ns_s_an, i, &record) == 0; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, "; %.256s type %u, %u bytes", ns_rr_name(record), ns_rr_type(record),
                       (unsigned)ns_rr_rdlen(record));
        append(line, text);
    }
    say("%s: code %d, %s, %s, %d questions%s", what, ns_msg_getflag(message, ns_f_rcode),
        ns_msg_getflag(message, ns_f_qr) ? "an answer" : "a question",
        ns_msg_getflag(message, ns_f_tc) ? "truncated" : "whole", ns_msg_count(message, ns_s_qd), line);
}

static const struct {
    const char *name;
    int type;
} questions[] = {{"web.run.test", ns_t_a},
                 {"web.run.test", ns_t_aaaa},
                 {"web.run.test", ns_t_mx},
                 {"web.run.test", ns_t_txt},
                 {"alias.run.test", ns_t_a},
                 {"no-data.run.test", ns_t_a},
                 {"no-such.run.test", ns_t_a},
                 {"web", ns_t_a},
                 {"www", ns_t_a},
                 {"1.0.60.10.in-addr.arpa", ns_t_ptr},
                 {"no-such.test.", ns_t_a}};

static void plain_resolver(void)
{
    static uint8_t answer[4096], query[512];
    char what[256];
    for (size_t i = 0; i < COUNT(questions); i++) {
        const char *name = questions[i].name;
        int type = questions[i].type;
        (void)snprintf(what, sizeof what, "res_query %s %d", name, type);
        int len = res_query(name, ns_c_in, type, answer, sizeof answer);
        say_answer(what, len, answer, h_errno);
        (void)snprintf(what, sizeof what, "res_search %s %d", name, type);
        len = res_search(name, ns_c_in, type, answer, sizeof answer);
        say_answer(what, len, answer, h_errno);
        int query_len = res_mkquery(ns_o_query, name, ns_c_in, type, NULL, 0, NULL, query, sizeof query);
        (void)snprintf(what, sizeof what, "res_mkquery, res_send %s %d", name, type);
        len = res_send(query, query_len, answer, sizeof answer);
        say_answer(what, len, answer, h_errno);
        say("  the same ID: %s", len > 2 && memcmp(query, answer, 2) == 0 ? "yes" : "no");
    }
    int len = res_querydomain("web", "run.test", ns_c_in, ns_t_a, answer, sizeof answer);
    say_answer("res_querydomain", len, answer, h_errno);
    len = res_query("web.run.test", ns_c_in, ns_t_a, answer, 20);
    say("res_query, small buffer: %s", len < 0 ? h_error_text(h_errno) : len > 20 ? "longer than that" : "it fits");
}

static void own_state(void)
{
    struct __res_state state;
    static uint8_t answer[4096], query[512];
    memset(&state, 0, sizeof state);
    (void)told("res_ninit", res_ninit(&state));
    int len = res_nquery(&state, "web.run.test", ns_c_in, ns_t_a, answer, sizeof answer);
    say_answer("res_nquery", len, answer, state.res_h_errno);
    len = res_nsearch(&state, "www", ns_c_in, ns_t_a, answer, sizeof answer);
    say_answer("res_nsearch", len, answer, state.res_h_errno);
    len = res_nquerydomain(&state, "web", "run.test", ns_c_in, ns_t_aaaa, answer, sizeof answer);
    say_answer("res_nquerydomain", len, answer, state.res_h_errno);
    int query_len =
        res_nmkquery(&state, ns_o_query, "web.run.test", ns_c_in, ns_t_txt, NULL, 0, NULL, query, sizeof query);
    len = res_nsend(&state, query, query_len, answer, sizeof answer);
    say_answer("res_nsend", len, answer, state.res_h_errno);
    len = res_nquery(&state, "no-such.run.test", ns_c_in, ns_t_a, answer, sizeof answer);
    say_answer("res_nquery", len, answer, state.res_h_errno);
    res_nclose(&state);
    (void)told("res_init", res_init());
}

void section_resolver(void)
{
    plain_resolver();
    own_state();
}
