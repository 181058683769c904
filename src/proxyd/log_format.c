#include "proxyd/log_format.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* A line in the making. Appending stops at `size`; LOG_LINE_MAX is chosen so that it does not come to that. */
struct line {
    char *buf;
    size_t size, len;
    bool json;
};

static void put(struct line *line, char c)
{
    if (line->len < line->size) {
        line->buf[line->len++] = c;
    }
}

static void put_bytes(struct line *line, const char *bytes, size_t len)
{
    size_t room = line->size - line->len;
    size_t taken = len < room ? len : room;

    memcpy(line->buf + line->len, bytes, taken);
    line->len += taken;
}

static void put_text(struct line *line, const char *text)
{
    put_bytes(line, text, strlen(text));
}

/* With leading zeros up to `width` digits. By hand: a line has a dozen numbers, and there is a line per connection. */
static void put_decimal(struct line *line, uint64_t value, size_t width)
{
    char digits[20];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0 || sizeof digits - at < width);
    put_bytes(line, digits + at, sizeof digits - at);
}

/* One printable character inside a string of the line's format. */
static void put_in_string(struct line *line, char c)
{
    if (line->json && (c == '"' || c == '\\')) {
        put(line, '\\');
    }
    put(line, c);
}

static bool is_printable(char c)
{
    return c >= 0x20 && c < 0x7f;
}

static void put_escaped(struct line *line, char c)
{
    static const char digits[] = "0123456789abcdef";

    put_in_string(line, '\\');
    put_in_string(line, 'x');
    put_in_string(line, digits[(unsigned char)c >> 4]);
    put_in_string(line, digits[(unsigned char)c & 15]);
}

/* Foreign bytes between quotes: quote and backslash are escaped too, which makes it reversible. */
static void put_quoted(struct line *line, const char *text, size_t len)
{
    put(line, '"');
    for (size_t i = 0; i < len; i++) {
        if (is_printable(text[i]) && text[i] != '"' && text[i] != '\\') {
            put_in_string(line, text[i]);
        } else {
            put_escaped(line, text[i]);
        }
    }
    put(line, '"');
}

size_t log_quote(const char *text, size_t len, char *buf, size_t size)
{
    struct line line = {.buf = buf, .size = size == 0 ? 0 : size - 1};

    put_quoted(&line, text, len);
    if (size > 0) {
        buf[line.len] = '\0';
    }
    return line.len;
}

/* "2026-11-23T08:41:05." of a second. */
static void put_second(struct line *line, time_t second)
{
    struct tm tm;

    /* Fails for years past 2^31 only. */
    if (gmtime_r(&second, &tm) == NULL) {
        memset(&tm, 0, sizeof tm);
    }
    put_decimal(line, (uint64_t)(tm.tm_year + 1900), 4);
    put(line, '-');
    put_decimal(line, (uint64_t)tm.tm_mon + 1, 2);
    put(line, '-');
    put_decimal(line, (uint64_t)tm.tm_mday, 2);
    put(line, 'T');
    put_decimal(line, (uint64_t)tm.tm_hour, 2);
    put(line, ':');
    put_decimal(line, (uint64_t)tm.tm_min, 2);
    put(line, ':');
    put_decimal(line, (uint64_t)tm.tm_sec, 2);
    put(line, '.');
}

/* Lines come many to the second, and the calendar costs more than all else of the time. */
static void put_time(struct line *line, const struct timespec *when)
{
    static _Thread_local struct {
        time_t second;
        size_t len; /* 0 = nothing is kept */
        char text[32];
    } kept;

    if (kept.len == 0 || kept.second != when->tv_sec) {
        struct line text = {.buf = kept.text, .size = sizeof kept.text};
        put_second(&text, when->tv_sec);
        kept.second = when->tv_sec;
        kept.len = text.len;
    }
    put_bytes(line, kept.text, kept.len);
    put_decimal(line, (uint64_t)(when->tv_nsec / 1000000), 3);
    put(line, 'Z');
}

/* `word` is the level, or "access", and `priority` what the journal knows it as. */
static void begin(struct line *line, enum config_log_format format, const struct timespec *when, const char *word,
                  unsigned priority)
{
    switch (format) {
    case CONFIG_LOG_JSON:
        put_text(line, "{\"time\":\"");
        put_time(line, when);
        put_text(line, "\",\"level\":\"");
        put_text(line, word);
        put(line, '"');
        break;
    case CONFIG_LOG_JOURNALD:
        put(line, '<');
        put_decimal(line, priority, 1);
        put(line, '>');
        break;
    case CONFIG_LOG_TEXT:
    case CONFIG_LOG_AUTO:
        put_time(line, when);
        put(line, ' ');
        put_text(line, word);
        put(line, ' ');
        break;
    }
}

static void end(struct line *line)
{
    if (line->json) {
        put(line, '}');
    }
    put(line, '\n');
    assert(line->len < line->size);
}

/* sd-daemon(3): SD_ERR, SD_WARNING, SD_INFO, SD_DEBUG. */
static const struct {
    const char *word;
    unsigned priority;
} levels[] = {
    [CONFIG_LOG_ERROR] = {"error", 3},
    [CONFIG_LOG_WARNING] = {"warning", 4},
    [CONFIG_LOG_INFO] = {"info", 6},
    [CONFIG_LOG_DEBUG] = {"debug", 7},
};

size_t log_format_message(char *buf, enum config_log_format format, const struct timespec *when,
                          enum config_log_level level, const char *message)
{
    struct line line = {.buf = buf, .size = LOG_LINE_MAX, .json = format == CONFIG_LOG_JSON};
    size_t len = strnlen(message, LOG_MESSAGE_MAX + 1);

    begin(&line, format, when, levels[level].word, levels[level].priority);
    if (line.json) {
        put_text(&line, ",\"message\":\"");
    }
    for (size_t i = 0; i < (len > LOG_MESSAGE_MAX ? LOG_MESSAGE_MAX - 3 : len); i++) {
        if (is_printable(message[i])) {
            put_in_string(&line, message[i]);
        } else {
            put_escaped(&line, message[i]);
        }
    }
    if (len > LOG_MESSAGE_MAX) {
        put_text(&line, "...");
    }
    if (line.json) {
        put(&line, '"');
    }
    end(&line);
    return line.len;
}

static void put_key(struct line *line, const char *key)
{
    if (line->json) {
        put_text(line, ",\"");
    } else if (line->len > 0 && line->buf[line->len - 1] != ' ') {
        put(line, ' ');
    }
    put_text(line, key);
    put_text(line, line->json ? "\":" : "=");
}

static void put_unknown(struct line *line)
{
    put_text(line, line->json ? "null" : "-");
}

/* Numbers, and "not known" if `known` is false. */
static void put_number(struct line *line, const char *key, uint64_t value, bool known)
{
    put_key(line, key);
    if (known) {
        put_decimal(line, value, 1);
    } else {
        put_unknown(line);
    }
}

/* NULL = not known. In text, in quotes only where it could be taken for something else. */
static void put_string(struct line *line, const char *key, const char *text)
{
    bool bare = !line->json && text != NULL && text[0] != '\0' && strcmp(text, "-") != 0;

    put_key(line, key);
    if (text == NULL) {
        put_unknown(line);
        return;
    }
    for (const char *c = text; bare && *c != '\0'; c++) {
        bare = is_printable(*c) && *c != ' ' && *c != '"' && *c != '\\' && *c != '=';
    }
    if (bare) {
        put_text(line, text);
    } else {
        put_quoted(line, text, strlen(text));
    }
}

static void put_addr(struct line *line, const char *key, const struct socks6_addr *addr)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    put_key(line, key);
    if (addr->type == 0) {
        put_unknown(line);
        return;
    }
    /* Escaped already, spaces and quotes included: printable ASCII in one word. */
    (void)socks6_addr_format(addr, text, sizeof text);
    if (line->json) {
        put(line, '"');
    }
    for (const char *c = text; *c != '\0'; c++) {
        put_in_string(line, *c);
    }
    if (line->json) {
        put(line, '"');
    }
}

static void put_field(struct line *line, enum config_log_field field, const struct log_access *entry)
{
    const char *protocol = entry->protocol;

    switch (field) {
    case CONFIG_LOG_FIELD_id:
        put_number(line, "id", entry->id, true);
        break;
    case CONFIG_LOG_FIELD_client:
        put_addr(line, "client", &entry->client);
        break;
    case CONFIG_LOG_FIELD_listener:
        put_addr(line, "listener", &entry->listener);
        break;
    case CONFIG_LOG_FIELD_protocol:
        put_string(line, "protocol", protocol != NULL && strcmp(protocol, "-") == 0 ? NULL : protocol);
        break;
    case CONFIG_LOG_FIELD_tls:
        put_string(line, "tls", entry->tls);
        break;
    case CONFIG_LOG_FIELD_user:
        put_string(line, "user", entry->user);
        break;
    case CONFIG_LOG_FIELD_command:
        put_string(line, "command", entry->command);
        break;
    case CONFIG_LOG_FIELD_asked:
        put_addr(line, "asked", &entry->asked);
        break;
    case CONFIG_LOG_FIELD_dialled:
        put_addr(line, "dialled", &entry->dialled);
        break;
    case CONFIG_LOG_FIELD_reply:
        put_number(line, "reply", (uint64_t)entry->reply, entry->reply >= 0);
        break;
    case CONFIG_LOG_FIELD_bytes_up:
        put_number(line, "bytes_up", entry->bytes_up, true);
        break;
    case CONFIG_LOG_FIELD_bytes_down:
        put_number(line, "bytes_down", entry->bytes_down, true);
        break;
    case CONFIG_LOG_FIELD_duration_ms:
        put_number(line, "duration_ms", entry->duration_ms, true);
        break;
    case CONFIG_LOG_FIELD_reason:
        put_string(line, "reason", entry->reason);
        break;
    case CONFIG_LOG_FIELD_rule:
        put_number(line, "rule", entry->rule_line, entry->rule_line != 0);
        break;
    case CONFIG_LOG_FIELD_COUNT:
        assert(false);
    }
}

size_t log_format_access(char *buf, enum config_log_format format, const struct timespec *when,
                         const struct config_log_fields *fields, const struct log_access *entry)
{
    struct line line = {.buf = buf, .size = LOG_LINE_MAX, .json = format == CONFIG_LOG_JSON};

    begin(&line, format, when, "access", levels[CONFIG_LOG_INFO].priority);
    if (format == CONFIG_LOG_JOURNALD) {
        put_text(&line, "access "); /* its level is in the priority and does not tell it from messages */
    }
    for (unsigned i = 0; i < fields->count; i++) {
        put_field(&line, (enum config_log_field)fields->order[i], entry);
    }
    end(&line);
    return line.len;
}
