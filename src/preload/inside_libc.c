/*
 * Functions of libc that use the network by themselves, past our hooks: they look up names, or connect, inside. gethostid(3) asks
 * for the host's name, and is done here instead; the "r" commands of old are refused.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/config.h"
#include "preload/export.h"
#include "preload/real.h"
#include "preload/talk.h"

#define HOST_ID_FILE "/etc/hostid"

/* What sethostid(3) has written. */
static bool read_host_id(int32_t *out)
{
    FILE *file = fopen(HOST_ID_FILE, "re");
    bool is_read = file != NULL && fread(out, sizeof *out, 1, file) == 1;

    if (file != NULL) {
        (void)fclose(file);
    }
    return is_read;
}

PRELOAD_EXPORT long gethostid(void)
{
    char name[HOST_NAME_MAX + 1] = "", buf[2048];
    struct hostent host, *found = NULL;
    uint32_t addr;
    int32_t id;
    int herr;

    if (read_host_id(&id)) {
        return id;
    }
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0' ||
        gethostbyname_r(name, &host, buf, sizeof buf, &found, &herr) != 0 || found == NULL) {
        return 0;
    }
    memcpy(&addr, found->h_addr_list[0], sizeof addr);
    return (int32_t)(addr << 16 | addr >> 16);
}

/* False: it is refused, and this was told. */
static bool may(const char *what, const char *host)
{
    if (preload_config()->allow_direct) {
        return true;
    }
    talk_note(RUN_NOTE_REFUSED, "%s to %s: refused", what, host);
    errno = ENETUNREACH;
    return false;
}

PRELOAD_EXPORT int rcmd_af(char **restrict host, unsigned short port, const char *restrict local,
                           const char *restrict remote, const char *restrict command, int *restrict fd2,
                           sa_family_t family)
{
    return may("rcmd", *host) ? real(rcmd_af)(host, port, local, remote, command, fd2, family) : -1;
}

PRELOAD_EXPORT int rcmd(char **restrict host, unsigned short port, const char *restrict local,
                        const char *restrict remote, const char *restrict command, int *restrict fd2)
{
    return may("rcmd", *host) ? real(rcmd)(host, port, local, remote, command, fd2) : -1;
}

PRELOAD_EXPORT int rexec_af(char **restrict host, int port, const char *restrict name, const char *restrict password,
                            const char *restrict command, int *restrict fd2, sa_family_t family)
{
    return may("rexec", *host) ? real(rexec_af)(host, port, name, password, command, fd2, family) : -1;
}

PRELOAD_EXPORT int rexec(char **restrict host, int port, const char *restrict name, const char *restrict password,
                         const char *restrict command, int *restrict fd2)
{
    return may("rexec", *host) ? real(rexec)(host, port, name, password, command, fd2) : -1;
}

/* These look up the names of whoever has connected. Refusing is "no": there is nobody whom they could let in. */
PRELOAD_EXPORT int ruserok_af(const char *host, int is_root, const char *remote, const char *local, sa_family_t family)
{
    return may("ruserok", host) ? real(ruserok_af)(host, is_root, remote, local, family) : -1;
}

PRELOAD_EXPORT int ruserok(const char *host, int is_root, const char *remote, const char *local)
{
    return may("ruserok", host) ? real(ruserok)(host, is_root, remote, local) : -1;
}

PRELOAD_EXPORT int iruserok_af(const void *addr, int is_root, const char *remote, const char *local, sa_family_t family)
{
    return may("iruserok", "an address") ? real(iruserok_af)(addr, is_root, remote, local, family) : -1;
}

PRELOAD_EXPORT int iruserok(uint32_t addr, int is_root, const char *remote, const char *local)
{
    return may("iruserok", "an address") ? real(iruserok)(addr, is_root, remote, local) : -1;
}
