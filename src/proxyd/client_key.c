#include "proxyd/client_key.h"

#include <assert.h>
#include <string.h>

static uint64_t read_be(const uint8_t *bytes, size_t len)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

struct client_key client_key_of(const struct socks6_addr *client)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    assert(client->type == SOCKS6_ADDR_IPV4 || client->type == SOCKS6_ADDR_IPV6);
    if (client->type == SOCKS6_ADDR_IPV4) {
        return (struct client_key){.prefix = read_be(client->u.ipv4, 4), .family = 4};
    }
    if (memcmp(client->u.ipv6, mapped, sizeof mapped) == 0) {
        return (struct client_key){.prefix = read_be(client->u.ipv6 + 12, 4), .family = 4};
    }
    return (struct client_key){.prefix = read_be(client->u.ipv6, 8), .family = 6};
}

uint64_t client_key_hash(const struct siphash_key *key, const struct client_key *client)
{
    uint8_t bytes[sizeof client->prefix + 1];

    memcpy(bytes, &client->prefix, sizeof client->prefix);
    bytes[sizeof client->prefix] = (uint8_t)client->family;
    return siphash(key, bytes, sizeof bytes);
}
