/*
 * Programs written in Go: they make system calls without the C library, and so connect past us, even if they ask it for names (cgo).
 * They are told of when they start. Those without the C library are static, and not started at all: see run/program.h.
 */
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>

#include "preload/config.h"
#include "preload/talk.h"

#define NOTE_OWNER "Go" /* of the note that Go's linker leaves: a build ID. It may count more than one NUL */

/* A note is a head, and its owner and contents, each filled up to words. */
static bool has_go_note(const uint8_t *notes, size_t len)
{
    ElfW(Nhdr) head;

    while (len >= sizeof head) {
        size_t owner_len, size;

        memcpy(&head, notes, sizeof head);
        owner_len = ((size_t)head.n_namesz + 3) & ~(size_t)3;
        size = sizeof head + owner_len + (((size_t)head.n_descsz + 3) & ~(size_t)3);
        if (size > len) {
            return false;
        }
        if (head.n_namesz >= sizeof NOTE_OWNER && memcmp(notes + sizeof head, NOTE_OWNER, sizeof NOTE_OWNER) == 0) {
            return true;
        }
        notes += size;
        len -= size;
    }
    return false;
}

/* The program that this process runs. */
static bool is_go(void)
{
    union {
        unsigned long address;
        const ElfW(Phdr) * headers;
    } table = {getauxval(AT_PHDR)};
    unsigned long count = table.address != 0 ? getauxval(AT_PHNUM) : 0;
    union {
        ElfW(Addr) address;
        const uint8_t *bytes;
    } notes;
    ElfW(Addr) moved = 0;

    for (unsigned long i = 0; i < count; i++) {
        moved = table.headers[i].p_type == PT_PHDR ? (ElfW(Addr))table.address - table.headers[i].p_vaddr : moved;
    }
    for (unsigned long i = 0; i < count; i++) {
        notes.address = moved + table.headers[i].p_vaddr;
        if (table.headers[i].p_type == PT_NOTE && has_go_note(notes.bytes, table.headers[i].p_memsz)) {
            return true;
        }
    }
    return false;
}

__attribute__((constructor)) static void tell(void)
{
    if (preload_config()->is_valid && is_go()) {
        talk_note(preload_config()->allow_direct ? RUN_NOTE_TRACE : RUN_NOTE_REFUSED,
                  "a Go program, which connects without the C library: past the proxy, unless that is forbidden");
    }
}
