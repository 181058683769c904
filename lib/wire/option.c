/* Reading option areas; see option.h. Writing is in option_encode.c, Stack options are in stack.c. */
#include "wire/option.h"

#include <string.h>

#include "wire/option_internal.h"
#include "wire/userpass.h"

/* Which message may carry which kind: bits of enum s6_where. */
static const uint8_t places[S6_OPTION_COUNT] = {
    [S6_OPTION_STACK] = S6_IN_REQUEST | S6_IN_REPLY,
    [S6_OPTION_METHODS] = S6_IN_REQUEST,
    [S6_OPTION_METHOD] = S6_IN_AUTH_FAILURE, /* with success it is to be ignored */
    [S6_OPTION_AUTH_DATA] = S6_IN_REQUEST | S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE,
    [S6_OPTION_SESSION_REQUEST] = S6_IN_REQUEST,
    /* "Session Options" and another sentence disagree about the reply; both are taken. */
    [S6_OPTION_SESSION_ID] = S6_IN_REQUEST | S6_IN_AUTH_SUCCESS | S6_IN_REPLY,
    [S6_OPTION_SESSION_UNTRUSTED] = S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE,
    [S6_OPTION_SESSION_OK] = S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE,
    [S6_OPTION_SESSION_INVALID] = S6_IN_AUTH_FAILURE,
    [S6_OPTION_SESSION_TEARDOWN] = S6_IN_REQUEST,
    [S6_OPTION_WINDOW_REQUEST] = S6_IN_REQUEST,
    [S6_OPTION_WINDOW] = S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE, /* a rejected token's reply has it too */
    [S6_OPTION_TOKEN] = S6_IN_REQUEST,
    [S6_OPTION_TOKEN_ACCEPTED] = S6_IN_AUTH_SUCCESS | S6_IN_AUTH_FAILURE,
    [S6_OPTION_TOKEN_REJECTED] = S6_IN_AUTH_FAILURE,
};

/* The first of each option in an area, not judged yet. */
struct gathered {
    enum s6_where where;
    uint32_t seen;                             /* bit per kind; AUTH_DATA: of method 2 */
    struct socks6_slice data[S6_OPTION_COUNT]; /* without the header */
    bool has_nameless_auth_data;               /* Authentication Data too short to name its method */
};

bool s6_option_belongs(enum s6_option_kind kind, enum s6_where where)
{
    return (places[kind] & (unsigned)where) != 0;
}

void s6_options_init(struct s6_options *options)
{
    memset(options, 0, sizeof *options);
}

void s6_methods_add(struct s6_options *options, uint8_t method)
{
    if (method != SOCKS6_METHOD_NONE) {
        options->methods[method / 8] |= (uint8_t)(1u << (method % 8u));
    }
}

bool s6_methods_has(const struct s6_options *options, uint8_t method)
{
    return (options->methods[method / 8] & (1u << (method % 8u))) != 0;
}

static bool has_seen(const struct gathered *gathered, enum s6_option_kind kind)
{
    return (gathered->seen & UINT32_C(1) << (unsigned)kind) != 0;
}

/* Stack options are judged at once: that one is bad or late concerns no other. */
static void gather_stack(struct socks6_slice data, struct s6_options *options)
{
    struct socks6_stack_option option;
    struct s6_reader reader;
    uint8_t leg_level;

    if (data.len != 4) {
        return;
    }
    s6_reader_init(&reader, data.data, data.len);
    leg_level = s6_read_u8(&reader);
    option.leg = leg_level >> 6;
    option.level = leg_level & 0x3fu;
    option.code = s6_read_u8(&reader);
    option.value = s6_read_u16(&reader);
    (void)s6_options_add_stack(options, &option); /* what it does not take is to be ignored */
}

static void gather_option(struct gathered *gathered, uint16_t kind, struct socks6_slice data,
                          struct s6_options *options)
{
    if (kind >= S6_OPTION_COUNT || (places[kind] & (unsigned)gathered->where) == 0) {
        return;
    }
    if (kind == S6_OPTION_STACK) {
        gather_stack(data, options);
        return;
    }
    if (kind == S6_OPTION_AUTH_DATA) {
        if (data.len == 0) {
            gathered->has_nameless_auth_data = true;
            return;
        }
        if (data.data[0] != SOCKS6_METHOD_USERPASS) {
            return;
        }
    }
    if (!has_seen(gathered, (enum s6_option_kind)kind)) {
        gathered->seen |= UINT32_C(1) << kind;
        gathered->data[kind] = data;
    }
}

/* "SOCKS Options": a sequence must fill its area exactly. */
static int gather(struct s6_reader *reader, struct gathered *gathered, struct s6_options *options)
{
    while (s6_reader_left(reader) > 0) {
        uint16_t kind = s6_read_u16(reader);
        uint16_t size = s6_read_u16(reader);
        struct socks6_slice data;

        if (size < S6_OPTION_HEAD_LEN || (gathered->where == S6_IN_REQUEST && size % 4u != 0)) {
            return SOCKS6_ERR_MALFORMED;
        }
        data = s6_read_slice(reader, size - S6_OPTION_HEAD_LEN);
        if (reader->failed) {
            return SOCKS6_ERR_MALFORMED;
        }
        gather_option(gathered, kind, data, options);
    }
    return SOCKS6_OK;
}

/* "Authentication Method Advertisement" */
static int judge_methods(struct socks6_slice data, struct s6_options *out)
{
    struct s6_reader reader;

    s6_reader_init(&reader, data.data, data.len);
    out->initial_data_len = s6_read_u16(&reader);
    if (reader.failed) {
        return SOCKS6_ERR_MALFORMED;
    }
    while (s6_reader_left(&reader) > 0) {
        s6_methods_add(out, s6_read_u8(&reader));
    }
    return SOCKS6_OK;
}

/* "Username/Password Authentication": what follows the message up to the end of the option is padding. */
static int judge_credentials(struct socks6_slice data, struct s6_options *out)
{
    size_t size;

    if (s6_userpass_request_decode(data.data + 1, data.len - 1, &out->credentials, &size) != SOCKS6_OK) {
        return SOCKS6_ERR_MALFORMED;
    }
    return SOCKS6_OK;
}

/* The reply's counterpart. Bad data is as good as none: the type of the reply is what counts. */
static void judge_auth_status(struct socks6_slice data, struct s6_options *out)
{
    size_t size;

    if (s6_userpass_reply_decode(data.data + 1, data.len - 1, &out->auth_status, &size) == SOCKS6_OK) {
        s6_options_set(out, S6_OPTION_AUTH_DATA);
    }
}

/* "Authentication Method Selection": one byte and padding, which a client does not insist on. */
static int judge_method(struct socks6_slice data, struct s6_options *out)
{
    if (data.len < 1 || data.len > 4) {
        return SOCKS6_ERR_MALFORMED;
    }
    out->method = data.data[0];
    return SOCKS6_OK;
}

/* "Session Options": opaque, not empty, and aligned since it has to be sent back. */
static int judge_session_id(struct socks6_slice data, struct s6_options *out)
{
    if (data.len == 0 || data.len % 4 != 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    out->session_id = data;
    return SOCKS6_OK;
}

/* A wanted size of 0 asks for nothing, and no window is larger than 2^31-1. */
static int judge_window_request(struct socks6_slice data, struct s6_options *out)
{
    struct s6_reader reader;
    uint32_t size;

    s6_reader_init(&reader, data.data, data.len);
    size = s6_read_u32(&reader);
    if (reader.failed || s6_reader_left(&reader) > 0) {
        return SOCKS6_ERR_MALFORMED;
    }
    out->window_request = size > S6_WINDOW_SIZE_MAX ? S6_WINDOW_SIZE_MAX : size;
    if (size == 0) {
        out->present &= ~(UINT32_C(1) << (unsigned)S6_OPTION_WINDOW_REQUEST);
    }
    return SOCKS6_OK;
}

static int judge_window(struct socks6_slice data, struct s6_options *out)
{
    struct s6_reader reader;

    s6_reader_init(&reader, data.data, data.len);
    out->window.base = s6_read_u32(&reader);
    out->window.size = s6_read_u32(&reader);
    if (reader.failed || s6_reader_left(&reader) > 0 || out->window.size == 0 ||
        out->window.size > S6_WINDOW_SIZE_MAX) {
        return SOCKS6_ERR_MALFORMED;
    }
    return SOCKS6_OK;
}

/* "Idempotence Options". The figure gives the option a length of 4, its text one of 8; only 8 leaves room for the token. */
static int judge_token(struct socks6_slice data, struct s6_options *out)
{
    struct s6_reader reader;

    s6_reader_init(&reader, data.data, data.len);
    out->token = s6_read_u32(&reader);
    return reader.failed || s6_reader_left(&reader) > 0 ? SOCKS6_ERR_MALFORMED : SOCKS6_OK;
}

/* An option that is there, into its field; SOCKS6_ERR_MALFORMED for bad contents. */
static int judge(enum s6_option_kind kind, struct socks6_slice data, enum s6_where where, struct s6_options *out)
{
    if (kind == S6_OPTION_AUTH_DATA && where != S6_IN_REQUEST) {
        judge_auth_status(data, out);
        return SOCKS6_OK;
    }
    s6_options_set(out, kind);
    switch (kind) {
    case S6_OPTION_METHODS:
        return judge_methods(data, out);
    case S6_OPTION_METHOD:
        return judge_method(data, out);
    case S6_OPTION_AUTH_DATA:
        return judge_credentials(data, out);
    case S6_OPTION_SESSION_ID:
        return judge_session_id(data, out);
    case S6_OPTION_WINDOW_REQUEST:
        return judge_window_request(data, out);
    case S6_OPTION_WINDOW:
        return judge_window(data, out);
    case S6_OPTION_TOKEN:
        return judge_token(data, out);
    case S6_OPTION_SESSION_REQUEST:
    case S6_OPTION_SESSION_UNTRUSTED:
    case S6_OPTION_SESSION_OK:
    case S6_OPTION_SESSION_INVALID:
    case S6_OPTION_SESSION_TEARDOWN:
    case S6_OPTION_TOKEN_ACCEPTED:
    case S6_OPTION_TOKEN_REJECTED:
        return data.len == 0 ? SOCKS6_OK : SOCKS6_ERR_MALFORMED;
    case S6_OPTION_STACK: /* went its own way in gather_stack() */
    case S6_OPTION_COUNT:
        break;
    }
    return SOCKS6_ERR_MALFORMED;
}

/* Judges those kinds in `kinds` (bits) that were seen. */
static int judge_all(const struct gathered *gathered, uint32_t kinds, struct s6_options *out)
{
    for (unsigned kind = S6_OPTION_METHODS; kind < S6_OPTION_COUNT; kind++) {
        int err;

        if ((gathered->seen & kinds & UINT32_C(1) << kind) == 0) {
            continue;
        }
        err = judge((enum s6_option_kind)kind, gathered->data[kind], gathered->where, out);
        if (err != SOCKS6_OK) {
            return err;
        }
    }
    return SOCKS6_OK;
}

/* What is looked at in a request depends on sessions: settle these first, then the rest. */
static int judge_request(const struct gathered *gathered, struct s6_options *out)
{
    const uint32_t auth = UINT32_C(1) << S6_OPTION_AUTH_DATA;
    const uint32_t idempotence = UINT32_C(1) << S6_OPTION_WINDOW_REQUEST | UINT32_C(1) << S6_OPTION_TOKEN;
    uint32_t rest = 0;
    int err = judge_all(gathered, ~(auth | idempotence), out);

    if (err != SOCKS6_OK) {
        return err;
    }
    if (!s6_options_has(out, S6_OPTION_SESSION_ID)) {
        out->present &= ~(UINT32_C(1) << (unsigned)S6_OPTION_SESSION_TEARDOWN);
    }
    if (s6_options_in_session(out)) {
        out->present &= ~(UINT32_C(1) << (unsigned)S6_OPTION_SESSION_REQUEST);
        rest |= idempotence;
    } else {
        if (gathered->has_nameless_auth_data) {
            return SOCKS6_ERR_MALFORMED;
        }
        rest |= auth;
    }
    if (s6_options_has(out, S6_OPTION_SESSION_REQUEST)) {
        rest |= idempotence;
    }
    return judge_all(gathered, rest, out);
}

int s6_options_decode(const uint8_t *bytes, size_t len, enum s6_where where, struct s6_options *out)
{
    struct gathered gathered = {.where = where};
    struct s6_options found;
    struct s6_reader reader;
    int err;

    s6_options_init(&found);
    s6_reader_init(&reader, bytes, len);
    err = gather(&reader, &gathered, &found);
    if (err == SOCKS6_OK) {
        err = where == S6_IN_REQUEST ? judge_request(&gathered, &found) : judge_all(&gathered, UINT32_MAX, &found);
    }
    if (err == SOCKS6_OK) {
        *out = found;
    }
    return err;
}
