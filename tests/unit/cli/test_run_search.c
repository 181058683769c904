/* Which names are asked for in which order, and which outcome is the last word: resolv.conf(5) and res_search(3). */
#include "cli/run_search.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netdb.h>

#include <cmocka.h>

static struct run_search search;

static void parse(const char *text, const char *local_domain, const char *res_options, const char *host_name)
{
    char *exact = malloc(strlen(text) + 1); /* + 1: of an empty one malloc() may give none */

    assert_non_null(exact);
    memcpy(exact, text, strlen(text));
    run_search_parse(exact, strlen(text), local_domain, res_options, host_name, &search);
    free(exact);
}

/* "ndots timeout attempts: domain domain" */
static const char *parsed(const char *text, const char *local_domain, const char *res_options, const char *host_name)
{
    static char out[4096];
    char name[DNS_NAME_MAX + 1];
    size_t len;

    parse(text, local_domain, res_options, host_name);
    len = (size_t)snprintf(out, sizeof out, "%u %u %u:", search.ndots, search.timeout_s, search.attempts);
    for (size_t i = 0; i < search.domain_count; i++) {
        (void)run_name_text(&search.domains[i], name);
        len += (size_t)snprintf(out + len, sizeof out - len, " %s", name);
    }
    return out;
}

/*
 * Every candidate gets the next outcome: N XDOMAIN, 0 for no data, S ERVFAIL, R EFUSED, F ORMERR, L OST, + for found; then "=" and the
 * last word.
 */
static const char *walked(const char *name, const char *outcomes)
{
    static const char letters[] = "+N0SRFL";
    static const enum run_outcome meanings[] = {RUN_FOUND,   RUN_NXDOMAIN, RUN_NODATA, RUN_SERVFAIL,
                                                RUN_REFUSED, RUN_BROKEN,   RUN_LOST};
    static char out[4096];
    char text[DNS_NAME_MAX + 1];
    struct run_walk walk;
    struct dns_name candidate;
    enum run_outcome outcome;
    size_t len = 0;
    bool is_over = false;

    if (!run_walk_init(&walk, &search, name)) {
        return "none";
    }
    while (!is_over && run_walk_next(&walk, &candidate)) {
        (void)run_name_text(&candidate, text);
        len += (size_t)snprintf(out + len, sizeof out - len, "%s ", text);
        assert_true(*outcomes != '\0');
        outcome = meanings[strchr(letters, *outcomes++) - letters];
        is_over = run_walk_told(&walk, outcome);
    }
    assert_string_equal(outcomes, "");
    (void)snprintf(out + len, sizeof out - len, "=%c", letters[(size_t)run_walk_outcome(&walk)]);
    return out;
}

static void test_defaults_are_those_of_the_manual(void **state)
{
    (void)state;
    assert_string_equal(parsed("", NULL, NULL, NULL), "1 5 2:");
    assert_string_equal(parsed("nameserver 192.0.2.1\n", NULL, NULL, "host"), "1 5 2:");
    assert_string_equal(parsed("", NULL, NULL, "host.corp.example"), "1 5 2: corp.example");
    assert_string_equal(parsed("", NULL, NULL, "host.bad domain"), "1 5 2:");
}

static void test_lines_and_variables_are_read(void **state)
{
    (void)state;
    assert_string_equal(parsed("search a.example b.example\n", NULL, NULL, "h.c.example"),
                        "1 5 2: a.example b.example");
    assert_string_equal(parsed("search a.example\ndomain b.example c.example\n", NULL, NULL, NULL), "1 5 2: b.example");
    assert_string_equal(parsed("domain b.example\nsearch\ta.example\t.\r\n", NULL, NULL, NULL), "1 5 2: a.example ");
    assert_string_equal(parsed("search .a.example a..b a\\.b c$d e.example.", NULL, NULL, NULL),
                        "1 5 2: a.example e.example");
    assert_string_equal(parsed("#search a.example\n search b.example\n;domain x\nsearching c\n", NULL, NULL, NULL),
                        "1 5 2:");
    assert_string_equal(parsed("options ndots:3 timeout:7 attempts:4\n", NULL, NULL, NULL), "3 7 4:");
    assert_string_equal(parsed("options ndots:99 timeout:99 attempts:99\n", NULL, NULL, NULL), "15 30 5:");
    assert_string_equal(parsed("options ndots:0 timeout:0 attempts:0\n", NULL, NULL, NULL), "0 1 1:");
    assert_string_equal(parsed("options ndots: timeout:x attempts\n", NULL, NULL, NULL), "1 5 2:");
    assert_string_equal(parsed("search a.example\noptions ndots:2\n", "x.example y.example", "ndots:4 timeout:1", NULL),
                        "4 1 2: x.example y.example");
    assert_string_equal(parsed("search a.example\n", "", NULL, "h.c.example"), "1 5 2:");
    parse("options no-tld-query\n", NULL, NULL, NULL);
    assert_true(search.no_tld_query);
}

static void test_long_input_is_bounded(void **state)
{
    static char text[200000];
    size_t len = (size_t)snprintf(text, sizeof text, "search");

    (void)state;
    for (int i = 0; i < 1000; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, " d%d.example", i);
    }
    parse(text, NULL, NULL, NULL);
    assert_int_equal(search.domain_count, RUN_SEARCH_DOMAINS_MAX);
    memset(text, 'a', sizeof text - 1);
    memcpy(text, "search ", 7);
    parse(text, NULL, NULL, NULL);
    assert_int_equal(search.domain_count, 0);
}

static void test_text_cut_anywhere_is_read(void **state)
{
    static const char text[] = "search a.example b.example\noptions ndots:2 timeout:3\n# x\ndomain c\n";
    char cut[sizeof text];

    (void)state;
    for (size_t len = 0; len < sizeof text; len++) {
        memcpy(cut, text, len);
        cut[len] = '\0';
        parse(cut, NULL, NULL, NULL);
        assert_true(search.domain_count <= 2);
    }
}

static void test_candidates_come_as_libc_has_them(void **state)
{
    (void)state;
    parse("search a.example b.example\n", NULL, NULL, NULL);
    assert_string_equal(walked("www", "NN+"), "www.a.example www.b.example www =+");
    assert_string_equal(walked("www", "+"), "www.a.example =+");
    assert_string_equal(walked("www.", "N"), "www =N");
    assert_string_equal(walked("www.x", "+"), "www.x =+");
    assert_string_equal(walked("www.x", "NN+"), "www.x www.x.a.example www.x.b.example =+");
    assert_string_equal(walked("www.x.", "N"), "www.x =N");
    parse("search a.example\noptions ndots:3\n", NULL, NULL, NULL);
    assert_string_equal(walked("www.x.y", "NN"), "www.x.y.a.example www.x.y =N");
    parse("search a.example\noptions ndots:0\n", NULL, NULL, NULL);
    assert_string_equal(walked("www", "NN"), "www www.a.example =N");
    parse("", NULL, NULL, NULL);
    assert_string_equal(walked("www", "N"), "www =N");
    parse("search a.example\noptions no-tld-query\n", NULL, NULL, NULL);
    assert_string_equal(walked("www", "N"), "www.a.example =N");
    assert_string_equal(walked("www.x", "NN"), "www.x www.x.a.example =N");
    parse("options no-tld-query\n", NULL, NULL, NULL);
    assert_string_equal(walked("www", "N"), "www =N");
    parse("search . a.example\n", NULL, NULL, NULL); /* the root among the domains: the name as it is, once */
    assert_string_equal(walked("www", "NN"), "www www.a.example =N");
    assert_string_equal(walked("www.x", "NN"), "www.x www.x.a.example =N");
}

static void test_outcomes_are_weighed_as_libc_does(void **state)
{
    (void)state;
    parse("search a.example b.example\n", NULL, NULL, NULL);
    assert_string_equal(walked("www", "0NN"), "www.a.example www.b.example www =0");
    assert_string_equal(walked("www", "SNN"), "www.a.example www.b.example www =S");
    assert_string_equal(walked("www", "S+"), "www.a.example www.b.example =+");
    assert_string_equal(walked("www", "S0N"), "www.a.example www.b.example www =0");
    assert_string_equal(walked("www", "RN"), "www.a.example www =N");
    assert_string_equal(walked("www", "FR"), "www.a.example www =R");
    assert_string_equal(walked("www", "L"), "www.a.example =L");
    assert_string_equal(walked("www", "NL"), "www.a.example www.b.example =L");
    assert_string_equal(walked("www.x", "SNN"), "www.x www.x.a.example www.x.b.example =S");
    assert_string_equal(walked("www.x", "N0N"), "www.x www.x.a.example www.x.b.example =N");
    assert_string_equal(walked("www.x", "0NN"), "www.x www.x.a.example www.x.b.example =0");
    assert_string_equal(walked("www.x", "NR"), "www.x www.x.a.example =N");
}

static void test_name_that_would_be_too_long_is_passed_over(void **state)
{
    char name[300] = "";

    (void)state;
    for (int i = 0; i < 4; i++) {
        strcat(name, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.");
    }
    strcat(name, "aaaaaaaaa");
    parse("search a b.example\n", NULL, NULL, NULL);
    assert_int_equal(strlen(name), 245);
    assert_non_null(strstr(walked(name, "NN"), "aaaaaaaaa.a =N"));
}

static void test_statuses_are_those_of_getaddrinfo(void **state)
{
    (void)state;
    assert_int_equal(run_outcome_status(RUN_FOUND), 0);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_NXDOMAIN)), EAI_NONAME);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_NOERROR)), EAI_NODATA);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_SERVFAIL)), EAI_AGAIN);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_REFUSED)), EAI_AGAIN);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_NOTIMP)), EAI_AGAIN);
    assert_int_equal(run_outcome_status(run_outcome_of_rcode(DNS_RCODE_FORMERR)), EAI_FAIL);
    assert_int_equal(run_outcome_status(RUN_LOST), EAI_AGAIN);
    assert_int_equal(run_outcome_status(RUN_NO_MEMORY), EAI_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_those_of_the_manual),
        cmocka_unit_test(test_lines_and_variables_are_read),
        cmocka_unit_test(test_long_input_is_bounded),
        cmocka_unit_test(test_text_cut_anywhere_is_read),
        cmocka_unit_test(test_candidates_come_as_libc_has_them),
        cmocka_unit_test(test_outcomes_are_weighed_as_libc_does),
        cmocka_unit_test(test_name_that_would_be_too_long_is_passed_over),
        cmocka_unit_test(test_statuses_are_those_of_getaddrinfo),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
