/*
 * Text in the form of dig(1), so that eyes and scripts that know it know ours.
 */
#include "cli/dns_print.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dns/text.h"

/* EDNS options that dig(1) shows by name; the others are in dns/message.h. */
#define OPTION_NSID 3u
#define OPTION_EXPIRE 9u
#define FLAG_Z 0x0040u
#define EDNS_CO 0x4000u /* compact denial of existence, RFC 9824 */

unsigned dns_shown_rcode(const struct dns_shown *answer)
{
    unsigned rcode = DNS_FLAGS_RCODE(dns_get16(answer->message + 2));

    return answer->edns->present ? rcode | (unsigned)answer->edns->extended_rcode << 4 : rcode;
}

/* ---- columns ---- */

#define TAB 8u

/* Tabs and spaces from column `at` to `to`, at least one. Returns the column reached. */
static size_t indent(FILE *out, size_t at, size_t to)
{
    if (to < at + 1) {
        to = at + 1;
    }
    for (; at / TAB < to / TAB; at = (at / TAB + 1) * TAB) {
        (void)fputc('\t', out);
    }
    for (; at < to; at++) {
        (void)fputc(' ', out);
    }
    return to;
}

static size_t put(FILE *out, const char *text)
{
    (void)fputs(text, out);
    return strlen(text);
}

/* Columns of the fields. */
enum { COLUMN_TTL = 24, COLUMN_CLASS = 32, COLUMN_TYPE = 40, COLUMN_DATA = 48 };

static void print_question(FILE *out, const struct dns_question *question)
{
    char text[DNS_NAME_TEXT_MAX];
    size_t at;

    (void)dns_name_format(&question->name, text);
    (void)fputc(';', out); /* which dig(1) does not count */
    at = put(out, text);
    at = indent(out, at, COLUMN_CLASS);
    (void)dns_class_format(question->class, text);
    at += put(out, text);
    (void)indent(out, at, COLUMN_TYPE);
    (void)dns_type_format(question->type, text);
    (void)put(out, text);
    (void)fputc('\n', out);
}

static void print_record(FILE *out, const struct dns_print *print, const struct dns_view *view,
                         const struct dns_shown *answer, const struct dns_record *record)
{
    char text[DNS_NAME_TEXT_MAX];
    size_t at;

    (void)dns_name_format(&record->owner, text);
    at = put(out, text);
    at = indent(out, at, COLUMN_TTL);
    at += (size_t)fprintf(out, "%u", record->ttl);
    at = indent(out, at, COLUMN_CLASS);
    (void)dns_class_format(record->class, text);
    at += put(out, text);
    at = indent(out, at, COLUMN_TYPE);
    (void)dns_type_format(record->type, text);
    at += put(out, text);
    if (dns_rdata_format(answer->message, answer->len, record, view->split, print->text, print->text_size) > 0) {
        (void)indent(out, at, COLUMN_DATA);
        (void)put(out, print->text);
    }
    (void)fputc('\n', out);
}

/* ---- header ---- */

static void print_header(FILE *out, const struct dns_shown *answer, const struct dns_header *header)
{
    static const struct {
        unsigned flag;
        const char *name;
    } flags[] = {{DNS_FLAG_QR, " qr"}, {DNS_FLAG_AA, " aa"}, {DNS_FLAG_TC, " tc"}, {DNS_FLAG_RD, " rd"},
                 {DNS_FLAG_RA, " ra"}, {DNS_FLAG_AD, " ad"}, {DNS_FLAG_CD, " cd"}, {FLAG_Z, "; MBZ: 0x4"}};
    char opcode[DNS_MNEMONIC_MAX], rcode[DNS_MNEMONIC_MAX];

    (void)dns_opcode_format(DNS_FLAGS_OPCODE(header->flags), opcode);
    (void)dns_rcode_format(dns_shown_rcode(answer), rcode);
    (void)fprintf(out, ";; ->>HEADER<<- opcode: %s, status: %s, id: %u\n;; flags:", opcode, rcode, header->id);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        (void)fputs((header->flags & flags[i].flag) != 0 ? flags[i].name : "", out);
    }
    (void)fprintf(out, "; QUERY: %u, ANSWER: %u, AUTHORITY: %u, ADDITIONAL: %u\n", header->count[DNS_QUESTION],
                  header->count[DNS_ANSWER], header->count[DNS_AUTHORITY], header->count[DNS_ADDITIONAL]);
    if ((header->flags & (DNS_FLAG_RD | DNS_FLAG_RA)) == DNS_FLAG_RD) {
        (void)fputs(";; WARNING: recursion requested but not available\n", out);
    }
    (void)fputc('\n', out);
}

/* ---- EDNS ---- */

/* " 61 62 ("ab")": bytes and what of them is readable. */
static void print_bytes(FILE *out, struct socks6_slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        (void)fprintf(out, " %02x", value.data[i]);
    }
    if (value.len > 0) {
        (void)fputs(" (\"", out);
        for (size_t i = 0; i < value.len; i++) {
            (void)fputc(value.data[i] >= ' ' && value.data[i] <= '~' ? value.data[i] : '.', out);
        }
        (void)fputs("\")", out);
    }
}

/* Text of a server without what a terminal could take for a command: bytes that are not printable ASCII as dots. */
static void print_plain(FILE *out, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        (void)fputc(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.', out);
    }
}

static void print_ede(FILE *out, struct socks6_slice value)
{
    unsigned code = dns_get16(value.data);

    (void)fprintf(out, "; EDE: %u", code);
    if (dns_ede_name(code) != NULL) {
        (void)fprintf(out, " (%s)", dns_ede_name(code));
    }
    if (value.len > 2) {
        (void)fputs(": (", out);
        print_plain(out, value.data + 2, value.len - 2);
        (void)fputc(')', out);
    }
}

/* False if it is none. */
static bool print_subnet(FILE *out, struct socks6_slice value)
{
    uint8_t address[16] = {0};
    char text[INET6_ADDRSTRLEN];
    unsigned family;

    if (value.len < 4 || value.len > 20) {
        return false;
    }
    family = dns_get16(value.data);
    memcpy(address, value.data + 4, value.len - 4);
    if ((family != 1 && family != 2) || (family == 1 && value.len > 8)) {
        return false;
    }
    (void)fprintf(out, "; CLIENT-SUBNET: %s/%u/%u",
                  inet_ntop(family == 1 ? AF_INET : AF_INET6, address, text, sizeof text), value.data[2],
                  value.data[3]);
    return true;
}

static void print_cookie(FILE *out, struct socks6_slice value)
{
    (void)fputs("; COOKIE: ", out);
    for (size_t i = 0; i < value.len; i++) {
        (void)fprintf(out, "%02x", value.data[i]);
    }
}

static void print_option(FILE *out, unsigned code, struct socks6_slice value)
{
    if (code == DNS_OPTION_EDE && value.len >= 2) {
        print_ede(out, value);
    } else if (code == OPTION_NSID) {
        (void)fputs("; NSID:", out);
        print_bytes(out, value);
    } else if (code == DNS_OPTION_COOKIE) {
        print_cookie(out, value);
    } else if (code == DNS_OPTION_TCP_KEEPALIVE && value.len == 2) {
        (void)fprintf(out, "; TCP KEEPALIVE: %u.%u secs", dns_get16(value.data) / 10u, dns_get16(value.data) % 10u);
    } else if (code == DNS_OPTION_PADDING && value.len > 0) {
        (void)fprintf(out, "; PAD: (%zu bytes)", value.len);
    } else if (code == OPTION_EXPIRE && value.len == 4) {
        (void)fprintf(out, "; EXPIRE: %u", dns_get32(value.data));
    } else if (code != DNS_OPTION_ECS || !print_subnet(out, value)) {
        (void)fprintf(out, "; OPT=%u:", code);
        print_bytes(out, value);
    }
    (void)fputc('\n', out);
}

static void print_edns(FILE *out, const struct dns_edns *edns)
{
    struct socks6_slice value;
    size_t offset = 0;
    uint16_t code;

    (void)fprintf(out, ";; OPT PSEUDOSECTION:\n; EDNS: version: %u, flags:%s%s;", edns->version,
                  (edns->flags & DNS_EDNS_DO) != 0 ? " do" : "", (edns->flags & EDNS_CO) != 0 ? " co" : "");
    if ((edns->flags & ~(DNS_EDNS_DO | EDNS_CO)) != 0) {
        (void)fprintf(out, " MBZ: 0x%04x,", edns->flags & ~(DNS_EDNS_DO | EDNS_CO) & 0xffffu);
    }
    (void)fprintf(out, " udp: %u\n", edns->udp_len);
    while (dns_option_next(edns->options, &offset, &code, &value) == 1) {
        print_option(out, code, value);
    }
}

/* ---- all of it ---- */

static void print_section(FILE *out, const struct dns_print *print, const struct dns_view *view,
                          const struct dns_shown *answer, enum dns_section section, const char *title)
{
    struct dns_records records;
    struct dns_record record;
    bool any = false;

    if (dns_records_init(&records, answer->message, answer->len) != 0) {
        return;
    }
    while (dns_records_next(&records, &record) == 1) {
        if (record.section != section || record.type == DNS_TYPE_OPT) {
            continue;
        }
        if (!any && view->comments) {
            (void)fprintf(out, ";; %s SECTION:\n", title);
        }
        any = true;
        print_record(out, print, view, answer, &record);
    }
    if (any && view->comments) {
        (void)fputc('\n', out);
    }
}

static void print_stats(FILE *out, const struct dns_shown *answer)
{
    char when[64];
    time_t now = time(NULL);
    struct tm tm;

    (void)fprintf(out, ";; Query time: %llu msec\n;; SERVER: %s\n", (unsigned long long)answer->time_ms,
                  answer->server);
    if (localtime_r(&now, &tm) != NULL && strftime(when, sizeof when, "%a %b %d %H:%M:%S %Z %Y", &tm) > 0) {
        (void)fprintf(out, ";; WHEN: %s\n", when);
    }
    (void)fprintf(out, ";; MSG SIZE  rcvd: %zu\n\n", answer->len);
}

static void print_long(FILE *out, const struct dns_print *print, const struct dns_view *view,
                       const struct dns_shown *answer)
{
    struct dns_question question;
    struct dns_header header;

    if (dns_header_read(answer->message, answer->len, &header) != 0) {
        return;
    }
    if (view->comments) {
        (void)fputs(";; Got answer:\n", out);
        print_header(out, answer, &header);
        if (answer->edns->present) {
            print_edns(out, answer->edns);
        }
    }
    if (view->question && dns_question_read(answer->message, answer->len, &question, NULL) == 0) {
        (void)fputs(view->comments ? ";; QUESTION SECTION:\n" : "", out);
        print_question(out, &question);
        (void)fputs(view->comments ? "\n" : "", out);
    }
    if (view->answer) {
        print_section(out, print, view, answer, DNS_ANSWER, "ANSWER");
    }
    if (view->authority) {
        print_section(out, print, view, answer, DNS_AUTHORITY, "AUTHORITY");
    }
    if (view->additional) {
        print_section(out, print, view, answer, DNS_ADDITIONAL, "ADDITIONAL");
    }
    if (view->stats) {
        print_stats(out, answer);
    }
}

/* The data of the answer section alone. */
static void print_short(FILE *out, const struct dns_print *print, const struct dns_view *view,
                        const struct dns_shown *answer)
{
    struct dns_records records;
    struct dns_record record;

    if (dns_records_init(&records, answer->message, answer->len) != 0) {
        return;
    }
    while (dns_records_next(&records, &record) == 1) {
        if (record.section == DNS_ANSWER) {
            (void)dns_rdata_format(answer->message, answer->len, &record, view->split, print->text, print->text_size);
            (void)put(out, print->text);
            (void)fputc('\n', out);
        }
    }
}

void dns_print_answer(FILE *out, const struct dns_print *print, const struct dns_view *view,
                      const struct dns_shown *answer)
{
    if (view->json) {
        dns_json_answer(out, print, answer);
    } else if (view->is_short) {
        print_short(out, print, view, answer);
    } else {
        print_long(out, print, view, answer);
    }
}

void dns_print_failure(FILE *out, const struct dns_view *view, const struct dns_question *question, const char *why)
{
    char name[DNS_NAME_TEXT_MAX], type[DNS_MNEMONIC_MAX];

    if (view->json) {
        dns_json_failure(out, question, why);
    } else if (!view->is_short) {
        (void)dns_name_format(&question->name, name);
        (void)dns_type_format(question->type, type);
        (void)fprintf(out, ";; %s %s: %s\n\n", name, type, why);
    }
}
