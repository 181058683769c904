#include "cli/probe_walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <socks6/types.h>

#define METHOD_NOTHING_FITS 255

struct place {
    const uint8_t *bytes;
    size_t len;
    size_t at;
    struct probe_walk *walk;
    const char *message; /* for the words */
};

__attribute__((format(printf, 2, 3))) static bool fault(struct place *place, const char *format, ...)
{
    char text[sizeof place->walk->fault];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)snprintf(place->walk->fault, sizeof place->walk->fault, "%s: %.120s", place->message, text);
    return false;
}

static unsigned read16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

static bool has(const struct place *place, size_t need)
{
    return place->len - place->at >= need;
}

static void keep(struct probe_walk *walk, unsigned kind, const uint8_t *data, size_t len)
{
    if (walk->count < PROBE_WALK_OPTIONS_MAX) {
        walk->options[walk->count++] =
            (struct probe_option){.kind = (uint16_t)kind, .len = (uint16_t)len, .data = data};
    }
}

/* "SOCKS Options": the sequence fills its area exactly. The area is there as a whole. */
static bool walk_options(struct place *place, size_t area)
{
    size_t end = place->at + area;

    while (place->at < end) {
        size_t rest = end - place->at, len;
        unsigned kind;

        if (rest < 4) {
            return fault(place, "%zu bytes behind the last option, too few for one", rest);
        }
        kind = read16(place->bytes + place->at);
        len = read16(place->bytes + place->at + 2);
        if (len < 4) {
            return fault(place, "option kind %u has length %zu, below the 4 bytes of its own header", kind, len);
        }
        if (len > rest) {
            return fault(place, "option kind %u has length %zu, but only %zu bytes of options are left", kind, len,
                         rest);
        }
        if (len % 4 != 0) {
            (void)snprintf(place->walk->oddity, sizeof place->walk->oddity,
                           "option kind %u has length %zu, which is not a multiple of 4", kind, len);
        }
        keep(place->walk, kind, place->bytes + place->at + 4, len - 4);
        place->at += len;
    }
    return true;
}

static bool check_area(struct place *place, size_t area)
{
    if (area > SOCKS6_OPTIONS_CAP_12) {
        return fault(place, "%zu bytes of options, more than the draft's %u", area, SOCKS6_OPTIONS_CAP_12);
    }
    return true;
}

/* "Authentication Replies". False: stop, because of a fault or because the bytes end. */
static bool walk_auth(struct place *place)
{
    const uint8_t *head = place->bytes + place->at;
    size_t area;

    if (!has(place, 1)) {
        return false;
    }
    if (head[0] != SOCKS6_VERSION) {
        return fault(place, "starts with byte %u, not with version 6", head[0]);
    }
    if (has(place, 2) && head[1] > 1) {
        return fault(place, "type %u, where only 0 and 1 are known", head[1]);
    }
    if (!has(place, 4)) {
        return false;
    }
    area = read16(head + 2);
    if (!check_area(place, area) || !has(place, 4 + area)) {
        return false;
    }
    place->at += 4;
    if (!walk_options(place, area)) {
        return false;
    }
    place->walk->has_auth = true;
    place->walk->auth_type = head[1];
    return true;
}

/* Bytes of an address at its type byte's end, padding included. 0: not there yet, or a fault. */
static size_t address_len(struct place *place, uint8_t type, const uint8_t *address)
{
    switch (type) {
    case SOCKS6_ADDR_IPV4:
        return 4;
    case SOCKS6_ADDR_IPV6:
        return 16;
    case SOCKS6_ADDR_NAME:
        if (!has(place, 9)) {
            return 0;
        }
        if (address[0] == 0) {
            (void)fault(place, "an empty domain name as address");
            return 0;
        }
        return (1 + (size_t)address[0] + 3) / 4 * 4;
    default:
        (void)fault(place, "address type %u is not known", type);
        return 0;
    }
}

/* "Operation Replies". */
static bool walk_reply(struct place *place)
{
    const uint8_t *head = place->bytes + place->at;
    size_t address, area;

    if (!has(place, 1)) {
        return false;
    }
    if (head[0] != SOCKS6_VERSION) {
        return fault(place, "starts with byte %u, not with version 6", head[0]);
    }
    if (!has(place, 8)) {
        return false;
    }
    area = read16(head + 2);
    if (!check_area(place, area)) {
        return false;
    }
    address = address_len(place, head[7], head + 8);
    if (address == 0 || !has(place, 8 + address + area)) {
        return false;
    }
    place->walk->reply_from = place->walk->count;
    place->at += 8 + address;
    if (!walk_options(place, area)) {
        return false;
    }
    place->walk->has_reply = true;
    place->walk->code = head[1];
    return true;
}

static void note_selection(struct probe_walk *walk)
{
    const struct probe_option *option = probe_walk_find(walk, PROBE_OPTION_SELECTION, NULL);

    if (option != NULL && option->len >= 1 && walk->auth_type == 1 && option->data[0] != METHOD_NOTHING_FITS) {
        walk->selection = option->data[0];
    }
}

void probe_walk(const uint8_t *bytes, size_t len, bool negotiates, struct probe_walk *walk)
{
    struct place place = {.bytes = bytes, .len = len, .walk = walk, .message = "Authentication Reply"};
    bool goes_on;

    memset(walk, 0, sizeof *walk);
    walk->selection = -1;
    if (len == 0) {
        return;
    }
    goes_on = walk_auth(&place);
    if (goes_on) {
        note_selection(walk);
        if (walk->auth_type == 1) {
            goes_on = negotiates && walk->selection == SOCKS6_METHOD_USERPASS && has(&place, 2);
            if (goes_on) {
                place.at += 2;
                place.message = "second Authentication Reply";
                goes_on = walk_auth(&place) && walk->auth_type == 0;
            }
        }
    }
    walk->reply_from = walk->count;
    if (goes_on) {
        place.message = "Operation Reply";
        (void)walk_reply(&place);
    }
}

const struct probe_option *probe_walk_stack(const struct probe_walk *walk, uint8_t leg, uint8_t level, uint8_t code)
{
    for (size_t i = walk->reply_from; i < walk->count; i++) {
        const struct probe_option *option = &walk->options[i];

        if (option->kind == PROBE_OPTION_STACK && option->len == 4 && (option->data[0] >> 6 & leg) != 0 &&
            (option->data[0] & 0x3f) == level && option->data[1] == code) {
            return option;
        }
    }
    return NULL;
}

const struct probe_option *probe_walk_find(const struct probe_walk *walk, uint16_t kind, bool *in_reply)
{
    for (size_t i = 0; i < walk->count; i++) {
        if (walk->options[i].kind == kind) {
            if (in_reply != NULL) {
                *in_reply = walk->has_reply && i >= walk->reply_from;
            }
            return &walk->options[i];
        }
    }
    return NULL;
}
