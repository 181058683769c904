/*
 * The client's TLS against OpenSSL's server, both without a socket: what leaves when, what becomes of early data, ends and cuts,
 * and that memory may fail anywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "cli/tls_client.h"

#define EARLY_MAX 64u

/* --- memory that fails: OpenSSL's and ours --- */

static long fails_in = -1; /* allocations until one fails; below 0 = never */

static int is_due(void)
{
    return fails_in >= 0 && fails_in-- == 0;
}

static void *ssl_malloc(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return is_due() ? NULL : malloc(size);
}

static void *ssl_realloc(void *old, size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return is_due() ? NULL : realloc(old, size);
}

static void ssl_free(void *old, const char *file, int line)
{
    (void)file;
    (void)line;
    free(old);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    return is_due() ? NULL : __real_realloc(old, size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return is_due() ? NULL : __real_calloc(count, size);
}

/* --- the server --- */

static char ca_path[] = "/tmp/test-tls-client-XXXXXX";
static SSL_CTX *server_context;
static EVP_PKEY *key;

static void must(int ok)
{
    if (!ok) {
        ERR_print_errors_fp(stderr);
        abort();
    }
}

/* Self-signed for proxy.test and 192.0.2.1; its own authority. */
static X509 *make_certificate(void)
{
    X509 *x = X509_new();
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:proxy.test,IP:192.0.2.1");
    X509_EXTENSION *ca = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");

    must(x != NULL && names != NULL && ca != NULL && X509_set_version(x, 2) == 1);
    must(X509_gmtime_adj(X509_getm_notBefore(x), -60) != NULL && X509_gmtime_adj(X509_getm_notAfter(x), 3600) != NULL);
    must(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1,
                                    0) == 1);
    must(X509_set_issuer_name(x, X509_get_subject_name(x)) == 1 && X509_set_pubkey(x, key) == 1);
    must(X509_add_ext(x, names, -1) == 1 && X509_add_ext(x, ca, -1) == 1 && X509_sign(x, key, EVP_sha256()) > 0);
    X509_EXTENSION_free(names);
    X509_EXTENSION_free(ca);
    return x;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *user)
{
    (void)ssl;
    (void)user;
    must(in_len == 7 && memcmp(in, "\x06socks6", 7) == 0);
    *out = in + 1;
    *out_len = 6;
    return SSL_TLSEXT_ERR_OK;
}

static int set_up_server(void **state)
{
    X509 *certificate;
    FILE *file;
    int fd = mkstemp(ca_path);

    (void)state;
    key = EVP_EC_gen("P-256");
    server_context = SSL_CTX_new(TLS_server_method());
    must(key != NULL && server_context != NULL && fd >= 0);
    certificate = make_certificate();
    must(SSL_CTX_use_certificate(server_context, certificate) == 1 && SSL_CTX_use_PrivateKey(server_context, key) == 1);
    SSL_CTX_set_alpn_select_cb(server_context, choose_alpn, NULL);
    (void)SSL_CTX_set_max_early_data(server_context, EARLY_MAX);
    (void)SSL_CTX_set_options(server_context, SSL_OP_NO_ANTI_REPLAY);
    file = fdopen(fd, "w");
    must(file != NULL && PEM_write_X509(file, certificate) == 1);
    (void)fclose(file);
    X509_free(certificate);
    return 0;
}

static int tear_down_server(void **state)
{
    (void)state;
    SSL_CTX_free(server_context);
    EVP_PKEY_free(key);
    (void)unlink(ca_path);
    return 0;
}

/* Both ends. */
struct pair {
    struct socks6_proxy proxy;
    struct tls_client_config config;
    struct tls_client *client;
    SSL *server;
    char why[TLS_CLIENT_WHY_MAX];
    uint8_t ticket[4096];
    size_t ticket_len;
    char early[256]; /* what the server took as early data */
    size_t early_len;
    char got[4096]; /* and otherwise */
    size_t got_len;
    int is_early_over;
    size_t writes; /* of the client, each as much as there was */
};

static void on_ticket(void *user, const uint8_t *ticket, size_t len, uint64_t expires_s)
{
    struct pair *p = user;

    assert_true(expires_s > 1000000000u);
    assert_true(len <= sizeof p->ticket);
    memcpy(p->ticket, ticket, len);
    p->ticket_len = len;
}

static void pair_init(struct pair *p, const char *host)
{
    memset(p, 0, sizeof *p);
    assert_int_equal(socks6_addr_parse(host, 1443, &p->proxy.addr), 0);
    p->proxy.is_tls = 1;
    (void)snprintf(p->proxy.ca, sizeof p->proxy.ca, "%s", ca_path);
    p->config = (struct tls_client_config){.proxy = &p->proxy, .on_ticket = on_ticket, .on_ticket_user = p};
}

static int pair_start(struct pair *p)
{
    int rc = tls_client_new(&p->config, &p->client, p->why);
    long armed = fails_in;

    fails_in = -1;
    p->server = SSL_new(server_context);
    must(p->server != NULL);
    SSL_set_bio(p->server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(p->server);
    fails_in = armed;
    return rc;
}

static void pair_done(struct pair *p)
{
    tls_client_free(p->client);
    SSL_free(p->server);
    p->client = NULL;
    p->server = NULL;
}

static void server_reads(struct pair *p)
{
    size_t n = 0;

    ERR_clear_error();
    while (!p->is_early_over) {
        int rc = SSL_read_early_data(p->server, p->early + p->early_len, sizeof p->early - p->early_len, &n);

        if (rc == SSL_READ_EARLY_DATA_ERROR) {
            return;
        }
        p->early_len += n;
        p->is_early_over = rc == SSL_READ_EARLY_DATA_FINISH;
    }
    while (SSL_read_ex(p->server, p->got + p->got_len, sizeof p->got - p->got_len, &n) == 1) {
        p->got_len += n;
    }
}

/* Moves everything there is, `step` bytes at a time towards the client, until nothing moves. */
static void move(struct pair *p, size_t step)
{
    uint8_t buf[512];
    int n = 1, moved = 1;

    while (moved) {
        struct socks6_slice output = tls_client_output(p->client);
        long armed = fails_in;

        moved = output.len > 0;
        fails_in = -1; /* the server never fails */
        if (moved) {
            must(BIO_write(SSL_get_rbio(p->server), output.data, (int)output.len) == (int)output.len);
            p->writes++;
            tls_client_output_sent(p->client, output.len);
        }
        server_reads(p);
        fails_in = armed;
        while ((n = BIO_read(SSL_get_wbio(p->server), buf, (int)step)) > 0) {
            tls_client_input(p->client, (struct socks6_slice){buf, (size_t)n});
            tls_client_rest(p->client); /* also in the middle of a record, and of the handshake */
            moved = 1;
        }
    }
}

static struct socks6_slice text(const char *s)
{
    return (struct socks6_slice){(const uint8_t *)s, strlen(s)};
}

static const struct socks6_slice nothing = {NULL, 0};

static void server_says(struct pair *p, const char *s)
{
    size_t n = 0;

    must(SSL_write_ex(p->server, s, strlen(s), &n) == 1);
}

static void assert_client_gets(struct pair *p, const char *s)
{
    uint8_t buf[256];
    size_t n = tls_client_read(p->client, buf, sizeof buf);

    assert_int_equal(n, strlen(s));
    assert_memory_equal(buf, s, n);
}

/* A connection that brings a ticket. */
static void warm(struct pair *p)
{
    pair_init(p, "proxy.test");
    assert_int_equal(pair_start(p), 0);
    assert_int_equal(tls_client_write(p->client, text("x"), nothing), 0);
    move(p, sizeof p->early);
    server_says(p, "y");
    move(p, sizeof p->early);
    assert_client_gets(p, "y");
    assert_true(p->ticket_len > 0);
    pair_done(p);
    p->is_early_over = 0;
    p->early_len = p->got_len = p->writes = 0;
    p->config.ticket = (struct socks6_slice){p->ticket, p->ticket_len};
    p->config.early_data = true;
}

/* --- tests --- */

static void talk(const char *host, size_t step)
{
    static struct pair p;

    pair_init(&p, host);
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("request"), text("data")), 0); /* not before the handshake */
    move(&p, step);
    assert_true(tls_client_is_open(p.client));
    assert_int_equal(p.got_len, 0);
    assert_int_equal(tls_client_write(p.client, text("request"), text("data")), 11);
    move(&p, step);
    assert_int_equal(p.got_len, 11);
    assert_memory_equal(p.got, "requestdata", 11);
    server_says(&p, "answer");
    move(&p, step);
    assert_client_gets(&p, "answer");
    assert_int_equal(tls_client_round_trips(p.client), 1);
    assert_int_equal(tls_client_early(p.client), TLS_EARLY_NONE);
    pair_done(&p);
}

static void test_bytes_go_both_ways(void **state)
{
    (void)state;
    talk("proxy.test", 512);
    talk("proxy.test.", 512);
    talk("192.0.2.1", 512);
    talk("proxy.test", 1);
}

static void assert_refused(const char *host, const char *part)
{
    static struct pair p;

    pair_init(&p, host);
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("secret"), nothing), 0);
    move(&p, 512);
    assert_false(tls_client_is_open(p.client));
    assert_non_null(tls_client_error(p.client));
    assert_non_null(strstr(tls_client_error(p.client), part));
    assert_int_equal(tls_client_write(p.client, text("secret"), nothing), 0);
    move(&p, 512);
    assert_int_equal(p.got_len + p.early_len, 0);
    pair_done(&p);
}

static void test_another_server_gets_nothing(void **state)
{
    (void)state;
    assert_refused("other.test", "not for other.test");
    assert_refused("192.0.2.2", "not for 192.0.2.2");
}

static void test_early_data_goes_with_the_first_message(void **state)
{
    static struct pair p;

    (void)state;
    warm(&p);
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("request"), text("data")), 11);
    move(&p, 512);
    assert_int_equal(p.early_len, 11);
    assert_memory_equal(p.early, "requestdata", 11);
    assert_int_equal(tls_client_early(p.client), TLS_EARLY_ACCEPTED);
    assert_int_equal(tls_client_round_trips(p.client), 0);
    assert_int_equal(p.got_len, 0); /* and not a second time */
    assert_int_equal(tls_client_write(p.client, text("more"), nothing), 4);
    move(&p, 512);
    assert_int_equal(p.got_len, 4);
    pair_done(&p);
}

static void test_early_data_that_is_rejected_comes_once_more(void **state)
{
    static struct pair p;

    (void)state;
    warm(&p);
    (void)SSL_CTX_set_max_early_data(server_context, 0);
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("request"), text("data")), 11);
    move(&p, 512);
    (void)SSL_CTX_set_max_early_data(server_context, EARLY_MAX);
    assert_int_equal(p.early_len, 0);
    assert_int_equal(p.got_len, 11);
    assert_memory_equal(p.got, "requestdata", 11);
    assert_int_equal(tls_client_early(p.client), TLS_EARLY_REJECTED);
    assert_int_equal(tls_client_round_trips(p.client), 1);
    pair_done(&p);
}

static void test_early_data_keeps_to_what_was_allowed(void **state)
{
    static struct pair p;
    char more[EARLY_MAX + 2] = {0};

    (void)state;
    memset(more, 'x', sizeof more - 1);
    warm(&p);
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text(more), nothing), 0); /* all of it or nothing */
    move(&p, 512);
    assert_int_equal(p.early_len, 0);
    assert_true(tls_client_is_open(p.client));
    pair_done(&p);
    p.config.early_data = false;
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("request"), nothing), 0);
    pair_done(&p);
}

static void test_ticket_that_is_none_is_ignored(void **state)
{
    static struct pair p;

    (void)state;
    warm(&p);
    p.config.ticket = text("certainly not a ticket");
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, text("request"), nothing), 0);
    move(&p, 512);
    assert_true(tls_client_is_open(p.client));
    pair_done(&p);
}

static void test_each_side_ends_by_itself(void **state)
{
    static struct pair p;
    uint8_t buf[8];

    (void)state;
    pair_init(&p, "proxy.test");
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, nothing, nothing), 0);
    move(&p, 512);
    tls_client_shutdown(p.client);
    move(&p, 512);
    assert_int_equal(SSL_get_shutdown(p.server) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    server_says(&p, "late");
    move(&p, 512);
    assert_client_gets(&p, "late");
    assert_false(tls_client_is_ended(p.client));
    (void)SSL_shutdown(p.server);
    move(&p, 512);
    assert_int_equal(tls_client_read(p.client, buf, sizeof buf), 0);
    assert_true(tls_client_is_ended(p.client));
    assert_null(tls_client_error(p.client));
    pair_done(&p);
}

static void test_end_without_a_word_is_an_error(void **state)
{
    static struct pair p;
    uint8_t buf[8];

    (void)state;
    pair_init(&p, "proxy.test");
    assert_int_equal(pair_start(&p), 0);
    assert_int_equal(tls_client_write(p.client, nothing, nothing), 0);
    move(&p, 512);
    server_says(&p, "half");
    move(&p, 512);
    tls_client_input(p.client, nothing);
    assert_client_gets(&p, "half");
    assert_int_equal(tls_client_read(p.client, buf, sizeof buf), 0);
    assert_false(tls_client_is_ended(p.client));
    assert_non_null(strstr(tls_client_error(p.client), "close_notify"));
    pair_done(&p);
}

static void test_files_that_are_missing_are_named(void **state)
{
    static struct pair p;

    (void)state;
    pair_init(&p, "proxy.test");
    (void)snprintf(p.proxy.ca, sizeof p.proxy.ca, "/nonexistent");
    assert_int_equal(tls_client_new(&p.config, &p.client, p.why), -EINVAL);
    assert_non_null(strstr(p.why, "/nonexistent"));
    assert_non_null(strstr(p.why, "No such file"));
}

/* The files are read once; clients keep what they were made from. */
static void test_clients_share_what_was_read(void **state)
{
    static struct pair pairs[2];
    struct tls_context *context = NULL;
    char gone[sizeof ca_path + 8];

    (void)state;
    (void)snprintf(gone, sizeof gone, "%s.gone", ca_path);
    for (int i = 0; i < 2; i++) {
        pair_init(&pairs[i], i == 0 ? "proxy.test" : "192.0.2.1");
    }
    assert_int_equal(tls_context_new(&pairs[0].proxy, &context, pairs[0].why), 0);
    assert_int_equal(rename(ca_path, gone), 0);
    for (int i = 0; i < 2; i++) {
        pairs[i].config.context = context;
        assert_int_equal(pair_start(&pairs[i]), 0);
    }
    tls_context_release(context);
    assert_int_equal(rename(gone, ca_path), 0);
    for (int i = 0; i < 2; i++) {
        (void)tls_client_write(pairs[i].client, text("hello"), nothing);
        move(&pairs[i], 512);
        assert_true(tls_client_is_open(pairs[i].client));
        server_says(&pairs[i], "y");
        move(&pairs[i], 512);
        assert_client_gets(&pairs[i], "y");
        assert_true(pairs[i].ticket_len > 0); /* each has heard of its own */
        assert_null(tls_client_error(pairs[i].client));
    }
    pair_done(&pairs[0]);
    assert_int_equal(tls_client_write(pairs[1].client, text("still"), nothing), 5);
    pair_done(&pairs[1]);
    tls_context_release(NULL);
    (void)snprintf(pairs[0].proxy.ca, sizeof pairs[0].proxy.ca, "/nonexistent");
    assert_int_equal(tls_context_new(&pairs[0].proxy, &context, pairs[0].why), -EINVAL);
    assert_non_null(strstr(pairs[0].why, "/nonexistent"));
}

/* One conversation with early data while the n-th allocation fails: it may fail, and must not do anything worse. */
static int survive(struct pair *p, long n)
{
    uint8_t buf[16];
    int ok = 0;

    fails_in = n;
    if (pair_start(p) == 0) {
        size_t sent = tls_client_write(p->client, text("request"), nothing);

        move(p, 512);
        if (sent == 0) {
            sent = tls_client_write(p->client, text("request"), nothing);
            move(p, 512);
        }
        (void)tls_client_read(p->client, buf, sizeof buf);
        tls_client_shutdown(p->client);
        ok = sent == 7 && tls_client_error(p->client) == NULL;
        assert_true(p->early_len + p->got_len <= 7); /* never twice */
        if (ok) {
            assert_int_equal(p->early_len + p->got_len, 7);
        }
    }
    ok = ok && fails_in >= 0;
    fails_in = -1;
    pair_done(p);
    p->client = NULL;
    p->is_early_over = 0;
    p->early_len = p->got_len = 0;
    return ok;
}

static void test_memory_may_fail_anywhere(void **state)
{
    static struct pair p;
    long n = 0;

    (void)state;
    warm(&p);
    while (!survive(&p, n)) { /* until a whole conversation needs no more than n allocations */
        n += 1 + n / 50;      /* each of the first, which are ours, then fewer: most belong to OpenSSL's tables */
        assert_true(n < 20000);
    }
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_go_both_ways),
        cmocka_unit_test(test_another_server_gets_nothing),
        cmocka_unit_test(test_early_data_goes_with_the_first_message),
        cmocka_unit_test(test_early_data_that_is_rejected_comes_once_more),
        cmocka_unit_test(test_early_data_keeps_to_what_was_allowed),
        cmocka_unit_test(test_ticket_that_is_none_is_ignored),
        cmocka_unit_test(test_each_side_ends_by_itself),
        cmocka_unit_test(test_end_without_a_word_is_an_error),
        cmocka_unit_test(test_files_that_are_missing_are_named),
        cmocka_unit_test(test_clients_share_what_was_read),
        cmocka_unit_test(test_memory_may_fail_anywhere),
    };

    must(CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free) == 1);
    return cmocka_run_group_tests(tests, set_up_server, tear_down_server);
}
