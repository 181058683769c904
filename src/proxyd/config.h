/*
 * The daemon's configuration: a YAML file to one immutable snapshot.
 *
 * A snapshot is counted: every connection holds the one it was accepted under, a reload swaps the pointer for new ones.
 */
#ifndef PROXYD_CONFIG_H
#define PROXYD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <socks6/types.h>

#include "dns/resolver.h"
#include "io/happy_eyeballs.h"
#include "io/relay.h"
#include "proxyd/policy.h"
#include "proxyd/users.h"

/* Which protocols a listener takes: bits. */
enum config_protocol { CONFIG_SOCKS4 = 1, CONFIG_SOCKS5 = 2, CONFIG_SOCKS6 = 4 };

/* TCP Fast Open of clients. Of the listeners: what is in force; `has_...` only while the file is read. */
struct config_fast_open {
    uint32_t queue_len;      /* see fast_open_listen(); 0 = off */
    bool acts_without_token; /* a request in a SYN does, before the handshake has ended, also if it spends no token */
    bool has_queue_len, has_without_token;
};

#define CONFIG_FAST_OPEN_DEFAULT 1024u
#define CONFIG_FAST_OPEN_MAX 65535u

/* `tls:` of a listener: what was read from its files; see below. */
struct config_tls;
struct tls_keys;
struct tls_server;

struct config_listener {
    struct socks6_addr address; /* IPv4 or IPv6; port 0 = any free one */
    unsigned nth;               /* listeners of this address in front of it: not 0 only with port 0 */
    struct config_tls *tls;     /* NULL = without */
    unsigned protocols;         /* enum config_protocol; default all */
    bool open;                  /* may serve everybody off loopback */
    struct config_fast_open fast_open;
    bool optional; /* built in: left out where the host has no such address (IPv6 switched off) */
    unsigned line; /* in the file; 0 = built in or from the command line */
};

/* AUTO is JOURNALD where the output is the journal's socket, and TEXT elsewhere. */
enum config_log_format { CONFIG_LOG_TEXT, CONFIG_LOG_JSON, CONFIG_LOG_JOURNALD, CONFIG_LOG_AUTO };
enum config_log_level { CONFIG_LOG_ERROR, CONFIG_LOG_WARNING, CONFIG_LOG_INFO, CONFIG_LOG_DEBUG };
enum config_log_target { CONFIG_LOG_STDERR, CONFIG_LOG_STDOUT, CONFIG_LOG_FILE };

struct config_log_output {
    enum config_log_target target;
    char *path; /* of a FILE: absolute; else NULL */
    enum config_log_format format;
};

/* X(name): what an access line can tell; the name stands in `log.access.fields` and in the line. */
#define CONFIG_LOG_FIELDS(X)                                                                                           \
    X(id)                                                                                                              \
    X(client)                                                                                                          \
    X(listener)                                                                                                        \
    X(protocol)                                                                                                        \
    X(tls)                                                                                                             \
    X(user)                                                                                                            \
    X(command)                                                                                                         \
    X(asked)                                                                                                           \
    X(dialled)                                                                                                         \
    X(reply)                                                                                                           \
    X(bytes_up)                                                                                                        \
    X(bytes_down)                                                                                                      \
    X(duration_ms)                                                                                                     \
    X(reason)                                                                                                          \
    X(rule)

enum config_log_field {
#define CONFIG_LOG_FIELD_ENUM(name) CONFIG_LOG_FIELD_##name,
    CONFIG_LOG_FIELDS(CONFIG_LOG_FIELD_ENUM)
#undef CONFIG_LOG_FIELD_ENUM
        CONFIG_LOG_FIELD_COUNT
};

/* Which fields, in which order, each at most once. */
struct config_log_fields {
    uint8_t order[CONFIG_LOG_FIELD_COUNT]; /* enum config_log_field */
    uint8_t count;
};

struct config_log {
    enum config_log_level level;
    struct config_log_output daemon;
    bool access; /* a line for each connection */
    struct config_log_output access_output;
    struct config_log_fields fields;
};

/* What the command line makes of the log: -q, -v. */
enum config_verbosity { CONFIG_AS_CONFIGURED, CONFIG_QUIET, CONFIG_VERBOSE };

/* A Unix socket at which the daemon tells what it does. AUTO: where config_status_path() says, if that can be. */
enum config_status_kind { CONFIG_STATUS_AUTO, CONFIG_STATUS_NONE, CONFIG_STATUS_PATH };
struct config_status {
    enum config_status_kind kind;
    char *path; /* of PATH: absolute; else NULL */
};

/* How bulk streams are moved: AUTO splices where no end is on this host. */
enum config_relay { CONFIG_RELAY_AUTO, CONFIG_RELAY_COPY, CONFIG_RELAY_SPLICE };

/* limits.connections_per_client: no limit for clients on loopback, who are this host itself, this one for all others. */
#define CONFIG_PER_CLIENT_AUTO UINT32_MAX
#define CONFIG_PER_CLIENT_DEFAULT 1000u

/* Times in milliseconds, 0 = no limit, unless said otherwise. */
struct config_limits {
    uint64_t handshake_ms; /* accept to whole request; default 10 s; at least 1 ms */
    uint64_t connect_ms;   /* name look-up and all attempts together; default 30 s; at least 1 ms */
    /* idle_ms: default 24 h; half_closed_ms, quiet time once one direction has ended: default 5 min */
    struct relay_limits relay;
    uint32_t connections; /* in total; 0 = what the descriptor limit allows */
    /* Per client address (IPv6: per /64); 0 = no limit, or CONFIG_PER_CLIENT_AUTO, the default. */
    uint32_t connections_per_client;
    uint32_t options; /* bytes of options in a SOCKS 6 request; default 20480, the most */
    /* SOCKS 6 sessions (store_memory.h): 0 = no cap, but for the total. */
    uint32_t sessions;            /* in total; default 65536 */
    uint32_t sessions_anonymous;  /* of these, without a user; default 32768 */
    uint32_t sessions_per_user;   /* default 64 */
    uint32_t sessions_per_client; /* by address (IPv6: per /64); default 1024 */
    uint64_t session_idle_ms;     /* default 1 h */
    uint32_t token_window;        /* the largest that is granted; 1 to TOKEN_WINDOW_MAX, the default */
};

/* How the addresses of a name are dialled. */
struct config_happy_eyeballs {
    struct happy_eyeballs_config race; /* defaults of RFC 8305 */
    uint64_t remember_ms;              /* how long the last winner of a name goes first; 0 = not; default 10 min */
    bool legacy;                       /* SOCKS 4a and 5 clients, who cannot ask for it, get it too; default true */
};

#define CONFIG_RESOLUTION_DELAY_MAX_MS 2000u
#define CONFIG_FIRST_FAMILY_COUNT_MAX 16u

/* The resolver, and the DNS service that clients reach at port 53 of the unspecified address. */
struct config_dns {
    struct dns_server_setting servers[DNS_SERVERS_MAX];
    size_t server_count; /* 0 = the system's */
    char *resolv_conf;   /* NULL = /etc/resolv.conf */
    char *hosts;         /* NULL = /etc/hosts; "" = none */
    char *ca;            /* NULL = the system's */
    uint64_t timeout_ms; /* per attempt; 0 = auto */
    uint32_t attempts;   /* 0 = auto */
    uint64_t cache_len;  /* bytes; 0 = none */
    bool service;
    bool service_socks5;         /* SOCKS 5 clients, who do not know of it, reach it too */
    struct socks6_addr relay;    /* the service's streams go there; type 0 = nowhere, it is built in */
    uint64_t idle_ms;            /* of a client's stream without queries */
    uint32_t queries_in_flight;  /* per client */
    uint32_t queries_per_second; /* per client; 0 = no limit, or CONFIG_PER_CLIENT_AUTO */
};

#define CONFIG_DNS_IN_FLIGHT_MAX 65535u
#define CONFIG_DNS_PER_SECOND_DEFAULT 1000u /* auto, for clients that are not on loopback */

/* How clients may come in: bits. Without CONFIG_AUTH_ANONYMOUS everybody has to log in. */
enum config_auth_method { CONFIG_AUTH_ANONYMOUS = 1, CONFIG_AUTH_PASSWORD = 2, CONFIG_AUTH_CERTIFICATE = 4 };

struct config_auth {
    unsigned methods;          /* enum config_auth_method, at least one; default CONFIG_AUTH_ANONYMOUS */
    unsigned line, column;     /* where they stand in the file; 0 = nowhere */
    char *users_path;          /* absolute; NULL = no users */
    char *pam;                 /* a service of PAM, which is asked instead of a file; NULL = none */
    uint64_t pam_remember_ms;  /* how long its good answers hold */
    const struct users *users; /* the file as it was when the configuration was loaded, or PAM; NULL = no users */
    struct users_error remark; /* what is unwise about the file or the service; empty = nothing */
};

struct config {
    struct config_listener *listeners;
    size_t listener_count;
    unsigned workers; /* 0 = one per processor */
    enum config_relay relay;
    struct config_auth auth;
    struct config_limits limits;
    struct config_happy_eyeballs happy_eyeballs;
    struct config_dns dns;
    struct config_log log;
    struct config_status status;
    struct policy *policy; /* rules; never NULL */
};

/* What the resolver is told; borrowed from `dns`. */
void config_dns_settings(const struct config_dns *dns, struct dns_settings *out);

struct config_error {
    char text[1024]; /* FILE:LINE:COLUMN: what is wrong, and what to write instead */
};

/*
 * Reads and checks `path` (NULL: the built-in defaults: 127.0.0.1:1080 and [::1]:1080). `listen` (count may be 0):
 * addresses of -l, which replace the listeners of the file. 0 and a snapshot with one reference, or -1 and `error`.
 */
SOCKS6_MUST_CHECK int config_load(const char *path, const char *const *listen, size_t listen_count,
                                  const struct config **out, struct config_error *error);

/* Applies -q and -v. Only before anybody else has the snapshot. */
void config_set_verbosity(const struct config *config, enum config_verbosity verbosity);

/*
 * Where the status socket is, or would be: at most `size` - 1 bytes in `buf`, or false if there is none. AUTO is
 * /run/socks6d.sock for root, and socks6d.sock in XDG_RUNTIME_DIR for other users, who have none without it.
 */
SOCKS6_MUST_CHECK bool config_status_path(const struct config_status *status, char *buf, size_t size);

/* The listener that a reload takes for the same: of this address, and as many of it stand in front. NULL = there is none. */
const struct config_listener *config_find_listener(const struct config *config, const struct socks6_addr *address,
                                                   unsigned nth);

/* Counted references; any thread. Release takes NULL. */
const struct config *config_retain(const struct config *config);
void config_release(const struct config *config);

/*
 * Writes the configuration in force as YAML that config_load() reads again, defaults included, with a comment on what
 * no rule matches.
 */
void config_print(const struct config *config, FILE *out);

/*
 * Calls `tell` for each address of `outgoing` that the kernel does not let us bind to now, with the line of the rule that
 * has it (0: the list for all) and the errno. Not an error: addresses come and go, and the dialer goes to the next one.
 */
typedef void config_tell_missing(void *user, const char *address, unsigned line, int error);
void config_missing_outgoing(const struct config *config, config_tell_missing *tell, void *user);

/* What connections of the listener need; borrowed. */
struct tls_server *config_tls_server(const struct config_tls *tls);
/* Whether clients must show a certificate. NULL = no TLS. */
bool config_tls_knows_clients(const struct config_tls *tls);
/* Gives all listeners with TLS the keys for their tickets. Only before anybody else has the snapshot. */
void config_set_ticket_keys(const struct config *config, struct tls_keys *ticket_keys);

/* Calls `tell` for each listener whose certificate is out of its time, with what is wrong: "has expired". */
typedef void config_tell_certificate(void *user, const char *listener, const char *path, const char *warning);
void config_certificate_warnings(const struct config *config, config_tell_certificate *tell, void *user);

/* Writes a line "note: ..." for each setting that is valid and yet will not do what it seems to; for -t. */
void config_notes(const struct config *config, FILE *out);
/* The same, for each leg on which the host's settings forbid TCP Fast Open. */
void config_note_fast_open(const struct config *config, FILE *out);

#endif
