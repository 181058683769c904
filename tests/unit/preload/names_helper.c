#include "names_helper.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

volatile struct seen *seen;
static pid_t helper;
static int gate[2]; /* a byte for each held.test */

static void check(bool is_fine, const char *what)
{
    if (!is_fine) {
        perror(what);
        exit(99);
    }
}

struct reply {
    size_t len;
    unsigned char body[RUN_MESSAGE_MAX];
};

static void add(struct reply *reply, const void *bytes, size_t len)
{
    memcpy(reply->body + reply->len, bytes, len);
    reply->len += len;
}

static void add_addr(struct reply *reply, const char *text, uint32_t scope)
{
    struct run_addr addr = {.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET, .scope = scope};

    check(inet_pton(addr.family, text, addr.bytes) == 1, "inet_pton");
    add(reply, &addr, sizeof addr);
}

static int add_addresses(struct reply *reply, uint32_t count, const char *const texts[], uint32_t scope,
                         const char *canon)
{
    const struct run_resolved head = {count, (uint32_t)strlen(canon)};

    add(reply, &head, sizeof head);
    for (uint32_t i = 0; i < count; i++) {
        add_addr(reply, texts[i], scope);
    }
    add(reply, canon, head.canon_len);
    return 0;
}

static int add_many(struct reply *reply, uint32_t count)
{
    const struct run_resolved head = {count, sizeof "many.test" - 1};
    char text[INET_ADDRSTRLEN];

    add(reply, &head, sizeof head);
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(text, sizeof text, "10.0.%u.%u", i / 256, i % 256);
        add_addr(reply, text, 0);
    }
    add(reply, "many.test", head.canon_len);
    return 0;
}

static int resolve(const struct run_resolve *question, const char *name, struct reply *reply)
{
    static const char *const ipv4[] = {"192.0.2.1"}, *const ipv6[] = {"2001:db8::1"};
    static const char *const both[] = {"2001:db8::2", "192.0.2.2"}, *const real[] = {"192.0.2.3", "192.0.2.4"};
    static const char *const scope[] = {"fe80::1"};
    bool wants_ipv4 = question->family != AF_INET6, wants_ipv6 = question->family != AF_INET;

    if (strcmp(name, "held.test") == 0) {
        char byte;

        check(read(gate[0], &byte, 1) == 1, "gate");
        (void)__atomic_fetch_add(&seen->released, 1, __ATOMIC_RELEASE);
        name = "v4.test";
    }
    if (strcmp(name, "v4.test") == 0) {
        return wants_ipv4 ? add_addresses(reply, 1, ipv4, 0, name) : EAI_NODATA;
    }
    if (strcmp(name, "v6.test") == 0) {
        return wants_ipv6 ? add_addresses(reply, 1, ipv6, 0, name) : EAI_NODATA;
    }
    if (strcmp(name, "both.test") == 0) {
        return add_addresses(reply, (uint32_t)wants_ipv4 + wants_ipv6, both + !wants_ipv6, 0, name);
    }
    if (strcmp(name, "alias.test") == 0) {
        return add_addresses(reply, 2, real, 0, "real.test");
    }
    if (strcmp(name, "in-hosts.test") == 0) { /* with an alias, as from hosts(5) */
        int rc = add_addresses(reply, 1, ipv4, 0, "first.test");

        add(reply, "\0in-hosts.test\0third", sizeof "\0in-hosts.test\0third" - 1);
        ((struct run_resolved *)(void *)reply->body)->canon_len += (uint32_t)(sizeof "\0in-hosts.test\0third" - 1);
        return rc;
    }
    if (strcmp(name, "www") == 0) {
        return add_addresses(reply, 1, ipv4, 0, "www.search.test");
    }
    if (strcmp(name, "scope.test") == 0) {
        return add_addresses(reply, 1, scope, 1, name);
    }
    if (strcmp(name, "xn--bcher-kva.test") == 0) {
        return add_addresses(reply, 1, ipv4, 0, name);
    }
    if (strcmp(name, "many.test") == 0) {
        return add_many(reply, 200);
    }
    if (strcmp(name, "many-too-many.test") == 0) {
        return add_many(reply, RUN_ADDRESSES_MAX + 1);
    }
    if (strcmp(name, "short.test") == 0) {
        (void)add_many(reply, 2);
        reply->len--;
        return 0;
    }
    if (strcmp(name, "again.test") == 0) {
        return EAI_AGAIN;
    }
    if (strcmp(name, "odd.test") == 0) {
        return 77;
    }
    return strcmp(name, "system.test") == 0 || strcmp(name, "localhost") == 0 ? RUN_ASK_SYSTEM : EAI_NONAME;
}

static int reverse(const struct run_addr *addr, struct reply *reply)
{
    char text[INET6_ADDRSTRLEN];

    check(inet_ntop(addr->family, addr->bytes, text, sizeof text) != NULL, "inet_ntop");
    if (strcmp(text, "192.0.2.1") == 0) {
        add(reply, "v4.test", sizeof "v4.test");
        return 0;
    }
    if (strcmp(text, "192.0.2.3") == 0) {
        add(reply, "real.test\0alias.test", sizeof "real.test\0alias.test");
        return 0;
    }
    if (strcmp(text, "192.0.2.5") == 0) {
        add(reply, "xn--bcher-kva.test", sizeof "xn--bcher-kva.test");
        return 0;
    }
    if (strcmp(text, "127.0.0.1") == 0) {
        return RUN_ASK_SYSTEM;
    }
    return strcmp(text, "192.0.2.9") == 0 ? EAI_AGAIN : EAI_NONAME;
}

/* The name in a DNS question, with dots. */
static size_t read_question(const unsigned char *message, char *name)
{
    size_t at = 12;

    while (message[at] != 0) {
        memcpy(name, message + at + 1, message[at]);
        name += message[at];
        *name++ = '.';
        at += 1u + message[at];
    }
    *name = '\0';
    return at + 5;
}

/* big.*: 40 records. nx*, fail*, empty*, refused*: what they say. error*: an errno. Else one record. */
static int query(const unsigned char *message, struct reply *reply, char *name)
{
    static const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1};
    size_t len = read_question(message, name);
    unsigned count = strncmp(name, "big", 3) == 0 ? 40 : 1;

    if (strncmp(name, "error", 5) == 0) {
        return ETIMEDOUT;
    }
    add(reply, message, len);
    reply->body[2] = 0x81;
    reply->body[3] = strncmp(name, "nx", 2) == 0        ? 0x83
                     : strncmp(name, "fail", 4) == 0    ? 0x82
                     : strncmp(name, "refused", 7) == 0 ? 0x85
                                                        : 0x80;
    if (reply->body[3] != 0x80 || strncmp(name, "empty", 5) == 0) {
        return 0;
    }
    reply->body[7] = (unsigned char)count;
    while (count-- > 0) {
        add(reply, record, sizeof record);
    }
    return 0;
}

static bool read_all(int fd, void *bytes, size_t len)
{
    return len == 0 || recv(fd, bytes, len, MSG_WAITALL) == (ssize_t)len;
}

static void put_text(const void *bytes, size_t len)
{
    char text[sizeof seen->text] = "";

    memcpy(text, bytes, len < sizeof text ? len : sizeof text - 1);
    for (size_t i = 0; i < sizeof text; i++) {
        seen->text[i] = text[i];
    }
}

static void serve(int fd, const uint8_t *secret)
{
    static unsigned char body[RUN_MESSAGE_MAX];
    static struct reply reply;
    struct run_request request;
    struct run_reply head = {0};
    char name[RUN_NAME_MAX + 1] = "";
    size_t len;

    if (!read_all(fd, &request, sizeof request) || memcmp(request.secret, secret, RUN_SECRET_LEN) != 0) {
        return;
    }
    len = request.len - sizeof request;
    if (!read_all(fd, body, len)) {
        return;
    }
    switch (request.kind) {
    case RUN_RESOLVE:
        memcpy(name, body + sizeof(struct run_resolve), len - sizeof(struct run_resolve));
        put_text(name, strlen(name));
        memcpy((void *)(uintptr_t)&seen->resolve, body, sizeof seen->resolve);
        (void)__atomic_fetch_add(&seen->counts[request.kind], 1, __ATOMIC_RELEASE);
        if (strcmp(name, "gone.test") == 0) {
            return;
        }
        head.status = resolve((struct run_resolve *)(void *)body, name, &reply);
        break;
    case RUN_REVERSE:
    case RUN_DIRECT:
        memcpy((void *)(uintptr_t)&seen->addr, body, sizeof seen->addr);
        (void)__atomic_fetch_add(&seen->counts[request.kind], 1, __ATOMIC_RELEASE);
        head.status = request.kind == RUN_REVERSE ? reverse((struct run_addr *)(void *)body, &reply) : 0;
        break;
    case RUN_QUERY:
        head.status = query(body, &reply, name);
        put_text(name, strlen(name));
        (void)__atomic_fetch_add(&seen->counts[request.kind], 1, __ATOMIC_RELEASE);
        break;
    default: /* RUN_NOTE */
        seen->note_what = ((struct run_note *)(void *)body)->what;
        put_text(body + sizeof(struct run_note), len - sizeof(struct run_note));
        (void)__atomic_fetch_add(&seen->counts[request.kind], 1, __ATOMIC_RELEASE);
        return;
    }
    head.len = (uint32_t)(sizeof head + reply.len);
    (void)!send(fd, &head, sizeof head, MSG_NOSIGNAL);
    (void)!send(fd, reply.body, reply.len, MSG_NOSIGNAL);
}

/* Nobody who waits for the end of the test's output is to wait for us. */
static void die_with_parent(void)
{
    check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
}

/* A process for each connection: some are held. */
static void serve_all(int listener, const uint8_t *secret)
{
    (void)signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd >= 0 && fork() == 0) {
            die_with_parent();
            serve(fd, secret);
            _exit(0);
        }
        (void)close(fd);
    }
}

static char *put_hex(char *out, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        out += sprintf(out, "%02x", bytes[i]);
    }
    return out;
}

static void put_environment(const uint8_t *random)
{
    char text[128], *end = text + sprintf(text, "%u:", RUN_VERSION);

    end = put_hex(end, random, RUN_ADDRESS_LEN);
    *end++ = ':';
    end = put_hex(end, random + RUN_ADDRESS_LEN, RUN_SECRET_LEN);
    strcpy(end, ":");
    check(setenv(RUN_VARIABLE, text, 1) == 0, "setenv");
}

static uint8_t unhex(const char *text)
{
    char pair[3] = {text[0], text[1], '\0'};

    return (uint8_t)strtoul(pair, NULL, 16);
}

static void start_helper(const char *variable)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    uint8_t bytes[RUN_ADDRESS_LEN + RUN_SECRET_LEN];
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = unhex(variable + 2 + 2 * i + (i >= RUN_ADDRESS_LEN));
    }
    memcpy(addr.sun_path + 1, bytes, RUN_ADDRESS_LEN);
    check(bind(listener, (struct sockaddr *)&addr,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + RUN_ADDRESS_LEN)) == 0,
          "bind");
    check(listen(listener, 64) == 0 && pipe(gate) == 0, "listen");
    helper = fork();
    check(helper >= 0, "fork");
    if (helper == 0) {
        die_with_parent();
        serve_all(listener, bytes + RUN_ADDRESS_LEN);
    }
    (void)close(listener);
}

void names_helper_run(char **argv)
{
    const char *variable = getenv(RUN_VARIABLE);
    uint8_t random[RUN_ADDRESS_LEN + RUN_SECRET_LEN];

    if (variable == NULL) {
        check(getrandom(random, sizeof random, 0) == sizeof random, "getrandom");
        put_environment(random);
        (void)execv("/proc/self/exe", argv);
        check(false, "execv");
    }
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(seen != MAP_FAILED, "mmap");
    start_helper(variable);
}

void names_helper_stop(void)
{
    (void)kill(helper, SIGKILL);
    (void)waitpid(helper, NULL, 0);
}

static uint32_t opened; /* how often the gate was */

void names_helper_release_next(void)
{
    check(write(gate[1], "x", 1) == 1, "gate");
    opened++;
}

/* Without the wait a request that was given up before, and is about to be held, would be taken for the next one. */
void names_helper_release(void)
{
    names_helper_release_next();
    while (__atomic_load_n(&seen->released, __ATOMIC_ACQUIRE) < opened) {
        (void)usleep(1000);
    }
}

void names_helper_forget(void)
{
    for (size_t i = 0; i <= RUN_NOTE; i++) {
        seen->counts[i] = 0;
    }
}
