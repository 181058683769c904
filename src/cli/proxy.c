#include "cli/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/exit.h"
#include "cli/say.h"

/* ALL_PROXY is shared with other programs: a value is ours only if it starts with a scheme of ours. */
int proxy_is_our_url(const char *url)
{
    static const char *const ours[] = {"socks6://", "socks6s://", "socks5h://"};

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (strncasecmp(url, ours[i], strlen(ours[i])) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A variable that is set to something; empty counts as unset, which is how shells and units switch one off. */
static const char *from_environment(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && *value != '\0' ? value : NULL;
}

/* The URL, and in `*source` where it stands. */
static const char *find_url(const struct proxy_options *options, const char **source)
{
    static const char *const shared[] = {"ALL_PROXY", "all_proxy"};
    const char *url = options->url;

    *source = "-x";
    if (url == NULL) {
        *source = "SOCKS6_PROXY";
        url = from_environment(*source);
    }
    for (size_t i = 0; url == NULL && i < sizeof shared / sizeof *shared; i++) {
        *source = shared[i];
        url = from_environment(*source);
        if (url != NULL && !proxy_is_our_url(url)) {
            url = NULL;
        }
    }
    if (url == NULL) {
        *source = "the default";
        url = PROXY_DEFAULT_URL;
    }
    return url;
}

int proxy_read_password_fd(int fd, char out[SOCKS6_PASSWORD_MAX + 1])
{
    char buf[SOCKS6_PASSWORD_MAX + sizeof "\r\n"]; /* the longest password, its line end, and one byte too many */
    size_t len = 0, line;
    int rc = 0;

    while (len < sizeof buf && memchr(buf, '\n', len) == NULL) { /* a pipe or a terminal may give it in pieces */
        ssize_t n = read(fd, buf + len, sizeof buf - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            rc = n < 0 ? -errno : 0;
            break;
        }
        len += (size_t)n;
    }
    for (line = 0; line < len && buf[line] != '\n'; line++) {
    }
    if (line > 0 && buf[line - 1] == '\r') {
        line--;
    }
    if (rc == 0 && line > SOCKS6_PASSWORD_MAX) {
        rc = -EMSGSIZE;
    } else if (rc == 0 && memchr(buf, '\0', line) != NULL) {
        rc = -EILSEQ;
    }
    if (rc == 0) {
        memcpy(out, buf, line);
        out[line] = '\0';
    }
    explicit_bzero(buf, sizeof buf);
    return rc;
}

int proxy_read_password(const char *path, char out[SOCKS6_PASSWORD_MAX + 1])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int rc;

    if (fd < 0) {
        return -errno;
    }
    rc = proxy_read_password_fd(fd, out);
    (void)close(fd);
    return rc;
}

static int take_user(const struct proxy_options *options, const char *command, const char *source,
                     struct socks6_proxy *p)
{
    if (options->user == NULL) {
        return 0;
    }
    if (p->has_credentials) {
        return say_usage(command, "--proxy-user: the proxy URL of %s has a user name too", source);
    }
    if (*options->user == '\0' || strlen(options->user) > SOCKS6_USERNAME_MAX) {
        return say_usage(command, "--proxy-user: a user name has 1 to %u bytes", SOCKS6_USERNAME_MAX);
    }
    memcpy(p->username, options->user, strlen(options->user) + 1);
    p->has_credentials = 1;
    return 0;
}

static int take_password_file(const char *path, const char *command, struct socks6_proxy *p)
{
    int rc;

    if (!p->has_credentials) {
        return say_usage(command, "--password-file: there is no user name; give --proxy-user NAME");
    }
    if (p->password[0] != '\0') {
        return say_usage(command, "--password-file: the proxy URL has a password too");
    }
    rc = proxy_read_password(path, p->password);
    if (rc == -EMSGSIZE) {
        return say_usage(command, "--password-file: the password in %s is longer than %u bytes", path,
                         SOCKS6_PASSWORD_MAX);
    }
    if (rc == -EILSEQ) {
        return say_usage(command, "--password-file: the password in %s contains a NUL byte", path);
    }
    if (rc != 0) {
        return say_usage(command, "--password-file: cannot read %s: %s", path, strerror(-rc));
    }
    return 0;
}

/* A password of the environment helps out a user name that came without one. */
static int take_password_variable(const char *command, struct socks6_proxy *p)
{
    const char *value = getenv("SOCKS6_PASSWORD");

    if (value == NULL || !p->has_credentials || p->password[0] != '\0') {
        return 0;
    }
    if (strlen(value) > SOCKS6_PASSWORD_MAX) {
        return say_usage(command, "SOCKS6_PASSWORD is longer than %u bytes", SOCKS6_PASSWORD_MAX);
    }
    memcpy(p->password, value, strlen(value) + 1);
    return 0;
}

int proxy_choose(const struct proxy_options *options, const char *command, struct socks6_proxy *out,
                 const char **source)
{
    const char *url = find_url(options, source);
    char why[256];
    int rc;

    if (socks6_proxy_parse(url, out, why, sizeof why) != SOCKS6_OK) {
        return say_usage(command, "the proxy URL of %s: %s", *source, why);
    }
    rc = take_user(options, command, *source, out);
    if (rc == 0 && options->password_file != NULL) {
        rc = take_password_file(options->password_file, command, out);
    } else if (rc == 0) {
        rc = take_password_variable(command, out);
    }
    return rc;
}

const char *proxy_scheme_name(const struct socks6_proxy *proxy)
{
    if (proxy->scheme != SOCKS6_SCHEME_SOCKS6) {
        return "socks5h";
    }
    return proxy->is_tls ? "socks6s" : "socks6";
}

void proxy_say(const struct socks6_proxy *proxy, const char *source, const char *command)
{
    char text[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(&proxy->addr, text, sizeof text);
    say(command, "using the proxy of %s: %s://%s%s", source, proxy_scheme_name(proxy), text,
        proxy->has_credentials ? ", with a user name" : "");
}
