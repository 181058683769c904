/*
 * What it is that answers on a port, from the first bytes that it sends. Pure.
 */
#ifndef CLI_PROBE_GUESS_H
#define CLI_PROBE_GUESS_H

#include <stddef.h>
#include <stdint.h>

enum probe_kind {
    PROBE_KIND_NONE = 0, /* nothing is known yet */
    PROBE_KIND_SOCKS6,
    PROBE_KIND_SOCKS5,
    PROBE_KIND_SOCKS4,
    PROBE_KIND_SOCKS6_PRIVATE, /* SOCKS 6 under a version byte of its own */
    PROBE_KIND_WEB,
    PROBE_KIND_SSH,
    PROBE_KIND_TLS,
    PROBE_KIND_MAIL_OR_FTP,
    PROBE_KIND_IMAP,
    PROBE_KIND_POP3,
    PROBE_KIND_VNC,
    PROBE_KIND_REDIS,
    PROBE_KIND_TELNET,
    PROBE_KIND_OTHER,       /* answers, with nothing that is known here */
    PROBE_KIND_ENDLESS,     /* the same, without an end */
    PROBE_KIND_SILENT,      /* takes connections and says nothing */
    PROBE_KIND_CLOSES,      /* takes connections and closes them without a word */
    PROBE_KIND_UNREACHABLE, /* takes no connection */
    PROBE_KIND_COUNT
};

/*
 * From the bytes that came first, whatever was sent before: never NONE, SILENT, CLOSES or UNREACHABLE. Two bytes or more
 * are needed for SOCKS 5 and 4; a single one is OTHER, unless it is a version byte of SOCKS 6 of its own.
 */
enum probe_kind probe_guess(const uint8_t *bytes, size_t len);

/* "web-server" and so on: the JSON's `looks_like`, never changes. */
const char *probe_kind_key(enum probe_kind kind);

/* "this is a web server, not a SOCKS proxy" and so on. Static storage. */
const char *probe_kind_sentence(enum probe_kind kind);

/*
 * The first bytes as people can read them: printable ASCII as it is, the rest as \xNN, cut at 24 bytes with "...". Needs
 * room for PROBE_QUOTE_MAX.
 */
#define PROBE_QUOTE_MAX (24 * 4 + sizeof "...")
void probe_quote(const uint8_t *bytes, size_t len, char out[PROBE_QUOTE_MAX]);

#endif
