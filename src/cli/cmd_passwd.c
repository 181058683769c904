#include "cli/cmd_passwd.h"

#include <crypt.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask_password.h"
#include "cli/command.h"
#include "cli/exit.h"
#include "cli/passwd_file.h"
#include "cli/say.h"

static const char name[] = "passwd";

static const char help_text[] = "Usage: socks6 passwd [OPTION]... FILE NAME\n"
                                "       socks6 passwd -n [OPTION]... NAME\n"
                                "Sets the password of the user NAME in FILE, the users file of socks6d: a user who\n"
                                "is there is changed, another one added. The password is asked for twice on the\n"
                                "terminal.\n"
                                "\n"
                                "  -c, --create           make FILE, which must not exist yet\n"
                                "  -C, --cost N           how much work a hash is: yescrypt 1 to 11 (default 5),\n"
                                "                         bcrypt 4 to 17 (10), sha512crypt 1000 to 10000000\n"
                                "                         rounds (100000)\n"
                                "  -D, --delete           remove the user\n"
                                "  -i, --stdin            read the password from the first line of standard input\n"
                                "  -m, --method METHOD    yescrypt (the default), bcrypt or sha512crypt\n"
                                "  -n, --print            write the line to standard output; there is no FILE\n"
                                "  -v, --verify           only look whether the password is right: 0 if it is, else 1\n"
                                "  -h, --help             show this\n"
                                "\n"
                                "Exit status: 0 done; 1 FILE cannot be read or written, the password is wrong, or\n"
                                "there is no such user; 2 usage.\n";

struct method {
    const char *name, *prefix;
    unsigned long cost_min, cost_max, cost;
    size_t password_max; /* bytes that it looks at */
};

static const struct method methods[] = {
    {"yescrypt", "$y$", 1, 11, 5, SOCKS6_PASSWORD_MAX},
    {"bcrypt", "$2b$", 4, 17, 10, 72},
    {"sha512crypt", "$6$", 1000, 10000000, 100000, SOCKS6_PASSWORD_MAX},
};
#define METHOD_COUNT (sizeof methods / sizeof *methods)

enum action { ACTION_SET, ACTION_DELETE, ACTION_VERIFY, ACTION_PRINT };

struct options {
    enum action action;
    bool create, from_stdin, help;
    const struct method *method;
    const char *cost_text;
    unsigned long cost;
    const char *path, *user;
};

/* --- the command line --- */

static int take_method(struct options *options, const char *text)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(text, methods[i].name) == 0) {
            options->method = &methods[i];
            return 0;
        }
    }
    return say_usage(name, "--method: '%s' is none of yescrypt, bcrypt and sha512crypt", text);
}

static int take_action(struct options *options, enum action action)
{
    if (options->action != ACTION_SET && options->action != action) {
        return say_usage(name, "only one of --delete, --print and --verify can be done");
    }
    options->action = action;
    return 0;
}

static int take_cost(struct options *options)
{
    const struct method *method = options->method;
    size_t digits;

    options->cost = method->cost;
    if (options->cost_text == NULL) {
        return 0;
    }
    digits = strspn(options->cost_text, "0123456789");
    options->cost =
        digits > 0 && digits < 10 && options->cost_text[digits] == '\0' ? strtoul(options->cost_text, NULL, 10) : 0;
    if (options->cost < method->cost_min || options->cost > method->cost_max) {
        return say_usage(name, "--cost: expected %lu to %lu for %s, found '%s'", method->cost_min, method->cost_max,
                         method->name, options->cost_text);
    }
    return 0;
}

static int take_option(struct options *options, int option, char *argument, char **argv)
{
    switch (option) {
    case 'c':
        options->create = true;
        return 0;
    case 'C':
        options->cost_text = argument;
        return 0;
    case 'D':
        return take_action(options, ACTION_DELETE);
    case 'i':
        options->from_stdin = true;
        return 0;
    case 'm':
        return take_method(options, argument);
    case 'n':
        return take_action(options, ACTION_PRINT);
    case 'v':
        return take_action(options, ACTION_VERIFY);
    default:
        return command_bad_option(name, option, argv);
    }
}

static int take_arguments(struct options *options, int argc, char **argv)
{
    int wanted = options->action == ACTION_PRINT ? 1 : 2;
    const char *why;

    if (argc != wanted) {
        return say_usage(name, wanted == 1 ? "expected NAME, and no FILE with --print" : "expected FILE and NAME");
    }
    if (options->create && options->action != ACTION_SET) {
        return say_usage(name, "--create goes with setting a password only");
    }
    options->path = wanted == 2 ? argv[0] : NULL;
    options->user = argv[wanted - 1];
    why = passwd_judge_name(options->user);
    return why == NULL ? take_cost(options) : say_usage(name, "the name %s", why);
}

static int parse(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {
        {"create", no_argument, NULL, 'c'},
        {"cost", required_argument, NULL, 'C'},
        {"delete", no_argument, NULL, 'D'},
        {"stdin", no_argument, NULL, 'i'},
        {"method", required_argument, NULL, 'm'},
        {"print", no_argument, NULL, 'n'},
        {"verify", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option, rc;

    *options = (struct options){.method = &methods[0]};
    optind = 0; /* start anew, with argv[0] the subcommand */
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":cC:Dim:nvh", longs, NULL)) != -1) {
        if (option == 'h') {
            options->help = true;
            return 0;
        }
        rc = take_option(options, option, optarg, argv);
        if (rc != 0) {
            return rc;
        }
    }
    return take_arguments(options, argc - optind, argv + optind);
}

/* --- the password --- */

static int say_password_error(int rc)
{
    switch (-rc) {
    case ENXIO:
        say(name, "there is no terminal to ask for the password; --stdin reads it from standard input");
        break;
    case EMSGSIZE:
        say(name, "the password is longer than %u bytes", SOCKS6_PASSWORD_MAX);
        break;
    case EILSEQ:
        say(name, "the password contains a NUL byte");
        break;
    case EPIPE:
        say(name, "no password was given");
        break;
    default:
        say(name, "cannot read the password: %s", strerror(-rc));
        break;
    }
    return CLI_EXIT_REMOTE;
}

static int ask_twice(char out[SOCKS6_PASSWORD_MAX + 1])
{
    char again[SOCKS6_PASSWORD_MAX + 1] = "";
    int rc = ask_password("New password: ", out);

    if (rc == 0) {
        rc = ask_password("The same again: ", again);
    }
    if (rc != 0) {
        return say_password_error(rc);
    }
    rc = strcmp(out, again);
    explicit_bzero(again, sizeof again);
    if (rc != 0) {
        say(name, "the two are not the same; nothing was changed");
        return CLI_EXIT_REMOTE;
    }
    return 0;
}

static int get_password(const struct options *options, char out[SOCKS6_PASSWORD_MAX + 1])
{
    int rc;

    if (!options->from_stdin && options->action != ACTION_VERIFY) {
        return ask_twice(out);
    }
    rc = options->from_stdin ? proxy_read_password_fd(STDIN_FILENO, out) : ask_password("Password: ", out);
    return rc != 0 ? say_password_error(rc) : 0;
}

static int judge_password(const struct options *options, const char *password)
{
    if (password[0] == '\0') {
        say(name, "the password is empty");
        return CLI_EXIT_REMOTE;
    }
    if (strlen(password) > options->method->password_max) {
        say(name, "%s looks at %zu bytes of a password only, and this one is longer", options->method->name,
            options->method->password_max);
        return CLI_EXIT_REMOTE;
    }
    return 0;
}

/* crypt(3). The text to be freed; NULL, with a sentence said, if it fails. */
static char *hash_password(const char *password, const char *setting)
{
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *hashed = data != NULL ? crypt_rn(password, setting, data, (int)sizeof *data) : NULL;
    char *copy = hashed != NULL ? strdup(hashed) : NULL;

    if (copy == NULL) {
        say(name, "cannot make a hash: %s", strerror(errno));
    }
    if (data != NULL) {
        explicit_bzero(data, sizeof *data);
        free(data);
    }
    return copy;
}

static char *new_hash(const struct options *options, const char *password)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];

    /* NULL: the salt comes from the system's random numbers. */
    if (crypt_gensalt_rn(options->method->prefix, options->cost, NULL, 0, setting, (int)sizeof setting) == NULL) {
        say(name, "cannot make a salt: %s", strerror(errno));
        return NULL;
    }
    return hash_password(password, setting);
}

/* --- what can be done --- */

static int say_outcome(const struct options *options, int outcome)
{
    switch (outcome) {
    case PASSWD_ADDED:
        say(name, "user '%s' added to %s", options->user, options->path);
        return CLI_EXIT_OK;
    case PASSWD_CHANGED:
        say(name, "password of '%s' changed in %s", options->user, options->path);
        return CLI_EXIT_OK;
    case PASSWD_DELETED:
        say(name, "user '%s' deleted from %s", options->user, options->path);
        return CLI_EXIT_OK;
    case PASSWD_NOT_THERE:
        say(name, "there is no user '%s' in %s", options->user, options->path);
        return CLI_EXIT_REMOTE;
    case PASSWD_TWICE:
        say(name, "user '%s' is in %s more than once; remove all of these lines but one", options->user, options->path);
        return CLI_EXIT_REMOTE;
    case -ENOENT:
        say(name, "%s: %s%s", options->path, strerror(ENOENT),
            options->action == ACTION_SET && !options->create ? "; --create makes it" : "");
        return CLI_EXIT_REMOTE;
    case -EEXIST:
        say(name, "%s exists already; leave --create away to add to it", options->path);
        return CLI_EXIT_REMOTE;
    default:
        say(name, "%s: %s", options->path, strerror(-outcome));
        return CLI_EXIT_REMOTE;
    }
}

/* Before anybody types a password for nothing. */
static int look_at_file(const struct options *options)
{
    if (options->path == NULL) {
        return 0;
    }
    if (options->create) {
        return access(options->path, F_OK) == 0 ? say_outcome(options, -EEXIST) : 0;
    }
    return access(options->path, R_OK) < 0 ? say_outcome(options, -errno) : 0;
}

static int set_or_print(const struct options *options, const char *password)
{
    int rc = judge_password(options, password);
    char *hash = rc == 0 ? new_hash(options, password) : NULL;

    if (hash == NULL) {
        return CLI_EXIT_REMOTE;
    }
    if (options->action == ACTION_SET) {
        rc = say_outcome(options, passwd_update(options->path, options->user, hash, options->create));
    } else if (printf("%s:%s\n", options->user, hash) < 0 || fflush(stdout) == EOF) {
        say(name, "cannot write to standard output: %s", strerror(errno));
        rc = CLI_EXIT_REMOTE;
    }
    free(hash);
    return rc;
}

static int verify(const struct options *options, const char *password)
{
    char *hash = NULL, *again;
    int rc = passwd_look_up(options->path, options->user, &hash);

    if (rc != PASSWD_CHANGED) {
        return say_outcome(options, rc);
    }
    again = hash_password(password, hash);
    rc = again != NULL && strcmp(again, hash) == 0 ? CLI_EXIT_OK : CLI_EXIT_REMOTE;
    if (again != NULL) {
        say(name, rc == CLI_EXIT_OK ? "the password of '%s' is right" : "the password of '%s' is wrong", options->user);
    }
    free(again);
    free(hash);
    return rc;
}

static int run(const struct options *options)
{
    char password[SOCKS6_PASSWORD_MAX + 1] = "";
    int rc = look_at_file(options);

    if (rc != 0) {
        return rc;
    }
    if (options->action == ACTION_DELETE) {
        return say_outcome(options, passwd_update(options->path, options->user, NULL, false));
    }
    rc = get_password(options, password);
    if (rc == 0) {
        rc = options->action == ACTION_VERIFY ? verify(options, password) : set_or_print(options, password);
    }
    explicit_bzero(password, sizeof password);
    return rc;
}

int cmd_passwd(struct proxy_options *proxy, int argc, char **argv)
{
    struct options options;
    int rc;

    if (proxy->url != NULL || proxy->user != NULL || proxy->password_file != NULL) {
        return say_usage(name, "there is no proxy in this; leave --proxy, --proxy-user and --password-file away");
    }
    rc = parse(argc, argv, &options);
    if (rc != 0) {
        return rc;
    }
    return options.help ? command_print_help(name, help_text) : run(&options);
}
