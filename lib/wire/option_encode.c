/* Writing option areas in their one canonical form; see option.h. */
#include <assert.h>

#include "wire/option.h"
#include "wire/option_internal.h"
#include "wire/userpass.h"

/* "Stack Options": all known ones are this long. */
#define STACK_LEN 8u

static bool is_window_size(uint32_t size)
{
    return size >= 1 && size <= S6_WINDOW_SIZE_MAX;
}

/* An option's own field; options without one are always good. */
static bool is_field_good(const struct s6_options *options, enum s6_option_kind kind, enum s6_where where)
{
    switch (kind) {
    case S6_OPTION_AUTH_DATA:
        return where != S6_IN_REQUEST || (options->credentials.username.len <= SOCKS6_USERNAME_MAX &&
                                          options->credentials.password.len <= SOCKS6_PASSWORD_MAX);
    case S6_OPTION_SESSION_ID:
        return options->session_id.len > 0 && options->session_id.len % 4 == 0 &&
               options->session_id.len <= UINT16_MAX - S6_OPTION_HEAD_LEN;
    case S6_OPTION_WINDOW_REQUEST:
        return is_window_size(options->window_request);
    case S6_OPTION_WINDOW:
        return is_window_size(options->window.size);
    case S6_OPTION_METHODS:
    case S6_OPTION_METHOD:
    case S6_OPTION_SESSION_REQUEST:
    case S6_OPTION_SESSION_UNTRUSTED:
    case S6_OPTION_SESSION_OK:
    case S6_OPTION_SESSION_INVALID:
    case S6_OPTION_SESSION_TEARDOWN:
    case S6_OPTION_TOKEN:
    case S6_OPTION_TOKEN_ACCEPTED:
    case S6_OPTION_TOKEN_REJECTED:
        return true;
    case S6_OPTION_STACK:
    case S6_OPTION_COUNT:
        break;
    }
    return false;
}

/* What a request's options need beside them, "Session Options" and "Idempotence Options". */
static bool is_request_consistent(const struct s6_options *options)
{
    bool in_session = s6_options_in_session(options);
    bool starts_session = s6_options_has(options, S6_OPTION_SESSION_REQUEST);
    bool spends = s6_options_has(options, S6_OPTION_WINDOW_REQUEST) || s6_options_has(options, S6_OPTION_TOKEN);

    if (s6_options_has(options, S6_OPTION_SESSION_TEARDOWN) && !s6_options_has(options, S6_OPTION_SESSION_ID)) {
        return false;
    }
    if (in_session && starts_session) {
        return false;
    }
    return !spends || in_session || starts_session;
}

int s6_options_check(const struct s6_options *options, enum s6_where where)
{
    if (options->present >> S6_OPTION_COUNT != 0 || (options->present & 3u) != 0) {
        return SOCKS6_ERR_INVALID; /* bits of kinds that are not */
    }
    for (unsigned kind = S6_OPTION_METHODS; kind < S6_OPTION_COUNT; kind++) {
        enum s6_option_kind each = (enum s6_option_kind)kind;

        if (s6_options_has(options, each) &&
            (!s6_option_belongs(each, where) || !is_field_good(options, each, where))) {
            return SOCKS6_ERR_INVALID;
        }
    }
    if (options->stack_count > 0 &&
        (!s6_option_belongs(S6_OPTION_STACK, where) || !s6_stack_is_canonical(options->stack, options->stack_count))) {
        return SOCKS6_ERR_INVALID;
    }
    return where != S6_IN_REQUEST || is_request_consistent(options) ? SOCKS6_OK : SOCKS6_ERR_INVALID;
}

static size_t count_methods(const struct s6_options *options)
{
    size_t count = 0;

    for (unsigned method = 0; method <= UINT8_MAX; method++) {
        count += s6_methods_has(options, (uint8_t)method) ? 1u : 0u;
    }
    return count;
}

/* Bytes of data before padding. */
static size_t data_len(const struct s6_options *options, enum s6_option_kind kind, enum s6_where where)
{
    switch (kind) {
    case S6_OPTION_METHODS:
        return 2u + count_methods(options);
    case S6_OPTION_METHOD:
        return 1;
    case S6_OPTION_AUTH_DATA:
        return 1u + (where == S6_IN_REQUEST ? s6_userpass_request_len(&options->credentials) : S6_USERPASS_REPLY_LEN);
    case S6_OPTION_SESSION_ID:
        return options->session_id.len;
    case S6_OPTION_WINDOW_REQUEST:
    case S6_OPTION_TOKEN:
        return 4;
    case S6_OPTION_WINDOW:
        return 8;
    case S6_OPTION_STACK:
    case S6_OPTION_SESSION_REQUEST:
    case S6_OPTION_SESSION_UNTRUSTED:
    case S6_OPTION_SESSION_OK:
    case S6_OPTION_SESSION_INVALID:
    case S6_OPTION_SESSION_TEARDOWN:
    case S6_OPTION_TOKEN_ACCEPTED:
    case S6_OPTION_TOKEN_REJECTED:
    case S6_OPTION_COUNT:
        break;
    }
    return 0;
}

static size_t option_len(const struct s6_options *options, enum s6_option_kind kind, enum s6_where where)
{
    return S6_OPTION_HEAD_LEN + s6_round4(data_len(options, kind, where));
}

/* True if the Stack option at `at` and the next are legs 1 and 2 of the same: they are written as one of leg 3. */
static bool is_pair(const struct s6_options *options, size_t at)
{
    const struct socks6_stack_option *one = &options->stack[at];
    const struct socks6_stack_option *two = one + 1;

    return at + 1 < options->stack_count && one->level == two->level && one->code == two->code &&
           one->value == two->value;
}

size_t s6_options_encoded_len(const struct s6_options *options, enum s6_where where)
{
    size_t len = 0;

    for (size_t i = 0; i < options->stack_count; i++) {
        len += is_pair(options, i) ? 0u : STACK_LEN;
    }
    for (unsigned kind = S6_OPTION_METHODS; kind < S6_OPTION_COUNT; kind++) {
        if (s6_options_has(options, (enum s6_option_kind)kind)) {
            len += option_len(options, (enum s6_option_kind)kind, where);
        }
    }
    return len;
}

static void encode_stack(struct s6_writer *writer, const struct s6_options *options)
{
    for (size_t i = 0; i < options->stack_count; i++) {
        uint8_t leg = options->stack[i].leg;

        if (is_pair(options, i)) {
            leg = SOCKS6_LEG_BOTH;
            i++;
        }
        s6_write_u16(writer, S6_OPTION_STACK);
        s6_write_u16(writer, STACK_LEN);
        s6_write_u8(writer, (uint8_t)(leg << 6 | options->stack[i].level));
        s6_write_u8(writer, options->stack[i].code);
        s6_write_u16(writer, options->stack[i].value);
    }
}

static void encode_methods(struct s6_writer *writer, const struct s6_options *options)
{
    s6_write_u16(writer, options->initial_data_len);
    for (unsigned method = 0; method <= UINT8_MAX; method++) {
        if (s6_methods_has(options, (uint8_t)method)) {
            s6_write_u8(writer, (uint8_t)method);
        }
    }
}

static void encode_auth_data(struct s6_writer *writer, const struct s6_options *options, enum s6_where where)
{
    s6_write_u8(writer, SOCKS6_METHOD_USERPASS);
    if (where == S6_IN_REQUEST) {
        s6_userpass_request_encode(writer, &options->credentials);
    } else {
        s6_userpass_reply_encode(writer, options->auth_status);
    }
}

static void encode_data(struct s6_writer *writer, const struct s6_options *options, enum s6_option_kind kind,
                        enum s6_where where)
{
    switch (kind) {
    case S6_OPTION_METHODS:
        encode_methods(writer, options);
        break;
    case S6_OPTION_METHOD:
        s6_write_u8(writer, options->method);
        break;
    case S6_OPTION_AUTH_DATA:
        encode_auth_data(writer, options, where);
        break;
    case S6_OPTION_SESSION_ID:
        s6_write_bytes(writer, options->session_id.data, options->session_id.len);
        break;
    case S6_OPTION_WINDOW_REQUEST:
        s6_write_u32(writer, options->window_request);
        break;
    case S6_OPTION_WINDOW:
        s6_write_u32(writer, options->window.base);
        s6_write_u32(writer, options->window.size);
        break;
    case S6_OPTION_TOKEN:
        s6_write_u32(writer, options->token);
        break;
    case S6_OPTION_STACK:
    case S6_OPTION_SESSION_REQUEST:
    case S6_OPTION_SESSION_UNTRUSTED:
    case S6_OPTION_SESSION_OK:
    case S6_OPTION_SESSION_INVALID:
    case S6_OPTION_SESSION_TEARDOWN:
    case S6_OPTION_TOKEN_ACCEPTED:
    case S6_OPTION_TOKEN_REJECTED:
    case S6_OPTION_COUNT:
        break;
    }
}

void s6_options_encode(struct s6_writer *writer, const struct s6_options *options, enum s6_where where)
{
    assert(s6_options_check(options, where) == SOCKS6_OK);
    encode_stack(writer, options);
    for (unsigned i = S6_OPTION_METHODS; i < S6_OPTION_COUNT; i++) {
        enum s6_option_kind kind = (enum s6_option_kind)i;
        size_t pad;

        if (!s6_options_has(options, kind)) {
            continue;
        }
        pad = option_len(options, kind, where) - S6_OPTION_HEAD_LEN - data_len(options, kind, where);
        s6_write_u16(writer, (uint16_t)kind);
        s6_write_u16(writer, (uint16_t)option_len(options, kind, where));
        encode_data(writer, options, kind, where);
        s6_write_zeros(writer, pad);
    }
}
