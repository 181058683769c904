/* The laws of the stream messages' codecs; see round_trip.h. */
#include "round_trip.h"

#include <string.h>

#include "base/mem.h"

#define BUF_CAP 65536u

/* Following the hints from the first byte on leads to the same verdict, and soon. */
static void check_hints(const struct codec *codec, const uint8_t *bytes, size_t len, int verdict)
{
    union message message;
    size_t size = 1;
    int err = SOCKS6_NEED_MORE;

    for (int calls = 0; err == SOCKS6_NEED_MORE && size <= len; calls++) {
        size_t have = size;

        err = codec->decode(bytes, have, &message, &size);
        require(err != SOCKS6_NEED_MORE || size > have, "a hint asks for more than there is");
        require(calls < 5, "few calls lead to the end");
    }
    require(err == verdict, "the verdict does not depend on the pieces");
}

/* Writes `message`, reads it again, writes that: the same message and the same bytes. */
static void check_encoding(const struct codec *codec, const union message *message, enum socks6_draft draft)
{
    struct socks6_allocator mem = s6_allocator_or_default(NULL);
    union message again;
    struct s6_buf first;
    struct s6_buf second;
    size_t size;
    int err;

    s6_buf_init(&first, &mem, BUF_CAP, false);
    s6_buf_init(&second, &mem, BUF_CAP, true);
    err = codec->encode(message, draft, &first);
    if (err == SOCKS6_ERR_TOO_LONG) {
        require(draft != SOCKS6_DRAFT_12, "what was read under the largest cap fits it again");
        goto out;
    }
    require(err == SOCKS6_OK, "what was decoded can be encoded");
    err = codec->decode(s6_buf_slice(&first).data, s6_buf_len(&first), &again, &size);
    require(err == SOCKS6_OK && size == s6_buf_len(&first), "what was encoded can be decoded");
    require(codec->equal(message, &again), "decode(encode(x)) = x");
    require(codec->encode(&again, draft, &second) == SOCKS6_OK, "and encoded again");
    require(s6_buf_len(&first) == s6_buf_len(&second) &&
                memcmp(s6_buf_slice(&first).data, s6_buf_slice(&second).data, s6_buf_len(&first)) == 0,
            "the canonical form is stable");
out:
    s6_buf_done(&second);
    s6_buf_done(&first);
}

void round_trip(const struct codec *codec, const uint8_t *data, size_t size)
{
    static const enum socks6_draft drafts[] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12};
    union message message;
    union message part;
    size_t used = 0;
    size_t ignored;
    int err;

    if (size < 2) {
        return;
    }
    err = codec->decode(data + 1, size - 1, &message, &used);
    check_hints(codec, data + 1, size - 1, err);
    if (err == SOCKS6_NEED_MORE) {
        require(used > size - 1, "a hint asks for more than there is");
    }
    if (err == SOCKS6_OK) {
        require(used <= size - 1, "no more is used than there is");
        require(codec->decode(data + 1, used - 1, &part, &ignored) == SOCKS6_NEED_MORE, "the last byte is needed");
        check_encoding(codec, &message, drafts[data[0] % 3]);
    }
}
