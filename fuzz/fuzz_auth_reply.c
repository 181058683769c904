/* Authentication Replies through decoder and encoder. Input: see round_trip.h. */
#include "compare.h"
#include "round_trip.h"

static int decode(const uint8_t *bytes, size_t len, union message *out, size_t *size)
{
    return s6_auth_reply_decode(bytes, len, SOCKS6_OPTIONS_CAP_12, &out->auth_reply, size);
}

static int encode(const union message *message, enum socks6_draft draft, struct s6_buf *out)
{
    return s6_auth_reply_encode(&message->auth_reply, draft, out);
}

static bool equal(const union message *a, const union message *b)
{
    return auth_replies_equal(&a->auth_reply, &b->auth_reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct codec codec = {decode, encode, equal};

    round_trip(&codec, data, size);
    return 0;
}
