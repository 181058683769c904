/*
 * The users file: any bytes either give one error of printable ASCII that names the line, or users who are found by their
 * names and read the same when written again.
 */
#include <string.h>

#include "fuzz.h"
#include "proxyd/users.h"

static void check_error(const struct users_error *error)
{
    require(strncmp(error->text, "fuzz:", 5) == 0, "an error begins with the file");
    require(strchr("123456789", error->text[5]) != NULL, "and the line");
    for (const char *c = error->text; *c != '\0'; c++) {
        require(*c >= 0x20 && *c < 0x7f, "an error is printable ASCII");
    }
}

static void write_again(const struct users *users)
{
    const struct users *again;
    struct socks6_slice *gone;
    struct users_error error;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    require(out != NULL, "there is memory");
    for (size_t i = 0; i < users_count(users); i++) {
        const struct user *user = users_at(users, i);

        (void)fprintf(out, "%s:%s\n", user->name, user->hash != NULL ? user->hash : "*");
    }
    require(fclose(out) == 0, "writing succeeds");
    require(users_parse("fuzz", text, len, &again, &error) == 0, "what is written can be read");
    require(users_count(again) == users_count(users), "it has as many users");
    gone = calloc(users_count(users) + 1, sizeof *gone);
    require(gone != NULL, "there is memory");
    require(users_gone(users, again, true, gone) == 0, "and the same ones");
    free(gone);
    users_release(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct users *users;
    struct users_error error;

    if (users_parse("fuzz", (const char *)data, size, &users, &error) != 0) {
        check_error(&error);
        return 0;
    }
    for (size_t i = 0; i < users_count(users); i++) {
        const struct user *user = users_at(users, i);

        require(user->name_len > 0 && user->name_len <= SOCKS6_USERNAME_MAX && strlen(user->name) == user->name_len,
                "a name has 1 to 255 bytes");
        require(users_find(users, (struct socks6_slice){(const uint8_t *)user->name, user->name_len}) == user,
                "a user is found by the name");
        require(i == 0 || strcmp(users_at(users, i - 1)->name, user->name) < 0, "names come once, in order");
    }
    write_again(users);
    users_release(users);
    return 0;
}
