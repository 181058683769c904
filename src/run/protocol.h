/*
 * What `socks6 run` and the library that it preloads say to each other. Spoken by src/preload (in the program) and
 * src/cli/run_*.c (the helper); constants and structs only.
 *
 * The helper listens on a Unix stream socket in the abstract namespace. One connection carries one request and its reply,
 * in the byte order and the alignment of the machine; nothing of it stays open in the program, which may close descriptors
 * as it likes. The exception is RUN_CONNECT, whose connection can become the program's connection.
 *
 * The address of the helper's socket can be seen by every user of the machine; the secret, which goes along with each
 * request, can only be seen by those who can read the program's environment. A user other than ours may well be right:
 * programs started as root change theirs.
 *
 * Sockets are spoken of by their cookie (SO_COOKIE of socket(7)), a number that the kernel never gives twice. So what the
 * helper knows holds for a descriptor's duplicates, in children, in programs started by exec(2), and where it was
 * sent to over a Unix socket.
 */
#ifndef RUN_PROTOCOL_H
#define RUN_PROTOCOL_H

#include <stdint.h>

/*
 * The environment variable: "VERSION:ADDRESS:SECRET:FLAGS", version in decimal, address (without the leading NUL) and secret in
 * hexadecimal, flags as letters. Without it, or if it makes no sense, the library lets nothing through.
 */
#define RUN_VARIABLE "SOCKS6_RUN"
#define RUN_VERSION 1u
#define RUN_ADDRESS_LEN 16u /* random bytes behind the NUL that makes it abstract */
#define RUN_SECRET_LEN 16u
#define RUN_FLAG_VERBOSE 'v'      /* -v: what was done without the helper is worth a note, too */
#define RUN_FLAG_ALLOW_DIRECT 'd' /* --allow-direct: what cannot be proxied goes its own way */
#define RUN_FLAG_FAKE_NAMES 'f'   /* --fake-names */

/* A socket address. */
struct run_addr {
    uint16_t family; /* AF_INET or AF_INET6; AF_UNSPEC (0) = none */
    uint16_t port;   /* host order */
    uint32_t scope;  /* IPv6 */
    uint8_t bytes[16];
};

enum run_kind {
    RUN_CONNECT = 1,
    RUN_STATUS,
    RUN_GETSOCKOPT,
    RUN_SETSOCKOPT,
    RUN_RESOLVE,
    RUN_REVERSE,
    RUN_QUERY,
    RUN_DIRECT,
    RUN_UDP_DNS,
    RUN_NOTE,
    RUN_SHARE,
    RUN_TOKENS
};

/* The longest message of either direction: a DNS message and what goes before it. */
#define RUN_MESSAGE_MAX (65535u + 1024u)

/* In front of the body of each request. */
struct run_request {
    uint32_t len; /* of the whole message, this included */
    uint16_t version;
    uint16_t kind; /* enum run_kind */
    uint8_t secret[RUN_SECRET_LEN];
};

/* In front of the body of each reply. */
struct run_reply {
    uint32_t len;
    int32_t status; /* 0, or an errno, unless the request says otherwise */
};

/*
 * RUN_CONNECT: body struct run_connect; SCM_RIGHTS carries the program's own socket, which is not connected: its options are what
 * the program has set, and from then on the helper keeps it to answer RUN_GETSOCKOPT and RUN_SETSOCKOPT.
 * Port 53 of any address is the proxy's DNS service. Loopback addresses are not asked for, but for port 53.
 *
 * The reply's body is struct run_connected.
 *
 * Non-blocking: one reply at once. DIRECT, REFUSED, STREAM (--early), or WAIT: then the program sends `pad_len` bytes that mean
 * nothing, which fill the socket so that it is not writable, and puts the connection in its descriptor's place. The helper reads
 * them when the proxy has said yes: the connection becomes writable, and is the program's. Otherwise it closes it with the
 * bytes unread, which poll(2) shows as it shows a TCP connection that has failed, and keeps the errno for RUN_STATUS.
 *
 * Blocking: one reply, when it is over: DIRECT, REFUSED, FAILED, STREAM or SOCKET. A program that is interrupted meanwhile sends
 * one byte, RUN_CONVERT. It is answered with CONVERTED, and all goes on as after WAIT; or the reply crosses it on the way.
 *
 * A connection that has broken after it was made is closed by the helper without being shut down first; one that the remote end has
 * ended is shut down, and stays open. What remains in doubt is answered by RUN_STATUS.
 */
struct run_connect {
    struct run_addr destination;
    uint64_t cookie;     /* of the program's end of this very connection */
    uint64_t old_cookie; /* the socket is one that RUN_CONNECT made before, and failed: its options go on. Else 0 */
    uint32_t flags;      /* RUN_CONNECT_* */
    uint32_t pad_len;
};
#define RUN_CONNECT_NON_BLOCKING 1u
/*
 * Blocking: if the verdict is STREAM, the first byte from the program is RUN_CONVERT and no data: the one that the verdict has crossed,
 * or one sent for this purpose. Without the flag the helper could not tell them apart.
 */
#define RUN_CONNECT_MARKED 2u
/*
 * The program's socket is connected to the proxy, which has the request and has not answered yet (run/share.h). If the proxy says yes while
 * the program still waits, the verdict is OWN. In all cases but this one the helper sees to it that the socket is unconnected again,
 * unless the program does.
 */
#define RUN_CONNECT_ASKED 4u
#define RUN_CONVERT 'c'

enum run_verdict {
    RUN_VERDICT_DIRECT = 1, /* connect it yourself */
    RUN_VERDICT_REFUSED,    /* with `error`; a sentence was printed */
    RUN_VERDICT_WAIT,
    RUN_VERDICT_CONVERTED,
    RUN_VERDICT_FAILED, /* with `error` */
    RUN_VERDICT_STREAM, /* this connection is it from now on */
    RUN_VERDICT_SOCKET, /* SCM_RIGHTS carries a TCP socket on which the program's bytes start */
    RUN_VERDICT_OWN     /* after RUN_CONNECT_ASKED: the program's socket is it */
};

struct run_connected {
    uint32_t verdict; /* enum run_verdict */
    int32_t error;
    struct run_addr peer;  /* what getpeername(2) is to say: the destination */
    struct run_addr local; /* and getsockname(2): the proxy's address towards the destination, if it told; else ours */
};

/* RUN_STATUS: body struct run_status, reply struct run_state. */
struct run_status {
    uint64_t cookie;
    uint32_t flags;
    uint32_t reserved;
};
#define RUN_STATUS_TAKE_ERROR 1u /* as SO_ERROR: the error is told to one who asks so, once */

enum run_state_of {
    RUN_STATE_UNKNOWN, /* no connection of ours */
    RUN_STATE_CONNECTING,
    RUN_STATE_CONNECTED,
    RUN_STATE_FAILED, /* never was one */
    RUN_STATE_BROKEN, /* it was one: reset, timed out */
    RUN_STATE_ENDED   /* both sides have ended it properly */
};

struct run_state {
    uint32_t state; /* enum run_state_of */
    int32_t error;  /* FAILED and BROKEN: errno, or 0 if it was taken */
    struct run_addr peer, local;
};

/*
 * RUN_GETSOCKOPT and RUN_SETSOCKOPT: body struct run_option and, for the latter, `len` bytes of value. The reply's status is 0 or an
 * errno, ENOENT if the socket is not known; the body of the former is the value.
 */
struct run_option {
    uint64_t cookie;
    int32_t level, name;
    uint32_t len; /* room, or length of the value */
    uint32_t reserved;
};
#define RUN_OPTION_MAX 4096u

/*
 * RUN_RESOLVE: body struct run_resolve and `name_len` bytes. Addresses of a name that is not numeric, hosts(5) and search domains
 * included. Status 0 and struct run_resolved with what it says; RUN_ASK_SYSTEM; or an EAI_ code of getaddrinfo(3), which is negative.
 */
struct run_resolve {
    uint16_t family; /* AF_UNSPEC = both; AF_INET, AF_INET6 */
    uint16_t name_len;
    uint32_t flags;
};
#define RUN_RESOLVE_ADDRCONFIG 1u /* AI_ADDRCONFIG */
#define RUN_NAME_MAX 1024u        /* of canon_len, too */

/*
 * Then struct run_addr, in the order to try them, ports 0; then the canonical name, no dot at its end. From hosts(5) its aliases
 * follow, a NUL before each.
 */
struct run_resolved {
    uint32_t count;
    uint32_t canon_len; /* with the aliases */
};
#define RUN_ADDRESSES_MAX 256u
#define RUN_ASK_SYSTEM 1 /* a status: NO_PROXY has this name, the system's resolver knows it */

/* RUN_REVERSE: body struct run_addr. Status as RUN_RESOLVE; the body is the names, the first one first, a NUL behind each. */

/* RUN_QUERY: body a DNS message, reply a DNS message (EDNS, truncation and retries are settled); status 0 or an errno. */

/* RUN_DIRECT: struct run_addr of what the system's resolver said after RUN_ASK_SYSTEM: connections to them are direct. */

/*
 * RUN_UDP_DNS: body struct run_addr. A destination: the reply, struct run_udp_dns, has the ports on 127.0.0.1 and ::1 at which the helper
 * answers DNS over UDP in its name. With family AF_UNSPEC and one of these ports: the reply has the destination.
 */
struct run_udp_dns {
    uint16_t port_ipv4, port_ipv6; /* 0 = none */
    uint32_t reserved;
    struct run_addr destination;
};

/*
 * RUN_SHARE: no body. SCM_RIGHTS carries the file of run/share.h, run_share_len bytes for mmap(2). Status EACCES for users other than ours,
 * to whom the session of the proxy is no business; ENOENT if there is none.
 */

/* RUN_TOKENS: no body, no reply. There are few tokens left in that memory. */

/*
 * RUN_NOTE: body struct run_note, then text without newline, as "connect to 192.0.2.1:123 over UDP: refused". No reply. The helper
 * puts the program's name and process ID before it.
 */
struct run_note {
    uint32_t what;
    uint32_t reserved;
};
#define RUN_NOTE_TRACE 0u   /* for -v */
#define RUN_NOTE_REFUSED 1u /* printed in any case, once for each process and text */
#define RUN_NOTE_MAX 512u

#endif
