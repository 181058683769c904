/*
 * Over the system's resolver in io/resolver: one question there, split here into the two families' answers.
 */
#include "dns/lookup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/resolver.h"

struct dns_resolver {
    struct resolver *pool;
};

struct dns_client {
    struct dns_resolver *resolver;
    struct loop *loop;
};

struct dns_lookup {
    struct resolver_query *query;
    dns_lookup_done *done;
    void *user;
    unsigned families;
    bool is_answering, is_cancelled;
};

int dns_resolver_new(const struct dns_settings *settings, struct dns_resolver **out)
{
    struct dns_resolver *resolver = calloc(1, sizeof *resolver);
    (void)settings;
    int err = resolver == NULL ? -ENOMEM : resolver_new(16, 4096, &resolver->pool);
    if (err != 0) {
        free(resolver);
        return err;
    }
    *out = resolver;
    return 0;
}

void dns_resolver_free(struct dns_resolver *resolver)
{
    if (resolver != NULL) {
        resolver_free(resolver->pool);
        free(resolver);
    }
}

int dns_client_new(struct dns_resolver *resolver, struct loop *loop, struct dns_client **out)
{
    struct dns_client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        return -ENOMEM;
    }
    *client = (struct dns_client){.resolver = resolver, .loop = loop};
    *out = client;
    return 0;
}

void dns_client_free(struct dns_client *client)
{
    free(client);
}

static void answer_family(struct dns_lookup *lookup, const struct resolver_answer *all, int family)
{
    struct socks6_addr addrs[RESOLVER_ADDRESSES_MAX];
    struct dns_lookup_answer answer = {.family = family, .why = all->why, .addrs = addrs};
    uint8_t type = family == AF_INET ? SOCKS6_ADDR_IPV4 : SOCKS6_ADDR_IPV6;

    for (size_t i = 0; i < all->count; i++) {
        if (all->addrs[i].type == type) {
            addrs[answer.count++] = all->addrs[i];
        }
    }
    answer.status = all->status == RESOLVER_FAILED ? DNS_LOOKUP_FAILED
                    : answer.count == 0            ? DNS_LOOKUP_NO_ADDRESS
                                                   : DNS_LOOKUP_OK;
    if (answer.status == DNS_LOOKUP_NO_ADDRESS && all->status == RESOLVER_OK) {
        answer.why = "no address of this family";
    }
    lookup->done(lookup->user, &answer);
}

static void on_answer(void *user, const struct resolver_answer *all)
{
    struct dns_lookup *lookup = user;

    lookup->is_answering = true;
    if ((lookup->families & DNS_LOOKUP_IPV6) != 0) {
        answer_family(lookup, all, AF_INET6);
    }
    if (!lookup->is_cancelled && (lookup->families & DNS_LOOKUP_IPV4) != 0) {
        answer_family(lookup, all, AF_INET);
    }
    free(lookup);
}

int dns_lookup_start(struct dns_client *client, const char *name, uint16_t port, unsigned families,
                     dns_lookup_done *done, void *user, struct dns_lookup **out)
{
    struct dns_lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL) {
        return -ENOMEM;
    }
    *lookup = (struct dns_lookup){.done = done, .user = user, .families = families};
    int err = resolver_ask(client->resolver->pool, client->loop, name, port, on_answer, lookup, &lookup->query);
    if (err != 0) {
        free(lookup);
        return err;
    }
    *out = lookup;
    return 0;
}

void dns_lookup_cancel(struct dns_lookup *lookup)
{
    if (lookup == NULL) {
        return;
    }
    if (lookup->is_answering) {
        lookup->is_cancelled = true;
    } else {
        resolver_cancel(lookup->query);
        free(lookup);
    }
}
