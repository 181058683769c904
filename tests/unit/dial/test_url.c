/* Proxy URLs: what each form means, and that no message gives a password away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <socks6/dial.h>

/* Valid until the next call. */
static const struct socks6_proxy *parsed(const char *url)
{
    static struct socks6_proxy p;
    char why[256] = "";

    memset(&p, 0xee, sizeof p);
    if (socks6_proxy_parse(url, &p, why, sizeof why) != SOCKS6_OK) {
        fail_msg("%s: %s", url, why);
    }
    return &p;
}

static void assert_refused(const char *url, const char *part)
{
    static struct socks6_proxy p, before;
    char why[256] = "";

    memset(&p, 0xee, sizeof p);
    before = p;
    if (socks6_proxy_parse(url, &p, why, sizeof why) != SOCKS6_ERR_INVALID) {
        fail_msg("%s was taken", url);
    }
    assert_memory_equal(&p, &before, sizeof p);
    if (strstr(why, part) == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\"", url, why, part);
    }
}

static void assert_addr(const struct socks6_addr *addr, const char *text)
{
    char got[SOCKS6_ADDR_TEXT_MAX];

    (void)socks6_addr_format(addr, got, sizeof got);
    assert_string_equal(got, text);
}

static void test_plain_url_has_defaults(void **state)
{
    const struct socks6_proxy *p = parsed("socks6://proxy.example");

    (void)state;
    assert_int_equal(p->scheme, SOCKS6_SCHEME_SOCKS6);
    assert_int_equal(p->addr.type, SOCKS6_ADDR_NAME);
    assert_addr(&p->addr, "proxy.example:1080");
    assert_int_equal(p->has_credentials, 0);
    assert_string_equal(p->username, "");
    assert_string_equal(p->password, "");
    assert_int_equal(p->draft, SOCKS6_DRAFT_11);
}

static void test_schemes_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(parsed("SOCKS6://h")->scheme, SOCKS6_SCHEME_SOCKS6);
    assert_int_equal(parsed("socks5h://h")->scheme, SOCKS6_SCHEME_SOCKS5H);
    assert_int_equal(parsed("Socks5H://h")->scheme, SOCKS6_SCHEME_SOCKS5H);
    assert_int_equal(parsed("Socks6S://h")->scheme, SOCKS6_SCHEME_SOCKS6);
    assert_int_equal(parsed("socks6s://h")->is_tls, 1);
    assert_int_equal(parsed("socks6://h")->is_tls, 0);
    assert_refused("socks5://h", "socks5h://");
    assert_refused("http://h", "not one of");
    assert_refused("socks6x://h", "not one of");
    assert_refused("socks6:/h", "starts with");
    assert_refused("socks6:h", "starts with");
    assert_refused("://h", "starts with");
    assert_refused("6socks://h", "starts with");
    assert_refused("127.0.0.1:1080", "starts with");
    assert_refused("", "starts with");
    assert_refused(NULL, "no proxy URL");
}

static void test_hosts_become_addresses(void **state)
{
    const struct socks6_proxy *p = parsed("socks6://192.0.2.7:8000");

    (void)state;
    assert_int_equal(p->addr.type, SOCKS6_ADDR_IPV4);
    assert_addr(&p->addr, "192.0.2.7:8000");
    p = parsed("socks6://[2001:DB8::1]");
    assert_int_equal(p->addr.type, SOCKS6_ADDR_IPV6);
    assert_addr(&p->addr, "[2001:db8::1]:1080");
    p = parsed("socks5h://[::1]:9050");
    assert_addr(&p->addr, "[::1]:9050");
    p = parsed("socks6://a_b-c.d:1");
    assert_addr(&p->addr, "a_b-c.d:1");
}

static void test_ipv6_zone_is_kept_as_text(void **state)
{
    const struct socks6_proxy *p = parsed("socks6://[fe80::1%25eth0]:81");

    (void)state;
    assert_int_equal(p->addr.type, SOCKS6_ADDR_NAME);
    assert_string_equal(p->addr.u.name, "fe80::1%eth0");
    assert_int_equal(p->addr.port, 81);
    p = parsed("socks6://[fe80::1%eth0]");
    assert_string_equal(p->addr.u.name, "fe80::1%eth0");
    p = parsed("socks6://[fe80::1%25]"); /* the zone "25" */
    assert_string_equal(p->addr.u.name, "fe80::1%25");
    assert_refused("socks6://[fe80::1%]", "zone");
    assert_refused("socks6://[fe80::1%25a b]", "zone");
    assert_refused("socks6://[fe80::1%2501234567890123456]", "zone");
}

static void test_bad_hosts_are_refused(void **state)
{
    (void)state;
    assert_refused("socks6://", "host is empty");
    assert_refused("socks6://:1080", "host is empty");
    assert_refused("socks6://alice@:1080", "host is empty");
    assert_refused("socks6://[]", "host is empty");
    assert_refused("socks6://[::1", "no ']'");
    assert_refused("socks6://[::1]1080", "only ':PORT'");
    assert_refused("socks6://[192.0.2.1]", "not an IPv6 address");
    assert_refused("socks6://[1:2:3:4:5:6:7:8:9]", "not an IPv6 address");
    assert_refused("socks6://[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]", "not an IPv6 address");
    assert_refused("socks6://2001:db8::1", "brackets");
    assert_refused("socks6://192.0.2.256", "IPv4");
    assert_refused("socks6://127.1", "IPv4");
    assert_refused("socks6://a b", "character");
    assert_refused("socks6://a%20b", "character");
    assert_refused("socks6://a\nb", "character");
    assert_refused("socks6://b\xc3\xbc"
                   "cher.example",
                   "xn--");
}

static void test_longest_host_name_fits(void **state)
{
    char url[300] = "socks6://";
    size_t start = strlen(url);

    (void)state;
    memset(url + start, 'a', 255);
    assert_int_equal(parsed(url)->addr.len, 255);
    url[start + 255] = 'a';
    assert_refused(url, "longer than 255");
}

static void test_ports(void **state)
{
    (void)state;
    assert_int_equal(parsed("socks6://h:1")->addr.port, 1);
    assert_int_equal(parsed("socks6://h:65535")->addr.port, 65535);
    assert_int_equal(parsed("socks6://h:00080")->addr.port, 80);
    assert_int_equal(parsed("socks6://h:")->addr.port, 1080);
    assert_int_equal(parsed("socks6://[::1]:")->addr.port, 1080);
    assert_refused("socks6://h:0", "port");
    assert_refused("socks6://h:65536", "port");
    assert_refused("socks6://h:99999999999999999999999999", "port");
    assert_refused("socks6://h:-1", "port");
    assert_refused("socks6://h:+1", "port");
    assert_refused("socks6://h:80x", "port");
    assert_refused("socks6://h: 80", "port");
}

static void test_credentials_are_decoded(void **state)
{
    const struct socks6_proxy *p = parsed("socks6://al%69ce:p%40ss%3aw%2Frd@h:81");

    (void)state;
    assert_int_equal(p->has_credentials, 1);
    assert_string_equal(p->username, "alice");
    assert_string_equal(p->password, "p@ss:w/rd");
    assert_addr(&p->addr, "h:81");
    p = parsed("socks5h://alice@h");
    assert_int_equal(p->has_credentials, 1);
    assert_string_equal(p->username, "alice");
    assert_string_equal(p->password, "");
    p = parsed("socks6://u:a:b@h"); /* the first colon separates */
    assert_string_equal(p->password, "a:b");
    p = parsed("socks6://u:a@b@h"); /* the last '@' separates */
    assert_string_equal(p->password, "a@b");
    assert_addr(&p->addr, "h:1080");
}

static void test_bad_credentials_are_refused(void **state)
{
    (void)state;
    assert_refused("socks6://@h", "user name before the '@' is empty");
    assert_refused("socks6://:pw@h", "user name before the '@' is empty");
    assert_refused("socks6://u%@h", "user name");
    assert_refused("socks6://u:%4@h", "password");
    assert_refused("socks6://u:%g0@h", "password");
    assert_refused("socks6://u:%0g@h", "password");
    assert_refused("socks6://u%00:x@h", "NUL");
    assert_refused("socks6://u:x%00@h", "NUL");
    assert_refused("socks6://u:a/b@h", "%2F");
    assert_refused("socks6://u:a?b@h", "%3F");
    assert_refused("socks6://u:a#b@h", "%23");
}

static void test_longest_credentials_fit(void **state)
{
    char url[800] = "socks6://";
    char *at = url + strlen(url);

    (void)state;
    memset(at, 'u', 255);
    at[255] = ':';
    memset(at + 256, 'p', 255);
    strcpy(at + 511, "@h");
    assert_int_equal(strlen(parsed(url)->username), 255);
    assert_int_equal(strlen(parsed(url)->password), 255);
    strcpy(at + 511, "p@h");
    assert_refused(url, "password is longer than 255");
}

static void test_draft_parameter(void **state)
{
    (void)state;
    assert_int_equal(parsed("socks6://h?draft=8")->draft, SOCKS6_DRAFT_08);
    assert_int_equal(parsed("socks6://h:1/?draft=11")->draft, SOCKS6_DRAFT_11);
    assert_int_equal(parsed("socks6://h?draft=12")->draft, SOCKS6_DRAFT_12);
    assert_int_equal(parsed("socks6://h/")->draft, SOCKS6_DRAFT_11);
    assert_int_equal(parsed("socks6://h?")->draft, SOCKS6_DRAFT_11);
    assert_refused("socks6://h?draft=9", "8, 11 or 12");
    assert_refused("socks6://h?draft=", "8, 11 or 12");
    assert_refused("socks6://h?draft=111", "8, 11 or 12");
    assert_refused("socks6://h?draft", "unknown parameter");
    assert_refused("socks6://h?draft=8&draft=8", "twice");
    assert_refused("socks6://h?draft=8&x=1", "unknown parameter");
    assert_refused("socks5h://h?draft=8", "socks6:// and socks6s:// only");
}

static void test_tls_parameters(void **state)
{
    const struct socks6_proxy *p = parsed("socks6s://h?ca=/etc/my%20ca.pem&cert=c.pem&key=k.pem&draft=12&tls=1.2");
    char url[SOCKS6_PATH_MAX + 64] = "socks6s://h?ca=";
    size_t len = strlen(url);

    (void)state;
    assert_addr(&p->addr, "h:1443");
    assert_string_equal(p->ca, "/etc/my ca.pem");
    assert_string_equal(p->certificate, "c.pem");
    assert_string_equal(p->key, "k.pem");
    assert_int_equal(p->draft, SOCKS6_DRAFT_12);
    assert_int_equal(p->tls_1_2, 1);
    p = parsed("socks6s://a:b@h:7?tls=1.3");
    assert_addr(&p->addr, "h:7");
    assert_string_equal(p->ca, "");
    assert_int_equal(p->tls_1_2, 0);
    assert_refused("socks6s://h?ca=", "name of a file");
    assert_refused("socks6s://h?ca=a%00b", "NUL");
    assert_refused("socks6s://h?ca=a&ca=b", "ca= is given twice");
    assert_refused("socks6s://h?key=k", "key= needs cert=");
    assert_refused("socks6s://h?tls=1.1", "1.3 or 1.2");
    memset(url + len, 'x', SOCKS6_PATH_MAX);
    assert_int_equal(strlen(parsed(url)->ca), SOCKS6_PATH_MAX);
    url[len + SOCKS6_PATH_MAX] = 'x';
    assert_refused(url, "longer than 511");
}

static void test_other_parts_are_refused(void **state)
{
    (void)state;
    assert_refused("socks6://h?ca=/etc/ca.pem", "socks6s:// only");
    assert_refused("socks6://h?cert=a&key=b", "socks6s:// only");
    assert_refused("socks5h://h?key=b", "socks6s:// only");
    assert_refused("socks6://h?tls=1.2", "socks6s:// only");
    assert_refused("socks6://h?colour=red", "unknown parameter");
    assert_refused("socks6://h/path", "path");
    assert_refused("socks6://h#top", "'#'");
    assert_refused("socks6://h?draft=8#top", "'#'");
}

/* Every way to get a URL with a password wrong: the sentence must not hold it. */
static void test_no_error_gives_a_password_away(void **state)
{
    static const char *const urls[] = {
        "socks6://alice:hunter2",
        "alice:hunter2@h",
        "alice://hunter2@h",
        "hunter2://alice",
        "socks6://alice:hunter2@",
        "socks6://alice:hunter2@:1",
        "socks6://alice:hunter2@h:0",
        "socks6://alice:hunter2@h:hunter2",
        "socks6://alice:hunter2%@h",
        "socks6://alice:hunter2/x@h",
        "socks6://alice:/hunter2",
        "socks6://alice@h?hunter2",
        "socks6://alice:x?hunter2@h",
        "socks6://alice:x#hunter2@h",
        "socks6s://alice:hunter2@h?ca=",
        "http://alice:hunter2@h",
        "socks6://alice:hunter2@[h",
        "socks6://alice:hunter2@a b",
        "socks6://alice:hunter2@h?x=1",
        "socks6://alice:hunter2@h/x",
        "socks6://[hunter2]",
        "socks6://alice:hunter2@1.2.3",
        "socks6://alice:hunter2@h?draft=1",
        "socks6://hunter2 x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct socks6_proxy p;
        char why[256] = "";

        assert_int_equal(socks6_proxy_parse(urls[i], &p, why, sizeof why), SOCKS6_ERR_INVALID);
        assert_true(strlen(why) > 10);
        if (strstr(why, "hunter2") != NULL) {
            fail_msg("%s: %s", urls[i], why);
        }
    }
}

static void test_reason_is_cut_to_its_room(void **state)
{
    struct socks6_proxy p;
    char why[8] = "xxxxxxx";

    (void)state;
    assert_int_equal(socks6_proxy_parse("h", &p, why, 5), SOCKS6_ERR_INVALID);
    assert_string_equal(why, "a pr");
    assert_int_equal(why[5], 'x');
    assert_int_equal(socks6_proxy_parse("h", &p, NULL, 0), SOCKS6_ERR_INVALID);
}

/* Each beginning of a valid URL is either taken or refused with a sentence, and nothing is read past its end. */
static void test_every_cut_of_a_url_is_judged(void **state)
{
    static const char whole[] = "socks6://al%69ce:p%40ss@[fe80::1%25eth0]:1080/?draft=12";

    (void)state;
    for (size_t len = 0; len < sizeof whole; len++) {
        struct socks6_proxy p;
        char cut[sizeof whole] = "";
        char why[256] = "";

        memcpy(cut, whole, len);
        if (socks6_proxy_parse(cut, &p, why, sizeof why) != SOCKS6_OK) {
            assert_true(strlen(why) > 10);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_url_has_defaults),
        cmocka_unit_test(test_schemes_are_told_apart),
        cmocka_unit_test(test_hosts_become_addresses),
        cmocka_unit_test(test_ipv6_zone_is_kept_as_text),
        cmocka_unit_test(test_bad_hosts_are_refused),
        cmocka_unit_test(test_longest_host_name_fits),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_credentials_are_decoded),
        cmocka_unit_test(test_bad_credentials_are_refused),
        cmocka_unit_test(test_longest_credentials_fit),
        cmocka_unit_test(test_draft_parameter),
        cmocka_unit_test(test_tls_parameters),
        cmocka_unit_test(test_other_parts_are_refused),
        cmocka_unit_test(test_no_error_gives_a_password_away),
        cmocka_unit_test(test_reason_is_cut_to_its_room),
        cmocka_unit_test(test_every_cut_of_a_url_is_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
