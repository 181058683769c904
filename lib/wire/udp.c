/*
 * UDP messages; see <socks6/udp.h>.
 *
 * -08 and the later framings differ in every header, so each has its own reader and writer; the address behind it is common.
 */
#include <socks6/udp.h>

#include <assert.h>
#include <string.h>

#include "base/cursor.h"
#include "wire/addr.h"

/* Bytes before the address: -08 "Datagram", later "UDP Associate" header and the datagram's own part. */
#define HEAD_08_LEN 12u
#define HEAD_LEN 12u
#define DATAGRAM_HEAD_LEN (HEAD_LEN + 4u)
/* -08: the association ID alone, and the confirmation. */
#define INIT_08_LEN 8u
#define CONFIRM_08_LEN 1u

static enum socks6_draft draft_of(enum socks6_udp_framing framing)
{
    switch (framing) {
    case SOCKS6_UDP_FRAMING_08:
        return SOCKS6_DRAFT_08;
    case SOCKS6_UDP_FRAMING_11:
        return SOCKS6_DRAFT_11;
    case SOCKS6_UDP_FRAMING_12:
        return SOCKS6_DRAFT_12;
    }
    return SOCKS6_DRAFT_11;
}

/* -08: version, address type, port, association ID, address, payload. */
static int decode_datagram_08(const uint8_t *bytes, size_t len, struct socks6_udp_message *out)
{
    struct socks6_udp_message found = {.type = SOCKS6_UDP_DATAGRAM};
    struct s6_reader reader;
    uint8_t addr_type;
    uint16_t port;
    int err;

    s6_reader_init(&reader, bytes, len);
    s6_read_skip(&reader, 1);
    addr_type = s6_read_u8(&reader);
    port = s6_read_u16(&reader);
    found.association = s6_read_u64(&reader);
    if (reader.failed) {
        return SOCKS6_ERR_MALFORMED;
    }
    err = s6_addr_decode(&reader, addr_type, port, S6_ADDR_IN_DATAGRAM, &found.addr);
    if (err != SOCKS6_OK) {
        return err;
    }
    found.payload = s6_read_slice(&reader, s6_reader_left(&reader));
    *out = found;
    return SOCKS6_OK;
}

/* Address type, pad, port, address: the part that datagrams and errors share. */
static int read_remote(struct s6_reader *reader, struct socks6_addr *out)
{
    uint8_t type = s6_read_u8(reader);
    uint16_t port;

    s6_read_skip(reader, 1);
    port = s6_read_u16(reader);
    if (reader->failed) {
        return SOCKS6_ERR_MALFORMED;
    }
    return s6_addr_decode(reader, type, port, S6_ADDR_IN_DATAGRAM, out);
}

/* "Error messages": reporter's address type, code, two bytes of padding, reporter. Nothing follows. */
static int read_reporter(struct s6_reader *reader, struct socks6_udp_message *out)
{
    uint8_t type = s6_read_u8(reader);
    int err;

    out->error_code = s6_read_u8(reader);
    s6_read_skip(reader, 2);
    if (reader->failed) {
        return SOCKS6_ERR_MALFORMED;
    }
    err = s6_addr_decode(reader, type, 0, S6_ADDR_IN_DATAGRAM, &out->reporter);
    if (err == SOCKS6_OK && s6_reader_left(reader) > 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    return err;
}

/* What follows the header of 12 bytes, by type. `reader` ends where the message does. */
static int read_body(struct s6_reader *reader, struct socks6_udp_message *out)
{
    int err;

    switch ((enum socks6_udp_type)out->type) {
    case SOCKS6_UDP_INITIALIZATION:
    case SOCKS6_UDP_CONFIRMATION:
        return s6_reader_left(reader) == 0 ? SOCKS6_OK : SOCKS6_ERR_MALFORMED;
    case SOCKS6_UDP_DATAGRAM:
        err = read_remote(reader, &out->addr);
        if (err == SOCKS6_OK) {
            out->payload = s6_read_slice(reader, s6_reader_left(reader));
        }
        return err;
    case SOCKS6_UDP_ERROR_MESSAGE:
        err = read_remote(reader, &out->addr);
        return err == SOCKS6_OK ? read_reporter(reader, out) : err;
    }
    return SOCKS6_ERR_MALFORMED;
}

/* A whole message of -09 and later: `len` is what its length field says. */
static int decode_message(const uint8_t *bytes, size_t len, struct socks6_udp_message *out)
{
    struct socks6_udp_message found = {0};
    struct s6_reader reader;
    int err;

    s6_reader_init(&reader, bytes, len);
    s6_read_skip(&reader, 1);
    found.type = s6_read_u8(&reader);
    s6_read_skip(&reader, 2);
    found.association = s6_read_u64(&reader);
    assert(!reader.failed);
    err = read_body(&reader, &found);
    if (err == SOCKS6_OK) {
        *out = found;
    }
    return err;
}

/* The length field, from the first four bytes; 0 if it or the type cannot be. */
static size_t message_len(const uint8_t *bytes)
{
    size_t len = (size_t)bytes[2] << 8 | bytes[3];

    if (bytes[1] < SOCKS6_UDP_INITIALIZATION || bytes[1] > SOCKS6_UDP_ERROR_MESSAGE || len < HEAD_LEN) {
        return 0;
    }
    return len;
}

int socks6_udp_decode_datagram(enum socks6_udp_framing framing, const uint8_t *bytes, size_t len,
                               struct socks6_udp_message *out)
{
    size_t needed;

    if (len == 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    if (bytes[0] != SOCKS6_VERSION) {
        return SOCKS6_ERR_VERSION;
    }
    if (framing == SOCKS6_UDP_FRAMING_08) {
        return decode_datagram_08(bytes, len, out);
    }
    if (len < HEAD_LEN) {
        return SOCKS6_ERR_MALFORMED;
    }
    needed = message_len(bytes);
    if (needed == 0 || len < needed) {
        return SOCKS6_ERR_MALFORMED;
    }
    return decode_message(bytes, needed, out);
}

/* -08: the bare association ID, then one zero byte; neither has a version. */
static int decode_stream_08(int seen_initialization, const uint8_t *bytes, size_t len, struct socks6_udp_message *out,
                            size_t *used)
{
    struct s6_reader reader;
    size_t needed = seen_initialization ? CONFIRM_08_LEN : INIT_08_LEN;

    if (len < needed) {
        return SOCKS6_NEED_MORE;
    }
    if (seen_initialization) {
        if (bytes[0] != 0) {
            return SOCKS6_ERR_MALFORMED;
        }
        *out = (struct socks6_udp_message){.type = SOCKS6_UDP_CONFIRMATION};
    } else {
        s6_reader_init(&reader, bytes, needed);
        *out = (struct socks6_udp_message){.type = SOCKS6_UDP_INITIALIZATION, .association = s6_read_u64(&reader)};
    }
    *used = needed;
    return SOCKS6_OK;
}

int socks6_udp_decode_stream(enum socks6_udp_framing framing, int seen_initialization, const uint8_t *bytes, size_t len,
                             struct socks6_udp_message *out, size_t *used)
{
    size_t needed;
    int err;

    if (framing == SOCKS6_UDP_FRAMING_08) {
        return decode_stream_08(seen_initialization, bytes, len, out, used);
    }
    if (len > 0 && bytes[0] != SOCKS6_VERSION) {
        return SOCKS6_ERR_VERSION;
    }
    if (len < 4) {
        return SOCKS6_NEED_MORE;
    }
    needed = message_len(bytes);
    if (needed == 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    if (len < needed) {
        return SOCKS6_NEED_MORE;
    }
    err = decode_message(bytes, needed, out);
    if (err == SOCKS6_OK) {
        *used = needed;
    }
    return err;
}

/* One message of known size: room for it, and its size into the length field. */
static int begin(uint8_t *buf, size_t size, size_t len, struct s6_writer *writer)
{
    if (len > SOCKS6_UDP_MESSAGE_MAX || len > size) {
        return SOCKS6_ERR_TOO_LONG;
    }
    s6_writer_init(writer, buf, len);
    return SOCKS6_OK;
}

static void write_head(struct s6_writer *writer, uint8_t type, size_t len, uint64_t association)
{
    s6_write_u8(writer, SOCKS6_VERSION);
    s6_write_u8(writer, type);
    s6_write_u16(writer, (uint16_t)len);
    s6_write_u64(writer, association);
}

static void write_remote(struct s6_writer *writer, const struct socks6_addr *addr, enum socks6_draft draft)
{
    s6_write_u8(writer, addr->type);
    s6_write_u8(writer, 0);
    s6_write_u16(writer, addr->port);
    s6_addr_encode(writer, addr, S6_ADDR_IN_DATAGRAM, draft);
}

size_t socks6_udp_header_len(enum socks6_udp_framing framing, const struct socks6_addr *addr)
{
    if (!s6_addr_is_valid(addr)) {
        return 0;
    }
    return (framing == SOCKS6_UDP_FRAMING_08 ? HEAD_08_LEN : DATAGRAM_HEAD_LEN) +
           s6_addr_encoded_len(addr, S6_ADDR_IN_DATAGRAM, draft_of(framing));
}

int socks6_udp_encode_header(enum socks6_udp_framing framing, uint64_t association, const struct socks6_addr *addr,
                             size_t payload_len, uint8_t *buf, size_t size, size_t *written)
{
    size_t header_len = socks6_udp_header_len(framing, addr);
    struct s6_writer writer;
    int err;

    if (header_len == 0) {
        return SOCKS6_ERR_INVALID;
    }
    if (payload_len > SOCKS6_UDP_MESSAGE_MAX - header_len) {
        return SOCKS6_ERR_TOO_LONG;
    }
    err = begin(buf, size, header_len, &writer);
    if (err != SOCKS6_OK) {
        return err;
    }
    if (framing == SOCKS6_UDP_FRAMING_08) {
        s6_write_u8(&writer, SOCKS6_VERSION);
        s6_write_u8(&writer, addr->type);
        s6_write_u16(&writer, addr->port);
        s6_write_u64(&writer, association);
        s6_addr_encode(&writer, addr, S6_ADDR_IN_DATAGRAM, SOCKS6_DRAFT_08);
    } else {
        write_head(&writer, SOCKS6_UDP_DATAGRAM, header_len + payload_len, association);
        write_remote(&writer, addr, draft_of(framing));
    }
    assert(!writer.failed && s6_writer_len(&writer) == header_len);
    *written = header_len;
    return SOCKS6_OK;
}

static int encode_datagram(enum socks6_udp_framing framing, const struct socks6_udp_message *message, uint8_t *buf,
                           size_t size, size_t *written)
{
    size_t header_len;
    int err = socks6_udp_encode_header(framing, message->association, &message->addr, message->payload.len, buf, size,
                                       &header_len);

    if (err != SOCKS6_OK) {
        return err;
    }
    if (message->payload.len > size - header_len) {
        return SOCKS6_ERR_TOO_LONG;
    }
    if (message->payload.len > 0) {
        memcpy(buf + header_len, message->payload.data, message->payload.len);
    }
    *written = header_len + message->payload.len;
    return SOCKS6_OK;
}

/* Initialization and Confirmation: in -08 without any header. */
static int encode_signal(enum socks6_udp_framing framing, const struct socks6_udp_message *message, uint8_t *buf,
                         size_t size, size_t *written)
{
    bool is_08 = framing == SOCKS6_UDP_FRAMING_08;
    bool is_init = message->type == SOCKS6_UDP_INITIALIZATION;
    size_t len_08 = is_init ? INIT_08_LEN : CONFIRM_08_LEN;
    size_t len = is_08 ? len_08 : HEAD_LEN;
    struct s6_writer writer;
    int err = begin(buf, size, len, &writer);

    if (err != SOCKS6_OK) {
        return err;
    }
    if (!is_08) {
        write_head(&writer, message->type, len, message->association);
    } else if (is_init) {
        s6_write_u64(&writer, message->association);
    } else {
        s6_write_u8(&writer, 0);
    }
    *written = len;
    return SOCKS6_OK;
}

static int encode_error(enum socks6_udp_framing framing, const struct socks6_udp_message *message, uint8_t *buf,
                        size_t size, size_t *written)
{
    enum socks6_draft draft = draft_of(framing);
    struct s6_writer writer;
    size_t len;
    int err;

    if (framing == SOCKS6_UDP_FRAMING_08 || !s6_addr_is_valid(&message->addr) ||
        !s6_addr_is_valid(&message->reporter)) {
        return SOCKS6_ERR_INVALID;
    }
    len = DATAGRAM_HEAD_LEN + s6_addr_encoded_len(&message->addr, S6_ADDR_IN_DATAGRAM, draft) + 4u +
          s6_addr_encoded_len(&message->reporter, S6_ADDR_IN_DATAGRAM, draft);
    err = begin(buf, size, len, &writer);
    if (err != SOCKS6_OK) {
        return err;
    }
    write_head(&writer, SOCKS6_UDP_ERROR_MESSAGE, len, message->association);
    write_remote(&writer, &message->addr, draft);
    s6_write_u8(&writer, message->reporter.type);
    s6_write_u8(&writer, message->error_code);
    s6_write_zeros(&writer, 2);
    s6_addr_encode(&writer, &message->reporter, S6_ADDR_IN_DATAGRAM, draft);
    assert(!writer.failed && s6_writer_len(&writer) == len);
    *written = len;
    return SOCKS6_OK;
}

int socks6_udp_encode(enum socks6_udp_framing framing, const struct socks6_udp_message *message, uint8_t *buf,
                      size_t size, size_t *written)
{
    switch ((enum socks6_udp_type)message->type) {
    case SOCKS6_UDP_INITIALIZATION:
    case SOCKS6_UDP_CONFIRMATION:
        return encode_signal(framing, message, buf, size, written);
    case SOCKS6_UDP_DATAGRAM:
        return encode_datagram(framing, message, buf, size, written);
    case SOCKS6_UDP_ERROR_MESSAGE:
        return encode_error(framing, message, buf, size, written);
    }
    return SOCKS6_ERR_INVALID;
}
