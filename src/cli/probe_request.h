/*
 * Requests that libsocks6 does not write, since a client has no use for them: one that it does write, with another
 * option behind its own. Pure.
 */
#ifndef CLI_PROBE_REQUEST_H
#define CLI_PROBE_REQUEST_H

#include <socks6/client.h>

/*
 * The request that `config` makes, followed by one option of that kind, whose data are `len` bytes (or zeros, if `data` is
 * NULL), padded. Its options length is corrected. Returns the length, or 0: no memory, a bad config, or `size` is too
 * small.
 */
size_t probe_request_with_option(const struct socks6_client_config *config, uint16_t kind, const uint8_t *data,
                                 size_t len, uint8_t *out, size_t size);

#endif
