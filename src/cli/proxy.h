/*
 * Which proxy to use, and with which user name and password: from the command line, the environment, a file.
 */
#ifndef CLI_PROXY_H
#define CLI_PROXY_H

#include <socks6/dial.h>

/* What is used when nobody names a proxy: where `socks6d` listens when it is started alone. */
#define PROXY_DEFAULT_URL "socks6://127.0.0.1:1080"

/* The options that stand before or after the subcommand. Strings are borrowed from argv. */
struct proxy_options {
    const char *url;           /* -x; NULL = from the environment */
    const char *user;          /* --proxy-user */
    const char *password_file; /* --password-file */
};

/*
 * Fills `out` and, for -v, says in `*source` where the choice came from ("-x", "SOCKS6_PROXY", "ALL_PROXY", ...; static). 0, or
 * an exit status after an error was printed under the name of `command`. Whoever calls wipes `out` in the end.
 */
int proxy_choose(const struct proxy_options *options, const char *command, struct socks6_proxy *out,
                 const char **source);

/* Whether a URL starts with a scheme of ours. */
int proxy_is_our_url(const char *url);

/* "socks6", "socks6s" or "socks5h". */
const char *proxy_scheme_name(const struct socks6_proxy *proxy);

/* For -v: which proxy is used, and why. */
void proxy_say(const struct socks6_proxy *proxy, const char *source, const char *command);

/*
 * Reads the first line of a file as a password, without its line end: LF or CR LF. 0, or -errno; -EMSGSIZE: it is longer
 * than RFC 1929 allows; -EILSEQ: it holds a NUL. `out` is untouched then.
 */
int proxy_read_password(const char *path, char out[SOCKS6_PASSWORD_MAX + 1]);
/* The same from a descriptor, which may have been read beyond the line. */
int proxy_read_password_fd(int fd, char out[SOCKS6_PASSWORD_MAX + 1]);

#endif
