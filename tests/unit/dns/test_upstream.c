/*
 * Questions to scripted upstream servers: what is accepted, what is ignored, retries, other servers, TCP, and that every
 * question ends. The clock jumps over waiting times.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dns/upstream.h"
#include "harness.h"
#include "support.h"

#define QUESTIONS_MAX 256

static struct loop *loop;
static struct dns_counter_set *counters;
static struct upstream *upstream;
static struct dns_follower *follower;
static struct dns_servers *servers;
static struct fake fakes[2];
static struct draft draft;
static unsigned fds_before;

/* A question and its end. */
struct question {
    struct upstream_query *query;
    bool is_over;
    struct dns_answer *answer;
    const char *why;
    unsigned order; /* in which it was answered */
};

static struct question questions[QUESTIONS_MAX];
static unsigned over_count;

static void on_done(void *user, struct dns_answer *answer, const char *why)
{
    struct question *question = user;
    assert_false(question->is_over);
    question->is_over = true;
    question->answer = answer;
    question->why = why;
    question->query = NULL;
    question->order = over_count++;
}

static bool is_over(void *context)
{
    return over_count >= *(unsigned *)context;
}

static void run(unsigned count)
{
    harness_run_until(loop, is_over, &count);
}

static void ask(unsigned i, const char *name, uint16_t type)
{
    struct dns_request request = question_of(name, type);
    assert_int_equal(upstream_ask(upstream, servers, &request, on_done, &questions[i], &questions[i].query), 0);
    assert_false(questions[i].is_over);
}

static uint64_t counted(enum dns_counter counter)
{
    return atomic_load(&counters->value[counter]);
}

static unsigned rcode_of(const struct question *question)
{
    assert_non_null(question->answer);
    return DNS_FLAGS_RCODE(dns_get16(dns_answer_message(question->answer).data + 2));
}

/* Servers at the fakes; `count` 0..2 of them, after `dead` ports where nobody listens. */
static void use(enum dns_transport transport, size_t count, size_t dead)
{
    static struct dns_server_setting given[DNS_SERVERS_MAX];
    const struct dns_settings settings = {
        .hosts = "", .servers = given, .server_count = count + dead, .timeout_ms = 2000, .attempts = 2};
    const struct siphash_key key = {1, 2};

    for (size_t i = 0; i < dead; i++) {
        struct fake gone;
        fake_open(&gone, loop, fake_answer);
        given[i] = fake_setting(&gone, transport);
        fake_close(&gone);
    }
    for (size_t i = 0; i < count; i++) {
        given[dead + i] = fake_setting(&fakes[i], transport);
    }
    dns_servers_release(servers);
    servers = NULL;
    dns_follower_free(follower);
    assert_int_equal(dns_follower_new(&settings, &key, NULL, NULL, &follower), 0);
    dns_follower_update(follower, loop_now_ms(loop), &servers);
}

static int open_world(void **state)
{
    (void)state;
    harness_guard();
    fds_before = harness_fd_count();
    assert_int_equal(loop_new(&loop), 0);
    counters = aligned_alloc(_Alignof(struct dns_counter_set), sizeof *counters);
    memset(counters, 0, sizeof *counters);
    assert_int_equal(upstream_new(loop, counters, &upstream), 0);
    fake_open(&fakes[0], loop, fake_answer);
    fake_open(&fakes[1], loop, fake_answer);
    memset(questions, 0, sizeof questions);
    over_count = 0;
    use(DNS_UDP, 1, 0);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    for (unsigned i = 0; i < QUESTIONS_MAX; i++) {
        dns_answer_release(questions[i].answer);
    }
    upstream_free(upstream);
    dns_servers_release(servers);
    servers = NULL;
    dns_follower_free(follower);
    follower = NULL;
    fake_close(&fakes[0]);
    fake_close(&fakes[1]);
    loop_free(loop);
    free(counters);
    assert_int_equal(harness_fd_count(), fds_before);
    return 0;
}

static void assert_answered(unsigned i)
{
    assert_true(questions[i].is_over);
    assert_int_equal(rcode_of(&questions[i]), DNS_RCODE_NOERROR);
    assert_int_equal(dns_get16(dns_answer_message(questions[i].answer).data + 6), 1);
}

static void assert_failed(unsigned i, const char *why)
{
    assert_true(questions[i].is_over);
    assert_null(questions[i].answer);
    assert_string_equal(questions[i].why, why);
}

/* ---- UDP ---- */

static void test_answer_over_udp(void **state)
{
    (void)state;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_answered(0);
    assert_int_equal(fakes[0].udp_count, 1);
    assert_int_equal(counted(DNS_COUNTER_upstream_queries), 1);
    assert_int_equal(counted(DNS_COUNTER_upstream_answers), 1);
    assert_int_equal(counted(DNS_COUNTER_wrong_answers), 0);
}

/* Not that they are random, but that they change: four ports at a time, new ones later, ids all over the place. */
static void test_ports_and_ids_change(void **state)
{
    unsigned ports = 0, ids = 0;
    (void)state;

    for (unsigned i = 0; i < 64; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
    }
    for (unsigned i = 0; i < 64; i++) {
        bool new_port = true, new_id = true;
        for (unsigned j = 0; j < i; j++) {
            new_port = new_port && fakes[0].source_ports[j] != fakes[0].source_ports[i];
            new_id = new_id && fakes[0].ids[j] != fakes[0].ids[i];
        }
        ports += new_port;
        ids += new_id;
    }
    assert_in_range(ports, 4, 64);
    assert_in_range(ids, 60, 64);
    uint16_t first = fakes[0].source_ports[0];
    harness_advance(11000); /* sockets are retired by age */
    fakes[0].udp_count = 0;
    for (unsigned i = 64; i < 128; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_int_not_equal(fakes[0].source_ports[i - 64], first);
    }
}

/* ... 400 questions use more sockets than four. */
static void test_ports_are_used_up(void **state)
{
    unsigned ports = 0;
    uint16_t seen[64];
    (void)state;

    for (unsigned round = 0; round < 8; round++) {
        fakes[0].udp_count = 0;
        over_count = 0;
        for (unsigned i = 0; i < 64; i++) {
            memset(&questions[i], 0, sizeof questions[i]);
            ask(i, "www.example", DNS_TYPE_A);
        }
        run(64);
        for (unsigned i = 0; i < 64; i++) {
            dns_answer_release(questions[i].answer);
            questions[i].answer = NULL;
            bool is_new = true;
            for (unsigned j = 0; j < ports; j++) {
                is_new = is_new && seen[j] != fakes[0].source_ports[i];
            }
            if (is_new && ports < 64) {
                seen[ports++] = fakes[0].source_ports[i];
            }
        }
    }
    assert_in_range(ports, 8, 64);
}

static void send_wrong_then_right(struct fake_query *query)
{
    draft_response(&draft, (uint16_t)(query->id ^ 1), 0, query->name, query->type); /* wrong id */
    fake_send(query, draft.bytes, draft.len);
    draft_response(&draft, query->id, 0, "other.example", query->type); /* wrong name */
    fake_send(query, draft.bytes, draft.len);
    draft_response(&draft, query->id, 0, query->name, DNS_TYPE_AAAA); /* wrong type */
    fake_send(query, draft.bytes, draft.len);
    fake_send(query, query->message, query->len); /* the query itself */
    fake_send(query, "x", 1);
    fake_send(query, "", 0);
    fake_answer(query);
}

static void test_wrong_answers_are_ignored_and_counted(void **state)
{
    (void)state;
    fakes[0].handle = send_wrong_then_right;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_answered(0);
    assert_int_equal(counted(DNS_COUNTER_wrong_answers), 6);
}

/* A datagram of another address, with all that the right one has. */
static void send_from_elsewhere(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_a(&draft, "", 300, "198.51.100.66");
    struct fake real = *query->fake;
    query->fake->udp.fd = fakes[1].udp.fd;
    fake_send(query, draft.bytes, draft.len);
    query->fake->udp.fd = real.udp.fd;
    fake_answer(query);
}

static void test_answers_of_another_source_are_ignored(void **state)
{
    (void)state;
    fakes[0].handle = send_from_elsewhere;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    struct socks6_slice message = dns_answer_message(questions[0].answer);
    assert_memory_equal(message.data + message.len - 4, ((uint8_t[]){192, 0, 2, 1}), 4);
}

static void send_nothing(struct fake_query *query)
{
    (void)query;
}

static void test_a_silent_server_is_asked_again_and_given_up(void **state)
{
    (void)state;
    fakes[0].handle = send_nothing;
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream server does not answer");
    assert_int_equal(fakes[0].udp_count, 2);
    assert_in_range(loop_now_ms(loop) - begin_ms, 4000, 4500);
    assert_int_equal(counted(DNS_COUNTER_upstream_timeouts), 2);
}

static void send_wrong_forever(struct fake_query *query)
{
    for (unsigned i = 0; i < 50; i++) {
        draft_response(&draft, (uint16_t)(query->id + 1 + i), 0, query->name, query->type);
        fake_send(query, draft.bytes, draft.len);
    }
}

static void test_wrong_answers_do_not_prolong_the_wait(void **state)
{
    (void)state;
    fakes[0].handle = send_wrong_forever;
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream server does not answer");
    assert_in_range(loop_now_ms(loop) - begin_ms, 4000, 4500);
    assert_int_equal(counted(DNS_COUNTER_wrong_answers), 100);
}

static void test_a_closed_port_fails_at_once(void **state)
{
    (void)state;
    use(DNS_UDP, 0, 1);
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream server cannot be reached");
    assert_in_range(loop_now_ms(loop) - begin_ms, 0, 500);
}

static void send_loop(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    size_t at = draft.len;
    draft_a(&draft, "", 300, "192.0.2.1");
    dns_put16(draft.bytes + at, 0xc000u | (unsigned)at);
    fake_send(query, draft.bytes, draft.len);
}

static void test_malformed_answers_end_the_try(void **state)
{
    (void)state;
    fakes[0].handle = send_loop;
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "malformed answer of the upstream server");
    assert_in_range(loop_now_ms(loop) - begin_ms, 0, 500);
    assert_int_equal(fakes[0].udp_count, 2);
}

static void reject_edns(struct fake_query *query)
{
    if (!query->edns.present) {
        fake_answer(query);
        return;
    }
    draft_response(&draft, query->id, DNS_RCODE_FORMERR, query->name, query->type);
    fake_send(query, draft.bytes, draft.len);
}

static void test_servers_without_edns_are_asked_without(void **state)
{
    (void)state;
    fakes[0].handle = reject_edns;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_answered(0);
    assert_int_equal(fakes[0].udp_count, 2);
}

/* ---- several servers ---- */

static void test_the_next_server_is_asked(void **state)
{
    (void)state;
    use(DNS_UDP, 2, 0);
    fakes[0].handle = send_nothing;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_answered(0);
    assert_int_equal(fakes[0].udp_count, 1);
    assert_int_equal(fakes[1].udp_count, 1);
}

static void test_a_dead_server_is_asked_last_for_a_while(void **state)
{
    (void)state;
    use(DNS_UDP, 2, 0);
    fakes[0].handle = send_nothing;
    for (unsigned i = 0; i < 6; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_answered(i);
    }
    assert_int_equal(fakes[0].udp_count, 3);
    assert_int_equal(fakes[1].udp_count, 6);
    harness_advance(31000);
    fakes[0].handle = fake_answer;
    for (unsigned i = 6; i < 9; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
    }
    assert_int_equal(fakes[0].udp_count, 6);
    assert_int_equal(fakes[1].udp_count, 6);
}

static unsigned refusal;

static void refuse(struct fake_query *query)
{
    draft_response(&draft, query->id, refusal, query->name, query->type);
    draft_opt(&draft, 512, 0, 0, NULL, 0);
    fake_send(query, draft.bytes, draft.len);
}

static void test_a_server_that_refuses_leaves_it_to_the_others(void **state)
{
    static const unsigned rcodes[] = {DNS_RCODE_SERVFAIL, DNS_RCODE_REFUSED, DNS_RCODE_NOTIMP};
    (void)state;

    use(DNS_UDP, 2, 0);
    fakes[0].handle = refuse;
    for (unsigned i = 0; i < 3; i++) {
        refusal = rcodes[i];
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_answered(i);
    }
    /* when none knows better, that is the answer, and nobody is asked twice */
    fakes[1].handle = refuse;
    fakes[0].udp_count = fakes[1].udp_count = 0;
    ask(3, "www.example", DNS_TYPE_A);
    run(4);
    assert_int_equal(rcode_of(&questions[3]), DNS_RCODE_NOTIMP);
    assert_int_equal(fakes[0].udp_count + fakes[1].udp_count, 2);
    /* also when the other is silent */
    fakes[1].handle = send_nothing;
    ask(4, "www.example", DNS_TYPE_A);
    run(5);
    assert_int_equal(rcode_of(&questions[4]), DNS_RCODE_NOTIMP);
}

/* ---- TCP ---- */

static void truncate_udp(struct fake_query *query)
{
    if (query->is_tcp) {
        fake_answer(query);
        return;
    }
    draft_response(&draft, query->id, DNS_FLAG_TC, query->name, query->type);
    fake_send(query, draft.bytes, draft.len);
}

static void test_truncated_answers_are_asked_for_over_tcp(void **state)
{
    (void)state;
    fakes[0].handle = truncate_udp;
    for (unsigned i = 0; i < 3; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_answered(i);
    }
    assert_int_equal(fakes[0].tcp_count, 3);
    assert_int_equal(fakes[0].connection_count, 1); /* which is kept */
    assert_int_equal(counted(DNS_COUNTER_truncated), 3);
}

static struct fake_query held[64];
static uint8_t held_messages[64][128];
static unsigned held_count;

static void hold(struct fake_query *query)
{
    assert_true(held_count < 64 && query->len <= 128);
    memcpy(held_messages[held_count], query->message, query->len);
    held[held_count] = *query;
    held[held_count].message = held_messages[held_count];
    held_count++;
    if (held_count == 64) { /* all at once, the last first */
        while (held_count > 0) {
            held[--held_count].from = query->from;
            fake_answer(&held[held_count]);
        }
    }
}

static void test_one_connection_carries_many_questions(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    held_count = 0;
    fakes[0].handle = hold;
    for (unsigned i = 0; i < 64; i++) {
        char name[] = "n00.example";
        name[1] = (char)('0' + i / 10);
        name[2] = (char)('0' + i % 10);
        ask(i, name, DNS_TYPE_A);
    }
    run(64);
    for (unsigned i = 0; i < 64; i++) {
        assert_answered(i);
        assert_int_equal(questions[i].order, 63 - i);
    }
    assert_int_equal(fakes[0].connection_count, 1);
    assert_int_equal(fakes[0].udp_count, 0);
}

static void answer_and_hang_up(struct fake_query *query)
{
    fake_answer(query);
    fake_hang_up(query);
}

static void test_a_connection_that_ended_is_made_anew(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = answer_and_hang_up;
    for (unsigned i = 0; i < 4; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_answered(i);
    }
    assert_int_equal(fakes[0].connection_count, 4);
}

/* It has worked; then it ends with a question on its way: that is sent once more, before anything counts as failed. */
static void answer_first_then_hang_up(struct fake_query *query)
{
    if (query->fake->tcp_count == 2) {
        fake_hang_up(query);
    } else {
        fake_answer(query);
    }
}

static void test_a_question_on_an_ending_connection_is_sent_again(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = answer_first_then_hang_up;
    for (unsigned i = 0; i < 2; i++) {
        ask(i, "www.example", DNS_TYPE_A);
        run(i + 1);
        assert_answered(i);
    }
    assert_int_equal(fakes[0].tcp_count, 3);
    assert_int_equal(counted(DNS_COUNTER_upstream_errors), 0);
}

static void hang_up(struct fake_query *query)
{
    fake_hang_up(query);
}

static void test_a_server_that_hangs_up_is_given_up(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = hang_up;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream connection lost");
    assert_int_equal(fakes[0].tcp_count, 2);
}

/* One byte of an answer per second, for ever. */
static struct loop_timer drip_timer;
static struct fake_query dripping;
static unsigned drops;

static void on_drip(struct loop_timer *timer)
{
    static const uint8_t bytes[] = {0xff, 0xff, 0};
    if (fakes[0].peers != NULL) {
        dripping.from = NULL;
        (void)send(fakes[0].peers->io.fd, &bytes[drops < 2 ? drops : 2], 1, MSG_NOSIGNAL);
        drops++;
    }
    loop_timer_set(loop, timer, 1000);
}

static void start_dripping(struct fake_query *query)
{
    (void)query;
    drip_timer.expired = on_drip;
    loop_timer_set(loop, &drip_timer, 1000);
}

static void test_a_slow_drip_ends_in_bounded_time(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = start_dripping;
    drops = 0;
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream server does not answer");
    assert_in_range(loop_now_ms(loop) - begin_ms, 4000, 4500);
    assert_true(drops >= 2);
    /* and the connection that only drips was given up: the next question gets a fresh one */
    fakes[0].handle = fake_answer;
    loop_timer_cancel(loop, &drip_timer);
    unsigned connections = fakes[0].connection_count;
    ask(1, "www.example", DNS_TYPE_A);
    run(2);
    assert_answered(1);
    assert_int_equal(fakes[0].connection_count, connections + 1);
}

/* Answers to questions that nobody asked, one after the other: the connection is given up. */
static void send_strangers(struct fake_query *query)
{
    for (unsigned i = 1; i <= 200; i++) {
        draft_response(&draft, (uint16_t)(query->id + i), 0, query->name, query->type);
        fake_send(query, draft.bytes, draft.len);
    }
}

static void test_a_connection_of_strange_answers_is_given_up(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = send_strangers;
    uint64_t begin_ms = loop_now_ms(loop);
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    assert_failed(0, "upstream connection lost");
    assert_in_range(loop_now_ms(loop) - begin_ms, 0, 1000);
    assert_int_equal(counted(DNS_COUNTER_wrong_answers), 200);
}

static uint8_t long_text[60000];

static void answer_long(struct fake_query *query)
{
    draft_response(&draft, query->id, 0, query->name, query->type);
    draft_record(&draft, DNS_ANSWER, "", 16, 60, long_text, sizeof long_text);
    fake_send(query, draft.bytes, draft.len);
}

static void test_a_long_answer_comes_whole(void **state)
{
    (void)state;
    use(DNS_TCP, 1, 0);
    fakes[0].handle = answer_long;
    ask(0, "www.example", 16);
    run(1);
    assert_int_equal(dns_answer_message(questions[0].answer).len, draft.len);
}

static void test_idle_connections_and_sockets_are_closed(void **state)
{
    (void)state;
    ask(0, "www.example", DNS_TYPE_A);
    run(1);
    use(DNS_TCP, 1, 0);
    ask(1, "www.example", DNS_TYPE_A);
    run(2);
    unsigned open = harness_fd_count();
    for (unsigned i = 0; i < 8; i++) {
        harness_advance(2100);
        harness_run_until_quiet(loop);
    }
    assert_int_equal(harness_fd_count(), open - 3); /* socket, connection, and its other end */
    assert_null(fakes[0].peers);
}

static void test_tls_without_settings_fails(void **state)
{
    (void)state;
    use(DNS_TLS, 1, 0); /* the fake speaks no TLS: the handshake fails, and nothing is asked in the clear */
    ask(0, "www.example", DNS_TYPE_A);
    fakes[0].handle = send_nothing;
    /* what it reads is no DNS message of sane length; it just stays silent */
    run(1);
    assert_null(questions[0].answer);
    assert_int_equal(fakes[0].tcp_count, 0);
}

/* ---- cancelling, failing ---- */

static void test_cancelled_questions_are_not_told(void **state)
{
    (void)state;
    ask(0, "www.example", DNS_TYPE_A);
    ask(1, "www.example", DNS_TYPE_A);
    upstream_cancel(questions[0].query);
    run(1);
    assert_false(questions[0].is_over);
    assert_answered(1);
    harness_run_until_quiet(loop);
    assert_int_equal(counted(DNS_COUNTER_wrong_answers), 1); /* nobody waits for that one any more */
}

static void test_freeing_drops_what_is_on_its_way(void **state)
{
    (void)state;
    fakes[0].handle = send_nothing;
    ask(0, "www.example", DNS_TYPE_A);
    use(DNS_TCP, 1, 0);
    ask(1, "www.example", DNS_TYPE_A);
    harness_run_until_quiet(loop);
    upstream_free(upstream);
    assert_int_equal(upstream_new(loop, counters, &upstream), 0);
    assert_int_equal(over_count, 0);
}

/* Whichever call fails, the question ends, and nothing stays behind. */
static void test_every_failing_call_is_survived(void **state)
{
    static const struct {
        const char *call;
        int error;
    } calls[] = {
        {"socket", EMFILE}, {"connect", ENETUNREACH}, {"epoll_ctl", ENOMEM}, {"calloc", ENOMEM}, {"malloc", ENOMEM}};
    (void)state;

    for (int transport = DNS_UDP; transport <= DNS_TCP; transport++) {
        for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
            for (unsigned n = 1; n <= 3; n++) {
                use((enum dns_transport)transport, 1, 0);
                upstream_free(upstream);
                assert_int_equal(upstream_new(loop, counters, &upstream), 0);
                over_count = 0;
                dns_answer_release(questions[0].answer);
                memset(questions, 0, sizeof questions[0]);
                struct dns_request request = question_of("www.example", 1);
                harness_fail(calls[i].call, n, calls[i].error);
                int err = upstream_ask(upstream, servers, &request, on_done, &questions[0], &questions[0].query);
                if (err == 0) {
                    run(1);
                } else {
                    assert_int_equal(err, -ENOMEM);
                }
                harness_fail(NULL, 0, 0);
            }
        }
    }
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD(test_answer_over_udp),
        WORLD(test_ports_and_ids_change),
        WORLD(test_ports_are_used_up),
        WORLD(test_wrong_answers_are_ignored_and_counted),
        WORLD(test_answers_of_another_source_are_ignored),
        WORLD(test_a_silent_server_is_asked_again_and_given_up),
        WORLD(test_wrong_answers_do_not_prolong_the_wait),
        WORLD(test_a_closed_port_fails_at_once),
        WORLD(test_malformed_answers_end_the_try),
        WORLD(test_servers_without_edns_are_asked_without),
        WORLD(test_the_next_server_is_asked),
        WORLD(test_a_dead_server_is_asked_last_for_a_while),
        WORLD(test_a_server_that_refuses_leaves_it_to_the_others),
        WORLD(test_truncated_answers_are_asked_for_over_tcp),
        WORLD(test_one_connection_carries_many_questions),
        WORLD(test_a_connection_that_ended_is_made_anew),
        WORLD(test_a_question_on_an_ending_connection_is_sent_again),
        WORLD(test_a_server_that_hangs_up_is_given_up),
        WORLD(test_a_slow_drip_ends_in_bounded_time),
        WORLD(test_a_connection_of_strange_answers_is_given_up),
        WORLD(test_a_long_answer_comes_whole),
        WORLD(test_idle_connections_and_sockets_are_closed),
        WORLD(test_tls_without_settings_fails),
        WORLD(test_cancelled_questions_are_not_told),
        WORLD(test_freeing_drops_what_is_on_its_way),
        WORLD(test_every_failing_call_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
