/*
 * Messages and access lines, from any thread, written by threads of their own (log_writer.h): a full pipe or a slow disk
 * never blocks a loop. The queues are bounded; what does not fit is counted and reported once there is room again.
 *
 * Text that came from a client or the network goes through log_quote() (names) or is a number, so that no line can be
 * forged.
 */
#ifndef PROXYD_LOG_H
#define PROXYD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <socks6/types.h>

#include "proxyd/config.h"

/* A sentence for the administrator. */
#define LOG_WHY_MAX 512

/*
 * Opens what `settings` ask for and starts writing there. Before it, and after log_stop(), lines go straight to
 * standard error. 0, or -errno and the reason; then nothing has changed but the level.
 */
SOCKS6_MUST_CHECK int log_start(const struct config_log *settings, char why[LOG_WHY_MAX]);
/*
 * For a reload, from the thread that called log_start(): other settings, or the same ones, whose files are then opened
 * anew, as after a rotation. What is logged after this returns goes to the new file, and what the old one did not get
 * until then too. A file that cannot be opened is reported; the old one stays in use.
 */
void log_apply(const struct config_log *settings);
/* Writes what is queued (for at most two seconds, if the reader is stuck), ends the threads. */
void log_stop(void);
/* Lines lost so far: a queue was full, or a descriptor took no more. */
uint64_t log_lost(void);
/* Whether messages of this level are written: for those that are expensive to put together. */
bool log_has(enum config_log_level level);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Foreign bytes as they may stand in a message: in double quotes, with \xNN for quotes, backslashes and all that is not
 * printable ASCII. Returns the length written without NUL; cuts at `size`. LOG_QUOTE_MAX(len) is always enough.
 */
#define LOG_QUOTE_MAX(len) ((len)*4 + 3)
size_t log_quote(const char *text, size_t len, char *buf, size_t size);

/* One line per connection. Addresses of type 0 are "not known" ("-" in text, null in JSON). */
struct log_access {
    uint64_t id; /* of the connection, unique in this process */
    struct socks6_addr client;
    struct socks6_addr listener; /* where it came in */
    const char *protocol;        /* "socks6", "socks5", "socks4a", "socks4", "-" */
    const char *tls;             /* "TLSv1.3", "TLSv1.2"; NULL = none, or not settled */
    const char *user;            /* NULL = anonymous */
    const char *command;         /* "CONNECT", ...; NULL = none was understood */
    struct socks6_addr asked;    /* destination as asked for */
    struct socks6_addr dialled;  /* address that was dialled */
    int reply;                   /* reply code sent (enum socks6_reply_code; 0..9); -1 = none */
    uint64_t bytes_up;           /* client to server */
    uint64_t bytes_down;
    uint64_t duration_ms; /* accept to end */
    const char *reason;   /* why it ended: short, fixed words, for example "done", "client reset", "denied by rule" */
    unsigned rule_line;   /* 0 = none */
};

/*
 * Never blocks, never fails; nothing happens if access lines are off. Text form: `key=value` pairs after a time stamp;
 * JSON: one object.
 */
void log_access_write(const struct log_access *entry);
/* A connection has come a step further: a debug message with what is known of it. Nothing at other levels. */
void log_step(const struct log_access *entry, const char *step);

#endif
