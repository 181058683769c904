/* The laws that the codecs of the three stream messages share, for fuzz_request, fuzz_auth_reply and fuzz_reply. */
#ifndef FUZZ_ROUND_TRIP_H
#define FUZZ_ROUND_TRIP_H

#include "fuzz.h"
#include "wire/message.h"

union message {
    struct s6_request request;
    struct s6_auth_reply auth_reply;
    struct s6_reply reply;
};

struct codec {
    int (*decode)(const uint8_t *bytes, size_t len, union message *out, size_t *size);
    int (*encode)(const union message *message, enum socks6_draft draft, struct s6_buf *out);
    bool (*equal)(const union message *a, const union message *b);
};

/*
 * `data`: one byte that chooses the draft to write, then a stream. decode(encode(x)) = x; encode(decode(bytes)) is stable;
 * a message cut short needs more; hints are above what is there and not above what it takes.
 */
void round_trip(const struct codec *codec, const uint8_t *data, size_t size);

#endif
