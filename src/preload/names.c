#include "preload/names.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "preload/real.h"
#include "preload/talk.h"

int names_error(int negative)
{
    switch (negative) {
    case -ENOMEM:
        return EAI_MEMORY;
    case -EPROTO:
        return EAI_FAIL;
    default:
        return EAI_AGAIN;
    }
}

int names_ask(const char *name, int family, uint32_t flags)
{
    size_t len = strlen(name);
    struct run_resolve question = {.family = (uint16_t)family, .name_len = (uint16_t)len, .flags = flags};
    union {
        const char *text;
        void *base; /* of an iovec, which is only read */
    } text = {name};
    const struct iovec parts[] = {{&question, sizeof question}, {text.base, len}};
    int fd, rc;

    if (len == 0 || len > RUN_NAME_MAX) {
        return EAI_NONAME;
    }
    fd = talk_open();
    if (fd < 0) {
        return names_error(fd);
    }
    rc = talk_send(fd, RUN_RESOLVE, parts, 2, -1);
    if (rc != 0) {
        talk_close(fd);
        return names_error(rc);
    }
    return fd;
}

/* Does the reply's length fit what it says? */
static bool unpack(const char *body, size_t len, struct names_addresses *out)
{
    struct run_resolved head;
    size_t addresses_len;

    if (len < sizeof head) {
        return false;
    }
    memcpy(&head, body, sizeof head);
    if (head.count > RUN_ADDRESSES_MAX || head.canon_len > RUN_NAME_MAX) {
        return false;
    }
    addresses_len = head.count * sizeof(struct run_addr);
    if (len != sizeof head + addresses_len + head.canon_len) {
        return false;
    }
    out->count = head.count;
    memcpy(out->addresses, body + sizeof head, addresses_len);
    memcpy(out->canon, body + sizeof head + addresses_len, head.canon_len);
    out->canon[head.canon_len] = '\0';
    out->canon_len = head.canon_len;
    return true;
}

int names_await(int fd, struct names_addresses *out)
{
    size_t size = sizeof(struct run_resolved) + sizeof *out;
    char *body = malloc(size);
    int status = 0;
    ssize_t len = body == NULL ? -ENOMEM : talk_receive(fd, &status, body, size, NULL, 0);

    talk_close(fd);
    if (len < 0) {
        status = names_error((int)len);
    } else if (status == 0 && !unpack(body, (size_t)len, out)) {
        status = EAI_FAIL;
    } else if (status > RUN_ASK_SYSTEM) {
        status = EAI_FAIL; /* no status that we know */
    }
    free(body);
    return status;
}

int names_resolve(const char *name, int family, uint32_t flags, struct names_addresses *out)
{
    int fd = names_ask(name, family, flags);

    return fd < 0 ? fd : names_await(fd, out);
}

int names_reverse(const struct run_addr *addr, char *out, size_t size)
{
    struct run_addr copy = *addr;
    const struct iovec part = {&copy, sizeof copy};
    int status = 0;
    ssize_t len = talk_ask(RUN_REVERSE, &part, 1, &status, out, size);

    if (len < 0) {
        return names_error((int)len);
    }
    if (status != 0) {
        return status == RUN_ASK_SYSTEM ? NAMES_ASK_SYSTEM : status < 0 ? status : EAI_FAIL;
    }
    return len > 1 && out[len - 1] == '\0' && out[0] != '\0' ? (int)len : EAI_NONAME;
}

bool names_from_sockaddr(const struct sockaddr *addr, struct run_addr *out)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;

    memset(out, 0, sizeof *out);
    out->family = addr->sa_family;
    switch (addr->sa_family) {
    case AF_INET:
        memcpy(&ipv4, addr, sizeof ipv4);
        out->port = ntohs(ipv4.sin_port);
        memcpy(out->bytes, &ipv4.sin_addr, sizeof ipv4.sin_addr);
        return true;
    case AF_INET6:
        memcpy(&ipv6, addr, sizeof ipv6);
        out->port = ntohs(ipv6.sin6_port);
        out->scope = ipv6.sin6_scope_id;
        memcpy(out->bytes, &ipv6.sin6_addr, sizeof ipv6.sin6_addr);
        return true;
    default:
        return false;
    }
}

void names_unmap(struct run_addr *addr)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

    if (addr->family == AF_INET6 && memcmp(addr->bytes, prefix, sizeof prefix) == 0) {
        memmove(addr->bytes, addr->bytes + sizeof prefix, sizeof(struct in_addr));
        memset(addr->bytes + sizeof(struct in_addr), 0, sizeof prefix);
        addr->family = AF_INET;
        addr->scope = 0;
    }
}

bool names_numeric(const char *text, struct run_addr *out)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    int saved = errno;
    bool is_numeric = false;

    if (real(getaddrinfo)(text, NULL, &hints, &list) == 0) {
        is_numeric = names_from_sockaddr(list->ai_addr, out);
        freeaddrinfo(list);
    }
    errno = saved;
    return is_numeric;
}

void names_tell_direct(const struct run_addr *addr)
{
    struct run_addr copy = *addr;
    const struct iovec part = {&copy, sizeof copy};
    int status;
    ssize_t len = talk_ask(RUN_DIRECT, &part, 1, &status, NULL, 0);

    (void)len; /* without a helper nothing can be connected to anyway */
}
