/*
 * Runs a fuzz target over files instead of invented inputs, so that the corpus is an ordinary test with any compiler.
 *
 * usage: replay_TARGET FILE-OR-FOLDER...     folders are not descended into; no input at all is a failure
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static unsigned long replayed;

static void die(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

/* The input is given in an allocation of exactly its size, so that ASan sees each byte read beyond it. */
static void replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);

    if (file == NULL || data == NULL || fread(data, 1, size, file) != size) {
        die(path);
    }
    fclose(file);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
}

static void replay_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    struct stat info = {0};
    char name[2048];

    if (dir == NULL) {
        die(path);
    }
    while ((entry = readdir(dir)) != NULL) {
        int len = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);

        if (len < 0 || (size_t)len >= sizeof name || stat(name, &info) != 0) {
            die(name);
        }
        if (S_ISREG(info.st_mode)) {
            replay_file(name, (size_t)info.st_size);
        }
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat info = {0};

        if (stat(argv[i], &info) != 0) {
            die(argv[i]);
        }
        if (S_ISDIR(info.st_mode)) {
            replay_folder(argv[i]);
        } else {
            replay_file(argv[i], (size_t)info.st_size);
        }
    }
    printf("%lu inputs replayed\n", replayed);
    return replayed > 0 ? 0 : 1;
}
