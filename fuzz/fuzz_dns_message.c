/*
 * DNS messages. First byte: 0 = any message; what can be walked is within bounds, names go to text and back. 1 = a
 * client's question; every verdict leads to a message of ours that is well-formed. 2 = an upstream server's answer to
 * the question that it holds; what is kept of it is well-formed for a client with and without EDNS.
 */
#include <stdlib.h>
#include <string.h>

#include "dns/answer.h"
#include "fuzz.h"

static uint8_t out[DNS_RENDER_MAX];
static const struct dns_hop hop = {.keepalive_100ms = 600, .padding_block = 468, .udp_len = 1232};

static void check_name(const struct dns_name *name)
{
    char text[DNS_NAME_TEXT_MAX];
    struct dns_name again;

    require(name->len >= 1 && name->wire[name->len - 1] == 0, "a name ends in the root");
    size_t len = dns_name_format(name, text);
    require(len == strlen(text), "a name's text is as long as it says");
    require(dns_name_parse(text, &again) == 0, "a name's text can be read");
    require(again.len == name->len && memcmp(again.wire, name->wire, name->len) == 0, "it is the same name");
    require(dns_name_equal(name, &again) && dns_name_is_under(name, &again), "a name equals itself");
}

static void check_message(const uint8_t *data, size_t size)
{
    struct dns_question question;
    struct dns_records records;
    struct dns_record record;
    struct dns_edns edns;
    size_t end;

    if (dns_question_read(data, size, &question, NULL) == 0) {
        check_name(&question.name);
    }
    bool whole = dns_message_check(data, size, &edns, &end) == 0;
    if (whole) {
        require(end <= size, "a message ends within its bytes");
        require(!edns.present || (edns.offset < edns.end && edns.end <= end), "OPT lies within it");
    }
    if (dns_records_init(&records, data, size) != 0) {
        return;
    }
    while (dns_records_next(&records, &record) > 0) {
        check_name(&record.owner);
        require(record.rdata_offset + record.rdata.len <= size, "data lies within the message");
        require(record.ttl_offset + 4 <= record.rdata_offset, "so does the TTL");
    }
    require(!whole || records.offset == end, "both walks end at one place");
}

/* A message of ours: whole, nothing behind it. */
static void check_ours(size_t len, const struct dns_request *request)
{
    struct dns_edns edns;
    size_t end;

    require(dns_message_check(out, len, &edns, &end) == 0 && end == len, "what we write is well-formed");
    require(dns_get16(out) == request->id && (out[2] & 0x80) != 0, "it is a response with the id");
    require(request->has_edns || !edns.present, "who sends no OPT gets none");
}

static void check_request(const uint8_t *data, size_t size)
{
    static uint8_t upstream[DNS_MESSAGE_MAX];
    struct dns_request request, again;
    enum dns_rcode rcode;
    size_t len;

    switch (dns_request_read(data, size, &request, &rcode)) {
    case DNS_REQUEST_JUNK:
        return;
    case DNS_REQUEST_ERROR:
        check_ours(dns_error_render(&request, rcode, DNS_EDE_NONE, &hop, out), &request);
        return;
    case DNS_REQUEST_ASK:
        break;
    }
    check_ours(dns_error_render(&request, DNS_RCODE_SERVFAIL, DNS_EDE_NETWORK, &hop, out), &request);
    if (dns_request_build(&request, 7, true, NULL, upstream, sizeof upstream, &len) != 0) {
        require(request.options.len > 60000, "only too many options do not fit");
        return;
    }
    require(dns_request_read(upstream, len, &again, &rcode) == DNS_REQUEST_ASK, "what we ask is a question");
    require(again.is_private == request.is_private && !again.wants_padding && !again.wants_keepalive,
            "options of the hop are gone, the others are there");
}

static void check_answer(const uint8_t *data, size_t size)
{
    struct dns_request request;
    struct dns_question question;
    struct dns_answer *answer;

    if (dns_question_read(data, size, &question, NULL) != 0) {
        return;
    }
    dns_request_init(&request, &question.name, question.type);
    request.question.class = question.class;
    request.is_private = size % 2 != 0;
    if (!dns_answer_fits(data, size, &request) || dns_answer_new(data, size, &request, 0, &answer) != 0) {
        return;
    }
    for (int with_edns = 0; with_edns < 2; with_edns++) {
        request.has_edns = request.wants_padding = request.wants_keepalive = with_edns != 0;
        check_ours(dns_answer_render(answer, &request, &hop, (uint64_t)size * 1000, out), &request);
    }
    require(dns_answer_ttl_s(answer) <= DNS_TTL_MAX_S, "nothing lives for ever");
    dns_answer_release(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size - 1 > DNS_MESSAGE_MAX) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        check_message(data + 1, size - 1);
        break;
    case 1:
        check_request(data + 1, size - 1);
        break;
    default:
        check_answer(data + 1, size - 1);
        break;
    }
    return 0;
}
