/*
 * Plain values of the SOCKS 6 protocol: enumerations, addresses, Stack options.
 *
 * Everything here is in host byte order and owns no memory unless a field says otherwise.
 * Section names in quotes are those of draft-olteanu-intarea-socks-6-11.
 */
#ifndef SOCKS6_TYPES_H
#define SOCKS6_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The compiler warns when a result that can be an error is dropped. */
#define SOCKS6_MUST_CHECK __attribute__((warn_unused_result))

/* The symbol is part of the library's interface; everything else is hidden. */
#define SOCKS6_API __attribute__((visibility("default")))

#define SOCKS6_VERSION 6

/* Ports registered or usual for SOCKS and used by this suite for SOCKS over TLS. */
#define SOCKS6_PORT 1080
#define SOCKS6_TLS_PORT 1443

/* "Requests": options length; 16384 up to -11, 20480 in -12. */
#define SOCKS6_OPTIONS_CAP_11 16384u
#define SOCKS6_OPTIONS_CAP_12 20480u

/* "Authentication Method Advertisement": the most initial data that may follow a request. */
#define SOCKS6_INITIAL_DATA_MAX 16384u

/* RFC 1929 and domain names: length fields of one byte. */
#define SOCKS6_NAME_MAX 255u
#define SOCKS6_USERNAME_MAX 255u
#define SOCKS6_PASSWORD_MAX 255u

/* Draft revision whose byte forms an encoder writes. Decoders take all of them. */
enum socks6_draft {
    SOCKS6_DRAFT_08 = 8,
    SOCKS6_DRAFT_11 = 11, /* the default */
    SOCKS6_DRAFT_12 = 12
};

/* "Requests": command codes. */
enum socks6_command {
    SOCKS6_COMMAND_NOOP = 0,
    SOCKS6_COMMAND_CONNECT = 1,
    SOCKS6_COMMAND_BIND = 2,
    SOCKS6_COMMAND_UDP_ASSOCIATE = 3
};

/* "Operation Replies": reply codes. */
enum socks6_reply_code {
    SOCKS6_REPLY_SUCCESS = 0,
    SOCKS6_REPLY_FAILURE = 1,     /* general SOCKS server failure */
    SOCKS6_REPLY_NOT_ALLOWED = 2, /* by the ruleset */
    SOCKS6_REPLY_NET_UNREACHABLE = 3,
    SOCKS6_REPLY_HOST_UNREACHABLE = 4,
    SOCKS6_REPLY_REFUSED = 5,
    SOCKS6_REPLY_TTL_EXPIRED = 6,
    SOCKS6_REPLY_COMMAND_UNSUPPORTED = 7,
    SOCKS6_REPLY_ADDRESS_UNSUPPORTED = 8,
    SOCKS6_REPLY_TIMED_OUT = 9,
    SOCKS6_REPLY_COUNT
};

/* Address types as they stand on the wire. */
enum socks6_addr_type { SOCKS6_ADDR_IPV4 = 1, SOCKS6_ADDR_NAME = 3, SOCKS6_ADDR_IPV6 = 4 };

/*
 * An address and a port. Zero-initialised it is no valid address; use socks6_addr_ipv4() and its kin.
 */
struct socks6_addr {
    uint8_t type;  /* enum socks6_addr_type */
    uint8_t len;   /* bytes used in `u`: 4, 16, or the length of the name, 1..255 */
    uint16_t port; /* host order */
    union {
        uint8_t ipv4[4]; /* network order, as in struct in_addr */
        uint8_t ipv6[16];
        char name[SOCKS6_NAME_MAX + 1]; /* ends in NUL; holds no other NUL; case as it came */
    } u;
};

/* Borrowed bytes. Whoever hands one out says until when it is valid. */
struct socks6_slice {
    const uint8_t *data; /* may be NULL only if len is 0 */
    size_t len;
};

/* Authentication methods: the IANA "SOCKS Methods" registry shared with SOCKS 5. */
enum socks6_method {
    SOCKS6_METHOD_NONE = 0,
    SOCKS6_METHOD_GSSAPI = 1,
    SOCKS6_METHOD_USERPASS = 2,
    SOCKS6_METHOD_UNACCEPTABLE = 255
};

/* RFC 1929 credentials as they stood in a message. Borrowed; neither part ends in NUL. */
struct socks6_credentials {
    struct socks6_slice username; /* 0..255 bytes */
    struct socks6_slice password; /* 0..255 bytes */
};

/* "Stack Options": legs. */
enum socks6_leg { SOCKS6_LEG_CLIENT_PROXY = 1, SOCKS6_LEG_PROXY_REMOTE = 2, SOCKS6_LEG_BOTH = 3 };

/* "Stack Options": levels. */
enum socks6_level {
    SOCKS6_LEVEL_IP = 1,
    SOCKS6_LEVEL_IPV4 = 2,
    SOCKS6_LEVEL_IPV6 = 3,
    SOCKS6_LEVEL_TCP = 4,
    SOCKS6_LEVEL_UDP = 5
};

/* "Stack Options": codes, meaningful together with their level. */
enum socks6_stack_code {
    SOCKS6_IP_TOS = 1,
    SOCKS6_IP_HAPPY_EYEBALLS = 2,
    SOCKS6_IP_TTL = 3,
    SOCKS6_IP_NO_FRAGMENTATION = 4,
    SOCKS6_TCP_FAST_OPEN = 1,
    SOCKS6_TCP_MULTIPATH = 2,
    SOCKS6_TCP_LISTEN_BACKLOG = 3,
    SOCKS6_UDP_ERROR = 1,
    SOCKS6_UDP_PORT_PARITY = 2
};

/* Availability values shared by Happy Eyeballs, No Fragmentation, Multipath and UDP Error. */
enum socks6_availability {
    SOCKS6_AVAILABILITY_UNSTATED = 0, /* the forms up to -10, where presence alone means "wanted" */
    SOCKS6_AVAILABILITY_NO = 1,
    SOCKS6_AVAILABILITY_YES = 2
};

/* Port Parity: first value byte. */
enum socks6_parity { SOCKS6_PARITY_ANY = 0, SOCKS6_PARITY_EVEN = 1, SOCKS6_PARITY_ODD = 2 };

/*
 * One Stack option. `value` holds the two value bytes as a number in host order, so a one-byte value
 * with padding (TOS, TTL, availability) is in the high byte: see SOCKS6_STACK_FIRST().
 */
struct socks6_stack_option {
    uint8_t leg;   /* enum socks6_leg */
    uint8_t level; /* enum socks6_level */
    uint8_t code;  /* enum socks6_stack_code */
    uint16_t value;
};

/* The value for options whose first value byte counts and whose second is padding or a second field. */
#define SOCKS6_STACK_VALUE(first, second) ((uint16_t)(((unsigned)(first) << 8) | (unsigned)(second)))
#define SOCKS6_STACK_FIRST(value) ((uint8_t)((value) >> 8))
#define SOCKS6_STACK_SECOND(value) ((uint8_t)((value)&0xffu))

/* The most Stack options that one message can carry after duplicates are dropped: one of each (leg, level, code). */
#define SOCKS6_STACK_MAX 16

/* A window of idempotence tokens, "Idempotence Options": [base, base + size) modulo 2^32; size 0 = none. */
struct socks6_window {
    uint32_t base;
    uint32_t size; /* 0, or 1 .. 2^31-1 */
};

/*
 * Memory for the library. `alloc` returns NULL when there is none; `free` takes NULL.
 * Passed at creation and kept by the object; `user` is handed back in every call.
 */
struct socks6_allocator {
    void *(*alloc)(void *user, size_t size);
    void *(*resize)(void *user, void *ptr, size_t size); /* as realloc(3) */
    void (*free)(void *user, void *ptr);
    void *user;
};

/* Addresses from their parts. `name` must be 1..255 bytes without NUL: else false, and `out` is untouched. */
SOCKS6_API struct socks6_addr socks6_addr_ipv4(const uint8_t bytes[4], uint16_t port);
SOCKS6_API struct socks6_addr socks6_addr_ipv6(const uint8_t bytes[16], uint16_t port);
SOCKS6_API int socks6_addr_name(const char *name, size_t len, uint16_t port, struct socks6_addr *out);

/*
 * Reads an address as a person writes it: "192.0.2.1", "2001:db8::1", "[2001:db8::1]", or a host name.
 * 0, or SOCKS6_ERR_INVALID if it is empty or longer than 255 bytes.
 */
SOCKS6_API SOCKS6_MUST_CHECK int socks6_addr_parse(const char *text, uint16_t port, struct socks6_addr *out);

/*
 * The form in which rules and dialers see an address ("Addresses" of our wire reference): a name that is an
 * IP literal becomes that address, an IPv4-mapped IPv6 address becomes IPv4. Everything else stays.
 */
SOCKS6_API void socks6_addr_normalize(struct socks6_addr *addr);

/* 1 if both are the same type, bytes (names without regard to case) and port. */
SOCKS6_API int socks6_addr_equal(const struct socks6_addr *a, const struct socks6_addr *b);

/* 1 for 0.0.0.0 and ::, whatever the port. */
SOCKS6_API int socks6_addr_is_unspecified(const struct socks6_addr *addr);

/* Room for the longest text of socks6_addr_format() and its NUL: every byte of a name may need 4. */
#define SOCKS6_ADDR_TEXT_MAX ((size_t)SOCKS6_NAME_MAX * 4 + sizeof "[]:65535")

/*
 * Writes "192.0.2.1:80", "[2001:db8::1]:80" or "example.com:80" (RFC 5952 for IPv6). Bytes of a name outside
 * printable ASCII, spaces, quotes and backslashes come out as \xNN, so that the text is safe in a log.
 * Returns the length written without NUL; cuts at `size`.
 */
SOCKS6_API size_t socks6_addr_format(const struct socks6_addr *addr, char *buf, size_t size);
/* The same without the port. */
SOCKS6_API size_t socks6_addr_format_host(const struct socks6_addr *addr, char *buf, size_t size);

/* "connection refused" and so on; "unassigned reply code" for what the draft does not name. Static storage. */
SOCKS6_API const char *socks6_reply_name(unsigned code);
/* "CONNECT" and so on; "unknown command". Static storage. */
SOCKS6_API const char *socks6_command_name(unsigned command);

#ifdef __cplusplus
}
#endif
#endif
