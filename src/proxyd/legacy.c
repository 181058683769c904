#include "proxyd/legacy.h"

#include <assert.h>
#include <string.h>

#include "proxyd/reply_map.h"

void legacy_init(struct legacy *legacy, uint8_t version)
{
    assert(version == 4 || version == 5);
    memset(legacy, 0, sizeof *legacy);
    legacy->version = version;
    legacy->why = "";
}

static void put(struct legacy *legacy, const uint8_t *bytes, size_t len)
{
    assert(legacy->out_len + len <= sizeof legacy->out);
    memcpy(legacy->out + legacy->out_len, bytes, len);
    legacy->out_len = (uint8_t)(legacy->out_len + len);
}

static enum legacy_status refuse(struct legacy *legacy, const char *why)
{
    legacy->why = why;
    legacy->done = 1;
    return LEGACY_REFUSED;
}

/* SOCKS 4 numbers CONNECT and BIND as SOCKS 5 and 6 do; what it does not have stays a number nobody has. */
static uint8_t command_of(uint8_t code)
{
    /* 0 would be NOOP, which the older versions do not know. */
    return code == 0 ? 0xff : code;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}

/* SOCKS 4: version, command, port, address, user id, NUL; 4a: address 0.0.0.x, x != 0, and a name, NUL. */
static enum legacy_status input_socks4(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    static const uint8_t zero[3];

    if (len < 9) {
        return LEGACY_MORE;
    }
    size_t limit = len - 8 < LEGACY_USERID_MAX + 1 ? len - 8 : LEGACY_USERID_MAX + 1;
    const uint8_t *end = memchr(bytes + 8, 0, limit);
    if (end == NULL) {
        if (limit <= LEGACY_USERID_MAX) {
            return LEGACY_MORE;
        }
        legacy_reply(legacy, SOCKS6_REPLY_FAILURE, NULL);
        return refuse(legacy, "user id too long");
    }
    size_t taken = (size_t)(end + 1 - bytes);
    uint16_t port = get16(bytes + 2);

    legacy->is_4a = memcmp(bytes + 4, zero, 3) == 0 && bytes[7] != 0;
    if (!legacy->is_4a) {
        legacy->addr = socks6_addr_ipv4(bytes + 4, port);
    } else {
        limit = len - taken < SOCKS6_NAME_MAX + 1 ? len - taken : SOCKS6_NAME_MAX + 1;
        end = limit == 0 ? NULL : memchr(bytes + taken, 0, limit);
        if (end == NULL && limit <= SOCKS6_NAME_MAX) {
            return LEGACY_MORE;
        }
        size_t name_len = end == NULL ? 0 : (size_t)(end - bytes) - taken;
        if (name_len == 0 || !socks6_addr_name((const char *)bytes + taken, name_len, port, &legacy->addr)) {
            legacy_reply(legacy, SOCKS6_REPLY_FAILURE, NULL);
            return refuse(legacy, end == NULL ? "name too long" : "empty name");
        }
        taken += name_len + 1;
    }
    legacy->command = command_of(bytes[1]);
    legacy->done = 1;
    *used = taken;
    return LEGACY_REQUEST;
}

/* RFC 1928 section 3: version, count, methods. */
static enum legacy_status input_greeting(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    if (len < 2 || len < 2u + bytes[1]) {
        return LEGACY_MORE;
    }
    *used = 2u + bytes[1];
    legacy->greeted = 1;
    if (bytes[1] == 0 || memchr(bytes + 2, SOCKS6_METHOD_NONE, bytes[1]) == NULL) {
        put(legacy, (const uint8_t[]){5, SOCKS6_METHOD_UNACCEPTABLE}, 2);
        return refuse(legacy, "no acceptable authentication method");
    }
    put(legacy, (const uint8_t[]){5, SOCKS6_METHOD_NONE}, 2);
    return LEGACY_MORE;
}

/* RFC 1928 section 4: version, command, reserved, address type, address, port. */
static enum legacy_status input_request(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    if (len >= 1 && bytes[0] != 5) {
        legacy_reply(legacy, SOCKS6_REPLY_FAILURE, NULL);
        return refuse(legacy, "malformed request");
    }
    if (len < 5) {
        return LEGACY_MORE;
    }
    const uint8_t *addr = bytes + 4;
    size_t addr_len = 0;
    switch (bytes[3]) {
    case SOCKS6_ADDR_IPV4:
        addr_len = 4;
        break;
    case SOCKS6_ADDR_IPV6:
        addr_len = 16;
        break;
    case SOCKS6_ADDR_NAME:
        addr_len = *addr++;
        break;
    default:
        legacy_reply(legacy, SOCKS6_REPLY_ADDRESS_UNSUPPORTED, NULL);
        return refuse(legacy, "unknown address type");
    }
    size_t taken = (size_t)(addr - bytes) + addr_len + 2;
    if (len < taken) {
        return LEGACY_MORE;
    }
    uint16_t port = get16(addr + addr_len);
    if (bytes[3] == SOCKS6_ADDR_IPV4) {
        legacy->addr = socks6_addr_ipv4(addr, port);
    } else if (bytes[3] == SOCKS6_ADDR_IPV6) {
        legacy->addr = socks6_addr_ipv6(addr, port);
    } else if (!socks6_addr_name((const char *)addr, addr_len, port, &legacy->addr)) {
        legacy_reply(legacy, SOCKS6_REPLY_FAILURE, NULL);
        return refuse(legacy, "malformed name");
    }
    legacy->command = command_of(bytes[1]);
    legacy->done = 1;
    *used = taken;
    return LEGACY_REQUEST;
}

enum legacy_status legacy_input(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    *used = 0;
    assert(!legacy->done);
    if (legacy->version == 4) {
        return input_socks4(legacy, bytes, len, used);
    }
    if (!legacy->greeted) {
        enum legacy_status status = input_greeting(legacy, bytes, len, used);
        if (status != LEGACY_MORE || !legacy->greeted) {
            return status;
        }
    }
    size_t more = 0;
    enum legacy_status status = input_request(legacy, bytes + *used, len - *used, &more);
    *used += more;
    return status;
}

static void reply_socks4(struct legacy *legacy, enum socks6_reply_code code, const struct socks6_addr *bound)
{
    uint8_t reply[8] = {0, reply_map_socks4(code)};
    if (bound != NULL && bound->type == SOCKS6_ADDR_IPV4) {
        reply[2] = (uint8_t)(bound->port >> 8);
        reply[3] = (uint8_t)bound->port;
        memcpy(reply + 4, bound->u.ipv4, 4);
    }
    put(legacy, reply, sizeof reply);
}

void legacy_reply(struct legacy *legacy, enum socks6_reply_code code, const struct socks6_addr *bound)
{
    static const struct socks6_addr none = {.type = SOCKS6_ADDR_IPV4, .len = 4};

    if (legacy->version == 4) {
        reply_socks4(legacy, code, bound);
        return;
    }
    if (bound == NULL || bound->type == SOCKS6_ADDR_NAME) {
        bound = &none;
    }
    uint8_t reply[4 + 16 + 2] = {5, reply_map_socks5(code), 0, bound->type};
    memcpy(reply + 4, &bound->u, bound->len);
    reply[4 + bound->len] = (uint8_t)(bound->port >> 8);
    reply[5 + bound->len] = (uint8_t)bound->port;
    put(legacy, reply, 6u + bound->len);
}

const char *legacy_protocol(const struct legacy *legacy)
{
    if (legacy->version == 5) {
        return "socks5";
    }
    return legacy->is_4a ? "socks4a" : "socks4";
}
