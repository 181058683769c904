#include "run/binfmt.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOLDER "/proc/sys/fs/binfmt_misc"
#define ENTRY_MAX 2048  /* the kernel's limit for what registers one is 1920 */
#define PATTERN_MAX 256 /* BINPRM_BUF_SIZE */

/* What follows `key` in the line that begins with it, or NULL. */
static const char *line(const char *entry, const char *key)
{
    size_t len = strlen(key);

    while (entry != NULL && strncmp(entry, key, len) != 0) {
        entry = strchr(entry, '\n');
        entry = entry == NULL ? NULL : entry + 1;
    }
    return entry == NULL ? NULL : entry + len;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes in hexadecimal up to the end of the line: how many. */
static size_t parse_bytes(const char *text, uint8_t *out)
{
    size_t len = 0;

    while (len < PATTERN_MAX && digit(text[0]) >= 0 && digit(text[1]) >= 0) {
        out[len++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
        text += 2;
    }
    return len;
}

static bool magic_matches(const char *entry, const char *magic, const char *head, size_t head_len)
{
    const char *offset_text = line(entry, "offset "), *mask_text = line(entry, "mask ");
    unsigned long offset = offset_text == NULL ? 0 : strtoul(offset_text, NULL, 10);
    uint8_t pattern[PATTERN_MAX], mask[PATTERN_MAX];
    size_t len = parse_bytes(magic, pattern);

    memset(mask, 0xff, sizeof mask);
    if (mask_text != NULL) {
        (void)parse_bytes(mask_text, mask);
    }
    if (len == 0 || offset > head_len || head_len - offset < len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if ((((uint8_t)head[offset + i] ^ pattern[i]) & mask[i]) != 0) {
            return false;
        }
    }
    return true;
}

static bool extension_matches(const char *extension, const char *path)
{
    const char *dot = strrchr(path, '.');
    size_t len = strcspn(extension, "\n");

    return dot != NULL && len > 0 && strncmp(dot, extension, len) == 0 && dot[len] == '\0';
}

bool binfmt_matches(const char *entry, const char *head, size_t head_len, const char *path, char *out, size_t size)
{
    const char *interpreter = line(entry, "interpreter "), *magic = line(entry, "magic ");
    const char *extension = line(entry, "extension ");

    if (line(entry, "enabled") != entry + strlen("enabled") || interpreter == NULL ||
        !((magic != NULL && magic_matches(entry, magic, head, head_len)) ||
          (extension != NULL && extension_matches(extension, path)))) {
        return false;
    }
    (void)snprintf(out, size, "%.*s", (int)strcspn(interpreter, "\n"), interpreter);
    return true;
}

/* The text of FOLDER/name, or an empty one. */
static void read_entry(int folder, const char *name, char out[ENTRY_MAX])
{
    long fd = syscall(SYS_openat, folder, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    long len = fd < 0 ? -1 : syscall(SYS_read, fd, out, ENTRY_MAX - 1);

    out[len < 0 ? 0 : len] = '\0';
    if (fd >= 0) {
        (void)syscall(SYS_close, fd);
    }
}

static bool is_enabled(int folder)
{
    char status[ENTRY_MAX];

    read_entry(folder, "status", status);
    return strncmp(status, "enabled", strlen("enabled")) == 0;
}

/* Looks at all the names of one getdents64(2). */
static bool look_through(int folder, const char *names, long len, const char *head, size_t head_len, const char *path,
                         char *out, size_t size)
{
    for (long at = 0; at < len;) {
        const char *name = names + at + offsetof(struct dirent64, d_name);
        char entry[ENTRY_MAX];
        unsigned short record;

        memcpy(&record, names + at + offsetof(struct dirent64, d_reclen), sizeof record);
        at += record;
        if (name[0] == '.' || strcmp(name, "register") == 0 || strcmp(name, "status") == 0) {
            continue;
        }
        read_entry(folder, name, entry);
        if (binfmt_matches(entry, head, head_len, path, out, size)) {
            return true;
        }
    }
    return false;
}

bool binfmt_find(const char *head, size_t head_len, const char *path, char *out, size_t size)
{
    int folder = (int)syscall(SYS_openat, AT_FDCWD, FOLDER, O_RDONLY | O_CLOEXEC | O_DIRECTORY | O_NONBLOCK);
    char names[1024];
    bool found = false;
    long len;

    if (folder < 0) {
        return false;
    }
    if (is_enabled(folder)) {
        while (!found && (len = syscall(SYS_getdents64, folder, names, sizeof names)) > 0) {
            found = look_through(folder, names, len, head, head_len, path, out, size);
        }
    }
    (void)syscall(SYS_close, folder);
    return found;
}
