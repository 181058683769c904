/*
 * The names of types, classes, opcodes and rcodes: the registry "Domain Name System (DNS) Parameters".
 */
#include "dns/text.h"

#include <string.h>
#include <strings.h>

#include "dns/text_out.h"

struct mnemonic {
    uint16_t number;
    char name[DNS_MNEMONIC_MAX];
};

/* In the order of their numbers. */
static const struct mnemonic types[] = {
    {1, "A"},      {2, "NS"},      {3, "MD"},          {4, "MF"},     {5, "CNAME"},     {6, "SOA"},
    {7, "MB"},     {8, "MG"},      {9, "MR"},          {10, "NULL"},  {11, "WKS"},      {12, "PTR"},
    {13, "HINFO"}, {14, "MINFO"},  {15, "MX"},         {16, "TXT"},   {17, "RP"},       {18, "AFSDB"},
    {19, "X25"},   {20, "ISDN"},   {21, "RT"},         {22, "NSAP"},  {23, "NSAP-PTR"}, {24, "SIG"},
    {25, "KEY"},   {26, "PX"},     {27, "GPOS"},       {28, "AAAA"},  {29, "LOC"},      {30, "NXT"},
    {31, "EID"},   {32, "NIMLOC"}, {33, "SRV"},        {34, "ATMA"},  {35, "NAPTR"},    {36, "KX"},
    {37, "CERT"},  {38, "A6"},     {39, "DNAME"},      {40, "SINK"},  {41, "OPT"},      {42, "APL"},
    {43, "DS"},    {44, "SSHFP"},  {45, "IPSECKEY"},   {46, "RRSIG"}, {47, "NSEC"},     {48, "DNSKEY"},
    {49, "DHCID"}, {50, "NSEC3"},  {51, "NSEC3PARAM"}, {52, "TLSA"},  {53, "SMIMEA"},   {55, "HIP"},
    {56, "NINFO"}, {57, "RKEY"},   {58, "TALINK"},     {59, "CDS"},   {60, "CDNSKEY"},  {61, "OPENPGPKEY"},
    {62, "CSYNC"}, {63, "ZONEMD"}, {64, "SVCB"},       {65, "HTTPS"}, {99, "SPF"},      {100, "UINFO"},
    {101, "UID"},  {102, "GID"},   {103, "UNSPEC"},    {104, "NID"},  {105, "L32"},     {106, "L64"},
    {107, "LP"},   {108, "EUI48"}, {109, "EUI64"},     {249, "TKEY"}, {250, "TSIG"},    {251, "IXFR"},
    {252, "AXFR"}, {253, "MAILB"}, {254, "MAILA"},     {255, "ANY"},  {256, "URI"},     {257, "CAA"},
    {258, "AVC"},  {259, "DOA"},   {260, "AMTRELAY"},  {32768, "TA"}, {32769, "DLV"},
};

static const struct mnemonic classes[] = {{1, "IN"}, {3, "CH"}, {4, "HS"}, {254, "NONE"}, {255, "ANY"}};

static const struct mnemonic opcodes[] = {{0, "QUERY"},  {1, "IQUERY"}, {2, "STATUS"},
                                          {4, "NOTIFY"}, {5, "UPDATE"}, {6, "DSO"}};

static const struct mnemonic rcodes[] = {
    {0, "NOERROR"},  {1, "FORMERR"},  {2, "SERVFAIL"},  {3, "NXDOMAIN"},   {4, "NOTIMP"},
    {5, "REFUSED"},  {6, "YXDOMAIN"}, {7, "YXRRSET"},   {8, "NXRRSET"},    {9, "NOTAUTH"},
    {10, "NOTZONE"}, {16, "BADVERS"}, {17, "BADKEY"},   {18, "BADTIME"},   {19, "BADMODE"},
    {20, "BADNAME"}, {21, "BADALG"},  {22, "BADTRUNC"}, {23, "BADCOOKIE"},
};

static const char *const extended_errors[] = {
    "Other",
    "Unsupported DNSKEY Algorithm",
    "Unsupported DS Digest Type",
    "Stale Answer",
    "Forged Answer",
    "DNSSEC Indeterminate",
    "DNSSEC Bogus",
    "Signature Expired",
    "Signature Not Yet Valid",
    "DNSKEY Missing",
    "RRSIGs Missing",
    "No Zone Key Bit Set",
    "NSEC Missing",
    "Cached Error",
    "Not Ready",
    "Blocked",
    "Censored",
    "Filtered",
    "Prohibited",
    "Stale NXDOMAIN Answer",
    "Not Authoritative",
    "Not Supported",
    "No Reachable Authority",
    "Network Error",
    "Invalid Data",
    "Signature Expired before Valid",
    "Too Early",
    "Unsupported NSEC3 Iterations Value",
    "Unable to conform to policy",
    "Synthesized",
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* The name of a number, or `prefix` and the number. */
static size_t format(const struct mnemonic *table, size_t count, const char *prefix, unsigned number, char *text)
{
    struct text_out out;

    text_out_init(&out, text, DNS_MNEMONIC_MAX);
    for (size_t i = 0; i < count; i++) {
        if (table[i].number == number) {
            text_out_string(&out, table[i].name);
            return out.len;
        }
    }
    text_out_string(&out, prefix);
    text_out_number(&out, number, 1);
    return out.len;
}

static bool parse_number(const char *text, uint16_t *out)
{
    unsigned value = 0;

    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(*text - '0');
        if (value > UINT16_MAX) {
            return false;
        }
    }
    *out = (uint16_t)value;
    return true;
}

static bool parse(const struct mnemonic *table, size_t count, const char *prefix, const char *text, uint16_t *out)
{
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(text, table[i].name) == 0) {
            *out = table[i].number;
            return true;
        }
    }
    return strncasecmp(text, prefix, strlen(prefix)) == 0 && parse_number(text + strlen(prefix), out);
}

size_t dns_type_format(uint16_t type, char text[DNS_MNEMONIC_MAX])
{
    return format(types, COUNT(types), "TYPE", type, text);
}

size_t dns_class_format(uint16_t class, char text[DNS_MNEMONIC_MAX])
{
    return format(classes, COUNT(classes), "CLASS", class, text);
}

size_t dns_rcode_format(unsigned rcode, char text[DNS_MNEMONIC_MAX])
{
    return format(rcodes, COUNT(rcodes), "RESERVED", rcode, text);
}

size_t dns_opcode_format(unsigned opcode, char text[DNS_MNEMONIC_MAX])
{
    return format(opcodes, COUNT(opcodes), "RESERVED", opcode, text);
}

bool dns_type_parse(const char *text, uint16_t *out)
{
    return parse(types, COUNT(types), "TYPE", text, out);
}

bool dns_class_parse(const char *text, uint16_t *out)
{
    return parse(classes, COUNT(classes), "CLASS", text, out);
}

const char *dns_ede_name(unsigned code)
{
    return code < COUNT(extended_errors) ? extended_errors[code] : NULL;
}
