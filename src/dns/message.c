/*
 * A name read from a message costs at most 255 bytes copied: its parts run forwards, each pointer leads strictly
 * before the part that held it, and the name's own length is capped. A whole message costs no more than a walk over it
 * and 255 bytes per record.
 */
#include "dns/message.h"

#include <errno.h>
#include <string.h>

#define POINTER_MARK 0xc0u
#define QUESTION_FIXED_LEN 4u
#define RECORD_FIXED_LEN 10u
#define POINTERS_MAX 127u /* as many as a name has labels; more only cost time */

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20u) : byte;
}

/* ---- reading ---- */

int dns_header_read(const uint8_t *message, size_t len, struct dns_header *out)
{
    if (len < DNS_HEADER_LEN) {
        return -EBADMSG;
    }
    out->id = dns_get16(message);
    out->flags = dns_get16(message + 2);
    for (size_t i = 0; i < 4; i++) {
        out->count[i] = dns_get16(message + 4 + 2 * i);
    }
    return 0;
}

int dns_name_read(const uint8_t *message, size_t len, size_t offset, struct dns_name *out, size_t *next)
{
    uint8_t wire[DNS_NAME_MAX];
    size_t wire_len = 0;
    size_t at = offset;    /* what is read */
    size_t floor = offset; /* where this part began: a pointer must lead before it */
    size_t after = 0;      /* where the name ends in the message; 0 = not known yet */
    unsigned pointers = 0;

    for (;;) {
        if (at >= len) {
            return -EBADMSG;
        }
        size_t label_len = message[at];
        if ((label_len & POINTER_MARK) == POINTER_MARK) {
            if (len - at < 2) {
                return -EBADMSG;
            }
            size_t target = dns_get16(message + at) & 0x3fffu;
            if (target >= floor || target < DNS_HEADER_LEN || pointers++ == POINTERS_MAX) {
                return -EBADMSG;
            }
            if (after == 0) {
                after = at + 2;
            }
            at = floor = target;
            continue;
        }
        if (label_len > DNS_LABEL_MAX || len - at < 1 + label_len || DNS_NAME_MAX - wire_len < 1 + label_len) {
            return -EBADMSG;
        }
        memcpy(wire + wire_len, message + at, 1 + label_len);
        wire_len += 1 + label_len;
        at += 1 + label_len;
        if (label_len == 0) {
            break;
        }
    }
    memcpy(out->wire, wire, wire_len);
    out->len = (uint8_t)wire_len;
    if (next != NULL) {
        *next = after != 0 ? after : at;
    }
    return 0;
}

/* Passes over a name without following it; compression ends it (RFC 1035 4.1.4). */
static int skip_name(const uint8_t *message, size_t len, size_t *offset)
{
    size_t at = *offset;

    while (at < len) {
        size_t label_len = message[at];
        if ((label_len & POINTER_MARK) == POINTER_MARK) {
            label_len = 1;
        } else if (label_len > DNS_LABEL_MAX) {
            return -EBADMSG;
        } else if (label_len != 0) {
            at += 1 + label_len;
            continue;
        }
        if (len - at < 1 + label_len) {
            return -EBADMSG;
        }
        *offset = at + 1 + label_len;
        return 0;
    }
    return -EBADMSG;
}

int dns_question_read(const uint8_t *message, size_t len, struct dns_question *out, size_t *next)
{
    struct dns_header header;
    struct dns_name name;
    size_t at;

    int err = dns_header_read(message, len, &header);
    if (err != 0) {
        return err;
    }
    if (header.count[DNS_QUESTION] == 0) {
        return -ENOENT;
    }
    err = dns_name_read(message, len, DNS_HEADER_LEN, &name, &at);
    if (err != 0) {
        return err;
    }
    if (len - at < QUESTION_FIXED_LEN) {
        return -EBADMSG;
    }
    out->name = name;
    out->type = dns_get16(message + at);
    out->class = dns_get16(message + at + 2);
    if (next != NULL) {
        *next = at + QUESTION_FIXED_LEN;
    }
    return 0;
}

int dns_records_init(struct dns_records *records, const uint8_t *message, size_t len)
{
    struct dns_header header;
    size_t at = DNS_HEADER_LEN;

    int err = dns_header_read(message, len, &header);
    for (unsigned i = 0; err == 0 && i < header.count[DNS_QUESTION]; i++) {
        err = skip_name(message, len, &at);
        if (err == 0) {
            err = len - at < QUESTION_FIXED_LEN ? -EBADMSG : 0;
            at += QUESTION_FIXED_LEN;
        }
    }
    if (err != 0) {
        return err;
    }
    *records = (struct dns_records){.message = message, .len = len, .offset = at};
    memcpy(records->left, header.count, sizeof records->left);
    return 0;
}

int dns_records_next(struct dns_records *records, struct dns_record *out)
{
    const uint8_t *message = records->message;
    enum dns_section section = DNS_ANSWER;
    size_t at;

    while (records->left[section] == 0) {
        if (section == DNS_ADDITIONAL) {
            return 0;
        }
        section = (enum dns_section)(section + 1);
    }
    struct dns_name owner;
    int err = dns_name_read(message, records->len, records->offset, &owner, &at);
    if (err != 0) {
        return err;
    }
    if (records->len - at < RECORD_FIXED_LEN) {
        return -EBADMSG;
    }
    size_t rdata_len = dns_get16(message + at + 8);
    size_t rdata_offset = at + RECORD_FIXED_LEN;
    if (records->len - rdata_offset < rdata_len) {
        return -EBADMSG;
    }
    out->owner.len = owner.len;
    memcpy(out->owner.wire, owner.wire, owner.len);
    out->section = section;
    out->type = dns_get16(message + at);
    out->class = dns_get16(message + at + 2);
    out->ttl = dns_get32(message + at + 4);
    out->rdata = (struct socks6_slice){message + rdata_offset, rdata_len};
    out->offset = records->offset;
    out->ttl_offset = at + 4;
    out->rdata_offset = rdata_offset;
    records->offset = rdata_offset + rdata_len;
    records->left[section]--;
    return 1;
}

static int check_options(struct socks6_slice options)
{
    struct socks6_slice value;
    uint16_t code;
    size_t offset = 0;
    int rc;

    do {
        rc = dns_option_next(options, &offset, &code, &value);
    } while (rc > 0);
    return rc;
}

static int edns_of(const struct dns_record *record, struct dns_edns *edns)
{
    if (edns->present || record->section != DNS_ADDITIONAL || record->owner.len != 1) {
        return -EBADMSG;
    }
    edns->present = true;
    edns->udp_len = record->class;
    edns->extended_rcode = (uint8_t)(record->ttl >> 24);
    edns->version = (uint8_t)(record->ttl >> 16);
    edns->flags = (uint16_t)record->ttl;
    edns->options = record->rdata;
    edns->offset = record->offset;
    edns->end = record->rdata_offset + record->rdata.len;
    return check_options(record->rdata);
}

int dns_message_check(const uint8_t *message, size_t len, struct dns_edns *edns, size_t *end)
{
    struct dns_records records;
    struct dns_record record = {.type = 0};
    struct dns_edns found = {.present = false};

    int rc = dns_records_init(&records, message, len);
    if (rc != 0) {
        return rc;
    }
    while ((rc = dns_records_next(&records, &record)) > 0) {
        if (record.type == DNS_TYPE_OPT) {
            int err = edns_of(&record, &found);
            if (err != 0) {
                return err;
            }
        }
    }
    if (rc != 0) {
        return rc;
    }
    *edns = found;
    if (end != NULL) {
        *end = records.offset;
    }
    return 0;
}

int dns_option_next(struct socks6_slice options, size_t *offset, uint16_t *code, struct socks6_slice *value)
{
    size_t left = options.len - *offset;

    if (left == 0) {
        return 0;
    }
    if (left < 4) {
        return -EBADMSG;
    }
    const uint8_t *at = options.data + *offset;
    size_t value_len = dns_get16(at + 2);
    if (left - 4 < value_len) {
        return -EBADMSG;
    }
    *code = dns_get16(at);
    *value = (struct socks6_slice){at + 4, value_len};
    *offset += 4 + value_len;
    return 1;
}

struct socks6_addr dns_addr(uint8_t type, const uint8_t *bytes, uint16_t port)
{
    struct socks6_addr addr = {.type = type, .len = type == SOCKS6_ADDR_IPV4 ? 4 : 16, .port = port};

    memcpy(type == SOCKS6_ADDR_IPV4 ? addr.u.ipv4 : addr.u.ipv6, bytes, addr.len);
    return addr;
}

bool dns_record_addr(const struct dns_record *record, uint16_t port, struct socks6_addr *out)
{
    bool is_ipv4 = record->type == DNS_TYPE_A && record->rdata.len == 4;
    bool is_ipv6 = record->type == DNS_TYPE_AAAA && record->rdata.len == 16;

    if (record->class != DNS_CLASS_IN || (!is_ipv4 && !is_ipv6)) {
        return false;
    }
    *out = dns_addr(is_ipv4 ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6, record->rdata.data, port);
    return true;
}

/* ---- names ---- */

/* Lengths of labels are below 'A': one pass may fold all bytes alike. */
_Static_assert(DNS_LABEL_MAX < 'A', "label lengths are no letters");

static bool equal_folded(const uint8_t *a, const uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i])) {
            return false;
        }
    }
    return true;
}

bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
    return a->len == b->len && equal_folded(a->wire, b->wire, a->len);
}

bool dns_name_is_under(const struct dns_name *name, const struct dns_name *ancestor)
{
    size_t at = 0;

    while ((size_t)(name->len - at) > ancestor->len) {
        at += 1 + (size_t)name->wire[at];
    }
    return (size_t)(name->len - at) == ancestor->len && equal_folded(name->wire + at, ancestor->wire, ancestor->len);
}

/* Eight bytes at once. Bit 7 of each byte says whether it is a letter to fold; then it becomes bit 5. */
static uint64_t lower8(uint64_t bytes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t low = bytes & ~tops; /* sums do not reach the next byte */
    uint64_t is_upper = (low + (0x80u - 'A') * ones) & ~(low + (0x80u - 'Z' - 1) * ones) & ~bytes & tops;

    return bytes | is_upper >> 2;
}

void dns_name_fold(const struct dns_name *name, uint8_t *out)
{
    uint64_t bytes;
    size_t at = 0;

    for (; name->len - at >= sizeof bytes; at += sizeof bytes) {
        memcpy(&bytes, name->wire + at, sizeof bytes);
        bytes = lower8(bytes);
        memcpy(out + at, &bytes, sizeof bytes);
    }
    for (; at < name->len; at++) {
        out[at] = lower(name->wire[at]);
    }
}

void dns_name_lower(struct dns_name *name)
{
    dns_name_fold(name, name->wire);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One byte of a label, escaped or not: moves `text` on and returns it; -1 for a bad escape. */
static int next_byte(const char **text)
{
    const char *at = *text;

    if (*at != '\\') {
        *text = at + 1;
        return (unsigned char)*at;
    }
    at++;
    if (!is_digit(*at)) {
        *text = at + 1;
        return *at == '\0' ? -1 : (unsigned char)*at;
    }
    if (!is_digit(at[1]) || !is_digit(at[2])) {
        return -1;
    }
    int value = (at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0');
    *text = at + 3;
    return value > 255 ? -1 : value;
}

int dns_name_parse(const char *text, struct dns_name *out)
{
    struct dns_name name = {.len = 0};
    size_t len = 1;   /* bytes in name.wire; the first is the length of the first label */
    size_t label = 0; /* where the label's length stands */

    if (text[0] == '.' && text[1] == '\0') {
        *out = (struct dns_name){.len = 1};
        return 0;
    }
    for (;;) {
        bool at_end = *text == '\0';
        if (at_end || *text == '.') {
            size_t label_len = len - label - 1;
            if (label_len == 0 || label_len > DNS_LABEL_MAX || len >= DNS_NAME_MAX) {
                return -EINVAL;
            }
            name.wire[label] = (uint8_t)label_len;
            name.wire[len] = 0;
            label = len++;
            if (at_end || text[1] == '\0') {
                break;
            }
            text++;
            continue;
        }
        int byte = next_byte(&text);
        if (byte < 0 || len >= DNS_NAME_MAX) {
            return -EINVAL;
        }
        name.wire[len++] = (uint8_t)byte;
    }
    name.len = (uint8_t)len;
    *out = name;
    return 0;
}

static size_t format_byte(uint8_t byte, char *out)
{
    if (byte <= ' ' || byte > '~') {
        out[0] = '\\';
        out[1] = (char)('0' + byte / 100);
        out[2] = (char)('0' + byte / 10 % 10);
        out[3] = (char)('0' + byte % 10);
        return 4;
    }
    if (strchr(".\\\"();@$", byte) != NULL) {
        out[0] = '\\';
        out[1] = (char)byte;
        return 2;
    }
    out[0] = (char)byte;
    return 1;
}

size_t dns_name_format(const struct dns_name *name, char text[DNS_NAME_TEXT_MAX])
{
    size_t len = 0;

    for (size_t at = 0; name->wire[at] != 0; at += 1 + (size_t)name->wire[at]) {
        for (size_t i = 1; i <= name->wire[at]; i++) {
            len += format_byte(name->wire[at + i], text + len);
        }
        text[len++] = '.';
    }
    if (len == 0) {
        text[len++] = '.';
    }
    text[len] = '\0';
    return len;
}

/* ---- building ---- */

int dns_query_build(const struct dns_query *query, uint8_t *buf, size_t size, size_t *len)
{
    size_t opt_len = query->with_edns ? 11 + query->edns_options.len : 0;
    size_t need = DNS_HEADER_LEN + query->name->len + QUESTION_FIXED_LEN + opt_len;

    if (need > size || query->edns_options.len > UINT16_MAX) {
        return -ENOSPC;
    }
    memset(buf, 0, DNS_HEADER_LEN);
    dns_put16(buf, query->id);
    dns_put16(buf + 2, query->flags);
    dns_put16(buf + 4, 1);
    dns_put16(buf + 10, query->with_edns ? 1 : 0);
    uint8_t *at = buf + DNS_HEADER_LEN;
    memcpy(at, query->name->wire, query->name->len);
    at += query->name->len;
    dns_put16(at, query->type);
    dns_put16(at + 2, query->class);
    at += QUESTION_FIXED_LEN;
    if (query->with_edns) {
        at[0] = 0; /* the root owns it */
        dns_put16(at + 1, DNS_TYPE_OPT);
        dns_put16(at + 3, query->edns_udp_len);
        dns_put32(at + 5, query->edns_flags);
        dns_put16(at + 9, (unsigned)query->edns_options.len);
        if (query->edns_options.len > 0) {
            memcpy(at + 11, query->edns_options.data, query->edns_options.len);
        }
    }
    *len = need;
    return 0;
}

int dns_option_put(uint8_t *buf, size_t size, size_t *len, uint16_t code, const uint8_t *value, size_t value_len)
{
    if (value_len > UINT16_MAX || size < *len || size - *len < 4 + value_len) {
        return -ENOSPC;
    }
    uint8_t *at = buf + *len;
    dns_put16(at, code);
    dns_put16(at + 2, (unsigned)value_len);
    if (value_len > 0) {
        memcpy(at + 4, value, value_len);
    }
    *len += 4 + value_len;
    return 0;
}
