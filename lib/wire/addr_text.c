/*
 * Addresses as values and as text: makers, parsing, normal form, formatting. Declared in <socks6/types.h>.
 *
 * Parsing is strict: dotted quads of four decimal numbers without leading zeros, and RFC 4291 text. What inet_aton(3)
 * would take beyond that ("127.1", "0x7f.1") stays a name, and is judged by what it resolves to.
 */
#include <stdbool.h>
#include <string.h>

#include <socks6/error.h>
#include <socks6/types.h>

struct socks6_addr socks6_addr_ipv4(const uint8_t bytes[4], uint16_t port)
{
    struct socks6_addr addr;

    memset(&addr, 0, sizeof addr);
    addr.type = SOCKS6_ADDR_IPV4;
    addr.len = 4;
    addr.port = port;
    memcpy(addr.u.ipv4, bytes, 4);
    return addr;
}

struct socks6_addr socks6_addr_ipv6(const uint8_t bytes[16], uint16_t port)
{
    struct socks6_addr addr;

    memset(&addr, 0, sizeof addr);
    addr.type = SOCKS6_ADDR_IPV6;
    addr.len = 16;
    addr.port = port;
    memcpy(addr.u.ipv6, bytes, 16);
    return addr;
}

int socks6_addr_name(const char *name, size_t len, uint16_t port, struct socks6_addr *out)
{
    if (len == 0 || len > SOCKS6_NAME_MAX || memchr(name, 0, len) != NULL) {
        return 0;
    }
    memset(out, 0, sizeof *out);
    out->type = SOCKS6_ADDR_NAME;
    out->len = (uint8_t)len;
    out->port = port;
    memcpy(out->u.name, name, len);
    return 1;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, or -1. */
static int hex_value(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* A decimal number of a dotted quad at `*at`: 0..255, no leading zero. */
static bool parse_quad_part(const char *text, size_t len, size_t *at, uint8_t *out)
{
    size_t start = *at;
    unsigned value = 0;

    while (*at < len && *at - start < 3 && is_digit(text[*at])) {
        value = value * 10 + (unsigned)(text[*at] - '0');
        (*at)++;
    }
    if (*at == start || value > 255 || (*at - start > 1 && text[start] == '0')) {
        return false;
    }
    *out = (uint8_t)value;
    return true;
}

static bool parse_ipv4(const char *text, size_t len, uint8_t out[4])
{
    size_t at = 0;

    for (size_t i = 0; i < 4; i++) {
        if (i > 0 && (at >= len || text[at++] != '.')) {
            return false;
        }
        if (!parse_quad_part(text, len, &at, &out[i])) {
            return false;
        }
    }
    return at == len;
}

/* Up to four hexadecimal digits at `*at`; false if there is none. */
static bool parse_group(const char *text, size_t len, size_t *at, uint8_t out[2])
{
    size_t start = *at;
    unsigned value = 0;

    while (*at < len && *at - start < 4 && hex_value(text[*at]) >= 0) {
        value = value << 4 | (unsigned)hex_value(text[*at]);
        (*at)++;
    }
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)(value & 0xffu);
    return *at > start;
}

/* An IPv6 address as it is read: `bytes` fills from the front, `gap` is where "::" stands (SIZE_MAX: nowhere yet). */
struct groups {
    uint8_t bytes[16];
    size_t count;
    size_t gap;
};

/* What came behind "::" moves to the back. "::" stands for one group at least, so all 16 bytes are too many with it. */
static bool place_groups(const struct groups *groups, uint8_t out[16])
{
    size_t gap = groups->gap == SIZE_MAX ? groups->count : groups->gap;
    size_t behind = groups->count - gap;

    if ((groups->gap == SIZE_MAX) != (groups->count == 16)) {
        return false;
    }
    memset(out, 0, 16);
    memcpy(out, groups->bytes, gap);
    memcpy(out + 16 - behind, groups->bytes + gap, behind);
    return true;
}

/* The colon or colons behind a group at `*at`; something has to follow, unless there are two. */
static bool parse_colons(const char *text, size_t len, size_t *at, struct groups *groups)
{
    if (text[*at] != ':' || *at + 1 == len) {
        return false;
    }
    (*at)++;
    if (text[*at] != ':') {
        return true;
    }
    (*at)++;
    if (groups->gap != SIZE_MAX) {
        return false;
    }
    groups->gap = groups->count;
    return true;
}

/* RFC 4291, section 2.2: all three forms. */
static bool parse_ipv6(const char *text, size_t len, uint8_t out[16])
{
    struct groups groups = {.gap = SIZE_MAX};
    size_t at = 0;

    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        groups.gap = 0;
        at = 2;
    }
    while (at < len) {
        size_t start = at;

        if (groups.count == 16 || !parse_group(text, len, &at, &groups.bytes[groups.count])) {
            return false;
        }
        if (at < len && text[at] == '.') { /* the last 32 bits as a dotted quad */
            if (groups.count > 12 || !parse_ipv4(text + start, len - start, &groups.bytes[groups.count])) {
                return false;
            }
            groups.count += 4;
            break;
        }
        groups.count += 2;
        if (at < len && !parse_colons(text, len, &at, &groups)) {
            return false;
        }
    }
    return place_groups(&groups, out);
}

/* An IP literal, brackets allowed round IPv6; `port` is put beside it. */
static bool parse_literal(const char *text, size_t len, uint16_t port, struct socks6_addr *out)
{
    uint8_t bytes[16];

    if (parse_ipv4(text, len, bytes)) {
        *out = socks6_addr_ipv4(bytes, port);
        return true;
    }
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    if (parse_ipv6(text, len, bytes)) {
        *out = socks6_addr_ipv6(bytes, port);
        return true;
    }
    return false;
}

int socks6_addr_parse(const char *text, uint16_t port, struct socks6_addr *out)
{
    size_t len = strlen(text);

    if (parse_literal(text, len, port, out)) {
        return SOCKS6_OK;
    }
    if (len > 0 && text[0] == '[') {
        return SOCKS6_ERR_INVALID; /* meant as an IPv6 address, and is none */
    }
    return socks6_addr_name(text, len, port, out) ? SOCKS6_OK : SOCKS6_ERR_INVALID;
}

/* RFC 4291, section 2.5.5.2 */
static bool is_mapped(const uint8_t bytes[16])
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    return memcmp(bytes, prefix, sizeof prefix) == 0;
}

void socks6_addr_normalize(struct socks6_addr *addr)
{
    struct socks6_addr literal;

    if (addr->type == SOCKS6_ADDR_NAME && parse_literal(addr->u.name, addr->len, addr->port, &literal)) {
        *addr = literal;
    }
    if (addr->type == SOCKS6_ADDR_IPV6 && is_mapped(addr->u.ipv6)) {
        *addr = socks6_addr_ipv4(addr->u.ipv6 + 12, addr->port);
    }
}

/* ASCII alone, whatever the locale: names are A-labels. */
static unsigned lower(char c)
{
    unsigned value = (unsigned char)c;

    return value >= 'A' && value <= 'Z' ? value - 'A' + 'a' : value;
}

static bool names_equal(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (lower(a[i]) != lower(b[i])) {
            return false;
        }
    }
    return true;
}

int socks6_addr_equal(const struct socks6_addr *a, const struct socks6_addr *b)
{
    if (a->type != b->type || a->port != b->port || a->len != b->len) {
        return 0;
    }
    if (a->type == SOCKS6_ADDR_NAME) {
        return names_equal(a->u.name, b->u.name, a->len);
    }
    return memcmp(a->u.ipv6, b->u.ipv6, a->len) == 0;
}

int socks6_addr_is_unspecified(const struct socks6_addr *addr)
{
    static const uint8_t zeros[16];

    return (addr->type == SOCKS6_ADDR_IPV4 || addr->type == SOCKS6_ADDR_IPV6) &&
           memcmp(addr->u.ipv6, zeros, addr->type == SOCKS6_ADDR_IPV4 ? 4 : 16) == 0;
}

/* Text that grows in the caller's buffer; what no longer fits is dropped whole, and everything after it. */
struct text {
    char *buf;
    size_t size;
    size_t len;
    bool full;
};

static void add(struct text *text, const char *chars, size_t len)
{
    if (text->full || text->size == 0 || len > text->size - 1 - text->len) {
        text->full = true;
        return;
    }
    memcpy(text->buf + text->len, chars, len);
    text->len += len;
}

static void add_char(struct text *text, char c)
{
    add(text, &c, 1);
}

static const char digits[] = "0123456789abcdef";

/* Without leading zeros; at most 65535. */
static void add_number(struct text *text, unsigned value, unsigned base)
{
    char chars[5];
    size_t at = sizeof chars;

    do {
        chars[--at] = digits[value % base];
        value /= base;
    } while (value > 0);
    add(text, chars + at, sizeof chars - at);
}

static void add_ipv4(struct text *text, const uint8_t bytes[4])
{
    for (size_t i = 0; i < 4; i++) {
        if (i > 0) {
            add_char(text, '.');
        }
        add_number(text, bytes[i], 10);
    }
}

static unsigned group_at(const uint8_t bytes[16], size_t i)
{
    return (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
}

/* RFC 5952, section 4.2: the longest run of zero groups, the first of equals, never a single group. Returns its length. */
static size_t longest_zeros(const uint8_t bytes[16], size_t *start)
{
    size_t best = 1;
    size_t run = 0;

    for (size_t i = 0; i < 8; i++) {
        run = group_at(bytes, i) == 0 ? run + 1 : 0;
        if (run > best) {
            best = run;
            *start = i + 1 - run;
        }
    }
    return best > 1 ? best : 0;
}

/* RFC 5952; section 5's mixed notation for IPv4-mapped addresses. */
static void add_ipv6(struct text *text, const uint8_t bytes[16])
{
    size_t start = 0;
    size_t zeros = longest_zeros(bytes, &start);

    if (is_mapped(bytes)) {
        add(text, "::ffff:", 7);
        add_ipv4(text, bytes + 12);
        return;
    }
    for (size_t i = 0; i < 8; i++) {
        if (zeros > 0 && i == start) {
            add(text, "::", 2);
            i += zeros - 1;
            continue;
        }
        if (i > 0 && !(zeros > 0 && i == start + zeros)) {
            add_char(text, ':');
        }
        add_number(text, group_at(bytes, i), 16);
    }
}

/* A name may hold anything but NUL: nothing of it may break out of a log line or a quoted string. */
static void add_name(struct text *text, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];

        if (c > 0x20 && c < 0x7f && c != '"' && c != '\'' && c != '\\') {
            add_char(text, name[i]);
        } else {
            const char escaped[4] = {'\\', 'x', digits[c >> 4], digits[c & 0xfu]};

            add(text, escaped, sizeof escaped);
        }
    }
}

static void add_host(struct text *text, const struct socks6_addr *addr, bool brackets)
{
    switch ((enum socks6_addr_type)addr->type) {
    case SOCKS6_ADDR_IPV4:
        add_ipv4(text, addr->u.ipv4);
        return;
    case SOCKS6_ADDR_IPV6:
        if (brackets) {
            add_char(text, '[');
        }
        add_ipv6(text, addr->u.ipv6);
        if (brackets) {
            add_char(text, ']');
        }
        return;
    case SOCKS6_ADDR_NAME:
        add_name(text, addr->u.name, addr->len);
        return;
    }
    add_char(text, '?');
}

static size_t finish(struct text *text)
{
    if (text->size > 0) {
        text->buf[text->len] = '\0';
    }
    return text->len;
}

size_t socks6_addr_format(const struct socks6_addr *addr, char *buf, size_t size)
{
    struct text text = {.buf = buf, .size = size};

    add_host(&text, addr, true);
    add_char(&text, ':');
    add_number(&text, addr->port, 10);
    return finish(&text);
}

size_t socks6_addr_format_host(const struct socks6_addr *addr, char *buf, size_t size)
{
    struct text text = {.buf = buf, .size = size};

    add_host(&text, addr, false);
    return finish(&text);
}
