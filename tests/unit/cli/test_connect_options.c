/* The command line of `socks6 connect`. */
#include "cli/cmd_connect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/exit.h"

static char printed[2048];

/* Parses a line of words separated by single spaces. What is printed is captured. */
static int parse(const char *line, struct proxy_options *proxy, struct connect_options *out)
{
    static char words[1024];
    char *argv[16];
    int argc = 0, rc, saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();

    assert_non_null(file);
    (void)snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    memset(proxy, 0, sizeof *proxy);
    fflush(stderr);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    rc = connect_parse(argc, argv, proxy, out);
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    rewind(file);
    printed[fread(printed, 1, sizeof printed - 1, file)] = '\0';
    fclose(file);
    return rc;
}

static struct connect_options parsed(const char *line)
{
    struct proxy_options proxy;
    struct connect_options options;

    if (parse(line, &proxy, &options) != 0) {
        fail_msg("%s: %s", line, printed);
    }
    return options;
}

static void assert_refused(const char *line, const char *sentence)
{
    struct proxy_options proxy;
    struct connect_options options;

    assert_int_equal(parse(line, &proxy, &options), CLI_EXIT_USAGE);
    if (strstr(printed, sentence) == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\"", line, printed, sentence);
    }
    assert_non_null(strstr(printed, "Try 'socks6 connect --help'."));
}

static void assert_destination(const char *line, uint8_t type, const char *text)
{
    struct connect_options options = parsed(line);
    char got[SOCKS6_ADDR_TEXT_MAX];

    assert_int_equal(options.destination.type, type);
    (void)socks6_addr_format(&options.destination, got, sizeof got);
    assert_string_equal(got, text);
}

static void test_defaults(void **state)
{
    struct connect_options options = parsed("connect example.com 80");

    (void)state;
    assert_int_equal(options.family, AF_UNSPEC);
    assert_int_equal(options.verbose, 0);
    assert_int_equal(options.timeout_ms, -1);
    assert_int_equal(options.quit_ms, -1);
    assert_true(options.shutdown_ms > 0);
    assert_int_equal(options.early, 0);
    assert_int_equal(options.eyeballs, 0);
    assert_int_equal(options.help, 0);
}

static void test_destinations(void **state)
{
    (void)state;
    assert_destination("connect example.com 80", SOCKS6_ADDR_NAME, "example.com:80");
    assert_destination("connect 192.0.2.1 65535", SOCKS6_ADDR_IPV4, "192.0.2.1:65535");
    assert_destination("connect 2001:db8::1 1", SOCKS6_ADDR_IPV6, "[2001:db8::1]:1");
    assert_destination("connect [2001:db8::1] 1", SOCKS6_ADDR_IPV6, "[2001:db8::1]:1");
    assert_destination("connect -- -odd- 1", SOCKS6_ADDR_NAME, "-odd-:1");
}

static void test_ports(void **state)
{
    (void)state;
    assert_int_equal(connect_parse_port("1"), 1);
    assert_int_equal(connect_parse_port("00065535"), 65535);
    assert_int_equal(connect_parse_port("https"), 443);
    assert_int_equal(connect_parse_port("0"), 0);
    assert_int_equal(connect_parse_port(""), 0);
    assert_int_equal(connect_parse_port("65536"), 0);
    assert_int_equal(connect_parse_port("4294967376"), 0); /* 80 modulo 2^32 */
    assert_int_equal(connect_parse_port("18446744073709551696"), 0);
    assert_int_equal(connect_parse_port("-80"), 0);
    assert_int_equal(connect_parse_port("80 "), 0);
    assert_int_equal(connect_parse_port("no-such-service"), 0);
}

static void test_options(void **state)
{
    struct connect_options options = parsed("connect -4vN -w 5 -q 0 --early h 1");

    (void)state;
    assert_int_equal(options.family, AF_INET);
    assert_int_equal(options.verbose, 1);
    assert_int_equal(options.timeout_ms, 5000);
    assert_int_equal(options.quit_ms, 0);
    assert_int_equal(options.early, 1);
    options = parsed("connect h 1 -6 -q -3 -w2147483"); /* behind the words, and without a space */
    assert_int_equal(options.family, AF_INET6);
    assert_int_equal(options.quit_ms, -1);
    assert_int_equal(options.timeout_ms, 2147483000);
    assert_int_equal(parsed("connect -N h 1").shutdown_ms, 0);
    assert_int_equal(parsed("connect -q 3 h 1").shutdown_ms, 0);
    assert_int_equal(parsed("connect --no-shutdown h 1").shutdown_ms, -1);
    assert_int_equal(parsed("connect --happy-eyeballs h 1").eyeballs, SOCKS6_AVAILABILITY_YES);
    assert_int_equal(parsed("connect --happy-eyeballs=on h 1").eyeballs, SOCKS6_AVAILABILITY_YES);
    assert_int_equal(parsed("connect --happy-eyeballs=off h 1").eyeballs, SOCKS6_AVAILABILITY_NO);
    assert_int_equal(parsed("connect --help").help, 1);
    assert_int_equal(parsed("connect -h -Z").help, 1);
}

static void test_remote_tfo_is_a_number_of_bytes(void **state)
{
    (void)state;
    assert_int_equal(parsed("connect h 1").remote_tfo, -1);
    assert_int_equal(parsed("connect --remote-tfo h 1").remote_tfo, 0);
    assert_int_equal(parsed("connect --remote-tfo=1 h 1").remote_tfo, 1);
    assert_int_equal(parsed("connect --remote-tfo=65535 h 1").remote_tfo, 65535);
}

static void test_proxy_options_are_taken(void **state)
{
    struct proxy_options proxy;
    struct connect_options options;

    (void)state;
    assert_int_equal(parse("connect -x socks6://a --proxy-user=bob --password-file /f h 1", &proxy, &options), 0);
    assert_string_equal(proxy.url, "socks6://a");
    assert_string_equal(proxy.user, "bob");
    assert_string_equal(proxy.password_file, "/f");
}

static void test_wrong_lines_are_refused(void **state)
{
    (void)state;
    assert_refused("connect", "HOST PORT is missing");
    assert_refused("connect h", "PORT is missing");
    assert_refused("connect h 1 2", "a word too many: '2'");
    assert_refused("connect h 0", "'0' is not a port");
    assert_refused("connect h 65536", "'65536' is not a port");
    assert_refused("connect h nosuch", "'nosuch' is not a port");
    assert_refused("connect -Z h 1", "unknown option '-Z'");
    assert_refused("connect --zeal h 1", "unknown option '--zeal'");
    assert_refused("connect --zeal=hunter2 h 1", "unknown option '--zeal'\n");
    assert_refused("connect --early=1 h 1", "option '--early' takes no argument");
    assert_refused("connect --remote-tfo=0 h 1", "--remote-tfo: '0' is not a number of bytes from 1 to 65535");
    assert_refused("connect --remote-tfo=65536 h 1", "--remote-tfo: '65536' is not a number of bytes from 1 to 65535");
    assert_refused("connect --remote-tfo= h 1", "--remote-tfo: '' is not a number of bytes from 1 to 65535");
    assert_refused("connect --happy-eyeballs=maybe h 1", "--happy-eyeballs is on or off, not 'maybe'");
    assert_refused("connect --happy-eyeballs= h 1", "--happy-eyeballs is on or off, not ''");
    assert_refused("connect h 1 -w", "option '-w' needs an argument");
    assert_refused("connect h 1 --proxy-user", "option '--proxy-user' needs an argument");
    assert_refused("connect -4 -6 h 1", "-4 and -6 exclude each other");
    assert_refused("connect -w 0 h 1", "-w: '0' is not a number of seconds, 1 or more");
    assert_refused("connect -w x h 1", "-w: 'x'");
    assert_refused("connect -w 1s h 1", "-w: '1s'");
    assert_refused("connect -w 2147484 h 1", "-w: '2147484'");
    assert_refused("connect -w 99999999999999999999 h 1", "-w: ");
    assert_refused("connect -q 1.5 h 1", "-q: '1.5' is not a number of seconds");
}

static void test_overlong_host_is_refused(void **state)
{
    char line[400] = "connect ";

    (void)state;
    memset(line + 8, 'a', 256);
    strcpy(line + 8 + 256, " 80");
    assert_refused(line, "1 to 255 bytes");
    memmove(line + 8, line + 9, strlen(line + 9) + 1);
    assert_int_equal(parsed(line).destination.len, 255);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_remote_tfo_is_a_number_of_bytes),
        cmocka_unit_test(test_proxy_options_are_taken),
        cmocka_unit_test(test_wrong_lines_are_refused),
        cmocka_unit_test(test_overlong_host_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
