#include "preload/environment.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/config.h"

#define PRELOAD "LD_PRELOAD="
#define PRELOAD_LEN (sizeof PRELOAD - 1)
#define VARIABLE RUN_VARIABLE "="
#define VARIABLE_LEN (sizeof VARIABLE - 1)

static bool is_preload(const char *entry)
{
    return strncmp(entry, PRELOAD, PRELOAD_LEN) == 0;
}

static bool is_variable(const char *entry)
{
    return strncmp(entry, VARIABLE, VARIABLE_LEN) == 0;
}

static bool is_separator(char c)
{
    return c == ':' || c == ' ' || c == '\0';
}

/* Does this entry begin with all that `config` has? */
static bool begins_with_ours(const char *entry, const struct preload_config *config)
{
    size_t len = strlen(config->preload);

    return strncmp(entry, config->preload, len) == 0 && is_separator(entry[len]);
}

/* Not checked to the last digit: the library that reads it does so, and lets nothing through if it is wrong. */
static bool is_sensible(const char *entry)
{
    return strncmp(entry + VARIABLE_LEN, "1:", 2) == 0 &&
           strlen(entry + VARIABLE_LEN) > 2 + 2 * RUN_ADDRESS_LEN + 1 + 2 * RUN_SECRET_LEN;
}

static bool is_variable_right(unsigned count, const char *last, const struct preload_config *config)
{
    return config->variable[0] == '\0' || (count == 1 && is_sensible(last));
}

/* Where we do not know our own path nothing is to be added, and nothing to be lost. */
static bool is_preload_right(unsigned count, const char *last, const struct preload_config *config)
{
    return config->preload[0] == '\0' || (count == 1 && begins_with_ours(last, config));
}

void environment_look(char *const envp[], const struct preload_config *config, struct environment_plan *out)
{
    const char *preload = PRELOAD, *variable = NULL;
    unsigned preloads = 0, variables = 0;

    *out = (struct environment_plan){.count = 3};
    for (; envp != NULL && *envp != NULL; envp++) {
        out->count++;
        if (is_preload(*envp)) {
            preloads++;
            preload = *envp; /* the dynamic linker takes the last one */
        } else if (is_variable(*envp)) {
            variables++;
            variable = *envp;
        }
    }
    out->keeps_variable = is_variable_right(variables, variable, config);
    out->is_complete = out->keeps_variable && is_preload_right(preloads, preload, config);
    out->others = begins_with_ours(preload, config) ? preload + strlen(config->preload) : preload + PRELOAD_LEN;
    out->others += strspn(out->others, ": ");
    out->text_len = sizeof config->preload + strlen(out->others) + 2;
}

/* Copies a text; where its NUL is. */
static char *put(char *at, const char *text)
{
    size_t len = strlen(text);

    memcpy(at, text, len + 1);
    return at + len;
}

/* The value of LD_PRELOAD. */
static void join(const struct environment_plan *plan, const struct preload_config *config, char *out)
{
    const char *ours = config->preload[0] != '\0' ? config->preload + PRELOAD_LEN : "";

    out = put(out, ours);
    if (plan->others[0] != '\0') {
        out = put(out, ours[0] != '\0' ? ":" : "");
        (void)put(out, plan->others);
    }
}

void environment_fill(const struct environment_plan *plan, char *const envp[], const struct preload_config *config,
                      char **entries, char *text)
{
    union {
        const char *entry;
        char *plain; /* execve(2) does not write to them, whatever its declaration says */
    } variable = {config->variable};

    for (; envp != NULL && *envp != NULL; envp++) {
        if (!is_preload(*envp) && (plan->keeps_variable || !is_variable(*envp))) {
            *entries++ = *envp;
        }
    }
    if (!plan->keeps_variable) {
        *entries++ = variable.plain;
    }
    join(plan, config, put(text, PRELOAD));
    if (text[PRELOAD_LEN] != '\0') {
        *entries++ = text;
    }
    *entries = NULL;
}

/* The program may have replaced or cleared all of `environ`. Without memory it stays so; but then there is none for a child either. */
void environment_repair(void)
{
    const struct preload_config *config = preload_config();
    struct environment_plan plan;
    char *text;

    environment_look(environ, config, &plan);
    if (plan.is_complete || (text = malloc(plan.text_len)) == NULL) {
        return;
    }
    join(&plan, config, text);
    if (text[0] != '\0') {
        (void)setenv("LD_PRELOAD", text, 1);
    }
    if (!plan.keeps_variable) {
        (void)setenv(RUN_VARIABLE, config->variable + VARIABLE_LEN, 1);
    }
    free(text);
}
