/* RFC 1929 messages of the stream. Input: one byte, 0 = request and 1 = reply, then the stream. */
#include <string.h>

#include "fuzz.h"
#include "wire/userpass.h"

/* Decodes and, if that is a message, writes it again: it has only one form. */
static int decode(bool is_reply, const uint8_t *bytes, size_t len, size_t *size)
{
    uint8_t out[S6_USERPASS_REQUEST_MAX];
    struct socks6_credentials credentials;
    struct s6_writer writer;
    uint8_t status = 0;
    int err;

    err = is_reply ? s6_userpass_reply_decode(bytes, len, &status, size)
                   : s6_userpass_request_decode(bytes, len, &credentials, size);
    if (err != SOCKS6_OK) {
        return err;
    }
    s6_writer_init(&writer, out, sizeof out);
    if (is_reply) {
        s6_userpass_reply_encode(&writer, status);
    } else {
        require(s6_userpass_request_len(&credentials) == *size, "the length is exact");
        s6_userpass_request_encode(&writer, &credentials);
    }
    require(!writer.failed && s6_writer_len(&writer) == *size && memcmp(out, bytes, *size) == 0,
            "encode(decode(bytes)) = bytes");
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *bytes;
    size_t len;
    size_t hint = 1;
    size_t used = 0;
    bool is_reply;
    int verdict;
    int err = SOCKS6_NEED_MORE;

    if (size < 2) {
        return 0;
    }
    bytes = data + 1;
    len = size - 1;
    is_reply = (data[0] & 1u) != 0;
    verdict = decode(is_reply, bytes, len, &used);
    require(verdict != SOCKS6_OK || used <= len, "no more is used than there is");
    require(verdict != SOCKS6_NEED_MORE || used > len, "a hint asks for more than there is");
    for (int calls = 0; err == SOCKS6_NEED_MORE && hint <= len; calls++) {
        err = decode(is_reply, bytes, hint, &hint);
        require(calls < 4, "few calls lead to the end");
    }
    require(err == verdict, "the verdict does not depend on the pieces");
    return 0;
}
