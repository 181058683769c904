/* Equality of decoded messages; see compare.h. */
#include "compare.h"

#include <string.h>

bool slices_equal(struct socks6_slice a, struct socks6_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool addrs_equal(const struct socks6_addr *a, const struct socks6_addr *b)
{
    return a->type == b->type && a->len == b->len && a->port == b->port &&
           memcmp(a->u.name, b->u.name, sizeof a->u.name) == 0;
}

static bool stacks_equal(const struct s6_options *a, const struct s6_options *b)
{
    if (a->stack_count != b->stack_count) {
        return false;
    }
    for (size_t i = 0; i < a->stack_count; i++) {
        if (a->stack[i].leg != b->stack[i].leg || a->stack[i].level != b->stack[i].level ||
            a->stack[i].code != b->stack[i].code || a->stack[i].value != b->stack[i].value) {
            return false;
        }
    }
    return true;
}

bool options_equal(const struct s6_options *a, const struct s6_options *b)
{
    return a->present == b->present && stacks_equal(a, b) && a->initial_data_len == b->initial_data_len &&
           memcmp(a->methods, b->methods, sizeof a->methods) == 0 && a->method == b->method &&
           a->auth_status == b->auth_status && slices_equal(a->credentials.username, b->credentials.username) &&
           slices_equal(a->credentials.password, b->credentials.password) &&
           slices_equal(a->session_id, b->session_id) && a->window_request == b->window_request &&
           a->window.base == b->window.base && a->window.size == b->window.size && a->token == b->token;
}

bool requests_equal(const struct s6_request *a, const struct s6_request *b)
{
    return a->command == b->command && addrs_equal(&a->addr, &b->addr) && options_equal(&a->options, &b->options);
}

bool auth_replies_equal(const struct s6_auth_reply *a, const struct s6_auth_reply *b)
{
    return a->type == b->type && options_equal(&a->options, &b->options);
}

bool replies_equal(const struct s6_reply *a, const struct s6_reply *b)
{
    return a->code == b->code && addrs_equal(&a->addr, &b->addr) && options_equal(&a->options, &b->options);
}

bool udp_messages_equal(const struct socks6_udp_message *a, const struct socks6_udp_message *b)
{
    return a->type == b->type && a->association == b->association && addrs_equal(&a->addr, &b->addr) &&
           slices_equal(a->payload, b->payload) && addrs_equal(&a->reporter, &b->reporter) &&
           a->error_code == b->error_code;
}
