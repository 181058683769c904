/* getaddrinfo() of the library, in this very program, with a helper that answers from a table. */
#include <arpa/inet.h>
#include <errno.h>
#include <locale.h>
#include <netdb.h>
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

/* "ADDRESS/SOCKTYPE/PORT ..." of all that was found; or the error's name. */
static const char *look_up(const char *node, const char *service, int family, int type, int flags)
{
    const struct addrinfo hints = {.ai_flags = flags, .ai_family = family, .ai_socktype = type};
    static char text[16384];
    struct addrinfo *list;
    char *end = text;
    int rc = getaddrinfo(node, service, &hints, &list);

    text[0] = '\0';
    if (rc != 0) {
        return gai_strerror(rc);
    }
    for (const struct addrinfo *it = list; it != NULL; it = it->ai_next) {
        char host[NI_MAXHOST], port[NI_MAXSERV];

        assert_int_equal(it->ai_flags, flags);
        assert_int_equal(getnameinfo(it->ai_addr, it->ai_addrlen, host, sizeof host, port, sizeof port,
                                     NI_NUMERICHOST | NI_NUMERICSERV),
                         0);
        end += snprintf(end, (size_t)(text + sizeof text - end), "%s%s/%d/%s", it == list ? "" : " ", host,
                        it->ai_socktype, port);
    }
    freeaddrinfo(list);
    return text;
}

static void test_a_name_goes_to_the_helper(void **state)
{
    (void)state;
    names_helper_forget();
    assert_string_equal(look_up("v4.test", "http", AF_UNSPEC, SOCK_STREAM, 0), "192.0.2.1/1/80");
    assert_int_equal(seen->counts[RUN_RESOLVE], 1);
    assert_string_equal((const char *)(uintptr_t)seen->text, "v4.test");
    assert_int_equal(seen->resolve.family, AF_UNSPEC);
    assert_int_equal(seen->resolve.flags, 0);
    assert_string_equal(look_up("v4.test", "7", AF_INET, 0, 0), "192.0.2.1/1/7 192.0.2.1/2/7 192.0.2.1/3/7");
    assert_int_equal(seen->resolve.family, AF_INET);
    assert_string_equal(look_up("both.test", NULL, AF_UNSPEC, SOCK_DGRAM, AI_ADDRCONFIG),
                        "2001:db8::2/2/0 192.0.2.2/2/0");
    assert_int_equal(seen->resolve.flags, RUN_RESOLVE_ADDRCONFIG);
}

static void test_without_hints_libc_has_defaults(void **state)
{
    struct addrinfo *list;

    (void)state;
    assert_int_equal(getaddrinfo("v4.test", "80", NULL, &list), 0);
    assert_int_equal(list->ai_flags, AI_V4MAPPED | AI_ADDRCONFIG);
    assert_int_equal(seen->resolve.flags, RUN_RESOLVE_ADDRCONFIG);
    assert_int_equal(seen->resolve.family, AF_UNSPEC);
    freeaddrinfo(list);
}

static void test_numbers_and_no_name_are_libc_s(void **state)
{
    (void)state;
    names_helper_forget();
    assert_string_equal(look_up("127.1", "1", AF_UNSPEC, SOCK_STREAM, 0), "127.0.0.1/1/1");
    assert_string_equal(look_up("::1", "1", AF_UNSPEC, SOCK_STREAM, 0), "::1/1/1");
    assert_string_equal(look_up(NULL, "1", AF_INET, SOCK_STREAM, AI_PASSIVE), "0.0.0.0/1/1");
    assert_string_equal(look_up("*", "1", AF_INET, SOCK_STREAM, 0), "127.0.0.1/1/1");
    assert_string_equal(look_up("v4.test", "1", AF_INET, SOCK_STREAM, AI_NUMERICHOST), gai_strerror(EAI_NONAME));
    assert_string_equal(look_up("::1", "1", AF_INET, SOCK_STREAM, 0), gai_strerror(EAI_ADDRFAMILY));
    assert_string_equal(look_up(NULL, NULL, AF_INET, SOCK_STREAM, 0), gai_strerror(EAI_NONAME));
    assert_int_equal(seen->counts[RUN_RESOLVE], 0);
}

static void test_wrong_arguments_are_told_before_anyone_is_asked(void **state)
{
    (void)state;
    names_helper_forget();
    assert_string_equal(look_up("v4.test", "nosuch", AF_INET, SOCK_STREAM, 0), gai_strerror(EAI_SERVICE));
    assert_string_equal(look_up("v4.test", "http", AF_INET, SOCK_STREAM, AI_NUMERICSERV), gai_strerror(EAI_NONAME));
    assert_string_equal(look_up("v4.test", "1", AF_UNIX, SOCK_STREAM, 0), gai_strerror(EAI_FAMILY));
    assert_string_equal(look_up("v4.test", "1", AF_INET, 77, 0), gai_strerror(EAI_SOCKTYPE));
    assert_string_equal(look_up("v4.test", "1", AF_INET, SOCK_STREAM, 1 << 20), gai_strerror(EAI_BADFLAGS));
    assert_int_equal(seen->counts[RUN_RESOLVE], 0);
}

static void test_mapped_addresses_stand_in_for_ipv6(void **state)
{
    (void)state;
    assert_string_equal(look_up("v4.test", "1", AF_INET6, SOCK_STREAM, 0), gai_strerror(EAI_NODATA));
    assert_string_equal(look_up("v4.test", "1", AF_INET6, SOCK_STREAM, AI_V4MAPPED), "::ffff:192.0.2.1/1/1");
    assert_string_equal(look_up("both.test", "1", AF_INET6, SOCK_STREAM, AI_V4MAPPED), "2001:db8::2/1/1");
    assert_string_equal(look_up("both.test", "1", AF_INET6, SOCK_STREAM, AI_V4MAPPED | AI_ALL),
                        "2001:db8::2/1/1 ::ffff:192.0.2.2/1/1");
    assert_string_equal(look_up("both.test", "1", AF_INET6, SOCK_STREAM, AI_ALL), "2001:db8::2/1/1");
}

static void test_the_first_has_the_canonical_name(void **state)
{
    const struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;

    (void)state;
    assert_int_equal(getaddrinfo("alias.test", NULL, &hints, &list), 0);
    assert_string_equal(list->ai_canonname, "real.test");
    assert_non_null(list->ai_next);
    assert_null(list->ai_next->ai_canonname);
    freeaddrinfo(list);
    assert_int_equal(getaddrinfo("in-hosts.test", NULL, &hints, &list), 0);
    assert_string_equal(list->ai_canonname, "first.test");
    freeaddrinfo(list);
}

static void test_a_scope_is_kept(void **state)
{
    struct addrinfo *list;
    struct sockaddr_in6 addr;

    (void)state;
    assert_int_equal(getaddrinfo("scope.test", NULL, NULL, &list), 0);
    memcpy(&addr, list->ai_addr, sizeof addr);
    assert_int_equal(addr.sin6_scope_id, 1);
    freeaddrinfo(list);
}

static void test_errors_are_the_helper_s(void **state)
{
    (void)state;
    assert_string_equal(look_up("nothing.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_NONAME));
    assert_string_equal(look_up("", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_NONAME));
    assert_string_equal(look_up("again.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_AGAIN));
    assert_string_equal(look_up("v6.test", "1", AF_INET, SOCK_STREAM, 0), gai_strerror(EAI_NODATA));
}

static void test_replies_without_sense_are_failures(void **state)
{
    static char longest[RUN_NAME_MAX + 2];

    (void)state;
    assert_string_equal(look_up("gone.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_AGAIN));
    assert_string_equal(look_up("short.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_FAIL));
    assert_string_equal(look_up("many-too-many.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_FAIL));
    assert_string_equal(look_up("odd.test", "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_FAIL));
    memset(longest, 'a', sizeof longest - 1);
    assert_string_equal(look_up(longest, "1", 0, SOCK_STREAM, 0), gai_strerror(EAI_NONAME));
}

static void test_many_addresses_all_arrive(void **state)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    unsigned count = 0;

    (void)state;
    assert_int_equal(getaddrinfo("many.test", "1", &hints, &list), 0);
    for (const struct addrinfo *it = list; it != NULL; it = it->ai_next) {
        count++;
    }
    assert_int_equal(count, 200);
    freeaddrinfo(list);
}

static void test_a_name_of_no_proxy_is_the_system_s(void **state)
{
    (void)state;
    names_helper_forget();
    assert_string_equal(look_up("localhost", "5", AF_INET, SOCK_STREAM, 0), "127.0.0.1/1/5");
    assert_int_equal(seen->counts[RUN_DIRECT], 1);
    assert_int_equal(seen->addr.family, AF_INET);
    assert_memory_equal((const void *)(uintptr_t)seen->addr.bytes, "\x7f\0\0\1", 4);
}

static void test_names_in_other_scripts_are_encoded(void **state)
{
    const char *found;

    (void)state;
    if (setlocale(LC_ALL, "C.UTF-8") == NULL) {
        skip();
    }
    found = look_up("b\xc3\xbc"
                    "cher.test",
                    "1", AF_INET, SOCK_STREAM, AI_IDN);
    if (strcmp(found, gai_strerror(EAI_IDN_ENCODE)) == 0) { /* libidn2 is not installed */
        skip();
    }
    assert_string_equal(found, "192.0.2.1/1/1");
    assert_string_equal((const char *)(uintptr_t)seen->text, "xn--bcher-kva.test");
}

static void test_errno_and_descriptors_are_left_alone(void **state)
{
    int before = dup(0), after;

    (void)state;
    errno = 77;
    (void)look_up("v4.test", "1", 0, SOCK_STREAM, 0);
    (void)look_up("again.test", "1", 0, SOCK_STREAM, 0);
    (void)look_up("gone.test", "1", 0, SOCK_STREAM, 0);
    assert_int_equal(close(before), 0);
    after = dup(0);
    assert_int_equal(after, before);
    assert_int_equal(close(after), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_goes_to_the_helper),
        cmocka_unit_test(test_without_hints_libc_has_defaults),
        cmocka_unit_test(test_numbers_and_no_name_are_libc_s),
        cmocka_unit_test(test_wrong_arguments_are_told_before_anyone_is_asked),
        cmocka_unit_test(test_mapped_addresses_stand_in_for_ipv6),
        cmocka_unit_test(test_the_first_has_the_canonical_name),
        cmocka_unit_test(test_a_scope_is_kept),
        cmocka_unit_test(test_errors_are_the_helper_s),
        cmocka_unit_test(test_replies_without_sense_are_failures),
        cmocka_unit_test(test_many_addresses_all_arrive),
        cmocka_unit_test(test_a_name_of_no_proxy_is_the_system_s),
        cmocka_unit_test(test_names_in_other_scripts_are_encoded),
        cmocka_unit_test(test_errno_and_descriptors_are_left_alone),
    };
    int failed;

    (void)argc;
    names_helper_run(argv);
    failed = cmocka_run_group_tests_name("preload/getaddrinfo", tests, NULL, NULL);
    names_helper_stop();
    return failed;
}
