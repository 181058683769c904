/* The gethostby* family and getnameinfo(). */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "names_helper.h"

/* "NAME (ALIAS ...) ADDRESS ..." */
static const char *describe(const struct hostent *host)
{
    static char text[16384];
    char *end = text, addr[INET6_ADDRSTRLEN];

    if (host == NULL) {
        return "NULL";
    }
    end += sprintf(end, "%s (", host->h_name);
    for (char **it = host->h_aliases; *it != NULL; it++) {
        end += sprintf(end, "%s%s", it == host->h_aliases ? "" : " ", *it);
    }
    end += sprintf(end, ")");
    for (char **it = host->h_addr_list; *it != NULL; it++) {
        end += sprintf(end, " %s", inet_ntop(host->h_addrtype, *it, addr, sizeof addr));
    }
    return text;
}

static void assert_fails(const struct hostent *host, int error)
{
    assert_null(host);
    assert_int_equal(h_errno, error);
}

static void test_names_have_addresses_and_aliases(void **state)
{
    (void)state;
    assert_string_equal(describe(gethostbyname("v4.test")), "v4.test () 192.0.2.1");
    assert_string_equal(describe(gethostbyname("v4.test.")), "NULL"); /* the helper's table has no dot */
    assert_string_equal(describe(gethostbyname("both.test")), "both.test () 192.0.2.2");
    assert_string_equal(describe(gethostbyname2("both.test", AF_INET6)), "both.test () 2001:db8::2");
    assert_string_equal(describe(gethostbyname("alias.test")), "real.test (alias.test) 192.0.2.3 192.0.2.4");
    assert_string_equal(describe(gethostbyname("in-hosts.test")), "first.test (in-hosts.test third) 192.0.2.1");
    assert_string_equal(describe(gethostbyname("www")), "www.search.test () 192.0.2.1"); /* a search domain */
}

static void test_numbers_are_not_asked_for(void **state)
{
    (void)state;
    names_helper_forget();
    assert_string_equal(describe(gethostbyname("127.1")), "127.1 () 127.0.0.1");
    assert_string_equal(describe(gethostbyname("0x7f.1")), "0x7f.1 () 127.0.0.1");
    assert_string_equal(describe(gethostbyname2("::1", AF_INET6)), "::1 () ::1");
    assert_fails(gethostbyname2("1.2.3.4", AF_INET6), HOST_NOT_FOUND);
    assert_fails(gethostbyname("::1"), HOST_NOT_FOUND);
    assert_string_equal(describe(gethostbyname2("127.1", AF_UNIX)), "127.1 () 127.0.0.1"); /* libc does it so */
    assert_int_equal(seen->counts[RUN_RESOLVE], 0);
}

static void test_failures_set_h_errno(void **state)
{
    (void)state;
    assert_fails(gethostbyname("nothing.test"), HOST_NOT_FOUND);
    assert_fails(gethostbyname("v6.test"), NO_DATA);
    assert_fails(gethostbyname("again.test"), TRY_AGAIN);
    assert_fails(gethostbyname("short.test"), NO_RECOVERY);
    assert_fails(gethostbyname2("v4.test", AF_UNIX), NO_DATA);
}

static void test_a_small_buffer_is_erange_at_any_size(void **state)
{
    struct hostent host, *result;
    size_t enough = 0;
    int error;

    (void)state;
    for (size_t len = 0; enough == 0; len++) {
        char *buf = malloc(len + 1); /* so that the sanitizer sees the end */
        int rc;

        assert_non_null(buf);
        result = &host;
        rc = gethostbyname_r("alias.test", &host, buf + 1, len, &result, &error); /* not aligned */
        if (rc == 0) {
            enough = len;
            assert_ptr_equal(result, &host);
            assert_int_equal((uintptr_t)host.h_aliases % sizeof(char *), 0);
            assert_string_equal(describe(result), "real.test (alias.test) 192.0.2.3 192.0.2.4");
        } else {
            assert_int_equal(rc, ERANGE);
            assert_int_equal(errno, ERANGE);
            assert_int_equal(error, NETDB_INTERNAL);
            assert_null(result);
        }
        free(buf);
    }
    assert_in_range(enough, 60, 200);
}

static void test_results_of_the_reentrant_forms(void **state)
{
    struct hostent host, *result = &host;
    struct in_addr addr;
    static char buf[8192];
    int error;

    (void)state;
    assert_int_equal(gethostbyname2_r("many.test", AF_INET, &host, buf, sizeof buf, &result, &error), 0);
    assert_non_null(result->h_addr_list[199]);
    assert_null(result->h_addr_list[200]);
    assert_int_equal(gethostbyname_r("nothing.test", &host, buf, sizeof buf, &result, &error), 0);
    assert_null(result);
    assert_int_equal(error, HOST_NOT_FOUND);
    assert_int_equal(gethostbyname_r("again.test", &host, buf, sizeof buf, &result, &error), EAGAIN);
    assert_int_equal(error, TRY_AGAIN);
    assert_true(inet_aton("192.0.2.3", &addr));
    assert_int_equal(gethostbyaddr_r(&addr, sizeof addr, AF_INET, &host, buf, sizeof buf, &result, &error), 0);
    assert_string_equal(describe(result), "real.test (alias.test) 192.0.2.3");
    assert_int_equal(gethostbyaddr_r(&addr, sizeof addr, AF_INET, &host, buf, 20, &result, &error), ERANGE);
}

static void test_addresses_have_names(void **state)
{
    struct in6_addr mapped;
    struct in_addr addr;

    (void)state;
    assert_true(inet_aton("192.0.2.1", &addr));
    assert_string_equal(describe(gethostbyaddr(&addr, sizeof addr, AF_INET)), "v4.test () 192.0.2.1");
    assert_fails(gethostbyaddr(&addr, sizeof addr - 1, AF_INET), NETDB_INTERNAL);
    assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped), 1);
    assert_string_equal(describe(gethostbyaddr(&mapped, sizeof mapped, AF_INET6)), "v4.test () 192.0.2.1");
    assert_true(inet_aton("192.0.2.77", &addr));
    assert_fails(gethostbyaddr(&addr, sizeof addr, AF_INET), HOST_NOT_FOUND);
    assert_true(inet_aton("192.0.2.9", &addr));
    assert_fails(gethostbyaddr(&addr, sizeof addr, AF_INET), TRY_AGAIN);
}

static void test_names_of_no_proxy_are_the_system_s(void **state)
{
    struct in_addr addr = {htonl(INADDR_LOOPBACK)};

    (void)state;
    names_helper_forget();
    assert_non_null(strstr(describe(gethostbyname("localhost")), "127.0.0.1"));
    assert_int_equal(seen->counts[RUN_DIRECT], 1);
    assert_memory_equal((const void *)(uintptr_t)seen->addr.bytes, "\x7f\0\0\1", 4);
    assert_non_null(strstr(describe(gethostbyaddr(&addr, sizeof addr, AF_INET)), "localhost"));
}

/* "RESULT HOST SERVICE" */
static const char *name_of(const char *text, int flags, socklen_t host_len)
{
    static char out[256];
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    char host[NI_MAXHOST] = "", service[NI_MAXSERV] = "";
    struct addrinfo *list;
    int rc;

    assert_int_equal(getaddrinfo(text, "512", &hints, &list), 0);
    rc = getnameinfo(list->ai_addr, list->ai_addrlen, host_len > 0 ? host : NULL, host_len, service, sizeof service,
                     flags);
    freeaddrinfo(list);
    (void)snprintf(out, sizeof out, "%d %s %s", rc, host, service);
    return out;
}

static void test_getnameinfo(void **state)
{
    (void)state;
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV, NI_MAXHOST), "0 v4.test 512");
    assert_string_equal(name_of("192.0.2.1", NI_DGRAM, NI_MAXHOST), "0 v4.test biff");
    assert_string_equal(name_of("192.0.2.1", 0, NI_MAXHOST), "0 v4.test exec");
    assert_string_equal(name_of("::ffff:192.0.2.1", NI_NUMERICSERV, NI_MAXHOST), "0 v4.test 512");
    assert_int_equal(seen->addr.family, AF_INET);
    assert_int_equal(seen->addr.port, 0);
    assert_string_equal(name_of("192.0.2.77", NI_NUMERICSERV, NI_MAXHOST), "0 192.0.2.77 512");
    assert_string_equal(name_of("192.0.2.77", NI_NUMERICSERV | NI_NAMEREQD, NI_MAXHOST), "-2  ");
    assert_string_equal(name_of("192.0.2.9", NI_NUMERICSERV, NI_MAXHOST), "-3  ");
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV, 3), "-12  ");
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV, 8), "0 v4.test 512");
    assert_string_equal(name_of("127.0.0.1", NI_NUMERICSERV, NI_MAXHOST), "0 localhost 512");
    names_helper_forget();
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICHOST | NI_NUMERICSERV, NI_MAXHOST), "0 192.0.2.1 512");
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV, 0), "0  512");
    assert_string_equal(name_of("192.0.2.1", 1 << 20, NI_MAXHOST), "-1  ");
    assert_int_equal(seen->counts[RUN_REVERSE], 0);
}

static void test_getnameinfo_without_our_own_domain(void **state)
{
    static const char name[] = "machine.test";

    (void)state;
    if (unshare(CLONE_NEWUTS) != 0 || sethostname(name, sizeof name - 1) != 0) {
        skip();
    }
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV | NI_NOFQDN, NI_MAXHOST), "0 v4 512");
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV, NI_MAXHOST), "0 v4.test 512");
    assert_int_equal(sethostname("www", 3), 0); /* it is www.search.test */
    assert_string_equal(name_of("192.0.2.1", NI_NUMERICSERV | NI_NOFQDN, NI_MAXHOST), "0 v4.test 512");
}

static void test_getnameinfo_decodes_names(void **state)
{
    (void)state;
    assert_string_equal(name_of("192.0.2.5", NI_NUMERICSERV, NI_MAXHOST), "0 xn--bcher-kva.test 512");
    assert_true(strncmp(name_of("192.0.2.5", NI_NUMERICSERV | NI_IDN, NI_MAXHOST), "0 ", 2) == 0);
}

/* libc would look up the host's name inside, where we do not see it. */
static void test_gethostid_asks_the_helper(void **state)
{
    static const char name[] = "v4.test";
    uint32_t expected = inet_addr("192.0.2.1");

    (void)state;
    if (access("/etc/hostid", F_OK) == 0 || unshare(CLONE_NEWUTS) != 0 || sethostname(name, sizeof name - 1) != 0) {
        skip();
    }
    names_helper_forget();
    assert_int_equal((uint32_t)gethostid(), expected << 16 | expected >> 16);
    assert_int_equal(seen->counts[RUN_RESOLVE], 1);
    assert_int_equal(sethostname("nothing.test", 12), 0);
    assert_int_equal(gethostid(), 0);
}

static void test_commands_of_old_are_refused(void **state)
{
    char host[] = "v4.test", *name = host;

    (void)state;
    names_helper_forget();
    errno = 0;
    assert_int_equal(rexec(&name, htons(512), "user", "password", "true", NULL), -1);
    assert_int_equal(errno, ENETUNREACH);
    assert_int_equal(rcmd(&name, htons(514), "user", "user", "true", NULL), -1);
    assert_int_equal(ruserok("v4.test", 0, "user", "user"), -1);
    assert_int_equal(iruserok(htonl(INADDR_LOOPBACK), 0, "user", "user"), -1);
    assert_int_equal(seen->counts[RUN_RESOLVE] + seen->counts[RUN_REVERSE], 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_have_addresses_and_aliases),
        cmocka_unit_test(test_numbers_are_not_asked_for),
        cmocka_unit_test(test_failures_set_h_errno),
        cmocka_unit_test(test_a_small_buffer_is_erange_at_any_size),
        cmocka_unit_test(test_results_of_the_reentrant_forms),
        cmocka_unit_test(test_addresses_have_names),
        cmocka_unit_test(test_names_of_no_proxy_are_the_system_s),
        cmocka_unit_test(test_getnameinfo),
        cmocka_unit_test(test_getnameinfo_without_our_own_domain),
        cmocka_unit_test(test_getnameinfo_decodes_names),
        cmocka_unit_test(test_gethostid_asks_the_helper),
        cmocka_unit_test(test_commands_of_old_are_refused),
    };
    int failed;

    (void)argc;
    names_helper_run(argv);
    failed = cmocka_run_group_tests_name("preload/hostent", tests, NULL, NULL);
    names_helper_stop();
    return failed;
}
