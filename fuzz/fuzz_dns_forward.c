/*
 * A client's query and the proxy's answer through `socks6 dns --listen`. Input: a byte for the limit, the length of the
 * query (2 bytes), the query, the answer. Where the query is one, the answer gets its question, so that more of it is looked at.
 */
#include <string.h>

#include "cli/dns_forward.h"
#include "fuzz.h"

static uint8_t forwarded[DNS_FORWARD_OUT_MAX], answer[DNS_MESSAGE_MAX], error[DNS_FORWARD_ERROR_MAX];

static void check_message(const uint8_t *message, size_t len, bool with_edns)
{
    struct dns_edns edns;
    size_t end;

    require(dns_message_check(message, len, &edns, &end) == 0 && end == len, "what we write is well-formed");
    require(edns.present == with_edns, "it has EDNS where it should");
}

/* The query's header and question, flags and counts of the input's answer, and its records. */
static uint8_t *make_answer(const uint8_t *query, const uint8_t *data, size_t size, size_t *len)
{
    struct dns_question question;
    size_t records = 0;
    uint8_t *message;

    require(dns_question_read(query, DNS_FORWARD_OUT_MAX, &question, &records) == 0, "what we ask has a question");
    *len = records + size - DNS_HEADER_LEN;
    message = malloc(*len);
    require(message != NULL, "there is memory");
    memcpy(message, query, records);
    memcpy(message + 2, data + 2, DNS_HEADER_LEN - 2);
    message[2] |= 0x80;
    dns_put16(message + 4, 1);
    memcpy(message + records, data + DNS_HEADER_LEN, size - DNS_HEADER_LEN);
    return message;
}

static void answer_query(const struct dns_forward *query, size_t limit, const uint8_t *data, size_t size)
{
    const struct dns_forward_limits limits = {.len = limit, .has_keepalive = size % 2 == 0, .keepalive_tenths = 300};
    size_t answer_len, len;
    uint8_t *message;

    if (dns_forward_answer(query, &limits, data, size, answer, &answer_len) == 0) {
        require(answer_len <= limit, "the limit is kept");
        check_message(answer, answer_len, query->has_edns);
    }
    if (size >= DNS_HEADER_LEN) {
        message = make_answer(forwarded, data, size, &len);
        if (dns_forward_answer(query, &limits, message, len, answer, &answer_len) == 0) {
            require(answer_len <= limit, "the limit is kept");
            check_message(answer, answer_len, query->has_edns);
        }
        (void)dns_forward_keepalive(message, len);
        free(message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_forward query;
    size_t query_len, forwarded_len;
    uint8_t *message;
    int rc;

    if (size < 3 || size > 65000) {
        return 0;
    }
    query_len = dns_get16(data + 1) < size - 3 ? dns_get16(data + 1) : size - 3;
    message = malloc(query_len > 0 ? query_len : 1);
    require(message != NULL, "there is memory");
    memcpy(message, data + 3, query_len);
    memset(forwarded, 0, sizeof forwarded);
    rc = dns_forward_read(message, query_len, &query, forwarded, &forwarded_len);
    free(message);
    if (rc == 0) {
        check_message(forwarded, forwarded_len, true);
        answer_query(&query, 512 + (size_t)data[0] * 255, data + 3 + query_len, size - 3 - query_len);
    }
    if (rc >= 0) {
        check_message(error, dns_forward_error(&query, rc > 0 ? (unsigned)rc : 2, 23, error), query.has_edns);
    }
    return 0;
}
