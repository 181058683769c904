/*
 * Programs that have begun a connection themselves (RUN_CONNECT_ASKED), and what they are given for it (RUN_SHARE): with calls of the
 * helper that fail one by one as in test_run_faults.c, and without. The program gets an answer or an end; its socket is the connection
 * if it was told so, and is connected to nothing if it was told otherwise; nothing leaks.
 */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/run_shortcut.h"

#define PAD 1000u
#define COOKIE 1u
#define CALLS_MIN 10u /* that each scenario makes, whatever becomes of it */

static struct run_shortcut shortcut;

/* --- the program --- */

enum way { WAY_BLOCKING, WAY_NON_BLOCKING, WAY_CONVERTED };

enum act {
    ACT_TALK,          /* waits for the connection, and for an echo */
    ACT_GO,            /* goes away before there is an answer */
    ACT_GO_LATER,      /* goes away when it was told to wait */
    ACT_CLOSE,         /* closes the connection, but for a duplicate of its own socket */
    ACT_CLOSE_UNREAD,  /* the same before it has read all */
    ACT_WATCH_THE_END, /* the connection is reset, and the program has a duplicate */
    ACT_FAIL_AND_LOOK, /* asks for the options of the socket after the failure */
    ACT_TO_DIRECT,     /* the destination has become one that goes past the proxy */
    ACT_SHARE,         /* asks for the memory */
    ACT_TOKENS,        /* says that there are few tokens left */
    ACT_STRANGER       /* says so, and does not know the secret */
};

struct program {
    struct run_serve *serve;
    enum way way;
    enum act act;

    bool has_faults; /* some call may fail */
    int own;
    bool is_hung, has_verdict, is_served, has_share;
    uint32_t first, last; /* verdicts */
    int error;            /* of the last one */
    uint64_t route;       /* what others are offered by then; 0 = nothing */
    uint8_t tcp_state;    /* of its own socket, at the end */
    int proxy_end;        /* how the proxy has seen the end of it */
    struct run_state status;
    int status_of_option, option;
    char what[200]; /* what is wrong */
};

static uint64_t offered(void)
{
    struct run_route route;

    return run_share_route(shortcut.share, &route) ? route.serial : 0;
}

static uint8_t state_of(int fd)
{
    uint8_t state = 0;
    socklen_t len = sizeof state;

    return __real_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &len) == 0 ? state : 0;
}

/* Without a descriptor if `own` is -1. */
static int send_request(const struct program *p, enum run_kind kind, const void *body, size_t len, int own)
{
    struct {
        struct run_request header;
        uint8_t body[sizeof(struct run_connect)];
    } whole = {.header = {.len = (uint32_t)(sizeof(struct run_request) + len),
                          .version = RUN_VERSION,
                          .kind = (uint16_t)kind}};
    int talk = faults_open_talk(p->serve, whole.header.secret);

    if (len > 0) {
        memcpy(whole.body, body, len);
    }
    faults_send_with(talk, &whole, whole.header.len, own);
    return talk;
}

/* One that has no descriptor in its reply. False: there is none. */
static bool ask(struct program *p, enum run_kind kind, const void *body, size_t len, int *status, void *reply,
                size_t reply_len)
{
    int talk = send_request(p, kind, body, len, -1), passed;
    bool is_there = faults_receive_reply(talk, status, reply, reply_len, &passed, &p->is_hung);

    (void)close(talk);
    return is_there;
}

static int connect_by_helper(const struct program *p)
{
    const struct run_connect body = {
        .destination = {.family = AF_INET, .port = 80, .bytes = {192, 0, 2, 1}},
        .cookie = COOKIE,
        .flags = RUN_CONNECT_ASKED | (p->way == WAY_NON_BLOCKING ? RUN_CONNECT_NON_BLOCKING : RUN_CONNECT_MARKED),
        .pad_len = PAD};

    return send_request(p, RUN_CONNECT, &body, sizeof body, p->own);
}

/* The next verdict; the socket that came along takes the place of `*talk`. */
static bool hear(struct program *p, int *talk)
{
    struct run_connected connected;
    int passed, status;

    if (!faults_receive_reply(*talk, &status, &connected, sizeof connected, &passed, &p->is_hung)) {
        return false;
    }
    if (passed >= 0) {
        (void)close(*talk);
        *talk = passed;
    }
    p->first = p->has_verdict ? p->first : connected.verdict;
    p->last = connected.verdict;
    p->error = connected.error;
    p->has_verdict = true;
    return true;
}

static bool is_told_to_wait(const struct program *p)
{
    return p->has_verdict && (p->last == RUN_VERDICT_WAIT || p->last == RUN_VERDICT_CONVERTED);
}

static void talk_to_echo(struct program *p, int fd)
{
    char echo[4];

    (void)__real_send(fd, "ping", 4, MSG_NOSIGNAL);
    p->is_served = faults_receive(fd, echo, sizeof echo, &p->is_hung) && memcmp(echo, "ping", 4) == 0;
}

/* What src/preload does with each verdict. The connection, or -1. */
static int settle(struct program *p, int talk)
{
    static char pad[PAD];
    char mark = RUN_CONVERT;

    switch ((enum run_verdict)p->last) {
    case RUN_VERDICT_DIRECT:
    case RUN_VERDICT_REFUSED:
    case RUN_VERDICT_FAILED:
        return -1;
    case RUN_VERDICT_WAIT:
    case RUN_VERDICT_CONVERTED:
        (void)__real_send(talk, pad, sizeof pad, MSG_NOSIGNAL);
        return talk;
    case RUN_VERDICT_STREAM:
        if (p->way == WAY_BLOCKING) { /* else the mark was sent by then */
            (void)__real_send(talk, &mark, 1, MSG_NOSIGNAL);
        }
        return talk;
    case RUN_VERDICT_SOCKET:
        return talk;
    case RUN_VERDICT_OWN:
        return p->own;
    }
    return -1;
}

/* As far as there is one: its last verdict is heard, or it is told to wait. The proxy may answer from then on. */
static int begin(struct program *p)
{
    const char convert = RUN_CONVERT;
    int talk = connect_by_helper(p);

    if (p->act == ACT_GO) {
        return talk;
    }
    if (p->way == WAY_CONVERTED) {
        (void)__real_send(talk, &convert, 1, MSG_NOSIGNAL);
    }
    if (p->way != WAY_BLOCKING) {
        (void)hear(p, &talk);
    }
    if (p->act != ACT_GO_LATER) {
        faults_proxy_go_on();
    }
    if (p->way == WAY_BLOCKING && p->act != ACT_GO_LATER) {
        (void)hear(p, &talk);
    }
    return talk;
}

static void run_talk(struct program *p)
{
    int talk = begin(p), fd = p->has_verdict ? settle(p, talk) : -1;

    if (fd >= 0) {
        talk_to_echo(p, fd);
    }
    p->route = offered();
    p->tcp_state = state_of(p->own);
    (void)close(talk);
}

static void run_and_go(struct program *p)
{
    (void)close(begin(p));
    if (!p->has_faults) { /* the helper makes an end of it, though we have the socket */
        struct pollfd poll_fd = {.fd = p->own};

        (void)poll(&poll_fd, 1, FAULTS_TIMEOUT_MS);
    }
    p->tcp_state = state_of(p->own);
    faults_proxy_go_on();
}

/* The proxy sees the end, though our own socket is still there. */
static void run_and_close(struct program *p)
{
    int talk = begin(p);

    if (settle(p, talk) == talk) {
        if (p->act == ACT_CLOSE_UNREAD) {
            struct pollfd poll_fd = {.fd = talk, .events = POLLIN};

            (void)__real_send(talk, "ping", 4, MSG_NOSIGNAL);
            p->is_served = poll(&poll_fd, 1, FAULTS_TIMEOUT_MS) == 1;
        } else {
            talk_to_echo(p, talk);
        }
    }
    (void)close(talk);
    p->proxy_end = faults_proxy_end();
}

/* Its question afterwards is answered by a helper that has nothing left of the connection. */
static void run_and_watch(struct program *p)
{
    const struct run_status question = {.cookie = COOKIE};
    char byte;
    int talk, status;

    faults_proxy_reset_after();
    talk = begin(p);
    if (settle(p, talk) == talk) {
        talk_to_echo(p, talk);
        (void)faults_receive(talk, &byte, 1, &p->is_hung);
    }
    for (int i = 0; i < 3; i++) {
        (void)ask(p, RUN_STATUS, &question, sizeof question, &status, &p->status, sizeof p->status);
    }
    (void)close(talk);
}

static void run_and_look(struct program *p)
{
    const struct run_status question = {.cookie = COOKIE};
    const struct run_option option = {
        .cookie = COOKIE, .level = SOL_SOCKET, .name = SO_KEEPALIVE, .len = sizeof p->option};
    int one = 1, status, talk;
    char byte;

    (void)setsockopt(p->own, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    talk = begin(p);
    if (settle(p, talk) == talk) {
        (void)faults_receive(talk, &byte, 1, &p->is_hung);
    }
    p->tcp_state = state_of(p->own);
    (void)ask(p, RUN_STATUS, &question, sizeof question, &status, &p->status, sizeof p->status);
    p->status_of_option = -1;
    (void)ask(p, RUN_GETSOCKOPT, &option, sizeof option, &p->status_of_option, &p->option, sizeof p->option);
    (void)close(talk);
}

static void run_to_direct(struct program *p)
{
    const struct run_addr direct = {.family = AF_INET, .bytes = {192, 0, 2, 1}};
    int status, talk;

    (void)ask(p, RUN_DIRECT, &direct, sizeof direct, &status, NULL, 0);
    talk = begin(p);
    p->tcp_state = state_of(p->own);
    (void)close(talk);
}

static void run_share(struct program *p)
{
    int talk = send_request(p, RUN_SHARE, NULL, 0, -1), status = -1, passed = -1;
    struct stat stat;

    p->has_verdict = faults_receive_reply(talk, &status, NULL, 0, &passed, &p->is_hung);
    p->error = status;
    p->has_share = passed >= 0 && fstat(passed, &stat) == 0 && (size_t)stat.st_size == run_share_len;
    if (passed >= 0) {
        (void)close(passed);
    }
    (void)close(talk);
}

/* There is no answer but the end. */
static void run_tokens(struct program *p)
{
    struct run_request request = {.len = sizeof request, .version = RUN_VERSION, .kind = RUN_TOKENS};
    int talk = faults_open_talk(p->serve, request.secret);
    char byte;

    request.secret[RUN_SECRET_LEN - 1] ^= p->act == ACT_STRANGER;
    faults_send_with(talk, &request, sizeof request, -1);
    p->is_served = faults_receive(talk, &byte, 1, &p->is_hung);
    (void)close(talk);
}

static void *run_program(void *arg)
{
    struct program *p = arg;
    bool has_ended = p->act == ACT_CLOSE || p->act == ACT_CLOSE_UNREAD;

    if (p->act == ACT_SHARE) {
        run_share(p);
        loop_stop(run_serve_loop(p->serve));
        return NULL;
    }
    if (p->act == ACT_TOKENS || p->act == ACT_STRANGER) {
        run_tokens(p);
        loop_stop(run_serve_loop(p->serve));
        return NULL;
    }
    p->own = faults_proxy_ask();
    switch (p->act) {
    case ACT_TALK:
        run_talk(p);
        break;
    case ACT_GO:
    case ACT_GO_LATER:
        run_and_go(p);
        break;
    case ACT_CLOSE:
    case ACT_CLOSE_UNREAD:
        run_and_close(p);
        break;
    case ACT_WATCH_THE_END:
        run_and_watch(p);
        break;
    case ACT_FAIL_AND_LOOK:
        run_and_look(p);
        break;
    case ACT_TO_DIRECT:
        run_to_direct(p);
        break;
    case ACT_SHARE:
    case ACT_TOKENS:
    case ACT_STRANGER:
        break;
    }
    (void)close(p->own);
    if (!has_ended) {
        (void)faults_proxy_end(); /* the helper has nothing left of it, either */
    }
    loop_stop(run_serve_loop(p->serve));
    return NULL;
}

/* --- one run --- */

static int set_up(void **state)
{
    (void)state;
    return run_shortcut_open(&shortcut) == 0 ? faults_proxy_start() : -1;
}

static int tear_down(void **state)
{
    (void)state;
    run_shortcut_close(&shortcut);
    return 0;
}

/* Runs one program with the nth call failing. Whether there were that many. */
static bool run_once(struct program *p, struct run_shortcut *offer, unsigned n)
{
    const struct run_serve_config config = {.proxy = &faults_proxy,
                                            .addresses = &faults_addresses,
                                            .shortcut = offer,
                                            .family = AF_UNSPEC,
                                            .timeout_ms = FAULTS_TIMEOUT_MS,
                                            .no_session = true};
    unsigned fds = faults_count_fds();
    pthread_t thread;

    p->has_faults = n > 0;
    faults_has_failed = false;
    assert_int_equal(run_serve_new(&config, &p->serve), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_program, p), 0);
    faults_countdown = n;
    assert_int_equal(loop_run(run_serve_loop(p->serve)), 0);
    faults_countdown = 0;
    assert_int_equal(pthread_join(thread, NULL), 0);
    run_serve_free(p->serve);
    if (!faults_has_fds(fds)) {
        fail_msg("descriptors are left when call %u, %s(), failed with %s", n, faults_what, strerror(faults_errno));
    }
    return faults_has_failed;
}

/* What must be so whatever has failed. */
static void check_promises(const struct program *p, unsigned n)
{
    bool is_idle = p->tcp_state == TCP_CLOSE;
    const char *wrong = NULL;

    if (p->is_hung) {
        wrong = "the program hung";
    } else if (p->has_verdict && p->last == RUN_VERDICT_OWN) {
        wrong = p->is_served ? NULL : "its own socket is no connection";
    } else if (is_told_to_wait(p)) {
        wrong = p->is_served || p->tcp_state != TCP_ESTABLISHED ? NULL : "its socket is left connected";
    } else if (p->has_verdict && (p->last != RUN_VERDICT_FAILED || p->error != ENOBUFS)) {
        wrong = is_idle ? NULL : "it was told otherwise, and is connected"; /* after ENOBUFS it does that itself */
    }
    if (wrong != NULL) {
        fail_msg("%s when call %u, %s(), failed with %s", wrong, n, faults_what, strerror(faults_errno));
    }
}

struct scenario {
    enum way way;
    enum act act;
    enum faults_manner own, others;
};

static struct program run_without_faults(const struct scenario *scenario)
{
    struct program p = {.way = scenario->way, .act = scenario->act, .own = -1};

    faults_proxy_behave(scenario->own, scenario->others, true);
    assert_false(run_once(&p, &shortcut, 0));
    assert_false(p.is_hung);
    return p;
}

/* Each call fails once, in each of the ways that matter. */
static void run_with_faults(const struct scenario *scenario)
{
    static const int errors[] = {ENOMEM, ECONNRESET, EMFILE};

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        bool has_more = true;
        unsigned n;

        faults_errno = errors[i];
        for (n = 1; has_more; n++) {
            struct program p = {.way = scenario->way, .act = scenario->act, .own = -1};

            faults_proxy_behave(scenario->own, scenario->others, true);
            has_more = run_once(&p, &shortcut, n);
            if (scenario->act == ACT_TALK) {
                check_promises(&p, n);
            } else {
                assert_false(p.is_hung);
            }
        }
        assert_true(n > CALLS_MIN);
    }
}

/* --- the tests: the proxy says yes --- */

static void test_blocking_becomes_its_own(void **state)
{
    const struct scenario scenario = {WAY_BLOCKING, ACT_TALK, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_int_equal(p.last, RUN_VERDICT_OWN);
    assert_true(p.is_served);
    assert_int_equal(p.tcp_state, TCP_ESTABLISHED);
    run_with_faults(&scenario);
}

static void test_non_blocking_becomes_a_stream(void **state)
{
    const struct scenario scenario = {WAY_NON_BLOCKING, ACT_TALK, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_int_equal(p.last, RUN_VERDICT_WAIT);
    assert_true(p.is_served);
    run_with_faults(&scenario);
}

static void test_interrupted_becomes_a_stream(void **state)
{
    const struct scenario scenario = {WAY_CONVERTED, ACT_TALK, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_int_equal(p.last, RUN_VERDICT_CONVERTED);
    assert_true(p.is_served);
    run_with_faults(&scenario);
}

/* --- the remote end refuses --- */

static void test_blocking_is_refused(void **state)
{
    const struct scenario scenario = {WAY_BLOCKING, ACT_TALK, FAULTS_REFUSED, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_int_equal(p.last, RUN_VERDICT_FAILED);
    assert_int_equal(p.error, ECONNREFUSED);
    assert_int_equal(p.tcp_state, TCP_CLOSE);
    run_with_faults(&scenario);
}

static void check_refused_later(enum way way, uint32_t verdict)
{
    const struct scenario scenario = {way, ACT_FAIL_AND_LOOK, FAULTS_REFUSED, FAULTS_YES};
    const struct scenario plain = {way, ACT_TALK, FAULTS_REFUSED, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    assert_int_equal(p.last, verdict);
    assert_int_equal(p.tcp_state, TCP_CLOSE);
    assert_int_equal(p.status.state, RUN_STATE_FAILED);
    assert_int_equal(p.status.error, ECONNREFUSED);
    assert_int_equal(p.status_of_option, 0); /* what the program has set goes on */
    assert_int_equal(p.option, 1);
    run_with_faults(&plain);
}

static void test_non_blocking_is_refused(void **state)
{
    (void)state;
    check_refused_later(WAY_NON_BLOCKING, RUN_VERDICT_WAIT);
}

static void test_interrupted_is_refused(void **state)
{
    (void)state;
    check_refused_later(WAY_CONVERTED, RUN_VERDICT_CONVERTED);
}

/* --- the proxy wants another request --- */

/* What programs have gone by. Its serial. */
static uint64_t offer_route(void)
{
    const struct run_route route = {.proxy = {.family = AF_INET, .port = 1}};

    run_share_publish(shortcut.share, &route);
    assert_true(offered() != 0);
    return offered();
}

static void check_useless(enum way way, uint32_t verdict)
{
    const struct scenario scenario = {way, ACT_TALK, FAULTS_USELESS, FAULTS_YES};
    uint64_t serial = offer_route();
    struct program p = run_without_faults(&scenario);

    assert_int_equal(p.last, verdict);
    assert_true(p.is_served);
    assert_int_equal(p.tcp_state, TCP_CLOSE);
    assert_true(p.route != serial); /* it was withdrawn; what the helper's own request has shown may be offered */
    run_with_faults(&scenario);
}

static void test_blocking_is_dialled_anew(void **state)
{
    (void)state;
    check_useless(WAY_BLOCKING, RUN_VERDICT_SOCKET);
}

static void test_non_blocking_is_dialled_anew(void **state)
{
    (void)state;
    check_useless(WAY_NON_BLOCKING, RUN_VERDICT_WAIT);
}

static void test_interrupted_is_dialled_anew(void **state)
{
    (void)state;
    check_useless(WAY_CONVERTED, RUN_VERDICT_CONVERTED);
}

static void test_dialled_anew_and_refused(void **state)
{
    const struct scenario scenario = {WAY_BLOCKING, ACT_TALK, FAULTS_USELESS, FAULTS_REFUSED};
    struct program p;

    (void)state;
    (void)offer_route();
    p = run_without_faults(&scenario);
    assert_int_equal(p.last, RUN_VERDICT_FAILED);
    assert_int_equal(p.error, ECONNREFUSED);
    assert_int_equal(p.tcp_state, TCP_CLOSE);
    assert_true(p.route == 0);
    run_with_faults(&scenario);
}

/* --- the program goes --- */

static void test_the_program_goes_away(void **state)
{
    static const struct scenario scenarios[] = {
        {WAY_BLOCKING, ACT_GO, FAULTS_YES, FAULTS_YES},        {WAY_NON_BLOCKING, ACT_GO, FAULTS_YES, FAULTS_YES},
        {WAY_BLOCKING, ACT_GO_LATER, FAULTS_YES, FAULTS_YES},  {WAY_NON_BLOCKING, ACT_GO_LATER, FAULTS_YES, FAULTS_YES},
        {WAY_CONVERTED, ACT_GO_LATER, FAULTS_YES, FAULTS_YES},
    };

    (void)state;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        struct program p = run_without_faults(&scenarios[i]);

        assert_int_equal(p.tcp_state, TCP_CLOSE);
        run_with_faults(&scenarios[i]);
    }
}

/* --- the program has more than one descriptor of its socket --- */

static void test_what_it_closes_is_closed(void **state)
{
    const struct scenario scenario = {WAY_NON_BLOCKING, ACT_CLOSE, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_true(p.is_served);
    assert_int_equal(p.proxy_end, 0);
}

static void test_what_it_has_not_read_resets(void **state)
{
    const struct scenario scenario = {WAY_NON_BLOCKING, ACT_CLOSE_UNREAD, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_true(p.is_served);
    assert_int_equal(p.proxy_end, ECONNRESET);
}

static void test_the_helper_forgets_what_has_ended(void **state)
{
    const struct scenario scenario = {WAY_NON_BLOCKING, ACT_WATCH_THE_END, FAULTS_YES, FAULTS_YES};
    struct program p = run_without_faults(&scenario);

    (void)state;
    assert_true(p.is_served);
    assert_int_equal(p.status.state, RUN_STATE_BROKEN);
    assert_int_equal(p.status.error, ECONNRESET);
}

/* --- other answers --- */

static void test_direct_after_all(void **state)
{
    static const enum way ways[] = {WAY_BLOCKING, WAY_NON_BLOCKING};

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct scenario scenario = {ways[i], ACT_TO_DIRECT, FAULTS_YES, FAULTS_YES};
        struct program p = run_without_faults(&scenario);

        assert_int_equal(p.last, RUN_VERDICT_DIRECT);
        assert_int_equal(p.tcp_state, TCP_CLOSE); /* so that the program can connect it */
    }
}

static void test_share(void **state)
{
    const struct scenario scenario = {.act = ACT_SHARE};
    struct program p = run_without_faults(&scenario);
    bool has_more = true;

    (void)state;
    assert_true(p.has_verdict && p.has_share);
    assert_int_equal(p.error, 0);
    faults_errno = ENOMEM;
    for (unsigned n = 1; has_more; n++) {
        p = (struct program){.act = ACT_SHARE};
        has_more = run_once(&p, &shortcut, n);
        assert_false(p.is_hung);
        /* Who cannot be asked for is nobody of ours. */
        assert_true(!p.has_verdict || (p.error == 0 && p.has_share) || (p.error == EACCES && !p.has_share));
    }
}

static void test_there_is_no_share(void **state)
{
    struct program p = {.act = ACT_SHARE};

    (void)state;
    assert_false(run_once(&p, NULL, 0));
    assert_true(p.has_verdict);
    assert_false(p.has_share);
    assert_int_equal(p.error, ENOENT);
}

/* --- tokens --- */

/* Whether the helper takes up what programs have heard of the window when one says that there are few tokens left. */
static bool is_news_taken(enum act act, unsigned n, bool *has_more)
{
    const struct run_route route = {.proxy = {.family = AF_INET, .port = 1}, .has_fast_open = 1};
    struct program p = {.act = act};
    uint32_t base, size;

    run_share_publish(shortcut.share, &route);
    run_share_tell_window(shortcut.share, 1, 100);
    *has_more = run_once(&p, &shortcut, n);
    assert_false(p.is_hung);
    assert_false(p.is_served);
    assert_true(offered() == 0); /* at its end it withdraws */
    return !run_share_take_window(shortcut.share, &base, &size);
}

static void test_few_tokens(void **state)
{
    struct program p = {.act = ACT_TOKENS};
    bool has_more;

    (void)state;
    assert_true(is_news_taken(ACT_TOKENS, 0, &has_more));
    faults_errno = ENOMEM;
    for (unsigned n = 1; n == 1 || has_more; n++) {
        bool is_taken = is_news_taken(ACT_TOKENS, n, &has_more);

        assert_true(is_taken || has_more);
    }
    assert_false(run_once(&p, NULL, 0)); /* there is no memory */
    assert_false(p.is_hung || p.is_served);
}

static void test_few_tokens_of_a_stranger(void **state)
{
    bool has_more;

    (void)state;
    assert_false(is_news_taken(ACT_STRANGER, 0, &has_more));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking_becomes_its_own),
        cmocka_unit_test(test_non_blocking_becomes_a_stream),
        cmocka_unit_test(test_interrupted_becomes_a_stream),
        cmocka_unit_test(test_blocking_is_refused),
        cmocka_unit_test(test_non_blocking_is_refused),
        cmocka_unit_test(test_interrupted_is_refused),
        cmocka_unit_test(test_blocking_is_dialled_anew),
        cmocka_unit_test(test_non_blocking_is_dialled_anew),
        cmocka_unit_test(test_interrupted_is_dialled_anew),
        cmocka_unit_test(test_dialled_anew_and_refused),
        cmocka_unit_test(test_the_program_goes_away),
        cmocka_unit_test(test_what_it_closes_is_closed),
        cmocka_unit_test(test_what_it_has_not_read_resets),
        cmocka_unit_test(test_the_helper_forgets_what_has_ended),
        cmocka_unit_test(test_direct_after_all),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_there_is_no_share),
        cmocka_unit_test(test_few_tokens),
        cmocka_unit_test(test_few_tokens_of_a_stranger),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
