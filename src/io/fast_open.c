#include "io/fast_open.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int fast_open_setting(unsigned *out)
{
    char text[16];
    int fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    int rc = n > 0 ? 0 : n < 0 ? -errno : -EIO;
    (void)close(fd);
    if (rc == 0) {
        text[n] = '\0';
        *out = (unsigned)strtoul(text, NULL, 10);
    }
    return rc;
}

int fast_open_listen(int fd, unsigned queue_len)
{
    return setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, &queue_len, sizeof queue_len) < 0 ? -errno : 0;
}

enum fast_open_state fast_open_look(int fd, bool *in_syn)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    *in_syn = false;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) {
        return FAST_OPEN_GONE; /* what is no TCP socket */
    }
    *in_syn = (info.tcpi_options & TCPI_OPT_SYN_DATA) != 0;
    switch (info.tcpi_state) {
    case TCP_SYN_RECV:
        return FAST_OPEN_PENDING;
    case TCP_CLOSE:
        return FAST_OPEN_GONE;
    default:
        return FAST_OPEN_DONE;
    }
}
