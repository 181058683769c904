#include "preload/idn.h"

#include <dlfcn.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libidn2.so.0"
#define IDN2_OK 0
#define IDN2_MALLOC (-100)
#define IDN2_NFC_INPUT 1

/* Of libidn2: both hand back memory of malloc(3). */
typedef int encode_function(const char *from, char **to, int flags); /* idn2_lookup_ul */
typedef int decode_function(const char *from, char **to, int flags); /* idn2_to_unicode_lzlz */

static void *find(const char *name)
{
    /* Never closed: libc does the same, and has it open from then on. */
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    return library == NULL ? NULL : dlsym(library, name);
}

static bool is_plain(const char *name)
{
    for (; *name != '\0'; name++) {
        if ((unsigned char)*name > 127) {
            return false;
        }
    }
    return true;
}

static int result(int rc)
{
    return rc == IDN2_OK ? 0 : rc == IDN2_MALLOC ? EAI_MEMORY : EAI_IDN_ENCODE;
}

int idn_encode(const char *name, char **out)
{
    union {
        void *object;
        encode_function *encode;
    } found;

    *out = NULL;
    if (is_plain(name)) {
        return 0;
    }
    found.object = find("idn2_lookup_ul");
    return found.object == NULL ? EAI_IDN_ENCODE : result(found.encode(name, out, IDN2_NFC_INPUT));
}

int idn_decode(const char *name, char **out)
{
    union {
        void *object;
        decode_function *decode;
    } found = {NULL};

    if (strstr(name, "xn--") != NULL) {
        found.object = find("idn2_to_unicode_lzlz");
    }
    if (found.object != NULL && found.decode(name, out, 0) == IDN2_OK) {
        return 0;
    }
    *out = strdup(name); /* libc as well gives the name as it is if it cannot be decoded */
    return *out == NULL ? EAI_MEMORY : 0;
}
