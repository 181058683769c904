#include "cli/run_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_EVERY_MS 1000u
#define FILE_LEN_MAX ((size_t)64 << 20)

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Whether it looks different from `mark`, which then has what it looks like. */
static bool has_changed(const char *path, struct run_file_mark *mark)
{
    struct run_file_mark old = *mark;
    struct stat st;

    memset(mark, 0, sizeof *mark);
    if (stat(path, &st) == 0) {
        mark->dev = st.st_dev;
        mark->ino = st.st_ino;
        mark->size = st.st_size;
        mark->mtime = st.st_mtim;
        mark->ctime = st.st_ctim;
    }
    return mark->dev != old.dev || mark->ino != old.ino || mark->size != old.size ||
           !same_time(&mark->mtime, &old.mtime) || !same_time(&mark->ctime, &old.ctime);
}

/* As much as there is, up to `size`; -errno. */
static ssize_t read_all(int fd, char *text, size_t size)
{
    size_t got = 0;

    while (got < size) {
        ssize_t n = read(fd, text + got, size - got);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        got += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)got;
}

/* The whole file, malloc'ed; an empty one if it cannot be read. NULL = no memory. */
static char *read_file(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st = {0};
    char *text;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_LEN_MAX) {
        st.st_size = 0;
    }
    text = malloc((size_t)st.st_size + 1);
    n = text != NULL && st.st_size > 0 ? read_all(fd, text, (size_t)st.st_size) : 0;
    *len = n > 0 ? (size_t)n : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return text;
}

struct run_search *run_search_retain(struct run_search *search)
{
    search->references++;
    return search;
}

void run_search_release(struct run_search *search)
{
    if (search != NULL && --search->references == 0) {
        free(search);
    }
}

static bool load_hosts(struct run_files *files)
{
    size_t len;
    char *text = read_file(files->hosts_path, &len);
    struct hosts *hosts = text != NULL ? hosts_parse(text, len, &files->key) : NULL;

    free(text);
    if (hosts == NULL) {
        return false;
    }
    hosts_free(files->hosts);
    files->hosts = hosts;
    return true;
}

static bool load_search(struct run_files *files)
{
    char host_name[HOST_NAME_MAX + 1] = "";
    size_t len;
    char *text = read_file(files->resolv_conf_path, &len);
    struct run_search *search = malloc(sizeof *search);

    if (text != NULL && search != NULL) {
        if (gethostname(host_name, sizeof host_name - 1) != 0) {
            host_name[0] = '\0';
        }
        run_search_parse(text, len, getenv("LOCALDOMAIN"), getenv("RES_OPTIONS"), host_name, search);
        search->references = 1;
        run_search_release(files->search);
        files->search = search;
    } else {
        free(search);
    }
    free(text);
    return search != NULL && search == files->search;
}

int run_files_init(struct run_files *files, const char *hosts_path, const char *resolv_conf_path,
                   const struct siphash_key *key, uint64_t now_ms)
{
    memset(files, 0, sizeof *files);
    files->hosts_path = hosts_path != NULL ? hosts_path : "/etc/hosts";
    files->resolv_conf_path = resolv_conf_path != NULL ? resolv_conf_path : "/etc/resolv.conf";
    files->key = *key;
    files->next_look_ms = now_ms + LOOK_EVERY_MS;
    (void)has_changed(files->hosts_path, &files->hosts_mark);
    (void)has_changed(files->resolv_conf_path, &files->resolv_conf_mark);
    if (!load_hosts(files) || !load_search(files)) {
        run_files_done(files);
        return -ENOMEM;
    }
    return 0;
}

void run_files_done(struct run_files *files)
{
    hosts_free(files->hosts);
    run_search_release(files->search);
    files->hosts = NULL;
    files->search = NULL;
}

void run_files_look(struct run_files *files, uint64_t now_ms)
{
    if (now_ms < files->next_look_ms) {
        return;
    }
    files->next_look_ms = now_ms + LOOK_EVERY_MS;
    if (has_changed(files->hosts_path, &files->hosts_mark) && !load_hosts(files)) {
        memset(&files->hosts_mark, 0, sizeof files->hosts_mark); /* once more, later */
    }
    if (has_changed(files->resolv_conf_path, &files->resolv_conf_mark) && !load_search(files)) {
        memset(&files->resolv_conf_mark, 0, sizeof files->resolv_conf_mark);
    }
}
