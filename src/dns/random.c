#include "dns/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void dns_random_fill(void *out, size_t len)
{
    uint8_t *at = out;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        } else if (errno != EINTR) {
            abort(); /* no kernel of today; and guessable ids would be worse */
        }
    }
}

uint16_t dns_random16(struct dns_random *random)
{
    if (random->left < 2) {
        dns_random_fill(random->bytes, sizeof random->bytes);
        random->left = sizeof random->bytes;
    }
    random->left -= 2;
    return (uint16_t)((unsigned)random->bytes[random->left] << 8 | random->bytes[random->left + 1]);
}
