/*
 * An answer as text, in the form of dig(1), or as JSON. Called by cmd_dns.c for each answer.
 */
#ifndef CLI_DNS_PRINT_H
#define CLI_DNS_PRINT_H

#include <stdio.h>

#include "cli/dns_args.h"

/* An answer and what is known about it. Its message has passed dns_message_check(). */
struct dns_shown {
    const uint8_t *message;
    size_t len;
    const struct dns_edns *edns;
    const char *server; /* for people */
    uint64_t time_ms;   /* from question to answer */
};

/* Room for the text of any record's data. The caller's, so that it is allocated once. */
struct dns_print {
    char *text;
    size_t text_size; /* DNS_RDATA_TEXT_MAX */
};

/* As dns_view says: long, short or JSON. Errors of `out` are the caller's to look for. */
void dns_print_answer(FILE *out, const struct dns_print *print, const struct dns_view *view,
                      const struct dns_shown *answer);
/* A question that got none; `why` is half a sentence: "no answer within 15 seconds". */
void dns_print_failure(FILE *out, const struct dns_view *view, const struct dns_question *question, const char *why);

/* The rcode with EDNS's upper bits. */
unsigned dns_shown_rcode(const struct dns_shown *answer);

/* One answer as a JSON object on a line, and its failure. */
void dns_json_answer(FILE *out, const struct dns_print *print, const struct dns_shown *answer);
void dns_json_failure(FILE *out, const struct dns_question *question, const char *why);

#endif
