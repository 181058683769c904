/*
 * SOCKS 4, 4a and 5: any bytes, in chunks of the size that the first byte says, end as they end when they come at once. Its
 * highest bits say how clients may come in; a password is right if it is the name.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "proxyd/legacy.h"

/* What a conversation came to. */
struct outcome {
    enum legacy_status status;
    size_t taken;
    struct legacy legacy;
};

static bool is_right(const struct socks6_credentials *credentials)
{
    size_t len = credentials->username.len;

    require(len > 0 && len <= SOCKS6_USERNAME_MAX && credentials->password.len <= SOCKS6_PASSWORD_MAX,
            "credentials have their lengths");
    return credentials->password.len == len && memcmp(credentials->password.data, credentials->username.data, len) == 0;
}

static void run(const uint8_t *bytes, size_t len, size_t chunk, unsigned methods, struct outcome *outcome)
{
    size_t start = 0;

    memset(outcome, 0, sizeof *outcome);
    outcome->status = LEGACY_MORE;
    legacy_init(&outcome->legacy, bytes[0], methods);
    for (size_t end = 0; end < len && outcome->status == LEGACY_MORE;) {
        size_t used = 0;
        end = len - end > chunk ? end + chunk : len;
        uint8_t *copy = malloc(end - start);
        require(copy != NULL, "there is memory");
        memcpy(copy, bytes + start, end - start);
        outcome->status = legacy_input(&outcome->legacy, copy, end - start, &used);
        bool is_login = outcome->status == LEGACY_CREDENTIALS,
             is_good = is_login && is_right(&outcome->legacy.credentials);
        free(copy);
        require(used <= end - start, "no more is taken than was offered");
        require(outcome->status != LEGACY_MORE || end - start - used <= LEGACY_MESSAGE_MAX,
                "what is kept for the next round is bounded");
        start += used;
        if (is_login) {
            legacy_auth_done(&outcome->legacy, is_good);
            outcome->status = is_good ? LEGACY_MORE : LEGACY_REFUSED;
            end = start; /* what is behind it is looked at in the next round */
        }
    }
    outcome->taken = start;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || (data[1] != 4 && data[1] != 5)) {
        return 0;
    }
    struct outcome whole;
    struct outcome cut;
    unsigned methods = 1u + data[0] / 86u; /* 1 .. 3 */
    run(data + 1, size - 1, size, methods, &whole);
    run(data + 1, size - 1, 1u + data[0], methods, &cut);
    require(whole.status == cut.status, "chunks do not change the verdict");
    require(whole.legacy.out_len == cut.legacy.out_len &&
                memcmp(whole.legacy.out, cut.legacy.out, whole.legacy.out_len) == 0,
            "chunks do not change the answer");
    if (whole.status == LEGACY_REQUEST) {
        require(whole.taken == cut.taken && whole.legacy.command == cut.legacy.command &&
                    socks6_addr_equal(&whole.legacy.addr, &cut.legacy.addr),
                "chunks do not change the request");
        legacy_reply(&whole.legacy, SOCKS6_REPLY_SUCCESS, &whole.legacy.addr);
    }
    return 0;
}
