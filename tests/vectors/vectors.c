/* The reader of annotated vectors. A file that it does not understand in full ends the test program. */
#include "vectors.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <socks6/error.h>

static const struct {
    const char *word;
    int verdict;
} verdicts[] = {
    {"ok", SOCKS6_OK},
    {"version", SOCKS6_ERR_VERSION},
    {"malformed", SOCKS6_ERR_MALFORMED},
    {"too-long", SOCKS6_ERR_TOO_LONG},
    {"address", SOCKS6_ERR_ADDRESS},
    {"protocol", SOCKS6_ERR_PROTOCOL},
};

struct parser {
    const char *file;
    int line;
    struct vectors *vectors;
    bool in_canonical;
};

static _Noreturn void fail(const struct parser *parser, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", parser->file, parser->line, what);
    abort();
}

static void *grow(void *ptr, size_t size)
{
    void *bigger = realloc(ptr, size > 0 ? size : 1);

    if (bigger == NULL) {
        abort();
    }
    return bigger;
}

static struct vector *current(const struct parser *parser)
{
    if (parser->vectors->count == 0) {
        fail(parser, "bytes before the first vector");
    }
    return &parser->vectors->items[parser->vectors->count - 1];
}

static void append(const struct parser *parser, const uint8_t *bytes, size_t len)
{
    struct vector *vector = current(parser);
    uint8_t **to = parser->in_canonical ? &vector->canonical : &vector->bytes;
    size_t *to_len = parser->in_canonical ? &vector->canonical_len : &vector->len;

    if (len > 0) {
        *to = grow(*to, *to_len + len);
        memcpy(*to + *to_len, bytes, len);
        *to_len += len;
    }
}

/* `@ name verdict [context [context]]` */
static void begin_vector(struct parser *parser, const char *line)
{
    struct vector vector = {0};
    char verdict[24];
    bool found = false;

    if (sscanf(line, "@ %63s %23s %23s %23s", vector.name, verdict, vector.context[0], vector.context[1]) < 2) {
        fail(parser, "a vector needs a name and a verdict");
    }
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
        if (strcmp(verdict, verdicts[i].word) == 0) {
            vector.verdict = verdicts[i].verdict;
            found = true;
        }
    }
    if (!found) {
        fail(parser, "unknown verdict");
    }
    parser->vectors->items =
        grow(parser->vectors->items, (parser->vectors->count + 1) * sizeof parser->vectors->items[0]);
    parser->vectors->items[parser->vectors->count++] = vector;
    parser->in_canonical = false;
}

/* One group: hexadecimal, perhaps `*count`. Returns what follows it. */
static const char *parse_hex(const struct parser *parser, const char *at)
{
    uint8_t bytes[128];
    size_t len = 0;
    long count = 1;

    while (isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1])) {
        const char pair[3] = {at[0], at[1], '\0'};

        if (len == sizeof bytes) {
            fail(parser, "group too long");
        }
        bytes[len++] = (uint8_t)strtoul(pair, NULL, 16);
        at += 2;
    }
    if (at[0] == '*') {
        char *end;

        count = strtol(at + 1, &end, 10);
        at = end;
    }
    if (len == 0 || count < 1 || (*at != '\0' && !isspace((unsigned char)*at))) {
        fail(parser, "not hexadecimal");
    }
    while (count-- > 0) {
        append(parser, bytes, len);
    }
    return at;
}

static void parse_bytes(struct parser *parser, const char *at)
{
    while (*at != '\0' && *at != '#') {
        if (isspace((unsigned char)*at)) {
            at++;
        } else if (at[0] == '=' && at[1] == '>') {
            parser->in_canonical = true;
            current(parser)->canonical = grow(NULL, 0);
            at += 2;
        } else if (*at == '"') {
            const char *end = strchr(at + 1, '"');

            if (end == NULL) {
                fail(parser, "text without an end");
            }
            append(parser, (const uint8_t *)at + 1, (size_t)(end - at) - 1);
            at = end + 1;
        } else {
            at = parse_hex(parser, at);
        }
    }
}

struct vectors vectors_load(const char *file)
{
    const char *dir = getenv("SOCKS6_VECTORS");
    struct vectors vectors = {0};
    struct parser parser = {.file = file, .vectors = &vectors};
    char line[1024];
    FILE *in;

    snprintf(line, sizeof line, "%s/%s", dir != NULL ? dir : ".", file);
    in = fopen(line, "r");
    if (in == NULL) {
        fail(&parser, "cannot be opened; SOCKS6_VECTORS has to name its folder");
    }
    while (fgets(line, sizeof line, in) != NULL) {
        parser.line++;
        if (line[0] == '@') {
            begin_vector(&parser, line);
        } else {
            parse_bytes(&parser, line);
        }
    }
    fclose(in);
    if (vectors.count == 0) {
        fail(&parser, "no vector in it");
    }
    for (size_t i = 0; i < vectors.count; i++) {
        struct vector *vector = &vectors.items[i];

        if (vector->canonical == NULL) {
            vector->canonical = grow(NULL, vector->len);
            if (vector->len > 0) {
                memcpy(vector->canonical, vector->bytes, vector->len);
            }
            vector->canonical_len = vector->len;
        }
    }
    return vectors;
}

void vectors_free(struct vectors *vectors)
{
    for (size_t i = 0; i < vectors->count; i++) {
        free(vectors->items[i].bytes);
        free(vectors->items[i].canonical);
    }
    free(vectors->items);
    *vectors = (struct vectors){0};
}
