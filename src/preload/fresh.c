#include "preload/fresh.h"

#include "preload/bits.h"
#include "preload/dup.h"
#include "preload/slots.h"
#include "preload/sys.h"

static struct bits untouched;

void fresh_note(int fd)
{
    struct slot slot = {.cookie = sys_cookie(fd), .kind = SLOT_OTHER, .state = SLOT_FRESH};

    slots_put(fd, &slot); /* the bit is about the socket with this cookie */
    bits_set(&untouched, fd);
}

void fresh_touch(int fd)
{
    if (bits_has(&untouched, fd)) {
        bits_clear(&untouched, fd);
    }
}

bool fresh_is(int fd)
{
    struct slot slot;

    return bits_has(&untouched, fd) && !dup_has(fd) && slots_get(fd, sys_cookie(fd), &slot);
}
