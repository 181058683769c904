/* The part of the store that all back ends share. Called by the workers; what a session is stands in store.h. */
#include "proxyd/store.h"

#include <assert.h>
#include <string.h>

#include "proxyd/store_backend.h"

static enum store_timing ask(struct store *store, struct store_query *query, struct store_question *question)
{
    memset(&query->answer, 0, sizeof query->answer);
    question->realm_len = strlen(question->realm);
    assert(question->realm_len > 0 && question->realm_len <= STORE_REALM_MAX);
    return store->backend->ask(store, query, question);
}

/* An id that we cannot have given out is that of no session. */
static enum store_timing ask_about(struct store *store, struct store_query *query, struct socks6_slice id,
                                   struct store_question *question)
{
    if (id.len != STORE_ID_LEN) {
        memset(&query->answer, 0, sizeof query->answer);
        query->answer.status = STORE_UNKNOWN;
        return STORE_NOW;
    }
    question->id = id.data;
    return ask(store, query, question);
}

enum store_timing store_session_start(struct store *store, struct store_query *query, const struct store_owner *owner)
{
    struct store_question question = {.op = STORE_OP_START, .realm = owner->realm, .owner = owner};

    assert(owner->user.len <= SOCKS6_USERNAME_MAX);
    return ask(store, query, &question);
}

enum store_timing store_session_lookup(struct store *store, struct store_query *query, struct socks6_slice id,
                                       const char *realm)
{
    return ask_about(store, query, id, &(struct store_question){.op = STORE_OP_LOOKUP, .realm = realm});
}

enum store_timing store_session_end(struct store *store, struct store_query *query, struct socks6_slice id,
                                    const char *realm)
{
    return ask_about(store, query, id, &(struct store_question){.op = STORE_OP_END, .realm = realm});
}

enum store_timing store_window_request(struct store *store, struct store_query *query, struct socks6_slice id,
                                       const char *realm, uint32_t size)
{
    assert(size > 0);
    return ask_about(store, query, id, &(struct store_question){.op = STORE_OP_WINDOW, .realm = realm, .number = size});
}

enum store_timing store_token_spend(struct store *store, struct store_query *query, struct socks6_slice id,
                                    const char *realm, uint32_t token)
{
    return ask_about(store, query, id, &(struct store_question){.op = STORE_OP_SPEND, .realm = realm, .number = token});
}

void store_cancel(struct store *store, struct store_query *query)
{
    assert(store->backend->cancel != NULL); /* else no query was ever open */
    store->backend->cancel(store, query);
}

void store_drop_users(struct store *store, const struct socks6_slice *names, size_t count)
{
    store->backend->drop_users(store, names, count);
}

void store_drop_every_user(struct store *store)
{
    store->backend->drop_every_user(store);
}

void store_expire(struct store *store, uint64_t now_ms)
{
    store->backend->expire(store, now_ms);
}

uint32_t store_session_count(const struct store *store)
{
    return store->backend->session_count(store);
}

uint64_t store_expired_count(const struct store *store)
{
    return store->backend->expired_count(store);
}

void store_free(struct store *store)
{
    if (store != NULL) {
        store->backend->free(store);
    }
}
