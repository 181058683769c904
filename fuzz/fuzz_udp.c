/*
 * UDP messages. Input: one byte, then the datagram or stream. The byte: bits 0 and 1 the framing, bit 2 set for the
 * stream, bit 3 set behind -08's association ID.
 */
#include <socks6/udp.h>

#include <string.h>

#include "compare.h"
#include "fuzz.h"

struct choice {
    enum socks6_udp_framing framing;
    bool is_stream;
    int seen_initialization;
};

static int decode(const struct choice *choice, const uint8_t *bytes, size_t len, struct socks6_udp_message *out,
                  size_t *used)
{
    if (choice->is_stream) {
        return socks6_udp_decode_stream(choice->framing, choice->seen_initialization, bytes, len, out, used);
    }
    *used = len;
    return socks6_udp_decode_datagram(choice->framing, bytes, len, out);
}

static void check_encoding(const struct choice *choice, const struct socks6_udp_message *message)
{
    static uint8_t bytes[2][SOCKS6_UDP_MESSAGE_MAX];
    struct socks6_udp_message again;
    size_t len[2];
    size_t used;
    int err = socks6_udp_encode(choice->framing, message, bytes[0], sizeof bytes[0], &len[0]);

    if (err == SOCKS6_ERR_TOO_LONG) {
        return; /* a name grew by its padding, or an -08 datagram was longer than any can be */
    }
    require(err == SOCKS6_OK, "what was decoded can be encoded");
    require(decode(choice, bytes[0], len[0], &again, &used) == SOCKS6_OK, "what was encoded can be decoded");
    require(used == len[0], "all of it");
    require(udp_messages_equal(message, &again), "decode(encode(x)) = x");
    require(socks6_udp_encode(choice->framing, &again, bytes[1], sizeof bytes[1], &len[1]) == SOCKS6_OK,
            "and encoded again");
    require(len[0] == len[1] && memcmp(bytes[0], bytes[1], len[0]) == 0, "the canonical form is stable");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum socks6_udp_framing framings[] = {SOCKS6_UDP_FRAMING_08, SOCKS6_UDP_FRAMING_11,
                                                       SOCKS6_UDP_FRAMING_12, SOCKS6_UDP_FRAMING_11};
    struct socks6_udp_message message;
    struct choice choice;
    size_t used = 0;
    int err;

    if (size < 1) {
        return 0;
    }
    choice.framing = framings[data[0] & 3u];
    choice.is_stream = (data[0] & 4u) != 0;
    choice.seen_initialization = (data[0] & 8u) != 0;
    err = decode(&choice, data + 1, size - 1, &message, &used);
    require(err != SOCKS6_NEED_MORE || choice.is_stream, "a datagram is whole or wrong");
    if (err != SOCKS6_OK) {
        return 0;
    }
    require(used <= size - 1, "no more is used than there is");
    if (choice.is_stream) {
        struct socks6_udp_message part;
        size_t ignored;

        require(decode(&choice, data + 1, used - 1, &part, &ignored) == SOCKS6_NEED_MORE, "the last byte is needed");
    }
    check_encoding(&choice, &message);
    return 0;
}
