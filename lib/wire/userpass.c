/* Username/password; see userpass.h. */
#include "wire/userpass.h"

#include <assert.h>

/* RFC 1929, section 2: the version of the sub-negotiation. */
#define USERPASS_VERSION 1u

int s6_userpass_request_decode(const uint8_t *bytes, size_t len, struct socks6_credentials *out, size_t *size)
{
    struct socks6_credentials found;
    struct s6_reader reader;
    size_t needed = 3; /* with both parts empty */

    if (len >= 1 && bytes[0] != USERPASS_VERSION) {
        return SOCKS6_ERR_MALFORMED;
    }
    if (len >= 2) {
        needed += bytes[1];
    }
    if (len >= 2 && len >= needed) {
        needed += bytes[needed - 1];
    }
    if (len < needed) {
        *size = len == 0 ? 1 : needed;
        return SOCKS6_NEED_MORE;
    }
    s6_reader_init(&reader, bytes + 1, needed - 1);
    found.username = s6_read_slice(&reader, s6_read_u8(&reader));
    found.password = s6_read_slice(&reader, s6_read_u8(&reader));
    assert(!reader.failed);
    *out = found;
    *size = needed;
    return SOCKS6_OK;
}

size_t s6_userpass_request_len(const struct socks6_credentials *credentials)
{
    return 3u + credentials->username.len + credentials->password.len;
}

void s6_userpass_request_encode(struct s6_writer *writer, const struct socks6_credentials *credentials)
{
    assert(credentials->username.len <= SOCKS6_USERNAME_MAX && credentials->password.len <= SOCKS6_PASSWORD_MAX);
    s6_write_u8(writer, USERPASS_VERSION);
    s6_write_u8(writer, (uint8_t)credentials->username.len);
    s6_write_bytes(writer, credentials->username.data, credentials->username.len);
    s6_write_u8(writer, (uint8_t)credentials->password.len);
    s6_write_bytes(writer, credentials->password.data, credentials->password.len);
}

int s6_userpass_reply_decode(const uint8_t *bytes, size_t len, uint8_t *status, size_t *size)
{
    if (len >= 1 && bytes[0] != USERPASS_VERSION) {
        return SOCKS6_ERR_MALFORMED;
    }
    if (len < S6_USERPASS_REPLY_LEN) {
        *size = len + 1u;
        return SOCKS6_NEED_MORE;
    }
    *status = bytes[1];
    *size = S6_USERPASS_REPLY_LEN;
    return SOCKS6_OK;
}

void s6_userpass_reply_encode(struct s6_writer *writer, uint8_t status)
{
    s6_write_u8(writer, USERPASS_VERSION);
    s6_write_u8(writer, status);
}
