/*
 * The server machine. An input is a script and the client's bytes:
 *
 *     1 byte  settings: bit 0 the long form is offered, bits 1-2 the draft, bits 3-4 the options cap, bit 5 memory runs
 *             out, bit 6 ... and stays so
 *     1 byte  chunk: how many bytes are offered at a time, 0 = all; if memory runs out, the allocation that is refused
 *     8 bytes answers, one after another and from the beginning again
 *     rest    the stream from the client
 *
 * Laws: no more is used than offered, and nothing in answer to a question or after REQUEST and CLOSE; what is written
 * reads back as a conversation of the draft; REQUEST only behind a success, application data only with REQUEST; answers
 * that were not asked for change nothing; the same script ends the same however the stream is cut; all memory is given
 * back.
 */
#include <string.h>

#include <socks6/server.h>

#include "fuzz.h"
#include "heap.h"
#include "replies.h"

#define SCRIPT_LEN 10u
#define OUTPUT_MAX 8192u
#define TRAIL_MAX 256u

struct run {
    struct heap heap;
    struct socks6_server *server;
    const uint8_t *answers; /* 8 */
    unsigned answered;
    struct socks6_window window;
    bool has_window;

    uint8_t output[OUTPUT_MAX];
    size_t output_len;
    uint8_t trail[TRAIL_MAX]; /* the events, for comparing */
    size_t trail_len;
    size_t used; /* of the stream */
    size_t set_aside;
    bool is_requested;
    bool is_closed;
    int reason;
};

static uint8_t next_answer(struct run *run)
{
    return run->answers[run->answered++ % 8];
}

static void drain(struct run *run)
{
    for (;;) {
        struct socks6_slice out = socks6_server_output(run->server);

        if (out.len == 0) {
            return;
        }
        require(out.len <= OUTPUT_MAX - run->output_len, "output is bounded");
        memcpy(run->output + run->output_len, out.data, out.len);
        run->output_len += out.len;
        socks6_server_output_sent(run->server, out.len);
    }
}

/* Every answer but the one that is asked for. */
static void answer_wrongly(struct run *run, enum socks6_server_event_type open)
{
    const struct socks6_window window = {.base = 0, .size = 1};
    struct socks6_server *server = run->server;
    bool is_session = open == SOCKS6_SERVER_SESSION_LOOKUP || open == SOCKS6_SERVER_SESSION_TEARDOWN;

    require(is_session || socks6_server_session_done(server, 1, NULL) == SOCKS6_ERR_INVALID, "session answer unasked");
    require(open == SOCKS6_SERVER_AUTHENTICATE ||
                socks6_server_auth_done(server, SOCKS6_AUTH_SUCCESS) == SOCKS6_ERR_INVALID,
            "authentication answer unasked");
    require(open == SOCKS6_SERVER_SESSION_START || socks6_server_session_started(server, NULL, 0) == SOCKS6_ERR_INVALID,
            "new session answer unasked");
    require(open == SOCKS6_SERVER_WINDOW_REQUEST || socks6_server_window_done(server, &window) == SOCKS6_ERR_INVALID,
            "window answer unasked");
    require(open == SOCKS6_SERVER_TOKEN_SPEND || socks6_server_token_done(server, 1, &window) == SOCKS6_ERR_INVALID,
            "token answer unasked");
    require(open == SOCKS6_SERVER_REQUEST ||
                socks6_server_reply(server, SOCKS6_REPLY_SUCCESS, NULL, NULL, 0) == SOCKS6_ERR_INVALID,
            "reply unasked");
}

static int answer_auth(struct run *run, const struct socks6_server_event *event, uint8_t answer)
{
    require(event->u.auth.round == 1 || event->u.auth.round == 2, "two rounds at most");
    require(event->u.auth.round == 1 || !event->u.auth.can_negotiate, "one negotiation at most");
    require(!event->u.auth.has_credentials || !event->u.auth.can_negotiate, "credentials get no second try");
    require(event->u.auth.credentials.username.len <= 255 && event->u.auth.credentials.password.len <= 255,
            "credentials are short");
    if (event->u.auth.can_negotiate && (answer & 2u) != 0) {
        return socks6_server_auth_done(run->server, SOCKS6_AUTH_NEGOTIATE);
    }
    if (!event->u.auth.can_negotiate) {
        require(socks6_server_auth_done(run->server, SOCKS6_AUTH_NEGOTIATE) == SOCKS6_ERR_INVALID,
                "no negotiation unless offered");
    }
    return socks6_server_auth_done(run->server, (answer & 1u) != 0 ? SOCKS6_AUTH_FAILURE : SOCKS6_AUTH_SUCCESS);
}

static int answer_token(struct run *run, uint8_t answer)
{
    bool accepted = run->has_window && (answer & 1u) != 0;

    run->window.base += accepted ? 1u : 0u;
    return socks6_server_token_done(run->server, accepted, run->has_window ? &run->window : NULL);
}

static int reply(struct run *run, const struct socks6_request *request, uint8_t answer)
{
    static const uint8_t bytes[16] = {0x20, 1};
    const struct socks6_addr bound = (answer & 16u) != 0 ? socks6_addr_ipv6(bytes, answer) : request->addr;
    enum socks6_reply_code code = (answer & 1u) != 0 ? (enum socks6_reply_code)(answer % SOCKS6_REPLY_COUNT) : 0;
    int err = socks6_server_reply(run->server, code, (answer & 8u) != 0 ? &bound : NULL, request->stack,
                                  request->stack_count);

    if (err == 0 && code == 0 && request->command == SOCKS6_COMMAND_BIND) {
        uint8_t second = next_answer(run);

        err = socks6_server_reply(run->server, (enum socks6_reply_code)(second % SOCKS6_REPLY_COUNT), NULL, NULL, 0);
    }
    return err;
}

static int answer_request(struct run *run, const struct socks6_server_event *event, uint8_t answer)
{
    const struct socks6_request *request = event->u.request.request;
    struct socks6_request copy = *request;
    struct socks6_stack_option stack[SOCKS6_STACK_MAX];
    struct replies replies;

    require(copy.command <= SOCKS6_COMMAND_UDP_ASSOCIATE, "only known commands are asked about");
    require(copy.addr.type != 0, "only known addresses are asked about");
    require(copy.stack_count <= SOCKS6_STACK_MAX, "Stack options are bounded");
    memcpy(stack, copy.stack, copy.stack_count * sizeof stack[0]);
    copy.stack = stack;
    require(event->u.request.initial_data.len <= SOCKS6_INITIAL_DATA_MAX, "initial data is bounded");
    require(!event->u.request.token_spent || event->u.request.in_session, "tokens belong to sessions");
    run->is_requested = true;
    run->set_aside = event->u.request.initial_data.len;
    drain(run);
    replies_read(run->output, run->output_len, &replies);
    require(replies.is_well_formed && replies.is_authenticated && replies.operation_count == 0,
            "a request is asked about behind a successful Authentication Reply");
    require(run->set_aside == 0 || replies.is_selected, "data is set aside only in front of a negotiation");
    return reply(run, &copy, answer);
}

static int answer(struct run *run, const struct socks6_server_event *event)
{
    static const uint8_t id[256] = "0123456789abcdef";
    uint8_t how = next_answer(run);

    switch (event->type) {
    case SOCKS6_SERVER_SESSION_LOOKUP:
    case SOCKS6_SERVER_SESSION_TEARDOWN:
        require(event->u.session.id.len > 0 && event->u.session.id.len % 4 == 0, "IDs are aligned");
        run->has_window = event->type == SOCKS6_SERVER_SESSION_LOOKUP && (how & 2u) != 0;
        run->window = (struct socks6_window){.base = how, .size = 1u + how};
        return socks6_server_session_done(run->server, (how & 1u) == 0, run->has_window ? &run->window : NULL);
    case SOCKS6_SERVER_AUTHENTICATE:
        return answer_auth(run, event, how);
    case SOCKS6_SERVER_SESSION_START:
        return socks6_server_session_started(run->server, id, (how & 1u) != 0 ? 0 : 4u * (1u + how % 64u));
    case SOCKS6_SERVER_WINDOW_REQUEST:
        require(event->u.window.size > 0 && event->u.window.size < 0x80000000u, "windows are clamped");
        run->window = (struct socks6_window){.base = how, .size = (how & 1u) != 0 ? 0 : event->u.window.size};
        run->has_window = run->window.size > 0;
        return socks6_server_window_done(run->server, &run->window);
    case SOCKS6_SERVER_TOKEN_SPEND:
        return answer_token(run, how);
    case SOCKS6_SERVER_REQUEST:
        return answer_request(run, event, how);
    case SOCKS6_SERVER_CLOSE:
        run->is_closed = true;
        run->reason = event->u.close.reason;
        require(event->u.close.why != NULL, "a reason is given");
        return 0;
    case SOCKS6_SERVER_NONE:
        break;
    }
    return 0;
}

static void pull_events(struct run *run)
{
    struct socks6_server_event event;

    for (;;) {
        int err;

        socks6_server_next_event(run->server, &event);
        if (event.type == SOCKS6_SERVER_NONE) {
            answer_wrongly(run, event.type);
            return;
        }
        require(!run->is_closed, "nothing comes after CLOSE");
        require(run->trail_len < TRAIL_MAX, "events are few");
        run->trail[run->trail_len++] = (uint8_t)event.type;
        answer_wrongly(run, event.type);
        if ((run->answers[run->answered % 8] & 0xf0u) == 0xf0u) { /* whoever should answer is too slow */
            socks6_server_timeout(run->server, UINT64_MAX - 1);
        }
        err = answer(run, &event);
        require(err == 0 || err == SOCKS6_ERR_NOMEM || err == SOCKS6_ERR_INVALID, "answers say what they may say");
    }
}

static void offer(struct run *run, const uint8_t *bytes, size_t len, size_t chunk)
{
    while (run->used < len) {
        size_t left = len - run->used;
        size_t used;
        int err = socks6_server_input(run->server, bytes + run->used, left < chunk ? left : chunk, 0, &used);

        require(err == 0 || err == SOCKS6_ERR_NOMEM, "input says what it may say");
        require(used <= left && used <= chunk, "no more is used than offered");
        require(used == 0 || (!run->is_requested && !run->is_closed), "application data stays with the caller");
        run->used += used;
        pull_events(run);
        if (used == 0) {
            return;
        }
    }
}

static void run_script(struct run *run, const uint8_t *data, size_t size, size_t chunk)
{
    static const enum socks6_draft drafts[4] = {SOCKS6_DRAFT_08, SOCKS6_DRAFT_11, SOCKS6_DRAFT_12, SOCKS6_DRAFT_11};
    static const uint32_t caps[4] = {SOCKS6_OPTIONS_CAP_12, SOCKS6_OPTIONS_CAP_11, 64, 0};
    struct socks6_server_config config;
    struct replies replies;

    memset(run, 0, sizeof *run);
    heap_init(&run->heap);
    run->answers = data + 2;
    if ((data[0] & 32u) != 0) {
        run->heap.fail_at = data[1];
        run->heap.fail_on = (data[0] & 64u) != 0;
    }
    socks6_server_config_init(&config);
    config.allocator = &run->heap.allocator;
    config.offer_userpass = data[0] & 1;
    config.draft = drafts[data[0] >> 1 & 3u];
    config.options_cap = caps[data[0] >> 3 & 3u];
    if (socks6_server_new(&config, 0, &run->server) == 0) {
        offer(run, data + SCRIPT_LEN, size - SCRIPT_LEN, chunk);
        drain(run);
        replies_read(run->output, run->output_len, &replies);
        require(replies.is_well_formed, "output reads back");
        require(!replies.is_mismatch || (run->used == 1 && run->reason == SOCKS6_ERR_VERSION),
                "a version mismatch is seen in the first byte");
        socks6_server_free(run->server);
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
    run_script(&cut, data, size, data[1] == 0 ? 1 : data[1]);
    if ((data[0] & 32u) == 0) { /* where memory ends, the cuts decide which allocation that is */
        require(whole.used == cut.used && whole.reason == cut.reason && whole.set_aside == cut.set_aside,
                "the same end however the stream is cut");
        require(whole.trail_len == cut.trail_len && memcmp(whole.trail, cut.trail, cut.trail_len) == 0,
                "the same events however the stream is cut");
        require(whole.output_len == cut.output_len && memcmp(whole.output, cut.output, cut.output_len) == 0,
                "the same output however the stream is cut");
    }
    return 0;
}
