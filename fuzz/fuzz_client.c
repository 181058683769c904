/*
 * The client machine. An input is settings and the proxy's bytes:
 *
 *     1 byte  bits 0-1 the command, bits 2-3 the draft, bit 4 memory runs out, bit 5 ... and stays so
 *     1 byte  bit 0 credentials, bit 1 no negotiation, bit 2 a session's ID, bit 3 Session Request, bit 4 Teardown,
 *             bit 5 a window, bit 6 a token, bit 7 a Listen Backlog
 *     1 byte  chunk: how many bytes are offered at a time, 0 = all; if memory runs out, the allocation that is refused
 *     rest    the stream from the proxy, then its end
 *
 * Laws: no more is used than offered; events come in their order, and none after CLOSE; the request reads back, and
 * nothing is written behind it but one RFC 1929 message; the credit for data never shrinks; the end of the stream
 * closes whatever is not finished; the same stream ends the same however it is cut; all memory is given back.
 */
#include <string.h>

#include <socks6/client.h>

#include "fuzz.h"
#include "heap.h"
#include "wire/message.h"
#include "wire/userpass.h"

#define SCRIPT_LEN 3u
#define OUTPUT_MAX 4096u

struct run {
    struct heap heap;
    struct socks6_client_config config;
    struct socks6_client *client;

    uint8_t output[OUTPUT_MAX];
    size_t output_len;
    size_t used;
    size_t credit;
    unsigned seen; /* bit per event type */
    unsigned codes;
    unsigned reply_count;
    enum socks6_client_event_type last;
    enum socks6_client_close_reason reason;
    uint32_t session[4]; /* what AUTHENTICATED, or CLOSE in its place, said */
};

static void drain(struct run *run)
{
    for (;;) {
        struct socks6_slice out = socks6_client_output(run->client);

        if (out.len == 0) {
            break;
        }
        require(out.len <= OUTPUT_MAX - run->output_len, "output is bounded");
        memcpy(run->output + run->output_len, out.data, out.len);
        run->output_len += out.len;
        socks6_client_output_sent(run->client, out.len);
    }
    require(socks6_client_data_credit(run->client) >= run->credit, "the credit never shrinks");
    run->credit = socks6_client_data_credit(run->client);
}

/* Which events may come, seeing which came last. */
static bool may_follow(const struct run *run, enum socks6_client_event_type type)
{
    switch (type) {
    case SOCKS6_CLIENT_AUTHENTICATED:
        return run->last == SOCKS6_CLIENT_NONE;
    case SOCKS6_CLIENT_REPLY:
        return run->last == SOCKS6_CLIENT_AUTHENTICATED;
    case SOCKS6_CLIENT_SECOND_REPLY:
        return run->config.command == SOCKS6_COMMAND_BIND &&
               (run->last == SOCKS6_CLIENT_REPLY ||
                (run->last == SOCKS6_CLIENT_SECOND_REPLY && run->config.stack_count > 0));
    case SOCKS6_CLIENT_CLOSE:
        return run->last != SOCKS6_CLIENT_CLOSE;
    case SOCKS6_CLIENT_NONE:
        break;
    }
    return false;
}

static void note_session(struct run *run, const struct socks6_client_session *session)
{
    run->session[0] += (uint32_t)session->id.len;
    run->session[1] += session->window.base;
    run->session[2] += session->window.size;
    run->session[3] = run->session[3] << 6 |
                      (uint32_t)(session->ok << 5 | session->invalid << 4 | session->untrusted << 3 |
                                 session->has_window << 2 | session->token_accepted << 1 | session->token_rejected);
}

static void pull_events(struct run *run)
{
    struct socks6_client_event event;

    for (;;) {
        socks6_client_next_event(run->client, &event);
        if (event.type == SOCKS6_CLIENT_NONE) {
            break;
        }
        require(may_follow(run, event.type), "events come in their order");
        run->last = event.type;
        run->seen |= 1u << event.type;
        if (event.type == SOCKS6_CLIENT_AUTHENTICATED || event.type == SOCKS6_CLIENT_CLOSE) {
            require(event.session.id.len % 4 == 0, "IDs are aligned");
            require(!event.session.has_window || event.session.window.size - 1 < 0x7fffffffu, "windows are in range");
            note_session(run, &event.session);
        }
        if (event.type == SOCKS6_CLIENT_CLOSE) {
            require(event.u.close.why != NULL, "a reason is given");
            run->reason = event.u.close.reason;
        } else if (event.type != SOCKS6_CLIENT_AUTHENTICATED) {
            require(event.u.reply.stack_count <= SOCKS6_STACK_MAX, "Stack options are bounded");
            run->codes = run->codes * 31u + event.u.reply.code + event.u.reply.bound.port;
            run->reply_count++;
        }
    }
    drain(run);
}

static void offer(struct run *run, const uint8_t *bytes, size_t len, size_t chunk)
{
    while (run->used < len) {
        size_t left = len - run->used;
        size_t used;
        bool is_over = run->last == SOCKS6_CLIENT_CLOSE;
        int err = socks6_client_input(run->client, bytes + run->used, left < chunk ? left : chunk, 0, &used);

        require(err == 0 || err == SOCKS6_ERR_NOMEM, "input says what it may say");
        require(used <= left && used <= chunk, "no more is used than offered");
        require(!is_over || used == 0, "nothing is taken after CLOSE");
        run->used += used;
        pull_events(run);
        if (used == 0) {
            return;
        }
    }
}

static bool is_open(const struct run *run)
{
    return run->last != SOCKS6_CLIENT_CLOSE && run->credit == SIZE_MAX &&
           (run->last == SOCKS6_CLIENT_REPLY || run->last == SOCKS6_CLIENT_SECOND_REPLY);
}

static void check_output(const struct run *run)
{
    struct s6_request request;
    struct socks6_credentials credentials;
    size_t size;

    require(s6_request_decode(run->output, run->output_len, SOCKS6_OPTIONS_CAP_12, &request, &size) == 0,
            "the request reads back");
    require(request.command == run->config.command, "the command is as asked for");
    if (size < run->output_len) {
        size_t rest = run->output_len - size;
        size_t userpass;

        require(run->config.has_credentials && run->config.allow_negotiation, "nobody wanted to negotiate");
        require(s6_userpass_request_decode(run->output + size, rest, &credentials, &userpass) == 0 && userpass == rest,
                "the negotiation reads back");
    }
}

static void configure(struct run *run, const uint8_t *data)
{
    static const enum socks6_draft drafts[4] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12, SOCKS6_DRAFT_11};
    static const struct socks6_stack_option backlog = {SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP,
                                                       SOCKS6_TCP_LISTEN_BACKLOG, 4};
    struct socks6_client_config *config = &run->config;

    socks6_client_config_init(config);
    config->allocator = &run->heap.allocator;
    config->command = (enum socks6_command)(data[0] & 3u);
    config->draft = drafts[data[0] >> 2 & 3u];
    require(socks6_addr_name("a.example", 9, 80, &config->addr) == 1, "a good name");
    config->has_credentials = data[1] & 1u;
    config->credentials.username = (struct socks6_slice){.data = (const uint8_t *)"u", .len = 1};
    config->allow_negotiation = (data[1] & 2u) == 0;
    config->initial_data_len = 3;
    if ((data[1] & 4u) != 0) {
        config->session_id = (struct socks6_slice){.data = (const uint8_t *)"abcd", .len = 4};
    }
    config->request_session = (data[1] & 8u) != 0;
    config->teardown_session = (data[1] & 16u) != 0;
    config->request_window = (data[1] & 32u) != 0 ? 9 : 0;
    config->has_token = (data[1] & 64u) != 0;
    if ((data[1] & 128u) != 0) {
        config->stack = &backlog;
        config->stack_count = 1;
    }
}

static void run_script(struct run *run, const uint8_t *data, size_t size, size_t chunk)
{
    memset(run, 0, sizeof *run);
    heap_init(&run->heap);
    if ((data[0] & 16u) != 0) {
        run->heap.fail_at = data[2];
        run->heap.fail_on = (data[0] & 32u) != 0;
    }
    configure(run, data);
    if (socks6_client_new(&run->config, 0, &run->client) == 0) {
        drain(run);
        offer(run, data + SCRIPT_LEN, size - SCRIPT_LEN, chunk);
        if (!is_open(run) && run->last != SOCKS6_CLIENT_CLOSE) {
            socks6_client_eof(run->client);
            pull_events(run);
            require(run->last == SOCKS6_CLIENT_CLOSE && run->reason == SOCKS6_CLIENT_CLOSE_EOF,
                    "the end of the stream closes");
        }
        socks6_client_eof(run->client);
        socks6_client_timeout(run->client, UINT64_MAX);
        pull_events(run);
        check_output(run);
        socks6_client_free(run->client);
    }
    require(run->heap.blocks == 0, "all memory is given back");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run whole;
    static struct run cut;

    if (size < SCRIPT_LEN) {
        return 0;
    }
    run_script(&whole, data, size, SIZE_MAX);
    run_script(&cut, data, size, data[2] == 0 ? 1 : data[2]);
    if ((data[0] & 16u) == 0) { /* where memory ends, the cuts decide which allocation that is */
        require(whole.used == cut.used && whole.seen == cut.seen && whole.codes == cut.codes &&
                    whole.reply_count == cut.reply_count && whole.reason == cut.reason,
                "the same end however the stream is cut");
        require(memcmp(whole.session, cut.session, sizeof whole.session) == 0,
                "the same session however the stream is cut");
        require(whole.output_len == cut.output_len && memcmp(whole.output, cut.output, cut.output_len) == 0,
                "the same output however the stream is cut");
    }
    return 0;
}
