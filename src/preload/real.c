#include "preload/real.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic(real_any) functions[REAL_COUNT];

static void complain(const char *text)
{
    static const char before[] = "socks6 run: this program's libc has no function ", after[] = "\n";

    (void)syscall(SYS_write, STDERR_FILENO, before, sizeof before - 1);
    (void)syscall(SYS_write, STDERR_FILENO, text, strlen(text));
    (void)syscall(SYS_write, STDERR_FILENO, after, sizeof after - 1);
}

static real_any look_up(enum real_name name, const char *text)
{
    union {
        void *object;
        real_any function; /* what dlsym(3) has found: POSIX has both look alike */
    } found = {.object = dlsym(RTLD_NEXT, text)};

    if (found.object == NULL) {
        complain(text);
        _exit(127);
    }
    atomic_store_explicit(&functions[name], found.function, memory_order_release);
    return found.function;
}

real_any real_function(enum real_name name, const char *text)
{
    real_any function = atomic_load_explicit(&functions[name], memory_order_acquire);

    return function != NULL ? function : look_up(name, text);
}
