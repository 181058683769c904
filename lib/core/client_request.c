/* The client's settings: judged, and written as the Request. */
#include "core/client_internal.h"

#include "wire/addr.h"
#include "wire/message.h"
#include "wire/userpass.h"

static bool is_slice_valid(struct socks6_slice slice, size_t max)
{
    return slice.len <= max && (slice.data != NULL || slice.len == 0);
}

static bool is_valid(const struct socks6_client_config *config)
{
    if (config->draft != SOCKS6_DRAFT_08 && config->draft != SOCKS6_DRAFT_11 && config->draft != SOCKS6_DRAFT_12) {
        return false;
    }
    if ((unsigned)config->command > SOCKS6_COMMAND_UDP_ASSOCIATE) {
        return false;
    }
    if (config->command != SOCKS6_COMMAND_NOOP && !s6_addr_is_valid(&config->addr)) {
        return false;
    }
    if (config->has_credentials && (!is_slice_valid(config->credentials.username, SOCKS6_USERNAME_MAX) ||
                                    !is_slice_valid(config->credentials.password, SOCKS6_PASSWORD_MAX))) {
        return false;
    }
    return config->initial_data_len <= SOCKS6_INITIAL_DATA_MAX &&
           is_slice_valid(config->session_id, SOCKS6_OPTIONS_CAP_12);
}

static int add_stack(const struct socks6_client_config *config, struct s6_options *options)
{
    for (size_t i = 0; i < config->stack_count; i++) {
        if (!s6_options_add_stack(options, &config->stack[i])) {
            return SOCKS6_ERR_INVALID;
        }
    }
    s6_options_fit_draft(options, config->draft);
    return 0;
}

static void add_credentials(const struct socks6_client *client, const struct socks6_client_config *config,
                            struct s6_options *options)
{
    s6_options_set(options, S6_OPTION_METHODS);
    s6_methods_add(options, SOCKS6_METHOD_USERPASS);
    options->initial_data_len = (uint16_t)client->initial_data_len;
    s6_options_set(options, S6_OPTION_AUTH_DATA);
    options->credentials = config->credentials;
}

/*
 * The encoder refuses what contradicts itself. "Session Options": "A client MUST NOT attempt to initiate a session from
 * within a different session"; idempotence options outside a session would be ignored without a word, and with them the
 * protection that they were meant to give.
 */
static void add_session(const struct socks6_client_config *config, struct s6_options *options)
{
    if (config->session_id.len > 0) {
        s6_options_set(options, S6_OPTION_SESSION_ID);
        options->session_id = config->session_id;
    }
    if (config->teardown_session) {
        s6_options_set(options, S6_OPTION_SESSION_TEARDOWN);
    }
    if (config->request_session) {
        s6_options_set(options, S6_OPTION_SESSION_REQUEST);
    }
    if (config->request_window > 0) {
        s6_options_set(options, S6_OPTION_WINDOW_REQUEST);
        options->window_request = config->request_window;
    }
    if (config->has_token) {
        s6_options_set(options, S6_OPTION_TOKEN);
        options->token = config->token;
    }
}

static int keep_negotiation(struct socks6_client *client, const struct socks6_client_config *config)
{
    struct s6_writer writer;
    int err = s6_buf_writer(&client->negotiation, s6_userpass_request_len(&config->credentials), &writer);

    if (err == 0) {
        s6_userpass_request_encode(&writer, &config->credentials);
        s6_buf_written(&client->negotiation, &writer);
    }
    return err;
}

int s6_client_start(struct socks6_client *client, const struct socks6_client_config *config)
{
    static const uint8_t any[4];
    struct s6_request request = {.command = (uint8_t)config->command};
    int err;

    if (!is_valid(config)) {
        return SOCKS6_ERR_INVALID;
    }
    client->command = config->command;
    client->is_advertised = config->has_credentials != 0;
    if (config->command == SOCKS6_COMMAND_CONNECT) {
        client->initial_data_len = config->initial_data_len;
    }
    request.addr = config->command == SOCKS6_COMMAND_NOOP ? socks6_addr_ipv4(any, 0) : config->addr;
    s6_options_init(&request.options);
    err = add_stack(config, &request.options);
    if (err != 0) {
        return err;
    }
    client->is_backlog_asked =
        s6_stack_find(request.options.stack, request.options.stack_count, SOCKS6_LEG_PROXY_REMOTE, SOCKS6_LEVEL_TCP,
                      SOCKS6_TCP_LISTEN_BACKLOG) != NULL;
    if (client->is_advertised) {
        add_credentials(client, config, &request.options);
    }
    add_session(config, &request.options);
    err = s6_request_encode(&request, config->draft, &client->out.queue);
    if (err == 0 && client->is_advertised && config->allow_negotiation) {
        err = keep_negotiation(client, config);
    }
    return err == SOCKS6_ERR_TOO_LONG ? SOCKS6_ERR_INVALID : err;
}
