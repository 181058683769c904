/*
 * Answers in the JSON of RFC 8427, one object on a line. Its member names are kept; what it has no names for (EDNS, time,
 * server) follows in members of our own, listed in socks6(1).
 */
#include <string.h>

#include "cli/dns_print.h"
#include "dns/text.h"

/* All text here is printable ASCII already: see dns/text.h. */
static void put_string(FILE *out, const char *text)
{
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            (void)fputc('\\', out);
        }
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static void put_member(FILE *out, const char *name, const char *text)
{
    (void)fprintf(out, ",\"%s\":", name);
    put_string(out, text);
}

static void put_hex(FILE *out, struct socks6_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        (void)fprintf(out, "%02X", bytes.data[i]);
    }
}

static void put_header(FILE *out, const struct dns_shown *answer, const struct dns_header *header)
{
    static const struct {
        unsigned flag;
        const char *name;
    } flags[] = {{DNS_FLAG_QR, "QR"}, {DNS_FLAG_AA, "AA"}, {DNS_FLAG_TC, "TC"}, {DNS_FLAG_RD, "RD"},
                 {DNS_FLAG_RA, "RA"}, {DNS_FLAG_AD, "AD"}, {DNS_FLAG_CD, "CD"}};
    char rcode[DNS_MNEMONIC_MAX];

    (void)fprintf(out, "{\"ID\":%u,\"Opcode\":%u", header->id, DNS_FLAGS_OPCODE(header->flags));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        (void)fprintf(out, ",\"%s\":%d", flags[i].name, (header->flags & flags[i].flag) != 0);
    }
    (void)dns_rcode_format(dns_shown_rcode(answer), rcode);
    (void)fprintf(out, ",\"RCODE\":%u", dns_shown_rcode(answer));
    put_member(out, "RCODEname", rcode);
    (void)fprintf(out, ",\"QDCOUNT\":%u,\"ANCOUNT\":%u,\"NSCOUNT\":%u,\"ARCOUNT\":%u", header->count[DNS_QUESTION],
                  header->count[DNS_ANSWER], header->count[DNS_AUTHORITY], header->count[DNS_ADDITIONAL]);
}

/* Without a comma in front. */
static void put_question(FILE *out, const struct dns_question *question)
{
    char text[DNS_NAME_TEXT_MAX];

    (void)dns_name_format(&question->name, text);
    (void)fputs("\"QNAME\":", out);
    put_string(out, text);
    (void)dns_type_format(question->type, text);
    (void)fprintf(out, ",\"QTYPE\":%u", question->type);
    put_member(out, "QTYPEname", text);
    (void)dns_class_format(question->class, text);
    (void)fprintf(out, ",\"QCLASS\":%u", question->class);
    put_member(out, "QCLASSname", text);
}

static void put_record(FILE *out, const struct dns_print *print, const struct dns_shown *answer,
                       const struct dns_record *record)
{
    char text[DNS_NAME_TEXT_MAX], type[DNS_MNEMONIC_MAX], member[DNS_MNEMONIC_MAX + sizeof "rdata"];

    (void)dns_name_format(&record->owner, text);
    (void)fputs("{\"NAME\":", out);
    put_string(out, text);
    (void)dns_type_format(record->type, type);
    (void)fprintf(out, ",\"TYPE\":%u", record->type);
    put_member(out, "TYPEname", type);
    (void)dns_class_format(record->class, text);
    (void)fprintf(out, ",\"CLASS\":%u", record->class);
    put_member(out, "CLASSname", text);
    (void)fprintf(out, ",\"TTL\":%u,\"RDLENGTH\":%zu,\"RDATAHEX\":\"", record->ttl, record->rdata.len);
    put_hex(out, record->rdata);
    (void)fputc('"', out);
    (void)dns_rdata_format(answer->message, answer->len, record, 0, print->text, print->text_size);
    (void)snprintf(member, sizeof member, "rdata%s", type);
    put_member(out, member, print->text);
    (void)fputc('}', out);
}

static void put_section(FILE *out, const struct dns_print *print, const struct dns_shown *answer,
                        enum dns_section section, const char *name)
{
    struct dns_records records;
    struct dns_record record;
    bool any = false;

    (void)fprintf(out, ",\"%s\":[", name);
    if (dns_records_init(&records, answer->message, answer->len) == 0) {
        while (dns_records_next(&records, &record) == 1) {
            if (record.section == section && record.type != DNS_TYPE_OPT) {
                (void)fputs(any ? "," : "", out);
                put_record(out, print, answer, &record);
                any = true;
            }
        }
    }
    (void)fputc(']', out);
}

static void put_option(FILE *out, const struct dns_print *print, unsigned code, struct socks6_slice value)
{
    unsigned info;

    (void)fprintf(out, "{\"code\":%u,\"HEX\":\"", code);
    put_hex(out, value);
    (void)fputc('"', out);
    if (code == DNS_OPTION_EDE && value.len >= 2) {
        info = dns_get16(value.data);
        (void)fprintf(out, ",\"infoCode\":%u", info);
        if (dns_ede_name(info) != NULL) {
            put_member(out, "purpose", dns_ede_name(info));
        }
        /* Between quotes as in a zone file, of which the first and the last byte are left out. */
        print->text[dns_quoted_format(value.data + 2, value.len - 2, print->text, print->text_size) - 1] = '\0';
        put_member(out, "extraText", print->text + 1);
    }
    (void)fputc('}', out);
}

static void put_edns(FILE *out, const struct dns_print *print, const struct dns_edns *edns)
{
    struct socks6_slice value;
    size_t offset = 0;
    bool any = false;
    uint16_t code;

    (void)fprintf(out, ",\"EDNS\":{\"version\":%u,\"DO\":%d,\"flags\":%u,\"udpPayload\":%u,\"options\":[",
                  edns->version, (edns->flags & DNS_EDNS_DO) != 0, edns->flags, edns->udp_len);
    while (dns_option_next(edns->options, &offset, &code, &value) == 1) {
        (void)fputs(any ? "," : "", out);
        put_option(out, print, code, value);
        any = true;
    }
    (void)fputs("]}", out);
}

void dns_json_answer(FILE *out, const struct dns_print *print, const struct dns_shown *answer)
{
    struct dns_question question;
    struct dns_header header;

    if (dns_header_read(answer->message, answer->len, &header) != 0) {
        return;
    }
    put_header(out, answer, &header);
    if (dns_question_read(answer->message, answer->len, &question, NULL) == 0) {
        (void)fputc(',', out);
        put_question(out, &question);
    }
    put_section(out, print, answer, DNS_ANSWER, "answerRRs");
    put_section(out, print, answer, DNS_AUTHORITY, "authorityRRs");
    put_section(out, print, answer, DNS_ADDITIONAL, "additionalRRs");
    if (answer->edns->present) {
        put_edns(out, print, answer->edns);
    }
    put_member(out, "server", answer->server);
    (void)fprintf(out, ",\"queryTimeMS\":%llu,\"messageLength\":%zu}\n", (unsigned long long)answer->time_ms,
                  answer->len);
}

void dns_json_failure(FILE *out, const struct dns_question *question, const char *why)
{
    (void)fputc('{', out);
    put_question(out, question);
    put_member(out, "error", why);
    (void)fputs("}\n", out);
}
