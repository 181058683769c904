/*
 * hosts(5) and resolv.conf(5) as `socks6 run` sees them, read again when they have changed. Looked at once a second at
 * most.
 */
#ifndef CLI_RUN_FILES_H
#define CLI_RUN_FILES_H

#include <time.h>

#include <sys/types.h>

#include "cli/run_search.h"
#include "dns/hosts.h"

/* What tells one state of a file from another. */
struct run_file_mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
};

struct run_files {
    const char *hosts_path, *resolv_conf_path; /* borrowed */
    struct siphash_key key;
    struct run_file_mark hosts_mark, resolv_conf_mark;
    uint64_t next_look_ms;
    struct hosts *hosts;       /* valid until the next look */
    struct run_search *search; /* with a reference of ours */
};

/* Paths may be NULL: those in /etc. A file that cannot be read counts as empty. 0 or -ENOMEM. */
SOCKS6_MUST_CHECK int run_files_init(struct run_files *files, const char *hosts_path, const char *resolv_conf_path,
                                     const struct siphash_key *key, uint64_t now_ms);
void run_files_done(struct run_files *files);
/* Looks whether they have changed, if a second has gone by. Without memory the old state stays. */
void run_files_look(struct run_files *files, uint64_t now_ms);

/* A search list is kept as long as somebody walks it. */
struct run_search *run_search_retain(struct run_search *search);
void run_search_release(struct run_search *search);

#endif
