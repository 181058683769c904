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

static real_any find(const char *text)
{
    union {
        void *object;
        real_any function; /* what dlsym(3) has found: POSIX has both look alike */
    } found = {.object = dlsym(RTLD_NEXT, text)};

    return found.function;
}

/* Those that this libc does not have are missed when somebody calls them. */
__attribute__((constructor)) static void look_up_all(void)
{
#define REAL_TEXT(name) #name,
    static const char *const texts[] = {REAL_NAMES(REAL_TEXT)};

    for (unsigned i = 0; i < REAL_COUNT; i++) {
        atomic_store_explicit(&functions[i], find(texts[i]), memory_order_release);
    }
}

static real_any look_up(enum real_name name, const char *text)
{
    real_any function = find(text);

    if (function == NULL) {
        complain(text);
        _exit(127);
    }
    atomic_store_explicit(&functions[name], function, memory_order_release);
    return function;
}

real_any real_function(enum real_name name, const char *text)
{
    real_any function = atomic_load_explicit(&functions[name], memory_order_acquire);

    return function != NULL ? function : look_up(name, text);
}
