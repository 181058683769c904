/*
 * res_query(3) and its relatives: DNS messages that a program makes, or has made, go to the proxy's DNS service, whatever name
 * servers the resolver's state lists. Search domains and options are that state's, which libc has read from resolv.conf(5).
 */
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <resolv.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "preload/export.h"
#include "preload/talk.h"

#define ANSWER_MAX 65535u
#define QUESTION_MAX (NS_HFIXEDSZ + NS_MAXCDNAME + NS_QFIXEDSZ + 1)

static void set_error(struct __res_state *state, int error)
{
    state->res_h_errno = error;
    h_errno = error;
}

/* This thread's state, for the functions without one among their arguments; libc reads resolv.conf(5) on its first use. */
static struct __res_state *own_state(void)
{
    struct __res_state *own = &_res;

    if ((own->options & RES_INIT) == 0 && res_init() != 0) {
        return NULL;
    }
    return own;
}

static int own_state_fails(void)
{
    h_errno = NETDB_INTERNAL;
    return -1;
}

/*
 * What does not fit into the program's buffer, as libc has it: an answer that would have come over UDP is cut off without a word; of one
 * that would have come over TCP the whole length is told, and what there is room for is marked as truncated.
 */
static int give(unsigned char *reply, int len, unsigned char *answer, int size)
{
    if (len > size && len <= NS_PACKETSZ) {
        len = size;
    } else if (len > size) {
        reply[2] |= 0x02; /* TC */
    }
    memcpy(answer, reply, (size_t)(len > size ? size : len));
    return len;
}

static int send_message(const unsigned char *message, int len, unsigned char *answer, int size)
{
    union {
        const unsigned char *bytes;
        void *base; /* of an iovec, which is only read */
    } question = {message};
    const struct iovec part = {question.base, (size_t)len};
    unsigned char *reply;
    int status = 0;
    ssize_t n;

    if (len < NS_HFIXEDSZ || size < NS_HFIXEDSZ) {
        errno = EINVAL;
        return -1;
    }
    reply = malloc(ANSWER_MAX);
    if (reply == NULL) {
        return -1;
    }
    n = talk_ask(RUN_QUERY, &part, 1, &status, reply, ANSWER_MAX);
    if (n >= NS_HFIXEDSZ && status == 0) {
        n = give(reply, (int)n, answer, size);
    } else {
        errno = status > 0 ? status : n < 0 ? (int)-n : ETIMEDOUT;
        n = -1;
    }
    free(reply);
    return (int)n;
}

static int rcode(const unsigned char *answer)
{
    return answer[3] & 0x0f;
}

static int answer_count(const unsigned char *answer)
{
    return answer[6] << 8 | answer[7];
}

static int error_of(const unsigned char *answer)
{
    switch (rcode(answer)) {
    case ns_r_nxdomain:
        return HOST_NOT_FOUND;
    case ns_r_servfail:
        return TRY_AGAIN;
    case ns_r_noerror:
        return NO_DATA;
    default:
        return NO_RECOVERY;
    }
}

static int query(struct __res_state *state, const char *name, int class, int type, unsigned char *answer, int size)
{
    unsigned char question[QUESTION_MAX];
    int len = res_nmkquery(state, ns_o_query, name, class, type, NULL, 0, NULL, question, sizeof question);

    if (len <= 0) {
        set_error(state, NO_RECOVERY);
        return -1;
    }
    len = send_message(question, len, answer, size);
    if (len < 0) {
        set_error(state, TRY_AGAIN);
        return -1;
    }
    if (rcode(answer) != ns_r_noerror || answer_count(answer) == 0) {
        set_error(state, error_of(answer));
        return -1;
    }
    return len;
}

/* `domain` NULL: the name alone, without its final dot. */
static int query_domain(struct __res_state *state, const char *name, const char *domain, int class, int type,
                        unsigned char *answer, int size)
{
    char full[NS_MAXDNAME + 1];
    size_t len = strlen(name);
    int n;

    if (domain == NULL) {
        n = snprintf(full, sizeof full, "%.*s", (int)(len > 0 && name[len - 1] == '.' ? len - 1 : len), name);
    } else {
        n = snprintf(full, sizeof full, "%s.%s", name, domain);
    }
    if (n < 0 || (size_t)n >= sizeof full) {
        set_error(state, NO_RECOVERY);
        return -1;
    }
    return query(state, full, class, type, answer, size);
}

/* What a search has seen, to choose the error that tells most at its end. */
struct search {
    bool tried_as_is, had_root, is_searched, had_no_data, had_server_failure;
    int first_error; /* of the name as it is; -1 = was not tried */
};

/* Is the search to go on after this failure? */
static bool note_failure(struct search *search, int error, const unsigned char *answer)
{
    switch (error) {
    case NO_DATA:
        search->had_no_data = true;
        return true;
    case HOST_NOT_FOUND:
        return true;
    case TRY_AGAIN:
        search->had_server_failure = rcode(answer) == ns_r_servfail;
        return search->had_server_failure;
    default:
        return false;
    }
}

static int search_domains(struct __res_state *state, struct search *search, const char *name, int class, int type,
                          unsigned char *answer, int size)
{
    for (char **domain = state->dnsrch; domain < state->dnsrch + MAXDNSRCH && *domain != NULL; domain++) {
        const char *suffix = **domain == '.' ? *domain + 1 : *domain;
        int n;

        search->is_searched = true;
        search->had_root = search->had_root || *suffix == '\0';
        memset(answer, 0, NS_HFIXEDSZ); /* its code is looked at even if nothing comes */
        n = query_domain(state, name, *suffix == '\0' ? NULL : suffix, class, type, answer, size);
        if (n > 0 || !note_failure(search, state->res_h_errno, answer) || (state->options & RES_DNSRCH) == 0) {
            return n;
        }
    }
    return -1;
}

static unsigned count_dots(const char *name)
{
    unsigned dots = 0;

    for (; *name != '\0'; name++) {
        dots += *name == '.';
    }
    return dots;
}

static int search_fails(struct __res_state *state, const struct search *search)
{
    if (search->first_error != -1) {
        set_error(state, search->first_error);
    } else if (search->had_no_data) {
        set_error(state, NO_DATA);
    } else if (search->had_server_failure) {
        set_error(state, TRY_AGAIN);
    }
    return -1;
}

/* The order of RFC 1535: a name with enough dots as it is first, else last. */
static int search_name(struct __res_state *state, const char *name, int class, int type, unsigned char *answer,
                       int size)
{
    struct search search = {.first_error = -1};
    unsigned dots = count_dots(name);
    bool is_absolute = dots > 0 && name[strlen(name) - 1] == '.';
    int n;

    if (size < NS_HFIXEDSZ) {
        set_error(state, NETDB_INTERNAL);
        return -1;
    }
    if (dots >= state->ndots || is_absolute) {
        n = query_domain(state, name, NULL, class, type, answer, size);
        if (n > 0 || is_absolute) {
            return n;
        }
        search.first_error = state->res_h_errno;
        search.tried_as_is = true;
    }
    if ((dots == 0 && (state->options & RES_DEFNAMES) != 0) || (dots > 0 && (state->options & RES_DNSRCH) != 0)) {
        n = search_domains(state, &search, name, class, type, answer, size);
        if (n > 0) {
            return n;
        }
    }
    if ((dots > 0 || !search.is_searched || (state->options & RES_NOTLDQUERY) == 0) && !search.tried_as_is &&
        !search.had_root) {
        n = query_domain(state, name, NULL, class, type, answer, size);
        if (n > 0) {
            return n;
        }
    }
    return search_fails(state, &search);
}

/* HOSTALIASES of hostname(7): a file of lines "ALIAS NAME", for names without a dot. NULL = none. */
static const char *find_alias(const char *name, char out[NS_MAXDNAME])
{
    const char *path = secure_getenv("HOSTALIASES");
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    char line[BUFSIZ / 4];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *next = NULL;
        const char *alias = strtok_r(line, " \t\n", &next);
        const char *other = alias == NULL ? NULL : strtok_r(NULL, " \t\n", &next);

        found = other != NULL && strcasecmp(alias, name) == 0 && strlen(other) < NS_MAXDNAME;
        if (found) {
            memcpy(out, other, strlen(other) + 1);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found ? out : NULL;
}

static int search(struct __res_state *state, const char *name, int class, int type, unsigned char *answer, int size)
{
    char room[NS_MAXDNAME];
    const char *other = count_dots(name) == 0 ? find_alias(name, room) : NULL;

    return other != NULL ? query(state, other, class, type, answer, size)
                         : search_name(state, name, class, type, answer, size);
}

PRELOAD_EXPORT int res_nsend(struct __res_state *state, const unsigned char *message, int len, unsigned char *answer,
                             int size)
{
    (void)state; /* its name servers are not asked */
    return send_message(message, len, answer, size);
}

PRELOAD_EXPORT int res_send(const unsigned char *message, int len, unsigned char *answer, int size)
{
    return send_message(message, len, answer, size);
}

PRELOAD_EXPORT int res_nquery(struct __res_state *state, const char *name, int class, int type, unsigned char *answer,
                              int size)
{
    return query(state, name, class, type, answer, size);
}

PRELOAD_EXPORT int res_query(const char *name, int class, int type, unsigned char *answer, int size)
{
    struct __res_state *state = own_state();

    return state == NULL ? own_state_fails() : query(state, name, class, type, answer, size);
}

PRELOAD_EXPORT int res_nquerydomain(struct __res_state *state, const char *name, const char *domain, int class,
                                    int type, unsigned char *answer, int size)
{
    return query_domain(state, name, domain, class, type, answer, size);
}

PRELOAD_EXPORT int res_querydomain(const char *name, const char *domain, int class, int type, unsigned char *answer,
                                   int size)
{
    struct __res_state *state = own_state();

    return state == NULL ? own_state_fails() : query_domain(state, name, domain, class, type, answer, size);
}

PRELOAD_EXPORT int res_nsearch(struct __res_state *state, const char *name, int class, int type, unsigned char *answer,
                               int size)
{
    return search(state, name, class, type, answer, size);
}

PRELOAD_EXPORT int res_search(const char *name, int class, int type, unsigned char *answer, int size)
{
    struct __res_state *state = own_state();

    return state == NULL ? own_state_fails() : search(state, name, class, type, answer, size);
}

/* As programs call them that were linked before glibc 2.34, whose header renamed them. */
#define OLD_NAME(name)                                                                                                 \
    extern __typeof__(name) __##name __attribute__((alias(#name), visibility("default"), nothrow, leaf))
OLD_NAME(res_send);
OLD_NAME(res_nsend);
OLD_NAME(res_query);
OLD_NAME(res_nquery);
OLD_NAME(res_querydomain);
OLD_NAME(res_nquerydomain);
OLD_NAME(res_search);
OLD_NAME(res_nsearch);
