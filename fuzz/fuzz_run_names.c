/*
 * Names for the programs of `socks6 run`: what a program asks, and what the proxy answers. Input: the kind of request, whether names
 * are faked, or that it is a resolv.conf (1 byte), the length of the body (2 bytes), the body; then answers, each with its length (2 bytes), for the questions in
 * their order. An answer gets the question that it is to answer, so that more of it is looked at.
 */
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/run_names.h"
#include "cli/run_search.h"
#include "dns/message.h"
#include "fuzz.h"

#define QUESTIONS_MAX 64u

static struct loop *loop;
static char the_link;
static TAILQ_HEAD(, dns_link_ask) asks;
static unsigned asked_count;

int __wrap_dns_link_ask(struct dns_link *link, struct dns_link_ask *ask);
void __wrap_dns_link_cancel(struct dns_link *link, struct dns_link_ask *ask);

int __wrap_dns_link_ask(struct dns_link *link, struct dns_link_ask *ask)
{
    struct dns_edns edns;
    size_t end;

    (void)link;
    require(dns_message_check(ask->message, ask->len, &edns, &end) == 0 && end == ask->len,
            "what we ask is well-formed");
    if (asked_count++ == QUESTIONS_MAX) {
        return -EAGAIN;
    }
    TAILQ_INSERT_TAIL(&asks, ask, all);
    return 0;
}

void __wrap_dns_link_cancel(struct dns_link *link, struct dns_link_ask *ask)
{
    (void)link;
    TAILQ_REMOVE(&asks, ask, all);
}

/* ---- what comes back ---- */

static enum run_kind kind;
static unsigned done_count;
static uint16_t query_id;

static void check_resolved(const uint8_t *body, size_t len)
{
    struct run_resolved resolved;
    struct run_addr addr;

    require(len >= sizeof resolved, "there is a head");
    memcpy(&resolved, body, sizeof resolved);
    require(resolved.count >= 1 && resolved.count <= RUN_ADDRESSES_MAX, "there are addresses, and not too many");
    require(len == sizeof resolved + resolved.count * sizeof addr + resolved.canon_len, "all of it is there");
    for (uint32_t i = 0; i < resolved.count; i++) {
        memcpy(&addr, body + sizeof resolved + i * sizeof addr, sizeof addr);
        require(addr.family == AF_INET || addr.family == AF_INET6, "they are of a family");
    }
    for (size_t i = len - resolved.canon_len; i < len; i++) {
        if (body[i] == '\0') { /* before an alias */
            require(i + 1 < len && body[i + 1] != '\0', "no alias is empty");
            continue;
        }
        require(body[i] > ' ' && body[i] < 127 && strchr("$`;&|<>()'\"\\/", body[i]) == NULL, "the name is harmless");
    }
}

static void check_names(const uint8_t *body, size_t len)
{
    require(len > 1 && body[len - 1] == '\0', "a NUL ends the last name");
    for (size_t i = 0; i + 1 < len; i++) {
        require(body[i] != '\0' || (i > 0 && body[i - 1] != '\0'), "no name is empty");
        require(body[i] == '\0' || (body[i] > ' ' && body[i] < 127), "names are harmless");
    }
}

static void on_done(struct run_names_ask *ask, int status, const void *body, size_t len)
{
    struct dns_edns edns;
    size_t end;

    (void)ask;
    done_count++;
    require(len <= RUN_MESSAGE_MAX, "it fits into a message");
    if (status != 0) {
        require(len == 0, "an error has no body");
        return;
    }
    if (kind == RUN_RESOLVE) {
        check_resolved(body, len);
    } else if (kind == RUN_REVERSE) {
        check_names(body, len);
    } else if (kind == RUN_QUERY) {
        require(dns_message_check(body, len, &edns, &end) == 0 && end == len, "what we answer is well-formed");
        require(dns_get16(body) == query_id, "the answer has the query's id");
    }
}

/* ---- the proxy ---- */

/* The question's header and question, flags and counts of the input's answer, and its records. */
static void answer(struct dns_link_ask *ask, const uint8_t *data, size_t size)
{
    struct dns_question question;
    size_t records = 0, len;
    uint8_t *message;

    TAILQ_REMOVE(&asks, ask, all);
    if (size < DNS_HEADER_LEN) {
        ask->done(ask, NULL, 0, size % 2 == 0 ? DNS_LINK_UNREACHABLE : DNS_LINK_TIMED_OUT);
        return;
    }
    require(dns_question_read(ask->message, ask->len, &question, &records) == 0, "what we ask has a question");
    len = records + size - DNS_HEADER_LEN;
    message = malloc(len);
    require(message != NULL, "there is memory");
    memcpy(message, ask->message, records);
    memcpy(message + 2, data + 2, DNS_HEADER_LEN - 2);
    message[2] |= 0x80;
    dns_put16(message + 4, 1);
    memcpy(message + records, data + DNS_HEADER_LEN, size - DNS_HEADER_LEN);
    ask->done(ask, message, len, DNS_LINK_TIMED_OUT);
    free(message);
}

static void on_stop(struct loop_task *task)
{
    (void)task;
    loop_stop(loop);
}

static void run_loop(void)
{
    struct loop_task stop = {.run = on_stop};

    loop_defer(loop, &stop);
    require(loop_run(loop) == 0, "the loop runs");
}

/* A resolv.conf, and a walk with it. */
static void search_for(const uint8_t *text, size_t len)
{
    static const enum run_outcome outcomes[] = {RUN_NXDOMAIN, RUN_NODATA, RUN_SERVFAIL};
    static struct run_search search;
    struct run_walk walk;
    struct dns_name name;
    unsigned count = 0;

    run_search_parse((const char *)text, len, NULL, NULL, NULL, &search);
    require(search.timeout_s >= 1 && search.timeout_s <= 30 && search.attempts >= 1 && search.attempts <= 5 &&
                search.ndots <= RUN_SEARCH_NDOTS_MAX && search.domain_count <= RUN_SEARCH_DOMAINS_MAX,
            "limits are kept");
    require(run_walk_init(&walk, &search, "a.b"), "it is a name");
    while (run_walk_next(&walk, &name)) {
        require(run_name_is_host(&name), "candidates are names of hosts");
        require(count++ <= RUN_SEARCH_DOMAINS_MAX, "the walk ends");
        require(!run_walk_told(&walk, outcomes[count % 3]), "it goes on");
    }
    require(count >= 1 && run_walk_outcome(&walk) != RUN_FOUND, "it was one");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum run_kind kinds[] = {RUN_RESOLVE, RUN_REVERSE, RUN_QUERY, RUN_RESOLVE};
    struct run_names_config config = {.hosts = "/dev/null", .resolv_conf = "/dev/null"};
    struct run_names_ask ask = {.done = on_done};
    struct run_names *names;
    struct dns_link_ask *open;
    size_t at = 3, len;
    uint8_t *body;

    if (size < at || (loop == NULL && loop_new(&loop) != 0)) {
        return 0;
    }
    len = dns_get16(data + 1) < size - at ? dns_get16(data + 1) : size - at;
    body = malloc(len > 0 ? len : 1);
    require(body != NULL, "there is memory");
    memcpy(body, data + at, len);
    at += len;
    if ((data[0] & 8) != 0) {
        search_for(body, len);
        free(body);
        return 0;
    }
    TAILQ_INIT(&asks);
    asked_count = done_count = 0;
    ask.kind = kind = kinds[data[0] % 4];
    query_id = len >= 2 ? dns_get16(body) : 0;
    config.loop = loop;
    config.fake = (data[0] & 4) != 0;
    config.link = config.fake ? NULL : (struct dns_link *)(void *)&the_link;
    require(run_names_new(&config, &names) == 0, "there is memory");
    ask.body = body;
    ask.len = len;
    run_names_ask(names, &ask);
    free(body);
    run_loop();
    while ((open = TAILQ_FIRST(&asks)) != NULL) {
        len = size - at >= 2 ? dns_get16(data + at) : 0;
        at += size - at >= 2 ? 2 : 0;
        len = len < size - at ? len : size - at;
        answer(open, data + at, len);
        at += len;
        run_loop();
    }
    run_names_free(names);
    require(done_count == 1, "each request is answered once");
    return 0;
}
