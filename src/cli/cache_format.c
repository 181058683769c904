/*
 * The file: a head of 36 bytes (magic, salt, length of the body, checksum of the body), then the entries:
 *
 *     key_len 2, key, used 8, password_check 2,
 *     id_len 2, id, untrusted 1, dry 1, base 4, size 4, next 4,
 *     ticket_count 1, and for each: expires 8, len 2, ticket
 *
 * Numbers in network byte order. The checksum is SipHash under the salt: it finds what a crash or a full disk leaves
 * behind, not forgery, since whoever can write the file owns the secrets in it.
 */
#include "cli/cache_format.h"

#include <string.h>

#define HEAD_LEN 36u

static const uint8_t magic[8] = {'S', '6', 'C', 'A', 'C', 'H', 'E', '1'};

/* --- reading --- */

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

static const uint8_t *take(struct reader *reader, size_t len)
{
    const uint8_t *at = reader->at;

    if (reader->failed || reader->left < len) {
        reader->failed = true;
        return NULL;
    }
    reader->at += len;
    reader->left -= len;
    return at;
}

static uint64_t take_number(struct reader *reader, size_t len)
{
    const uint8_t *bytes = take(reader, len);
    uint64_t number = 0;

    for (size_t i = 0; bytes != NULL && i < len; i++) {
        number = number << 8 | bytes[i];
    }
    return number;
}

static void read_session(struct reader *reader, struct socks6_session *session)
{
    size_t id_len = take_number(reader, 2);
    const uint8_t *id = take(reader, id_len);

    socks6_session_init(session);
    if (id == NULL || id_len > sizeof session->id) {
        reader->failed = true;
        return;
    }
    memcpy(session->id, id, id_len);
    session->id_len = (uint16_t)id_len;
    session->untrusted = (uint8_t)take_number(reader, 1);
    session->dry = (uint8_t)take_number(reader, 1);
    session->window.base = (uint32_t)take_number(reader, 4);
    session->window.size = (uint32_t)take_number(reader, 4);
    session->next = (uint32_t)take_number(reader, 4);
    reader->failed |= !socks6_session_is_valid(session);
}

static void read_entry(struct reader *reader, struct cache_entry *entry)
{
    entry->key_len = take_number(reader, 2);
    entry->key = take(reader, entry->key_len);
    entry->used_s = take_number(reader, 8);
    entry->password_check = (uint16_t)take_number(reader, 2);
    read_session(reader, &entry->session);
    entry->ticket_count = take_number(reader, 1);
    if (entry->ticket_count > CACHE_TICKETS_MAX) {
        reader->failed = true;
        return;
    }
    for (size_t i = 0; i < entry->ticket_count; i++) {
        struct cache_ticket *ticket = &entry->tickets[i];

        ticket->expires_s = take_number(reader, 8);
        ticket->len = take_number(reader, 2);
        ticket->data = take(reader, ticket->len);
    }
}

bool cache_decode(const uint8_t *bytes, size_t len, struct cache_content *out)
{
    struct reader reader = {bytes, len, false};
    const uint8_t *found = take(&reader, sizeof magic);
    size_t body_len;
    uint64_t checksum;

    out->entry_count = 0;
    out->salt.k0 = take_number(&reader, 8);
    out->salt.k1 = take_number(&reader, 8);
    body_len = take_number(&reader, 4);
    checksum = take_number(&reader, 8);
    /* What follows the body is the rest of a longer file that was not cut off. */
    if (reader.failed || memcmp(found, magic, sizeof magic) != 0 || body_len > reader.left ||
        siphash(&out->salt, reader.at, body_len) != checksum) {
        return false;
    }
    reader.left = body_len;
    while (reader.left > 0 && !reader.failed && out->entry_count < CACHE_ENTRIES_MAX) {
        read_entry(&reader, &out->entries[out->entry_count++]);
    }
    if (reader.failed || reader.left > 0) {
        out->entry_count = 0;
        return false;
    }
    return true;
}

/* --- writing --- */

static void put(uint8_t **at, const uint8_t *bytes, size_t len)
{
    if (len > 0) {
        memcpy(*at, bytes, len);
        *at += len;
    }
}

static void put_number(uint8_t **at, uint64_t number, size_t len)
{
    for (size_t i = len; i > 0; i--) {
        *(*at)++ = (uint8_t)(number >> (i - 1) * 8);
    }
}

static size_t entry_len(const struct cache_entry *entry)
{
    size_t len = 2 + entry->key_len + 8 + 2 + 2 + entry->session.id_len + 1 + 1 + 4 + 4 + 4 + 1;

    for (size_t i = 0; i < entry->ticket_count; i++) {
        len += 8 + 2 + entry->tickets[i].len;
    }
    return len;
}

static void put_entry(uint8_t **at, const struct cache_entry *entry)
{
    const struct socks6_session *session = &entry->session;

    put_number(at, entry->key_len, 2);
    put(at, entry->key, entry->key_len);
    put_number(at, entry->used_s, 8);
    put_number(at, entry->password_check, 2);
    put_number(at, session->id_len, 2);
    put(at, session->id, session->id_len);
    put_number(at, session->untrusted, 1);
    put_number(at, session->dry, 1);
    put_number(at, session->window.base, 4);
    put_number(at, session->window.size, 4);
    put_number(at, session->next, 4);
    put_number(at, entry->ticket_count, 1);
    for (size_t i = 0; i < entry->ticket_count; i++) {
        put_number(at, entry->tickets[i].expires_s, 8);
        put_number(at, entry->tickets[i].len, 2);
        put(at, entry->tickets[i].data, entry->tickets[i].len);
    }
}

size_t cache_encode(const struct cache_content *content, uint8_t *out, size_t size)
{
    uint8_t *at = out + HEAD_LEN;
    size_t body_len;

    for (size_t i = 0; i < content->entry_count; i++) {
        if (entry_len(&content->entries[i]) > size - (size_t)(at - out)) {
            break;
        }
        put_entry(&at, &content->entries[i]);
    }
    body_len = (size_t)(at - out) - HEAD_LEN;
    at = out;
    put(&at, magic, sizeof magic);
    put_number(&at, content->salt.k0, 8);
    put_number(&at, content->salt.k1, 8);
    put_number(&at, body_len, 4);
    put_number(&at, siphash(&content->salt, out + HEAD_LEN, body_len), 8);
    return HEAD_LEN + body_len;
}
