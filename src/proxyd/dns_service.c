/*
 * A question is answered where it is read if that can be (error, local name, cache): the answer is rendered into the
 * loop's shared buffer, behind the others of this wake-up. Else it gets a slot, which asks the resolver, and joins the
 * queue of those to be written when the answer is there.
 *
 * What the client does not take stays in `out`; while it does, nothing is read, rendered or taken from the queue, so that
 * `out` never holds more than what one pass has rendered. What is read and cannot be worked on yet stays in `in`.
 *
 * dns_service_events(), the timer and the task all end in run(), the only place that reads, writes and ends.
 */
#include "proxyd/dns_service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "dns/ask.h"
#include "io/sock.h"
#include "io/tls_stream.h"

#define LENGTH_LEN 2u
#define READ_LEN 65536u
#define OUT_TARGET ((size_t)128 * 1024) /* of rendered answers: then they are sent */
#define OUT_LEN (OUT_TARGET + LENGTH_LEN + DNS_RENDER_MAX)
#define RUN_BUDGET ((size_t)512 * 1024) /* bytes read per run; then other streams have their turn */
#define RETRY_MS 20u                    /* after a limit was met */
#define PADDING_BLOCK 468u              /* RFC 8467, for answers */
#define KEEPALIVE_MAX_100MS 65535u

struct dns_service_shared {
    uint8_t read[READ_LEN];
    uint8_t out[OUT_LEN];
};

/* A question on its way, or answered and not yet written. */
struct slot {
    struct dns_service *service;
    struct slot *prev, *next;   /* of `asked` or `answered` */
    struct dns_ask *ask;        /* NULL once answered */
    struct dns_answer *answer;  /* a reference; NULL = none was to be had */
    struct dns_request request; /* its options are not used any more */
};

struct dns_service {
    struct dns_service_setup setup;
    struct dns_asker_count *count;
    struct loop_timer timer;
    struct loop_task task;
    struct slot *asked;                    /* list */
    struct slot *answered, **answered_end; /* queue, linked by `next` */
    uint8_t *in;                           /* bytes read, not yet worked on */
    size_t in_len, in_size;
    uint8_t *out; /* bytes that the client did not take; heap */
    size_t out_len, out_sent;
    bool is_readable, is_writable;
    bool waits_for_room; /* TLS has to write before it can read on */
    bool reads_to_end;   /* a short read does not mean that there is no more, see receive() */
    bool has_eof;        /* the client sends no more */
    bool is_ending;      /* nothing is read any more; ends when all is written */
    bool is_limited;     /* a limit was met: goes on with the timer */
    bool checks_names;
    const char *reason; /* of the ending */
    uint64_t active_ms; /* when a question or an answer last went through */
    uint64_t bytes_up, bytes_down;
};

/* ---- slots ---- */

static void slot_free(struct slot *slot)
{
    dns_ask_cancel(slot->ask);
    dns_answer_release(slot->answer);
    dns_limits_done(slot->service->count);
    free(slot);
}

static void asked_unlink(struct slot *slot)
{
    struct dns_service *service = slot->service;

    if (slot->prev != NULL) {
        slot->prev->next = slot->next;
    } else {
        service->asked = slot->next;
    }
    if (slot->next != NULL) {
        slot->next->prev = slot->prev;
    }
}

static void on_answer(void *user, struct dns_answer *answer, const char *why)
{
    struct slot *slot = user;
    struct dns_service *service = slot->service;

    (void)why;
    slot->ask = NULL;
    slot->answer = answer != NULL ? dns_answer_retain(answer) : NULL;
    asked_unlink(slot);
    slot->next = NULL;
    *service->answered_end = slot;
    service->answered_end = &slot->next;
    loop_defer(service->setup.loop, &service->task); /* those of one batch are written together */
}

/* ---- rendering ---- */

static struct dns_hop hop_of(const struct dns_service *service)
{
    uint64_t idle_100ms = service->setup.config->dns.idle_ms / 100;

    return (struct dns_hop){
        .keepalive_100ms = (uint16_t)(idle_100ms < KEEPALIVE_MAX_100MS ? idle_100ms : KEEPALIVE_MAX_100MS),
        .padding_block = PADDING_BLOCK,
        .udp_len = DNS_UPSTREAM_UDP_LEN,
    };
}

/* Answers are rendered behind two bytes for their length, at `*len` of the shared buffer. */
static uint8_t *place_for(struct dns_service *service, size_t len)
{
    assert(len <= OUT_TARGET);
    return service->setup.shared->out + len + LENGTH_LEN;
}

static void placed(struct dns_service *service, size_t *len, size_t message_len)
{
    dns_put16(service->setup.shared->out + *len, (unsigned)message_len);
    *len += LENGTH_LEN + message_len;
    stats_add(service->setup.stats, STATS_dns_answers, 1);
}

static void render_error(struct dns_service *service, const struct dns_request *request, enum dns_rcode rcode,
                         enum dns_ede ede, size_t *len)
{
    const struct dns_hop hop = hop_of(service);

    placed(service, len, dns_error_render(request, rcode, ede, &hop, place_for(service, *len)));
}

static void render_answer(struct dns_service *service, const struct dns_request *request,
                          const struct dns_answer *answer, size_t *len)
{
    const struct dns_hop hop = hop_of(service);
    uint64_t now_ms = loop_now_ms(service->setup.loop);

    if (answer == NULL) {
        render_error(service, request, DNS_RCODE_SERVFAIL, DNS_EDE_NO_REACHABLE, len);
    } else {
        placed(service, len, dns_answer_render(answer, request, &hop, now_ms, place_for(service, *len)));
    }
}

/* Answers that have come, as far as they fit. */
static void render_answered(struct dns_service *service, size_t *len)
{
    struct slot *slot;

    while ((slot = service->answered) != NULL && *len <= OUT_TARGET) {
        service->answered = slot->next;
        if (service->answered == NULL) {
            service->answered_end = &service->answered;
        }
        render_answer(service, &slot->request, slot->answer, len);
        slot_free(slot);
        service->is_limited = false; /* there is a place free now */
        service->active_ms = loop_now_ms(service->setup.loop);
    }
}

/* ---- questions ---- */

static bool is_denied(const struct dns_service *service, const struct dns_request *request)
{
    char text[DNS_NAME_TEXT_MAX], *end;

    if (!service->checks_names) {
        return false;
    }
    size_t len = dns_name_format(&request->question.name, text);
    if (len > SOCKS6_NAME_MAX) {
        return false; /* escapes: no host's name, which is all that rules can hold */
    }
    end = text + len - 1;
    *end = '\0';
    const struct policy_request asked = {
        .client = service->setup.client,
        .user = service->setup.user,
        .command = SOCKS6_COMMAND_CONNECT,
        .name = text,
    };
    return policy_check_dns_name(service->setup.config->policy, &asked).verdict == POLICY_DENY;
}

/* Asks upstream. The place in the limits goes to the slot, or back. */
static void start_slot(struct dns_service *service, const struct dns_request *request, size_t *len)
{
    struct slot *slot = calloc(1, sizeof *slot);

    if (slot != NULL) {
        slot->service = service;
        slot->request = *request;
        if (dns_ask_start(service->setup.dns, DNS_ASKER_SERVICE, request, on_answer, slot, &slot->ask) == 0) {
            slot->request.options = (struct socks6_slice){NULL, 0};
            slot->next = service->asked;
            if (slot->next != NULL) {
                slot->next->prev = slot;
            }
            service->asked = slot;
            return;
        }
        free(slot);
    }
    dns_limits_done(service->count);
    render_error(service, request, DNS_RCODE_SERVFAIL, DNS_EDE_NONE, len);
}

static void answer(struct dns_service *service, const struct dns_request *request, size_t *len)
{
    if (is_denied(service, request)) {
        stats_add(service->setup.stats, STATS_dns_denied, 1);
        render_error(service, request, DNS_RCODE_REFUSED, DNS_EDE_PROHIBITED, len);
        dns_limits_done(service->count);
        return;
    }
    struct dns_answer *known = dns_ask_at_once(service->setup.dns, request);
    if (known != NULL) {
        render_answer(service, request, known, len);
        dns_answer_release(known);
        dns_limits_done(service->count);
        return;
    }
    start_slot(service, request, len);
}

static uint32_t per_second(const struct dns_service *service)
{
    uint32_t configured = service->setup.config->dns.queries_per_second;

    if (configured != CONFIG_PER_CLIENT_AUTO) {
        return configured;
    }
    return sock_is_loopback(service->setup.client) ? 0 : CONFIG_DNS_PER_SECOND_DEFAULT;
}

/* One message. False: not now, a limit is met. */
static bool take_message(struct dns_service *service, const uint8_t *message, size_t message_len, size_t *len)
{
    const struct config_dns *config = &service->setup.config->dns;
    struct dns_request request;
    enum dns_rcode rcode;

    if (!dns_limits_ask(service->count, config->queries_in_flight, per_second(service),
                        loop_now_ms(service->setup.loop))) {
        service->is_limited = true;
        return false;
    }
    service->active_ms = loop_now_ms(service->setup.loop);
    stats_add(service->setup.stats, STATS_dns_questions, 1);
    switch (dns_request_read(message, message_len, &request, &rcode)) {
    case DNS_REQUEST_ASK:
        answer(service, &request, len);
        return true;
    case DNS_REQUEST_ERROR:
        render_error(service, &request, rcode, DNS_EDE_NONE, len);
        break;
    case DNS_REQUEST_JUNK:
        service->is_ending = true;
        service->reason = "malformed DNS message";
        break;
    }
    stats_add(service->setup.stats, STATS_dns_malformed, 1);
    dns_limits_done(service->count);
    return true;
}

/* Whole messages of `bytes`, as far as answers fit and limits allow; returns how many bytes it took. */
static size_t take_messages(struct dns_service *service, const uint8_t *bytes, size_t bytes_len, size_t *len)
{
    size_t used = 0;

    while (!service->is_ending && *len <= OUT_TARGET && bytes_len - used >= LENGTH_LEN) {
        size_t message_len = dns_get16(bytes + used);
        if (bytes_len - used - LENGTH_LEN < message_len ||
            !take_message(service, bytes + used + LENGTH_LEN, message_len, len)) {
            break;
        }
        used += LENGTH_LEN + message_len;
    }
    return used;
}

/* ---- input ---- */

static bool append_in(struct dns_service *service, const uint8_t *bytes, size_t len)
{
    size_t size = service->in_size == 0 ? 512 : service->in_size;

    if (len == 0) {
        return true;
    }
    while (size < service->in_len + len) {
        size *= 2;
    }
    if (size != service->in_size) {
        uint8_t *grown = realloc(service->in, size);
        if (grown == NULL) {
            return false;
        }
        service->in = grown;
        service->in_size = size;
    }
    memcpy(service->in + service->in_len, bytes, len);
    service->in_len += len;
    return true;
}

static void drop_in(struct dns_service *service, size_t used)
{
    service->in_len -= used;
    if (service->in_len == 0) {
        free(service->in);
        service->in = NULL;
        service->in_size = 0;
    } else if (used != 0) {
        memmove(service->in, service->in + used, service->in_len);
    }
}

/* Whether `in` begins with a whole message. */
static bool has_message(const struct dns_service *service)
{
    return service->in_len >= LENGTH_LEN && service->in_len - LENGTH_LEN >= dns_get16(service->in);
}

/*
 * recv(2) or the like: -errno.
 *
 * After a short read of a socket its queue was empty, and what comes next causes an event; but an end, an error or an
 * urgent byte, of which an event has told, may be behind it.
 */
static ssize_t receive(struct dns_service *service, uint8_t *bytes, size_t len)
{
    struct tls_stream *tls = service->setup.tls;
    ssize_t n;

    if (tls != NULL) {
        n = tls_recv(tls, bytes, len, true);
        service->is_readable = n != -EAGAIN;
        service->waits_for_room = n == -EAGAIN && tls_waits_for_room(tls);
        service->is_writable = service->is_writable && !service->waits_for_room;
        return n;
    }
    n = recv(service->setup.fd, bytes, len, 0);
    if (n > 0) {
        service->is_readable = service->reads_to_end || (size_t)n == len;
        return n;
    }
    service->is_readable = n == 0 || errno != EAGAIN;
    return n < 0 ? -errno : 0;
}

/* One read and what it completes. 1: there may be more. 0: nothing now. -errno. */
static int read_some(struct dns_service *service, size_t *len)
{
    uint8_t *bytes = service->setup.shared->read;
    ssize_t n = receive(service, bytes, READ_LEN);

    if (n < 0) {
        return n == -EAGAIN ? 0 : n == -EINTR ? 1 : (int)n;
    }
    if (n == 0) {
        service->has_eof = true;
        return 0;
    }
    service->bytes_up += (size_t)n;
    if (service->in_len == 0) {
        size_t used = take_messages(service, bytes, (size_t)n, len);
        return append_in(service, bytes + used, (size_t)n - used) ? 1 : -ENOMEM;
    }
    if (!append_in(service, bytes, (size_t)n)) {
        return -ENOMEM;
    }
    drop_in(service, take_messages(service, service->in, service->in_len, len));
    return 1;
}

/* ---- output ---- */

/* send(2) or the like: -errno. */
static ssize_t transmit(struct dns_service *service, const uint8_t *bytes, size_t len)
{
    struct tls_stream *tls = service->setup.tls;
    ssize_t n = tls != NULL ? tls_send(tls, bytes, len) : send(service->setup.fd, bytes, len, MSG_NOSIGNAL);

    if (tls == NULL && n < 0) {
        n = -errno;
    }
    if (n == -EAGAIN) {
        service->is_writable = false;
    }
    return n;
}

/* 0, or -errno; what the client does not take now stays. */
static int send_bytes(struct dns_service *service, const uint8_t *bytes, size_t len, size_t *sent)
{
    *sent = 0;
    while (service->is_writable && *sent < len) {
        ssize_t n = transmit(service, bytes + *sent, len - *sent);
        if (n >= 0) {
            *sent += (size_t)n;
        } else if (n != -EAGAIN && n != -EINTR) {
            return (int)n;
        }
    }
    service->bytes_down += *sent;
    return 0;
}

static int send_rest(struct dns_service *service)
{
    size_t sent;

    if (service->out == NULL) {
        return 0;
    }
    int err = send_bytes(service, service->out + service->out_sent, service->out_len - service->out_sent, &sent);
    service->out_sent += sent;
    if (sent > 0) {
        service->active_ms = loop_now_ms(service->setup.loop);
    }
    if (service->out_sent == service->out_len) {
        free(service->out);
        service->out = NULL;
    }
    return err;
}

/* `out` is empty: sends what this pass has rendered. */
static int send_rendered(struct dns_service *service, size_t len)
{
    const uint8_t *bytes = service->setup.shared->out;
    size_t sent;

    int err = send_bytes(service, bytes, len, &sent);
    if (err == 0 && sent < len) {
        service->out = malloc(len - sent);
        if (service->out == NULL) {
            return -ENOMEM;
        }
        memcpy(service->out, bytes + sent, len - sent);
        service->out_len = len - sent;
        service->out_sent = 0;
    }
    return err;
}

/* ---- running ---- */

/* Input that may be worked on now. */
static bool wants_input(const struct dns_service *service)
{
    return !service->is_ending && !service->is_limited &&
           (has_message(service) || (service->is_readable && !service->has_eof));
}

/* One pass: `out` is empty. 0 or -errno. */
static int pass(struct dns_service *service, size_t *budget)
{
    size_t len = 0;
    int rc = 0;

    render_answered(service, &len);
    while (rc >= 0 && len <= OUT_TARGET && wants_input(service) && *budget > 0) {
        if (has_message(service)) {
            drop_in(service, take_messages(service, service->in, service->in_len, &len));
        } else {
            uint64_t before = service->bytes_up;
            rc = read_some(service, &len);
            uint64_t took = service->bytes_up - before;
            *budget -= took < *budget ? (size_t)took : *budget;
        }
    }
    /* Also after an error of reading: what is answered may still go out. */
    int err = len > 0 ? send_rendered(service, len) : 0;
    return rc < 0 ? rc : err;
}

static const char *why_lost(int error)
{
    return error == ENOMEM || error == ENOBUFS ? "out of memory"
           : error == ETIMEDOUT                ? "client timed out"
           : error == ENODATA                  ? "client ended without close_notify"
           : error == EPROTO                   ? "client broke TLS"
                                               : "client reset";
}

/* Whether nothing is left to be done for the client. */
static bool is_over(struct dns_service *service)
{
    if (service->has_eof && !has_message(service)) {
        service->is_ending = true;
    }
    return service->is_ending && service->asked == NULL && service->answered == NULL && service->out == NULL;
}

static void run(struct dns_service *service)
{
    size_t budget = RUN_BUDGET;
    int err = send_rest(service);

    while (err == 0 && service->out == NULL && budget > 0 && (service->answered != NULL || wants_input(service))) {
        err = pass(service, &budget);
    }
    if (err != 0) {
        service->setup.over(service->setup.user_data, why_lost(-err));
        return;
    }
    if (is_over(service)) {
        service->setup.over(service->setup.user_data, service->reason);
        return;
    }
    if (service->is_limited) {
        loop_timer_set(service->setup.loop, &service->timer, RETRY_MS);
    } else if (budget == 0) {
        loop_defer(service->setup.loop, &service->task);
    }
}

static void on_task(struct loop_task *task)
{
    run(LOOP_OWNER(task, struct dns_service, task));
}

/* Idle is who neither asks nor waits for an answer that is on its way to us, nor takes those that we have. */
static void on_timer(struct loop_timer *timer)
{
    struct dns_service *service = LOOP_OWNER(timer, struct dns_service, timer);
    uint64_t now_ms = loop_now_ms(service->setup.loop);
    uint64_t idle_ms = service->setup.config->dns.idle_ms;

    if (service->is_limited) {
        service->is_limited = false;
        loop_timer_set(service->setup.loop, timer, idle_ms);
        run(service);
        return;
    }
    if (service->asked != NULL && service->out == NULL) {
        service->active_ms = now_ms;
    }
    uint64_t quiet_ms = now_ms - service->active_ms;
    if (quiet_ms >= idle_ms) {
        service->setup.over(service->setup.user_data, "idle");
        return;
    }
    loop_timer_set(service->setup.loop, timer, idle_ms - quiet_ms);
}

static void note_events(struct dns_service *service, uint32_t events)
{
    service->is_readable |= (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    service->reads_to_end |= (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    service->is_writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
}

void dns_service_events(struct dns_service *service, uint32_t events)
{
    note_events(service, events);
    if (service->waits_for_room && service->is_writable) {
        service->waits_for_room = false;
        service->is_readable = true;
    }
    run(service);
}

int dns_service_start(const struct dns_service_setup *setup, struct dns_service **out)
{
    struct dns_service *service = calloc(1, sizeof *service);

    if (service == NULL) {
        return -ENOMEM;
    }
    service->setup = *setup;
    service->answered_end = &service->answered;
    note_events(service, setup->events);
    service->checks_names = policy_denies_names(setup->config->policy);
    service->reason = "done";
    service->active_ms = loop_now_ms(setup->loop);
    service->bytes_up = setup->early_len;
    service->timer.expired = on_timer;
    service->task.run = on_task;
    service->count = dns_limits_join(setup->limits, setup->client);
    if (service->count == NULL || !append_in(service, setup->early, setup->early_len)) {
        dns_service_free(service);
        return -ENOMEM;
    }
    loop_timer_set(setup->loop, &service->timer, setup->config->dns.idle_ms);
    loop_defer(setup->loop, &service->task);
    *out = service;
    return 0;
}

void dns_service_drain(struct dns_service *service)
{
    service->is_ending = true;
    service->reason = "shut down";
    loop_defer(service->setup.loop, &service->task);
}

void dns_service_free(struct dns_service *service)
{
    if (service == NULL) {
        return;
    }
    while (service->asked != NULL) {
        struct slot *slot = service->asked;
        assert(slot->prev == NULL && slot->service == service);
        asked_unlink(slot);
        slot_free(slot);
    }
    while (service->answered != NULL) {
        struct slot *slot = service->answered;
        service->answered = slot->next;
        slot_free(slot);
    }
    loop_timer_cancel(service->setup.loop, &service->timer);
    loop_defer_cancel(service->setup.loop, &service->task);
    if (service->count != NULL) {
        dns_limits_leave(service->setup.limits, service->count);
    }
    free(service->in);
    free(service->out);
    free(service);
}

void dns_service_bytes(const struct dns_service *service, uint64_t *up, uint64_t *down)
{
    *up = service->bytes_up;
    *down = service->bytes_down;
}

struct dns_service_shared *dns_service_shared_new(void)
{
    return malloc(sizeof(struct dns_service_shared));
}

void dns_service_shared_free(struct dns_service_shared *shared)
{
    free(shared);
}
