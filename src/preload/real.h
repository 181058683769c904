/*
 * The functions that we replace, as the next library in the search order has them: almost always libc's.
 *
 * Looked up once, before main(), since dlsym(3) may take locks and memory. A hook that is called even earlier, by another library's
 * constructor, has them looked up then.
 */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

/* real(NAME)(arguments): NAME's declaration must be in scope. */
#define real(name) ((__typeof__(&name))real_function(REAL_##name, #name)) // NOLINT(bugprone-macro-parentheses): a name

/* The same with the type of our own hook, where libc's declaration has a union for socket addresses. */
#define real_as_hook(name) ((__typeof__(&hook_##name))real_function(REAL_##name, #name))

/*
 * All that can be asked for; each file of hooks adds what it needs, one per line, in the order of the alphabet. The names may be macros in
 * headers: ONE must not expand its argument.
 */
#define REAL_NAMES(ONE)                                                                                                \
    ONE(bind)                                                                                                          \
    ONE(connect)                                                                                                       \
    ONE(dup)                                                                                                           \
    ONE(dup2)                                                                                                          \
    ONE(dup3)                                                                                                          \
    ONE(epoll_ctl)                                                                                                     \
    ONE(execve)                                                                                                        \
    ONE(execveat)                                                                                                      \
    ONE(fcntl)                                                                                                         \
    ONE(fcntl64)                                                                                                       \
    ONE(fexecve)                                                                                                       \
    ONE(getaddrinfo)                                                                                                   \
    ONE(gethostbyaddr)                                                                                                 \
    ONE(gethostbyaddr_r)                                                                                               \
    ONE(gethostbyname)                                                                                                 \
    ONE(gethostbyname2)                                                                                                \
    ONE(gethostbyname2_r)                                                                                              \
    ONE(gethostbyname_r)                                                                                               \
    ONE(getnameinfo)                                                                                                   \
    ONE(getpeername)                                                                                                   \
    ONE(getsockname)                                                                                                   \
    ONE(getsockopt)                                                                                                    \
    ONE(iruserok)                                                                                                      \
    ONE(iruserok_af)                                                                                                   \
    ONE(listen)                                                                                                        \
    ONE(popen)                                                                                                         \
    ONE(posix_spawn)                                                                                                   \
    ONE(posix_spawn_file_actions_addchdir_np)                                                                          \
    ONE(posix_spawn_file_actions_addfchdir_np)                                                                         \
    ONE(posix_spawn_file_actions_destroy)                                                                              \
    ONE(posix_spawnp)                                                                                                  \
    ONE(ppoll)                                                                                                         \
    ONE(prctl)                                                                                                         \
    ONE(rcmd)                                                                                                          \
    ONE(rcmd_af)                                                                                                       \
    ONE(read)                                                                                                          \
    ONE(readv)                                                                                                         \
    ONE(recv)                                                                                                          \
    ONE(recvfrom)                                                                                                      \
    ONE(recvmmsg)                                                                                                      \
    ONE(recvmsg)                                                                                                       \
    ONE(rexec)                                                                                                         \
    ONE(rexec_af)                                                                                                      \
    ONE(ruserok)                                                                                                       \
    ONE(ruserok_af)                                                                                                    \
    ONE(send)                                                                                                          \
    ONE(sendfile)                                                                                                      \
    ONE(sendfile64)                                                                                                    \
    ONE(sendmmsg)                                                                                                      \
    ONE(sendmsg)                                                                                                       \
    ONE(sendto)                                                                                                        \
    ONE(setsockopt)                                                                                                    \
    ONE(shutdown)                                                                                                      \
    ONE(socket)                                                                                                        \
    ONE(splice)                                                                                                        \
    ONE(system)                                                                                                        \
    ONE(wordexp)                                                                                                       \
    ONE(write)                                                                                                         \
    ONE(writev)

#define REAL_NUMBER(name) REAL_##name,
enum real_name { REAL_NAMES(REAL_NUMBER) REAL_COUNT };

typedef void (*real_any)(void);

/* Never NULL: a function that does not exist ends the process, with a sentence, since nothing else would be safe. */
real_any real_function(enum real_name name, const char *text);

#endif
