/*
 * Theory of operation. Questions have a place in a row, in the order given. `first` is the one whose outcome is told
 * next; up to DNS_QUERY_WINDOW from there may be on their way, in any state. A connection is dialled with as many
 * questions as go with the request (early data); then questions go out and answers come in as the socket likes it. If
 * the proxy closes the connection it is made anew for the questions without an answer, as long as each connection
 * brings at least one outcome.
 */
#include "cli/dns_query.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cli/dns_forward.h"
#include "cli/exit.h"
#include "cli/reach.h"
#include "cli/say.h"

static const char command[] = "dns";

enum ask_state { ASK_WAITING, ASK_SENT, ASK_DONE };

struct ask {
    enum ask_state state;
    uint16_t id;
    uint64_t sent_ms;     /* for the time that is shown */
    uint64_t deadline_ms; /* of the answer */
    uint64_t time_ms;
    uint8_t *answer; /* owned; NULL = none */
    size_t answer_len;
    const char *why; /* there is none; static */
};

#define FRAME_MAX (2u + DNS_QUERY_MAX + DNS_ARGS_OPTIONS_MAX)
#define OUT_ROOM SOCKS6_INITIAL_DATA_MAX
#define IN_ROOM (2u + DNS_MESSAGE_MAX)

struct run {
    const struct dns_query_config *config;
    struct ask asks[DNS_QUERY_WINDOW]; /* question i has place i % DNS_QUERY_WINDOW */
    size_t first;                      /* the first question whose outcome has not been told */
    size_t next;                       /* the first that was not sent on this connection */
    struct stream net;
    bool is_lost;    /* the connection is over */
    size_t progress; /* outcomes on this connection */
    size_t strays;   /* answers that nobody asked for */
    uint8_t *out, *in;
    size_t out_len, out_sent, in_len;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct ask *ask_at(struct run *run, size_t question)
{
    return &run->asks[question % DNS_QUERY_WINDOW];
}

static size_t question_count(const struct run *run)
{
    return run->config->args->question_count;
}

/* One past the last question that may be on its way. */
static size_t window_end(const struct run *run)
{
    size_t end = run->first + DNS_QUERY_WINDOW;

    return end < question_count(run) ? end : question_count(run);
}

/* ---- outcomes ---- */

/* Tells the outcomes that are next in the row. */
static void tell(struct run *run)
{
    while (run->first < question_count(run) && ask_at(run, run->first)->state == ASK_DONE) {
        struct ask *ask = ask_at(run, run->first);

        run->config->done(run->config->user, &run->config->args->questions[run->first], ask->answer, ask->answer_len,
                          ask->time_ms, ask->why);
        free(ask->answer);
        memset(ask, 0, sizeof *ask);
        run->first++;
    }
}

static void fail(struct run *run, struct ask *ask, const char *why)
{
    ask->state = ASK_DONE;
    ask->why = why;
    run->progress++;
}

static void fail_all(struct run *run, const char *why)
{
    while (run->first < question_count(run)) {
        for (size_t i = run->first; i < window_end(run); i++) {
            if (ask_at(run, i)->state != ASK_DONE) {
                fail(run, ask_at(run, i), why);
            }
        }
        tell(run);
    }
}

static void fail_late(struct run *run)
{
    uint64_t now = now_ms();

    for (size_t i = run->first; i < run->next; i++) {
        struct ask *ask = ask_at(run, i);

        if (ask->state == ASK_SENT && now >= ask->deadline_ms) {
            fail(run, ask, "no answer in time");
        }
    }
    tell(run);
}

/* ---- questions ---- */

static bool id_is_taken(struct run *run, uint16_t id)
{
    for (size_t i = run->first; i < window_end(run); i++) {
        if (ask_at(run, i)->state == ASK_SENT && ask_at(run, i)->id == id) {
            return true;
        }
    }
    return false;
}

static uint16_t new_id(struct run *run)
{
    uint16_t id = 0;

    do {
        if (getrandom(&id, sizeof id, 0) != sizeof id) {
            id++; /* not on Linux, for two bytes; and nothing here depends on an id that nobody can guess */
        }
    } while (id_is_taken(run, id));
    return id;
}

/* Appends the next question to what is to be sent. False if there is no room for it now. */
static bool queue_question(struct run *run, size_t question)
{
    const struct dns_args *args = run->config->args;
    struct ask *ask = ask_at(run, question);
    struct dns_query query = {.id = new_id(run),
                              .flags = args->flags,
                              .name = &args->questions[question].name,
                              .type = args->questions[question].type,
                              .class = args->questions[question].class,
                              .with_edns = args->with_edns,
                              .edns_udp_len = args->edns_udp_len,
                              .edns_flags = args->edns_flags,
                              .edns_options = {args->edns_options, args->edns_options_len}};
    size_t len;

    if (OUT_ROOM - run->out_len < FRAME_MAX) {
        return false;
    }
    if (dns_query_build(&query, run->out + run->out_len + 2, FRAME_MAX - 2, &len) != 0) {
        assert(false); /* FRAME_MAX is the most that one takes */
        return false;
    }
    dns_put16(run->out + run->out_len, (unsigned)len);
    run->out_len += 2 + len;
    ask->state = ASK_SENT;
    ask->id = query.id;
    ask->sent_ms = now_ms();
    ask->deadline_ms = ask->sent_ms + (uint64_t)args->timeout_ms;
    return true;
}

static void queue_questions(struct run *run)
{
    for (; run->next < window_end(run); run->next++) {
        if (ask_at(run, run->next)->state == ASK_WAITING && !queue_question(run, run->next)) {
            return;
        }
    }
}

static void send_questions(struct run *run)
{
    ssize_t n = stream_send(&run->net, run->out + run->out_sent, run->out_len - run->out_sent);

    if (n < 0) {
        run->is_lost = run->is_lost || n != -EAGAIN;
        return;
    }
    run->out_sent += (size_t)n;
    if (run->out_sent == run->out_len) {
        run->out_sent = run->out_len = 0;
    }
}

/* ---- answers ---- */

static struct ask *find_ask(struct run *run, const uint8_t *message, size_t len)
{
    if (len < DNS_HEADER_LEN) {
        return NULL;
    }
    for (size_t i = run->first; i < run->next; i++) {
        struct ask *ask = ask_at(run, i);

        if (ask->state == ASK_SENT && ask->id == dns_get16(message) &&
            dns_forward_matches(&run->config->args->questions[i], message, len)) {
            return ask;
        }
    }
    return NULL;
}

static void take_answer(struct run *run, const uint8_t *message, size_t len)
{
    struct ask *ask = find_ask(run, message, len);

    if (ask == NULL) {
        run->strays++;
        if (run->strays == 1) {
            say(command, "an answer that belongs to no question is ignored");
        }
        run->is_lost = run->is_lost || run->strays > DNS_QUERY_WINDOW; /* late answers are few */
        return;
    }
    ask->answer = malloc(len);
    if (ask->answer == NULL) {
        fail(run, ask, "out of memory");
        return;
    }
    memcpy(ask->answer, message, len);
    ask->answer_len = len;
    ask->time_ms = now_ms() - ask->sent_ms;
    ask->state = ASK_DONE;
    run->progress++;
}

static void take_answers(struct run *run)
{
    size_t at = 0;

    while (run->in_len - at >= 2 && run->in_len - at - 2 >= dns_get16(run->in + at)) {
        size_t len = dns_get16(run->in + at);

        take_answer(run, run->in + at + 2, len);
        at += 2 + len;
    }
    memmove(run->in, run->in + at, run->in_len - at);
    run->in_len -= at;
    tell(run);
}

static void receive(struct run *run)
{
    ssize_t n = stream_receive(&run->net, run->in + run->in_len, IN_ROOM - run->in_len);

    if (n > 0) {
        run->in_len += (size_t)n;
        take_answers(run);
    } else if (n != -EAGAIN) {
        run->is_lost = true;
    }
}

/* ---- the connection ---- */

struct socks6_addr dns_query_destination(void)
{
    static const uint8_t unspecified[4] = {0};

    return socks6_addr_ipv4(unspecified, 53);
}

bool dns_query_is_absent(int status, const struct socks6_dial_result *result)
{
    return status == SOCKS6_DIAL_REMOTE_FAILED && result->has_reply && result->reply == SOCKS6_REPLY_REFUSED;
}

void dns_query_dial_error(int status, const struct socks6_dial_result *result, char *text, size_t size)
{
    if (dns_query_is_absent(status, result)) {
        (void)snprintf(text, size, "this proxy offers no DNS service (reply 5)");
    } else if (status == SOCKS6_DIAL_REMOTE_FAILED && result->has_reply) {
        (void)snprintf(text, size, "the proxy refuses its DNS service: %s (reply %u)", socks6_reply_name(result->reply),
                       result->reply);
    } else {
        (void)snprintf(text, size, "%s", result->error);
    }
}

static void trace(void *user, const char *what)
{
    (void)user;
    say(command, "%s", what);
}

static int dial(struct run *run)
{
    const struct dns_args *args = run->config->args;
    struct reach_config config = {.no_session = args->no_session,
                                  .no_early_data = args->no_early_data,
                                  .no_fast_open = args->no_fast_open,
                                  .is_repeatable = true};
    struct socks6_dial_result result;
    char why[sizeof result.error];
    int status;

    socks6_dial_config_init(&config.dial);
    config.dial.proxy = run->config->proxy;
    config.dial.addr = dns_query_destination();
    config.dial.family = args->family;
    config.dial.timeout_ms = (uint64_t)args->timeout_ms;
    config.dial.early = (struct socks6_slice){run->out, run->out_len};
    config.dial.trace = args->verbose ? trace : NULL;
    status = reach(&config, &run->net, &result);
    if (status == SOCKS6_DIAL_OK) {
        run->out_len = 0;
        return CLI_EXIT_OK;
    }
    dns_query_dial_error(status, &result, why, sizeof why);
    say(command, "%s", why);
    if (status == SOCKS6_DIAL_INVALID) {
        return CLI_EXIT_USAGE; /* files of the URL that cannot be used */
    }
    return status == SOCKS6_DIAL_NOMEM ? CLI_EXIT_REMOTE : CLI_EXIT_PROXY;
}

/* The limit in time of those that went with the request starts when that has arrived. */
static void start_clocks(struct run *run)
{
    for (size_t i = run->first; i < run->next; i++) {
        ask_at(run, i)->deadline_ms = now_ms() + (uint64_t)run->config->args->timeout_ms;
    }
}

static int poll_timeout(struct run *run)
{
    uint64_t now = now_ms(), due = now + (uint64_t)run->config->args->timeout_ms;

    for (size_t i = run->first; i < run->next; i++) {
        if (ask_at(run, i)->state == ASK_SENT && ask_at(run, i)->deadline_ms < due) {
            due = ask_at(run, i)->deadline_ms;
        }
    }
    return due > now ? (int)(due - now) : 0;
}

/* Until all has been told or the connection is over. */
static void converse(struct run *run)
{
    while (!run->is_lost && run->first < question_count(run)) {
        struct pollfd pfd = {run->net.fd, POLLIN, 0};
        bool has_input = stream_has_input(&run->net); /* TLS holds it already */

        queue_questions(run);
        pfd.events = stream_events(&run->net, true, run->out_len > 0);
        if (poll(&pfd, 1, has_input ? 0 : poll_timeout(run)) < 0 && errno != EINTR) {
            run->is_lost = true;
        }
        if ((pfd.revents & POLLOUT) != 0) {
            send_questions(run);
        }
        if (has_input || (pfd.revents & ~POLLOUT) != 0) {
            receive(run);
        }
        fail_late(run);
    }
}

/* What was sent and not answered is to be sent again, on another connection. */
static void forget_connection(struct run *run)
{
    for (size_t i = run->first; i < run->next; i++) {
        if (ask_at(run, i)->state == ASK_SENT) {
            ask_at(run, i)->state = ASK_WAITING;
        }
    }
    run->next = run->first;
    run->out_len = run->out_sent = run->in_len = 0;
    run->strays = run->progress = 0;
    run->is_lost = false;
}

static int connect_and_converse(struct run *run)
{
    int rc;

    forget_connection(run);
    queue_questions(run);
    rc = dial(run);
    if (rc != CLI_EXIT_OK) {
        return rc;
    }
    start_clocks(run);
    converse(run);
    stream_done(&run->net);
    if (run->is_lost && run->progress == 0) {
        fail_all(run, "the proxy closed the connection without an answer");
    }
    return CLI_EXIT_OK;
}

int dns_query_run(const struct dns_query_config *config)
{
    struct run *run = calloc(1, sizeof *run);
    int rc = CLI_EXIT_OK;

    if (run != NULL) {
        run->config = config;
        run->out = malloc(OUT_ROOM);
        run->in = malloc(IN_ROOM);
    }
    if (run == NULL || run->out == NULL || run->in == NULL) {
        say(command, "out of memory");
        rc = CLI_EXIT_REMOTE;
    }
    while (rc == CLI_EXIT_OK && run->first < question_count(run)) {
        rc = connect_and_converse(run);
    }
    if (run != NULL) {
        for (size_t i = 0; i < DNS_QUERY_WINDOW; i++) {
            free(run->asks[i].answer);
        }
        free(run->out);
        free(run->in);
        free(run);
    }
    return rc;
}
