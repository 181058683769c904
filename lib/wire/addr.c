/* Addresses on the wire; see addr.h. */
#include "wire/addr.h"

#include <assert.h>
#include <string.h>

/* Bytes behind the length byte `name_len`, padding outside of it included. */
static size_t name_size(enum s6_addr_place place, size_t name_len)
{
    return place == S6_ADDR_IN_STREAM ? s6_round4(1u + name_len) : 1u + name_len;
}

size_t s6_addr_wire_size(uint8_t type, enum s6_addr_place place, const uint8_t *bytes, size_t have)
{
    switch ((enum socks6_addr_type)type) {
    case SOCKS6_ADDR_IPV4:
        return 4;
    case SOCKS6_ADDR_IPV6:
        return 16;
    case SOCKS6_ADDR_NAME:
        return have == 0 ? 1 : name_size(place, bytes[0]);
    }
    return 0;
}

/* A name's length byte, bytes and padding: both conventions at once, as the head of addr.h says. */
static int decode_name(struct s6_reader *reader, uint16_t port, enum s6_addr_place place, struct socks6_addr *out)
{
    size_t wire_len = s6_read_u8(reader);
    struct socks6_slice name = s6_read_slice(reader, wire_len);

    s6_read_skip(reader, name_size(place, wire_len) - 1u - wire_len);
    if (reader->failed) {
        return SOCKS6_ERR_MALFORMED;
    }
    while (name.len > 0 && name.data[name.len - 1] == 0) {
        name.len--;
    }
    if (name.len == 0 || !socks6_addr_name((const char *)name.data, name.len, port, out)) {
        return SOCKS6_ERR_MALFORMED;
    }
    return SOCKS6_OK;
}

int s6_addr_decode(struct s6_reader *reader, uint8_t type, uint16_t port, enum s6_addr_place place,
                   struct socks6_addr *out)
{
    uint8_t bytes[16];

    switch ((enum socks6_addr_type)type) {
    case SOCKS6_ADDR_IPV4:
        s6_read_copy(reader, bytes, 4);
        if (reader->failed) {
            return SOCKS6_ERR_MALFORMED;
        }
        *out = socks6_addr_ipv4(bytes, port);
        return SOCKS6_OK;
    case SOCKS6_ADDR_IPV6:
        s6_read_copy(reader, bytes, 16);
        if (reader->failed) {
            return SOCKS6_ERR_MALFORMED;
        }
        *out = socks6_addr_ipv6(bytes, port);
        return SOCKS6_OK;
    case SOCKS6_ADDR_NAME:
        return decode_name(reader, port, place, out);
    }
    return SOCKS6_ERR_ADDRESS;
}

bool s6_addr_is_valid(const struct socks6_addr *addr)
{
    switch ((enum socks6_addr_type)addr->type) {
    case SOCKS6_ADDR_IPV4:
        return addr->len == 4;
    case SOCKS6_ADDR_IPV6:
        return addr->len == 16;
    case SOCKS6_ADDR_NAME:
        return addr->len > 0 && memchr(addr->u.name, 0, sizeof addr->u.name) == addr->u.name + addr->len;
    }
    return false;
}

/* What the length byte of a name says: -12 counts the padding too, in every place. */
static size_t name_wire_len(const struct socks6_addr *addr, enum socks6_draft draft)
{
    return draft == SOCKS6_DRAFT_12 ? s6_round4(1u + (size_t)addr->len) - 1u : addr->len;
}

size_t s6_addr_encoded_len(const struct socks6_addr *addr, enum s6_addr_place place, enum socks6_draft draft)
{
    return addr->type == SOCKS6_ADDR_NAME ? name_size(place, name_wire_len(addr, draft)) : addr->len;
}

void s6_addr_encode(struct s6_writer *writer, const struct socks6_addr *addr, enum s6_addr_place place,
                    enum socks6_draft draft)
{
    assert(s6_addr_is_valid(addr));
    switch ((enum socks6_addr_type)addr->type) {
    case SOCKS6_ADDR_IPV4:
        s6_write_bytes(writer, addr->u.ipv4, 4);
        break;
    case SOCKS6_ADDR_IPV6:
        s6_write_bytes(writer, addr->u.ipv6, 16);
        break;
    case SOCKS6_ADDR_NAME:
        s6_write_u8(writer, (uint8_t)name_wire_len(addr, draft));
        s6_write_bytes(writer, addr->u.name, addr->len);
        s6_write_zeros(writer, s6_addr_encoded_len(addr, place, draft) - 1u - addr->len);
        break;
    }
}
