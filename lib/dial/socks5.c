#include "dial/socks5.h"

#include <assert.h>
#include <string.h>

/*
 * One message each way at a time: while a reply is awaited it is gathered in `in` up to the length that its own first
 * bytes announce (needed()), then judged, and the next message is written. An error code in the last reply ends the
 * conversation before the rest of that reply is there, because some servers send no more than that.
 */

static void put(struct s6_socks5 *m, const void *bytes, size_t len)
{
    assert(m->out_len + len <= sizeof m->out);
    if (len > 0) {
        memcpy(m->out + m->out_len, bytes, len);
    }
    m->out_len += len;
}

static void put8(struct s6_socks5 *m, unsigned value)
{
    uint8_t byte = (uint8_t)value;

    put(m, &byte, 1);
}

static void restart_output(struct s6_socks5 *m)
{
    explicit_bzero(m->out, sizeof m->out); /* it may have held a password */
    m->out_len = 0;
    m->out_sent = 0;
}

void s6_socks5_init(struct s6_socks5 *m, const struct socks6_addr *dest, const struct socks6_credentials *credentials)
{
    memset(m, 0, sizeof *m);
    m->state = S6_SOCKS5_METHOD;
    m->dest = *dest;
    put8(m, 5);
    if (credentials == NULL) {
        put8(m, 1);
        put8(m, SOCKS6_METHOD_NONE);
        return;
    }
    assert(credentials->username.len <= SOCKS6_USERNAME_MAX && credentials->password.len <= SOCKS6_PASSWORD_MAX);
    m->has_credentials = 1;
    m->credentials = *credentials;
    put8(m, 2);
    put8(m, SOCKS6_METHOD_NONE);
    put8(m, SOCKS6_METHOD_USERPASS);
}

void s6_socks5_done(struct s6_socks5 *m)
{
    explicit_bzero(m, sizeof *m);
}

struct socks6_slice s6_socks5_output(const struct s6_socks5 *m)
{
    return (struct socks6_slice){m->out + m->out_sent, m->out_len - m->out_sent};
}

void s6_socks5_output_sent(struct s6_socks5 *m, size_t len)
{
    assert(len <= m->out_len - m->out_sent);
    m->out_sent += len;
}

static void write_auth(struct s6_socks5 *m)
{
    const struct socks6_credentials *c = &m->credentials;

    restart_output(m);
    put8(m, 1);
    put8(m, (unsigned)c->username.len);
    put(m, c->username.data, c->username.len);
    put8(m, (unsigned)c->password.len);
    put(m, c->password.data, c->password.len);
    m->state = S6_SOCKS5_AUTH;
}

static void write_request(struct s6_socks5 *m)
{
    restart_output(m);
    put8(m, 5);
    put8(m, SOCKS6_COMMAND_CONNECT);
    put8(m, 0);
    put8(m, m->dest.type); /* the address types have the same numbers in SOCKS 5 and 6 */
    if (m->dest.type == SOCKS6_ADDR_NAME) {
        put8(m, m->dest.len);
    }
    put(m, &m->dest.u, m->dest.len);
    put8(m, m->dest.port >> 8);
    put8(m, m->dest.port & 0xffu);
    m->state = S6_SOCKS5_REPLY;
}

static void fail(struct s6_socks5 *m, enum s6_socks5_failure failure)
{
    m->state = S6_SOCKS5_FAILED;
    m->failure = failure;
}

static void take_method(struct s6_socks5 *m)
{
    switch (m->in[1]) {
    case SOCKS6_METHOD_NONE:
        write_request(m);
        break;
    case SOCKS6_METHOD_USERPASS:
        if (m->has_credentials) {
            write_auth(m);
        } else {
            fail(m, S6_SOCKS5_FOREIGN_METHOD);
        }
        break;
    case SOCKS6_METHOD_UNACCEPTABLE:
        fail(m, S6_SOCKS5_NO_METHOD);
        break;
    default:
        fail(m, S6_SOCKS5_FOREIGN_METHOD);
        break;
    }
}

/* The length of the reply's address with what announces it; 0 for an address type that does not exist. */
static size_t address_len(const struct s6_socks5 *m)
{
    switch (m->in[3]) {
    case SOCKS6_ADDR_IPV4:
        return 4;
    case SOCKS6_ADDR_NAME:
        return 1 + (size_t)m->in[4];
    case SOCKS6_ADDR_IPV6:
        return 16;
    default:
        return 0;
    }
}

/* How long the message awaited is, as far as can be told from what is there. */
static size_t needed(const struct s6_socks5 *m)
{
    if (m->state != S6_SOCKS5_REPLY) {
        return 2;
    }
    /* 5 bytes are needed to know the length of a name, and every form is longer than that. */
    return m->in_len < 5 ? 5 : 4 + address_len(m) + 2;
}

static void take_reply(struct s6_socks5 *m)
{
    size_t len = address_len(m);
    uint16_t port = (uint16_t)(m->in[4 + len] << 8 | m->in[5 + len]);

    switch (m->in[3]) {
    case SOCKS6_ADDR_IPV4:
        m->bound = socks6_addr_ipv4(m->in + 4, port);
        break;
    case SOCKS6_ADDR_IPV6:
        m->bound = socks6_addr_ipv6(m->in + 4, port);
        break;
    default: /* an empty name is what some servers send for "does not matter": nothing is lost with it */
        (void)socks6_addr_name((const char *)m->in + 5, len - 1, port, &m->bound);
        break;
    }
    m->state = S6_SOCKS5_CONNECTED;
}

/* Looks at a message as soon as it can be judged. Returns 1 if it was the end of one. */
static int judge(struct s6_socks5 *m)
{
    /* RFC 1929 servers answer with version 1, some with 5: the status is what counts there. */
    if (m->state != S6_SOCKS5_AUTH && m->in[0] != 5) {
        fail(m, S6_SOCKS5_NOT_SOCKS5);
        return 1;
    }
    if (m->state == S6_SOCKS5_REPLY && m->in_len >= 2 && m->in[1] != SOCKS6_REPLY_SUCCESS) {
        m->reply = m->in[1];
        m->state = S6_SOCKS5_REFUSED;
        return 1;
    }
    if (m->state == S6_SOCKS5_REPLY && m->in_len >= 5 && address_len(m) == 0) {
        fail(m, S6_SOCKS5_MALFORMED);
        return 1;
    }
    return m->in_len == needed(m);
}

static void take_message(struct s6_socks5 *m)
{
    if (m->state == S6_SOCKS5_METHOD) {
        take_method(m);
    } else if (m->state == S6_SOCKS5_REPLY) {
        take_reply(m);
    } else if (m->state == S6_SOCKS5_AUTH) {
        if (m->in[1] == 0) {
            write_request(m);
        } else {
            fail(m, S6_SOCKS5_AUTH_FAILED);
        }
    }
}

size_t s6_socks5_input(struct s6_socks5 *m, const uint8_t *bytes, size_t len)
{
    size_t used = 0;

    /* Byte by byte: the messages are short, and so nothing can be taken that is not ours. */
    while (used < len && m->state <= S6_SOCKS5_REPLY) {
        assert(m->in_len < sizeof m->in);
        m->in[m->in_len++] = bytes[used++];
        if (!judge(m)) {
            continue;
        }
        take_message(m);
        if (m->state <= S6_SOCKS5_REPLY) {
            m->in_len = 0;
        }
    }
    return used;
}
