/*
 * Theory of operation. Without a batch each function is one of cache.h. With one:
 *
 * `lease` holds the session and up to 64 tokens of it, marked as spent in the file when they were taken. renew() brings it
 * together with the file: when no token is left, when the file has to hear something at once (a session that began or ended, a token
 * that was rejected), and else when RENEW_MS have passed, so that tokens whose time is over because others have moved on are
 * dropped in time. Between renewals windows that the proxy tells of are kept here.
 *
 * A proxy gives up the lower half of a window when a token of its upper half is spent. So no token is used that is half a window
 * ahead of one on its way (`open`, in the order of tokens): that request goes without.
 *
 * While there is no session one connection asks for it; others meanwhile introduce themselves and ask for nothing, so that
 * a burst does not begin a hundred sessions.
 *
 * Without a usable file all of this is kept here alone, and is gone with the process.
 */
#include "cli/reach_shared.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * Tokens to ask for. Half as many connections can be on their way at once without one overtaking another for good. A process with
 * many connections asks for the most that proxies usually grant.
 */
#define WINDOW_SIZE 1024u
#define WINDOW_SIZE_BATCH 4096u

#define RENEW_MS 200u
/* After the file could not be used. */
#define RETRY_MS 5000u
/* How old the files of TLS are at least before they are read again. */
#define TLS_AGE_MS 10000u

#define TICKETS_MAX 4u

TAILQ_HEAD(reach_use_list, reach_use);

struct ticket {
    uint8_t *bytes;
    size_t len;
    uint64_t expires_s;
    bool is_used;
};

struct reach_shared {
    unsigned references;
    struct socks6_proxy proxy;
    unsigned batch;
    bool has_memory;     /* sessions and tickets are for this proxy, and wanted */
    char path[PATH_MAX]; /* of the cache; empty = none */
    int problem;         /* why there is none; 0 = it was told */
    char host[SOCKS6_ADDR_TEXT_MAX];
    struct cache_key key;

    struct tls_context *tls; /* NULL = not yet */
    uint64_t tls_read_ms;

    /* With a batch. */
    struct cache_lease lease;
    bool has_news;     /* of the window, for the file */
    bool had_tokens;   /* the last renewal gave some */
    bool has_file;     /* a renewal has succeeded */
    uint64_t renew_ms; /* when the next one is due, at the latest */
    struct reach_use *asking;
    struct reach_use_list open;         /* by token, the lowest first */
    struct ticket tickets[TICKETS_MAX]; /* oldest first */
    size_t ticket_count;
};

static uint64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t now_s(void)
{
    return (uint64_t)time(NULL);
}

/* --- life --- */

static void set_key(struct reach_shared *shared)
{
    const struct socks6_proxy *proxy = &shared->proxy;

    (void)socks6_addr_format_host(&proxy->addr, shared->host, sizeof shared->host);
    shared->key = (struct cache_key){
        .host = shared->host,
        .port = proxy->addr.port,
        .is_tls = proxy->is_tls != 0,
        .ca = proxy->ca[0] != '\0' ? proxy->ca : NULL,
        .certificate = proxy->certificate[0] != '\0' ? proxy->certificate : NULL,
        .user = proxy->has_credentials ? proxy->username : NULL,
        .password = proxy->has_credentials ? proxy->password : NULL,
    };
}

int reach_shared_new(const struct reach_shared_config *config, struct reach_shared **out)
{
    struct reach_shared *shared = calloc(1, sizeof *shared);

    assert(config->batch <= CACHE_LEASE_MAX);
    if (shared == NULL) {
        return -ENOMEM;
    }
    shared->references = 1;
    shared->proxy = *config->proxy;
    shared->batch = config->batch;
    socks6_session_init(&shared->lease.session);
    TAILQ_INIT(&shared->open);
    set_key(shared);
    if (shared->proxy.scheme == SOCKS6_SCHEME_SOCKS6 && !config->no_session) {
        shared->problem = cache_default_path(shared->path, sizeof shared->path);
        if (shared->problem != 0) {
            shared->path[0] = '\0';
        }
        shared->has_memory = shared->problem == 0 || shared->batch > 0;
    }
    *out = shared;
    return 0;
}

struct socks6_slice reach_shared_session(const struct reach_shared *shared)
{
    const struct socks6_session *session = &shared->lease.session;

    return (struct socks6_slice){session->id, session->untrusted ? 0 : session->id_len};
}

struct reach_shared *reach_shared_retain(struct reach_shared *shared)
{
    shared->references++;
    return shared;
}

static void drop_ticket(struct reach_shared *shared, size_t index)
{
    explicit_bzero(shared->tickets[index].bytes, shared->tickets[index].len);
    free(shared->tickets[index].bytes);
    shared->ticket_count--;
    memmove(&shared->tickets[index], &shared->tickets[index + 1],
            (shared->ticket_count - index) * sizeof shared->tickets[0]);
}

/*
 * Takes the oldest ticket out, and puts it into the file: one that was used only if there is no other. What fails is lost, and missed by
 * nobody.
 */
static void move_ticket(struct reach_shared *shared)
{
    const struct ticket *ticket = &shared->tickets[0];

    if (!ticket->is_used || shared->ticket_count == 1) {
        (void)!cache_put_ticket(shared->path, &shared->key, now_s(), ticket->bytes, ticket->len, ticket->expires_s);
    }
    drop_ticket(shared, 0);
}

/* What others can use goes back into the file. */
static void give_back(struct reach_shared *shared)
{
    const struct socks6_client_session news = {.ok = 1, .has_window = 1, .window = shared->lease.session.window};
    const struct cache_use use = {.session = shared->lease.session};

    if (shared->batch == 0 || shared->path[0] == '\0') {
        return;
    }
    if (shared->has_news) {
        (void)!cache_learn(shared->path, &shared->key, now_s(), &use, &news);
    }
    (void)!cache_return_lease(shared->path, &shared->key, now_s(), &shared->lease);
    shared->has_news = false;
    shared->lease.mask = 0;
    while (shared->ticket_count > 0) {
        move_ticket(shared);
    }
}

void reach_shared_release(void *pointer)
{
    struct reach_shared *shared = pointer;

    if (shared == NULL || --shared->references > 0) {
        return;
    }
    give_back(shared);
    while (shared->ticket_count > 0) {
        drop_ticket(shared, 0);
    }
    tls_context_release(shared->tls);
    explicit_bzero(shared, sizeof *shared);
    free(shared);
}

void reach_shared_free(struct reach_shared *shared)
{
    if (shared != NULL) {
        give_back(shared);
        reach_shared_release(shared);
    }
}

const struct socks6_proxy *reach_shared_proxy(const struct reach_shared *shared)
{
    return &shared->proxy;
}

int reach_shared_problem(struct reach_shared *shared)
{
    int problem = shared->problem;

    shared->problem = 0;
    return problem;
}

bool reach_shared_keeps(const struct reach_shared *shared)
{
    return shared->has_memory;
}

/* --- tickets --- */

static int keep_ticket(struct reach_shared *shared, const uint8_t *bytes, size_t len, uint64_t expires_s)
{
    uint8_t *copy;

    if (len == 0 || len > CACHE_TICKET_MAX) {
        return -EMSGSIZE;
    }
    copy = malloc(len);
    if (copy == NULL) {
        return -ENOMEM;
    }
    memcpy(copy, bytes, len);
    if (shared->ticket_count == TICKETS_MAX) {
        drop_ticket(shared, 0);
    }
    shared->tickets[shared->ticket_count++] = (struct ticket){copy, len, expires_s, false};
    return 0;
}

/* The newest; it stays only if it is the last one, so that connections can be told apart less. */
static void take_ticket(struct reach_shared *shared, struct cache_use *use)
{
    struct ticket *ticket;

    while (shared->ticket_count > 0 && shared->tickets[shared->ticket_count - 1].expires_s <= now_s()) {
        drop_ticket(shared, shared->ticket_count - 1);
    }
    if (shared->ticket_count == 0) {
        return;
    }
    ticket = &shared->tickets[shared->ticket_count - 1];
    use->ticket = malloc(ticket->len);
    if (use->ticket == NULL) {
        return; /* without it there is a whole handshake */
    }
    memcpy(use->ticket, ticket->bytes, ticket->len);
    use->ticket_len = ticket->len;
    use->ticket_expires_s = ticket->expires_s;
    ticket->is_used = true;
    if (shared->ticket_count > 1) {
        drop_ticket(shared, shared->ticket_count - 1);
    }
}

int reach_shared_put_ticket(struct reach_shared *shared, const uint8_t *ticket, size_t len, uint64_t expires_s)
{
    if (shared->batch == 0) {
        return cache_put_ticket(shared->path, &shared->key, now_s(), ticket, len, expires_s);
    }
    return keep_ticket(shared, ticket, len, expires_s);
}

/* --- the lease --- */

static bool is_same_session(const struct socks6_session *a, const struct socks6_session *b)
{
    return a->id_len == b->id_len && memcmp(a->id, b->id, a->id_len) == 0;
}

static uint32_t lowest_token(const struct cache_lease *lease)
{
    return lease->first + (uint32_t)__builtin_ctzll(lease->mask);
}

/* Of another session tokens compare with nothing. */
static void forget_open(struct reach_shared *shared)
{
    struct reach_use *use;

    while ((use = TAILQ_FIRST(&shared->open)) != NULL) {
        TAILQ_REMOVE(&shared->open, use, open);
        use->is_open = false;
    }
}

static bool is_renewal_due(const struct reach_shared *shared, uint64_t now)
{
    if (now >= shared->renew_ms) {
        return true;
    }
    return shared->lease.mask == 0 && shared->lease.session.id_len > 0 && (shared->had_tokens || shared->has_news);
}

static int renew_from_file(struct reach_shared *shared, uint64_t now)
{
    struct cache_use ticket = {0};
    int rc = cache_renew(shared->path, &shared->key, now_s(), shared->has_news, shared->batch, &shared->lease,
                         shared->ticket_count == 0 ? &ticket : NULL);

    shared->renew_ms = now + (rc == 0 ? RENEW_MS : RETRY_MS);
    shared->had_tokens = rc == 0 && shared->lease.mask != 0;
    if (rc != 0) {
        if (!shared->has_file) {
            shared->path[0] = '\0'; /* nothing of ours is in it: what follows is ours alone */
        }
        return rc;
    }
    shared->has_file = true;
    shared->has_news = false;
    if (ticket.ticket != NULL) {
        rc = keep_ticket(shared, ticket.ticket, ticket.ticket_len, ticket.ticket_expires_s);
    } else if (shared->ticket_count == TICKETS_MAX) {
        move_ticket(shared); /* the others have some, too */
    }
    cache_use_done(&ticket);
    return rc;
}

static int renew(struct reach_shared *shared)
{
    struct socks6_session before = shared->lease.session;
    uint64_t now = now_ms();
    int rc = 0;

    if (shared->path[0] == '\0') {
        cache_lease_own(&shared->lease, shared->batch);
    } else if (is_renewal_due(shared, now)) {
        rc = renew_from_file(shared, now);
    }
    if (!is_same_session(&before, &shared->lease.session)) {
        forget_open(shared);
    }
    return rc;
}

/* --- attempts --- */

/* In the order of tokens; most are the highest. */
static void list_open(struct reach_shared *shared, struct reach_use *use)
{
    struct reach_use *below = TAILQ_LAST(&shared->open, reach_use_list);

    while (below != NULL && below->cache.token - use->cache.token < (uint32_t)1 << 31) {
        below = TAILQ_PREV(below, reach_use_list, open);
    }
    if (below != NULL) {
        TAILQ_INSERT_AFTER(&shared->open, below, use, open);
    } else {
        TAILQ_INSERT_HEAD(&shared->open, use, open);
    }
    use->is_open = true;
}

/* Whether there is a token, and using it leaves those on their way alone. */
static bool can_spend(const struct reach_shared *shared)
{
    const struct reach_use *oldest = TAILQ_FIRST(&shared->open);
    const struct cache_lease *lease = &shared->lease;
    int32_t ahead;

    if (lease->mask == 0 || oldest == NULL) {
        return lease->mask != 0;
    }
    ahead = (int32_t)(lowest_token(lease) - oldest->cache.token);
    return ahead < (int32_t)(lease->session.window.size / 2);
}

static void take_session(struct reach_shared *shared, struct socks6_client_config *settings, struct reach_use *use)
{
    struct cache_lease *lease = &shared->lease;
    const struct socks6_window *window = &lease->session.window;
    struct socks6_session view = lease->session; /* with the tokens that this attempt can have */

    if (view.id_len == 0 && shared->asking != NULL) {
        return;
    }
    view.next = can_spend(shared) ? lowest_token(lease) : window->base + window->size;
    use->cache.has_token = socks6_session_prepare(&view, WINDOW_SIZE_BATCH, settings) != 0;
    use->cache.token = settings->token;
    use->cache.session = lease->session;
    use->is_taken = true;
    if (lease->session.id_len == 0) {
        use->is_asking = true;
        shared->asking = use;
        return;
    }
    settings->session_id.data = use->cache.session.id;
    if (socks6_session_tokens_left(&lease->session) > window->size / 4) {
        settings->request_window = 0; /* that there are many behind our lease `view` does not know */
    }
    if (use->cache.has_token) {
        lease->mask &= lease->mask - 1; /* the lowest */
        list_open(shared, use);
    }
}

int reach_shared_take(struct reach_shared *shared, struct socks6_client_config *settings, struct reach_use *use)
{
    int rc;

    *use = (struct reach_use){0};
    if (!shared->has_memory) {
        return 0;
    }
    if (shared->batch == 0) {
        rc = cache_take(shared->path, &shared->key, now_s(), WINDOW_SIZE, settings, &use->cache);
        use->is_taken = rc == 0;
        return rc;
    }
    rc = renew(shared);
    take_ticket(shared, &use->cache);
    take_session(shared, settings, use);
    return rc;
}

static void close_use(struct reach_shared *shared, struct reach_use *use)
{
    if (use->is_open) {
        TAILQ_REMOVE(&shared->open, use, open);
        use->is_open = false;
    }
}

/* To the session in memory. socks6_session_learn() is to see that tokens are left, if they are. */
static void learn_here(struct reach_shared *shared, const struct reach_use *use,
                       const struct socks6_client_session *reply)
{
    struct cache_lease *lease = &shared->lease;
    struct socks6_session *session = &lease->session;
    const struct socks6_session before = *session;
    uint32_t taken;

    if (lease->mask != 0) {
        session->next = lowest_token(lease);
    }
    socks6_session_learn(session, &use->cache.session, reply);
    if (!is_same_session(session, &before)) {
        lease->mask = 0;
        forget_open(shared);
        return;
    }
    taken = before.next - session->window.base; /* from the base; what was taken stays taken */
    if (lease->mask != 0 && taken < (uint32_t)1 << 31 && taken > session->next - session->window.base) {
        session->next = session->window.base + (taken < session->window.size ? taken : session->window.size);
    }
}

unsigned reach_shared_take_tokens(struct reach_shared *shared, unsigned count, uint32_t *first)
{
    struct cache_lease *lease = &shared->lease;
    unsigned taken = 0;
    int rc = shared->batch > 0 && shared->has_memory ? renew(shared) : -ENOENT;

    (void)rc; /* without the file there is what we have here */
    while (taken < count && can_spend(shared) && (taken == 0 || lowest_token(lease) == *first + taken)) {
        *first = taken == 0 ? lowest_token(lease) : *first;
        lease->mask &= lease->mask - 1; /* the lowest */
        taken++;
    }
    return taken;
}

void reach_shared_return_tokens(struct reach_shared *shared, uint32_t first, unsigned count)
{
    struct cache_lease *lease = &shared->lease;

    for (unsigned i = 0; i < count; i++) {
        uint32_t place = first + i - lease->first;

        if (place < CACHE_LEASE_MAX) {
            lease->mask |= (uint64_t)1 << place;
        }
    }
}

void reach_shared_learn_window(struct reach_shared *shared, const struct socks6_window *window)
{
    const struct socks6_client_session reply = {.ok = 1, .has_window = 1, .window = *window};
    const struct reach_use use = {.cache = {.session = shared->lease.session}};

    if (shared->batch > 0 && shared->lease.session.id_len > 0) {
        learn_here(shared, &use, &reply);
        shared->has_news = true;
    }
}

/* A token of the running lease was rejected: somebody has spent what the file believed to be unspent. */
static bool is_lease_spoilt(const struct reach_shared *shared, const struct reach_use *use,
                            const struct socks6_client_session *reply)
{
    return reply->token_rejected && use->cache.has_token && use->cache.token - shared->lease.first < CACHE_LEASE_MAX;
}

static int learn(struct reach_shared *shared, const struct reach_use *use, const struct socks6_client_session *reply)
{
    struct socks6_client_session news = *reply;
    const bool is_spoilt = is_lease_spoilt(shared, use, reply);
    bool is_urgent = use->is_asking || is_spoilt;

    if (!is_same_session(&use->cache.session, &shared->lease.session)) {
        return 0;
    }
    if (!is_spoilt) {
        news.token_rejected = 0; /* of an earlier lease, for which that was said already */
    }
    if (shared->path[0] == '\0' || !is_urgent) {
        learn_here(shared, use, &news);
        is_urgent = is_urgent || !is_same_session(&use->cache.session, &shared->lease.session);
        news.invalid = news.invalid || shared->lease.session.id_len == 0;
    }
    if (is_spoilt) {
        shared->lease.mask = 0;
    }
    if (shared->path[0] == '\0' || !is_urgent) {
        shared->has_news = shared->has_news || reply->has_window;
        return 0;
    }
    shared->renew_ms = 0;
    shared->has_news = false;
    return cache_learn(shared->path, &shared->key, now_s(), &use->cache, &news);
}

int reach_shared_learn(struct reach_shared *shared, struct reach_use *use, const struct socks6_client_session *reply)
{
    if (shared->batch == 0) {
        return cache_learn(shared->path, &shared->key, now_s(), &use->cache, reply);
    }
    close_use(shared, use);
    return learn(shared, use, reply);
}

int reach_shared_return(struct reach_shared *shared, const struct reach_use *use)
{
    struct cache_lease *lease = &shared->lease;
    uint32_t place = use->cache.token - lease->first;

    if (shared->batch == 0) {
        return cache_return_token(shared->path, &shared->key, now_s(), &use->cache);
    }
    if (use->cache.has_token && place < CACHE_LEASE_MAX && is_same_session(&use->cache.session, &lease->session)) {
        lease->mask |= (uint64_t)1 << place;
    }
    return 0;
}

void reach_shared_end(struct reach_shared *shared, struct reach_use *use)
{
    close_use(shared, use);
    if (shared->asking == use) {
        shared->asking = NULL;
    }
    cache_use_done(&use->cache);
    use->is_taken = use->is_asking = false;
}

/* --- TLS --- */

int reach_shared_tls(struct reach_shared *shared, struct tls_context **out, char why[TLS_CLIENT_WHY_MAX])
{
    int rc = 0;

    if (shared->tls == NULL) {
        rc = tls_context_new(&shared->proxy, &shared->tls, why);
        shared->tls_read_ms = now_ms();
    }
    *out = shared->tls;
    return rc;
}

void reach_shared_tls_failed(struct reach_shared *shared)
{
    if (now_ms() - shared->tls_read_ms >= TLS_AGE_MS) {
        tls_context_release(shared->tls);
        shared->tls = NULL;
    }
}
