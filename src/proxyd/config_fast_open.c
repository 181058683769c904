/*
 * `tfo:` and `tfo_without_token:`, which a listener can have and the top of the file for those that have none.
 */
#include <stdlib.h>
#include <string.h>

#include "io/fast_open.h"
#include "proxyd/config_internal.h"

static const char *const without_token_names[] = {"wait", "act", NULL};

int config_read_fast_open(const struct config_place *place, const struct yaml_node *value, struct config_fast_open *out)
{
    uint32_t queue_len;

    if (value->kind == YAML_SCALAR && (strcmp(value->text, "true") == 0 || strcmp(value->text, "false") == 0)) {
        out->queue_len = value->text[0] == 't' ? CONFIG_FAST_OPEN_DEFAULT : 0;
        out->has_queue_len = true;
        return 0;
    }
    if (read_number(place, value, 0, CONFIG_FAST_OPEN_MAX, "true", CONFIG_FAST_OPEN_DEFAULT, &queue_len) != 0) {
        return -1;
    }
    out->queue_len = queue_len;
    out->has_queue_len = true;
    return 0;
}

int config_read_without_token(const struct config_place *place, const struct yaml_node *value,
                              struct config_fast_open *out)
{
    unsigned index;

    if (read_choice(place, value, without_token_names, "what a request without a token is to do", &index) != 0) {
        return -1;
    }
    out->acts_without_token = index == 1;
    out->has_without_token = true;
    return 0;
}

void config_fast_open_inherit(struct config_fast_open *own, const struct config_fast_open *defaults)
{
    if (!own->has_queue_len) {
        own->queue_len = defaults->queue_len;
    }
    if (!own->has_without_token) {
        own->acts_without_token = defaults->acts_without_token;
    }
}

void config_print_fast_open(const char *indent, const struct config_fast_open *fast_open, FILE *out)
{
    if (fast_open->queue_len == 0) {
        fprintf(out, "%stfo: false\n", indent);
    } else {
        fprintf(out, "%stfo: %u\n", indent, (unsigned)fast_open->queue_len);
    }
    fprintf(out, "%stfo_without_token: %s\n", indent, without_token_names[fast_open->acts_without_token]);
}

void config_note_fast_open(const struct config *config, FILE *out)
{
    bool is_wanted = false;
    unsigned setting;

    if (fast_open_setting(&setting) != 0) {
        return; /* a kernel without it, or no /proc */
    }
    for (size_t i = 0; i < config->listener_count; i++) {
        is_wanted = is_wanted || config->listeners[i].fast_open.queue_len != 0;
    }
    if (is_wanted && (setting & FAST_OPEN_SERVER) == 0) {
        fprintf(out,
                "note: tfo: clients cannot use TCP Fast Open: net.ipv4.tcp_fastopen is %u, which switches it off for "
                "listeners; %u allows it\n",
                setting, setting | FAST_OPEN_SERVER);
    }
    if ((setting & FAST_OPEN_CLIENT) == 0) {
        fprintf(out,
                "note: connections to servers cannot use TCP Fast Open, although clients may ask for it: "
                "net.ipv4.tcp_fastopen is %u; %u allows it\n",
                setting, setting | FAST_OPEN_CLIENT);
    }
}
