/*
 * Between the files of the configuration: config.c (files, references, checks), config_keys.c and config_rules.c (the
 * keys and what they set), config_print.c.
 */
#ifndef PROXYD_CONFIG_INTERNAL_H
#define PROXYD_CONFIG_INTERNAL_H

#include <stdatomic.h>

#include "proxyd/config.h"
#include "proxyd/config_values.h"
#include "proxyd/policy_rules.h"

/* What stands behind a `const struct config *`. */
struct config_snapshot {
    struct config config;
    atomic_uint references;
    bool open; /* the key at the top: for listeners of -l, and those that do not say; and the next */
    struct config_fast_open fast_open;
};

/* A listener and where it stands, until the whole file is read: `open` at the top may follow. */
struct listener_draft {
    struct config_listener listener;
    bool has_open;
    unsigned line, column; /* of its address */
};

struct config_draft {
    struct config_snapshot *snapshot;
    struct listener_draft *listeners; /* heap */
    size_t listener_count;
    size_t listener_size; /* places; those behind the count are empty, or hold one that is being read */
};

/* Reads the whole document; `root` NULL = an empty file. 0, or -1 with the error. */
SOCKS6_MUST_CHECK int config_read_document(const struct config_place *place, const struct yaml_node *root,
                                           struct config_draft *draft);
/* The value of `rules:`; `policy` is empty before. */
SOCKS6_MUST_CHECK int config_read_rules(const struct config_place *place, const struct yaml_node *node,
                                        struct policy *policy);

/* The value of `auth:`; `auth` has the defaults before. Loads the users file. */
SOCKS6_MUST_CHECK int config_read_auth(const struct config_place *place, const struct yaml_node *node,
                                       struct config_auth *auth);
void config_auth_done(struct config_auth *auth);
void config_print_auth(const struct config_auth *auth, FILE *out);
/* For config_notes(): what is unwise about the users, and users of rules who do not exist. */
void config_auth_notes(const struct config *config, FILE *out);

/* The value of `happy_eyeballs:`; `target` is the struct config_draft. */
SOCKS6_MUST_CHECK int config_read_happy_eyeballs(const struct config_place *place, const struct yaml_node *value,
                                                 void *target);
/* The value of `outgoing:`, at the top or of a rule; `outgoing` is empty before. */
SOCKS6_MUST_CHECK int config_read_outgoing(const struct config_place *place, const struct yaml_node *node,
                                           struct dialer_sources *outgoing);
/* The value of `log:`; `log` has the defaults before. */
SOCKS6_MUST_CHECK int config_read_log(const struct config_place *place, const struct yaml_node *node,
                                      struct config_log *log);
/* The value of `status:`; the same. */
SOCKS6_MUST_CHECK int config_read_status(const struct config_place *place, const struct yaml_node *node,
                                         struct config_status *status);
void config_log_init(struct config_log *log);
void config_log_done(struct config_log *log);

/* The values of `tfo:` and `tfo_without_token:`. */
SOCKS6_MUST_CHECK int config_read_fast_open(const struct config_place *place, const struct yaml_node *value,
                                            struct config_fast_open *out);
SOCKS6_MUST_CHECK int config_read_without_token(const struct config_place *place, const struct yaml_node *value,
                                                struct config_fast_open *out);
/* What a listener does not say itself. */
void config_fast_open_inherit(struct config_fast_open *own, const struct config_fast_open *defaults);
void config_print_fast_open(const char *indent, const struct config_fast_open *fast_open, FILE *out);

/* The value of `dns:`, as above. */
SOCKS6_MUST_CHECK int config_read_dns(const struct config_place *place, const struct yaml_node *value, void *target);
/* The value of `tls:` of a listener. */
SOCKS6_MUST_CHECK int config_read_tls(const struct config_place *place, const struct yaml_node *value,
                                      struct config_tls **out);
/* Takes NULL. */
void config_tls_free(struct config_tls *tls);
void config_print_tls(const struct config_tls *tls, FILE *out);
void config_dns_init(struct config_dns *dns);
void config_dns_done(struct config_dns *dns);

/* For config_print(): a text in quotes; a line with a time; the whole of `dns:`. */
void config_print_text(const char *text, FILE *out);
void config_print_time(const char *key, uint64_t ms, FILE *out);
void config_print_dns(const struct config_dns *dns, FILE *out);

/* As config_load(), from memory; `name` stands for the file in errors. */
SOCKS6_MUST_CHECK int config_load_memory(const char *name, const char *text, size_t len, const char *const *listen,
                                         size_t listen_count, const struct config **out, struct config_error *error);

/* `open:`, `tfo:` and `tfo_without_token:` at the top of the file. */
bool config_is_open(const struct config *config);
const struct config_fast_open *config_fast_open(const struct config *config);

/* Every mapping of the file with its keys, for the tests that compare documentation with it. Ends with keys NULL. */
struct config_section {
    const char *path; /* "" for the top, "limits", "rules.allow" */
    const struct config_key *keys;
    size_t key_count;
};
extern const struct config_section config_sections[];
extern const struct config_section config_rule_section;
extern const struct config_section config_dns_section;
extern const struct config_section config_tls_section;
extern const struct config_section config_happy_eyeballs_section;
extern const struct config_section config_auth_section;
extern const struct config_key config_log_keys[], config_access_keys[], config_status_keys[];
#define CONFIG_LOG_KEY_COUNT 4
#define CONFIG_ACCESS_KEY_COUNT 3
#define CONFIG_STATUS_KEY_COUNT 1

/* Names that stand in the file, each list ends in NULL. */
extern const char *const config_protocol_names[]; /* [i] is the bit 1 << i of enum config_protocol */
extern const char *const config_level_names[];    /* [enum config_log_level] */
extern const char *const config_prefer_names[];   /* [enum destination_preference] */
extern const char *const config_format_names[];   /* [enum config_log_format] */
extern const char *const config_relay_names[];    /* [enum config_relay] */
extern const char *const config_tls_version_names[];
extern const char *const config_target_names[]; /* [enum config_log_target], without FILE */
extern const char *const config_method_names[]; /* [i] is the bit 1 << i of enum config_auth_method */
extern const char *const config_field_names[];  /* [enum config_log_field] */

#endif
