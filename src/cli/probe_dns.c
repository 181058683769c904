#include "cli/probe_dns.h"

#include <stdio.h>
#include <string.h>

#define TYPE_A 1
#define TYPE_NS 2
#define HEADER_LEN 12

static void write16(uint8_t *out, unsigned value)
{
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

static unsigned read16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* The name's labels with their lengths and the root's 0; 0 bytes if it is none. */
static size_t write_name(const char *name, uint8_t *out)
{
    size_t at = 0;

    if (strcmp(name, ".") == 0) {
        name = "";
    } else if (*name == '\0') {
        return 0;
    }
    while (*name != '\0') {
        size_t label = strcspn(name, ".");

        if (label == 0 || label > 63) {
            return 0;
        }
        out[at++] = (uint8_t)label;
        memcpy(out + at, name, label);
        at += label;
        name += label;
        name += *name == '.' ? 1 : 0;
    }
    out[at++] = 0;
    return at;
}

size_t probe_dns_query(const char *name, uint16_t id, uint8_t out[PROBE_DNS_QUERY_MAX])
{
    size_t len = strlen(name);
    size_t name_len;

    if (len > PROBE_DNS_NAME_MAX + 1 || (len == PROBE_DNS_NAME_MAX + 1 && name[len - 1] != '.')) {
        return 0;
    }
    name_len = write_name(name, out + 2 + HEADER_LEN);
    if (name_len == 0) {
        return 0;
    }
    memset(out, 0, 2 + HEADER_LEN);
    write16(out, (unsigned)(HEADER_LEN + name_len + 4));
    write16(out + 2, id);
    out[4] = 1; /* recursion desired */
    write16(out + 6, 1);
    write16(out + 2 + HEADER_LEN + name_len, name_len == 1 ? TYPE_NS : TYPE_A);
    write16(out + 2 + HEADER_LEN + name_len + 2, 1); /* class IN */
    return 2 + HEADER_LEN + name_len + 4;
}

size_t probe_dns_need(const uint8_t *bytes, size_t len)
{
    return len < 2 ? 2 : 2 + (size_t)read16(bytes);
}

static void name_rcode(unsigned rcode, char *out, size_t size)
{
    static const char *const names[] = {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"};

    if (rcode < sizeof names / sizeof *names) {
        (void)snprintf(out, size, "%s", names[rcode]);
    } else {
        (void)snprintf(out, size, "code %u", rcode);
    }
}

int probe_dns_judge(const uint8_t *query, const uint8_t *answer, size_t len, char *out, size_t size)
{
    char rcode[16];

    if (len < 2 || read16(answer) < HEADER_LEN || len < 2 + (size_t)read16(answer)) {
        (void)snprintf(out, size, "the answer is shorter than a DNS message");
        return 0;
    }
    if (read16(answer + 2) != read16(query + 2)) {
        (void)snprintf(out, size, "the answer has another id than the query");
        return 0;
    }
    if ((answer[4] & 0x80) == 0) {
        (void)snprintf(out, size, "what came back is a query, not an answer");
        return 0;
    }
    name_rcode(answer[5] & 0x0fu, rcode, sizeof rcode);
    (void)snprintf(out, size, "%s, %u record%s", rcode, read16(answer + 8), read16(answer + 8) == 1 ? "" : "s");
    return 1;
}
