#include "proxyd/config_values.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISTANCE_TEXT_MAX 31

static unsigned min_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment, three rows of it. */
unsigned text_distance(const char *a, const char *b)
{
    unsigned rows[3][DISTANCE_TEXT_MAX + 1];
    size_t a_len = strlen(a), b_len = strlen(b);

    if (a_len > DISTANCE_TEXT_MAX || b_len > DISTANCE_TEXT_MAX) {
        return DISTANCE_TEXT_MAX + 1;
    }
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned wrong = a[i - 1] != b[j - 1];

            row[j] = min_of(min_of(above[j] + 1, row[j - 1] + 1), above[j - 1] + wrong);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = min_of(row[j], two_above[j - 2] + 1);
            }
        }
    }
    return rows[a_len % 3][b_len];
}

static const char *kind_name(const struct yaml_node *node)
{
    switch (node->kind) {
    case YAML_LIST:
        return "a list";
    case YAML_MAPPING:
        return "a mapping";
    case YAML_SCALAR:
        break;
    }
    return yaml_is_null(node) ? "nothing" : config_show(node->text);
}

/* "fe80::" without quotes is the key "fe80:" to YAML. */
static bool was_ipv6(const struct yaml_node *node)
{
    size_t len;

    if (node->kind != YAML_MAPPING || node->first == NULL || !node->first->plain) {
        return false;
    }
    len = strlen(node->first->text);
    return len > 0 && node->first->text[len - 1] == ':';
}

int require_scalar(const struct config_place *place, const struct yaml_node *node, const char *what)
{
    if (node->kind == YAML_SCALAR && !yaml_is_null(node) && node->text[0] != '\0') {
        return 0;
    }
    if (was_ipv6(node)) {
        return config_fail(
            place, node->line, node->column,
            "YAML reads this IPv6 address as something else; put it in quotes: \"[::]:1080\", \"fe80::/10\"");
    }
    return config_fail(place, node->line, node->column, "expected %s, found %s", what,
                       node->kind == YAML_SCALAR ? "nothing" : kind_name(node));
}

int require_list(const struct config_place *place, const struct yaml_node *node, const char *what)
{
    if (node->kind == YAML_LIST) {
        return 0;
    }
    return config_fail(place, node->line, node->column, "expected a list (%s), found %s", what, kind_name(node));
}

/* Further away it would be a guess. */
static bool is_near(unsigned distance, const char *name)
{
    return distance <= 1 + strlen(name) / 3;
}

int nearest_name(const char *text, const char *const *names)
{
    unsigned best_distance = UINT32_MAX;
    int best = -1;

    for (int i = 0; names[i] != NULL; i++) {
        unsigned distance = text_distance(text, names[i]);

        if (distance < best_distance) {
            best_distance = distance;
            best = i;
        }
    }
    return best >= 0 && is_near(best_distance, names[best]) ? best : -1;
}

static int fail_unknown_key(const struct config_place *place, const struct yaml_node *key,
                            const struct config_key *keys, size_t key_count)
{
    char all[256];
    size_t len = 0, best = 0;
    unsigned best_distance = UINT32_MAX;

    for (size_t i = 0; i < key_count; i++) {
        unsigned distance = text_distance(key->text, keys[i].name);

        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s", i == 0 ? "" : ", ", keys[i].name);
        assert(len < sizeof all);
        if (distance < best_distance) {
            best_distance = distance;
            best = i;
        }
    }
    if (is_near(best_distance, keys[best].name)) {
        return config_fail(place, key->line, key->column, "unknown key %s; write '%s' (keys here: %s)",
                           config_show(key->text), keys[best].name, all);
    }
    return config_fail(place, key->line, key->column, "unknown key %s; remove it (keys here: %s)",
                       config_show(key->text), all);
}

int read_mapping(const struct config_place *place, const struct yaml_node *node, const struct config_key *keys,
                 size_t key_count, void *target)
{
    const struct yaml_node *seen[CONFIG_KEYS_MAX] = {0};

    assert(key_count <= CONFIG_KEYS_MAX);
    if (yaml_is_null(node)) {
        return 0;
    }
    if (node->kind != YAML_MAPPING) {
        return config_fail(place, node->line, node->column, "expected a mapping ('%s: ...'), found %s", keys[0].name,
                           kind_name(node));
    }
    for (const struct yaml_node *key = node->first; key != NULL; key = key->next->next) {
        size_t i = 0;

        while (i < key_count && strcmp(keys[i].name, key->text) != 0) {
            i++;
        }
        if (i == key_count) {
            return fail_unknown_key(place, key, keys, key_count);
        }
        if (seen[i] != NULL) {
            return config_fail(place, key->line, key->column,
                               "'%s' is already at line %u, column %u; remove one of the two", key->text, seen[i]->line,
                               seen[i]->column);
        }
        seen[i] = key;
        if (keys[i].read(place, key->next, target) != 0) {
            return -1;
        }
    }
    return 0;
}

int read_each(const struct config_place *place, const struct yaml_node *node, const char *purpose,
              int (*read)(const struct config_place *place, const struct yaml_node *item, void *target), void *target)
{
    if (yaml_is_null(node) || (node->kind == YAML_LIST && node->count == 0)) {
        return config_fail(place, node->line, node->column, "an empty list %s", purpose);
    }
    if (node->kind == YAML_SCALAR) {
        return read(place, node, target);
    }
    if (node->kind == YAML_MAPPING && !was_ipv6(node)) {
        return config_fail(place, node->line, node->column, "expected a list, found a mapping");
    }
    if (node->kind == YAML_MAPPING) {
        return require_scalar(place, node, "an address");
    }
    for (const struct yaml_node *item = node->first; item != NULL; item = item->next) {
        if (read(place, item, target) != 0) {
            return -1;
        }
    }
    return 0;
}

int read_bool(const struct config_place *place, const struct yaml_node *node, bool *out)
{
    if (require_scalar(place, node, "true or false") != 0) {
        return -1;
    }
    if (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0) {
        return config_fail(place, node->line, node->column, "%s is neither 'true' nor 'false'; write one of them",
                           config_show(node->text));
    }
    *out = node->text[0] == 't';
    return 0;
}

/* Decimal digits and nothing else, at least one. Values past the range come out as UINT64_MAX. */
static bool parse_digits(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)text[i])) {
            return false;
        }
        if (value > (UINT64_MAX - 9) / 10) {
            value = UINT64_MAX;
        } else {
            value = value * 10 + (uint64_t)(text[i] - '0');
        }
    }
    *out = value;
    return len > 0;
}

int read_number(const struct config_place *place, const struct yaml_node *node, uint32_t min, uint32_t max,
                const char *word, uint32_t word_value, uint32_t *out)
{
    uint64_t value;

    if (require_scalar(place, node, "a number") != 0) {
        return -1;
    }
    if (word != NULL && strcmp(node->text, word) == 0) {
        *out = word_value;
        return 0;
    }
    if (!parse_digits(node->text, strlen(node->text), &value) || value < min || value > max) {
        return config_fail(place, node->line, node->column, "%s is not a number from %u to %u; write one%s%s%s",
                           config_show(node->text), min, max, word == NULL ? "" : ", or '", word == NULL ? "" : word,
                           word == NULL ? "" : "'");
    }
    *out = (uint32_t)value;
    return 0;
}

/* Milliseconds in a unit; 0 = there is no such unit. */
static uint64_t unit_ms(const char *unit)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return units[i].ms;
        }
    }
    return 0;
}

int read_time(const struct config_place *place, const struct yaml_node *node, bool unlimited, uint64_t *out)
{
    const char *text = node->text, *unit;
    uint64_t value = 0, factor = 1;

    if (require_scalar(place, node, "a time such as 10s") != 0) {
        return -1;
    }
    unit = text + strspn(text, "0123456789");
    if (strcmp(text, "none") != 0 && strcmp(text, "off") != 0) {
        factor = unit_ms(unit);
        if (!parse_digits(text, (size_t)(unit - text), &value) || (factor == 0 && unit[0] != '\0')) {
            return config_fail(place, node->line, node->column,
                               "%s is not a time; write a number and a unit: 500ms, 10s, 5m, 24h, 7d",
                               config_show(text));
        }
        if (factor == 0 && value != 0) {
            return config_fail(place, node->line, node->column,
                               "%s has no unit; write %.20s followed by ms, s, m, h or d", config_show(text), text);
        }
    }
    if (value == 0 && !unlimited) {
        return config_fail(place, node->line, node->column, "this cannot be without a limit; write a time such as 10s");
    }
    if (value != 0 && value > CONFIG_TIME_MAX_MS / factor) {
        return config_fail(place, node->line, node->column, "%s is too long; write at most 365d%s", config_show(text),
                           unlimited ? ", or 'none' for no limit" : "");
    }
    *out = value * factor;
    return 0;
}

int read_choice(const struct config_place *place, const struct yaml_node *node, const char *const *names,
                const char *what, unsigned *out)
{
    char all[128];
    size_t len = 0;

    if (require_scalar(place, node, what) != 0) {
        return -1;
    }
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], node->text) == 0) {
            *out = i;
            return 0;
        }
        len += (size_t)snprintf(all + len, sizeof all - len, "%s%s", i == 0 ? "" : ", ", names[i]);
        assert(len < sizeof all);
    }
    return config_fail(place, node->line, node->column, "%s is not %s; write one of: %s", config_show(node->text), what,
                       all);
}

/* `dir` and `name` with a '/' between them. NULL = no memory. */
static char *join(const char *dir, size_t dir_len, const char *name)
{
    size_t size = dir_len + 1 + strlen(name) + 1;
    char *path = malloc(size);

    if (path != NULL) {
        (void)snprintf(path, size, "%.*s/%s", (int)dir_len, dir, name);
    }
    return path;
}

/* `here` is the current directory, where it matters. NULL = no memory. */
static char *absolute_path(const char *here, const char *file, const char *text)
{
    const char *slash = strrchr(file, '/');
    char *relative, *path;

    if (text[0] == '/') {
        return join("", 0, text + 1);
    }
    bool is_absolute = file[0] == '/';

    assert(here != NULL || is_absolute || text[0] == '/');
    if (slash == NULL) {
        assert(here != NULL); /* a file without a slash is not absolute */
        return join(here, strlen(here), text);
    }
    relative = join(file, (size_t)(slash - file), text);
    if (relative == NULL || is_absolute) {
        return relative;
    }
    path = join(here, strlen(here), relative);
    free(relative);
    return path;
}

int read_file_path(const struct config_place *place, const struct yaml_node *node, char **out)
{
    char *here = NULL, *path;

    if (require_scalar(place, node, "a path") != 0) {
        return -1;
    }
    if (node->text[strlen(node->text) - 1] == '/') {
        return config_fail(place, node->line, node->column, "%s is a directory; add the name of a file",
                           config_show(node->text));
    }
    if (node->text[0] != '/' && place->file[0] != '/') {
        here = getcwd(NULL, 0); /* of any length; to be freed */
        if (here == NULL) {
            return config_fail(place, node->line, node->column,
                               "%s is relative, and the current directory is not known (%s); write an absolute path",
                               config_show(node->text), strerrordesc_np(errno));
        }
    }
    path = absolute_path(here, place->file, node->text);
    free(here);
    if (path == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    *out = path;
    return 0;
}

int read_output_path(const struct config_place *place, const struct yaml_node *node, const char *words, char **out)
{
    if (require_scalar(place, node, "a path") != 0) {
        return -1;
    }
    if (strchr(node->text, '/') == NULL) {
        return config_fail(
            place, node->line, node->column,
            "%s is neither one of the words %s nor a path; write one of them, or './%.60s' for a file of "
            "this name",
            config_show(node->text), words, node->text);
    }
    return read_file_path(place, node, out);
}
