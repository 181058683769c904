/* Names for people: error codes, reply codes, commands. Declared in <socks6/error.h> and <socks6/types.h>. */
#include <assert.h>
#include <stddef.h>

#include <socks6/error.h>
#include <socks6/types.h>

const char *socks6_strerror(int err)
{
    switch ((enum socks6_err)err) {
    case SOCKS6_OK:
        return "success";
    case SOCKS6_NEED_MORE:
        return "the message is not complete yet";
    case SOCKS6_ERR_VERSION:
        return "the peer does not speak SOCKS 6";
    case SOCKS6_ERR_MALFORMED:
        return "malformed message";
    case SOCKS6_ERR_TOO_LONG:
        return "more options or data than allowed";
    case SOCKS6_ERR_ADDRESS:
        return "unknown address type";
    case SOCKS6_ERR_PROTOCOL:
        return "unexpected message";
    case SOCKS6_ERR_NOMEM:
        return "out of memory";
    case SOCKS6_ERR_INVALID:
        return "invalid argument";
    case SOCKS6_ERR_TIMEOUT:
        return "timed out";
    }
    return "unknown error";
}

/* "Operation Replies"; the words of the draft in the order of their codes. */
static const char *const reply_names[] = {
    "success",
    "general SOCKS server failure",
    "connection not allowed by ruleset",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "TTL expired",
    "command not supported",
    "address type not supported",
    "connection attempt timed out",
};
static_assert(sizeof reply_names / sizeof reply_names[0] == SOCKS6_REPLY_COUNT, "a name for each reply code");

const char *socks6_reply_name(unsigned code)
{
    return code < SOCKS6_REPLY_COUNT ? reply_names[code] : "unassigned reply code";
}

const char *socks6_command_name(unsigned command)
{
    static const char *const names[] = {"NOOP", "CONNECT", "BIND", "UDP ASSOCIATE"};

    return command < sizeof names / sizeof names[0] ? names[command] : "unknown command";
}
