#include "preload/share.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "preload/sys.h"
#include "preload/talk.h"

static _Atomic(struct run_share *) mapped;
static atomic_bool is_absent; /* the helper has said so */

static void *map(int fd)
{
    int saved = errno;
    void *memory = mmap(NULL, run_share_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    errno = saved;
    return memory == MAP_FAILED ? NULL : memory;
}

/* The file; -1 = not now. */
static int ask(void)
{
    int talk = talk_open(), status = 0, passed = -1;
    ssize_t len;

    if (talk < 0) {
        return -1;
    }
    len = talk_send(talk, RUN_SHARE, NULL, 0, -1);
    if (len == 0) {
        len = talk_receive(talk, &status, NULL, 0, &passed, 0);
    }
    talk_close(talk);
    if (len == 0 && (status != 0 || passed < 0)) {
        atomic_store(&is_absent, true);
    }
    return passed;
}

struct run_share *share_get(void)
{
    struct run_share *share = atomic_load_explicit(&mapped, memory_order_acquire), *before = NULL;
    int fd;

    if (share != NULL || atomic_load_explicit(&is_absent, memory_order_relaxed)) {
        return share;
    }
    fd = ask();
    if (fd < 0) {
        return NULL;
    }
    share = map(fd);
    sys_close(fd);
    if (share == NULL) {
        atomic_store(&is_absent, true); /* no room for it */
    } else if (!atomic_compare_exchange_strong(&mapped, &before, share)) {
        int ignored = munmap(share, run_share_len); /* another thread was quicker */

        (void)ignored;
        share = before;
    }
    return share;
}
