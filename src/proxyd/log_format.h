/*
 * How a log line reads: as text, as JSON, and for the journal. Pure formatting, no queue and no descriptor.
 *
 *     2026-11-23T07:40:05.123Z info listening on 127.0.0.1:1080
 *     2026-11-23T07:40:05.123Z access id=12 client=127.0.0.1:50022 ... reason="client reset" rule=-
 *     {"time":"2026-11-23T07:40:05.123Z","level":"info","message":"listening on 127.0.0.1:1080"}
 *     {"time":"2026-11-23T07:40:05.123Z","level":"access","id":12,"client":"127.0.0.1:50022",...,"rule":null}
 *     <6>listening on 127.0.0.1:1080
 *     <6>access id=12 client=127.0.0.1:50022 ... reason="client reset" rule=-
 *
 * In the last form the journal takes the priority off the line (sd-daemon(3)) and adds the time itself.
 *
 * A line is printable ASCII and ends in a newline, whatever bytes went in: others are written as \xNN, in all formats
 * the same, so that a JSON string holds a backslash, an x and two digits there. Where a text value is in double quotes,
 * quotes and backslashes of the value are written so too.
 */
#ifndef PROXYD_LOG_FORMAT_H
#define PROXYD_LOG_FORMAT_H

#include <time.h>

#include "proxyd/log.h"

/* Longer messages are cut and end in "...". */
#define LOG_MESSAGE_MAX 2048u
/*
 * The longest line: a message that is all control characters, as JSON; an access line with two such names is shorter.
 */
#define LOG_LINE_MAX ((size_t)LOG_MESSAGE_MAX * 5 + 128)

/*
 * Both write a whole line without NUL into `buf` of LOG_LINE_MAX bytes and return its length. `format` is not AUTO;
 * `fields` are those shown, in their order.
 */
size_t log_format_message(char *buf, enum config_log_format format, const struct timespec *when,
                          enum config_log_level level, const char *message);
size_t log_format_access(char *buf, enum config_log_format format, const struct timespec *when,
                         const struct config_log_fields *fields, const struct log_access *entry);

#endif
