/*
 * resolv.conf and hosts: what is understood, what is passed over; and how changes are followed.
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dns/resolv_conf.h"
#include "dns/servers.h"
#include "support.h"

static const struct siphash_key key = {1, 2};

static struct resolv_conf parse(const char *text)
{
    struct resolv_conf conf;
    size_t len = strlen(text);
    char *exact = malloc(len == 0 ? 1 : len); /* without NUL: a read past the end is seen */
    assert_non_null(exact);
    memcpy(exact, text, len);
    resolv_conf_parse(exact, len, &conf);
    free(exact);
    return conf;
}

static void assert_server(const struct sockaddr_storage *server, const char *addr, unsigned port)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in *sin = (const void *)server;
    const struct sockaddr_in6 *sin6 = (const void *)server;

    if (server->ss_family == AF_INET) {
        assert_non_null(inet_ntop(AF_INET, &sin->sin_addr, text, sizeof text));
        assert_int_equal(ntohs(sin->sin_port), port);
    } else {
        assert_non_null(inet_ntop(AF_INET6, &sin6->sin6_addr, text, sizeof text));
        assert_int_equal(ntohs(sin6->sin6_port), port);
    }
    assert_string_equal(text, addr);
}

static void test_resolv_conf_is_understood(void **state)
{
    (void)state;
    struct resolv_conf conf = parse("# comment\n"
                                    "; comment\n"
                                    "domain example.org\n"
                                    "search a b c\n"
                                    "nameserver 192.0.2.1\n"
                                    "  nameserver\t2001:db8::1  \r\n"
                                    "nameserver fe80::1%1\n"
                                    "nameserver [2001:db8::2]:5353\n"
                                    "nameserver [127.0.0.1]:54\n"
                                    "nameserver nonsense\n"
                                    "nameserver\n"
                                    "nameserver 192.0.2.300\n"
                                    "options rotate use-vc ndots:3 edns0 timeout:7\n"
                                    "options attempts:4 unknown trust-ad");
    assert_int_equal(conf.server_count, 5);
    assert_server(&conf.servers[0], "192.0.2.1", 53);
    assert_server(&conf.servers[1], "2001:db8::1", 53);
    assert_server(&conf.servers[2], "fe80::1", 53);
    assert_int_equal(((const struct sockaddr_in6 *)(const void *)&conf.servers[2])->sin6_scope_id, 1);
    assert_server(&conf.servers[3], "2001:db8::2", 5353);
    assert_server(&conf.servers[4], "127.0.0.1", 54);
    assert_true(conf.rotate);
    assert_true(conf.use_vc);
    assert_int_equal(conf.timeout_s, 7);
    assert_int_equal(conf.attempts, 4);
}

static void test_resolv_conf_defaults_and_caps(void **state)
{
    (void)state;
    struct resolv_conf conf = parse("");
    assert_int_equal(conf.server_count, 1);
    assert_server(&conf.servers[0], "127.0.0.1", 53);
    assert_int_equal(conf.timeout_s, 5);
    assert_int_equal(conf.attempts, 2);
    assert_false(conf.rotate || conf.use_vc);

    conf = parse("options timeout:0 attempts:99\noptions timeout:x attempts:-1 timeout:\n");
    assert_int_equal(conf.timeout_s, 1);
    assert_int_equal(conf.attempts, 5);
    conf = parse("options timeout:4000000000\n#nameserver 192.0.2.1\n");
    assert_int_equal(conf.timeout_s, 30);
    assert_server(&conf.servers[0], "127.0.0.1", 53);

    static char many[1000];
    for (int i = 0; i < 20; i++) {
        char line[40];
        (void)snprintf(line, sizeof line, "nameserver 192.0.2.%d\n", i);
        strcat(many, line);
    }
    assert_int_equal(parse(many).server_count, RESOLV_CONF_SERVERS_MAX);
}

static const char hosts_text[] = "127.0.0.1 localhost\n"
                                 "# 192.0.2.9 commented\n"
                                 "192.0.2.1\ta.example  Alias.Example. # b.example\r\n"
                                 "192.0.2.2 a.example\n"
                                 "2001:db8::1 a.example six.example\n"
                                 "::ffff:192.0.2.3 mapped.example\n"
                                 "nonsense c.example\n"
                                 "192.0.2.4\n"
                                 "192.0.2.5 bad..name good.example .\n"
                                 "fe80::1%eth0 scoped.example\n"
                                 "192.0.2.6 last.example";

static size_t find(const struct hosts *hosts, const char *name, uint8_t type, char *first, bool *found)
{
    static struct socks6_addr addrs[HOSTS_ADDRESSES_MAX];
    struct dns_name wire = name_of(name);
    size_t count = hosts_find(hosts, &wire, type, addrs);

    *found = hosts_have(hosts, &wire);

    first[0] = '\0';
    if (count > 0) {
        assert_non_null(inet_ntop(type == SOCKS6_ADDR_IPV4 ? AF_INET : AF_INET6, &addrs[0].u, first, INET6_ADDRSTRLEN));
        assert_int_equal(addrs[0].type, type);
    }
    return count;
}

static void test_hosts_are_found_by_name(void **state)
{
    static const struct {
        const char *name;
        uint8_t type;
        size_t count;
        const char *first;
        bool found;
    } cases[] = {
        {"a.example", SOCKS6_ADDR_IPV4, 2, "192.0.2.1", true},
        {"A.EXAMPLE.", SOCKS6_ADDR_IPV6, 1, "2001:db8::1", true},
        {"alias.example", SOCKS6_ADDR_IPV4, 1, "192.0.2.1", true},
        {"alias.example", SOCKS6_ADDR_IPV6, 0, "", true},
        {"b.example", SOCKS6_ADDR_IPV4, 0, "", false},
        {"commented", SOCKS6_ADDR_IPV4, 0, "", false},
        {"mapped.example", SOCKS6_ADDR_IPV4, 1, "192.0.2.3", true},
        {"c.example", SOCKS6_ADDR_IPV4, 0, "", false},
        {"good.example", SOCKS6_ADDR_IPV4, 1, "192.0.2.5", true},
        {"scoped.example", SOCKS6_ADDR_IPV6, 0, "", false},
        {"last.example", SOCKS6_ADDR_IPV4, 1, "192.0.2.6", true},
        {".", SOCKS6_ADDR_IPV4, 0, "", false},
    };
    struct hosts *hosts = hosts_parse(hosts_text, sizeof hosts_text - 1, &key);
    (void)state;

    assert_non_null(hosts);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char first[INET6_ADDRSTRLEN];
        bool found;
        assert_int_equal(find(hosts, cases[i].name, cases[i].type, first, &found), cases[i].count);
        assert_string_equal(first, cases[i].first);
        assert_int_equal(found, cases[i].found);
    }
    hosts_free(hosts);
}

static void test_hosts_tell_the_other_names_of_a_line(void **state)
{
    static const char text[] =
        "192.0.2.1 one a b\n192.0.2.1 other a\n2001:db8::1 six a\n192.0.2.2 alone\n192.0.2.3 x y z";
    static const struct {
        const char *name;
        uint8_t type;
        const char *canonical, *aliases[4];
    } cases[] = {
        {"one", SOCKS6_ADDR_IPV4, "one", {"a", "b"}}, {"b", SOCKS6_ADDR_IPV4, "one", {"a", "b"}},
        {"a", SOCKS6_ADDR_IPV4, "one", {"a", "b"}},   {"a", SOCKS6_ADDR_IPV6, "six", {"a"}},
        {"alone", SOCKS6_ADDR_IPV4, "alone", {NULL}}, {"Z.", SOCKS6_ADDR_IPV4, "x", {"y", "z"}},
        {"other", SOCKS6_ADDR_IPV4, "other", {"a"}},
    };
    struct hosts *hosts = hosts_parse(text, sizeof text - 1, &key);

    (void)state;
    assert_non_null(hosts);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct dns_name name = name_of(cases[i].name), found, expected = name_of(cases[i].canonical);
        size_t at = 0;

        assert_true(hosts_canonical(hosts, &name, cases[i].type, &found));
        assert_true(dns_name_equal(&found, &expected));
        for (size_t k = 0; cases[i].aliases[k] != NULL; k++) {
            expected = name_of(cases[i].aliases[k]);
            assert_true(hosts_next_alias(hosts, &name, cases[i].type, &at, &found));
            assert_true(dns_name_equal(&found, &expected));
        }
        assert_false(hosts_next_alias(hosts, &name, cases[i].type, &at, &found));
    }
    struct dns_name none = name_of("none"), found;
    size_t at = 0;
    assert_false(hosts_next_alias(hosts, &none, SOCKS6_ADDR_IPV4, &at, &found));
    hosts_free(hosts);
}

static void test_hosts_cut_anywhere_are_read(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof hosts_text; len++) {
        char *exact = malloc(len == 0 ? 1 : len);
        memcpy(exact, hosts_text, len);
        struct hosts *hosts = hosts_parse(exact, len, &key);
        assert_non_null(hosts);
        hosts_free(hosts);
        free(exact);
    }
}

static void test_a_name_has_a_bounded_number_of_addresses(void **state)
{
    char *text = malloc(100 * 40), first[INET6_ADDRSTRLEN];
    size_t len = 0;
    bool found;
    (void)state;

    for (int i = 0; i < 100; i++) {
        len += (size_t)sprintf(text + len, "192.0.2.%d many.example\n", i);
    }
    struct hosts *hosts = hosts_parse(text, len, &key);
    assert_int_equal(find(hosts, "many.example", SOCKS6_ADDR_IPV4, first, &found), HOSTS_ADDRESSES_MAX);
    assert_string_equal(first, "192.0.2.0");
    hosts_free(hosts);
    free(text);
}

/* Names of every length, each found, and no other of the same length or of one that is not there. */
static void test_hosts_have_names_of_all_lengths(void **state)
{
    struct dns_name name = {.len = 0};
    char *text = malloc(DNS_NAME_MAX * 300);
    (void)state;

    assert_non_null(text);
    for (size_t skipped = 3; skipped <= 253; skipped += 50) {
        size_t len = 0;
        for (size_t name_len = 1; name_len <= 253; name_len++) {
            if (name_len != skipped) {
                memcpy(text + len, "192.0.2.1 ", 10);
                len += 10;
                for (size_t i = 0; i < name_len; i++) {
                    text[len++] = i % 50 == 49 && i + 1 < name_len ? '.' : 'x';
                }
                text[len++] = '\n';
            }
        }
        struct hosts *hosts = hosts_parse(text, len, &key);
        assert_non_null(hosts);
        for (size_t name_len = 1; name_len <= 253; name_len++) {
            char own[256] = {0};
            for (size_t i = 0; i < name_len; i++) {
                own[i] = i % 50 == 49 && i + 1 < name_len ? '.' : 'X';
            }
            assert_int_equal(dns_name_parse(own, &name), 0);
            assert_int_equal(hosts_have(hosts, &name), name_len != skipped);
            own[name_len - 1] = 'y';
            assert_int_equal(dns_name_parse(own, &name), 0);
            assert_false(hosts_have(hosts, &name));
        }
        hosts_free(hosts);
    }
    free(text);
}

/* ---- following ---- */

static char resolv_conf[] = "/tmp/socks6-test-resolv-XXXXXX", hosts[] = "/tmp/socks6-test-hosts-XXXXXX";

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void count_change(void *user)
{
    ++*(unsigned *)user;
}

static void test_files_are_followed(void **state)
{
    const struct dns_settings settings = {.resolv_conf = resolv_conf, .hosts = hosts};
    struct dns_servers *servers = NULL;
    struct dns_follower *follower;
    char first[INET6_ADDRSTRLEN];
    unsigned changes = 0;
    bool found;
    (void)state;

    write_file(resolv_conf, "nameserver 192.0.2.1\noptions timeout:3 rotate\n");
    write_file(hosts, "192.0.2.1 a.example\n");
    assert_int_equal(dns_follower_new(&settings, &key, count_change, &changes, &follower), 0);
    dns_follower_update(follower, 1000, &servers);
    assert_int_equal(servers->count, 1);
    assert_int_equal(servers->timeout_ms, 3000);
    assert_true(servers->rotate);

    /* within a second nobody looks */
    write_file(resolv_conf, "nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
    dns_follower_update(follower, 1999, &servers);
    assert_int_equal(servers->count, 1);
    assert_int_equal(changes, 0);
    dns_follower_update(follower, 2000, &servers);
    assert_int_equal(servers->count, 2);
    assert_server(&servers->server[1].addr, "192.0.2.3", 53);
    assert_int_equal(changes, 1);

    /* another hosts file is no other server */
    write_file(hosts, "192.0.2.77 a.example\n192.0.2.1 b.example\n");
    dns_follower_update(follower, 3000, &servers);
    assert_int_equal(find(servers->hosts, "a.example", SOCKS6_ADDR_IPV4, first, &found), 1);
    assert_string_equal(first, "192.0.2.77");
    assert_int_equal(changes, 1);

    /* a file that is gone for a moment, as editors do, changes nothing */
    assert_int_equal(unlink(hosts), 0);
    dns_follower_update(follower, 4000, &servers);
    assert_int_equal(find(servers->hosts, "a.example", SOCKS6_ADDR_IPV4, first, &found), 1);
    write_file(hosts, "192.0.2.78 a.example\n");
    dns_follower_update(follower, 5000, &servers);
    assert_int_equal(find(servers->hosts, "a.example", SOCKS6_ADDR_IPV4, first, &found), 1);
    assert_string_equal(first, "192.0.2.78");

    /* other settings: given servers, no hosts */
    const struct dns_server_setting server = {
        .transport = DNS_TCP, .addr = {.type = SOCKS6_ADDR_IPV4, .len = 4, .port = 99, .u.ipv4 = {192, 0, 2, 9}}};
    const struct dns_settings given = {
        .servers = &server, .server_count = 1, .hosts = "", .timeout_ms = 77, .attempts = 4};
    assert_int_equal(dns_follower_configure(follower, &given), 0);
    dns_follower_update(follower, 5001, &servers);
    assert_int_equal(servers->count, 1);
    assert_server(&servers->server[0].addr, "192.0.2.9", 99);
    assert_int_equal(servers->timeout_ms, 77);
    assert_int_equal(servers->attempts, 4);
    assert_null(servers->hosts);
    assert_int_equal(changes, 2);
    dns_servers_release(servers);
    dns_follower_free(follower);
}

static void test_missing_files_are_empty_ones(void **state)
{
    const struct dns_settings settings = {.resolv_conf = "/nonexistent/resolv", .hosts = "/nonexistent/hosts"};
    struct dns_servers *servers = NULL;
    struct dns_follower *follower;
    (void)state;

    assert_int_equal(dns_follower_new(&settings, &key, NULL, NULL, &follower), 0);
    dns_follower_update(follower, 0, &servers);
    assert_int_equal(servers->count, 1);
    assert_server(&servers->server[0].addr, "127.0.0.1", 53);
    dns_servers_release(servers);
    dns_follower_free(follower);
}

static int make_files(void **state)
{
    (void)state;
    int a = mkstemp(resolv_conf), b = mkstemp(hosts);
    return a < 0 || b < 0 || close(a) != 0 || close(b) != 0 ? -1 : 0;
}

static int remove_files(void **state)
{
    (void)state;
    return unlink(resolv_conf) != 0 || unlink(hosts) != 0 ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolv_conf_is_understood),
        cmocka_unit_test(test_resolv_conf_defaults_and_caps),
        cmocka_unit_test(test_hosts_are_found_by_name),
        cmocka_unit_test(test_hosts_tell_the_other_names_of_a_line),
        cmocka_unit_test(test_hosts_cut_anywhere_are_read),
        cmocka_unit_test(test_a_name_has_a_bounded_number_of_addresses),
        cmocka_unit_test(test_hosts_have_names_of_all_lengths),
        cmocka_unit_test(test_files_are_followed),
        cmocka_unit_test(test_missing_files_are_empty_ones),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
