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

/* All that can be asked for; each file of hooks adds what it needs, one per line, in the order of the alphabet. */
enum real_name {
    REAL_accept,
    REAL_accept4,
    REAL_bind,
    REAL_connect,
    REAL_dup,
    REAL_dup2,
    REAL_dup3,
    REAL_epoll_ctl,
    REAL_execve,
    REAL_execveat,
    REAL_fcntl,
    REAL_fcntl64,
    REAL_fexecve,
    REAL_getaddrinfo,
    REAL_gethostbyaddr,
    REAL_gethostbyaddr_r,
    REAL_gethostbyname,
    REAL_gethostbyname2,
    REAL_gethostbyname2_r,
    REAL_gethostbyname_r,
    REAL_getnameinfo,
    REAL_getpeername,
    REAL_getsockname,
    REAL_getsockopt,
    REAL_iruserok,
    REAL_iruserok_af,
    REAL_listen,
    REAL_popen,
    REAL_posix_spawn,
    REAL_posix_spawn_file_actions_addchdir_np,
    REAL_posix_spawn_file_actions_addfchdir_np,
    REAL_posix_spawn_file_actions_destroy,
    REAL_posix_spawnp,
    REAL_ppoll,
    REAL_prctl,
    REAL_rcmd,
    REAL_rcmd_af,
    REAL_read,
    REAL_readv,
    REAL_recv,
    REAL_recvfrom,
    REAL_recvmmsg,
    REAL_recvmsg,
    REAL_rexec,
    REAL_rexec_af,
    REAL_ruserok,
    REAL_ruserok_af,
    REAL_send,
    REAL_sendfile,
    REAL_sendfile64,
    REAL_sendmmsg,
    REAL_sendmsg,
    REAL_sendto,
    REAL_setsockopt,
    REAL_shutdown,
    REAL_socket,
    REAL_socketpair,
    REAL_splice,
    REAL_system,
    REAL_wordexp,
    REAL_write,
    REAL_writev,
    REAL_COUNT
};

typedef void (*real_any)(void);

/* Never NULL: a function that does not exist ends the process, with a sentence, since nothing else would be safe. */
real_any real_function(enum real_name name, const char *text);

#endif
