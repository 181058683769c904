/*
 * The words of `socks6 dns` that do not start with a minus sign: dig(1)'s "+" words, and what is asked. Internal to
 * dns_args.c.
 */
#ifndef CLI_DNS_WORDS_H
#define CLI_DNS_WORDS_H

#include "cli/dns_args.h"

#define DNS_WORDS_TYPES_MAX 32u

/* Types and class that go with a name, as far as they are known. */
struct dns_what {
    uint16_t types[DNS_WORDS_TYPES_MAX];
    size_t type_count;
    bool has_class;
    uint16_t class;
};

/* Names and types as they come: what stands before the first name holds for all names without their own. */
struct dns_words {
    struct dns_args *args;
    struct dns_what defaults, own;
    bool has_name, is_reverse;
    struct dns_name name;
};

void dns_words_init(struct dns_words *words, struct dns_args *args);

/* "+short" and its kin, without the plus sign. 0, or an exit status after an error was printed; so all below. */
int dns_words_option(struct dns_args *args, const char *word);
/* CODE[:HEX] */
int dns_words_edns_option(struct dns_args *args, const char *text);

/* A type, a class, or else a name. */
int dns_words_take(struct dns_words *words, const char *word);
int dns_words_name(struct dns_words *words, const char *text);
int dns_words_reverse(struct dns_words *words, const char *address);
int dns_words_type(struct dns_words *words, const char *text);
int dns_words_class(struct dns_words *words, const char *text);
/* The lines of a file, "-" for standard input: words as above, comments behind ';' and '#'. */
int dns_words_file(struct dns_words *words, const char *path);
/* The questions about the last name. */
int dns_words_end(struct dns_words *words);

#endif
