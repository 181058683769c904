/*
 * The replies as programs under `socks6 run` read them that connect to the proxy themselves. An input is the proxy's bytes, and those of
 * the remote end behind them.
 *
 * Laws: a verdict on the first bytes stays, whatever follows; no more is used than there is; RUN_REPLY_MAX bytes are a verdict;
 * libsocks6's client machine says the same of these bytes, unless they are replies longer than that.
 */
#include "run/handshake.h"

#include <string.h>

#include <socks6/client.h>

#include "fuzz.h"

struct outcome {
    enum run_handshake said;
    struct run_handshake_reply reply; /* all zero unless CONNECTED or FAILED */
};

static bool is_over(enum run_handshake said)
{
    return said == RUN_HANDSHAKE_CONNECTED || said == RUN_HANDSHAKE_FAILED;
}

/* Of bytes in an allocation of exactly their size, so that ASan sees each byte read beyond it. */
static struct outcome ask(const uint8_t *data, size_t size)
{
    struct outcome outcome = {.said = RUN_HANDSHAKE_MORE};
    uint8_t *exact = malloc(size > 0 ? size : 1);

    require(exact != NULL, "there is memory");
    if (size > 0) {
        memcpy(exact, data, size);
    }
    outcome.said = run_handshake_reply(exact, size, &outcome.reply);
    free(exact);
    require(outcome.said == RUN_HANDSHAKE_MORE || outcome.said == RUN_HANDSHAKE_USELESS || is_over(outcome.said),
            "the verdict has a name");
    if (is_over(outcome.said)) {
        require(outcome.reply.used > 0 && outcome.reply.used <= size, "no more is used than there is");
        require(outcome.reply.used <= RUN_REPLY_MAX, "no more is used than the most");
        require((outcome.reply.code == SOCKS6_REPLY_SUCCESS) == (outcome.said == RUN_HANDSHAKE_CONNECTED),
                "success alone connects");
    }
    return outcome;
}

static bool same_window(const struct outcome *a, const struct outcome *b)
{
    return !is_over(a->said) ||
           (a->reply.window.size == b->reply.window.size && a->reply.window.base == b->reply.window.base);
}

static bool same(const struct outcome *a, const struct outcome *b)
{
    return same_window(a, b) && a->said == b->said && a->reply.used == b->reply.used &&
           a->reply.code == b->reply.code && a->reply.bound.type == b->reply.bound.type &&
           (a->reply.bound.type == 0 || socks6_addr_equal(&a->reply.bound, &b->reply.bound));
}

static void check_prefixes(const uint8_t *data, size_t size, const struct outcome *whole)
{
    size_t len = 0;
    struct outcome outcome = ask(data, 0);

    while (outcome.said == RUN_HANDSHAKE_MORE && len < size) {
        outcome = ask(data, ++len);
        require(!is_over(outcome.said) || outcome.reply.used == len, "the verdict comes with the last byte");
    }
    require(same(&outcome, whole), "a verdict stays, whatever follows");
    for (size_t end = len + 32; len < size && len < end; len++) {
        outcome = ask(data, len);
        require(same(&outcome, whole), "a verdict stays, whatever follows");
    }
    require(size < RUN_REPLY_MAX || whole->said != RUN_HANDSHAKE_MORE, "so many bytes are a verdict");
}

static unsigned be16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Can it be seen that the replies together are too long? For bytes that nothing else can be said against. */
static bool are_long(const uint8_t *data, size_t size)
{
    size_t reply = size < 4 ? 4 : 4 + be16(data + 2); /* where it begins */
    size_t len = reply + 12;                          /* the least of it */

    if (size >= reply + 9) {
        size_t addr = data[reply + 7] == SOCKS6_ADDR_IPV4   ? 4
                      : data[reply + 7] == SOCKS6_ADDR_IPV6 ? 16
                                                            : (1u + data[reply + 8] + 3u) / 4u * 4u;

        len = reply + 8 + addr + be16(data + reply + 2);
    } else if (size >= reply + 8) {
        len = reply + 12 + be16(data + reply + 2);
    }
    return len > RUN_REPLY_MAX;
}

static struct outcome ask_client(const uint8_t *data, size_t size)
{
    struct outcome outcome = {.said = RUN_HANDSHAKE_MORE};
    struct socks6_client_config config;
    struct socks6_client_event event;
    struct socks6_client *client;
    size_t total = 0, used;

    socks6_client_config_init(&config);
    config.addr = socks6_addr_ipv4((const uint8_t[4]){192, 0, 2, 1}, 80);
    require(socks6_client_new(&config, 0, &client) == 0, "a client is made");
    do {
        require(socks6_client_input(client, data + total, size - total, 0, &used) == 0, "the client takes bytes");
        total += used;
    } while (used > 0 && total < size);
    for (socks6_client_next_event(client, &event); event.type != SOCKS6_CLIENT_NONE;
         socks6_client_next_event(client, &event)) {
        if (event.type == SOCKS6_CLIENT_REPLY) {
            outcome.said = event.u.reply.code == SOCKS6_REPLY_SUCCESS ? RUN_HANDSHAKE_CONNECTED : RUN_HANDSHAKE_FAILED;
            outcome.reply.used = total;
            outcome.reply.code = event.u.reply.code;
            outcome.reply.bound = event.u.reply.bound;
        } else if (event.type == SOCKS6_CLIENT_AUTHENTICATED && event.session.has_window) {
            outcome.reply.window = event.session.window;
        } else if (event.type == SOCKS6_CLIENT_CLOSE && outcome.said == RUN_HANDSHAKE_MORE) {
            outcome.said = RUN_HANDSHAKE_USELESS;
        }
    }
    socks6_client_free(client);
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole = ask(data, size);
    struct outcome client = ask_client(data, size);

    check_prefixes(data, size, &whole);
    if (!same(&whole, &client)) {
        require(whole.said == RUN_HANDSHAKE_USELESS, "the client machine says the same");
        require(client.said == RUN_HANDSHAKE_MORE ? are_long(data, size) : client.reply.used > RUN_REPLY_MAX,
                "the client machine says the same, but for long replies");
    } else if (is_over(whole.said)) {
        require(!are_long(data, size), "long replies are of no use");
    }
    return 0;
}
