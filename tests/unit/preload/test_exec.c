/*
 * The exec and the spawn functions: what is started, with which arguments and environment, and which errors there are. Each
 * attempt is made by a child; its output and its errno come back over a pipe.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wordexp.h>

#include <cmocka.h>

#include "names_helper.h"

static char folder[] = "/tmp/test_exec.XXXXXX";
static char zero[] = "zero", one[] = "one", two[] = "two", x[] = "X=1";
static char *const args[] = {zero, one, two, NULL}, *const envs[] = {x, NULL};
static posix_spawn_file_actions_t actions; /* output into the pipe */

static void write_file(const char *name, const void *bytes, size_t len, mode_t mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(fchmod(fd, mode) | close(fd), 0);
}

static void write_script(const char *name, const char *text)
{
    write_file(name, text, strlen(text), 0755);
}

/* This very program without PT_INTERP. */
static void write_static(const char *name)
{
    static char bytes[65536];
    ElfW(Ehdr) *elf = (ElfW(Ehdr) *)(void *)bytes;
    ElfW(Phdr) * headers;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    assert_int_equal(read(fd, bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(close(fd), 0);
    headers = (ElfW(Phdr) *)(void *)(bytes + elf->e_phoff);
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        headers[i].p_type = headers[i].p_type == PT_INTERP ? PT_NULL : headers[i].p_type;
    }
    write_file(name, bytes, sizeof bytes, 0755);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0 || mkdir("p1", 0755) != 0 || mkdir("p2", 0755) != 0) {
        return -1;
    }
    write_script("script", "#!/bin/sh\necho script $0 $@ X=$X\n");
    write_script("plain", "echo plain $0 $@ X=$X\n"); /* no "#!" */
    write_script("empty", "");
    write_script("orphan", "#!/nonexistent\n");
    write_file("data", "", 0, 0644);
    write_file("p1/program", "", 0, 0644);
    write_file("p1/data", "", 0, 0644);
    write_script("p2/program", "#!/bin/sh\necho program $0 $@\n");
    write_script("p1/plain", "echo p1/plain $0 $@\n");
    write_static("static");
    write_static("p1/hidden");
    write_script("p2/hidden", "#!/bin/sh\necho hidden\n");
    return setenv("PATH", "/nonexistent:p1:p2:/bin:/usr/bin", 1);
}

static int tear_down(void **state)
{
    char command[64];

    (void)state;
    (void)snprintf(command, sizeof command, "PATH=/bin rm -rf %s", folder);
    return chdir("/") != 0 || system(command) != 0;
}

static char output[4096];

static const char *read_output(int fd)
{
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, output + len, sizeof output - 1 - len)) > 0) {
        len += (size_t)n;
    }
    output[len > 0 && output[len - 1] == '\n' ? len - 1 : len] = '\0';
    assert_int_equal(close(fd), 0);
    return output;
}

/* What is printed by the program that `call` starts; or "-ERRNO" if it comes back. */
#define STARTED(call)                                                                                                  \
    __extension__({                                                                                                    \
        int pipes_[2];                                                                                                 \
        assert_int_equal(pipe2(pipes_, O_CLOEXEC), 0);                                                                 \
        (void)fflush(stdout);                                                                                          \
        if (fork() == 0) {                                                                                             \
            (void)dup2(pipes_[1], 1);                                                                                  \
            (void)call;                                                                                                \
            (void)dprintf(1, "-%d", errno);                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
        (void)close(pipes_[1]);                                                                                        \
        (void)read_output(pipes_[0]);                                                                                  \
        (void)wait(NULL);                                                                                              \
        (const char *)output;                                                                                          \
    })

static const char *error(int number)
{
    static char text[16];

    (void)snprintf(text, sizeof text, "-%d", number);
    return text;
}

static const char *folder_of_child; /* NULL: ours */
static int descriptor_of_child = -1;

static const char *spawned(bool is_searched, const char *path, char *const argv[], char *const envp[])
{
    int pipes[2], rc;
    pid_t child;

    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, pipes[1], 1), 0);
    if (folder_of_child != NULL) {
        assert_int_equal(posix_spawn_file_actions_addchdir_np(&actions, folder), 0);
        assert_int_equal(posix_spawn_file_actions_addchdir_np(&actions, folder_of_child), 0);
    }
    if (descriptor_of_child != -1) {
        assert_int_equal(posix_spawn_file_actions_addfchdir_np(&actions, descriptor_of_child), 0);
    }
    rc = (is_searched ? posix_spawnp : posix_spawn)(&child, path, &actions, NULL, argv, envp);
    assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
    assert_int_equal(close(pipes[1]), 0);
    (void)read_output(pipes[0]);
    if (rc != 0) {
        return error(rc);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    return output;
}

static void test_execve(void **state)
{
    static char longest[PATH_MAX + 1], huge[300000], *const many[] = {zero, huge, NULL};

    (void)state;
    assert_string_equal(STARTED(execve("./script", args, envs)), "script ./script one two X=1");
    assert_string_equal(STARTED(execve("./script", args, NULL)), "script ./script one two X=");
    assert_string_equal(STARTED(execve("./none", args, envs)), error(ENOENT));
    assert_string_equal(STARTED(execve("", args, envs)), error(ENOENT));
    assert_string_equal(STARTED(execve("./data", args, envs)), error(EACCES));
    assert_string_equal(STARTED(execve("p1", args, envs)), error(EACCES));
    assert_string_equal(STARTED(execve("script/x", args, envs)), error(ENOTDIR));
    assert_string_equal(STARTED(execve("./plain", args, envs)), error(ENOEXEC));
    assert_string_equal(STARTED(execve("./empty", args, envs)), error(ENOEXEC));
    assert_string_equal(STARTED(execve("./orphan", args, envs)), error(ENOENT));
    memset(longest, 'a', PATH_MAX);
    assert_string_equal(STARTED(execve(longest, args, envs)), error(ENAMETOOLONG));
    memset(huge, 'a', sizeof huge - 1);
    assert_string_equal(STARTED(execve("./script", many, envs)), error(E2BIG));
}

static void test_the_search_in_path(void **state)
{
    (void)state;
    assert_string_equal(STARTED(execvp("program", args)), "program p2/program one two");
    assert_string_equal(STARTED(execvp("nothing-like-it", args)), error(ENOENT));
    assert_string_equal(STARTED(execvp("data", args)), error(EACCES));
    assert_string_equal(STARTED(execvp("", args)), error(ENOENT));
    assert_string_equal(STARTED(execvpe("static", args, envs)), error(ENOENT)); /* not in PATH */
    assert_string_equal(STARTED(execvpe("./script", args, envs)), "script ./script one two X=1");
    assert_string_equal(STARTED((setenv("PATH", "/bin:", 1), execvp("plain", args))), "plain plain one two X=");
    assert_string_equal(STARTED((setenv("PATH", "", 1), execvp("script", args))), "script script one two X=");
    assert_string_equal(STARTED((unsetenv("PATH"), execvp("echo", args))), "one two");
}

static void test_unknown_files_are_scripts_of_the_shell(void **state)
{
    static char *const none[] = {NULL};

    (void)state;
    assert_string_equal(STARTED(execvp("plain", args)), "p1/plain p1/plain one two");
    assert_string_equal(STARTED(execvpe("./plain", args, envs)), "plain ./plain one two X=1");
    assert_string_equal(STARTED(execvp("plain", none)), "p1/plain p1/plain");
    assert_string_equal(STARTED(execv("./plain", args)), error(ENOEXEC));
}

static void test_arguments_in_a_row(void **state)
{
    (void)state;
    assert_string_equal(STARTED(execl("./script", "zero", "one", "two", NULL)), "script ./script one two X=");
    assert_string_equal(STARTED(execl("./script", "zero", NULL)), "script ./script X=");
    assert_string_equal(STARTED(execlp("program", "zero", "one", NULL)), "program p2/program one");
    assert_string_equal(STARTED(execle("./script", "zero", "one", NULL, envs)), "script ./script one X=1");
}

static void test_programs_by_descriptor(void **state)
{
    int echo = open("/bin/echo", O_PATH | O_CLOEXEC), here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_string_equal(STARTED(fexecve(echo, args, envs)), "one two");
    assert_string_equal(STARTED(fexecve(-1, args, envs)), error(EINVAL));
    assert_string_equal(STARTED(fexecve(999, args, envs)), error(EBADF));
    assert_string_equal(STARTED(fexecve(open("script", O_RDONLY | O_CLOEXEC), args, envs)), error(ENOENT));
    assert_string_equal(STARTED(execveat(echo, "", args, envs, AT_EMPTY_PATH)), "one two");
    assert_string_equal(STARTED(execveat(here, "static", args, envs, 0)), error(EACCES));
    assert_string_equal(STARTED(execveat(AT_FDCWD, "./script", args, envs, 0)), "script ./script one two X=1");
    assert_string_equal(STARTED(execveat(AT_FDCWD, "./script", args, envs, 1)), error(EINVAL));
    assert_string_equal(STARTED(fexecve(open("static", O_RDONLY | O_CLOEXEC), args, envs)), error(EACCES));
    assert_int_equal(close(echo) | close(here), 0);
}

static void test_spawn(void **state)
{
    (void)state;
    assert_string_equal(spawned(false, "./script", args, envs), "script ./script one two X=1");
    assert_string_equal(spawned(false, "./none", args, envs), error(ENOENT));
    assert_string_equal(spawned(false, "./plain", args, envs), error(ENOEXEC));
    assert_string_equal(spawned(true, "program", args, envs), "program p2/program one two");
    assert_string_equal(spawned(true, "plain", args, envs), error(ENOEXEC)); /* no shell since glibc 2.15 */
    assert_string_equal(spawned(true, "data", args, envs), error(EACCES));
    assert_string_equal(spawned(true, "nothing-like-it", args, envs), error(ENOENT));
    assert_string_equal(spawned(false, "static", args, envs), error(EACCES));
    assert_string_equal(spawned(true, "hidden", args, envs), error(EACCES));
}

int pidfd_spawnp(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[],
                 char *const[]);

/* Where libc has it, as glibc since 2.39, it gives a descriptor of the process. */
static void test_pidfd_spawn(void **state)
{
    bool is_there = dlsym(RTLD_NEXT, "pidfd_spawnp") != NULL;
    int fd = -1, rc = pidfd_spawnp(&fd, "program", NULL, NULL, args, envs);
    siginfo_t info;

    (void)state;
    assert_int_equal(rc, is_there ? 0 : ENOSYS);
    if (is_there) {
        assert_int_equal(waitid(P_PIDFD, (id_t)fd, &info, WEXITED), 0);
        assert_int_equal(close(fd), 0);
        assert_int_equal(pidfd_spawnp(&fd, "static", NULL, NULL, args, envs), EACCES);
    }
}

/* A relative path is looked up where the child will be. */
static void test_spawn_in_another_folder(void **state)
{
    (void)state;
    folder_of_child = "p1";
    assert_string_equal(spawned(false, "./hidden", args, envs), error(EACCES));
    assert_string_equal(spawned(false, "../script", args, envs), "script ../script one two X=1");
    assert_string_equal(spawned(true, "../p1/hidden", args, envs), error(EACCES));
    folder_of_child = "p2";
    assert_string_equal(spawned(false, "./hidden", args, envs), "hidden");
    assert_string_equal(spawned(false, "/bin/echo", args, envs), "one two");
    folder_of_child = "nothing";
    assert_string_equal(spawned(false, "./hidden", args, envs), error(ENOENT));
    assert_string_equal(spawned(false, "/bin/echo", args, envs), error(ENOENT));
    folder_of_child = NULL;
    descriptor_of_child = open("p1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_string_equal(spawned(false, "./hidden", args, envs), error(EACCES));
    assert_string_equal(spawned(false, "../p2/program", args, envs), "program ../p2/program one two");
    assert_int_equal(close(descriptor_of_child), 0);
    assert_string_equal(spawned(false, "./script", args, envs), error(EACCES)); /* an action could have opened it */
    assert_string_equal(spawned(false, "/bin/echo", args, envs), error(EBADF));
    descriptor_of_child = -1;
}

/* Notes are not answered, so they may come late. */
static void await_note(const char *text)
{
    for (int i = 0; i < 5000 && strcmp((const char *)(uintptr_t)seen->text, text) != 0; i++) {
        (void)usleep(1000);
    }
    assert_string_equal((const char *)(uintptr_t)seen->text, text);
}

static void test_what_does_not_load_us_is_refused(void **state)
{
    (void)state;
    assert_string_equal(STARTED(execve("./static", args, envs)), error(EACCES));
    await_note("not started: ./static is statically linked");
    assert_int_equal(seen->note_what, RUN_NOTE_REFUSED);
    write_script("wrapper", "#!./static\n");
    assert_string_equal(STARTED(execve("./wrapper", args, envs)), error(EACCES));
    /* One of the same name further on in PATH is not what was asked for. */
    assert_string_equal(STARTED(execvp("hidden", args)), error(EACCES));
    await_note("not started: p1/hidden is statically linked");
}

static void test_our_variable_goes_along(void **state)
{
    const char *const names[] = {"X=1", getenv(RUN_VARIABLE)};
    char expected[256];

    (void)state;
    (void)snprintf(expected, sizeof expected, "X=1\n%s=%s", RUN_VARIABLE, names[1]);
    assert_string_equal(STARTED(execve("/usr/bin/env", (char *[]){zero, NULL}, envs)), expected);
    assert_string_equal(spawned(false, "/usr/bin/env", (char *[]){zero, NULL}, envs), expected);
    assert_string_equal(STARTED(execle("/usr/bin/env", "env", NULL, envs)), expected);
    assert_string_equal(STARTED(fexecve(open("/usr/bin/env", O_RDONLY | O_CLOEXEC), args + 3, envs)), expected);
}

static void test_a_vfork_child_may_start_programs(void **state)
{
    volatile int result = 0;
    pid_t child;
    int status;

    (void)state;
    child = vfork();
    if (child == 0) {
        (void)execve("./none", args, envs);
        result = errno;
        (void)execve("/bin/true", args, envs);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(result, ENOENT);
}

/* libc starts the shell of these by itself, with the environment as it is. How many of them have our variable then? */
static int count_repaired(void)
{
    static const char command[] = "/usr/bin/env | /bin/grep -c ^SOCKS6_RUN=1";
    const char *now;
    char text[16] = "", before[256];
    wordexp_t words;
    FILE *file;
    int count = 0;

    (void)snprintf(before, sizeof before, "%s", getenv(RUN_VARIABLE));
    (void)clearenv();
    count += system("/usr/bin/env | /bin/grep -q ^SOCKS6_RUN=1") == 0;
    now = getenv(RUN_VARIABLE);
    count += now != NULL && strcmp(now, before) == 0;
    (void)clearenv();
    file = popen(command, "re");
    count += file != NULL && fgets(text, sizeof text, file) != NULL && pclose(file) == 0 && strcmp(text, "1\n") == 0;
    environ = NULL;
    if (wordexp("$(/usr/bin/env | /bin/grep -c ^SOCKS6_RUN=1)", &words, 0) == 0) {
        count += strcmp(words.we_wordv[0], "1") == 0;
        wordfree(&words);
    }
    return count + (system(NULL) == 1);
}

static void test_a_cleared_environment_is_repaired(void **state)
{
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        _exit(count_repaired());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 5);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_execve),
        cmocka_unit_test(test_the_search_in_path),
        cmocka_unit_test(test_unknown_files_are_scripts_of_the_shell),
        cmocka_unit_test(test_arguments_in_a_row),
        cmocka_unit_test(test_programs_by_descriptor),
        cmocka_unit_test(test_spawn),
        cmocka_unit_test(test_pidfd_spawn),
        cmocka_unit_test(test_spawn_in_another_folder),
        cmocka_unit_test(test_what_does_not_load_us_is_refused),
        cmocka_unit_test(test_our_variable_goes_along),
        cmocka_unit_test(test_a_vfork_child_may_start_programs),
        cmocka_unit_test(test_a_cleared_environment_is_repaired),
    };
    int failed;

    (void)argc;
    names_helper_run(argv);
    failed = cmocka_run_group_tests_name("preload/exec", tests, set_up, tear_down);
    names_helper_stop();
    return failed;
}
