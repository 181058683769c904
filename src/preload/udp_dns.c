/*
 * Theory of operation. For each destination the helper has a port on 127.0.0.1 and one on ::1. They are remembered in a table
 * that only grows: an entry is written by whoever takes the next number, and read once it is marked as complete. When the table is
 * full, the helper is asked each time.
 */
#include "preload/udp_dns.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "preload/addr.h"
#include "preload/config.h"
#include "preload/connect.h"
#include "preload/slots.h"
#include "preload/sys.h"
#include "preload/talk.h"

#define ENTRIES 256

struct entry {
    struct run_addr destination;
    uint16_t port_ipv4, port_ipv6;
    atomic_bool is_complete;
};

static struct entry entries[ENTRIES];
static atomic_uint entries_begun;

static unsigned entries_count(void)
{
    unsigned count = atomic_load(&entries_begun);

    return count < ENTRIES ? count : ENTRIES;
}

static bool is_complete(const struct entry *entry)
{
    return atomic_load_explicit(&entry->is_complete, memory_order_acquire);
}

static void remember(const struct run_udp_dns *answer)
{
    unsigned number = atomic_load(&entries_begun);

    do {
        if (number >= ENTRIES) {
            return;
        }
    } while (!atomic_compare_exchange_weak(&entries_begun, &number, number + 1));
    entries[number].destination = answer->destination;
    entries[number].port_ipv4 = answer->port_ipv4;
    entries[number].port_ipv6 = answer->port_ipv6;
    atomic_store_explicit(&entries[number].is_complete, true, memory_order_release);
}

static bool ask(const struct run_addr *about, struct run_udp_dns *out)
{
    struct run_addr question = *about;
    struct iovec part = {&question, sizeof question};
    int status = 0;
    ssize_t len = talk_ask(RUN_UDP_DNS, &part, 1, &status, out, sizeof *out);

    return len == (ssize_t)sizeof *out && status == 0;
}

/* The helper's ports for a destination. False: there are none. */
static bool find_ports(const struct run_addr *destination, struct run_udp_dns *out)
{
    for (unsigned i = 0; i < entries_count(); i++) {
        if (is_complete(&entries[i]) && addr_equal(&entries[i].destination, destination)) {
            out->port_ipv4 = entries[i].port_ipv4;
            out->port_ipv6 = entries[i].port_ipv6;
            return true;
        }
    }
    if (!ask(destination, out)) {
        return false;
    }
    out->destination = *destination;
    remember(out);
    return true;
}

/* 127.0.0.1, mapped if the program's address was IPv6, or ::1. */
static bool make_target(const struct run_addr *destination, bool is_mapped, struct sockaddr_storage *to, socklen_t *len)
{
    struct run_udp_dns ports;
    struct run_addr target = {.family = destination->family};

    if (!find_ports(destination, &ports)) {
        return false;
    }
    if (target.family == AF_INET) {
        memcpy(target.bytes, (const uint8_t[]){127, 0, 0, 1}, 4);
        target.port = ports.port_ipv4;
    } else {
        target.bytes[15] = 1;
        target.port = ports.port_ipv6;
    }
    *len = addr_show(&target, is_mapped ? AF_INET6 : target.family, to);
    return target.port != 0;
}

/* Datagrams of UDP-Lite and others have nobody who answers DNS. */
static bool is_udp(int fd)
{
    return sys_get_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP;
}

static enum udp_way refuse(const struct run_addr *destination)
{
    char text[ADDR_TEXT_LEN];

    if (preload_config()->allow_direct) {
        talk_note(RUN_NOTE_TRACE, "send to %s without TCP: direct, allowed", addr_text(destination, text));
        return UDP_AS_IS;
    }
    talk_note(RUN_NOTE_REFUSED, "send to %s without TCP: refused", addr_text(destination, text));
    return UDP_REFUSED;
}

/* A family of 0 is AF_INET to the kernel when it sends from an IPv4 socket. */
static bool parse(const void *addr, socklen_t len, struct run_addr *out, bool *is_mapped)
{
    struct sockaddr_in in;
    bool is_unspec;

    if (addr_parse(addr, len, out, is_mapped)) {
        return true;
    }
    if (addr == NULL || len < sizeof in) {
        return false;
    }
    memcpy(&in, addr, sizeof in);
    is_unspec = in.sin_family == AF_UNSPEC;
    in.sin_family = AF_INET;
    return is_unspec && addr_parse(&in, sizeof in, out, is_mapped);
}

enum udp_way udp_way(int fd, const void *addr, socklen_t len, struct sockaddr_storage *to, socklen_t *to_len)
{
    struct run_addr destination;
    bool is_mapped;

    if (!parse(addr, len, &destination, &is_mapped)) {
        return UDP_AS_IS; /* the kernel refuses it, or it is of another family, which socket(2) has let through */
    }
    if (destination.port == ADDR_DNS_PORT && is_udp(fd)) {
        return make_target(&destination, is_mapped, to, to_len) ? UDP_ELSEWHERE : UDP_REFUSED;
    }
    if (addr_is_loopback(&destination) || addr_is_wildcard(&destination)) {
        return UDP_AS_IS;
    }
    return refuse(&destination);
}

static int connect_elsewhere(int fd, const struct sockaddr *addr, socklen_t len, const struct sockaddr_storage *to,
                             socklen_t to_len)
{
    struct slot slot = {.kind = SLOT_UDP};
    int rc = connect_real(fd, (const struct sockaddr *)to, to_len);

    if (rc == 0 && addr_parse(addr, len, &slot.peer, NULL)) {
        slot.cookie = sys_cookie(fd);
        slots_put(fd, &slot);
    }
    return rc;
}

int udp_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_storage to;
    socklen_t to_len;
    struct slot slot;
    int rc;

    switch (udp_way(fd, addr, len, &to, &to_len)) {
    case UDP_ELSEWHERE:
        return connect_elsewhere(fd, addr, len, &to, to_len);
    case UDP_REFUSED:
        errno = ENETUNREACH;
        return -1;
    case UDP_AS_IS:
        break;
    }
    rc = connect_real(fd, addr, len);
    if (rc == 0 && slots_hint(fd) != SLOT_OTHER) {
        slot = (struct slot){.cookie = sys_cookie(fd), .kind = SLOT_OTHER};
        slots_put(fd, &slot);
    }
    return rc;
}

static bool is_port_of(const struct entry *entry, const struct run_addr *source)
{
    return is_complete(entry) && source->port == (source->family == AF_INET ? entry->port_ipv4 : entry->port_ipv6);
}

bool udp_original_source(const void *from, socklen_t len, struct run_addr *out)
{
    unsigned count = entries_count();
    struct run_addr source;

    if (count == 0 || !addr_parse(from, len, &source, NULL) || !addr_is_loopback(&source)) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (is_port_of(&entries[i], &source)) {
            *out = entries[i].destination;
            return true;
        }
    }
    return false;
}

bool udp_original_peer(int fd, const void *peer, socklen_t len, struct run_addr *out)
{
    uint64_t cookie = sys_cookie(fd);
    struct run_udp_dns answer;
    struct run_addr question;
    struct slot slot;

    if (slots_get(fd, cookie, &slot)) {
        *out = slot.peer;
        return slot.kind == SLOT_UDP;
    }
    if (!addr_parse(peer, len, &question, NULL) || !addr_is_loopback(&question) || !is_udp(fd)) {
        return false;
    }
    if (udp_original_source(peer, len, out)) {
        return true;
    }
    question.family = AF_UNSPEC;
    if (!ask(&question, &answer) || answer.destination.family == AF_UNSPEC) {
        return false;
    }
    *out = answer.destination;
    return true;
}
