/*
 * `log:` and `status:`: what the daemon tells, in which form, and where.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SOCKET_PATH_MAX (sizeof((struct sockaddr_un *)NULL)->sun_path - 1)

const char *const config_level_names[] = {"error", "warning", "info", "debug", NULL};
const char *const config_format_names[] = {"text", "json", "journald", "auto", NULL};
const char *const config_target_names[] = {"stderr", "stdout", NULL};
const char *const config_field_names[] = {
#define FIELD_NAME(name) #name,
    CONFIG_LOG_FIELDS(FIELD_NAME)
#undef FIELD_NAME
        NULL,
};

_Static_assert(CONFIG_LOG_ERROR == 0 && CONFIG_LOG_DEBUG == 3, "level names");
_Static_assert(CONFIG_LOG_TEXT == 0 && CONFIG_LOG_JSON == 1 && CONFIG_LOG_JOURNALD == 2 && CONFIG_LOG_AUTO == 3,
               "format names");
_Static_assert(CONFIG_LOG_STDERR == 0 && CONFIG_LOG_STDOUT == 1 && CONFIG_LOG_FILE == 2, "target names");

/* What was given for the access log; the rest is that of the daemon's log, which may follow in the file. */
struct log_draft {
    struct config_log *log;
    bool has_output, has_format;
};

void config_log_init(struct config_log *log)
{
    *log = (struct config_log){
        .level = CONFIG_LOG_INFO,
        .daemon = {.target = CONFIG_LOG_STDERR, .format = CONFIG_LOG_AUTO},
        .access = true,
        .access_output = {.target = CONFIG_LOG_STDERR, .format = CONFIG_LOG_AUTO},
        .fields = {.count = CONFIG_LOG_FIELD_COUNT},
    };
    for (unsigned i = 0; i < CONFIG_LOG_FIELD_COUNT; i++) {
        log->fields.order[i] = (uint8_t)i;
    }
}

void config_log_done(struct config_log *log)
{
    free(log->daemon.path);
    free(log->access_output.path);
}

static int read_output(const struct config_place *place, const struct yaml_node *value,
                       struct config_log_output *output)
{
    if (require_scalar(place, value, "stderr, stdout or a path") != 0) {
        return -1;
    }
    for (unsigned i = 0; config_target_names[i] != NULL; i++) {
        if (strcmp(value->text, config_target_names[i]) == 0) {
            output->target = (enum config_log_target)i;
            return 0;
        }
    }
    output->target = CONFIG_LOG_FILE;
    return read_output_path(place, value, "stderr and stdout", &output->path);
}

static int read_any_format(const struct config_place *place, const struct yaml_node *value,
                           enum config_log_format *format)
{
    unsigned index;

    if (read_choice(place, value, config_format_names, "a log format", &index) != 0) {
        return -1;
    }
    *format = (enum config_log_format)index;
    return 0;
}

static int read_access_output(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    draft->has_output = true;
    return read_output(place, value, &draft->log->access_output);
}

static int read_access_format(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    draft->has_format = true;
    return read_any_format(place, value, &draft->log->access_output.format);
}

static int fail_unknown_field(const struct config_place *place, const struct yaml_node *item)
{
    int near = nearest_name(item->text, config_field_names);
    char all[256];
    size_t len = 0;

    for (unsigned i = 0; config_field_names[i] != NULL; i++) {
        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s", i == 0 ? "" : ", ", config_field_names[i]);
        assert(len < sizeof all);
    }
    return config_fail(place, item->line, item->column, "unknown field %s; %s%s%s (fields: %s)",
                       config_show(item->text), near < 0 ? "remove it" : "write '",
                       near < 0 ? "" : config_field_names[near], near < 0 ? "" : "'", all);
}

static int read_field(const struct config_place *place, const struct yaml_node *item, void *target)
{
    struct config_log_fields *fields = target;
    uint8_t index = 0;

    if (require_scalar(place, item, "the name of a field") != 0) {
        return -1;
    }
    while (index < CONFIG_LOG_FIELD_COUNT && strcmp(item->text, config_field_names[index]) != 0) {
        index++;
    }
    if (index == CONFIG_LOG_FIELD_COUNT) {
        return fail_unknown_field(place, item);
    }
    if (memchr(fields->order, index, fields->count) != NULL) {
        return config_fail(place, item->line, item->column, "'%s' is in this list already; remove one of the two",
                           item->text);
    }
    fields->order[fields->count++] = index;
    return 0;
}

static int read_fields(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    draft->log->fields.count = 0;
    return read_each(place, value,
                     "would log nothing of a connection; remove the key for all fields, or write 'access: false'",
                     read_field, &draft->log->fields);
}

const struct config_key config_access_keys[] = {
    {"output", read_access_output},
    {"format", read_access_format},
    {"fields", read_fields},
};
_Static_assert(COUNT(config_access_keys) == CONFIG_ACCESS_KEY_COUNT, "number of keys");

static int read_level(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;
    unsigned index;

    if (read_choice(place, value, config_level_names, "a log level", &index) != 0) {
        return -1;
    }
    draft->log->level = (enum config_log_level)index;
    return 0;
}

static int read_format(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    return read_any_format(place, value, &draft->log->daemon.format);
}

static int read_daemon_output(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    return read_output(place, value, &draft->log->daemon);
}

/* true, false, or a mapping: then it is on, as the mapping says. */
static int read_access(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct log_draft *draft = target;

    if (value->kind == YAML_MAPPING) {
        draft->log->access = true;
        return read_mapping(place, value, config_access_keys, COUNT(config_access_keys), target);
    }
    if (value->kind == YAML_LIST || yaml_is_null(value)) {
        return config_fail(place, value->line, value->column,
                           "expected true, false, or a mapping of output, format and fields; write one of them");
    }
    return read_bool(place, value, &draft->log->access);
}

const struct config_key config_log_keys[] = {
    {"level", read_level},
    {"format", read_format},
    {"output", read_daemon_output},
    {"access", read_access},
};
_Static_assert(COUNT(config_log_keys) == CONFIG_LOG_KEY_COUNT, "number of keys");

int config_read_log(const struct config_place *place, const struct yaml_node *node, struct config_log *log)
{
    struct log_draft draft = {.log = log};

    if (read_mapping(place, node, config_log_keys, COUNT(config_log_keys), &draft) != 0) {
        return -1;
    }
    if (!draft.has_format) {
        log->access_output.format = log->daemon.format;
    }
    if (draft.has_output) {
        return 0;
    }
    log->access_output.target = log->daemon.target;
    if (log->daemon.path != NULL) {
        log->access_output.path = strndup(log->daemon.path, strlen(log->daemon.path));
        if (log->access_output.path == NULL) {
            return config_fail(place, 0, 0, "no memory to read it");
        }
    }
    return 0;
}

/* ---- status ---- */

static int read_socket(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct config_status *status = target;

    if (require_scalar(place, value, "auto, none or a path") != 0) {
        return -1;
    }
    if (strcmp(value->text, "auto") == 0) {
        status->kind = CONFIG_STATUS_AUTO;
        return 0;
    }
    if (strcmp(value->text, "none") == 0) {
        status->kind = CONFIG_STATUS_NONE;
        return 0;
    }
    status->kind = CONFIG_STATUS_PATH;
    if (read_output_path(place, value, "auto and none", &status->path) != 0) {
        return -1;
    }
    if (strlen(status->path) > SOCKET_PATH_MAX) {
        return config_fail(place, value->line, value->column,
                           "%s is too long for a socket, whose path has at most %zu bytes; write a shorter one",
                           config_show(status->path), SOCKET_PATH_MAX);
    }
    return 0;
}

const struct config_key config_status_keys[] = {
    {"socket", read_socket},
};
_Static_assert(COUNT(config_status_keys) == CONFIG_STATUS_KEY_COUNT, "number of keys");

int config_read_status(const struct config_place *place, const struct yaml_node *node, struct config_status *status)
{
    return read_mapping(place, node, config_status_keys, COUNT(config_status_keys), status);
}

bool config_status_path(const struct config_status *status, char *buf, size_t size)
{
    const char *dir = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
    int len = -1;

    switch (status->kind) {
    case CONFIG_STATUS_NONE:
        return false;
    case CONFIG_STATUS_PATH:
        len = snprintf(buf, size, "%s", status->path);
        break;
    case CONFIG_STATUS_AUTO:
        if (dir == NULL || dir[0] != '/') {
            return false;
        }
        len = snprintf(buf, size, "%s/socks6d.sock", dir);
        break;
    }
    return len >= 0 && (size_t)len < size && (size_t)len <= SOCKET_PATH_MAX;
}
