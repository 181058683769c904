#include "names.h"

#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

const struct names_row *names_zone;
unsigned names_asked_count;
char names_asked[4096];

/* ---- the link ---- */

static char the_link;
struct dns_link *const names_link = (struct dns_link *)(void *)&the_link;

static struct loop *link_loop;
static TAILQ_HEAD(, dns_link_ask) link_asks;
static struct loop_task link_task;
static struct draft draft;

int __wrap_dns_link_ask(struct dns_link *link, struct dns_link_ask *ask);
void __wrap_dns_link_cancel(struct dns_link *link, struct dns_link_ask *ask);

int __wrap_dns_link_ask(struct dns_link *link, struct dns_link_ask *ask)
{
    char text[DNS_NAME_TEXT_MAX];
    size_t len = strlen(names_asked);

    assert_ptr_equal(link, names_link);
    assert_non_null(ask->message);
    (void)dns_name_format(&ask->question->name, text);
    (void)snprintf(names_asked + len, sizeof names_asked - len, "%s%s/%u", len > 0 ? " " : "", text,
                   (unsigned)ask->question->type);
    names_asked_count++;
    TAILQ_INSERT_TAIL(&link_asks, ask, all);
    loop_defer(link_loop, &link_task);
    return 0;
}

void __wrap_dns_link_cancel(struct dns_link *link, struct dns_link_ask *ask)
{
    assert_ptr_equal(link, names_link);
    TAILQ_REMOVE(&link_asks, ask, all);
}

static const struct names_row *find(const char *name, uint16_t type)
{
    const struct names_row *row = names_zone;

    while (row != NULL && row->name != NULL &&
           (strcasecmp(row->name, name) != 0 || (row->type != 0 && row->type != type))) {
        row++;
    }
    return row != NULL && row->name != NULL ? row : NULL;
}

static void put_name_record(const char *owner, uint16_t type, const char *target)
{
    struct dns_name name = name_of(target);

    draft_record(&draft, DNS_ANSWER, owner, type, 300, name.wire, name.len);
}

/* The records of `name`, and of what it is an alias for. False: there is none, and the rcode is in the draft. */
static void put_records(const char *name, uint16_t type, unsigned depth)
{
    for (const struct names_row *row = names_zone; row != NULL && row->name != NULL; row++) {
        if (strcasecmp(row->name, name) != 0 || (row->type != 0 && row->type != type)) {
            continue;
        }
        if (row->what == ROW_ADDR && type == DNS_TYPE_A) {
            draft_a(&draft, name, 300, row->data);
        } else if (row->what == ROW_ADDR) {
            draft_aaaa(&draft, name, 300, row->data);
        } else if (row->what == ROW_PTR) {
            put_name_record(name, DNS_TYPE_PTR, row->data);
        } else if (row->what == ROW_CNAME || row->what == ROW_BARE_CNAME) {
            put_name_record(name, DNS_TYPE_CNAME, row->data);
            if (row->what == ROW_CNAME && depth < 20) {
                put_records(row->data, type, depth + 1);
            }
        }
    }
}

static void answer(struct dns_link_ask *ask)
{
    char text[DNS_NAME_TEXT_MAX];
    const struct names_row *row;
    unsigned rcode;

    (void)dns_name_format(&ask->question->name, text);
    row = find(text, ask->question->type);
    if (row != NULL && row->what == ROW_SILENT) {
        return;
    }
    TAILQ_REMOVE(&link_asks, ask, all);
    if (row != NULL && row->what == ROW_UNREACHABLE) {
        ask->done(ask, NULL, 0, DNS_LINK_UNREACHABLE);
        return;
    }
    rcode = row == NULL ? DNS_RCODE_NXDOMAIN : row->what == ROW_RCODE ? row->rcode : 0;
    draft_response(&draft, 4711, DNS_FLAG_RD | DNS_FLAG_RA | rcode, text, ask->question->type);
    if (row != NULL && row->what != ROW_RCODE) {
        put_records(text, ask->question->type, 0);
    }
    if (row != NULL && row->what == ROW_JUNK) {
        dns_put16(draft.bytes + 6, 1); /* a record that is not there */
    }
    if (row == NULL || row->what == ROW_NODATA) {
        draft_soa(&draft, "example.", 600, 300);
    }
    ask->done(ask, draft.bytes, draft.len, DNS_LINK_TIMED_OUT);
}

static void on_link_task(struct loop_task *task)
{
    struct dns_link_ask *asks[64], *ask;
    size_t count = 0;

    (void)task;
    TAILQ_FOREACH(ask, &link_asks, all)
    {
        assert_true(count < 64);
        asks[count++] = ask;
    }
    for (size_t i = 0; i < count;
         i++) { /* nothing that answers take back is among them: what is asked once is taken back by no one */
        answer(asks[i]);
    }
}

/* ---- this machine ---- */

bool names_has_ipv4, names_has_ipv6;

int __wrap_getifaddrs(struct ifaddrs **list);
void __wrap_freeifaddrs(struct ifaddrs *list);

int __wrap_getifaddrs(struct ifaddrs **list)
{
    static struct sockaddr ipv4 = {.sa_family = AF_INET}, ipv6 = {.sa_family = AF_INET6};
    static struct ifaddrs found[4];

    memset(found, 0, sizeof found);
    found[0] = (struct ifaddrs){.ifa_next = &found[1], .ifa_flags = IFF_LOOPBACK | IFF_UP, .ifa_addr = &ipv4};
    found[1] = (struct ifaddrs){.ifa_next = &found[2], .ifa_flags = IFF_LOOPBACK | IFF_UP, .ifa_addr = &ipv6};
    found[2] = (struct ifaddrs){.ifa_next = &found[3], .ifa_flags = IFF_UP, .ifa_addr = names_has_ipv4 ? &ipv4 : NULL};
    found[3] = (struct ifaddrs){.ifa_flags = IFF_UP, .ifa_addr = names_has_ipv6 ? &ipv6 : NULL};
    *list = found;
    return 0;
}

void __wrap_freeifaddrs(struct ifaddrs *list)
{
    assert_non_null(list);
}

/* ---- the world ---- */

void names_write(const char *path, const char *text)
{
    FILE *file;

    (void)unlink(path);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void temporary(char path[64], const char *text)
{
    int fd;

    (void)snprintf(path, 64, "/tmp/socks6-test-names-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

void names_open(struct names *names, const char *hosts, const char *resolv_conf, bool fake)
{
    struct run_names_config config = {.fake = fake, .link = fake ? NULL : names_link};

    harness_guard();
    assert_int_equal(loop_new(&names->loop), 0);
    temporary(names->hosts, hosts);
    temporary(names->resolv_conf, resolv_conf);
    link_loop = names->loop;
    link_task = (struct loop_task){.run = on_link_task};
    TAILQ_INIT(&link_asks);
    names_has_ipv4 = names_has_ipv6 = true;
    names_asked_count = 0;
    names_asked[0] = '\0';
    config.loop = names->loop;
    config.hosts = names->hosts;
    config.resolv_conf = names->resolv_conf;
    assert_int_equal(run_names_new(&config, &names->run), 0);
}

void names_close(struct names *names)
{
    run_names_free(names->run);
    assert_true(TAILQ_EMPTY(&link_asks));
    loop_free(names->loop);
    assert_int_equal(unlink(names->hosts), 0);
    assert_int_equal(unlink(names->resolv_conf), 0);
}

static void on_done(struct run_names_ask *ask, int status, const void *body, size_t len)
{
    struct reply *reply = LOOP_OWNER(ask, struct reply, ask);

    assert_true(len <= sizeof reply->body);
    reply->times++;
    reply->status = status;
    reply->len = len;
    if (len > 0) {
        memcpy(reply->body, body, len);
    }
}

void names_ask(struct names *names, struct reply *reply, enum run_kind kind, const void *body, size_t len)
{
    static uint8_t room[70000]; /* its end is guarded by the sanitizer, and calls that fail do not concern it */
    uint8_t *exact = room + sizeof room - len;

    memcpy(exact, body, len);
    reply->ask = (struct run_names_ask){.kind = kind, .body = exact, .len = len, .done = on_done};
    reply->times = 0;
    run_names_ask(names->run, &reply->ask);
}

void names_ask_resolve(struct names *names, struct reply *reply, const char *name, uint16_t family, uint32_t flags)
{
    const struct run_resolve request = {.family = family, .name_len = (uint16_t)strlen(name), .flags = flags};
    uint8_t body[sizeof request + RUN_NAME_MAX + 8];

    memcpy(body, &request, sizeof request);
    memcpy(body + sizeof request, name, request.name_len);
    names_ask(names, reply, RUN_RESOLVE, body, sizeof request + request.name_len);
}

static bool has_come(void *context)
{
    return ((const struct reply *)context)->times > 0;
}

void names_wait(struct names *names, struct reply *reply)
{
    harness_run_until(names->loop, has_come, reply);
    assert_int_equal(reply->times, 1);
}

struct run_addr names_addr(const char *text, uint16_t port)
{
    struct run_addr addr = {.port = port, .family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET};

    assert_int_equal(inet_pton(addr.family, text, addr.bytes), 1);
    return addr;
}

static const char *status_name(int status)
{
    static const struct {
        int status;
        const char *name;
    } names[] = {{EAI_NONAME, "EAI_NONAME"},    {EAI_NODATA, "EAI_NODATA"}, {EAI_AGAIN, "EAI_AGAIN"},
                 {EAI_FAIL, "EAI_FAIL"},        {EAI_MEMORY, "EAI_MEMORY"}, {EAI_FAMILY, "EAI_FAMILY"},
                 {RUN_ASK_SYSTEM, "ASK_SYSTEM"}};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].status == status) {
            return names[i].name;
        }
    }
    fail_msg("status %d", status);
    return "";
}

const char *names_resolve(struct names *names, const char *name, uint16_t family, uint32_t flags)
{
    static struct reply reply;
    static char text[8192];
    struct run_resolved resolved;
    struct run_addr addr;
    size_t len = 0;

    names_ask_resolve(names, &reply, name, family, flags);
    names_wait(names, &reply);
    if (reply.status != 0) {
        assert_int_equal(reply.len, 0);
        return status_name(reply.status);
    }
    memcpy(&resolved, reply.body, sizeof resolved);
    assert_int_equal(reply.len, sizeof resolved + resolved.count * sizeof addr + resolved.canon_len);
    for (uint32_t i = 0; i < resolved.count; i++) {
        memcpy(&addr, reply.body + sizeof resolved + i * sizeof addr, sizeof addr);
        assert_int_equal(addr.port, 0);
        assert_non_null(inet_ntop(addr.family, addr.bytes, text + len, (socklen_t)(sizeof text - len)));
        len += strlen(text + len);
        text[len++] = ' ';
    }
    text[len++] = '=';
    memcpy(text + len, reply.body + reply.len - resolved.canon_len, resolved.canon_len);
    for (uint32_t i = 0; i < resolved.canon_len; i++, len++) {
        text[len] = text[len] == '\0' ? '+' : text[len]; /* before an alias */
    }
    text[len] = '\0';
    return text;
}

const char *names_reverse(struct names *names, const char *addr)
{
    static struct reply reply;
    static char text[8192];
    const struct run_addr body = names_addr(addr, 0);

    names_ask(names, &reply, RUN_REVERSE, &body, sizeof body);
    names_wait(names, &reply);
    if (reply.status != 0) {
        assert_int_equal(reply.len, 0);
        return status_name(reply.status);
    }
    assert_true(reply.len > 0 && reply.body[reply.len - 1] == '\0');
    memcpy(text, reply.body, reply.len);
    for (size_t i = 0; i + 1 < reply.len; i++) {
        text[i] = text[i] == '\0' ? ' ' : text[i];
    }
    return text;
}
