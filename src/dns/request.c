#include "dns/request.h"

#include <errno.h>
#include <string.h>

#define UDP_LEN_MIN 512u

bool dns_option_is_hop_by_hop(uint16_t code)
{
    return code == DNS_OPTION_COOKIE || code == DNS_OPTION_TCP_KEEPALIVE || code == DNS_OPTION_PADDING;
}

static void read_options(struct dns_request *request, struct socks6_slice options)
{
    struct socks6_slice value;
    uint16_t code;
    size_t offset = 0;

    while (dns_option_next(options, &offset, &code, &value) > 0) {
        request->wants_keepalive |= code == DNS_OPTION_TCP_KEEPALIVE;
        request->wants_padding |= code == DNS_OPTION_PADDING;
        request->is_private |= !dns_option_is_hop_by_hop(code);
    }
    if (request->is_private) {
        request->options = options;
    }
}

static void read_edns(struct dns_request *request, const struct dns_edns *edns)
{
    if (!edns->present) {
        return;
    }
    request->has_edns = true;
    request->edns_version = edns->version;
    request->edns_flags = edns->flags;
    request->edns_udp_len = edns->udp_len < UDP_LEN_MIN ? UDP_LEN_MIN : edns->udp_len;
    read_options(request, edns->options);
}

/* After the header: NOERROR, or what is wrong with it. */
static enum dns_rcode judge(const uint8_t *message, size_t len, const struct dns_header *header,
                            struct dns_request *request)
{
    struct dns_edns edns;
    size_t end;

    if (DNS_FLAGS_OPCODE(header->flags) != 0) {
        return DNS_RCODE_NOTIMP;
    }
    if (header->count[DNS_QUESTION] != 1 || dns_question_read(message, len, &request->question, NULL) != 0) {
        return DNS_RCODE_FORMERR;
    }
    request->has_question = true;
    if (dns_message_check(message, len, &edns, &end) != 0) {
        return DNS_RCODE_FORMERR;
    }
    read_edns(request, &edns);
    if (edns.present && edns.version != 0) {
        return DNS_RCODE_BADVERS; /* RFC 6891 6.1.3 */
    }
    if (request->question.type == DNS_TYPE_AXFR || request->question.type == DNS_TYPE_IXFR) {
        return DNS_RCODE_REFUSED;
    }
    bool has_records = header->count[DNS_ANSWER] != 0 || header->count[DNS_AUTHORITY] != 0 ||
                       header->count[DNS_ADDITIONAL] != (edns.present ? 1 : 0);
    if (has_records || end != len || request->question.type == DNS_TYPE_OPT) {
        return DNS_RCODE_FORMERR;
    }
    return DNS_RCODE_NOERROR;
}

enum dns_request_verdict dns_request_read(const uint8_t *message, size_t len, struct dns_request *out,
                                          enum dns_rcode *rcode)
{
    struct dns_header header;

    if (dns_header_read(message, len, &header) != 0 || (header.flags & DNS_FLAG_QR) != 0) {
        return DNS_REQUEST_JUNK;
    }
    out->id = header.id;
    out->flags = header.flags;
    out->has_question = out->has_edns = out->wants_keepalive = out->wants_padding = out->is_private = false;
    out->edns_version = 0;
    out->edns_flags = 0;
    out->edns_udp_len = UDP_LEN_MIN;
    out->options = (struct socks6_slice){NULL, 0};
    *rcode = judge(message, len, &header, out);
    return *rcode == DNS_RCODE_NOERROR ? DNS_REQUEST_ASK : DNS_REQUEST_ERROR;
}

void dns_request_init(struct dns_request *request, const struct dns_name *name, uint16_t type)
{
    memset(request, 0, offsetof(struct dns_request, question));
    request->flags = DNS_FLAG_RD;
    request->question.name = *name;
    request->question.type = type;
    request->question.class = DNS_CLASS_IN;
    request->has_question = request->has_edns = true;
    request->wants_keepalive = request->wants_padding = request->is_private = false;
    request->edns_version = 0;
    request->edns_flags = 0;
    request->edns_udp_len = DNS_UPSTREAM_UDP_LEN;
    request->options = (struct socks6_slice){NULL, 0};
}

void dns_key_init(struct dns_key *key, const struct dns_request *request)
{
    const struct dns_name *name = &request->question.name;
    unsigned bits = (request->flags & DNS_FLAG_RD ? 1u : 0) | (request->flags & DNS_FLAG_CD ? 2u : 0) |
                    (request->edns_flags & DNS_EDNS_DO ? 4u : 0);

    key->bytes[0] = (uint8_t)bits;
    dns_put16(key->bytes + 1, request->question.type);
    dns_put16(key->bytes + 3, request->question.class);
    dns_name_fold(name, key->bytes + 5);
    key->len = 5 + (size_t)name->len;
}

/* The options of a private question that go on, and those of our hop. */
static int put_options(const struct dns_request *request, const struct socks6_slice *own, uint8_t *buf, size_t size,
                       size_t *len)
{
    struct socks6_slice value;
    uint16_t code;
    size_t offset = 0;

    while (dns_option_next(request->options, &offset, &code, &value) > 0) {
        if (!dns_option_is_hop_by_hop(code)) {
            int err = dns_option_put(buf, size, len, code, value.data, value.len);
            if (err != 0) {
                return err;
            }
        }
    }
    if (own != NULL && own->len > 0) {
        if (size - *len < own->len) {
            return -ENOSPC;
        }
        memcpy(buf + *len, own->data, own->len);
        *len += own->len;
    }
    return 0;
}

int dns_request_build(const struct dns_request *request, uint16_t id, bool with_edns,
                      const struct socks6_slice *options, uint8_t *buf, size_t size, size_t *len)
{
    struct dns_query query = {
        .id = id,
        /* AD says that we understand AD in answers (RFC 6840 5.7); whether the client does is seen to on the way back. */
        .flags = (uint16_t)((request->flags & (DNS_FLAG_RD | DNS_FLAG_CD)) | DNS_FLAG_AD),
        .name = &request->question.name,
        .type = request->question.type,
        .class = request->question.class,
        .with_edns = with_edns,
        .edns_udp_len = DNS_UPSTREAM_UDP_LEN,
        .edns_flags = request->edns_flags & DNS_EDNS_DO,
    };
    size_t total;

    int err = dns_query_build(&query, buf, size, &total);
    if (err == 0 && with_edns) {
        size_t begin = total;
        err = put_options(request, options, buf, size, &total);
        if (err == 0 && total - begin > UINT16_MAX) {
            err = -ENOSPC;
        }
        if (err == 0) {
            dns_put16(buf + begin - 2, (unsigned)(total - begin));
        }
    }
    if (err == 0) {
        *len = total;
    }
    return err;
}
