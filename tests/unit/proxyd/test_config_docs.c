/*
 * The man page and the sample name every key that the parser takes, and none that it does not; the sample sets nothing
 * else than the defaults.
 *
 * The man page's keys are its lines that begin with a path of lower-case words between asterisks: "*limits.idle*: ...".
 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxyd/config_internal.h"

#define KEYS_MAX 96
#define WORD "abcdefghijklmnopqrstuvwxyz0123456789_"

static char *read_file(const char *variable)
{
    const char *path = getenv(variable);
    char *text = calloc(1, CONFIG_FILE_MAX);
    FILE *file;

    if (path == NULL) {
        fail_msg("%s is not set", variable);
    }
    file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("%s cannot be opened", path);
    }
    assert_non_null(text);
    assert_in_range(fread(text, 1, CONFIG_FILE_MAX - 1, file), 1, CONFIG_FILE_MAX - 2);
    assert_int_equal(fclose(file), 0);
    return text;
}

/* "limits.idle": every key of the parser with the mapping it stands in. */
static size_t list_keys(char keys[KEYS_MAX][64])
{
    size_t count = 0;

    for (const struct config_section *section = config_sections; section->keys != NULL; section++) {
        for (size_t i = 0; i < section->key_count; i++) {
            (void)snprintf(keys[count++], 64, "%s%s%s", section->path, section->path[0] == '\0' ? "" : ".",
                           section->keys[i].name);
        }
    }
    for (size_t i = 0; i < config_happy_eyeballs_section.key_count; i++) {
        (void)snprintf(keys[count++], 64, "happy_eyeballs.%s", config_happy_eyeballs_section.keys[i].name);
    }
    for (size_t i = 0; i < config_auth_section.key_count; i++) {
        (void)snprintf(keys[count++], 64, "auth.%s", config_auth_section.keys[i].name);
    }
    for (size_t i = 0; i < config_dns_section.key_count; i++) {
        (void)snprintf(keys[count++], 64, "dns.%s", config_dns_section.keys[i].name);
    }
    for (size_t i = 0; i < config_tls_section.key_count; i++) {
        (void)snprintf(keys[count++], 64, "listeners.tls.%s", config_tls_section.keys[i].name);
    }
    for (size_t i = 0; i < config_rule_section.key_count; i++) {
        (void)snprintf(keys[count++], 64, "rules.%s", config_rule_section.keys[i].name);
    }
    assert_in_range(count, 20, KEYS_MAX);
    return count;
}

/* Takes `key` out of the list; false if it is not in it (any more). */
static bool cross_out(char keys[KEYS_MAX][64], size_t count, const char *key, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(keys[i]) == len && strncmp(keys[i], key, len) == 0) {
            keys[i][0] = '\0';
            return true;
        }
    }
    return false;
}

static void assert_none_left(char keys[KEYS_MAX][64], size_t count, const char *where)
{
    for (size_t i = 0; i < count; i++) {
        if (keys[i][0] != '\0') {
            fail_msg("%s does not have '%s'", where, keys[i]);
        }
    }
}

static void test_the_man_page_has_every_key_once(void **state)
{
    static char keys[KEYS_MAX][64];
    size_t count = list_keys(keys);
    char *text = read_file("CONFIG_MAN_PAGE"), *save = NULL;

    (void)state;
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        size_t len = line[0] == '*' ? strspn(line + 1, WORD ".") : 0;

        if (len == 0 || strncmp(line + 1 + len, "*: ", 3) != 0) {
            continue;
        }
        if (!cross_out(keys, count, line + 1, len)) {
            fail_msg("the parser does not know '%.*s', or the man page has it twice", (int)len, line + 1);
        }
    }
    assert_none_left(keys, count, "the man page");
    free(text);
}

/*
 * The sample's lines are "key:", indented by two under the mapping they stand in, with "- " for the first key of an
 * item of `listeners`; `tls` of a listener is an example, behind "# ". The
 * rules are examples that are commented out with "#  - ", and have their keys in braces: each word there before a ':'
 * is one.
 */
static void test_the_sample_has_every_key(void **state)
{
    static char keys[KEYS_MAX][64];
    size_t count = list_keys(keys);
    char *text = read_file("CONFIG_SAMPLE"), *save = NULL, section[64] = "", inner[64] = "", path[160];

    (void)state;
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *key = line + (strncmp(line, "#  - ", 5) == 0 ? 1 : 0);
        size_t indent = strspn(key, " -"), len = strspn(key + indent, WORD);

        if (strcmp(section, "listeners") == 0 && strncmp(key, "#     ", 6) == 0) {
            key += 2;
            indent = strspn(key, " ");
            len = strspn(key + indent, WORD);
            (void)snprintf(path, sizeof path, "listeners.%s%.*s", indent > 4 ? "tls." : "", (int)len, key + indent);
            (void)cross_out(keys, count, path, strlen(path));
            continue;
        }
        if (key[0] == '#' || len == 0 || key[indent + len] != ':') {
            continue;
        }
        key += indent;
        if (indent == 0) {
            (void)snprintf(section, sizeof section, "%.*s", (int)len, key);
        }
        if (strcmp(section, "rules") == 0 && indent > 0) {
            for (char *at = strchr(key, '{'); at != NULL; at = strpbrk(at + 1, "{,")) {
                size_t word = strspn(at + 1 + strspn(at + 1, " "), WORD);

                at += 1 + strspn(at + 1, " ");
                (void)snprintf(path, sizeof path, "rules.%.*s", (int)word, at);
                if (at[word] == ':') {
                    (void)cross_out(keys, count, path, strlen(path));
                }
            }
            continue;
        }
        if (indent == 2) {
            (void)snprintf(inner, sizeof inner, "%.*s", (int)len, key);
        }
        bool is_inner = indent == 4 && strcmp(section, "listeners") != 0;
        (void)snprintf(path, sizeof path, "%s%s%s%s%.*s", indent == 0 ? "" : section, indent == 0 ? "" : ".",
                       is_inner ? inner : "", is_inner ? "." : "", (int)len, key);
        (void)cross_out(keys, count, path, strlen(path));
    }
    assert_none_left(keys, count, "the sample");
    free(text);
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    config_print(config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_loads_to_the_defaults(const char *text)
{
    const struct config *sample, *defaults;
    struct config_error error = {""};
    char *printed, *expected;

    if (config_load_memory("sample", text, strlen(text), NULL, 0, &sample, &error) != 0) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(config_load(NULL, NULL, 0, &defaults, &error), 0);
    printed = print(sample);
    expected = print(defaults);
    assert_string_equal(printed, expected);
    free(printed);
    free(expected);
    config_release(sample);
    config_release(defaults);
}

static void test_the_sample_sets_the_defaults(void **state)
{
    char *text = read_file("CONFIG_SAMPLE");

    (void)state;
    assert_loads_to_the_defaults(text);
    free(text);
}

/* Whoever takes the "#" away from the examples gets what the parser takes. */
static void test_the_samples_examples_are_valid(void **state)
{
    char *text = read_file("CONFIG_SAMPLE"), *out = calloc(1, strlen(text) + 1);
    const struct config *config;
    struct config_error error = {""};
    size_t rules = 0;

    (void)state;
    assert_non_null(out);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        bool is_example = strncmp(line, "#  - ", 5) == 0;

        rules += is_example;
        if (strncmp(line, "rules: []", 9) == 0) {
            strcat(out, "rules:\n");
        } else {
            strncat(out, line + is_example, strcspn(line, "\n") + 1 - is_example);
        }
    }
    assert_in_range(rules, 3, 20);
    if (config_load_memory("sample", out, strlen(out), NULL, 0, &config, &error) != 0) {
        fail_msg("%s in\n%s", error.text, out);
    }
    assert_int_equal(config->policy->count, rules);
    config_release(config);
    free(text);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_man_page_has_every_key_once),
        cmocka_unit_test(test_the_sample_has_every_key),
        cmocka_unit_test(test_the_sample_sets_the_defaults),
        cmocka_unit_test(test_the_samples_examples_are_valid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
