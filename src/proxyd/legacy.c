#include "proxyd/legacy.h"

#include <assert.h>
#include <string.h>

#include "proxyd/reply_map.h"

void legacy_init(struct legacy *legacy, uint8_t version, unsigned methods)
{
    assert(version == 4 || version == 5);
    memset(legacy, 0, sizeof *legacy);
    legacy->version = version;
    legacy->methods = (uint8_t)methods;
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

static enum legacy_status refuse_stranger(struct legacy *legacy, const char *why)
{
    legacy->needs_login = 1;
    return refuse(legacy, why);
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
    if ((legacy->methods & LEGACY_ANONYMOUS) == 0) {
        /* 92 and 93 speak of identd. */
        legacy_reply(legacy, SOCKS6_REPLY_NOT_ALLOWED, NULL);
        return refuse_stranger(legacy, "SOCKS 4 cannot log in");
    }
    legacy->command = command_of(bytes[1]);
    legacy->done = 1;
    *used = taken;
    return LEGACY_REQUEST;
}

/* The method for this client; SOCKS6_METHOD_UNACCEPTABLE if it offers none that would do. */
static uint8_t choose_method(const struct legacy *legacy, const uint8_t *offered, size_t count)
{
    if (count > 0 && (legacy->methods & LEGACY_PASSWORD) != 0 &&
        memchr(offered, SOCKS6_METHOD_USERPASS, count) != NULL) {
        return SOCKS6_METHOD_USERPASS;
    }
    if (count > 0 && (legacy->methods & LEGACY_ANONYMOUS) != 0 && memchr(offered, SOCKS6_METHOD_NONE, count) != NULL) {
        return SOCKS6_METHOD_NONE;
    }
    return SOCKS6_METHOD_UNACCEPTABLE;
}

/* RFC 1928 section 3: version, count, methods. */
static enum legacy_status input_greeting(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    if (len < 2 || len < 2u + bytes[1]) {
        return LEGACY_MORE;
    }
    uint8_t method = choose_method(legacy, bytes + 2, bytes[1]);

    *used = 2u + bytes[1];
    put(legacy, (const uint8_t[]){5, method}, 2);
    if (method == SOCKS6_METHOD_UNACCEPTABLE) {
        return refuse_stranger(legacy, "no acceptable authentication method");
    }
    legacy->stage = method == SOCKS6_METHOD_USERPASS ? LEGACY_LOGIN : LEGACY_ASKING;
    return LEGACY_MORE;
}

/* RFC 1929 section 2: version of the negotiation, 0 = success. */
static void put_login_status(struct legacy *legacy, bool is_good)
{
    put(legacy, (const uint8_t[]){1, is_good ? 0 : 1}, 2);
}

/* RFC 1929 section 2: version of the negotiation, name with its length, password with its length. */
static enum legacy_status input_login(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    if (len >= 1 && bytes[0] != 1) {
        put_login_status(legacy, false);
        return refuse(legacy, "malformed user name and password");
    }
    if (len >= 2 && bytes[1] == 0) {
        put_login_status(legacy, false);
        return refuse(legacy, "empty user name");
    }
    if (len < 2 || len < 3u + bytes[1] || len < 3u + bytes[1] + bytes[2 + bytes[1]]) {
        return LEGACY_MORE;
    }
    const uint8_t *password = bytes + 2 + bytes[1];

    legacy->credentials.username = (struct socks6_slice){bytes + 2, bytes[1]};
    legacy->credentials.password = (struct socks6_slice){password + 1, password[0]};
    legacy->stage = LEGACY_VERDICT;
    *used = 3u + bytes[1] + password[0];
    return LEGACY_CREDENTIALS;
}

void legacy_auth_done(struct legacy *legacy, bool is_good)
{
    assert(legacy->stage == LEGACY_VERDICT);
    legacy->credentials = (struct socks6_credentials){0};
    legacy->stage = LEGACY_ASKING;
    legacy->done = !is_good;
    put_login_status(legacy, is_good);
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

static enum legacy_status input_stage(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    switch ((enum legacy_stage)legacy->stage) {
    case LEGACY_GREETING:
        return input_greeting(legacy, bytes, len, used);
    case LEGACY_LOGIN:
        return input_login(legacy, bytes, len, used);
    case LEGACY_VERDICT:
        break; /* nothing is taken before it is there */
    case LEGACY_ASKING:
        return input_request(legacy, bytes, len, used);
    }
    return LEGACY_MORE;
}

enum legacy_status legacy_input(struct legacy *legacy, const uint8_t *bytes, size_t len, size_t *used)
{
    *used = 0;
    assert(!legacy->done);
    if (legacy->version == 4) {
        return input_socks4(legacy, bytes, len, used);
    }
    for (;;) {
        enum legacy_stage stage = (enum legacy_stage)legacy->stage;
        size_t taken = 0;
        enum legacy_status status = input_stage(legacy, bytes + *used, len - *used, &taken);

        *used += taken;
        if (status != LEGACY_MORE || legacy->stage == stage) {
            return status;
        }
    }
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
