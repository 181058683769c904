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
#include <sys/stat.h>
#include <unistd.h>

#include "proxyd/log_format.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct timespec when = {.tv_sec = 1795419605, .tv_nsec = 123999999};

#define TIME "2026-11-23T07:40:05.123Z"

/* -- lines -- */

static char line[LOG_LINE_MAX + 1];

static void assert_message(enum config_log_format format, const char *message, const char *expected)
{
    size_t len = log_format_message(line, format, &when, CONFIG_LOG_INFO, message);

    line[len] = '\0';
    assert_string_equal(line, expected);
}

static void test_messages_in_every_format(void **state)
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

static void test_the_journal_gets_priorities(void **state)
{
    static const char *const expected[] = {"<3>m\n", "<4>m\n", "<6>m\n", "<7>m\n"};

    (void)state;
    for (int level = 0; level < 4; level++) {
        size_t len = log_format_message(line, CONFIG_LOG_JOURNALD, &when, (enum config_log_level)level, "m");

        line[len] = '\0';
        assert_string_equal(line, expected[level]);
    }
    assert_message(CONFIG_LOG_JOURNALD, "", "<6>\n");
    /* A priority in a message is none: the journal takes the first one off only. */
    assert_message(CONFIG_LOG_JOURNALD, "<0>forged\n<0>line", "<6><0>forged\\x0a<0>line\n");
}

static void test_long_messages_are_cut_and_say_so(void **state)
{
    static char message[LOG_MESSAGE_MAX * 2];

    (void)state;
    memset(message, '\x01', sizeof message - 1);
    for (int format = 0; format < CONFIG_LOG_AUTO; format++) {
        size_t len = log_format_message(line, (enum config_log_format)format, &when, CONFIG_LOG_ERROR, message);
        const char *end = format == CONFIG_LOG_JSON ? "\\\\x01...\"}\n" : "\\x01...\n";

        assert_in_range(len, LOG_MESSAGE_MAX, LOG_LINE_MAX - 1);
        line[len] = '\0';
        assert_string_equal(line + len - strlen(end), end);
        assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    }
    /* One that just fits is not. */
    message[LOG_MESSAGE_MAX] = '\0';
    line[log_format_message(line, CONFIG_LOG_TEXT, &when, CONFIG_LOG_ERROR, message)] = '\0';
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
        .tls = "TLSv1.3",
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

static struct config_log_fields all_fields(void)
{
    struct config_log_fields fields = {.count = CONFIG_LOG_FIELD_COUNT};

    for (uint8_t i = 0; i < CONFIG_LOG_FIELD_COUNT; i++) {
        fields.order[i] = i;
    }
    return fields;
}

static void assert_access(enum config_log_format format, const struct log_access *entry, const char *expected)
{
    const struct config_log_fields fields = all_fields();
    size_t len = log_format_access(line, format, &when, &fields, entry);

    line[len] = '\0';
    assert_string_equal(line, expected);
}

static void test_access_lines_in_every_format(void **state)
{
    struct log_access entry;

    (void)state;
    fill_entry(&entry);
    assert_access(
        CONFIG_LOG_TEXT, &entry,
        TIME
        " access id=12 client=127.0.0.1:50022 listener=[::1]:1080 protocol=socks6 tls=TLSv1.3 user=- command=CONNECT "
        "asked=example.org:443 dialled=127.0.0.1:443 reply=0 bytes_up=1000 "
        "bytes_down=18446744073709551615 duration_ms=62 reason=\"client reset\" rule=7\n");
    assert_access(
        CONFIG_LOG_JSON, &entry,
        "{\"time\":\"" TIME "\",\"level\":\"access\",\"id\":12,\"client\":\"127.0.0.1:50022\","
        "\"listener\":\"[::1]:1080\",\"protocol\":\"socks6\",\"tls\":\"TLSv1.3\",\"user\":null,\"command\":\"CONNECT\","
        "\"asked\":\"example.org:443\",\"dialled\":\"127.0.0.1:443\",\"reply\":0,\"bytes_up\":1000,"
        "\"bytes_down\":18446744073709551615,\"duration_ms\":62,\"reason\":\"client reset\",\"rule\":7}\n");
    assert_access(
        CONFIG_LOG_JOURNALD, &entry,
        "<6>access id=12 client=127.0.0.1:50022 listener=[::1]:1080 protocol=socks6 tls=TLSv1.3 user=- command=CONNECT "
        "asked=example.org:443 dialled=127.0.0.1:443 reply=0 bytes_up=1000 "
        "bytes_down=18446744073709551615 duration_ms=62 reason=\"client reset\" rule=7\n");
}

static void test_fields_are_those_asked_for_in_their_order(void **state)
{
    const struct config_log_fields two = {.order = {CONFIG_LOG_FIELD_asked, CONFIG_LOG_FIELD_id}, .count = 2};
    static const struct {
        enum config_log_format format;
        const char *expected;
    } cases[] = {
        {CONFIG_LOG_TEXT, TIME " access asked=example.org:443 id=12\n"},
        {CONFIG_LOG_JSON, "{\"time\":\"" TIME "\",\"level\":\"access\",\"asked\":\"example.org:443\",\"id\":12}\n"},
        {CONFIG_LOG_JOURNALD, "<6>access asked=example.org:443 id=12\n"},
    };
    struct log_access entry;

    (void)state;
    fill_entry(&entry);
    for (size_t i = 0; i < COUNT(cases); i++) {
        line[log_format_access(line, cases[i].format, &when, &two, &entry)] = '\0';
        assert_string_equal(line, cases[i].expected);
    }
    /* Each alone is what it is among all. */
    for (uint8_t i = 0; i < CONFIG_LOG_FIELD_COUNT; i++) {
        const struct config_log_fields one = {.order = {i}, .count = 1}, all = all_fields();
        char alone[256];

        line[log_format_access(line, CONFIG_LOG_TEXT, &when, &one, &entry)] = '\0';
        (void)snprintf(alone, sizeof alone, "%.200s", line + strlen(TIME " access"));
        alone[strcspn(alone, "\n")] = '\0';
        line[log_format_access(line, CONFIG_LOG_TEXT, &when, &all, &entry)] = '\0';
        assert_non_null(strstr(line, alone));
    }
}

static void test_what_is_not_known_is_said_so(void **state)
{
    const struct log_access entry = {.id = 1, .protocol = "-", .reply = -1, .reason = "done"};

    (void)state;
    assert_access(CONFIG_LOG_TEXT, &entry,
                  TIME " access id=1 client=- listener=- protocol=- tls=- user=- command=- asked=- dialled=- reply=- "
                       "bytes_up=0 bytes_down=0 duration_ms=0 reason=done rule=-\n");
    assert_access(
        CONFIG_LOG_JSON, &entry,
        "{\"time\":\"" TIME "\",\"level\":\"access\",\"id\":1,\"client\":null,\"listener\":null,"
        "\"protocol\":null,\"tls\":null,\"user\":null,\"command\":null,\"asked\":null,\"dialled\":null,\"reply\":null,"
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

    const struct config_log_fields fields = all_fields();

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct log_access entry;

        fill_entry(&entry);
        entry.user = cases[i].user;
        line[log_format_access(line, CONFIG_LOG_TEXT, &when, &fields, &entry)] = '\0';
        assert_non_null(strstr(line, cases[i].text));
        line[log_format_access(line, CONFIG_LOG_JOURNALD, &when, &fields, &entry)] = '\0';
        assert_non_null(strstr(line, cases[i].text));
        line[log_format_access(line, CONFIG_LOG_JSON, &when, &fields, &entry)] = '\0';
        assert_non_null(strstr(line, cases[i].json));
    }
}

static void test_the_worst_line_fits(void **state)
{
    const struct config_log_fields fields = all_fields();
    static char name[256];
    struct log_access entry;

    (void)state;
    fill_entry(&entry);
    memset(name, '\x7f', 255);
    entry.user = name;
    assert_int_equal(socks6_addr_name(name, 255, 65535, &entry.asked), 1);
    entry.dialled = entry.client = entry.listener = entry.asked;
    entry.reason = name;
    for (int format = 0; format < CONFIG_LOG_AUTO; format++) {
        size_t len = log_format_access(line, (enum config_log_format)format, &when, &fields, &entry);

        assert_in_range(len, 5 * 255 * 4, LOG_LINE_MAX - 1);
        line[len] = '\0';
        assert_ptr_equal(strchr(line, '\n'), line + len - 1);
        assert_non_null(strstr(line, format == CONFIG_LOG_JSON ? "\"rule\":7}\n" : "rule=7\n"));
    }
}

/* -- the writer -- */

static int pipe_fds[2];
static struct config_log settings;
static char daemon_path[64], access_path[64];

/* The log opens what `fd` stands for anew, by its name. */
static void direct_to(struct config_log_output *output, char path[64], int fd)
{
    (void)snprintf(path, 64, "/proc/self/fd/%d", fd);
    output->target = CONFIG_LOG_FILE;
    output->path = path;
}

static int start_log(int fd)
{
    char why[LOG_WHY_MAX];

    direct_to(&settings.daemon, daemon_path, fd);
    direct_to(&settings.access_output, access_path, fd);
    return log_start(&settings, why);
}

static void configure(enum config_log_format format, enum config_log_level level, bool access)
{
    settings.daemon.format = settings.access_output.format = format;
    settings.level = level;
    settings.access = access;
    log_apply(&settings);
}

static int open_pipe(void **state)
{
    (void)state;
    settings = (struct config_log){.level = CONFIG_LOG_INFO, .access = true, .fields = all_fields()};
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
    log_error("e%d", 1);
    log_warning("w%d", 1);
    log_info("i%d", 1);
    log_debug("d%d", 1);
    log_access_write(&entry);
    configure(CONFIG_LOG_JSON, CONFIG_LOG_DEBUG, false);
    log_debug("d%d", 2);
    log_access_write(&entry);
    configure(CONFIG_LOG_TEXT, CONFIG_LOG_ERROR, true);
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
    assert_int_equal(start_log(fd), 0);
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
    assert_int_equal(start_log(fd), 0);
    for (int i = 0; i < 100; i++) {
        log_info("line %d", i);
    }
    log_stop();
    assert_int_equal(log_lost() - lost, 100);
    assert_int_equal(close(fd), 0);
}

/* -- outputs -- */

static void make_file(char path[64])
{
    int fd;

    strcpy(path, "/tmp/test_log.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
}

static char *take_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text;

    assert_true(fd >= 0);
    text = read_all(fd);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(path), 0);
    return text;
}

static void test_a_rotated_file_is_left_and_a_new_one_begun(void **state)
{
    char path[64], rotated[80], why[LOG_WHY_MAX], *old, *new;

    (void)state;
    make_file(path);
    (void)snprintf(rotated, sizeof rotated, "%s.1", path);
    settings.daemon = (struct config_log_output){.target = CONFIG_LOG_FILE, .path = path};
    settings.access = false;
    assert_int_equal(log_start(&settings, why), 0);
    for (int i = 0; i < 100; i++) {
        log_info("before %d", i);
    }
    assert_int_equal(rename(path, rotated), 0);
    for (int i = 0; i < 100; i++) {
        log_info("between %d", i);
    }
    log_apply(&settings);
    for (int i = 0; i < 100; i++) {
        log_info("after %d", i);
    }
    log_stop();
    old = take_file(rotated);
    new = take_file(path);
    assert_int_equal(count_lines(old, " before ") + count_lines(new, " before "), 100);
    assert_int_equal(count_lines(old, " between ") + count_lines(new, " between "), 100);
    assert_int_equal(count_lines(old, " after "), 0);
    assert_int_equal(count_lines(new, " after "), 100);
    assert_int_equal(count_lines(old, "\n") + count_lines(new, "\n"), 300);
    free(old);
    free(new);
}

static void test_a_file_that_cannot_be_opened_leaves_the_old_one(void **state)
{
    char path[64], why[LOG_WHY_MAX], *text;

    (void)state;
    make_file(path);
    settings.daemon = (struct config_log_output){.target = CONFIG_LOG_FILE, .path = path};
    settings.access = false;
    assert_int_equal(log_start(&settings, why), 0);
    settings.daemon.path = (char[]){"/nonexistent/socks6d.log"};
    log_apply(&settings);
    log_info("still here");
    log_stop();
    text = take_file(path);
    assert_non_null(strstr(text,
                           " error log: cannot write to /nonexistent/socks6d.log: No such file or directory; going "
                           "on with the old one\n"));
    assert_non_null(strstr(text, " info still here\n"));
    free(text);
    assert_int_equal(log_start(&settings, why), -ENOENT);
    assert_string_equal(why, "log: cannot write to /nonexistent/socks6d.log: No such file or directory");
    settings.daemon.path = (char[]){"/tmp"};
    assert_int_equal(log_start(&settings, why), -EISDIR);
}

static void test_a_fifo_without_a_reader_is_an_error_and_no_wait(void **state)
{
    char path[64], why[LOG_WHY_MAX];

    (void)state;
    make_file(path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    settings.daemon = (struct config_log_output){.target = CONFIG_LOG_FILE, .path = path};
    assert_int_equal(log_start(&settings, why), -ENXIO);
    assert_int_equal(unlink(path), 0);
}

static void test_the_access_log_goes_its_own_way_and_back(void **state)
{
    const struct log_access entry = {.id = 77, .reply = -1, .reason = "done"};
    char path[64], access[64], why[LOG_WHY_MAX], *text, *lines;

    (void)state;
    make_file(path);
    make_file(access);
    settings.daemon = (struct config_log_output){.target = CONFIG_LOG_FILE, .path = path};
    settings.access_output =
        (struct config_log_output){.target = CONFIG_LOG_FILE, .path = access, .format = CONFIG_LOG_JSON};
    assert_int_equal(log_start(&settings, why), 0);
    log_info("one");
    log_access_write(&entry);
    settings.access_output = settings.daemon; /* to the daemon's */
    log_apply(&settings);
    log_access_write(&entry);
    settings.access_output = /* and back */
        (struct config_log_output){.target = CONFIG_LOG_FILE, .path = access, .format = CONFIG_LOG_JOURNALD};
    log_apply(&settings);
    log_access_write(&entry);
    settings.access_output.path = (char[]){"/nonexistent/x"};
    log_apply(&settings);
    log_access_write(&entry);
    settings.access = false;
    log_apply(&settings);
    log_access_write(&entry);
    settings.access = true; /* there is no old one to go on with any more */
    log_apply(&settings);
    log_access_write(&entry);
    log_stop();
    text = take_file(path);
    lines = take_file(access);
    assert_int_equal(count_lines(text, " access id=77 "), 1);
    assert_int_equal(count_lines(text, "<6>access id=77 "), 1);
    assert_int_equal(count_lines(text, " info one\n"), 1);
    assert_int_equal(count_lines(text,
                                 "access log: cannot write to /nonexistent/x: No such file or directory; going on "
                                 "with the old one\n"),
                     1);
    assert_int_equal(count_lines(text, "; going on with the daemon's log\n"), 1);
    assert_int_equal(count_lines(lines, "\"level\":\"access\",\"id\":77,"), 1);
    assert_int_equal(count_lines(lines, "<6>access id=77 "), 2);
    assert_int_equal(count_lines(lines, "\n"), 3);
    free(text);
    free(lines);
}

/* A line that waits at a stuck reader comes whole to where the log moves. */
static void test_what_a_stuck_reader_does_not_take_moves_on(void **state)
{
    char path[64], *text, *rest;
    size_t lines;

    (void)state;
    make_file(path);
    settings.access = false;
    assert_int_equal(start_log(pipe_fds[1]), 0);
    for (int i = 0; i < 5000; i++) {
        log_info("line %d of many, long enough to fill a pipe long before the last one", i);
    }
    settings.daemon.path = path;
    log_apply(&settings);
    log_stop();
    close(pipe_fds[1]);
    pipe_fds[1] = -1;
    rest = read_all(pipe_fds[0]);
    text = take_file(path);
    lines = count_lines(rest, "\n") + count_lines(text, "\n");
    assert_int_equal(lines, 5000);
    assert_non_null(strstr(text, "Z info line 4999 of many"));
    assert_memory_equal(text + 4, "-", 1); /* begins with a time: a whole line */
    free(text);
    free(rest);
}

static void test_the_journal_is_recognized(void **state)
{
    char stream[64], why[LOG_WHY_MAX], *text;
    int kept = dup(STDERR_FILENO);
    struct stat status;

    (void)state;
    assert_true(kept >= 0);
    assert_int_equal(dup2(pipe_fds[1], STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(fstat(pipe_fds[1], &status), 0);
    settings.daemon.format = settings.access_output.format = CONFIG_LOG_AUTO;
    settings.access = false;
    static const struct {
        const char *before, *between, *after;
    } cases[] = {{"", ":", ""}, {"", ":1", ""}, {"", ":", " "}, {"x", ":", ""}, {"1", ":", ""}, {"", ";", ""}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        (void)snprintf(stream, sizeof stream, "%s%ju%s%ju%s", cases[i].before, (uintmax_t)status.st_dev,
                       cases[i].between, (uintmax_t)status.st_ino, cases[i].after);
        assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
        assert_int_equal(log_start(&settings, why), 0);
        log_info("line %zu", i);
        log_stop();
    }
    assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    close(kept);
    text = stop_and_read();
    assert_non_null(strstr(text, "<6>line 0\n"));
    assert_int_equal(count_lines(text, "<6>"), 1);
    assert_int_equal(count_lines(text, "Z info line "), COUNT(cases) - 1);
    free(text);
}

static void test_without_a_writer_lines_go_to_standard_error(void **state)
{
    int kept = dup(STDERR_FILENO);
    char *text;

    (void)state;
    assert_true(kept >= 0);
    assert_int_equal(dup2(pipe_fds[1], STDERR_FILENO), STDERR_FILENO);
    log_error("before the start");
    assert_int_equal(start_log(pipe_fds[1]), 0);
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
        cmocka_unit_test(test_messages_in_every_format),
        cmocka_unit_test(test_the_journal_gets_priorities),
        cmocka_unit_test(test_fields_are_those_asked_for_in_their_order),
        cmocka_unit_test(test_long_messages_are_cut_and_say_so),
        cmocka_unit_test(test_quote_leaves_nothing_that_acts),
        cmocka_unit_test(test_access_lines_in_every_format),
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
        cmocka_unit_test_setup_teardown(test_a_rotated_file_is_left_and_a_new_one_begun, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_file_that_cannot_be_opened_leaves_the_old_one, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_a_fifo_without_a_reader_is_an_error_and_no_wait, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_the_access_log_goes_its_own_way_and_back, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_what_a_stuck_reader_does_not_take_moves_on, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_the_journal_is_recognized, open_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_without_a_writer_lines_go_to_standard_error, open_pipe, close_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
