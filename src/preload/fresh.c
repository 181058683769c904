#include "preload/fresh.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "preload/bits.h"
#include "preload/dup.h"
#include "preload/slots.h"
#include "preload/sys.h"

static struct bits untouched, plain;

/* The bits are about the socket with this cookie. */
void fresh_note(int fd, int domain, bool is_tcp)
{
    struct slot slot = {
        .cookie = sys_cookie(fd), .kind = SLOT_OTHER, .state = is_tcp ? SLOT_FRESH : 0, .domain = domain};

    slots_put(fd, &slot);
    bits_set(&untouched, fd);
    bits_set(&plain, fd);
}

static void clear(struct bits *bits, int fd)
{
    if (bits_has(bits, fd)) {
        bits_clear(bits, fd);
    }
}

/* What stands in the way of a connection of ours: see preload/shortcut.c. */
static bool concerns_connecting(int level, int name)
{
    if (level == SOL_SOCKET) {
        return name == SO_RCVTIMEO_OLD || name == SO_RCVTIMEO_NEW || name == SO_SNDTIMEO_OLD ||
               name == SO_SNDTIMEO_NEW || name == SO_RCVLOWAT || name == SO_PEEK_OFF;
    }
    return level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT;
}

void fresh_touch(int fd, int level, int name)
{
    clear(&untouched, fd);
    if (concerns_connecting(level, name)) {
        clear(&plain, fd);
    }
}

void fresh_bind(int fd)
{
    clear(&plain, fd);
}

bool fresh_is(int fd)
{
    struct slot slot;

    return bits_has(&untouched, fd) && !dup_has(fd) && slots_get(fd, sys_cookie(fd), &slot);
}

bool fresh_find(int fd, struct fresh *out)
{
    struct slot slot;

    if (slots_hint(fd) != SLOT_OTHER || !slots_get(fd, sys_cookie(fd), &slot) || slot.kind != SLOT_OTHER ||
        slot.state != SLOT_FRESH) {
        return false;
    }
    *out =
        (struct fresh){.cookie = slot.cookie, .domain = slot.domain, .is_plain = bits_has(&plain, fd) && !dup_has(fd)};
    return true;
}
