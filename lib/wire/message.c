/* Request, Authentication Reply, Operation Reply; see message.h. */
#include "wire/message.h"

#include <string.h>

#include "base/cursor.h"
#include "wire/addr.h"

/* Requests and Operation Replies are laid out alike: the parts, wherever the caller keeps them. */
struct parts {
    enum s6_where where;
    uint8_t *second; /* command or reply code */
    struct socks6_addr *addr;
    struct s6_options *options;
};

struct head {
    uint8_t second;
    uint16_t options_len;
    uint16_t port;
    uint8_t addr_type;
};

/* More bytes are needed: `needed` in all. The first byte is always asked for by itself, since it alone can be a verdict. */
static int need_more(size_t needed, size_t len, size_t *size)
{
    *size = len == 0 ? 1 : needed;
    return SOCKS6_NEED_MORE;
}

static struct head read_head(const uint8_t *bytes)
{
    struct s6_reader reader;
    struct head head;

    s6_reader_init(&reader, bytes, S6_HEAD_LEN);
    s6_read_skip(&reader, 1); /* version */
    head.second = s6_read_u8(&reader);
    head.options_len = s6_read_u16(&reader);
    head.port = s6_read_u16(&reader);
    s6_read_skip(&reader, 1);
    head.addr_type = s6_read_u8(&reader);
    return head;
}

/* What can be said against a message from its head alone. */
static int check_head(const struct head *head, enum s6_where where, size_t options_cap)
{
    if (head->options_len > options_cap) {
        return SOCKS6_ERR_TOO_LONG;
    }
    if (where == S6_IN_REQUEST && head->options_len % 4 != 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    if (s6_addr_wire_size(head->addr_type, S6_ADDR_IN_STREAM, NULL, 0) == 0) {
        return SOCKS6_ERR_ADDRESS;
    }
    return SOCKS6_OK;
}

static int decode(const uint8_t *bytes, size_t len, size_t options_cap, const struct parts *out, size_t *size)
{
    struct s6_reader reader;
    struct head head;
    size_t addr_end;
    int err;

    if (len > 0 && bytes[0] != SOCKS6_VERSION) {
        return SOCKS6_ERR_VERSION;
    }
    if (len < S6_HEAD_LEN) {
        return need_more(S6_HEAD_LEN, len, size);
    }
    head = read_head(bytes);
    *out->second = head.second;
    out->addr->port = head.port;
    err = check_head(&head, out->where, options_cap);
    if (err != SOCKS6_OK) {
        return err;
    }
    addr_end =
        S6_HEAD_LEN + s6_addr_wire_size(head.addr_type, S6_ADDR_IN_STREAM, bytes + S6_HEAD_LEN, len - S6_HEAD_LEN);
    if (len < addr_end) {
        return need_more(addr_end, len, size);
    }
    s6_reader_init(&reader, bytes + S6_HEAD_LEN, addr_end - S6_HEAD_LEN);
    err = s6_addr_decode(&reader, head.addr_type, head.port, S6_ADDR_IN_STREAM, out->addr);
    if (err != SOCKS6_OK) {
        return err;
    }
    if (len < addr_end + head.options_len) {
        return need_more(addr_end + head.options_len, len, size);
    }
    err = s6_options_decode(bytes + addr_end, head.options_len, out->where, out->options);
    if (err == SOCKS6_OK) {
        *size = addr_end + head.options_len;
    }
    return err;
}

int s6_request_decode(const uint8_t *bytes, size_t len, size_t options_cap, struct s6_request *out, size_t *size)
{
    const struct parts parts = {S6_IN_REQUEST, &out->command, &out->addr, &out->options};

    memset(out, 0, sizeof *out);
    return decode(bytes, len, options_cap, &parts, size);
}

int s6_reply_decode(const uint8_t *bytes, size_t len, size_t options_cap, struct s6_reply *out, size_t *size)
{
    const struct parts parts = {S6_IN_REPLY, &out->code, &out->addr, &out->options};

    memset(out, 0, sizeof *out);
    return decode(bytes, len, options_cap, &parts, size);
}

static enum s6_where where_of(uint8_t auth_type)
{
    return auth_type == S6_AUTH_SUCCESS ? S6_IN_AUTH_SUCCESS : S6_IN_AUTH_FAILURE;
}

int s6_auth_reply_decode(const uint8_t *bytes, size_t len, size_t options_cap, struct s6_auth_reply *out, size_t *size)
{
    struct s6_reader reader;
    size_t options_len;
    int err;

    memset(out, 0, sizeof *out);
    if (len > 0 && bytes[0] != SOCKS6_VERSION) {
        return SOCKS6_ERR_VERSION;
    }
    if (len > 1) {
        out->type = bytes[1];
        if (out->type > S6_AUTH_FAILURE) {
            return SOCKS6_ERR_PROTOCOL;
        }
    }
    if (len < S6_AUTH_HEAD_LEN) {
        return need_more(len < 2 ? 2 : S6_AUTH_HEAD_LEN, len, size);
    }
    s6_reader_init(&reader, bytes + 2, 2);
    options_len = s6_read_u16(&reader);
    if (options_len > options_cap) {
        return SOCKS6_ERR_TOO_LONG;
    }
    if (len < S6_AUTH_HEAD_LEN + options_len) {
        return need_more(S6_AUTH_HEAD_LEN + options_len, len, size);
    }
    err = s6_options_decode(bytes + S6_AUTH_HEAD_LEN, options_len, where_of(out->type), &out->options);
    if (err == SOCKS6_OK) {
        *size = S6_AUTH_HEAD_LEN + options_len;
    }
    return err;
}

size_t s6_options_cap(enum socks6_draft draft)
{
    switch (draft) {
    case SOCKS6_DRAFT_08:
    case SOCKS6_DRAFT_11:
        return SOCKS6_OPTIONS_CAP_11;
    case SOCKS6_DRAFT_12:
        return SOCKS6_OPTIONS_CAP_12;
    }
    return SOCKS6_OPTIONS_CAP_11;
}

/* Checks options for writing and measures them. */
static int measure_options(const struct s6_options *options, enum s6_where where, enum socks6_draft draft, size_t *len)
{
    int err = s6_options_check(options, where);

    if (err != SOCKS6_OK) {
        return err;
    }
    *len = s6_options_encoded_len(options, where);
    return *len > s6_options_cap(draft) ? SOCKS6_ERR_TOO_LONG : SOCKS6_OK;
}

static int encode(enum s6_where where, uint8_t second, const struct socks6_addr *addr, const struct s6_options *options,
                  enum socks6_draft draft, struct s6_buf *out)
{
    struct s6_writer writer;
    size_t options_len;
    int err = measure_options(options, where, draft, &options_len);

    if (err != SOCKS6_OK) {
        return err;
    }
    if (!s6_addr_is_valid(addr)) {
        return SOCKS6_ERR_INVALID;
    }
    err = s6_buf_writer(out, S6_HEAD_LEN + s6_addr_encoded_len(addr, S6_ADDR_IN_STREAM, draft) + options_len, &writer);
    if (err != SOCKS6_OK) {
        return err;
    }
    s6_write_u8(&writer, SOCKS6_VERSION);
    s6_write_u8(&writer, second);
    s6_write_u16(&writer, (uint16_t)options_len);
    s6_write_u16(&writer, addr->port);
    s6_write_u8(&writer, 0);
    s6_write_u8(&writer, addr->type);
    s6_addr_encode(&writer, addr, S6_ADDR_IN_STREAM, draft);
    s6_options_encode(&writer, options, where);
    s6_buf_written(out, &writer);
    return SOCKS6_OK;
}

int s6_request_encode(const struct s6_request *request, enum socks6_draft draft, struct s6_buf *out)
{
    return encode(S6_IN_REQUEST, request->command, &request->addr, &request->options, draft, out);
}

int s6_reply_encode(const struct s6_reply *reply, enum socks6_draft draft, struct s6_buf *out)
{
    return encode(S6_IN_REPLY, reply->code, &reply->addr, &reply->options, draft, out);
}

int s6_auth_reply_encode(const struct s6_auth_reply *reply, enum socks6_draft draft, struct s6_buf *out)
{
    struct s6_writer writer;
    size_t options_len;
    int err;

    if (reply->type > S6_AUTH_FAILURE) {
        return SOCKS6_ERR_INVALID;
    }
    err = measure_options(&reply->options, where_of(reply->type), draft, &options_len);
    if (err != SOCKS6_OK) {
        return err;
    }
    err = s6_buf_writer(out, S6_AUTH_HEAD_LEN + options_len, &writer);
    if (err != SOCKS6_OK) {
        return err;
    }
    s6_write_u8(&writer, SOCKS6_VERSION);
    s6_write_u8(&writer, reply->type);
    s6_write_u16(&writer, (uint16_t)options_len);
    s6_options_encode(&writer, &reply->options, where_of(reply->type));
    s6_buf_written(out, &writer);
    return SOCKS6_OK;
}
