/*
 * `tls:` of a listener. The files are read here, so that whatever is wrong with them is known before anything changes.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/tls_server.h"
#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *const config_tls_version_names[] = {"1.3", "1.2", NULL};

struct config_tls {
    char *certificate, *key, *client_ca; /* client_ca NULL = none */
    bool early_data;
    bool tls12;
    struct tls_server *server;
};

/* With the places of what can be wrong. */
struct tls_draft {
    struct config_tls *tls;
    const struct yaml_node *certificate, *key, *client_ca;
};

void config_tls_free(struct config_tls *tls)
{
    if (tls != NULL) {
        tls_server_release(tls->server);
        free(tls->certificate);
        free(tls->key);
        free(tls->client_ca);
        free(tls);
    }
}

struct tls_server *config_tls_server(const struct config_tls *tls)
{
    return tls->server;
}

bool config_tls_knows_clients(const struct config_tls *tls)
{
    return tls != NULL && tls_server_has_client_ca(tls->server);
}

static int read_certificate(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct tls_draft *draft = target;

    draft->certificate = value;
    return read_file_path(place, value, &draft->tls->certificate);
}

static int read_key(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct tls_draft *draft = target;

    draft->key = value;
    return read_file_path(place, value, &draft->tls->key);
}

static int read_client_ca(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct tls_draft *draft = target;

    draft->client_ca = value;
    return read_file_path(place, value, &draft->tls->client_ca);
}

static int read_early_data(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct tls_draft *draft = target;

    return read_bool(place, value, &draft->tls->early_data);
}

static int read_min_version(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct tls_draft *draft = target;
    unsigned index;

    if (read_choice(place, value, config_tls_version_names, "a version of TLS", &index) != 0) {
        return -1;
    }
    draft->tls->tls12 = index == 1;
    return 0;
}

static const struct config_key keys[] = {
    {"certificate", read_certificate}, {"key", read_key},
    {"client_ca", read_client_ca},     {"early_data", read_early_data},
    {"min_version", read_min_version},
};

const struct config_section config_tls_section = {"listeners.tls", keys, COUNT(keys)};

/* What the error is about, and its name. */
static int fail_server(const struct config_place *place, const struct yaml_node *node, const struct tls_draft *draft,
                       const struct tls_server_error *error)
{
    const char *path = NULL;

    switch (error->part) {
    case TLS_SERVER_WHOLE:
        return config_fail(place, node->line, node->column, "tls: %s", error->why);
    case TLS_SERVER_CERTIFICATE:
        node = draft->certificate;
        path = draft->tls->certificate;
        break;
    case TLS_SERVER_KEY:
        node = draft->key;
        path = draft->tls->key;
        break;
    case TLS_SERVER_CLIENT_CA:
        node = draft->client_ca;
        path = draft->tls->client_ca;
        break;
    }
    return config_fail(place, node->line, node->column, "%s %s", config_show_path(path), error->why);
}

static int make_server(const struct config_place *place, const struct yaml_node *node, const struct tls_draft *draft)
{
    struct config_tls *tls = draft->tls;
    const struct tls_server_settings settings = {
        .certificate = tls->certificate,
        .key = tls->key,
        .client_ca = tls->client_ca,
        .early_data = tls->early_data,
        .tls12 = tls->tls12,
    };
    struct tls_server_error error;

    if (draft->certificate == NULL || draft->key == NULL) {
        const char *missing = draft->certificate == NULL ? "certificate" : "key";
        return config_fail(place, node->line, node->column, "tls without a %s; add '%s: FILE', in PEM form", missing,
                           missing);
    }
    return tls_server_new(&settings, &tls->server, &error) == 0 ? 0 : fail_server(place, node, draft, &error);
}

int config_read_tls(const struct config_place *place, const struct yaml_node *value, struct config_tls **out)
{
    struct tls_draft draft = {.tls = calloc(1, sizeof *draft.tls)};

    if (draft.tls == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    draft.tls->early_data = true;
    if (read_mapping(place, value, keys, COUNT(keys), &draft) != 0 || make_server(place, value, &draft) != 0) {
        config_tls_free(draft.tls);
        return -1;
    }
    *out = draft.tls;
    return 0;
}

void config_print_tls(const struct config_tls *tls, FILE *out)
{
    fputs("    tls:\n      certificate: ", out);
    config_print_text(tls->certificate, out);
    fputs("\n      key: ", out);
    config_print_text(tls->key, out);
    if (tls->client_ca != NULL) {
        fputs("\n      client_ca: ", out);
        config_print_text(tls->client_ca, out);
    }
    fprintf(out, "\n      early_data: %s\n      min_version: %s\n", tls->early_data ? "true" : "false",
            config_tls_version_names[tls->tls12 ? 1 : 0]);
}

void config_set_ticket_keys(const struct config *config, struct tls_keys *ticket_keys)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].tls != NULL) {
            tls_server_set_keys(config->listeners[i].tls->server, ticket_keys);
        }
    }
}

void config_certificate_warnings(const struct config *config, config_tell_certificate *tell, void *user)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        const char *warning = listener->tls == NULL ? NULL : tls_server_warning(listener->tls->server, time(NULL));

        if (warning != NULL) {
            char shown[SOCKS6_ADDR_TEXT_MAX];

            (void)socks6_addr_format(&listener->address, shown, sizeof shown);
            tell(user, shown, listener->tls->certificate, warning);
        }
    }
}
