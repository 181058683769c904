/* Reading back what a server machine has written; see replies.h. */
#include "replies.h"

#include <string.h>

#include "wire/message.h"
#include "wire/userpass.h"

struct rest {
    const uint8_t *bytes;
    size_t len;
};

static void skip(struct rest *rest, size_t size)
{
    rest->bytes += size;
    rest->len -= size;
}

/* False if what stands here is no Authentication Reply that may stand here. */
static bool read_auth(struct rest *rest, struct replies *out)
{
    struct s6_auth_reply reply;
    size_t size;
    bool selects;

    if (s6_auth_reply_decode(rest->bytes, rest->len, SOCKS6_OPTIONS_CAP_12, &reply, &size) != 0) {
        return false;
    }
    selects = s6_options_has(&reply.options, S6_OPTION_METHOD);
    if (selects && (reply.type == S6_AUTH_SUCCESS || out->auth_count > 0)) {
        return false;
    }
    skip(rest, size);
    out->auth_count++;
    out->is_selected = out->is_selected || selects;
    out->is_authenticated = reply.type == S6_AUTH_SUCCESS;
    return true;
}

/* A status and its reply come together; a bad status allows no success. */
static bool read_negotiation(struct rest *rest, struct replies *out)
{
    uint8_t status;
    size_t size;

    if (s6_userpass_reply_decode(rest->bytes, rest->len, &status, &size) != 0) {
        return false;
    }
    skip(rest, size);
    return read_auth(rest, out) && (status == 0 || !out->is_authenticated);
}

static bool read_operation(struct rest *rest, struct replies *out)
{
    struct s6_reply reply;
    size_t size;

    if (out->operation_count == 2 || (out->operation_count > 0 && out->code != SOCKS6_REPLY_SUCCESS)) {
        return false;
    }
    if (s6_reply_decode(rest->bytes, rest->len, SOCKS6_OPTIONS_CAP_12, &reply, &size) != 0) {
        return false;
    }
    skip(rest, size);
    out->operation_count++;
    out->code = reply.code;
    return true;
}

static bool read_all(struct rest *rest, struct replies *out)
{
    if (rest->len == 0) {
        return true;
    }
    if (rest->len == 1) {
        out->is_mismatch = rest->bytes[0] == SOCKS6_VERSION;
        return out->is_mismatch;
    }
    if (!read_auth(rest, out)) {
        return false;
    }
    if (out->is_selected && rest->len > 0 && !read_negotiation(rest, out)) {
        return false;
    }
    while (rest->len > 0) {
        if (!out->is_authenticated || !read_operation(rest, out)) {
            return false;
        }
    }
    return true;
}

void replies_read(const uint8_t *bytes, size_t len, struct replies *out)
{
    struct rest rest = {.bytes = bytes, .len = len};

    memset(out, 0, sizeof *out);
    out->is_well_formed = read_all(&rest, out);
}
