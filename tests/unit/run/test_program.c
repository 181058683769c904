/* Files of all kinds in a folder of their own: made by hand, or copies of /bin/true. */
#include "run/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_program.XXXXXX";

static void write_file(const char *name, const void *bytes, size_t len, mode_t mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text), 0755);
}

static char self[65536]; /* the first bytes of this very program */

static void read_self(void)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(read(fd, self, sizeof self) > 4096);
    assert_int_equal(close(fd), 0);
}

static ElfW(Phdr) * interpreter_header(char *bytes)
{
    ElfW(Ehdr) *elf = (ElfW(Ehdr) *)(void *)bytes;
    ElfW(Phdr) *headers = (ElfW(Phdr) *)(void *)(bytes + elf->e_phoff);

    for (unsigned i = 0; i < elf->e_phnum; i++) {
        if (headers[i].p_type == PT_INTERP) {
            return &headers[i];
        }
    }
    fail_msg("this program has no PT_INTERP");
    return NULL;
}

static int judge(const char *path)
{
    return program_judge(AT_FDCWD, path, 0, NULL);
}

static int enter_folder(void **state)
{
    (void)state;
    read_self();
    return mkdtemp(folder) == NULL || chdir(folder) != 0 || chmod(folder, 0755) != 0;
}

static int leave_folder(void **state)
{
    char command[64];

    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return chdir("/") != 0 || system(command) != 0;
}

static void test_a_dynamic_program_fits(void **state)
{
    (void)state;
    errno = 77;
    assert_int_equal(judge("/proc/self/exe"), PROGRAM_FITS);
    assert_int_equal(judge("/bin/sh"), PROGRAM_FITS);
    assert_int_equal(errno, 77);
}

static void test_the_dynamic_linker_fits(void **state)
{
    char *name;

    (void)state;
    name = self + interpreter_header(self)->p_offset;
    assert_int_equal(judge(name), PROGRAM_FITS);
}

static void test_a_program_without_interpreter_is_static(void **state)
{
    static char bytes[sizeof self];

    (void)state;
    memcpy(bytes, self, sizeof bytes);
    interpreter_header(bytes)->p_type = PT_NULL;
    write_file("static", bytes, sizeof bytes, 0755);
    assert_int_equal(judge("static"), PROGRAM_STATIC);
    assert_int_equal(judge("./static"), PROGRAM_STATIC);
    write_file("static", bytes, sizeof bytes, 0644); /* execve(2) says EACCES */
    assert_int_equal(judge("static"), PROGRAM_FITS);
    write_file("static", bytes, sizeof bytes, 0755);
    assert_int_equal(truncate("static", sizeof(ElfW(Ehdr)) + 8), 0); /* ENOEXEC, or killed */
    assert_int_equal(judge("static"), PROGRAM_FITS);
}

static void test_another_interpreter_is_foreign(void **state)
{
    static char bytes[sizeof self];

    (void)state;
    memcpy(bytes, self, sizeof bytes);
    memcpy(bytes + interpreter_header(bytes)->p_offset, "/bin/sh", sizeof "/bin/sh");
    write_file("foreign", bytes, sizeof bytes, 0755);
    assert_int_equal(judge("foreign"), PROGRAM_FOREIGN);
}

static void test_another_machine_or_class_is_foreign(void **state)
{
    static char bytes[sizeof self];
    ElfW(Ehdr) *elf = (ElfW(Ehdr) *)(void *)bytes;

    (void)state;
    memcpy(bytes, self, sizeof bytes);
    elf->e_machine = EM_AVR;
    write_file("avr", bytes, sizeof bytes, 0755);
    assert_int_equal(judge("avr"), PROGRAM_FOREIGN);
    memcpy(bytes, self, sizeof bytes);
    elf->e_ident[EI_CLASS] = (unsigned char)(ELFCLASS32 + ELFCLASS64 - elf->e_ident[EI_CLASS]);
    write_file("class", bytes, sizeof bytes, 0755);
    assert_int_equal(judge("class"), PROGRAM_FOREIGN);
}

static void test_scripts_are_judged_by_their_interpreter(void **state)
{
    static char bytes[sizeof self];
    char chain[] = "#!./chain0\n", name[] = "chain0";

    (void)state;
    memcpy(bytes, self, sizeof bytes);
    interpreter_header(bytes)->p_type = PT_NULL;
    write_file("static", bytes, sizeof bytes, 0755);
    write_text("script", "#! \t./static -x\n");
    assert_int_equal(judge("script"), PROGRAM_STATIC);
    write_text("script", "#!./static");
    assert_int_equal(judge("script"), PROGRAM_STATIC);
    write_text("second", "#!./script\n");
    assert_int_equal(judge("second"), PROGRAM_STATIC);
    write_text("script", "#!/bin/sh\n");
    assert_int_equal(judge("script"), PROGRAM_FITS);
    write_text("script", "#!./missing\n"); /* ENOENT */
    assert_int_equal(judge("script"), PROGRAM_FITS);
    write_text("chain0", "#!./static\n");
    for (char i = '1'; i <= '5'; i++) { /* chain4 is the fifth script, and the kernel's last */
        name[5] = i;
        write_text(name, chain);
        chain[sizeof "#!./chain" - 1] = i;
    }
    assert_int_equal(judge("chain4"), PROGRAM_STATIC);
    assert_int_equal(judge("chain5"), PROGRAM_FITS); /* ELOOP */
    assert_int_equal(execl("chain5", "chain5", NULL), -1);
    assert_int_equal(errno, ELOOP);
}

static void test_what_the_kernel_refuses_fits(void **state)
{
    char line[400];

    (void)state;
    assert_int_equal(judge("nothing"), PROGRAM_FITS);
    assert_int_equal(judge(""), PROGRAM_FITS);
    assert_int_equal(judge("/"), PROGRAM_FITS);
    assert_int_equal(judge("/dev/null"), PROGRAM_FITS);
    write_text("empty", "");
    assert_int_equal(judge("empty"), PROGRAM_FITS);
    write_text("text", "echo hello\n");
    assert_int_equal(judge("text"), PROGRAM_FITS);
    write_text("bare", "#!\n/bin/sh\n");
    assert_int_equal(judge("bare"), PROGRAM_FITS);
    write_text("magic", ELFMAG);
    assert_int_equal(judge("magic"), PROGRAM_FITS);
    memset(line, 'x', sizeof line);
    memcpy(line, "#!", 2);
    write_file("long", line, sizeof line, 0755);
    assert_int_equal(judge("long"), PROGRAM_FITS);
}

static void test_a_descriptor_is_judged_as_a_path(void **state)
{
    static char bytes[sizeof self];
    int fd, link;

    (void)state;
    memcpy(bytes, self, sizeof bytes);
    interpreter_header(bytes)->p_type = PT_NULL;
    write_file("static", bytes, sizeof bytes, 0755);
    fd = open("static", O_RDONLY | O_CLOEXEC);
    assert_int_equal(program_judge(fd, "", AT_EMPTY_PATH, NULL), PROGRAM_STATIC);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(close(fd), 0);
    fd = open("static", O_PATH | O_CLOEXEC);
    assert_int_equal(program_judge(fd, "", AT_EMPTY_PATH, NULL), PROGRAM_STATIC);
    assert_int_equal(close(fd), 0);
    fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(program_judge(fd, "static", 0, NULL), PROGRAM_STATIC);
    link = symlinkat("static", fd, "link");
    assert_int_equal(link, 0);
    assert_int_equal(program_judge(fd, "link", 0, NULL), PROGRAM_STATIC);
    assert_int_equal(program_judge(fd, "link", AT_SYMLINK_NOFOLLOW, NULL), PROGRAM_FITS); /* ELOOP */
    assert_int_equal(close(fd), 0);
    assert_int_equal(program_judge(fd, "", AT_EMPTY_PATH, NULL), PROGRAM_FITS); /* EBADF */
}

static void test_a_missing_library_is_told(void **state)
{
    (void)state;
    assert_int_equal(program_judge(AT_FDCWD, "/bin/sh", 0, "/bin/sh"), PROGRAM_FITS);
    assert_int_equal(program_judge(AT_FDCWD, "/bin/sh", 0, "/nothing/here.so"), PROGRAM_NO_LIBRARY);
    assert_int_equal(program_judge(AT_FDCWD, "nothing", 0, "/nothing/here.so"), PROGRAM_FITS);
}

/* What a child says that has become another user. */
static int judge_as(uid_t real, uid_t effective, const char *path, const char *library)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        _exit(setresuid(real, effective, effective) != 0 ? 99 : program_judge(AT_FDCWD, path, 0, library));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_other_ids_are_found(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(system("cp /bin/true setuid && chown 1:1 setuid && chmod 4755 setuid"), 0);
    assert_int_equal(judge("setuid"), PROGRAM_SET_ID);
    assert_int_equal(judge_as(1, 1, "setuid", NULL), PROGRAM_FITS);
    assert_int_equal(system("chmod 2755 setuid"), 0);
    assert_int_equal(judge("setuid"), PROGRAM_SET_ID);
    assert_int_equal(system("chmod 2745 setuid"), 0); /* without x for the group: mandatory locking, once */
    assert_int_equal(judge("setuid"), PROGRAM_FITS);
    assert_int_equal(system("chmod 4755 setuid && echo '#!/bin/sh' > setuid"), 0);
    assert_int_equal(judge("setuid"), PROGRAM_FITS); /* scripts do not change them */
    assert_int_equal(judge_as(0, 1, "/bin/true", NULL), PROGRAM_SET_ID);
    assert_int_equal(judge_as(1, 1, "/bin/true", NULL), PROGRAM_FITS);
}

static void test_rights_of_the_user_count(void **state)
{
    static const unsigned char net_raw[20] = {1, 0, 0, 2, 0, 0x20}; /* cap_net_raw=ep, VFS_CAP_REVISION_2 */

    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(system("cp /bin/true other && chmod 711 other && cp other library && chmod 600 library"), 0);
    assert_int_equal(judge_as(1, 1, "other", NULL), PROGRAM_UNREADABLE);
    assert_int_equal(judge_as(1, 1, "/bin/true", "library"), PROGRAM_NO_LIBRARY);
    assert_int_equal(chmod("other", 0755), 0);
    assert_int_equal(judge_as(1, 1, "other", NULL), PROGRAM_FITS);
    if (setxattr("other", "security.capability", net_raw, sizeof net_raw, 0) != 0) {
        skip();
    }
    assert_int_equal(judge_as(1, 1, "other", NULL), PROGRAM_CAPABLE);
    assert_int_equal(judge("other"), PROGRAM_FITS); /* root has them */
}

static void test_want_of_descriptors_is_told(void **state)
{
    struct rlimit before, none;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(judge("/bin/sh"), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void test_each_verdict_has_a_reason(void **state)
{
    (void)state;
    for (int i = 0; i < PROGRAM_VERDICT_COUNT; i++) {
        assert_true(strlen(program_reason((enum program_verdict)i)) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_dynamic_program_fits),
        cmocka_unit_test(test_the_dynamic_linker_fits),
        cmocka_unit_test(test_a_program_without_interpreter_is_static),
        cmocka_unit_test(test_another_interpreter_is_foreign),
        cmocka_unit_test(test_another_machine_or_class_is_foreign),
        cmocka_unit_test(test_scripts_are_judged_by_their_interpreter),
        cmocka_unit_test(test_what_the_kernel_refuses_fits),
        cmocka_unit_test(test_a_descriptor_is_judged_as_a_path),
        cmocka_unit_test(test_a_missing_library_is_told),
        cmocka_unit_test(test_other_ids_are_found),
        cmocka_unit_test(test_rights_of_the_user_count),
        cmocka_unit_test(test_want_of_descriptors_is_told),
        cmocka_unit_test(test_each_verdict_has_a_reason),
    };

    return cmocka_run_group_tests_name("run/program", tests, enter_folder, leave_folder);
}
