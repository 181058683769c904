/*
 * `auth:`: how clients may come in, and the users file, which is read with the configuration, or the service of PAM that
 * is asked instead.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxyd/config_internal.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *const config_method_names[] = {"anonymous", "password", "certificate", NULL};

_Static_assert(CONFIG_AUTH_ANONYMOUS == 1u << 0 && CONFIG_AUTH_PASSWORD == 1u << 1 &&
                   CONFIG_AUTH_CERTIFICATE == 1u << 2,
               "method names");

struct auth_draft {
    struct config_auth *auth;
    const struct yaml_node *methods, *users, *pam; /* NULL = not given */
};

static int read_method(const struct config_place *place, const struct yaml_node *item, void *target)
{
    unsigned *methods = target, index;

    if (read_choice(place, item, config_method_names, "a way to come in", &index) != 0) {
        return -1;
    }
    if ((*methods & 1u << index) != 0) {
        return config_fail(place, item->line, item->column, "'%s' is in this list already; remove one of the two",
                           item->text);
    }
    *methods |= 1u << index;
    return 0;
}

static int read_methods(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct auth_draft *draft = target;
    unsigned methods = 0;

    if (read_each(place, value, "would let nobody in; write 'anonymous' if nobody has to log in", read_method,
                  &methods) != 0) {
        return -1;
    }
    draft->auth->methods = methods;
    draft->auth->line = value->line;
    draft->auth->column = value->column;
    draft->methods = value;
    return 0;
}

static int read_users(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct auth_draft *draft = target;

    if (value->kind == YAML_SCALAR && strcmp(value->text, "none") == 0) {
        return 0;
    }
    draft->users = value;
    return read_file_path(place, value, &draft->auth->users_path);
}

/* The name of a file in /etc/pam.d; libpam makes it lower case. */
static bool is_service(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= USERS_SERVICE_MAX && text[0] != '.' && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == len;
}

static int read_pam(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct auth_draft *draft = target;

    if (require_scalar(place, value, "the name of a service of PAM, such as socks6d") != 0) {
        return -1;
    }
    if (strcmp(value->text, "none") == 0) {
        return 0;
    }
    if (!SOCKS6_WITH_PAM) {
        return config_fail(place, value->line, value->column,
                           "this socks6d was built without PAM; build it with 'meson setup -Dpam=enabled' (needs "
                           "libpam's headers), or write 'users: FILE'");
    }
    if (!is_service(value->text)) {
        return config_fail(place, value->line, value->column,
                           "%s is not a service of PAM; write the name of a file in /etc/pam.d, such as socks6d, of at "
                           "most %u lower-case letters, digits, '_', '-' and '.'",
                           config_show(value->text), USERS_SERVICE_MAX);
    }
    draft->pam = value;
    draft->auth->pam = strdup(value->text);
    return draft->auth->pam != NULL ? 0 : config_fail(place, value->line, value->column, "out of memory");
}

static int read_pam_remember(const struct config_place *place, const struct yaml_node *value, void *target)
{
    struct auth_draft *draft = target;

    return read_time(place, value, false, &draft->auth->pam_remember_ms);
}

static const struct config_key keys[] = {
    {"methods", read_methods},
    {"users", read_users},
    {"pam", read_pam},
    {"pam_remember", read_pam_remember},
};

const struct config_section config_auth_section = {"auth", keys, COUNT(keys)};

/* PAM knows passwords, and nothing else; and there is one place to look for a user. */
static int check_pam(const struct config_place *place, const struct auth_draft *draft)
{
    if (draft->users != NULL) {
        return config_fail(place, draft->pam->line, draft->pam->column,
                           "users are in a file or with PAM; remove one of 'users' and 'pam'");
    }
    if ((draft->auth->methods & CONFIG_AUTH_CERTIFICATE) != 0) {
        return config_fail(place, draft->methods->line, draft->methods->column,
                           "'certificate' needs a list of the users, which PAM does not have; write 'users: FILE' "
                           "instead of 'pam', or remove 'certificate'");
    }
    if ((draft->auth->methods & CONFIG_AUTH_PASSWORD) == 0) {
        return config_fail(place, draft->pam->line, draft->pam->column,
                           "nobody is asked for a password without 'password' among the methods; add 'methods: "
                           "[password]', or remove the key");
    }
    return 0;
}

/* The keys have a meaning only together. */
static int check_keys(const struct config_place *place, const struct auth_draft *draft)
{
    unsigned of_users = draft->auth->methods & (CONFIG_AUTH_PASSWORD | CONFIG_AUTH_CERTIFICATE);

    if (draft->pam != NULL) {
        return check_pam(place, draft);
    }
    if (of_users != 0 && draft->users == NULL) {
        bool is_password = (of_users & CONFIG_AUTH_PASSWORD) != 0;

        return config_fail(place, draft->methods->line, draft->methods->column,
                           "'%s' needs to know the users; add 'users: FILE' ('socks6 passwd' writes it)%s",
                           is_password ? "password" : "certificate",
                           SOCKS6_WITH_PAM && of_users == CONFIG_AUTH_PASSWORD ? ", or 'pam: SERVICE'" : "");
    }
    if (of_users == 0 && draft->users != NULL) {
        return config_fail(place, draft->users->line, draft->users->column,
                           "users cannot log in without 'password' or 'certificate' among the methods; add 'methods: "
                           "[password]', or remove the key");
    }
    return 0;
}

/* libpam does not mind: it takes the service `other` then, which lets in whom it lets in. */
static void note_service(struct config_auth *auth)
{
    static const char *const directories[] = {"/etc/pam.d", "/usr/lib/pam.d"};
    char path[32 + USERS_SERVICE_MAX];

    for (size_t i = 0; i < COUNT(directories); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directories[i], auth->pam);
        if (access(path, F_OK) == 0) {
            return;
        }
    }
    (void)snprintf(auth->remark.text, sizeof auth->remark.text,
                   "there is no file '%s' in /etc/pam.d; PAM does what its service 'other' says", auth->pam);
}

static int read_pam_users(const struct config_place *place, const struct yaml_node *node, struct config_auth *auth)
{
    if (users_of_pam(auth->pam, auth->pam_remember_ms, &auth->users) != 0) {
        return config_fail(place, node->line, node->column, "out of memory");
    }
    note_service(auth);
    return 0;
}

int config_read_auth(const struct config_place *place, const struct yaml_node *node, struct config_auth *auth)
{
    struct auth_draft draft = {.auth = auth};
    struct users_error error;

    if (read_mapping(place, node, keys, COUNT(keys), &draft) != 0 || check_keys(place, &draft) != 0) {
        return -1;
    }
    if (auth->pam != NULL) {
        return read_pam_users(place, node, auth);
    }
    if (auth->users_path == NULL) {
        return 0;
    }
    if (users_load(auth->users_path, &auth->users, &error, &auth->remark) != 0) {
        return config_fail_elsewhere(place, error.text); /* names file and line of the users file */
    }
    return 0;
}

void config_auth_done(struct config_auth *auth)
{
    free(auth->users_path);
    free(auth->pam);
    users_release(auth->users);
}

void config_print_auth(const struct config_auth *auth, FILE *out)
{
    const char *separator = "";

    fputs("auth:\n  methods: [", out);
    for (unsigned i = 0; config_method_names[i] != NULL; i++) {
        if ((auth->methods & 1u << i) != 0) {
            fprintf(out, "%s%s", separator, config_method_names[i]);
            separator = ", ";
        }
    }
    fputs("]\n", out);
    fputs("  users: ", out);
    if (auth->users_path == NULL) {
        fputs("none", out);
    } else {
        config_print_text(auth->users_path, out);
    }
    fprintf(out, "\n  pam: %s\n", auth->pam == NULL ? "none" : auth->pam);
    config_print_time("pam_remember", auth->pam_remember_ms, out);
}

/* A rule may name users who do not exist yet; one that names nobody else is most likely a slip. */
static void note_rule(const struct config_auth *auth, const struct policy_rule *rule, FILE *out)
{
    const struct nameset *named = &rule->shown[POLICY_USERS];

    if (auth->users == NULL) {
        fprintf(out, "note: the rule at line %u matches nobody: nobody can log in, no client has a user name\n",
                rule->line);
        return;
    }
    for (size_t i = 0; users_pam(auth->users) == NULL && i < named->count; i++) {
        const struct socks6_slice name = {(const uint8_t *)named->items[i], strlen(named->items[i])};

        if (users_find(auth->users, name) == NULL) {
            fprintf(out, "note: the rule at line %u names a user who is not in the users file: ", rule->line);
            config_print_text(named->items[i], out);
            fputc('\n', out);
        }
    }
}

void config_auth_notes(const struct config *config, FILE *out)
{
    const struct policy *policy = config->policy;

    if (config->auth.remark.text[0] != '\0') {
        fprintf(out, "note: %s\n", config->auth.remark.text);
    }
    for (size_t i = 0; i < policy->count; i++) {
        if (rule_has(&policy->rules[i], POLICY_USERS)) {
            note_rule(&config->auth, &policy->rules[i], out);
        }
    }
}
