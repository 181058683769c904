/* res_query() and its relatives: RUN_QUERY, and what the answer means. */
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <resolv.h>
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

static unsigned char answer[1024];

static const char *asked(void)
{
    return (const char *)(uintptr_t)seen->text;
}

/* The resolver's state of this thread, with search domains of our own. */
static void use_domains(char *first, char *second)
{
    assert_int_equal(res_init(), 0);
    _res.ndots = 1;
    _res.dnsrch[0] = first;
    _res.dnsrch[1] = second;
    _res.dnsrch[2] = NULL;
}

static void test_a_query_is_answered(void **state)
{
    (void)state;
    assert_int_equal(res_query("host.test", ns_c_in, ns_t_a, answer, sizeof answer), 12 + 15 + 16);
    assert_string_equal(asked(), "host.test.");
    assert_int_equal(answer[7], 1);
}

static void test_codes_become_h_errno(void **state)
{
    static const struct {
        const char *name;
        int error;
    } cases[] = {{"nx.test", HOST_NOT_FOUND},
                 {"fail.test", TRY_AGAIN},
                 {"empty.test", NO_DATA},
                 {"refused.test", NO_RECOVERY},
                 {"error.test", TRY_AGAIN}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(res_query(cases[i].name, ns_c_in, ns_t_a, answer, sizeof answer), -1);
        assert_int_equal(h_errno, cases[i].error);
    }
}

static void test_a_long_answer_is_cut_as_libc_does_it(void **state)
{
    int len;

    (void)state;
    memset(answer, 0, sizeof answer);
    len = res_query("big.test", ns_c_in, ns_t_a, answer, 100);
    assert_int_equal(len, 12 + 14 + 40 * 16); /* as over TCP */
    assert_int_equal(answer[2] & 2, 2);
    assert_int_equal(answer[100], 0);
    len = res_query("big.test", ns_c_in, ns_t_a, answer, sizeof answer);
    assert_int_equal(len, 12 + 14 + 40 * 16);
    assert_int_equal(answer[2] & 2, 0);
    memset(answer, 0, sizeof answer);
    len = res_query("host.test", ns_c_in, ns_t_a, answer, 20);
    assert_int_equal(len, 20); /* as over UDP */
    assert_int_equal(answer[2] & 2, 0);
    assert_int_equal(answer[20], 0);
}

static void test_domains_are_joined(void **state)
{
    char label[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    (void)state;
    assert_true(res_querydomain("a", "b.test", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "a.b.test.");
    assert_true(res_querydomain("c.test.", NULL, ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "c.test.");
    assert_int_equal(res_querydomain(label, "test", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(h_errno, NO_RECOVERY); /* a label of more than 63 */
}

static void test_a_search_goes_through_the_domains(void **state)
{
    static char one[] = "one.test", two[] = "two.test";

    (void)state;
    use_domains(one, two);
    names_helper_forget();
    assert_true(res_search("www", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "www.one.test.");
    assert_int_equal(seen->counts[RUN_QUERY], 1);
    assert_true(res_search("www.dots", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "www.dots."); /* as it is first */
    names_helper_forget();
    assert_int_equal(res_search("nx", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(h_errno, HOST_NOT_FOUND);
    assert_int_equal(seen->counts[RUN_QUERY], 3);
    assert_string_equal(asked(), "nx."); /* as it is last */
    names_helper_forget();
    assert_int_equal(res_search("nx.dots", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(seen->counts[RUN_QUERY], 3);
    assert_string_equal(asked(), "nx.dots.two.test.");
    names_helper_forget();
    assert_int_equal(res_search("nx.dots.", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(seen->counts[RUN_QUERY], 1);
    _res.options &= ~(unsigned long)(RES_DNSRCH | RES_DEFNAMES);
    names_helper_forget();
    assert_int_equal(res_search("nx.dots", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(seen->counts[RUN_QUERY], 1);
    _res.options |= RES_DNSRCH | RES_DEFNAMES; /* res_init() would leave them as they are */
    assert_int_equal(res_init(), 0);
}

static void test_a_search_tells_the_most_useful_error(void **state)
{
    static char one[] = "one.test", two[] = "two.test";

    (void)state;
    use_domains(one, two);
    assert_int_equal(res_search("empty", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(h_errno, NO_DATA);
    names_helper_forget();
    assert_int_equal(res_search("fail", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(h_errno, TRY_AGAIN);
    assert_int_equal(seen->counts[RUN_QUERY], 3); /* a server's failure does not end it */
    names_helper_forget();
    assert_int_equal(res_search("refused", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(seen->counts[RUN_QUERY], 2);
    assert_int_equal(h_errno, NO_RECOVERY);
    assert_int_equal(res_init(), 0);
}

static void test_host_aliases_are_read(void **state)
{
    char path[] = "/tmp/test_resolv.XXXXXX";
    static const char text[] = "other x.test\nshort long.name.test\n";
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(setenv("HOSTALIASES", path, 1), 0);
    assert_true(res_search("SHORT", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "long.name.test.");
    assert_int_equal(unsetenv("HOSTALIASES"), 0);
    assert_int_equal(unlink(path), 0);
}

static void test_messages_are_sent_as_they_are(void **state)
{
    static const unsigned char message[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\1a\4test\0\0\1\0\1";
    static unsigned char failing[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\5error\0\0\1\0\1";
    struct __res_state other = {0};

    (void)state;
    assert_int_equal(res_send(message, sizeof message - 1, answer, sizeof answer), sizeof message - 1 + 16);
    assert_memory_equal(answer, message, 2);
    assert_int_equal(res_nsend(&other, message, sizeof message - 1, answer, sizeof answer), sizeof message - 1 + 16);
    errno = 0;
    assert_int_equal(res_send(failing, sizeof failing - 1, answer, sizeof answer), -1);
    assert_int_equal(errno, ETIMEDOUT);
    assert_int_equal(res_send(message, 11, answer, sizeof answer), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(res_send(message, sizeof message - 1, answer, 11), -1);
    assert_int_equal(errno, EINVAL);
}

static void test_a_state_of_the_program_is_used(void **state)
{
    static char one[] = "own.test";
    struct __res_state own = {0};

    (void)state;
    assert_int_equal(res_ninit(&own), 0);
    own.ndots = 1;
    own.dnsrch[0] = one;
    own.dnsrch[1] = NULL;
    assert_true(res_nsearch(&own, "www", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "www.own.test.");
    assert_int_equal(res_nquery(&own, "nx.test", ns_c_in, ns_t_a, answer, sizeof answer), -1);
    assert_int_equal(own.res_h_errno, HOST_NOT_FOUND);
    assert_true(res_nquerydomain(&own, "a", "b", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    res_nclose(&own);
}

/* Programs linked with an older libc call these. */
int __res_query(const char *name, int class, int type, unsigned char *out, int size);
int __res_nsearch(struct __res_state *state, const char *name, int class, int type, unsigned char *out, int size);

static void test_old_names_are_the_same(void **state)
{
    (void)state;
    assert_true(__res_query("old.test", ns_c_in, ns_t_a, answer, sizeof answer) > 0);
    assert_string_equal(asked(), "old.test.");
    assert_ptr_equal(__res_nsearch, res_nsearch);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_query_is_answered),
        cmocka_unit_test(test_codes_become_h_errno),
        cmocka_unit_test(test_a_long_answer_is_cut_as_libc_does_it),
        cmocka_unit_test(test_domains_are_joined),
        cmocka_unit_test(test_a_search_goes_through_the_domains),
        cmocka_unit_test(test_a_search_tells_the_most_useful_error),
        cmocka_unit_test(test_host_aliases_are_read),
        cmocka_unit_test(test_messages_are_sent_as_they_are),
        cmocka_unit_test(test_a_state_of_the_program_is_used),
        cmocka_unit_test(test_old_names_are_the_same),
    };
    int failed;

    (void)argc;
    names_helper_run(argv);
    failed = cmocka_run_group_tests_name("preload/resolv", tests, NULL, NULL);
    names_helper_stop();
    return failed;
}
