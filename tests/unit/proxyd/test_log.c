#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxyd/log_format.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct timespec when = {.tv_sec = 1795419605, .tv_nsec = 123999999};

#define TIME "2026-11-23T07:40:05.123Z"

/* -- lines -- */

static char line[LOG_LINE_MAX + 1];

static void assert_message(enum config_log_format format, const char *message, const char *expected)
{
    size_t len = log_format_message(line, format, &when, "info", message);

    line[len] = '\0';
    assert_string_equal(line, expected);
}

static void test_messages_in_both_formats(void **state)
{
    (void)state;
    assert_message(CONFIG_LOG_TEXT, "listening on 127.0.0.1:1080", TIME " info listening on 127.0.0.1:1080\n");
    assert_message(CONFIG_LOG_JSON, "listening on 127.0.0.1:1080",
                   "{\"time\":\"" TIME "\",\"level\":\"info\",\"message\":\"listening on 127.0.0.1:1080\"}\n");
    assert_message(CONFIG_LOG_TEXT, "", TIME " info \n");
    /* What log_quote() made stays as it is in text, and is a valid string in JSON. */
    assert_message(CONFIG_LOG_TEXT, "name \"a\\x0ab\"", TIME " info name \"a\\x0ab\"\n");
    assert_message(CONFIG_LOG_JSON, "name \"a\\x0ab\"",
                   "{\"time\":\"" TIME "\",\"level\":\"info\",\"message\":\"name \\\"a\\\\x0ab\\\"\"}\n");
    assert_message(CONFIG_LOG_TEXT, "a\nb\x1b[31m\x7f\x80\xff\xc3\xa4",
                   TIME " info a\\x0ab\\x1b[31m\\x7f\\x80\\xff\\xc3\\xa4\n");
    assert_message(CONFIG_LOG_JSON, "a\nb\x80",
                   "{\"time\":\"" TIME "\",\"level\":\"info\",\"message\":\"a\\\\x0ab\\\\x80\"}\n");
}

static void test_long_messages_are_cut_and_say_so(void **state)
{
    static char message[LOG_MESSAGE_MAX * 2];

    (void)state;
    memset(message, '\x01', sizeof message - 1);
    for (int format = 0; format < 2; format++) {
        size_t len = log_format_message(line, (enum config_log_format)format, &when, "error", message);
        const char *end = format == CONFIG_LOG_JSON ? "\\\\x01...\"}\n" : "\\x01...\n";

        assert_in_range(len, LOG_MESSAGE_MAX, LOG_LINE_MAX - 1);
        line[len] = '\0';
        assert_string_equal(line + len - strlen(end), end);
        assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    }
    /* One that just fits is not. */
    message[LOG_MESSAGE_MAX] = '\0';
    line[log_format_message(line, CONFIG_LOG_TEXT, &when, "error", message)] = '\0';
    assert_null(strstr(line, "..."));
}

static void test_quote_leaves_nothing_that_acts(void **state)
{
    char out[LOG_QUOTE_MAX(255)], bytes[255];
    size_t len;

    (void)state;
    assert_int_equal(log_quote("example.org", 11, out, sizeof out), 13);
    assert_string_equal(out, "\"example.org\"");
    (void)log_quote("a b\"c\\d\n\xff", 9, out, sizeof out);
    assert_string_equal(out, "\"a b\\x22c\\x5cd\\x0a\\xff\"");
    (void)log_quote("a\0b", 3, out, sizeof out);
    assert_string_equal(out, "\"a\\x00b\"");
    memset(bytes, 1, sizeof bytes);
    len = log_quote(bytes, sizeof bytes, out, sizeof out);
    assert_int_equal(len, 255 * 4 + 2);
    assert_int_equal(out[len - 1], '"');
    /* Cut, and ended in NUL all the same. */
    assert_int_equal(log_quote("abcdef", 6, out, 4), 3);
    assert_string_equal(out, "\"ab");
    assert_int_equal(log_quote("abcdef", 6, out, 0), 0);
}

static void fill_entry(struct log_access *entry)
{
    static const uint8_t client[4] = {127, 0, 0, 1}, listener[16] = {[15] = 1};

    *entry = (struct log_access){
        .id = 12,
        .client = socks6_addr_ipv4(client, 50022),
        .listener = socks6_addr_ipv6(listener, 1080),
        .protocol = "socks6",
        .command = "CONNECT",
        .reply = 0,
        .bytes_up = 1000,
        .bytes_down = UINT64_MAX,
        .duration_ms = 62,
        .reason = "client reset",
        .rule_line = 7,
    };
    assert_int_equal(socks6_addr_name("example.org", 11, 443, &entry->asked), 1);
    entry->dialled = socks6_addr_ipv4(client, 443);
}

static void assert_access(enum config_log_format format, const struct log_access *entry, const char *expected)
{
    size_t len = log_format_access(line, format, &when, entry);

    line[len] = '\0';
    assert_string_equal(line, expected);
}

static void test_access_lines_in_both_formats(void **state)
{
    struct log_access entry;

    (void)state;
    fill_entry(&entry);
    assert_access(CONFIG_LOG_TEXT, &entry,
                  TIME
                  " access id=12 client=127.0.0.1:50022 listener=[::1]:1080 protocol=socks6 user=- command=CONNECT "
                  "asked=example.org:443 dialled=127.0.0.1:443 reply=0 bytes_up=1000 "
                  "bytes_down=18446744073709551615 duration_ms=62 reason=\"client reset\" rule=7\n");
    assert_access(CONFIG_LOG_JSON, &entry,
                  "{\"time\":\"" TIME "\",\"level\":\"access\",\"id\":12,\"client\":\"127.0.0.1:50022\","
                  "\"listener\":\"[::1]:1080\",\"protocol\":\"socks6\",\"user\":null,\"command\":\"CONNECT\","
                  "\"asked\":\"example.org:443\",\"dialled\":\"127.0.0.1:443\",\"reply\":0,\"bytes_up\":1000,"
                  "\"bytes_down\":18446744073709551615,\"duration_ms\":62,\"reason\":\"client reset\",\"rule\":7}\n");
}

static void test_what_is_not_known_is_said_so(void **state)
{
    const struct log_access entry = {.id = 1, .protocol = "-", .reply = -1, .reason = "done"};

    (void)state;
    assert_access(CONFIG_LOG_TEXT, &entry,
                  TIME " access id=1 client=- listener=- protocol=- user=- command=- asked=- dialled=- reply=- "
                       "bytes_up=0 bytes_down=0 duration_ms=0 reason=done rule=-\n");
    assert_access(CONFIG_LOG_JSON, &entry,
                  "{\"time\":\"" TIME "\",\"level\":\"access\",\"id\":1,\"client\":null,\"listener\":null,"
                  "\"protocol\":null,\"user\":null,\"command\":null,\"asked\":null,\"dialled\":null,\"reply\":null,"
                  "\"bytes_up\":0,\"bytes_down\":0,\"duration_ms\":0,\"reason\":\"done\",\"rule\":null}\n");
}

static void test_names_cannot_forge_fields(void **state)
{
    static const struct {
        const char *user;
        const char *text, *json;
    } cases[] = {
        {"alice", "user=alice ", "\"user\":\"alice\","},
        {"-", "user=\"-\" ", "\"user\":\"-\","},
        {"", "user=\"\" ", "\"user\":\"\","},
        {"a b", "user=\"a b\" ", "\"user\":\"a b\","},
        {"a reply=0", "user=\"a reply=0\" ", "\"user\":\"a reply=0\","},
        {"a=b", "user=\"a=b\" ", "\"user\":\"a=b\","},
        {"a\" reply=0 x=\"", "user=\"a\\x22 reply=0 x=\\x22\" ", "\"user\":\"a\\\\x22 reply=0 x=\\\\x22\","},
        {"a\\", "user=\"a\\x5c\" ", "\"user\":\"a\\\\x5c\","},
        {"a\nb\r\n", "user=\"a\\x0ab\\x0d\\x0a\" ", "\"user\":\"a\\\\x0ab\\\\x0d\\\\x0a\","},
        {"\x1b[2J\x07", "user=\"\\x1b[2J\\x07\" ", "\"user\":\"\\\\x1b[2J\\\\x07\","},
        {"\xc3\xa4\xff", "user=\"\\xc3\\xa4\\xff\" ", "\"user\":\"\\\\xc3\\\\xa4\\\\xff\","},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct log_access entry;

        fill_entry(&entry);
        entry.user = cases[i].user;
        line[log_format_access(line, CONFIG_LOG_TEXT, &when, &entry)] = '\0';
        assert_non_null(strstr(line, cases[i].text));
        line[log_format_access(line, CONFIG_LOG_JSON, &when, &entry)] = '\0';
        assert_non_null(strstr(line, cases[i].json));
    }
}

static void test_the_worst_line_fits(void **state)
{
    static char name[256];
    struct log_access entry;

    (void)state;
    fill_entry(&entry);
    memset(name, '\x7f', 255);
    entry.user = name;
    assert_int_equal(socks6_addr_name(name, 255, 65535, &entry.asked), 1);
    entry.dialled = entry.client = entry.listener = entry.asked;
    entry.reason = name;
    for (int format = 0; format < 2; format++) {
        size_t len = log_format_access(line, (enum config_log_format)format, &when, &entry);

        assert_in_range(len, 5 * 255 * 4, LOG_LINE_MAX - 1);
        line[len] = '\0';
        assert_ptr_equal(strchr(line, '\n'), line + len - 1);
        assert_non_null(strstr(line, format == CONFIG_LOG_JSON ? "\"rule\":7}\n" : "rule=7\n"));
    }
}

/* -- the writer -- */

static int pipe_fds[2];

static int open_pipe(void **state)
{
    (void)state;
    log_configure(CONFIG_LOG_TEXT, CONFIG_LOG_INFO, true);
    return pipe2(pipe_fds, O_CLOEXEC);
}

static int close_pipe(void **state)
{
    (void)state;
    log_stop();
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return 0;
}

/* Everything until the end, which comes when the writing end is closed; ends in NUL, to be freed. */
static char *read_all(int fd)
{
    size_t len = 0, size = 4 * 1024 * 1024;
    char *text = malloc(size);
    ssize_t got;

    assert_non_null(text);
    while ((got = read(fd, text + len, size - len - 1)) > 0) {
        len += (size_t)got;
    }
    assert_int_equal(got, 0);
    text[len] = '\0';
    return text;
}

static size_t count_lines(const char *text, const char *what)
{
    size_t count = 0;

    for (; (text = strstr(text, what)) != NULL; text += strlen(what)) {
        count++;
    }
    return count;
}

static char *stop_and_read(void)
{
    log_stop();
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    return read_all(pipe_fds[0]);
}

static void test_levels_and_switches_hold_at_once(void **state)
{
    const struct log_access entry = {.id = 77, .reply = -1, .reason = "done"};
    char *text;

    (void)state;
    assert_int_equal(log_start(pipe_fds[1]), 0);
    log_error("e%d", 1);
    log_warning("w%d", 1);
    log_info("i%d", 1);
    log_debug("d%d", 1);
    log_access_write(&entry);
    log_configure(CONFIG_LOG_JSON, CONFIG_LOG_DEBUG, false);
    log_debug("d%d", 2);
    log_access_write(&entry);
    log_configure(CONFIG_LOG_TEXT, CONFIG_LOG_ERROR, true);
    log_warning("w%d", 3);
    log_error("e%d", 3);
    log_access_write(&entry);
    text = stop_and_read();
    assert_non_null(strstr(text, "Z error e1\n"));
    assert_non_null(strstr(text, "Z warning w1\n"));
    assert_non_null(strstr(text, "Z info i1\n"));
    assert_null(strstr(text, "d1"));
    assert_non_null(strstr(text, "\"level\":\"debug\",\"message\":\"d2\"}\n"));
    assert_null(strstr(text, "w3"));
    assert_non_null(strstr(text, "Z error e3\n"));
    assert_int_equal(count_lines(text, "access id=77 "), 2);
    assert_int_equal(count_lines(text, "\n"), 7);
    free(text);
}

enum { THREADS = 6, LINES = 400 };

static void *write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        log_info("thread %d line %d end", (int)(uintptr_t)arg, i);
    }
    return NULL;
}

static void *read_slowly(void *arg)
{
    (void)arg;
    return read_all(pipe_fds[0]);
}

static void test_lines_of_threads_stay_whole_and_in_order(void **state)
{
    pthread_t threads[THREADS], reader;
    char *text, *at, wanted[64];
    void *result;

    (void)state;
    assert_int_equal(log_start(pipe_fds[1]), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)i), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    log_stop();
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    assert_int_equal(pthread_join(reader, &result), 0);
    text = result;
    assert_int_equal(count_lines(text, "\n"), THREADS * LINES);
    for (int i = 0; i < THREADS; i++) {
        at = text;
        for (int j = 0; j < LINES; j++) {
            (void)snprintf(wanted, sizeof wanted, "Z info thread %d line %d end\n", i, j);
            at = strstr(at, wanted);
            assert_non_null(at);
        }
    }
    free(text);
}

/* The numbers of all notices together: the writer gives one each time it gets through, and that may be twice. */
static uint64_t sum_notices(const char *text)
{
    static const char begin[] = "warning log: ";
    uint64_t sum = 0;

    while ((text = strstr(text, begin)) != NULL) {
        char *end;

        text += sizeof begin - 1;
        sum += strtoull(text, &end, 10);
        assert_memory_equal(end, " lines were lost", 16);
    }
    return sum;
}

static void test_a_stuck_reader_costs_lines_and_is_told(void **state)
{
    uint64_t lost = log_lost();
    char *text;
    pthread_t reader;
    void *result;

    (void)state;
    assert_int_equal(log_start(pipe_fds[1]), 0);
    /* More than the pipe and both buffers hold: this returns although nobody reads. */
    for (int i = 0; i < 60000; i++) {
        log_info("line %d of many, long enough to fill what there is to fill sooner or later", i);
    }
    assert_true(log_lost() > lost);
    /* Half of a megabyte makes room; what was lost is reported behind it. */
    for (size_t got = 0; got < 512 * 1024;) {
        static char buffer[65536];
        ssize_t now = read(pipe_fds[0], buffer, sizeof buffer);

        assert_true(now > 0);
        got += (size_t)now;
    }
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, NULL), 0);
    log_info("last");
    log_stop();
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    assert_int_equal(pthread_join(reader, &result), 0);
    text = result;
    assert_int_equal(sum_notices(text), log_lost() - lost);
    free(text);
}

static void test_stopping_with_a_stuck_reader_returns(void **state)
{
    (void)state;
    assert_int_equal(log_start(pipe_fds[1]), 0);
    for (int i = 0; i < 30000; i++) {
        log_info("line %d of many, long enough to fill what there is to fill sooner or later", i);
    }
    log_stop();
}

static void test_a_reader_that_is_gone_kills_nobody(void **state)
{
    uint64_t lost = log_lost();

    (void)state;
    /* SIGPIPE has its default action here, which would end us. */
    close(pipe_fds[0]);
    pipe_fds[0] = -1;
    assert_int_equal(log_start(pipe_fds[1]), 0);
    for (int i = 0; i < 1000; i++) {
        log_info("to nobody");
    }
    log_stop();
    assert_int_equal(log_lost() - lost, 1000);
}

static void test_a_nonblocking_descriptor_loses_nothing(void **state)
{
    pthread_t reader;
    void *result;

    (void)state;
    assert_int_equal(fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096), 4096);
    assert_int_equal(log_start(pipe_fds[1]), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        log_info("line %d", i);
    }
    log_stop();
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    assert_int_equal(pthread_join(reader, &result), 0);
    assert_int_equal(count_lines(result, "\n"), 5000);
    free(result);
}

static void test_a_file_gets_every_line(void **state)
{
    char path[] = "/tmp/test_log.XXXXXX";
    int fd = mkstemp(path);
    char *text;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(log_start(fd), 0);
    for (int i = 0; i < 5000; i++) {
        log_info("line %d", i);
    }
    log_stop();
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    text = read_all(fd);
    assert_int_equal(count_lines(text, "\n"), 5000);
    free(text);
    assert_int_equal(close(fd), 0);
}

static void test_a_full_disk_is_counted_and_survived(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    uint64_t lost = log_lost();

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(log_start(fd), 0);
    for (int i = 0; i < 100; i++) {
        log_info("line %d", i);
    }
    log_stop();
    assert_int_equal(log_lost() - lost, 100);
    assert_int_equal(close(fd), 0);
}

static void test_without_a_writer_lines_go_to_standard_error(void **state)
{
    int kept = dup(STDERR_FILENO);
    char *text;

    (void)state;
    assert_true(kept >= 0);
    assert_int_equal(dup2(pipe_fds[1], STDERR_FILENO), STDERR_FILENO);
    log_error("before the start");
    assert_int_equal(log_start(pipe_fds[1]), 0);
    log_stop();
    log_error("after the end");
    log_stop();
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    close(kept);
    text = stop_and_read();
    assert_non_null(strstr(text, "Z error before the start\n"));
    assert_non_null(strstr(text, "Z error after the end\n"));
    assert_int_equal(count_lines(text, "\n"), 2);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_in_both_formats),
        cmocka_unit_test(test_long_messages_are_cut_and_say_so),
        cmocka_unit_test(test_quote_leaves_nothing_that_acts),
        cmocka_unit_test(test_access_lines_in_both_formats),
        cmocka_unit_test(test_what_is_not_known_is_said_so),
        cmocka_unit_test(test_names_cannot_forge_fields),
        cmocka_unit_test(test_the_worst_line_fits),
        cmocka_unit_test_setup_teardown(test_levels_and_switches_hold_at_once, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_lines_of_threads_stay_whole_and_in_order, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_stuck_reader_costs_lines_and_is_told, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_stopping_with_a_stuck_reader_returns, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_reader_that_is_gone_kills_nobody, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_nonblocking_descriptor_loses_nothing, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_file_gets_every_line, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_counted_and_survived, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_without_a_writer_lines_go_to_standard_error, open_pipe, close_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
