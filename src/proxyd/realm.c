#include "proxyd/realm.h"

#include <assert.h>
#include <stdio.h>

#include "proxyd/config_internal.h"

void realm_write(char out[STORE_REALM_MAX + 1], const char *transport, const struct socks6_addr *address,
                 unsigned methods)
{
    char shown[SOCKS6_ADDR_TEXT_MAX];
    size_t size = STORE_REALM_MAX + 1, len;

    (void)socks6_addr_format(address, shown, sizeof shown);
    len = (size_t)snprintf(out, size, "%s %s", transport, shown);
    for (unsigned i = 0; config_method_names[i] != NULL; i++) {
        if ((methods & 1u << i) != 0) {
            len += (size_t)snprintf(out + len, size - len, " %s", config_method_names[i]);
        }
        assert(len < size);
    }
}
