/*
 * Record data as text. Most types are a sequence of fields, and so a word of the table below; a letter is a field:
 *
 *     1 2 4  number of that many bytes             t  seconds since 1970 as a date (RFC 4034 section 3.2)
 *     n      name                                  T  number of a type, by its name
 *     s      string in quotes                      B  bitmap of types (RFC 4034 section 4.1.2), to the end
 *     S      strings in quotes, to the end         h  hexadecimal with its length in front, "-" if there is none
 *     q      one string in quotes, to the end      H  base32hex with its length in front
 *     g      word of letters and digits            x  hexadecimal, to the end
 *     a A    IPv4, IPv6 address                    b  base64, to the end
 *     i      four groups as in IPv6                e  6 or 8 bytes of an EUI, to the end
 *     L      location (RFC 1876)                   P  list of prefixes (RFC 3123)
 *     V      service parameters (RFC 9460)
 *
 * Whatever does not fit its word exactly is written in the generic form instead.
 */
#include "dns/text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "dns/text_out.h"

/* The data, and how far it has been read. */
struct rdata {
    const uint8_t *message;
    size_t message_len;
    size_t offset, end; /* in the message */
    size_t split;
};

static const struct {
    uint16_t type;
    const char *fields;
} forms[] = {
    {1, "a"},     {2, "n"},    {3, "n"},        {4, "n"},        {5, "n"},     {6, "nn44444"},    {7, "n"},
    {8, "n"},     {9, "n"},    {12, "n"},       {13, "ss"},      {14, "nn"},   {15, "2n"},        {16, "S"},
    {17, "nn"},   {18, "2n"},  {19, "s"},       {20, "S"},       {21, "2n"},   {24, "T114tt2nb"}, {25, "211b"},
    {26, "2nn"},  {27, "sss"}, {28, "A"},       {29, "L"},       {33, "222n"}, {35, "22sssn"},    {36, "2n"},
    {37, "221b"}, {39, "n"},   {42, "P"},       {43, "211x"},    {44, "11x"},  {46, "T114tt2nb"}, {47, "nB"},
    {48, "211b"}, {49, "b"},   {50, "112hHB"},  {51, "112h"},    {52, "111x"}, {53, "111x"},      {59, "211x"},
    {60, "211b"}, {61, "b"},   {62, "42B"},     {63, "411x"},    {64, "2nV"},  {65, "2nV"},       {99, "S"},
    {104, "2i"},  {105, "2a"}, {106, "2i"},     {107, "2n"},     {108, "e"},   {109, "e"},        {256, "22q"},
    {257, "1gq"}, {258, "S"},  {32768, "211x"}, {32769, "211x"},
};

static size_t left(const struct rdata *data)
{
    return data->end - data->offset;
}

/* The next `len` bytes, or NULL if there are fewer. */
static const uint8_t *take(struct rdata *data, size_t len)
{
    const uint8_t *bytes = data->message + data->offset;

    if (left(data) < len) {
        return NULL;
    }
    data->offset += len;
    return bytes;
}

/* A length byte and as many bytes. */
static bool take_counted(struct rdata *data, const uint8_t **bytes, size_t *len)
{
    const uint8_t *count = take(data, 1);

    *bytes = count != NULL ? take(data, *count) : NULL;
    *len = *bytes != NULL ? *count : 0;
    return *bytes != NULL;
}

static void put_quoted(struct text_out *out, const uint8_t *bytes, size_t len)
{
    text_out_char(out, '"');
    for (size_t i = 0; i < len; i++) {
        text_out_byte(out, bytes[i], "\"\\");
    }
    text_out_char(out, '"');
}

static bool put_number(struct rdata *data, struct text_out *out, size_t bytes)
{
    const uint8_t *at = take(data, bytes);

    if (at == NULL) {
        return false;
    }
    text_out_number(out, bytes == 4 ? dns_get32(at) : bytes == 2 ? dns_get16(at) : at[0], 1);
    return true;
}

static bool put_name(struct rdata *data, struct text_out *out)
{
    char text[DNS_NAME_TEXT_MAX];
    struct dns_name name;
    size_t next;

    if (dns_name_read(data->message, data->message_len, data->offset, &name, &next) != 0 || next > data->end) {
        return false;
    }
    data->offset = next;
    (void)dns_name_format(&name, text);
    text_out_string(out, text);
    return true;
}

static bool put_string(struct rdata *data, struct text_out *out)
{
    const uint8_t *bytes;
    size_t len;

    if (!take_counted(data, &bytes, &len)) {
        return false;
    }
    put_quoted(out, bytes, len);
    return true;
}

static bool put_strings(struct rdata *data, struct text_out *out)
{
    if (!put_string(data, out)) {
        return false;
    }
    while (left(data) > 0) {
        text_out_char(out, ' ');
        if (!put_string(data, out)) {
            return false;
        }
    }
    return true;
}

static bool is_word_byte(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

static bool put_word(struct rdata *data, struct text_out *out)
{
    const uint8_t *bytes;
    size_t len;

    if (!take_counted(data, &bytes, &len) || len == 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_word_byte(bytes[i])) {
            return false;
        }
        text_out_char(out, (char)bytes[i]);
    }
    return true;
}

static void put_ip(struct text_out *out, int family, const uint8_t *bytes)
{
    char text[INET6_ADDRSTRLEN];

    text_out_string(out, inet_ntop(family, bytes, text, sizeof text));
}

static bool put_address(struct rdata *data, struct text_out *out, int family)
{
    const uint8_t *bytes = take(data, family == AF_INET ? 4 : 16);

    if (bytes == NULL) {
        return false;
    }
    put_ip(out, family, bytes);
    return true;
}

static bool put_groups(struct rdata *data, struct text_out *out)
{
    const uint8_t *bytes = take(data, 8);
    char text[sizeof "ffff:ffff:ffff:ffff"];

    if (bytes == NULL) {
        return false;
    }
    (void)snprintf(text, sizeof text, "%x:%x:%x:%x", dns_get16(bytes), dns_get16(bytes + 2), dns_get16(bytes + 4),
                   dns_get16(bytes + 6));
    text_out_string(out, text);
    return true;
}

static bool put_eui(struct rdata *data, struct text_out *out)
{
    size_t len = left(data);
    const uint8_t *bytes = take(data, len);
    char text[sizeof "-00"];

    if (len != 6 && len != 8) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        (void)snprintf(text, sizeof text, "%s%02x", i > 0 ? "-" : "", bytes[i]);
        text_out_string(out, text);
    }
    return true;
}

static bool put_date(struct rdata *data, struct text_out *out)
{
    const uint8_t *at = take(data, 4);
    struct tm tm;
    time_t seconds;

    if (at == NULL) {
        return false;
    }
    seconds = (time_t)dns_get32(at);
    if (gmtime_r(&seconds, &tm) == NULL) {
        return false;
    }
    text_out_number(out, (uint64_t)tm.tm_year + 1900, 4);
    text_out_number(out, (uint64_t)tm.tm_mon + 1, 2);
    text_out_number(out, (uint64_t)tm.tm_mday, 2);
    text_out_number(out, (uint64_t)tm.tm_hour, 2);
    text_out_number(out, (uint64_t)tm.tm_min, 2);
    text_out_number(out, (uint64_t)tm.tm_sec, 2);
    return true;
}

static bool put_type(struct rdata *data, struct text_out *out)
{
    const uint8_t *at = take(data, 2);
    char text[DNS_MNEMONIC_MAX];

    if (at == NULL) {
        return false;
    }
    (void)dns_type_format(dns_get16(at), text);
    text_out_string(out, text);
    return true;
}

/* Windows of 256 types each, in ascending order, 1 to 32 bytes long. */
static bool put_bitmap(struct rdata *data, struct text_out *out)
{
    char text[DNS_MNEMONIC_MAX];
    int last_window = -1;
    bool first = true;

    while (left(data) > 0) {
        const uint8_t *window = take(data, 1);
        const uint8_t *bits;
        size_t len;

        if (*window <= last_window || !take_counted(data, &bits, &len) || len == 0 || len > 32) {
            return false;
        }
        last_window = *window;
        for (size_t i = 0; i < len * 8; i++) {
            if ((bits[i / 8] & (0x80u >> i % 8)) != 0) {
                (void)dns_type_format((uint16_t)(*window * 256u + i), text);
                text_out_string(out, first ? "" : " ");
                text_out_string(out, text);
                first = false;
            }
        }
    }
    return true;
}

static bool put_salt(struct rdata *data, struct text_out *out)
{
    const uint8_t *bytes;
    size_t len;

    if (!take_counted(data, &bytes, &len)) {
        return false;
    }
    if (len == 0) {
        text_out_char(out, '-');
    }
    text_out_hex(out, bytes, len, 0);
    return true;
}

static bool put_hash(struct rdata *data, struct text_out *out)
{
    const uint8_t *bytes;
    size_t len;

    if (!take_counted(data, &bytes, &len) || len == 0) {
        return false;
    }
    text_out_base32hex(out, bytes, len);
    return true;
}

/* What is left, which must not be nothing. */
static bool put_rest(struct rdata *data, struct text_out *out, char field)
{
    size_t len = left(data);
    const uint8_t *bytes = take(data, len);

    if (field == 'q') {
        put_quoted(out, bytes, len);
    } else if (len == 0) {
        return false;
    } else if (field == 'x') {
        text_out_hex(out, bytes, len, data->split);
    } else {
        text_out_base64(out, bytes, len, data->split);
    }
    return true;
}

/* ---- LOC ---- */

#define LOC_EQUATOR 0x80000000u
#define LOC_ALTITUDE_BASE 10000000

/* A mantissa and a power of ten, centimetres. */
static bool put_loc_size(struct text_out *out, uint8_t size)
{
    uint64_t centimetres = size >> 4;

    if (size >> 4 > 9 || (size & 0xfu) > 9) {
        return false;
    }
    for (unsigned i = size & 0xfu; i > 0; i--) {
        centimetres *= 10;
    }
    text_out_char(out, ' ');
    text_out_number(out, centimetres / 100, 1);
    if ((size & 0xfu) < 2) { /* as dig(1): what can have a fraction shows it */
        text_out_char(out, '.');
        text_out_number(out, centimetres % 100, 2);
    }
    text_out_char(out, 'm');
    return true;
}

/* Thousandths of a second of arc. */
static bool put_loc_angle(struct text_out *out, uint32_t angle, const char *sides, unsigned max_degrees)
{
    bool positive = angle >= LOC_EQUATOR;
    uint32_t arc = positive ? angle - LOC_EQUATOR : LOC_EQUATOR - angle;

    if (arc > max_degrees * 3600000u) {
        return false;
    }
    text_out_number(out, arc / 3600000, 1);
    text_out_char(out, ' ');
    text_out_number(out, arc / 60000 % 60, 1);
    text_out_char(out, ' ');
    text_out_number(out, arc / 1000 % 60, 1);
    text_out_char(out, '.');
    text_out_number(out, arc % 1000, 3);
    text_out_char(out, ' ');
    text_out_char(out, sides[positive ? 0 : 1]);
    text_out_char(out, ' ');
    return true;
}

static bool put_location(struct rdata *data, struct text_out *out)
{
    const uint8_t *at = take(data, 16);
    int64_t altitude;

    if (at == NULL || at[0] != 0 || !put_loc_angle(out, dns_get32(at + 4), "NS", 90) ||
        !put_loc_angle(out, dns_get32(at + 8), "EW", 180)) {
        return false;
    }
    altitude = (int64_t)dns_get32(at + 12) - LOC_ALTITUDE_BASE;
    if (altitude < 0) {
        text_out_char(out, '-');
        altitude = -altitude;
    }
    text_out_number(out, (uint64_t)altitude / 100, 1);
    text_out_char(out, '.');
    text_out_number(out, (uint64_t)altitude % 100, 2);
    text_out_char(out, 'm');
    return put_loc_size(out, at[1]) && put_loc_size(out, at[2]) && put_loc_size(out, at[3]);
}

/* ---- APL ---- */

static bool put_prefix(struct rdata *data, struct text_out *out)
{
    const uint8_t *head = take(data, 4);
    uint8_t address[16] = {0};
    const uint8_t *bytes;
    unsigned family, len;
    bool is_ipv4;

    if (head == NULL) {
        return false;
    }
    family = dns_get16(head);
    is_ipv4 = family == 1;
    len = head[3] & 0x7fu;
    bytes = take(data, len);
    if (bytes == NULL || (family != 1 && family != 2) || len > (is_ipv4 ? 4u : 16u) ||
        head[2] > (is_ipv4 ? 32u : 128u)) {
        return false;
    }
    memcpy(address, bytes, len);
    text_out_string(out, (head[3] & 0x80u) != 0 ? "!" : "");
    text_out_number(out, family, 1);
    text_out_char(out, ':');
    put_ip(out, is_ipv4 ? AF_INET : AF_INET6, address);
    text_out_char(out, '/');
    text_out_number(out, head[2], 1);
    return true;
}

static bool put_prefixes(struct rdata *data, struct text_out *out)
{
    for (bool first = true; left(data) > 0; first = false) {
        text_out_string(out, first ? "" : " ");
        if (!put_prefix(data, out)) {
            return false;
        }
    }
    return true;
}

/* ---- SVCB, HTTPS ---- */

enum svc_key { SVC_MANDATORY, SVC_ALPN, SVC_NO_DEFAULT_ALPN, SVC_PORT, SVC_IPV4HINT, SVC_ECH, SVC_IPV6HINT, SVC_COUNT };

static void put_svc_key(struct text_out *out, unsigned key)
{
    static const char *const names[] = {"mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint"};

    _Static_assert(sizeof names / sizeof *names == SVC_COUNT, "one name per key");
    if (key < SVC_COUNT) {
        text_out_string(out, names[key]);
    } else {
        text_out_string(out, "key");
        text_out_number(out, key, 1);
    }
}

static bool put_svc_mandatory(struct rdata *value, struct text_out *out)
{
    int last = -1;

    while (left(value) > 0) {
        const uint8_t *key = take(value, 2);

        if (key == NULL || dns_get16(key) <= last) {
            return false;
        }
        text_out_string(out, last >= 0 ? "," : "");
        last = dns_get16(key);
        put_svc_key(out, (unsigned)last);
    }
    return last >= 0;
}

/* Commas and backslashes of a list's items are escaped once for the list and once for the string: RFC 9460 A.1. */
static bool put_svc_alpn(struct rdata *value, struct text_out *out)
{
    bool first = true;

    text_out_char(out, '"');
    while (left(value) > 0) {
        const uint8_t *id;
        size_t len;

        if (!take_counted(value, &id, &len) || len == 0) {
            return false;
        }
        text_out_string(out, first ? "" : ",");
        for (size_t i = 0; i < len; i++) {
            if (id[i] == ',' || id[i] == '\\') {
                text_out_string(out, "\\\\");
            }
            text_out_byte(out, id[i], "\"\\");
        }
        first = false;
    }
    text_out_char(out, '"');
    return !first;
}

static bool put_svc_addresses(struct rdata *value, struct text_out *out, int family)
{
    bool first = true;

    while (left(value) > 0) {
        text_out_string(out, first ? "" : ",");
        if (!put_address(value, out, family)) {
            return false;
        }
        first = false;
    }
    return !first;
}

/* What stands behind '='. */
static bool put_svc_value(unsigned key, struct rdata *value, struct text_out *out)
{
    switch (key) {
    case SVC_MANDATORY:
        return put_svc_mandatory(value, out);
    case SVC_ALPN:
        return put_svc_alpn(value, out);
    case SVC_PORT:
        return put_number(value, out, 2) && left(value) == 0;
    case SVC_IPV4HINT:
        return put_svc_addresses(value, out, AF_INET);
    case SVC_IPV6HINT:
        return put_svc_addresses(value, out, AF_INET6);
    case SVC_ECH:
        text_out_base64(out, value->message + value->offset, left(value), 0);
        return true;
    default:
        put_quoted(out, value->message + value->offset, left(value));
        return true;
    }
}

static bool put_svc_parameters(struct rdata *data, struct text_out *out)
{
    int last = -1;

    while (left(data) > 0) {
        const uint8_t *head = take(data, 4);
        struct rdata value = *data;
        unsigned key;

        if (head == NULL || take(data, dns_get16(head + 2)) == NULL || dns_get16(head) <= last) {
            return false;
        }
        last = dns_get16(head);
        key = (unsigned)last;
        value.offset = data->offset - dns_get16(head + 2);
        value.end = data->offset;
        text_out_char(out, ' ');
        put_svc_key(out, key);
        if (left(&value) == 0 && (key >= SVC_COUNT || key == SVC_NO_DEFAULT_ALPN)) {
            continue;
        }
        if (key == SVC_NO_DEFAULT_ALPN || left(&value) == 0) {
            return false;
        }
        text_out_char(out, '=');
        if (!put_svc_value(key, &value, out)) {
            return false;
        }
    }
    return true;
}

/* ---- all of them ---- */

static bool put_field(struct rdata *data, struct text_out *out, char field)
{
    switch (field) {
    case '1':
    case '2':
    case '4':
        return put_number(data, out, (size_t)(field - '0'));
    case 'n':
        return put_name(data, out);
    case 's':
        return put_string(data, out);
    case 'S':
        return put_strings(data, out);
    case 'g':
        return put_word(data, out);
    case 'a':
        return put_address(data, out, AF_INET);
    case 'A':
        return put_address(data, out, AF_INET6);
    case 'i':
        return put_groups(data, out);
    case 'e':
        return put_eui(data, out);
    case 't':
        return put_date(data, out);
    case 'T':
        return put_type(data, out);
    case 'B':
        return put_bitmap(data, out);
    case 'h':
        return put_salt(data, out);
    case 'H':
        return put_hash(data, out);
    case 'L':
        return put_location(data, out);
    case 'P':
        return put_prefixes(data, out);
    case 'V':
        return put_svc_parameters(data, out);
    default: /* q x b */
        return put_rest(data, out, field);
    }
}

/* False if the data does not have the form of its type. */
static bool put_fields(struct rdata data, const char *fields, struct text_out *out)
{
    for (const char *field = fields; *field != '\0'; field++) {
        size_t before = out->len;

        if (field != fields && *field != 'V') { /* which puts a space before each parameter */
            text_out_char(out, ' ');
        }
        if (!put_field(&data, out, *field)) {
            return false;
        }
        if (*field == 'B' && out->len == before + 1) { /* an empty bitmap leaves no space behind */
            out->buf[--out->len] = '\0';
        }
    }
    return left(&data) == 0;
}

static const char *form_of(uint16_t type)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (forms[i].type == type) {
            return forms[i].fields;
        }
    }
    return NULL;
}

size_t dns_rdata_format(const uint8_t *message, size_t message_len, const struct dns_record *record, size_t split,
                        char *text, size_t size)
{
    const struct rdata data = {message, message_len, record->rdata_offset, record->rdata_offset + record->rdata.len,
                               split};
    const char *fields = form_of(record->type);
    struct text_out out;

    text_out_init(&out, text, size);
    if (fields != NULL && put_fields(data, fields, &out)) {
        return out.len;
    }
    text_out_init(&out, text, size);
    text_out_string(&out, "\\# ");
    text_out_number(&out, record->rdata.len, 1);
    if (record->rdata.len > 0) {
        text_out_char(&out, ' ');
        text_out_hex(&out, record->rdata.data, record->rdata.len, split);
    }
    return out.len;
}

size_t dns_quoted_format(const uint8_t *bytes, size_t len, char *text, size_t size)
{
    struct text_out out;

    text_out_init(&out, text, size);
    put_quoted(&out, bytes, len);
    return out.len;
}

size_t dns_hex_format(const uint8_t *bytes, size_t len, char *text, size_t size)
{
    struct text_out out;

    text_out_init(&out, text, size);
    text_out_hex(&out, bytes, len, 0);
    return out.len;
}
