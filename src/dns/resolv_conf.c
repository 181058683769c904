#include "dns/resolv_conf.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define DNS_PORT 53
#define TIMEOUT_DEFAULT_S 5
#define TIMEOUT_MAX_S 30 /* resolv.conf(5) caps it so */
#define ATTEMPTS_DEFAULT 2
#define ATTEMPTS_MAX 5
#define WORD_MAX 128

/* A line that is being read: words between blanks. */
struct line {
    const char *at, *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word; false at the end. One that is too long comes out cut, and means nothing then. */
static bool next_word(struct line *line, char word[WORD_MAX])
{
    size_t len = 0;

    while (line->at < line->end && is_blank(*line->at)) {
        line->at++;
    }
    if (line->at == line->end) {
        return false;
    }
    for (; line->at < line->end && !is_blank(*line->at); line->at++) {
        if (len < WORD_MAX - 1) {
            word[len++] = *line->at;
        }
    }
    word[len] = '\0';
    return true;
}

static bool parse_ipv4(const char *text, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};

    if (inet_pton(AF_INET, text, &sin.sin_addr) != 1) {
        return false;
    }
    memset(out, 0, sizeof *out);
    memcpy(out, &sin, sizeof sin);
    return true;
}

static bool parse_ipv6(char *text, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char *scope = strchr(text, '%');

    if (scope != NULL) {
        char *end;
        *scope++ = '\0';
        sin6.sin6_scope_id = if_nametoindex(scope);
        if (sin6.sin6_scope_id == 0) {
            sin6.sin6_scope_id = (uint32_t)strtoul(scope, &end, 10);
            if (sin6.sin6_scope_id == 0 || *end != '\0') {
                return false;
            }
        }
    }
    if (inet_pton(AF_INET6, text, &sin6.sin6_addr) != 1) {
        return false;
    }
    memset(out, 0, sizeof *out);
    memcpy(out, &sin6, sizeof sin6);
    return true;
}

static bool parse_server(char *text, struct sockaddr_storage *out)
{
    unsigned long port = DNS_PORT;

    if (text[0] == '[') {
        char *bracket = strchr(text, ']'), *end;
        if (bracket == NULL || bracket[1] != ':') {
            return false;
        }
        port = strtoul(bracket + 2, &end, 10);
        if (end == bracket + 2 || *end != '\0' || port == 0 || port > UINT16_MAX) {
            return false;
        }
        *bracket = '\0';
        text++;
    }
    return parse_ipv4(text, (uint16_t)port, out) || parse_ipv6(text, (uint16_t)port, out);
}

/* "NAME:N" as a number of 1..max; else false. */
static bool option_number(const char *word, const char *name, unsigned max, unsigned *out)
{
    char *end;

    for (; *name != '\0'; name++, word++) {
        if (*word != *name) {
            return false;
        }
    }
    if (*word < '0' || *word > '9') {
        return false;
    }
    unsigned long value = strtoul(word, &end, 10);
    if (*end != '\0') {
        return false;
    }
    *out = value < 1 ? 1 : value > max ? max : (unsigned)value;
    return true;
}

static void parse_option(const char *word, struct resolv_conf *conf)
{
    if (option_number(word, "timeout:", TIMEOUT_MAX_S, &conf->timeout_s) ||
        option_number(word, "attempts:", ATTEMPTS_MAX, &conf->attempts)) {
        return;
    }
    conf->rotate |= strcmp(word, "rotate") == 0;
    conf->use_vc |= strcmp(word, "use-vc") == 0;
}

static void parse_line(struct line *line, struct resolv_conf *conf)
{
    char word[WORD_MAX];

    /* A comment begins in the first column only (resolv.conf(5)); elsewhere such a word is no keyword anyway. */
    if (!next_word(line, word)) {
        return;
    }
    if (strcmp(word, "nameserver") == 0) {
        if (conf->server_count < RESOLV_CONF_SERVERS_MAX && next_word(line, word) &&
            parse_server(word, &conf->servers[conf->server_count])) {
            conf->server_count++;
        }
    } else if (strcmp(word, "options") == 0) {
        while (next_word(line, word)) {
            parse_option(word, conf);
        }
    }
}

void resolv_conf_parse(const char *text, size_t len, struct resolv_conf *out)
{
    const char *end = text + len;
    char local[] = "127.0.0.1";

    *out = (struct resolv_conf){.timeout_s = TIMEOUT_DEFAULT_S, .attempts = ATTEMPTS_DEFAULT};
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        struct line line = {.at = text, .end = stop != NULL ? stop : end};
        parse_line(&line, out);
        text = stop != NULL ? stop + 1 : end;
    }
    if (out->server_count == 0 && parse_server(local, &out->servers[0])) {
        out->server_count = 1;
    }
}
