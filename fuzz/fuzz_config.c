/*
 * The configuration file: any bytes either give one error of printable ASCII, or a configuration that prints as YAML
 * that loads to the same.
 */
#include <string.h>

#include "fuzz.h"
#include "proxyd/config_internal.h"

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    require(out != NULL, "there is memory");
    config_print(config, out);
    require(fclose(out) == 0, "printing succeeds");
    return text;
}

static void check_error(const struct config_error *error)
{
    require(strncmp(error->text, "fuzz", 4) == 0, "an error begins with the file");
    require(memchr(error->text, '\0', sizeof error->text) != NULL, "an error ends");
    for (const char *c = error->text; *c != '\0'; c++) {
        require(*c >= 0x20 && *c < 0x7f, "an error is printable ASCII");
    }
}

/* Some addresses judged, so that the rules are walked. */
static void judge(const struct policy *policy)
{
    static const uint8_t addresses[][16] = {
        {[15] = 1},
        {0x20, 0x01, 0x0d, 0xb8, [15] = 7},
        {0x00, 0x64, 0xff, 0x9b, [12] = 10, 0, 0, 1},
        {[10] = 0xff, 0xff, 192, 0, 2, 1},
    };

    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        struct socks6_addr addr = socks6_addr_ipv6(addresses[i], 443);
        struct policy_request request = {.client = &addr,
                                         .user = "alice",
                                         .command = SOCKS6_COMMAND_CONNECT,
                                         .name = "www.example.org",
                                         .addr = &addr};
        bool by_name = policy_check_name(policy, &request).verdict != POLICY_DENY;
        bool by_addr = policy_check_addr(policy, NULL, &request).verdict == POLICY_ALLOW;

        require(by_name || !by_addr, "what is denied by name is allowed at no address");
    }
    (void)policy_is_open(policy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct config *config, *again;
    struct config_error error;
    char *printed, *reprinted;

    if (config_load_memory("fuzz", (const char *)data, size, NULL, 0, &config, &error) != 0) {
        check_error(&error);
        return 0;
    }
    judge(config->policy);
    printed = print(config);
    require(config_load_memory("fuzz", printed, strlen(printed), NULL, 0, &again, &error) == 0,
            "what is printed can be loaded");
    reprinted = print(again);
    require(strcmp(printed, reprinted) == 0, "it loads to the same");
    config_release(config);
    config_release(again);
    free(printed);
    free(reprinted);
    return 0;
}
