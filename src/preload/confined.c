#include "preload/confined.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <sys/prctl.h>

#include "preload/export.h"
#include "preload/real.h"
#include "preload/slots.h"
#include "preload/sys.h"

static atomic_bool is_confined;

bool confined_is(void)
{
    return atomic_load_explicit(&is_confined, memory_order_relaxed);
}

/* Descriptors at which something of ours was once: while it can still be asked whether it is there. */
static void forget_what_has_gone(void)
{
    for (int fd = 0; fd < SLOTS_COUNT; fd++) {
        struct slot slot;

        if (slots_hint(fd) != SLOT_OTHER && !slots_get(fd, sys_cookie(fd), &slot)) {
            slots_forget_hint(fd);
        }
    }
}

/*
 * PR_SET_NO_NEW_PRIVS comes before any filter, also before those that are set by syscall(2). The other arguments are a register's worth
 * each, whether they are there or not.
 */
PRELOAD_HOOK(int, prctl, int operation, ...)
{
    bool is_confining = operation == PR_SET_NO_NEW_PRIVS || operation == PR_SET_SECCOMP;
    unsigned long arguments[4];
    va_list args;
    int rc;

    va_start(args, operation);
    for (int i = 0; i < 4; i++) {
        arguments[i] = va_arg(args, unsigned long);
    }
    va_end(args);
    if (is_confining) {
        forget_what_has_gone();
    }
    rc = real(prctl)(operation, arguments[0], arguments[1], arguments[2], arguments[3]);
    if (rc == 0 && is_confining) {
        atomic_store_explicit(&is_confined, true, memory_order_relaxed);
    }
    return rc;
}
