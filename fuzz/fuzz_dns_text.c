/*
 * Record data to text. Input: the type (2 bytes), then the data, which stands in a message behind two names that it can
 * point to.
 */
#include <string.h>

#include "dns/text.h"
#include "fuzz.h"

static char text[2][DNS_RDATA_TEXT_MAX];

static uint8_t *make_message(const uint8_t *data, size_t size, size_t *len)
{
    static const uint8_t head[] = {0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3, 'w', '"', '.', 1, '\n', 0};
    uint8_t *message;

    *len = sizeof head + 10 + size;
    message = malloc(*len);
    require(message != NULL, "there is memory");
    memcpy(message, head, sizeof head);
    memset(message + sizeof head, 0, 10);
    dns_put16(message + sizeof head, dns_get16(data - 2));
    message[sizeof head + 3] = 1;
    dns_put16(message + sizeof head + 8, (unsigned)size);
    memcpy(message + sizeof head + 10, data, size);
    return message;
}

static void check_text(const char *string, size_t len)
{
    require(strlen(string) == len, "the length is that of the string");
    require(len < DNS_RDATA_TEXT_MAX - 1, "there is room for every text");
    for (size_t i = 0; i < len; i++) {
        require(string[i] >= ' ' && string[i] <= '~', "text is printable ASCII");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_records records;
    struct dns_record record;
    size_t message_len, len, cut_len;
    uint8_t *message;

    if (size < 2 || size - 2 > 60000) {
        return 0;
    }
    message = make_message(data + 2, size - 2, &message_len);
    require(dns_records_init(&records, message, message_len) == 0 && dns_records_next(&records, &record) == 1,
            "the message has one record");
    len = dns_rdata_format(message, message_len, &record, DNS_SPLIT_WIDTH, text[0], sizeof text[0]);
    check_text(text[0], len);
    cut_len = dns_rdata_format(message, message_len, &record, DNS_SPLIT_WIDTH, text[1], len / 2 + 1);
    require(cut_len <= len / 2, "no more is written than there is room for");
    check_text(text[1], cut_len);
    require(len == 0 || strncmp(text[0], "\\#", 2) == 0 || memcmp(text[0], text[1], cut_len) == 0,
            "less room gives the beginning of the same text");
    free(message);
    return 0;
}
