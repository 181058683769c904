#include "run/handshake.h"

#include <errno.h>
#include <string.h>

#include "run/addr.h"
#include "wire/message.h"

/* --- the request --- */

/* Memory for the encoder, which asks once. */
struct place {
    uint8_t *bytes;
    size_t size;
};

static void *take(void *user, size_t size)
{
    const struct place *place = user;

    return size <= place->size ? place->bytes : NULL;
}

static void *take_again(void *user, void *ptr, size_t size)
{
    (void)ptr;
    return take(user, size);
}

static void give_back(void *user, void *ptr)
{
    (void)user;
    (void)ptr;
}

size_t run_handshake_request(const struct run_route *route, const struct run_addr *destination, const uint32_t *token,
                             uint8_t out[RUN_REQUEST_MAX])
{
    struct place place = {out, RUN_REQUEST_MAX};
    const struct socks6_allocator mem = {take, take_again, give_back, &place};
    struct s6_request request = {.command = SOCKS6_COMMAND_CONNECT};
    struct s6_buf buf;

    if (!run_addr_to_socks(destination, &request.addr) || route->session_len > RUN_ROUTE_SESSION_MAX) {
        return 0;
    }
    s6_options_init(&request.options);
    if (route->session_len > 0) {
        s6_options_set(&request.options, S6_OPTION_SESSION_ID);
        request.options.session_id = (struct socks6_slice){route->session, route->session_len};
    }
    if (token != NULL) {
        s6_options_set(&request.options, S6_OPTION_TOKEN);
        request.options.token = *token;
    }
    s6_buf_init(&buf, &mem, RUN_REQUEST_MAX, false);
    if (s6_request_encode(&request, SOCKS6_DRAFT_11, &buf) != 0) {
        return 0;
    }
    return s6_buf_len(&buf);
}

/* --- the replies --- */

/* `needed`: if it is more that is missing, how many bytes there have to be, from the first one on. */
static enum run_handshake without(int err, size_t needed)
{
    return err == SOCKS6_NEED_MORE && needed <= RUN_REPLY_MAX ? RUN_HANDSHAKE_MORE : RUN_HANDSHAKE_USELESS;
}

enum run_handshake run_handshake_reply(const uint8_t *bytes, size_t len, struct run_handshake_reply *out)
{
    struct s6_auth_reply auth;
    struct s6_reply reply;
    size_t auth_size = 0, size = 0;
    int err = s6_auth_reply_decode(bytes, len, RUN_REPLY_MAX, &auth, &auth_size);

    if (err != 0) {
        return without(err, auth_size);
    }
    if (auth.type != S6_AUTH_SUCCESS) {
        return RUN_HANDSHAKE_USELESS;
    }
    err = s6_reply_decode(bytes + auth_size, len - auth_size, RUN_REPLY_MAX, &reply, &size);
    if (err != 0 || auth_size + size > RUN_REPLY_MAX) {
        return without(err, auth_size + size);
    }
    *out = (struct run_handshake_reply){.used = auth_size + size, .code = reply.code, .bound = reply.addr};
    if (s6_options_has(&auth.options, S6_OPTION_WINDOW)) {
        out->window = auth.options.window;
    }
    return reply.code == SOCKS6_REPLY_SUCCESS ? RUN_HANDSHAKE_CONNECTED : RUN_HANDSHAKE_FAILED;
}

/* Where a code has no errno of its own the way is at fault, as far as the program can know: ENETUNREACH. */
int run_handshake_errno(unsigned code)
{
    switch (code) {
    case SOCKS6_REPLY_NOT_ALLOWED:
        return EACCES;
    case SOCKS6_REPLY_HOST_UNREACHABLE:
    case SOCKS6_REPLY_TTL_EXPIRED: /* what Linux makes of the ICMP message */
        return EHOSTUNREACH;
    case SOCKS6_REPLY_REFUSED:
        return ECONNREFUSED;
    case SOCKS6_REPLY_TIMED_OUT:
        return ETIMEDOUT;
    default:
        return ENETUNREACH;
    }
}
