/*
 * Single values of the configuration file: text to value, or an error that says what to write instead. Nothing here
 * knows which keys exist; config_keys.c and config_rules.c do.
 *
 * The read_*() functions return 0, or -1 with the error written to `place`; `out` is untouched then.
 */
#ifndef PROXYD_CONFIG_VALUES_H
#define PROXYD_CONFIG_VALUES_H

#include "proxyd/config_yaml.h"
#include "proxyd/netset.h"
#include "proxyd/policy_rules.h"

/* One key of a mapping. `target` is what read_mapping() was given. */
struct config_key {
    const char *name;
    int (*read)(const struct config_place *place, const struct yaml_node *value, void *target);
};

/* More keys than any mapping has. */
#define CONFIG_KEYS_MAX 16

/*
 * Each key of the mapping is looked up in `keys` and its value read. Errors: another kind of node, an unknown key (with
 * the nearest one), a key that comes twice. Nothing ("key:" and no more) is an empty mapping.
 */
SOCKS6_MUST_CHECK int read_mapping(const struct config_place *place, const struct yaml_node *node,
                                   const struct config_key *keys, size_t key_count, void *target);

/*
 * Calls `read` for each item of a list, or once for a single scalar. Nothing at all and an empty list are errors;
 * `purpose` ends "an empty list ...".
 */
SOCKS6_MUST_CHECK int
read_each(const struct config_place *place, const struct yaml_node *node, const char *purpose,
          int (*read)(const struct config_place *place, const struct yaml_node *item, void *target), void *target);

/* That it is a scalar with some text in it; `what` is what is expected: "a time". */
SOCKS6_MUST_CHECK int require_scalar(const struct config_place *place, const struct yaml_node *node, const char *what);
SOCKS6_MUST_CHECK int require_list(const struct config_place *place, const struct yaml_node *node, const char *what);

SOCKS6_MUST_CHECK int read_bool(const struct config_place *place, const struct yaml_node *node, bool *out);
/* `word` NULL, or a text that stands for `word_value`: auto, none. */
SOCKS6_MUST_CHECK int read_number(const struct config_place *place, const struct yaml_node *node, uint32_t min,
                                  uint32_t max, const char *word, uint32_t word_value, uint32_t *out);
/* Milliseconds. `unlimited`: 0, none and off are possible and give 0. */
SOCKS6_MUST_CHECK int read_time(const struct config_place *place, const struct yaml_node *node, bool unlimited,
                                uint64_t *out);
/* The index of the text among `names`, which ends in NULL. */
SOCKS6_MUST_CHECK int read_choice(const struct config_place *place, const struct yaml_node *node,
                                  const char *const *names, const char *what, unsigned *out);

/* The one of `names` (which ends in NULL) that `text` is most likely meant to be; -1 = none is near enough. */
int nearest_name(const char *text, const char *const *names);

/* The path of a file: absolute, to be freed. One that does not begin with '/' is relative to the configuration file. */
SOCKS6_MUST_CHECK int read_file_path(const struct config_place *place, const struct yaml_node *node, char **out);
/*
 * The same where words may stand too: the path has to have a '/' in it, so that a word with a slip is no file; `words`
 * names those that may stand here instead.
 */
SOCKS6_MUST_CHECK int read_output_path(const struct config_place *place, const struct yaml_node *node,
                                       const char *words, char **out);

/* The longest time that can be set, and its text. */
#define CONFIG_TIME_MAX_MS (UINT64_C(365) * 24 * 3600 * 1000)

/* What these find wrong goes to `why` ("'x' is not ...; write ..."), which they leave alone if all is well. */
#define CONFIG_WHY_MAX 512
/* "127.0.0.1:1080", "[::1]:1080". An IPv4-mapped address becomes IPv4. */
SOCKS6_MUST_CHECK bool listen_address_parse(const char *text, struct socks6_addr *out, char why[CONFIG_WHY_MAX]);
/* "10.0.0.0/8", "192.0.2.1", "fe80::/10". An IPv4-mapped network becomes IPv4. */
SOCKS6_MUST_CHECK bool net_parse(const char *text, struct net *out, char why[CONFIG_WHY_MAX]);
/* "192.0.2.1", "2001:db8::1": one that this host may have. An IPv4-mapped address becomes IPv4. */
SOCKS6_MUST_CHECK bool source_address_parse(const char *text, struct socks6_addr *out, char why[CONFIG_WHY_MAX]);
/* "443", "8000-8999". */
SOCKS6_MUST_CHECK bool ports_parse(const char *text, struct port_range *out, char why[CONFIG_WHY_MAX]);
/* A host name, or "*." and one. */
SOCKS6_MUST_CHECK bool host_pattern_check(const char *text, char why[CONFIG_WHY_MAX]);

/* The form in which net_parse() reads it again; one address without a length. */
#define NET_TEXT_MAX 64
void net_format(const struct net *net, char out[NET_TEXT_MAX]);
/* An IP address without its port. */
void source_address_format(const struct socks6_addr *addr, char out[NET_TEXT_MAX]);

/* How many letters are wrong, missing, too many or exchanged; texts beyond 31 letters count as far off. */
unsigned text_distance(const char *a, const char *b);

#endif
