#include "cli/run_udp_owner.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_LEN 512

/* A peer in the form of the table: four words of the address, each as the machine reads it. */
struct place {
    uint32_t words[4];
    bool is_ipv4;
    uint16_t port;
};

static bool place_of(const struct sockaddr *peer, struct place *out)
{
    struct sockaddr_in sin;
    struct sockaddr_in6 sin6;

    memset(out, 0, sizeof *out);
    if (peer->sa_family == AF_INET) {
        memcpy(&sin, peer, sizeof sin);
        out->words[3] = sin.sin_addr.s_addr;
        out->is_ipv4 = true;
        out->port = ntohs(sin.sin_port);
        return true;
    }
    if (peer->sa_family == AF_INET6) {
        memcpy(&sin6, peer, sizeof sin6);
        memcpy(out->words, &sin6.sin6_addr, sizeof out->words);
        out->port = ntohs(sin6.sin6_port);
        return true;
    }
    return false;
}

/* `count` words of eight hexadecimal digits. */
static bool read_words(const char *at, size_t count, uint32_t *words)
{
    char digits[9] = "";
    char *end;

    for (size_t i = 0; i < count; i++) {
        memcpy(digits, at + i * 8, 8);
        words[i] = (uint32_t)strtoul(digits, &end, 16);
        if (*end != '\0') {
            return false;
        }
    }
    return true;
}

/* Whether a socket at `words` gets what is sent to the place: at that address, or at all of them. */
static bool is_at(const uint32_t words[4], bool is_ipv4, const struct place *place)
{
    static const uint32_t any[4];
    const uint32_t mapped[4] = {0, 0, htonl(0xffff), place->words[3]};

    if (memcmp(words, any, sizeof any) == 0) {
        return is_ipv4 == place->is_ipv4 || !is_ipv4;
    }
    if (is_ipv4 != place->is_ipv4) { /* an IPv6 socket that speaks IPv4 */
        return place->is_ipv4 && memcmp(words, mapped, sizeof mapped) == 0;
    }
    return memcmp(words, place->words, sizeof place->words) == 0;
}

/* "  sl: ADDRESS:PORT ADDRESS:PORT ST TX:RX TR:WHEN RETRNSMT UID ..." */
static bool line_has(const char *line, const struct place *place, uid_t real, uid_t effective)
{
    const char *colon = strchr(line, ':');
    const char *at = colon != NULL ? colon + 1 + strspn(colon + 1, " ") : "";
    size_t digits = strspn(at, "0123456789ABCDEFabcdef");
    bool is_ipv4 = digits == 8;
    uint32_t words[4] = {0};
    unsigned long port, uid;
    char *end;

    if ((digits != 8 && digits != 32) || at[digits] != ':' ||
        !read_words(at, is_ipv4 ? 1 : 4, is_ipv4 ? &words[3] : words)) {
        return false;
    }
    port = strtoul(at + digits + 1, &end, 16);
    if (port != place->port || !is_at(words, is_ipv4, place)) {
        return false;
    }
    for (int skip = 0; skip < 5; skip++) {
        end += strspn(end, " ");
        end += strcspn(end, " ");
    }
    at = end + strspn(end, " ");
    uid = strtoul(at, &end, 10);
    return end != at && (uid == real || uid == effective);
}

bool run_udp_owner_in(FILE *table, const struct sockaddr *peer, uid_t real, uid_t effective)
{
    char line[LINE_MAX_LEN];
    struct place place;

    if (!place_of(peer, &place)) {
        return false;
    }
    while (fgets(line, sizeof line, table) != NULL) {
        if (line_has(line, &place, real, effective)) {
            return true;
        }
    }
    return false;
}

bool run_udp_owner_is_ours(const struct sockaddr *peer)
{
    static const char *const paths[] = {"/proc/net/udp", "/proc/net/udp6"};
    bool is_ours = getuid() == 0 || geteuid() == 0;

    for (size_t i = peer->sa_family == AF_INET ? 0 : 1; i < 2 && !is_ours; i++) {
        FILE *table = fopen(paths[i], "re");

        if (table == NULL) {
            return i == 0 || peer->sa_family != AF_INET; /* without IPv6 there is one table */
        }
        is_ours = run_udp_owner_in(table, peer, getuid(), geteuid());
        (void)fclose(table);
    }
    return is_ours;
}
