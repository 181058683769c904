#include "proxyd/nameset.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nameset_add(struct nameset *set, const char *text, size_t len)
{
    char *copy;

    if (set->count == set->size) {
        size_t size = set->size == 0 ? 4 : set->size * 2;
        char **items = reallocarray(set->items, size, sizeof *items);

        if (items == NULL) {
            return -ENOMEM;
        }
        set->items = items;
        set->size = size;
    }
    copy = strndup(text, len);
    if (copy == NULL) {
        return -ENOMEM;
    }
    set->items[set->count++] = copy;
    return 0;
}

static int compare_items(const void *a, const void *b)
{
    const char *const *left = a, *const *right = b;

    return strcmp(*left, *right);
}

/*
 * FNV-1a from the end of a text to its beginning: so that one walk over a name passes the hashes of all of its
 * suffixes. Who makes names that share a bit with a set gains nothing but the search behind it.
 */
#define HASH_START UINT64_C(0xcbf29ce484222325)

static uint64_t hash_byte(uint64_t hash, char c)
{
    return (hash ^ (unsigned char)c) * UINT64_C(0x100000001b3);
}

/* One of 64 bits, chosen by the upper end of a hash, where all bytes have left their mark. */
static uint64_t bit_of(uint64_t hash)
{
    return UINT64_C(1) << (hash >> 58);
}

static uint64_t bit_of_text(const char *text)
{
    uint64_t hash = HASH_START;

    for (size_t i = strlen(text); i-- > 0;) {
        hash = hash_byte(hash, text[i]);
    }
    return bit_of(hash);
}

void nameset_finish(struct nameset *set)
{
    if (set->count > 1) {
        qsort(set->items, set->count, sizeof *set->items, compare_items);
    }
    for (size_t i = 0; i < set->count; i++) {
        set->filter |= bit_of_text(set->items[i]);
    }
}

void nameset_done(struct nameset *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free(set->items[i]);
    }
    free(set->items);
    memset(set, 0, sizeof *set);
}

static bool search(const struct nameset *set, const char *text)
{
    return bsearch(&text, set->items, set->count, sizeof *set->items, compare_items) != NULL;
}

bool nameset_has(const struct nameset *set, const char *text)
{
    return set->count > 0 && search(set, text);
}

bool nameset_has_host(const struct nameset *set, const struct host_name *host)
{
    return (set->filter & host->bit) != 0 && search(set, host->text);
}

bool nameset_has_suffix(const struct nameset *set, const struct host_name *host)
{
    if ((set->filter & host->suffix_bits) == 0) {
        return false;
    }
    for (const char *dot = strchr(host->text, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        if (search(set, dot + 1)) {
            return true;
        }
    }
    return false;
}

void host_name_init(struct host_name *host, const char *name)
{
    uint64_t hash = HASH_START;
    size_t len = 0;

    for (; len < SOCKS6_NAME_MAX && name[len] != '\0'; len++) {
        host->text[len] = (char)tolower((unsigned char)name[len]);
    }
    if (len > 1 && host->text[len - 1] == '.') {
        len--;
    }
    host->text[len] = '\0';
    host->suffix_bits = 0;
    while (len-- > 0) {
        if (host->text[len] == '.') {
            host->suffix_bits |= bit_of(hash);
        }
        hash = hash_byte(hash, host->text[len]);
    }
    host->bit = bit_of(hash);
}
