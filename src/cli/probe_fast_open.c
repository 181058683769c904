/*
 * TCP Fast Open (RFC 7413) between us and the proxy. The first connection may get a cookie, the second one can send its
 * request in the SYN; TCP_INFO tells whether the proxy's kernel took it. The request may arrive twice, so it is one that
 * does nothing: a NOOP, or a greeting.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/probe_plan_internal.h"

#define CLIENT_BIT 1

/* net.ipv4.tcp_fastopen, for IPv6 as well; -1 if it cannot be read. */
static int read_setting(void)
{
    char text[16];
    ssize_t n = -1;
    int fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        n = read(fd, text, sizeof text - 1);
        (void)close(fd);
    }
    if (n <= 0) {
        return -1;
    }
    text[n] = '\0';
    return (int)strtol(text, NULL, 0);
}

/* 1: our bytes went in the SYN; 0: they did not; -1: no answer. */
static int try6(struct probe *probe)
{
    struct probe_ask6 ask;
    int result = -1;

    probe_ask6_init(&ask, NULL, NULL);
    ask.config.command = SOCKS6_COMMAND_NOOP;
    ask.fast_open = true;
    probe_run_one(probe, &ask);
    if (ask.outcome == PROBE6_REPLIED || ask.outcome == PROBE6_REFUSED) {
        result = ask.talk.syn_data ? 1 : 0;
    }
    probe_ask6_done(&ask);
    return result;
}

static int try5(struct probe *probe)
{
    struct probe_old ask = {.form = PROBE_OLD_GREETING5, .method_count = 1, .fast_open = true};
    struct probe_old *const one[1] = {&ask};
    int result = -1;

    probe_old_run(one, 1, &probe->peer, probe->limit_us, probe->deadline_us);
    if (ask.outcome == PROBE_OLD_ANSWERED || ask.outcome == PROBE_OLD_REFUSED) {
        result = ask.talk.syn_data ? 1 : 0;
    }
    probe_old_done(&ask);
    return result;
}

void probe_fast_open(struct probe *probe)
{
    bool speaks6 = probe->facts.socks6.progress != PROBE_NOT_SPOKEN;
    int setting = read_setting();
    int result = 0;

    if (!speaks6 && probe->facts.socks5.progress == PROBE_NOT_SPOKEN) {
        return; /* SOCKS 4 has no request without an effect */
    }
    if (setting >= 0 && (setting & CLIENT_BIT) == 0) {
        probe_set(probe->report, PROBE_ROW_TFO_CLIENT, PROBE_SKIPPED,
                  "not asked: net.ipv4.tcp_fastopen is %d here, which switches it off for clients", setting);
        return;
    }
    for (int i = 0; i < 2 && result == 0; i++) {
        if (!probe_next(probe, "TCP Fast Open")) {
            return;
        }
        result = speaks6 ? try6(probe) : try5(probe);
    }
    if (result == 1) {
        probe_set(probe->report, PROBE_ROW_TFO_CLIENT, PROBE_YES, "the request travels in the SYN");
    } else if (result == 0) {
        probe_set(probe->report, PROBE_ROW_TFO_CLIENT, PROBE_NO, "the proxy takes no data in a SYN");
    } else {
        probe_set(probe->report, PROBE_ROW_TFO_CLIENT, PROBE_UNKNOWN, "no answer to a request that tried it");
    }
}
