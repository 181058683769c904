/* See socks6.h. */
#include "socks6.h"

#include <string.h>

/* VER CMD OPTLEN(2) PORT(2) PAD ATYP ADDR */
void socks6_request(const struct sockaddr_in *to, uint8_t out[SOCKS6_REQUEST_LEN])
{
    memcpy(out, "\6\1\0\0\0\0\0\1", 8);
    memcpy(out + 4, &to->sin_port, 2);
    memcpy(out + 8, &to->sin_addr, 4);
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
