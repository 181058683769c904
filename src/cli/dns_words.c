#include "cli/dns_words.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/exit.h"
#include "cli/say.h"
#include "cli/suggest.h"
#include "dns/text.h"

/* RFC 5001. */
#define NSID 3u

static const char command[] = "dns";

/* ---- + words ---- */

static bool parse_number(const char *text, unsigned long max, unsigned long *out)
{
    char *end = NULL;
    unsigned long value;

    if (text == NULL || *text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno != 0 || *end != '\0' || value > max) {
        return false;
    }
    *out = value;
    return true;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

static int add_edns_option(struct dns_args *args, unsigned code, const uint8_t *value, size_t len)
{
    if (dns_option_put(args->edns_options, sizeof args->edns_options, &args->edns_options_len, (uint16_t)code, value,
                       len) != 0) {
        return say_usage(command, "there is no room for more EDNS options");
    }
    args->with_edns = true;
    return 0;
}

int dns_words_edns_option(struct dns_args *args, const char *text)
{
    uint8_t value[DNS_ARGS_OPTIONS_MAX];
    size_t len = 0, code_len = strcspn(text, ":");
    char code_text[8] = "";
    unsigned long code;

    if (code_len < sizeof code_text) {
        memcpy(code_text, text, code_len);
    }
    if (!parse_number(code_text, UINT16_MAX, &code)) {
        return say_usage(command, "an EDNS option is CODE or CODE:HEX, not '%s'", text);
    }
    for (const char *hex = text + code_len + (text[code_len] == ':'); *hex != '\0'; hex += 2) {
        int high = hex_digit(hex[0]), low = hex_digit(hex[1]);

        if (high < 0 || low < 0 || len == sizeof value) {
            return say_usage(command, "an EDNS option's value is hexadecimal, two digits a byte: '%s'", text);
        }
        value[len++] = (uint8_t)(high << 4 | low);
    }
    return add_edns_option(args, (unsigned)code, value, len);
}

/* RFC 7871: family, source prefix length, scope 0, as many bytes of the address as the prefix has. */
static int add_subnet(struct dns_args *args, const char *text)
{
    uint8_t value[4 + 16] = {0};
    char address[INET6_ADDRSTRLEN];
    size_t address_len = text != NULL ? strcspn(text, "/") : sizeof address;
    unsigned long prefix, max;

    if (address_len >= sizeof address) {
        return say_usage(command, "+subnet=ADDRESS/LENGTH");
    }
    memcpy(address, text, address_len);
    address[address_len] = '\0';
    if (inet_pton(AF_INET, address, value + 4) == 1) {
        max = 32;
    } else if (inet_pton(AF_INET6, address, value + 4) == 1) {
        max = 128;
    } else {
        return say_usage(command, "+subnet: '%s' is not an IP address", address);
    }
    prefix = max;
    if (text[address_len] == '/' && !parse_number(text + address_len + 1, max, &prefix)) {
        return say_usage(command, "+subnet: a prefix length of 0 to %lu goes with %s", max, address);
    }
    value[1] = max == 32 ? 1 : 2;
    value[2] = (uint8_t)prefix;
    if (prefix % 8 != 0) {
        value[4 + prefix / 8] &= (uint8_t)(0xff00u >> prefix % 8);
    }
    return add_edns_option(args, DNS_OPTION_ECS, value, 4 + (prefix + 7) / 8);
}

static int set_bufsize(struct dns_args *args, const char *value)
{
    unsigned long number;

    if (!parse_number(value, UINT16_MAX, &number)) {
        return say_usage(command, "+bufsize=BYTES, 0 to 65535");
    }
    args->edns_udp_len = (uint16_t)number;
    args->with_edns = true;
    return 0;
}

static int set_split(struct dns_args *args, const char *value, bool on)
{
    unsigned long number = on ? DNS_SPLIT_WIDTH : 0;

    if (value != NULL && (!on || !parse_number(value, UINT16_MAX, &number))) {
        return say_usage(command, "+split=CHARACTERS, or +nosplit");
    }
    args->view.split = (number + 3) / 4 * 4;
    return 0;
}

static int set_edns(struct dns_args *args, const char *value, bool on)
{
    if (value != NULL && (!on || strcmp(value, "0") != 0)) {
        return say_usage(command, "+edns: 0 is the only version there is");
    }
    args->with_edns = on;
    return 0;
}

static void set_flag(uint16_t *flags, unsigned flag, bool on)
{
    *flags = (uint16_t)(on ? *flags | flag : *flags & ~flag);
}

static void set_all(struct dns_view *view, bool on)
{
    view->comments = view->question = view->answer = view->authority = view->additional = view->stats = on;
}

static int set_dnssec(struct dns_args *args, bool on)
{
    set_flag(&args->edns_flags, DNS_EDNS_DO, on);
    args->with_edns |= on;
    return 0;
}

enum word {
    WORD_AD,
    WORD_ADDITIONAL,
    WORD_ADFLAG,
    WORD_ALL,
    WORD_ANSWER,
    WORD_AUTHORITY,
    WORD_BUFSIZE,
    WORD_CD,
    WORD_CDFLAG,
    WORD_COMMENTS,
    WORD_DNSSEC,
    WORD_DO,
    WORD_EDNS,
    WORD_EDNSOPT,
    WORD_JSON,
    WORD_NSID,
    WORD_QUESTION,
    WORD_RDFLAG,
    WORD_RECURSE,
    WORD_SHORT,
    WORD_SPLIT,
    WORD_STATS,
    WORD_SUBNET,
    WORD_COUNT
};

static const char *const word_names[] = {
    "ad",       "additional", "adflag",  "all",   "answer", "authority", "bufsize", "cd",
    "cdflag",   "comments",   "dnssec",  "do",    "edns",   "ednsopt",   "json",    "nsid",
    "question", "rdflag",     "recurse", "short", "split",  "stats",     "subnet",
};
_Static_assert(sizeof word_names / sizeof *word_names == WORD_COUNT, "one name per word");

/* The word that `len` bytes are, or WORD_COUNT. */
static enum word find_word(const char *text, size_t len)
{
    for (size_t i = 0; i < WORD_COUNT; i++) {
        if (strlen(word_names[i]) == len && strncmp(text, word_names[i], len) == 0) {
            return (enum word)i;
        }
    }
    return WORD_COUNT;
}

/* Those that switch something on or off. 1: done; 0: it is none of them. */
static int take_switch(struct dns_args *args, enum word word, bool on)
{
    bool *const shown[] = {[WORD_ADDITIONAL] = &args->view.additional,
                           [WORD_ANSWER] = &args->view.answer,
                           [WORD_AUTHORITY] = &args->view.authority,
                           [WORD_COMMENTS] = &args->view.comments,
                           [WORD_JSON] = &args->view.json,
                           [WORD_QUESTION] = &args->view.question,
                           [WORD_SHORT] = &args->view.is_short,
                           [WORD_STATS] = &args->view.stats,
                           [WORD_COUNT] = NULL};

    if (shown[word] != NULL) {
        *shown[word] = on;
    } else if (word == WORD_AD || word == WORD_ADFLAG) {
        set_flag(&args->flags, DNS_FLAG_AD, on);
    } else if (word == WORD_CD || word == WORD_CDFLAG) {
        set_flag(&args->flags, DNS_FLAG_CD, on);
    } else if (word == WORD_RDFLAG || word == WORD_RECURSE) {
        set_flag(&args->flags, DNS_FLAG_RD, on);
    } else if (word == WORD_DNSSEC || word == WORD_DO) {
        (void)set_dnssec(args, on);
    } else if (word == WORD_ALL) {
        set_all(&args->view, on);
    } else {
        return 0;
    }
    return 1;
}

static int unknown_option(const char *text, size_t len)
{
    char given[32] = "";
    const char *nearest;

    if (len < sizeof given) {
        memcpy(given, text, len);
    }
    nearest = suggest_nearest(given, word_names, WORD_COUNT);
    if (nearest != NULL) {
        return say_usage(command, "unknown option '+%.*s'; did you mean '+%s'?", (int)len, text, nearest);
    }
    return say_usage(command, "unknown option '+%.*s'", (int)len, text);
}

int dns_words_option(struct dns_args *args, const char *word)
{
    size_t len = strcspn(word, "=");
    const char *value = word[len] == '=' ? word + len + 1 : NULL;
    enum word which = find_word(word, len);
    bool on = true;

    if (which == WORD_COUNT && len > 2 && strncmp(word, "no", 2) == 0) {
        which = find_word(word + 2, len - 2);
        on = false;
    }
    switch (which) {
    case WORD_EDNS:
        return set_edns(args, value, on);
    case WORD_SPLIT:
        return set_split(args, value, on);
    case WORD_BUFSIZE:
        return on ? set_bufsize(args, value) : unknown_option(word, len);
    case WORD_SUBNET:
        return on ? add_subnet(args, value) : unknown_option(word, len);
    case WORD_EDNSOPT:
        return on && value != NULL ? dns_words_edns_option(args, value)
                                   : say_usage(command, "+ednsopt=CODE or +ednsopt=CODE:HEX");
    case WORD_NSID:
        return on && value == NULL ? add_edns_option(args, NSID, NULL, 0) : unknown_option(word, len);
    case WORD_AD:
    case WORD_ADDITIONAL:
    case WORD_ADFLAG:
    case WORD_ALL:
    case WORD_ANSWER:
    case WORD_AUTHORITY:
    case WORD_CD:
    case WORD_CDFLAG:
    case WORD_COMMENTS:
    case WORD_DNSSEC:
    case WORD_DO:
    case WORD_JSON:
    case WORD_QUESTION:
    case WORD_RDFLAG:
    case WORD_RECURSE:
    case WORD_SHORT:
    case WORD_STATS:
        if (value != NULL) {
            return say_usage(command, "option '+%.*s' takes no value", (int)len, word);
        }
        (void)take_switch(args, which, on);
        return 0;
    case WORD_COUNT:
        break;
    }
    return unknown_option(word, len);
}

/* ---- names and types ---- */

void dns_words_init(struct dns_words *words, struct dns_args *args)
{
    memset(words, 0, sizeof *words);
    words->args = args;
}

static int add_question(struct dns_words *words, uint16_t type, uint16_t class)
{
    struct dns_args *args = words->args;

    if (args->question_count == args->question_room) {
        size_t room = args->question_room > 0 ? args->question_room * 2 : 8;
        struct dns_question *more = realloc(args->questions, room * sizeof *more);

        if (more == NULL) {
            say(command, "out of memory");
            return CLI_EXIT_REMOTE;
        }
        args->questions = more;
        args->question_room = room;
    }
    args->questions[args->question_count++] = (struct dns_question){words->name, type, class};
    return 0;
}

int dns_words_end(struct dns_words *words)
{
    const struct dns_what *types = words->own.type_count > 0 ? &words->own : &words->defaults;
    uint16_t class = words->own.has_class        ? words->own.class
                     : words->defaults.has_class ? words->defaults.class
                                                 : DNS_CLASS_IN;
    int rc = 0;

    if (words->has_name && (types->type_count == 0 || (words->is_reverse && types == &words->defaults))) {
        rc = add_question(words, words->is_reverse ? DNS_TYPE_PTR : DNS_TYPE_A, class);
    } else if (words->has_name) {
        for (size_t i = 0; rc == 0 && i < types->type_count; i++) {
            rc = add_question(words, types->types[i], class);
        }
    }
    words->has_name = false;
    words->is_reverse = false;
    memset(&words->own, 0, sizeof words->own);
    return rc;
}

static int begin_name(struct dns_words *words, const struct dns_name *name, bool is_reverse)
{
    int rc = dns_words_end(words);

    words->name = *name;
    words->has_name = true;
    words->is_reverse = is_reverse;
    return rc;
}

int dns_words_name(struct dns_words *words, const char *text)
{
    struct dns_name name;

    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80) {
            return say_usage(command, "'%s': write names in their ASCII form, such as xn--bcher-kva.example", text);
        }
    }
    if (*text == '@') {
        return say_usage(command, "'%s': which server is asked is the proxy's choice", text);
    }
    if (dns_name_parse(text, &name) != 0) {
        return say_usage(command, "'%s' is not a domain name", text);
    }
    return begin_name(words, &name, false);
}

int dns_words_reverse(struct dns_words *words, const char *address)
{
    struct dns_name name;

    if (!dns_args_reverse(address, &name)) {
        return say_usage(command, "'%s' is not an IP address", address);
    }
    return begin_name(words, &name, true);
}

static struct dns_what *current(struct dns_words *words)
{
    return words->has_name ? &words->own : &words->defaults;
}

int dns_words_type(struct dns_words *words, const char *text)
{
    struct dns_what *what = current(words);
    uint16_t type;

    if (!dns_type_parse(text, &type)) {
        return say_usage(command, "'%s' is not a type: give its name or TYPEnnn", text);
    }
    if (type == DNS_TYPE_OPT) {
        return say_usage(command, "OPT is no type to ask for");
    }
    if (what->type_count == DNS_WORDS_TYPES_MAX) {
        return say_usage(command, "more than %u types for one name", DNS_WORDS_TYPES_MAX);
    }
    what->types[what->type_count++] = type;
    return 0;
}

int dns_words_class(struct dns_words *words, const char *text)
{
    struct dns_what *what = current(words);

    if (!dns_class_parse(text, &what->class)) {
        return say_usage(command, "'%s' is not a class: IN, CH, HS, ANY or CLASSnnn", text);
    }
    what->has_class = true;
    return 0;
}

int dns_words_take(struct dns_words *words, const char *word)
{
    uint16_t number;

    if (dns_type_parse(word, &number)) {
        return dns_words_type(words, word);
    }
    if (dns_class_parse(word, &number)) {
        return dns_words_class(words, word);
    }
    return dns_words_name(words, word);
}

static int take_line(struct dns_words *words, char *line)
{
    char *rest = NULL;
    int rc = 0;

    line[strcspn(line, ";#\r\n")] = '\0';
    for (char *word = strtok_r(line, " \t", &rest); rc == 0 && word != NULL; word = strtok_r(NULL, " \t", &rest)) {
        rc = dns_words_take(words, word);
    }
    return rc;
}

/* What one line says holds for no other, so the command line's defaults come back for each. */
static int take_lines(struct dns_words *words, FILE *file, const char *path)
{
    struct dns_what defaults = words->defaults;
    char *line = NULL;
    size_t room = 0, number = 0;
    int rc = 0;

    while (rc == 0 && getline(&line, &room, file) >= 0) {
        number++;
        rc = take_line(words, line);
        if (rc == 0) {
            rc = dns_words_end(words);
        }
        words->defaults = defaults;
    }
    free(line);
    if (rc != 0) {
        say(command, "that is line %zu of %s", number, path);
    } else if (ferror(file)) {
        rc = say_usage(command, "-f: cannot read %s: %s", path, strerror(errno));
    }
    return rc;
}

int dns_words_file(struct dns_words *words, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    int rc;

    if (file == NULL) {
        return say_usage(command, "-f: cannot read %s: %s", path, strerror(errno));
    }
    rc = take_lines(words, file, path);
    if (!is_stdin) {
        (void)fclose(file);
    }
    return rc;
}
