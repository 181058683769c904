/*
 * The TLS server: settings from files, handshakes and what comes of them, tickets and early data, ends, back-pressure.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "harness.h"
#include "io/tls_keys.h"
#include "io/tls_server.h"
#include "io/tls_stream.h"
#include "tls_client.h"

/* One server and one client, connected or not. */
struct both {
    struct tls_files files;
    struct tls_loop *loop;
    struct tls_keys *keys;
    struct tls_server *server;
    struct tls_stream *stream;
    int fd; /* of the stream */
    struct tls_client client;
    unsigned finished, failed; /* handshakes, as the hook said */
    unsigned fds_before;
};

static void on_over(void *context, const struct tls_stream *stream, bool is_finished)
{
    struct both *both = context;
    assert_true(is_finished == tls_is_finished(stream));
    assert_true(is_finished || tls_why(stream) != NULL);
    both->finished += is_finished;
    both->failed += !is_finished;
}

/* As a reload would: other settings, the same ticket keys. */
static void serve(struct both *both, const char *client_ca, bool early_data, bool tls12)
{
    const struct tls_server_settings settings = {
        .certificate = both->files.certificate,
        .key = both->files.key,
        .client_ca = client_ca,
        .early_data = early_data,
        .tls12 = tls12,
    };
    struct tls_server_error error;
    tls_server_release(both->server);
    if (tls_server_new(&settings, &both->server, &error) != 0) {
        fail_msg("%s", error.why);
    }
    tls_server_set_keys(both->server, both->keys);
}

static void both_open(struct both *both)
{
    const struct tls_hooks hooks = {.handshake_over = on_over, .context = both};
    harness_guard();
    memset(both, 0, sizeof *both);
    both->fds_before = harness_fd_count();
    both->fd = -1;
    tls_files_init(&both->files);
    assert_int_equal(tls_loop_new(&hooks, &both->loop), 0);
    assert_int_equal(tls_keys_new(&both->keys), 0);
    serve(both, NULL, true, false);
    tls_client_init(&both->client);
}

static void hang_up(struct both *both)
{
    tls_client_close(&both->client);
    tls_stream_free(both->stream);
    both->stream = NULL;
    if (both->fd >= 0) {
        (void)close(both->fd);
    }
    both->fd = -1;
}

static void both_close(struct both *both)
{
    hang_up(both);
    tls_client_done(&both->client);
    tls_server_release(both->server);
    tls_keys_release(both->keys);
    tls_loop_free(both->loop);
    tls_files_done(&both->files);
    assert_int_equal(harness_fd_count(), both->fds_before);
}

/* A fresh connection, nothing said yet. */
static void dial(struct both *both, bool resumes)
{
    int fds[2];
    hang_up(both);
    harness_pair(fds);
    both->fd = fds[1];
    assert_int_equal(tls_stream_new(both->loop, both->server, fds[1], &both->stream), 0);
    tls_client_connect(&both->client, fds[0], resumes);
}

static ssize_t receive(struct both *both, void *buf, size_t len)
{
    return tls_recv(both->stream, buf, len, false);
}

/* Both go on until neither gets further. What the server said last of all: -EAGAIN if it is fine. */
static ssize_t shake(struct both *both)
{
    uint8_t byte;
    ssize_t n = -EAGAIN;
    for (int i = 0; i < 10 && n == -EAGAIN; i++) {
        (void)tls_client_goes_on(&both->client);
        n = receive(both, &byte, 1);
    }
    return n;
}

static void connect_both(struct both *both, bool resumes)
{
    unsigned before = both->finished;
    char byte;
    dial(both, resumes);
    assert_int_equal(shake(both), -EAGAIN);
    assert_true(tls_is_finished(both->stream));
    assert_int_equal(both->finished, before + 1);
    assert_int_equal(tls_client_read(&both->client, &byte, 1), 0);
    assert_non_null(both->client.ticket);
}

/* ---- settings ---- */

static void assert_bad(const struct tls_server_settings *settings, enum tls_server_part part, const char *why)
{
    struct tls_server_error error = {.part = TLS_SERVER_WHOLE};
    struct tls_server *server = NULL;
    assert_int_equal(tls_server_new(settings, &server, &error), -EINVAL);
    assert_null(server);
    assert_string_equal(error.why, why);
    assert_int_equal(error.part, part);
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_bad_files_are_told_apart(void **state)
{
    struct tls_files files;
    struct tls_server_settings settings;
    char other[96], text[96], missing[96], both_files[96];
    (void)state;
    tls_files_init(&files);
    tls_files_make(&files, "other", "other.test", -3600, 3600, NULL);
    tls_files_path(&files, "other.key", other);
    tls_files_path(&files, "text", text);
    tls_files_path(&files, "missing", missing);
    tls_files_write(text, "no PEM at all\n");

    settings = (struct tls_server_settings){.certificate = missing, .key = files.key};
    assert_bad(&settings, TLS_SERVER_CERTIFICATE, "cannot be read: No such file or directory");
    settings.certificate = files.dir;
    assert_bad(&settings, TLS_SERVER_CERTIFICATE, "cannot be read: Is a directory");
    settings.certificate = "/dev/zero";
    assert_bad(&settings, TLS_SERVER_CERTIFICATE, "is no regular file");
    settings.certificate = text;
    assert_bad(&settings, TLS_SERVER_CERTIFICATE, "holds no certificate in PEM form");
    settings = (struct tls_server_settings){.certificate = files.certificate, .key = missing};
    assert_bad(&settings, TLS_SERVER_KEY, "cannot be read: No such file or directory");
    settings.key = text;
    assert_bad(&settings, TLS_SERVER_KEY, "holds no private key in PEM form");
    settings.key = other;
    assert_bad(&settings, TLS_SERVER_KEY, "is not the key of the certificate");
    settings = (struct tls_server_settings){.certificate = files.certificate, .key = files.key, .client_ca = text};
    assert_bad(&settings, TLS_SERVER_CLIENT_CA, "holds no certificate in PEM form");
    settings.client_ca = missing;
    assert_bad(&settings, TLS_SERVER_CLIENT_CA, "cannot be read: No such file or directory");

    tls_files_path(&files, "cut", both_files);
    tls_files_write(both_files, "-----BEGIN CERTIFICATE-----\nMIIB\n");
    settings.client_ca = both_files;
    assert_bad(&settings, TLS_SERVER_CLIENT_CA, "holds no certificate in PEM form");
    tls_files_done(&files);
}

static void test_a_key_of_another_kind_is_not_the_certificates(void **state)
{
    struct tls_files files;
    char path[96];
    (void)state;
    tls_files_init(&files);
    EVP_PKEY *key = EVP_RSA_gen(2048);
    tls_files_path(&files, "rsa.key", path);
    BIO *out = BIO_new_file(path, "w");
    assert_int_equal(PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
    BIO_free(out);
    assert_bad(&(struct tls_server_settings){.certificate = files.certificate, .key = path}, TLS_SERVER_KEY,
               "is not the key of the certificate");
    out = BIO_new_file(path, "w");
    assert_int_equal(
        PEM_write_bio_PrivateKey(out, key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL), 1);
    BIO_free(out);
    assert_bad(&(struct tls_server_settings){.certificate = files.certificate, .key = path}, TLS_SERVER_KEY,
               "is protected by a passphrase; write one without, for this user only");
    EVP_PKEY_free(key);
    tls_files_done(&files);
}

static void test_a_certificate_out_of_its_time_is_warned_of(void **state)
{
    static const struct {
        long from_s, until_s;
        const char *warning;
    } cases[] = {{-7200, -3600, "has expired"}, {3600, 7200, "is not valid yet"}, {-3600, 3600, NULL}};
    struct tls_files files;
    (void)state;
    tls_files_init(&files);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_server_settings settings = {.certificate = files.certificate, .key = files.key};
        struct tls_server_error error;
        struct tls_server *server;
        tls_files_make(&files, "server", "x", cases[i].from_s, cases[i].until_s, NULL);
        assert_int_equal(tls_server_new(&settings, &server, &error), 0);
        assert_false(tls_server_has_client_ca(server));
        const char *warning = tls_server_warning(server, time(NULL));
        if (cases[i].warning == NULL) {
            assert_null(warning);
        } else {
            assert_string_equal(warning, cases[i].warning);
        }
        tls_server_release(server);
    }
    tls_files_done(&files);
}

/* ---- handshakes ---- */

static void test_bytes_go_both_ways(void **state)
{
    struct both both;
    char buf[100];
    (void)state;
    both_open(&both);
    dial(&both, false);
    assert_null(tls_version(both.stream));
    connect_both(&both, false);
    assert_string_equal(tls_version(both.stream), "TLSv1.3");
    assert_false(tls_is_resumed(both.stream));
    assert_false(tls_has_early_data(both.stream));
    assert_int_equal(tls_client_write(&both.client, "question", 8), 8);
    assert_int_equal(receive(&both, buf, sizeof buf), 8);
    assert_memory_equal(buf, "question", 8);
    assert_false(tls_has_more(both.stream));
    assert_int_equal(tls_send(both.stream, "answer", 6), 6);
    assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), 6);
    assert_memory_equal(buf, "answer", 6);
    assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);
    both_close(&both);
}

static void test_of_protocols_socks6_is_chosen_and_others_are_refused(void **state)
{
    static const struct {
        const char *offer;
        const char *chosen; /* NULL = refused */
    } cases[] = {
        {"\6socks6", "socks6"}, {"\2h2\6socks6\10http/1.1", "socks6"},
        {"\10http/1.1", NULL},  {"\5socks", NULL},
        {"\7socks66", NULL},    {"\6socks5", NULL},
    };
    struct both both;
    const unsigned char *chosen;
    unsigned len;
    (void)state;
    both_open(&both);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *offer = cases[i].offer;
        assert_int_equal(
            SSL_CTX_set_alpn_protos(both.client.context, (const unsigned char *)offer, (unsigned)strlen(offer)), 0);
        if (cases[i].chosen != NULL) {
            connect_both(&both, false);
            SSL_get0_alpn_selected(both.client.ssl, &chosen, &len);
            assert_int_equal(len, strlen(cases[i].chosen));
            assert_memory_equal(chosen, cases[i].chosen, len);
            continue;
        }
        dial(&both, false);
        both.failed = 0;
        assert_int_equal(shake(&both), -EPROTO);
        assert_int_equal(both.failed, 1);
        assert_string_equal(tls_why(both.stream), "no application protocol");
        assert_false(tls_client_goes_on(&both.client));
        assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL);
    }
    both_close(&both);
}

static void test_tls_12_is_taken_only_if_allowed(void **state)
{
    struct both both;
    char buf[10];
    (void)state;
    both_open(&both);
    assert_int_equal(SSL_CTX_set_max_proto_version(both.client.context, TLS1_2_VERSION), 1);
    dial(&both, false);
    assert_int_equal(shake(&both), -EPROTO);
    assert_string_equal(tls_why(both.stream), "unsupported protocol");
    assert_int_equal(tls_send(both.stream, "x", 1), -EPIPE);
    assert_int_equal(tls_end(both.stream), -EPIPE);

    serve(&both, NULL, true, true);
    for (int resumes = 0; resumes < 2; resumes++) {
        connect_both(&both, resumes);
        assert_string_equal(tls_version(both.stream), "TLSv1.2");
        assert_int_equal(tls_is_resumed(both.stream), resumes);
        assert_int_equal(tls_client_write(&both.client, "hello", 5), 5);
        assert_int_equal(receive(&both, buf, sizeof buf), 5);
    }
    /* Renegotiation is off. */
    assert_int_equal(SSL_renegotiate(both.client.ssl), 1);
    (void)tls_client_goes_on(&both.client);
    assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);
    assert_false(tls_client_goes_on(&both.client));
    assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    both_close(&both);
}

static void test_what_is_not_tls_is_named(void **state)
{
    static const struct {
        const char *bytes, *why;
    } cases[] = {
        {"\5\1", "SOCKS without TLS on a TLS listener"},
        {"\6\1", "SOCKS without TLS on a TLS listener"},
        {"\4\1", "SOCKS without TLS on a TLS listener"},
        {"GET / HTTP/1.1\r\n\r\n", "not TLS"},
        {"\26GARBAGE GARBAGE", NULL},
    };
    struct both both;
    char byte;
    (void)state;
    both_open(&both);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dial(&both, false);
        both.failed = 0;
        size_t len = strlen(cases[i].bytes);
        assert_int_equal(write(both.client.fd, cases[i].bytes, len), len);
        assert_int_equal(receive(&both, &byte, 1), -EPROTO);
        assert_int_equal(receive(&both, &byte, 1), -EPROTO); /* and stays so */
        assert_int_equal(both.failed, 1);
        if (cases[i].why != NULL) {
            assert_string_equal(tls_why(both.stream), cases[i].why);
        }
    }
    /* Who says nothing has not failed at a handshake. */
    dial(&both, false);
    both.failed = 0;
    assert_int_equal(shutdown(both.client.fd, SHUT_WR), 0);
    assert_int_equal(receive(&both, &byte, 1), -ENODATA);
    assert_int_equal(both.failed, 0);
    /* Half a ClientHello. */
    dial(&both, false);
    assert_int_equal(write(both.client.fd, "\26\3\1\1\0\1\0", 7), 7);
    assert_int_equal(receive(&both, &byte, 1), -EAGAIN);
    assert_int_equal(shutdown(both.client.fd, SHUT_WR), 0);
    assert_int_equal(receive(&both, &byte, 1), -ENODATA);
    assert_int_equal(both.failed, 1);
    assert_string_equal(tls_why(both.stream), "ended during the handshake");
    both_close(&both);
}

/* ---- tickets and early data ---- */

/* Dials with early data; what the server gets of it before the client can say more. */
static ssize_t dial_early(struct both *both, const char *text, char *buf, size_t len)
{
    size_t written = 0;
    dial(both, true);
    assert_int_equal(SSL_write_early_data(both->client.ssl, text, strlen(text), &written), 1);
    assert_int_equal(written, strlen(text));
    return receive(both, buf, len);
}

static void test_early_data_comes_before_the_client_has_been_there(void **state)
{
    struct both both;
    char buf[100];
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    for (int i = 0; i < 3; i++) { /* each connection's ticket is good for the next one */
        unsigned before = both.finished;
        assert_int_equal(dial_early(&both, "early", buf, sizeof buf), 5);
        assert_memory_equal(buf, "early", 5);
        assert_true(tls_has_early_data(both.stream));
        assert_true(tls_is_resumed(both.stream));
        assert_false(tls_is_finished(both.stream));
        assert_int_equal(both.finished, before);
        assert_string_equal(tls_version(both.stream), "TLSv1.3");
        assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);

        /* An answer in the same flight; the end must wait. */
        assert_int_equal(tls_send(both.stream, "half", 4), 4);
        assert_int_equal(tls_end(both.stream), -EAGAIN);
        assert_false(tls_waits_for_room(both.stream));
        assert_true(tls_client_goes_on(&both.client));
        assert_int_equal(SSL_get_early_data_status(both.client.ssl), SSL_EARLY_DATA_ACCEPTED);
        assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), 4);
        assert_memory_equal(buf, "half", 4);

        assert_int_equal(tls_client_write(&both.client, "late", 4), 4);
        assert_int_equal(receive(&both, buf, sizeof buf), 4);
        assert_memory_equal(buf, "late", 4);
        assert_true(tls_is_finished(both.stream));
        assert_int_equal(both.finished, before + 1);
        assert_int_equal(tls_end(both.stream), 0);
        assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), -1);
    }
    both_close(&both);
}

/* Everything that a client sent in its first flight, again: the bytes come out, and the handshake never ends. */
static void test_a_replayed_flight_never_finishes(void **state)
{
    struct both both;
    static char flight[20000];
    char buf[100];
    int fds[2];
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    dial(&both, true);
    size_t written = 0;
    assert_int_equal(SSL_write_early_data(both.client.ssl, "act!", 4, &written), 1);
    ssize_t len = read(both.fd, flight, sizeof flight); /* the recorder */
    assert_true(len > 0);
    for (int i = 0; i < 3; i++) {
        serve(&both, NULL, true, false); /* across reloads */
        hang_up(&both);
        harness_pair(fds);
        both.fd = fds[1];
        both.finished = 0;
        assert_int_equal(tls_stream_new(both.loop, both.server, fds[1], &both.stream), 0);
        assert_int_equal(write(fds[0], flight, (size_t)len), len);
        assert_int_equal(receive(&both, buf, sizeof buf), 4);
        assert_memory_equal(buf, "act!", 4);
        assert_true(tls_has_early_data(both.stream));
        assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);
        assert_false(tls_is_finished(both.stream));
        assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
        assert_int_equal(receive(&both, buf, sizeof buf), -ENODATA);
        assert_int_equal(both.finished, 0);
        (void)close(fds[0]);
    }
    both_close(&both);
}

static void test_tickets_survive_a_new_certificate(void **state)
{
    struct both both;
    char buf[10];
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    tls_files_make(&both.files, "server", "new.test", -3600, 3600, NULL);
    serve(&both, NULL, true, false);
    assert_int_equal(dial_early(&both, "early", buf, sizeof buf), 5);
    assert_true(tls_has_early_data(both.stream));
    both_close(&both);
}

static void test_early_data_is_off_where_it_is_not_wanted(void **state)
{
    struct both both;
    char buf[10];
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    serve(&both, NULL, false, false);
    assert_int_equal(dial_early(&both, "early", buf, sizeof buf), -EAGAIN); /* thrown away */
    assert_int_equal(shake(&both), -EAGAIN);
    assert_true(tls_is_resumed(both.stream));
    assert_false(tls_has_early_data(both.stream));
    assert_int_equal(SSL_get_early_data_status(both.client.ssl), SSL_EARLY_DATA_REJECTED);
    assert_int_equal(tls_client_write(&both.client, "again", 5), 5);
    assert_int_equal(receive(&both, buf, sizeof buf), 5);
    both_close(&both);
}

static void test_keys_rotate_and_old_tickets_end(void **state)
{
    struct both both;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    /* As bytes: OpenSSL's client forgets a session once a newer one has come. */
    static unsigned char first[4096];
    unsigned char *end = first;
    long first_len = i2d_SSL_SESSION(both.client.ticket, NULL);
    assert_in_range(first_len, 1, sizeof first);
    assert_int_equal(i2d_SSL_SESSION(both.client.ticket, &end), first_len);
    for (int rotations = 0; rotations < 4; rotations++) {
        SSL_SESSION_free(both.client.ticket);
        const unsigned char *at = first;
        both.client.ticket = d2i_SSL_SESSION(NULL, &at, first_len);
        connect_both(&both, true);
        assert_int_equal(tls_is_resumed(both.stream), rotations < 3);
        if (rotations < 3) { /* what is renewed is under the current key */
            assert_int_equal(tls_keys_rotate(both.keys), 0);
        }
    }
    /* By the clock: the key that sealed it is kept for two whiles more. */
    connect_both(&both, false);
    harness_advance(TLS_KEYS_ROTATE_MS - 1000);
    connect_both(&both, true);
    assert_true(tls_is_resumed(both.stream));
    harness_advance(TLS_KEYS_LIFETIME_MS + TLS_KEYS_ROTATE_MS);
    connect_both(&both, true);
    assert_false(tls_is_resumed(both.stream));
    both_close(&both);
}

static void test_without_keys_there_are_no_tickets(void **state)
{
    struct both both;
    const struct tls_server_settings *unused = NULL;
    struct tls_server_error error;
    (void)state;
    (void)unused;
    both_open(&both);
    tls_server_release(both.server);
    const struct tls_server_settings settings = {
        .certificate = both.files.certificate, .key = both.files.key, .early_data = true};
    assert_int_equal(tls_server_new(&settings, &both.server, &error), 0);
    dial(&both, false);
    assert_int_equal(shake(&both), -EAGAIN);
    assert_true(tls_is_finished(both.stream));
    char byte;
    (void)tls_client_read(&both.client, &byte, 1);
    assert_true(both.client.ticket == NULL || !SSL_SESSION_has_ticket(both.client.ticket));
    both_close(&both);
}

/* ---- certificates of clients ---- */

static void show_certificate(struct both *both, const char *prefix)
{
    char name[64], path[96];
    (void)snprintf(name, sizeof name, "%s.pem", prefix);
    tls_files_path(&both->files, name, path);
    assert_int_equal(SSL_CTX_use_certificate_file(both->client.context, path, SSL_FILETYPE_PEM), 1);
    (void)snprintf(name, sizeof name, "%s.key", prefix);
    tls_files_path(&both->files, name, path);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(both->client.context, path, SSL_FILETYPE_PEM), 1);
}

static void test_clients_must_show_a_certificate_of_the_authority(void **state)
{
    struct both both;
    char ca[96];
    (void)state;
    both_open(&both);
    tls_files_make(&both.files, "ca", "authority", -3600, 3600, NULL);
    tls_files_make(&both.files, "foreign", "foreign authority", -3600, 3600, NULL);
    tls_files_make(&both.files, "alice", "alice", -3600, 3600, "ca");
    tls_files_make(&both.files, "old", "alice", -3600, -60, "ca");
    tls_files_make(&both.files, "mallory", "alice", -3600, 3600, "foreign");
    tls_files_path(&both.files, "ca.pem", ca);

    connect_both(&both, false); /* a ticket from where none is asked for */
    serve(&both, ca, true, false);
    assert_true(tls_server_has_client_ca(both.server));
    dial(&both, true);
    assert_int_equal(shake(&both), -EPROTO);
    assert_string_equal(tls_why(both.stream), "peer did not return a certificate");

    show_certificate(&both, "mallory");
    dial(&both, false);
    assert_int_equal(shake(&both), -EPROTO);
    assert_string_equal(tls_why(both.stream), "unable to get local issuer certificate");
    show_certificate(&both, "old");
    dial(&both, false);
    assert_int_equal(shake(&both), -EPROTO);
    assert_string_equal(tls_why(both.stream), "certificate has expired");

    show_certificate(&both, "alice");
    connect_both(&both, false);
    connect_both(&both, true);
    assert_true(tls_is_resumed(both.stream));
    both_close(&both);
}

static void test_a_ticket_does_not_outlive_the_clients_certificate(void **state)
{
    struct both both;
    char ca[96], buf[10];
    (void)state;
    both_open(&both);
    tls_files_make(&both.files, "ca", "authority", -3600, 3600, NULL);
    tls_files_path(&both.files, "ca.pem", ca);
    serve(&both, ca, true, false);
    tls_files_make(&both.files, "brief", "alice", -3600, 2, "ca");
    time_t until = time(NULL) + 2;
    show_certificate(&both, "brief");
    connect_both(&both, false);
    assert_int_equal(dial_early(&both, "early", buf, sizeof buf), 5);
    while (time(NULL) <= until) {
        (void)usleep(50000);
    }
    assert_int_equal(dial_early(&both, "early", buf, sizeof buf), -EAGAIN);
    assert_int_equal(shake(&both), -EPROTO);
    assert_string_equal(tls_why(both.stream), "certificate has expired");
    both_close(&both);
}

/* ---- ends ---- */

static void test_the_end_in_order_is_told_from_a_cut(void **state)
{
    struct both both;
    char buf[10];
    (void)state;
    both_open(&both);
    for (int in_order = 0; in_order < 2; in_order++) {
        connect_both(&both, false);
        assert_int_equal(tls_client_write(&both.client, "last", 4), 4);
        if (in_order) {
            assert_int_equal(SSL_shutdown(both.client.ssl), 0);
        }
        assert_int_equal(shutdown(both.client.fd, SHUT_WR), 0);
        assert_int_equal(receive(&both, buf, sizeof buf), 4);
        if (in_order) {
            assert_true(tls_has_more(both.stream)); /* nobody needs to wait for an event */
        }
        assert_int_equal(tls_recv(both.stream, buf, sizeof buf, true), in_order ? 0 : -ENODATA);
        assert_int_equal(tls_recv(both.stream, buf, sizeof buf, true), in_order ? 0 : -ENODATA);
        if (in_order) { /* our side is open still */
            assert_int_equal(tls_send(both.stream, "answer", 6), 6);
            assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), 6);
            assert_int_equal(tls_end(both.stream), 0);
            assert_int_equal(tls_end(both.stream), 0);
            assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), -1);
        } else {
            assert_string_equal(tls_why(both.stream), "ended without close_notify");
        }
    }
    connect_both(&both, false);
    tls_client_close(&both.client);
    assert_int_equal(receive(&both, buf, sizeof buf), -ECONNRESET);
    assert_int_equal(both.failed, 0);
    both_close(&both);
}

/* ---- amounts ---- */

/* The client writes as much as goes; the server reads with a buffer of `len`. Returns how often it had more at once. */
static unsigned upload(struct both *both, size_t total, size_t len)
{
    uint8_t *out = malloc(total), *in = malloc(total + len);
    size_t written = 0, got = 0;
    unsigned more = 0;
    assert_non_null(out);
    assert_non_null(in);
    stream_fill(7, 0, out, total);
    while (got < total) {
        ssize_t n = 1;
        for (int i = 0; i < 4 && n > 0 && written < total; i++) {
            n = tls_client_write(&both->client, out + written, total - written);
            assert_true(n >= 0);
            written += (size_t)n;
        }
        do {
            n = receive(both, in + got, len);
            assert_true(n > 0 || n == -EAGAIN);
            assert_true(n <= (ssize_t)len);
            got += n > 0 ? (size_t)n : 0;
            more += n > 0 && tls_has_more(both->stream);
        } while (n > 0 && tls_has_more(both->stream));
    }
    assert_int_equal(got, total);
    assert_memory_equal(in, out, total);
    free(out);
    free(in);
    return more;
}

static void test_everything_arrives_whatever_the_buffer(void **state)
{
    static const size_t lens[] = {1, 100, 5000, 16384, 65536, 1u << 20};
    struct both both;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        unsigned more = upload(&both, lens[i] < 100 ? 50000 : 3000000, lens[i]);
        assert_true(lens[i] >= 65536 || more > 0);
    }
    both_close(&both);
}

static void test_a_full_socket_takes_up_where_it_stopped(void **state)
{
    static uint8_t out[8u << 20], in[sizeof out + 1];
    struct both both;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    stream_fill(9, 0, out, sizeof out);
    size_t sent = 0, got = 0;
    bool was_full = false;
    while (got < sizeof out) {
        ssize_t n;
        while (sent < sizeof out && (n = tls_send(both.stream, out + sent, sizeof out - sent)) != -EAGAIN) {
            assert_true(n > 0);
            sent += (size_t)n;
        }
        if (sent < sizeof out) {
            was_full = true;
            assert_true(tls_waits_for_room(both.stream));
        }
        while ((n = tls_client_read(&both.client, in + got, sizeof in - got)) > 0) {
            got += (size_t)n;
        }
        assert_int_equal(n, 0);
    }
    assert_true(was_full);
    assert_int_equal(got, sizeof out);
    assert_memory_equal(in, out, got);
    both_close(&both);
}

static void test_key_updates_are_followed_and_floods_of_them_end_it(void **state)
{
    struct both both;
    char buf[10];
    unsigned i;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    for (i = 0; i < 20; i++) {
        assert_int_equal(SSL_key_update(both.client.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(tls_client_write(&both.client, "a", 1), 1);
        assert_int_equal(receive(&both, buf, sizeof buf), 1);
        assert_int_equal(tls_send(both.stream, "b", 1), 1); /* with an update of ours */
        assert_int_equal(tls_client_read(&both.client, buf, sizeof buf), 1);
    }
    ssize_t n = -EAGAIN;
    for (i = 0; i < 100 && n == -EAGAIN; i++) {
        assert_int_equal(SSL_key_update(both.client.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        (void)tls_client_goes_on(&both.client);
        n = receive(&both, buf, sizeof buf);
    }
    assert_int_equal(n, -EPROTO);
    assert_in_range(i, 10, 20);
    assert_string_equal(tls_why(both.stream), "too many key updates");
    both_close(&both);
}

/* ---- without memory ---- */

/* OpenSSL's `fails_at`th allocation from now fails; 0 = none. */
static unsigned fails_at;

static bool fails_now(void)
{
    return fails_at != 0 && --fails_at == 0;
}

static void *lean_malloc(size_t len, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails_now() ? NULL : malloc(len);
}

static void *lean_realloc(void *old, size_t len, const char *file, int line)
{
    (void)file;
    (void)line;
    return fails_now() ? NULL : realloc(old, len);
}

static void lean_free(void *old, const char *file, int line)
{
    (void)file;
    (void)line;
    free(old);
}

static void test_settings_without_memory_are_an_error(void **state)
{
    struct both both;
    char ca[96];
    bool has_failed = true;
    (void)state;
    both_open(&both);
    tls_files_make(&both.files, "ca", "authority", -3600, 3600, NULL);
    tls_files_path(&both.files, "ca.pem", ca);
    const struct tls_server_settings settings = {
        .certificate = both.files.certificate, .key = both.files.key, .client_ca = ca, .early_data = true};
    for (unsigned n = 1; has_failed; n += n < 100 ? 1 : 1 + n / 16) {
        struct tls_server_error error = {.why = ""};
        struct tls_server *server = NULL;
        fails_at = n;
        int err = tls_server_new(&settings, &server, &error);
        has_failed = fails_at == 0;
        fails_at = 0;
        assert_true(err == 0 || err == -ENOMEM || err == -EINVAL);
        assert_true(err == 0 || (server == NULL && error.why[0] != '\0'));
        assert_true(has_failed || err == 0);
        tls_server_release(server);
    }
    both_close(&both);
}

/* Whatever fails: the stream goes on or says so, and nothing is lost or used after its end. */
static void test_connections_without_memory_end(void **state)
{
    struct both both;
    char buf[100];
    bool has_failed = true;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    for (unsigned n = 1; has_failed; n++) {
        size_t written;
        int fds[2];
        bool resumes = n % 2 == 0 && both.client.ticket != NULL && SSL_SESSION_is_resumable(both.client.ticket) != 0;
        hang_up(&both);
        harness_pair(fds);
        both.fd = fds[1];
        tls_client_connect(&both.client, fds[0], resumes);
        if (resumes) {
            (void)SSL_write_early_data(both.client.ssl, "early", 5, &written);
        }
        fails_at = n;
        int err = tls_stream_new(both.loop, both.server, fds[1], &both.stream);
        assert_true(err == 0 || err == -ENOMEM);
        if (err != 0) {
            both.stream = NULL;
        }
        ssize_t got = err == 0 ? -EAGAIN : -ENOMEM;
        for (int i = 0; i < 10 && (got == -EAGAIN || got > 0); i++) {
            unsigned left = fails_at;
            fails_at = 0;
            (void)tls_client_goes_on(&both.client);
            fails_at = left;
            got = receive(&both, buf, sizeof buf);
            if (tls_is_finished(both.stream)) {
                assert_true(tls_send(both.stream, "x", 1) != 0);
                assert_true(tls_end(both.stream) <= 0);
            }
        }
        has_failed = fails_at == 0;
        fails_at = 0;
        assert_true(got != 0);
        assert_true(has_failed || tls_is_finished(both.stream));
        (void)tls_client_read(&both.client, buf, sizeof buf);
        if (n % 16 == 0) {
            connect_both(&both, false); /* and the next one has all it needs */
        }
    }
    both_close(&both);
}

/* More of an answer than the socket takes, before the client has finished: nothing may be sent between its halves. */
static void test_an_answer_to_early_data_may_fill_the_socket(void **state)
{
    static uint8_t out[16u << 20], in[sizeof out + 1];
    struct both both;
    char buf[10];
    size_t sent = 0, got = 0;
    ssize_t n;
    (void)state;
    both_open(&both);
    connect_both(&both, false);
    assert_int_equal(dial_early(&both, "early", buf, sizeof buf), 5);
    stream_fill(5, 0, out, sizeof out);
    while ((n = tls_send(both.stream, out + sent, sizeof out - sent)) > 0) {
        sent += (size_t)n;
    }
    assert_int_equal(n, -EAGAIN);
    assert_true(tls_waits_for_room(both.stream));
    assert_false(tls_is_finished(both.stream));

    assert_true(tls_client_goes_on(&both.client)); /* it finishes */
    assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);
    assert_true(tls_waits_for_room(both.stream));
    assert_false(tls_is_finished(both.stream));
    while (got < sizeof out) {
        while ((n = tls_client_read(&both.client, in + got, sizeof in - got)) > 0) {
            got += (size_t)n;
        }
        assert_int_equal(n, 0);
        n = sent < sizeof out ? tls_send(both.stream, out + sent, sizeof out - sent) : 0;
        assert_true(n >= 0 || n == -EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
        assert_int_equal(receive(&both, buf, sizeof buf), -EAGAIN);
    }
    assert_true(tls_is_finished(both.stream));
    assert_memory_equal(in, out, sizeof out);
    both_close(&both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files_are_told_apart),
        cmocka_unit_test(test_a_key_of_another_kind_is_not_the_certificates),
        cmocka_unit_test(test_a_certificate_out_of_its_time_is_warned_of),
        cmocka_unit_test(test_bytes_go_both_ways),
        cmocka_unit_test(test_of_protocols_socks6_is_chosen_and_others_are_refused),
        cmocka_unit_test(test_tls_12_is_taken_only_if_allowed),
        cmocka_unit_test(test_what_is_not_tls_is_named),
        cmocka_unit_test(test_early_data_comes_before_the_client_has_been_there),
        cmocka_unit_test(test_a_replayed_flight_never_finishes),
        cmocka_unit_test(test_tickets_survive_a_new_certificate),
        cmocka_unit_test(test_early_data_is_off_where_it_is_not_wanted),
        cmocka_unit_test(test_keys_rotate_and_old_tickets_end),
        cmocka_unit_test(test_without_keys_there_are_no_tickets),
        cmocka_unit_test(test_clients_must_show_a_certificate_of_the_authority),
        cmocka_unit_test(test_a_ticket_does_not_outlive_the_clients_certificate),
        cmocka_unit_test(test_the_end_in_order_is_told_from_a_cut),
        cmocka_unit_test(test_everything_arrives_whatever_the_buffer),
        cmocka_unit_test(test_a_full_socket_takes_up_where_it_stopped),
        cmocka_unit_test(test_an_answer_to_early_data_may_fill_the_socket),
        cmocka_unit_test(test_key_updates_are_followed_and_floods_of_them_end_it),
        cmocka_unit_test(test_settings_without_memory_are_an_error),
        cmocka_unit_test(test_connections_without_memory_end),
    };
    if (CRYPTO_set_mem_functions(lean_malloc, lean_realloc, lean_free) != 1) {
        return 1;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
