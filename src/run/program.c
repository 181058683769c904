/*
 * Theory of operation. What execve(2) does with a file is done here without doing it: a line "#!" leads to the next file, up to
 * the kernel's limit, an entry of binfmt_misc as well; the last file is an ELF program of this machine, or the kernel
 * refuses it. Then its IDs and capabilities, which in scripts have no effect, and its PT_INTERP decide.
 *
 * Whatever is wrong with a file (missing, not executable, damaged) is not our business: the verdict is "fits", and the kernel's
 * own errno reaches the program. A file that changes between our look and execve(2)'s is not guarded against: whoever runs under
 * `socks6 run` could make system calls directly, too.
 */
#include "run/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "run/binfmt.h"

#define HEAD_MAX 256        /* what the kernel reads of a file, BINPRM_BUF_SIZE */
#define INTERPRETERS_MAX 5  /* of interpreters, before ELOOP */
#define INTERPRETER_MAX 512 /* a longer path is taken for another's */
#define HEADERS_AT_ONCE 16

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#define USUAL_INTERPRETER "/lib64/ld-linux-x86-64.so.2"
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#define USUAL_INTERPRETER "/lib/ld-linux-aarch64.so.1"
#elif defined(__riscv) && __riscv_xlen == 64
#define OUR_MACHINE EM_RISCV
#define USUAL_INTERPRETER "/lib/ld-linux-riscv64-lp64d.so.1"
#elif defined(__powerpc64__)
#define OUR_MACHINE EM_PPC64
#define USUAL_INTERPRETER "/lib64/ld64.so.2"
#elif defined(__s390x__)
#define OUR_MACHINE EM_S390
#define USUAL_INTERPRETER "/lib/ld64.so.1"
#elif defined(__i386__)
#define OUR_MACHINE EM_386
#define USUAL_INTERPRETER "/lib/ld-linux.so.2"
#elif defined(__arm__)
#define OUR_MACHINE EM_ARM
#define USUAL_INTERPRETER "/lib/ld-linux-armhf.so.3"
#else
#error "which machine is this, and what is its dynamic linker called?"
#endif
#define OUR_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)

/* The file that is being judged. */
struct candidate {
    int directory, flags; /* as for execveat(2) */
    const char *path;
    const char *library; /* that has to be readable, or NULL */
    int fd;              /* -1 = not open */
    bool is_borrowed;
    struct statx stat;
    size_t head_len;
    char head[HEAD_MAX + 1]; /* NUL-terminated */
};

static long result(long rc)
{
    return rc < 0 ? -errno : rc;
}

static bool is_executable(const struct candidate *it)
{
    long rc = result(syscall(SYS_faccessat2, it->directory, it->path, X_OK, AT_EACCESS | it->flags));

    return rc == 0 || rc == -ENOSYS;
}

/* Opens it for reading: 0, a verdict, or -errno. The descriptor of AT_EMPTY_PATH is read directly, unless it is of O_PATH. */
static long open_it(struct candidate *it)
{
    bool by_descriptor = (it->flags & AT_EMPTY_PATH) != 0 && it->path[0] == '\0';
    char link[sizeof "/proc/self/fd/" + 3 * sizeof(int)];
    const char *path = it->path;
    long fd;

    if (by_descriptor && result(syscall(SYS_pread64, it->directory, it->head, 1, 0)) >= 0) {
        it->fd = it->directory;
        it->is_borrowed = true;
        return 0;
    }
    if (by_descriptor) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", it->directory);
        path = link;
    }
    fd = result(syscall(SYS_openat, it->directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (fd >= 0) {
        it->fd = (int)fd;
        return 0;
    }
    return fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM ? fd : PROGRAM_UNREADABLE;
}

static void close_it(struct candidate *it)
{
    if (it->fd >= 0 && !it->is_borrowed) {
        (void)syscall(SYS_close, it->fd);
    }
    it->fd = -1;
}

static bool read_at(const struct candidate *it, void *buf, size_t len, uint64_t offset)
{
    return offset <= INT64_MAX && syscall(SYS_pread64, it->fd, buf, len, (off_t)offset) == (long)len;
}

static bool stat_path(int directory, const char *path, int flags, struct statx *out)
{
    return statx(directory, path, flags | AT_STATX_SYNC_AS_STAT, STATX_BASIC_STATS, out) == 0;
}

static bool is_same_file(const struct statx *a, const struct statx *b)
{
    return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor;
}

/* The dynamic linker of this very process, which has loaded the library, or will do so in other programs. */
static const char *own_interpreter(void)
{
    union {
        unsigned long address;
        const ElfW(Phdr) * headers;
    } table = {getauxval(AT_PHDR)};
    unsigned long count = getauxval(AT_PHNUM);
    const ElfW(Phdr) *interpreter = NULL;
    union {
        ElfW(Addr) address;
        const char *text;
    } found;
    ElfW(Addr) moved = 0;

    for (unsigned long i = 0; table.address != 0 && i < count; i++) {
        const ElfW(Phdr) *header = &table.headers[i];

        if (header->p_type == PT_PHDR) {
            moved = (ElfW(Addr))table.address - header->p_vaddr;
        } else if (header->p_type == PT_INTERP) {
            interpreter = header;
        }
    }
    if (interpreter == NULL) {
        return USUAL_INTERPRETER;
    }
    found.address = moved + interpreter->p_vaddr;
    return found.text;
}

static bool is_own_interpreter(const char *path)
{
    const char *own = own_interpreter();
    struct statx a, b;

    return strcmp(path, own) == 0 ||
           (stat_path(AT_FDCWD, path, 0, &a) && stat_path(AT_FDCWD, own, 0, &b) && is_same_file(&a, &b));
}

/*
 * The kernel sets AT_SECURE, upon which the dynamic linker passes over our library, if the new effective IDs are not the old real
 * ones; newer kernels do so as well if the effective IDs change at all. See cap_bprm_creds_from_file() of Linux.
 */
static bool changes_ids(const struct candidate *it, bool is_nosuid)
{
    bool counts = !is_nosuid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
    uid_t user = geteuid(), new_user = counts && (it->stat.stx_mode & S_ISUID) != 0 ? it->stat.stx_uid : user;
    gid_t group = getegid(), new_group = group;

    if (counts && (it->stat.stx_mode & S_ISGID) != 0 && (it->stat.stx_mode & S_IXGRP) != 0) {
        new_group = it->stat.stx_gid;
    }
    return new_user != user || new_group != group || new_user != getuid() || new_group != getgid();
}

/* File capabilities set AT_SECURE as well, and unlike the IDs even under no_new_privs; but not for root. */
static bool has_capabilities(const struct candidate *it, bool is_nosuid)
{
    return getuid() != 0 && !is_nosuid && fgetxattr(it->fd, "security.capability", NULL, 0) > 0;
}

static int judge_rights(const struct candidate *it)
{
    struct statfs system;
    bool is_nosuid = fstatfs(it->fd, &system) == 0 && ((unsigned long)system.f_flags & ST_NOSUID) != 0;

    if (changes_ids(it, is_nosuid)) {
        return PROGRAM_SET_ID;
    }
    return has_capabilities(it, is_nosuid) ? PROGRAM_CAPABLE : PROGRAM_FITS;
}

static bool is_library_there(const char *library)
{
    long rc = library == NULL ? 0 : result(syscall(SYS_faccessat2, AT_FDCWD, library, R_OK, AT_EACCESS));

    return rc == 0 || (rc == -ENOSYS && syscall(SYS_faccessat, AT_FDCWD, library, R_OK) == 0);
}

/* A program that the right dynamic linker starts. */
static int judge_dynamic(const struct candidate *it)
{
    int verdict = judge_rights(it);

    return verdict == PROGRAM_FITS && !is_library_there(it->library) ? PROGRAM_NO_LIBRARY : verdict;
}

/* PT_INTERP's text: 1 = found, 0 = there is none, -1 = the file is damaged. */
static int read_interpreter(const struct candidate *it, const ElfW(Ehdr) * elf, char *out, size_t size)
{
    ElfW(Phdr) headers[HEADERS_AT_ONCE];

    if (elf->e_phentsize != sizeof headers[0]) {
        return -1;
    }
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        unsigned place = i % HEADERS_AT_ONCE, count = elf->e_phnum - i;

        if (place == 0 && !read_at(it, headers, (count < HEADERS_AT_ONCE ? count : HEADERS_AT_ONCE) * sizeof headers[0],
                                   elf->e_phoff + (uint64_t)i * sizeof headers[0])) {
            return -1;
        }
        if (headers[place].p_type == PT_INTERP) {
            size_t len = headers[place].p_filesz < size ? headers[place].p_filesz : size - 1;

            out[len] = '\0';
            return read_at(it, out, len, headers[place].p_offset) ? 1 : -1;
        }
    }
    return 0;
}

/* A program without an interpreter is static; or it is the dynamic linker, which is given the program as an argument. */
static int judge_elf(const struct candidate *it)
{
    char path[INTERPRETER_MAX];
    ElfW(Ehdr) elf;
    struct statx own;

    if (it->head_len < sizeof elf) {
        return PROGRAM_FITS;
    }
    memcpy(&elf, it->head, sizeof elf);
    if (elf.e_ident[EI_CLASS] != OUR_CLASS || elf.e_machine != OUR_MACHINE) {
        return PROGRAM_FOREIGN;
    }
    switch (read_interpreter(it, &elf, path, sizeof path)) {
    case 1:
        return is_own_interpreter(path) ? judge_dynamic(it) : PROGRAM_FOREIGN;
    case 0:
        return stat_path(AT_FDCWD, own_interpreter(), 0, &own) && is_same_file(&it->stat, &own) ? judge_dynamic(it)
                                                                                                : PROGRAM_STATIC;
    default:
        return PROGRAM_FITS;
    }
}

/* What stands behind "#!", as the kernel's binfmt_script reads it. */
static bool read_script(const struct candidate *it, char *out, size_t size)
{
    const char *start = it->head + 2 + strspn(it->head + 2, " \t");
    size_t len = strcspn(start, " \t\n");

    if (memcmp(it->head, "#!", 2) != 0 || len == 0 || start + len == it->head + HEAD_MAX /* cut off */) {
        return false;
    }
    (void)snprintf(out, size, "%.*s", (int)len, start);
    return true;
}

/* True: the interpreter `next` is to be judged in its place. */
static bool judge_content(struct candidate *it, char *next, size_t size, int *verdict)
{
    long rc = syscall(SYS_pread64, it->fd, it->head, HEAD_MAX, 0);

    it->head_len = rc < 0 ? 0 : (size_t)rc;
    it->head[it->head_len] = '\0';
    if (binfmt_find(it->head, it->head_len, it->path, next, size)) {
        *verdict = strlen(next) < size - 1 ? PROGRAM_FITS : PROGRAM_FOREIGN; /* cut off: nobody can tell */
        return *verdict == PROGRAM_FITS;
    }
    if (read_script(it, next, size)) {
        return true;
    }
    if (it->head_len >= SELFMAG && memcmp(it->head, ELFMAG, SELFMAG) == 0) {
        *verdict = judge_elf(it);
    }
    return false;
}

static bool judge_file(struct candidate *it, char *next, size_t size, int *verdict)
{
    bool goes_on;

    if (!stat_path(it->directory, it->path, it->flags, &it->stat) || !S_ISREG(it->stat.stx_mode) ||
        !is_executable(it)) {
        return false;
    }
    *verdict = (int)open_it(it);
    goes_on = *verdict == PROGRAM_FITS && judge_content(it, next, size, verdict);
    close_it(it);
    return goes_on;
}

int program_judge(int directory, const char *path, int flags, const char *library)
{
    int saved = errno, verdict = PROGRAM_FITS;
    char paths[2][INTERPRETER_MAX];
    bool goes_on = true;

    for (unsigned i = 0; goes_on && i <= INTERPRETERS_MAX; i++) { /* one more: ELOOP */
        struct candidate it = {.directory = directory, .flags = flags, .path = path, .library = library, .fd = -1};

        goes_on = judge_file(&it, paths[i % 2], sizeof paths[0], &verdict);
        directory = AT_FDCWD;
        path = paths[i % 2];
        flags = 0;
    }
    errno = saved;
    return verdict;
}

const char *program_reason(enum program_verdict verdict)
{
    static const char *const reasons[] = {
        [PROGRAM_FITS] = "can be started",
        [PROGRAM_STATIC] = "is statically linked",
        [PROGRAM_FOREIGN] = "is for another machine or C library",
        [PROGRAM_SET_ID] = "changes the user or group ID, for which the dynamic linker ignores LD_PRELOAD",
        [PROGRAM_CAPABLE] = "has file capabilities, for which the dynamic linker ignores LD_PRELOAD",
        [PROGRAM_UNREADABLE] = "cannot be read, so that nobody knows whether it is statically linked",
        [PROGRAM_NO_LIBRARY] = "would not find libsocks6-preload.so, or may not read it",
    };

    _Static_assert(sizeof reasons / sizeof reasons[0] == PROGRAM_VERDICT_COUNT, "one for each");
    return reasons[verdict];
}
