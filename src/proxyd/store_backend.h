/*
 * What a back end of "proxyd/store.h" provides. store.c checks arguments and hands each question on as one value.
 */
#ifndef PROXYD_STORE_BACKEND_H
#define PROXYD_STORE_BACKEND_H

#include "proxyd/store.h"

enum store_op { STORE_OP_START, STORE_OP_LOOKUP, STORE_OP_END, STORE_OP_WINDOW, STORE_OP_SPEND };

/* Pointers are valid for the call: a back end that answers later copies what it needs. */
struct store_question {
    enum store_op op;
    const char *realm;
    size_t realm_len;
    const uint8_t *id;               /* STORE_ID_LEN bytes; not for START */
    const struct store_owner *owner; /* START */
    uint32_t number;                 /* WINDOW: size; SPEND: token */
};

struct store_backend {
    /* query->answer is all zero on entry. */
    enum store_timing (*ask)(struct store *store, struct store_query *query, const struct store_question *question);
    void (*cancel)(struct store *store, struct store_query *query); /* NULL if it never answers later */
    void (*drop_users)(struct store *store, const struct socks6_slice *names, size_t count);
    void (*drop_every_user)(struct store *store);
    void (*expire)(struct store *store, uint64_t now_ms);
    uint32_t (*session_count)(const struct store *store);
    uint64_t (*expired_count)(const struct store *store);
    void (*free)(struct store *store);
};

/* First member of each back end's own struct. */
struct store {
    const struct store_backend *backend;
};

#endif
