/*
 * libyaml's events to a tree. Nodes and texts live in blocks that are freed together; the open lists and mappings are a
 * small stack, so depth costs no recursion.
 */
#include "proxyd/config_yaml.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define BLOCK_SIZE 16384u
/* So much of a value is shown in an error, and so much of a path. */
#define SHOW_MAX 80u
#define SHOW_PATH_MAX 240u
#define SHOW_BUFFERS 4

struct yaml_block {
    struct yaml_block *next;
    size_t used, size;
    /* bytes follow */
};

struct builder {
    struct yaml_tree *tree;
    const struct config_place *place;
    const char *text;
    size_t len;
    struct {
        struct yaml_node *node;
        struct yaml_node **end; /* where the next child goes */
        bool wants_key;
    } open[CONFIG_DEPTH_MAX];
    unsigned depth;
    bool documents; /* one has begun */
};

static bool is_printable(char c)
{
    return c >= 0x20 && c < 0x7f;
}

/*
 * Copies with everything but printable ASCII as \xNN, so that no terminal acts on it; cuts at `size`. Returns the
 * length.
 */
static size_t copy_safe(char *out, size_t size, const char *text)
{
    size_t len = 0;

    for (; *text != '\0' && len + 5 < size; text++) {
        if (is_printable(*text)) {
            out[len++] = *text;
        } else {
            len += (size_t)snprintf(out + len, 5, "\\x%02x", (unsigned)(unsigned char)*text);
        }
    }
    out[len] = '\0';
    return len;
}

int config_fail(const struct config_place *place, unsigned line, unsigned column, const char *format, ...)
{
    char raw[sizeof place->error->text];
    char *out = place->error->text;
    size_t size = sizeof place->error->text, len;
    va_list args;

    /* A file name may take its half, so that the rest is always told. */
    len = copy_safe(out, size / 2, place->file);
    if (line > 0) {
        len += (size_t)snprintf(out + len, size - len, ":%u:%u", line, column);
    }
    len += (size_t)snprintf(out + len, size - len, ": ");
    va_start(args, format);
    (void)vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    (void)copy_safe(out + len, size - len, raw);
    return -1;
}

int config_fail_elsewhere(const struct config_place *place, const char *text)
{
    (void)copy_safe(place->error->text, sizeof place->error->text, text);
    return -1;
}

/* At most `max` bytes of it, SHOW_PATH_MAX or fewer. */
static const char *show(const char *text, size_t max)
{
    static _Thread_local char buffers[SHOW_BUFFERS][(size_t)SHOW_PATH_MAX * 4 + sizeof "'...'"];
    static _Thread_local unsigned turn;
    char *buffer = buffers[turn++ % SHOW_BUFFERS];
    size_t shown_len = strnlen(text, max);
    bool is_cut = text[shown_len] != '\0';
    char cut[SHOW_PATH_MAX + 1];

    memcpy(cut, text, shown_len);
    cut[shown_len] = '\0';
    buffer[0] = '\'';
    size_t len = 1 + copy_safe(buffer + 1, (size_t)SHOW_PATH_MAX * 4 + 1, cut);
    memcpy(buffer + len, is_cut ? "...'" : "'", is_cut ? 5 : 2);
    return buffer;
}

const char *config_show(const char *text)
{
    return show(text, SHOW_MAX);
}

const char *config_show_path(const char *path)
{
    return show(path, SHOW_PATH_MAX);
}

bool yaml_is_null(const struct yaml_node *node)
{
    return node->kind == YAML_SCALAR && node->plain &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

static void *take(struct yaml_tree *tree, size_t size)
{
    struct yaml_block *block = tree->blocks;

    size = (size + sizeof(void *) - 1) & ~(sizeof(void *) - 1);
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;

        block = malloc(sizeof *block + room);
        if (block == NULL) {
            return NULL;
        }
        *block = (struct yaml_block){.next = tree->blocks, .size = room};
        tree->blocks = block;
    }
    block->used += size;
    return (char *)(block + 1) + block->used - size;
}

void yaml_tree_done(struct yaml_tree *tree)
{
    while (tree->blocks != NULL) {
        struct yaml_block *block = tree->blocks;

        tree->blocks = block->next;
        free(block);
    }
    tree->root = NULL;
}

static unsigned line_of(const yaml_mark_t *mark)
{
    return (unsigned)mark->line + 1;
}

static unsigned column_of(const yaml_mark_t *mark)
{
    return (unsigned)mark->column + 1;
}

__attribute__((format(printf, 3, 4))) static int fail_at(const struct builder *builder, const yaml_mark_t *mark,
                                                         const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return config_fail(builder->place, line_of(mark), column_of(mark), "%s", text);
}

static int fail_memory(const struct builder *builder)
{
    return config_fail(builder->place, 0, 0, "no memory to read it");
}

/* What may stand in an address and its brackets. */
static bool is_address_char(char c)
{
    return isxdigit((unsigned char)c) || (c != '\0' && strchr(":.[]/", c) != NULL);
}

/* The beginning of the line that `mark` is in. */
static const char *line_at(const struct builder *builder, const yaml_mark_t *mark)
{
    const char *line = builder->text, *end = builder->text + builder->len;

    for (size_t i = 0; i < mark->line && line < end; i++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));

        line = newline == NULL ? end : newline + 1;
    }
    return line;
}

/*
 * YAML takes apart an IPv6 address without quotes in several ways. Whether one stands around `mark`; if so, *start is
 * where it begins. Columns are counted in characters, so the line is taken to be ASCII; else there is just no hint.
 */
static bool is_at_ipv6(const struct builder *builder, const yaml_mark_t *mark, yaml_mark_t *start)
{
    const char *line = line_at(builder, mark), *end = builder->text + builder->len;
    size_t from = mark->column, to = mark->column;
    bool colons = false;

    if (mark->column > (size_t)(end - line)) {
        return false;
    }
    while (from > 0 && is_address_char(line[from - 1])) {
        from--;
    }
    while (line + to < end && is_address_char(line[to])) {
        to++;
    }
    for (size_t i = from; i + 1 < to; i++) {
        colons = colons || (line[i] == ':' && line[i + 1] == ':');
    }
    *start = *mark;
    start->column = from;
    return colons;
}

/* Whether the file ends at `mark` with a bracket open. */
static bool is_unclosed(const struct builder *builder, const yaml_mark_t *mark, const char *context)
{
    return builder->depth > 0 && builder->open[builder->depth - 1].node != NULL && strstr(context, "flow") != NULL &&
           line_at(builder, mark) == builder->text + builder->len;
}

/* The place of a byte, for errors of the reader, which knows only that. */
static yaml_mark_t mark_of_offset(const struct builder *builder, size_t offset)
{
    yaml_mark_t mark = {.index = offset};

    for (size_t i = 0; i < offset && i < builder->len; i++) {
        unsigned char c = (unsigned char)builder->text[i];

        if (c == '\n') {
            mark.line++;
            mark.column = 0;
        } else if ((c & 0xc0) != 0x80) {
            mark.column++;
        }
    }
    return mark;
}

static int fail_syntax(const struct builder *builder, const yaml_parser_t *parser)
{
    const char *problem = parser->problem == NULL ? "" : parser->problem;
    const char *context = parser->context == NULL ? "" : parser->context;
    const yaml_mark_t *mark = &parser->problem_mark, *began = &parser->context_mark;
    yaml_mark_t start;

    if (parser->error == YAML_MEMORY_ERROR) {
        return fail_memory(builder);
    }
    if (parser->error == YAML_READER_ERROR) {
        start = mark_of_offset(builder, parser->problem_offset);
        return fail_at(builder, &start, "not a text file in UTF-8: %s; remove what stands here", problem);
    }
    if (strcmp(context, "while scanning an alias") == 0) {
        return fail_at(builder, began, "'*' begins an alias in YAML; put a name pattern in quotes: \"*.example.org\"");
    }
    if (is_at_ipv6(builder, mark, &start)) {
        return fail_at(
            builder, &start,
            "YAML reads this IPv6 address as something else; put it in quotes: \"[::]:1080\", \"fe80::/10\"");
    }
    if (strstr(problem, "tab character") != NULL ||
        (strstr(problem, "cannot start any token") != NULL && mark->index < builder->len &&
         builder->text[mark->index] == '\t')) {
        return fail_at(builder, mark, "a tab; indent with spaces");
    }
    if (strstr(problem, "cannot start any token") != NULL) {
        return fail_at(builder, mark, "this character cannot begin a value in YAML; put the value in quotes");
    }
    if (strcmp(problem, "could not find expected ':'") == 0) {
        return fail_at(builder, began, "a ':' is missing; write 'key: value'");
    }
    if (strstr(problem, "mapping values are not allowed") != NULL) {
        return fail_at(builder, mark,
                       "a key cannot stand here; check the indentation, and that a space follows the ':' of the key "
                       "before");
    }
    if (strcmp(problem, "found unexpected end of stream") == 0) {
        return fail_at(builder, began, "the quote that begins here does not end; close it");
    }
    if (is_unclosed(builder, mark, context)) {
        const struct yaml_node *open = builder->open[builder->depth - 1].node;

        return config_fail(builder->place, open->line, open->column,
                           "the bracket that begins here does not end; close it");
    }
    if (context[0] != '\0') {
        return fail_at(builder, mark,
                       "not valid YAML: %s %s that begins at line %u, column %u; correct it there or here", problem,
                       context, line_of(began), column_of(began));
    }
    return fail_at(builder, mark, "not valid YAML: %s; correct what stands here", problem);
}

static struct yaml_node *new_node(struct builder *builder, enum yaml_kind kind, const yaml_mark_t *mark)
{
    struct yaml_node *node = take(builder->tree, sizeof *node);

    if (node != NULL) {
        *node = (struct yaml_node){.kind = kind, .line = line_of(mark), .column = column_of(mark), .text = ""};
    }
    return node;
}

/* Puts `node` where the document is. */
static int attach(struct builder *builder, struct yaml_node *node, const yaml_mark_t *mark)
{
    struct yaml_node *parent;

    if (builder->depth == 0) {
        builder->tree->root = node;
        return 0;
    }
    parent = builder->open[builder->depth - 1].node;
    assert(parent != NULL);
    if (parent->kind == YAML_MAPPING) {
        bool is_key = builder->open[builder->depth - 1].wants_key;

        if (is_key && node->kind != YAML_SCALAR) {
            return fail_at(builder, mark, "a list or a mapping cannot be a key; write a word and ':'");
        }
        builder->open[builder->depth - 1].wants_key = !is_key;
        parent->count += is_key;
    } else {
        parent->count++;
    }
    *builder->open[builder->depth - 1].end = node;
    builder->open[builder->depth - 1].end = &node->next;
    return 0;
}

/* `anchor` and `tag` are what stands before a node; the event begins with them. */
static int refuse_extras(const struct builder *builder, const yaml_event_t *event, const yaml_char_t *anchor,
                         const yaml_char_t *tag)
{
    if (anchor != NULL) {
        return fail_at(builder, &event->start_mark,
                       "anchors ('&%s') are not taken; write the value out where it is needed", (const char *)anchor);
    }
    if (tag != NULL) {
        return fail_at(builder, &event->start_mark, "tags (%s) are not taken; write the value alone",
                       config_show((const char *)tag));
    }
    return 0;
}

static int take_scalar(struct builder *builder, const yaml_event_t *event)
{
    size_t len = event->data.scalar.length;
    struct yaml_node *node;
    char *text;

    if (refuse_extras(builder, event, event->data.scalar.anchor, event->data.scalar.tag) != 0) {
        return -1;
    }
    if (memchr(event->data.scalar.value, '\0', len) != NULL) {
        return fail_at(builder, &event->start_mark, "a text with a NUL character; remove the \"\\0\"");
    }
    node = new_node(builder, YAML_SCALAR, &event->start_mark);
    text = take(builder->tree, len + 1);
    if (node == NULL || text == NULL) {
        return fail_memory(builder);
    }
    memcpy(text, event->data.scalar.value, len);
    text[len] = '\0';
    node->text = text;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return attach(builder, node, &event->start_mark);
}

static int open_collection(struct builder *builder, const yaml_event_t *event, enum yaml_kind kind)
{
    struct yaml_node *node;

    if (builder->depth == CONFIG_DEPTH_MAX) {
        return fail_at(builder, &event->start_mark, "nested more than %u deep; no setting is", CONFIG_DEPTH_MAX);
    }
    node = new_node(builder, kind, &event->start_mark);
    if (node == NULL) {
        return fail_memory(builder);
    }
    if (attach(builder, node, &event->start_mark) != 0) {
        return -1;
    }
    builder->open[builder->depth].node = node;
    builder->open[builder->depth].end = &node->first;
    builder->open[builder->depth].wants_key = true;
    builder->depth++;
    return 0;
}

static int take_event(struct builder *builder, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (builder->documents) {
            return fail_at(builder, &event->start_mark,
                           "a second document; one file is one configuration, remove the '---'");
        }
        builder->documents = true;
        return 0;
    case YAML_ALIAS_EVENT:
        return fail_at(builder, &event->start_mark,
                       "aliases ('*%s') are not taken; write the value out, or put a name pattern in quotes",
                       (const char *)event->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        return take_scalar(builder, event);
    case YAML_SEQUENCE_START_EVENT:
        if (refuse_extras(builder, event, event->data.sequence_start.anchor, event->data.sequence_start.tag) != 0) {
            return -1;
        }
        return open_collection(builder, event, YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        if (refuse_extras(builder, event, event->data.mapping_start.anchor, event->data.mapping_start.tag) != 0) {
            return -1;
        }
        return open_collection(builder, event, YAML_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        builder->depth--;
        return 0;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    }
    return 0;
}

int yaml_tree_load(struct yaml_tree *out, const char *text, size_t len, const struct config_place *place)
{
    struct builder builder = {.tree = out, .place = place, .text = text, .len = len};
    yaml_parser_t parser;
    bool ended = false;
    int err = 0;

    *out = (struct yaml_tree){0};
    if (len > CONFIG_FILE_MAX) {
        return config_fail(place, 0, 0, "longer than %zu bytes; no configuration is", CONFIG_FILE_MAX);
    }
    if (yaml_parser_initialize(&parser) == 0) {
        return fail_memory(&builder);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    while (err == 0 && !ended) {
        yaml_event_t event;

        if (yaml_parser_parse(&parser, &event) == 0) {
            err = fail_syntax(&builder, &parser);
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        err = take_event(&builder, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return err;
}
