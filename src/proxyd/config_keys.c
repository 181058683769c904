/*
 * The keys of the configuration file but those of the rules: one table per mapping, one small function per key.
 */
#include <stdlib.h>
#include <string.h>

#include "proxyd/config_internal.h"
#include "proxyd/token_window.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *const config_protocol_names[] = {"socks4", "socks5", "socks6", NULL};
const char *const config_relay_names[] = {"auto", "copy", "splice", NULL};

_Static_assert(CONFIG_SOCKS4 == 1u << 0 && CONFIG_SOCKS5 == 1u << 1 && CONFIG_SOCKS6 == 1u << 2, "protocol names");
_Static_assert(CONFIG_RELAY_AUTO == 0 && CONFIG_RELAY_SPLICE == 2, "relay names");

static int read_address(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;
    char why[CONFIG_WHY_MAX];

    /* An unquoted [::]:1080 reaches here as a list at most. */
    if (value->kind == YAML_LIST) {
        return config_fail(place, value->line, value->column,
                           "expected an address, found a list; put an IPv6 address in quotes: \"[::]:1080\"");
    }
    if (require_scalar(place, value, "an address such as 127.0.0.1:1080") != 0) {
        return -1;
    }
    if (!listen_address_parse(value->text, &draft->listener.address, why)) {
        return config_fail(place, value->line, value->column, "%s", why);
    }
    draft->listener.line = value->line;
    draft->line = value->line;
    draft->column = value->column;
    return 0;
}

static int read_protocol(const struct config_place *place, const struct yaml_node *item, void *target)
{
    unsigned *protocols = target, index;

    if (read_choice(place, item, config_protocol_names, "a protocol", &index) != 0) {
        return -1;
    }
    if ((*protocols & 1u << index) != 0) {
        return config_fail(place, item->line, item->column, "'%s' is in this list already; remove one of the two",
                           item->text);
    }
    *protocols |= 1u << index;
    return 0;
}

static int read_protocols(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;
    unsigned protocols = 0;

    if (read_each(place, value,
                  "would take no client; list socks6, socks5 or socks4, or remove the key for all of them",
                  read_protocol, &protocols) != 0) {
        return -1;
    }
    draft->listener.protocols = protocols;
    return 0;
}

static int read_listener_open(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;

    draft->has_open = true;
    return read_bool(place, value, &draft->listener.open);
}

static int read_listener_fast_open(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;

    return config_read_fast_open(place, value, &draft->listener.fast_open);
}

static int read_listener_without_token(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;

    return config_read_without_token(place, value, &draft->listener.fast_open);
}

static int read_tls(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct listener_draft *draft = target;

    return config_read_tls(place, value, &draft->listener.tls);
}

static const struct config_key listener_keys[] = {
    {"address", read_address},
    {"protocols", read_protocols},
    {"open", read_listener_open},
    {"tfo", read_listener_fast_open},
    {"tfo_without_token", read_listener_without_token},
    {"tls", read_tls},
};

static int read_listener(const struct config_place *place, const struct yaml_node *node, struct config_draft *draft)
{
    struct listener_draft *listener = &draft->listeners[draft->listener_count];

    *listener = (struct listener_draft){
        .listener = {.protocols = CONFIG_SOCKS4 | CONFIG_SOCKS5 | CONFIG_SOCKS6},
    };
    if (node->kind == YAML_SCALAR && !yaml_is_null(node)) {
        return config_fail(place, node->line, node->column, "expected a mapping, found %s; write 'address: %.60s'",
                           config_show(node->text), node->text);
    }
    if (read_mapping(place, node, listener_keys, COUNT(listener_keys), listener) != 0) {
        return -1;
    }
    if (listener->line == 0) {
        return config_fail(place, node->line, node->column,
                           "a listener without an address; add 'address: 127.0.0.1:1080'");
    }
    for (size_t i = 0; i < draft->listener_count; i++) {
        const struct listener_draft *other = &draft->listeners[i];

        if (listener->listener.address.port != 0 &&
            socks6_addr_equal(&other->listener.address, &listener->listener.address) != 0) {
            return config_fail(place, listener->line, listener->column,
                               "this address is already at line %u, column %u; remove one of the two", other->line,
                               other->column);
        }
    }
    draft->listener_count++;
    return 0;
}

static int read_listeners(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    if (require_list(place, value, "- address: 127.0.0.1:1080") != 0) {
        return -1;
    }
    if (value->count == 0) {
        return config_fail(
            place, value->line, value->column,
            "no listener at all; add '- address: 127.0.0.1:1080', or remove 'listeners' for the default");
    }
    draft->listeners = calloc(value->count, sizeof *draft->listeners);
    if (draft->listeners == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    draft->listener_size = value->count;
    for (const struct yaml_node *item = value->first; item != NULL; item = item->next) {
        if (read_listener(place, item, draft) != 0) {
            return -1;
        }
    }
    return 0;
}

static int read_open(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return read_bool(place, value, &draft->snapshot->open);
}

static int read_fast_open(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_fast_open(place, value, &draft->snapshot->fast_open);
}

static int read_without_token(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_without_token(place, value, &draft->snapshot->fast_open);
}

static int read_workers(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;
    uint32_t workers;

    if (read_number(place, value, 1, 256, "auto", 0, &workers) != 0) {
        return -1;
    }
    draft->snapshot->config.workers = workers;
    return 0;
}

static int read_relay(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;
    unsigned index;

    if (read_choice(place, value, config_relay_names, "a way to relay", &index) != 0) {
        return -1;
    }
    draft->snapshot->config.relay = (enum config_relay)index;
    return 0;
}

static int read_outgoing(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_outgoing(place, value, &draft->snapshot->config.policy->outgoing);
}

static int read_rules(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_rules(place, value, draft->snapshot->config.policy);
}

static int read_handshake(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_time(place, value, false, &limits->handshake_ms);
}

static int read_connect(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_time(place, value, false, &limits->connect_ms);
}

static int read_idle(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_time(place, value, true, &limits->relay.idle_ms);
}

static int read_half_closed(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_time(place, value, true, &limits->relay.half_closed_ms);
}

static int read_connections(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, 10000000, "auto", 0, &limits->connections);
}

static int read_connections_per_client(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    if (value->kind == YAML_SCALAR && (strcmp(value->text, "0") == 0 || strcmp(value->text, "off") == 0)) {
        limits->connections_per_client = 0;
        return 0;
    }
    if (value->kind == YAML_SCALAR && strcmp(value->text, "auto") == 0) {
        limits->connections_per_client = CONFIG_PER_CLIENT_AUTO;
        return 0;
    }
    return read_number(place, value, 1, 10000000, "none", 0, &limits->connections_per_client);
}

static int read_options(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 4, SOCKS6_OPTIONS_CAP_12, NULL, 0, &limits->options);
}

static int read_sessions(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, 10000000, NULL, 0, &limits->sessions);
}

static int read_sessions_anonymous(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, 10000000, "none", 0, &limits->sessions_anonymous);
}

static int read_sessions_per_user(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, 10000000, "none", 0, &limits->sessions_per_user);
}

static int read_sessions_per_client(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, 10000000, "none", 0, &limits->sessions_per_client);
}

static int read_session_idle(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_time(place, value, true, &limits->session_idle_ms);
}

static int read_token_window(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_limits *limits = target;

    return read_number(place, value, 1, TOKEN_WINDOW_MAX, NULL, 0, &limits->token_window);
}

static const struct config_key limits_keys[] = {
    {"handshake", read_handshake},
    {"connect", read_connect},
    {"idle", read_idle},
    {"half_closed", read_half_closed},
    {"connections", read_connections},
    {"connections_per_client", read_connections_per_client},
    {"options", read_options},
    {"sessions", read_sessions},
    {"sessions_anonymous", read_sessions_anonymous},
    {"sessions_per_user", read_sessions_per_user},
    {"sessions_per_client", read_sessions_per_client},
    {"session_idle", read_session_idle},
    {"token_window", read_token_window},
};

static int read_limits(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return read_mapping(place, value, limits_keys, COUNT(limits_keys), &draft->snapshot->config.limits);
}

static int read_auth(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_auth(place, value, &draft->snapshot->config.auth);
}

static int read_log(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_log(place, value, &draft->snapshot->config.log);
}

static int read_status(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_draft *draft = target;

    return config_read_status(place, value, &draft->snapshot->config.status);
}

static const struct config_key top_keys[] = {
    {"listeners", read_listeners},
    {"open", read_open},
    {"auth", read_auth},
    {"workers", read_workers},
    {"relay", read_relay},
    {"outgoing", read_outgoing},
    {"rules", read_rules},
    {"limits", read_limits},
    {"happy_eyeballs", config_read_happy_eyeballs},
    {"dns", config_read_dns},
    {"log", read_log},
    {"status", read_status},
    {"tfo", read_fast_open},
    {"tfo_without_token", read_without_token},
};

const struct config_section config_sections[] = {
    {"", top_keys, COUNT(top_keys)},
    {"listeners", listener_keys, COUNT(listener_keys)},
    {"limits", limits_keys, COUNT(limits_keys)},
    {"log", config_log_keys, CONFIG_LOG_KEY_COUNT},
    {"log.access", config_access_keys, CONFIG_ACCESS_KEY_COUNT},
    {"status", config_status_keys, CONFIG_STATUS_KEY_COUNT},
    {NULL, NULL, 0},
};

int config_read_document(const struct config_place *place, const struct yaml_node *root, struct config_draft *draft)
{
    if (root == NULL) {
        return 0;
    }
    return read_mapping(place, root, top_keys, COUNT(top_keys), draft);
}
