#include "cli/probe_guess.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/*
 * Version bytes that public implementations use to keep their unfinished SOCKS 6 apart from the real one: the draft
 * authors' own, and one in Go.
 */
#define PRIVATE_AUTHORS 207
#define PRIVATE_GO 212

struct mark {
    const char *bytes;
    enum probe_kind kind;
};

/* Compared without regard to case. */
static const struct mark marks[] = {
    {"HTTP/", PROBE_KIND_WEB},        {"<html", PROBE_KIND_WEB},        {"<!doctype", PROBE_KIND_WEB},
    {"SSH-", PROBE_KIND_SSH},         {"220 ", PROBE_KIND_MAIL_OR_FTP}, {"220-", PROBE_KIND_MAIL_OR_FTP},
    {"554 ", PROBE_KIND_MAIL_OR_FTP}, {"* OK", PROBE_KIND_IMAP},        {"* PREAUTH", PROBE_KIND_IMAP},
    {"* BYE", PROBE_KIND_IMAP},       {"+OK", PROBE_KIND_POP3},         {"RFB 00", PROBE_KIND_VNC},
    {"-ERR", PROBE_KIND_REDIS},       {"-NOAUTH", PROBE_KIND_REDIS},    {"-DENIED", PROBE_KIND_REDIS},
};

static const struct {
    const char *key;
    const char *sentence;
} kinds[PROBE_KIND_COUNT] = {
    [PROBE_KIND_NONE] = {"unknown", "nothing could be found out"},
    [PROBE_KIND_SOCKS6] = {"socks6-proxy", "this is a SOCKS 6 proxy"},
    [PROBE_KIND_SOCKS5] = {"socks5-proxy", "this is a SOCKS 5 proxy"},
    [PROBE_KIND_SOCKS4] = {"socks4-proxy", "this is a SOCKS 4 proxy"},
    [PROBE_KIND_SOCKS6_PRIVATE] = {"socks6-private",
                                   "this is an unfinished SOCKS 6 proxy that uses a version byte of its own"},
    [PROBE_KIND_WEB] = {"web-server", "this is a web server, not a SOCKS proxy"},
    [PROBE_KIND_SSH] = {"ssh-server", "this is an SSH server, not a SOCKS proxy"},
    [PROBE_KIND_TLS] = {"tls-server",
                        "this port speaks TLS; a SOCKS proxy may be behind it, which this version cannot ask"},
    [PROBE_KIND_MAIL_OR_FTP] = {"mail-or-ftp-server", "this is a mail or FTP server, not a SOCKS proxy"},
    [PROBE_KIND_IMAP] = {"imap-server", "this is an IMAP mail server, not a SOCKS proxy"},
    [PROBE_KIND_POP3] = {"pop3-server", "this is a POP3 mail server, not a SOCKS proxy"},
    [PROBE_KIND_VNC] = {"vnc-server", "this is a VNC server, not a SOCKS proxy"},
    [PROBE_KIND_REDIS] = {"redis-server", "this looks like a Redis or POP3 server, not a SOCKS proxy"},
    [PROBE_KIND_TELNET] = {"telnet-server", "this is a Telnet server, not a SOCKS proxy"},
    [PROBE_KIND_OTHER] = {"unknown", "this is not a SOCKS proxy, and nothing else that is known here"},
    [PROBE_KIND_ENDLESS] = {"endless", "this is not a SOCKS proxy: it sends without end whatever it is asked"},
    [PROBE_KIND_SILENT] = {"silent", "this takes connections and answers nothing: no SOCKS proxy, or one that hangs"},
    [PROBE_KIND_CLOSES] = {"closes", "this closes every connection without an answer: no SOCKS proxy, or one that "
                                     "does not serve this machine"},
    [PROBE_KIND_UNREACHABLE] = {"unreachable", "this cannot be reached"},
};

/* A TLS record: alert or handshake, of a version 3.x. */
static int is_tls(const uint8_t *bytes, size_t len)
{
    return len >= 3 && (bytes[0] == 0x15 || bytes[0] == 0x16) && bytes[1] == 3 && bytes[2] <= 4;
}

/* RFC 854: IAC and WILL, WONT, DO or DONT. */
static int is_telnet(const uint8_t *bytes, size_t len)
{
    return len >= 3 && bytes[0] == 255 && bytes[1] >= 251 && bytes[1] <= 254;
}

enum probe_kind probe_guess(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        size_t mark_len = strlen(marks[i].bytes);

        if (len >= mark_len && strncasecmp((const char *)bytes, marks[i].bytes, mark_len) == 0) {
            return marks[i].kind;
        }
    }
    if (is_tls(bytes, len)) {
        return PROBE_KIND_TLS;
    }
    if (is_telnet(bytes, len)) {
        return PROBE_KIND_TELNET;
    }
    if (len == 1 && (bytes[0] == PRIVATE_AUTHORS || bytes[0] == PRIVATE_GO)) {
        return PROBE_KIND_SOCKS6_PRIVATE;
    }
    if (len >= 4 && bytes[0] == 6 && bytes[1] <= 1) {
        return PROBE_KIND_SOCKS6;
    }
    if (len >= 2 && len <= 22 && bytes[0] == 5 && (bytes[1] <= 8 || bytes[1] == 255)) {
        return PROBE_KIND_SOCKS5;
    }
    if (len == 8 && bytes[0] == 0 && bytes[1] >= 90 && bytes[1] <= 93) {
        return PROBE_KIND_SOCKS4;
    }
    return PROBE_KIND_OTHER;
}

const char *probe_kind_key(enum probe_kind kind)
{
    return kinds[kind].key;
}

const char *probe_kind_sentence(enum probe_kind kind)
{
    return kinds[kind].sentence;
}

void probe_quote(const uint8_t *bytes, size_t len, char out[PROBE_QUOTE_MAX])
{
    size_t shown = len < 24 ? len : 24;
    size_t at = 0;

    for (size_t i = 0; i < shown; i++) {
        if (bytes[i] >= ' ' && bytes[i] <= '~' && bytes[i] != '\\' && bytes[i] != '"') {
            out[at++] = (char)bytes[i];
        } else {
            at += (size_t)snprintf(out + at, PROBE_QUOTE_MAX - at, "\\x%02x", (unsigned)bytes[i]);
        }
    }
    (void)snprintf(out + at, PROBE_QUOTE_MAX - at, "%s", shown < len ? "..." : "");
}
