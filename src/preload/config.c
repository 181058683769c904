/*
 * Theory of operation. The environment is read by the first call, usually the constructor's, and never again: a program may
 * clear it. A second thread, or a signal handler, that comes while it is being read reads it, too, into the stack, and the
 * first to be ready publishes its copy. So there is no lock.
 */
#include "preload/config.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4 /* copies that are being made at the same time; one more reads into the last */

static struct preload_config copies[SLOTS];
static atomic_uint copies_begun;
static _Atomic(const struct preload_config *) current;

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* `len` bytes of two digits each, then `end`. What follows that, or NULL. */
static const char *parse_hex(const char *text, uint8_t *out, size_t len, char end)
{
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);

        if (low < 0) {
            return NULL;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * len] == end ? text + 2 * len + 1 : NULL;
}

static bool parse_flags(const char *flags, struct preload_config *out)
{
    for (; *flags != '\0'; flags++) {
        switch (*flags) {
        case RUN_FLAG_VERBOSE:
            out->verbose = true;
            break;
        case RUN_FLAG_ALLOW_DIRECT:
            out->allow_direct = true;
            break;
        case RUN_FLAG_FAKE_NAMES:
            out->fake_names = true;
            break;
        default:
            return false;
        }
    }
    return true;
}

static bool parse(const char *text, struct preload_config *out)
{
    uint8_t address[RUN_ADDRESS_LEN];
    int n = snprintf(out->variable, sizeof out->variable, "%s=%s", RUN_VARIABLE, text);

    _Static_assert(RUN_VERSION == 1, "see below");
    if (n < 0 || (size_t)n >= sizeof out->variable || strncmp(text, "1:", 2) != 0) {
        return false;
    }
    text = parse_hex(text + 2, address, sizeof address, ':');
    text = text == NULL ? NULL : parse_hex(text, out->secret, sizeof out->secret, ':');
    if (text == NULL || !parse_flags(text, out)) {
        return false;
    }
    out->helper.sun_family = AF_UNIX;
    memcpy(out->helper.sun_path + 1, address, sizeof address);
    out->helper_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + sizeof address);
    out->is_valid = true;
    return true;
}

bool preload_config_parse(const char *text, struct preload_config *out)
{
    memset(out, 0, sizeof *out);
    if (!parse(text, out)) {
        memset(out, 0, sizeof *out);
        return false;
    }
    return true;
}

/* The first path of LD_PRELOAD is ours: `socks6 run`, or whoever started this program with our help, has put it there. */
static void keep_preload(struct preload_config *out)
{
    const char *list = getenv("LD_PRELOAD");
    size_t len = list == NULL ? 0 : strcspn(list, ": ");

    if (len > 0 && len < sizeof out->preload - sizeof "LD_PRELOAD=") {
        (void)snprintf(out->preload, sizeof out->preload, "LD_PRELOAD=%.*s", (int)len, list);
    }
}

static const struct preload_config *read_environment(void)
{
    unsigned turn = atomic_fetch_add_explicit(&copies_begun, 1, memory_order_relaxed);
    struct preload_config *copy = &copies[turn < SLOTS ? turn : SLOTS - 1];
    const struct preload_config *none = NULL;
    const char *text = getenv(RUN_VARIABLE);

    (void)preload_config_parse(text != NULL ? text : "", copy);
    keep_preload(copy);
    (void)atomic_compare_exchange_strong(&current, &none, copy);
    return atomic_load(&current);
}

const struct preload_config *preload_config(void)
{
    const struct preload_config *config = atomic_load_explicit(&current, memory_order_acquire);

    return config != NULL ? config : read_environment();
}

/* Before main(), and before anything changes the environment. */
__attribute__((constructor)) static void read_early(void)
{
    (void)preload_config();
}
