/*
 * Proxy URLs: socks6://[user[:password]@]host[:port][/][?draft=8|11|12], socks6s://...[?ca=FILE&cert=FILE&key=FILE&tls=1.2]
 * and socks5h://...
 *
 * Called by programs for -x and the environment. Follows RFC 3986 where it matters (the authority ends at the first
 * '/', '?' or '#'; user name and password are percent-encoded), and is strict beyond that, since a URL that is
 * understood in another way than it was meant sends a password to the wrong host.
 *
 * No message repeats text of the URL that could be part of a password: with "socks6://user:secret" (the "@host"
 * forgotten) the password stands where a port is expected. So messages name the part, not what stands in it.
 */
#include <socks6/dial.h>

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A piece of the URL. */
struct span {
    const char *at;
    size_t len;
};

/* The URL cut up, nothing decoded yet. `at` is NULL for a part that is absent. */
struct parts {
    struct span scheme;
    struct span userinfo;
    struct span hostport;
    struct span tail; /* path, query and fragment */
};

/* Where the sentence for people goes. */
struct complaint {
    char *text;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int complain(const struct complaint *to, const char *format, ...)
{
    va_list args;

    if (to->text != NULL && to->size > 0) {
        va_start(args, format);
        (void)vsnprintf(to->text, to->size, format, args); /* cut is fine: it is for people */
        va_end(args);
    }
    return SOCKS6_ERR_INVALID;
}

static int span_is(struct span s, const char *word)
{
    return s.len == strlen(word) && strncasecmp(s.at, word, s.len) == 0;
}

static int is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* RFC 3986 "scheme", followed by "://". 0 if the text does not start so. */
static size_t scheme_len(const char *url)
{
    size_t n = 0;

    while (is_alpha(url[n]) || (n > 0 && (is_digit(url[n]) || (url[n] != '\0' && strchr("+-.", url[n]) != NULL)))) {
        n++;
    }
    return n > 0 && strncmp(url + n, "://", 3) == 0 ? n : 0;
}

static int split(const char *url, struct parts *out, const struct complaint *to)
{
    struct parts p = {{url, scheme_len(url)}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    size_t authority;

    if (p.scheme.len == 0) {
        return complain(to, "a proxy URL starts with socks6://, socks6s:// or socks5h://");
    }
    p.hostport.at = url + p.scheme.len + 3;
    authority = strcspn(p.hostport.at, "/?#");
    p.tail.at = p.hostport.at + authority;
    p.tail.len = strlen(p.tail.at);
    if (memchr(p.tail.at, '@', p.tail.len) != NULL) {
        return complain(to, "a '/', '?' or '#' in the user name or password must be written %%2F, %%3F or %%23");
    }
    p.hostport.len = authority;
    for (size_t i = authority; i > 0; i--) {
        if (p.hostport.at[i - 1] == '@') { /* the last one: a bare '@' in a password is a common slip, and harmless */
            p.userinfo.at = p.hostport.at;
            p.userinfo.len = i - 1;
            p.hostport.at += i;
            p.hostport.len -= i;
            break;
        }
    }
    *out = p;
    return SOCKS6_OK;
}

static int parse_scheme(struct span scheme, struct socks6_proxy *p, const struct complaint *to)
{
    if (span_is(scheme, "socks6")) {
        p->scheme = SOCKS6_SCHEME_SOCKS6;
        return SOCKS6_OK;
    }
    if (span_is(scheme, "socks5h")) {
        p->scheme = SOCKS6_SCHEME_SOCKS5H;
        return SOCKS6_OK;
    }
    if (span_is(scheme, "socks6s")) {
        p->scheme = SOCKS6_SCHEME_SOCKS6;
        p->is_tls = 1;
        return SOCKS6_OK;
    }
    if (span_is(scheme, "socks5")) {
        return complain(to, "socks5:// would resolve names on this side; use socks5h:// (names go to the proxy)");
    }
    return complain(to, "the scheme is not one of socks6://, socks6s:// and socks5h://");
}

static int hex_digit(char c)
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

/* One byte of a percent-encoded part from `*i` on, which moves behind it; -1 if a '%' has no two hex digits after it. */
static int decode_byte(struct span in, size_t *i)
{
    int high, low;

    if (in.at[*i] != '%') {
        return (unsigned char)in.at[(*i)++];
    }
    if (in.len - *i < 3) {
        return -1;
    }
    high = hex_digit(in.at[*i + 1]);
    low = hex_digit(in.at[*i + 2]);
    *i += 3;
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Percent-decodes into `out`, which has room for `max` bytes and a NUL. `what` names the part in messages. */
static int decode(struct span in, char *out, size_t max, const char *what, const struct complaint *to)
{
    size_t n = 0;

    for (size_t i = 0; i < in.len;) {
        int c = decode_byte(in, &i);

        if (c < 0) {
            return complain(to, "in the %s a '%%' is not followed by two hexadecimal digits (write %%25 for a '%%')",
                            what);
        }
        if (c == 0) {
            return complain(to, "the %s contains a NUL byte (%%00)", what);
        }
        if (n == max) {
            return complain(to, "the %s is longer than %zu bytes", what, max);
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return SOCKS6_OK;
}

static int parse_userinfo(struct span info, struct socks6_proxy *p, const struct complaint *to)
{
    struct span user = info, password = {"", 0};
    const char *colon;
    int rc;

    if (info.at == NULL) {
        return SOCKS6_OK;
    }
    colon = memchr(info.at, ':', info.len);
    if (colon != NULL) {
        user.len = (size_t)(colon - info.at);
        password.at = colon + 1;
        password.len = info.len - user.len - 1;
    }
    if (user.len == 0) {
        return complain(to, "the user name before the '@' is empty");
    }
    rc = decode(user, p->username, SOCKS6_USERNAME_MAX, "user name", to);
    if (rc == SOCKS6_OK) {
        rc = decode(password, p->password, SOCKS6_PASSWORD_MAX, "password", to);
    }
    p->has_credentials = 1;
    return rc;
}

static int parse_port(struct span port, uint16_t *out, const struct complaint *to)
{
    unsigned long value = 0;

    if (port.len == 0) { /* "host:" means the default, as RFC 3986 has it */
        return SOCKS6_OK;
    }
    for (size_t i = 0; i < port.len; i++) {
        if (!is_digit(port.at[i]) || value > 65535) {
            return complain(to, "the port must be a number from 1 to 65535");
        }
        value = value * 10 + (unsigned long)(port.at[i] - '0');
    }
    if (value == 0 || value > 65535) {
        return complain(to, "the port must be a number from 1 to 65535");
    }
    *out = (uint16_t)value;
    return SOCKS6_OK;
}

/*
 * "[2001:db8::1]", or with a zone "[fe80::1%25eth0]" (RFC 6874; a bare '%' is taken too). An address with a zone stays
 * text, since struct socks6_addr has no zone and getaddrinfo(3) reads it.
 */
static int parse_ipv6(struct span inside, uint16_t port, struct socks6_addr *out, const struct complaint *to)
{
    char text[INET6_ADDRSTRLEN + sizeof "%123456789012345"];
    const char *percent = memchr(inside.at, '%', inside.len);
    size_t addr_len = percent == NULL ? inside.len : (size_t)(percent - inside.at);
    size_t zone_at = addr_len;
    uint8_t bytes[16];

    if (addr_len == 0 || addr_len >= INET6_ADDRSTRLEN) {
        return complain(to, "the text in brackets is not an IPv6 address");
    }
    memcpy(text, inside.at, addr_len);
    text[addr_len] = '\0';
    if (inet_pton(AF_INET6, text, bytes) != 1) {
        return complain(to, "the text in brackets is not an IPv6 address");
    }
    if (percent == NULL) {
        *out = socks6_addr_ipv6(bytes, port);
        return SOCKS6_OK;
    }
    zone_at += inside.len - addr_len > 3 && strncmp(percent, "%25", 3) == 0 ? 3 : 1;
    for (size_t i = zone_at; i < inside.len; i++) {
        if (!is_alpha(inside.at[i]) && !is_digit(inside.at[i]) && strchr("-._", inside.at[i]) == NULL) {
            return complain(to, "the zone of the IPv6 address is not the name of an interface");
        }
    }
    if (zone_at == inside.len || inside.len - zone_at > 15) {
        return complain(to, "the zone of the IPv6 address is not the name of an interface");
    }
    text[addr_len] = '%';
    memcpy(text + addr_len + 1, inside.at + zone_at, inside.len - zone_at);
    return socks6_addr_name(text, addr_len + 1 + inside.len - zone_at, port, out) ? SOCKS6_OK : SOCKS6_ERR_INVALID;
}

static int parse_name(struct span host, uint16_t port, struct socks6_addr *out, const struct complaint *to)
{
    char text[SOCKS6_NAME_MAX + 1];
    int only_digits_and_dots = 1;
    uint8_t bytes[4];

    for (size_t i = 0; i < host.len; i++) {
        char c = host.at[i];

        if ((unsigned char)c >= 0x80) {
            return complain(to, "write an international host name in its ASCII form (xn--...)");
        }
        if (!is_alpha(c) && !is_digit(c) && strchr("-._", c) == NULL) {
            return complain(to, "the host name contains a character that is not a letter, a digit, '-', '.' or '_'");
        }
        only_digits_and_dots &= is_digit(c) || c == '.';
    }
    if (host.len > SOCKS6_NAME_MAX) {
        return complain(to, "the host name is longer than %u bytes", SOCKS6_NAME_MAX);
    }
    memcpy(text, host.at, host.len);
    text[host.len] = '\0';
    if (inet_pton(AF_INET, text, bytes) == 1) {
        *out = socks6_addr_ipv4(bytes, port);
        return SOCKS6_OK;
    }
    if (only_digits_and_dots) { /* getaddrinfo(3) would read 127.1 or 10.0.0.010 in ways that people do not expect */
        return complain(to, "the host is not an IPv4 address of four numbers");
    }
    return socks6_addr_name(text, host.len, port, out) ? SOCKS6_OK : SOCKS6_ERR_INVALID;
}

static int parse_hostport(struct span in, struct socks6_proxy *p, const struct complaint *to)
{
    struct span host = in, port = {NULL, 0};
    uint16_t number = p->is_tls ? SOCKS6_TLS_PORT : SOCKS6_PORT;
    const char *end;
    int rc;

    if (in.len == 0) {
        return complain(to, "the host is empty");
    }
    int bracketed = in.at[0] == '[';
    end = bracketed ? memchr(in.at, ']', in.len) : memchr(in.at, ':', in.len);
    if (bracketed && end == NULL) {
        return complain(to, "the '[' of the host has no ']'");
    }
    if (bracketed) {
        host.at++;
        host.len = (size_t)(end - host.at);
        end++;
        if (end < in.at + in.len && *end != ':') {
            return complain(to, "after the ']' of the host only ':PORT' may follow");
        }
    } else if (end != NULL) {
        host.len = (size_t)(end - in.at);
    }
    if (end != NULL && end < in.at + in.len) {
        port.at = end + 1;
        port.len = in.len - (size_t)(port.at - in.at);
    }
    if (!bracketed && port.at != NULL && memchr(port.at, ':', port.len) != NULL) {
        return complain(to, "an IPv6 address stands in brackets: socks6://[2001:db8::1]:1080");
    }
    if (host.len == 0) {
        return complain(to, "the host is empty");
    }
    rc = parse_port(port, &number, to);
    if (rc != SOCKS6_OK) {
        return rc;
    }
    return bracketed ? parse_ipv6(host, number, &p->addr, to) : parse_name(host, number, &p->addr, to);
}

static int parse_draft(struct span value, struct socks6_proxy *p, const struct complaint *to)
{
    if (p->scheme != SOCKS6_SCHEME_SOCKS6) {
        return complain(to, "draft= has a meaning with socks6:// and socks6s:// only");
    }
    if (span_is(value, "8") || span_is(value, "08")) {
        p->draft = SOCKS6_DRAFT_08;
    } else if (span_is(value, "11")) {
        p->draft = SOCKS6_DRAFT_11;
    } else if (span_is(value, "12")) {
        p->draft = SOCKS6_DRAFT_12;
    } else {
        return complain(to, "draft= takes 8, 11 or 12");
    }
    return SOCKS6_OK;
}

/* The files of TLS and its version. */
static int parse_tls(struct span key, struct span value, struct socks6_proxy *p, const struct complaint *to)
{
    char *path = span_is(key, "ca") ? p->ca : span_is(key, "cert") ? p->certificate : p->key;

    if (!p->is_tls) {
        return complain(to, "ca=, cert=, key= and tls= have a meaning with socks6s:// only");
    }
    if (span_is(key, "tls")) {
        p->tls_1_2 = span_is(value, "1.2");
        return p->tls_1_2 || span_is(value, "1.3") ? SOCKS6_OK : complain(to, "tls= takes 1.3 or 1.2");
    }
    if (value.len == 0) {
        return complain(to, "ca=, cert= and key= take the name of a file");
    }
    return decode(value, path, SOCKS6_PATH_MAX, "name of a file", to);
}

static int parse_parameter(struct span key, struct span value, struct socks6_proxy *p, const struct complaint *to)
{
    return span_is(key, "draft") ? parse_draft(value, p, to) : parse_tls(key, value, p, to);
}

/* "draft=8&ca=/etc/ca.pem" */
static int parse_query(struct span query, struct socks6_proxy *p, const struct complaint *to)
{
    static const char *const known[] = {"draft", "ca", "cert", "key", "tls"};
    enum { KNOWN_COUNT = sizeof known / sizeof *known };
    int seen[KNOWN_COUNT] = {0};

    while (query.len > 0) {
        size_t len = strcspn(query.at, "&"), i = 0;
        const char *equals = memchr(query.at, '=', len);
        struct span key = {query.at, equals == NULL ? len : (size_t)(equals - query.at)};
        int rc;

        while (i < KNOWN_COUNT && !span_is(key, known[i])) {
            i++;
        }
        if (i == KNOWN_COUNT || equals == NULL) {
            return complain(to, "unknown parameter after the '?'; there are draft=8, 11 or 12, and with socks6s:// "
                                "ca=FILE, cert=FILE, key=FILE and tls=1.2");
        }
        if (seen[i]++) {
            return complain(to, "%s= is given twice", known[i]);
        }
        rc = parse_parameter(key, (struct span){equals + 1, len - key.len - 1}, p, to);
        if (rc != SOCKS6_OK) {
            return rc;
        }
        query.at += len + (query.at[len] == '&');
        query.len = strlen(query.at);
    }
    if (p->key[0] != '\0' && p->certificate[0] == '\0') {
        return complain(to, "key= needs cert=");
    }
    return SOCKS6_OK;
}

static int parse_tail(struct span tail, struct socks6_proxy *p, const struct complaint *to)
{
    if (tail.len == 0) {
        return SOCKS6_OK;
    }
    if (memchr(tail.at, '#', tail.len) != NULL) {
        return complain(to, "a proxy URL has no '#' part");
    }
    if (tail.at[0] == '/') { /* "socks6://host/" is how many tools write it */
        tail.at++;
        tail.len--;
    }
    if (tail.len == 0) {
        return SOCKS6_OK;
    }
    if (tail.at[0] != '?') {
        return complain(to, "a proxy URL has no path after the host");
    }
    return parse_query((struct span){tail.at + 1, tail.len - 1}, p, to);
}

int socks6_proxy_parse(const char *url, struct socks6_proxy *out, char *why, size_t why_size)
{
    const struct complaint to = {why, why_size};
    struct socks6_proxy p;
    struct parts parts;
    int rc;

    memset(&p, 0, sizeof p);
    memset(&parts, 0, sizeof parts);
    p.draft = SOCKS6_DRAFT_11;
    if (url == NULL) {
        return complain(&to, "there is no proxy URL");
    }
    rc = split(url, &parts, &to);
    if (rc != SOCKS6_OK) {
        return rc;
    }
    rc = parse_scheme(parts.scheme, &p, &to);
    if (rc == SOCKS6_OK) {
        rc = parse_userinfo(parts.userinfo, &p, &to);
    }
    if (rc == SOCKS6_OK) {
        rc = parse_hostport(parts.hostport, &p, &to);
    }
    if (rc == SOCKS6_OK) {
        rc = parse_tail(parts.tail, &p, &to);
    }
    if (rc == SOCKS6_OK) {
        *out = p;
    }
    explicit_bzero(&p, sizeof p);
    return rc;
}
