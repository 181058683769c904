#include "cli/probe_request.h"

#include <string.h>

/* Where the options length stands in a Request. */
#define OPTIONS_LEN_AT 2

size_t probe_request_with_option(const struct socks6_client_config *config, uint16_t kind, const uint8_t *data,
                                 size_t len, uint8_t *out, size_t size)
{
    size_t padded = (len + 3) / 4 * 4, at = 0, area;
    struct socks6_client *client;
    struct socks6_slice request;

    if (padded + 4 > UINT16_MAX || socks6_client_new(config, 0, &client) != SOCKS6_OK) {
        return 0;
    }
    request = socks6_client_output(client);
    if (request.len + 4 + padded <= size) {
        memcpy(out, request.data, request.len);
        at = request.len;
    }
    socks6_client_free(client);
    if (at == 0) {
        return 0;
    }
    area = ((size_t)out[OPTIONS_LEN_AT] << 8 | out[OPTIONS_LEN_AT + 1]) + 4 + padded;
    if (area > UINT16_MAX) {
        return 0;
    }
    out[OPTIONS_LEN_AT] = (uint8_t)(area >> 8);
    out[OPTIONS_LEN_AT + 1] = (uint8_t)area;
    out[at++] = (uint8_t)(kind >> 8);
    out[at++] = (uint8_t)kind;
    out[at++] = (uint8_t)((padded + 4) >> 8);
    out[at++] = (uint8_t)(padded + 4);
    memset(out + at, 0, padded);
    if (data != NULL) {
        memcpy(out + at, data, len);
    }
    return at + padded;
}
