/* See socks6.h. */
#include "socks6.h"

#include <assert.h>
#include <string.h>

/* VER CMD OPTLEN(2) PORT(2) PAD ATYP ADDR */
void socks6_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_REQUEST_LEN])
{
    memcpy(out, "\6\1\0\0\0\0\0\1", 8);
    memcpy(out + 4, &to->sin_port, 2);
    memcpy(out + 8, &to->sin_addr, 4);
}

/* Authentication Data: KIND(2) LEN(2) METHOD, then as RFC 1929 has it, and zeros up to a multiple of four. */
void socks6_login_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_LOGIN_REQUEST_LEN])
{
    static const uint8_t option[] = "\0\4\0\24\2\1\5" SOCKS6_LOGIN_NAME "\6" SOCKS6_LOGIN_PASSWORD;
    static_assert(sizeof option <= 20 && sizeof SOCKS6_LOGIN_NAME == 6 && sizeof SOCKS6_LOGIN_PASSWORD == 7,
                  "its length");

    socks6_request(to, out);
    out[3] = 20;
    memset(out + SOCKS6_REQUEST_LEN, 0, 20);
    memcpy(out + SOCKS6_REQUEST_LEN, option, sizeof option);
}

static void put_u32(uint8_t *out, uint32_t value)
{
    value = htonl(value);
    memcpy(out, &value, 4);
}

/* Session Request and Idempotence Request; or Session ID and Idempotence Expenditure. */
size_t socks6_session_request(const struct sockaddr_in *to, struct socks6_session *session,
                              uint8_t out[SOCKS6_SESSION_REQUEST_MAX])
{
    uint8_t *at = out + SOCKS6_REQUEST_LEN;

    socks6_request(to, out);
    if (session->id_len == 0) {
        memcpy(at, "\0\5\0\4\0\13\0\10", 8);
        put_u32(at + 8, SOCKS6_TOKEN_WINDOW);
        at += 12;
    } else {
        memcpy(at, "\0\6\0", 3);
        at[3] = (uint8_t)(4 + session->id_len);
        memcpy(at + 4, session->id, session->id_len);
        at += 4 + session->id_len;
        memcpy(at, "\0\15\0\10", 4);
        put_u32(at + 4, session->token++);
        at += 8;
    }
    out[3] = (uint8_t)(at - out - SOCKS6_REQUEST_LEN);
    return (size_t)(at - out);
}

/* An option of the Authentication Reply, with its length; NULL if there is none of the kind. */
static const uint8_t *find_option(const uint8_t *head, unsigned kind, size_t *len)
{
    const uint8_t *at = head + 4, *end = at + (head[2] << 8 | head[3]);

    while (end - at >= 4) {
        *len = (size_t)(at[2] << 8 | at[3]);
        if (*len < 4 || *len > (size_t)(end - at)) {
            return NULL;
        }
        if ((unsigned)(at[0] << 8 | at[1]) == kind) {
            return at;
        }
        at += *len;
    }
    return NULL;
}

bool socks6_session_reply(struct socks6_session *session, const uint8_t *head)
{
    size_t id_len, window_len;

    if (session->id_len != 0) {
        return find_option(head, 14, &window_len) != NULL;
    }
    const uint8_t *id = find_option(head, 6, &id_len), *window = find_option(head, 12, &window_len);
    if (id == NULL || window == NULL || window_len != 12 || id_len <= 4 || id_len - 4 > SOCKS6_SESSION_ID_MAX) {
        return false;
    }
    session->id_len = id_len - 4;
    memcpy(session->id, id + 4, session->id_len);
    memcpy(&session->token, window + 4, 4);
    session->token = ntohl(session->token);
    return true;
}

static size_t operation_at(const uint8_t *head)
{
    return 4 + (size_t)(head[2] << 8 | head[3]);
}

size_t socks6_reply_len(const uint8_t *head, size_t len)
{
    if (len < 4) {
        return 0;
    }
    size_t at = operation_at(head);
    if (head[1] != 0 && len >= at) {
        return at; /* authentication failed, and nothing follows */
    }
    if (len < at + 12) {
        return 0;
    }
    size_t options_len = (size_t)(head[at + 2] << 8 | head[at + 3]);
    size_t whole = at + (head[at + 7] == 4 ? 24 : 12) + options_len;
    return len < whole ? 0 : whole;
}

unsigned socks6_reply_code(const uint8_t *head)
{
    return head[0] != 6 || head[1] != 0 ? 255 : head[operation_at(head) + 1];
}
