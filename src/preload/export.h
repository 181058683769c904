/*
 * What the program may see of the library: the functions that it replaces, and nothing else. All other symbols are hidden.
 */
#ifndef PRELOAD_EXPORT_H
#define PRELOAD_EXPORT_H

#define PRELOAD_EXPORT __attribute__((visibility("default")))

/*
 * The head of a hook: PRELOAD_HOOK(int, dup, int fd) { ... } is what programs find as dup(). In C its name is hook_dup, so that
 * headers may have `dup` as a macro, an inline function or under another name (_FILE_OFFSET_BITS does that to some).
 */
#define PRELOAD_HOOK(result, name, ...)                                                                                \
    PRELOAD_EXPORT result hook_##name(__VA_ARGS__) __asm__(#name);                                                     \
    result hook_##name(__VA_ARGS__)

#endif
