/*
 * How a TLS stream sends: many records in one call, what a socket takes only in part, and what is held back to leave with
 * an answer.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "io/tls_internal.h"
#include "io/tls_keys.h"
#include "tls_client.h"

/* One server and one client. */
struct pair {
    struct tls_files files;
    struct tls_loop *loop;
    struct tls_keys *keys;
    struct tls_server *server;
    struct tls_stream *stream;
    int fd; /* of the stream */
    struct tls_client client;
    bool is_answering; /* of the streams to come */
};

static void on_over(void *context, const struct tls_stream *stream, bool is_finished)
{
    (void)context;
    (void)stream;
    (void)is_finished;
}

static void pair_open(struct pair *pair)
{
    const struct tls_hooks hooks = {.handshake_over = on_over};
    struct tls_server_error error;
    harness_guard();
    memset(pair, 0, sizeof *pair);
    pair->fd = -1;
    tls_files_init(&pair->files);
    const struct tls_server_settings settings = {
        .certificate = pair->files.certificate, .key = pair->files.key, .early_data = true, .tls12 = true};
    assert_int_equal(tls_loop_new(&hooks, &pair->loop), 0);
    assert_int_equal(tls_keys_new(&pair->keys), 0);
    assert_int_equal(tls_server_new(&settings, &pair->server, &error), 0);
    tls_server_set_keys(pair->server, pair->keys);
    tls_client_init(&pair->client);
}

static void hang_up(struct pair *pair)
{
    tls_client_close(&pair->client);
    tls_stream_free(pair->stream);
    pair->stream = NULL;
    if (pair->fd >= 0) {
        (void)close(pair->fd);
    }
    pair->fd = -1;
}

static void pair_close(struct pair *pair)
{
    harness_send_in_bits(0);
    hang_up(pair);
    tls_client_done(&pair->client);
    tls_server_release(pair->server);
    tls_keys_release(pair->keys);
    tls_loop_free(pair->loop);
    tls_files_done(&pair->files);
}

static void dial(struct pair *pair, bool resumes)
{
    int fds[2];
    hang_up(pair);
    harness_pair(fds);
    pair->fd = fds[1];
    assert_int_equal(tls_stream_new(pair->loop, pair->server, fds[1], &pair->stream), 0);
    tls_set_answering(pair->stream, pair->is_answering);
    tls_client_connect(&pair->client, fds[0], resumes);
}

static void connect_pair(struct pair *pair, bool resumes)
{
    char byte;
    dial(pair, resumes);
    for (int i = 0; i < 200 && !tls_is_finished(pair->stream); i++) {
        (void)tls_client_goes_on(&pair->client);
        assert_int_equal(tls_recv(pair->stream, &byte, 1, false), -EAGAIN);
    }
    assert_true(tls_is_finished(pair->stream));
}

/* With early data, which has come out of the stream. */
static void dial_early(struct pair *pair)
{
    char buf[8];
    size_t written;
    dial(pair, true);
    assert_int_equal(SSL_write_early_data(pair->client.ssl, "early", 5, &written), 1);
    (void)harness_send_count();
    assert_int_equal(tls_recv(pair->stream, buf, sizeof buf, false), 5);
}

/* What the client reads at once. */
static void assert_client_gets(struct pair *pair, const char *text)
{
    char buf[64];
    assert_int_equal(tls_client_read(&pair->client, buf, sizeof buf), strlen(text));
    assert_memory_equal(buf, text, strlen(text));
}

static void forget_ticket(struct pair *pair)
{
    SSL_SESSION_free(pair->client.ticket);
    pair->client.ticket = NULL;
}

/* ---- how many calls ---- */

static void test_many_records_leave_in_one_call(void **state)
{
    static uint8_t out[TLS_OUT_TARGET], in[sizeof out];
    const int room = 4 << 20;
    struct pair pair;
    size_t got = 0;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    assert_int_equal(setsockopt(pair.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    stream_fill(1, 0, out, sizeof out);
    (void)harness_send_count();
    assert_int_equal(tls_send(pair.stream, out, sizeof out), sizeof out);
    assert_int_equal(harness_send_count(), 1);
    assert_null(pair.stream->unsent);
    while (got < sizeof out) {
        ssize_t n = tls_client_read(&pair.client, in + got, sizeof in - got);
        assert_true(n >= 0);
        got += (size_t)n;
    }
    assert_memory_equal(in, out, sizeof out);
    pair_close(&pair);
}

/* RFC 6066 section 4: records of 512 bytes. */
static void test_small_records_are_as_good(void **state)
{
    static uint8_t out[100000], in[sizeof out];
    struct pair pair;
    size_t sent = 0, got = 0;
    (void)state;
    pair_open(&pair);
    assert_int_equal(SSL_CTX_set_tlsext_max_fragment_length(pair.client.context, TLSEXT_max_fragment_length_512), 1);
    connect_pair(&pair, false);
    stream_fill(2, 0, out, sizeof out);
    harness_send_in_bits(77);
    while (got < sizeof out) {
        ssize_t n = sent < sizeof out ? tls_send(pair.stream, out + sent, sizeof out - sent) : 0;
        assert_true(n >= 0 || n == -EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
        while ((n = tls_client_read(&pair.client, in + got, sizeof in - got)) > 0) {
            got += (size_t)n;
        }
        assert_int_equal(n, 0);
    }
    assert_memory_equal(in, out, sizeof out);
    pair_close(&pair);
}

static void test_an_answer_takes_the_ticket_along(void **state)
{
    struct pair pair;
    char byte;
    (void)state;
    pair_open(&pair);
    pair.is_answering = true;
    for (int resumes = 0; resumes < 2; resumes++) {
        connect_pair(&pair, resumes);
        assert_int_equal(tls_is_resumed(pair.stream), resumes);
        forget_ticket(&pair);
        assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);
        assert_null(pair.client.ticket);
        (void)harness_send_count();
        assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
        assert_int_equal(harness_send_count(), 1);
        assert_client_gets(&pair, "answer");
        assert_non_null(pair.client.ticket);
        assert_true(SSL_SESSION_is_resumable(pair.client.ticket));
        forget_ticket(&pair);
        assert_int_equal(tls_send(pair.stream, "more", 4), 4); /* one is enough */
        assert_client_gets(&pair, "more");
        assert_null(pair.client.ticket);
        connect_pair(&pair, false);
        assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
        assert_client_gets(&pair, "answer");
    }
    /* No answer, but an end. */
    connect_pair(&pair, false);
    forget_ticket(&pair);
    (void)harness_send_count();
    assert_int_equal(tls_end(pair.stream), 0);
    assert_int_equal(harness_send_count(), 1);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), -1);
    assert_non_null(pair.client.ticket);
    pair_close(&pair);
}

static void test_a_ticket_does_not_wait_for_an_answer_that_is_not_in_sight(void **state)
{
    struct pair pair;
    char byte;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);
    assert_non_null(pair.client.ticket);

    /* The answer was sent before the client had finished. */
    pair.is_answering = true;
    dial_early(&pair);
    assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
    tls_set_answering(pair.stream, false);
    assert_true(tls_client_goes_on(&pair.client));
    forget_ticket(&pair);
    assert_client_gets(&pair, "answer");
    assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);
    assert_non_null(pair.client.ticket);
    pair_close(&pair);
}

static void test_the_answer_to_early_data_takes_the_flight_along(void **state)
{
    struct pair pair;
    char byte;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);

    dial_early(&pair); /* nobody has said that an answer follows */
    assert_int_equal(harness_send_count(), 1);
    assert_int_equal(tls_flush(pair.stream), 0);
    assert_true(tls_client_goes_on(&pair.client));
    assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);

    pair.is_answering = true;
    for (int i = 0; i < 3; i++) {
        dial_early(&pair);
        assert_int_equal(harness_send_count(), 0);
        assert_false(tls_client_goes_on(&pair.client));
        if (i == 0) {
            assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
        } else if (i == 1) {
            assert_int_equal(tls_flush(pair.stream), 0);
        } else {
            assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
        }
        assert_int_equal(harness_send_count(), 1);
        assert_null(pair.stream->unsent);
        assert_true(tls_client_goes_on(&pair.client));
        if (i > 0) {
            assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
        }
        assert_client_gets(&pair, "answer");
        assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
        assert_int_equal(tls_send(pair.stream, "more", 4), 4); /* with a ticket for the next one */
        assert_client_gets(&pair, "more");
    }
    pair_close(&pair);
}

/* The flight finds a full socket: it is sent when there is room, by tls_recv(). */
static void test_a_flight_that_was_held_survives_a_full_socket(void **state)
{
    struct pair pair;
    char byte;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    assert_int_equal(tls_client_read(&pair.client, &byte, 1), 0);
    pair.is_answering = true;
    dial_early(&pair);
    harness_fail("send", 1, EAGAIN);
    assert_int_equal(tls_flush(pair.stream), -EAGAIN);
    assert_true(tls_waits_for_room(pair.stream));
    assert_true(tls_has_more(pair.stream));
    assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
    assert_false(tls_waits_for_room(pair.stream));
    assert_true(tls_client_goes_on(&pair.client));
    assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
    assert_int_equal(tls_send(pair.stream, "answer", 6), 6);
    assert_client_gets(&pair, "answer");

    dial_early(&pair);
    harness_fail("send", 1, EPIPE);
    assert_int_equal(tls_flush(pair.stream), 0);
    assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EPIPE);
    assert_string_equal(tls_why(pair.stream), "Broken pipe");
    pair_close(&pair);
}

/* ---- what the socket takes in part ---- */

/* Amounts of every kind, each offered from another place in memory until it was taken, then the end. */
static void send_all_in_bits(struct pair *pair, uint32_t seed)
{
    static uint8_t out[3u << 20], in[sizeof out + 1];
    size_t sent = 0, got = 0, chunk = 0;
    ssize_t n = 0;
    int ended = -EAGAIN;
    stream_fill(seed, 0, out, sizeof out);
    harness_send_in_bits(seed);
    while (n != -1) {
        if (chunk == 0 && sent < sizeof out) {
            seed = seed * 1664525u + 1013904223u;
            chunk = (seed >> 8) % ((seed >> 4) % 2 == 0 ? 300000 : 2000) + 1;
            chunk = chunk < sizeof out - sent ? chunk : sizeof out - sent;
        }
        if (chunk > 0) {
            uint8_t *copy = malloc(chunk);
            assert_non_null(copy);
            memcpy(copy, out + sent, chunk);
            n = tls_send(pair->stream, copy, chunk);
            assert_true(n >= 0 || n == -EAGAIN);
            assert_true(n == (ssize_t)chunk || tls_waits_for_room(pair->stream));
            sent += n > 0 ? (size_t)n : 0;
            chunk -= n > 0 ? (size_t)n : 0;
            free(copy);
        } else if (ended != 0) {
            ended = tls_end(pair->stream);
            assert_true(ended == 0 || (ended == -EAGAIN && tls_waits_for_room(pair->stream)));
        }
        assert_true(chunk > 0 || ended != 0 || pair->stream->unsent == NULL);
        while ((n = tls_client_read(&pair->client, in + got, sizeof in - got)) > 0) {
            got += (size_t)n;
        }
        assert_in_range(-n, 0, 1);
    }
    assert_int_equal(got, sizeof out);
    assert_memory_equal(in, out, sizeof out);
    assert_int_equal(ended, 0);
    harness_send_in_bits(0);
}

static void test_bits_arrive_in_order_and_the_end_behind_them(void **state)
{
    struct pair pair;
    (void)state;
    pair_open(&pair);
    for (uint32_t seed = 1; seed <= 6; seed++) {
        if (seed == 6) {
            assert_int_equal(SSL_CTX_set_max_proto_version(pair.client.context, TLS1_2_VERSION), 1);
        }
        pair.is_answering = seed % 2 == 0;
        connect_pair(&pair, false);
        send_all_in_bits(&pair, seed);
    }
    pair_close(&pair);
}

/* Whole handshakes, with early data and without, over a socket that takes bits. */
static void test_handshakes_go_on_in_bits(void **state)
{
    struct pair pair;
    char byte, buf[8];
    size_t written;
    (void)state;
    pair_open(&pair);
    for (uint32_t seed = 1; seed <= 60; seed++) {
        bool is_early = pair.client.ticket != NULL && seed % 3 != 0;
        pair.is_answering = seed % 2 == 0;
        dial(&pair, is_early);
        if (is_early) {
            assert_int_equal(SSL_write_early_data(pair.client.ssl, "early", 5, &written), 1);
        }
        harness_send_in_bits(seed);
        bool has_early = false, has_answered = false;
        for (int i = 0; i < 300 && !(has_answered && tls_is_finished(pair.stream)); i++) {
            ssize_t n = tls_recv(pair.stream, buf, sizeof buf, false);
            assert_true(n == -EAGAIN || (n == 5 && is_early && !has_early));
            has_early |= n == 5;
            if ((has_early && seed % 4 < 2 && !has_answered) || (tls_is_finished(pair.stream) && !has_answered)) {
                n = tls_send(pair.stream, "answer", 6);
                assert_true(n == 6 || (n == -EAGAIN && tls_waits_for_room(pair.stream)));
                has_answered = n == 6;
            }
            assert_true(tls_flush(pair.stream) == 0 || tls_waits_for_room(pair.stream));
            (void)tls_client_goes_on(&pair.client);
        }
        assert_true(tls_is_finished(pair.stream));
        assert_int_equal(tls_has_early_data(pair.stream), is_early);
        assert_client_gets(&pair, "answer");
        forget_ticket(&pair);
        tls_set_answering(pair.stream, false);
        for (int i = 0; i < 300 && pair.stream->unsent != NULL; i++) {
            assert_int_equal(tls_recv(pair.stream, &byte, 1, false), -EAGAIN);
        }
        harness_send_in_bits(0);
        assert_int_equal(tls_send(pair.stream, "more", 4), 4);
        assert_client_gets(&pair, "more");
        if (pair.client.ticket == NULL) {
            connect_pair(&pair, false);
            assert_int_equal(tls_send(pair.stream, "more", 4), 4);
            assert_client_gets(&pair, "more");
        }
    }
    pair_close(&pair);
}

static void test_without_memory_for_the_rest_sending_ends(void **state)
{
    static uint8_t out[300000];
    struct pair pair;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    harness_send_in_bits(1); /* which takes a part of the first */
    ssize_t n = 0;
    for (unsigned i = 0; i < 100 && n != -ENOMEM; i++) {
        harness_fail("malloc", 1, ENOMEM);
        n = tls_send(pair.stream, out, sizeof out);
    }
    harness_fail(NULL, 0, 0);
    assert_int_equal(n, -ENOMEM);
    assert_int_equal(tls_send(pair.stream, out, 1), -ENOMEM);
    assert_int_equal(tls_end(pair.stream), -ENOMEM);
    assert_null(pair.stream->unsent);
    /* What the client says can still be read. */
    assert_int_equal(tls_client_write(&pair.client, "hello", 5), 5);
    assert_int_equal(tls_recv(pair.stream, out, sizeof out, false), 5);
    pair_close(&pair);
}

/* A reset is told by sending, and what had come before can be read. */
static void test_an_error_of_the_socket_stays(void **state)
{
    static uint8_t out[300000];
    struct pair pair;
    (void)state;
    pair_open(&pair);
    connect_pair(&pair, false);
    assert_int_equal(tls_client_write(&pair.client, "hello", 5), 5);
    harness_fail("send", 1, ECONNRESET);
    assert_int_equal(tls_send(pair.stream, out, sizeof out), -ECONNRESET);
    assert_int_equal(tls_send(pair.stream, out, sizeof out), -ECONNRESET);
    assert_int_equal(tls_end(pair.stream), -ECONNRESET);
    assert_int_equal(tls_recv(pair.stream, out, sizeof out, false), 5);
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_records_leave_in_one_call),
        cmocka_unit_test(test_small_records_are_as_good),
        cmocka_unit_test(test_an_answer_takes_the_ticket_along),
        cmocka_unit_test(test_a_ticket_does_not_wait_for_an_answer_that_is_not_in_sight),
        cmocka_unit_test(test_the_answer_to_early_data_takes_the_flight_along),
        cmocka_unit_test(test_a_flight_that_was_held_survives_a_full_socket),
        cmocka_unit_test(test_bits_arrive_in_order_and_the_end_behind_them),
        cmocka_unit_test(test_handshakes_go_on_in_bits),
        cmocka_unit_test(test_without_memory_for_the_rest_sending_ends),
        cmocka_unit_test(test_an_error_of_the_socket_stays),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
