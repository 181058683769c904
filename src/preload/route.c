#include "preload/route.h"

#include "preload/addr.h"
#include "preload/sys.h"

int route_open(const struct run_addr *peer)
{
    struct sockaddr_storage addr;
    socklen_t len = addr_show(peer, peer->family, &addr);
    long fd = SYS_CALL(SYS_socket, peer->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    long rc = fd < 0 ? fd : SYS_CALL(SYS_connect, fd, &addr, len);

    if (fd >= 0 && rc < 0) {
        sys_close((int)fd);
    }
    return rc < 0 ? (int)rc : (int)fd;
}
