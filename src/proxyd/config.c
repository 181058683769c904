/*
 * From a file to a snapshot: reading, the checks that need the whole of it, and references.
 */
#include "proxyd/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/sock.h"
#include "proxyd/config_internal.h"
#include "proxyd/token_window.h"

#define ALL_PROTOCOLS (CONFIG_SOCKS4 | CONFIG_SOCKS5 | CONFIG_SOCKS6)

static struct config_snapshot *snapshot_of(const struct config *config)
{
    /* Every struct config that leaves this file lies in one, on the heap. */
    return (struct config_snapshot *)(uintptr_t)((const char *)config - offsetof(struct config_snapshot, config));
}

bool config_is_open(const struct config *config)
{
    return snapshot_of(config)->open;
}

const struct config_fast_open *config_fast_open(const struct config *config)
{
    return &snapshot_of(config)->fast_open;
}

void config_set_verbosity(const struct config *config, enum config_verbosity verbosity)
{
    struct config_log *log = &snapshot_of(config)->config.log;

    switch (verbosity) {
    case CONFIG_AS_CONFIGURED:
        break;
    case CONFIG_QUIET:
        log->level = log->level < CONFIG_LOG_WARNING ? log->level : CONFIG_LOG_WARNING;
        log->access = false;
        break;
    case CONFIG_VERBOSE:
        log->level = CONFIG_LOG_DEBUG;
        break;
    }
}

static void snapshot_free(struct config_snapshot *snapshot)
{
    if (snapshot == NULL) {
        return;
    }
    policy_free(snapshot->config.policy);
    config_log_done(&snapshot->config.log);
    free(snapshot->config.status.path);
    for (size_t i = 0; i < snapshot->config.listener_count; i++) {
        config_tls_free(snapshot->config.listeners[i].tls);
    }
    free(snapshot->config.listeners);
    config_dns_done(&snapshot->config.dns);
    config_auth_done(&snapshot->config.auth);
    free(snapshot);
}

const struct config *config_retain(const struct config *config)
{
    atomic_fetch_add_explicit(&snapshot_of(config)->references, 1, memory_order_relaxed);
    return config;
}

void config_release(const struct config *config)
{
    if (config == NULL) {
        return;
    }
    if (atomic_fetch_sub_explicit(&snapshot_of(config)->references, 1, memory_order_acq_rel) == 1) {
        snapshot_free(snapshot_of(config));
    }
}

/* The defaults, but for the listeners. NULL = no memory. */
static struct config_snapshot *snapshot_new(void)
{
    struct config_snapshot *snapshot = calloc(1, sizeof *snapshot);

    if (snapshot == NULL) {
        return NULL;
    }
    snapshot->config.limits = (struct config_limits){
        .handshake_ms = 10000,          /* 10 s */
        .connect_ms = 30000,            /* 30 s */
        .relay.idle_ms = 86400000,      /* 24 h */
        .relay.half_closed_ms = 300000, /* 5 min */
        .connections = 0,
        .connections_per_client = CONFIG_PER_CLIENT_AUTO,
        .options = SOCKS6_OPTIONS_CAP_12,
        .sessions = 65536,
        .sessions_anonymous = 32768,
        .sessions_per_user = 64,
        .sessions_per_client = 1024,
        .session_idle_ms = 3600000, /* 1 h */
        .token_window = TOKEN_WINDOW_MAX,
    };
    snapshot->config.auth.methods = CONFIG_AUTH_ANONYMOUS;
    snapshot->config.auth.pam_remember_ms = 60000;
    snapshot->config.happy_eyeballs = (struct config_happy_eyeballs){
        .race = {.race = true,
                 .resolution_delay_ms = HAPPY_EYEBALLS_RESOLUTION_DELAY_MS,
                 .attempt_delay_ms = HAPPY_EYEBALLS_ATTEMPT_DELAY_MS,
                 .first_family_count = 1,
                 .prefer = DESTINATION_IPV6},
        .remember_ms = 600000, /* 10 min */
        .legacy = true,
    };
    config_dns_init(&snapshot->config.dns);
    config_log_init(&snapshot->config.log);
    snapshot->fast_open.queue_len = CONFIG_FAST_OPEN_DEFAULT;
    snapshot->config.policy = policy_new();
    atomic_init(&snapshot->references, 1);
    if (snapshot->config.policy == NULL) {
        snapshot_free(snapshot);
        return NULL;
    }
    return snapshot;
}

/* That nobody is let in by mistake. `line` 0: the place has none. */
static int check_open(const struct config_place *place, unsigned line, unsigned column, const struct config *config,
                      const struct config_listener *listener)
{
    char shown[SOCKS6_ADDR_TEXT_MAX];

    if (listener->open || sock_is_loopback(&listener->address) || (config->auth.methods & CONFIG_AUTH_ANONYMOUS) == 0 ||
        config_tls_knows_clients(listener->tls) || !policy_is_open(config->policy)) {
        return 0;
    }
    (void)socks6_addr_format(&listener->address, shown, sizeof shown);
    return config_fail(
        place, line, column,
        "%s would be open to everybody: it is not a loopback address, nobody has to log in, and no rule "
        "limits who comes ('from') or where to ('to'); listen on 127.0.0.1 or \"[::1]\" instead, ask for "
        "passwords ('auth'), add rules that do, or write 'open: true'%s if this is meant",
        shown, line == 0 ? " in a configuration file" : "");
}

/* The listeners of the file, with what `open` at the top adds. */
static int take_listeners(const struct config_place *place, struct config_draft *draft)
{
    struct config *config = &draft->snapshot->config;

    assert(draft->listener_count > 0);
    config->listeners = calloc(draft->listener_count, sizeof *config->listeners);
    if (config->listeners == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    for (size_t i = 0; i < draft->listener_count; i++) {
        struct listener_draft *from = &draft->listeners[i];

        if (!from->has_open) {
            from->listener.open = draft->snapshot->open;
        }
        config_fast_open_inherit(&from->listener.fast_open, &draft->snapshot->fast_open);
        if (check_open(place, from->line, from->column, config, &from->listener) != 0) {
            return -1;
        }
        config->listeners[config->listener_count++] = from->listener;
        from->listener.tls = NULL;
    }
    return 0;
}

/* Without a file, or without `listeners:` in it. */
static int default_listeners(const struct config_place *place, struct config_draft *draft)
{
    static const uint8_t ipv4[4] = {127, 0, 0, 1}, ipv6[16] = {[15] = 1};

    draft->listeners = calloc(2, sizeof *draft->listeners);
    if (draft->listeners == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    draft->listeners[0].listener.address = socks6_addr_ipv4(ipv4, SOCKS6_PORT);
    draft->listeners[1].listener.address = socks6_addr_ipv6(ipv6, SOCKS6_PORT);
    draft->listeners[0].listener.protocols = draft->listeners[1].listener.protocols = ALL_PROTOCOLS;
    draft->listeners[0].listener.optional = draft->listeners[1].listener.optional = true;
    draft->listener_count = 2;
    return 0;
}

/* Those of -l, in place of the file's. */
static int command_line_listeners(struct config_snapshot *snapshot, const char *const *listen, size_t listen_count,
                                  struct config_error *error)
{
    struct config *config = &snapshot->config;

    config->listeners = calloc(listen_count, sizeof *config->listeners);
    if (config->listeners == NULL) {
        return config_fail(&(struct config_place){.file = "-l", .error = error}, 0, 0, "no memory for it");
    }
    for (size_t i = 0; i < listen_count; i++) {
        struct config_listener *listener = &config->listeners[i];
        char file[128], why[CONFIG_WHY_MAX];
        struct config_place place = {.file = file, .error = error};

        (void)snprintf(file, sizeof file, "-l %.120s", listen[i]);
        *listener = (struct config_listener){
            .protocols = ALL_PROTOCOLS, .open = snapshot->open, .fast_open = snapshot->fast_open};
        if (!listen_address_parse(listen[i], &listener->address, why)) {
            return config_fail(&place, 0, 0, "%s", why);
        }
        for (size_t j = 0; j < i; j++) {
            if (listener->address.port != 0 &&
                socks6_addr_equal(&config->listeners[j].address, &listener->address) != 0) {
                return config_fail(&place, 0, 0, "given twice; remove one of the two");
            }
        }
        if (check_open(&place, 0, 0, config, listener) != 0) {
            return -1;
        }
        config->listener_count++;
    }
    return 0;
}

static void number_listeners(struct config *config)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (socks6_addr_equal(&config->listeners[j].address, &config->listeners[i].address)) {
                config->listeners[i].nth++;
            }
        }
    }
}

const struct config_listener *config_find_listener(const struct config *config, const struct socks6_addr *address,
                                                   unsigned nth)
{
    for (size_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].nth == nth && socks6_addr_equal(&config->listeners[i].address, address)) {
            return &config->listeners[i];
        }
    }
    return NULL;
}

/* That those who are to log in by a certificate are asked for one somewhere. */
static int check_certificates(const struct config_place *place, const struct config *config)
{
    bool is_asked = (config->auth.methods & CONFIG_AUTH_CERTIFICATE) == 0;

    for (size_t i = 0; i < config->listener_count; i++) {
        is_asked = is_asked || config_tls_knows_clients(config->listeners[i].tls);
    }
    return is_asked
               ? 0
               : config_fail(place, config->auth.line, config->auth.column,
                             "no listener asks for the certificate that 'certificate' needs; add 'client_ca: FILE' "
                             "to the 'tls' of one");
}

/* `text` NULL: no file, the defaults. */
static int load(const struct config_place *place, const char *text, size_t len, const char *const *listen,
                size_t listen_count, const struct config **out)
{
    struct config_draft draft = {.snapshot = snapshot_new()};
    struct yaml_tree tree = {0};
    int err = -1;

    if (draft.snapshot == NULL) {
        return config_fail(place, 0, 0, "no memory to read it");
    }
    if (text != NULL &&
        (yaml_tree_load(&tree, text, len, place) != 0 || config_read_document(place, tree.root, &draft) != 0)) {
        goto out;
    }
    policy_finish(draft.snapshot->config.policy);
    if (listen_count > 0) {
        err = command_line_listeners(draft.snapshot, listen, listen_count, place->error);
    } else if (draft.listener_count > 0 || default_listeners(place, &draft) == 0) {
        err = take_listeners(place, &draft);
    }
    if (err == 0) {
        number_listeners(&draft.snapshot->config);
        err = check_certificates(place, &draft.snapshot->config);
    }
    if (err == 0) {
        *out = &draft.snapshot->config;
    }
out:
    yaml_tree_done(&tree);
    for (size_t i = 0; i < draft.listener_size; i++) {
        config_tls_free(draft.listeners[i].listener.tls);
    }
    free(draft.listeners);
    if (err != 0) {
        snapshot_free(draft.snapshot);
    }
    return err;
}

int config_load_memory(const char *name, const char *text, size_t len, const char *const *listen, size_t listen_count,
                       const struct config **out, struct config_error *error)
{
    const struct config_place place = {.file = name, .error = error};

    return load(&place, text, len, listen, listen_count, out);
}

/* The whole file, or one byte more than is allowed of it. 0 or -errno. */
static int read_file(const char *path, char **out, size_t *out_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    size_t len = 0;
    char *text;
    int err = 0;

    if (fd < 0) {
        return -errno;
    }
    text = malloc(CONFIG_FILE_MAX + 1);
    if (text == NULL) {
        err = -ENOMEM;
    }
    while (err == 0 && len <= CONFIG_FILE_MAX) {
        ssize_t got = read(fd, text + len, CONFIG_FILE_MAX + 1 - len);

        if (got == 0) {
            break;
        }
        if (got > 0) {
            len += (size_t)got;
        } else if (errno != EINTR) {
            err = -errno;
        }
    }
    close(fd);
    if (err != 0) {
        free(text);
        return err;
    }
    *out = text;
    *out_len = len;
    return 0;
}

int config_load(const char *path, const char *const *listen, size_t listen_count, const struct config **out,
                struct config_error *error)
{
    const struct config_place place = {.file = path == NULL ? "defaults" : path, .error = error};
    char *text = NULL;
    size_t len = 0;
    int err;

    if (path != NULL) {
        err = read_file(path, &text, &len);
        if (err != 0) {
            return config_fail(&place, 0, 0, "%s", strerrordesc_np(-err));
        }
    }
    err = load(&place, text, len, listen, listen_count, out);
    free(text);
    return err;
}

static void try_list(const struct socks6_addr *addrs, size_t count, unsigned line, config_tell_missing *tell,
                     void *user)
{
    for (size_t i = 0; i < count; i++) {
        /* The kernel is asked, since it knows more than the interfaces: routes, net.ipv4.ip_nonlocal_bind. */
        int error = -sock_try_bind(&addrs[i]);

        if (error != 0) {
            char text[NET_TEXT_MAX];

            source_address_format(&addrs[i], text);
            tell(user, text, line, error);
        }
    }
}

void config_missing_outgoing(const struct config *config, config_tell_missing *tell, void *user)
{
    const struct policy *policy = config->policy;

    try_list(policy->outgoing.ipv4, policy->outgoing.ipv4_count, 0, tell, user);
    try_list(policy->outgoing.ipv6, policy->outgoing.ipv6_count, 0, tell, user);
    for (size_t i = 0; i < policy->count; i++) {
        const struct policy_rule *rule = &policy->rules[i];

        try_list(rule->outgoing.ipv4, rule->outgoing.ipv4_count, rule->line, tell, user);
        try_list(rule->outgoing.ipv6, rule->outgoing.ipv6_count, rule->line, tell, user);
    }
}
