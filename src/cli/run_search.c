#include "cli/run_search.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_S 5u
#define TIMEOUT_MAX_S 30u /* resolv.conf(5) caps it so */
#define ATTEMPTS_DEFAULT 2u
#define ATTEMPTS_MAX 5u
#define WORD_MAX (DNS_NAME_TEXT_MAX + 1)

/* ---- words ---- */

struct words {
    const char *at, *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next word; false at the end. One that is too long comes out empty, which means nothing. */
static bool next_word(struct words *words, char word[WORD_MAX])
{
    size_t len = 0;

    while (words->at < words->end && is_blank(*words->at)) {
        words->at++;
    }
    if (words->at == words->end) {
        return false;
    }
    for (; words->at < words->end && !is_blank(*words->at); words->at++, len++) {
        if (len < WORD_MAX - 1) {
            word[len] = *words->at;
        }
    }
    word[len < WORD_MAX - 1 ? len : 0] = '\0';
    return true;
}

static struct words words_of(const char *text)
{
    return (struct words){text, text + strlen(text)};
}

/* ---- options ---- */

/* "NAME:N", at most `max`. */
static bool option_number(const char *word, const char *name, unsigned max, unsigned *out)
{
    size_t len = strlen(name);

    if (strncmp(word, name, len) != 0 || word[len] < '0' || word[len] > '9') {
        return false;
    }
    unsigned long value = strtoul(word + len, NULL, 10);
    *out = value > max ? max : (unsigned)value;
    return true;
}

static void parse_options(struct words words, struct run_search *search)
{
    char word[WORD_MAX] = "";

    while (next_word(&words, word)) {
        if (!option_number(word, "ndots:", RUN_SEARCH_NDOTS_MAX, &search->ndots) &&
            !option_number(word, "timeout:", TIMEOUT_MAX_S, &search->timeout_s) &&
            !option_number(word, "attempts:", ATTEMPTS_MAX, &search->attempts) && strcmp(word, "no-tld-query") == 0) {
            search->no_tld_query = true;
        }
    }
    search->timeout_s = search->timeout_s > 0 ? search->timeout_s : 1;
    search->attempts = search->attempts > 0 ? search->attempts : 1;
}

/* ---- domains ---- */

static bool has_bad_byte(const struct dns_name *name)
{
    for (size_t at = 0; name->wire[at] != 0; at += 1u + name->wire[at]) {
        for (size_t i = 1; i <= name->wire[at]; i++) {
            uint8_t c = name->wire[at + i];

            if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' && c != '_') {
                return true;
            }
        }
    }
    return false;
}

bool run_name_is_host(const struct dns_name *name)
{
    return name->len > 1 && name->wire[1] != '-' && !has_bad_byte(name);
}

bool run_name_is_localhost(const struct dns_name *name)
{
    static const struct dns_name localhost = {11, "\011localhost"};

    return dns_name_is_under(name, &localhost);
}

static bool ends_in_number(const struct dns_name *name)
{
    size_t last = 0, digits = 0;

    for (size_t at = 0; name->wire[at] != 0; at += 1u + name->wire[at]) {
        last = at;
    }
    while (digits < name->wire[last] && name->wire[last + 1 + digits] >= '0' && name->wire[last + 1 + digits] <= '9') {
        digits++;
    }
    return digits > 0 && digits == name->wire[last];
}

bool run_name_is_askable(const struct dns_name *name)
{
    static const struct dns_name invalid = {9, "\007invalid"};

    return run_name_is_host(name) && !ends_in_number(name) && !dns_name_is_under(name, &invalid);
}

size_t run_name_text(const struct dns_name *name, char text[DNS_NAME_MAX + 1])
{
    size_t len = 0;

    for (size_t at = 0; name->wire[at] != 0; at += 1u + name->wire[at]) {
        if (len > 0) {
            text[len++] = '.';
        }
        memcpy(text + len, name->wire + at + 1, name->wire[at]);
        len += name->wire[at];
    }
    text[len] = '\0';
    return len;
}

/* From text without escapes; a dot before it is left out, as libc does (so that "." is the root). */
static bool parse_domain(const char *text, struct dns_name *out)
{
    text += text[0] == '.' && text[1] != '\0' ? 1 : 0;
    return strchr(text, '\\') == NULL && dns_name_parse(text, out) == 0 && !has_bad_byte(out);
}

/* The list is replaced: the last line that says something counts. */
static void parse_domains(struct words words, size_t max, struct run_search *search)
{
    char word[WORD_MAX] = "";

    search->domain_count = 0;
    while (search->domain_count < max && next_word(&words, word)) {
        if (parse_domain(word, &search->domains[search->domain_count])) {
            search->domain_count++;
        }
    }
}

static void parse_line(struct words words, bool *has_domains, struct run_search *search)
{
    char word[WORD_MAX] = "";

    if (words.at == words.end || is_blank(*words.at) || !next_word(&words, word)) {
        return; /* keywords begin in the first column (resolv.conf(5)) */
    }
    if (strcmp(word, "options") == 0) {
        parse_options(words, search);
    } else if (strcmp(word, "search") == 0) {
        parse_domains(words, RUN_SEARCH_DOMAINS_MAX, search);
        *has_domains = true;
    } else if (strcmp(word, "domain") == 0) {
        parse_domains(words, 1, search);
        *has_domains = true;
    }
}

void run_search_parse(const char *text, size_t len, const char *local_domain, const char *res_options,
                      const char *host_name, struct run_search *out)
{
    const char *end = text + len;
    bool has_domains = false;

    memset(out, 0, sizeof *out);
    out->ndots = 1;
    out->timeout_s = TIMEOUT_DEFAULT_S;
    out->attempts = ATTEMPTS_DEFAULT;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));

        stop = stop != NULL ? stop : end;
        parse_line((struct words){text, stop}, &has_domains, out);
        text = stop < end ? stop + 1 : end;
    }
    if (local_domain != NULL) {
        parse_domains(words_of(local_domain), RUN_SEARCH_DOMAINS_MAX, out);
    } else if (!has_domains && host_name != NULL && strchr(host_name, '.') != NULL &&
               parse_domain(strchr(host_name, '.') + 1, &out->domains[0])) {
        out->domain_count = 1; /* resolv.conf(5): what comes after the first dot of the local host name */
    }
    if (res_options != NULL) {
        parse_options(words_of(res_options), out);
    }
}

/* ---- outcomes ---- */

enum run_outcome run_outcome_of_rcode(unsigned rcode)
{
    switch (rcode) {
    case DNS_RCODE_NOERROR:
        return RUN_NODATA;
    case DNS_RCODE_NXDOMAIN:
        return RUN_NXDOMAIN;
    case DNS_RCODE_SERVFAIL:
        return RUN_SERVFAIL;
    case DNS_RCODE_NOTIMP: /* libc goes on to the next server after these, and has none in the end */
    case DNS_RCODE_REFUSED:
        return RUN_REFUSED;
    default:
        return RUN_BROKEN;
    }
}

int run_outcome_status(enum run_outcome outcome)
{
    switch (outcome) {
    case RUN_FOUND:
        return 0;
    case RUN_NXDOMAIN:
        return EAI_NONAME;
    case RUN_NODATA:
        return EAI_NODATA;
    case RUN_SERVFAIL:
    case RUN_REFUSED:
    case RUN_LOST:
        return EAI_AGAIN;
    case RUN_BROKEN:
        return EAI_FAIL;
    case RUN_NO_MEMORY:
        return EAI_MEMORY;
    }
    return EAI_FAIL;
}

/* ---- the walk ---- */

bool run_walk_init(struct run_walk *walk, const struct run_search *search, const char *text)
{
    size_t len = strlen(text);

    *walk = (struct run_walk){.search = search, .first = RUN_NXDOMAIN, .last = RUN_NXDOMAIN};
    if (strchr(text, '\\') != NULL || dns_name_parse(text, &walk->name) != 0 || !run_name_is_host(&walk->name)) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        walk->dots += text[i] == '.';
    }
    walk->is_absolute = text[len - 1] == '.';
    return true;
}

/* The name below a domain; false if it would be too long. */
static bool join(const struct dns_name *name, const struct dns_name *domain, struct dns_name *out)
{
    size_t len = (size_t)name->len - 1 + domain->len;

    if (len > DNS_NAME_MAX) {
        return false;
    }
    *out = *name;
    memcpy(out->wire + name->len - 1, domain->wire, domain->len);
    out->len = (uint8_t)len;
    return true;
}

static bool as_is(struct run_walk *walk, struct dns_name *out)
{
    walk->tried_as_is = true;
    walk->at_as_is = true;
    *out = walk->name;
    return true;
}

bool run_walk_next(struct run_walk *walk, struct dns_name *out)
{
    const struct run_search *search = walk->search;

    walk->at_as_is = false;
    if (!walk->has_first && (walk->is_absolute || walk->dots >= search->ndots)) {
        walk->has_first = true;
        return as_is(walk, out);
    }
    while (!walk->is_absolute && !walk->is_over && walk->next < search->domain_count) {
        const struct dns_name *domain = &search->domains[walk->next++];

        if (domain->len == 1 && walk->tried_as_is) {
            continue;
        }
        walk->tried_as_is = walk->tried_as_is || domain->len == 1;
        walk->has_searched = true;
        if (join(&walk->name, domain, out)) {
            return true;
        }
    }
    if (!walk->tried_as_is && (walk->dots > 0 || !walk->has_searched || !search->no_tld_query)) {
        return as_is(walk, out);
    }
    return false;
}

bool run_walk_told(struct run_walk *walk, enum run_outcome outcome)
{
    if (outcome == RUN_FOUND || outcome == RUN_LOST || outcome == RUN_NO_MEMORY || walk->is_absolute) {
        walk->has_first = true;
        walk->first = outcome;
        return true;
    }
    walk->last = outcome;
    if (walk->at_as_is) {
        walk->first = outcome; /* counts if it was tried first of all */
        return false;
    }
    walk->had_nodata |= outcome == RUN_NODATA;
    walk->had_servfail |= outcome == RUN_SERVFAIL;
    walk->is_over = outcome == RUN_REFUSED || outcome == RUN_BROKEN;
    return false;
}

enum run_outcome run_walk_outcome(const struct run_walk *walk)
{
    if (walk->has_first) { /* an answer about the very name that was asked for tells more than those about others */
        return walk->first;
    }
    if (walk->had_nodata) {
        return RUN_NODATA;
    }
    return walk->had_servfail ? RUN_SERVFAIL : walk->last;
}
